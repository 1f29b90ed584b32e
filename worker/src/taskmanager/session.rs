//! One connection's time: commands in, events and heartbeats out.

use std::time::Duration;

use millrace_core::Error;
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};

use super::tasks::Tasks;
use crate::{
    config::{HeartbeatSettings, Settings},
    rpc::{FromTaskManager, Receiver, Sender, Silence, ToTaskManager},
};

/// How often the jobmanager is told how far the tasks are. After a failure it is from the last of these that it knows
/// how far the sources had read.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// How a session ended.
pub enum End {
    /// The job has ended.
    Shutdown,
    /// The jobmanager does not go on with the tasks that run.
    ComeAnew,
    /// This process was told to end, and its tasks were handed over.
    Released,
    /// The jobmanager is gone, or silent.
    Lost(Error),
}

/// A connection to a jobmanager that accepted this taskmanager.
pub struct Session {
    sender: Sender<FromTaskManager>,
    receiver: Receiver<ToTaskManager>,
    heartbeat_interval: Duration,
    heartbeat_timeout: Duration,
    leaving: watch::Receiver<bool>,
}

impl Session {
    /// A session over an accepted connection.
    pub fn new(
        (sender, receiver): (Sender<FromTaskManager>, Receiver<ToTaskManager>),
        settings: &Settings,
        leaving: watch::Receiver<bool>,
    ) -> Self {
        let HeartbeatSettings { interval, timeout } = settings.heartbeat;
        Self { sender, receiver, heartbeat_interval: interval, heartbeat_timeout: timeout, leaving }
    }

    /// Serves the jobmanager until it is gone or the job has ended. Where it was told that tasks run, they are reported.
    pub async fn run(mut self, tasks: &mut Tasks<'_>, report: bool) -> End {
        if report && let Err(error) = self.sender.send(&FromTaskManager::Running(tasks.report())) {
            return End::Lost(error);
        }
        let [mut heartbeat, mut progress] = [self.heartbeat_interval, PROGRESS_INTERVAL].map(|period| {
            let mut ticks = interval(period);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            ticks
        });
        let mut silence = Silence::new(self.heartbeat_interval, self.heartbeat_timeout);
        let mut looks = silence.looks();
        let mut told_to_leave = false;
        loop {
            let sent = tokio::select! {
                message = self.receiver.next() => {
                    silence.heard();
                    match message {
                        Ok(Some(ToTaskManager::Shutdown)) => return End::Shutdown,
                        Ok(Some(ToTaskManager::ComeAnew)) => return End::ComeAnew,
                        Ok(Some(ToTaskManager::Release)) => return End::Released,
                        Ok(Some(message)) => {
                            let join = match &message {
                                ToTaskManager::Join(attempt) => Some(*attempt),
                                _ => None,
                            };
                            tasks.obey(message);
                            join.map_or(Ok(()), |attempt| self.sender.send(&FromTaskManager::Joined(attempt)))
                        }
                        Ok(None) => return End::Lost(Error::external("the jobmanager closed the connection")),
                        Err(error) => return End::Lost(error),
                    }
                }
                (attempt, task, event) = tasks.next_event() => {
                    self.sender.send(&FromTaskManager::Task(attempt, task, event))
                }
                Ok(_) = self.leaving.wait_for(|leaving| *leaving), if !told_to_leave => {
                    told_to_leave = true;
                    self.sender.send(&FromTaskManager::Leaving)
                }
                _ = heartbeat.tick() => self.sender.send(&FromTaskManager::Heartbeat(tasks.metrics())),
                _ = progress.tick(), if tasks.any() => self.sender.send(&FromTaskManager::Progress(tasks.progress())),
                _ = looks.tick() => match silence.look() {
                    Some(silent) => {
                        return End::Lost(Error::external(format!("the jobmanager is silent for {silent:?}")));
                    }
                    None => Ok(()),
                }
            };
            if let Err(error) = sent {
                return End::Lost(error);
            }
        }
    }
}
