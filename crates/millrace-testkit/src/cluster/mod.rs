//! A job as processes, for tests: a jobmanager and taskmanagers that are started, killed, paused and watched.
//!
//! ```no_run
//! use millrace_testkit::cluster::{ClusterSpec, JobCluster, program};
//!
//! # fn main() -> millrace_testkit::cluster::Result<()> {
//! let spec = ClusterSpec::new(program("checkpoint_example")?).args(["--files", "/data/in", "--checkpoints"]);
//! let mut cluster = JobCluster::start(spec.taskmanagers(2))?;
//! cluster.wait_until_running()?;
//! cluster.kill_taskmanager(0)?;
//! cluster.wait_until("a restart", |state| state.job.restarts == 1)?;
//! # Ok(())
//! # }
//! ```

mod error;
mod launcher;
mod programs;
mod rest;
mod spec;
mod state;

use std::{
    net::SocketAddr,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::ExitStatus,
    thread,
    time::{Duration, Instant},
};

use millrace_core::{
    ids::JobId,
    rest::{CheckpointingStatistics, JobDetails, JobExceptions, JobStatus, TaskManagers},
};
use serde::{Deserialize, de::DeserializeOwned};

use crate::services::process::{ManagedProcess, Signal};

pub use error::{Error, Result};
pub use programs::{exit_code, program};
pub use rest::RestClient;
pub use spec::ClusterSpec;
pub use state::JobState;

use launcher::{Announcement, Launcher, taskmanager_name};

/// How long anything may take that a test waits for: long enough for a machine that is very busy.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// How often a condition is looked at again.
const POLL: Duration = Duration::from_millis(20);
/// How much of a process's output a failure shows, and of how many taskmanagers: of those that were started last.
const TAIL_LINES: usize = 25;
const TAIL_TASKMANAGERS: usize = 6;
/// SIGKILL.
const KILLED: i32 = 9;

/// The processes of a job. All end, by their ids, when this is dropped.
#[derive(Debug)]
pub struct JobCluster {
    // Dropped in this order: the processes end before their directory goes.
    jobmanager: ManagedProcess,
    taskmanagers: Vec<ManagedProcess>,
    announcement: Announcement,
    launcher: Launcher,
    rest: RestClient,
}

/// How a job ended.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct JobEnd {
    /// `FINISHED`, `CANCELED`, `FAILED` or `SUSPENDED`.
    pub state: JobStatus,
    /// Why it failed.
    pub error: Option<String>,
    /// The newest checkpoint, where it was kept.
    pub retained_checkpoint: Option<String>,
}

impl JobCluster {
    /// Starts the processes and waits until the jobmanager has announced itself; the job may not run yet.
    pub fn start(spec: ClusterSpec) -> Result<Self> {
        let mut launcher = Launcher::new(spec)?;
        let (jobmanager, announcement) = launcher.jobmanager()?;
        let taskmanagers = Vec::new();
        let mut cluster = Self { jobmanager, taskmanagers, announcement, launcher, rest: RestClient::new() };
        for _ in 0..cluster.launcher.spec.taskmanagers {
            cluster.start_taskmanager()?;
        }
        Ok(cluster)
    }

    /// The job.
    pub fn job(&self) -> JobId {
        self.launcher.job
    }

    /// A directory of this cluster's own, which goes with it.
    pub fn directory(&self) -> &Path {
        self.launcher.dir.path()
    }

    /// Starts one more taskmanager. Returns its index; indexes are never used again.
    pub fn start_taskmanager(&mut self) -> Result<usize> {
        self.start_taskmanager_with(|spec| spec)
    }

    /// The same, with something that is different for this one.
    pub fn start_taskmanager_with(&mut self, change: impl FnOnce(ClusterSpec) -> ClusterSpec) -> Result<usize> {
        let index = self.taskmanagers.len();
        let spec = change(self.launcher.spec.clone());
        self.taskmanagers.push(self.launcher.taskmanager(index, &spec)?);
        Ok(index)
    }

    /// Where the job's jobmanagers listen for taskmanagers.
    pub fn jobmanager_address(&self) -> SocketAddr {
        self.launcher.jobmanager_address()
    }

    /// How many taskmanagers were ever started.
    pub fn taskmanagers_started(&self) -> usize {
        self.taskmanagers.len()
    }

    /// Kills a running taskmanager with SIGKILL and waits until it is gone.
    ///
    /// # Panics
    /// When it had ended before: then the fault that a test wants did not happen.
    pub fn kill_taskmanager(&mut self, index: usize) -> Result<()> {
        kill_running(&mut self.taskmanagers[index])
    }

    /// Kills the running jobmanager with SIGKILL and waits until it is gone.
    ///
    /// # Panics
    /// When it had ended before.
    pub fn kill_jobmanager(&mut self) -> Result<()> {
        kill_running(&mut self.jobmanager)
    }

    /// Starts a jobmanager for the same job where the last one was, which is killed first if it runs, and waits until
    /// it has announced itself.
    pub fn restart_jobmanager(&mut self) -> Result<()> {
        self.jobmanager.kill()?;
        (self.jobmanager, self.announcement) = self.launcher.jobmanager()?;
        Ok(())
    }

    /// Sets a configuration key for all processes that are started from now on.
    pub fn set(&mut self, key: &str, value: &str) {
        self.launcher.spec.config.push((key.to_owned(), value.to_owned()));
    }

    /// Sends the jobmanager a signal, waits for its end and returns how it ended and how long that took.
    pub fn end_jobmanager(&mut self, signal: Signal) -> Result<(ExitStatus, Duration)> {
        end_by(&mut self.jobmanager, signal)
    }

    /// Sends a taskmanager a signal, waits for its end and returns how it ended and how long that took.
    pub fn end_taskmanager(&mut self, index: usize, signal: Signal) -> Result<(ExitStatus, Duration)> {
        end_by(&mut self.taskmanagers[index], signal)
    }

    /// Sends a taskmanager a signal and does not wait for anything.
    pub fn signal_taskmanager(&mut self, index: usize, signal: Signal) -> Result<()> {
        Ok(self.taskmanagers[index].signal(signal)?)
    }

    /// Waits until a taskmanager's log has this text.
    pub fn wait_for_log(&mut self, index: usize, text: &str) -> Result<()> {
        Ok(self.taskmanagers[index]
            .wait_until("line in its log", PATIENCE, |process| process.stderr().contains(text))?)
    }

    /// Waits until the jobmanager has ended by itself; what it wrote to its standard error.
    pub fn wait_jobmanager_end(&mut self) -> Result<(ExitStatus, String)> {
        let status = self.jobmanager.wait_timeout(PATIENCE)?;
        let status = status.ok_or_else(|| self.timed_out("end of the jobmanager"))?;
        Ok((status, self.jobmanager.stderr()))
    }

    /// Waits until a taskmanager has ended by itself.
    pub fn wait_taskmanager_end(&mut self, index: usize) -> Result<ExitStatus> {
        let status = self.taskmanagers[index].wait_timeout(PATIENCE)?;
        status.ok_or_else(|| self.timed_out("end of a taskmanager"))
    }

    /// Whether the jobmanager's process is there.
    pub fn jobmanager_is_alive(&mut self) -> bool {
        self.jobmanager.is_alive()
    }

    fn timed_out(&self, awaited: &str) -> Error {
        let (awaited, last) = (awaited.to_owned(), "still running".to_owned());
        Error::TimedOut { awaited, limit: PATIENCE, last, logs: self.tails() }
    }

    /// Stops a taskmanager from running (SIGSTOP).
    pub fn pause_taskmanager(&mut self, index: usize) -> Result<()> {
        Ok(self.taskmanagers[index].pause()?)
    }

    /// Lets a paused taskmanager run on.
    pub fn resume_taskmanager(&mut self, index: usize) -> Result<()> {
        Ok(self.taskmanagers[index].resume()?)
    }

    /// Stops the jobmanager from running (SIGSTOP).
    pub fn pause_jobmanager(&mut self) -> Result<()> {
        Ok(self.jobmanager.pause()?)
    }

    /// Lets a paused jobmanager run on.
    pub fn resume_jobmanager(&mut self) -> Result<()> {
        Ok(self.jobmanager.resume()?)
    }

    /// A taskmanager's process.
    pub fn taskmanager_pid(&self, index: usize) -> u32 {
        self.taskmanagers[index].pid()
    }

    /// Whether a taskmanager's process is there.
    pub fn taskmanager_is_alive(&mut self, index: usize) -> bool {
        self.taskmanagers[index].is_alive()
    }

    /// What a taskmanager has printed so far.
    pub fn stdout(&self, index: usize) -> String {
        self.taskmanagers[index].stdout()
    }

    /// The file that holds what a taskmanager prints.
    pub fn stdout_file(&self, index: usize) -> PathBuf {
        self.directory().join(format!("{}.out", taskmanager_name(index)))
    }

    /// The file that a taskmanager logs to.
    pub fn log_file(&self, index: usize) -> PathBuf {
        self.directory().join(format!("{}.err", taskmanager_name(index)))
    }

    /// The file that the newest jobmanager logs to.
    pub fn jobmanager_log_file(&self) -> PathBuf {
        self.launcher.jobmanager_log_file()
    }

    /// The newest jobmanager's process.
    pub fn jobmanager_pid(&self) -> u32 {
        self.jobmanager.pid()
    }

    /// What a taskmanager has logged so far.
    pub fn log(&self, index: usize) -> String {
        self.taskmanagers[index].stderr()
    }

    /// What the jobmanager has logged since its last start.
    pub fn jobmanager_log(&self) -> String {
        self.jobmanager.stderr()
    }

    /// What the jobmanager's REST server answers.
    pub fn rest<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        self.rest.get(&self.announcement.rest_address, path)
    }

    /// What it answers to any request, with the status.
    pub fn ask(&self, method: &str, path: &str) -> Result<(u16, Vec<u8>)> {
        let method = method.parse().expect("a method of HTTP");
        let (status, body) = self.rest.ask(method, &self.announcement.rest_address, path)?;
        Ok((status.as_u16(), body))
    }

    /// The job's failures.
    pub fn exceptions(&self) -> Result<JobExceptions> {
        self.rest(&format!("/jobs/{}/exceptions", self.job()))
    }

    /// What the jobmanager says of the job. Its parts are asked for one after the other.
    pub fn state(&self) -> Result<JobState> {
        let job = self.job();
        Ok(JobState {
            job: self.rest::<JobDetails>(&format!("/jobs/{job}"))?,
            checkpoints: self.rest::<CheckpointingStatistics>(&format!("/jobs/{job}/checkpoints"))?,
            taskmanagers: self.rest::<TaskManagers>("/taskmanagers")?.taskmanagers,
        })
    }

    /// The taskmanagers that hold tasks: their slots are in use.
    pub fn busy_taskmanagers(&self, state: &JobState) -> Vec<usize> {
        let busy = state.taskmanagers.iter().filter(|taskmanager| taskmanager.free_slots < taskmanager.slots_number);
        let index = |pid: Option<u32>| self.taskmanagers.iter().position(|process| Some(process.pid()) == pid);
        busy.filter_map(|taskmanager| index(taskmanager.pid)).collect()
    }

    /// Waits until a condition on the job's state holds; returns that state.
    pub fn wait_until(&mut self, awaited: &str, mut condition: impl FnMut(&JobState) -> bool) -> Result<JobState> {
        let mut last = String::from("nothing");
        self.wait_for(awaited, PATIENCE, |cluster| {
            let state = cluster.state();
            last = match &state {
                Ok(state) => state.to_string(),
                Err(error) => error.to_string(),
            };
            (state.ok().filter(&mut condition), last.clone())
        })
    }

    /// Waits until all tasks run.
    pub fn wait_until_running(&mut self) -> Result<JobState> {
        self.wait_until("running job", JobState::is_running)
    }

    /// Waits until the jobmanager leads the job: before, it does not know what there is of it.
    pub fn wait_until_led(&mut self) -> Result<JobState> {
        self.wait_until("jobmanager that leads", |state| state.job.state != JobStatus::Initializing)
    }

    /// Waits for a checkpoint that was triggered from now on: whatever a task has read until now is in it.
    pub fn wait_for_new_checkpoint(&mut self) -> Result<JobState> {
        let newest = self.wait_until_led()?.newest_checkpoint();
        self.wait_until("new checkpoint", |state| state.completed().is_some_and(|completed| completed.id > newest))
    }

    /// Asks again and again until there is an answer; beside it comes what is shown when there is none for too long.
    /// Fails at once when the jobmanager ends.
    pub fn wait_for<T>(
        &mut self,
        awaited: &str,
        limit: Duration,
        mut ask: impl FnMut(&mut Self) -> (Option<T>, String),
    ) -> Result<T> {
        let end = Instant::now() + limit;
        loop {
            let lives = self.jobmanager.is_alive();
            let (answer, last) = ask(self);
            let awaited = || awaited.to_owned();
            match answer {
                Some(answer) => return Ok(answer),
                None if !lives => {
                    let name = "the jobmanager".to_owned();
                    return Err(Error::Ended { name, awaited: awaited(), logs: self.tails() });
                }
                None if Instant::now() >= end => {
                    return Err(Error::TimedOut { awaited: awaited(), limit, last, logs: self.tails() });
                }
                None => thread::sleep(POLL),
            }
        }
    }

    /// Asks the jobmanager to end the job.
    pub fn cancel(&self) -> Result<()> {
        let path = format!("/jobs/{}?mode=cancel", self.job());
        self.rest.send(reqwest::Method::PATCH, &self.announcement.rest_address, &path).map(drop)
    }

    /// Asks the jobmanager to end the job and to delete all that the store has of it.
    pub fn delete(&self) -> Result<()> {
        let path = format!("/jobs/{}", self.job());
        self.rest.send(reqwest::Method::DELETE, &self.announcement.rest_address, &path).map(drop)
    }

    /// Asks the jobmanager to end the job with a final checkpoint.
    pub fn stop(&self) -> Result<()> {
        let path = format!("/jobs/{}/stop", self.job());
        self.rest.send(reqwest::Method::POST, &self.announcement.rest_address, &path).map(drop)
    }

    /// Waits until the jobmanager and all taskmanagers have ended by themselves, as they do with the job.
    pub fn wait_end(&mut self) -> Result<JobEnd> {
        let until = Instant::now() + PATIENCE;
        let left = || until.saturating_duration_since(Instant::now());
        let mut running = Vec::new();
        if self.jobmanager.wait_timeout(left())?.is_none() {
            running.push("the jobmanager".to_owned());
        }
        for (index, taskmanager) in self.taskmanagers.iter_mut().enumerate() {
            if taskmanager.wait_timeout(left())?.is_none() {
                running.push(taskmanager_name(index));
            }
        }
        let end = self.launcher.announcement()?.and_then(|announcement| announcement.end);
        match end {
            Some(end) if running.is_empty() => Ok(end),
            end => Err(Error::TimedOut {
                awaited: "end of all processes with the job".to_owned(),
                limit: PATIENCE,
                last: format!("still running: {running:?}; announced: {end:?}"),
                logs: self.tails(),
            }),
        }
    }

    /// The end of what the processes have written.
    pub fn tails(&self) -> String {
        let mut text = tail("jobmanager", "log", &self.jobmanager.stderr());
        let first = self.taskmanagers.len().saturating_sub(TAIL_TASKMANAGERS);
        for (index, process) in self.taskmanagers.iter().enumerate().skip(first) {
            text += &tail(&taskmanager_name(index), "log", &process.stderr());
            text += &tail(&taskmanager_name(index), "output", &process.stdout());
        }
        text
    }
}

fn kill_running(process: &mut ManagedProcess) -> Result<()> {
    process.kill()?;
    let status = process.wait_timeout(Duration::ZERO)?;
    let signal = status.and_then(|status| status.signal());
    assert_eq!(signal, Some(KILLED), "process {} ended by itself ({status:?}) before it was killed", process.pid());
    Ok(())
}

fn end_by(process: &mut ManagedProcess, signal: Signal) -> Result<(ExitStatus, Duration)> {
    let start = Instant::now();
    process.signal(signal)?;
    match process.wait_timeout(PATIENCE)? {
        Some(status) => Ok((status, start.elapsed())),
        None => Err(Error::TimedOut {
            awaited: format!("end of process {} by {signal:?}", process.pid()),
            limit: PATIENCE,
            last: "it runs".to_owned(),
            logs: tail("it", "log", &process.stderr()),
        }),
    }
}

fn tail(name: &str, what: &str, text: &str) -> String {
    let lines: Vec<_> = text.lines().collect();
    let last = lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n");
    if last.is_empty() { String::new() } else { format!("--- {name}, end of its {what}:\n{last}\n") }
}
