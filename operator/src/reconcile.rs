//! A reconcile: observe, validate, decide, build, apply, report.

#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use kube::{ResourceExt, runtime::controller::Action};
use millrace_api::{StreamJob, StreamJobStatus};
use tokio::time::{Instant, timeout};

use crate::{
    apply,
    build::{self, Component, DeploymentRef},
    context::Context,
    decide::{Decision, Pace, Step, decide, until},
    engine::EngineError,
    error::{Error, ErrorClass},
    observe::{
        Engine, Facts,
        cluster::{self, Sight},
    },
    report,
    validate::validate,
};

/// When to look again while something moves that can't be watched.
const FAST: Duration = Duration::from_secs(1);
/// When to look again after the jobmanager was asked for something.
const ASKED: Duration = Duration::from_millis(200);
/// When to look again although nothing is expected.
const IDLE: Duration = Duration::from_secs(300);
/// How long a reconcile may take: a connection that hangs must not hold a place for ever. It may end anywhere.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Steps in one reconcile; the longest way from a spec to its pods has four.
const STEPS_MAX: usize = 8;

/// Brings a job nearer to what its spec says.
pub async fn reconcile(job: Arc<StreamJob>, context: Arc<Context>) -> Result<Action, Error> {
    let started = Instant::now();
    let uid = job.uid().unwrap_or_default();
    let this = Reconcile { context: &context, uid: &uid };
    let run = async {
        // Without its watches it would decide on what it can't see.
        let Ok(()) = context.caches.filled().await else { return Ok(Action::await_change()) };
        this.run(&job).await
    };
    let result = timeout(TIMEOUT, run).await.unwrap_or_else(|_| Err(Error::timed_out(TIMEOUT)));
    context.metrics.reconciled(started.elapsed(), result.as_ref().err().map(Error::class));
    if result.is_ok() {
        context.memory.update(&uid, |memory| memory.failures = 0);
    }
    result
}

struct Reconcile<'a> {
    context: &'a Context,
    uid: &'a str,
}

/// What follows a step.
enum Next {
    /// Decide again.
    Again,
    /// Look past the caches, then decide again.
    Fresh,
    /// That's all for now.
    Done(Action),
}

/// The state of one reconcile.
struct Look {
    sight: Sight,
    /// Whether the sight is of the API server, not of the caches.
    fresh: bool,
    /// What the jobmanager in this pod says.
    engine: Option<(String, Engine)>,
    /// Whether it was asked for whether the namespace is being deleted.
    probed: bool,
}

impl Reconcile<'_> {
    async fn run(&self, job: &StreamJob) -> Result<Action, Error> {
        let sight = cluster::cached(&self.context.caches, job);
        let mut look = Look { sight, fresh: false, engine: None, probed: false };
        for _ in 0..STEPS_MAX {
            let facts = self.facts(&mut look).await;
            match self.step(&facts, &mut look).await? {
                Next::Done(action) => return Ok(action),
                Next::Again => {}
                Next::Fresh => {
                    let Some(sight) = cluster::fresh(&self.context.client, job).await? else {
                        return Ok(Action::await_change());
                    };
                    (look.sight, look.fresh) = (sight, true);
                }
            }
        }
        Ok(Action::requeue(FAST))
    }

    /// Decides and does one step.
    async fn step(&self, facts: &Facts, look: &mut Look) -> Result<Next, Error> {
        let now = Timestamp::now();
        if facts.loses_job_manager() && !facts.namespace_terminating && !look.probed {
            look.probed = true;
            if cluster::namespace_terminates(&self.context.client, &facts.job).await {
                self.context.memory.update(self.uid, |memory| memory.namespace_terminating = true);
                return Ok(Next::Again);
            }
        }
        let decision = decide(facts, now);
        // A cache may show what was: whatever can't be taken back is decided on what is.
        if !look.fresh && !matches!(decision.step, Step::Wait | Step::Apply(_)) {
            return Ok(Next::Fresh);
        }
        let status = report::status(facts, &decision, now);
        if status != facts.status() {
            match self.write(facts, status).await {
                Ok((written, moved)) => {
                    look.sight.job = written;
                    if moved || matches!(decision.step, Step::Record(_)) {
                        return Ok(Next::Again);
                    }
                }
                Err(error) if error.class() == ErrorClass::Conflict && !look.fresh => return Ok(Next::Fresh),
                // The object that is going away needs no status.
                Err(error) if error.class() == ErrorClass::Conflict && facts.deleted_since().is_some() => {}
                Err(error) => return Err(error),
            }
        }
        self.carry_out(facts, &decision, look, now).await
    }

    async fn carry_out(
        &self,
        facts: &Facts,
        decision: &Decision,
        look: &mut Look,
        now: Timestamp,
    ) -> Result<Next, Error> {
        let (client, job) = (&self.context.client, &look.sight.job);
        if let (Some(left), Step::Stop(_) | Step::RemoveFinalizer) = (&decision.left_behind, &decision.step) {
            let event = report::events::Event::cleanup_failed(left);
            apply::publish(client, job, &self.context.reporter, vec![event]).await;
        }
        match &decision.step {
            Step::Wait => {}
            Step::Record(_) => return Ok(Next::Again),
            Step::AddFinalizer => {
                look.sight.job = apply::set_finalizer(client, job, true).await?;
                return Ok(Next::Again);
            }
            Step::RemoveFinalizer => {
                apply::set_finalizer(client, job, false).await?;
                return Ok(Next::Done(Action::await_change()));
            }
            Step::Apply(components) => return self.apply(facts, components, decision, look, now).await,
            Step::Stop(components) => {
                for set in components.iter().filter_map(|component| facts.set(*component)) {
                    apply::delete_set(client, job, set).await?;
                }
                self.context.memory.update(self.uid, |memory| memory.applied = None);
            }
            Step::ForceDelete(pods) => apply::force_delete(client, facts, pods).await?,
            Step::Discard => return Ok(Next::Done(self.discard(facts).await)),
        }
        Ok(Next::Done(self.later(decision.pace)))
    }

    /// Makes the cluster have the job's objects.
    async fn apply(
        &self,
        facts: &Facts,
        components: &[Component],
        decision: &Decision,
        look: &Look,
        now: Timestamp,
    ) -> Result<Next, Error> {
        let done = Ok(Next::Done(self.later(decision.pace)));
        let (Some(deployed), Some(job_id)) = (facts.deployment(), facts.job_id()) else { return done };
        let reference = DeploymentRef {
            job_id: job_id.to_owned(),
            number: deployed.number,
            replicas: deployed.spec.task_manager.replicas,
        };
        let children = build::children(&self.context.build, &facts.job, &deployed.spec, &reference);
        let memory = self.context.memory.of(self.uid);
        if memory.applied.is_some_and(|applied| applied.holds(&children, components, facts, now)) {
            return done;
        }
        if !look.fresh {
            return Ok(Next::Fresh);
        }
        match apply::apply(&self.context.client, &facts.job, &children, components, now).await {
            Ok(applied) => {
                self.context.memory.update(self.uid, |memory| {
                    (memory.applied, memory.refused) = (Some(applied), None);
                });
                done
            }
            Err(error) if error.is_namespace_terminating() => {
                self.context.memory.update(self.uid, |memory| memory.namespace_terminating = true);
                Ok(Next::Again)
            }
            Err(error) => {
                self.show_refusal(facts, decision, &error, now).await;
                Err(error)
            }
        }
    }

    /// Shows in the status what the API server refuses, so that the user can change it.
    async fn show_refusal(&self, facts: &Facts, decision: &Decision, error: &Error, now: Timestamp) {
        if !matches!(error.class(), ErrorClass::Invalid | ErrorClass::Forbidden) {
            return;
        }
        let refused = Some(error.to_string());
        self.context.memory.update(self.uid, |memory| memory.refused.clone_from(&refused));
        let facts = Facts { refused, ..facts.clone() };
        let status = report::status(&facts, decision, now);
        if status != facts.status()
            && let Err(error) = self.write(&facts, status).await
        {
            tracing::debug!("the refusal is not shown yet: {error}");
        }
    }

    /// Writes the status and publishes the events of the transition. Returns the object as written, and whether the
    /// phase is another.
    async fn write(&self, facts: &Facts, status: StreamJobStatus) -> Result<(StreamJob, bool), Error> {
        let (old, context) = (facts.status(), self.context);
        let events = report::events::between(&old, &status, facts);
        let moved = status.phase != old.phase;
        let written = apply::write_status(&context.client, &facts.job, status).await?;
        if let (true, Some(left), Some(Time(since))) = (moved, old.phase, old.phase_since) {
            context.metrics.left_phase(left.as_str(), until(Timestamp::now(), since));
        }
        apply::publish(&context.client, &facts.job, &context.reporter, events).await;
        Ok((written, moved))
    }

    async fn discard(&self, facts: &Facts) -> Action {
        let (Some(address), Some(id)) = (address(&facts.pods), facts.job_id()) else { return Action::requeue(FAST) };
        match self.context.engine.delete(address, id).await {
            Ok(()) => {
                self.context.memory.update(self.uid, |memory| memory.discard_asked = Some(id.to_owned()));
                Action::requeue(ASKED)
            }
            Err(error) => {
                tracing::info!(job = facts.job.name_any(), "the jobmanager does not delete the job yet: {error}");
                Action::requeue(FAST)
            }
        }
    }

    async fn facts(&self, look: &mut Look) -> Facts {
        let memory = self.context.memory.of(self.uid);
        let Sight { job, job_manager, task_manager, pods } = look.sight.clone();
        let mut facts = Facts {
            invalid: validate(&job).err().map(|invalid| invalid.to_string()),
            job_manager,
            task_manager,
            pods,
            engine: Engine::Absent,
            namespace_terminating: memory.namespace_terminating,
            discard_asked: false,
            refused: memory.refused,
            fresh_id: uuid::Uuid::new_v4().simple().to_string(),
            job,
        };
        facts.discard_asked = memory.discard_asked.is_some() && memory.discard_asked.as_deref() == facts.job_id();
        facts.engine = self.ask(&facts, look).await;
        facts
    }

    /// Asks the jobmanager, once in a reconcile.
    async fn ask(&self, facts: &Facts, look: &mut Look) -> Engine {
        let deployed = facts.deployment().map(|deployed| deployed.number);
        let pod = facts.job_manager_pod().filter(|pod| pod.running && Some(pod.deployment) == deployed);
        let (Some(pod), Some(id)) = (pod, facts.job_id()) else { return Engine::Absent };
        let Some(address) = &pod.address else { return Engine::Absent };
        if let Some((_, engine)) = look.engine.as_ref().filter(|(uid, _)| *uid == pod.uid) {
            return engine.clone();
        }
        let engine = match self.context.engine.job(address, id).await {
            Ok(job) => Engine::Job(Box::new(job)),
            Err(EngineError::Unreachable(why)) => Engine::Unreachable(why),
            Err(refused) => Engine::Unreachable(refused.to_string()),
        };
        look.engine = Some((pod.uid.clone(), engine.clone()));
        engine
    }

    fn later(&self, pace: Pace) -> Action {
        Action::requeue(match pace {
            Pace::Now => ASKED,
            Pace::Fast => FAST,
            Pace::Steady => self.context.poll_interval,
            Pace::Idle => IDLE,
            Pace::After(time) => time.clamp(ASKED, IDLE),
        })
    }
}

/// The address of the jobmanager that is asked.
fn address(pods: &[crate::observe::PodFacts]) -> Option<&str> {
    let mut pods = pods.iter().filter(|pod| pod.component == Component::JobManager && pod.deleted_until.is_none());
    pods.find(|pod| pod.running)?.address.as_deref()
}
