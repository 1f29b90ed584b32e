//! Values that the schema refuses, with what Helm says.

use super::helm::try_template;

#[test]
fn wrong_values_are_refused_with_the_place_and_the_reason() {
    let cases = [
        ("{replica: 2}", "additional properties 'replica' not allowed"),
        ("{replicas: two}", "'/replicas': got string, want integer"),
        ("{replicas: -1}", "'/replicas': minimum: got -1, want 0"),
        ("{replicas: 11}", "'/replicas': maximum: got 11, want 10"),
        ("{replicas: null}", "missing property 'replicas'"),
        ("{image: {tga: x}}", "'/image': additional properties 'tga' not allowed"),
        ("{image: {tag: 1.0}}", "'/image/tag': got number, want string"),
        ("{image: {tag: 'a b'}}", "'/image/tag': 'a b' does not match pattern"),
        ("{image: {digest: latest}}", "'/image/digest': 'latest' does not match pattern"),
        (
            "{image: {repository: 'millrace/operator@sha256'}}",
            "'/image/repository': 'millrace/operator@sha256' does not",
        ),
        (
            "{image: {pullPolicy: Sometimes}}",
            "'/image/pullPolicy': value must be one of 'Always', 'IfNotPresent', 'Never'",
        ),
        ("{imagePullSecrets: [registry]}", "'/imagePullSecrets/0': got string, want object"),
        ("{watchNamespaces: team-a}", "'/watchNamespaces': got string, want array"),
        ("{watchNamespaces: [Team_A]}", "'/watchNamespaces/0': 'Team_A' does not match pattern"),
        ("{watchNamespaces: ['']}", "'/watchNamespaces/0': '' does not match pattern"),
        ("{watchNamespaces: [a, a]}", "'/watchNamespaces': items at 0 and 1 are equal"),
        ("{crds: {enabled: 'no'}}", "'/crds/enabled': got string, want boolean"),
        ("{crds: {keep: true}}", "'/crds': additional properties 'keep' not allowed"),
        ("{serviceAccount: {name: 'A B'}}", "'/serviceAccount/name': 'A B' does not match pattern"),
        ("{serviceAccount: {annotations: {a: 1}}}", "'/serviceAccount/annotations/a': got number, want string"),
        ("{log: {format: xml}}", "'/log/format': value must be one of 'text', 'json'"),
        ("{log: {level: ''}}", "'/log/level'"),
        ("{jobs: {metricsFrom: []}}", "'/jobs/metricsFrom': got array, want object"),
        (
            "{metrics: {serviceMonitor: {interval: often}}}",
            "'/metrics/serviceMonitor/interval': 'often' does not match",
        ),
        ("{networkPolicy: {metricsFrom: [{}]}}", "'/networkPolicy/metricsFrom/0': minProperties: got 0, want 1"),
        ("{resources: {limit: {memory: 1Gi}}}", "'/resources': additional properties 'limit' not allowed"),
        ("{affinity: {nodeAfinity: {}}}", "'/affinity': additional properties 'nodeAfinity' not allowed"),
        ("{nodeSelector: [a]}", "'/nodeSelector': got array, want object"),
        ("{extraEnv: [{value: x}]}", "'/extraEnv/0': missing property 'name'"),
        ("{extraEnv: [{name: X, value: 1}]}", "'/extraEnv/0/value': got number, want string"),
    ];
    for (values, expected) in cases {
        let refused = try_template("millrace", "streaming", values);
        let message = refused.expect_err(values);
        assert!(message.contains(expected), "{values}\nexpected: {expected}\nsaid:     {message}");
    }
}
