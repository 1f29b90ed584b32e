//! How fast a keyed count is, as a program of its own; see the library's `keyed_count`.

use std::process::ExitCode;

use clap::Parser;
use millrace_examples::{exit_code, keyed_count};

fn main() -> ExitCode {
    exit_code(keyed_count::run(keyed_count::Args::parse()))
}
