//! Recoveries by kind of fault.

use std::{collections::BTreeMap, fmt, time::Duration};

use millrace_testkit::figures::median_and_worst;

use super::Fault;
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

/// The table.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut kinds = BTreeMap::<Fault, Vec<&Recovery>>::new();
        for recovery in &self.recoveries {
            kinds.entry(recovery.fault).or_default().push(recovery);
        }
        let row = |f: &mut fmt::Formatter<'_>, cells: [&str; 6]| {
            let [kind, count, output, worst_output, running, worst_running] = cells;
            writeln!(
                f,
                "| {kind:<46} | {count:>5} | {output:>9} | {worst_output:>9} | {running:>9} | {worst_running:>9} |"
            )
        };
        row(f, ["fault (seconds to new output, to Running)", "count", "output", "worst", "Running", "worst"])?;
        writeln!(f, "|{:-<48}|------:|----------:|----------:|----------:|----------:|", "")?;
        for (kind, recoveries) in kinds {
            let (output, worst_output) = median_and_worst(recoveries.iter().map(|recovery| recovery.output));
            let (running, worst_running) = median_and_worst(recoveries.iter().map(|recovery| recovery.running));
            let times = [output, worst_output, running, worst_running].map(seconds);
            let [output, worst_output, running, worst_running] = times.each_ref().map(String::as_str);
            let (kind, count) = (kind.to_string(), recoveries.len().to_string());
            row(f, [&kind, &count, output, worst_output, running, worst_running])?;
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
        Recovery { fault, evidence: String::new(), output, running: output * 2 }
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
        assert_eq!(table.lines().count(), 2 + 4 + 1, "{table}");
    }
}
