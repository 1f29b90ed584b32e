//! The programs that users type: kubectl, helm and the project's scripts.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::OnceLock,
};

use crate::{Context, Result, bail, ensure};

/// The project's own directory.
pub fn project() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).expect("the package lies in tests/k8s")
}

/// What a command wrote, and whether it was content.
#[derive(Clone, Debug)]
pub struct Written {
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
    /// Whether it exited with 0.
    pub success: bool,
    /// What it exited with; none: a signal ended it.
    pub code: Option<i32>,
}

/// Runs a command to its end, whatever that is.
pub fn run(command: &mut Command) -> Result<Written> {
    let line = || format!("{command:?}");
    let described = line();
    let Output { status, stdout, stderr } = command.output().with_context(|| format!("starting {described}"))?;
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Ok(Written { stdout: text(stdout), stderr: text(stderr), success: status.success(), code: status.code() })
}

/// Runs a command that must succeed. Returns its standard output.
pub fn succeed(command: &mut Command) -> Result<String> {
    let written = run(command)?;
    let Written { stdout, stderr, success, code } = written;
    ensure!(success, "{command:?} exited with {code:?}\n{stdout}{stderr}");
    Ok(stdout)
}

/// A script of the project.
pub fn script(path: &str) -> Command {
    let mut command = Command::new(project().join(path));
    command.current_dir(project());
    command
}

/// Where everything is kept that is fetched or built once: as `scripts/cache.sh` says.
pub fn cache() -> PathBuf {
    let set = |name: &str| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let caches = || set("XDG_CACHE_HOME").unwrap_or_else(|| set("HOME").unwrap_or_default().join(".cache"));
    set("MILLRACE_CACHE").unwrap_or_else(|| caches().join("millrace"))
}

/// The directory with kubectl and helm; the first call of a machine builds them.
fn tools() -> Result<&'static Path> {
    static TOOLS: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let fetch = || {
        let printed = succeed(&mut script("scripts/fetch-kubernetes.sh")).map_err(|error| format!("{error:#}"))?;
        Ok(PathBuf::from(printed.trim()))
    };
    match TOOLS.get_or_init(fetch) {
        Ok(path) => Ok(path),
        Err(error) => bail!("{error}"),
    }
}

/// `kubectl` or `helm`, on the cluster of a kubeconfig.
pub fn tool(name: &str, kubeconfig: &Path) -> Result<Command> {
    let mut command = Command::new(tools()?.join(name));
    command.current_dir(project()).env("KUBECONFIG", kubeconfig);
    Ok(command)
}
