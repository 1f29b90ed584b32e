//! A campaign: a job, records for it, faults one after the other, and the verdict.

use std::{
    collections::BTreeSet,
    ops::Range,
    time::{Duration, Instant},
};

use millrace_core::rest::JobStatus;
use millrace_testkit::{
    cluster::{self, JobCluster, PATIENCE},
    services::kafka::Isolation,
};

use super::{
    Backend, Expected, Fault, Focus, Job, Report, Result, Strike, Struck, Target,
    checker::{Outputs, compare},
    effect::effects,
    fault::Moment,
    feed::Feed,
    output::Output,
    place::{INPUT, Place},
    schedule,
    strike::{self, Done},
    team::Team,
    watch::Watch,
};

/// So many checkpoints without a new output, and a job whose outputs nobody can tell beforehand has written all.
const QUIET_CHECKPOINTS: u32 = 3;
/// A sink looks for what zombies have left 10 s after its start, and then each time after twice as long.
const SWEEP: Duration = Duration::from_secs(15);

/// Faults to be struck at a job.
#[derive(Clone, Debug)]
pub struct Campaign {
    /// The job.
    pub job: Job,
    /// Where its state lives.
    pub backend: Backend,
    /// How many.
    pub faults: usize,
    /// Only these kinds; none: all that are possible.
    pub kinds: Vec<Fault>,
    /// Where they are struck.
    pub focus: Focus,
    /// Decides their order, whom they hit, when, and what the records are.
    pub seed: u64,
}

impl Campaign {
    /// The faults in their order, on a machine that has the means for all of them.
    pub fn plan(&self) -> Vec<Strike> {
        self.plan_without(&[])
    }

    fn plan_without(&self, impossible: &[(Fault, &str)]) -> Vec<Strike> {
        let not = |kind: &Fault| impossible.iter().any(|(fault, _)| fault == kind);
        let kinds: Vec<_> = self.wanted().filter(|kind| self.moot(*kind).is_none() && !not(kind)).collect();
        schedule(&kinds, self.focus, self.faults, self.seed)
    }

    /// The kinds that were asked for, in an order of their own.
    fn wanted(&self) -> impl Iterator<Item = Fault> {
        Fault::ALL.into_iter().filter(|kind| self.kinds.is_empty() || self.kinds.contains(kind))
    }

    fn moot(&self, kind: Fault) -> Option<&'static str> {
        kind.is_moot(self.backend, self.job.target)
    }

    /// Runs the job through all faults. An error is a fault that did not happen, or a job that did not recover.
    pub fn run(&self) -> Result<Report> {
        let place = Place::new(self.backend, self.job.target)?;
        let impossible = place.impossible();
        let moot = self.wanted().filter_map(|kind| Some((kind, self.moot(kind)?)));
        let missed = self.wanted().filter_map(|kind| impossible.iter().find(|(fault, _)| *fault == kind).copied());
        for (fault, why) in moot.chain(missed) {
            println!("left out: {fault}: {why}");
        }
        let strikes = self.plan_without(&impossible);
        if strikes.is_empty() {
            return Err("none of these faults is possible here".into());
        }
        self.run_in(&place, &strikes)
    }

    fn run_in(&self, place: &Place, strikes: &[Strike]) -> Result<Report> {
        let output = place.output(self.job.target, "attacked")?;
        let watch = Watch::start(&output, self.job.guarantee)?;
        let feed = Feed::start(place.kafka.clone(), INPUT, self.job.records.clone(), self.seed);
        let started = Instant::now();
        let mut team = Team::start(place, &self.job, "attacked", &output)?;
        let struck = self.strike_all(&mut team, place, &watch, strikes)?;
        feed.finish()?;

        let (expected, records) = self.expected(place)?;
        wait_for_outputs(&mut team.cluster, &output, &watch, Some(&expected))?;
        wait_for_clean_up(&mut team.cluster, &output, started.elapsed())?;
        self.end(&mut team.cluster)?;
        let seen = output.outputs(self.job.guarantee)?;
        let mut verdict = compare(&expected, &seen, self.job.guarantee)?;
        verdict.left_over(place.left_over(&output)?);
        let outputs = seen.values().map(|values| values.len() as u64).sum();
        watch.finish()?;
        Ok(Report { struck, verdict, records, outputs })
    }

    fn strike_all(&self, team: &mut Team<'_>, place: &Place, watch: &Watch, strikes: &[Strike]) -> Result<Vec<Struck>> {
        let started = Instant::now();
        settle(team, watch)?;
        let mut struck: Vec<Struck> = Vec::new();
        let mut last: Option<Instant> = None;
        for (number, next) in strikes.iter().enumerate() {
            let failed = |error| format!("{next:?}, fault {} of {}: {error}", number + 1, self.describe());
            if !matches!(next.moment, Moment::Hasty(_)) {
                settle(team, watch).map_err(failed)?;
                recovered(struck.last_mut(), last, watch);
            }
            let Done { at, evidence } = strike::strike(team, place, *next).map_err(failed)?;
            let (lasted, seconds) = (at.elapsed(), started.elapsed().as_secs());
            println!(
                "{}: {:>4}. {seconds:>4} s  {:<20} {:<32} {evidence}",
                self.seed,
                number + 1,
                next.fault,
                next.moment.to_string()
            );
            let Strike { fault, moment, .. } = *next;
            struck.push(Struck { fault, moment, evidence, lasted, silent: None });
            last = Some(at);
        }
        settle(team, watch)?;
        recovered(struck.last_mut(), last, watch);
        Ok(struck)
    }

    /// What should come out, and how many records went in.
    fn expected(&self, place: &Place) -> Result<(Outputs, u64)> {
        let messages = place.kafka.consume_all(INPUT, Isolation::ReadUncommitted)?;
        let goal = match self.job.expected {
            Expected::Reference => None,
            Expected::Effects => Some(effects(messages.iter().map(|message| message.text()))),
        };
        let reference = self.reference(place, goal.as_ref())?;
        if let Some(goal) = goal.filter(|goal| *goal != reference) {
            let verdict = compare(&goal, &reference, super::Guarantee::ExactlyOnce)?;
            return Err(format!("a run without a fault is wrong already: {verdict:?}").into());
        }
        Ok((reference, messages.len() as u64))
    }

    /// The outputs of a run over the same input without a fault.
    fn reference(&self, place: &Place, goal: Option<&Outputs>) -> Result<Outputs> {
        let output = place.output(self.job.target, "reference")?;
        let watch = Watch::start(&output, self.job.guarantee)?;
        // On a busy machine silence alone is no failure. And nobody strikes at checkpoints: they leave time for records,
        // which are all there from the beginning.
        let spec = place.spec(&self.job, "reference", &output).set("heartbeat.timeout", "60 s");
        let spec = spec.set("execution.checkpointing.interval", "1 s");
        let spec = spec.taskmanagers(self.job.slots);
        let mut cluster = JobCluster::start(spec)?;
        cluster.wait_until_running()?;
        wait_for_outputs(&mut cluster, &output, &watch, goal)?;
        let state = cluster.state()?;
        if state.job.restarts > 0 {
            return Err(format!("the run without a fault had one: {state}").into());
        }
        self.end(&mut cluster)?;
        watch.finish()?;
        output.outputs(self.job.guarantee)
    }

    /// Ends the job. One that writes files is stopped: what it had prepared when it was cancelled would lie there.
    fn end(&self, cluster: &mut JobCluster) -> Result<()> {
        match self.job.target {
            Target::Kafka | Target::Postgres => cluster.cancel()?,
            Target::Files | Target::S3 => cluster.stop()?,
        }
        let end = cluster.wait_end()?;
        match end.state {
            JobStatus::Failed => Err(format!("the job has failed at its end: {:?}", end.error).into()),
            _ => Ok(()),
        }
    }

    fn describe(&self) -> String {
        format!("{} (backend {}, seed {})", self.faults, self.backend.name(), self.seed)
    }
}

/// Waits until the job runs with all its processes, has completed a checkpoint since, and writes.
fn settle(team: &mut Team<'_>, watch: &Watch) -> Result<()> {
    team.wait_until_complete()?;
    let before = watch.news();
    team.cluster.wait_for_new_checkpoint()?;
    team.cluster.wait_for("new output", PATIENCE, |_| {
        let news = watch.news();
        ((news > before).then_some(()), format!("{news} outputs"))
    })?;
    Ok(())
}

/// The last fault is over: notes how long the job was silent.
fn recovered(struck: Option<&mut Struck>, at: Option<Instant>, watch: &Watch) {
    if let (Some(struck), Some(at)) = (struck, at) {
        let silence = watch.longest_silence(at, Instant::now());
        struck.silent = silence.map(|Range { start, end }| match struck.fault.ends_tasks() {
            true => end - at,
            false => end - start,
        });
    }
}

/// Waits until as many different outputs have come, or until rows are as they should be, and for a checkpoint behind
/// them: whatever else was read is written before it completes. Without a goal, until the job completes checkpoints and
/// nothing more comes. Where outputs are missing and nothing new has come for too long, that is what the verdict says.
fn wait_for_outputs(cluster: &mut JobCluster, output: &Output, watch: &Watch, goal: Option<&Outputs>) -> Result<()> {
    let mut end = Instant::now() + PATIENCE;
    if let Some(goal) = goal {
        let count: usize = goal.values().map(Vec::len).sum();
        let is_there = |seen| -> Result<bool> {
            match output {
                // A row that has had a value before may have it again, which is nothing new.
                Output::Table(table) => Ok(table.rows()? == *goal),
                _ => Ok(seen >= count),
            }
        };
        let mut seen = watch.news();
        while !is_there(seen)? && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(20));
            let news = watch.news();
            if std::mem::replace(&mut seen, news) < news {
                end = Instant::now() + PATIENCE;
            }
        }
        cluster.wait_for_new_checkpoint()?;
        return Ok(());
    }
    loop {
        let before = watch.messages();
        for _ in 0..QUIET_CHECKPOINTS {
            cluster.wait_for_new_checkpoint()?;
        }
        let now = watch.messages();
        if now == before && now > 0 {
            return Ok(());
        }
        if now == 0 && Instant::now() >= end {
            return Err("the job writes nothing to its output topic".into());
        }
    }
}

/// Waits until nothing is there any more of what waits to be committed now: a job that runs commits its own, and removes
/// what zombies have left. The longer it has run, the more rarely it looks for that. What stays is for the verdict.
fn wait_for_clean_up(cluster: &mut JobCluster, output: &Output, ran: Duration) -> Result<()> {
    let waits: BTreeSet<_> = output.invisible()?.into_iter().collect();
    let cleaned = cluster.wait_for("clean-up", ran + SWEEP, |_| {
        let still =
            output.invisible().map(|now| now.into_iter().filter(|name| waits.contains(name)).collect::<Vec<_>>());
        (matches!(&still, Ok(still) if still.is_empty()).then_some(()), format!("{still:?}"))
    });
    match cleaned {
        Err(cluster::Error::TimedOut { last, .. }) => println!("not cleaned up: {last}"),
        cleaned => cleaned?,
    }
    Ok(())
}
