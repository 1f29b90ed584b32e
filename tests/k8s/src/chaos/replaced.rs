//! What takes the place of the pods that a fault hit, and how far the API server shows it to be.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;

use crate::job::pods;

/// From the fault until all that was hit had come so far again; none: it never had to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PodTimes {
    /// The pods were there.
    pub created: Option<Duration>,
    /// They had nodes.
    pub scheduled: Option<Duration>,
    /// Their containers ran.
    pub started: Option<Duration>,
}

/// Pods that were hit, and the times of what takes their place.
#[derive(Clone, Debug, Default)]
pub struct Replaced {
    hit: Vec<Hit>,
    times: PodTimes,
}

#[derive(Clone, Debug)]
enum Hit {
    /// Another pod takes this one's name.
    Pod { name: String, uid: String },
    /// The container of the same pod is started again.
    Process { uid: String, restarts: i32 },
}

/// How far what takes the place of something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Missing,
    Created,
    Scheduled,
    Started,
}

impl Replaced {
    /// Of pods that are deleted.
    pub fn pods<'a>(hit: impl IntoIterator<Item = &'a Pod>) -> Self {
        let hit = hit.into_iter().map(|pod| Hit::Pod { name: pods::name(pod), uid: pods::uid(pod) });
        Self { hit: hit.collect(), times: PodTimes::default() }
    }

    /// Of a process that is killed.
    pub fn process(pod: &Pod) -> Self {
        let hit = Hit::Process { uid: pods::uid(pod), restarts: pods::container_restarts(pod) };
        Self { hit: vec![hit], times: PodTimes::default() }
    }

    /// Whether there is something to be looked for yet.
    pub fn is_awaited(&self) -> bool {
        !self.hit.is_empty() && self.times.started.is_none()
    }

    /// Takes note of the pods that there are so long after the fault.
    pub fn look(&mut self, after: Duration, pods: &[Pod]) {
        let Some(stage) = self.hit.iter().map(|hit| hit.stage(pods)).min() else { return };
        // A process is killed in a pod that stays where it is.
        if self.hit.iter().any(|hit| matches!(hit, Hit::Pod { .. })) {
            note(&mut self.times.created, stage >= Stage::Created, after);
            note(&mut self.times.scheduled, stage >= Stage::Scheduled, after);
        }
        note(&mut self.times.started, stage >= Stage::Started, after);
    }

    /// What was noted.
    pub fn times(&self) -> PodTimes {
        self.times
    }
}

fn note(time: &mut Option<Duration>, reached: bool, after: Duration) {
    if reached {
        time.get_or_insert(after);
    }
}

impl Hit {
    fn stage(&self, all: &[Pod]) -> Stage {
        match self {
            Self::Pod { name, uid } => {
                let other = all.iter().find(|pod| pods::name(pod) == *name && pods::uid(pod) != *uid);
                other.map_or(Stage::Missing, |pod| match pod {
                    pod if pods::is_running(pod) => Stage::Started,
                    pod if pods::is_scheduled(pod) => Stage::Scheduled,
                    _ => Stage::Created,
                })
            }
            Self::Process { uid, restarts } => {
                let started = |pod: &&Pod| {
                    pods::uid(pod) == *uid && pods::container_restarts(pod) > *restarts && pods::is_running(pod)
                };
                if all.iter().any(|pod| started(&pod)) { Stage::Started } else { Stage::Missing }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, from_value, json};

    use super::*;

    fn pod(name: &str, uid: &str, scheduled: bool, restarts: i32, state: Value) -> Pod {
        from_value(json!({
            "metadata": {"name": name, "uid": uid},
            "status": {
                "conditions": [{"type": "PodScheduled", "status": if scheduled { "True" } else { "False" }}],
                "containerStatuses": [{
                    "name": "millrace", "image": "i", "imageID": "i", "ready": false, "restartCount": restarts,
                    "state": state,
                }],
            },
        }))
        .expect("a pod")
    }

    fn waiting() -> Value {
        json!({"waiting": {"reason": "ContainerCreating"}})
    }

    fn runs() -> Value {
        json!({"running": {"startedAt": "2026-01-01T00:00:00Z"}})
    }

    #[test]
    fn the_last_of_several_pods_tells_how_far_they_are() {
        let old = [pod("a", "1", true, 0, runs()), pod("b", "2", true, 0, runs())];
        let mut replaced = Replaced::pods(&old);
        let seconds = Duration::from_secs;
        replaced.look(seconds(1), &old);
        assert_eq!(replaced.times(), PodTimes::default());
        replaced.look(seconds(2), &[pod("a", "3", true, 0, runs()), old[1].clone()]);
        assert_eq!(replaced.times(), PodTimes::default());
        replaced.look(seconds(3), &[pod("a", "3", true, 0, runs()), pod("b", "4", false, 0, waiting())]);
        replaced.look(seconds(4), &[pod("a", "3", true, 0, runs()), pod("b", "4", true, 0, waiting())]);
        assert!(replaced.is_awaited());
        replaced.look(seconds(5), &[pod("a", "3", true, 0, runs()), pod("b", "4", true, 0, runs())]);
        let [created, scheduled, started] = [3, 4, 5].map(|after| Some(seconds(after)));
        assert_eq!(replaced.times(), PodTimes { created, scheduled, started });
        assert!(!replaced.is_awaited());
    }

    #[test]
    fn a_process_is_started_again_in_its_pod() {
        let old = pod("a", "1", true, 1, runs());
        let mut replaced = Replaced::process(&old);
        replaced.look(Duration::from_secs(1), &[old]);
        assert!(replaced.is_awaited());
        replaced.look(Duration::from_secs(2), &[pod("a", "1", true, 2, runs())]);
        let started = Some(Duration::from_secs(2));
        assert_eq!(replaced.times(), PodTimes { started, ..PodTimes::default() });
    }

    #[test]
    fn where_no_pod_is_hit_none_is_awaited() {
        assert!(!Replaced::default().is_awaited());
    }
}
