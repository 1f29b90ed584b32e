//! The operator's settings: flags, or variables `MILLRACE_OPERATOR_*`.

use std::{collections::BTreeMap, time::Duration};

use clap::{ArgAction, Parser, Subcommand, ValueEnum};
use k8s_openapi::{api::networking::v1::NetworkPolicyPeer, apimachinery::pkg::apis::meta::v1::LabelSelector};

use crate::{build::BuildContext, check::Check};

/// Runs StreamJobs on Kubernetes.
#[derive(Clone, Debug, Parser)]
#[command(name = "millrace-operator", version)]
pub struct Settings {
    /// What to do instead of running.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// The namespaces whose StreamJobs are run, with commas between them. Empty: all.
    #[arg(long, env = "MILLRACE_OPERATOR_WATCH_NAMESPACES", value_delimiter = ',', value_parser = namespace)]
    pub watch_namespaces: Vec<String>,
    /// The namespace that the operator runs in. Unset: that of its service account or kubeconfig.
    #[arg(long, env = "MILLRACE_OPERATOR_NAMESPACE", value_parser = namespace)]
    pub namespace: Option<String>,
    /// The operator's name in the lease and in events. Unset: the host's name, which is the pod's.
    #[arg(long, env = "MILLRACE_OPERATOR_POD_NAME")]
    pub pod_name: Option<String>,
    /// Whether one of several replicas is elected to do the work.
    #[arg(long, env = "MILLRACE_OPERATOR_LEADER_ELECTION", default_value_t = true, action = ArgAction::Set)]
    pub leader_election: bool,
    /// The name of the lease that the elected replica holds.
    #[arg(long, env = "MILLRACE_OPERATOR_LEASE_NAME", default_value = "millrace-operator")]
    pub lease_name: String,
    /// How often a running job is asked for its numbers.
    #[arg(long, env = "MILLRACE_OPERATOR_POLL_INTERVAL", default_value = "5s", value_parser = poll_interval)]
    pub poll_interval: Duration,
    /// How many jobs are reconciled at the same time.
    #[arg(long, env = "MILLRACE_OPERATOR_CONCURRENCY", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub concurrency: u16,
    /// The port of /metrics.
    #[arg(long, env = "MILLRACE_OPERATOR_METRICS_PORT", default_value_t = 8080)]
    pub metrics_port: u16,
    /// The port of /healthz and /readyz.
    #[arg(long, env = "MILLRACE_OPERATOR_HEALTH_PORT", default_value_t = 8081)]
    pub health_port: u16,
    /// The labels of the operator's pods, which may reach jobs: key=value, with commas between them.
    #[arg(long, env = "MILLRACE_OPERATOR_LABELS", default_value = "app.kubernetes.io/name=millrace-operator", value_parser = labels)]
    pub operator_labels: Labels,
    /// The labels of the namespaces whose pods may read the metrics of jobs: key=value, with commas between them. With
    /// metrics-pod-labels empty too: all namespaces.
    #[arg(long, env = "MILLRACE_OPERATOR_METRICS_NAMESPACE_LABELS", default_value = "", value_parser = labels)]
    pub metrics_namespace_labels: Labels,
    /// The labels of the pods that may read the metrics of jobs: key=value, with commas between them.
    #[arg(long, env = "MILLRACE_OPERATOR_METRICS_POD_LABELS", default_value = "", value_parser = labels)]
    pub metrics_pod_labels: Labels,
    /// What is logged: a level, or levels by module, such as info,millrace_operator=debug.
    #[arg(long, env = "MILLRACE_OPERATOR_LOG_LEVEL", default_value = "info")]
    pub log_level: String,
    /// How logs are written.
    #[arg(long, env = "MILLRACE_OPERATOR_LOG_FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
}

/// What the program does beside running.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Asks an address until it answers.
    Check(Check),
}

/// How logs are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// A JSON object a line.
    Json,
}

/// Labels by their keys.
pub type Labels = BTreeMap<String, String>;

impl Settings {
    /// The scopes that are watched: namespaces, or all at once.
    pub fn scopes(&self) -> Vec<Option<String>> {
        let mut names: Vec<_> = self.watch_namespaces.iter().filter(|name| !name.is_empty()).cloned().collect();
        names.sort();
        names.dedup();
        if names.is_empty() { vec![None] } else { names.into_iter().map(Some).collect() }
    }

    /// What the objects of jobs are made with, of an operator in `namespace`.
    pub fn build_context(&self, namespace: &str) -> BuildContext {
        let selector = |labels: &Labels| LabelSelector {
            match_labels: (!labels.is_empty()).then(|| labels.clone()),
            match_expressions: None,
        };
        let from = NetworkPolicyPeer {
            namespace_selector: Some(selector(&self.metrics_namespace_labels)),
            pod_selector: (!self.metrics_pod_labels.is_empty()).then(|| selector(&self.metrics_pod_labels)),
            ip_block: None,
        };
        BuildContext {
            operator_namespace: namespace.to_owned(),
            operator_labels: self.operator_labels.clone(),
            metrics_from: vec![from],
        }
    }
}

fn namespace(text: &str) -> Result<String, String> {
    let label = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let fits = text.len() <= 63 && text.chars().all(label) && !text.starts_with('-') && !text.ends_with('-');
    if fits { Ok(text.to_owned()) } else { Err("no name of a namespace: lower-case letters, digits and -".to_owned()) }
}

fn poll_interval(text: &str) -> Result<Duration, String> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let number: u64 = number.parse().map_err(|_| "no duration: write a number and ms, s or m".to_owned())?;
    let interval = match unit {
        "ms" => Duration::from_millis(number),
        "s" => Duration::from_secs(number),
        "m" => Duration::from_secs(number.saturating_mul(60)),
        _ => return Err("no duration: write a number and ms, s or m".to_owned()),
    };
    let (least, most) = (Duration::from_secs(1), Duration::from_secs(3600));
    if (least..=most).contains(&interval) { Ok(interval) } else { Err("choose 1s to 60m".to_owned()) }
}

fn labels(text: &str) -> Result<Labels, String> {
    let mut labels = Labels::new();
    for label in text.split(',').map(str::trim).filter(|label| !label.is_empty()) {
        let (key, value) = label.split_once('=').ok_or_else(|| format!("{label:?} is no label: write key=value"))?;
        labels.insert(key.trim().to_owned(), value.trim().to_owned());
    }
    Ok(labels)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(arguments: &[&str]) -> Result<Settings, clap::Error> {
        Settings::try_parse_from(std::iter::once("millrace-operator").chain(arguments.iter().copied()))
    }

    #[test]
    fn without_flags_one_replica_of_all_works_in_all_namespaces_and_everybody_may_read_metrics() {
        let settings = parsed(&[]).unwrap();
        assert_eq!(settings.scopes(), [None]);
        assert!(settings.leader_election);
        assert_eq!(settings.poll_interval, Duration::from_secs(5));
        let context = settings.build_context("millrace");
        assert_eq!(context.operator_namespace, "millrace");
        assert_eq!(context.operator_labels["app.kubernetes.io/name"], "millrace-operator");
        let everybody =
            NetworkPolicyPeer { namespace_selector: Some(LabelSelector::default()), ..NetworkPolicyPeer::default() };
        assert_eq!(context.metrics_from, [everybody]);
    }

    #[test]
    fn flags_are_read() {
        let settings = parsed(&[
            "--watch-namespaces=b,a,b",
            "--leader-election=false",
            "--poll-interval=1500ms",
            "--metrics-pod-labels=app=prometheus, tier=x",
        ])
        .unwrap();
        assert_eq!(settings.scopes(), [Some("a".to_owned()), Some("b".to_owned())]);
        assert!(!settings.leader_election);
        assert_eq!(settings.poll_interval, Duration::from_millis(1500));
        let from = &settings.build_context("x").metrics_from[0];
        let pods = from.pod_selector.as_ref().unwrap().match_labels.as_ref().unwrap();
        assert_eq!((pods["app"].as_str(), pods["tier"].as_str()), ("prometheus", "x"));
    }

    #[test]
    fn an_empty_list_of_namespaces_is_all_of_them() {
        assert_eq!(parsed(&["--watch-namespaces="]).unwrap().scopes(), [None]);
    }

    #[test]
    fn wrong_values_are_refused_with_what_to_write() {
        for (argument, said) in [
            ("--poll-interval=5", "write a number and ms, s or m"),
            ("--poll-interval=10ms", "choose 1s to 60m"),
            ("--watch-namespaces=A_b", "no name of a namespace"),
            ("--operator-labels=app", "\"app\" is no label: write key=value"),
            ("--concurrency=0", "0 is not in 1..=1024"),
            ("--log-format=xml", "possible values: text, json"),
        ] {
            let error = parsed(&[argument]).unwrap_err().to_string();
            assert!(error.contains(said), "{argument}: {error}");
        }
    }
}
