//! A jobmanager's life: it can be asked first, then takes its job over, runs it, and may stay to tell how it ended.

use std::{convert::Infallible, sync::Arc};

use millrace_core::{Error, Result, ids::JobId, rest::JobStatus};
use millrace_runtime::{STEP, scheduler::JobResult};
use tokio::sync::{mpsc, watch};

use super::{Program, connect::Door};
use crate::{
    announce::JobEnd,
    config::Role,
    jobmanager::{self, Admission, Clock, Found, JobManagerSetup, JobOutcome},
    rest::{JobCommand, JobView},
    rpc::JobSettings,
};

/// The job as this process shows it and is asked for it.
struct Desk {
    job: JobId,
    clock: Clock,
    view: watch::Sender<Arc<JobView>>,
    commands: mpsc::Receiver<JobCommand>,
}

impl Program {
    /// Runs the job to its end.
    pub(super) async fn lead(&self, door: Door) -> Result<JobResult> {
        let settings = &self.settings;
        let job = settings.job_id.unwrap_or_else(|| JobId(uuid::Uuid::new_v4().as_u128()));
        let first = jobmanager::first_view(&self.graph, settings, job, self.clock.now_ms());
        let (view, watched) = watch::channel(Arc::new(first));
        let (commands_in, commands) = mpsc::channel(16);
        let mut served = self.serve(job, door.address(), watched, commands_in).await?;
        let mut desk = Desk { job, clock: self.clock, view, commands };
        let outcome = self.take_over_and_run(door, &mut desk).await;
        if let Some(served) = &mut served {
            served.note_end(job_end(&outcome));
        }
        if outcome.is_ok() && settings.role == Role::JobManager && !settings.shutdown_on_finish {
            self.stay(desk).await;
        }
        if let Some(served) = served {
            served.stop().await;
        }
        outcome.map(|outcome| outcome.result)
    }

    async fn take_over_and_run(&self, mut door: Door, desk: &mut Desk) -> Result<JobOutcome> {
        let settings = &self.settings;
        let Desk { view, commands, .. } = desk;
        let wait = |why| view.send_modify(|view| Arc::make_mut(view).waiting_for = Some(why));
        let found = tokio::select! {
            found = jobmanager::take_over(settings, desk.job, wait) => found?,
            never = door.turn_away() => match never {},
            never = refuse(commands, view) => match never {},
        };
        let taken = match found {
            Found::Leader(taken) => taken,
            Found::Ended(ended) => {
                tracing::info!(job = %desk.job, "the job has ended already; it is not run again");
                desk.show(|view| ended.show(view));
                return Ok(ended.outcome());
            }
        };
        let generation = taken.generation;
        tracing::debug!(target: STEP, step = "take-over", %generation);
        tracing::info!(
            job = %desk.job, %generation, name = self.graph.name,
            restart_strategy = settings.restart_strategy.name(), "jobmanager"
        );
        let admission = Arc::new(Admission {
            job: desk.job,
            generation,
            fingerprint: self.fingerprint.clone(),
            token: settings.security_token.as_ref().map_or_else(String::new, |token| token.0.clone()),
            settings: JobSettings {
                state_backend: settings.state_backend.clone(),
                checkpoint_dir: settings.checkpoint_dir.clone(),
            },
            heartbeat: settings.heartbeat,
        });
        let (peers_in, peers) = mpsc::unbounded_channel();
        let _open = door.open(admission, peers_in, &self.control);
        let setup = JobManagerSetup {
            graph: Arc::clone(&self.graph),
            settings: settings.clone(),
            job: desk.job,
            clock: desk.clock,
            taken,
            peers,
            view: desk.view.clone(),
        };
        jobmanager::run(setup, &mut desk.commands).await
    }

    /// Stays when the job has ended, to be asked about it, until a signal ends the process. All that can be done is to
    /// delete what is left of the job.
    async fn stay(&self, mut desk: Desk) {
        tracing::info!(job = %desk.job, "the jobmanager stays to be asked about the job that has ended");
        while let Some(command) = desk.commands.recv().await {
            let JobCommand::Delete(reply) = command else {
                command.answer(Err(Error::invalid("the job has ended already")));
                continue;
            };
            // Who asked while all of it was being deleted, and has given up waiting, asks again.
            if reply.is_closed() {
                continue;
            }
            let now = desk.clock.now_ms();
            desk.show(|view| view.enter(JobStatus::Cancelling, now));
            let _ = reply.send(Ok(()));
            let left_behind = jobmanager::delete_job(&self.settings, desk.job).await;
            let now = desk.clock.now_ms();
            desk.show(|view| {
                view.left_behind = left_behind;
                view.enter(JobStatus::Canceled, now);
            });
        }
    }
}

impl Desk {
    fn show(&self, change: impl FnOnce(&mut JobView)) {
        self.view.send_modify(|view| change(Arc::make_mut(view)));
    }
}

/// Answers what is asked of a job that is not this jobmanager's yet.
async fn refuse(commands: &mut mpsc::Receiver<JobCommand>, view: &watch::Sender<Arc<JobView>>) -> Infallible {
    while let Some(command) = commands.recv().await {
        let waiting = view.borrow().waiting_for.clone().unwrap_or_default();
        command.answer(Err(Error::external(format!("the jobmanager still waits for {waiting}: try again"))));
    }
    // Without a REST server nobody asks.
    std::future::pending().await
}

/// What the announcement says of a job that has ended, or whose jobmanager has.
fn job_end(outcome: &Result<JobOutcome>) -> JobEnd {
    match outcome {
        Ok(JobOutcome { result, retained_checkpoint, .. }) => JobEnd {
            state: result.status(),
            error: match result {
                JobResult::Failed(error) => Some(error.message.clone()),
                _ => None,
            },
            retained_checkpoint: retained_checkpoint.clone(),
        },
        Err(error) => {
            JobEnd { state: JobStatus::Suspended, error: Some(error.message.clone()), retained_checkpoint: None }
        }
    }
}
