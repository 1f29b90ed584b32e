//! Whatever comes to the ports of a running job: it goes on, and its result is right.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use millrace_core::rest::TaskManagers;
use millrace_testkit::cluster::{JobCluster, Result};

use crate::{ANSWER_LIMIT, Words, announced, assert_calm, cancel, http_get, job_over, wait_for_count};

/// How often each port is sent each of the attacks.
const ROUNDS: u64 = 5;
const WORDS_PER_ROUND: u64 = 40;

fn attacks() -> Vec<Vec<u8>> {
    let frame = |claimed: u32, body: &[u8]| [&claimed.to_be_bytes()[..], body].concat();
    let noise = (0..100_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    vec![
        Vec::new(),
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        vec![0xff; 64],
        noise,
        // oversized: more than any frame may have, and more than a handshake may
        frame(u32::MAX, b"x"),
        frame(1 << 20, &[0; 4096]),
        // truncated
        frame(100, b"only this"),
        // whole, and no message
        frame(3, &[0xff; 3]),
        frame(0, b""),
        // an empty and a monstrous request, and one whose header never ends
        b"\r\n\r\n".to_vec(),
        format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(100_000)).into_bytes(),
        format!("GET / HTTP/1.1\r\nX: {}", "y".repeat(1_000_000)).into_bytes(),
        b"POST /jobs HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n{".to_vec(),
    ]
}

/// Sends bytes, says that no more come, and reads until the peer closes or has nothing more to say for a moment.
fn attack(address: &str, bytes: &[u8]) {
    let mut stream = TcpStream::connect(address).expect("the port accepts connections");
    stream.set_read_timeout(Some(Duration::from_millis(50))).expect("a timeout can be set");
    stream.set_write_timeout(Some(ANSWER_LIMIT)).expect("a timeout can be set");
    // The peer may close before it has read everything.
    let _ = stream.write_all(bytes);
    let _ = stream.shutdown(std::net::Shutdown::Write);
    let _ = stream.read_to_end(&mut Vec::new());
}

#[test]
fn garbage_on_every_port_leaves_the_job_alone() -> Result<()> {
    let mut words = Words::new();
    words.append(1, b"");
    // Two subtasks on two taskmanagers, so that records cross between them.
    let spec = job_over(&words).args(["--parallelism", "2", "--checkpoints", "200"]);
    let mut cluster = JobCluster::start(spec.taskmanagers(2))?;
    let before = cluster.wait_until_running()?;

    let data_ports = cluster.rest::<TaskManagers>("/taskmanagers")?.taskmanagers;
    let mut addresses: Vec<_> =
        data_ports.iter().map(|taskmanager| format!("localhost:{}", taskmanager.data_port)).collect();
    addresses.extend([announced(&cluster, "rpc_address"), announced(&cluster, "rest_address")]);
    // Connections that say nothing, or begin to speak and fall silent, and stay.
    let mut half_open = Vec::new();
    for address in &addresses {
        for begin in [&b""[..], &[0, 0], &[0, 0, 0, 50, 1], b"GET / HT"] {
            let mut stream = TcpStream::connect(address).expect("the port accepts connections");
            stream.write_all(begin).expect("a few bytes can be sent");
            half_open.push(stream);
        }
    }
    for _ in 0..ROUNDS {
        words.write_many(WORDS_PER_ROUND, 2);
        for address in &addresses {
            attacks().iter().for_each(|bytes| attack(address, bytes));
        }
    }
    wait_for_count(&mut cluster, ROUNDS * WORDS_PER_ROUND)?;
    let after = cluster.wait_for_new_checkpoint()?;
    assert!(after.is_running() && after.job.restarts == 0, "{after}");
    assert_eq!(after.job.attempt, before.job.attempt, "nothing was started again");
    assert_eq!(after.taskmanagers.len(), 2, "{after}");
    assert!(http_get(&announced(&cluster, "rest_address"), "/health").is_ok_and(|answer| answer.contains("200 OK")));
    drop(half_open);
    cancel(&mut cluster)?;

    let printed = [cluster.stdout(0), cluster.stdout(1)].concat();
    let mut counts = crate::counts(&printed);
    counts.sort_unstable();
    assert_eq!(counts, (1..=ROUNDS * WORDS_PER_ROUND).collect::<Vec<_>>());
    assert_calm(&cluster);
    Ok(())
}
