//! What a store's errors mean to a user.

use millrace_core::{Error, error::chain_text};

/// What is wrong, in words, and whether only a changed setting can mend it.
pub(super) struct Explanation {
    pub(super) text: String,
    pub(super) is_setting: bool,
}

/// Explains a store's error. S3 answers with a page of XML; its code is what counts.
pub(super) fn explain(error: &object_store::Error) -> Explanation {
    let full = match error {
        // Its own text says no more than that it is one.
        object_store::Error::Generic { source, .. } => chain_text(&**source),
        other => chain_text(other),
    };
    let setting = |text: &str| Explanation { text: text.to_string(), is_setting: true };
    match element(&full, "Code") {
        Some("NoSuchBucket") => {
            return setting("the bucket does not exist: create it, or set state.checkpoints.dir to one that does");
        }
        Some("InvalidAccessKeyId") => {
            return setting("wrong credentials: the store does not know the access key (s3.access-key)");
        }
        Some("SignatureDoesNotMatch") => {
            return setting("wrong credentials: the secret key (s3.secret-key) does not belong to the access key");
        }
        Some("AuthorizationHeaderMalformed" | "PermanentRedirect") => {
            return setting("the bucket is in another region: set s3.region to it");
        }
        Some("ExpiredToken" | "InvalidToken") => return setting("wrong credentials: the session token is not valid"),
        Some("AccessDenied") => return setting("access denied: the credentials (s3.access-key) don't allow this"),
        _ => {}
    }
    match error {
        object_store::Error::PermissionDenied { .. } if full.contains("status code: 403") => {
            setting("access denied: the credentials (s3.access-key) are wrong or don't allow this")
        }
        object_store::Error::Unauthenticated { .. } => setting("access denied: the credentials are not accepted"),
        object_store::Error::PermissionDenied { .. } => {
            setting(&format!("{full}: set state.checkpoints.dir to a place that can be written"))
        }
        object_store::Error::NotImplemented { .. }
        | object_store::Error::NotSupported { .. }
        | object_store::Error::InvalidPath { .. } => Explanation { text: full, is_setting: true },
        _ if full.contains("invalid peer certificate") => setting(
            "the server's certificate is not signed by an authority that is trusted here: set s3.ssl.ca-bundle to a \
             PEM file with the one that signed it",
        ),
        _ if full.contains("AccessControlException") => setting(
            "access denied by HDFS: the user (HADOOP_USER_NAME, or the one of this process) may not write there",
        ),
        _ if full.contains("169.254.169.254") => setting(
            "no credentials: none are set, in the environment or in the profile, and this machine has none of its own",
        ),
        _ => match (element(&full, "Code"), element(&full, "Message")) {
            (Some(code), Some(message)) => Explanation { text: format!("{code}: {message}"), is_setting: false },
            _ => Explanation { text: full, is_setting: false },
        },
    }
}

/// A store's error while a job runs: it may pass.
pub(super) fn store_error(what: impl std::fmt::Display, error: &object_store::Error) -> Error {
    Error::external(format!("{what}: {}", explain(error).text))
}

/// A store's error while a job starts: a setting that is wrong is said to be so.
pub(super) fn start_error(what: impl std::fmt::Display, error: &object_store::Error) -> Error {
    let Explanation { text, is_setting } = explain(error);
    let message = format!("{what}: {text}");
    if is_setting { Error::invalid(message) } else { Error::external(message) }
}

/// The text of the first XML element of this name.
fn element<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    rest.split_once(&format!("</{name}>")).map(|(inside, _)| inside)
}

#[cfg(test)]
mod tests {
    use millrace_core::ErrorDomain;

    use super::*;

    fn answer(xml: &str) -> object_store::Error {
        let source = format!("Server returned non-2xx status code: 403 Forbidden: {xml}").into();
        object_store::Error::PermissionDenied { path: "x".to_string(), source }
    }

    #[test]
    fn codes_of_s3_are_told_in_words() {
        let message =
            |code: &str| start_error("s3://b", &answer(&format!("<Error><Code>{code}</Code></Error>"))).message;
        assert!(message("NoSuchBucket").contains("bucket does not exist"));
        assert!(message("InvalidAccessKeyId").contains("access key"));
        assert!(message("SignatureDoesNotMatch").contains("secret key"));
        assert!(message("").contains("credentials"));
    }

    #[test]
    fn a_path_with_403_in_it_is_no_answer_of_s3() {
        let source = "/proc/1403: the file can't be created".into();
        let error = object_store::Error::PermissionDenied { path: "1403".to_string(), source };
        let message = start_error("file:///proc", &error).message;
        assert!(message.contains("can't be created") && !message.contains("credentials"), "{message}");
    }

    #[test]
    fn a_wrong_setting_is_the_users_at_the_start_and_may_pass_later() {
        let error = answer("<Code>AccessDenied</Code>");
        let start = start_error("x", &error);
        assert!(start.message.starts_with("x: access denied: the credentials"), "{start}");
        assert_eq!((start.domain, start.retryable), (ErrorDomain::User, false));
        let later = store_error("x", &error);
        assert_eq!((later.domain, later.retryable), (ErrorDomain::External, true));
    }

    #[test]
    fn who_may_not_write_to_hdfs_is_told_as_whom() {
        let source =
            "RPCError(\"org.apache.hadoop.security.AccessControlException\", \"Permission denied: user=x\")".into();
        let error = start_error("hdfs://n/x", &object_store::Error::Generic { store: "HDFS", source });
        assert!(error.message.contains("HADOOP_USER_NAME") && !error.retryable, "{error}");
    }

    #[test]
    fn other_answers_keep_code_and_message_and_lose_the_rest() {
        let source = "503 <Code>SlowDown</Code><Message>Reduce your rate</Message><RequestId>1</RequestId>".into();
        let error = object_store::Error::Generic { store: "S3", source };
        assert_eq!(store_error("x", &error).message, "x: SlowDown: Reduce your rate");
    }
}
