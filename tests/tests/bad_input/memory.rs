//! State on the heap that is larger than memory.

use millrace_testkit::cluster::{JobCluster, Result};

use crate::{Words, assert_calm, assert_says, counts, failed, job_over};

/// What the taskmanager may take: much more than it takes without state.
const LIMIT_MIB: u64 = 400;
const HOARD_MIB: u64 = 1;

#[test]
fn state_larger_than_memory_fails_its_task_by_name_before_the_process_dies() -> Result<()> {
    let mut words = Words::new();
    let spec = job_over(&words)
        .args(["--hoards".to_owned(), (HOARD_MIB << 20).to_string()])
        .set("taskmanager.memory.process.size", format!("{LIMIT_MIB}mb"));
    let mut cluster = JobCluster::start(spec)?;
    cluster.wait_until_running()?;
    // Ten times the limit, if nothing stopped it.
    words.write_many(10 * LIMIT_MIB / HOARD_MIB, 1);
    let error = failed(&mut cluster)?;
    assert_says(&error, &["MiB of memory", "\"Count\" (uid counter)", "\"hoard\"", "taskmanager.memory.process.size"]);
    let taken: u64 =
        error.split(" MiB of memory").next().and_then(|text| text.split(' ').next_back()?.parse().ok()).unwrap();
    assert!((LIMIT_MIB * 9 / 10..LIMIT_MIB * 2).contains(&taken), "{error}");
    let counted = counts(&cluster.stdout(0)).last().copied().unwrap_or(0);
    assert!(counted < 2 * LIMIT_MIB / HOARD_MIB, "{counted} words were counted");
    assert_calm(&cluster);
    Ok(())
}
