//! `spec.configuration` beside the fields.

use millrace_api::StreamJobSpec;

use crate::build::explicit;

/// Settings that a field makes as well.
pub(super) fn problems(spec: &StreamJobSpec) -> Vec<String> {
    let twice = explicit(spec).into_iter().filter(|(key, _)| spec.configuration.contains_key(key));
    twice
        .map(|(key, value)| {
            format!("spec.configuration: a field of the spec sets {key} as well, to {value}: remove one of the two")
        })
        .collect()
}
