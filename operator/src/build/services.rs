//! How a job's pods are found.

use k8s_openapi::{
    api::core::v1::{Service, ServicePort, ServiceSpec},
    apimachinery::pkg::util::intstr::IntOrString,
};
use millrace_api::StreamJob;

use super::{
    labels::{Component, labels, metadata, name_of, selector},
    pod::ports,
};

/// The jobmanager's address, or the taskmanagers' names.
pub(super) fn service(job: &StreamJob, component: Component) -> Service {
    let port = |(name, port): (&str, i32)| ServicePort {
        name: Some(name.to_owned()),
        port,
        protocol: Some("TCP".to_owned()),
        target_port: Some(IntOrString::String(name.to_owned())),
        ..ServicePort::default()
    };
    let is_headless = component == Component::TaskManager;
    Service {
        metadata: metadata(job, name_of(job, component), labels(job, component)),
        spec: Some(ServiceSpec {
            type_: Some("ClusterIP".to_owned()),
            cluster_ip: is_headless.then(|| "None".to_owned()),
            selector: Some(selector(job, component)),
            ports: Some(ports(component).iter().copied().map(port).collect()),
            // A jobmanager takes registrations before it is ready, and one that is not says why.
            publish_not_ready_addresses: Some(true),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}
