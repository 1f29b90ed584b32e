//! The launchers of real services do what the tests that use them rely on.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use millrace_testkit::services::kafka::{Isolation, KafkaBroker};
use millrace_testkit::services::minio::{Authority, Minio, TemporaryKeys};
use millrace_testkit::services::ports::{ReservedPort, free_port};
use millrace_testkit::services::process::{ManagedProcess, Signal};
use object_store::aws::AmazonS3;
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, RetryConfig};
use rdkafka::config::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(30);

fn numbered(range: std::ops::Range<u32>) -> impl Iterator<Item = (Option<String>, String)> {
    range.map(|number| (Some(format!("key-{number}")), format!("value-{number}")))
}

#[test]
fn ports_are_distinct_and_reserved() {
    let first = ReservedPort::new();
    assert_ne!(first.port(), free_port());
    assert!(std::net::TcpListener::bind(("127.0.0.1", first.port())).is_err());
    let port = first.release();
    assert!(std::net::TcpListener::bind(("127.0.0.1", port)).is_ok());
}

/// As a job in a cluster and its test share one: at an address that is not localhost, with a reader and a writer that
/// outlast it.
#[test]
fn kafka_elsewhere_is_read_on_and_written_to_once_while_it_is_killed_and_comes_back() {
    let mut kafka = KafkaBroker::start_on([127, 0, 0, 2].into()).unwrap();
    assert!(kafka.bootstrap().starts_with("127.0.0.2:"));
    kafka.create_topic("numbers", 2).unwrap();
    let mut follower = kafka.follow("numbers", Isolation::ReadUncommitted).unwrap();
    let client = kafka.client();
    // Goes on while the broker is away.
    let writer = thread::spawn(move || {
        let paced = numbered(0..400).inspect(|_| thread::sleep(Duration::from_millis(10)));
        client.produce("numbers", paced)
    });
    let (mut read, begin) = (Vec::new(), Instant::now());
    while read.len() < 50 && begin.elapsed() < LIMIT {
        read.extend(follower.read_on(Duration::from_millis(50)).unwrap());
    }
    kafka.kill().unwrap();
    assert_eq!(follower.read_on(Duration::from_millis(50)).map(|_| ()).ok(), Some(()), "an absence is no error");
    kafka.restart().unwrap();
    writer.join().unwrap().unwrap();
    // From here: a broker that was killed may be away for as long as the limit.
    let written = Instant::now();
    while read.len() < 400 && written.elapsed() < LIMIT {
        read.extend(follower.read_on(Duration::from_millis(50)).unwrap());
    }
    read.extend(follower.read_on(Duration::from_millis(50)).unwrap());
    let values: std::collections::BTreeSet<_> = read.iter().map(|message| message.text().to_owned()).collect();
    assert_eq!((read.len(), values.len()), (400, 400), "each record lies there once");
}

/// And nothing is left of a fault on the way when it is over.
#[test]
fn kafka_behind_a_proxy_is_reached_only_through_it_by_who_was_given_its_address() {
    let (kafka, proxy) = KafkaBroker::start_with_proxy().unwrap();
    kafka.create_topic("numbers", 1).unwrap();
    assert_eq!(proxy.connections(), 0);
    let writer: BaseProducer =
        ClientConfig::new().set("bootstrap.servers", proxy.address().to_string()).create().unwrap();
    let write = |value: &str| {
        writer.send(BaseRecord::<(), str>::to("numbers").payload(value)).map_err(|(error, _)| error).unwrap();
    };
    let values = || {
        let messages = kafka.consume_all("numbers", Isolation::ReadUncommitted).unwrap();
        messages.iter().map(|message| message.text().to_owned()).collect::<Vec<_>>()
    };
    write("before");
    writer.flush(LIMIT).unwrap();
    proxy.hold();
    write("late");
    assert!(writer.flush(Duration::from_millis(500)).is_err(), "it has another way");
    assert_eq!((values(), proxy.held() > 0), (vec!["before".to_owned()], true));
    proxy.release();
    writer.flush(LIMIT).unwrap();
    assert!(proxy.close() > 0);
    write("after");
    writer.flush(LIMIT).unwrap();
    assert_eq!(values(), ["before", "late", "after"]);
}

#[test]
fn kafka_keeps_what_was_produced_through_restart_and_kill() {
    let mut kafka = KafkaBroker::start().unwrap();
    kafka.create_topic("numbers", 3).unwrap();
    kafka.produce("numbers", numbered(0..100)).unwrap();
    assert_eq!(kafka.end_offsets("numbers").unwrap().values().sum::<i64>(), 100);

    let before = kafka.consume_all("numbers", Isolation::ReadCommitted).unwrap();
    let values: BTreeMap<_, _> = before.iter().map(|m| (m.text().to_owned(), m)).collect();
    assert_eq!(values.len(), 100);
    assert_eq!(values["value-7"].key.as_deref(), Some(b"key-7".as_slice()));

    let bootstrap = kafka.bootstrap();
    kafka.stop().unwrap();
    kafka.restart().unwrap();
    assert_eq!(kafka.bootstrap(), bootstrap);
    let after = kafka.consume_all("numbers", Isolation::ReadCommitted).unwrap();
    assert_eq!(after, before);

    kafka.produce("numbers", numbered(100..150)).unwrap();
    kafka.kill().unwrap();
    kafka.restart().unwrap();
    let after = kafka.consume_all("numbers", Isolation::ReadUncommitted).unwrap();
    assert_eq!(after.len(), 150);
}

#[test]
fn kafka_topics_grow_and_unknown_ones_are_errors() {
    let kafka = KafkaBroker::shared();
    kafka.create_topic("growing", 1).unwrap();
    assert!(kafka.create_topic("growing", 1).is_err());
    kafka.grow_topic("growing", 4).unwrap();
    assert_eq!(kafka.end_offsets("growing").unwrap().len(), 4);
    assert!(kafka.end_offsets("unknown").is_err());
    assert!(kafka.produce("unknown", numbered(0..1)).is_err());
    assert!(kafka.consume_all("growing", Isolation::ReadCommitted).unwrap().is_empty());
}

#[test]
fn kafka_tells_committed_offsets() {
    use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
    use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

    let kafka = KafkaBroker::shared();
    kafka.create_topic("committed", 2).unwrap();
    assert!(kafka.committed_offsets("group", "committed").unwrap().is_empty());

    let consumer: BaseConsumer =
        ClientConfig::new().set("bootstrap.servers", kafka.bootstrap()).set("group.id", "group").create().unwrap();
    let mut offsets = TopicPartitionList::new();
    offsets.add_partition_offset("committed", 1, Offset::Offset(42)).unwrap();
    consumer.commit(&offsets, CommitMode::Sync).unwrap();
    let committed = kafka.committed_offsets("group", "committed").unwrap();
    assert_eq!(committed, BTreeMap::from([(1, 42)]));
}

#[test]
fn kafka_isolation_hides_open_and_aborted_transactions() {
    let kafka = KafkaBroker::shared();
    kafka.create_topic("transactions", 1).unwrap();
    let seen = |isolation| {
        let messages = kafka.consume_all("transactions", isolation).unwrap();
        messages.iter().map(|m| m.text().to_owned()).collect::<Vec<_>>()
    };

    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", kafka.bootstrap())
        .set("transactional.id", "services")
        .create()
        .unwrap();
    producer.init_transactions(LIMIT).unwrap();
    let write = |value: &str| {
        producer.begin_transaction().unwrap();
        let record = BaseRecord::<(), str>::to("transactions").payload(value);
        producer.send(record).map_err(|(error, _)| error).unwrap();
        producer.flush(LIMIT).unwrap();
    };

    write("aborted");
    producer.abort_transaction(LIMIT).unwrap();
    write("committed");
    producer.commit_transaction(LIMIT).unwrap();
    write("open");
    assert_eq!(seen(Isolation::ReadCommitted), ["committed"]);
    assert_eq!(seen(Isolation::ReadUncommitted), ["aborted", "committed", "open"]);

    // Now the partition ends with a marker instead of a message.
    producer.abort_transaction(LIMIT).unwrap();
    assert_eq!(seen(Isolation::ReadCommitted), ["committed"]);
    assert_eq!(seen(Isolation::ReadUncommitted), ["aborted", "committed", "open"]);
}

fn bucket(minio: &Minio, name: &str) -> AmazonS3 {
    let retry = RetryConfig { max_retries: 0, ..RetryConfig::default() };
    minio.client(name).with_retry(retry).build().unwrap()
}

#[tokio::test]
async fn minio_stores_objects_and_creates_each_once() {
    let minio = Minio::shared();
    minio.create_bucket("create-once").unwrap();
    let store = bucket(minio, "create-once");
    let path = Path::from("folder/object");

    store.put_opts(&path, "one".into(), PutMode::Create.into()).await.unwrap();
    let second = store.put_opts(&path, "two".into(), PutMode::Create.into()).await;
    assert!(matches!(second, Err(Error::AlreadyExists { .. })), "{second:?}");
    let got = store.get(&path).await.unwrap().bytes().await.unwrap();
    assert_eq!(got, "one");

    let unknown = bucket(minio, "unknown").get(&path).await;
    assert!(matches!(unknown, Err(Error::NotFound { .. })), "{unknown:?}");
}

#[tokio::test]
async fn minio_with_tls_hands_out_temporary_keys_that_count_with_their_token() {
    let authority = Authority::new("an authority");
    let minio = Minio::start_with_tls_on([127, 0, 0, 1].into(), &authority).unwrap();
    assert!(minio.endpoint().starts_with("https://"));
    minio.create_bucket("temporary").unwrap();
    let keys = minio.temporary_keys().unwrap();
    let other = minio.temporary_keys().unwrap();
    assert_ne!((&keys.access_key, &keys.session_token), (&other.access_key, &other.session_token));
    let put = |keys: TemporaryKeys| {
        let builder = minio.client("temporary").with_access_key_id(keys.access_key);
        let store = builder.with_secret_access_key(keys.secret_key).with_token(keys.session_token).build().unwrap();
        async move { store.put(&Path::from("object"), "content".into()).await }
    };
    let mixed = TemporaryKeys { session_token: other.session_token, ..keys.clone() };
    put(mixed).await.unwrap_err();
    assert_eq!(minio.objects("temporary").unwrap(), Vec::<String>::new());
    put(keys).await.unwrap();
    assert_eq!(minio.objects("temporary").unwrap(), ["object"]);
}

#[tokio::test]
async fn minio_keeps_objects_through_kill_and_stands_still_when_paused() {
    let mut minio = Minio::start().unwrap();
    minio.create_bucket("kept").unwrap();
    let store = bucket(&minio, "kept");
    let path = Path::from("object");
    store.put(&path, "one".into()).await.unwrap();

    minio.kill().unwrap();
    assert!(store.get(&path).await.is_err());
    minio.restart().unwrap();
    assert_eq!(store.get(&path).await.unwrap().bytes().await.unwrap(), "one");

    minio.pause().unwrap();
    let paused = tokio::time::timeout(Duration::from_millis(300), store.get(&path)).await;
    assert!(paused.is_err(), "a paused server answered");
    minio.resume().unwrap();
    assert_eq!(store.get(&path).await.unwrap().bytes().await.unwrap(), "one");

    minio.stop().unwrap();
    assert!(store.get(&path).await.is_err());
}

/// Whether there is such a process, other than one that only waits to be
/// reaped.
fn exists(pid: u32) -> bool {
    fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|cmdline| !cmdline.is_empty())
}

fn logs() -> TempDir {
    TempDir::new().unwrap()
}

#[test]
fn a_process_is_told_apart_alive_stopped_and_ended() {
    let mut shell = Command::new("sh");
    shell.args(["-c", "echo $GREETING; echo oops >&2; exec sleep 1000"]);
    shell.env("GREETING", "hello");
    let logs = logs();
    let mut process = ManagedProcess::spawn("talker", &shell, logs.path()).unwrap();
    process.wait_until("greeting", LIMIT, |p| p.stderr() == "oops\n").unwrap();
    assert_eq!(process.stdout(), "hello\n");

    process.pause().unwrap();
    assert!(process.is_alive());
    assert_eq!(process.wait_timeout(Duration::ZERO).unwrap(), None);
    process.resume().unwrap();
    process.signal(Signal::WINCH).unwrap(); // one that it ignores
    process.terminate().unwrap();
    assert!(process.wait_timeout(LIMIT).unwrap().is_some());
    assert!(!process.is_alive());
    assert!(process.terminate().is_err());
    process.kill().unwrap();
}

#[test]
fn a_process_that_ends_early_is_reported_with_its_output() {
    let mut shell = Command::new("sh");
    shell.args(["-c", "echo port taken; exit 3"]);
    let logs = logs();
    let mut process = ManagedProcess::spawn("failing", &shell, logs.path()).unwrap();
    let error = process.wait_until("start", LIMIT, |_| false).unwrap_err().to_string();
    assert!(error.contains("port taken") && error.contains("status: 3"), "{error}");
}

#[test]
fn a_process_outlives_the_thread_that_asked_for_it_but_not_its_owner() {
    let logs = logs();
    let path = logs.path().to_owned();
    let spawn = move || {
        let mut sleep = Command::new("sleep");
        sleep.arg("1000");
        ManagedProcess::spawn("sleeper", &sleep, &path).unwrap()
    };
    let mut process = thread::spawn(spawn).join().unwrap();
    // It would be killed at once.
    assert_eq!(process.wait_timeout(Duration::from_millis(200)).unwrap(), None);
    let pid = process.pid();
    drop(process);
    assert!(!exists(pid));
}

#[test]
fn a_missing_service_fails_its_tests_and_says_what_to_run() {
    let tests = [
        ("MILLRACE_KAFKA_HOME", "kafka_tells_committed_offsets", "scripts/fetch-kafka.sh"),
        ("MILLRACE_MINIO_BIN", "minio_stores_objects_and_creates_each_once", "scripts/fetch-minio.sh"),
    ];
    for (variable, test, script) in tests {
        let run = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test])
            .env(variable, "/nowhere")
            .output()
            .unwrap();
        assert!(!run.status.success());
        let output = String::from_utf8_lossy(&run.stdout);
        assert!(output.contains("`make test`") && output.contains(script), "{output}");
    }
}

/// Run by the next test in a process of its own, which ends without dropping.
#[test]
#[ignore = "a part of another test"]
fn leave_a_process_behind() {
    let mut sleep = Command::new("sleep");
    sleep.arg("1000");
    let logs = PathBuf::from(std::env::var_os("LOGS").expect("run by another test"));
    let mut process = ManagedProcess::spawn("orphan", &sleep, &logs).unwrap();
    let asleep =
        |p: &ManagedProcess| fs::read_to_string(format!("/proc/{}/comm", p.pid())).is_ok_and(|name| name == "sleep\n");
    process.wait_until("exec", LIMIT, asleep).unwrap();
    fs::write(logs.join("orphan.pid"), process.pid().to_string()).unwrap();
    std::process::abort();
}

#[test]
fn a_process_dies_with_the_test_process() {
    let logs = logs();
    let run = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "leave_a_process_behind"])
        .env("LOGS", logs.path())
        .output()
        .unwrap();
    assert!(!run.status.success());
    let pid = fs::read_to_string(logs.path().join("orphan.pid")).unwrap();
    let pid = pid.parse().unwrap();
    let give_up = Instant::now() + LIMIT;
    while exists(pid) {
        assert!(Instant::now() < give_up, "process {pid} was left behind");
        thread::sleep(Duration::from_millis(10));
    }
}
