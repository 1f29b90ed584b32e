//! The REST server and its OpenAPI document: each path that the document names is asked of a job that runs, and each
//! answer is held to its schema.

use std::{collections::BTreeSet, fs, path::PathBuf};

use jsonschema::Validator;
use millrace_core::rest::{
    BackPressureInfo, JobDetails, JobStatus, SubtaskCheckpoint, TaskCheckpointDetails, TaskManagerDetails,
};
use millrace_testkit::cluster::{ClusterSpec, JobCluster, Result};
use serde_json::{Value, json};

/// Words in a directory, counted by two taskmanagers with checkpoints; the job fails once before that.
fn counting(directory: &tempfile::TempDir) -> Result<JobCluster> {
    let (words, failed) = (directory.path().join("words"), directory.path().join("failed"));
    fs::create_dir(&words).expect("a directory can be made");
    fs::write(words.join("0.txt"), "word\n".repeat(500)).expect("a file can be written");
    let spec = ClusterSpec::new(PathBuf::from(env!("CARGO_BIN_EXE_misbehaving_job")))
        .args(["--files", &words.display().to_string(), "--checkpoints", "100", "--parallelism", "2"])
        .args(["--fails-without", &failed.display().to_string()])
        .taskmanagers(2)
        .set("restart-strategy.type", "fixed-delay")
        .set("restart-strategy.fixed-delay.attempts", "3")
        .set("restart-strategy.fixed-delay.delay", "0 ms")
        .set("execution.shutdown-on-application-finish", "false")
        .set("heartbeat.interval", "200 ms");
    let mut cluster = JobCluster::start(spec)?;
    // All figures of the subtasks have come with heartbeats.
    cluster.wait_for("counted words and their figures", millrace_testkit::cluster::PATIENCE, |cluster| {
        let details = cluster.state();
        let seen = details.as_ref().is_ok_and(|state| {
            let read: u64 = state.job.vertices.iter().map(|vertex| vertex.metrics.read_records).sum();
            let state_size: u64 = state.taskmanagers.iter().map(|taskmanager| taskmanager.memory.state_size).sum();
            state.job.restarts == 1 && read >= 1000 && state_size > 0 && state.completed().is_some()
        });
        (seen.then_some(()), details.map_or_else(|error| error.to_string(), |state| state.to_string()))
    })?;
    cluster.wait_for_new_checkpoint()?;
    Ok(cluster)
}

/// What stands in a path's `{…}`.
struct Names {
    job: String,
    vertex: String,
    taskmanager: String,
    checkpoint: String,
}

impl Names {
    fn of(cluster: &JobCluster) -> Result<Self> {
        let state = cluster.state()?;
        let newest = state.completed().expect("a checkpoint is completed").id;
        Ok(Self {
            job: cluster.job().to_string(),
            // The one that counts.
            vertex: state.job.vertices[1].id.clone(),
            taskmanager: state.taskmanagers[0].id.to_string(),
            checkpoint: newest.to_string(),
        })
    }

    fn fill_in(&self, path: &str) -> String {
        let path = path.replace("{jobid}", &self.job).replace("{vertexid}", &self.vertex);
        let path = path.replace("{taskmanagerid}", &self.taskmanager).replace("{checkpointid}", &self.checkpoint);
        path.replace("{subtaskindex}", "0")
    }
}

/// Refuses fields that a schema does not name, wherever it names some.
fn close(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            fields.values_mut().for_each(close);
            if fields.get("properties").is_some_and(|named| named.is_object())
                && !fields.contains_key("additionalProperties")
            {
                fields.insert("unevaluatedProperties".to_string(), json!(false));
            }
        }
        Value::Array(items) => items.iter_mut().for_each(close),
        _ => {}
    }
}

/// The schemas that others add fields to: these are closed, and with them all that is in them.
fn parts(schema: &Value, found: &mut BTreeSet<String>) {
    match schema {
        Value::Object(fields) => {
            if let (Some(Value::String(part)), Some(_)) = (fields.get("$ref"), fields.get("properties")) {
                found.insert(part.trim_start_matches('#').to_string());
            }
            fields.values().for_each(|field| parts(field, found));
        }
        Value::Array(items) => items.iter().for_each(|item| parts(item, found)),
        _ => {}
    }
}

/// The schema of a documented answer, with the document's own definitions.
fn schema(document: &Value, path: &str, method: &str, status: &str) -> Option<Validator> {
    let answer = &document["paths"][path][method]["responses"][status]["content"];
    let schema = answer.get("application/json")?.get("schema")?;
    let mut whole = json!({ "allOf": [schema], "components": document["components"] });
    close(&mut whole);
    let mut open = BTreeSet::new();
    parts(&whole, &mut open);
    for part in open {
        let part = whole.pointer_mut(&part).and_then(Value::as_object_mut).expect("a schema of the document");
        part.remove("unevaluatedProperties");
    }
    Some(jsonschema::validator_for(&whole).unwrap_or_else(|error| panic!("{method} {path}: {error}")))
}

/// Asks for a path and holds the answer to the document.
fn hold(cluster: &JobCluster, document: &Value, names: &Names, method: &str, path: &str, status: u16) -> Result<Value> {
    let (found, body) = cluster.ask(&method.to_uppercase(), &names.fill_in(path))?;
    let text = String::from_utf8(body).expect("answers are text");
    assert_eq!(found, status, "{method} {path}: {text}");
    let Some(schema) = schema(document, path, method, &status.to_string()) else {
        let documented = &document["paths"][path][method]["responses"][status.to_string()]["content"];
        assert!(documented.get("text/plain").is_some(), "{method} {path} answers {status}, which is not documented");
        assert!(text.contains("millrace_jobmanager_job_numRestarts"), "{text}");
        return Ok(Value::String(text));
    };
    let answer: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{method} {path}: {error}: {text}"));
    let wrong: Vec<_> = schema.iter_errors(&answer).map(|error| error.to_string()).collect();
    assert!(wrong.is_empty(), "{method} {path}: {wrong:?}\n{answer:#}");
    Ok(answer)
}

#[test]
fn a_field_that_is_not_documented_fails() {
    let answer = json!({ "content": { "application/json": { "schema": { "$ref": "#/components/schemas/Answer" } } } });
    let kind = json!({ "kind": { "const": "inner" } });
    let tagged = json!({ "type": "object", "properties": kind, "$ref": "#/components/schemas/Inner" });
    let inner = json!({ "type": "object", "properties": { "name": { "type": "string" } } });
    let fields = json!({ "of": { "type": "array", "items": { "oneOf": [tagged] } } });
    let document = json!({
        "paths": { "/a": { "get": { "responses": { "200": answer } } } },
        "components": { "schemas": { "Answer": { "type": "object", "properties": fields }, "Inner": inner } },
    });
    let schema = schema(&document, "/a", "get", "200").expect("it is documented");
    assert!(schema.is_valid(&json!({ "of": [{ "kind": "inner", "name": "x" }] })));
    let undocumented = [json!({ "of": [], "more": 1 }), json!({ "of": [{ "kind": "inner", "name": "x", "more": 1 }] })];
    for undocumented in undocumented {
        assert!(!schema.is_valid(&undocumented), "{undocumented}");
    }
}

#[test]
fn each_documented_path_answers_as_the_document_says() -> Result<()> {
    let directory = tempfile::tempdir().expect("a directory can be made");
    let mut cluster = counting(&directory)?;
    let document: Value = cluster.rest("/openapi.json")?;
    let names = Names::of(&cluster)?;
    let mut commands = Vec::new();
    let mut asked = 0;
    for (path, operations) in document["paths"].as_object().expect("the document has paths") {
        for method in operations.as_object().expect("a path has methods").keys() {
            match method.as_str() {
                "get" => {
                    hold(&cluster, &document, &names, method, path, 200)?;
                    asked += 1;
                }
                _ => commands.push((method.clone(), path.clone())),
            }
            if path.contains("{jobid}") {
                let unknown = Names { job: "f".repeat(32), ..Names::of(&cluster)? };
                let (status, body) = cluster.ask(&method.to_uppercase(), &unknown.fill_in(path))?;
                let refused: Value = serde_json::from_slice(&body).expect("a refusal is JSON");
                let schema = schema(&document, path, method, "default").expect("refusals are documented");
                assert!(status == 404 && schema.is_valid(&refused), "{method} {path}: {status} {refused}");
            }
        }
    }
    assert!(asked >= 25, "{asked} paths were asked");
    figures_are_there(&cluster, &names)?;

    // What ends the job, each where it can: a job that was cancelled can be deleted.
    commands.sort();
    assert_eq!(commands.iter().map(|(method, _)| method.as_str()).collect::<Vec<_>>(), ["delete", "patch", "post"]);
    let second_directory = tempfile::tempdir().expect("a directory can be made");
    let mut second = counting(&second_directory)?;
    let second_names = Names::of(&second)?;
    hold(&second, &document, &second_names, "post", &commands[2].1, 202)?;
    second.wait_until("finished job", |state| state.job.state == JobStatus::Finished)?;
    hold(&cluster, &document, &names, "patch", &commands[1].1, 202)?;
    cluster.wait_until("cancelled job", |state| state.job.state == JobStatus::Canceled)?;
    let (status, _) = cluster.ask("GET", "/ready")?;
    assert_eq!(status, 503);
    hold(&cluster, &document, &names, "get", "/ready", 503)?;
    hold(&cluster, &document, &names, "delete", &commands[0].1, 202)?;
    Ok(())
}

/// The answers are not only of the right form: they tell of the job.
fn figures_are_there(cluster: &JobCluster, names: &Names) -> Result<()> {
    let job: JobDetails = cluster.rest(&format!("/jobs/{}", names.job))?;
    let [source, count] = &job.vertices[..] else { panic!("two vertices: {job:?}") };
    assert!(source.metrics.write_records >= 500 && count.metrics.read_records >= 500, "{job:?}");
    assert!(count.metrics.accumulated_idle_time > 0, "{count:?}");

    let pressure: BackPressureInfo =
        cluster.rest(&format!("/jobs/{}/vertices/{}/backpressure", names.job, names.vertex))?;
    assert_eq!((pressure.status.as_str(), pressure.subtasks.len()), ("ok", 2));
    for subtask in &pressure.subtasks {
        let sum = subtask.ratio + subtask.idle_ratio + subtask.busy_ratio;
        assert!((0.99..1.01).contains(&sum), "{subtask:?}");
    }
    let path = format!("/jobs/{}/checkpoints/details/{}/subtasks/{}", names.job, names.checkpoint, names.vertex);
    let part: TaskCheckpointDetails = cluster.rest(&path)?;
    let sizes = part.subtasks.iter().map(|subtask| match subtask {
        SubtaskCheckpoint::Completed(subtask) => subtask.state_size,
        SubtaskCheckpoint::PendingOrFailed { index } => panic!("subtask {index} of a completed checkpoint"),
    });
    assert_eq!(sizes.sum::<u64>(), part.task.state_size);
    assert!(part.task.state_size > 0 && part.task.checkpointed_size > 0, "{part:?}");

    let mut accesses = 0;
    for taskmanager in cluster.state()?.taskmanagers {
        let details: TaskManagerDetails = cluster.rest(&format!("/taskmanagers/{}", taskmanager.id))?;
        assert!(details.info.memory.resident > 0 && details.info.hardware.cpu_cores > 0, "{details:?}");
        assert!(details.info.memory.resident < details.info.memory.limit, "{details:?}");
        accesses += details.operators.iter().flat_map(|of| &of.states).map(|state| state.accesses).sum::<u64>();
    }
    assert!(accesses >= 1000, "each of 500 words is read and written: {accesses}");
    Ok(())
}
