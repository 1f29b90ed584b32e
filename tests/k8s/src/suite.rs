//! A suite of cases on one cluster: each in a namespace of its own, several at once or one after the other.

use std::{
    env,
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
    sync::Arc,
    time::Instant,
};

use libtest_mimic::{Arguments, Failed, Trial};
use tokio::runtime::Runtime;

use crate::{
    Result,
    cluster::{Cluster, Release, Services},
    load::Place,
};

/// Set: a machine that cannot run a cluster is a failure, not a reason to skip all.
const REQUIRED: &str = "MILLRACE_TEST_CLUSTER_REQUIRED";
/// How many cases run at once, unless `--test-threads` says something else.
const AT_ONCE: usize = 3;

/// What cases share.
pub struct Suite {
    // Dropped in this order: services end before the address that they listen on goes with the cluster.
    /// MinIO and Kafka.
    pub services: Services,
    /// The operator for all namespaces.
    pub release: Release,
    /// The cluster.
    pub cluster: Cluster,
    runtime: Runtime,
}

/// A case.
pub struct Case {
    name: &'static str,
    run: fn(&Suite) -> Result<()>,
}

impl Case {
    /// A case with a name.
    pub fn new(name: &'static str, run: fn(&Suite) -> Result<()>) -> Self {
        Self { name, run }
    }
}

/// Says that something is not tested, and why.
pub fn skipped(what: &str, why: &str) {
    eprintln!("SKIPPED: {what}: {why}");
}

impl Suite {
    fn start() -> Result<Result<Self, String>> {
        let runtime = Runtime::new()?;
        let cluster = match runtime.block_on(Cluster::up())? {
            Ok(cluster) => cluster,
            Err(why) => return Ok(Err(why)),
        };
        let services = Services::start(cluster.host)?;
        let release = runtime.block_on(Release::install(&cluster, "millrace", "millrace-system", &[]))?;
        Ok(Ok(Self { services, release, cluster, runtime }))
    }

    /// Runs something asynchronous to its end.
    pub fn block_on<T>(&self, work: impl Future<Output = T>) -> T {
        self.runtime.block_on(work)
    }

    /// A namespace with bucket and topics.
    pub async fn namespace(&self, name: &str) -> Result<crate::cluster::Namespace<'_>> {
        crate::cluster::Namespace::create(&self.cluster, name).await
    }

    /// Bucket and topics for a namespace.
    pub async fn place(&self, namespace: &crate::cluster::Namespace<'_>) -> Result<Place> {
        Place::create(namespace, &self.services).await
    }
}

/// Runs the cases: first those that bear company, several at once, then the others, one by one in this order. The
/// arguments are those of any test binary of Cargo's.
pub fn main(together: Vec<Case>, alone: Vec<Case>) -> ExitCode {
    let mut arguments = Arguments::from_args();
    if arguments.list {
        return libtest_mimic::run(&arguments, trials(together.into_iter().chain(alone), None)).exit_code();
    }
    let wanted = |case: &&Case| is_wanted(&arguments, case.name);
    if !together.iter().chain(&alone).any(|case| wanted(&case)) {
        return ExitCode::SUCCESS;
    }
    let started = Instant::now();
    let suite = match Suite::start() {
        Ok(Ok(suite)) => Arc::new(suite),
        Ok(Err(why)) if env::var_os(REQUIRED).is_some_and(|value| !value.is_empty()) => {
            eprintln!("{REQUIRED} is set, and no test on a cluster could be run: {why}");
            return ExitCode::FAILURE;
        }
        Ok(Err(why)) => {
            skipped("all tests on a cluster", &why);
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("the cluster is not ready for tests: {error:#}");
            return ExitCode::FAILURE;
        }
    };
    println!("cluster, services and operator are ready after {:.1} s", started.elapsed().as_secs_f64());
    arguments.test_threads = arguments.test_threads.or(Some(AT_ONCE));
    let first = libtest_mimic::run(&arguments, trials(together, Some(&suite)));
    arguments.test_threads = Some(1);
    let second = libtest_mimic::run(&arguments, trials(alone, Some(&suite)));
    println!("everything took {:.1} s", started.elapsed().as_secs_f64());
    let failed = first.has_failed() || second.has_failed();
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn is_wanted(arguments: &Arguments, name: &str) -> bool {
    let matches = |filter: &str| if arguments.exact { name == filter } else { name.contains(filter) };
    let wanted = arguments.filter.as_deref().is_none_or(matches);
    wanted && !arguments.skip.iter().any(|filter| matches(filter))
}

fn trials(cases: impl IntoIterator<Item = Case>, suite: Option<&Arc<Suite>>) -> Vec<Trial> {
    let trial = |Case { name, run }| {
        let suite = suite.cloned();
        Trial::test(name, move || {
            let Some(suite) = suite else { return Ok(()) };
            let started = Instant::now();
            let result = catch_unwind(AssertUnwindSafe(|| run(&suite)));
            let (outcome, result) = match result {
                Ok(Ok(())) => ("ok", Ok(())),
                Ok(Err(error)) => ("FAILED", Err(Failed::from(format!("{error:#}")))),
                Err(panic) => ("FAILED", Err(Failed::from(message(&panic)))),
            };
            println!("{name}: {outcome} after {:.1} s", started.elapsed().as_secs_f64());
            result
        })
    };
    cases.into_iter().map(trial).collect()
}

fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without a message").to_owned()
}
