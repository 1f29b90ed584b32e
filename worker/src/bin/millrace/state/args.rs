//! The command line of `millrace state`.

use clap::{Args, Subcommand};

use crate::args::Common;

#[derive(Debug, Subcommand)]
pub enum State {
    /// List the checkpoints in a checkpoint directory, or of one job in it, and what the jobs' logs say of them.
    List(List),
    /// Show what is in a checkpoint: operators, states with their types and sizes, and its files, which are verified.
    ///
    /// Exit code: 1 when a file is missing or damaged.
    Show(Show),
    /// Print the entries of a checkpoint's states, a line of JSON each.
    Cat(Cat),
    /// Compare two checkpoints: for each state how many entries only one of them has, or have changed.
    Diff(Diff),
}

#[derive(Debug, Args)]
pub struct List {
    /// A checkpoint directory, that of a job in it (<job-id>) or of a checkpoint (<job-id>/chk-<n>): a URI, or a path.
    pub uri: String,
    #[command(flatten)]
    pub common: Common,
}

#[derive(Debug, Args)]
pub struct Show {
    /// The directory of a checkpoint, <job-id>/chk-<n>: a URI, or a path.
    pub checkpoint: String,
    /// Show the size of each key group.
    #[arg(long)]
    pub key_groups: bool,
    #[command(flatten)]
    pub common: Common,
}

#[derive(Debug, Args)]
pub struct Cat {
    /// The directory of a checkpoint, <job-id>/chk-<n>: a URI, or a path.
    pub checkpoint: String,
    /// Only the states of the operator with this uid.
    #[arg(long, value_name = "UID")]
    pub operator: Option<String>,
    /// Only the state of this name.
    #[arg(long, value_name = "NAME")]
    pub state: Option<String>,
    /// Only the entries of this key, in the form in which it is printed: '"alice"' (text with its quotes), 7, '[1,"x"]'.
    #[arg(long, value_name = "JSON")]
    pub key: Option<String>,
    /// Only the entries of this key group.
    #[arg(long, value_name = "N")]
    pub key_group: Option<u16>,
    /// No more than so many lines.
    #[arg(long, value_name = "N")]
    pub limit: Option<u64>,
    #[command(flatten)]
    pub common: Common,
}

#[derive(Debug, Args)]
pub struct Diff {
    /// The directory of a checkpoint, <job-id>/chk-<n>: a URI, or a path.
    pub first: String,
    /// That of the other.
    pub second: String,
    /// Print the entries that differ: behind - as they are in the first, behind + as they are in the second.
    #[arg(long)]
    pub entries: bool,
    #[command(flatten)]
    pub common: Common,
}
