//! The `millrace` command: runs jobs on this machine as processes, and looks after them.

mod args;
mod client;
mod context;
mod follow;
mod jobs;
mod log_files;
mod processes;
mod progress;
mod run;
mod screen;
mod state;

use std::process::ExitCode;

use clap::Parser;
use millrace_core::{Error, Result};

use crate::args::{Cli, Command, Taskmanager};

fn main() -> ExitCode {
    match execute(Cli::parse().command) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("millrace: {error}");
            ExitCode::FAILURE
        }
    }
}

fn execute(command: Command) -> Result<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Error::internal(format!("tokio runtime: {error}")))?;
    runtime.block_on(async {
        match command {
            Command::Run(command) => run::run(command).await,
            Command::Taskmanager(Taskmanager::Start(command)) => jobs::start_taskmanager(command).await,
            Command::List(common) => jobs::list(common).await,
            Command::Cancel(command) => jobs::cancel(command).await,
            Command::Stop(command) => jobs::stop(command).await,
            Command::Logs(command) => jobs::logs(command),
            Command::State(command) => state::execute(command).await,
        }
    })
}
