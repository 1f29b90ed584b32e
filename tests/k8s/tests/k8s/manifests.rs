//! Manifests: `kubectl apply` refuses bad ones with a sentence that says what to change, and takes good ones.

use std::{fs, path::PathBuf};

use millrace_k8s_tests::{
    Context, Result,
    commands::{Written, project, run},
    ensure,
    suite::Suite,
};

/// So many things that people do wrong are tried at least.
const AT_LEAST: usize = 25;

pub fn bad_ones_are_refused(suite: &Suite) -> Result<()> {
    let files = manifests("bad")?;
    ensure!(files.len() >= AT_LEAST, "only {} bad manifests", files.len());
    suite.block_on(async {
        // They are applied in earnest: some files have a good manifest first, and a change of it that is refused.
        let namespace = suite.namespace("bad").await?;
        let mut wrong = String::new();
        for path in files {
            let text = fs::read_to_string(&path)?;
            let first = text.lines().next().unwrap_or_default();
            let expected = first.strip_prefix("# expect: ");
            let expected = expected.with_context(|| format!("{} does not say what it expects", path.display()))?;
            let Written { success, stderr, .. } =
                run(suite.cluster.kubectl()?.args(["apply", "--namespace", &namespace.name, "--filename"]).arg(&path))?;
            if success || !stderr.contains(expected) {
                let path = path.display();
                wrong += &format!("{path}\n  expected: {expected}\n  success {success}, found: {stderr}\n");
            }
        }
        ensure!(wrong.is_empty(), "{wrong}");
        Ok(())
    })
}

pub fn good_ones_are_taken(suite: &Suite) -> Result<()> {
    let files = manifests("good")?;
    ensure!(!files.is_empty(), "no good manifests");
    for path in files {
        // Only asked: they name Secrets and volumes that are not there.
        let Written { success, stderr, .. } =
            run(suite.cluster.kubectl()?.args(["apply", "--dry-run=server", "--filename"]).arg(&path))?;
        ensure!(success, "{}: {stderr}", path.display());
    }
    Ok(())
}

fn manifests(kind: &str) -> Result<Vec<PathBuf>> {
    let directory = project().join("tests/k8s/manifests").join(kind);
    let entries = fs::read_dir(&directory).with_context(|| format!("reading {}", directory.display()))?;
    let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}
