//! The tables.

use std::{fmt::Write, time::Duration};

use millrace_testkit::figures::median_and_worst;

use crate::{
    contender::Contender,
    scenario::{FIRST_CHECKPOINT, FIRST_CHECKPOINT_GOAL, Recovery, Scenario},
};

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

/// Whether our goal is met; where it is not, which phase takes longest.
pub fn verdict(scenario: Scenario, measured: &[(Contender, Vec<Recovery>)]) -> Option<String> {
    let (goal, worst_goal) = scenario.goal?;
    let ours = &measured.iter().find(|(contender, _)| *contender == Contender::Millrace)?.1;
    let (median, worst) = median_and_worst(ours.iter().map(|recovery| recovery.silent));
    let (_, checkpoint) = median_and_worst(durations(ours, FIRST_CHECKPOINT));
    let late = checkpoint.as_millis() as u64 > FIRST_CHECKPOINT_GOAL;
    if median.as_millis() as u64 <= goal && worst.as_millis() as u64 <= worst_goal && !late {
        return Some("Our goal is met.".to_owned());
    }
    if late {
        let took = checkpoint.as_millis();
        return Some(format!("We fall short of our goal (a checkpoint after {FIRST_CHECKPOINT_GOAL} ms): {took} ms."));
    }
    let mut phases = medians(ours);
    phases.retain(|(name, _)| !name.starts_with('('));
    phases.sort_by_key(|(_, median)| *median);
    let (name, longest) = phases.pop()?;
    let of_worst = if worst_goal == u64::MAX { String::new() } else { format!(", worst below {worst_goal} ms") };
    Some(format!(
        "We fall short of our goal (median below {goal} ms{of_worst}). The longest phase is *{name}*, {} ms.",
        longest.as_millis()
    ))
}

/// As text.
fn phases(recoveries: &[Recovery]) -> String {
    let text = |(name, median): (String, Duration)| format!("{name} {}", median.as_millis());
    medians(recoveries).into_iter().map(text).collect::<Vec<_>>().join(", ")
}

/// The median of each phase, in the order in which they came first.
fn medians(recoveries: &[Recovery]) -> Vec<(String, Duration)> {
    let mut names: Vec<&str> = Vec::new();
    for (name, _) in recoveries.iter().flat_map(|recovery| &recovery.phases) {
        if !names.contains(&name.as_str()) {
            names.push(name);
        }
    }
    names.into_iter().map(|name| (name.to_owned(), median_and_worst(durations(recoveries, name)).0)).collect()
}

/// How long a phase took each time.
fn durations(recoveries: &[Recovery], name: &str) -> impl Iterator<Item = Duration> {
    let phases = recoveries.iter().flat_map(|recovery| &recovery.phases);
    phases.filter(move |(phase, _)| phase == name).map(|(_, ms)| Duration::from_millis(*ms))
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
