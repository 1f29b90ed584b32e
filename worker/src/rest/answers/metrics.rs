//! Metrics by Flink's names, for who asks for some of them.

use millrace_core::rest::{MetricValue, TaskManagerInfo};

use crate::rest::{
    metrics,
    view::{JobView, SubtaskView, VertexView},
};

/// A metric's name and value.
type Metric = (String, String);

/// Those that `get` names, with their values; without it the names of all.
pub fn select(all: Vec<Metric>, get: Option<&str>) -> Vec<MetricValue> {
    match get {
        None => all.into_iter().map(|(id, _)| MetricValue { id, value: None }).collect(),
        Some(names) => {
            let wanted: Vec<_> = names.split(',').collect();
            let chosen = all.into_iter().filter(|(id, _)| wanted.contains(&id.as_str()));
            chosen.map(|(id, value)| MetricValue { id, value: Some(value) }).collect()
        }
    }
}

/// The jobmanager's own, or its job's.
pub fn of_jobmanager(view: &JobView, now: u64, of_job: bool) -> Vec<Metric> {
    let value = |(name, value): (&str, f64)| {
        let name = name.strip_prefix("millrace_jobmanager_")?;
        let name = match (name.strip_prefix("job_"), of_job) {
            (Some(name), true) => name,
            (None, false) => name,
            _ => return None,
        };
        Some((name.to_string(), value.to_string()))
    };
    metrics::values(view, now).filter_map(value).collect()
}

/// Those of a vertex's subtasks.
pub fn of_vertex(vertex: &VertexView) -> Vec<Metric> {
    let subtask = |of: &SubtaskView| {
        let (counters, rates) = (of.counters, of.rates.unwrap_or_default());
        let mut values = vec![
            ("numRecordsIn", counters.records_in.to_string()),
            ("numRecordsOut", counters.records_out.to_string()),
            ("numBytesIn", counters.bytes_in.to_string()),
            ("numBytesOut", counters.bytes_out.to_string()),
            ("numRecordsInPerSecond", rates.records_in.to_string()),
            ("numRecordsOutPerSecond", rates.records_out.to_string()),
            ("busyTimeMsPerSecond", rates.busy_ms.to_string()),
            ("idleTimeMsPerSecond", rates.idle_ms.to_string()),
            ("backPressuredTimeMsPerSecond", rates.backpressured_ms.to_string()),
            ("checkpointAlignmentTime", counters.alignment_nanos.to_string()),
            ("checkpointStartDelayNanos", counters.start_delay_nanos.to_string()),
        ];
        values.extend(of.figures.pending_records.map(|pending| ("pendingRecords", pending.to_string())));
        let index = of.index;
        values.into_iter().map(move |(name, value)| (format!("{index}.{name}"), value))
    };
    vertex.subtasks.iter().flat_map(subtask).collect()
}

/// Those of a taskmanager.
pub fn of_taskmanager(info: &TaskManagerInfo) -> Vec<Metric> {
    let memory = info.memory;
    let values = [
        ("Status.Memory.Resident", memory.resident),
        ("Status.Memory.Limit", memory.limit),
        ("Status.Memory.Managed.Total", memory.managed_total),
        ("Status.Memory.Managed.Used", memory.managed_used),
    ];
    values.into_iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
}
