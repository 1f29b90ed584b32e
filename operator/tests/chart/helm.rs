//! Running Helm on the chart.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde::Deserialize;
use serde_json::Value;

/// The version of Kubernetes that templates are rendered for.
const KUBE_VERSION: &str = "1.34.0";

/// The chart's folder.
pub fn chart() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/millrace")
}

/// Helm's program. A test without it fails: it never passes by doing nothing.
fn program() -> PathBuf {
    if let Some(path) = std::env::var_os("MILLRACE_HELM") {
        return path.into();
    }
    let cache = std::env::var_os("MILLRACE_CACHE").map(PathBuf::from).unwrap_or_else(|| {
        let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        let home = || PathBuf::from(std::env::var_os("HOME").expect("HOME is set")).join(".cache");
        base.unwrap_or_else(home).join("millrace")
    });
    let path = cache.join("kubernetes/helm");
    assert!(
        path.exists(),
        "Helm is not there ({}): run `make test`, or `scripts/fetch-kubernetes.sh`, or set MILLRACE_HELM",
        path.display()
    );
    path
}

/// Runs `helm ARGS` with values on its standard input.
fn helm(args: &[&str], values: &str) -> Output {
    let mut child = Command::new(program())
        .args(args)
        .env("KUBECONFIG", "/dev/null")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("helm starts");
    child.stdin.take().expect("a pipe").write_all(values.as_bytes()).expect("helm reads its values");
    child.wait_with_output().expect("helm ends")
}

/// What lint has to say with these values: nothing that it warns of.
pub fn lint(values: &str) -> Result<(), String> {
    let chart = chart();
    let chart = chart.to_str().expect("a path of text");
    let output = helm(&["lint", "--strict", "--kube-version", KUBE_VERSION, chart, "--values", "-"], values);
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(text) }
}

/// The objects that an installation makes, or why Helm refuses the values.
pub fn try_template(release: &str, namespace: &str, values: &str) -> Result<Vec<Value>, String> {
    let chart = chart();
    let chart = chart.to_str().expect("a path of text");
    let common = ["--namespace", namespace, "--kube-version", KUBE_VERSION, "--values", "-"];
    let output = helm(&[&["template", release, chart][..], &common].concat(), values);
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    Ok(documents(&String::from_utf8(output.stdout).expect("YAML is text")))
}

/// The objects that an installation makes.
pub fn template(release: &str, namespace: &str, values: &str) -> Vec<Value> {
    try_template(release, namespace, values).unwrap_or_else(|error| panic!("{error}\nwith the values:\n{values}"))
}

/// The documents of a YAML text.
pub fn documents(text: &str) -> Vec<Value> {
    serde_yaml_ng::Deserializer::from_str(text)
        .map(|document| Value::deserialize(document).expect("valid YAML"))
        .filter(|document| !document.is_null())
        .collect()
}
