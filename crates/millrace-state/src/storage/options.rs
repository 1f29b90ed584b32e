//! How a checkpoint store is reached.

use std::{fmt, path::PathBuf, time::Duration};

/// A text that must not be shown: `Debug` hides it, and there is no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_string())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"******\"")
    }
}

/// Settings of checkpoint stores. What is not set here comes from the environment (`AWS_*`), then, for credentials and
/// region, from the profile in `~/.aws`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorageOptions {
    /// The URL of the S3 service; `None` for Amazon's.
    pub s3_endpoint: Option<String>,
    /// The region; `us-east-1` where nothing says otherwise.
    pub s3_region: Option<String>,
    /// The access key.
    pub s3_access_key: Option<String>,
    /// The secret key that belongs to it.
    pub s3_secret_key: Option<Secret>,
    /// The session token, for temporary credentials.
    pub s3_session_token: Option<Secret>,
    /// The profile to take credentials and region from; `None` for `AWS_PROFILE` or `default`.
    pub s3_profile: Option<String>,
    /// A PEM file with certificates of authorities that are trusted besides those of the system.
    pub s3_ca_bundle: Option<PathBuf>,
    /// Whether the bucket's name stands in the URL's path (`true`, what most servers that are not Amazon's need) or in
    /// its host name.
    pub s3_path_style: bool,
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// How long a request may take. A state's upload is several requests.
    pub request_timeout: Duration,
    /// How often a request that failed is repeated before that is an error.
    pub request_retries: usize,
}

impl Default for StorageOptions {
    fn default() -> Self {
        Self {
            s3_endpoint: None,
            s3_region: None,
            s3_access_key: None,
            s3_secret_key: None,
            s3_session_token: None,
            s3_profile: None,
            s3_ca_bundle: None,
            s3_path_style: true,
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(30),
            request_retries: 3,
        }
    }
}

/// How often, and how far apart, something that failed is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// How many times in a row; `None` for ever.
    pub retries: Option<u32>,
    /// The pause before the first.
    pub initial: Duration,
    /// The longest pause; each is twice the one before.
    pub max: Duration,
}

impl RetryPolicy {
    /// Nothing is tried again.
    pub const NEVER: Self = Self { retries: Some(0), initial: Duration::ZERO, max: Duration::ZERO };

    /// The pause after the failure that follows `failures` others in a row, or `None` to give up.
    pub fn delay_after(&self, failures: u32) -> Option<Duration> {
        if self.retries.is_some_and(|retries| failures >= retries) {
            return None;
        }
        let factor = 1u32.checked_shl(failures).unwrap_or(u32::MAX);
        Some(self.initial.saturating_mul(factor).min(self.max))
    }
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { retries: Some(5), initial: Duration::from_millis(100), max: Duration::from_secs(2) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        let options = StorageOptions {
            s3_secret_key: Some("hunter2".into()),
            s3_session_token: Some("token3".into()),
            ..StorageOptions::default()
        };
        let shown = format!("{options:?} {options:#?}");
        assert!(!shown.contains("hunter2") && !shown.contains("token3") && shown.contains("******"));
        assert_eq!(options.s3_secret_key.unwrap().expose(), "hunter2");
    }

    #[test]
    fn pauses_double_up_to_the_longest_and_end() {
        let policy =
            RetryPolicy { retries: Some(4), initial: Duration::from_millis(100), max: Duration::from_millis(300) };
        let pauses: Vec<_> = (0..5).map(|failures| policy.delay_after(failures).map(|d| d.as_millis())).collect();
        assert_eq!(pauses, [Some(100), Some(200), Some(300), Some(300), None]);
        let forever = RetryPolicy { retries: None, ..policy };
        assert_eq!(forever.delay_after(u32::MAX), Some(policy.max));
        assert_eq!(RetryPolicy::NEVER.delay_after(0), None);
    }
}
