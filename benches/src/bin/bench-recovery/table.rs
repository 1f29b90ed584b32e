//! The tables.

use std::{fmt::Write, time::Duration};

use millrace_testkit::figures::median_and_worst;

use crate::{
    contender::Contender,
    scenario::{FIRST_CHECKPOINT, FIRST_CHECKPOINT_GOAL, Goal, Recoveries, Recovery, Scenario},
};

/// Silence by contender, and phases by name.
pub fn table(measured: &[(Contender, Recoveries)]) -> String {
    let mut text = String::from("| contender | kills | silent, median s | worst s | median ms by phase |\n");
    text += "|:--|--:|--:|--:|:--|\n";
    for (contender, Recoveries { kills, ended }) in measured {
        let title = contender.title();
        if !kills.is_empty() {
            let (median, worst) = median_and_worst(kills.iter().map(|recovery| recovery.silent));
            let (median, worst) = (median.as_secs_f64(), worst.as_secs_f64());
            let _ = writeln!(text, "| {title} | {} | {median:.2} | {worst:.2} | {} |", kills.len(), phases(kills));
        }
        if let Some(why) = ended {
            let _ = writeln!(text, "| {title} | {} | | | the run ended after that: {why} |", kills.len());
        }
    }
    text
}

/// Whether our goal is met; where it is not, which phase takes longest in the runs that miss it.
pub fn verdict(scenario: Scenario, measured: &[(Contender, Recoveries)]) -> Option<String> {
    let ours = &measured.iter().find(|(contender, _)| *contender == Contender::Millrace)?.1.kills;
    let misses = [median_missed(scenario.goal, ours), worst_missed(scenario.goal, ours), checkpoint_missed(ours)];
    let misses: Vec<_> = misses.into_iter().flatten().collect();
    let goal = describe(scenario.goal, ours);
    Some(match misses.is_empty() {
        true => format!("Our goal ({goal}) is met."),
        false => format!("We fall short of our goal ({goal}). {}", misses.join(" ")),
    })
}

/// The goal, in words and figures.
fn describe(goal: Goal, ours: &[Recovery]) -> String {
    match goal {
        Goal::Silence(median, None) => format!("median at most {median} ms"),
        Goal::Silence(median, Some(worst)) => format!("median at most {median} ms, worst at most {worst} ms"),
        Goal::Fetch(more) => {
            let bytes = ours.iter().filter_map(|recovery| Some(recovery.fetched?.0)).max().unwrap_or_default();
            let read = fetching(ours).as_millis();
            format!(
                "median at most what it takes to read the bytes that were fetched, up to {bytes}, from the store: {read} ms, \
                 and {more} ms"
            )
        }
    }
}

/// The median of the time in which a plain client reads as much.
fn fetching(ours: &[Recovery]) -> Duration {
    median_and_worst(ours.iter().filter_map(|recovery| Some(recovery.fetched?.1))).0
}

fn median_missed(goal: Goal, ours: &[Recovery]) -> Option<String> {
    let allowed = match goal {
        Goal::Silence(median, _) => Duration::from_millis(median),
        Goal::Fetch(more) => fetching(ours) + Duration::from_millis(more),
    };
    let (median, _) = median_and_worst(ours.iter().map(|recovery| recovery.silent));
    let medians: Vec<_> = medians(ours).into_iter().map(|(name, median)| (name, median.as_millis() as u64)).collect();
    (median > allowed).then(|| format!("The median is {} ms; {}", median.as_millis(), longest(&medians)))
}

fn worst_missed(goal: Goal, ours: &[Recovery]) -> Option<String> {
    let Goal::Silence(_, Some(allowed)) = goal else { return None };
    let worst = ours.iter().max_by_key(|recovery| recovery.silent)?;
    let silent = worst.silent.as_millis();
    (silent > u128::from(allowed)).then(|| format!("The worst is {silent} ms; {}", longest(&worst.phases)))
}

/// The first checkpoint after a jobmanager's restart: what is left when all tasks are its own is the wait for it.
fn checkpoint_missed(ours: &[Recovery]) -> Option<String> {
    let took =
        |recovery: &Recovery| recovery.phases.iter().find(|(name, _)| name == FIRST_CHECKPOINT).map(|(_, ms)| *ms);
    let (latest, took) =
        ours.iter().filter_map(|recovery| Some((recovery, took(recovery)?))).max_by_key(|(_, ms)| *ms)?;
    if took <= FIRST_CHECKPOINT_GOAL {
        return None;
    }
    let mut phases = latest.phases.clone();
    let told: u64 = phases.iter().filter(|(name, _)| is_phase(name)).map(|(_, ms)| ms).sum();
    phases.push(("then until the first checkpoint".to_owned(), took.saturating_sub(told)));
    Some(format!("The first checkpoint took {took} ms instead of {FIRST_CHECKPOINT_GOAL}; {}", longest(&phases)))
}

/// What stands in parentheses is no phase.
fn is_phase(name: &str) -> bool {
    !name.starts_with('(')
}

fn longest(phases: &[(String, u64)]) -> String {
    match phases.iter().filter(|(name, _)| is_phase(name)).max_by_key(|(_, ms)| *ms) {
        Some((name, ms)) => format!("the longest phase of it is *{name}*, {ms} ms."),
        None => "no phase of it was told.".to_owned(),
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario;

    fn recovery(silent: u64, phases: &[(&str, u64)], fetched: Option<(u64, u64)>) -> Recovery {
        Recovery {
            silent: Duration::from_millis(silent),
            phases: phases.iter().map(|(name, ms)| ((*name).to_owned(), *ms)).collect(),
            fetched: fetched.map(|(bytes, ms)| (bytes, Duration::from_millis(ms))),
        }
    }

    fn said(scenario: &str, kills: Vec<Recovery>) -> String {
        let recoveries = Recoveries { kills, ended: None };
        verdict(scenario::named(scenario).unwrap(), &[(Contender::Millrace, recoveries)]).unwrap()
    }

    #[test]
    fn who_does_not_get_to_the_end_has_a_row_that_says_why() {
        let ended = |kills| Recoveries { kills, ended: Some("no counts within 300s".to_owned()) };
        let text =
            table(&[(Contender::Flink, ended(vec![])), (Contender::FlinkTuned, ended(vec![recovery(900, &[], None)]))]);
        assert!(
            text.contains("| Flink, defaults | 0 | | | the run ended after that: no counts within 300s |"),
            "{text}"
        );
        assert!(text.contains("| Flink, tuned | 1 | 0.90 |"), "{text}");
    }

    #[test]
    fn the_worst_is_blamed_on_its_own_phases() {
        let quick = || recovery(300, &[("cancel", 200), ("fetch", 100)], None);
        assert!(said("heap", vec![quick(), quick()]).ends_with("is met."));
        let slow = recovery(2500, &[("cancel", 100), ("fetch", 2400)], None);
        let text = said("heap", vec![quick(), quick(), slow]);
        assert!(text.contains("The worst is 2500 ms") && text.contains("*fetch*, 2400 ms"), "{text}");
        assert!(!text.contains("The median is"), "{text}");
    }

    #[test]
    fn a_fetch_may_take_as_long_as_the_bytes_and_a_second() {
        let took = |silent| recovery(silent, &[("fetch", silent)], Some((1 << 30, 3000)));
        assert!(said("rocksdb", vec![took(3900)]).contains("met"));
        let text = said("rocksdb", vec![took(4100)]);
        assert!(text.contains("1073741824") && text.contains("3000 ms") && text.contains("*fetch*"), "{text}");
    }

    #[test]
    fn a_late_checkpoint_has_a_phase_to_blame() {
        let late = recovery(100, &[("take-over", 400), ("adopt", 200), (FIRST_CHECKPOINT, 2600)], None);
        let text = said("jobmanager", vec![late]);
        assert!(text.contains("2600 ms") && text.contains("*then until the first checkpoint*, 2000 ms"), "{text}");
    }
}
