//! The chart, linted and rendered by Helm over sets of values.

mod helm;
mod objects;
mod refused;
mod rights;

use std::{collections::BTreeSet, fs, path::Path};

use helm::{chart, documents, lint, template};
use objects::{all, identities, one, pod_specs, selects, text, violations};
use serde_json::{Value, json};

/// Every value away from its default.
const FULL: &str = include_str!("full.yaml");
/// A second installation for one team's namespaces.
const NAMESPACED: &str = "{watchNamespaces: [team-a, team-b], crds: {enabled: false}}";
const SETS: [&str; 5] = [
    "{}",
    FULL,
    NAMESPACED,
    "{replicas: 0, rbac: {create: false}, serviceAccount: {create: false}}",
    "{networkPolicy: {enabled: true}, replicas: 2}",
];

#[test]
fn lint_finds_nothing_over_sets_of_values() {
    for values in SETS {
        lint(values).unwrap_or_else(|error| panic!("{error}\nwith the values:\n{values}"));
    }
}

#[test]
fn the_full_set_sets_every_value() {
    fn paths(value: &Value, path: &str, found: &mut BTreeSet<String>) {
        match value.as_object().filter(|fields| !fields.is_empty()) {
            Some(fields) => fields.iter().for_each(|(key, value)| paths(value, &format!("{path}/{key}"), found)),
            None => drop(found.insert(path.to_owned())),
        }
    }
    let read = |text: &str| documents(text).remove(0);
    let (defaults, full) = (read(&fs::read_to_string(chart().join("values.yaml")).unwrap()), read(FULL));
    let mut known = BTreeSet::new();
    paths(&defaults, "", &mut known);
    let missing: Vec<_> = known.iter().filter(|path| full.pointer(path).is_none()).collect();
    assert!(missing.is_empty(), "full.yaml does not set {missing:?}");
    // What has to stay: other security contexts do not pass the restricted standard, and the account is named here.
    let same = known.iter().filter(|path| full.pointer(path) == defaults.pointer(path));
    let rest: Vec<_> = same.filter(|path| !path.to_lowercase().contains("securitycontext")).collect();
    assert_eq!(rest, ["/serviceAccount/create"]);
}

#[test]
fn versions_are_the_workspace_s() {
    let chart = documents(&fs::read_to_string(chart().join("Chart.yaml")).unwrap()).remove(0);
    assert_eq!((text(&chart, "/version"), text(&chart, "/appVersion")), (VERSION, VERSION));
}
const VERSION: &str = env!("CARGO_PKG_VERSION");

#[test]
fn no_values_are_needed() {
    let objects = template("millrace", "streaming", "{}");
    let expected = [
        ("ClusterRole", "", "millrace-operator:streaming"),
        ("ClusterRole", "", "millrace-operator:streaming:edit"),
        ("ClusterRole", "", "millrace-operator:streaming:view"),
        ("ClusterRoleBinding", "", "millrace-operator:streaming"),
        ("CustomResourceDefinition", "", "streamjobs.millrace.dev"),
        ("Deployment", "streaming", "millrace-operator"),
        ("Pod", "streaming", "millrace-operator-test"),
        ("Role", "streaming", "millrace-operator-leader-election"),
        ("RoleBinding", "streaming", "millrace-operator-leader-election"),
        ("Service", "streaming", "millrace-operator"),
        ("ServiceAccount", "streaming", "millrace-operator"),
    ];
    let expected = expected.map(|(kind, namespace, name)| (kind.into(), namespace.into(), name.into()));
    assert_eq!(identities(&objects), BTreeSet::from(expected));

    let pod = &one(&objects, "Deployment")["spec"]["template"]["spec"];
    assert_eq!(pod["containers"][0]["image"], format!("millrace/operator:{VERSION}"));
    assert!(pod["containers"][0]["command"].is_null(), "the image knows its program");
    assert_eq!(pod["volumes"], Value::Null);
}

#[test]
fn the_crd_is_the_generated_one_and_stays_when_the_release_goes() {
    let objects = template("millrace", "streaming", "{}");
    let rendered = one(&objects, "CustomResourceDefinition");
    assert_eq!(rendered["metadata"]["annotations"]["helm.sh/resource-policy"], "keep");
    // crdgen's own test holds this file to the types.
    let file = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../crds/streamjobs.millrace.dev.yaml"));
    assert!(
        rendered["spec"] == documents(&file.unwrap())[0]["spec"],
        "the chart's CRD is not the one of crds/: run crdgen"
    );
    assert!(all(&template("millrace", "streaming", "{crds: {enabled: false}}"), "CustomResourceDefinition").is_empty());
}

#[test]
fn every_pod_passes_the_restricted_standard() {
    let mut pods = 0;
    let dev = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/dev");
    let files = fs::read_dir(dev).unwrap().map(|file| documents(&fs::read_to_string(file.unwrap().path()).unwrap()));
    for objects in SETS.map(|values| template("millrace", "streaming", values)).into_iter().chain(files) {
        for (name, spec) in pod_specs(&objects) {
            assert_eq!(violations(spec), Vec::<String>::new(), "{name}");
            pods += 1;
        }
    }
    assert_eq!(pods, SETS.len() * 2 + 2, "operator and test of each set, MinIO and Kafka");
}

#[test]
fn a_pod_that_breaks_the_restricted_standard_is_found() {
    let objects = template("millrace", "streaming", "{}");
    let (_, good) = &pod_specs(&objects)[0];
    let changes = [
        ("/hostNetwork", json!(true)),
        ("/volumes", json!([{"name": "host", "hostPath": {"path": "/"}}])),
        ("/securityContext/runAsNonRoot", json!(false)),
        ("/securityContext/seccompProfile", Value::Null),
        ("/containers/0/securityContext/allowPrivilegeEscalation", Value::Null),
        ("/containers/0/securityContext/privileged", json!(true)),
        ("/containers/0/securityContext/runAsUser", json!(0)),
        ("/containers/0/securityContext/capabilities", json!({"drop": ["ALL"], "add": ["NET_RAW"]})),
    ];
    for (path, value) in changes {
        let mut bad = (*good).clone();
        let (parent, field) = path.rsplit_once('/').unwrap();
        bad.pointer_mut(parent).unwrap()[field] = value;
        assert_eq!(violations(&bad).len(), 1, "{path}");
    }
}

#[test]
fn every_value_reaches_its_place() {
    let objects = template("full", "streaming", FULL);
    let full = documents(FULL).remove(0);
    let deployment = one(&objects, "Deployment");
    let template = &deployment["spec"]["template"];
    let (pod, container) = (&template["spec"], &template["spec"]["containers"][0]);
    assert_eq!(deployment["spec"]["replicas"], 3);
    let digest = format!("sha256:{}", "0123456789abcdef".repeat(4));
    for field in ["imagePullSecrets", "priorityClassName", "nodeSelector", "tolerations", "affinity"] {
        assert_eq!(pod[field], full[field], "{field}");
    }
    assert_eq!(pod["topologySpreadConstraints"], full["topologySpreadConstraints"]);
    assert_eq!(
        (&pod["securityContext"], &container["securityContext"]),
        (&full["podSecurityContext"], &full["securityContext"])
    );
    for spec in [pod, &one(&objects, "Pod")["spec"]] {
        let container = &spec["containers"][0];
        assert_eq!(container["image"], format!("example.test/millrace/operator@{digest}"));
        assert_eq!((&container["imagePullPolicy"], &container["resources"]), (&json!("Always"), &full["resources"]));
        assert_eq!(spec["imagePullSecrets"], full["imagePullSecrets"]);
    }
    assert_eq!(template["metadata"]["annotations"], full["podAnnotations"]);
    assert_eq!(template["metadata"]["labels"]["team"], "streaming");
    assert!(container["env"].as_array().unwrap().contains(&full["extraEnv"][0]));

    let account = one(&objects, "ServiceAccount");
    assert_eq!((text(account, "/metadata/name"), text(pod, "/serviceAccountName")), ("runner", "runner"));
    assert_eq!(account["metadata"]["annotations"], full["serviceAccount"]["annotations"]);
    let monitor = one(&objects, "ServiceMonitor");
    assert_eq!(
        (text(monitor, "/metadata/labels/release"), text(monitor, "/spec/endpoints/0/interval")),
        ("prometheus", "10s")
    );
    let from = one(&objects, "NetworkPolicy")["spec"]["ingress"][0]["from"].as_array().unwrap();
    assert!(from.contains(&full["networkPolicy"]["metricsFrom"][0]) && from.len() == 2, "and helm test's pod");
    assert!(all(&objects, "ClusterRole").is_empty() && all(&objects, "CustomResourceDefinition").is_empty());

    let without_digest = FULL.replace(&digest, "");
    let objects = helm::template("full", "streaming", &without_digest);
    assert_eq!(
        one(&objects, "Deployment")["spec"]["template"]["spec"]["containers"][0]["image"],
        "example.test/millrace/operator:next"
    );
}

#[test]
fn selectors_find_the_operator_and_nothing_else() {
    let objects = template("full", "streaming", FULL);
    let labels = &one(&objects, "Deployment")["spec"]["template"]["metadata"]["labels"];
    let service = one(&objects, "Service");
    let selectors = [
        &one(&objects, "Deployment")["spec"]["selector"]["matchLabels"],
        &service["spec"]["selector"],
        &one(&objects, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"],
        &one(&objects, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"],
    ];
    for selector in selectors {
        assert!(selects(selector, labels), "{selector}");
        assert!(!selects(selector, &one(&objects, "Pod")["metadata"]["labels"]), "not helm test's pod: {selector}");
        let other = template("other", "streaming", FULL);
        assert!(!selects(selector, &one(&other, "Deployment")["spec"]["template"]["metadata"]["labels"]), "{selector}");
    }
    assert!(selects(
        &one(&objects, "ServiceMonitor")["spec"]["selector"]["matchLabels"],
        &service["metadata"]["labels"]
    ));
}

#[test]
fn a_budget_needs_several_replicas() {
    assert!(all(&template("millrace", "streaming", "{replicas: 1}"), "PodDisruptionBudget").is_empty());
    let objects = template("millrace", "streaming", "{replicas: 2}");
    assert_eq!(one(&objects, "PodDisruptionBudget")["spec"]["maxUnavailable"], 1);
}

#[test]
fn two_releases_share_no_object() {
    let second = "{crds: {enabled: false}}";
    let first = identities(&template("millrace", "one", "{replicas: 2, networkPolicy: {enabled: true}}"));
    for (release, namespace) in [("millrace", "two"), ("other", "one"), ("other", "two")] {
        for values in [second, NAMESPACED] {
            let shared: Vec<_> =
                first.intersection(&identities(&template(release, namespace, values))).cloned().collect();
            assert!(shared.is_empty(), "{release} in {namespace}: {shared:?}");
        }
    }
    // Also where both watch a namespace, one after the other.
    let (one, two) = (template("millrace", "one", NAMESPACED), template("millrace", "two", NAMESPACED));
    assert_eq!(identities(&one).intersection(&identities(&two)).count(), 0);
}
