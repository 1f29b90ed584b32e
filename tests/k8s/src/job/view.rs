//! What a user sees of a StreamJob, read as JSON: the tests share no types with the operator.

use std::time::Duration;

use kube::api::DynamicObject;
use serde_json::Value;

/// A StreamJob as the API server shows it.
#[derive(Clone, Debug)]
pub struct View {
    object: DynamicObject,
}

/// A condition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Condition {
    /// `True`, `False` or `Unknown`; empty: it is not there.
    pub status: String,
    /// Why, in a word.
    pub reason: String,
    /// Why, in a sentence.
    pub message: String,
}

impl From<DynamicObject> for View {
    fn from(object: DynamicObject) -> Self {
        Self { object }
    }
}

impl View {
    fn at(&self, pointer: &str) -> &Value {
        self.object.data.pointer(pointer).unwrap_or(&Value::Null)
    }

    /// A text; empty where there is none.
    pub fn text(&self, pointer: &str) -> &str {
        self.at(pointer).as_str().unwrap_or_default()
    }

    /// A number; 0 where there is none.
    pub fn number(&self, pointer: &str) -> i64 {
        self.at(pointer).as_i64().unwrap_or_default()
    }

    /// Whether there is anything.
    pub fn has(&self, pointer: &str) -> bool {
        !self.at(pointer).is_null()
    }

    /// Its identity: another StreamJob of the same name has another one.
    pub fn uid(&self) -> &str {
        self.object.metadata.uid.as_deref().unwrap_or_default()
    }

    /// Its phase.
    pub fn phase(&self) -> &str {
        self.text("/status/phase")
    }

    /// The engine's id of the job.
    pub fn job_id(&self) -> &str {
        self.text("/status/jobId")
    }

    /// How many jobmanagers the job has had.
    pub fn generation(&self) -> i64 {
        self.number("/status/generation")
    }

    /// How often its tasks were started again.
    pub fn restarts(&self) -> i64 {
        self.number("/status/restarts")
    }

    /// The number of its newest complete checkpoint; 0: there is none.
    pub fn latest_checkpoint(&self) -> i64 {
        self.number("/status/checkpoints/latest/id")
    }

    /// Checkpoints that failed.
    pub fn failed_checkpoints(&self) -> i64 {
        self.number("/status/checkpoints/failed")
    }

    /// When the last recovery began; empty where there was none.
    pub fn recovery_began(&self) -> &str {
        self.text("/status/lastRecovery/startedAt")
    }

    /// What of the last recovery took how long.
    pub fn recovery_phases(&self) -> Vec<(String, Duration)> {
        let phases = self.at("/status/lastRecovery/phases").as_array().map(Vec::as_slice).unwrap_or_default();
        let duration = |phase: &Value| Duration::from_millis(phase["durationMs"].as_u64().unwrap_or_default());
        phases.iter().map(|phase| (phase["name"].as_str().unwrap_or_default().to_owned(), duration(phase))).collect()
    }

    /// How often a changed spec was deployed.
    pub fn deployment(&self) -> i64 {
        self.number("/status/deployment/number")
    }

    /// Whether status speaks of the newest spec.
    pub fn is_observed(&self) -> bool {
        self.object.metadata.generation == Some(self.number("/status/observedGeneration"))
    }

    /// Whether it runs as its newest spec says, with all its taskmanagers.
    pub fn is_settled(&self) -> bool {
        let (ready, wanted) = (self.number("/status/taskManagers/ready"), self.number("/status/taskManagers/wanted"));
        self.is_observed() && self.phase() == "Running" && ready == wanted && self.condition("Ready").status == "True"
    }

    /// A condition.
    pub fn condition(&self, kind: &str) -> Condition {
        let conditions = self.at("/status/conditions").as_array().map(Vec::as_slice).unwrap_or_default();
        let text = |condition: &Value, field: &str| condition[field].as_str().unwrap_or_default().to_owned();
        let found = conditions.iter().find(|condition| condition["type"] == kind);
        found.map_or_else(Condition::default, |found| Condition {
            status: text(found, "status"),
            reason: text(found, "reason"),
            message: text(found, "message"),
        })
    }

    /// The messages of all conditions that are not true.
    pub fn complaints(&self) -> String {
        let conditions = self.at("/status/conditions").as_array().map(Vec::as_slice).unwrap_or_default();
        let wrong = conditions.iter().filter(|condition| condition["status"] != "True");
        let line =
            |condition: &Value| format!("{} {} {}\n", condition["type"], condition["reason"], condition["message"]);
        wrong.map(line).collect()
    }

    /// Its status, for a failure message.
    pub fn describe(&self) -> String {
        let status = self.at("/status");
        let without_spec = status.as_object().map(|status| {
            let mut status = status.clone();
            if let Some(deployment) = status.get_mut("deployment").and_then(Value::as_object_mut) {
                deployment.remove("spec");
            }
            Value::Object(status)
        });
        let name = self.object.metadata.name.as_deref().unwrap_or_default();
        let yaml = serde_yaml_ng::to_string(&without_spec).unwrap_or_default();
        format!("StreamJob {name}, metadata.generation {:?}, status:\n{yaml}", self.object.metadata.generation)
    }
}
