//! Answers about vertices and their subtasks.

use std::collections::BTreeMap;

use millrace_core::rest::*;

use super::{NOT_YET, signed, time};
use crate::rest::view::{JobView, SubtaskView, VertexView, common_status};

pub fn io_metrics<'a>(subtasks: impl IntoIterator<Item = &'a SubtaskView>) -> IoMetrics {
    let mut sum = IoMetrics::default();
    for SubtaskView { counters, .. } in subtasks {
        sum.read_bytes += counters.bytes_in;
        sum.write_bytes += counters.bytes_out;
        sum.read_records += counters.records_in;
        sum.write_records += counters.records_out;
        sum.accumulated_backpressured_time += counters.backpressured_ms;
        sum.accumulated_idle_time += counters.idle_ms;
        sum.accumulated_busy_time += counters.busy_ms;
    }
    sum
}

pub fn vertex(view: &JobView, vertex: &VertexView, now: u64) -> JobVertexInfo {
    JobVertexInfo {
        id: vertex_text(vertex.id),
        name: vertex.name.clone(),
        parallelism: vertex.parallelism,
        max_parallelism: view.max_parallelism,
        now: signed(now),
        subtasks: vertex.subtasks.iter().map(|of| subtask(view, vertex, of, now)).collect(),
    }
}

pub fn subtask(view: &JobView, vertex: &VertexView, of: &SubtaskView, now: u64) -> SubtaskInfo {
    let lasted = |start: u64| signed(view.end_time.unwrap_or(now).saturating_sub(start));
    SubtaskInfo {
        subtask: of.index,
        status: of.state,
        attempt: of.attempt.0,
        endpoint: of.place.as_ref().map(|(_, address)| address.clone()),
        start_time: time(vertex.start_time),
        end_time: if vertex.start_time.is_some() { time(view.end_time) } else { NOT_YET },
        duration: vertex.start_time.map_or(NOT_YET, lasted),
        metrics: io_metrics([of]),
        taskmanager_id: of.place.as_ref().map(|(id, _)| id.to_string()),
        state_size: of.figures.state_bytes(),
        pending_records: of.figures.pending_records,
    }
}

pub fn backpressure(vertex: &VertexView, now: u64) -> BackPressureInfo {
    let subtask = |of: &SubtaskView| {
        let rates = of.rates?;
        let ratio = rates.backpressured_ms / 1000.0;
        Some(SubtaskBackPressure {
            subtask: of.index,
            attempt_number: of.attempt.0,
            backpressure_level: BackPressureLevel::of(ratio),
            ratio,
            idle_ratio: rates.idle_ms / 1000.0,
            busy_ratio: rates.busy_ms / 1000.0,
        })
    };
    let subtasks: Vec<_> = vertex.subtasks.iter().filter_map(subtask).collect();
    BackPressureInfo {
        status: if subtasks.is_empty() { "deprecated" } else { "ok" }.to_string(),
        backpressure_level: subtasks.iter().map(|of| of.backpressure_level).max().unwrap_or(BackPressureLevel::Ok),
        end_timestamp: signed(now),
        subtasks,
    }
}

pub fn taskmanagers(vertex: &VertexView, now: u64) -> JobVertexTaskManagers {
    let mut by_place = BTreeMap::<_, Vec<&SubtaskView>>::new();
    for subtask in &vertex.subtasks {
        if let Some(place) = &subtask.place {
            by_place.entry(place).or_default().push(subtask);
        }
    }
    let taskmanager = |((id, address), subtasks): (&(_, String), Vec<&SubtaskView>)| {
        let mut counts: TaskCounts = ExecutionState::ALL.into_iter().map(|state| (state, 0)).collect();
        for subtask in &subtasks {
            *counts.entry(subtask.state).or_default() += 1;
        }
        VertexTaskManager {
            endpoint: address.clone(),
            status: common_status(&counts),
            metrics: io_metrics(subtasks),
            status_counts: counts,
            taskmanager_id: millrace_core::ids::TaskManagerId::to_string(id),
        }
    };
    JobVertexTaskManagers {
        id: vertex_text(vertex.id),
        name: vertex.name.clone(),
        now: signed(now),
        taskmanagers: by_place.into_iter().map(taskmanager).collect(),
    }
}
