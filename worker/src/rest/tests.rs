//! The REST server's answers about a made-up job.

mod made_up_job;

use std::{collections::BTreeMap, time::Duration};

use axum::{
    body::Body,
    http::{Method, Request, StatusCode},
};
use made_up_job::{JOB, view};
use millrace_core::{Error, ids::JobId, rest::*};
use serde_json::{Value, json};
use tower::ServiceExt;

use super::*;

fn state(view: JobView) -> (RestState, watch::Sender<Arc<JobView>>, mpsc::Receiver<JobCommand>) {
    let (publish, view) = watch::channel(Arc::new(view));
    let (commands, asked) = mpsc::channel(4);
    let setting = |key: &str, value: &str, origin: &str| Setting {
        key: key.to_string(),
        value: value.to_string(),
        origin: origin.to_string(),
    };
    let program = JobProgram {
        jid: JOB,
        program: "/opt/job".to_string(),
        args: vec!["--x".to_string()],
        working_directory: "/".to_string(),
        rpc_address: "localhost:6123".to_string(),
    };
    let settings = vec![setting("rest.port", "0", "-D"), setting("security.token", "******", "program")];
    let registry = prometheus::Registry::new();
    job_metrics(&registry, view.clone()).unwrap();
    let state = RestState { view, commands, settings: Arc::new(settings), program: Arc::new(program), registry };
    (state, publish, asked)
}

async fn ask(state: &RestState, method: Method, path: &str, body: &str) -> (StatusCode, String) {
    let request = Request::builder().method(method).uri(path).body(Body::from(body.to_string())).unwrap();
    let response = router(state.clone()).oneshot(request).await.unwrap();
    let status = response.status();
    let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

async fn get(path: &str) -> Value {
    let (state, _publish, _asked) = state(view());
    let (status, body) = ask(&state, Method::GET, path, "").await;
    assert_eq!(status, StatusCode::OK, "{path}: {body}");
    serde_json::from_str(&body).unwrap()
}

fn job_path(rest: &str) -> String {
    format!("/jobs/{JOB}{rest}")
}

#[tokio::test]
async fn the_cluster_is_shown_with_flinks_names() {
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(
        get("/overview").await,
        json!({"taskmanagers": 1, "slots-total": 3, "slots-available": 1, "jobs-running": 1, "jobs-finished": 0,
               "jobs-cancelled": 0, "jobs-failed": 0, "millrace-version": version})
    );
    assert_eq!(
        get("/config").await,
        json!({"refresh-interval": 1000, "timezone-name": "UTC", "timezone-offset": 0, "millrace-version": version})
    );
    let taskmanager = json!({"id": "tm-1", "resourceId": "tm", "path": "localhost:4000", "dataPort": 4000,
                             "timeSinceLastHeartbeat": 5900, "slotsNumber": 3, "freeSlots": 1, "pid": 77,
                             "hardware": {"cpuCores": 2, "physicalMemory": 100},
                             "memory": {"resident": 10, "limit": 50, "managedTotal": 0, "managedUsed": 0,
                                        "stateSize": 7}});
    assert_eq!(get("/taskmanagers").await, json!({"taskmanagers": [taskmanager]}));
    let mut details = get("/taskmanagers/tm-1").await;
    let operators = details.as_object_mut().unwrap().remove("operators").unwrap();
    assert_eq!(details, taskmanager);
    assert_eq!(operators.as_array().unwrap().len(), 4, "two subtasks of two vertices");
    assert_eq!(
        operators[0],
        json!({"operator-id": "count", "operator-name": "Count", "subtask": 0, "size": 4096,
               "states": [{"name": "n", "size": 4096, "accesses": 70, "access-latency": 45}]})
    );
    assert_eq!(
        get("/taskmanagers/tm-1/metrics?get=Status.Memory.Resident,nonsense").await,
        json!([{"id": "Status.Memory.Resident", "value": "10"}])
    );
    assert_eq!(get("/jobmanager/config").await[0], json!({"key": "rest.port", "value": "0", "origin": "-D"}));
}

#[tokio::test]
async fn jobs_are_listed_with_flinks_names() {
    assert_eq!(get("/jobs").await, json!({"jobs": [{"id": JOB.to_string(), "status": "RUNNING"}]}));
    assert_eq!(get(&job_path("/status")).await, json!({"status": "RUNNING"}));
    let mut overview = get("/jobs/overview").await["jobs"][0].take();
    assert!(overview["duration"].take().as_i64().unwrap() > 0);
    assert_eq!(
        overview,
        json!({"jid": JOB.to_string(), "name": "clicks", "state": "RUNNING", "start-time": 1000, "end-time": -1,
               "duration": null, "last-modification": 1500,
               "tasks": {"total": 4, "created": 0, "scheduled": 0, "deploying": 0, "initializing": 0, "running": 4,
                         "finished": 0, "canceling": 0, "canceled": 0, "failed": 0}})
    );
}

#[test]
fn a_job_is_shown_with_flinks_names_and_our_recovery() {
    let mut job = serde_json::to_value(answers::job_details(&view(), 6_000)).unwrap();
    let mut vertices = job["vertices"].take();
    assert_eq!(
        job,
        json!({
            "jid": JOB.to_string(), "name": "clicks", "isStoppable": true, "state": "RUNNING", "start-time": 1000,
            "end-time": -1, "duration": 5000, "maxParallelism": 128, "now": 6000,
            "timestamps": {"INITIALIZING": 1000, "RUNNING": 1500}, "vertices": null,
            "status-counts": {"CREATED": 0, "SCHEDULED": 0, "DEPLOYING": 0, "INITIALIZING": 0, "RUNNING": 2,
                              "FINISHED": 0, "CANCELING": 0, "CANCELED": 0, "FAILED": 0},
            "plan": serde_json::to_value(answers::plan(&view())).unwrap(),
            "generation": 2, "attempt": 3, "restarts": 2,
            "last-recovery": {"timestamp": 4000, "duration": 350, "phases": [{"name": "detect", "duration": 5}],
                              "restored-checkpoint": 3, "cause": "taskmanager b is lost", "taskmanager": "b",
                              "fetched-bytes": 0, "local-bytes": 0, "replayed-records": 0}
        })
    );
    assert_eq!(
        vertices[1].take(),
        json!({
            "id": "00000000000000000000000000000001", "name": "count -> print", "maxParallelism": 128,
            "parallelism": 2, "status": "RUNNING", "start-time": 1200, "end-time": -1, "duration": 4800,
            "tasks": {"CREATED": 0, "SCHEDULED": 0, "DEPLOYING": 0, "INITIALIZING": 0, "RUNNING": 2, "FINISHED": 0,
                      "CANCELING": 0, "CANCELED": 0, "FAILED": 0},
            "metrics": {"read-bytes": 1000, "write-bytes": 0, "read-records": 70, "write-records": 60,
                        "accumulated-backpressured-time": 0, "accumulated-idle-time": 0,
                        "accumulated-busy-time": 0}
        })
    );
}

#[test]
fn a_job_that_ended_stands_still() {
    let mut view = view();
    view.enter(JobStatus::Finished, 2_000);
    view.enter(JobStatus::Finished, 9_000);
    view.left_behind = Some("s3://b/c: access denied".to_string());
    let job = answers::job_details(&view, 6_000);
    assert_eq!(serde_json::to_value(&job).unwrap()["left-behind"], "s3://b/c: access denied");
    assert_eq!((job.end_time, job.duration, job.is_stoppable), (2_000, 1_000, false));
    assert_eq!(answers::cluster_overview(&view).jobs_finished, 1);
}

#[tokio::test]
async fn the_plan_is_shown_with_flinks_names() {
    let plan = get(&job_path("/plan")).await;
    assert_eq!(plan["plan"]["type"], "STREAMING");
    assert_eq!(
        plan["plan"]["nodes"][1],
        json!({"id": "00000000000000000000000000000001", "parallelism": 2, "description": "count -> print",
               "inputs": [{"num": 0, "id": "00000000000000000000000000000000", "ship_strategy": "HASH",
                           "exchange": "pipelined_bounded"}]})
    );
}

#[tokio::test]
async fn the_configuration_shows_where_values_came_from() {
    assert_eq!(
        get(&job_path("/config")).await,
        json!({
            "jid": JOB.to_string(), "name": "clicks",
            "execution-config": {"restart-strategy": "exponential-delay", "job-parallelism": 1,
                                 "user-config": {"rest.port": "0", "security.token": "******"}},
            "settings": [{"key": "rest.port", "value": "0", "origin": "-D"},
                         {"key": "security.token", "value": "******", "origin": "program"}]
        })
    );
}

#[tokio::test]
async fn checkpoints_are_shown_with_flinks_names() {
    let newest = json!({"id": 4, "status": "COMPLETED", "is_savepoint": false, "trigger_timestamp": 5000,
                        "latest_ack_timestamp": 5010, "checkpointed_size": 100, "state_size": 300,
                        "end_to_end_duration": 12, "processed_data": 60, "persisted_data": 40,
                        "num_subtasks": 3, "num_acknowledged_subtasks": 3,
                        "external_path": "file:///c/chk-4", "discarded": false});
    let nothing = json!({"min": 0, "max": 0, "avg": 0});
    assert_eq!(
        get(&job_path("/checkpoints")).await,
        json!({
            "counts": {"restored": 1, "total": 4, "in_progress": 0, "completed": 3, "failed": 1},
            "summary": {"checkpointed_size": nothing, "state_size": nothing, "end_to_end_duration": nothing,
                        "processed_data": nothing, "persisted_data": nothing},
            "latest": {"completed": newest, "failed": null, "restored": null, "savepoint": null},
            "history": [newest]
        })
    );
    assert_eq!(
        get(&job_path("/checkpoints/config")).await,
        json!({"mode": "exactly_once", "interval": 1000, "timeout": 600_000, "min_pause": 0, "max_concurrent": 1,
               "externalization": {"enabled": true, "delete_on_cancellation": true}, "state_backend": "memory",
               "checkpoint_storage": "file:///c", "tolerable_failed_checkpoints": -1, "num_retained": 3})
    );
}

#[tokio::test]
async fn a_checkpoint_is_shown_down_to_its_subtasks() {
    let vertex = "00000000000000000000000000000001";
    let details = get(&job_path("/checkpoints/details/4")).await;
    assert_eq!((&details["id"], &details["trigger_reason"]), (&json!(4), &json!("PERIODIC")));
    let part = json!({"id": 4, "status": "COMPLETED", "latest_ack_timestamp": 5010, "checkpointed_size": 100,
                      "state_size": 300, "end_to_end_duration": 10, "processed_data": 60, "persisted_data": 40,
                      "num_subtasks": 2, "num_acknowledged_subtasks": 1});
    assert_eq!(details["tasks"][vertex], part);
    let mut part = get(&job_path(&format!("/checkpoints/details/4/subtasks/{vertex}"))).await;
    let only = |number: u64| json!({"min": number, "max": number, "avg": number});
    assert_eq!(
        part["summary"].take(),
        json!({"checkpointed_size": only(100), "state_size": only(300), "end_to_end_duration": only(10),
               "checkpoint_duration": {"sync": only(1), "async": only(4)},
               "alignment": {"duration": only(2), "processed": only(60), "persisted": only(40)},
               "start_delay": only(3)})
    );
    assert_eq!(
        part["subtasks"].take(),
        json!([{"index": 0, "status": "pending_or_failed"},
               {"index": 1, "status": "completed", "ack_timestamp": 5010, "end_to_end_duration": 10,
                "checkpointed_size": 100, "state_size": 300, "checkpoint": {"sync": 1, "async": 4},
                "alignment": {"duration": 2, "processed": 60, "persisted": 40}, "start_delay": 3,
                "unaligned_checkpoint": true}])
    );
}

#[tokio::test]
async fn a_vertex_is_shown_with_its_subtasks_and_how_they_spend_their_time() {
    let vertex = |rest: &str| job_path(&format!("/vertices/{:032x}{rest}", 1));
    let shown = get(&vertex("")).await;
    assert_eq!((&shown["name"], &shown["parallelism"]), (&json!("count -> print"), &json!(2)));
    let first = &shown["subtasks"][0];
    assert_eq!((&first["metrics"]["read-records"], &first["pending-records"]), (&json!(35), &json!(5)));
    assert_eq!((&first["taskmanager-id"], &first["state-size"]), (&json!("tm-1"), &json!(4096)));
    assert_eq!(get(&vertex("/subtasks/1")).await["subtask"], 1);
    let mut pressure = get(&vertex("/backpressure")).await;
    pressure["end-timestamp"].take();
    let subtask = |index: u32| {
        json!({"subtask": index, "attempt-number": 3, "backpressureLevel": "low", "ratio": 0.3, "idleRatio": 0.1,
               "busyRatio": 0.6})
    };
    assert_eq!(
        pressure,
        json!({"status": "ok", "backpressureLevel": "low", "end-timestamp": null,
               "subtasks": [subtask(0), subtask(1)]})
    );
    let taskmanagers = get(&vertex("/taskmanagers")).await["taskmanagers"].take();
    assert_eq!(
        (&taskmanagers[0]["status"], &taskmanagers[0]["status-counts"]["RUNNING"]),
        (&json!("RUNNING"), &json!(2))
    );
    assert_eq!(
        get(&vertex("/metrics?get=1.busyTimeMsPerSecond")).await,
        json!([{"id": "1.busyTimeMsPerSecond", "value": "600"}])
    );
    assert_eq!(get(&vertex("/metrics")).await.as_array().unwrap().len(), 24);
    assert_eq!(get(&job_path("/metrics?get=numRestarts")).await, json!([{"id": "numRestarts", "value": "2"}]));
    assert_eq!(get("/jobmanager/metrics?get=taskSlotsTotal").await, json!([{"id": "taskSlotsTotal", "value": "3"}]));
}

#[test]
fn openapi_docs_are_what_the_server_says() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/openapi.json");
    let meant = openapi::text();
    if std::env::var_os("MILLRACE_TEST_WRITE_DOCS").is_some() {
        std::fs::write(&path, &meant).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    let how = "MILLRACE_TEST_WRITE_DOCS=1 cargo test -p millrace-worker openapi_docs";
    assert!(found == meant, "docs/openapi.json is out of date: {how} writes it anew");
}

#[tokio::test]
async fn failures_are_shown_with_the_record_they_failed_on() {
    let failures = get(&job_path("/exceptions?maxExceptions=1")).await;
    assert_eq!(
        failures,
        json!({
            "root-exception": "map 1/0 panicked: odd", "timestamp": 4000, "truncated": true,
            "all-exceptions": [{"exception": "map 1/0 panicked: odd", "task": "source -> map (1/2)",
                                "location": null, "timestamp": 4000, "taskManagerId": null}],
            "exceptionHistory": {"truncated": true, "entries": [{
                "exceptionName": "user", "stacktrace": "map 1/0 panicked: odd", "timestamp": 4000,
                "taskName": "source -> map (1/2)", "endpoint": null, "taskManagerId": null,
                "position": "input-0@17", "retryable": true}]}
        })
    );
    let all = get(&job_path("/exceptions")).await;
    assert_eq!(all["exceptionHistory"]["entries"].as_array().unwrap().len(), 2);
    assert_eq!(all["exceptionHistory"]["truncated"], false);
}

#[tokio::test]
async fn answers_are_read_back_by_their_types() {
    let details: JobDetails = serde_json::from_value(get(&job_path("")).await).unwrap();
    assert_eq!(details.last_recovery, view().last_recovery);
    let program: JobProgram = serde_json::from_value(get(&job_path("/program")).await).unwrap();
    assert_eq!((program.program.as_str(), program.args.as_slice()), ("/opt/job", ["--x".to_string()].as_slice()));
    let checkpoints: CheckpointingStatistics = serde_json::from_value(get(&job_path("/checkpoints")).await).unwrap();
    assert_eq!(checkpoints, view().checkpoints);
}

#[tokio::test]
async fn commands_reach_the_job_and_its_answer_the_client() {
    let (state, _publish, mut asked) = state(view());
    let job = tokio::spawn(async move {
        let mut seen = Vec::new();
        while let Some(command) = asked.recv().await {
            match command {
                JobCommand::Cancel(reply) => {
                    seen.push("cancel");
                    let again = seen.len() > 2;
                    reply.send(if again { Err(Error::invalid("job is FINISHED")) } else { Ok(()) }).unwrap();
                }
                JobCommand::Stop(reply) => {
                    seen.push("stop");
                    reply.send(Ok(())).unwrap();
                }
                delete @ JobCommand::Delete(_) => {
                    seen.push("delete");
                    let waiting = seen.iter().filter(|what| **what == "delete").count() == 1;
                    delete.answer(if waiting { Err(Error::external("still waiting")) } else { Ok(()) });
                }
            }
        }
        seen
    });
    let accepted = (StatusCode::ACCEPTED, "{}".to_string());
    assert_eq!(ask(&state, Method::PATCH, &job_path("?mode=cancel"), "").await, accepted);
    assert_eq!(ask(&state, Method::POST, &job_path("/stop"), r#"{"drain": false}"#).await, accepted);
    let (status, body) = ask(&state, Method::PATCH, &job_path(""), "").await;
    assert_eq!((status, body.as_str()), (StatusCode::CONFLICT, r#"{"errors":["job is FINISHED"]}"#));
    // What may pass is worth another request.
    let (status, body) = ask(&state, Method::DELETE, &job_path(""), "").await;
    assert_eq!((status, body.as_str()), (StatusCode::SERVICE_UNAVAILABLE, r#"{"errors":["still waiting"]}"#));
    assert_eq!(ask(&state, Method::DELETE, &job_path(""), "").await, accepted);
    drop(state);
    assert_eq!(job.await.unwrap(), ["cancel", "stop", "cancel", "delete", "delete"]);
}

#[tokio::test]
async fn wrong_requests_are_refused_and_say_why() {
    let (state, _publish, asked) = state(view());
    let other = JobId(1);
    for (method, path, body, status, why) in [
        (Method::GET, format!("/jobs/{other}"), "", 404, format!("job {other} not found: this jobmanager runs {JOB}")),
        (Method::GET, format!("/jobs/{other}/program"), "", 404, format!("job {other} not found")),
        (Method::GET, "/jobs/xyz/checkpoints".to_string(), "", 400, "\"xyz\" is not 32 hexadecimal".to_string()),
        (Method::PATCH, job_path("?mode=pause"), "", 400, "the only mode is cancel".to_string()),
        (Method::PATCH, job_path("?mode=stop"), "", 400, "POST /jobs/<id>/stop".to_string()),
        (Method::PATCH, format!("/jobs/{other}?mode=cancel"), "", 404, "not found".to_string()),
        (Method::POST, job_path("/stop"), r#"{"targetDirectory": "/s"}"#, 400, "targetDirectory".to_string()),
        (Method::POST, job_path("/stop"), "now", 400, "not a JSON object".to_string()),
        (Method::GET, job_path("/exceptions?maxExceptions=-1"), "", 400, "maxExceptions".to_string()),
        (Method::GET, "/taskmanagers/tm-9".to_string(), "", 404, "\"tm-9\" is not registered".to_string()),
        (Method::GET, job_path("/vertices/9"), "", 404, "vertex \"9\" not found".to_string()),
        (Method::GET, job_path(&format!("/vertices/{:032x}/subtasks/7", 1)), "", 404, "subtask \"7\"".to_string()),
        (Method::GET, job_path("/checkpoints/details/x"), "", 400, "checkpoint \"x\" is not a number".to_string()),
        (Method::GET, job_path("/checkpoints/details/9"), "", 404, "not in the history, which has [4]".to_string()),
        (Method::GET, "/jars".to_string(), "", 404, "path /jars is unknown".to_string()),
        (Method::DELETE, format!("/jobs/{other}"), "", 404, "not found".to_string()),
        (Method::DELETE, "/jobs".to_string(), "", 405, "DELETE is not allowed on /jobs".to_string()),
    ] {
        let (found, text) = ask(&state, method, &path, body).await;
        assert_eq!(found.as_u16(), status, "{path}: {text}");
        let told: ErrorResponse = serde_json::from_str(&text).unwrap();
        assert!(told.errors[0].contains(&why), "{path}: {text}");
    }
    assert!(asked.is_empty(), "nothing that was refused may reach the job");
    drop(asked);
    let (status, _) = ask(&state, Method::POST, &job_path("/stop"), "").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test(start_paused = true)]
async fn a_job_that_does_not_answer_is_told() {
    let (state, _publish, _asked) = state(view());
    let (status, body) = ask(&state, Method::PATCH, &job_path(""), "").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(body.contains("does not answer"), "{body}");
}

#[tokio::test]
async fn readiness_is_about_the_job_and_health_about_the_process() {
    let (state, publish, _asked) = state(view());
    assert_eq!(ask(&state, Method::GET, "/ready", "").await.0, StatusCode::OK);
    let mut partly = view();
    partly.vertices[0].tasks = BTreeMap::from([(ExecutionState::Running, 1), (ExecutionState::Initializing, 1)]);
    publish.send_replace(Arc::new(partly));
    let (status, body) = ask(&state, Method::GET, "/ready", "").await;
    assert_eq!((status.as_u16(), body.as_str()), (503, r#"{"status":"3 of 4 tasks run"}"#));
    let mut waiting = view();
    waiting.enter(JobStatus::Restarting, 7_000);
    waiting.waiting_for = Some("1 of 2 slots".to_string());
    publish.send_replace(Arc::new(waiting));
    let (status, body) = ask(&state, Method::GET, "/ready", "").await;
    assert_eq!((status.as_u16(), body.as_str()), (503, r#"{"status":"job is RESTARTING: 1 of 2 slots"}"#));
    assert_eq!(ask(&state, Method::GET, "/health", "").await.0, StatusCode::OK);
}

#[tokio::test]
async fn metrics_follow_the_view() {
    let (state, publish, _asked) = state(view());
    let label = format!("job_id=\"{JOB}\",job_name=\"clicks\"");
    let (_, text) = ask(&state, Method::GET, "/metrics", "").await;
    for line in [
        format!("millrace_jobmanager_job_numRestarts{{{label}}} 2"),
        format!("millrace_jobmanager_job_numberOfCompletedCheckpoints{{{label}}} 3"),
        format!("millrace_jobmanager_job_lastCheckpointDuration{{{label}}} 12"),
        format!("millrace_jobmanager_job_lastRecoveryDuration{{{label}}} 350"),
        format!("millrace_jobmanager_job_lastRecoveryPhaseDuration{{{label},phase=\"detect\"}} 5"),
        format!("millrace_jobmanager_taskSlotsAvailable{{{label}}} 1"),
    ] {
        assert!(text.contains(&format!("{line}\n")), "{line} is not in\n{text}");
    }
    assert!(!text.contains("lastCheckpointRestoreTimestamp"), "nothing was restored");
    let mut later = view();
    later.restarts = 3;
    publish.send_replace(Arc::new(later));
    let (_, text) = ask(&state, Method::GET, "/metrics", "").await;
    assert!(text.contains(&format!("millrace_jobmanager_job_numRestarts{{{label}}} 3\n")), "{text}");
}

#[test]
fn a_vertex_is_what_its_worst_task_is() {
    let mut vertex = view().vertices.remove(0);
    let mut status = |tasks: &[(ExecutionState, u32)]| {
        vertex.tasks = tasks.iter().copied().collect();
        vertex.status()
    };
    use ExecutionState as E;
    assert_eq!(status(&[(E::Running, 1), (E::Finished, 1)]), E::Running);
    assert_eq!(status(&[(E::Running, 1), (E::Deploying, 1)]), E::Deploying);
    assert_eq!(status(&[(E::Failed, 1), (E::Canceled, 1), (E::Running, 0)]), E::Failed);
    assert_eq!(status(&[(E::Finished, 2)]), E::Finished);
    assert_eq!(status(&[]), E::Created);
}

#[tokio::test]
async fn the_server_ends_although_a_client_dawdles() {
    use tokio::io::AsyncWriteExt;
    let settings = RestSettings { address: String::new(), port: 0, bind_address: "127.0.0.1".to_string() };
    let (listener, address) = bind(&settings).await.unwrap();
    let (state, _publish, _asked) = state(view());
    let (stop, stopped) = oneshot::channel::<()>();
    let server = tokio::spawn(serve(listener, state, async {
        let _ = stopped.await;
    }));
    let mut client = tokio::net::TcpStream::connect(address).await.unwrap();
    client.write_all(b"POST /jobs HTTP/1.1\r\nhost: x\r\ncontent-le").await.unwrap();
    stop.send(()).unwrap();
    tokio::time::timeout(Duration::from_secs(30), server).await.unwrap().unwrap().unwrap();
}
