//! The tables.

use std::{fmt::Write, time::Duration};

use millrace_testkit::figures::median_and_worst;

use crate::{contender::Contender, scenario::Recovery};

/// Silence by contender, and phases by name.
pub fn table(measured: &[(Contender, Vec<Recovery>)]) -> String {
    let mut text = String::from("| contender | kills | silent, median s | worst s | median ms by phase |\n");
    text += "|:--|--:|--:|--:|:--|\n";
    for (contender, recoveries) in measured {
        let (median, worst) = median_and_worst(recoveries.iter().map(|recovery| recovery.silent));
        let _ = writeln!(
            text,
            "| {} | {} | {:.2} | {:.2} | {} |",
            contender.title(),
            recoveries.len(),
            median.as_secs_f64(),
            worst.as_secs_f64(),
            phases(recoveries)
        );
    }
    text
}

/// The median of each phase, in the order in which they came first, and what is left to the first new output.
fn phases(recoveries: &[Recovery]) -> String {
    let mut names: Vec<&str> = Vec::new();
    for (name, _) in recoveries.iter().flat_map(|recovery| &recovery.phases) {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    let of = |name: &str| {
        let phases = recoveries.iter().flat_map(|recovery| &recovery.phases);
        let durations = phases.filter(|(phase, _)| phase == name).map(|(_, ms)| Duration::from_millis(*ms));
        format!("{name} {}", median_and_worst(durations).0.as_millis())
    };
    let rest = recoveries.iter().map(|recovery| {
        let told: u64 = recovery.phases.iter().map(|(_, ms)| ms).sum();
        recovery.silent.saturating_sub(Duration::from_millis(told))
    });
    let mut parts: Vec<_> = names.into_iter().map(of).collect();
    parts.push(format!("then until the first new output {}", median_and_worst(rest).0.as_millis()));
    parts.join(", ")
}

/// The machine, and how busy it is.
pub fn machine() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map(|(_, model)| model);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split(' ').next().unwrap_or("?").to_string();
    format!("{}, {cores} cores, load {load} at the start", model.unwrap_or("unknown processor"))
}
