//! Failover by regions: tasks that nothing connects to those that failed run on.

use std::{
    collections::BTreeMap,
    fs,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use millrace_core::{
    ids::Generation,
    rest::{JobVertexInfo, SubtaskInfo},
};
use millrace_testkit::{
    cluster::{ClusterSpec, JobCluster, JobState, PATIENCE, Result, program},
    services::kafka::{Isolation, KafkaBroker},
};
use millrace_tests::{
    attack::{self, LOG_LEVEL, Logs, is_step},
    process::{
        feed::{Feed, PARTITIONS, Target},
        restart_always, unique,
    },
};

/// So many checkpoints are tried to be caught at a step.
const TRIES: usize = 40;
/// A checkpoint that all have acknowledged is complete within this time.
const ON_THE_WAY: Duration = Duration::from_millis(500);

/// Two graphs in one job: one copies a topic straight on, each of its two subtasks for itself; the other exchanges its
/// records between its subtasks. There are two taskmanagers and a spare one.
struct TwoGraphs {
    straight: String,
    exchanged: String,
    directory: tempfile::TempDir,
    cluster: JobCluster,
}

impl TwoGraphs {
    fn start(name: &str) -> Result<Self> {
        Self::start_with(name, PARTITIONS, "300 ms")
    }

    fn start_with(name: &str, partitions: i32, interval: &str) -> Result<Self> {
        let kafka = KafkaBroker::shared();
        let [straight, exchanged] = [format!("straight-{name}"), format!("exchanged-{name}")].map(|name| unique(&name));
        for topic in [&straight, &exchanged] {
            kafka.create_topic(topic, partitions)?;
            kafka.create_topic(&copy(topic), 1)?;
        }
        let directory = tempfile::tempdir().expect("a directory can be made");
        let fail_on = directory.path().join("fail").display().to_string();
        let spec = ClusterSpec::new(program("regions_job")?)
            .args(["--kafka", &kafka.bootstrap(), "--straight", &straight, "--exchanged", &exchanged])
            .args(["--fail-on", &fail_on])
            .set("state.checkpoints.dir", format!("file://{}/checkpoints", directory.path().display()))
            .set("execution.checkpointing.interval", interval)
            .set("log.level", LOG_LEVEL);
        let cluster = JobCluster::start(restart_always(spec).taskmanagers(3))?;
        Ok(Self { straight, exchanged, directory, cluster })
    }

    /// The subtasks of the graph that reads this topic.
    fn subtasks(&self, topic: &str) -> Result<Vec<SubtaskInfo>> {
        subtasks(&self.cluster, topic)
    }

    /// The same, once each is known to have read something.
    fn subtasks_that_read(&mut self, topic: &str) -> Result<Vec<SubtaskInfo>> {
        self.cluster.wait_for("records of each subtask", PATIENCE, |cluster| {
            let subtasks = subtasks(cluster, topic).unwrap_or_default();
            let read: Vec<_> = subtasks.iter().map(|subtask| subtask.metrics.read_records).collect();
            let all = !read.is_empty() && !read.contains(&0);
            (all.then_some(subtasks), format!("{read:?}"))
        })
    }

    /// Has the exchanged graph fail once, and waits until it runs again.
    fn fail_exchanged(&mut self) -> Result<()> {
        let fault = self.directory.path().join("fail");
        fs::write(&fault, "").expect("the file can be written");
        self.cluster.wait_until("recovery", |state| state.is_running() && state.job.restarts == 1)?;
        assert!(!fault.exists(), "the function has failed on it");
        Ok(())
    }

    /// The taskmanager, by its index, at which a subtask runs.
    fn taskmanager_of(&self, subtask: &SubtaskInfo) -> Result<usize> {
        let state = self.cluster.state()?;
        let of = |index: &usize| {
            let pid = Some(self.cluster.taskmanager_pid(*index));
            let mut taskmanagers = state.taskmanagers.iter();
            taskmanagers.any(|tm| tm.pid == pid && Some(&tm.id.0) == subtask.taskmanager_id.as_ref())
        };
        Ok(self.cluster.busy_taskmanagers(&state).into_iter().find(of).expect("it runs somewhere"))
    }

    /// Stops a taskmanager from running where a checkpoint is complete, and the taskmanager has committed nothing of it.
    /// Returns the checkpoint's number.
    fn pause_before_commit(&mut self, taskmanager: usize, tasks: usize) -> attack::Result<String> {
        for _ in 0..TRIES {
            let mut acknowledges = Logs::follow([self.cluster.log_file(taskmanager)]);
            let mut completes = Logs::follow([self.cluster.jobmanager_log_file()]);
            let mut acknowledged = BTreeMap::<String, usize>::new();
            let by_all = |line: &str| {
                let count = is_step(line, "acknowledge").then(|| acknowledged.entry(checkpoint(line)).or_default());
                count.is_some_and(|count| {
                    *count += 1;
                    *count == tasks
                })
            };
            let (_, line) = acknowledges.wait_for("checkpoint that all have acknowledged", PATIENCE, by_all)?;
            self.cluster.pause_taskmanager(taskmanager)?;
            let number = checkpoint(&line);
            let is = |line: &str, step| is_step(line, step) && checkpoint(line) == number;
            // Unless it was stopped before its acknowledgements were on their way.
            let complete = completes.wait_for("complete checkpoint", ON_THE_WAY, |line| is(line, "complete"));
            let committed = self.cluster.log(taskmanager).lines().any(|line| is(line, "commit"));
            if complete.is_ok() && !committed {
                return Ok(number);
            }
            self.cluster.resume_taskmanager(taskmanager)?;
        }
        Err(format!("no checkpoint of {TRIES} was caught between its completion and its commit").into())
    }

    /// Waits until the copies hold each record as often as it was written, no more and no less.
    fn check(&mut self, topic: &str, written: &BTreeMap<String, u64>) -> Result<()> {
        let all: u64 = written.values().sum();
        let copies = self.cluster.wait_for("copies of all records", PATIENCE, |_| {
            let copies = KafkaBroker::shared().consume_all(&copy(topic), Isolation::ReadCommitted).unwrap_or_default();
            let count = copies.len() as u64;
            ((count >= all).then_some(copies), format!("{count} of {all}"))
        })?;
        let mut counts = BTreeMap::<String, u64>::new();
        copies.iter().for_each(|copy| *counts.entry(copy.text().to_owned()).or_default() += 1);
        assert!(counts == *written, "the copies of {topic} differ from what was written");
        Ok(())
    }
}

fn subtasks(cluster: &JobCluster, topic: &str) -> Result<Vec<SubtaskInfo>> {
    let (job, vertices) = (cluster.job(), cluster.state()?.job.vertices);
    let mut subtasks = Vec::new();
    for vertex in vertices.iter().filter(|vertex| vertex.name.contains(topic)) {
        let info: JobVertexInfo = cluster.rest(&format!("/jobs/{job}/vertices/{}", vertex.id))?;
        subtasks.extend(info.subtasks);
    }
    Ok(subtasks)
}

/// The number of the checkpoint that a line about a step names.
fn checkpoint(line: &str) -> String {
    let number = line.split_once("checkpoint=").map_or("", |(_, rest)| rest);
    number.split_whitespace().next().unwrap_or_default().to_owned()
}

fn copy(topic: &str) -> String {
    format!("{topic}-copy")
}

fn attempts(subtasks: &[SubtaskInfo]) -> Vec<u32> {
    subtasks.iter().map(|subtask| subtask.attempt).collect()
}

/// Those that ran on have gone on counting from where they were.
fn assert_ran_on(before: &SubtaskInfo, after: &SubtaskInfo) {
    assert_eq!(after.attempt, before.attempt, "{after:?}");
    assert_eq!(after.taskmanager_id, before.taskmanager_id, "{after:?}");
    assert!(after.metrics.read_records >= before.metrics.read_records, "{before:?}, {after:?}");
    assert!(before.metrics.read_records > 0, "it had something to lose: {before:?}");
}

#[test]
fn a_lost_taskmanager_ends_only_what_is_connected_to_its_tasks() -> Result<()> {
    let mut job = TwoGraphs::start("kill")?;
    let topics = [job.straight.clone(), job.exchanged.clone()];
    let feeds = topics.each_ref().map(|topic| Feed::start(Target::Kafka(KafkaBroker::shared(), topic), 3));
    job.cluster.wait_until_running()?;
    for kill in 1..=2 {
        let state = job.cluster.wait_for_new_checkpoint()?;
        let (straight, exchanged) = (job.subtasks_that_read(&topics[0])?, job.subtasks_that_read(&topics[1])?);
        let victim = job.cluster.busy_taskmanagers(&state)[0];
        let pid = job.cluster.taskmanager_pid(victim);
        let of_victim = state.taskmanagers.iter().find(|taskmanager| taskmanager.pid == Some(pid));
        let of_victim = of_victim.map(|taskmanager| taskmanager.id.0.clone());
        job.cluster.kill_taskmanager(victim)?;
        job.cluster.wait_until("recovery", |state| state.is_running() && state.job.restarts == kill)?;
        let after = job.subtasks(&topics[0])?;
        let (hit, spared): (Vec<_>, Vec<_>) =
            straight.iter().zip(&after).partition(|(before, _)| before.taskmanager_id == of_victim);
        assert_eq!((hit.len(), spared.len()), (1, 1), "one of its two subtasks was there: {straight:?}");
        assert_ran_on(spared[0].0, spared[0].1);
        assert!(hit[0].1.attempt > hit[0].0.attempt && hit[0].1.taskmanager_id != of_victim, "{after:?}");
        // The other graph's subtasks are all connected.
        let again = job.subtasks(&topics[1])?;
        assert!(attempts(&again).iter().zip(attempts(&exchanged)).all(|(now, before)| *now > before), "{again:?}");
        job.cluster.start_taskmanager()?;
    }
    let [straight, exchanged] = feeds.map(Feed::finish);
    job.check(&topics[0], &straight)?;
    job.check(&topics[1], &exchanged)
}

#[test]
fn a_graph_that_fails_leaves_the_other_alone() -> Result<()> {
    let mut job = TwoGraphs::start("fail")?;
    let topics = [job.straight.clone(), job.exchanged.clone()];
    let feeds = topics.each_ref().map(|topic| Feed::start(Target::Kafka(KafkaBroker::shared(), topic), 5));
    job.cluster.wait_until_running()?;
    job.cluster.wait_for_new_checkpoint()?;
    let (straight, exchanged) = (job.subtasks_that_read(&topics[0])?, job.subtasks_that_read(&topics[1])?);
    job.fail_exchanged()?;
    let after = job.subtasks(&topics[0])?;
    straight.iter().zip(&after).for_each(|(before, after)| assert_ran_on(before, after));
    let again = job.subtasks(&topics[1])?;
    assert!(attempts(&again).iter().zip(attempts(&exchanged)).all(|(now, before)| *now > before), "{again:?}");
    // What ran on takes part in the next checkpoints.
    job.cluster.wait_for_new_checkpoint()?;
    let [straight, exchanged] = feeds.map(Feed::finish);
    job.check(&topics[0], &straight)?;
    job.check(&topics[1], &exchanged)
}

/// Kills the jobmanager, whose tasks are of several attempts, and starts another one: it goes on with them as they are.
fn next_jobmanager_adopts(job: &mut TwoGraphs, generation: u64) -> Result<()> {
    let topics = [job.straight.clone(), job.exchanged.clone()];
    let all = |job: &mut TwoGraphs| -> Result<Vec<SubtaskInfo>> {
        let [straight, exchanged] = topics.each_ref().map(|topic| job.subtasks_that_read(topic));
        Ok(straight?.into_iter().chain(exchanged?).collect())
    };
    // Of the tasks as they are now; and so that each knows that all run.
    job.cluster.wait_for_new_checkpoint()?;
    let before = all(job)?;
    assert!(attempts(&before).windows(2).any(|pair| pair[0] != pair[1]), "they are of several attempts: {before:?}");
    job.cluster.kill_jobmanager()?;
    job.cluster.restart_jobmanager()?;
    let adopted = |state: &JobState| state.is_running() && state.job.last_recovery.is_some();
    let state = job.cluster.wait_until("adopted job", adopted)?;
    let recovery = state.job.last_recovery.clone().expect("it was waited for");
    let phases: Vec<_> = recovery.phases.iter().map(|phase| phase.name.as_str()).collect();
    assert_eq!(phases, ["take-over", "adopt"], "{recovery:?}\n{}", job.cluster.jobmanager_log());
    assert_eq!((state.job.generation, state.job.restarts), (Generation(generation), 0), "{state}");
    assert_eq!(state.recovered_from(), None, "{state}");
    let after = all(job)?;
    before.iter().zip(&after).for_each(|(before, after)| assert_ran_on(before, after));
    Ok(())
}

#[test]
fn after_a_region_has_started_again_the_next_jobmanager_adopts_all_tasks() -> Result<()> {
    let mut job = TwoGraphs::start("adopt")?;
    let topics = [job.straight.clone(), job.exchanged.clone()];
    let feeds = topics.each_ref().map(|topic| Feed::start(Target::Kafka(KafkaBroker::shared(), topic), 9));
    job.cluster.wait_until_running()?;
    job.cluster.wait_for_new_checkpoint()?;
    let before = job.subtasks_that_read(&topics[0])?;
    job.fail_exchanged()?;
    next_jobmanager_adopts(&mut job, 2)?;

    // Under the jobmanager that has adopted them, regions start again as before, and the one after it adopts them too.
    let state = job.cluster.wait_for_new_checkpoint()?;
    job.cluster.kill_taskmanager(job.cluster.busy_taskmanagers(&state)[0])?;
    job.cluster.wait_until("recovery", |state| state.is_running() && state.job.restarts == 1)?;
    let after = job.subtasks(&topics[0])?;
    let ran_on = before.iter().zip(&after).filter(|(before, after)| before.attempt == after.attempt).count();
    assert_eq!(ran_on, 1, "one of the two subtasks was at the lost taskmanager: {after:?}");
    next_jobmanager_adopts(&mut job, 3)?;

    let [straight, exchanged] = feeds.map(Feed::finish);
    job.check(&topics[0], &straight)?;
    job.check(&topics[1], &exchanged)
}

/// A subtask whose transactions nobody else knows of: those that run on have their own, and the other region that starts
/// again has another sink. If it commits only a share of what its sink had prepared, as when all subtasks start, this
/// output is lost.
#[test]
fn a_region_commits_what_it_had_prepared_before_its_taskmanager_was_lost() -> attack::Result<()> {
    let mut job = TwoGraphs::start("commit")?;
    let topics = [job.straight.clone(), job.exchanged.clone()];
    let kafka = KafkaBroker::shared();
    job.cluster.wait_until_running()?;
    // Only the second subtask has something to commit.
    let first = Feed::start(Target::Partition(kafka, &topics[0], 0), 6);
    let read = job.cluster.wait_for("records of a subtask", PATIENCE, |cluster| {
        let subtasks = subtasks(cluster, &topics[0]).unwrap_or_default();
        let reads = subtasks.iter().position(|subtask| subtask.metrics.read_records > 0);
        (reads, format!("{subtasks:?}"))
    })?;
    let mut written = first.finish();
    let partition = if read == 1 { 0 } else { 1 };
    let feed = Feed::start(Target::Partition(kafka, &topics[0], partition), 7);
    let exchanged = Feed::start(Target::Kafka(kafka, &topics[1]), 8);
    for kill in 1..=3 {
        job.cluster.wait_for_new_checkpoint()?;
        let (straight, others) = (job.subtasks(&topics[0])?, job.subtasks(&topics[1])?);
        let (spared, hit) = (&straight[0], &straight[1]);
        let victim = job.taskmanager_of(hit)?;
        let of_victim = |subtask: &&SubtaskInfo| subtask.taskmanager_id == hit.taskmanager_id;
        let tasks = straight.iter().chain(&others).filter(of_victim).count();
        let checkpoint = job.pause_before_commit(victim, tasks)?;
        job.cluster.kill_taskmanager(victim)?;
        let state = job.cluster.wait_until("recovery", |state| state.is_running() && state.job.restarts == kill)?;
        assert_eq!(state.recovered_from().map(|id| id.to_string()), Some(checkpoint.clone()), "{state}");
        let commits = |line: &str| is_step(line, "commit") && self::checkpoint(line) == checkpoint;
        assert!(!job.cluster.log(victim).lines().any(commits), "it was killed before it committed {checkpoint}");
        let after = job.subtasks(&topics[0])?;
        assert_eq!((after[0].attempt, &after[0].taskmanager_id), (spared.attempt, &spared.taskmanager_id), "{after:?}");
        assert!(after[1].attempt > hit.attempt && after[1].taskmanager_id != hit.taskmanager_id, "{after:?}");
        job.cluster.start_taskmanager()?;
    }
    for (record, count) in feed.finish() {
        *written.entry(record).or_default() += count;
    }
    job.check(&topics[0], &written)?;
    Ok(job.check(&topics[1], &exchanged.finish())?)
}

/// Whenever the whole job starts, partitions are dealt out by their names: the eleventh was found last and comes third now,
/// so that the others have moved. If a region that fails soon after went back alone, to the partitions that its subtask
/// had in the checkpoint, some would be read twice and some by nobody.
#[test]
fn soon_after_a_start_of_the_whole_job_no_region_goes_back_alone() -> Result<()> {
    let (kafka, partitions) = (KafkaBroker::shared(), 11);
    let mut job = TwoGraphs::start_with("anew", partitions - 1, "10 s")?;
    let topic = job.straight.clone();
    let mut written = BTreeMap::new();
    let mut write = |round: &str| {
        (0..partitions).try_for_each(|partition| {
            let record = format!("{round} {partition}");
            kafka.produce_to(&topic, partition, [&record])?;
            written.insert(record, 1);
            Ok::<_, millrace_testkit::services::Error>(())
        })
    };
    job.cluster.wait_until_running()?;
    kafka.grow_topic(&topic, partitions)?;
    write("before")?;
    job.cluster.wait_for("records of all partitions", PATIENCE, |cluster| {
        let subtasks = subtasks(cluster, &topic).unwrap_or_default();
        let read: u64 = subtasks.iter().map(|subtask| subtask.metrics.read_records).sum();
        ((read == partitions as u64).then_some(()), format!("{read}"))
    })?;
    let read_ms = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970").as_millis() as u64;
    let state = job.cluster.wait_until("checkpoint with all of them", |state| {
        state.completed().is_some_and(|checkpoint| checkpoint.trigger_timestamp > read_ms)
    })?;
    for _ in 0..2 {
        job.cluster.start_taskmanager()?;
    }
    job.cluster.wait_until("taskmanagers", |state| state.taskmanagers.len() == 5)?;
    for victim in job.cluster.busy_taskmanagers(&state) {
        job.cluster.kill_taskmanager(victim)?;
    }
    let started = |state: &JobState| state.is_running() && state.recovered_from().is_some();
    let state = job.cluster.wait_until("start of all", |state| started(state) && state.taskmanagers.len() == 3)?;
    write("behind")?;
    let before = job.subtasks_that_read(&topic)?;
    // Some start once more, before there is another checkpoint.
    job.cluster.kill_taskmanager(job.taskmanager_of(&before[0])?)?;
    let restarted = |after: &JobState| started(after) && after.job.restarts > state.job.restarts;
    let after = job.cluster.wait_until("recovery", restarted)?;
    assert_eq!(after.recovered_from(), state.recovered_from(), "there was no other checkpoint: {after}");
    let again = job.subtasks(&topic)?;
    assert!(attempts(&again).iter().zip(attempts(&before)).all(|(now, before)| *now > before), "{again:?}");
    job.check(&topic, &written)
}
