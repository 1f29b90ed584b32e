//! What checkpoints of 10 million keys cost: a job changes a part of its counters, or all of them, between two
//! checkpoints (`bin/bench_job/changes.rs`), and REST tells what each checkpoint took.

use std::{
    collections::BTreeMap,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use reqwest::blocking::Client;
use serde_json::Value;

use crate::{
    Arguments,
    case::{Case, Cell, Row, median, quantile},
    contender::{MillraceJob, Running},
    measure::Watched,
};

const KEYS: u64 = 10_000_000;
const POLL: Duration = Duration::from_millis(200);
/// So many checkpoints are measured at least.
const LEAST: usize = 2;
/// How long anything may take that is waited for: filling the state, a checkpoint of all of it.
const PATIENCE: Duration = Duration::from_secs(600);

struct Checkpoints {
    backend: &'static str,
    /// How much of the state is changed between two checkpoints, of 1.
    changed: f64,
    interval: Duration,
}

/// The cells. Where all is changed, the interval leaves time to change it.
pub fn cases() -> Vec<Box<dyn Case>> {
    let cell = |backend, changed, seconds| {
        Box::new(Checkpoints { backend, changed, interval: Duration::from_secs(seconds) }) as Box<dyn Case>
    };
    vec![cell("heap", 0.01, 5), cell("heap", 1.0, 5), cell("rocksdb", 0.01, 2), cell("rocksdb", 1.0, 15)]
}

/// What a checkpoint took.
struct Taken {
    duration_ms: f64,
    mib: f64,
    /// The longest time that a task stood still, in whole milliseconds.
    pause_ms: f64,
}

impl Case for Checkpoints {
    fn name(&self) -> String {
        let changed = self.changed * 100.0;
        format!("checkpoints backend={} keys={KEYS} changed={changed:.0}%", self.backend)
    }

    fn run(&self, arguments: &Arguments) -> Result<Row> {
        let (mut job, rest) = self.start()?;
        let rest = Rest::new(rest);
        wait(&mut job, "filled state", |job| Ok(job.records()? >= KEYS))?;
        let filled = job.checkpoints()?;
        // One may have begun before.
        wait(&mut job, "checkpoint of all state", |job| Ok(job.checkpoints()? >= filled + 2))?;
        let first = rest.newest()?;
        let (began, before, mut taken) = (Instant::now(), job.records()?, BTreeMap::new());
        let time = arguments.time;
        while began.elapsed() < time || taken.len() < LEAST {
            thread::sleep(POLL);
            job.still_runs()?;
            rest.note(first, &mut taken)?;
            ensure!(began.elapsed() < PATIENCE, "fewer than {LEAST} checkpoints within {PATIENCE:?}\n{}", job.log());
        }
        let records = (job.records()? - before) as f64;
        let of = |value: fn(&Taken) -> f64| taken.values().map(value).collect::<Vec<_>>();
        let (pauses, durations) = (of(|one| one.pause_ms), of(|one| one.duration_ms));
        let longest = quantile(&durations, 1.0);
        let changed = (records / taken.len() as f64 / KEYS as f64).min(1.0) * 100.0;
        let pause = |key, share| {
            let value = quantile(&pauses, share);
            Cell::number(key, value, if value < 1.0 { "<1ms".to_owned() } else { format!("{value:.0}ms") })
        };
        let (duration, size) = (median(&durations), median(&of(|one| one.mib)));
        Ok(Row {
            name: self.name(),
            cells: vec![
                Cell::number("checkpoints", taken.len() as f64, taken.len().to_string()),
                Cell::number("keys-changed", changed, format!("{changed:.1}%")),
                Cell::number("duration", duration, format!("{duration:.0}ms")),
                Cell::number("longest", longest, format!("{longest:.0}ms")),
                Cell::number("written", size, format!("{size:.1}MiB")),
                pause("pause-p50", 0.5),
                pause("pause-p99", 0.99),
                pause("pause-max", 1.0),
            ],
        })
    }
}

impl Checkpoints {
    fn start(&self) -> Result<(Running, u16)> {
        let interval = humantime::format_duration(self.interval).to_string();
        let job = MillraceJob::new("bench_job")?
            .args(["changes", "--keys", &KEYS.to_string()])
            .state(self.backend, &interval);
        let job = if self.changed < 1.0 {
            let rate = self.changed * KEYS as f64 / self.interval.as_secs_f64();
            job.args(["--rate", &rate.to_string()])
        } else {
            job
        };
        let (counted, rest) = (job.taken_by("Count"), job.rest());
        Ok((job.start(counted)?, rest))
    }
}

fn wait(job: &mut Running, what: &str, done: impl Fn(&Running) -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    // The metrics are not there at once.
    while !done(job).unwrap_or(false) {
        job.still_runs()?;
        ensure!(Instant::now() < deadline, "no {what} within {PATIENCE:?}\n{}", job.log());
        thread::sleep(POLL);
    }
    Ok(())
}

/// The job's REST server.
struct Rest {
    client: Client,
    port: u16,
}

impl Rest {
    fn new(port: u16) -> Self {
        Self { client: Client::new(), port }
    }

    fn get(&self, path: &str) -> Result<Value> {
        let url = format!("http://127.0.0.1:{}{path}", self.port);
        let answer = self.client.get(&url).send()?.error_for_status()?.text()?;
        serde_json::from_str(&answer).with_context(|| format!("{url}: {answer}"))
    }

    fn job(&self) -> Result<String> {
        let jobs = self.get("/jobs")?;
        Ok(jobs["jobs"][0]["id"].as_str().context("no job")?.to_owned())
    }

    /// The newest checkpoint that was triggered.
    fn newest(&self) -> Result<u64> {
        let statistics = self.get(&format!("/jobs/{}/checkpoints", self.job()?))?;
        let ids = statistics["history"].as_array().into_iter().flatten().filter_map(|one| one["id"].as_u64());
        ids.max().context("no checkpoint was triggered")
    }

    /// Adds the completed checkpoints behind `first` that are not known yet.
    fn note(&self, first: u64, taken: &mut BTreeMap<u64, Taken>) -> Result<()> {
        let path = format!("/jobs/{}/checkpoints", self.job()?);
        let statistics = self.get(&path)?;
        for one in statistics["history"].as_array().into_iter().flatten() {
            let id = one["id"].as_u64().context("a checkpoint without an id")?;
            ensure!(one["status"] != "FAILED", "checkpoint {id} failed: {}", one["failure_message"]);
            if id <= first || one["status"] != "COMPLETED" || taken.contains_key(&id) {
                continue;
            }
            let number = |value: &Value| value.as_f64().with_context(|| format!("checkpoint {id} is {one}"));
            let duration_ms = number(&one["end_to_end_duration"])?;
            let mib = number(&one["checkpointed_size"])? / f64::from(1 << 20);
            let details = self.get(&format!("{path}/details/{id}"))?;
            let mut pause_ms: f64 = 0.0;
            for vertex in details["tasks"].as_object().context("no tasks")?.keys() {
                let of_vertex = self.get(&format!("{path}/details/{id}/subtasks/{vertex}"))?;
                pause_ms = pause_ms.max(number(&of_vertex["summary"]["checkpoint_duration"]["sync"]["max"])?);
            }
            taken.insert(id, Taken { duration_ms, mib, pause_ms });
        }
        Ok(())
    }
}
