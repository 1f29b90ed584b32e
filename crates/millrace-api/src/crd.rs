//! The CustomResourceDefinition, and the parts of its schema that derives cannot say.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{CustomResourceExt, core::Rule};
use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::Value;

use crate::{StreamJob, configuration};

/// The definition's name.
pub const CRD_NAME: &str = "streamjobs.millrace.dev";

/// The definition, as it is installed.
pub fn crd() -> CustomResourceDefinition {
    let mut definition = serde_json::to_value(StreamJob::crd()).expect("a definition is JSON");
    tidy(&mut definition);
    serde_json::from_value(definition).expect("a tidied definition is a definition")
}

/// Takes out what API servers do not know or what rules would stumble over: formats of Rust's integers, and `nullable`,
/// without which a null is dropped before rules see it.
fn tidy(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            if fields.get("format").and_then(Value::as_str).is_some_and(|format| format.starts_with("uint")) {
                fields.remove("format");
            }
            if fields.get("nullable") == Some(&Value::Bool(true)) {
                fields.remove("nullable");
            }
            fields.values_mut().for_each(tidy);
        }
        Value::Array(items) => items.iter_mut().for_each(tidy),
        _ => {}
    }
}

/// `spec.configuration`.
pub(crate) fn configuration(_: &mut SchemaGenerator) -> Schema {
    settings(&configuration::rules())
}

/// `spec.stateBackend.options`.
pub(crate) fn backend_options(_: &mut SchemaGenerator) -> Schema {
    let rule = Rule::new("self.all(key, key.startsWith('state.backend.') && key != 'state.backend.type')").message(
        "options of a state backend begin with state.backend.; put other settings into spec.configuration, and the \
         backend's name into spec.stateBackend.type",
    );
    settings(&[rule])
}

/// Settings by their keys. They reach the processes as lines.
fn settings(rules: &[Rule]) -> Schema {
    let one_line = Rule::new("!self.contains('\\n')").message("a setting's value must be one line");
    let mut schema = json_schema!({
        "type": "object",
        "maxProperties": 128,
        "additionalProperties": { "type": "string", "maxLength": 4096, "x-kubernetes-validations": [one_line] },
    });
    if !rules.is_empty() {
        schema.insert("x-kubernetes-validations".to_owned(), serde_json::to_value(rules).expect("rules are JSON"));
    }
    schema
}

/// Resource quantities by resource.
pub(crate) fn quantities(_: &mut SchemaGenerator) -> Schema {
    let rule = Rule::new("isQuantity(string(self))")
        .message("not a quantity: write a number and a unit, such as 500m (half a CPU) or 512Mi (memory)");
    json_schema!({
        "type": "object",
        "maxProperties": 16,
        "additionalProperties": {
            "x-kubernetes-int-or-string": true,
            "maxLength": 32,
            "x-kubernetes-validations": [rule],
        },
    })
}

/// `status.conditions`.
pub(crate) fn conditions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 16,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "required": ["type", "status", "reason", "message", "lastTransitionTime"],
            "properties": {
                "type": { "type": "string", "maxLength": 128 },
                "status": { "type": "string", "enum": ["True", "False", "Unknown"] },
                "reason": { "type": "string", "maxLength": 128 },
                "message": { "type": "string", "maxLength": 4096 },
                "lastTransitionTime": { "type": "string", "format": "date-time" },
                "observedGeneration": { "type": "integer", "format": "int64" },
            },
        },
    })
}

/// `status.deployment.spec`: whatever was a spec once.
pub(crate) fn deployed_spec(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every object of the schema with its path.
    fn walk<'a>(path: &str, value: &'a Value, found: &mut Vec<(String, &'a serde_json::Map<String, Value>)>) {
        match value {
            Value::Object(fields) => {
                found.push((path.to_owned(), fields));
                fields.iter().for_each(|(name, value)| walk(&format!("{path}/{name}"), value, found));
            }
            Value::Array(items) => items.iter().for_each(|item| walk(path, item, found)),
            _ => {}
        }
    }

    #[test]
    fn the_schema_is_bounded_and_free_of_what_rules_stumble_over() {
        let definition = serde_json::to_value(crd()).expect("JSON");
        let mut found = Vec::new();
        walk("", &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"], &mut found);
        assert!(found.len() > 100, "the schema is seen");
        for (path, fields) in found {
            assert!(!fields.contains_key("nullable"), "{path} is nullable");
            let bound = match fields.get("type").and_then(Value::as_str) {
                Some("string") if ["enum", "format"].iter().any(|form| fields.contains_key(*form)) => continue,
                Some("string") => "maxLength",
                Some("array") => "maxItems",
                Some("object") if fields.contains_key("additionalProperties") => "maxProperties",
                _ => continue,
            };
            assert!(fields.contains_key(bound), "{path} has no {bound}");
        }
    }
}
