//! The processes of the job under attack, each behind proxies and with a clock of its own.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddr},
};

use millrace_testkit::{
    cluster::{JobCluster, JobState},
    faults::{FakeClock, TcpProxy},
    services::ports::free_port,
};

use super::{
    Job, Result,
    output::Output,
    place::{PARALLELISM, Place},
};

/// A jobmanager, and one taskmanager more than the job needs.
pub struct Team<'a> {
    /// The processes.
    pub cluster: JobCluster,
    /// The jobmanager's clock.
    pub clock: Option<FakeClock>,
    place: &'a Place,
    /// By taskmanager; those that were killed too.
    members: Vec<Member>,
    /// How many slots the job takes by itself, and how many it takes now.
    slots: [usize; 2],
}

/// A taskmanager.
pub struct Member {
    /// Between it and the jobmanager.
    pub rpc: TcpProxy,
    /// Between it and those who send it records.
    pub data: TcpProxy,
    /// Its clock.
    pub clock: Option<FakeClock>,
    alive: bool,
}

impl<'a> Team<'a> {
    /// Starts all.
    pub fn start(place: &'a Place, job: &Job, run: &str, output: &Output) -> Result<Self> {
        let clock = place.clock("jobmanager")?;
        let mut spec = place.spec(job, run, output);
        for (name, value) in clock.iter().flat_map(FakeClock::environment) {
            spec = spec.env(name, value);
        }
        let (cluster, members, slots) = (JobCluster::start(spec)?, Vec::new(), [job.slots; 2]);
        let mut team = Self { cluster, clock, place, members, slots };
        for _ in 0..=job.slots {
            team.add()?;
        }
        Ok(team)
    }

    /// Starts one more taskmanager.
    pub fn add(&mut self) -> Result<()> {
        let name = name(self.members.len());
        let rpc = TcpProxy::start(self.cluster.jobmanager_address())?;
        let bind_port = free_port();
        let data = TcpProxy::start(SocketAddr::from((Ipv4Addr::LOCALHOST, bind_port)))?;
        let clock = self.place.clock(&name)?;
        self.cluster.start_taskmanager_with(|spec| {
            let spec = self
                .place
                .local(spec, &name)
                .set("jobmanager.rpc.address", Ipv4Addr::LOCALHOST.to_string())
                .set("jobmanager.rpc.port", rpc.address().port().to_string())
                .set("taskmanager.host", Ipv4Addr::LOCALHOST.to_string())
                .set("taskmanager.data.port", data.address().port().to_string())
                .set("taskmanager.data.bind-port", bind_port.to_string());
            let environment = clock.iter().flat_map(FakeClock::environment);
            environment.fold(spec, |spec, (name, value)| spec.env(name, value))
        })?;
        self.members.push(Member { rpc, data, clock, alive: true });
        Ok(())
    }

    /// Kills one. Its local directory goes with it, as a pod's does: those of hundreds would fill the disk.
    pub fn kill(&mut self, index: usize) -> Result<u32> {
        let pid = self.cluster.taskmanager_pid(index);
        self.cluster.kill_taskmanager(index)?;
        self.place.remove_local(&name(index))?;
        self.members[index].alive = false;
        Ok(pid)
    }

    /// Kills all, and starts the job with one subtask of each operator more, or with as many as at first. Returns from
    /// how many to how many.
    pub fn rescale(&mut self) -> Result<(usize, usize)> {
        let [first, before] = self.slots;
        let now = if before == first { first + 1 } else { first };
        self.cluster.kill_jobmanager()?;
        for index in self.alive() {
            self.kill(index)?;
        }
        self.slots[1] = now;
        self.cluster.set(PARALLELISM, &now.to_string());
        self.cluster.restart_jobmanager()?;
        for _ in 0..=now {
            self.add()?;
        }
        Ok((before, now))
    }

    /// The taskmanagers that are alive.
    pub fn alive(&self) -> Vec<usize> {
        (0..self.members.len()).filter(|index| self.members[*index].alive).collect()
    }

    /// Those of them that hold tasks, as far as the jobmanager says; all, where it says nothing.
    pub fn busy(&self) -> Vec<usize> {
        let state = self.cluster.state().ok();
        let busy = state.map(|state| self.cluster.busy_taskmanagers(&state)).unwrap_or_default();
        let busy: Vec<_> = busy.into_iter().filter(|index| self.members[*index].alive).collect();
        if busy.is_empty() { self.alive() } else { busy }
    }

    /// A taskmanager's surroundings.
    pub fn member(&self, index: usize) -> &Member {
        &self.members[index]
    }

    /// Waits until the job runs, and knows all taskmanagers that are alive, and only these.
    pub fn wait_until_complete(&mut self) -> Result<JobState> {
        let pids: BTreeSet<_> = self.alive().into_iter().map(|index| self.cluster.taskmanager_pid(index)).collect();
        Ok(self.cluster.wait_until("job that runs with all its taskmanagers", |state| {
            let known = state.taskmanagers.iter().filter_map(|taskmanager| taskmanager.pid);
            state.is_running() && known.collect::<BTreeSet<_>>() == pids
        })?)
    }

    /// Waits until the jobmanager has given up a taskmanager that is alive.
    pub fn wait_until_given_up(&mut self, index: usize) -> Result<()> {
        let pid = self.cluster.taskmanager_pid(index);
        self.cluster.wait_until("loss of a taskmanager that is alive", |state| {
            !state.taskmanagers.iter().any(|taskmanager| taskmanager.pid == Some(pid))
        })?;
        if self.cluster.taskmanager_is_alive(index) { Ok(()) } else { Err("the taskmanager has ended".into()) }
    }
}

fn name(taskmanager: usize) -> String {
    format!("taskmanager-{taskmanager}")
}
