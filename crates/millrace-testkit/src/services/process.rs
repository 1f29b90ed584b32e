//! Processes of a test: started with their output in files, signalled, waited
//! for, and never left behind.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, WaitId, WaitIdOptions, kill_process, waitid};

use super::{Error, Result, io_error};

pub use rustix::process::Signal;

/// How often a condition is looked at again.
const POLL: Duration = Duration::from_millis(10);

/// A child process that is killed and reaped when this is dropped, and killed
/// by the kernel when the test process ends in whatever way.
#[derive(Debug)]
pub struct ManagedProcess {
    name: String,
    child: Child,
    stdout: PathBuf,
    stderr: PathBuf,
}

impl ManagedProcess {
    /// Starts a command with its output in `<logs>/<name>.out` and `.err`,
    /// which are made anew.
    ///
    /// Program, arguments, working directory and changed variables are taken
    /// from the command; what else it holds (`env_clear`, its streams) is not.
    pub fn spawn(name: &str, command: &Command, logs: &Path) -> Result<Self> {
        let file = |extension| {
            let path = logs.join(format!("{name}.{extension}"));
            match File::create(&path) {
                Ok(file) => Ok((path, file)),
                Err(error) => Err(io_error(format!("creating {}", path.display()))(error)),
            }
        };
        let (stdout, stdout_file) = file("out")?;
        let (stderr, stderr_file) = file("err")?;

        // util-linux's setpriv asks the kernel to kill it with its parent and
        // becomes the program. To ask from here would take unsafe code between
        // fork and exec.
        let mut wrapped = Command::new("setpriv");
        wrapped
            .args(["--pdeathsig", "KILL", "--"])
            .arg(command.get_program())
            .args(command.get_args())
            .stdin(Stdio::null())
            .stdout(stdout_file)
            .stderr(stderr_file);
        for (key, value) in command.get_envs() {
            match value {
                Some(value) => wrapped.env(key, value),
                None => wrapped.env_remove(key),
            };
        }
        if let Some(dir) = command.get_current_dir() {
            wrapped.current_dir(dir);
        }
        let child = spawn_from_lasting_thread(wrapped).map_err(io_error(format!("starting {name} through setpriv")))?;
        Ok(Self { name: name.to_owned(), child, stdout, stderr })
    }

    /// The process's id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has written to its standard output so far.
    pub fn stdout(&self) -> String {
        read_lossy(&self.stdout)
    }

    /// What it has written to its standard error so far.
    pub fn stderr(&self) -> String {
        read_lossy(&self.stderr)
    }

    /// Whether it has not ended yet. A stopped process is alive.
    pub fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Sends a signal; one to a process that has ended is an error.
    pub fn signal(&mut self, signal: Signal) -> Result<()> {
        let action = || io_error(format!("sending {signal:?} to {}", self.name));
        // Reaped, its id may already be that of another process.
        if self.child.try_wait().map_err(action())?.is_some() {
            return Err(action()(io::Error::other("it has ended")));
        }
        kill_process(Pid::from_child(&self.child), signal).map_err(|error| action()(error.into()))
    }

    /// Stops it from running with SIGSTOP and waits until all its threads stand
    /// still, which can be a while after the signal on a busy machine.
    pub fn pause(&mut self) -> Result<()> {
        self.signal(Signal::STOP)?;
        // NOWAIT: an exit is left for `child` to see.
        let stopped = WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        waitid(WaitId::Pid(Pid::from_child(&self.child)), stopped)
            .map_err(|error| io_error(format!("pausing {}", self.name))(error.into()))?;
        Ok(())
    }

    /// Lets it run on after [`pause`](Self::pause).
    pub fn resume(&mut self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// Sends SIGTERM. [`wait_timeout`](Self::wait_timeout) tells when the
    /// process has ended.
    pub fn terminate(&mut self) -> Result<()> {
        self.signal(Signal::TERM)
    }

    /// Kills it with SIGKILL and waits until it is gone. One that has ended is
    /// left as it is.
    pub fn kill(&mut self) -> Result<()> {
        let action = || io_error(format!("killing {}", self.name));
        self.child.kill().map_err(action())?;
        self.child.wait().map_err(action())?;
        Ok(())
    }

    /// Waits until the process has ended: `None` if it has not by then.
    pub fn wait_timeout(&mut self, limit: Duration) -> Result<Option<ExitStatus>> {
        let end = Instant::now() + limit;
        loop {
            let status = self.child.try_wait().map_err(io_error(format!("waiting for {}", self.name)))?;
            if status.is_some() || Instant::now() >= end {
                return Ok(status);
            }
            thread::sleep(POLL);
        }
    }

    /// Waits until a condition holds; an error when the process ends before or
    /// `limit` has passed.
    pub fn wait_until(
        &mut self,
        awaited: &'static str,
        limit: Duration,
        mut condition: impl FnMut(&Self) -> bool,
    ) -> Result<()> {
        let end = Instant::now() + limit;
        loop {
            // Looked at in this order, the condition was met by this process
            // and not by another one, on a port that this one failed to get.
            let met = condition(self);
            if let Some(status) = self.wait_timeout(Duration::ZERO)? {
                return Err(Error::Ended { name: self.name.clone(), status, awaited, output: self.last_output() });
            }
            if met {
                return Ok(());
            }
            if Instant::now() >= end {
                return Err(Error::TimedOut { name: self.name.clone(), awaited, limit, output: self.last_output() });
            }
            thread::sleep(POLL);
        }
    }

    fn last_output(&self) -> String {
        let output = self.stdout() + &self.stderr();
        let lines: Vec<_> = output.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }
}

impl Drop for ManagedProcess {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.kill();
    }
}

fn read_lossy(path: &Path) -> String {
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

/// Spawns from a thread that lives as long as this process. The kernel sends
/// the signal asked for at a parent's death when the *thread* that forked ends,
/// and a test's thread ends before those that share a service with it.
fn spawn_from_lasting_thread(command: Command) -> io::Result<Child> {
    type Job = (Command, Sender<io::Result<Child>>);
    static SPAWNER: OnceLock<Sender<Job>> = OnceLock::new();

    let spawner = SPAWNER.get_or_init(|| {
        let (jobs, queue) = channel::<Job>();
        thread::spawn(move || {
            for (mut command, answer) in queue {
                // The one who asked is waiting.
                let _ = answer.send(command.spawn());
            }
        });
        jobs
    });
    let (answer, child) = channel();
    spawner.send((command, answer)).map_err(|_| io::Error::other("the spawning thread has ended"))?;
    child.recv().map_err(|_| io::Error::other("the spawning thread has ended"))?
}
