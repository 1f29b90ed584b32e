//! A campaign: a job, records for it, and faults one after the other.

use std::{
    sync::Mutex,
    time::{Duration, Instant},
};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::json;

use super::{
    Fault, Recovery, Report, schedule,
    strike::{BUSY, CHECKPOINT_TIMEOUT, Struck, Target},
};
use crate::{
    Result, bail,
    cluster::{Cluster, Namespace, Release, Services},
    commands::succeed,
    ensure,
    job::{Job, Manifest},
    load::{Counts, Feed, Outputs, Place},
    suite::skipped,
    wait,
};

/// A fault comes at a random moment of this time, a little longer than the time between two checkpoints.
const MOMENTS: Duration = Duration::from_millis(1500);

/// Faults to be struck.
#[derive(Clone, Copy, Debug)]
pub struct Campaign {
    /// How many.
    pub faults: usize,
    /// Decides their order, whom they hit, when, and what the records are.
    pub seed: u64,
}

impl Campaign {
    /// Runs the job through all faults and compares its counts with what was written and with a run without a fault.
    pub async fn run(&self, cluster: &Cluster, release: &Release) -> Result<Report> {
        println!("{self:?}: replay with `make chaos-k8s N={} SEED={}`", self.faults, self.seed);
        // Its own: they will be away.
        let services = Services::start(cluster.host)?;
        let namespace = Namespace::create(cluster, "chaos").await?;
        let place = Place::create(&namespace, &services).await?;
        println!("in namespace {}, MinIO at {}, Kafka at {}", namespace.name, place.endpoint(), place.bootstrap());
        let manifest = Manifest::counting(&place)
            .set("/spec/checkpointing/timeout", json!(format!("{}s", CHECKPOINT_TIMEOUT.as_secs())))
            .set("/spec/parallelism", json!(BUSY))
            .set("/spec/taskManager/replicas", json!(BUSY));
        let reference_topic = format!("{}-reference", namespace.name);
        let reference = reference(&manifest, &place, &reference_topic);
        place.create_topic(&reference_topic)?;
        let feed = Feed::start(&place, self.seed);
        let outputs = Outputs::follow(&place)?;

        let services = Mutex::new(services);
        let job = Job::apply(&namespace, &manifest)?;
        let target = Target { cluster, release, services: &services, job };
        let mut run = Run { target, feed, outputs, rng: ChaCha8Rng::seed_from_u64(self.seed) };
        run.settle().await?;
        let mut recoveries = Vec::new();
        let kinds = kinds(cluster);
        for (number, fault) in schedule(&kinds, self.faults, self.seed).into_iter().enumerate() {
            let recovery = run.strike(fault).await?;
            println!(
                "{:>3}. {fault}: output after {:.1} s, Running after {:.1} s ({})",
                number + 1,
                recovery.output.as_secs_f64(),
                recovery.running.as_secs_f64(),
                recovery.evidence
            );
            recoveries.push(recovery);
        }
        let Run { target, feed, mut outputs, .. } = run;
        let written = feed.finish()?;
        let verdict = outputs.compare_all(&target.job, &written).await?;
        let report = Report { recoveries, verdict, records: written.values().sum(), lines: outputs.seen.lines };
        if report.is_right() {
            let mut of_reference = Outputs::follow_topic(&place, &reference_topic)?;
            let reference = Job::apply(&namespace, &reference)?;
            compare_with_reference(&reference, &mut of_reference, &outputs, &written).await?;
        }
        Ok(report)
    }
}

/// The kinds of fault that can be struck in a cluster; those that can't are said.
fn kinds(cluster: &Cluster) -> Vec<Fault> {
    let (possible, not): (Vec<_>, Vec<_>) =
        Fault::ALL.into_iter().partition(|fault| cluster.node.is_some() || !fault.needs_node());
    for fault in not {
        skipped(&fault.to_string(), "it needs the node itself, and this is not the project's own cluster");
    }
    possible
}

/// The same job without a fault, over the same records.
fn reference(manifest: &Manifest, place: &Place, output: &str) -> Manifest {
    let manifest = manifest.clone().named("reference").set("/spec/args", json!(Manifest::counting_args(place, output)));
    manifest.set("/spec/checkpointing/storage", json!(format!("s3://{}/reference", place.bucket)))
}

async fn compare_with_reference(
    job: &Job<'_>,
    reference: &mut Outputs,
    outputs: &Outputs,
    written: &Counts,
) -> Result<()> {
    job.wait_until_settled().await?;
    reference.expect_all(job, written).await?;
    let view = job.view().await?;
    ensure!(view.restarts() == 0 && view.generation() == 1, "the run without a fault had one: {}", view.describe());
    ensure!(reference.seen.highest() == outputs.seen.highest(), "state differs from that of a run without a fault");
    Ok(())
}

/// A job under fire.
struct Run<'a> {
    target: Target<'a>,
    feed: Feed,
    outputs: Outputs,
    rng: ChaCha8Rng,
}

impl Run<'_> {
    /// Waits until the job runs with all it should have, counts new records, and has completed a checkpoint since.
    async fn settle(&mut self) -> Result<()> {
        let job = &self.target.job;
        job.wait_until_settled().await?;
        let now = self.feed.written();
        self.outputs.wait_until_past(job, &now).await?;
        job.wait_for_new_checkpoint().await?;
        self.target.release.wait_for_other(self.target.cluster.client.clone(), &[]).await?;
        Ok(())
    }

    /// A taskmanager more, or that one away again: nothing that makes the job start anew, as its parallelism is set.
    async fn scale(&mut self, replicas: usize) -> Result<()> {
        let job = &self.target.job;
        let mut scale = self.target.cluster.kubectl()?;
        scale.args(["scale", &format!("streamjob/{}", job.name), &format!("--replicas={replicas}")]);
        scale.args(["--namespace", &job.namespace.name]);
        succeed(&mut scale)?;
        let slots = replicas as i64;
        job.wait("so many slots", |view| view.is_settled() && view.number("/status/slots/total") == slots).await?;
        Ok(())
    }

    async fn strike(&mut self, fault: Fault) -> Result<Recovery> {
        if fault == Fault::Zombie {
            // One to take over from the one that is cut off.
            self.scale(BUSY + 1).await?;
        }
        // A moment is what is random here: there is nothing to wait for.
        tokio::time::sleep(self.rng.random_range(Duration::ZERO..MOMENTS)).await;
        let began = Instant::now();
        let mut struck = self.target.strike(fault, &mut self.rng).await?;
        // A service that was away is back now: until then there was nothing to recover with.
        let from = if matches!(fault, Fault::Minio | Fault::Kafka) { Instant::now() } else { began };
        let (output, running) = self.recover(fault, &mut struck, from).await?;
        let phases = self.phases(&struck).await?;
        let evidence = self.target.evidence(&struck).await?;
        if let Some(cut) = struck.cut.take() {
            self.bring_back(cut).await?;
        }
        self.settle().await?;
        Ok(Recovery { fault, evidence, output, running, pods: struck.replaced.times(), phases })
    }

    /// What of the recovery took how long: status shows its last phases a moment later than that the job runs.
    async fn phases(&self, struck: &Struck) -> Result<Vec<(String, Duration)>> {
        let job = &self.target.job;
        let told = async || Ok(struck.phases(&job.view().await?));
        let explain = async || job.describe().await;
        wait::until("end of the recovery in status", wait::PATIENCE, told, explain).await
    }

    /// Watches output and status until status says that the job is over the fault and all keys have moved on since.
    /// Recovery is over with the end of the longest time that any key stood still: without its jobmanager, for one, a
    /// job goes on for a while, and is interrupted when the next one takes over.
    async fn recover(&mut self, fault: Fault, struck: &mut Struck, from: Instant) -> Result<(Duration, Duration)> {
        let (mut longest, mut output, mut running) = (Duration::ZERO, Duration::ZERO, None);
        let (mut since, mut then) = (from, self.feed.written());
        loop {
            if struck.replaced.is_awaited() {
                struck.replaced.look(from.elapsed(), &self.target.job.all_pods().await?);
            }
            self.outputs.read_on()?;
            if self.outputs.seen.moved_past(&then) {
                let stood_still = since.elapsed();
                let first = longest.is_zero();
                if first || (stood_still > longest && !fault.spares_the_job()) {
                    (longest, output) = (stood_still, from.elapsed());
                }
                if let Some(running) = running.filter(|_| !struck.replaced.is_awaited()) {
                    return Ok((output, running));
                }
                (since, then) = (Instant::now(), self.feed.written());
            }
            if running.is_none() && struck.is_recovered(fault, &self.target.job.view().await?) {
                running = Some(from.elapsed());
                // What comes now counts as after it.
                then = self.feed.written();
            }
            if from.elapsed() > wait::PATIENCE {
                let described = self.target.job.describe().await;
                bail!(
                    "no recovery from {fault}: keys stand still for {:?}, Running {running:?}\n{described}",
                    since.elapsed()
                );
            }
        }
    }

    /// Ends a cut: the one who was cut off registers again, and may not do harm.
    async fn bring_back(&mut self, cut: crate::cluster::Cut) -> Result<()> {
        let dropped = cut.heal()?;
        let job = &self.target.job;
        job.wait("zombie that registers again", |view| view.number("/status/slots/total") == BUSY as i64 + 1).await?;
        println!("     {dropped} packets were dropped; it is back");
        self.scale(BUSY).await
    }
}
