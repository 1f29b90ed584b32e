//! The scheduler against a world of taskmanagers and tasks in which anything fails at any time, a schedule per seed.

use std::collections::VecDeque;

use millrace_core::ids::VertexId;
use rand::{Rng, SeedableRng, seq::IteratorRandom};
use rand_chacha::ChaCha8Rng;

use super::{regions::Edge, *};

/// What is under way to the scheduler, and what really runs.
struct World {
    rng: ChaCha8Rng,
    job: JobScheduler,
    now: Duration,
    plan: Plan,
    /// The taskmanagers that live.
    live: BTreeSet<TaskManagerId>,
    started: u32,
    /// The tasks that live, and where.
    tasks: BTreeMap<(Attempt, TaskId), TaskManagerId>,
    /// The attempt of the job that the tasks of a taskmanager are a part of.
    joined: BTreeMap<TaskManagerId, Attempt>,
    /// Those that live on after their taskmanager was lost, by the attempt of the job that they are a part of.
    zombies: BTreeMap<Attempt, BTreeSet<TaskId>>,
    /// The newest attempt that the log holds a mark of.
    marked: Attempt,
    /// How often all tasks of an attempt lived on when the job was started as a whole.
    survived: u32,
    inbox: VecDeque<Event>,
    timers: Vec<Event>,
    /// The attempts whose tasks were told to run.
    ran: BTreeSet<Attempt>,
    /// What has failed since all tasks ran.
    failed: BTreeSet<TaskId>,
    /// Some of it when others were about to start again.
    meanwhile: bool,
    /// How often the job started in part, how often so after more had failed meanwhile, and how often as a whole.
    partly: u32,
    extended: u32,
    wholly: u32,
}

impl World {
    fn new(seed: u64, adaptive: bool) -> Self {
        let task = |vertex, subtask| TaskId { vertex: VertexId(vertex), subtask };
        let tasks: Vec<_> = (0..3).flat_map(|vertex| (0..3).map(move |subtask| task(vertex, subtask))).collect();
        let edge = Edge { between: [VertexId(1), VertexId(2)], forward: false };
        let plan = Plan {
            regions: regions::regions(&tasks, std::iter::once(edge)),
            tasks,
            slots_needed: 3,
            checkpoints: true,
        };
        let job =
            JobScheduler::new(plan.clone(), RestartStrategy::FixedDelay { attempts: u32::MAX, delay: Duration::ZERO });
        let millis = Duration::from_millis;
        let settings = AdaptiveSettings {
            submission_wait: None,
            submission_stabilization: millis(5),
            executing_stabilization: millis(20),
            cooldown_after_rescaling: millis(10),
        };
        Self {
            rng: ChaCha8Rng::seed_from_u64(seed),
            job: if adaptive { job.adaptive(settings) } else { job },
            now: Duration::ZERO,
            plan,
            live: BTreeSet::new(),
            started: 0,
            tasks: BTreeMap::new(),
            joined: BTreeMap::new(),
            zombies: BTreeMap::new(),
            marked: Attempt(0),
            survived: 0,
            inbox: VecDeque::new(),
            timers: Vec::new(),
            ran: BTreeSet::new(),
            failed: BTreeSet::new(),
            meanwhile: false,
            partly: 0,
            extended: 0,
            wholly: 0,
        }
    }

    fn register(&mut self) {
        let id = TaskManagerId(format!("tm-{}", self.started));
        // Some come in the place of others.
        let resource_id = format!("resource-{}", self.started % 5);
        self.started += 1;
        self.live.insert(id.clone());
        self.inbox.push_back(Event::TaskManagerRegistered { id, resource_id, slots: 1 });
    }

    fn kill(&mut self) {
        let Some(id) = self.live.iter().choose(&mut self.rng).cloned() else { return };
        let lives_on = self.rng.random_bool(0.5);
        self.lose(id, lives_on);
        // Whoever is connected to it may see that first.
        if self.rng.random_bool(0.5) {
            self.fail(|task| task.vertex != VertexId(0));
        }
    }

    fn lose(&mut self, id: TaskManagerId, lives_on: bool) {
        self.live.remove(&id);
        let on_it: Vec<_> = self.tasks.extract_if(.., |_, place| *place == id).map(|(key, _)| key).collect();
        for (deployed, task) in on_it.into_iter().filter(|_| lives_on) {
            let attempt = self.joined.get(&id).map_or(deployed, |joined| deployed.max(*joined));
            self.zombies.entry(attempt).or_default().insert(task);
        }
        self.inbox.push_back(Event::TaskManagerLost { id, error: Error::external("lost") });
    }

    fn fail(&mut self, which: impl Fn(&TaskId) -> bool) {
        let alive = self.tasks.keys().filter(|(_, task)| which(task));
        let Some(key) = alive.choose(&mut self.rng).copied() else { return };
        self.tasks.remove(&key);
        self.inbox.push_back(Event::TaskFailed(key.0, key.1, Error::external("failed")));
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Prepare(attempt) => {
                self.inbox.push_back(Event::Prepared(attempt));
                if self.job.must_be_marked() {
                    self.write_mark(attempt);
                }
            }
            Effect::Join(attempt, places) => {
                for place in places.into_iter().filter(|place| self.live.contains(place)) {
                    self.joined.insert(place.clone(), attempt);
                    self.inbox.push_back(Event::Joined(attempt, place));
                }
            }
            Effect::Deploy(attempt, assignment) => {
                self.none_could_be_adopted();
                for (task, place) in assignment {
                    if self.job.runs_on(task) {
                        let joined = self.joined.get(&place).filter(|_| self.live.contains(&place));
                        assert!(joined.is_none_or(|joined| *joined == attempt), "{place} is of {joined:?}");
                        let runs = self.job.attempt_of(task).is_some_and(|of| self.ran.contains(&of));
                        assert!(runs, "task {task} was never told to run");
                        continue;
                    }
                    let before = self.tasks.keys().find(|(_, other)| *other == task);
                    assert!(before.is_none(), "task {task} still runs as {before:?}");
                    if self.live.contains(&place) {
                        self.tasks.insert((attempt, task), place);
                        self.inbox.push_back(Event::TaskDeployed(attempt, task));
                    }
                }
            }
            Effect::Start(attempt) => {
                let attempts = self.job.attempts();
                assert!(attempts.contains(&attempt));
                self.ran.insert(attempt);
                if attempts.len() > 1 {
                    self.partly += 1;
                    self.extended += u32::from(self.meanwhile);
                } else {
                    self.wholly += 1
                }
                self.failed.clear();
                self.meanwhile = false;
                self.inbox.push_back(Event::CheckpointCompleted { is_final: false });
            }
            Effect::CancelTasks(tasks) => {
                self.none_ends_without_cause(&tasks);
                for (task, _) in tasks {
                    let key = (self.job.attempt_of(task).expect("a task that was deployed"), task);
                    if self.tasks.remove(&key).is_some() {
                        self.inbox.push_back(Event::TaskCanceled(key.0, task));
                    }
                }
            }
            Effect::LookAfter(_) => self.timers.push(Event::LookTimer),
            Effect::RestartAfter(attempt, _) => self.timers.push(Event::RestartTimer(attempt)),
            Effect::HandOver(attempt) => self.inbox.push_back(Event::HandedOver(attempt)),
            Effect::Stopped(_) | Effect::Report(..) => {}
            other => panic!("{other:?}"),
        }
    }

    /// It takes a while, and may fail.
    fn write_mark(&mut self, attempt: Attempt) {
        if self.rng.random_bool(0.2) {
            let away = Error::external("the log is away");
            return self.inbox.push_back(Event::AttemptFailed(attempt, away));
        }
        self.marked = attempt;
        self.timers.push(Event::Marked(attempt));
    }

    /// Before anything is deployed: whatever lives on is refused by the next jobmanager, or not whole.
    fn none_could_be_adopted(&mut self) {
        let all = self.plan.tasks.len();
        let whole: Vec<_> = self.zombies.iter().filter(|(_, tasks)| tasks.len() == all).map(|(of, _)| *of).collect();
        assert!(whole.iter().all(|of| *of < self.marked), "attempts {whole:?} live on, {} is marked", self.marked);
        self.survived += whole.len() as u32;
        self.zombies.retain(|_, tasks| tasks.len() < all);
    }

    /// Only what is connected to something that has failed starts again, where all others have a checkpoint to go on from.
    fn none_ends_without_cause(&self, tasks: &BTreeMap<TaskId, TaskManagerId>) {
        if self.job.has_checkpoint && self.job.adaptive.is_none() {
            let spared = self.plan.regions.iter().filter(|region| region.is_disjoint(&self.failed));
            let spare: Vec<_> = spared.flatten().filter(|task| tasks.contains_key(task)).collect();
            assert!(spare.is_empty(), "{spare:?} end for {:?}", self.failed);
        }
    }

    fn note_failure(&mut self, event: &Event) {
        let failed: Vec<_> = match event {
            Event::TaskFailed(attempt, task, _) if self.job.is_current(*attempt, *task) => vec![*task],
            Event::TaskManagerLost { id, .. } => {
                let tasks = self.plan.tasks.iter();
                tasks.filter(|task| self.job.last_place(**task) == Some(id)).copied().collect()
            }
            _ => return,
        };
        let ends = matches!(self.job.phase, Phase::Ending { .. });
        self.meanwhile |= !failed.is_empty() && !ends && !self.job.kept.assignment.is_empty();
        self.failed.extend(failed);
    }

    fn deliver(&mut self) {
        let Some(event) = self.inbox.pop_front() else { return };
        self.note_failure(&event);
        let effects = self.job.on(self.now, event);
        effects.into_iter().for_each(|effect| self.carry_out(effect));
    }

    fn step(&mut self) {
        self.now += Duration::from_millis(self.rng.random_range(0..4));
        match self.rng.random_range(0..100) {
            0..2 if self.rng.random_bool(0.1) => {
                std::mem::take(&mut self.live).into_iter().for_each(|id| self.lose(id, true));
            }
            0..2 => self.kill(),
            2..4 => self.fail(|_| true),
            4..9 if self.live.len() < 5 => self.register(),
            9..20 if !self.timers.is_empty() => {
                let timer = self.timers.swap_remove(self.rng.random_range(0..self.timers.len()));
                self.inbox.push_back(timer);
            }
            _ => self.deliver(),
        }
        if self.job.status() == JobStatus::Running && self.inbox.is_empty() {
            let running: BTreeMap<_, _> = self.tasks.iter().map(|((_, task), at)| (*task, at.clone())).collect();
            assert_eq!(Some(&running), self.job.assignment(), "what runs is what the scheduler knows");
            let slots = self.job.slots_used();
            assert_eq!(running.len(), self.plan.tasks.iter().filter(|task| task.subtask < slots).count());
        }
    }

    /// Nothing fails any more, and there are slots: the job runs.
    fn settle(&mut self) {
        while self.live.len() < 3 {
            self.register();
        }
        for _ in 0..2_000 {
            self.now += Duration::from_millis(1);
            let timers = std::mem::take(&mut self.timers);
            self.inbox.extend(timers);
            self.deliver();
        }
        assert_eq!((self.job.status(), self.tasks.len()), (JobStatus::Running, self.plan.tasks.len()));
    }
}

fn run(adaptive: bool) -> [u32; 4] {
    let mut met = [0; 4];
    for seed in 0..200 {
        let mut world = World::new(seed, adaptive);
        (0..3).for_each(|_| world.register());
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            (0..1_000).for_each(|_| world.step());
            world.settle();
        }));
        assert!(outcome.is_ok(), "seed {seed}");
        let World { partly, extended, wholly, survived, .. } = world;
        met.iter_mut().zip([partly, extended, wholly, survived]).for_each(|(met, more)| *met += more);
    }
    met
}

#[test]
fn whatever_fails_the_job_runs_again_and_no_task_twice() {
    let [partly, extended, wholly, survived] = run(false);
    assert!(partly > 500 && wholly > 500, "{partly} starts of a part, {wholly} of the whole");
    assert!(extended > 500, "{extended} starts of a part to which something was added after it had ended");
    assert!(survived > 100, "{survived} attempts lived on as a whole");
}

#[test]
fn the_same_with_as_many_slots_as_there_are() {
    assert_eq!(run(true)[0], 0, "only as a whole");
}
