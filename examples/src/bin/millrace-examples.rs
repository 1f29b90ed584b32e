//! The examples as one program with subcommands: the stock worker, whose image serves every sample.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use millrace_examples::{checkpoint_example, exit_code, keyed_count};

/// The examples of Millrace. Each is a job; MILLRACE_ROLE says what this process is of it.
#[derive(Parser)]
struct Args {
    #[command(subcommand)]
    example: Example,
}

#[derive(Subcommand)]
enum Example {
    CheckpointExample(checkpoint_example::Args),
    KeyedCount(keyed_count::Args),
}

fn main() -> ExitCode {
    exit_code(match Args::parse().example {
        Example::CheckpointExample(args) => checkpoint_example::run(&args),
        Example::KeyedCount(args) => keyed_count::run(args),
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn each_example_is_a_subcommand_with_its_own_flags() {
        Args::command().debug_assert();
        let parse = |line: &str| Args::try_parse_from(["millrace-examples"].into_iter().chain(line.split(' ')));
        let args = parse("checkpoint-example --kafka b:9092 --checkpoints").unwrap();
        assert!(matches!(args.example, Example::CheckpointExample(_)));
        assert!(matches!(parse("keyed-count --records 5").unwrap().example, Example::KeyedCount(_)));
        for wrong in ["keyed-count --kafka b:9092", "checkpoint-example", "checkpoint_example --files /in", "other"] {
            assert!(parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
