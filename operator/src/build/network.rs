//! Who may reach a job's pods.

use k8s_openapi::{
    api::networking::v1::{
        NetworkPolicy, NetworkPolicyIngressRule, NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec,
    },
    apimachinery::pkg::util::intstr::IntOrString,
};
use kube::ResourceExt;
use millrace_api::StreamJob;

use super::{
    BuildContext,
    labels::{JOB_LABEL, label_selector, labels_of_job, metadata},
    pod::{DATA_PORT, METRICS_PORT, REST_PORT, RPC_PORT},
};

/// The job's own pods and the operator reach all ports; whom the operator's settings name, that of the metrics.
pub(super) fn policy(context: &BuildContext, job: &StreamJob) -> NetworkPolicy {
    let name = job.name_any();
    let pods = label_selector([(JOB_LABEL.to_owned(), name.clone())].into());
    let own = NetworkPolicyPeer { pod_selector: Some(pods.clone()), ..NetworkPolicyPeer::default() };
    let namespace = ("kubernetes.io/metadata.name".to_owned(), context.operator_namespace.clone());
    let operator = NetworkPolicyPeer {
        namespace_selector: Some(label_selector([namespace].into())),
        pod_selector: Some(label_selector(context.operator_labels.clone())),
        ..NetworkPolicyPeer::default()
    };
    let mut ingress = vec![rule(&[RPC_PORT, REST_PORT, DATA_PORT, METRICS_PORT], vec![own, operator])];
    if !context.metrics_from.is_empty() {
        ingress.push(rule(&[METRICS_PORT], context.metrics_from.clone()));
    }
    NetworkPolicy {
        metadata: metadata(job, name.clone(), labels_of_job(&name)),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(pods),
            policy_types: Some(vec!["Ingress".to_owned()]),
            ingress: Some(ingress),
            ..NetworkPolicySpec::default()
        }),
    }
}

fn rule(ports: &[i32], from: Vec<NetworkPolicyPeer>) -> NetworkPolicyIngressRule {
    let port = |port: &i32| NetworkPolicyPort {
        port: Some(IntOrString::Int(*port)),
        protocol: Some("TCP".to_owned()),
        ..NetworkPolicyPort::default()
    };
    NetworkPolicyIngressRule { ports: Some(ports.iter().map(port).collect()), from: Some(from) }
}
