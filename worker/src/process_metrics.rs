//! The metrics of a process: its memory and cores.

use std::sync::Arc;

use millrace_core::{Error, Result};
use millrace_state::StateBackend;
use prometheus::{
    Gauge, Opts, Registry,
    core::{Collector, Desc},
    proto::MetricFamily,
};

use crate::{memory, rpc::ProcessFigures};

/// Finds out what a process takes now.
#[derive(Clone)]
pub struct ProcessProbe {
    /// What the process may take, in bytes.
    pub limit: u64,
    /// What the machine has, in bytes.
    pub physical: u64,
    /// What holds keyed state, in a taskmanager.
    pub backend: Option<Arc<dyn StateBackend>>,
}

impl ProcessProbe {
    /// Takes a look.
    pub fn look(&self) -> ProcessFigures {
        let managed = self.backend.as_ref().and_then(|backend| backend.managed_memory());
        ProcessFigures {
            cpu_cores: memory::cores(),
            physical_memory: self.physical,
            resident: memory::resident().unwrap_or(0),
            limit: self.limit,
            managed_total: managed.map_or(0, |managed| managed.total),
            managed_used: managed.map_or(0, |managed| managed.used),
        }
    }
}

type Read = fn(&ProcessFigures) -> u64;
const GAUGES: [(&str, &str, Read); 4] = [
    ("Memory_Resident", "Bytes of the machine's memory that the process takes.", |p| p.resident),
    ("Memory_Limit", "Bytes of memory that the process may take.", |p| p.limit),
    ("Memory_Managed_Total", "Bytes that the state backend may hold in memory; 0 without a limit of its own.", |p| {
        p.managed_total
    }),
    ("Memory_Managed_Used", "Bytes that the state backend holds of that.", |p| p.managed_used),
];

/// Name and description of each, without the process's own prefix, for the documentation.
pub fn described(role: &str) -> Vec<(String, &'static str)> {
    GAUGES.iter().map(|(name, help, _)| (format!("millrace_{role}_Status_{name}"), *help)).collect()
}

/// Shows the memory of this process, which is a `jobmanager` or a `taskmanager`.
pub fn register(registry: &Registry, role: &str, probe: ProcessProbe) -> Result<()> {
    let wrong = |error: prometheus::Error| Error::internal(format!("process metrics cannot be registered: {error}"));
    let gauge = |(name, help, read): (&str, &str, Read)| {
        Ok((Gauge::with_opts(Opts::new(format!("millrace_{role}_Status_{name}"), help)).map_err(wrong)?, read))
    };
    let gauges = GAUGES.into_iter().map(gauge).collect::<Result<Vec<_>>>()?;
    registry.register(Box::new(ProcessCollector { probe, gauges })).map_err(wrong)
}

struct ProcessCollector {
    probe: ProcessProbe,
    gauges: Vec<(Gauge, Read)>,
}

impl Collector for ProcessCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.gauges.iter().flat_map(|(gauge, _)| gauge.desc()).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let figures = self.probe.look();
        self.gauges.iter().for_each(|(gauge, read)| gauge.set(read(&figures) as f64));
        self.gauges.iter().flat_map(|(gauge, _)| gauge.collect()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_shows_its_memory() {
        let registry = Registry::new();
        register(&registry, "taskmanager", ProcessProbe { limit: 7, physical: 9, backend: None }).unwrap();
        let families = registry.gather();
        let value = |name: &str| {
            let family = families.iter().find(|family| family.name() == name).unwrap();
            family.get_metric()[0].get_gauge().get_value()
        };
        assert!(value("millrace_taskmanager_Status_Memory_Resident") > 1e6);
        assert_eq!(value("millrace_taskmanager_Status_Memory_Limit"), 7.0);
    }
}
