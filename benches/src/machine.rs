//! What the numbers were measured on.

use std::{path::Path, process::Command};

use crate::Arguments;

/// Lines about processor, memory, load, versions and how long was measured.
pub fn describe(arguments: &Arguments) -> Vec<String> {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map(|(_, model)| model);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let memory = memory.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) >> 20;
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or("?").to_owned();
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut lines = vec![format!(
        "machine: {}, {cores} cores, {memory} GiB, Linux {}, load {load} at the start",
        model.unwrap_or("unknown processor"),
        kernel.trim()
    )];
    let flink = arguments.flink.as_deref();
    let flink = flink.map_or("left out: give --flink".to_owned(), |home| format!("{}, {}", version(home), java()));
    lines.push(format!("versions: millrace {}, Flink {flink}", env!("CARGO_PKG_VERSION")));
    lines.push(format!(
        "each measured for {} after {}, cases with a goal {} times: median (least to most)",
        humantime::format_duration(arguments.time),
        humantime::format_duration(arguments.warm_up),
        arguments.runs
    ));
    lines
}

fn version(home: &Path) -> String {
    let files = std::fs::read_dir(home.join("lib")).into_iter().flatten().flatten();
    let names = files.map(|file| file.file_name().to_string_lossy().into_owned());
    let mut versions =
        names.filter_map(|name| Some(name.strip_prefix("flink-dist-")?.strip_suffix(".jar")?.to_owned()));
    versions.next().unwrap_or_else(|| "of an unknown version".to_owned())
}

fn java() -> String {
    let output = Command::new("java").arg("-version").output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stderr).into_owned()).unwrap_or_default();
    text.lines().nth(1).unwrap_or("no Java").trim().to_owned()
}
