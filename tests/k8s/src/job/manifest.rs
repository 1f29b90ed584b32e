//! Manifests of StreamJobs.

use std::{io::Write, process::Stdio};

use serde_json::{Value, json};

use crate::{
    Context, Result,
    cluster::{CREDENTIALS, Namespace, WORKER_IMAGE},
    ensure,
    load::Place,
};

/// The stock worker's program.
pub const PROGRAM: &str = "/usr/bin/millrace-examples";

/// A StreamJob to be applied.
#[derive(Clone, Debug)]
pub struct Manifest {
    value: Value,
}

impl Manifest {
    /// The seed's job: it counts the records of a topic by key and writes each with its count to another topic, with a
    /// checkpoint every second in the place's bucket.
    pub fn counting(place: &Place) -> Self {
        let manifest = Self {
            value: json!({
                "apiVersion": "millrace.dev/v1alpha1",
                "kind": "StreamJob",
                "metadata": {"name": "counts"},
                "spec": {
                    "image": WORKER_IMAGE,
                    "program": PROGRAM,
                    "checkpointing": {"interval": "1s", "storage": place.storage()},
                    "s3": {
                        "endpoint": place.endpoint(),
                        "pathStyle": true,
                        "credentialsSecretRef": {"name": CREDENTIALS},
                    },
                    "restartStrategy": {
                        "type": "fixed-delay",
                        "fixedDelay": {"attempts": i32::MAX, "delay": "200ms"},
                    },
                    "taskManager": {"replicas": 1},
                },
            }),
        };
        manifest.set("/spec/args", json!(Self::counting_args(place, &place.output)))
    }

    /// The arguments of the seed's job with this topic for its output.
    pub fn counting_args(place: &Place, output: &str) -> Vec<String> {
        let from = ["checkpoint-example", "--kafka", &place.bootstrap(), "--topic", &place.input].map(str::to_owned);
        let how = ["--group", output, "--start", "earliest", "--key-by", "record", "--kafka-out", output];
        from.into_iter().chain(how.map(str::to_owned)).collect()
    }

    /// Reads a manifest.
    pub fn parse(yaml: &str) -> Result<Self> {
        Ok(Self { value: serde_yaml_ng::from_str(yaml).context("reading a manifest")? })
    }

    /// Gives it another name.
    pub fn named(self, name: &str) -> Self {
        self.set("/metadata/name", json!(name))
    }

    /// Sets a field; objects on the way to it are made. Null takes it away.
    pub fn set(mut self, pointer: &str, value: Value) -> Self {
        let mut here = &mut self.value;
        let mut fields: Vec<_> = pointer.trim_start_matches('/').split('/').collect();
        let last = fields.pop().expect("a pointer names a field");
        for field in fields {
            here = &mut here[field];
        }
        if value.is_null() {
            here.as_object_mut().map(|object| object.remove(last));
        } else {
            here[last] = value;
        }
        self
    }

    /// Its name.
    pub fn name(&self) -> String {
        self.value["metadata"]["name"].as_str().unwrap_or_default().to_owned()
    }

    /// As it would be written to a file.
    pub fn yaml(&self) -> String {
        serde_yaml_ng::to_string(&self.value).expect("JSON can be written as YAML")
    }

    /// Applies it with kubectl.
    pub fn apply(&self, namespace: &Namespace<'_>) -> Result<()> {
        self.hand_over(namespace, &["apply"])
    }

    /// Has kubectl delete what has its name and, at the very moment that it is gone, create it anew.
    pub fn replace_by_force(&self, namespace: &Namespace<'_>) -> Result<()> {
        self.hand_over(namespace, &["replace", "--force"])
    }

    fn hand_over(&self, namespace: &Namespace<'_>, how: &[&str]) -> Result<()> {
        let mut kubectl = namespace.cluster.kubectl()?;
        kubectl.args(how).args(["--namespace", &namespace.name, "--filename=-"]);
        kubectl.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = kubectl.spawn().context("starting kubectl")?;
        child.stdin.take().expect("it is piped").write_all(self.yaml().as_bytes())?;
        let output = child.wait_with_output()?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "kubectl {how:?} refused\n{}\n{stderr}", self.yaml());
        Ok(())
    }
}
