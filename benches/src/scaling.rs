//! What a second thread, and a second process, bring to the keyed count.

use anyhow::Result;

use crate::{
    Arguments,
    case::{Case, Row},
    cluster::Spread,
    comparison::Comparison,
    keyed_count::KeyedCount,
    measure::{Measurement, watch},
};

const KEYS: u64 = 1_000_000;

struct Scaling {
    processes: u32,
    parallelism: u32,
}

/// From one subtask in one process to two in two.
pub fn cases() -> Vec<Box<dyn Case>> {
    let cell = |(processes, parallelism)| Box::new(Scaling { processes, parallelism }) as Box<dyn Case>;
    [(1, 1), (1, 2), (2, 2)].into_iter().map(cell).collect()
}

impl Case for Scaling {
    fn name(&self) -> String {
        let Self { processes, parallelism } = self;
        format!("scaling backend=heap keys={KEYS} processes={processes} parallelism={parallelism}")
    }

    fn run(&self, arguments: &Arguments) -> Result<Row> {
        let measured = match self.processes {
            1 => KeyedCount::on_heap(KEYS, self.parallelism, "off").millrace(arguments)?,
            _ => self.spread(arguments)?,
        };
        Ok(Comparison { millrace: vec![measured], ..Comparison::default() }.row(self.name()))
    }
}

impl Scaling {
    fn spread(&self, arguments: &Arguments) -> Result<Measurement> {
        let args = KeyedCount::on_heap(KEYS, self.parallelism, "off").endless_arguments();
        watch(&mut Spread::start("keyed_count", args, "Count")?, arguments.warm_up, arguments.time)
    }
}
