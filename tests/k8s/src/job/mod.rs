//! StreamJobs, as a user handles them.

mod describe;
mod manifest;
pub mod pods;
mod view;

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Event, Pod};
use kube::{
    Api, ResourceExt,
    api::{ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, LogParams, Patch, PatchParams},
};
use serde_json::{Value, json};

use crate::{Context, Result, cluster::Namespace, ensure, wait};

pub use describe::describe;
pub use manifest::{Manifest, PROGRAM};
pub use view::{Condition, View};

/// Which of a job's processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Its only jobmanager.
    JobManager,
    /// A taskmanager.
    TaskManager,
}

impl Role {
    fn component(self) -> &'static str {
        match self {
            Self::JobManager => "jobmanager",
            Self::TaskManager => "taskmanager",
        }
    }
}

/// The resource.
pub fn resource() -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("millrace.dev", "v1alpha1", "StreamJob"), "streamjobs")
}

/// A StreamJob in the cluster.
pub struct Job<'a> {
    /// Where it is.
    pub namespace: &'a Namespace<'a>,
    /// Its name.
    pub name: String,
    api: Api<DynamicObject>,
}

impl<'a> Job<'a> {
    /// A StreamJob, whether it is there or not.
    pub fn new(namespace: &'a Namespace<'a>, name: &str) -> Self {
        let api = Api::namespaced_with(namespace.client(), &namespace.name, &resource());
        Self { namespace, name: name.to_owned(), api }
    }

    /// Applies a manifest with `kubectl apply`, as a user does.
    pub fn apply(namespace: &'a Namespace<'a>, manifest: &Manifest) -> Result<Self> {
        manifest.apply(namespace)?;
        Ok(Self::new(namespace, &manifest.name()))
    }

    /// What is seen of it now.
    pub async fn view(&self) -> Result<View> {
        Ok(self.api.get(&self.name).await.with_context(|| format!("reading StreamJob {}", self.name))?.into())
    }

    /// Changes it by a JSON merge patch.
    pub async fn patch(&self, change: Value) -> Result<View> {
        let patched = self.api.patch(&self.name, &PatchParams::default(), &Patch::Merge(change)).await;
        Ok(patched.with_context(|| format!("changing StreamJob {}", self.name))?.into())
    }

    /// Changes its spec by a JSON merge patch.
    pub async fn patch_spec(&self, change: Value) -> Result<View> {
        self.patch(json!({"spec": change})).await
    }

    /// Waits until a condition holds.
    pub async fn wait_within(
        &self,
        limit: Duration,
        awaited: &str,
        mut holds: impl FnMut(&View) -> bool,
    ) -> Result<View> {
        let ask = async || Ok(Some(self.view().await?).filter(&mut holds));
        wait::until(awaited, limit, ask, async || self.describe().await).await
    }

    /// The same, with patience.
    pub async fn wait(&self, awaited: &str, holds: impl FnMut(&View) -> bool) -> Result<View> {
        self.wait_within(wait::PATIENCE, awaited, holds).await
    }

    /// Waits until it runs as its spec says, with all its taskmanagers.
    pub async fn wait_until_settled(&self) -> Result<View> {
        self.wait("job that runs as its spec says", View::is_settled).await
    }

    /// Waits for a checkpoint that completes from now on.
    pub async fn wait_for_new_checkpoint(&self) -> Result<View> {
        let newest = self.view().await?.latest_checkpoint();
        self.wait("new checkpoint", |view| view.latest_checkpoint() > newest).await
    }

    /// Waits until it is in a phase.
    pub async fn wait_for_phase(&self, phase: &str) -> Result<View> {
        self.wait(&format!("phase {phase}"), |view| view.phase() == phase && view.is_observed()).await
    }

    /// Waits until status says all these words, of a job that can't run.
    pub async fn wait_for_complaint(&self, words: &[&str]) -> Result<View> {
        let said = |view: &View| words.iter().all(|word| view.complaints().contains(word));
        let view = self.wait(&format!("status that says {words:?}"), said).await?;
        println!("{}: {}", self.namespace.name, view.complaints());
        ensure!(view.condition("Ready").status == "False" && view.phase() != "Running", "{}", view.describe());
        Ok(view)
    }

    /// Deletes it, without waiting.
    pub async fn begin_delete(&self) -> Result<()> {
        self.api.delete(&self.name, &DeleteParams::default()).await?;
        Ok(())
    }

    /// Waits until it is gone. Returns how long that took.
    pub async fn wait_until_gone(&self, limit: Duration) -> Result<Duration> {
        let since = Instant::now();
        let gone = async || Ok(self.api.get_opt(&self.name).await?.is_none().then_some(()));
        wait::until("end of a deleted StreamJob", limit, gone, async || self.describe().await).await?;
        Ok(since.elapsed())
    }

    /// Its pods of a role, in order, those that are leaving too.
    pub async fn pods(&self, role: Role) -> Result<Vec<Pod>> {
        let component = role.component();
        let selector = format!("millrace.dev/job={},app.kubernetes.io/component={component}", self.name);
        let mut pods = self.pod_api().list(&ListParams::default().labels(&selector)).await?.items;
        pods.sort_by_key(ResourceExt::name_any);
        Ok(pods)
    }

    /// All its pods.
    pub async fn all_pods(&self) -> Result<Vec<Pod>> {
        let mut pods = self.pods(Role::JobManager).await?;
        pods.extend(self.pods(Role::TaskManager).await?);
        Ok(pods)
    }

    /// The uids of all its pods, in order.
    pub async fn pod_uids(&self) -> Result<Vec<String>> {
        let mut uids: Vec<_> = self.all_pods().await?.iter().map(pods::uid).collect();
        uids.sort();
        Ok(uids)
    }

    /// Waits until it has no taskmanagers.
    pub async fn wait_for_no_taskmanagers(&self) -> Result<()> {
        let none = async || Ok(self.pods(Role::TaskManager).await?.is_empty().then_some(()));
        wait::until("job without taskmanagers", wait::PATIENCE, none, async || self.describe().await).await
    }

    /// Deletes a pod. `grace`: seconds that its processes are given; none: what the pod says.
    pub async fn delete_pod(&self, pod: &Pod, grace: Option<u32>) -> Result<()> {
        let how = DeleteParams { grace_period_seconds: grace, ..DeleteParams::default() };
        self.pod_api().delete(&pods::name(pod), &how).await.with_context(|| format!("deleting {}", pods::name(pod)))?;
        Ok(())
    }

    /// The reasons of the events about it, in the order of their first occurrence, each as often as it was counted.
    pub async fn events(&self) -> Result<Vec<String>> {
        Ok(self.event_list().await?.iter().flat_map(|event| reasons(event).collect::<Vec<_>>()).collect())
    }

    /// Waits for an event: they are published after the status that they are about.
    pub async fn wait_for_event(&self, reason: &str) -> Result<()> {
        let told = async || Ok(self.events().await?.iter().any(|event| event == reason).then_some(()));
        wait::until(&format!("event {reason}"), wait::PATIENCE, told, async || self.describe().await).await
    }

    /// The messages of its events of a reason.
    pub async fn event_messages(&self, reason: &str) -> Result<Vec<String>> {
        let events = self.event_list().await?.into_iter().filter(|event| event.reason.as_deref() == Some(reason));
        Ok(events.map(|event| event.message.unwrap_or_default()).collect())
    }

    async fn event_list(&self) -> Result<Vec<Event>> {
        let api = Api::<Event>::namespaced(self.namespace.client(), &self.namespace.name);
        let fields = format!("involvedObject.kind=StreamJob,involvedObject.name={}", self.name);
        let mut events = api.list(&ListParams::default().fields(&fields)).await?.items;
        events.sort_by_key(|event| event.metadata.creation_timestamp.clone());
        Ok(events)
    }

    /// The lines with a text in them that its pods have logged for so long.
    pub async fn log_lines(&self, since: Duration, text: &str) -> Result<Vec<String>> {
        let mut lines = Vec::new();
        for role in [Role::JobManager, Role::TaskManager] {
            for pod in self.pods(role).await? {
                let seconds = since.as_secs() as i64 + 1;
                let params = LogParams { since_seconds: Some(seconds), ..LogParams::default() };
                let log = self.pod_api().logs(&pods::name(&pod), &params).await?;
                lines.extend(log.lines().filter(|line| line.contains(text)).map(str::to_owned));
            }
        }
        Ok(lines)
    }

    /// Everything that helps to understand why it is not as expected.
    pub async fn describe(&self) -> String {
        describe(&self.namespace.client(), &self.namespace.name).await
    }

    fn pod_api(&self) -> Api<Pod> {
        Api::namespaced(self.namespace.client(), &self.namespace.name)
    }
}

fn reasons(event: &Event) -> impl Iterator<Item = String> {
    let series = event.series.as_ref().and_then(|series| series.count);
    let times = event.count.or(series).unwrap_or(1).max(1) as usize;
    std::iter::repeat_n(event.reason.clone().unwrap_or_default(), times)
}
