//! The cluster, with the images in it.

mod identity;
mod namespace;
mod node;
mod release;
mod services;

use std::{
    env,
    net::IpAddr,
    path::{Path, PathBuf},
    process::Command,
};

use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};

use crate::{
    Context, Result, bail,
    commands::{cache, run, script, succeed, tool},
};

pub use identity::{IdentityAgent, TOKEN_AUDIENCE};
pub use namespace::{CREDENTIALS, Namespace};
pub use node::{Cut, Node};
pub use release::{OPERATOR_SELECTOR, Release};
pub use services::Services;

/// What `tests/cluster/up.sh` exits with where the machine cannot run a cluster.
const CANNOT: i32 = 77;
/// The machine as the pods of the project's own cluster see it.
const OWN_HOST: &str = "10.99.0.2";

/// The operator's image.
pub const OPERATOR_IMAGE: &str = concat!("millrace/operator:", env!("CARGO_PKG_VERSION"));
/// The stock worker's image.
pub const WORKER_IMAGE: &str = concat!("millrace/worker:", env!("CARGO_PKG_VERSION"));
/// The same under another name: what jobs are upgraded to.
pub const NEXT_WORKER_IMAGE: &str = "millrace/worker:next";

/// A cluster to test on. One that was brought up for this goes when this is dropped.
pub struct Cluster {
    /// A client with all rights.
    pub client: Client,
    /// What kubectl and helm are given.
    pub kubeconfig: PathBuf,
    /// At which address pods reach this machine.
    pub host: IpAddr,
    /// The only node, if it is the project's own.
    pub node: Option<Node>,
    brought_up: bool,
}

impl Cluster {
    /// Brings a cluster up with the images in it, or takes the one that is named or runs. `Err` within: this machine
    /// cannot, and why.
    pub async fn up() -> Result<Result<Self, String>> {
        if let Some(kubeconfig) = env::var_os("MILLRACE_TEST_KUBECONFIG").filter(|path| !path.is_empty()) {
            return Self::foreign(kubeconfig.into()).await.map(Ok);
        }
        let state = env::var_os("MILLRACE_CLUSTER").map_or_else(|| cache().join("cluster"), PathBuf::from);
        let ran_before = state.join("admin.kubeconfig").exists();
        let up = run(&mut script("tests/cluster/up.sh"))?;
        if up.code == Some(CANNOT) {
            return Ok(Err(up.stderr.trim().to_owned()));
        }
        if !up.success {
            bail!("tests/cluster/up.sh failed ({:?})\n{}", up.code, up.stderr);
        }
        let kubeconfig = PathBuf::from(up.stdout.trim());
        // From here on it is taken down whatever happens.
        let own = Own { down: !ran_before };
        load_images()?;
        let client = client(&kubeconfig).await?;
        let host = OWN_HOST.parse().expect("an address");
        Ok(Ok(Self { client, kubeconfig, host, node: Some(Node), brought_up: own.keep() }))
    }

    async fn foreign(kubeconfig: PathBuf) -> Result<Self> {
        let host = env::var("MILLRACE_TEST_HOST_ADDRESS").ok().filter(|host| !host.is_empty());
        let host = host.context(
            "MILLRACE_TEST_HOST_ADDRESS is not set: with MILLRACE_TEST_KUBECONFIG say at which address of this machine \
             the pods of that cluster reach it",
        )?;
        let host = host.parse().with_context(|| format!("MILLRACE_TEST_HOST_ADDRESS={host} is no IP address"))?;
        Ok(Self { client: client(&kubeconfig).await?, kubeconfig, host, node: None, brought_up: false })
    }

    /// kubectl, as a user runs it.
    pub fn kubectl(&self) -> Result<Command> {
        tool("kubectl", &self.kubeconfig)
    }

    /// helm, as a user runs it.
    pub fn helm(&self) -> Result<Command> {
        tool("helm", &self.kubeconfig)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        drop(Own { down: self.brought_up });
    }
}

/// Takes the project's own cluster down when it is dropped.
struct Own {
    down: bool,
}

impl Own {
    /// Leaves that to somebody else. Returns whether it is to be done.
    fn keep(mut self) -> bool {
        std::mem::take(&mut self.down)
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        if self.down
            && let Err(error) = succeed(&mut script("tests/cluster/down.sh"))
        {
            eprintln!("the cluster could not be taken down: {error:#}");
        }
    }
}

async fn client(kubeconfig: &Path) -> Result<Client> {
    let read = Kubeconfig::read_from(kubeconfig).with_context(|| format!("reading {}", kubeconfig.display()))?;
    let config = Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

/// Loads operator and worker into the project's own cluster.
fn load_images() -> Result<()> {
    let directory = match env::var_os("MILLRACE_TEST_IMAGES").filter(|path| !path.is_empty()) {
        Some(directory) => PathBuf::from(directory),
        None => {
            let directory = cache().join("images");
            // As the tests were built, so that little is left to be built.
            let profile = if cfg!(debug_assertions) { "dev" } else { "release" };
            succeed(script("scripts/build-images.sh").args(["--profile", profile]).arg(&directory))?;
            directory
        }
    };
    let images = ["operator.tar", "worker.tar"].map(|file| directory.join(file));
    succeed(script("tests/cluster/load-image.sh").args(images))?;
    Node.tag(WORKER_IMAGE, NEXT_WORKER_IMAGE)
}
