//! The URIs of checkpoint directories.

use std::{fmt, path::PathBuf};

use millrace_core::{Error, Result};

/// Where checkpoints lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StorageUri {
    /// `memory:`, in this process and gone with it.
    Memory,
    /// `file:///path`, a directory that every process of the job sees. The path is taken as it stands, without percent
    /// decoding.
    File(PathBuf),
    /// `s3://bucket/prefix`.
    S3 {
        /// The bucket.
        bucket: String,
        /// The prefix in it, without slashes around it; may be empty.
        prefix: String,
    },
    /// `hdfs://namenode:port/path`.
    Hdfs {
        /// The NameNode's address, or the name of a nameservice.
        authority: String,
        /// The path, without slashes around it; may be empty.
        path: String,
    },
}

impl StorageUri {
    /// Reads a URI; one that can't be used is refused with what can.
    pub fn parse(text: &str) -> Result<Self> {
        let refuse = |why: &str| {
            Err(Error::invalid(format!(
                "checkpoint directory {text:?} {why}: use file:///path, s3://bucket/prefix, hdfs://namenode:port/path or \
                 memory:"
            )))
        };
        let Some((scheme, rest)) = text.split_once(':') else {
            return refuse("has no scheme");
        };
        match scheme {
            "memory" if rest.trim_matches('/').is_empty() => Ok(Self::Memory),
            "memory" => refuse("names a place in memory, which has none"),
            "file" => {
                let path = rest.strip_prefix("//").unwrap_or(rest);
                match path.starts_with('/') {
                    true => Ok(Self::File(PathBuf::from(path))),
                    false => refuse("is not an absolute path on this machine"),
                }
            }
            "s3" => {
                let rest = rest.strip_prefix("//").unwrap_or_default();
                let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
                if bucket.is_empty() {
                    return refuse("names no bucket");
                }
                let prefix = prefix.trim_matches('/');
                if object_store::path::Path::parse(prefix).is_err() {
                    return refuse("has a prefix with empty, `.` or `..` parts, or characters that S3 keys can't have");
                }
                Ok(Self::S3 { bucket: bucket.to_string(), prefix: prefix.to_string() })
            }
            "hdfs" => {
                let rest = rest.strip_prefix("//").unwrap_or_default();
                let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
                if authority.is_empty() {
                    return refuse("names no NameNode");
                }
                let path = path.trim_matches('/');
                if object_store::path::Path::parse(path).is_err() {
                    return refuse("has a path with empty, `.` or `..` parts, or characters that can't be used");
                }
                Ok(Self::Hdfs { authority: authority.to_string(), path: path.to_string() })
            }
            "s3a" | "s3p" => refuse("has a scheme of Flink's plugins (here it is s3)"),
            _ => refuse("has a scheme that is not supported"),
        }
    }

    /// The same place without its last part, and that part; `None` at the top.
    pub fn split_last(&self) -> Option<(Self, String)> {
        match self {
            Self::Memory => None,
            Self::File(path) => {
                let name = path.file_name()?.to_str()?.to_string();
                Some((Self::File(path.parent()?.to_path_buf()), name))
            }
            Self::S3 { bucket, prefix } => {
                let (parent, name) = prefix.rsplit_once('/').unwrap_or(("", prefix));
                let parent = Self::S3 { bucket: bucket.clone(), prefix: parent.to_string() };
                (!name.is_empty()).then(|| (parent, name.to_string()))
            }
            Self::Hdfs { authority, path } => {
                let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
                let parent = Self::Hdfs { authority: authority.clone(), path: parent.to_string() };
                (!name.is_empty()).then(|| (parent, name.to_string()))
            }
        }
    }
}

impl fmt::Display for StorageUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory => f.write_str("memory:"),
            Self::File(path) => {
                let path = path.to_string_lossy();
                write!(f, "file://{}", path.strip_suffix('/').unwrap_or(&path))
            }
            Self::S3 { bucket, prefix } if prefix.is_empty() => write!(f, "s3://{bucket}"),
            Self::S3 { bucket, prefix } => write!(f, "s3://{bucket}/{prefix}"),
            Self::Hdfs { authority, path } if path.is_empty() => write!(f, "hdfs://{authority}"),
            Self::Hdfs { authority, path } => write!(f, "hdfs://{authority}/{path}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s3(bucket: &str, prefix: &str) -> StorageUri {
        StorageUri::S3 { bucket: bucket.to_string(), prefix: prefix.to_string() }
    }

    fn hdfs(authority: &str, path: &str) -> StorageUri {
        StorageUri::Hdfs { authority: authority.to_string(), path: path.to_string() }
    }

    #[test]
    fn supported_uris_are_understood_and_written_the_same_way() {
        for (text, uri, shown) in [
            ("memory:", StorageUri::Memory, "memory:"),
            ("file:///var/x y/", StorageUri::File("/var/x y/".into()), "file:///var/x y"),
            ("file:/var", StorageUri::File("/var".into()), "file:///var"),
            ("s3://bucket", s3("bucket", ""), "s3://bucket"),
            ("s3://bucket/a/b/", s3("bucket", "a/b"), "s3://bucket/a/b"),
            ("hdfs://name:8020/a/b/", hdfs("name:8020", "a/b"), "hdfs://name:8020/a/b"),
            ("hdfs://service", hdfs("service", ""), "hdfs://service"),
        ] {
            let parsed = StorageUri::parse(text).unwrap();
            assert_eq!((&parsed, parsed.to_string().as_str()), (&uri, shown), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused_by_name_with_what_is_supported() {
        for (text, why) in [
            ("", "no scheme"),
            ("/var/checkpoints", "no scheme"),
            ("file://host/var", "absolute path"),
            ("file:var", "absolute path"),
            ("s3:///prefix", "no bucket"),
            ("s3:bucket", "no bucket"),
            ("s3://bucket/a//b", "empty"),
            ("s3://bucket/../b", "`..`"),
            ("s3a://bucket", "s3)"),
            ("hdfs:///x", "no NameNode"),
            ("hdfs://name/a//b", "empty"),
            ("gs://bucket", "not supported"),
            ("memory:there", "memory"),
        ] {
            let error = StorageUri::parse(text).unwrap_err();
            let names = ["file:///path", "s3://bucket/prefix", why, &format!("{text:?}")];
            assert!(names.iter().all(|name| error.message.contains(name)), "{error}");
            assert!(!error.retryable);
        }
    }

    #[test]
    fn the_last_part_can_be_taken_off() {
        let last = |text: &str| StorageUri::parse(text).unwrap().split_last().map(|(up, name)| (up.to_string(), name));
        assert_eq!(last("s3://b/job/chk-1"), Some(("s3://b/job".to_string(), "chk-1".to_string())));
        assert_eq!(last("s3://b/chk-1"), Some(("s3://b".to_string(), "chk-1".to_string())));
        assert_eq!(last("hdfs://n/job/chk-1"), Some(("hdfs://n/job".to_string(), "chk-1".to_string())));
        assert_eq!(last("file:///a/chk-1/"), Some(("file:///a".to_string(), "chk-1".to_string())));
        assert_eq!((last("s3://b"), last("memory:"), last("file:///")), (None, None, None));
    }
}
