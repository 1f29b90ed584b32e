//! The file sink on S3, against a real server.

use std::collections::BTreeMap;

use millrace_connectors::file::{FileCommittable, FileSink, TextLines};
use millrace_core::{
    checkpoint::CheckpointConfig,
    ids::OperatorUid,
    sink::{Committer, CommitterContext, Sink, WriterContext},
};
use millrace_testkit::{
    conformance::sink::{SinkUnderTest, sink_conformance},
    services::minio::Minio,
};
use object_store::{ObjectStoreExt, multipart::MultipartStore, path::Path};

struct OnS3 {
    bucket: &'static str,
    minio: &'static Minio,
    read: BTreeMap<String, String>,
}

impl OnS3 {
    fn new(bucket: &'static str) -> Self {
        let minio = Minio::shared();
        minio.create_bucket(bucket).unwrap();
        Self { bucket, minio, read: BTreeMap::new() }
    }

    fn objects(&self) -> Vec<String> {
        self.minio.objects(self.bucket).unwrap()
    }

    fn text(&mut self, key: &str) -> String {
        if !self.read.contains_key(key) {
            let client = self.minio.client(self.bucket).build().unwrap();
            let bytes = self.wait(async { client.get(&Path::from(key)).await?.bytes().await });
            self.read.insert(key.to_string(), String::from_utf8(bytes.to_vec()).unwrap());
        }
        self.read[key].clone()
    }

    fn wait<T>(&self, call: impl Future<Output = object_store::Result<T>>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(call).unwrap()
    }

    fn configured(&self, sink: FileSink<String>) -> FileSink<String> {
        sink.s3_option("aws_endpoint", self.minio.endpoint())
            .s3_option("aws_access_key_id", self.minio.access_key())
            .s3_option("aws_secret_access_key", self.minio.secret_key())
    }

    fn committer(&self) -> Box<dyn Committer<FileCommittable>> {
        let context = CommitterContext { uid: OperatorUid("files".into()), subtask: 0, parallelism: 1 };
        self.sink().create_committer(&context).unwrap()
    }

    fn context() -> WriterContext<FileCommittable> {
        WriterContext::new(OperatorUid("files".into()), 0, 1)
    }
}

fn is_hidden(key: &str) -> bool {
    key.contains("/.millrace/")
}

impl SinkUnderTest for OnS3 {
    type Sink = FileSink<String>;

    fn sink(&self) -> FileSink<String> {
        let sink = FileSink::new(&format!("s3://{}/out", self.bucket), TextLines).unwrap();
        self.configured(sink)
            .buckets(|record: &String| format!("bucket={}", record.as_bytes()[record.len() - 1] % 2))
            .max_part_size(80)
    }

    fn visible(&mut self) -> Vec<String> {
        let keys: Vec<_> = self.objects().into_iter().filter(|key| !is_hidden(key)).collect();
        keys.iter().flat_map(|key| self.text(key).lines().map(str::to_owned).collect::<Vec<_>>()).collect()
    }

    fn is_ordered(&self) -> bool {
        false
    }

    fn left_over(&mut self) -> Vec<String> {
        let hidden = self.objects().into_iter().filter(|key| is_hidden(key));
        hidden.chain(self.minio.open_uploads().unwrap()).collect()
    }
}

/// In one test, since uploads that are open can be listed for a whole server only.
#[test]
fn objects_are_seen_once_wherever_the_job_dies_and_nothing_is_left_over() {
    sink_conformance(&mut OnS3::new("conformance"));
    a_large_part_is_uploaded_in_pieces_and_committed_once();
    an_upload_that_a_dead_start_has_left_is_aborted();
    what_is_gone_is_committed_if_the_object_is_there_and_lost_otherwise();
    uploads_of_earlier_versions_are_completed();
    what_is_committed_is_not_written_again();
    names_are_kept_as_they_are();
    too_large_parts_are_refused();
}

fn lines() -> Vec<String> {
    (0..200_000).map(|n| format!("{n:0>99}0")).collect()
}

fn a_large_part_is_uploaded_in_pieces_and_committed_once() {
    let mut on_s3 = OnS3::new("large");
    let sink = on_s3.sink().max_part_size(256 << 20);
    let mut writer = sink.create_writer(&mut OnS3::context()).unwrap();
    let lines = lines();
    for some in lines.chunks(1000) {
        writer.write(some.to_vec()).unwrap();
    }
    let hidden = on_s3.left_over();
    assert_eq!(hidden.len(), 2, "an upload and its marker: {hidden:?}");
    let committables = writer.prepare_commit().unwrap();
    let [FileCommittable::Copy { size, .. }] = &committables[..] else { panic!("{committables:?}") };
    assert_eq!(*size, 200_000 * 101, "20 MB in pieces of 8 MiB");
    assert!(on_s3.visible().is_empty());
    let mut committer = on_s3.committer();
    for _ in 0..2 {
        committer.commit(&committables).unwrap();
        assert_eq!(on_s3.visible(), lines);
    }
    assert!(on_s3.left_over().is_empty());
}

fn an_upload_that_a_dead_start_has_left_is_aborted() {
    let mut on_s3 = OnS3::new("dead");
    let mut dead = on_s3.sink().max_part_size(256 << 20).create_writer(&mut OnS3::context()).unwrap();
    dead.write(lines()).unwrap();
    std::mem::forget(dead);
    assert_eq!(on_s3.left_over().len(), 2, "an upload and its marker");
    drop(on_s3.sink().create_writer(&mut OnS3::context()).unwrap());
    assert!(on_s3.left_over().is_empty(), "{:?}", on_s3.left_over());
}

fn what_is_gone_is_committed_if_the_object_is_there_and_lost_otherwise() {
    let on_s3 = OnS3::new("lost");
    let mut writer = on_s3.sink().create_writer(&mut OnS3::context()).unwrap();
    writer.write(vec!["one".into()]).unwrap();
    let committables = writer.prepare_commit().unwrap();
    // A start that knows nothing of this one: as of another job.
    drop(on_s3.sink().create_writer(&mut OnS3::context()).unwrap());
    let error = on_s3.committer().commit(&committables).unwrap_err();
    assert!(!error.retryable && error.message.contains("s3://lost/out/bucket=1/part-0-"), "{error:?}");
    let [FileCommittable::Copy { to, .. }] = &committables[..] else { panic!("{committables:?}") };
    let put = |text: &'static str| {
        let client = on_s3.minio.client("lost").build().unwrap();
        on_s3.wait(async { client.put(&Path::from(to.as_str()), text.into()).await.map(drop) });
    };
    put("longer");
    let error = on_s3.committer().commit(&committables).unwrap_err();
    assert!(!error.retryable && error.message.contains("6 bytes instead of 4"), "{error:?}");
    put("one\n");
    on_s3.committer().commit(&committables).unwrap();
}

/// A checkpoint from before parts were staged holds uploads.
fn uploads_of_earlier_versions_are_completed() {
    let mut on_s3 = OnS3::new("earlier");
    let client = on_s3.minio.client("earlier").build().unwrap();
    let (key, marker) = (Path::from("out/bucket=0/part-0-x-0"), Path::from("out/.millrace/x"));
    let mut upload = None;
    on_s3.wait(async {
        let id = client.create_multipart(&key).await?;
        let part = client.put_part(&key, &id, 0, "ten\n".into()).await?;
        client.put(&marker, "named".into()).await?;
        upload = Some((id, part.content_id));
        Ok(())
    });
    let (upload, part) = upload.unwrap();
    let (key, marker) = (key.to_string(), marker.to_string());
    let committable =
        FileCommittable::Upload { bucket: "earlier".into(), key, upload, parts: vec![part], size: 4, marker };
    for _ in 0..2 {
        on_s3.committer().commit(std::slice::from_ref(&committable)).unwrap();
        assert_eq!(on_s3.visible(), ["ten"]);
    }
    assert!(on_s3.left_over().is_empty());
}

/// As after a death between copy and deletion, or where several subtasks commit what a checkpoint held.
fn what_is_committed_is_not_written_again() {
    let on_s3 = OnS3::new("again");
    let mut writer = on_s3.sink().create_writer(&mut OnS3::context()).unwrap();
    writer.write(vec!["one".into()]).unwrap();
    let committables = writer.prepare_commit().unwrap();
    let [FileCommittable::Copy { from, to, .. }] = &committables[..] else { panic!("{committables:?}") };
    let client = on_s3.minio.client("again").build().unwrap();
    let (from, to) = (Path::from(from.as_str()), Path::from(to.as_str()));
    on_s3.wait(client.copy(&from, &to));
    let before = on_s3.wait(client.head(&to));
    on_s3.committer().commit(&committables).unwrap();
    assert_eq!(on_s3.wait(client.head(&to)).last_modified, before.last_modified);
    assert_eq!(on_s3.objects().len(), 1, "what was staged is gone: {:?}", on_s3.objects());
}

/// What S3's client would encode once more.
fn names_are_kept_as_they_are() {
    let mut on_s3 = OnS3::new("names");
    let place = "s3://names/~team/données 100%";
    let sink = || on_s3.configured(FileSink::new(place, TextLines).unwrap()).buckets(|_: &String| "é#%".to_owned());
    let mut writer = sink().create_writer(&mut OnS3::context()).unwrap();
    writer.write(vec!["one".into()]).unwrap();
    on_s3.committer().commit(&writer.prepare_commit().unwrap()).unwrap();
    let mut dead = sink().max_part_size(256 << 20).create_writer(&mut OnS3::context()).unwrap();
    dead.write(lines()).unwrap();
    std::mem::forget(dead);
    drop(sink().create_writer(&mut OnS3::context()).unwrap());
    let objects = on_s3.objects();
    assert!(objects.len() == 1 && objects[0].contains("/%C3%A9%23%25/part-0-"), "{objects:?}");
    assert!(on_s3.left_over().is_empty(), "{:?}", on_s3.left_over());
}

fn too_large_parts_are_refused() {
    let sink = OnS3::new("refused").sink().max_part_size(256 << 20);
    sink.check(&CheckpointConfig::default()).unwrap();
    let error = sink.max_part_size((256 << 20) + 1).check(&CheckpointConfig::default()).unwrap_err();
    assert!(!error.retryable && error.message.contains("max_part_size is 268435457"), "{error:?}");
}
