//! The PostgreSQL sink against a real server.

use millrace_connectors::postgres::PostgresSink;
use millrace_core::{
    Result,
    ids::OperatorUid,
    sink::{Sink, SinkWriter, WriterContext},
};
use millrace_testkit::services::postgres::PostgresServer;
use postgres::{Client, NoTls};

type Count = (String, i64);

fn sink(url: &str, table: &str) -> PostgresSink<Count> {
    let values = |(word, count): &Count| vec![Box::new(word.clone()) as _, Box::new(*count) as _];
    PostgresSink::upsert(url, table, ["word"], ["count"], values).unwrap()
}

fn writer(sink: &PostgresSink<Count>) -> Result<Box<dyn SinkWriter<Count>>> {
    sink.create_writer(&mut WriterContext::new(OperatorUid("postgres".into()), 0, 1))
}

fn counts(words: &[(&str, i64)]) -> Vec<Count> {
    words.iter().map(|(word, count)| (word.to_string(), *count)).collect()
}

fn rows(server: &PostgresServer) -> Vec<Count> {
    let mut client = Client::connect(&server.url(), NoTls).unwrap();
    let rows = client.query("SELECT word, count FROM shop.counts ORDER BY word", &[]).unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

#[test]
fn rows_are_those_of_a_run_without_a_fault_whatever_is_written_again() {
    let mut server = PostgresServer::start().unwrap();
    let mut client = Client::connect(&server.url(), NoTls).unwrap();
    client
        .batch_execute(
            "CREATE SCHEMA shop; CREATE TABLE shop.counts (word TEXT PRIMARY KEY, count BIGINT CHECK (count >= 0)); \
             CREATE TABLE keyless (word TEXT, count BIGINT)",
        )
        .unwrap();
    let sink = sink(&server.url(), "shop.counts").max_batch(3);
    let mut first = writer(&sink).unwrap();
    first.write(counts(&[("a", 1), ("b", 1)])).unwrap();
    assert!(rows(&server).is_empty(), "rows wait for their batch, or for the barrier");
    first.prepare_commit().unwrap();
    assert_eq!(rows(&server), counts(&[("a", 1), ("b", 1)]));
    // A batch may have a key twice: the last wins.
    first.write(counts(&[("a", 2), ("a", 3), ("c", 1), ("d", 1)])).unwrap();
    assert_eq!(rows(&server), counts(&[("a", 3), ("b", 1), ("c", 1)]), "a batch is full");

    // The server dies, and with it what the writer had; all since the last checkpoint is written again.
    server.kill().unwrap();
    let error = first.prepare_commit().unwrap_err();
    assert!(error.retryable && error.message.contains("shop.counts"), "{error:?}");
    server.restart().unwrap();
    let mut again = writer(&sink).unwrap();
    again.write(counts(&[("a", 2), ("a", 3), ("c", 1), ("d", 1), ("a", 4)])).unwrap();
    again.prepare_commit().unwrap();
    assert_eq!(rows(&server), counts(&[("a", 4), ("b", 1), ("c", 1), ("d", 1)]));

    // What trying again can't mend is said so, and names the table.
    again.write(counts(&[("e", -1)])).unwrap();
    let error = again.prepare_commit().unwrap_err();
    assert!(!error.retryable && error.message.contains("count_check"), "{error:?}");
    for table in ["keyless", "no_such_table"] {
        let error = writer(&self::sink(&server.url(), table)).err().unwrap();
        assert!(!error.retryable && error.message.contains(table), "{error:?}");
    }
    let few = PostgresSink::upsert(&server.url(), "shop.counts", ["word"], ["count"], |(word, _): &Count| {
        vec![Box::new(word.clone()) as _]
    });
    let error = writer(&few.unwrap()).unwrap().write(counts(&[("f", 1)])).unwrap_err();
    assert!(!error.retryable && error.message.contains("1 values"), "{error:?}");
}
