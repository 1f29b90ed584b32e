//! State backends and object stores.

use std::collections::BTreeMap;

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::crd;

const ENDPOINT: &str = "self.matches('^https?://[^/[:space:]]+/?$')";
const ENDPOINT_MESSAGE: &str = "'\"' + self + '\" is no endpoint: write http:// or https:// and a host, such as \
    http://minio.storage:9000'";
const OBJECT_NAME: &str = "self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')";
const OBJECT_NAME_MESSAGE: &str =
    "'\"' + self + '\" is not the name of an object: lower-case letters, digits, - and .'";

/// Where the job's state lives.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StateBackendSpec {
    /// The backend's name.
    #[serde(rename = "type")]
    #[schemars(length(min = 1, max = 128))]
    pub type_: String,
    /// Its settings, by their keys, which begin with state.backend.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "crd::backend_options")]
    pub options: BTreeMap<String, String>,
}

/// An object store that speaks S3.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct S3Spec {
    /// Its URL. Unset: AWS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    #[x_kube(validation = Rule::new(ENDPOINT).message(Message::Expression(ENDPOINT_MESSAGE.into())))]
    pub endpoint: Option<String>,
    /// Its region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub region: Option<String>,
    /// Address buckets by path instead of by host name. Unset: by path with an endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_style: Option<bool>,
    /// A Secret with the credentials. Unset: the pod's own identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_secret_ref: Option<CredentialsSecretRef>,
    /// The authorities that sign the store's certificate. Unset: those of the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_bundle: Option<CaBundle>,
}

/// A Secret of the job's namespace with an access key and its secret key.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CredentialsSecretRef {
    /// The Secret's name.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new(OBJECT_NAME).message(Message::Expression(OBJECT_NAME_MESSAGE.into())))]
    pub name: String,
    /// The key that holds the access key.
    #[serde(default = "default_access_key")]
    #[schemars(length(min = 1, max = 253))]
    pub access_key: String,
    /// The key that holds the secret key.
    #[serde(default = "default_secret_key")]
    #[schemars(length(min = 1, max = 253))]
    pub secret_key: String,
}

fn default_access_key() -> String {
    "access-key".to_owned()
}

fn default_secret_key() -> String {
    "secret-key".to_owned()
}

/// A ConfigMap of the job's namespace with certificates in PEM.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CaBundle {
    /// The ConfigMap's name.
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new(OBJECT_NAME).message(Message::Expression(OBJECT_NAME_MESSAGE.into())))]
    pub config_map_name: String,
    /// The key that holds the certificates.
    #[serde(default = "default_bundle_key")]
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

fn default_bundle_key() -> String {
    "ca.crt".to_owned()
}
