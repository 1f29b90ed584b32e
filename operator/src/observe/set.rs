//! A StatefulSet as plain data.

use k8s_openapi::api::apps::v1::StatefulSet;
use millrace_api::StreamJob;

use crate::build::DEPLOYMENT_ANNOTATION;

/// What matters of a StatefulSet.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SetFacts {
    /// Its name.
    pub name: String,
    /// Its identity.
    pub uid: String,
    /// Which deployment it belongs to.
    pub deployment: i64,
    /// Rises with each change of what it asks for.
    pub generation: i64,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// Whether it was left by another job that had the name before.
    pub foreign: bool,
}

impl SetFacts {
    /// The facts of a StatefulSet that has the name and the labels of this job's.
    pub fn of(set: &StatefulSet, job: &StreamJob) -> Self {
        let metadata = &set.metadata;
        let number = metadata.annotations.as_ref().and_then(|annotations| annotations.get(DEPLOYMENT_ANNOTATION));
        Self {
            name: metadata.name.clone().unwrap_or_default(),
            uid: metadata.uid.clone().unwrap_or_default(),
            deployment: number.and_then(|number| number.parse().ok()).unwrap_or_default(),
            generation: metadata.generation.unwrap_or_default(),
            deleting: metadata.deletion_timestamp.is_some(),
            foreign: !metadata
                .owner_references
                .iter()
                .flatten()
                .any(|owner| Some(&owner.uid) == job.metadata.uid.as_ref()),
        }
    }
}

/// Leaves of a StatefulSet what [`SetFacts`] needs, so that the cache of many stays small.
pub(super) fn trim(set: &mut StatefulSet) {
    set.metadata.managed_fields = None;
    if let Some(annotations) = &mut set.metadata.annotations {
        annotations.retain(|key, _| key == DEPLOYMENT_ANNOTATION);
    }
    set.spec = None;
    set.status = None;
}
