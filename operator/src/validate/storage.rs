//! Where checkpoints go.

use millrace_api::{PodTemplate, StreamJobSpec};

use crate::build::{CONTAINER, Component, DATA_PATH, TMP_PATH, parse};

/// A `file:` storage must lie on a volume that all pods share.
pub(super) fn problems(spec: &StreamJobSpec) -> Vec<String> {
    let Some(path) = spec.checkpointing.storage.as_ref().and_then(|uri| uri.as_str().strip_prefix("file://")) else {
        return Vec::new();
    };
    let start = format!("spec.checkpointing.storage: file://{path}");
    if [TMP_PATH, DATA_PATH].iter().any(|of_pod| is_within(path, of_pod)) {
        return vec![format!(
            "{start} would end with its pod: write s3://bucket/path, or mount a shared volume elsewhere"
        )];
    }
    let of_components = [
        (Component::JobManager, &spec.job_manager.pod_template),
        (Component::TaskManager, &spec.task_manager.pod_template),
    ];
    let lacking = of_components.into_iter().filter(|(_, own)| {
        let templates = [spec.pod_template.as_ref(), own.as_ref()];
        !templates.into_iter().flatten().any(|template| mounts(template).iter().any(|mount| is_within(path, mount)))
    });
    lacking
        .map(|(component, _)| {
            format!(
                "{start} is on no volume of the {}: mount one that all pods share in the container {CONTAINER} of \
                 spec.podTemplate, or write s3://bucket/path",
                component.as_str()
            )
        })
        .collect()
}

/// Where a template mounts volumes; a template that cannot be read has problems of its own.
fn mounts(template: &PodTemplate) -> Vec<String> {
    let pod = parse(template).ok().and_then(|parsed| parsed.template.spec);
    let containers = pod.into_iter().flat_map(|pod| pod.containers).filter(|container| container.name == CONTAINER);
    containers.flat_map(|container| container.volume_mounts.unwrap_or_default()).map(|mount| mount.mount_path).collect()
}

fn is_within(path: &str, folder: &str) -> bool {
    let folder = folder.trim_end_matches('/');
    path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}
