//! A namespace of a test's own.

use std::{collections::BTreeSet, fmt::Debug, time::Duration};

use k8s_openapi::api::core::v1::{Namespace as KubeNamespace, Secret, ServiceAccount};
use kube::{
    Api, Client, Resource,
    api::{DeleteParams, PostParams},
    core::NamespaceResourceScope,
};
use millrace_testkit::services::minio::MinioClient;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, from_value, json};

use super::Cluster;
use crate::{Context, Result, commands::succeed, wait};

/// The Secret with the keys of the object store.
pub const CREDENTIALS: &str = "s3-credentials";
/// How long a namespace may take to go.
const GONE: Duration = Duration::from_secs(90);

/// A namespace with the `restricted` Pod Security Standard enforced. It is deleted, without waiting, when this is
/// dropped: the jobs of a test that failed shall not be in the way of others.
pub struct Namespace<'a> {
    /// The cluster that it is in.
    pub cluster: &'a Cluster,
    /// Its name.
    pub name: String,
}

impl<'a> Namespace<'a> {
    /// Makes a namespace whose name begins with this.
    pub async fn create(cluster: &'a Cluster, name: &str) -> Result<Self> {
        let name = format!("{name}-{:08x}", rand::random::<u32>());
        let namespace = from_value(json!({
            "metadata": {"name": name, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}},
        }))?;
        let api = Api::<KubeNamespace>::all(cluster.client.clone());
        api.create(&PostParams::default(), &namespace).await.with_context(|| format!("creating namespace {name}"))?;
        let this = Self { cluster, name };
        // Its controller makes the service account that pods need.
        let accounts = this.api::<ServiceAccount>();
        let there = async || Ok(accounts.get_opt("default").await?);
        wait::until("default service account", wait::PATIENCE, there, async || String::new()).await?;
        Ok(this)
    }

    /// A client.
    pub fn client(&self) -> Client {
        self.cluster.client.clone()
    }

    /// The objects of a kind in it.
    pub fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client(), &self.name)
    }

    /// Makes an object in it.
    pub async fn create_object<K>(&self, object: Value) -> Result<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned,
    {
        let created = self.api::<K>().create(&PostParams::default(), &from_value(object.clone())?).await;
        created.with_context(|| format!("creating {object}"))
    }

    /// Puts the keys of an object store into the Secret that jobs name.
    pub async fn put_credentials(&self, minio: &MinioClient) -> Result<()> {
        self.put_secret(CREDENTIALS, minio.access_key(), minio.secret_key()).await
    }

    /// Makes a Secret with a pair of keys.
    pub async fn put_secret(&self, name: &str, access_key: &str, secret_key: &str) -> Result<()> {
        let keys = json!({"access-key": access_key, "secret-key": secret_key});
        self.create_object::<Secret>(json!({"metadata": {"name": name}, "stringData": keys})).await.map(drop)
    }

    /// All objects in it but events, as kubectl names them.
    pub fn objects(&self) -> Result<BTreeSet<String>> {
        let kinds =
            succeed(self.cluster.kubectl()?.args(["api-resources", "--namespaced", "--verbs=list", "--output=name"]))?;
        let kinds: Vec<_> = kinds.lines().filter(|kind| !kind.starts_with("events")).collect();
        let mut get = self.cluster.kubectl()?;
        get.args(["get", &kinds.join(","), "--namespace", &self.name, "--output=name", "--ignore-not-found"]);
        Ok(succeed(&mut get)?.lines().map(str::to_owned).collect())
    }

    /// Waits until there is nothing in it but what there was.
    pub async fn wait_for_only(&self, before: &BTreeSet<String>) -> Result<()> {
        let clean = async || Ok(self.objects()?.is_subset(before).then_some(()));
        let left = async || match self.objects() {
            Ok(objects) => format!("still there: {:?}", objects.difference(before).collect::<Vec<_>>()),
            Err(error) => format!("{error:#}"),
        };
        wait::until("namespace with nothing left in it", GONE, clean, left).await
    }

    /// Deletes it and waits until it is gone. Returns how long that took.
    pub async fn delete(&self) -> Result<Duration> {
        self.delete_within(GONE).await
    }

    /// The same with another limit.
    pub async fn delete_within(&self, limit: Duration) -> Result<Duration> {
        let since = std::time::Instant::now();
        let api = Api::<KubeNamespace>::all(self.client());
        api.delete(&self.name, &DeleteParams::default()).await?;
        let gone = async || Ok(api.get_opt(&self.name).await?.is_none().then_some(()));
        let left = async || format!("left in it: {:?}", self.objects());
        wait::until("end of a namespace", limit, gone, left).await?;
        Ok(since.elapsed())
    }
}

impl Drop for Namespace<'_> {
    fn drop(&mut self) {
        let delete = || -> Result<String> {
            let mut delete = self.cluster.kubectl()?;
            delete.args(["delete", "namespace", &self.name, "--wait=false", "--ignore-not-found"]);
            succeed(&mut delete)
        };
        if let Err(error) = delete() {
            eprintln!("namespace {} stays: {error:#}", self.name);
        }
    }
}
