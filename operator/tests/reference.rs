//! The tables of `docs/streamjob.md` are made from the CRD, those of `docs/operations.md` from the operator's settings and
//! metrics, and these tests hold them to it. To write them anew:
//! `MILLRACE_TEST_WRITE_DOCS=1 cargo test -p millrace-operator --test reference`.

use std::{fs, path::PathBuf, time::Duration};

use clap::CommandFactory;
use millrace_operator::{
    metrics::{InPhase, Metrics},
    settings::Settings,
};
use serde_json::Value;

fn schema(part: &str) -> Value {
    let crd = serde_json::to_value(millrace_api::crd()).expect("a definition is JSON");
    crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"][part].clone()
}

/// Texts of a form, by what the API server says of those that have another.
const FORMS: [(&str, &str); 4] = [
    ("is not a duration", "duration, such as `10s`"),
    ("is not a number", "number in quotes"),
    ("is not a size", "quantity, such as `10Gi`"),
    ("is no place for checkpoints", "`s3://bucket/path`, `hdfs://namenode:port/path` or `file:///path`"),
];

/// What may stand there.
fn kind(schema: &Value) -> String {
    if let Some(values) = schema["enum"].as_array() {
        let values = values.iter().map(|value| format!("`{}`", value.as_str().expect("a text")));
        return values.collect::<Vec<_>>().join(", ");
    }
    if schema["x-kubernetes-int-or-string"] == true {
        return "quantity".to_owned();
    }
    let rules = schema["x-kubernetes-validations"].to_string();
    if let Some((_, form)) = FORMS.iter().find(|(refusal, _)| schema["type"] == "string" && rules.contains(refusal)) {
        return (*form).to_owned();
    }
    let at_most = |bound: &str, of: &str| match &schema[bound] {
        Value::Null => String::new(),
        bound => format!(" of at most {bound}{of}"),
    };
    match schema["type"].as_str() {
        Some("string") if schema["format"] == "date-time" => "time".to_owned(),
        Some("string") => format!("text{}", at_most("maxLength", " characters")),
        Some("boolean") => "`true` or `false`".to_owned(),
        Some("integer") => match (&schema["minimum"], &schema["maximum"]) {
            (Value::Null, _) | (_, Value::Null) => "whole number".to_owned(),
            (low, high) => format!("whole number from {} to {}", whole(low), whole(high)),
        },
        Some("array") => format!("list{}: {}", at_most("maxItems", ""), kind(&schema["items"])),
        Some("object") if schema["additionalProperties"].is_object() => {
            format!("map{}: {}", at_most("maxProperties", " keys"), kind(&schema["additionalProperties"]))
        }
        Some("object") | None => "object".to_owned(),
        Some(other) => panic!("what is a {other}?"),
    }
}

/// Bounds are floats in a schema.
fn whole(number: &Value) -> i64 {
    number.as_f64().expect("a number") as i64
}

/// The rows of a table.
struct Rows {
    /// Whether defaults are told: what the operator writes has none.
    defaults: bool,
    lines: Vec<String>,
}

impl Rows {
    /// A field and what is in it.
    fn field(&mut self, name: &str, schema: &Value, required: bool) {
        let default = match (&schema["default"], required) {
            (Value::Null, true) => "required".to_owned(),
            (Value::Null, false) => String::new(),
            (default, _) => format!("`{}`", default.as_str().map_or_else(|| default.to_string(), str::to_owned)),
        };
        let default = if self.defaults { format!(" {default} |") } else { String::new() };
        let description = schema["description"].as_str().unwrap_or_default().replace('\n', " ").replace('|', "\\|");
        assert!(!description.is_empty(), "{name} has no description");
        self.lines.push(format!("| `{name}` | {} |{default} {}. |", kind(schema), description.trim_end_matches('.')));
        // A template of pods and a spec in a status are described elsewhere, and conditions are Kubernetes' own.
        if schema["x-kubernetes-preserve-unknown-fields"] == true || name == "conditions" {
            return;
        }
        self.children(&format!("{name}."), schema);
        self.children(&format!("{name}[]."), &schema["items"]);
    }

    fn children(&mut self, prefix: &str, schema: &Value) {
        let required =
            |name: &str| schema["required"].as_array().is_some_and(|names| names.iter().any(|it| it == name));
        for (name, child) in schema["properties"].as_object().into_iter().flatten() {
            self.field(&format!("{prefix}{name}"), child, required(name));
        }
    }
}

/// A part of the CRD: `spec` or `status`.
fn fields(part: &str) -> Vec<String> {
    let defaults = part == "spec";
    let head = if defaults {
        ["| field | value | default | |", "|---|---|---|---|"]
    } else {
        ["| field | value | |", "|---|---|---|"]
    };
    let mut rows = Rows { defaults, lines: head.map(str::to_owned).into() };
    rows.children("", &schema(part));
    rows.lines
}

/// The operator's flags.
fn flags() -> Vec<String> {
    let mut lines = vec!["| flag and variable | default | |".to_owned(), "|---|---|---|".to_owned()];
    for flag in Settings::command().get_arguments() {
        let Some(variable) = flag.get_env() else { continue };
        let values: Vec<_> = flag.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
        let default =
            values.iter().find(|value| !value.is_empty()).map(|value| format!("`{value}`")).unwrap_or_default();
        let help = flag.get_help().expect("a flag is explained").to_string();
        let name = flag.get_long().expect("a flag has a name");
        let variable = variable.to_string_lossy();
        lines.push(format!("| `--{name}`<br>`{variable}` | {default} | {}. |", help.trim_end_matches('.')));
    }
    lines
}

/// The operator's metrics, once each has a value.
fn metrics() -> Vec<String> {
    let metrics = Metrics::new().expect("metrics can be registered");
    metrics.left_phase("Running", Duration::from_secs(1));
    let text = metrics.render(&[("Running", InPhase::default())].into()).expect("metrics can be rendered");
    let mut lines = vec!["| metric | | |".to_owned(), "|---|---|---|".to_owned()];
    for help in text.lines().filter_map(|line| line.strip_prefix("# HELP ")) {
        let (name, help) = help.split_once(' ').expect("a metric is explained");
        let kind = text.lines().find_map(|line| line.strip_prefix(&format!("# TYPE {name} "))).expect("it has a kind");
        lines.push(format!("| `{name}` | {kind} | {help} |"));
    }
    lines
}

/// The text with what is between the table's markers replaced.
fn with_table(text: &str, (source, table): (&str, Vec<String>)) -> String {
    assert!(table.len() > 7, "the rows of {source} are seen");
    let (begin, end) = (format!("<!-- {source} -->"), "<!-- end -->");
    let (before, rest) = text.split_once(&begin).unwrap_or_else(|| panic!("no {begin}"));
    let (_, after) = rest.split_once(end).unwrap_or_else(|| panic!("no {end} behind {begin}"));
    format!("{before}{begin}\n{}\n{end}{after}", table.join("\n"))
}

fn hold<const N: usize>(document: &str, tables: [(&str, Vec<String>); N]) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs").join(document);
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("docs/{document}: {error}"));
    let current = tables.into_iter().fold(text.clone(), |text, table| with_table(&text, table));
    if std::env::var_os("MILLRACE_TEST_WRITE_DOCS").is_some() {
        fs::write(&path, current).expect("the document can be written");
        return;
    }
    assert!(
        text == current,
        "docs/{document} is not what the code says: \
         MILLRACE_TEST_WRITE_DOCS=1 cargo test -p millrace-operator --test reference"
    );
}

#[test]
fn the_fields_are_those_of_the_crd() {
    hold(
        "streamjob.md",
        [("spec, made from the CRD", fields("spec")), ("status, made from the CRD", fields("status"))],
    );
}

#[test]
fn flags_and_metrics_are_the_operator_s() {
    hold(
        "operations.md",
        [
            ("flags, made from operator/src/settings.rs", flags()),
            ("metrics, made from operator/src/metrics.rs", metrics()),
        ],
    );
}
