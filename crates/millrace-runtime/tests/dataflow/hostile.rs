//! Whatever comes to the data port, the others go on.

use std::{
    io::{Read, Write},
    net::TcpStream,
    sync::Arc,
    time::Duration,
};

use millrace_core::ids::Generation;
use millrace_runtime::graph::Partitioning;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::{
    cluster::{Cluster, split, task, until},
    graphs::Builder,
    numbers::Numbers,
    operators::{Seen, Sink},
};

/// Sends bytes, says that nothing follows, and reads until the other side closes.
fn attack(cluster: &Cluster, target: usize, bytes: &[u8]) -> Vec<u8> {
    let mut socket = TcpStream::connect(cluster.networks[target].address()).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    // The other side may close while this is being written.
    let _ = socket.write_all(bytes);
    let _ = socket.shutdown(std::net::Shutdown::Write);
    let mut answer = Vec::new();
    match socket.read_to_end(&mut answer) {
        Ok(_) => {}
        Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "the connection was not closed"),
    }
    answer
}

fn frame(body: &[u8]) -> Vec<u8> {
    [&(body.len() as u32).to_be_bytes(), body].concat()
}

fn attacks() -> Vec<Vec<u8>> {
    let mut random = ChaCha8Rng::seed_from_u64(7);
    let mut attacks = vec![
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        vec![],
        vec![0, 0],
        frame(&[]),
        // A length that is never honoured, and one that is too large.
        vec![0, 0, 1, 0, 1, 2, 3],
        vec![0xff; 64],
        // A greeting of garbage, and data without a greeting.
        frame(&[1, 2, 3, 4]),
        frame(&[7, 0, 0, 0, 0, 1, 2, 3]),
    ];
    for _ in 0..50 {
        let mut bytes = vec![0u8; random.random_range(1..200)];
        random.fill(&mut bytes[..]);
        attacks.push(if random.random() { frame(&bytes) } else { bytes });
    }
    attacks
}

#[test]
fn garbage_on_the_data_port_leaves_the_job_alone() {
    let (numbers, seen) = (Numbers::new(2), Arc::<Seen>::default());
    numbers.0.allow(0, 100);
    numbers.0.allow(1, 100);
    let graph = Builder::source(&numbers, 2).then(Partitioning::Hash, "sink", 2, Sink::factory(&seen, None)).build();
    let mut cluster = Cluster::new(2);
    cluster.run(&graph, |spec| {
        if spec.task.vertex.0 == 0 {
            spec.splits = vec![split(spec.task.subtask, 0..10_000)];
        }
    });
    until("the job runs", || seen.len() == 200);
    for (index, bytes) in attacks().iter().enumerate() {
        attack(&cluster, index % 2, bytes);
    }
    numbers.0.allow(0, u64::MAX);
    numbers.0.allow(1, u64::MAX);
    cluster.finish();
    assert_eq!(seen.len(), 20_000);
}

#[test]
fn a_stranger_is_told_why_it_is_refused() {
    let cluster = Cluster::new(1);
    let answer = attack(&cluster, 0, &frame(b"\x01MRDP\x09\x00"));
    let text = String::from_utf8_lossy(&answer);
    assert!(text.contains("version 9"), "{text}");
}

#[test]
fn a_producer_of_a_stale_attempt_is_refused() {
    let graph = Builder::source(&Numbers::new(1), 1)
        .then(Partitioning::Forward, "sink", 1, Sink::factory(&Arc::default(), None))
        .build();
    let mut cluster = Cluster::new(2);
    cluster.run(&graph, |spec| {
        if spec.task.vertex.0 == 0 {
            spec.generation = Generation(7);
        }
    });
    let failure = cluster.failure(task(0, 0));
    assert!(failure.error.message.contains("generation 7 is not deployed here"), "{}", failure.error);
    cluster.cancel();
}
