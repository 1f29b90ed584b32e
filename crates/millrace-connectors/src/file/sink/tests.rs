//! The file sink on a directory.

use std::{collections::BTreeSet, fs, path::Path};

use millrace_core::{
    codec,
    ids::{Attempt, CheckpointId, JobId, OperatorUid},
    operator_state::OperatorStateStore,
    sink::PendingCommittable,
};
use millrace_testkit::conformance::sink::{SinkUnderTest, sink_conformance};
use tempfile::TempDir;

use super::{left_over::LeftOver, writer::FileWriter, *};

fn context(subtask: u32, parallelism: u32) -> WriterContext<FileCommittable> {
    WriterContext::new(OperatorUid("files".into()), subtask, parallelism)
}

fn committer<T: Record>(sink: &FileSink<T>) -> Box<dyn Committer<FileCommittable>> {
    let context = CommitterContext { uid: OperatorUid("files".into()), subtask: 0, parallelism: 1 };
    sink.create_committer(&context).unwrap()
}

/// The files below a directory: relative path and content.
fn files(directory: &Path) -> BTreeSet<(String, String)> {
    let text = |(name, bytes)| (name, String::from_utf8(bytes).unwrap());
    contents(directory).into_iter().map(text).collect()
}

fn contents(directory: &Path) -> BTreeSet<(String, Vec<u8>)> {
    let mut found = BTreeSet::new();
    let mut directories = vec![directory.to_path_buf()];
    while let Some(next) = directories.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                directories.push(path);
            } else {
                let name = path.strip_prefix(directory).unwrap().to_str().unwrap().to_string();
                found.insert((name, fs::read(path).unwrap()));
            }
        }
    }
    found
}

fn is_hidden(name: &str) -> bool {
    name.rsplit('/').next().unwrap().starts_with('.')
}

/// A directory of part files in some format, which is put to the suite.
pub(super) struct InDirectory<F> {
    dir: TempDir,
    format: F,
    /// The records of a file.
    read: fn(Vec<u8>) -> Vec<String>,
}

impl<F: FileFormat<String> + Clone> InDirectory<F> {
    pub(super) fn new(format: F, read: fn(Vec<u8>) -> Vec<String>) -> Self {
        Self { dir: tempfile::tempdir().unwrap(), format, read }
    }
}

impl<F: FileFormat<String> + Clone> SinkUnderTest for InDirectory<F> {
    type Sink = FileSink<String>;

    fn sink(&self) -> FileSink<String> {
        let buckets = |record: &String| format!("bucket={}", record.as_bytes()[record.len() - 1] % 2);
        let sink = FileSink::new(&format!("file://{}", self.dir.path().display()), self.format.clone());
        sink.unwrap().buckets(buckets).max_part_size(40)
    }

    fn visible(&mut self) -> Vec<String> {
        let visible = contents(self.dir.path()).into_iter().filter(|(name, _)| !is_hidden(name));
        visible.flat_map(|(_, bytes)| (self.read)(bytes)).collect()
    }

    fn is_ordered(&self) -> bool {
        false
    }

    fn left_over(&mut self) -> Vec<String> {
        contents(self.dir.path()).into_iter().map(|(name, _)| name).filter(|name| is_hidden(name)).collect()
    }
}

fn lines(bytes: Vec<u8>) -> Vec<String> {
    String::from_utf8(bytes).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn part_files_are_seen_once_wherever_the_job_dies() {
    sink_conformance(&mut InDirectory::new(TextLines, lines));
}

#[test]
fn json_lines_are_seen_once_wherever_the_job_dies() {
    let records = |bytes| lines(bytes).iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    sink_conformance(&mut InDirectory::new(JsonLines, records));
}

#[test]
fn a_part_is_finished_by_the_barrier_and_by_its_size() {
    let dir = tempfile::tempdir().unwrap();
    let sink = FileSink::<String>::directory(dir.path().join("not/yet/there")).max_part_size(8);
    let mut writer = sink.create_writer(&mut context(0, 1)).unwrap();
    writer.write(["one", "two", "three"].map(String::from).to_vec()).unwrap();
    let committables = writer.prepare_commit().unwrap();
    assert_eq!(committables.len(), 2);
    assert!(files(dir.path()).iter().all(|(name, _)| is_hidden(name)));
    committer(&sink).commit(&committables).unwrap();
    committer(&sink).commit(&committables).unwrap();
    let texts: Vec<_> = files(dir.path()).into_iter().map(|(_, text)| text).collect();
    assert_eq!(texts.concat().len(), "one\ntwo\nthree\n".len());
    assert!(texts.contains(&"one\ntwo\n".to_string()), "{texts:?}");
}

#[test]
fn a_file_that_was_removed_before_its_commit_is_lost_and_named() {
    let dir = tempfile::tempdir().unwrap();
    let sink = FileSink::<String>::directory(dir.path());
    let mut writer = sink.create_writer(&mut context(0, 1)).unwrap();
    writer.write(vec!["one".into()]).unwrap();
    let committables = writer.prepare_commit().unwrap();
    for (name, _) in files(dir.path()) {
        fs::remove_file(dir.path().join(name)).unwrap();
    }
    let error = committer(&sink).commit(&committables).unwrap_err();
    assert!(!error.retryable && error.message.contains("part-0-"), "{error:?}");
    let FileCommittable::Rename { to, .. } = &committables[0] else { panic!("{committables:?}") };
    fs::write(to, "somebody else's").unwrap();
    let error = committer(&sink).commit(&committables).unwrap_err();
    assert!(!error.retryable && error.message.contains("15 bytes"), "{error:?}");
}

#[test]
fn a_writer_that_ends_takes_what_it_has_begun_with_it_and_leaves_strangers_alone() {
    let dir = tempfile::tempdir().unwrap();
    let strangers = [".0-1-part.inprogress", ".hidden", "part-0-x"];
    strangers.iter().for_each(|name| fs::write(dir.path().join(name), "").unwrap());
    let sink = FileSink::<String>::directory(dir.path());
    let mut writer = sink.create_writer(&mut context(0, 1)).unwrap();
    writer.write(vec!["one".into()]).unwrap();
    drop(writer);
    let left: Vec<_> = files(dir.path()).into_iter().map(|(name, _)| name).collect();
    assert_eq!(left, strangers);
}

/// A taskmanager that was given up while it started goes on.
#[test]
fn a_start_that_comes_late_removes_nothing_of_its_successor() {
    let dir = tempfile::tempdir().unwrap();
    let sink = FileSink::<String>::directory(dir.path());
    let before = |attempt: u32| {
        let mut context = context(0, 1);
        context.attempt.attempt = Attempt(attempt);
        context
    };
    let mut abandoned = sink.create_writer(&mut before(1)).unwrap();
    abandoned.write(vec!["lost".into()]).unwrap();
    std::mem::forget(abandoned);
    let mut successor = sink.create_writer(&mut before(3)).unwrap();
    assert!(files(dir.path()).is_empty(), "what earlier attempts have left is removed");
    successor.write(vec!["one".into()]).unwrap();
    let committables = successor.prepare_commit().unwrap();
    drop(sink.create_writer(&mut before(2)).unwrap());
    committer(&sink).commit(&committables).unwrap();
    let texts: Vec<_> = files(dir.path()).into_iter().map(|(_, text)| text).collect();
    assert_eq!(texts, ["one\n"]);
}

/// One finishes a part when its successor has cleaned up already.
#[test]
fn what_a_zombie_leaves_late_goes_while_its_successor_runs() {
    let dir = tempfile::tempdir().unwrap();
    let sink = FileSink::<String>::directory(dir.path());
    let context_of = |job: u128, attempt: u32| {
        let mut context = context(0, 1);
        (context.attempt.job, context.attempt.attempt) = (JobId(job), Attempt(attempt));
        context
    };
    let mut successor = context_of(0, 2);
    let mut writers = [
        sink.create_writer(&mut context_of(7, 1)).unwrap(),
        sink.create_writer(&mut context_of(0, 1)).unwrap(),
        sink.create_writer(&mut successor).unwrap(),
        sink.create_writer(&mut context_of(0, 3)).unwrap(),
    ];
    let mut prepared = Vec::new();
    for (writer, text) in writers.iter_mut().zip(["other job", "zombie", "own", "later"]) {
        writer.write(vec![text.into()]).unwrap();
        prepared.push(writer.prepare_commit().unwrap());
    }
    let texts = || files(dir.path()).into_iter().map(|(_, text)| text).collect::<BTreeSet<_>>();
    let left = |texts: &[&str]| texts.iter().map(|text| format!("{text}\n")).collect::<BTreeSet<_>>();
    let store = sink.location.open(String::new()).unwrap();
    let mut held = successor;
    held.restored = prepared[1].clone();
    let left_over = |context| {
        let left_over = LeftOver::new(context);
        prepared[2].iter().for_each(|own| left_over.begun(own.file_name()));
        left_over
    };
    left_over(&held).sweep(&*store).unwrap();
    assert_eq!(texts(), left(&["other job", "zombie", "own", "later"]), "the checkpoint holds the zombie's");
    left_over(&context_of(0, 2)).sweep(&*store).unwrap();
    assert_eq!(texts(), left(&["other job", "own", "later"]));
}

/// A request that its client has given up, and made again, may take effect long after.
#[test]
fn what_comes_back_after_it_was_settled_goes() {
    let dir = tempfile::tempdir().unwrap();
    let sink = FileSink::<String>::directory(dir.path());
    let mut writer = FileWriter::new(sink.clone(), &context(0, 1)).unwrap();
    writer.write(vec!["one".into()]).unwrap();
    let prepared = writer.prepare_commit().unwrap();
    committer(&sink).commit(&prepared).unwrap();
    fs::write(prepared[0].waits_as(), "one\n").unwrap();
    let names = |hidden| files(dir.path()).iter().filter(|(name, _)| is_hidden(name) == hidden).count();
    writer.left_over.sweep(&*writer.store).unwrap();
    assert_eq!((names(true), names(false)), (1, 1), "a restart could commit it again");
    writer.settled(&prepared).unwrap();
    writer.write(vec!["two".into()]).unwrap();
    writer.left_over.sweep(&*writer.store).unwrap();
    assert_eq!((names(true), names(false)), (1, 1), "only what is being written is there beside it");
    let second = writer.prepare_commit().unwrap();
    committer(&sink).commit(&second).unwrap();
    assert_eq!((names(true), names(false)), (0, 2));

    // The same, where it was restored.
    let mut restored = context(0, 1);
    (restored.attempt.attempt, restored.restored) = (Attempt(2), second.clone());
    let mut next = FileWriter::new(sink, &restored).unwrap();
    fs::write(second[0].waits_as(), "two\n").unwrap();
    next.left_over.sweep(&*next.store).unwrap();
    assert_eq!(names(true), 1, "a restart could commit it again");
    next.settled(&second).unwrap();
    next.left_over.sweep(&*next.store).unwrap();
    assert_eq!(names(true), 0);
}

#[test]
fn json_lines_have_their_extension() {
    let dir = tempfile::tempdir().unwrap();
    let uri = format!("file://{}", dir.path().display());
    let sink = FileSink::<(u64, String)>::new(&uri, JsonLines).unwrap();
    let mut writer = sink.create_writer(&mut context(0, 1)).unwrap();
    writer.write(vec![(1, "a\"b".into()), (2, "c".into())]).unwrap();
    committer(&sink).commit(&writer.prepare_commit().unwrap()).unwrap();
    let all: Vec<_> = files(dir.path()).into_iter().collect();
    assert!(all.len() == 1 && all[0].0.ends_with(".json"), "{all:?}");
    assert_eq!(all[0].1, "[1,\"a\\\"b\"]\n[2,\"c\"]\n");
}

#[test]
fn senseless_places_and_sizes_are_refused() {
    for uri in ["", "/data", "file://data", "s3://", "ftp://host/x"] {
        let error = FileSink::<String>::new(uri, TextLines).err().unwrap();
        assert!(!error.retryable && error.message.contains(uri), "{error:?}");
    }
    let dir = tempfile::tempdir().unwrap();
    let sink = FileSink::<String>::directory(dir.path()).max_part_size(0);
    let error = sink.check(&CheckpointConfig::default()).unwrap_err();
    assert!(!error.retryable && error.message.contains("max_part_size is 0"), "{error:?}");
    fs::write(dir.path().join("file"), "").unwrap();
    let sink = FileSink::<String>::directory(dir.path().join("file"));
    let error = sink.create_writer(&mut context(0, 1)).err().unwrap();
    assert!(error.message.contains("/file"), "{error}");
}

/// What each version has added to the versions before.
fn golden(version: usize) -> Vec<PendingCommittable<FileCommittable>> {
    let rename = FileCommittable::Rename { from: "/d/.a.inprogress".into(), to: "/d/a".into(), size: 3 };
    let upload = FileCommittable::Upload {
        bucket: "b".into(),
        key: "d/a".into(),
        upload: "u".into(),
        parts: vec!["e1".into(), "e2".into()],
        size: 4,
        marker: "d/.millrace/a".into(),
    };
    let copy =
        FileCommittable::Copy { bucket: "b".into(), from: "d/.millrace/staged/a".into(), to: "d/a".into(), size: 5 };
    let all = [rename, upload, copy].map(|committable| PendingCommittable { checkpoint: CheckpointId(7), committable });
    all[..version + 1].to_vec()
}

const LIST: &str = "millrace.sink-committables";
const VERSIONS: [&[u8]; 2] =
    [include_bytes!("golden/committables-v1.bin"), include_bytes!("golden/committables-v2.bin")];

fn encoded(version: usize) -> Vec<u8> {
    let mut store = OperatorStateStore::default();
    store.union_list(LIST).unwrap().update(golden(version));
    codec::encode(&store.snapshot().unwrap()).unwrap()
}

/// These bytes are in every checkpoint of a file sink: they must be read for ever.
#[test]
fn committables_in_checkpoints_are_frozen() {
    for (bytes, version) in VERSIONS.into_iter().zip(1..) {
        // Earlier ones end before the kinds that were added: they are written no more.
        if version == VERSIONS.len() {
            assert_eq!(encoded(version), bytes, "a new version takes a golden file of its own");
        }
        let mut store = OperatorStateStore::restored(codec::decode(bytes).unwrap());
        assert_eq!(store.union_list::<PendingCommittable<FileCommittable>>(LIST).unwrap().get(), golden(version));
    }
}

#[test]
#[ignore = "writes the newest golden file: only for a new version of the committable"]
fn write_golden_file() {
    let version = VERSIONS.len();
    let path = format!("{}/src/file/sink/golden/committables-v{version}.bin", env!("CARGO_MANIFEST_DIR"));
    fs::write(path, encoded(version)).unwrap();
}
