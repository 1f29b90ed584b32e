//! What a task counts of itself. A task adds to its own atomics, once a batch; readers sum up.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use millrace_core::{
    Error, Result,
    ids::{Attempt, TaskId},
};
use prometheus::{
    Gauge, IntCounter, Opts, Registry,
    core::{Collector, Desc},
    proto::MetricFamily,
};
use serde::{Deserialize, Serialize};

/// What a task does at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Activity {
    /// It processes records or takes a snapshot.
    Busy = 0,
    /// It waits for input.
    Idle = 1,
    /// It waits for room at a consumer.
    BackPressured = 2,
}

/// The counters of one task, all since its start.
#[derive(Debug)]
pub struct TaskMetrics {
    started: Instant,
    records_in: AtomicU64,
    records_out: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    /// Microseconds spent in each [`Activity`] that has ended.
    spent: [AtomicU64; 3],
    activity: AtomicU8,
    /// Since when, in microseconds after `started`.
    since: AtomicU64,
}

/// The values of a task's counters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskMetricsSnapshot {
    /// Records taken from inputs or read from the source.
    pub records_in: u64,
    /// Records handed to consumers, each counted once for each edge.
    pub records_out: u64,
    /// Bytes received from other processes.
    pub bytes_in: u64,
    /// Bytes sent to other processes.
    pub bytes_out: u64,
    /// Milliseconds spent on records and snapshots.
    pub busy_ms: u64,
    /// Milliseconds spent waiting for input.
    pub idle_ms: u64,
    /// Milliseconds spent waiting for consumers.
    pub backpressured_ms: u64,
}

impl TaskMetrics {
    /// Counters at zero, of a task that is busy with its start.
    pub fn new() -> Self {
        Self {
            started: Instant::now(),
            records_in: AtomicU64::new(0),
            records_out: AtomicU64::new(0),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            spent: Default::default(),
            activity: AtomicU8::new(Activity::Busy as u8),
            since: AtomicU64::new(0),
        }
    }

    /// Records came in.
    pub fn add_records_in(&self, records: usize) {
        self.records_in.fetch_add(records as u64, Ordering::Relaxed);
    }

    /// Records went out.
    pub fn add_records_out(&self, records: usize) {
        self.records_out.fetch_add(records as u64, Ordering::Relaxed);
    }

    /// Bytes came in.
    pub fn add_bytes_in(&self, bytes: usize) {
        self.bytes_in.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Bytes went out.
    pub fn add_bytes_out(&self, bytes: usize) {
        self.bytes_out.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// The task does something else from now on. Called by its own thread only.
    pub fn enter(&self, activity: Activity) {
        let before = usize::from(self.activity.load(Ordering::Relaxed));
        self.spend(before);
        self.activity.store(activity as u8, Ordering::Relaxed);
    }

    /// What the task did since it entered its activity turns out to have been this. Called by its own thread only.
    pub fn was(&self, activity: Activity) {
        self.spend(activity as usize);
    }

    fn spend(&self, activity: usize) {
        let now = self.started.elapsed().as_micros() as u64;
        let spent = now.saturating_sub(self.since.load(Ordering::Relaxed));
        self.spent[activity].fetch_add(spent, Ordering::Relaxed);
        self.since.store(now, Ordering::Relaxed);
    }

    /// How long the task has waited for consumers.
    pub fn backpressured(&self) -> Duration {
        Duration::from_micros(self.spent[Activity::BackPressured as usize].load(Ordering::Relaxed))
    }

    /// Records taken from inputs or read from the source.
    pub fn num_records_in(&self) -> u64 {
        self.records_in.load(Ordering::Relaxed)
    }

    /// Records handed to consumers, each counted once for each edge.
    pub fn num_records_out(&self) -> u64 {
        self.records_out.load(Ordering::Relaxed)
    }

    /// The values now, the current activity included. Values of one moment may differ by one batch.
    pub fn snapshot(&self) -> TaskMetricsSnapshot {
        let mut spent = [0, 1, 2].map(|activity: usize| self.spent[activity].load(Ordering::Relaxed));
        let now = self.started.elapsed().as_micros() as u64;
        let current = usize::from(self.activity.load(Ordering::Relaxed));
        spent[current] += now.saturating_sub(self.since.load(Ordering::Relaxed));
        TaskMetricsSnapshot {
            records_in: self.num_records_in(),
            records_out: self.num_records_out(),
            bytes_in: self.bytes_in.load(Ordering::Relaxed),
            bytes_out: self.bytes_out.load(Ordering::Relaxed),
            busy_ms: spent[Activity::Busy as usize] / 1000,
            idle_ms: spent[Activity::Idle as usize] / 1000,
            backpressured_ms: spent[Activity::BackPressured as usize] / 1000,
        }
    }
}

impl Default for TaskMetrics {
    fn default() -> Self {
        Self::new()
    }
}

/// A task's counters as Prometheus sees them, under Flink's names behind our prefix, until this is dropped.
pub struct ShownTask {
    registry: Registry,
    collector: TaskCollector,
}

impl ShownTask {
    /// Shows a task's counters in a registry.
    pub fn register(
        registry: &Registry,
        task_name: &str,
        task: TaskId,
        attempt: Attempt,
        metrics: &Arc<TaskMetrics>,
    ) -> Result<Self> {
        // Several vertices may have one name; their ids differ.
        let labels = [
            ("task_id", task.vertex.to_string()),
            ("task_name", task_name.to_string()),
            ("subtask_index", task.subtask.to_string()),
            ("task_attempt_num", attempt.to_string()),
        ];
        let labels: HashMap<_, _> = labels.into_iter().map(|(name, value)| (name.to_string(), value)).collect();
        let collector = TaskCollector::new(labels, Arc::clone(metrics)).and_then(|collector| {
            registry.register(Box::new(collector.clone()))?;
            Ok(collector)
        });
        let collector =
            collector.map_err(|error| Error::internal(format!("the metrics of task {task_name} {task}: {error}")))?;
        Ok(Self { registry: registry.clone(), collector })
    }
}

impl Drop for ShownTask {
    fn drop(&mut self) {
        if let Err(error) = self.registry.unregister(Box::new(self.collector.clone())) {
            tracing::warn!("a task's metrics stay shown after its end: {error}");
        }
    }
}

#[derive(Clone)]
struct TaskCollector {
    counters: Vec<(IntCounter, Read)>,
    rates: Vec<(Gauge, Read)>,
    metrics: Arc<TaskMetrics>,
    /// Where the current rates' time starts.
    window: Arc<Mutex<(Instant, TaskMetricsSnapshot)>>,
}

const PREFIX: &str = "millrace_taskmanager_job_task_";
/// Rates are taken over at least this long, so that several scrapers don't disturb each other.
const RATE_WINDOW: Duration = Duration::from_secs(1);

type Read = fn(&TaskMetricsSnapshot) -> u64;
const COUNTERS: [(&str, &str, Read); 7] = [
    ("numRecordsIn", "Records taken from inputs or read from the source", |m| m.records_in),
    ("numRecordsOut", "Records handed to consumers", |m| m.records_out),
    ("numBytesIn", "Bytes received from other processes", |m| m.bytes_in),
    ("numBytesOut", "Bytes sent to other processes", |m| m.bytes_out),
    ("accumulateBusyTimeMs", "Milliseconds spent on records and snapshots", |m| m.busy_ms),
    ("accumulateIdleTimeMs", "Milliseconds spent waiting for input", |m| m.idle_ms),
    ("accumulateBackPressuredTimeMs", "Milliseconds spent waiting for consumers", |m| m.backpressured_ms),
];
const RATES: [(&str, &str, Read); 3] = [
    ("busyTimeMsPerSecond", "Milliseconds of a second spent on records and snapshots", |m| m.busy_ms),
    ("idleTimeMsPerSecond", "Milliseconds of a second spent waiting for input", |m| m.idle_ms),
    ("backPressuredTimeMsPerSecond", "Milliseconds of a second spent waiting for consumers", |m| m.backpressured_ms),
];

impl TaskCollector {
    fn new(labels: HashMap<String, String>, metrics: Arc<TaskMetrics>) -> prometheus::Result<Self> {
        let opts = |name, help| Opts::new(format!("{PREFIX}{name}"), help).const_labels(labels.clone());
        let counter = |(name, help, read)| Ok((IntCounter::with_opts(opts(name, help))?, read));
        let gauge = |(name, help, read)| Ok((Gauge::with_opts(opts(name, help))?, read));
        Ok(Self {
            counters: COUNTERS.into_iter().map(counter).collect::<prometheus::Result<_>>()?,
            rates: RATES.into_iter().map(gauge).collect::<prometheus::Result<_>>()?,
            window: Arc::new(Mutex::new((Instant::now(), metrics.snapshot()))),
            metrics,
        })
    }
}

impl Collector for TaskCollector {
    fn desc(&self) -> Vec<&Desc> {
        let counters = self.counters.iter().flat_map(|(counter, _)| counter.desc());
        counters.chain(self.rates.iter().flat_map(|(gauge, _)| gauge.desc())).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        // Also keeps two scrapers apart: a counter is read and raised in two steps.
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.metrics.snapshot();
        for (counter, read) in &self.counters {
            counter.inc_by(read(&now).saturating_sub(counter.get()));
        }
        let elapsed = window.0.elapsed();
        if elapsed >= RATE_WINDOW {
            for (gauge, read) in &self.rates {
                gauge.set(read(&now).saturating_sub(read(&window.1)) as f64 / elapsed.as_secs_f64());
            }
            *window = (Instant::now(), now);
        }
        let counters = self.counters.iter().flat_map(|(counter, _)| counter.collect());
        counters.chain(self.rates.iter().flat_map(|(gauge, _)| gauge.collect())).collect()
    }
}

#[cfg(test)]
mod tests {
    use millrace_core::ids::VertexId;

    use super::*;

    fn shown(registry: &Registry, name: &str) -> Vec<f64> {
        let families = registry.gather();
        let family = families.iter().find(|family| family.name() == format!("{PREFIX}{name}"));
        family.map_or(Vec::new(), |family| family.get_metric().iter().map(|m| m.get_counter().get_value()).collect())
    }

    #[test]
    fn tasks_are_shown_until_they_have_ended() {
        let registry = Registry::new();
        // Two vertices may have one name.
        let show = |vertex, records| {
            let metrics = Arc::new(TaskMetrics::new());
            metrics.add_records_in(records);
            let task = TaskId { vertex: VertexId(vertex), subtask: 0 };
            ShownTask::register(&registry, "map -> print", task, Attempt(3), &metrics).unwrap()
        };
        let (first, second) = (show(0, 7), show(1, 5));
        assert_eq!(shown(&registry, "numRecordsIn"), [7.0, 5.0]);
        assert_eq!(shown(&registry, "numRecordsIn"), [7.0, 5.0], "a second scrape counts nothing twice");
        drop(first);
        assert_eq!(shown(&registry, "numRecordsIn"), [5.0]);
        drop(second);
        assert!(registry.gather().is_empty());
    }

    #[test]
    fn time_is_spent_in_one_activity_at_a_time() {
        let metrics = TaskMetrics::new();
        metrics.enter(Activity::Idle);
        metrics.enter(Activity::BackPressured);
        metrics.enter(Activity::Busy);
        let whole = metrics.started.elapsed().as_micros() as u64;
        let spent: u64 = metrics.spent.iter().map(|spent| spent.load(Ordering::Relaxed)).sum();
        assert!(spent <= whole);
        assert_eq!(metrics.since.load(Ordering::Relaxed), spent);
    }
}
