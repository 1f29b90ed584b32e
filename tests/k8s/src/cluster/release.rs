//! The operator, installed with Helm.

use std::time::Duration;

use k8s_openapi::api::{coordination::v1::Lease, core::v1::Pod};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, LogParams},
};

use super::Cluster;
use crate::{Context, Result, commands::succeed, ensure, job::pods, wait};

/// The operator's pods.
pub const OPERATOR_SELECTOR: &str = "app.kubernetes.io/name=millrace-operator";

/// A Helm release of the chart.
#[derive(Clone, Debug)]
pub struct Release {
    /// Its name.
    pub name: String,
    /// Where its operator runs.
    pub namespace: String,
}

impl Release {
    /// Installs the chart, or upgrades it where it is installed, and waits until the operator is ready. An operator
    /// that ran before is replaced, since its image may be another one under the same name.
    pub async fn install(cluster: &Cluster, name: &str, namespace: &str, values: &[&str]) -> Result<Self> {
        let this = Self { name: name.to_owned(), namespace: namespace.to_owned() };
        let existed = !this.pods(cluster.client.clone()).await?.is_empty();
        this.upgrade(cluster, values).await?;
        if existed {
            this.replace_operator(cluster.client.clone(), None).await?;
        }
        Ok(this)
    }

    /// Gives the release these values, and all others their defaults, and waits until the operator is ready.
    pub async fn upgrade(&self, cluster: &Cluster, values: &[&str]) -> Result<()> {
        let (name, namespace) = (self.name.as_str(), self.namespace.as_str());
        let mut helm = cluster.helm()?;
        helm.args(["upgrade", "--install", name, "charts/millrace", "--namespace", namespace, "--create-namespace"]);
        // Helm keeps a release's values where it is given none.
        helm.args(["--reset-values", "--wait", "--timeout", "2m"]);
        for value in values {
            helm.args(["--set", value]);
        }
        if let Err(error) = succeed(&mut helm) {
            let described = self.describe(cluster.client.clone()).await;
            return Err(error.context(described));
        }
        Ok(())
    }

    /// Who holds the Lease that the operator's replicas elect their leader with: a pod's name, `_` and what differs
    /// from one start of its process to the next. None between two leaders.
    pub async fn leader(&self, client: Client) -> Result<Option<String>> {
        let api = Api::<Lease>::namespaced(client, &self.namespace);
        let lease = api.get(&format!("{}-operator", self.name)).await.context("reading the operator's Lease")?;
        Ok(lease.spec.and_then(|spec| spec.holder_identity).filter(|holder| !holder.is_empty()))
    }

    /// Removes the release.
    pub fn uninstall(&self, cluster: &Cluster) -> Result<()> {
        let mut helm = cluster.helm()?;
        helm.args(["uninstall", &self.name, "--namespace", &self.namespace, "--wait"]);
        succeed(&mut helm).map(drop)
    }

    /// The operator's pods.
    pub async fn pods(&self, client: Client) -> Result<Vec<Pod>> {
        let selector = format!("{OPERATOR_SELECTOR},app.kubernetes.io/instance={}", self.name);
        let api = Api::<Pod>::namespaced(client, &self.namespace);
        Ok(api.list(&ListParams::default().labels(&selector)).await?.items)
    }

    /// Deletes the operator's pods. Returns their uids.
    pub async fn delete_operator(&self, client: Client, grace: Option<u32>) -> Result<Vec<String>> {
        let pods = self.pods(client.clone()).await?;
        ensure!(!pods.is_empty(), "there is no operator to delete");
        for pod in &pods {
            self.delete_pod(client.clone(), pod, grace).await?;
        }
        Ok(pods.iter().map(pods::uid).collect())
    }

    /// Deletes one of the operator's pods.
    pub async fn delete_pod(&self, client: Client, pod: &Pod, grace: Option<u32>) -> Result<()> {
        let how = DeleteParams { grace_period_seconds: grace, ..DeleteParams::default() };
        let deleted = Api::<Pod>::namespaced(client, &self.namespace).delete(&pods::name(pod), &how).await;
        deleted.map(drop).with_context(|| format!("deleting {}", pods::name(pod)))
    }

    /// Waits for an operator that is ready and none of those.
    pub async fn wait_for_other(&self, client: Client, than: &[String]) -> Result<Duration> {
        let since = std::time::Instant::now();
        let replaced = async || {
            let pods = self.pods(client.clone()).await?;
            let is_new = |pod: &Pod| !than.contains(&pods::uid(pod)) && pods::is_ready(pod);
            let old_gone = !pods.iter().any(|pod| than.contains(&pods::uid(pod)));
            Ok((old_gone && pods.iter().any(is_new)).then_some(()))
        };
        let explain = async || self.describe(client.clone()).await;
        wait::until("new operator that is ready", wait::PATIENCE, replaced, explain).await?;
        Ok(since.elapsed())
    }

    /// Deletes the operator's pods and waits for new ones.
    pub async fn replace_operator(&self, client: Client, grace: Option<u32>) -> Result<Duration> {
        let old = self.delete_operator(client.clone(), grace).await?;
        self.wait_for_other(client, &old).await
    }

    /// The lines with a text in them that the operator has logged since its pods were started.
    pub async fn log_lines(&self, client: Client, text: &str) -> Result<Vec<String>> {
        let api = Api::<Pod>::namespaced(client.clone(), &self.namespace);
        let mut lines = Vec::new();
        for pod in self.pods(client).await? {
            let log = api.logs(&pods::name(&pod), &LogParams::default()).await?;
            lines.extend(log.lines().filter(|line| line.contains(text)).map(str::to_owned));
        }
        Ok(lines)
    }

    /// Makes sure that these pods of the operator are there still, and that none has been started again in its place.
    pub async fn expect_unbroken(&self, client: Client, uids: &[String]) -> Result<()> {
        for pod in self.pods(client).await? {
            let (restarts, described) = (pods::container_restarts(&pod), pods::describe(&pod));
            ensure!(uids.contains(&pods::uid(&pod)) && restarts == 0, "the operator was started again: {described}");
        }
        Ok(())
    }

    /// The state of the operator and the end of its log, for a failure message.
    pub async fn describe(&self, client: Client) -> String {
        let api = Api::<Pod>::namespaced(client.clone(), &self.namespace);
        let pods = match self.pods(client).await {
            Ok(pods) => pods,
            Err(error) => return format!("{error:#}"),
        };
        let mut text = String::new();
        for pod in pods {
            text += &pods::describe(&pod);
            let tail = LogParams { tail_lines: Some(30), ..LogParams::default() };
            text += &api.logs(&pods::name(&pod), &tail).await.unwrap_or_else(|error| error.to_string());
        }
        format!("--- operator\n{text}")
    }
}
