//! Recoveries by kind of fault.

use std::{collections::BTreeMap, fmt, time::Duration};

use millrace_testkit::figures::median_and_worst;

use super::{Fault, PodTimes};
use crate::load::Verdict;

/// A fault that was struck, and how long recovery from it took.
#[derive(Clone, Debug)]
pub struct Recovery {
    /// The fault.
    pub fault: Fault,
    /// What shows that it happened.
    pub evidence: String,
    /// From the fault to new right output of all keys, after the longest time that one stood still. For a service that
    /// was away: from its return.
    pub output: Duration,
    /// From there to phase Running.
    pub running: Duration,
    /// How long the pods that were hit took to be replaced.
    pub pods: PodTimes,
    /// What of the recovery itself took how long; empty where the job was not restarted.
    pub phases: Vec<(String, Duration)>,
}

/// What came of a campaign.
#[derive(Clone, Debug)]
pub struct Report {
    /// Each fault.
    pub recoveries: Vec<Recovery>,
    /// What is wrong with the counts.
    pub verdict: Verdict,
    /// Records written.
    pub records: u64,
    /// Lines that came out.
    pub lines: u64,
}

fn seconds(duration: Duration) -> String {
    format!("{:.1}", duration.as_secs_f64())
}

impl Report {
    fn kinds(&self) -> BTreeMap<Fault, Vec<&Recovery>> {
        let mut kinds = BTreeMap::<_, Vec<_>>::new();
        for recovery in &self.recoveries {
            kinds.entry(recovery.fault).or_default().push(recovery);
        }
        kinds
    }

    /// Whether no record was lost or counted twice and all was written out.
    pub fn is_right(&self) -> bool {
        self.verdict == Verdict::default()
    }

    /// What is said in the end: recovery is that of faults that the job notices, to its first new right output.
    pub fn last_line(&self) -> String {
        let felt = self.recoveries.iter().filter(|recovery| !recovery.fault.spares_the_job());
        let (median, worst) = median_and_worst(felt.map(|recovery| recovery.output));
        let Verdict { lost, counted_twice, .. } = self.verdict;
        format!(
            "faults {}, lost {lost}, counted twice {counted_twice}, recovery median {} s, worst {} s",
            self.recoveries.len(),
            seconds(median),
            seconds(worst)
        )
    }
}

/// The phases of recoveries with their medians, in the order of their first occurrence; those that not all had say how
/// many did.
fn phases(recoveries: &[&Recovery]) -> String {
    let mut phases = Vec::<(&str, Vec<Duration>)>::new();
    for (name, took) in recoveries.iter().flat_map(|recovery| &recovery.phases) {
        match phases.iter_mut().find(|(found, _)| found == name) {
            Some((_, durations)) => durations.push(*took),
            None => phases.push((name, vec![*took])),
        }
    }
    let all = recoveries.len();
    let cell = |(name, durations): (&str, Vec<Duration>)| {
        let of = durations.len();
        let share = if of == all { String::new() } else { format!(" ({of} of {all})") };
        format!("{name} {}{share}", median_and_worst(durations).0.as_millis())
    };
    let cells: Vec<_> = phases.into_iter().map(cell).collect();
    if cells.is_empty() { "not restarted".to_owned() } else { cells.join(", ") }
}

/// The tables: how long recoveries took, and where the time went.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds = self.kinds();
        let row = |f: &mut fmt::Formatter<'_>, cells: [&str; 6]| {
            let [kind, count, output, worst_output, running, worst_running] = cells;
            writeln!(
                f,
                "| {kind:<46} | {count:>5} | {output:>9} | {worst_output:>9} | {running:>9} | {worst_running:>9} |"
            )
        };
        row(f, ["fault (seconds to new output, to Running)", "count", "output", "worst", "Running", "worst"])?;
        writeln!(f, "|{:-<48}|------:|----------:|----------:|----------:|----------:|", "")?;
        for (kind, recoveries) in &kinds {
            let (output, worst_output) = median_and_worst(recoveries.iter().map(|recovery| recovery.output));
            let (running, worst_running) = median_and_worst(recoveries.iter().map(|recovery| recovery.running));
            let times = [output, worst_output, running, worst_running].map(seconds);
            let [output, worst_output, running, worst_running] = times.each_ref().map(String::as_str);
            let (kind, count) = (kind.to_string(), recoveries.len().to_string());
            row(f, [&kind, &count, output, worst_output, running, worst_running])?;
        }
        writeln!(f)?;
        let row = |f: &mut fmt::Formatter<'_>, [kind, created, scheduled, started, phases]: [&str; 5]| {
            writeln!(f, "| {kind:<46} | {created:>7} | {scheduled:>9} | {started:>7} | {phases} |")
        };
        row(f, ["fault (medians: pods in seconds, phases in ms)", "created", "scheduled", "started", "phases"])?;
        writeln!(f, "|{:-<48}|--------:|----------:|--------:|---|", "")?;
        for (kind, recoveries) in kinds.iter().filter(|(kind, _)| !kind.spares_the_job()) {
            let median = |time: fn(&PodTimes) -> Option<Duration>| {
                let times: Vec<_> = recoveries.iter().filter_map(|recovery| time(&recovery.pods)).collect();
                if times.is_empty() { "-".to_owned() } else { seconds(median_and_worst(times).0) }
            };
            let (created, scheduled) = (median(|pods| pods.created), median(|pods| pods.scheduled));
            let started = median(|pods| pods.started);
            row(f, [&kind.to_string(), &created, &scheduled, &started, &phases(recoveries)])?;
        }
        writeln!(
            f,
            "{} records, {} lines, {} of them never written",
            self.records, self.lines, self.verdict.missing_lines
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chaos::Grace;

    fn recovery(fault: Fault, seconds: u64) -> Recovery {
        let output = Duration::from_secs(seconds);
        let (pods, phases) = (PodTimes::default(), Vec::new());
        Recovery { fault, evidence: String::new(), output, running: output * 2, pods, phases }
    }

    #[test]
    fn the_last_line_is_that_of_the_job() {
        let recoveries = vec![
            recovery(Fault::Kafka, 4),
            recovery(Fault::Operator(Grace::None), 90),
            recovery(Fault::Minio, 2),
            recovery(Fault::Zombie, 7),
        ];
        let verdict = Verdict { lost: 1, counted_twice: 2, missing_lines: 0 };
        let report = Report { recoveries, verdict, records: 10, lines: 12 };
        let line = report.last_line();
        assert_eq!(line, "faults 4, lost 1, counted twice 2, recovery median 4.0 s, worst 7.0 s");
        assert!(!report.is_right());
        let table = report.to_string();
        assert_eq!(table.lines().count(), (2 + 4) + 1 + (2 + 3) + 1, "{table}");
    }

    #[test]
    fn where_the_time_went_is_told_by_kind_of_fault() {
        let ms = Duration::from_millis;
        let one = |created: u64, phases: &[(&str, u64)]| Recovery {
            pods: PodTimes { created: Some(ms(created)), scheduled: None, started: Some(ms(created + 900)) },
            phases: phases.iter().map(|(name, took)| ((*name).to_owned(), ms(*took))).collect(),
            ..recovery(Fault::JobManager(Grace::Given), 2)
        };
        let restarted = [("take-over", 400), ("allocate", 900), ("first-output", 20)];
        let recoveries = vec![
            one(300, &restarted),
            one(500, &[("take-over", 600), ("adopt", 50)]),
            one(200, &restarted),
            recovery(Fault::Minio, 2),
        ];
        let report = Report { recoveries, verdict: Verdict::default(), records: 1, lines: 1 };
        let table = report.to_string();
        let phases = "take-over 400, allocate 900 (2 of 3), first-output 20 (2 of 3), adopt 50 (1 of 3)";
        let row = format!("| {:<46} | {:>7} | {:>9} | {:>7} | {phases} |", "jobmanager pod deleted", "0.3", "-", "1.2");
        assert!(table.lines().any(|line| line == row), "{row} in\n{table}");
        let row = format!("| {:<46} | {:>7} | {:>9} | {:>7} | not restarted |", "MinIO away", "-", "-", "-");
        assert!(table.lines().any(|line| line == row), "{row} in\n{table}");
    }
}
