//! The arrows between the crates, as `docs/architecture.md` draws them.

use std::{collections::BTreeSet, process::Command};

use serde_json::Value;

/// Each crate, the crates of this workspace that it may depend on, and what it must not know.
const ARROWS: &[(&str, &[&str], &[&str])] = &[
    ("millrace-core", &[], &["tokio", "kube", "rdkafka", "object_store", "reqwest", "axum"]),
    ("millrace-state", &["millrace-core"], &["kube", "rdkafka", "axum"]),
    ("millrace-state-rocksdb", &["millrace-core", "millrace-state"], &["tokio", "kube", "rdkafka", "axum"]),
    ("millrace-runtime", &["millrace-core", "millrace-state"], &["kube", "rdkafka", "axum"]),
    (
        "millrace-worker",
        &["millrace-core", "millrace-state", "millrace-state-rocksdb", "millrace-runtime"],
        &["kube", "rdkafka"],
    ),
    ("millrace-connectors", &["millrace-core"], &["kube"]),
    (
        "millrace",
        &[
            "millrace-core",
            "millrace-state",
            "millrace-state-rocksdb",
            "millrace-runtime",
            "millrace-worker",
            "millrace-connectors",
        ],
        &["kube"],
    ),
    ("millrace-api", &[], &["tokio", "rdkafka", "object_store", "reqwest"]),
    ("millrace-operator", &["millrace-api", "millrace-core"], &["rdkafka", "object_store"]),
    ("millrace-testkit", &["millrace-core", "millrace-state", "millrace-runtime"], &[]),
    ("millrace-ui-tests", &["millrace"], &[]),
    ("millrace-examples", &["millrace"], &[]),
    ("millrace-benches", &["millrace", "millrace-testkit"], &[]),
    ("millrace-k8s-tests", &["millrace-testkit", "millrace-tests"], &[]),
    ("millrace-tests", &["millrace", "millrace-core", "millrace-state", "millrace-runtime", "millrace-testkit"], &[]),
];
/// What tests may use beside that.
const TEST_SUPPORT: &str = "millrace-testkit";

#[derive(Debug)]
struct Dependency {
    name: String,
    is_for_tests: bool,
}

#[derive(Debug)]
struct Package {
    name: String,
    dependencies: Vec<Dependency>,
}

fn workspace() -> Vec<Package> {
    let metadata = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(metadata.status.success(), "{}", String::from_utf8_lossy(&metadata.stderr));
    let metadata: Value = serde_json::from_slice(&metadata.stdout).expect("cargo writes JSON");
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    let dependency =
        |dependency: &Value| Dependency { name: text(&dependency["name"]), is_for_tests: dependency["kind"] == "dev" };
    let package = |package: &Value| Package {
        name: text(&package["name"]),
        dependencies: package["dependencies"].as_array().into_iter().flatten().map(dependency).collect(),
    };
    metadata["packages"].as_array().into_iter().flatten().map(package).collect()
}

/// What a package does that it may not, as sentences.
fn violations(package: &Package, of_workspace: &BTreeSet<String>) -> Vec<String> {
    let name = &package.name;
    let Some((_, may, must_not)) = ARROWS.iter().find(|(known, ..)| known == name) else {
        return vec![format!("{name} is not in ARROWS: say there, and in docs/architecture.md, what it may know")];
    };
    let wrong = |dependency: &&Dependency| {
        let to = dependency.name.as_str();
        let for_tests = dependency.is_for_tests && (to == TEST_SUPPORT || !of_workspace.contains(to));
        let is_arrow = of_workspace.contains(to) && !may.contains(&to);
        let is_forbidden = must_not.iter().any(|not| to == *not || to.starts_with(&format!("{not}-")));
        !for_tests && (is_arrow || is_forbidden)
    };
    package.dependencies.iter().filter(wrong).map(|to| format!("{name} must not depend on {}", to.name)).collect()
}

#[test]
fn every_arrow_is_one_of_the_architecture() {
    let packages = workspace();
    let of_workspace: BTreeSet<_> = packages.iter().map(|package| package.name.clone()).collect();
    assert!(
        of_workspace.len() >= 9 && of_workspace.contains("millrace-core"),
        "the workspace is seen: {of_workspace:?}"
    );
    let wrong: Vec<_> = packages.iter().flat_map(|package| violations(package, &of_workspace)).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn an_arrow_that_is_not_allowed_is_found() {
    let of_workspace = ARROWS.iter().map(|(name, ..)| (*name).to_owned()).collect();
    let of = |name: &str, to: &str, is_for_tests| {
        let dependencies = vec![Dependency { name: to.to_owned(), is_for_tests }];
        violations(&Package { name: name.to_owned(), dependencies }, &of_workspace)
    };
    assert_eq!(of("millrace-state", "millrace-runtime", false), ["millrace-state must not depend on millrace-runtime"]);
    assert_eq!(of("millrace-connectors", "millrace-runtime", true).len(), 1, "not for its tests either");
    assert_eq!(of("millrace-core", "tokio-util", false), ["millrace-core must not depend on tokio-util"]);
    assert_eq!(of("millrace-runtime", "rdkafka", false), ["millrace-runtime must not depend on rdkafka"]);
    assert_eq!(of("millrace-worker", "kube", false), ["millrace-worker must not depend on kube"]);
    assert_eq!(of("millrace-api", "millrace-core", false), ["millrace-api must not depend on millrace-core"]);
    assert_eq!(
        of("millrace-operator", "millrace-worker", false),
        ["millrace-operator must not depend on millrace-worker"]
    );
    assert_eq!(of("millrace-something", "serde", false).len(), 1, "a crate that nobody has placed");
    assert!(of("millrace-state", "millrace-testkit", true).is_empty() && of("millrace", "tokio", false).is_empty());
}
