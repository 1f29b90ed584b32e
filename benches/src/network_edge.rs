//! The edge between two processes by itself (`bin/bench_job/edge.rs`), and the same batches by hand: one thread makes and
//! encodes them and writes them to a socket, another reads and decodes them.

use std::{
    io::{BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};

use crate::{
    Arguments,
    case::{Case, Cell, Row, median},
    cluster::Spread,
    measure::watch,
};

/// Different records.
const KEYS: u64 = 1_000_000;
/// The key that travels with each record.
const KEY: &str = "b";
const BATCH: u64 = 1024;
/// So long is it done by hand, which is as fast at once as it will ever be.
const BY_HAND: Duration = Duration::from_secs(5);
/// How often, at most.
const RUNS: u32 = 3;

struct NetworkEdge;

/// The only cell.
pub fn cases() -> Vec<Box<dyn Case>> {
    vec![Box::new(NetworkEdge)]
}

impl Case for NetworkEdge {
    fn name(&self) -> String {
        "network-edge records=strings processes=2".to_owned()
    }

    fn run(&self, arguments: &Arguments) -> Result<Row> {
        let (mut rates, mut bytes, mut by_hand) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..arguments.runs.min(RUNS) {
            let mut job = Spread::start("bench_job", ["edge", "--keys", &KEYS.to_string()], "Arrive")?;
            let measured = watch(&mut job, arguments.warm_up, arguments.time)?;
            rates.push(measured.rate);
            bytes.push(bytes_per_record(&job)? * measured.rate);
            by_hand.push(rate_by_hand(arguments.time.min(BY_HAND))?);
        }
        let (bytes, share) = (median(&bytes) / 1e6, median(&rates) / median(&by_hand));
        let cells = vec![
            Cell::rates("millrace", &rates),
            Cell::number("bytes", bytes, format!("{bytes:.0}MB/s")),
            Cell::rates("by-hand", &by_hand),
            Cell::number("share", share, format!("{:.0}%", share * 100.0)),
        ];
        Ok(Row { name: self.name(), cells })
    }
}

/// What a record takes on the wire. Fails unless all records went from one process to the other.
fn bytes_per_record(job: &Spread) -> Result<f64> {
    let made = job.of_tasks("millrace_taskmanager_job_task_numRecordsOut{", "Source: records");
    let arrived = job.of_tasks("millrace_taskmanager_job_task_numRecordsIn{", "Arrive");
    let bytes: u64 = job.of_tasks("millrace_taskmanager_job_task_numBytesOut{", "Source: records").iter().sum();
    let stayed = made.iter().zip(&arrived).any(|(made, arrived)| *made > 0 && *arrived > 0);
    ensure!(!stayed && bytes > 0, "records did not cross: made {made:?}, arrived {arrived:?}, {bytes} bytes");
    Ok(bytes as f64 / made.iter().sum::<u64>() as f64)
}

/// Records a second by hand.
fn rate_by_hand(time: Duration) -> Result<f64> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut socket = TcpStream::connect(listener.local_addr()?)?;
    socket.set_nodelay(true)?;
    let (reader, _) = listener.accept()?;
    let receiver = thread::spawn(move || receive(reader));
    let (began, mut sent, mut buffer) = (Instant::now(), 0, Vec::new());
    while began.elapsed() < time {
        let records: Vec<_> = (sent..sent + BATCH).map(record).collect();
        encode(&records, &mut buffer);
        socket.write_all(&buffer)?;
        sent += BATCH;
    }
    drop(socket);
    let received = receiver.join().expect("the receiver does not panic")?;
    let rate = received as f64 / began.elapsed().as_secs_f64();
    ensure!(received == sent, "{received} of {sent} records arrived");
    Ok(rate)
}

fn record(index: u64) -> String {
    let mut record = String::with_capacity(16);
    record.push_str("key-");
    record.push_str(itoa::Buffer::new().format(index % KEYS));
    record
}

/// Length, number of records, records, keys; each text behind a byte with its length.
fn encode(records: &[String], buffer: &mut Vec<u8>) {
    buffer.clear();
    buffer.extend_from_slice(&[0; 8]);
    let mut put = |text: &str| {
        buffer.push(text.len() as u8);
        buffer.extend_from_slice(text.as_bytes());
    };
    records.iter().for_each(|record| put(record));
    records.iter().for_each(|_| put(KEY));
    let length = (buffer.len() - 8) as u32;
    buffer[..4].copy_from_slice(&length.to_le_bytes());
    buffer[4..8].copy_from_slice(&(records.len() as u32).to_le_bytes());
}

fn decode(count: usize, mut bytes: &[u8]) -> Result<Vec<(String, String)>> {
    let mut take = || {
        let (text, rest) = bytes[1..].split_at(usize::from(bytes[0]));
        bytes = rest;
        std::str::from_utf8(text).map(str::to_owned)
    };
    let records = (0..count).map(|_| take()).collect::<Result<Vec<_>, _>>()?;
    let keys = (0..count).map(|_| take()).collect::<Result<Vec<_>, _>>()?;
    Ok(records.into_iter().zip(keys).collect())
}

fn receive(socket: TcpStream) -> Result<u64> {
    let mut socket = BufReader::with_capacity(1 << 16, socket);
    let (mut head, mut body, mut received) = ([0; 8], Vec::new(), 0);
    // The end of the stream comes between two batches.
    while socket.read_exact(&mut head).is_ok() {
        let [a, b, c, d, count @ ..] = head;
        body.resize(u32::from_le_bytes([a, b, c, d]) as usize, 0);
        socket.read_exact(&mut body)?;
        received += decode(u32::from_le_bytes(count) as usize, &body)?.len() as u64;
    }
    Ok(received)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_by_hand_is_decoded() {
        let records: Vec<_> = (0..5).map(record).collect();
        let mut buffer = Vec::new();
        encode(&records, &mut buffer);
        let decoded = decode(5, &buffer[8..]).unwrap();
        assert_eq!(decoded.into_iter().unzip::<_, _, Vec<_>, Vec<_>>(), (records, vec![KEY.to_owned(); 5]));
    }
}
