//! The goals, and whether a run met them.

use crate::case::Row;

/// A bound on something that is measured.
#[derive(Clone, Copy)]
enum Bound {
    AtLeast(f64),
    Below(f64),
}

/// A goal. It is met or not once its cases have been measured.
struct Goal {
    workload: &'static str,
    what: &'static str,
    bound: Bound,
    measured: fn(&Rows<'_>) -> Option<f64>,
    digits: usize,
}

/// The rows of a run.
struct Rows<'a>(&'a [Row]);

impl Rows<'_> {
    /// What was measured of the case whose name begins so.
    fn of(&self, case: &str, key: &str) -> Option<f64> {
        self.0.iter().find(|row| row.name.starts_with(case))?.value(key)
    }

    /// The most of the cases whose names begin so.
    fn most(&self, case: &str, key: &str) -> Option<f64> {
        let rows = self.0.iter().filter(|row| row.name.starts_with(case));
        rows.filter_map(|row| row.value(key)).max_by(f64::total_cmp)
    }
}

const HEAP_OFF: &str = "keyed-count backend=heap keys=1000000 parallelism=1 checkpoint=off";
const HEAP_1S: &str = "keyed-count backend=heap keys=1000000 parallelism=1 checkpoint=1s";
const ROCKSDB_1M: &str = "keyed-count backend=rocksdb keys=1000000 parallelism=1 checkpoint=1s";
const ROCKSDB_10M: &str = "keyed-count backend=rocksdb keys=10000000 parallelism=1 checkpoint=1s";

const GOALS: &[Goal] = &[
    Goal {
        workload: "keyed-count",
        what: "heap, 1 million keys, parallelism 1: at least 12 times Flink",
        bound: Bound::AtLeast(12.0),
        measured: |rows| rows.of(HEAP_OFF, "ratio"),
        digits: 1,
    },
    Goal {
        workload: "keyed-count",
        what: "and at least 70 % of the same by hand",
        bound: Bound::AtLeast(70.0),
        measured: |rows| Some(rows.of(HEAP_OFF, "share")? * 100.0),
        digits: 0,
    },
    Goal {
        workload: "keyed-count",
        what: "with exactly-once checkpoints every second: at least 16 times Flink",
        bound: Bound::AtLeast(16.0),
        measured: |rows| rows.of(HEAP_1S, "ratio"),
        digits: 1,
    },
    Goal {
        workload: "keyed-count",
        what: "and they cost at most 3 % of the rate",
        bound: Bound::Below(3.0),
        measured: |rows| Some((1.0 - rows.of(HEAP_1S, "millrace")? / rows.of(HEAP_OFF, "millrace")?) * 100.0),
        digits: 1,
    },
    Goal {
        workload: "keyed-count",
        what: "RocksDB, 1 million keys, checkpoints every second: at least 8 times Flink's RocksDB",
        bound: Bound::AtLeast(8.0),
        measured: |rows| rows.of(ROCKSDB_1M, "ratio"),
        digits: 1,
    },
    Goal {
        workload: "keyed-count",
        what: "RocksDB, 10 million keys, checkpoints every second: at least 8 times Flink's RocksDB",
        bound: Bound::AtLeast(8.0),
        measured: |rows| rows.of(ROCKSDB_10M, "ratio"),
        digits: 1,
    },
    Goal {
        workload: "kafka-to-kafka",
        what: "at least 80 % of bare clients with the same JSON work",
        bound: Bound::AtLeast(80.0),
        measured: |rows| Some(rows.of("kafka-to-kafka", "share")? * 100.0),
        digits: 0,
    },
    Goal {
        workload: "checkpoints",
        what: "10 million keys on the heap: 99 of 100 synchronous pauses below 10 ms",
        bound: Bound::Below(10.0),
        measured: |rows| rows.most("checkpoints backend=heap", "pause-p99"),
        digits: 0,
    },
    Goal {
        workload: "checkpoints",
        what: "10 million keys in RocksDB: 99 of 100 synchronous pauses below 10 ms",
        bound: Bound::Below(10.0),
        measured: |rows| rows.most("checkpoints backend=rocksdb", "pause-p99"),
        digits: 0,
    },
    Goal {
        workload: "process",
        what: "an idle taskmanager below 40 MiB",
        bound: Bound::Below(40.0),
        measured: |rows| rows.of("process", "idle-taskmanager"),
        digits: 0,
    },
    Goal {
        workload: "process",
        what: "from the start to the first record below 300 ms",
        bound: Bound::Below(300.0),
        measured: |rows| rows.of("process", "first-record"),
        digits: 0,
    },
    Goal {
        workload: "network-edge",
        what: "at least 80 % of encoding, copying over loopback and decoding by hand",
        bound: Bound::AtLeast(80.0),
        measured: |rows| Some(rows.of("network-edge", "share")? * 100.0),
        digits: 0,
    },
];

/// What is said below a workload's table: a line for each goal. Empty without goals.
pub fn judge(workload: &str, rows: &[Row]) -> String {
    let goals = GOALS.iter().filter(|goal| goal.workload == workload);
    goals.map(|goal| format!("- {}\n", goal.judge(&Rows(rows)))).collect()
}

impl Goal {
    fn judge(&self, rows: &Rows<'_>) -> String {
        let Some(measured) = (self.measured)(rows).filter(|measured| measured.is_finite()) else {
            return format!("not measured: {}", self.what);
        };
        let met = match self.bound {
            Bound::AtLeast(least) => measured >= least,
            Bound::Below(most) => measured < most,
        };
        let verdict = if met { "met" } else { "**missed**" };
        format!("{verdict}: {}; measured {measured:.*}", self.what, self.digits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::Cell;

    fn row(name: &str, cells: &[(&'static str, f64)]) -> Row {
        let cells = cells.iter().map(|(key, value)| Cell::number(key, *value, "")).collect();
        Row { name: name.to_owned(), cells }
    }

    #[test]
    fn goals_are_met_missed_or_not_measured() {
        let rows = [
            row(HEAP_OFF, &[("millrace", 100.0), ("ratio", 12.0), ("share", 0.699)]),
            row(HEAP_1S, &[("millrace", 96.0), ("ratio", 15.9)]),
        ];
        let text = judge("keyed-count", &rows);
        let verdicts: Vec<_> = text.lines().map(|line| line.split(':').next().unwrap_or_default()).collect();
        let missed = "- **missed**";
        assert_eq!(verdicts, ["- met", missed, missed, missed, "- not measured", "- not measured"], "{text}");
        assert!(text.contains("at most 3 % of the rate; measured 4.0"), "{text}");
        assert_eq!(judge("nothing", &rows), "");
    }

    #[test]
    fn the_cases_of_goals_are_cases_that_there_are() {
        let names: Vec<_> = crate::cases().iter().map(|case| case.name()).collect();
        for case in [HEAP_OFF, HEAP_1S, ROCKSDB_1M, ROCKSDB_10M] {
            assert!(names.iter().any(|name| name == case), "{case}");
        }
        assert!(GOALS.iter().all(|goal| names.iter().any(|name| crate::case::workload(name) == goal.workload)));
    }
}
