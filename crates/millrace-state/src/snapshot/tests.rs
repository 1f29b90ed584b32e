use bytes::Bytes;
use millrace_core::{ErrorDomain, ids::OperatorUid, key::KeyGroupRange, schema::Schema};

use super::*;

/// State, key group and entry, without borrows.
type Owned = (u16, u16, Vec<u8>, Option<Vec<u8>>, Option<u8>, Option<Vec<u8>>, Option<u64>, Vec<u8>);

fn meta(id: u16, name: &str, kind: StateKind) -> StateMeta {
    let schemas = match kind {
        StateKind::Map => vec![Schema::of::<String>().unwrap(), Schema::of::<i64>().unwrap()],
        _ => vec![Schema::of::<(u32, Option<String>)>().unwrap()],
    };
    StateMeta {
        id,
        name: name.to_string(),
        kind,
        key_schema: (id == 1).then(|| Schema::of::<String>().unwrap()),
        schemas,
    }
}

fn header() -> SnapshotHeader {
    SnapshotHeader {
        uid: OperatorUid("counter".to_string()),
        max_parallelism: 16,
        range: KeyGroupRange { start: 2, end: 5 },
        states: vec![
            meta(0, "first", StateKind::Value),
            meta(1, "second", StateKind::Map),
            meta(4, "empty", StateKind::List),
        ],
    }
}

fn entries() -> Vec<(u16, u16, Entry<'static>)> {
    let plain = |key, value| Entry::new(key, None, value);
    vec![
        (0, 2, plain(b"", b"the empty key")),
        (0, 2, plain(b"a", b"")),
        (0, 2, Entry { namespace: Some(b""), ..plain(b"a", b"1") }),
        (0, 2, Entry { namespace: Some(b"w"), timer_domain: Some(0), ..plain(b"a", b"2") }),
        (0, 2, Entry { namespace: Some(b"w"), timer_domain: Some(1), expiry: Some(77), ..plain(b"a", b"3") }),
        (0, 5, plain(b"z", b"last group")),
        (1, 3, Entry::new(b"k", Some(b""), b"x")),
        (1, 3, Entry::new(b"k", Some(b"s1"), b"y")),
        (1, 3, Entry { expiry: Some(u64::MAX), ..Entry::new(b"k", Some(b"s2"), &[7; 300]) }),
        (1, 3, Entry::new(b"l", Some(b"s1"), b"z")),
    ]
}

fn write(header: &SnapshotHeader, entries: &[(u16, u16, Entry<'_>)]) -> millrace_core::Result<Vec<u8>> {
    let mut file = Vec::new();
    let mut writer = SnapshotWriter::new(&mut file, header)?;
    for (state, key_group, entry) in entries {
        writer.entry(*state, *key_group, entry)?;
    }
    let summary = writer.finish()?;
    assert_eq!(summary, SnapshotSummary { size: file.len() as u64, crc32: crc32fast::hash(&file) });
    Ok(file)
}

fn owned(state: u16, key_group: u16, entry: &Entry<'_>) -> Owned {
    let copy = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
    let Entry { key, namespace, timer_domain, sub_key, expiry, value } = *entry;
    (state, key_group, key.to_vec(), copy(namespace), timer_domain, copy(sub_key), expiry, value.to_vec())
}

fn read(file: &[u8]) -> millrace_core::Result<(SnapshotHeader, Vec<Owned>)> {
    let reader = SnapshotReader::open(Bytes::copy_from_slice(file))?;
    let mut all = Vec::new();
    for state in &reader.header().states {
        for section in reader.sections(state.id, reader.header().range) {
            let mut entries = reader.read(section)?;
            while let Some(entry) = entries.next()? {
                all.push(owned(state.id, section.key_group, &entry));
            }
        }
    }
    Ok((reader.header().clone(), all))
}

#[test]
fn what_is_written_is_read() {
    let file = write(&header(), &entries()).unwrap();
    let (read_header, read_entries) = read(&file).unwrap();
    assert_eq!(read_header, header());
    let written: Vec<_> = entries().iter().map(|(state, group, entry)| owned(*state, *group, entry)).collect();
    assert_eq!(read_entries, written);
    assert_eq!(write(&header(), &entries()).unwrap(), file, "the same state gives the same bytes");
}

#[test]
fn a_snapshot_without_entries_or_states_is_read() {
    assert_eq!(read(&write(&header(), &[]).unwrap()).unwrap(), (header(), vec![]));
    let none = SnapshotHeader { states: vec![], ..header() };
    assert_eq!(read(&write(&none, &[]).unwrap()).unwrap(), (none, vec![]));
}

#[test]
fn only_the_key_groups_that_are_asked_for_are_read() {
    struct Counting(Bytes, std::rc::Rc<std::cell::RefCell<Vec<std::ops::Range<u64>>>>);
    impl SnapshotBytes for Counting {
        fn size(&self) -> u64 {
            self.0.size()
        }
        fn read(&self, range: std::ops::Range<u64>) -> millrace_core::Result<Bytes> {
            self.1.borrow_mut().push(range.clone());
            self.0.read(range)
        }
    }
    let file = write(&header(), &entries()).unwrap();
    let reads = std::rc::Rc::default();
    let reader = SnapshotReader::open(Counting(Bytes::from(file), std::rc::Rc::clone(&reads))).unwrap();
    reads.borrow_mut().clear();
    let wanted = KeyGroupRange { start: 4, end: 9 };
    let sections: Vec<_> = reader.sections(0, wanted).copied().collect();
    assert_eq!(sections.iter().map(|section| section.key_group).collect::<Vec<_>>(), [5]);
    reader.read(&sections[0]).unwrap();
    let read = sections[0].offset..sections[0].offset + sections[0].length;
    assert_eq!(*reads.borrow(), vec![read; 1]);
}

#[test]
fn every_flipped_bit_is_noticed() {
    let file = write(&header(), &entries()).unwrap();
    for at in 0..file.len() {
        for bit in 0..8 {
            let mut damaged = file.clone();
            damaged[at] ^= 1 << bit;
            let error = read(&damaged).expect_err(&format!("bit {bit} of byte {at} was flipped"));
            assert!(!error.retryable && !error.message.is_empty(), "{error}");
        }
    }
}

#[test]
fn every_truncation_and_any_appendix_is_noticed() {
    let file = write(&header(), &entries()).unwrap();
    for length in 0..file.len() {
        let error = read(&file[..length]).expect_err(&format!("{length} bytes"));
        assert!(error.message.contains("damaged"), "{error}");
    }
    for extra in [1, 19, 20, 24, 1000] {
        let mut longer = file.clone();
        longer.resize(file.len() + extra, 0);
        read(&longer).expect_err("zeros were appended");
        longer = file.clone();
        longer.extend_from_slice(&file[..extra.min(file.len())]);
        read(&longer).expect_err("another snapshot's start was appended");
    }
}

#[test]
fn foreign_files_and_other_versions_are_refused_for_what_they_are() {
    let foreign = read(&[b'x'; 1000]).unwrap_err();
    assert!(foreign.message.contains("another file"), "{foreign}");
    let mut newer = write(&header(), &entries()).unwrap();
    newer[8] = 2;
    let newer = read(&newer).unwrap_err();
    assert!(newer.message.contains("version 2") && newer.domain == ErrorDomain::User, "{newer}");
    let kind = 1 + header().encode().unwrap().windows(5).position(|w| w == b"first").unwrap() + 4;
    let mut unknown = header().encode().unwrap();
    unknown[kind] = 9;
    let unknown = SnapshotHeader::decode(&unknown).unwrap_err();
    assert!(unknown.message.contains("kind 9") && unknown.message.contains("\"first\""), "{unknown}");
}

/// A file whose checksums are right and whose content is absurd: written with intent.
#[test]
fn hostile_content_with_right_checksums_is_refused_without_large_allocations() {
    let file = write(&header(), &entries()).unwrap();
    let reader = SnapshotReader::open(Bytes::from(file.clone())).unwrap();
    let first = *reader.sections(0, header().range).next().unwrap();
    let start = first.offset as usize;
    for at in start..start + first.length as usize {
        for byte in [0, 1, 0x1f, 0x7f, 0x80, 0xff] {
            let mut hostile = file.clone();
            hostile[at] = byte;
            let hostile = reseal(hostile, &first);
            // Whatever it says, it is read to the end or refused.
            let _ = read(&hostile);
        }
    }
    let header_bytes = header().encode().unwrap();
    for at in 0..header_bytes.len() {
        for byte in [0, 1, 0x7f, 0xff] {
            let mut hostile = header_bytes.clone();
            hostile[at] = byte;
            let _ = SnapshotHeader::decode(&hostile);
        }
        let _ = SnapshotHeader::decode(&header_bytes[..at]).unwrap_err();
    }
}

/// Makes the checksums of a changed section right again.
fn reseal(mut file: Vec<u8>, section: &Section) -> Vec<u8> {
    let end = (section.offset + section.length) as usize;
    let crc = crc32fast::hash(&file[section.offset as usize..end]);
    let trailer = file.len() - TRAILER_SIZE;
    let footer = u64::from_le_bytes(file[trailer..trailer + 8].try_into().unwrap()) as usize;
    file[footer + SECTION_SIZE - 4..footer + SECTION_SIZE].copy_from_slice(&crc.to_le_bytes());
    let header_end = HEADER_START + u32::from_le_bytes(file[12..16].try_into().unwrap()) as usize;
    let frame = [&file[..header_end], &file[footer..trailer + 8]].concat();
    let at = trailer + 8;
    file[at..at + 4].copy_from_slice(&crc32fast::hash(&frame).to_le_bytes());
    file
}

#[test]
fn resealing_in_these_tests_works() {
    let file = write(&header(), &entries()).unwrap();
    let reader = SnapshotReader::open(Bytes::from(file.clone())).unwrap();
    let first = *reader.sections(0, header().range).next().unwrap();
    assert_eq!(reseal(file.clone(), &first), file);
}

#[test]
fn entries_out_of_order_are_refused_when_they_are_written() {
    let all = entries();
    for (a, b) in [(1, 0), (2, 1), (4, 3), (5, 0), (6, 5), (8, 7), (3, 3)] {
        let error = write(&header(), &[all[a], all[b]]).unwrap_err();
        assert!(error.message.contains("out of order"), "{a} {b}: {error}");
    }
}

#[test]
fn a_state_that_is_too_large_is_refused_with_its_name_size_and_the_remedy() {
    let limited = |bytes| {
        let mut file = Vec::new();
        let mut writer = SnapshotWriter::new(&mut file, &header()).unwrap();
        writer.limit_state_size(StateSizeLimit { bytes, operator: "Flat Map".to_string(), subtask: 3 });
        let value = vec![1; 40_000];
        for group in 2..=5 {
            writer.entry(0, group, &Entry::new(b"key", None, &value))?;
        }
        writer.entry(1, 2, &Entry::new(b"key", Some(b"s"), b"small"))?;
        writer.finish().map(|summary| summary.size)
    };
    // flags, key with its length, value with its length
    let size = 4 * (1 + 4 + 3 + 40_000);
    assert!(limited(size).is_ok());
    let error = limited(size - 1).unwrap_err();
    for part in ["\"first\"", "Flat Map", "counter", "subtask 3", &size.to_string(), &(size - 1).to_string()] {
        assert!(error.message.contains(part), "{part} in {error}");
    }
    assert!(error.message.contains("state.backend.memory.max-state-size") && !error.retryable);
    assert!(limited(10).unwrap_err().message.contains(&size.to_string()), "the whole size is told");
}

#[test]
fn a_sink_that_fails_is_an_external_error() {
    struct Full(usize);
    impl std::io::Write for Full {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0 = self.0.checked_sub(bytes.len()).ok_or_else(|| std::io::Error::other("no space left"))?;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let whole = write(&header(), &entries()).unwrap().len();
    for room in 0..whole {
        let mut sink = Full(room);
        let written = SnapshotWriter::new(&mut sink, &header()).and_then(|mut writer| {
            entries().iter().try_for_each(|(state, group, entry)| writer.entry(*state, *group, entry))?;
            writer.finish()
        });
        let error = written.unwrap_err();
        assert!(error.message.contains("no space left") && error.domain == ErrorDomain::External && error.retryable);
    }
}
