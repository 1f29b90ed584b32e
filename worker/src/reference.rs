//! `docs/metrics.md` and `docs/rest.md`, made from the tables that the processes themselves go by.

use std::fmt::Write;

use crate::{process_metrics, rest};

const METRICS_HEAD: &str = "\
# Metrics

<!-- Made from the tables in worker and millrace-runtime: change them there, then run
     MILLRACE_TEST_WRITE_DOCS=1 cargo test -p millrace-worker reference_docs -->

Each process serves `/metrics` on `metrics.port` in the format that Prometheus reads, a jobmanager also on its REST port.
Names are Flink's with `millrace_` instead of `flink_`. `/jobs/<id>/metrics`, `/jobs/<id>/vertices/<vertex>/metrics`,
`/jobmanager/metrics` and `/taskmanagers/<id>/metrics` of [REST](rest.md) give them one by one.

Tasks count once a batch. What takes longer to find out (a source's lag, the size of state) they find out once a second
while they work; of the accesses to state, one in 512 is timed. Functions' own metrics are
`millrace_taskmanager_job_task_operator_<name>`, with the labels `operator_id`, `operator_name` and `subtask_index`.
";

/// The metrics.
pub fn metrics_markdown() -> String {
    let mut text = METRICS_HEAD.to_string();
    let gauge = |(name, help): (&str, &str)| (name.to_string(), "gauge", help.to_string());
    let process =
        |role| process_metrics::described(role).into_iter().map(|(name, help)| (name, "gauge", help.to_string()));
    let jobmanager = rest::described_metrics().map(gauge).chain(process("jobmanager"));
    table(&mut text, "Jobmanager", "The job's with the labels `job_id` and `job_name`.", jobmanager);
    table(&mut text, "Taskmanager", "Of the process.", process("taskmanager"));
    let tasks = millrace_runtime::metrics::described().into_iter();
    let tasks = tasks.map(|(name, kind, help)| (name, kind, format!("{help}.")));
    let labels = "With the labels `task_id`, `task_name`, `subtask_index` and `task_attempt_num`; `operator_keyedStateSize` also \
                  with `operator_id` and `operator_name`, and those of states with `state` too. The encoded size of a subtask's state is \
                  in the history of checkpoints, for every backend.";
    table(&mut text, "Tasks", labels, tasks);
    text
}

fn table(text: &mut String, title: &str, about: &str, rows: impl Iterator<Item = (String, &'static str, String)>) {
    let _ = write!(text, "\n## {title}\n\n{about}\n\n| metric | | |\n|---|---|---|\n");
    for (name, kind, help) in rows {
        let _ = writeln!(text, "| `{name}` | {kind} | {help} |");
    }
}

const REST_HEAD: &str = "\
# REST

<!-- Made from worker/src/rest/routes.rs: change it there, then run
     MILLRACE_TEST_WRITE_DOCS=1 cargo test -p millrace-worker reference_docs -->

A jobmanager answers on `rest.port` (8081). Paths and field names are Flink's where the thing is the same. Times are
milliseconds since the epoch, durations milliseconds, sizes bytes; -1 is \"not yet\". A request that is refused is
answered with `{\"errors\": [\"…\"]}`, which says why.

`/openapi.json` describes each answer's fields; [openapi.json](openapi.json) is the same document. A test asks a running
job for each path and holds the answers to it.

What a subtask does (records, bytes, time, lag, state) comes with its taskmanager's heartbeat, once a second. Shares of
time are those of the last second. Ratios are known half a second after a task's start; until then a vertex's
backpressure has the status `deprecated`, as in Flink. The history has the newest ten checkpoints.

| | path | |
|---|---|---|
";

/// The REST interface.
pub fn rest_markdown() -> String {
    let mut text = REST_HEAD.to_string();
    for (method, path, summary) in rest::described_routes() {
        let _ = writeln!(text, "| {} | `{path}` | {summary} |", method.to_uppercase());
    }
    text
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn reference_docs_are_what_the_tables_say() {
        for (name, meant) in [("metrics.md", metrics_markdown()), ("rest.md", rest_markdown())] {
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name);
            if std::env::var_os("MILLRACE_TEST_WRITE_DOCS").is_some() {
                std::fs::write(&path, &meant).unwrap();
            }
            let found = std::fs::read_to_string(&path).unwrap_or_default();
            assert!(found == meant, "docs/{name} is out of date: its head says how to write it anew");
        }
    }
}
