//! The objects of a job, by server-side apply.

use std::{fmt::Debug, hash::Hasher};

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{Patch, PatchParams},
    core::NamespaceResourceScope,
};
use millrace_api::StreamJob;
use serde::{Serialize, de::DeserializeOwned};
use xxhash_rust::xxh3::Xxh3;

use crate::{
    build::{Children, Component, MANAGER},
    error::Error,
    observe::Facts,
};

/// After this time objects are applied again although nothing seems to have changed: what others write into objects that
/// are not watched closely lasts no longer.
const AGAIN_AFTER: SignedDuration = SignedDuration::from_mins(10);

/// What was applied last, so that nothing is asked of the API while nothing changes.
#[derive(Clone, Debug, PartialEq)]
pub struct Applied {
    hash: u64,
    at: Timestamp,
    sets: Vec<(Component, String, i64)>,
}

impl Applied {
    /// Whether the objects are what they should be, as far as can be seen.
    pub fn holds(&self, children: &Children, components: &[Component], facts: &Facts, now: Timestamp) -> bool {
        let seen = |(component, uid, generation): &(Component, String, i64)| {
            // A cache may lag behind: an older generation is what was there before.
            facts.set(*component).is_some_and(|set| set.uid == *uid && set.generation <= *generation)
        };
        self.hash == hash(children, components) && now < self.at + AGAIN_AFTER && self.sets.iter().all(seen)
    }
}

/// Applies all, the StatefulSets last: what they need is there when their pods start.
pub async fn apply(
    client: &Client,
    job: &StreamJob,
    children: &Children,
    components: &[Component],
    now: Timestamp,
) -> Result<Applied, Error> {
    let namespace = job.namespace().unwrap_or_default();
    let applier = Applier { client, namespace: &namespace };
    applier.apply("networkpolicy", &children.network_policy).await?;
    applier.apply("service", &children.job_manager_service).await?;
    applier.apply("service", &children.task_manager_service).await?;
    applier.apply("poddisruptionbudget", &children.job_manager_budget).await?;
    applier.apply("poddisruptionbudget", &children.task_manager_budget).await?;
    let mut sets = Vec::new();
    for component in components {
        let wanted = match component {
            Component::JobManager => &children.job_manager,
            Component::TaskManager => &children.task_manager,
        };
        let set = applier.apply("statefulset", wanted).await?.metadata;
        sets.push((*component, set.uid.unwrap_or_default(), set.generation.unwrap_or_default()));
    }
    Ok(Applied { hash: hash(children, components), at: now, sets })
}

struct Applier<'a> {
    client: &'a Client,
    namespace: &'a str,
}

impl Applier<'_> {
    async fn apply<K>(&self, kind: &str, wanted: &K) -> Result<K, Error>
    where
        K: Resource<Scope = NamespaceResourceScope> + Clone + Debug + Serialize + DeserializeOwned,
        K::DynamicType: Default,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), self.namespace);
        let name = wanted.name_any();
        // By force: these fields are the operator's, whoever wrote them meanwhile.
        let applied = api.patch(&name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(wanted)).await;
        applied.map_err(Error::api(format!("apply {kind} {name}")))
    }
}

fn hash(children: &Children, components: &[Component]) -> u64 {
    let Children {
        network_policy,
        job_manager_service,
        task_manager_service,
        job_manager_budget,
        task_manager_budget,
        job_manager,
        task_manager,
    } = children;
    let mut hasher = Xxh3::new();
    for component in components {
        hasher.write(component.as_str().as_bytes());
    }
    feed(&mut hasher, network_policy);
    feed(&mut hasher, job_manager_service);
    feed(&mut hasher, task_manager_service);
    feed(&mut hasher, job_manager_budget);
    feed(&mut hasher, task_manager_budget);
    feed(&mut hasher, job_manager);
    feed(&mut hasher, task_manager);
    hasher.finish()
}

fn feed(hasher: &mut Xxh3, object: &impl Serialize) {
    hasher.write(&serde_json::to_vec(object).expect("an object of the API is JSON"));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        build::{BuildContext, DeploymentRef, children},
        fixture::{ago, now, running},
    };

    const BOTH: [Component; 2] = [Component::JobManager, Component::TaskManager];

    fn wanted(facts: &Facts) -> Children {
        let deployment = DeploymentRef { job_id: "a".repeat(32), number: 1, replicas: 2 };
        children(&BuildContext::default(), &facts.job, &facts.job.spec, &deployment)
    }

    fn applied(facts: &Facts) -> Applied {
        let sets = BOTH.map(|component| {
            let set = facts.set(component).unwrap();
            (component, set.uid.clone(), set.generation)
        });
        Applied { hash: hash(&wanted(facts), &BOTH), at: ago(60), sets: sets.into() }
    }

    #[test]
    fn what_stands_as_it_was_applied_is_not_applied_again() {
        let facts = running();
        assert!(applied(&facts).holds(&wanted(&facts), &BOTH, &facts, now()));
    }

    #[test]
    fn a_cache_that_still_shows_what_was_there_before_is_believed_to_lag() {
        let facts = running();
        let mut applied = applied(&facts);
        applied.sets.iter_mut().for_each(|(_, _, generation)| *generation += 3);
        assert!(applied.holds(&wanted(&facts), &BOTH, &facts, now()));
    }

    #[test]
    fn what_is_changed_or_gone_or_was_applied_long_ago_is_applied_again() {
        let (facts, applied) = (running(), applied(&running()));
        let mut changed = facts.clone();
        changed.task_manager.as_mut().unwrap().generation += 1;
        let mut replaced = facts.clone();
        replaced.task_manager.as_mut().unwrap().uid = "another".to_owned();
        let mut gone = facts.clone();
        gone.job_manager = None;
        for seen in [&changed, &replaced, &gone] {
            assert!(!applied.holds(&wanted(&facts), &BOTH, seen, now()));
        }
        let other = wanted(&facts.clone().wanting(|spec| spec.image = "jobs:2".to_owned()));
        assert!(!applied.holds(&other, &BOTH, &facts, now()));
        assert!(!applied.holds(&wanted(&facts), &[Component::JobManager], &facts, now()));
        let long_ago = Applied { at: ago(601), ..applied };
        assert!(!long_ago.holds(&wanted(&facts), &BOTH, &facts, now()));
    }
}
