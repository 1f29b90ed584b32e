//! What takes long on a real cluster: `make soak`.

mod chaos;
mod thousand;

use std::process::ExitCode;

use millrace_k8s_tests::suite::{self, Case};

fn main() -> ExitCode {
    let alone = vec![
        Case::new("thousand_stream_jobs", thousand::stream_jobs),
        Case::new("chaos::hundred_faults", chaos::hundred),
    ];
    suite::main(Vec::new(), alone)
}
