//! The job's metrics, with Flink's names behind our prefix. Made from the job's view when they are scraped, so that
//! nothing has to be kept in step.

use std::{sync::Arc, time::SystemTime};

use millrace_core::{Error, Result, rest::JobStatus};
use prometheus::{
    Gauge, GaugeVec, Opts, Registry,
    core::{Collector, Desc},
    proto::MetricFamily,
};
use tokio::sync::watch;

use super::view::JobView;

type Read = fn(&JobView, u64) -> Option<f64>;

/// Name, help, and what it is; a metric without a value is left out.
const METRICS: &[(&str, &str, Read)] = &[
    ("millrace_jobmanager_numRunningJobs", "Jobs that have not ended.", |view, _| {
        Some(f64::from(u8::from(!view.state.is_terminal())))
    }),
    ("millrace_jobmanager_numRegisteredTaskManagers", "Registered taskmanagers.", |view, _| {
        Some(view.taskmanagers.len() as f64)
    }),
    ("millrace_jobmanager_taskSlotsTotal", "Slots of the registered taskmanagers.", |view, _| {
        Some(view.taskmanagers.iter().map(|taskmanager| f64::from(taskmanager.slots_number)).sum())
    }),
    ("millrace_jobmanager_taskSlotsAvailable", "Slots that hold no subtask.", |view, _| {
        Some(view.taskmanagers.iter().map(|taskmanager| f64::from(taskmanager.free_slots)).sum())
    }),
    ("millrace_jobmanager_job_numRestarts", "How often the job's tasks were started again.", |view, _| {
        Some(view.restarts as f64)
    }),
    ("millrace_jobmanager_job_uptime", "Milliseconds that the job has been running without a failure.", |view, now| {
        let since = view.timestamps.get(&JobStatus::Running).filter(|_| view.state == JobStatus::Running);
        Some(since.map_or(0.0, |since| now.saturating_sub(*since) as f64))
    }),
    ("millrace_jobmanager_job_runningState", "1 while all tasks of the job run.", |view, _| {
        Some(f64::from(u8::from(view.state == JobStatus::Running)))
    }),
    ("millrace_jobmanager_job_lastRecoveryDuration", "Milliseconds of the last recovery.", |view, _| {
        view.last_recovery.as_ref().map(|recovery| recovery.duration as f64)
    }),
    ("millrace_jobmanager_job_numberOfInProgressCheckpoints", "Checkpoints under way.", |view, _| {
        Some(view.checkpoints.counts.in_progress as f64)
    }),
    ("millrace_jobmanager_job_numberOfCompletedCheckpoints", "Completed checkpoints.", |view, _| {
        Some(view.checkpoints.counts.completed as f64)
    }),
    ("millrace_jobmanager_job_numberOfFailedCheckpoints", "Failed checkpoints.", |view, _| {
        Some(view.checkpoints.counts.failed as f64)
    }),
    ("millrace_jobmanager_job_totalNumberOfCheckpoints", "Triggered checkpoints.", |view, _| {
        Some(view.checkpoints.counts.total as f64)
    }),
    ("millrace_jobmanager_job_lastCompletedCheckpointId", "The newest completed checkpoint.", |view, _| {
        view.checkpoints.latest.completed.as_ref().map(|checkpoint| checkpoint.id as f64)
    }),
    ("millrace_jobmanager_job_lastCheckpointDuration", "Milliseconds of the newest completed one.", |view, _| {
        view.checkpoints.latest.completed.as_ref().map(|checkpoint| checkpoint.end_to_end_duration as f64)
    }),
    ("millrace_jobmanager_job_lastCheckpointSize", "Bytes written for the newest completed one.", |view, _| {
        view.checkpoints.latest.completed.as_ref().map(|checkpoint| checkpoint.checkpointed_size as f64)
    }),
    ("millrace_jobmanager_job_lastCheckpointFullSize", "Bytes of state in the newest completed one.", |view, _| {
        view.checkpoints.latest.completed.as_ref().map(|checkpoint| checkpoint.state_size as f64)
    }),
    (
        "millrace_jobmanager_job_lastCheckpointCompletedTimestamp",
        "When the newest one was completed, in milliseconds since the epoch.",
        |view, _| {
            let newest = view.checkpoints.latest.completed.as_ref()?;
            Some((newest.trigger_timestamp + newest.end_to_end_duration) as f64)
        },
    ),
    (
        "millrace_jobmanager_job_lastCheckpointRestoreTimestamp",
        "When one was last restored, in milliseconds since the epoch.",
        |view, _| view.checkpoints.latest.restored.as_ref().map(|restored| restored.restore_timestamp as f64),
    ),
];

/// Registers the job's metrics.
pub fn job_metrics(registry: &Registry, view: watch::Receiver<Arc<JobView>>) -> Result<()> {
    let (job_id, name) = {
        let view = view.borrow();
        (view.job_id.to_string(), view.name.clone())
    };
    let wrong = |error: prometheus::Error| Error::internal(format!("job metrics cannot be registered: {error}"));
    let gauge = |(metric, help, read): &(&str, &str, Read)| {
        let options = Opts::new(*metric, *help).const_label("job_id", &job_id).const_label("job_name", &name);
        Ok((Gauge::with_opts(options).map_err(wrong)?, *read))
    };
    let gauges = METRICS.iter().map(gauge).collect::<Result<Vec<_>>>()?;
    let phases = Opts::new(RECOVERY_PHASES.0, RECOVERY_PHASES.1);
    let phases = phases.const_label("job_id", &job_id).const_label("job_name", &name);
    let phases = GaugeVec::new(phases, &["phase"]).map_err(wrong)?;
    registry.register(Box::new(JobCollector { view, gauges, phases })).map_err(wrong)
}

/// Each metric's name and value now.
pub(super) fn values(view: &JobView, now: u64) -> impl Iterator<Item = (&'static str, f64)> {
    METRICS.iter().filter_map(move |(name, _, read)| Some((*name, read(view, now)?)))
}

/// Name and description of each metric, for the documentation.
pub fn described() -> impl Iterator<Item = (&'static str, &'static str)> {
    METRICS.iter().map(|(name, help, _)| (*name, *help)).chain([RECOVERY_PHASES])
}
/// Labelled by phase.
const RECOVERY_PHASES: (&str, &str) = (
    "millrace_jobmanager_job_lastRecoveryPhaseDuration",
    "Milliseconds of each phase of the last recovery; the label `phase` names it.",
);

struct JobCollector {
    view: watch::Receiver<Arc<JobView>>,
    gauges: Vec<(Gauge, Read)>,
    phases: GaugeVec,
}

impl Collector for JobCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.gauges.iter().flat_map(|(gauge, _)| gauge.desc()).chain(self.phases.desc()).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64);
        let view = self.view.borrow().clone();
        let mut families = Vec::new();
        for (gauge, read) in &self.gauges {
            if let Some(value) = read(&view, now) {
                gauge.set(value);
                families.extend(gauge.collect());
            }
        }
        self.phases.reset();
        for phase in view.last_recovery.iter().flat_map(|recovery| &recovery.phases) {
            self.phases.with_label_values(&[&phase.name]).set(phase.duration as f64);
        }
        families.extend(self.phases.collect());
        families
    }
}
