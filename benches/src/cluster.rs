//! A job on a jobmanager and two taskmanagers with a slot each.

use anyhow::{Context, Result, ensure};
use millrace_testkit::{
    cluster::{ClusterSpec, JobCluster, program},
    services::ports::free_port,
};
use reqwest::blocking::Client;

use crate::{contender::Counter, measure::Watched};

/// A job that is spread over two taskmanagers.
pub struct Spread {
    cluster: JobCluster,
    /// Where the taskmanagers' metrics are.
    metrics: Vec<u16>,
    client: Client,
    /// The task whose records count.
    counted: &'static str,
}

impl Spread {
    /// Starts a program of this workspace and waits until it runs. Records are those that tasks take whose name begins
    /// with `counted`.
    pub fn start(name: &str, args: impl IntoIterator<Item = impl Into<String>>, counted: &'static str) -> Result<Self> {
        let cluster = JobCluster::start(ClusterSpec::new(program(name)?).args(args).taskmanagers(0))?;
        let mut job = Self { cluster, metrics: vec![free_port(), free_port()], client: Client::new(), counted };
        for port in &job.metrics {
            job.cluster.start_taskmanager_with(|spec| spec.set("metrics.port", port.to_string()))?;
        }
        job.cluster.wait_until_running()?;
        Ok(job)
    }

    /// A metric of the tasks whose name begins so, summed up for each taskmanager; 0 where one has no such task.
    pub fn of_tasks(&self, metric: &'static str, task: &str) -> Vec<u64> {
        let label = format!("task_name=\"{task}");
        let counter = |port: &u16| Counter::Page { port: *port, name: metric, label: label.clone() };
        self.metrics.iter().map(|port| counter(port).read(&self.client).unwrap_or(0)).collect()
    }
}

impl Watched for Spread {
    fn still_runs(&mut self) -> Result<()> {
        let state = self.cluster.state().context("the job's state")?;
        ensure!(state.is_running(), "the job does not run: {state}\n{}", self.log());
        Ok(())
    }

    fn records(&self) -> Result<u64> {
        Ok(self.of_tasks("millrace_taskmanager_job_task_numRecordsIn{", self.counted).into_iter().sum())
    }

    fn checkpoints(&self) -> Result<u64> {
        Ok(self.cluster.state()?.checkpoints.counts.completed)
    }

    fn processes(&self) -> Vec<u32> {
        (0..self.cluster.taskmanagers_started()).map(|index| self.cluster.taskmanager_pid(index)).collect()
    }

    fn log(&self) -> String {
        self.cluster.tails()
    }
}
