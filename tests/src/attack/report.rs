//! What came of an attack.

use std::{collections::BTreeMap, fmt, time::Duration};

use millrace_testkit::figures::median_and_worst;

use super::{Fault, Moment, checker::Verdict};

/// A fault that was struck.
#[derive(Clone, Debug)]
pub struct Struck {
    /// What.
    pub fault: Fault,
    /// When.
    pub moment: Moment,
    /// What shows that it happened.
    pub evidence: String,
    /// How long it was until the harness was done with it: a broker that is killed comes back after a while.
    pub lasted: Duration,
    /// The longest time without a new output that followed, from the fault on where that ended tasks; none, where the
    /// next fault came before the job had recovered.
    pub silent: Option<Duration>,
}

impl Struck {
    /// How much longer the job was silent than the fault itself lasted; a SIGKILL lasts no time.
    pub fn silent_beyond(&self) -> Duration {
        let itself = if self.fault.ends_tasks() { Duration::ZERO } else { self.lasted };
        self.silent.unwrap_or_default().saturating_sub(itself)
    }

    /// Whether it counts as a recovery: a SIGKILL of a taskmanager with a spare slot waiting.
    fn is_recovery(&self) -> bool {
        self.fault == Fault::KillTaskManager
            && !self.moment.is_in_recovery()
            && !matches!(self.moment, Moment::Hasty(_))
    }
}

/// What came of one campaign, or of several.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Each fault.
    pub struck: Vec<Struck>,
    /// What is wrong with the outputs.
    pub verdict: Verdict,
    /// Records written.
    pub records: u64,
    /// Outputs, those that came again too.
    pub outputs: u64,
}

impl Report {
    /// Adds another campaign's.
    pub fn add(&mut self, other: Self) {
        self.struck.extend(other.struck);
        self.verdict.add(other.verdict);
        self.records += other.records;
        self.outputs += other.outputs;
    }

    /// What is said in the end: recovery is that from SIGKILLs with a spare slot.
    pub fn last_line(&self) -> String {
        let recoveries = self.struck.iter().filter(|struck| struck.is_recovery());
        let (median, worst) = median_and_worst(recoveries.filter_map(|struck| struck.silent));
        let Verdict { lost, duplicated, .. } = self.verdict;
        format!(
            "faults {}, lost {lost}, duplicated {duplicated}, recovery median {} s, worst {} s",
            self.struck.len(),
            seconds(median),
            seconds(worst)
        )
    }
}

fn seconds(duration: Duration) -> String {
    format!("{:.2}", duration.as_secs_f64())
}

/// The table.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut kinds = BTreeMap::<Fault, Vec<&Struck>>::new();
        for struck in &self.struck {
            kinds.entry(struck.fault).or_default().push(struck);
        }
        writeln!(f, "| {:<20} | fired | at a step | silent, median s | worst s |", "fault")?;
        writeln!(f, "|:{:-<20}-|------:|----------:|-----------------:|--------:|", "")?;
        for (kind, struck) in kinds {
            let at_step = |struck: &&&Struck| !matches!(struck.moment, Moment::After(_) | Moment::Hasty(_));
            let steps = struck.iter().filter(at_step).count();
            let (median, worst) = median_and_worst(struck.iter().filter_map(|struck| struck.silent));
            let (median, worst) = (seconds(median), seconds(worst));
            writeln!(f, "| {kind:<20} | {:>5} | {steps:>9} | {median:>16} | {worst:>7} |", struck.len())?;
        }
        let mut moments = BTreeMap::<String, usize>::new();
        for struck in &self.struck {
            *moments.entry(struck.moment.kind()).or_default() += 1;
        }
        writeln!(f, "\n| {:<35} | fired |\n|:{:-<35}-|------:|", "moment", "")?;
        for (moment, fired) in moments {
            writeln!(f, "| {moment:<35} | {fired:>5} |")?;
        }
        writeln!(f, "\n{} records, {} outputs", self.records, self.outputs)?;
        let Verdict { out_of_order, left_over, examples, .. } = &self.verdict;
        if *out_of_order > 0 {
            writeln!(f, "{out_of_order} outputs out of order")?;
        }
        if *left_over > 0 {
            writeln!(f, "{left_over} files or uploads left over")?;
        }
        examples.iter().try_for_each(|example| writeln!(f, "wrong: {example}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn struck(fault: Fault, moment: Moment, seconds: u64) -> Struck {
        let silent = Some(Duration::from_secs(seconds));
        Struck { fault, moment, evidence: String::new(), lasted: Duration::from_millis(400), silent }
    }

    #[test]
    fn what_lasts_is_no_silence_of_the_jobs() {
        let silent = |fault, seconds| struck(fault, Moment::After(3), seconds).silent_beyond();
        assert_eq!(
            [silent(Fault::RestartKafka, 0), silent(Fault::RestartKafka, 1)],
            [0, 600].map(Duration::from_millis)
        );
        assert_eq!(silent(Fault::KillTaskManager, 1), Duration::from_secs(1));
    }

    #[test]
    fn recovery_is_that_of_kills_with_a_spare_slot() {
        let all = vec![
            struck(Fault::KillTaskManager, Moment::After(3), 1),
            struck(Fault::KillTaskManager, Moment::TaskManagerStep("snapshot"), 3),
            struck(Fault::KillTaskManager, Moment::JobManagerStep("deploy"), 50),
            struck(Fault::KillTaskManager, Moment::Hasty(3), 60),
            struck(Fault::KillBoth, Moment::After(3), 70),
        ];
        let verdict = Verdict { lost: 1, duplicated: 2, ..Verdict::default() };
        let report = Report { struck: all, verdict, records: 4, outputs: 5 };
        let line = report.last_line();
        assert_eq!(line, "faults 5, lost 1, duplicated 2, recovery median 1.00 s, worst 3.00 s");
        assert!(report.to_string().contains("| kill-taskmanager     |     4 |         2 |"), "{report}");
        assert!(report.to_string().contains("| at jobmanager's deploy              |     1 |"), "{report}");
    }
}
