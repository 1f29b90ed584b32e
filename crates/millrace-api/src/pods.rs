//! The pods of a job.

use std::{borrow::Cow, collections::BTreeMap};

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::{Size, crd};

const WITHIN_LIMITS: &str = "!has(self.requests) || !has(self.limits) || self.requests.all(name, !(name in \
    self.limits) || !isQuantity(string(self.requests[name])) || !isQuantity(string(self.limits[name])) || \
    !quantity(string(self.requests[name])).isGreaterThan(quantity(string(self.limits[name]))))";
const WITHIN_LIMITS_MESSAGE: &str = "a request is above its limit: lower the request or raise the limit";
const CLASS_NAME: &str = "self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')";
const CLASS_NAME_MESSAGE: &str =
    "'\"' + self + '\" is not the name of a StorageClass: lower-case letters, digits, - and .'";

/// The jobmanager. There is always one: two would fence each other off.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JobManagerSpec {
    /// What its container requests and may use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// A pod template that is merged into its pod, after spec.podTemplate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_template: Option<PodTemplate>,
}

/// The taskmanagers.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TaskManagerSpec {
    /// How many there are. kubectl scale and autoscalers change it.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 1000))]
    pub replicas: u32,
    /// How many slots each has; one holds a subtask of every operator.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 256))]
    pub slots: u32,
    /// What the container of each requests and may use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// A pod template that is merged into their pods, after spec.podTemplate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_template: Option<PodTemplate>,
    /// A volume of its own for each, for local state. Unset: the node's temporary storage.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume_claim: Option<VolumeClaimSpec>,
}

impl Default for TaskManagerSpec {
    fn default() -> Self {
        Self { replicas: 1, slots: 1, resources: None, pod_template: None, volume_claim: None }
    }
}

fn one() -> u32 {
    1
}

/// A claim for a volume.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VolumeClaimSpec {
    /// The StorageClass. Unset: the cluster's default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new(CLASS_NAME).message(Message::Expression(CLASS_NAME_MESSAGE.into())))]
    pub storage_class_name: Option<String>,
    /// The volume's size, such as 10Gi.
    pub size: Size,
}

/// What a container requests and may use.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new(WITHIN_LIMITS).message(WITHIN_LIMITS_MESSAGE))]
#[serde(rename_all = "camelCase")]
pub struct Resources {
    /// What is kept free for it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "crd::quantities")]
    pub requests: BTreeMap<String, Quantity>,
    /// What it may use at most.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "crd::quantities")]
    pub limits: BTreeMap<String, Quantity>,
}

/// A Kubernetes PodTemplateSpec. Its schema would make the definition too large for a client-side apply, so the
/// operator checks it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PodTemplate(pub serde_json::Value);

impl JsonSchema for PodTemplate {
    fn schema_name() -> Cow<'static, str> {
        "PodTemplate".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true })
    }
}
