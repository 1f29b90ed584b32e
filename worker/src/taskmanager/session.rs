//! One connection's time: commands in, events and heartbeats out.

use std::time::Duration;

use millrace_core::Error;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::tasks::Tasks;
use crate::{
    config::Settings,
    rpc::{FromTaskManager, Receiver, Sender, ToTaskManager},
};

/// How a session ended.
pub enum End {
    /// The job has ended.
    Shutdown,
    /// The jobmanager is gone, or silent.
    Lost(Error),
}

/// A connection to a jobmanager that accepted this taskmanager.
pub struct Session {
    sender: Sender<FromTaskManager>,
    receiver: Receiver<ToTaskManager>,
    heartbeat_interval: Duration,
    heartbeat_timeout: Duration,
}

impl Session {
    /// A session over an accepted connection.
    pub fn new((sender, receiver): (Sender<FromTaskManager>, Receiver<ToTaskManager>), settings: &Settings) -> Self {
        let heartbeat = &settings.heartbeat;
        Self { sender, receiver, heartbeat_interval: heartbeat.interval, heartbeat_timeout: heartbeat.timeout }
    }

    /// Serves the jobmanager until it is gone or the job has ended.
    pub async fn run(mut self, tasks: &mut Tasks<'_>) -> End {
        let mut heartbeat = interval(self.heartbeat_interval);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut heard_at = Instant::now();
        loop {
            let sent = tokio::select! {
                message = self.receiver.next() => {
                    heard_at = Instant::now();
                    match message {
                        Ok(Some(ToTaskManager::Shutdown)) => return End::Shutdown,
                        Ok(Some(message)) => { tasks.obey(message); Ok(()) }
                        Ok(None) => return End::Lost(Error::external("the jobmanager closed the connection")),
                        Err(error) => return End::Lost(error),
                    }
                }
                (attempt, task, event) = tasks.next_event() => {
                    self.sender.send(&FromTaskManager::Task(attempt, task, event))
                }
                _ = heartbeat.tick() => {
                    if heard_at.elapsed() > self.heartbeat_timeout {
                        let silence = heard_at.elapsed();
                        return End::Lost(Error::external(format!("the jobmanager is silent for {silence:?}")));
                    }
                    self.sender.send(&FromTaskManager::Heartbeat(tasks.metrics()))
                }
            };
            if let Err(error) = sent {
                return End::Lost(error);
            }
        }
    }
}
