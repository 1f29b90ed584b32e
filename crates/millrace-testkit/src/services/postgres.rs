//! A PostgreSQL server, of the Debian packages.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::geteuid;

use super::ports::ReservedPort;
use super::process::ManagedProcess;
use super::workdir::WorkDir;
use super::{Error, Result, io_error};

const START_LIMIT: Duration = Duration::from_secs(60);
const READY_LINE: &str = "database system is ready to accept connections";
const PROGRAMS: &str = "/usr/lib/postgresql";
/// Whom the server runs as where the test is root: it refuses to be root itself.
const SYSTEM_USER: &str = "postgres";

/// A server on a loopback port, with a data folder of its own and a superuser `millrace` without a password.
#[derive(Debug)]
pub struct PostgresServer {
    // Dropped in this order: the process ends before its folders go.
    process: ManagedProcess,
    data: PathBuf,
    logs: WorkDir,
    programs: PathBuf,
    address: SocketAddr,
    starts: u32,
}

impl PostgresServer {
    /// Starts a server and waits until it serves clients.
    pub fn start() -> Result<Self> {
        let programs = programs()?;
        let logs = WorkDir::new("postgres")?;
        // Not among the logs: those are in a home that another user may not enter.
        let data = std::env::temp_dir().join(format!("millrace-postgres-{}", uuid::Uuid::new_v4().simple()));
        fs::create_dir(&data).map_err(io_error(format!("creating {}", data.display())))?;
        give_away(&data)?;
        let mut initdb = as_other(&programs.join("initdb"));
        initdb.arg("-D").arg(&data).args(["-U", "millrace", "-A", "trust", "-N", "--no-instructions"]);
        let made = initdb.current_dir("/").output().map_err(io_error("running initdb"))?;
        if !made.status.success() {
            let output = String::from_utf8_lossy(&made.stderr).into_owned();
            return Err(Error::Ended { name: "initdb".into(), status: made.status, awaited: "a database", output });
        }
        let port = ReservedPort::new();
        let address = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port.port());
        port.release();
        let process = launch(&programs, &data, &logs, address, 1)?;
        Ok(Self { process, data, logs, programs, address, starts: 1 })
    }

    /// How clients connect.
    pub fn url(&self) -> String {
        format!("postgres://millrace@{}/postgres", self.address)
    }

    /// Ends the server with SIGKILL.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill()
    }

    /// Starts the server again, killing it first if it runs, on the same port and data.
    pub fn restart(&mut self) -> Result<()> {
        self.process.kill()?;
        self.starts += 1;
        self.process = launch(&self.programs, &self.data, &self.logs, self.address, self.starts)?;
        Ok(())
    }
}

impl Drop for PostgresServer {
    fn drop(&mut self) {
        // Its children end with it, a moment later.
        let _ = self.process.kill();
        let _ = fs::remove_dir_all(&self.data);
    }
}

/// The newest version that is installed.
fn programs() -> Result<PathBuf> {
    let versions = fs::read_dir(PROGRAMS).into_iter().flatten().flatten();
    let versions = versions.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let found = versions.max().map(|version| Path::new(PROGRAMS).join(version.to_string()).join("bin"));
    let missing = || Error::NotInstalled { what: "PostgreSQL", path: PROGRAMS.into(), script: "scripts/setup.sh test" };
    found.filter(|programs| programs.join("initdb").exists()).ok_or_else(missing)
}

fn launch(programs: &Path, data: &Path, logs: &WorkDir, address: SocketAddr, starts: u32) -> Result<ManagedProcess> {
    let mut command = as_other(&programs.join("postgres"));
    command
        .arg("-D")
        .arg(data)
        .args(["-p", &address.port().to_string(), "-h", &address.ip().to_string()])
        // no socket in a folder that all servers share
        .args(["-k", ""])
        .current_dir("/");
    // Its shared memory outlives a server that was killed until the next one finds its children gone.
    let mut process = ManagedProcess::spawn(&format!("postgres-{starts}"), &command, logs.path())?;
    process.wait_until("start", START_LIMIT, |process| process.stderr().contains(READY_LINE))?;
    Ok(process)
}

/// The program, not as root, and killed with its parent.
fn as_other(program: &Path) -> Command {
    if !geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid", SYSTEM_USER, "--regid", SYSTEM_USER, "--clear-groups", "--pdeathsig", "KILL", "--"]);
    command.arg(program);
    command
}

fn give_away(directory: &Path) -> Result<()> {
    if !geteuid().is_root() {
        return Ok(());
    }
    let action = || io_error(format!("giving {} to {SYSTEM_USER}", directory.display()));
    let users = fs::read_to_string("/etc/passwd").map_err(action())?;
    let ids = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == SYSTEM_USER).then_some(())?;
        Some((fields.nth(1)?.parse().ok()?, fields.next()?.parse().ok()?))
    });
    let missing = || std::io::Error::new(std::io::ErrorKind::NotFound, "there is no such user");
    let (user, group) = ids.ok_or_else(missing).map_err(action())?;
    chown(directory, Some(user), Some(group)).map_err(action())
}
