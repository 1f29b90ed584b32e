//! What the job reads: a growing directory of files, or a Kafka topic.

use std::{
    io::Write,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rdkafka::{
    ClientConfig,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    error::RDKafkaErrorCode,
    producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer},
};

use crate::Result;

/// Time between two records.
const PACE: Duration = Duration::from_millis(2);
/// How many records go into one file.
const RECORDS_PER_FILE: u64 = 1000;
const KAFKA_TIMEOUT: Duration = Duration::from_secs(10);

/// Where records are written and read.
pub enum Input {
    /// Files in a directory.
    Files(PathBuf),
    /// A topic of a broker.
    Kafka { broker: String, topic: String },
}

impl Input {
    /// Makes the directory or, if need be, the topic.
    pub fn prepare(kafka: Option<(&str, &str)>, directory: &Path) -> Result<Self> {
        let Some((broker, topic)) = kafka else {
            let files = directory.join("input");
            std::fs::create_dir_all(&files)?;
            return Ok(Self::Files(files));
        };
        let admin: AdminClient<DefaultClientContext> = client(broker).create()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let new = NewTopic::new(topic, 1, TopicReplication::Fixed(1));
        let options = AdminOptions::new().operation_timeout(Some(KAFKA_TIMEOUT)).request_timeout(Some(KAFKA_TIMEOUT));
        for made in runtime.block_on(admin.create_topics([&new], &options))? {
            match made {
                Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((name, code)) => return Err(format!("topic {name} can't be made at {broker}: {code}").into()),
            }
        }
        Ok(Self::Kafka { broker: broker.to_string(), topic: topic.to_string() })
    }

    /// The job's arguments for it.
    pub fn arguments(&self) -> Vec<String> {
        let arguments: Vec<&str> = match self {
            Self::Files(directory) => vec!["--files", directory.to_str().unwrap_or_default()],
            Self::Kafka { broker, topic } => {
                vec!["--kafka", broker, "--topic", topic, "--group", "millrace-demo", "--start", "latest"]
            }
        };
        arguments.into_iter().map(String::from).collect()
    }

    /// Its name for a person.
    pub fn place(&self) -> String {
        match self {
            Self::Files(directory) => format!("files in {}", directory.display()),
            Self::Kafka { broker, topic } => format!("topic {topic} of {broker}"),
        }
    }

    /// Begins to write records, each different, until [`Writing::finish`].
    pub fn write(self) -> Writing {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        Writing { stop, thread: std::thread::spawn(move || self.write_until(&stopped)) }
    }

    fn write_until(&self, stopped: &AtomicBool) -> Result<u64> {
        let started = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis();
        let mut writer = Writer::open(self)?;
        let mut written = 0;
        while !stopped.load(Ordering::Relaxed) {
            writer.write(written, &format!("record-{started}-{written}"))?;
            written += 1;
            // The pace of the input, not a wait for something to happen.
            std::thread::sleep(PACE);
        }
        writer.flush()?;
        Ok(written)
    }
}

/// Records being written beside the demonstration.
pub struct Writing {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<u64>>,
}

impl Writing {
    /// Ends it; returns how many records were written.
    pub fn finish(self) -> Result<u64> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().map_err(|_| "the writer of the input panicked")?
    }
}

enum Writer {
    Files { directory: PathBuf, file: Option<std::fs::File> },
    Kafka { producer: ThreadedProducer<DefaultProducerContext>, topic: String },
}

impl Writer {
    fn open(input: &Input) -> Result<Self> {
        Ok(match input {
            Input::Files(directory) => Self::Files { directory: directory.clone(), file: None },
            Input::Kafka { broker, topic } => Self::Kafka {
                producer: client(broker).set("enable.idempotence", "true").create()?,
                topic: topic.clone(),
            },
        })
    }

    fn write(&mut self, number: u64, record: &str) -> Result<()> {
        match self {
            Self::Files { directory, file } => {
                if number.is_multiple_of(RECORDS_PER_FILE) {
                    let path = directory.join(format!("part-{}.txt", number / RECORDS_PER_FILE));
                    *file = Some(std::fs::File::create(path)?);
                }
                let file = file.as_mut().ok_or("no file is open")?;
                file.write_all(format!("{record}\n").as_bytes())?;
            }
            Self::Kafka { producer, topic } => {
                let sent = producer.send(BaseRecord::<(), str>::to(topic).payload(record));
                sent.map_err(|(error, _)| error)?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        match self {
            Self::Files { .. } => Ok(()),
            Self::Kafka { producer, .. } => Ok(producer.flush(KAFKA_TIMEOUT)?),
        }
    }
}

fn client(broker: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", broker);
    config
}
