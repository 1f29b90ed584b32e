//! What `make run` shows, on files and on a real Kafka.

use std::process::Command;

use millrace_testkit::{
    cluster::{Result, program},
    services::kafka::KafkaBroker,
};
use millrace_tests::process::unique;

fn demonstrate(args: &[&str]) -> Result<()> {
    let output = Command::new(program("demo")?).args(args).output().expect("the demonstration is started");
    let shown = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{shown}");
    let stdout = String::from_utf8_lossy(&output.stdout);
    let last = stdout.lines().last().unwrap_or_default();
    assert!(last.starts_with("records ") && last.contains(", lost 0, counted twice 0, recovered in "), "{shown}");
    assert!(last.ends_with(" s"), "{shown}");
    Ok(())
}

#[test]
fn it_ends_with_nothing_lost_and_nothing_counted_twice_on_files() -> Result<()> {
    demonstrate(&[])
}

#[test]
fn it_ends_with_nothing_lost_and_nothing_counted_twice_on_kafka() -> Result<()> {
    let kafka = KafkaBroker::shared();
    demonstrate(&["--kafka", &kafka.bootstrap(), "--topic", &unique("demonstration")])
}
