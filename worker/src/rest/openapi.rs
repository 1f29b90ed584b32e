//! The OpenAPI document of the REST server, made from its table of paths.

use millrace_core::rest::ErrorResponse;
use schemars::{SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use super::routes::{Route, routes};

const ABOUT: &str = "What a Millrace jobmanager says of its job. Paths and field names are Flink's where the thing is \
                     the same. Times are milliseconds since the epoch, durations milliseconds, sizes bytes; -1 is \
                     \"not yet\".";

/// The document.
pub fn document() -> Value {
    let settings = SchemaSettings::draft2020_12().for_serialize().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut generator = settings.into_generator();
    let error = generator.subschema_for::<ErrorResponse>();
    let refused = json!({
        "description": "The request was refused; the answer says why.",
        "content": { "application/json": { "schema": error } },
    });
    let mut paths = Map::new();
    for route in routes() {
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        path[route.method] = operation(&route, &mut generator, &refused);
    }
    json!({
        "openapi": "3.1.0",
        "info": { "title": "Millrace", "description": ABOUT, "version": env!("CARGO_PKG_VERSION") },
        "paths": paths,
        "components": { "schemas": generator.take_definitions(true) },
    })
}

/// The document as it is committed.
pub fn text() -> String {
    format!("{:#}\n", document())
}

fn operation(route: &Route, generator: &mut SchemaGenerator, refused: &Value) -> Value {
    let in_path = route.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let in_path =
        in_path.map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }));
    let in_query = route.query.iter().map(
        |(name, about)| json!({ "name": name, "in": "query", "description": about, "schema": { "type": "string" } }),
    );
    let answer = json!({
        "description": route.summary,
        "content": match route.answer {
            Some(schema) => json!({ "application/json": { "schema": schema(generator) } }),
            None => json!({ "text/plain": { "schema": { "type": "string" } } }),
        },
    });
    let mut responses = Map::from_iter([("default".to_string(), refused.clone())]);
    for status in [Some(route.status), route.other_status].into_iter().flatten() {
        responses.insert(status.to_string(), answer.clone());
    }
    json!({
        "summary": route.summary,
        "operationId": operation_id(route),
        "parameters": in_path.chain(in_query).collect::<Vec<_>>(),
        "responses": responses,
    })
}

/// A name for generated clients: the method and the path's own words.
fn operation_id(route: &Route) -> String {
    let words = route.path.split(['/', '.']).filter(|word| !word.is_empty());
    let words = words.map(|word| match word.strip_prefix('{').and_then(|word| word.strip_suffix('}')) {
        Some(parameter) => format!("by_{parameter}"),
        None => word.to_string(),
    });
    std::iter::once(route.method.to_string()).chain(words).collect::<Vec<_>>().join("_")
}
