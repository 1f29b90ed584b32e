//! The manifests that users begin with: `deploy/samples` and `examples/own-job`.

use std::{fs, path::PathBuf};

use millrace_api::StreamJob;
use millrace_operator::validate::validate;
use serde_json::Value;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Each file with its text.
fn manifests() -> Vec<(String, String)> {
    let samples = fs::read_dir(root().join("deploy/samples")).expect("deploy/samples is there");
    let mut paths: Vec<_> =
        samples.map(|file| format!("deploy/samples/{}", file.unwrap().file_name().to_str().unwrap())).collect();
    assert!(paths.len() >= 2, "{paths:?}");
    paths.push("examples/own-job/streamjob.yaml".to_owned());
    paths.into_iter().map(|path| (path.clone(), read(&path))).collect()
}

#[test]
fn they_are_valid_and_have_no_unknown_field() {
    for (path, text) in manifests() {
        let mut unknown = Vec::new();
        let document = serde_yaml_ng::Deserializer::from_str(&text);
        let job: StreamJob = serde_ignored::deserialize(document, |field| unknown.push(field.to_string()))
            .unwrap_or_else(|error| panic!("{path}: {error}"));
        // Kube knows these two by the type.
        assert_eq!(unknown, ["apiVersion", "kind"], "{path}");
        validate(&job).unwrap_or_else(|invalid| panic!("{path}: {invalid}"));
    }
}

#[test]
fn an_autoscaler_s_replicas_survive_their_apply() {
    for (path, text) in manifests() {
        let manifest: Value = serde_yaml_ng::from_str(&text).unwrap();
        for field in ["/spec/parallelism", "/spec/taskManager/replicas"] {
            assert!(manifest.pointer(field).is_none(), "{path} sets {field}");
        }
    }
}

#[test]
fn images_have_the_workspace_s_version() {
    let worker = format!("millrace/worker:{}", env!("CARGO_PKG_VERSION"));
    for (path, text) in manifests().iter().filter(|(path, _)| path.starts_with("deploy/samples")) {
        let manifest: Value = serde_yaml_ng::from_str(text).unwrap();
        assert_eq!(manifest["spec"]["image"], worker, "{path}");
        assert_eq!(manifest["spec"]["program"], "/usr/bin/millrace-examples", "{path}");
    }
    assert!(read("examples/own-job/Dockerfile").starts_with(&format!("FROM {worker}\n")));
    let operator = format!("millrace/operator:{}", env!("CARGO_PKG_VERSION"));
    for (name, image) in [("worker", &worker), ("operator", &operator)] {
        let build = format!("docker build -f deploy/images/{name}.Dockerfile -t {image} .");
        assert!(read("docs/quick-start.md").contains(&build), "the quick start builds {image}");
        assert!(read(&format!("deploy/images/{name}.Dockerfile")).contains(&build), "its Dockerfile says how");
    }
    assert!(read("deploy/images/job.Dockerfile").contains(&format!("FROM {worker}\n")));
}

#[test]
fn an_own_job_s_program_is_where_its_manifest_says() {
    let manifest: Value = serde_yaml_ng::from_str(&read("examples/own-job/streamjob.yaml")).unwrap();
    let program = manifest["spec"]["program"].as_str().unwrap();
    let dockerfile = read("examples/own-job/Dockerfile");
    let lines: Vec<_> = dockerfile.lines().collect();
    assert_eq!(lines.len(), 3, "three lines are enough");
    let name = program.rsplit('/').next().unwrap();
    assert_eq!(lines[1], format!("COPY target/release/{name} {program}"));
    assert_eq!(lines[2], format!("ENTRYPOINT [\"{program}\"]"));
    assert!(read("examples/own-job/Cargo.toml").contains(&format!("name = \"{name}\"")));
}
