//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use millrace_core::Result;
use millrace_worker::config::split_override;

use crate::state::args::State;

/// Runs Millrace jobs on this machine, and looks after them.
#[derive(Debug, Parser)]
#[command(name = "millrace", version, after_help = "Settings are listed in docs/configuration.md.")]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a job: start a jobmanager and taskmanagers as processes and follow the job to its end.
    ///
    /// Exit code: 0 when the job finished or was stopped, 1 when it failed, 3 when it was cancelled, 130 after Ctrl-C
    /// (which cancels the job).
    Run(Run),
    /// Taskmanagers of a job that runs.
    #[command(subcommand)]
    Taskmanager(Taskmanager),
    /// List the jobs of this machine.
    List(Common),
    /// Cancel a job. Its checkpoints are deleted unless the job keeps them.
    Cancel(OneJob),
    /// Stop a job with a final checkpoint, which is kept.
    Stop(OneJob),
    /// Show the log of a job's jobmanager, or of one of its taskmanagers.
    Logs(Logs),
    /// Look into checkpoints, without the program of the job that took them.
    #[command(subcommand)]
    State(State),
}

/// What all commands take.
#[derive(Clone, Debug, Default, Args)]
pub struct Common {
    /// A setting that nothing overrides.
    #[arg(short = 'D', value_name = "KEY=VALUE", value_parser = setting)]
    pub settings: Vec<(String, String)>,
    /// The configuration file.
    #[arg(long, value_name = "FILE")]
    pub conf: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Run {
    /// The job's program.
    pub program: PathBuf,
    /// How many taskmanagers to start.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(0..=1000))]
    pub taskmanagers: u32,
    /// How many slots each of them offers [taskmanager.numberOfTaskSlots].
    #[arg(long)]
    pub slots: Option<u32>,
    /// A retained checkpoint to start the job from [execution.state-recovery.path].
    #[arg(long, value_name = "URI")]
    pub from_checkpoint: Option<String>,
    /// Don't follow the job: print its id and leave it running.
    #[arg(long)]
    pub detached: bool,
    /// Where the processes' logs go [env.log.dir].
    #[arg(long, value_name = "DIR")]
    pub log_dir: Option<PathBuf>,
    #[command(flatten)]
    pub common: Common,
    /// The program's arguments.
    #[arg(last = true)]
    pub args: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub enum Taskmanager {
    /// Start one more.
    Start(TaskmanagerStart),
}

#[derive(Debug, Args)]
pub struct TaskmanagerStart {
    /// The job: its name or the beginning of its id. Not needed where one job runs.
    #[arg(long)]
    pub job: Option<String>,
    /// How many slots it offers [taskmanager.numberOfTaskSlots].
    #[arg(long)]
    pub slots: Option<u32>,
    #[command(flatten)]
    pub common: Common,
}

#[derive(Debug, Args)]
pub struct OneJob {
    /// The job: its name or the beginning of its id.
    pub job: String,
    #[command(flatten)]
    pub common: Common,
}

#[derive(Debug, Args)]
pub struct Logs {
    /// The job: its name or the beginning of its id.
    pub job: String,
    /// The taskmanager's index, as in the name of its log; without it the jobmanager's log is shown.
    pub taskmanager: Option<u32>,
    /// Show its standard output instead of its log.
    #[arg(long)]
    pub out: bool,
    #[command(flatten)]
    pub common: Common,
}

fn setting(text: &str) -> Result<(String, String)> {
    split_override(text)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn what_follows_two_dashes_is_the_programs() {
        let line = "millrace run ./job --taskmanagers 2 -D rest.port=0 -D a=b=c -- --interval 1s -D x";
        let Command::Run(run) = Cli::parse_from(line.split(' ')).command else { panic!("not run") };
        assert_eq!(run.taskmanagers, 2);
        let settings = [("rest.port".to_string(), "0".to_string()), ("a".to_string(), "b=c".to_string())];
        assert_eq!(run.common.settings, settings);
        assert_eq!(run.args, ["--interval", "1s", "-D", "x"]);
    }

    #[test]
    fn a_checkpoint_to_start_from_is_an_option_of_run() {
        let line = "millrace run ./job --from-checkpoint s3://bucket/checkpoints/a/chk-7";
        let Command::Run(run) = Cli::parse_from(line.split(' ')).command else { panic!("not run") };
        assert_eq!(run.from_checkpoint.as_deref(), Some("s3://bucket/checkpoints/a/chk-7"));
    }

    #[test]
    fn a_setting_without_value_is_refused() {
        let error = Cli::try_parse_from(["millrace", "list", "-D", "rest.port"]).unwrap_err();
        assert!(error.to_string().contains("write key=value"), "{error}");
    }
}
