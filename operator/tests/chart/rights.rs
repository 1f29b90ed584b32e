//! What the chart allows the operator and users to do.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{
    NAMESPACED,
    helm::template,
    objects::{all, text},
};

fn texts(value: &Value) -> impl Iterator<Item = String> {
    value.as_array().into_iter().flatten().map(|text| text.as_str().expect("a text").to_owned())
}

/// All (group, resource, verb) of a role.
fn rights(role: &Value) -> BTreeSet<String> {
    let rules = role["rules"].as_array().expect("rules");
    let of_rule = |rule: &Value| -> Vec<String> {
        let groups: Vec<_> = texts(&rule["apiGroups"]).collect();
        let resources: Vec<_> = texts(&rule["resources"]).collect();
        let with = |group: &String, resource: &String| {
            texts(&rule["verbs"]).map(|verb| format!("{verb} {resource}.{group}")).collect::<Vec<_>>()
        };
        groups.iter().flat_map(|group| resources.iter().flat_map(|resource| with(group, resource))).collect()
    };
    rules.iter().flat_map(of_rule).collect()
}

fn by_name<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let found = all(objects, kind).into_iter().find(|object| text(object, "/metadata/name") == name);
    found.unwrap_or_else(|| panic!("no {kind} {name}"))
}

#[test]
fn the_operator_reads_no_secret_and_has_no_wildcard() {
    let objects = template("millrace", "streaming", "{}");
    let role = rights(by_name(&objects, "ClusterRole", "millrace-operator:streaming"));
    assert!(role.len() > 20, "{role:?}");
    for forbidden in
        ["secrets", "configmaps", "nodes", "*", "pods/exec", "serviceaccounts", "roles", "escalate", "bind"]
    {
        let words = |right: &String| right.split([' ', '.']).any(|word| word == forbidden);
        assert!(!role.iter().any(words), "{forbidden} in {role:?}");
    }
    assert!(!role.contains("create streamjobs.millrace.dev") && !role.contains("delete streamjobs.millrace.dev"));
}

#[test]
fn a_namespaced_installation_has_nothing_outside_its_namespaces() {
    let wide = template("millrace", "streaming", "{}");
    let objects = template("second", "operators", NAMESPACED);
    const CLUSTER: [&str; 3] = ["ClusterRole", "ClusterRoleBinding", "CustomResourceDefinition"];
    let namespaces: BTreeSet<_> = objects.iter().map(|object| text(object, "/metadata/namespace")).collect();
    assert_eq!(namespaces, BTreeSet::from(["operators", "team-a", "team-b"]), "no namespace: cluster-scoped");
    assert!(objects.iter().all(|object| !CLUSTER.contains(&text(object, "/kind"))));

    let expected = rights(by_name(&wide, "ClusterRole", "millrace-operator:streaming"));
    for namespace in ["team-a", "team-b"] {
        let of = |kind| {
            let here = |object: &&&Value| text(object, "/metadata/namespace") == namespace;
            let found = all(&objects, kind);
            (*found.iter().find(here).unwrap_or_else(|| panic!("no {kind} in {namespace}"))).clone()
        };
        assert_eq!(rights(&of("Role")), expected, "the same rights, in {namespace}");
        let binding = of("RoleBinding");
        assert_eq!(binding["roleRef"]["name"], of("Role")["metadata"]["name"]);
        assert_eq!(text(&binding, "/subjects/0/name"), "second-operator");
        assert_eq!(text(&binding, "/subjects/0/namespace"), "operators");
    }
}

#[test]
fn the_lease_of_the_election_is_the_only_one() {
    let objects = template("millrace", "streaming", "{}");
    let role = by_name(&objects, "Role", "millrace-operator-leader-election");
    for rule in role["rules"].as_array().unwrap() {
        let only_creates = texts(&rule["verbs"]).eq(["create".to_owned()]);
        assert!(only_creates || rule["resourceNames"] == serde_json::json!(["millrace-operator"]), "{rule}");
    }
    let deployment = by_name(&objects, "Deployment", "millrace-operator");
    let args = &deployment["spec"]["template"]["spec"]["containers"][0]["args"];
    assert!(texts(args).any(|arg| arg == "--lease-name=millrace-operator"), "{args}");
}

#[test]
fn users_roles_see_and_edit_stream_jobs_where_all_namespaces_are_watched() {
    let objects = template("millrace", "streaming", "{}");
    let view = by_name(&objects, "ClusterRole", "millrace-operator:streaming:view");
    let edit = by_name(&objects, "ClusterRole", "millrace-operator:streaming:edit");
    let label = |role: &Value, of: &str| {
        role["metadata"]["labels"][format!("rbac.authorization.k8s.io/aggregate-to-{of}")] == "true"
    };
    assert!(label(view, "view") && label(view, "edit") && label(edit, "edit") && !label(edit, "view"));
    assert!(rights(view).iter().all(|right| ["get", "list", "watch"].contains(&right.split(' ').next().unwrap())));
    assert!(rights(edit).contains("patch streamjobs/scale.millrace.dev"), "kubectl scale");
    assert!(!rights(edit).iter().any(|right| right.contains("/status")), "status is the operator's");

    for values in [NAMESPACED, "{rbac: {aggregate: false}}"] {
        let objects = template("millrace", "streaming", values);
        assert!(all(&objects, "ClusterRole").iter().all(|role| !label(role, "view") && !label(role, "edit")));
    }
}

#[test]
fn without_rbac_there_are_no_roles_at_all() {
    for values in ["{rbac: {create: false}}", "{rbac: {create: false}, watchNamespaces: [a]}"] {
        let objects = template("millrace", "streaming", values);
        for kind in ["Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"] {
            assert!(all(&objects, kind).is_empty(), "{kind}");
        }
    }
}
