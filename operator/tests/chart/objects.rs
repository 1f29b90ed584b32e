//! Looking at rendered objects.

use std::collections::BTreeSet;

use serde_json::Value;

/// A text at a path such as `/metadata/name`; empty where there is none.
pub fn text<'a>(value: &'a Value, path: &str) -> &'a str {
    value.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

/// An object's kind, namespace and name.
pub fn identity(object: &Value) -> (String, String, String) {
    let of = |path| text(object, path).to_owned();
    (of("/kind"), of("/metadata/namespace"), of("/metadata/name"))
}

/// What is there, by kind, namespace and name.
pub fn identities(objects: &[Value]) -> BTreeSet<(String, String, String)> {
    let all: BTreeSet<_> = objects.iter().map(identity).collect();
    assert_eq!(all.len(), objects.len(), "each object is there once");
    all
}

/// The objects of a kind.
pub fn all<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    objects.iter().filter(|object| object["kind"] == kind).collect()
}

/// The one object of a kind.
pub fn one<'a>(objects: &'a [Value], kind: &str) -> &'a Value {
    let found = all(objects, kind);
    assert_eq!(found.len(), 1, "objects of the kind {kind}");
    found[0]
}

/// The specs of all pods that an object makes.
pub fn pod_specs(objects: &[Value]) -> Vec<(String, &Value)> {
    let spec = |object| match text(object, "/kind") {
        "Pod" => object.pointer("/spec"),
        _ => object.pointer("/spec/template/spec"),
    };
    objects.iter().filter_map(|object| spec(object).map(|spec| (text(object, "/metadata/name").into(), spec))).collect()
}

/// Whether a selector's labels are among these labels.
pub fn selects(selector: &Value, labels: &Value) -> bool {
    let selector = selector.as_object().expect("a selector");
    !selector.is_empty() && selector.iter().all(|(key, value)| &labels[key] == value)
}

/// What of a pod's spec the restricted Pod Security Standard forbids.
pub fn violations(spec: &Value) -> Vec<String> {
    let mut found = Vec::new();
    let mut demand = |holds: bool, what: String| {
        if !holds {
            found.push(what);
        }
    };
    for field in ["hostNetwork", "hostPID", "hostIPC"] {
        demand(spec[field].is_null(), format!("{field} is set"));
    }
    const VOLUMES: [&str; 8] =
        ["configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"];
    for volume in spec["volumes"].as_array().into_iter().flatten() {
        let allowed = VOLUMES.iter().any(|kind| !volume[kind].is_null());
        demand(allowed, format!("the volume {} is of a forbidden kind", volume["name"]));
    }
    let pod = &spec["securityContext"];
    let containers =
        ["initContainers", "containers"].into_iter().flat_map(|of| spec[of].as_array().into_iter().flatten());
    for container in containers {
        let (own, name) = (&container["securityContext"], &container["name"]);
        let either = |field: &str| if own[field].is_null() { &pod[field] } else { &own[field] };
        demand(either("runAsNonRoot") == true, format!("{name} may run as root"));
        demand(either("runAsUser") != 0, format!("{name} runs as root"));
        demand(either("seccompProfile")["type"] == "RuntimeDefault", format!("{name} has no seccomp profile"));
        demand(own["allowPrivilegeEscalation"] == false, format!("{name} may gain privileges"));
        demand(own["privileged"].is_null(), format!("{name} is privileged"));
        let drops = own["capabilities"]["drop"].as_array().is_some_and(|drop| drop.iter().any(|name| name == "ALL"));
        demand(drops && own["capabilities"]["add"].is_null(), format!("{name} has capabilities"));
        for port in container["ports"].as_array().into_iter().flatten() {
            demand(port["hostPort"].is_null(), format!("{name} takes a port of the host"));
        }
    }
    found
}
