//! A task's metrics as Prometheus sees them.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use millrace_core::{
    Error, Result,
    ids::{Attempt, TaskId},
};
use prometheus::{
    Gauge, GaugeVec, IntCounter, Opts, Registry,
    core::{Collector, Desc},
    proto::MetricFamily,
};

use super::{OperatorFigures, TaskMetrics, TaskMetricsSnapshot, TaskRates};

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
    counters: Vec<(IntCounter, Read<u64>)>,
    gauges: Vec<(Gauge, Read<f64>)>,
    rates: Vec<(Gauge, ReadRate)>,
    pending_records: Gauge,
    keyed_state_size: GaugeVec,
    /// Of each state, with the operator.
    states: Vec<(GaugeVec, ReadState)>,
    metrics: Arc<TaskMetrics>,
    /// What the current rates began with.
    window: Arc<Mutex<(Instant, TaskMetricsSnapshot)>>,
}

const PREFIX: &str = "millrace_taskmanager_job_task_";
/// Rates are taken over at least this long, so that several scrapers don't disturb each other.
const RATE_WINDOW: Duration = Duration::from_secs(1);

type Read<T> = fn(&TaskMetricsSnapshot) -> T;
type ReadRate = fn(&TaskRates) -> f64;
const COUNTERS: [(&str, &str, Read<u64>); 7] = [
    ("numRecordsIn", "Records taken from inputs or read from the source", |m| m.records_in),
    ("numRecordsOut", "Records handed to consumers", |m| m.records_out),
    ("numBytesIn", "Bytes received from other processes (Flink's also count what stays in one)", |m| m.bytes_in),
    ("numBytesOut", "Bytes sent to other processes (Flink's also count what stays in one)", |m| m.bytes_out),
    ("accumulateBusyTimeMs", "Milliseconds spent on records and snapshots", |m| m.busy_ms),
    ("accumulateIdleTimeMs", "Milliseconds spent waiting for input", |m| m.idle_ms),
    ("accumulateBackPressuredTimeMs", "Milliseconds spent waiting for consumers", |m| m.backpressured_ms),
];
const GAUGES: [(&str, &str, Read<f64>); 4] = [
    ("checkpointAlignmentTime", "Nanoseconds that the last checkpoint's barriers were aligned for", |m| {
        m.alignment_nanos as f64
    }),
    ("checkpointStartDelayNanos", "Nanoseconds from the last checkpoint's trigger to its first barrier", |m| {
        m.start_delay_nanos as f64
    }),
    ("debloatedBufferSize", "Records that may wait in each input channel; 0: not measured yet", |m| {
        m.debloated_buffer_size as f64
    }),
    (
        "estimatedTimeToConsumeBuffersMs",
        "Milliseconds of work that waited in the input channels when debloatedBufferSize was measured",
        |m| m.time_to_consume_ms as f64,
    ),
];
const RATES: [(&str, &str, ReadRate); 5] = [
    ("busyTimeMsPerSecond", "Milliseconds of a second spent on records and snapshots", |r| r.busy_ms),
    ("idleTimeMsPerSecond", "Milliseconds of a second spent waiting for input", |r| r.idle_ms),
    ("backPressuredTimeMsPerSecond", "Milliseconds of a second spent waiting for consumers", |r| r.backpressured_ms),
    ("numRecordsInPerSecond", "Records taken from inputs or read from the source in a second", |r| r.records_in),
    ("numRecordsOutPerSecond", "Records handed to consumers in a second", |r| r.records_out),
];
const PENDING_RECORDS: (&str, &str) =
    ("operator_pendingRecords", "Records that the source has not read yet: its lag; only of sources that know it");
const OPERATOR_LABELS: [&str; 2] = ["operator_id", "operator_name"];
const KEYED_STATE_SIZE: (&str, &str) = (
    "operator_keyedStateSize",
    "Bytes of all keyed state of an operator: its stateSize on the heap; RocksDB's files, compressed, and hot entries; what a \
     backend of your own says (not Flink's)",
);
const STATE_LABELS: [&str; 3] = ["operator_id", "operator_name", "state"];
type ReadState = fn(&OperatorFigures, usize) -> Option<f64>;
const STATES: [(&str, &str, ReadState); 3] = [
    ("operator_stateAccesses", "How often a state was read or written (not Flink's)", |operator, state| {
        Some(operator.states[state].accesses as f64)
    }),
    (
        "operator_stateAccessLatency",
        "Nanoseconds that an access to a state takes, in the mean of samples (not Flink's, which has a histogram of each kind \
         of access)",
        |o, state| o.states[state].mean_nanos().map(|nanos| nanos as f64),
    ),
    (
        "operator_stateSize",
        "Bytes of the slots of a state's tables on the heap, filled or not: keys of up to 18 bytes and values are \
         there, but what they own elsewhere, such as texts, is not; only of backends on the heap (not Flink's)",
        |operator, state| operator.states[state].bytes.map(|bytes| bytes as f64),
    ),
];

/// Name, what it is and a description of each metric of a task, for the documentation.
pub fn described() -> Vec<(String, &'static str, &'static str)> {
    let named = |kind: &'static str| move |(name, help): (&str, &'static str)| (format!("{PREFIX}{name}"), kind, help);
    let counters = COUNTERS.iter().map(|(name, help, _)| (*name, *help)).map(named("counter"));
    let gauges = GAUGES.iter().map(|(name, help, _)| (*name, *help));
    let rates = RATES.iter().map(|(name, help, _)| (*name, *help));
    let states = STATES.iter().map(|(name, help, _)| (*name, *help));
    counters
        .chain(gauges.chain(rates).chain([PENDING_RECORDS, KEYED_STATE_SIZE]).chain(states).map(named("gauge")))
        .collect()
}

impl TaskCollector {
    fn new(labels: HashMap<String, String>, metrics: Arc<TaskMetrics>) -> prometheus::Result<Self> {
        let opts = |name, help| Opts::new(format!("{PREFIX}{name}"), help).const_labels(labels.clone());
        let gauge = |name, help| Gauge::with_opts(opts(name, help));
        let counters = COUNTERS.map(|(name, help, read)| Ok((IntCounter::with_opts(opts(name, help))?, read)));
        let states = STATES.map(|(name, help, read)| Ok((GaugeVec::new(opts(name, help), &STATE_LABELS)?, read)));
        Ok(Self {
            counters: counters.into_iter().collect::<prometheus::Result<_>>()?,
            gauges: GAUGES
                .into_iter()
                .map(|(name, help, read)| Ok((gauge(name, help)?, read)))
                .collect::<prometheus::Result<_>>()?,
            rates: RATES
                .into_iter()
                .map(|(name, help, read)| Ok((gauge(name, help)?, read)))
                .collect::<prometheus::Result<_>>()?,
            pending_records: gauge(PENDING_RECORDS.0, PENDING_RECORDS.1)?,
            keyed_state_size: GaugeVec::new(opts(KEYED_STATE_SIZE.0, KEYED_STATE_SIZE.1), &OPERATOR_LABELS)?,
            states: states.into_iter().collect::<prometheus::Result<_>>()?,
            window: Arc::new(Mutex::new((Instant::now(), metrics.snapshot()))),
            metrics,
        })
    }

    /// What the task has published.
    fn collect_figures(&self) -> Vec<MetricFamily> {
        let figures = self.metrics.figures();
        let mut families = Vec::new();
        if let Some(pending) = figures.pending_records {
            self.pending_records.set(pending as f64);
            families.extend(self.pending_records.collect());
        }
        for operator in &figures.operators {
            let gauge = self.keyed_state_size.with_label_values(&[&operator.uid.0, &operator.name]);
            gauge.set(operator.state_bytes() as f64);
        }
        families.extend(self.keyed_state_size.collect());
        for (gauge, read) in &self.states {
            for operator in &figures.operators {
                for (index, state) in operator.states.iter().enumerate() {
                    if let Some(value) = read(operator, index) {
                        gauge.with_label_values(&[&operator.uid.0, &operator.name, &state.state]).set(value);
                    }
                }
            }
            families.extend(gauge.collect());
        }
        families
    }
}

impl Collector for TaskCollector {
    fn desc(&self) -> Vec<&Desc> {
        let counters = self.counters.iter().flat_map(|(counter, _)| counter.desc());
        let gauges = self.gauges.iter().flat_map(|(gauge, _)| gauge.desc());
        let rates = self.rates.iter().flat_map(|(gauge, _)| gauge.desc());
        let states = self.states.iter().flat_map(|(gauge, _)| gauge.desc());
        let operators = self.pending_records.desc().into_iter().chain(self.keyed_state_size.desc());
        counters.chain(gauges).chain(rates).chain(operators).chain(states).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        // Also keeps two scrapers apart: a counter is read and raised in two steps.
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.metrics.snapshot();
        for (counter, read) in &self.counters {
            counter.inc_by(read(&now).saturating_sub(counter.get()));
        }
        for (gauge, read) in &self.gauges {
            gauge.set(read(&now));
        }
        if window.0.elapsed() >= RATE_WINDOW
            && let Some(rates) = TaskRates::between(&window.1, &now)
        {
            for (gauge, read) in &self.rates {
                gauge.set(read(&rates));
            }
            *window = (Instant::now(), now);
        }
        let counters = self.counters.iter().flat_map(|(counter, _)| counter.collect());
        let gauges = self.gauges.iter().flat_map(|(gauge, _)| gauge.collect());
        let rates = self.rates.iter().flat_map(|(gauge, _)| gauge.collect());
        counters.chain(gauges).chain(rates).chain(self.collect_figures()).collect()
    }
}

#[cfg(test)]
mod tests {
    use millrace_core::ids::{OperatorUid, VertexId};
    use millrace_state::keyed::StateFigures;

    use super::{super::TaskFigures, *};

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
    fn what_a_task_publishes_is_shown_with_its_operator_and_state() {
        let registry = Registry::new();
        let metrics = Arc::new(TaskMetrics::new());
        let task = TaskId { vertex: VertexId(0), subtask: 0 };
        let _shown = ShownTask::register(&registry, "count", task, Attempt(1), &metrics).unwrap();
        let gauges = |name: &str| {
            let families = registry.gather();
            let family = families.into_iter().find(|family| family.name() == format!("{PREFIX}{name}"));
            family.map_or(Vec::new(), |family| family.get_metric().to_vec())
        };
        assert!(gauges("operator_pendingRecords").is_empty(), "no source that knows it");
        let state =
            StateFigures { state: "count".into(), accesses: 9, timed_accesses: 2, timed_nanos: 50, bytes: None };
        let operator = OperatorFigures {
            uid: OperatorUid("c".into()),
            name: "Count".into(),
            states: vec![state],
            backend_bytes: Some(70),
        };
        assert_eq!(operator.state_bytes(), 70);
        metrics.publish(TaskFigures { pending_records: Some(3), operators: vec![operator] });
        assert_eq!(gauges("operator_pendingRecords")[0].get_gauge().get_value(), 3.0);
        let accesses = gauges("operator_stateAccesses");
        assert_eq!(accesses[0].get_gauge().get_value(), 9.0);
        let labels: Vec<_> = accesses[0].get_label().iter().map(|label| label.value().to_string()).collect();
        assert!(["c", "Count", "count"].iter().all(|label| labels.iter().any(|found| found == label)), "{labels:?}");
        assert_eq!(gauges("operator_stateAccessLatency")[0].get_gauge().get_value(), 25.0);
        assert!(gauges("operator_stateSize").is_empty(), "a backend of bytes does not say");
        assert_eq!(gauges("operator_keyedStateSize")[0].get_gauge().get_value(), 70.0, "but of all together");
    }
}
