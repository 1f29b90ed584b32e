//! The file source over real files.

use std::{
    collections::BTreeSet,
    fs::{self, OpenOptions},
    io::Write,
    time::Instant,
};

use millrace_core::{
    ids::CheckpointId,
    source::{Discovery, ReadStatus},
};
use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::undecodable::skipped;

type Reader = Box<dyn SourceReader<String, FileSplit>>;

const AT_ONCE: Duration = Duration::ZERO;

fn directory(files: &[(&str, &str)]) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in files {
        append(&directory, name, text);
    }
    directory
}

fn append(directory: &TempDir, name: &str, text: impl AsRef<[u8]>) {
    let path = directory.path().join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut file = OpenOptions::new().append(true).create(true).open(path).unwrap();
    file.write_all(text.as_ref()).unwrap();
}

fn discover(source: &FileSource, known: &[&str], discovery: Discovery) -> Result<Vec<FileSplit>> {
    let known: BTreeSet<_> = known.iter().map(|id| id.to_string()).collect();
    source.create_enumerator(&EnumeratorContext { parallelism: 1 })?.discover(&known, discovery)
}

fn reader(source: &FileSource, splits: Vec<FileSplit>) -> Reader {
    let mut context = ReaderContext { subtask: 0, parallelism: 1, operator_state: Default::default() };
    let mut reader = source.create_reader(&mut context).unwrap();
    reader.add_splits(splits).unwrap();
    reader.no_more_splits();
    reader
}

fn start(source: &FileSource) -> Reader {
    reader(source, discover(source, &[], Discovery::Initial).unwrap())
}

/// Reads until there is nothing for now.
fn drain(reader: &mut Reader) -> Vec<String> {
    let mut out = Vec::new();
    while reader.read(3, AT_ONCE, &mut out).unwrap() == ReadStatus::More {}
    out
}

fn snapshot(reader: &mut Reader) -> Vec<FileSplit> {
    reader.snapshot(CheckpointId(1)).unwrap()
}

#[test]
fn lines_are_read_as_they_are_completed() {
    let dir = directory(&[("a.txt", "one\ntwo\r\nthr")]);
    let mut reader = start(&FileSource::directory(dir.path()));
    assert_eq!(drain(&mut reader), ["one", "two"]);
    append(&dir, "a.txt", "e");
    assert_eq!(drain(&mut reader), [""; 0]);
    append(&dir, "a.txt", "e\n\nfour\n");
    assert_eq!(drain(&mut reader), ["three", "", "four"]);
}

#[test]
fn a_line_that_comes_while_waiting_ends_the_wait() {
    let dir = directory(&[("a.txt", "")]);
    let mut reader = start(&FileSource::directory(dir.path()));
    let path = dir.path().join("a.txt");
    let writer = std::thread::spawn(move || fs::write(path, "late\n").unwrap());
    let (mut out, started) = (Vec::new(), Instant::now());
    assert_eq!(reader.read(10, Duration::from_secs(60), &mut out).unwrap(), ReadStatus::More);
    assert!(started.elapsed() < Duration::from_secs(30));
    assert_eq!(out, ["late"]);
    writer.join().unwrap();
}

#[test]
fn files_are_found_in_subdirectories_and_hidden_or_temporary_ones_are_not() {
    let names = ["b.txt", "a.txt", "sub/deep/c.txt", ".hidden", ".git/x", "a.txt.tmp", "sub/.x/y"];
    let dir = directory(&names.map(|name| (name, "line\n")));
    let source = FileSource::directory(dir.path());
    let ids = |known: &[&str]| -> Vec<String> {
        discover(&source, known, Discovery::Later).unwrap().iter().map(SourceSplit::split_id).collect()
    };
    assert_eq!(ids(&[]), ["a.txt", "b.txt", "sub/deep/c.txt"]);
    assert_eq!(ids(&["a.txt", "sub/deep/c.txt"]), ["b.txt"]);
    assert_eq!(drain(&mut start(&source)).len(), 3);
}

#[test]
fn latest_begins_behind_the_last_complete_line_and_new_files_at_their_beginning() {
    let dir = directory(&[("a.txt", "old\nhal"), ("b.txt", "no line end"), ("c.txt", "")]);
    let source = FileSource::directory(dir.path()).start(FileStart::Latest);
    let splits = discover(&source, &[], Discovery::Initial).unwrap();
    assert_eq!(splits.iter().map(|split| split.offset).collect::<Vec<_>>(), [4, 0, 0]);
    let mut reader = reader(&source, splits);
    append(&dir, "a.txt", "f\n");
    append(&dir, "d.txt", "new\n");
    reader.add_splits(discover(&source, &["a.txt", "b.txt", "c.txt"], Discovery::Later).unwrap()).unwrap();
    assert_eq!(drain(&mut reader), ["half", "new"]);
}

#[test]
fn bounded_reads_what_is_there_at_the_start_and_ends() {
    let dir = directory(&[("a.txt", "one\ntwo"), ("b.txt", "three\n"), ("empty.txt", "")]);
    let source = FileSource::directory(dir.path()).bounded();
    let mut reader = start(&source);
    append(&dir, "a.txt", "fold\nlater\n");
    append(&dir, "b.txt", "later\n");
    let mut out = Vec::new();
    while reader.read(100, AT_ONCE, &mut out).unwrap() != ReadStatus::Finished {}
    assert_eq!(out, ["one", "two", "three"]);
    append(&dir, "later.txt", "x\n");
    assert_eq!(discover(&source, &[], Discovery::Later).unwrap(), []);
}

#[test]
fn positions_are_byte_offsets() {
    let dir = directory(&[("a.txt", "one\ntwo\nthree\nfour\n")]);
    let mut reader = start(&FileSource::directory(dir.path()));
    reader.read(1, AT_ONCE, &mut vec![]).unwrap();
    reader.read(2, AT_ONCE, &mut vec![]).unwrap();
    assert_eq!(reader.position(), "a.txt@4..14");
}

#[test]
fn every_position_restores_without_loss_or_repetition() {
    let files = [("a.txt", "one\ntwo\nthree\n"), ("b.txt", "four\nfive\nsi"), ("c.txt", "seven\n")];
    let dir = directory(&files);
    let source = FileSource::directory(dir.path());
    for position in 0..=6 {
        let mut first = start(&source);
        let mut out = Vec::new();
        for _ in 0..position {
            first.read(1, AT_ONCE, &mut out).unwrap();
        }
        assert_eq!(out.len(), position);
        out.extend(drain(&mut reader(&source, snapshot(&mut first))));
        assert_eq!(out, ["one", "two", "three", "four", "five", "seven"], "stopped after {position}");
    }
}

#[test]
fn a_truncated_file_is_an_error_after_a_restore_and_while_it_is_read() {
    let dir = directory(&[("a.txt", "one\ntwo\n")]);
    let source = FileSource::directory(dir.path());
    let mut first = start(&source);
    assert_eq!(drain(&mut first).len(), 2);
    fs::write(dir.path().join("a.txt"), "new\n").unwrap();
    let mut restored = reader(&source, snapshot(&mut first));
    for reader in [&mut first, &mut restored] {
        let error = reader.read(10, AT_ONCE, &mut vec![]).unwrap_err();
        assert!(!error.retryable, "{error:?}");
        for part in ["a.txt", "4 bytes", "8 bytes", "truncated"] {
            assert!(error.message.contains(part), "{error}");
        }
    }
}

#[test]
fn a_file_in_the_place_of_another_is_read_on_if_it_is_long_enough() {
    let dir = directory(&[("a.txt", "one\ntwo\n"), ("new.tmp", "one\ntwo\nthree\n")]);
    let mut reader = start(&FileSource::directory(dir.path()));
    assert_eq!(drain(&mut reader), ["one", "two"]);
    fs::rename(dir.path().join("new.tmp"), dir.path().join("a.txt")).unwrap();
    assert_eq!(drain(&mut reader), ["three"]);
}

#[test]
fn a_deleted_file_is_let_go_and_the_others_go_on() {
    let dir = directory(&[("a.txt", "one\n"), ("b.txt", "two\n")]);
    let source = FileSource::directory(dir.path());
    let mut first = start(&source);
    assert_eq!(drain(&mut first).len(), 2);
    fs::remove_file(dir.path().join("a.txt")).unwrap();
    append(&dir, "b.txt", "three\n");
    assert_eq!(drain(&mut first), ["three"]);
    let mut restored = reader(&source, snapshot(&mut first));
    append(&dir, "b.txt", "four\n");
    assert_eq!(drain(&mut restored), ["four"]);
}

#[test]
fn a_file_of_a_bounded_source_that_is_gone_is_an_error() {
    let dir = directory(&[("a.txt", "one\n")]);
    let mut reader = start(&FileSource::directory(dir.path()).bounded());
    fs::remove_file(dir.path().join("a.txt")).unwrap();
    let error = reader.read(10, AT_ONCE, &mut vec![]).unwrap_err();
    assert!(error.message.contains("bytes 0 to 4 unread"), "{error}");
}

#[test]
fn a_missing_directory_is_named() {
    let dir = directory(&[("a.txt", "one\n")]);
    let source = FileSource::directory(dir.path());
    let mut reader = start(&source);
    let path = dir.path().display().to_string();
    fs::remove_dir_all(dir.path()).unwrap();
    let at_start = discover(&source, &[], Discovery::Initial).unwrap_err();
    assert!(!at_start.retryable && at_start.message.contains(&path), "{at_start:?}");
    let later = discover(&source, &[], Discovery::Later).unwrap_err();
    assert!(later.retryable && later.message.contains(&path), "{later:?}");
    let while_reading = reader.read(10, AT_ONCE, &mut vec![]).unwrap_err();
    assert!(while_reading.message.contains(&path), "{while_reading:?}");
}

#[test]
fn invalid_utf8_fails_or_is_skipped_and_counted() {
    let dir = directory(&[("a.txt", "one\n")]);
    append(&dir, "a.txt", b"\xff\xfe\n");
    append(&dir, "a.txt", "two\n");
    let source = FileSource::directory(dir.path());
    let error = start(&source).read(10, AT_ONCE, &mut vec![]).unwrap_err();
    assert!(!error.retryable && error.message.contains("a.txt@4..7"), "{error:?}");

    let source = source.on_undecodable(Undecodable::SkipAndCount);
    let mut reader = start(&source);
    assert_eq!(drain(&mut reader), ["one", "two"]);
    assert_eq!(skipped(&format!("files {}", dir.path().display())), 1);
    assert_eq!(snapshot(&mut reader)[0].offset, 11);
}

#[test]
fn a_line_that_is_too_long_fails_or_is_skipped() {
    for length in [9, 10, 11, 12, 13, 14, 25, 40] {
        for end in ["\n", "\r\n"] {
            let dir = directory(&[("a.txt", &format!("a\n{}{end}b\n", "x".repeat(length)))]);
            let source = FileSource::directory(dir.path()).max_line_bytes(10);
            let skipping = source.clone().on_undecodable(Undecodable::SkipAndCount);
            let expected = if length > 10 { 2 } else { 3 };
            assert_eq!(drain(&mut start(&skipping)).len(), expected, "{length}");
            let failed = start(&source).read(10, AT_ONCE, &mut vec![]);
            assert_eq!(failed.is_err(), length > 10, "{length}");
        }
    }
}

#[test]
fn a_long_line_does_not_have_to_end_to_be_given_up_again_after_a_restore() {
    let dir = directory(&[("a.txt", &"x".repeat(100))]);
    let source = FileSource::directory(dir.path()).max_line_bytes(10).on_undecodable(Undecodable::SkipAndCount);
    let mut first = start(&source);
    assert_eq!(drain(&mut first), [""; 0]);
    assert_eq!(snapshot(&mut first)[0].offset, 0);
    let mut restored = reader(&source, snapshot(&mut first));
    append(&dir, "a.txt", "x\nshort\n");
    assert_eq!(drain(&mut restored), ["short"]);
    assert_eq!(drain(&mut first), ["short"]);
}

#[test]
fn senseless_settings_are_refused() {
    let source = FileSource::directory("/");
    for source in [source.clone().max_line_bytes(0), source.discovery_interval(Duration::ZERO)] {
        let error = source.create_enumerator(&EnumeratorContext { parallelism: 1 }).err().unwrap();
        assert!(!error.retryable, "{error:?}");
    }
}

#[derive(Clone, Debug)]
enum Step {
    Append { file: usize, text: String },
    Read { max: usize },
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let append = (0_usize..3, "[a-c]{0,5}(\n[a-c]{0,5}){0,3}").prop_map(|(file, text)| Step::Append { file, text });
    let read = (1_usize..5).prop_map(|max| Step::Read { max });
    prop::collection::vec(prop_oneof![4 => append, 4 => read, 1 => Just(Step::Restart)], 1..40)
}

proptest! {
    /// Files that grow in pieces of any kind, read in batches of any size, with restarts in between.
    #[test]
    fn each_line_once_whatever_happens(steps in steps()) {
        const FILES: [&str; 3] = ["a", "b", "c"];
        let dir = directory(&FILES.map(|file| (file, "")));
        let source = FileSource::directory(dir.path());
        let mut current = start(&source);
        let mut texts = FILES.map(|_| String::new());
        let mut out = Vec::new();
        for step in steps {
            match step {
                Step::Append { file, text } => {
                    append(&dir, FILES[file], &text);
                    texts[file].push_str(&text);
                }
                Step::Read { max } => {
                    current.read(max, AT_ONCE, &mut out).unwrap();
                }
                Step::Restart => current = reader(&source, snapshot(&mut current)),
            }
        }
        for (file, text) in FILES.iter().zip(&mut texts) {
            append(&dir, file, "\n");
            text.push('\n');
        }
        out.extend(drain(&mut current));
        let mut expected: Vec<_> = texts.iter().flat_map(|text| text.lines()).collect();
        let mut read: Vec<_> = out.iter().map(String::as_str).collect();
        expected.sort_unstable();
        read.sort_unstable();
        prop_assert_eq!(read, expected);
    }
}
