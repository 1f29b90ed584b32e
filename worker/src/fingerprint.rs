//! What tells two programs apart: compared when a taskmanager registers, so that two graphs never form one job.

use std::io::Read;

use millrace_core::{Error, Result};
use millrace_runtime::graph::JobGraph;
use xxhash_rust::xxh3::Xxh3;

use crate::rpc::Fingerprint;

/// The fingerprint of this process and its graph.
pub fn of_process(graph: &JobGraph) -> Result<Fingerprint> {
    let arguments: Vec<_> = std::env::args_os().skip(1).map(|arg| arg.to_string_lossy().into_owned()).collect();
    Ok(Fingerprint { build: of_executable()?, arguments: format!("{arguments:?}"), graph: of_graph(graph) })
}

/// A hash of the running executable. Read through `/proc/self/exe`, which stays the running one when the file at its
/// path is replaced.
fn of_executable() -> Result<String> {
    let unreadable = |error: std::io::Error| Error::internal(format!("can't read the running executable: {error}"));
    let mut file = std::fs::File::open("/proc/self/exe")
        .or_else(|_| std::env::current_exe().and_then(std::fs::File::open))
        .map_err(unreadable)?;
    let mut hash = Xxh3::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer).map_err(unreadable)? {
            0 => return Ok(format!("{:032x}", hash.digest128())),
            read => hash.update(&buffer[..read]),
        }
    }
}

fn of_graph(graph: &JobGraph) -> String {
    let mut hash = Xxh3::new();
    let mut add = |part: &[u8]| {
        hash.update(&(part.len() as u64).to_le_bytes());
        hash.update(part);
    };
    add(graph.name.as_bytes());
    add(&graph.max_parallelism.to_le_bytes());
    for vertex in &graph.vertices {
        add(&vertex.parallelism.to_le_bytes());
        if let Some(source) = &vertex.source {
            add(source.uid.0.as_bytes());
            add(&source.source.fingerprint());
        }
        for operator in &vertex.operators {
            add(operator.uid.0.as_bytes());
            add(operator.name.as_bytes());
        }
    }
    for edge in &graph.edges {
        add(format!("{} {} {} {} {:?}", edge.from, edge.output, edge.to, edge.input, edge.partitioning).as_bytes());
        add(edge.exchange.type_name().as_bytes());
    }
    format!("{:032x}", hash.digest128())
}
