//! The StatefulSets.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{
        apps::v1::{
            StatefulSet, StatefulSetPersistentVolumeClaimRetentionPolicy, StatefulSetSpec, StatefulSetUpdateStrategy,
        },
        core::v1::{PersistentVolumeClaim, PersistentVolumeClaimSpec, VolumeResourceRequirements},
    },
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::ObjectMeta},
};
use millrace_api::{StreamJob, StreamJobSpec, VolumeClaimSpec};

use super::{
    DeploymentRef,
    labels::{Component, DEPLOYMENT_ANNOTATION, label_selector, labels, metadata, name_of, selector},
    pod::{self, DATA_VOLUME},
};

/// The StatefulSet of a component. Its pods are replaced only when the operator stops and starts the job.
pub(super) fn set(
    job: &StreamJob,
    spec: &StreamJobSpec,
    deployment: &DeploymentRef,
    component: Component,
) -> StatefulSet {
    let replicas = match component {
        Component::JobManager => 1,
        Component::TaskManager => deployment.replicas,
    };
    let claim = match component {
        Component::JobManager => None,
        Component::TaskManager => spec.task_manager.volume_claim.as_ref(),
    };
    let number = (DEPLOYMENT_ANNOTATION.to_owned(), deployment.number.to_string());
    StatefulSet {
        metadata: ObjectMeta {
            annotations: Some(BTreeMap::from([number])),
            ..metadata(job, name_of(job, component), labels(job, component))
        },
        spec: Some(StatefulSetSpec {
            replicas: Some(i32::try_from(replicas).unwrap_or(i32::MAX)),
            service_name: Some(name_of(job, component)),
            pod_management_policy: Some("Parallel".to_owned()),
            update_strategy: Some(StatefulSetUpdateStrategy {
                type_: Some("OnDelete".to_owned()),
                rolling_update: None,
            }),
            revision_history_limit: Some(1),
            selector: label_selector(selector(job, component)),
            template: pod::template(job, spec, deployment, component),
            volume_claim_templates: claim.map(|claim| vec![volume_claim(claim)]),
            persistent_volume_claim_retention_policy: Some(StatefulSetPersistentVolumeClaimRetentionPolicy {
                when_deleted: Some("Delete".to_owned()),
                when_scaled: Some("Delete".to_owned()),
            }),
            ..StatefulSetSpec::default()
        }),
        ..StatefulSet::default()
    }
}

fn volume_claim(claim: &VolumeClaimSpec) -> PersistentVolumeClaim {
    let size = Quantity(claim.size.as_str().to_owned());
    PersistentVolumeClaim {
        metadata: ObjectMeta { name: Some(DATA_VOLUME.to_owned()), ..ObjectMeta::default() },
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(vec!["ReadWriteOnce".to_owned()]),
            storage_class_name: claim.storage_class_name.clone(),
            resources: Some(VolumeResourceRequirements {
                requests: Some(BTreeMap::from([("storage".to_owned(), size)])),
                limits: None,
            }),
            ..PersistentVolumeClaimSpec::default()
        }),
        status: None,
    }
}
