//! Strikes a fault, and sees to it that it has happened.

mod services;

use std::{
    thread,
    time::{Duration, Instant, SystemTime},
};

use millrace_core::rest::JobVertexDetails;
use millrace_testkit::{
    cluster::PATIENCE,
    faults::{FakeClock, StoreFault},
};
use rand::{Rng, SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;

use super::{
    Fault, Moment, Result, Strike,
    place::Place,
    steps::{Logs, is_step},
    team::Team,
};

/// Short: a fault that is noticed by silence shall not take long.
pub const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the harness's own job waits for an answer of Kafka's: less than some faults last.
pub const KAFKA_SOCKET_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a step may not come.
const STEP_LIMIT: Duration = Duration::from_secs(30);

/// A fault that was struck.
pub struct Done {
    /// When.
    pub at: Instant,
    /// What shows that it happened.
    pub evidence: String,
}

/// Waits for a fault's moment and strikes it.
pub fn strike(team: &mut Team<'_>, place: &Place, strike: Strike) -> Result<Done> {
    let mut rng = ChaCha8Rng::seed_from_u64(strike.seed);
    let victim = *team.busy().choose(&mut rng).ok_or("there is no taskmanager to hit")?;
    let victim = wait_for(team, strike.moment, victim)?;
    let at = Instant::now();
    let mut attack = Attack { team, place, victim, rng };
    let evidence = attack.strike(strike.fault)?;
    Ok(Done { at, evidence })
}

/// Waits for the moment; whom the fault hits.
fn wait_for(team: &mut Team<'_>, moment: Moment, victim: usize) -> Result<usize> {
    match moment {
        Moment::After(ms) | Moment::Hasty(ms) => {
            // A moment is what is random here: there is nothing to wait for.
            thread::sleep(Duration::from_millis(ms));
            Ok(victim)
        }
        Moment::TaskManagerStep(step) => {
            let alive = team.alive();
            let mut logs = Logs::follow(alive.iter().map(|index| team.cluster.log_file(*index)));
            if moment.is_in_recovery() {
                // Something to recover from; the fault itself hits another one, or the one in its place.
                team.kill(victim)?;
                team.add()?;
            }
            let (index, _) = logs.wait_for(&format!("step {step:?}"), STEP_LIMIT, |line| is_step(line, step))?;
            Ok(alive[index])
        }
        Moment::JobManagerStep(step) => {
            let mut logs = Logs::follow([team.cluster.jobmanager_log_file()]);
            let mut next = victim;
            if moment.is_in_recovery() {
                // Something to recover from; the fault itself hits another one.
                team.kill(victim)?;
                team.add()?;
                next = team.busy().into_iter().find(|index| *index != victim).unwrap_or(victim);
            }
            logs.wait_for(&format!("step {step:?}"), STEP_LIMIT, |line| is_step(line, step))?;
            Ok(next)
        }
    }
}

struct Attack<'a, 'b> {
    team: &'a mut Team<'b>,
    place: &'a Place,
    victim: usize,
    rng: ChaCha8Rng,
}

impl Attack<'_, '_> {
    /// Returns what shows that it happened.
    fn strike(&mut self, fault: Fault) -> Result<String> {
        match fault {
            Fault::KillTaskManager => {
                let pid = self.team.kill(self.victim)?;
                // The one that comes in its place does not take part in the recovery: a spare one waits.
                self.team.cluster.wait_until("recovery", |state| {
                    state.is_running() && !state.taskmanagers.iter().any(|taskmanager| taskmanager.pid == Some(pid))
                })?;
                self.team.add()?;
                Ok(format!("process {pid} ended by SIGKILL"))
            }
            Fault::KillJobManager => self.kill_jobmanager(),
            Fault::KillBoth => {
                let pid = self.team.kill(self.victim)?;
                let both = self.kill_jobmanager()?;
                self.team.add()?;
                Ok(format!("{both}, and {pid}"))
            }
            Fault::Rescale => {
                let (before, now) = self.team.rescale()?;
                self.team.cluster.wait_until("job at another parallelism", |state| {
                    let as_now = |vertex: &JobVertexDetails| vertex.parallelism == now as u32;
                    state.is_running() && state.job.vertices.iter().all(as_now)
                })?;
                Ok(format!("all processes ended by SIGKILL; from {before} subtasks to {now}"))
            }
            Fault::PauseTaskManager => {
                self.team.cluster.pause_taskmanager(self.victim)?;
                self.team.wait_until_given_up(self.victim)?;
                self.linger(0, 1500);
                self.team.cluster.resume_taskmanager(self.victim)?;
                Ok(format!("taskmanager {} given up while its process lives", self.victim))
            }
            Fault::StallTaskManager => {
                self.team.cluster.pause_taskmanager(self.victim)?;
                self.linger(200, HEARTBEAT_TIMEOUT.as_millis() as u64 / 2);
                self.team.cluster.resume_taskmanager(self.victim)?;
                Ok(format!("taskmanager {} stood still", self.victim))
            }
            Fault::PauseJobManager => self.pause_jobmanager(),
            Fault::CloseConnections => {
                let member = self.team.member(self.victim);
                let closed = member.rpc.close() + member.data.close();
                happened(closed, format!("{closed} connections of taskmanager {} reset", self.victim))
            }
            Fault::CutConnections => self.cut_connections(),
            Fault::CutData => self.cut_data(),
            Fault::Latency => self.delay(),
            Fault::DiskFull => self.fill_disk(),
            Fault::StoreRefuses => self.fail_store(StoreFault::Refuses),
            Fault::StoreSlow => {
                let delay = Duration::from_millis(self.rng.random_range(200..800));
                self.fail_store(StoreFault::Slow(delay))
            }
            Fault::StoreLosesAnswers => self.fail_store(StoreFault::LosesAnswers),
            Fault::StoreActsLate => {
                let delay = Duration::from_millis(self.rng.random_range(300..2500));
                self.fail_store(StoreFault::ActsLate(delay))
            }
            Fault::RestartKafka => self.restart_kafka(),
            Fault::KafkaCut => self.cut_kafka(),
            Fault::KafkaClose => self.close_kafka(),
            Fault::KafkaLatency => self.delay_kafka(),
            Fault::RestartPostgres => self.restart_postgres(),
            Fault::JumpClock => self.jump_clock(),
        }
    }

    /// The length of a fault; nothing is waited for.
    fn linger(&mut self, from_ms: u64, to_ms: u64) {
        thread::sleep(Duration::from_millis(self.rng.random_range(from_ms..to_ms)));
    }

    fn kill_jobmanager(&mut self) -> Result<String> {
        let pid = self.team.cluster.jobmanager_pid();
        self.team.cluster.kill_jobmanager()?;
        self.team.cluster.restart_jobmanager()?;
        Ok(format!("process {pid} ended by SIGKILL, {} in its place", self.team.cluster.jobmanager_pid()))
    }

    fn pause_jobmanager(&mut self) -> Result<String> {
        let logs = self.team.alive().into_iter().map(|index| self.team.cluster.log_file(index));
        let mut logs = Logs::follow(logs.collect::<Vec<_>>());
        self.team.cluster.pause_jobmanager()?;
        let lost = logs.wait_for("loss of the jobmanager", STEP_LIMIT, |line| line.contains("lost the jobmanager"));
        self.linger(0, 1000);
        self.team.cluster.resume_jobmanager()?;
        lost.map(|_| "taskmanagers lost the jobmanager while its process lives".to_owned())
    }

    fn cut_connections(&mut self) -> Result<String> {
        let victim = self.victim;
        let member = self.team.member(victim);
        member.rpc.hold();
        member.data.hold();
        let given_up = self.team.wait_until_given_up(victim);
        self.linger(0, 1500);
        let member = self.team.member(victim);
        let held = member.rpc.release() + member.data.release();
        given_up?;
        happened(held, format!("taskmanager {victim} given up, {held} pieces held back and delivered late"))
    }

    fn cut_data(&mut self) -> Result<String> {
        let receives = |index: &usize| self.team.member(*index).data.connections() > 0;
        let victim = self.team.busy().into_iter().find(receives).ok_or("no taskmanager gets records from another")?;
        self.team.member(victim).data.hold();
        self.linger(300, 1500);
        let proxy = &self.team.member(victim).data;
        at_least(1, || proxy.held());
        let held = proxy.release();
        happened(held, format!("{held} pieces on their way to taskmanager {victim} held back"))
    }

    fn delay(&mut self) -> Result<String> {
        let delay = Duration::from_millis(self.rng.random_range(20..200));
        let all = self.team.alive();
        let set = |delay| -> u64 {
            let members = all.iter().map(|index| self.team.member(*index));
            members.map(|member| member.rpc.delay(delay) + member.data.delay(delay)).sum()
        };
        set(delay);
        thread::sleep(Duration::from_millis(self.rng.random_range(1000..2500)));
        let delayed = set(Duration::ZERO);
        happened(delayed, format!("{delayed} pieces came {delay:?} late"))
    }

    fn fill_disk(&mut self) -> Result<String> {
        let disk = self.place.disk.as_ref().ok_or("there is no small disk")?;
        let before = self.team.cluster.state()?;
        let filled = disk.fill()?;
        let noticed = self.team.cluster.wait_for("trouble with a full disk", PATIENCE, |cluster| {
            // What the job deletes meanwhile is taken too.
            let full = disk.fill();
            let state = cluster.state();
            let said = state.as_ref().map_or_else(ToString::to_string, ToString::to_string);
            let noticed = state.ok().filter(|state| {
                state.checkpoints.counts.failed > before.checkpoints.counts.failed
                    || state.job.restarts > before.job.restarts
            });
            (noticed.filter(|_| full.is_ok()), said)
        });
        self.linger(0, 1000);
        disk.free()?;
        let after = noticed?;
        let failed = after.checkpoints.counts.failed - before.checkpoints.counts.failed;
        let restarts = after.job.restarts - before.job.restarts;
        Ok(format!("{filled} bytes of ballast, {failed} checkpoints failed, {restarts} restarts"))
    }

    fn jump_clock(&mut self) -> Result<String> {
        let at_jobmanager = self.rng.random_ratio(1, 3);
        // Back, and forward with the end of the fault. An object store does not take a request that is more than 15
        // minutes off. And libfaketime does not know the timed waits of C11's threads, which librdkafka has. With a clock
        // ahead of the machine's they would last that much longer, as they never do where a clock is set; with one behind
        // it they end at once and begin again, and a new client may miss the start of its thread so, and wait a minute for
        // it. So there must be no other fault before the clock is right again.
        let minutes = -self.rng.random_range(1..=14);
        let (clock, log, whose) = if at_jobmanager {
            (self.team.clock.clone(), self.team.cluster.jobmanager_log_file(), "the jobmanager".to_owned())
        } else {
            let clock = self.team.member(self.victim).clock.clone();
            (clock, self.team.cluster.log_file(self.victim), format!("taskmanager {}", self.victim))
        };
        let clock: FakeClock = clock.ok_or("the process has no clock of its own")?;
        let mut logs = Logs::follow([log]);
        clock.shift(minutes * 60)?;
        let jumped = logs.wait_for("line of a process whose clock has jumped", STEP_LIMIT, |line| {
            off_by(line).is_some_and(|off| (off - minutes * 60).abs() < 30)
        });
        self.linger(0, 1000);
        clock.shift(0)?;
        let (_, line) = jumped?;
        logs.wait_for("line of a process whose clock is right again", STEP_LIMIT, |line| {
            off_by(line).is_some_and(|off| off.abs() < 30)
        })?;
        let time = line.split(' ').next().unwrap_or_default();
        Ok(format!("the clock of {whose} went {minutes:+} min: it logs {time}"))
    }
}

/// How many seconds a log line's time is off.
fn off_by(line: &str) -> Option<i64> {
    let time = humantime::parse_rfc3339(line.split(' ').next()?).ok()?;
    Some(match time.duration_since(SystemTime::now()) {
        Ok(ahead) => ahead.as_secs() as i64,
        Err(behind) => -(behind.duration().as_secs() as i64),
    })
}

/// Waits until it has happened so often, or has not within the limit; how often it has.
fn at_least(times: u64, mut happened: impl FnMut() -> u64) -> u64 {
    let end = Instant::now() + STEP_LIMIT;
    loop {
        let now = happened();
        if now >= times || Instant::now() >= end {
            return now;
        }
        thread::sleep(Duration::from_millis(5));
    }
}

fn happened(times: u64, evidence: String) -> Result<String> {
    if times > 0 { Ok(evidence) } else { Err(format!("the fault did not happen: {evidence}").into()) }
}
