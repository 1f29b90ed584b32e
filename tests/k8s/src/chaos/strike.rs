//! Striking: the fault itself, and what shows that it happened.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::Pod;
use rand::{Rng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;

use super::{Fault, Grace, replaced::Replaced};
use crate::{
    Context, Result,
    cluster::{Cluster, Cut, Node, Release, Services},
    ensure,
    job::{Job, Role, View, pods},
    wait,
};

/// A checkpoint of the job under fire fails after this time.
pub const CHECKPOINT_TIMEOUT: Duration = Duration::from_secs(3);

/// How many taskmanagers the job needs, with a slot each: those that come first are busy.
pub const BUSY: usize = 2;

/// The phases that a recovery ends with: of one that starts tasks, and of one that finds them running.
const LAST_PHASES: [&str; 2] = ["first-output", "adopt"];

/// Everything that faults are struck at.
pub struct Target<'a> {
    /// Where.
    pub cluster: &'a Cluster,
    /// The operator.
    pub release: &'a Release,
    /// Services that only the job under fire uses.
    pub services: &'a Mutex<Services>,
    /// The job.
    pub job: Job<'a>,
}

/// How things were before a fault.
pub struct Before {
    view: View,
    jobmanagers: Vec<Pod>,
    taskmanagers: Vec<Pod>,
}

/// A fault that was struck: what shows that it happened, and what it left to be mended.
pub struct Struck {
    before: Before,
    proof: Proof,
    /// What takes the place of what was hit.
    pub replaced: Replaced,
    /// A taskmanager that is still cut off.
    pub cut: Option<Cut>,
}

enum Proof {
    /// These pods, by uid, are gone.
    Gone(Vec<String>),
    /// The container of this pod was started again in its place.
    Restarted(Role, String, i32),
    /// A checkpoint failed, or the job was started again. This was the newest one when the service came back.
    NoCheckpoint(i64),
    /// The job's log says since then that this address does not answer. This was the newest checkpoint when it did
    /// again.
    Complaint(String, Instant, i64),
    /// The job was started again while this pod lived on.
    LivesOn(String, i32),
}

impl Target<'_> {
    /// How things are.
    pub async fn observe(&self) -> Result<Before> {
        Ok(Before {
            view: self.job.view().await?,
            jobmanagers: self.job.pods(Role::JobManager).await?,
            taskmanagers: self.job.pods(Role::TaskManager).await?,
        })
    }

    /// Strikes, and returns as soon as that is done.
    pub async fn strike(&self, fault: Fault, rng: &mut ChaCha8Rng) -> Result<Struck> {
        let before = self.observe().await?;
        ensure!(before.jobmanagers.len() == 1 && before.taskmanagers.len() >= BUSY, "not all pods are there to be hit");
        let victim = before.taskmanagers[..BUSY].choose(rng).context("a taskmanager to hit")?.clone();
        let jobmanager = before.jobmanagers[0].clone();
        let mut cut = None;
        let replaced = match fault {
            Fault::TaskManager(_) => Replaced::pods([&victim]),
            Fault::AllTaskManagers(_) => Replaced::pods(&before.taskmanagers),
            Fault::JobManager(_) => Replaced::pods([&jobmanager]),
            Fault::JobManagerAndTaskManager(_) => Replaced::pods([&jobmanager, &victim]),
            Fault::TaskManagerProcess => Replaced::process(&victim),
            Fault::JobManagerProcess => Replaced::process(&jobmanager),
            Fault::Operator(_) | Fault::Minio | Fault::Kafka | Fault::Zombie => Replaced::default(),
        };
        let proof = match fault {
            Fault::TaskManager(grace) => self.delete([&victim], grace).await?,
            Fault::AllTaskManagers(grace) => self.delete(&before.taskmanagers, grace).await?,
            Fault::JobManager(grace) => self.delete([&jobmanager], grace).await?,
            Fault::JobManagerAndTaskManager(grace) => self.delete([&jobmanager, &victim], grace).await?,
            Fault::Operator(grace) => {
                Proof::Gone(self.release.delete_operator(self.cluster.client.clone(), grace.seconds()).await?)
            }
            Fault::TaskManagerProcess => self.kill(Role::TaskManager, &victim)?,
            Fault::JobManagerProcess => self.kill(Role::JobManager, &jobmanager)?,
            Fault::Minio => {
                self.away(rng, |services| services.minio.kill(), |services| services.minio.restart()).await?;
                Proof::NoCheckpoint(self.job.view().await?.latest_checkpoint())
            }
            // Without new records there is nothing that a checkpoint could wait for: none need fail.
            Fault::Kafka => {
                let (began, address) = (Instant::now(), self.services().kafka.bootstrap());
                self.away(rng, |services| services.kafka.kill(), |services| services.kafka.restart()).await?;
                Proof::Complaint(address, began, self.job.view().await?.latest_checkpoint())
            }
            Fault::Zombie => {
                cut = Some(self.node()?.cut_off(&pods::address(&victim))?);
                Proof::LivesOn(pods::uid(&victim), pods::container_restarts(&victim))
            }
        };
        Ok(Struck { before, proof, replaced, cut })
    }

    async fn delete(&self, victims: impl IntoIterator<Item = &Pod>, grace: Grace) -> Result<Proof> {
        let mut uids = Vec::new();
        for pod in victims {
            self.job.delete_pod(pod, grace.seconds()).await?;
            uids.push(pods::uid(pod));
        }
        Ok(Proof::Gone(uids))
    }

    fn kill(&self, role: Role, pod: &Pod) -> Result<Proof> {
        let id = pods::container(pod).and_then(|container| container.container_id.clone());
        self.node()?.kill_main_process(&id.context("the container runs")?)?;
        Ok(Proof::Restarted(role, pods::uid(pod), pods::container_restarts(pod)))
    }

    /// Kills a service and starts it again after longer than a checkpoint may take.
    async fn away(
        &self,
        rng: &mut ChaCha8Rng,
        kill: impl FnOnce(&mut Services) -> millrace_testkit::services::Result<()>,
        restart: impl FnOnce(&mut Services) -> millrace_testkit::services::Result<()>,
    ) -> Result<()> {
        kill(&mut self.services())?;
        // The length of the fault itself; nothing is waited for.
        tokio::time::sleep(CHECKPOINT_TIMEOUT + rng.random_range(Duration::from_secs(2)..Duration::from_secs(4))).await;
        restart(&mut self.services())?;
        Ok(())
    }

    fn services(&self) -> std::sync::MutexGuard<'_, Services> {
        self.services.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn node(&self) -> Result<Node> {
        self.cluster.node.context("the node itself is needed")
    }

    /// Waits for what shows that the fault happened, as a sentence.
    pub async fn evidence(&self, struck: &Struck) -> Result<String> {
        let ask = async || self.look_for(struck).await;
        let explain = async || self.job.describe().await;
        wait::until("evidence that the fault happened", wait::PATIENCE, ask, explain).await
    }

    async fn look_for(&self, struck: &Struck) -> Result<Option<String>> {
        match &struck.proof {
            Proof::Gone(uids) => {
                let mut pods = self.job.all_pods().await?;
                pods.extend(self.release.pods(self.cluster.client.clone()).await?);
                let gone = !pods.iter().any(|pod| uids.contains(&pods::uid(pod)));
                Ok(gone.then(|| format!("{} gone", uids.join(", "))))
            }
            Proof::Restarted(role, uid, restarts) => {
                let pods = self.job.pods(*role).await?;
                let pod = pods.iter().find(|pod| pods::uid(pod) == *uid).context("the pod outlives its process")?;
                let now = pods::container_restarts(pod);
                Ok((now > *restarts).then(|| format!("restart count {restarts} to {now}")))
            }
            Proof::NoCheckpoint(_) => {
                let (before, view) = (&struck.before.view, self.job.view().await?);
                let failed = view.failed_checkpoints() - before.failed_checkpoints();
                let restarts = view.restarts() - before.restarts();
                let happened = failed > 0 || restarts > 0;
                Ok(happened.then(|| format!("{failed} checkpoints failed, {restarts} restarts")))
            }
            Proof::Complaint(address, began, _) => {
                let lines = self.job.log_lines(began.elapsed(), address).await?;
                let failed = lines.iter().filter(|line| line.contains("refused") || line.contains("failed")).count();
                Ok((failed > 0).then(|| format!("{failed} complaints about {address} in the job's log")))
            }
            Proof::LivesOn(uid, container_restarts) => {
                let pods = self.job.pods(Role::TaskManager).await?;
                let lives = pods
                    .iter()
                    .any(|pod| pods::uid(pod) == *uid && pods::container_restarts(pod) == *container_restarts);
                ensure!(lives, "the taskmanager that was cut off does not live on: it can't come back");
                let (before, view) = (&struck.before.view, self.job.view().await?);
                let restarts = view.restarts() - before.restarts();
                Ok((restarts > 0).then(|| format!("{restarts} restarts while {uid} lives on")))
            }
        }
    }
}

impl Struck {
    /// What of the job's recovery took how long, where status shows the end of one: nothing where it was not restarted.
    pub fn phases(&self, view: &View) -> Option<Vec<(String, Duration)>> {
        let before = &self.before.view;
        if (view.restarts(), view.generation()) == (before.restarts(), before.generation()) {
            return Some(Vec::new());
        }
        let phases = view.recovery_phases();
        let is_over = phases.iter().any(|(name, _)| LAST_PHASES.contains(&name.as_str()));
        (is_over && view.recovery_began() != before.recovery_began()).then_some(phases)
    }

    /// Whether status says that the job is over the fault.
    pub fn is_recovered(&self, fault: Fault, view: &View) -> bool {
        let before = &self.before.view;
        let moved = if fault.spares_the_job() {
            view.restarts() == before.restarts() && view.generation() == before.generation()
        } else if fault.hits_jobmanager() {
            view.generation() > before.generation()
        } else if let Proof::NoCheckpoint(newest) | Proof::Complaint(.., newest) = self.proof {
            view.latest_checkpoint() > newest
        } else {
            view.restarts() > before.restarts()
        };
        moved && view.phase() == "Running"
    }
}
