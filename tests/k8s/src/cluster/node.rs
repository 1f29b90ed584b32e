//! The node of the project's own cluster, from inside: what no Kubernetes API offers.

use std::process::Command;

use crate::{
    Context, Result,
    commands::{script, succeed},
    ensure,
};

/// The nftables table of a cut; it goes when the cut heals.
const TABLE: &str = "millrace-tests";
/// The addresses of pods.
const PODS: &str = "10.244.0.0/16";

/// The only node of the project's own cluster.
#[derive(Clone, Copy, Debug)]
pub struct Node;

impl Node {
    /// A command in the node's namespaces.
    fn exec(self, program: &str) -> Command {
        let mut command = script("tests/cluster/exec.sh");
        command.arg(program);
        command
    }

    /// Runs a command in the node's namespaces. Returns what it wrote.
    pub fn run(self, program: &str, args: &[&str]) -> Result<String> {
        succeed(self.exec(program).args(args))
    }

    /// Gives an image a second name.
    pub fn tag(self, image: &str, other: &str) -> Result<()> {
        // As containerd writes names without a registry.
        let full = |image: &str| format!("docker.io/{image}");
        let mut tag = self.exec("ctr");
        tag.args(["--namespace", "k8s.io", "images", "tag", "--force", &full(image), &full(other)]);
        succeed(&mut tag).map(drop)
    }

    /// The process that a container was started for, as the node numbers it. `id` is Kubernetes':
    /// `containerd://<id>`.
    pub fn main_process(self, id: &str) -> Result<u32> {
        let id = id.strip_prefix("containerd://").with_context(|| format!("{id} is no container of containerd"))?;
        let mut list = self.exec("ctr");
        list.args(["--namespace", "k8s.io", "tasks", "list"]);
        let listed = succeed(&mut list)?;
        let of_task = |line: &str| {
            let mut columns = line.split_whitespace();
            (columns.next()? == id).then(|| columns.next()?.parse().ok()).flatten()
        };
        listed.lines().find_map(of_task).with_context(|| format!("container {id} has no process in\n{listed}"))
    }

    /// Kills a container's process with SIGKILL, as the kernel's out-of-memory killer does.
    pub fn kill_main_process(self, id: &str) -> Result<u32> {
        let pid = self.main_process(id)?;
        succeed(self.exec("kill").args(["-KILL", &pid.to_string()]))?;
        Ok(pid)
    }

    /// The memory that a container's process holds, in bytes.
    pub fn resident_memory(self, id: &str) -> Result<u64> {
        let pid = self.main_process(id)?;
        let status = succeed(self.exec("cat").arg(format!("/proc/{pid}/status")))?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = resident.and_then(|text| text.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
        Ok(kib.with_context(|| format!("no VmRSS of process {pid}"))? * 1024)
    }

    /// Cuts a pod off from all other pods, not from services outside the cluster: it can go on reading and writing,
    /// and nobody can tell it to stop.
    pub fn cut_off(self, pod_address: &str) -> Result<Cut> {
        let address: std::net::IpAddr = pod_address.parse().with_context(|| format!("address {pod_address}"))?;
        let rules = format!(
            "table inet {TABLE} {{\nchain cut {{\ntype filter hook forward priority -10\n\
             ip saddr {address} ip daddr {PODS} counter drop\nip saddr {PODS} ip daddr {address} counter drop\n}}\n}}\n"
        );
        succeed(self.exec("nft").arg(rules))?;
        Ok(Cut { node: self, healed: false })
    }

    fn heal(self) -> Result<()> {
        succeed(self.exec("nft").args(["delete", "table", "inet", TABLE])).map(drop)
    }

    fn dropped_packets(self) -> Result<u64> {
        let listed = succeed(self.exec("nft").args(["list", "table", "inet", TABLE]))?;
        let count = |line: &str| line.split_once("counter packets ")?.1.split(' ').next()?.parse::<u64>().ok();
        Ok(listed.lines().filter_map(count).sum())
    }
}

/// A packet filter that holds until it is healed or dropped.
pub struct Cut {
    node: Node,
    healed: bool,
}

impl Cut {
    /// Takes the filter away. Returns how many packets it dropped: none would mean that it cut nothing.
    pub fn heal(mut self) -> Result<u64> {
        let dropped = self.node.dropped_packets()?;
        self.node.heal()?;
        self.healed = true;
        ensure!(dropped > 0, "the packet filter dropped nothing: the taskmanager was not cut off");
        Ok(dropped)
    }
}

impl Drop for Cut {
    fn drop(&mut self) {
        if !self.healed
            && let Err(error) = self.node.heal()
        {
            eprintln!("a packet filter stays in the node: {error:#}");
        }
    }
}
