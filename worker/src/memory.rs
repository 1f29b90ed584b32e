//! What a process takes of the machine's memory, and what it may take.

use std::{
    fs,
    path::Path,
    sync::{Arc, Weak},
    thread,
    time::Duration,
};

use millrace_core::{Error, Result};
use millrace_state::memory::MemoryGuard;

/// How often is looked at what the process takes.
const WATCH_PERIOD: Duration = Duration::from_millis(100);

/// The memory of the machine and of the container, as it was found at the start. In bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MachineMemory {
    /// All that the machine has; 0 where that is unknown.
    pub physical: u64,
    /// What the container may take.
    pub container: Option<u64>,
}

impl MachineMemory {
    /// Looks at the machine.
    pub fn find() -> Self {
        let physical =
            fs::read_to_string("/proc/meminfo").ok().and_then(|text| kilobytes_of(&text, "MemTotal:")).unwrap_or(0);
        let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let limit = limit_files(&groups).filter_map(|path| limit_of(&fs::read_to_string(path).ok()?)).min();
        // A limit above what there is, is none.
        Self { physical, container: limit.filter(|limit| physical == 0 || *limit < physical) }
    }

    /// What a process may take that has no setting of its own.
    pub fn limit(self) -> u64 {
        self.container.unwrap_or(self.physical)
    }
}

/// A guard that knows what the process takes, for as long as somebody has it. Without a limit of its own, a process may
/// take what the machine has left.
pub fn watch(machine: MachineMemory, limit: Option<u64>) -> Result<Arc<MemoryGuard>> {
    let limit = limit.or(machine.container);
    let guard = Arc::new(MemoryGuard::default());
    let watched: Weak<MemoryGuard> = Arc::downgrade(&guard);
    let look = move || {
        while let Some(guard) = watched.upgrade() {
            if let Some(resident) = resident() {
                let available =
                    || fs::read_to_string("/proc/meminfo").ok().and_then(|t| kilobytes_of(&t, "MemAvailable:"));
                match limit {
                    Some(limit) => guard.observe(resident, limit),
                    None => guard.observe(resident, left_to(resident, machine.physical, available())),
                }
            }
            drop(guard);
            thread::sleep(WATCH_PERIOD);
        }
    };
    let started = thread::Builder::new().name("memory-watch".to_string()).spawn(look);
    started.map_err(|error| Error::external(format!("no thread to watch the process's memory: {error}")))?;
    Ok(guard)
}

/// What a process may take that has the machine for itself and others. One that takes less than a quarter is not what
/// fills it.
fn left_to(resident: u64, physical: u64, available: Option<u64>) -> u64 {
    match available {
        Some(available) if resident >= physical / 4 => resident.saturating_add(available),
        _ => u64::MAX,
    }
}

/// What this process takes now, in bytes.
pub fn resident() -> Option<u64> {
    kilobytes_of(&fs::read_to_string("/proc/self/status").ok()?, "VmRSS:")
}

/// How many cores this process may use.
pub fn cores() -> u32 {
    std::thread::available_parallelism().map_or(1, |cores| cores.get() as u32)
}

/// The bytes in a line `<name> <number> kB`.
fn kilobytes_of(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// Where the limits of the process's control group and those above it are, in versions 2 and 1.
fn limit_files(groups: &str) -> impl Iterator<Item = String> {
    let of_line = |line: &str| {
        let mut parts = line.splitn(3, ':');
        let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        match controllers {
            "" => Some(("/sys/fs/cgroup", "memory.max", path.to_string())),
            _ if controllers.split(',').any(|name| name == "memory") => {
                Some(("/sys/fs/cgroup/memory", "memory.limit_in_bytes", path.to_string()))
            }
            _ => None,
        }
    };
    let found: Vec<_> = groups.lines().filter_map(of_line).collect();
    found.into_iter().flat_map(|(root, file, path)| {
        let above = Path::new(&path).ancestors().map(|path| path.to_string_lossy().into_owned()).collect::<Vec<_>>();
        above.into_iter().map(move |path| format!("{root}{}/{file}", path.trim_end_matches('/')))
    })
}

fn limit_of(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_the_kernel_are_read() {
        assert_eq!(kilobytes_of("MemFree: 1 kB\nMemTotal:       16384 kB\n", "MemTotal:"), Some(16 << 20));
        assert_eq!(kilobytes_of("VmPeak: 3 kB\n", "VmRSS:"), None);
        assert_eq!(limit_of("max\n"), None);
        assert_eq!(limit_of("1048576\n"), Some(1 << 20));
        let files: Vec<_> = limit_files("0::/a/b\n").collect();
        assert_eq!(
            files,
            ["/sys/fs/cgroup/a/b/memory.max", "/sys/fs/cgroup/a/memory.max", "/sys/fs/cgroup/memory.max"]
        );
        let files: Vec<_> = limit_files("12:cpu:/x\n3:memory:/a\n").collect();
        assert_eq!(
            files,
            ["/sys/fs/cgroup/memory/a/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.limit_in_bytes"]
        );
    }

    #[test]
    fn a_process_without_a_limit_may_take_what_is_left() {
        assert_eq!(left_to(50, 100, Some(2)), 52);
        assert_eq!(left_to(20, 100, Some(2)), u64::MAX, "others fill the machine");
        assert_eq!(left_to(50, 100, None), u64::MAX);
    }

    #[test]
    fn this_machine_and_process_have_some() {
        let machine = MachineMemory::find();
        let resident = resident().unwrap();
        assert!(resident > 1 << 20 && resident < machine.limit(), "{resident} {machine:?}");
        assert!(machine.limit() <= machine.physical);
    }
}
