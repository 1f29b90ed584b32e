//! What the documentation says that there is, is there.

use std::{fs, path::Path};

/// The guarantees' page names the tests that show what it says.
#[test]
fn each_test_that_the_guarantees_name_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let page = fs::read_to_string(root.join("docs/delivery-guarantees.md")).expect("the page");
    let (_, list) = page.split_once("## The tests").expect("the list of tests");
    // Every second piece is between two backticks. A test without a file is of the file before it.
    let (mut source, mut tests) = (String::new(), 0);
    for code in list.split('`').skip(1).step_by(2).filter(|code| *code != "::") {
        let (file, test) = match code.split_once("::") {
            Some((file, test)) => (Some(file), Some(test)),
            None if code.ends_with(".rs") => (Some(code), None),
            None => (None, Some(code)),
        };
        if let Some(file) = file {
            source = fs::read_to_string(root.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        }
        if let Some(test) = test {
            assert!(source.contains(&format!("fn {test}(")), "there is no test {code}");
            tests += 1;
        }
    }
    assert!(tests > 30, "the list was read: {tests} tests");
}
