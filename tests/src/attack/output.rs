//! Where a job under attack writes to, and how its outputs are read there.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use millrace_testkit::services::{
    kafka::{Isolation, KafkaClient, Message},
    minio::MinioClient,
};

use super::{Guarantee, Result, checker::Outputs, parts, table::Table};

/// How long a look may wait for more.
pub const LOOK: Duration = Duration::from_millis(20);
/// To list a bucket takes a server more than to list a directory.
const LOOK_AT_BUCKET: Duration = Duration::from_millis(200);

/// What kind of place it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Target {
    /// A Kafka topic.
    #[default]
    Kafka,
    /// Part files in a directory.
    Files,
    /// Part files in an object store.
    S3,
    /// A table of PostgreSQL with a row for each key.
    Postgres,
}

impl Target {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Kafka, Self::Files, Self::S3, Self::Postgres];

    /// Those that a sink commits to with the checkpoint.
    pub const COMMITTED: [Self; 3] = [Self::Kafka, Self::Files, Self::S3];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kafka => "kafka",
            Self::Files => "files",
            Self::S3 => "s3",
            Self::Postgres => "postgres",
        }
    }

    /// The target of this name.
    pub fn named(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|target| target.name() == name);
        found.ok_or_else(|| format!("{name:?} is no target; there are kafka, files, s3 and postgres"))
    }
}

/// The place that one run of a job writes to.
#[derive(Clone)]
pub enum Output {
    /// A topic with one partition.
    Topic(KafkaClient, String),
    /// A directory.
    Directory(PathBuf),
    /// A bucket, and a prefix in it.
    Bucket(MinioClient, &'static str, String),
    /// A table.
    Table(Table),
}

/// Gives a key and a value for each output that came since it was asked last.
pub type Follower = Box<dyn FnMut() -> Result<Vec<(String, String)>> + Send>;

impl Output {
    /// What the job is told.
    pub fn argument(&self) -> String {
        match self {
            Self::Topic(_, name) => name.clone(),
            Self::Directory(path) => format!("file://{}", path.display()),
            Self::Bucket(_, bucket, prefix) => format!("s3://{bucket}/{prefix}"),
            Self::Table(table) => table.argument(),
        }
    }

    /// Follows it from its beginning.
    pub fn follow(&self, guarantee: Guarantee) -> Result<Follower> {
        if let Self::Topic(kafka, name) = self {
            let mut follower = kafka.follow(name, isolation(guarantee))?;
            return Ok(Box::new(move || follower.read_on(LOOK)?.iter().map(split).collect()));
        }
        if let Self::Table(table) = self {
            return Ok(table.follow());
        }
        let (output, mut known) = (self.clone(), BTreeSet::<String>::new());
        let pause = if matches!(self, Self::Directory(_)) { LOOK } else { LOOK_AT_BUCKET };
        Ok(Box::new(move || {
            // The pace of looking.
            thread::sleep(pause);
            let now: BTreeSet<_> = output.visible()?.into_iter().collect();
            if let Some(gone) = known.difference(&now).next() {
                return Err(format!("readers have seen {gone}, and it is gone").into());
            }
            let new: Vec<_> = now.difference(&known).cloned().collect();
            known = now;
            let mut came = Vec::new();
            for text in output.read(&new)? {
                came.extend(parts::lines(&text)?);
            }
            Ok(came)
        }))
    }

    /// All that readers see now.
    pub fn outputs(&self, guarantee: Guarantee) -> Result<Outputs> {
        if let Self::Topic(kafka, name) = self {
            let mut outputs = Outputs::new();
            for message in kafka.consume_all(name, isolation(guarantee))? {
                let (key, value) = split(&message)?;
                outputs.entry(key).or_default().push(value);
            }
            return Ok(outputs);
        }
        if let Self::Table(table) = self {
            return table.rows();
        }
        let names = self.visible()?;
        let texts = self.read(&names)?;
        parts::outputs(&names.into_iter().zip(texts).collect::<BTreeMap<_, _>>())
    }

    /// What readers leave alone: files in progress, and objects that name uploads.
    pub fn invisible(&self) -> Result<Vec<String>> {
        Ok(self.all()?.into_iter().filter(|name| parts::is_hidden(name)).collect())
    }

    fn visible(&self) -> Result<Vec<String>> {
        Ok(self.all()?.into_iter().filter(|name| !parts::is_hidden(name)).collect())
    }

    /// The names of all part files, whether they can be seen or not.
    fn all(&self) -> Result<Vec<String>> {
        match self {
            Self::Topic(..) | Self::Table(_) => Ok(Vec::new()),
            Self::Directory(path) => Ok(files_below(path)?),
            Self::Bucket(minio, bucket, prefix) => {
                let inside = format!("{prefix}/");
                let all = minio.objects(bucket)?;
                Ok(all.iter().filter_map(|key| key.strip_prefix(&inside)).map(str::to_owned).collect())
            }
        }
    }

    fn read(&self, names: &[String]) -> Result<Vec<String>> {
        let bytes = match self {
            Self::Topic(..) | Self::Table(_) => return Err("there are no part files here".into()),
            Self::Directory(path) => {
                names.iter().map(|name| fs::read(path.join(name))).collect::<io::Result<Vec<_>>>()?
            }
            Self::Bucket(..) if names.is_empty() => Vec::new(),
            Self::Bucket(minio, bucket, prefix) => {
                let keys: Vec<_> = names.iter().map(|name| format!("{prefix}/{name}")).collect();
                minio.read(bucket, &keys)?
            }
        };
        let text = |bytes| String::from_utf8(bytes).map_err(|error| format!("a part file is no text: {error}").into());
        bytes.into_iter().map(text).collect()
    }
}

/// Names relative to the directory. One that is not there yet is empty.
fn files_below(root: &Path) -> io::Result<Vec<String>> {
    let (mut found, mut directories) = (Vec::new(), vec![root.to_path_buf()]);
    while let Some(directory) = directories.pop() {
        let entries = match fs::read_dir(&directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                directories.push(entry.path());
            } else if let Ok(name) = entry.path().strip_prefix(root) {
                found.push(name.to_string_lossy().into_owned());
            }
        }
    }
    Ok(found)
}

fn isolation(guarantee: Guarantee) -> Isolation {
    match guarantee {
        Guarantee::AtLeastOnce => Isolation::ReadUncommitted,
        Guarantee::ExactlyOnce => Isolation::ReadCommitted,
    }
}

/// Key and value: a message without a key has the key before its first comma.
fn split(message: &Message) -> Result<(String, String)> {
    let value = std::str::from_utf8(&message.value).map_err(|error| format!("an output is no text: {error}"))?;
    match &message.key {
        Some(key) => Ok((String::from_utf8_lossy(key).into_owned(), value.to_owned())),
        None => parts::split(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_the_messages_or_comes_before_a_comma() {
        let message = |key: Option<&str>, value: &str| Message {
            partition: 0,
            offset: 0,
            key: key.map(|key| key.into()),
            value: value.into(),
        };
        assert_eq!(split(&message(Some("k"), "a,b")).unwrap(), ("k".into(), "a,b".into()));
        assert_eq!(split(&message(None, "a,b,c")).unwrap(), ("a".into(), "b,c".into()));
        assert!(split(&message(None, "abc")).unwrap_err().to_string().contains("\"abc\""));
    }
}
