//! `millrace state` on the checkpoints of a real job, which runs no more or still does: in a directory and in an object
//! store.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use millrace_core::rest::JobStatus;
use millrace_testkit::{
    cluster::{ClusterSpec, JobCluster, Result, program},
    services::minio::Minio,
};
use millrace_tests::process::unique;
use serde_json::{Value, json};
use tempfile::TempDir;

/// The example over a growing file, with a counter for each text.
struct Job {
    input: TempDir,
    cluster: JobCluster,
}

impl Job {
    fn start(checkpoints: &str, settings: &[(&str, String)]) -> Result<Self> {
        let input = tempfile::tempdir().expect("a directory can be made");
        let spec = ClusterSpec::new(program("checkpoint_example")?)
            .args(["--files".to_string(), input.path().display().to_string()])
            .args(["--checkpoints", "--interval", "100ms", "--key-by", "record", "--parallelism", "2"])
            .taskmanagers(2)
            .set("state.checkpoints.dir", checkpoints)
            .set("execution.checkpointing.num-retained", "1000")
            .set("execution.checkpointing.data-inline-threshold", "0 b");
        let spec = settings.iter().fold(spec, |spec, (key, value)| spec.set(*key, value.clone()));
        Ok(Self { input, cluster: JobCluster::start(spec)? })
    }

    /// Writes words, waits until they are counted in a checkpoint, and returns its id.
    fn count(&mut self, words: &[&str]) -> Result<u64> {
        let path = self.input.path().join("words.txt");
        let text = fs::read_to_string(&path).unwrap_or_default() + &words.join("\n") + "\n";
        let mut file = fs::OpenOptions::new().append(true).create(true).open(&path).expect("the file can be opened");
        std::io::Write::write_all(&mut file, (words.join("\n") + "\n").as_bytes()).expect("the file can be written");
        let all = text.lines().count();
        self.cluster.wait_for("count of all words", millrace_testkit::cluster::PATIENCE, |cluster| {
            let counted: usize = (0..2).map(|index| cluster.stdout(index).lines().count()).sum();
            ((counted == all).then_some(()), format!("{counted} of {all}"))
        })?;
        let state = self.cluster.wait_for_new_checkpoint()?;
        Ok(state.completed().expect("one was waited for").id)
    }
}

/// Runs the command; what it printed, and what it said.
fn millrace_with(settings: &[(&str, String)], args: &[&str]) -> (i32, String, String) {
    let mut command = Command::new(program("millrace").expect("the command is built"));
    command.arg("state").args(args);
    command.args(settings.iter().flat_map(|(key, value)| ["-D".to_string(), format!("{key}={value}")]));
    let output = command.output().expect("the command can be run");
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}

fn millrace(args: &[&str]) -> String {
    let (code, printed, said) = millrace_with(&[], args);
    assert_eq!((code, said.as_str()), (0, ""), "{args:?}: {printed}");
    printed
}

fn refusal(args: &[&str]) -> String {
    let (code, printed, said) = millrace_with(&[], args);
    assert_eq!((code, printed.as_str()), (1, ""), "{args:?}: {said}");
    said
}

fn json_lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("each line is JSON")).collect()
}

/// The counters that were printed.
fn counters(text: &str) -> BTreeMap<String, i64> {
    let lines = json_lines(text).into_iter().filter(|line| line["state"] == "CheckpointExample");
    lines
        .map(|line| (line["key"].as_str().expect("text").to_string(), line["value"].as_i64().expect("a number")))
        .collect()
}

fn files(directory: &Path, extension: &str) -> Vec<PathBuf> {
    let paths = fs::read_dir(directory).expect("the directory can be read").map(|file| file.expect("a file").path());
    paths.filter(|path| path.extension().is_some_and(|e| e == extension)).collect()
}

#[test]
fn checkpoints_in_a_directory_are_listed_shown_printed_and_compared() -> Result<()> {
    let place = tempfile::tempdir().expect("a directory can be made");
    let root = format!("file://{}", place.path().display());
    let mut job = Job::start(&root, &[])?;
    let first = job.count(&["anna", "bob", "anna", "carl"])?;
    let second = job.count(&["bob", "dora", "dora", "ä \"quoted\""])?;
    let id = job.cluster.job();
    let chk = |checkpoint: u64| format!("{root}/{id}/chk-{checkpoint}");

    // While the job runs.
    let listed = millrace(&["list", &root]);
    assert!(listed.starts_with(&format!("job {id} in {root}\nlog: ")), "{listed}");
    assert!(listed.contains("newest generation 1") && listed.contains("the job has not ended"), "{listed}");
    let row = |id: u64| listed.lines().find(|line| line.split_whitespace().next() == Some(&id.to_string()));
    for checkpoint in [first, second] {
        let row = row(checkpoint).expect("the checkpoint is listed");
        assert!(row.contains("  complete  ") && row.ends_with(&chk(checkpoint)), "{row}");
    }

    job.cluster.stop()?;
    let end = job.cluster.wait_end()?;
    assert_eq!(end.state, JobStatus::Finished);
    let last = end.retained_checkpoint.expect("a stopped job keeps its checkpoint");
    let listed = millrace(&["list", &format!("{root}/{id}")]);
    assert!(listed.contains("the job finished ") && listed.contains(&last), "{listed}");
    let only = millrace(&["list", &chk(first)]);
    assert!(only.contains(&chk(first)) && !only.contains(&chk(second)), "{only}");

    let shown = millrace(&["show", &last, "--key-groups"]);
    for part in [
        &format!("checkpoint {} of job {id}", last.rsplit_once("chk-").expect("its name").1),
        "EXACTLY_ONCE, maximum parallelism 128",
        "operator checkpoint-example (CheckpointExample), parallelism 2",
        "  CheckpointExample: value state of i32, keyed by str\n    5 entries, ",
        " in 5 of 128 key groups\n    KEY GROUP  ENTRIES  BYTES\n",
        "  millrace.source-splits: split operator state of FileSplit where FileSplit = {file: str, offset: u64, ",
        "{\"file\":\"words.txt\",\"offset\":",
        ".state  ",
        "  verified  key groups 64 to 127",
    ] {
        assert!(shown.contains(part), "{part:?} is not in:\n{shown}");
    }

    let meant = [("anna", 2), ("bob", 2), ("carl", 1), ("dora", 2), ("ä \"quoted\"", 1)];
    let meant: BTreeMap<_, _> = meant.map(|(key, count)| (key.to_string(), count)).into();
    let path = last.strip_prefix("file://").expect("it is in a directory");
    for place in [last.as_str(), path] {
        assert_eq!(counters(&millrace(&["cat", place])), meant);
    }
    let splits = json_lines(&millrace(&["cat", &last, "--operator", "source"]));
    let bytes = "anna\nbob\nanna\ncarl\nbob\ndora\ndora\nä \"quoted\"\n".len();
    assert_eq!(splits[0]["value"], json!({"file": "words.txt", "offset": bytes, "stop": null}), "{splits:?}");
    let of_dora = json_lines(&millrace(&["cat", &last, "--key", "\"dora\"", "--state", "CheckpointExample"]));
    let [dora] = &of_dora[..] else { panic!("{of_dora:?}") };
    let group = dora["keyGroup"].as_u64().expect("a number");
    assert_eq!(
        dora,
        &json!({
            "operator": "checkpoint-example", "state": "CheckpointExample", "keyGroup": group, "key": "dora", "value": 2
        })
    );
    let of_group = counters(&millrace(&["cat", &last, "--key-group", &group.to_string()]));
    assert_eq!(of_group.get("dora"), Some(&2), "{of_group:?}");
    assert_eq!(millrace(&["cat", &last, "--limit", "2"]).lines().count(), 2);
    assert_eq!(millrace(&["cat", &last, "--key", "\"nobody\""]), "");

    let difference = millrace(&["diff", &chk(first), &last, "--entries"]);
    let line = |mark: &str, key: &str, value: i64| {
        difference.lines().any(|line| {
            line.starts_with(&format!("  {mark} {{\"operator\":\"checkpoint-example\","))
                && line.ends_with(&format!("\"key\":\"{key}\",\"value\":{value}}}"))
        })
    };
    assert!(line("-", "bob", 1) && line("+", "bob", 2) && line("+", "dora", 2), "{difference}");
    assert!(!line("-", "anna", 2) && !line("+", "anna", 2) && !line("-", "dora", 1), "{difference}");
    assert!(difference.contains("  0 only in -, 2 only in +, 1 changed, 2 the same\n"), "{difference}");
    assert!(difference.ends_with("2 of 2 states differ\n"), "{difference}");
    assert!(millrace(&["diff", &last, &last]).ends_with("no difference in 2 states\n"));

    // A checkpoint that was copied elsewhere.
    let elsewhere = place.path().join("backup/chk-1000");
    fs::create_dir_all(&elsewhere).expect("a directory can be made");
    for file in files(Path::new(path), "state").into_iter().chain([Path::new(path).join("_metadata")]) {
        fs::copy(&file, elsewhere.join(file.file_name().expect("a name"))).expect("a file can be copied");
    }
    let elsewhere = format!("file://{}", elsewhere.display());
    assert_eq!(counters(&millrace(&["cat", &elsewhere])), meant);
    let listed = millrace(&["list", &elsewhere]);
    assert!(listed.starts_with(&format!("job {id}, ")) && listed.contains("outside a job's directory"), "{listed}");
    assert!(millrace(&["list", &root]).starts_with(&format!("job {id} in {root}\n")), "it is no job's");
    Ok(())
}

/// Keys of both subtasks.
const WORDS: [&str; 6] = ["anna", "bob", "carl", "dora", "emil", "frieda"];

#[test]
fn what_is_wrong_is_told_by_name() -> Result<()> {
    let place = tempfile::tempdir().expect("a directory can be made");
    let root = format!("file://{}", place.path().display());
    let mut job = Job::start(&root, &[])?;
    job.count(&WORDS)?;
    job.cluster.stop()?;
    let last = job.cluster.wait_end()?.retained_checkpoint.expect("a stopped job keeps its checkpoint");

    assert!(refusal(&["cat", &last, "--operator", "x"]).contains("no operator \"x\": there is \"checkpoint-example\""));
    assert!(refusal(&["cat", &last, "--state", "x"]).contains("no state \"x\": there is \"CheckpointExample\""));
    assert!(refusal(&["cat", &last, "--key", "anna"]).contains("text needs quotes, '\"anna\"'"));
    assert!(refusal(&["cat", &last, "--key", "7"]).contains("7 is no value of type str"));
    assert!(refusal(&["cat", &last, "--key-group", "128"]).contains("0 to 127"));
    let nowhere = format!("{root}/nowhere/chk-1");
    for command in ["show", "cat", "list"] {
        assert!(refusal(&[command, &nowhere]).contains(&nowhere), "{command}");
    }
    assert!(refusal(&["list", "gs://name/x"]).contains("gs://name/x"));
    assert!(refusal(&["show", &root]).contains("is no checkpoint"));

    let directory = PathBuf::from(last.strip_prefix("file://").expect("it is in a directory"));
    let file = files(&directory, "state").remove(0);
    let name = file.file_name().and_then(|name| name.to_str()).expect("a name").to_string();
    let whole = fs::read(&file).expect("the file can be read");
    let mut flipped = whole.clone();
    let middle = whole.len() / 2;
    flipped[middle] ^= 1;
    for (bytes, why) in [(Some(&flipped[..]), "checksum"), (Some(&whole[..middle]), "damaged"), (None, "missing")] {
        match bytes {
            Some(bytes) => fs::write(&file, bytes).expect("the file can be written"),
            None => fs::remove_file(&file).expect("the file can be removed"),
        }
        let (code, shown, said) = millrace_with(&[], &["show", &last]);
        assert_eq!(code, 1, "{shown}{said}");
        assert!(shown.contains("DAMAGED") && shown.contains("  verified  "), "the other file is whole: {shown}");
        assert!(said.contains(&name) && said.contains(why), "{said}");
        let (code, printed, said) = millrace_with(&[], &["cat", &last]);
        assert!(code == 1 && said.contains(&name) && !said.contains("panicked"), "{said}");
        let whole = counters(&printed).len();
        assert!(whole > 0 && whole < WORDS.len(), "what is whole is printed, and nothing else: {printed}");
    }
    let metadata = directory.join("_metadata");
    let mut bytes = fs::read(&metadata).expect("the file can be read");
    bytes[8] = 99;
    fs::write(&metadata, bytes).expect("the file can be written");
    let said = refusal(&["cat", &last]);
    assert!(said.contains("_metadata") && said.contains("format version 99"), "{said}");
    let listed = millrace(&["list", &root]);
    assert!(listed.contains("damaged: checkpoint ") && listed.contains("  complete  "), "{listed}");
    Ok(())
}

#[test]
fn checkpoints_in_an_object_store_are_reached_as_jobs_reach_them() -> Result<()> {
    let (minio, bucket) = (Minio::shared(), unique("state"));
    minio.create_bucket(&bucket)?;
    let root = format!("s3://{bucket}/check/points");
    let settings = [
        ("s3.endpoint", minio.endpoint()),
        ("s3.access-key", minio.access_key().to_string()),
        ("s3.secret-key", minio.secret_key().to_string()),
    ];
    let mut job = Job::start(&root, &settings)?;
    let first = job.count(&["anna", "bob", "anna"])?;
    job.count(&["bob"])?;
    let id = job.cluster.job();
    job.cluster.stop()?;
    let last = job.cluster.wait_end()?.retained_checkpoint.expect("a stopped job keeps its checkpoint");
    let run = |args: &[&str]| {
        let (code, printed, said) = millrace_with(&settings, args);
        assert_eq!((code, said.as_str()), (0, ""), "{args:?}: {printed}");
        printed
    };
    for place in [root.clone(), format!("{root}/{id}"), last.clone()] {
        let listed = run(&["list", &place]);
        assert!(listed.contains(&format!("job {id} in {root}")) && listed.contains(&last), "{listed}");
    }
    let shown = run(&["show", &last]);
    assert!(shown.contains("CheckpointExample: value state of i32") && shown.contains("  verified  "), "{shown}");
    let meant: BTreeMap<_, _> = [("anna".to_string(), 2), ("bob".to_string(), 2)].into();
    assert_eq!(counters(&run(&["cat", &last])), meant);
    let difference = run(&["diff", &format!("{root}/{id}/chk-{first}"), &last]);
    assert!(difference.contains("  0 only in -, 0 only in +, 1 changed, 1 the same\n"), "{difference}");

    let (code, _, said) = millrace_with(&settings, &["list", "s3://no-such-bucket/x"]);
    assert!(code == 1 && said.contains("the bucket does not exist"), "{said}");
    let (code, _, said) = millrace_with(&settings, &["cat", &format!("{root}/{id}/chk-999")]);
    assert!(code == 1 && said.contains(&format!("{root}/{id}/chk-999 is no checkpoint")), "{said}");
    let wrong = [&settings[..2], &[("s3.secret-key", "wrong".to_string())]].concat();
    let (code, _, said) = millrace_with(&wrong, &["list", &root]);
    assert!(code == 1 && said.contains("wrong credentials") && !said.contains(minio.secret_key()), "{said}");
    Ok(())
}

#[cfg(feature = "hdfs")]
#[test]
fn checkpoints_in_hdfs_are_listed_shown_printed_and_compared() -> Result<()> {
    let hdfs = millrace_testkit::services::hdfs::Hdfs::shared();
    let root = hdfs.uri("check/points");
    let mut job = Job::start(&root, &[])?;
    let first = job.count(&["anna", "bob", "anna"])?;
    job.count(&["bob"])?;
    let id = job.cluster.job();
    job.cluster.stop()?;
    let last = job.cluster.wait_end()?.retained_checkpoint.expect("a stopped job keeps its checkpoint");
    for place in [root.clone(), format!("{root}/{id}"), last.clone()] {
        let listed = millrace(&["list", &place]);
        assert!(listed.contains(&format!("job {id} in {root}")) && listed.contains(&last), "{listed}");
    }
    let shown = millrace(&["show", &last]);
    assert!(shown.contains("CheckpointExample: value state of i32") && shown.contains("  verified  "), "{shown}");
    let meant: BTreeMap<_, _> = [("anna".to_string(), 2), ("bob".to_string(), 2)].into();
    assert_eq!(counters(&millrace(&["cat", &last])), meant);
    let difference = millrace(&["diff", &format!("{root}/{id}/chk-{first}"), &last]);
    assert!(difference.contains("  0 only in -, 0 only in +, 1 changed, 1 the same\n"), "{difference}");
    assert!(refusal(&["cat", &format!("{root}/{id}/chk-999")]).contains("chk-999 is no checkpoint"));
    Ok(())
}

#[cfg(feature = "rocksdb")]
#[test]
fn incremental_checkpoints_are_shown_as_any_other() -> Result<()> {
    let place = tempfile::tempdir().expect("a directory can be made");
    let root = format!("file://{}", place.path().display());
    let settings = [("state.backend", "rocksdb"), ("execution.checkpointing.incremental", "true")];
    let mut job = Job::start(&root, &settings.map(|(key, value)| (key, value.to_string())))?;
    let first = job.count(&WORDS)?;
    job.count(&["anna", "gerd"])?;
    let first = format!("{root}/{}/chk-{first}", job.cluster.job());
    job.cluster.stop()?;
    let last = job.cluster.wait_end()?.retained_checkpoint.expect("a stopped job keeps its checkpoint");

    let ones = WORDS.map(|word| (word.to_string(), 1));
    assert_eq!(counters(&millrace(&["cat", &first])), ones.clone().into());
    let mut meant = BTreeMap::from(ones);
    meant.extend([("anna".to_string(), 2), ("gerd".to_string(), 1)]);
    assert_eq!(counters(&millrace(&["cat", &last])), meant);
    let of_gerd = counters(&millrace(&["cat", &last, "--key", "\"gerd\""]));
    assert_eq!(of_gerd, [("gerd".to_string(), 1)].into());
    let difference = millrace(&["diff", &first, &last]);
    assert!(difference.contains("  0 only in -, 1 only in +, 1 changed, 5 the same\n"), "{difference}");
    let shown = millrace(&["show", &last]);
    for part in
        ["value state of i32, keyed by str\n    7 entries, ", ".sst  ", "  verified  key groups 64 to 127, shared"]
    {
        assert!(shown.contains(part), "{part:?} is not in:\n{shown}");
    }

    // The entries of one subtask are in a file that is damaged.
    let line = shown.lines().find(|line| line.contains(".sst  ") && line.contains("key groups 0 to 63"));
    let name = line.and_then(|line| line.split_whitespace().nth(1)).expect("a file of RocksDB's");
    let path = name.strip_prefix("file://").expect("it is in a directory");
    let mut bytes = fs::read(path).expect("the file can be read");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).expect("the file can be written");
    let (code, shown, said) = millrace_with(&[], &["show", &last]);
    assert!(code == 1 && shown.contains("DAMAGED") && shown.contains("without those in damaged files"), "{shown}");
    assert!(said.contains(path) && said.contains("checksum"), "{said}");
    let (code, printed, said) = millrace_with(&[], &["cat", &last]);
    assert!(code == 1 && said.contains(path) && !said.contains("panicked"), "{said}");
    let whole = counters(&printed);
    assert!(!whole.is_empty() && whole.len() < meant.len(), "what is whole is printed, and nothing else: {printed}");
    assert!(whole.iter().all(|(key, count)| meant.get(key) == Some(count)), "{printed}");
    Ok(())
}
