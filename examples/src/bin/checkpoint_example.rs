//! The job that everyone tries first, as a program of its own; see the library's `checkpoint_example`.

use std::process::ExitCode;

use clap::Parser;
use millrace_examples::{checkpoint_example, exit_code};

fn main() -> ExitCode {
    exit_code(checkpoint_example::run(&checkpoint_example::Args::parse()))
}
