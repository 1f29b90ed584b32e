//! A function's own metrics, beside the engine's in the process's Prometheus registry.

use std::collections::BTreeMap;

use millrace_core::{Error, Result};
use millrace_runtime::operator::OperatorContext;
use prometheus::{Opts, Registry, core::Collector};

/// A number that only grows. The default one is registered nowhere.
#[derive(Clone, Debug)]
pub struct Counter(prometheus::IntCounter);

impl Counter {
    /// Adds one.
    #[inline]
    pub fn inc(&self) {
        self.0.inc();
    }

    /// Adds `n`.
    #[inline]
    pub fn inc_by(&self, n: u64) {
        self.0.inc_by(n);
    }

    /// The number.
    pub fn get(&self) -> u64 {
        self.0.get()
    }
}

impl Default for Counter {
    fn default() -> Self {
        Self(prometheus::IntCounter::new("unregistered", "unregistered").expect("a valid name"))
    }
}

/// A number that goes up and down. The default one is registered nowhere.
#[derive(Clone, Debug)]
pub struct Gauge(prometheus::Gauge);

impl Gauge {
    /// Sets it.
    #[inline]
    pub fn set(&self, value: f64) {
        self.0.set(value);
    }

    /// Adds to it; a negative number takes away.
    #[inline]
    pub fn add(&self, value: f64) {
        self.0.add(value);
    }

    /// The number.
    pub fn get(&self) -> f64 {
        self.0.get()
    }
}

impl Default for Gauge {
    fn default() -> Self {
        Self(prometheus::Gauge::new("unregistered", "unregistered").expect("a valid name"))
    }
}

enum Metric {
    Counter(Counter),
    Gauge(Gauge),
}

impl Metric {
    fn collector(&self) -> Box<dyn Collector> {
        match self {
            Self::Counter(Counter(counter)) => Box::new(counter.clone()),
            Self::Gauge(Gauge(gauge)) => Box::new(gauge.clone()),
        }
    }
}

/// The metrics of one subtask of one operator: `millrace_taskmanager_job_task_operator_<name>`, with the labels
/// `operator_id`, `operator_name` and `subtask_index`, as Flink's Prometheus reporter writes them. They leave the
/// registry when the subtask ends.
pub struct MetricGroup {
    registry: Registry,
    labels: [(&'static str, String); 3],
    metrics: BTreeMap<String, Metric>,
}

impl MetricGroup {
    pub(crate) fn new(context: &OperatorContext) -> Self {
        let labels = [
            ("operator_id", context.uid.0.clone()),
            ("operator_name", context.name.clone()),
            ("subtask_index", context.subtask.to_string()),
        ];
        Self { registry: context.metrics.clone(), labels, metrics: BTreeMap::new() }
    }

    /// The counter of this name; the same one however often it is asked for.
    pub fn counter(&mut self, name: &str) -> Result<Counter> {
        match self.metric(name, |opts| Ok(Metric::Counter(Counter(prometheus::IntCounter::with_opts(opts)?))))? {
            Metric::Counter(counter) => Ok(counter.clone()),
            Metric::Gauge(_) => Err(of_another_kind(name, "gauge")),
        }
    }

    /// The gauge of this name; the same one however often it is asked for.
    pub fn gauge(&mut self, name: &str) -> Result<Gauge> {
        match self.metric(name, |opts| Ok(Metric::Gauge(Gauge(prometheus::Gauge::with_opts(opts)?))))? {
            Metric::Gauge(gauge) => Ok(gauge.clone()),
            Metric::Counter(_) => Err(of_another_kind(name, "counter")),
        }
    }

    fn metric(&mut self, name: &str, make: impl FnOnce(Opts) -> prometheus::Result<Metric>) -> Result<&Metric> {
        if !self.metrics.contains_key(name) {
            let mut opts = Opts::new(format!("millrace_taskmanager_job_task_operator_{}", sanitized(name)), name);
            for (label, value) in &self.labels {
                opts = opts.const_label(*label, value);
            }
            let wrong = |error| Error::invalid(format!("metric {name:?} can't be registered: {error}"));
            let metric = make(opts).map_err(wrong)?;
            self.register(&metric).map_err(wrong)?;
            self.metrics.insert(name.to_string(), metric);
        }
        Ok(&self.metrics[name])
    }

    fn register(&self, metric: &Metric) -> prometheus::Result<()> {
        match self.registry.register(metric.collector()) {
            // Left by an earlier attempt of this subtask: the new one takes its place.
            Err(prometheus::Error::AlreadyReg) => {
                self.registry.unregister(metric.collector())?;
                self.registry.register(metric.collector())
            }
            other => other,
        }
    }
}

impl Drop for MetricGroup {
    fn drop(&mut self) {
        for metric in self.metrics.values() {
            // The only error is that it is not there any more.
            let _ = self.registry.unregister(metric.collector());
        }
    }
}

fn of_another_kind(name: &str, kind: &str) -> Error {
    Error::invalid(format!("metric {name:?} is registered as a {kind} already"))
}

/// A name as Prometheus allows it (as in Flink's reporter, anything else becomes `_`).
fn sanitized(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    use millrace_core::{
        ids::{JobAttempt, JobId, OperatorUid},
        operator_state::OperatorStateStore,
    };

    use super::*;

    fn context(registry: &Registry, subtask: u32) -> OperatorContext {
        OperatorContext {
            uid: OperatorUid("uid".into()),
            name: "Count".into(),
            subtask,
            parallelism: 2,
            attempt: JobAttempt::first(JobId(1)),
            keyed_state: None,
            operator_state: OperatorStateStore::default(),
            checkpoints: true,
            metrics: registry.clone(),
            clock: millrace_core::clock::Clock::system(),
        }
    }

    #[test]
    fn subtasks_share_a_name_and_leave_the_registry_when_they_end() {
        let registry = Registry::new();
        let mut first = MetricGroup::new(&context(&registry, 0));
        let mut second = MetricGroup::new(&context(&registry, 1));
        first.counter("late records").unwrap().inc();
        first.counter("late records").unwrap().inc();
        second.counter("late records").unwrap().inc_by(5);
        let families = registry.gather();
        assert_eq!(families.len(), 1);
        assert_eq!(families[0].name(), "millrace_taskmanager_job_task_operator_late_records");
        let values: Vec<f64> = families[0].get_metric().iter().map(|m| m.get_counter().get_value()).collect();
        assert_eq!(values, [2.0, 5.0]);
        drop((first, second));
        assert!(registry.gather().is_empty());
    }

    #[test]
    fn a_new_attempt_takes_the_place_of_the_last() {
        let registry = Registry::new();
        let mut old = MetricGroup::new(&context(&registry, 0));
        old.gauge("size").unwrap().set(1.0);
        let mut new = MetricGroup::new(&context(&registry, 0));
        new.gauge("size").unwrap().set(2.0);
        assert_eq!(registry.gather()[0].get_metric()[0].get_gauge().get_value(), 2.0);
    }

    #[test]
    fn one_name_is_of_one_kind() {
        let mut group = MetricGroup::new(&context(&Registry::new(), 0));
        group.counter("n").unwrap();
        assert!(group.gauge("n").unwrap_err().message.contains("\"n\""));
    }
}
