//! Writes the CustomResourceDefinition to where it is kept: `crds/` and the chart.

use std::{fs, io, path::PathBuf, process::ExitCode};

use millrace_api::CRD_NAME;
use serde_json::{Number, Value};

const HEAD: &str = "# Made from crates/millrace-api: change it there, then run cargo run -p millrace-operator --bin \
                    crdgen\n";

fn main() -> ExitCode {
    match write() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("crdgen: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The files and what they should hold.
fn files() -> Vec<(PathBuf, String)> {
    let root = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    let definition = millrace_api::crd();
    let mut kept = definition.clone();
    // Uninstalling the chart never deletes StreamJobs.
    let annotation = ("helm.sh/resource-policy".to_owned(), "keep".to_owned());
    kept.metadata.annotations.get_or_insert_default().extend([annotation]);
    [(root.join("crds"), definition), (root.join("charts/millrace/files"), kept)]
        .map(|(folder, definition)| {
            let mut definition = serde_json::to_value(&definition).expect("a definition is JSON");
            whole(&mut definition);
            let text = serde_yaml_ng::to_string(&definition).expect("a definition is YAML");
            (folder.join(format!("{CRD_NAME}.yaml")), format!("{HEAD}{text}"))
        })
        .into()
}

/// Writes bounds of integers as integers.
fn whole(value: &mut Value) {
    match value {
        Value::Object(fields) => fields.values_mut().for_each(whole),
        Value::Array(items) => items.iter_mut().for_each(whole),
        Value::Number(number) => {
            if let Some(float) = number.as_f64().filter(|float| float.fract() == 0.0 && float.abs() < 1e15) {
                *number = Number::from(float as i64);
            }
        }
        _ => {}
    }
}

/// Writes the files.
fn write() -> io::Result<()> {
    for (path, text) in files() {
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        fs::create_dir_all(path.parent().expect("a file is in a folder")).map_err(named)?;
        fs::write(&path, text).map_err(named)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The largest annotation is 256 KiB; a client-side apply keeps the definition in one, as JSON.
    const LARGEST: usize = 150_000;

    #[test]
    fn the_files_are_those_of_the_types() {
        if std::env::var_os("MILLRACE_TEST_WRITE_CRDS").is_some() {
            write().expect("the files can be written");
        }
        for (path, text) in files() {
            let kept = fs::read_to_string(&path).unwrap_or_default();
            assert!(kept == text, "{} is not what the types make: run crdgen", path.display());
            assert!(text.len() < LARGEST, "{} has {} bytes", path.display(), text.len());
        }
    }
}
