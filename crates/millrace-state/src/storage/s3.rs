//! S3 and what speaks its protocol.

use std::time::Duration;

use millrace_core::{Error, Result};
use object_store::{
    BackoffConfig, Certificate, ClientOptions, RetryConfig,
    aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey},
};

use super::{errors::start_error, options::StorageOptions, profile::Profile};

/// A client for a bucket. Nothing is sent yet.
pub(super) fn open(bucket: &str, options: &StorageOptions) -> Result<AmazonS3> {
    let builder = configure(
        bucket,
        options,
        &|name| std::env::var(name).ok(),
        std::env::vars_os().filter_map(|pair| Some((pair.0.into_string().ok()?, pair.1.into_string().ok()?))),
    )?;
    builder.build().map_err(|error| start_error(format!("checkpoint directory s3://{bucket}"), &error))
}

/// The settings: what `options` says, else the environment, else the profile.
fn configure(
    bucket: &str,
    options: &StorageOptions,
    env: &dyn Fn(&str) -> Option<String>,
    variables: impl Iterator<Item = (String, String)>,
) -> Result<AmazonS3Builder> {
    let explicit = match (&options.s3_access_key, &options.s3_secret_key) {
        (Some(access), Some(secret)) => Some((access, secret)),
        (None, None) => None,
        (Some(_), None) => return Err(Error::invalid("s3.access-key is set, but s3.secret-key is not")),
        (None, Some(_)) => return Err(Error::invalid("s3.secret-key is set, but s3.access-key is not")),
    };
    let mut builder = AmazonS3Builder::new().with_bucket_name(bucket).with_retry(retry(options));
    builder = builder.with_client_options(client(options)?);
    for (name, value) in variables.filter(|(name, _)| name.starts_with("AWS_")) {
        match name.to_ascii_lowercase().parse::<AmazonS3ConfigKey>() {
            Ok(AmazonS3ConfigKey::Bucket) | Err(_) => {}
            // Explicit keys are not mixed with parts of the environment's.
            Ok(key) if explicit.is_some() && is_credential(key) => {}
            Ok(key) => builder = builder.with_config(key, value),
        }
    }
    let in_environment = ["AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"]
        .into_iter()
        .chain(["AWS_CONTAINER_CREDENTIALS_FULL_URI"])
        .any(|name| env(name).is_some());
    let profile = Profile::load(options.s3_profile.as_deref(), env);
    if let Some((access, secret)) = explicit {
        builder = builder.with_access_key_id(access).with_secret_access_key(secret.expose());
        if let Some(token) = &options.s3_session_token {
            builder = builder.with_token(token.expose());
        }
    } else if !in_environment || options.s3_profile.is_some() {
        builder = with_profile(builder, &profile);
    }
    let region = match region_of(&builder) {
        Some(_) => options.s3_region.clone(),
        None => options.s3_region.clone().or(profile.region),
    };
    if let Some(region) = region {
        builder = builder.with_region(region);
    }
    Ok(with_endpoint(builder, bucket, options))
}

fn with_profile(builder: AmazonS3Builder, profile: &Profile) -> AmazonS3Builder {
    let (Some(access), Some(secret)) = (&profile.access_key, &profile.secret_key) else {
        return builder;
    };
    let builder = builder.with_access_key_id(access).with_secret_access_key(secret.expose());
    match &profile.session_token {
        Some(token) => builder.with_token(token.expose()),
        None => builder,
    }
}

fn with_endpoint(builder: AmazonS3Builder, bucket: &str, options: &StorageOptions) -> AmazonS3Builder {
    let from_environment = || {
        let value = |key| builder.get_config_value(&key);
        value(AmazonS3ConfigKey::S3Endpoint).or_else(|| value(AmazonS3ConfigKey::Endpoint))
    };
    let endpoint = options.s3_endpoint.clone().or_else(from_environment);
    let builder = builder.with_virtual_hosted_style_request(!options.s3_path_style);
    let Some(endpoint) = endpoint else {
        return builder;
    };
    let allow_http = endpoint.starts_with("http://");
    let endpoint = match endpoint.split_once("://") {
        Some((scheme, host)) if !options.s3_path_style => format!("{scheme}://{bucket}.{host}"),
        _ => endpoint,
    };
    builder.with_config(AmazonS3ConfigKey::S3Endpoint, endpoint).with_allow_http(allow_http)
}

fn client(options: &StorageOptions) -> Result<ClientOptions> {
    let client =
        ClientOptions::new().with_connect_timeout(options.connect_timeout).with_timeout(options.request_timeout);
    let Some(path) = &options.s3_ca_bundle else {
        return Ok(client);
    };
    let wrong = |why: String| Error::invalid(format!("s3.ssl.ca-bundle: {} {why}", path.display()));
    let pem = std::fs::read(path).map_err(|error| wrong(format!("can't be read: {error}")))?;
    let bundle = Certificate::from_pem_bundle(&pem).map_err(|error| wrong(format!("is no PEM file: {error}")))?;
    if bundle.is_empty() {
        return Err(wrong("holds no certificate: name a PEM file with \"BEGIN CERTIFICATE\" in it".to_string()));
    }
    Ok(bundle.into_iter().fold(client, ClientOptions::with_root_certificate))
}

fn retry(options: &StorageOptions) -> RetryConfig {
    let backoff =
        BackoffConfig { init_backoff: Duration::from_millis(100), max_backoff: Duration::from_secs(2), base: 2.0 };
    // The whole of it stays within what one request that is answered late may take.
    RetryConfig { backoff, max_retries: options.request_retries, retry_timeout: options.request_timeout }
}

fn region_of(builder: &AmazonS3Builder) -> Option<String> {
    builder
        .get_config_value(&AmazonS3ConfigKey::Region)
        .or_else(|| builder.get_config_value(&AmazonS3ConfigKey::DefaultRegion))
}

fn is_credential(key: AmazonS3ConfigKey) -> bool {
    matches!(
        key,
        AmazonS3ConfigKey::AccessKeyId
            | AmazonS3ConfigKey::SecretAccessKey
            | AmazonS3ConfigKey::Token
            | AmazonS3ConfigKey::SkipSignature
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn configured(options: &StorageOptions, variables: &[(&str, &str)]) -> AmazonS3Builder {
        let pairs: Vec<(String, String)> = variables.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        let env = |name: &str| pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
        configure("bucket", options, &env, pairs.clone().into_iter()).unwrap()
    }

    fn value(builder: &AmazonS3Builder, key: AmazonS3ConfigKey) -> Option<String> {
        builder.get_config_value(&key)
    }

    #[test]
    fn options_come_before_the_environment() {
        let options = StorageOptions {
            s3_access_key: Some("mine".to_string()),
            s3_secret_key: Some("secret".into()),
            s3_region: Some("here".to_string()),
            ..StorageOptions::default()
        };
        let environment = [("AWS_ACCESS_KEY_ID", "other"), ("AWS_SESSION_TOKEN", "token"), ("AWS_REGION", "there")];
        let builder = configured(&options, &environment);
        assert_eq!(value(&builder, AmazonS3ConfigKey::AccessKeyId).as_deref(), Some("mine"));
        assert_eq!(value(&builder, AmazonS3ConfigKey::Token), None);
        assert_eq!(value(&builder, AmazonS3ConfigKey::Region).as_deref(), Some("here"));
        let builder = configured(&StorageOptions::default(), &environment);
        assert_eq!(value(&builder, AmazonS3ConfigKey::AccessKeyId).as_deref(), Some("other"));
        assert_eq!(value(&builder, AmazonS3ConfigKey::Region).as_deref(), Some("there"));
    }

    #[test]
    fn the_profile_comes_last() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("credentials");
        std::fs::write(&file, "[default]\naws_access_key_id=a\naws_secret_access_key=b\nregion=r\n").unwrap();
        let file = ("AWS_SHARED_CREDENTIALS_FILE", file.to_str().unwrap());
        let builder = configured(&StorageOptions::default(), &[file]);
        assert_eq!(value(&builder, AmazonS3ConfigKey::AccessKeyId).as_deref(), Some("a"));
        assert_eq!(value(&builder, AmazonS3ConfigKey::Region).as_deref(), Some("r"));
        let builder = configured(&StorageOptions::default(), &[file, ("AWS_ACCESS_KEY_ID", "other")]);
        assert_eq!(value(&builder, AmazonS3ConfigKey::AccessKeyId).as_deref(), Some("other"));
    }

    #[test]
    fn the_pod_s_identity_comes_before_the_profile() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("credentials");
        std::fs::write(&file, "[default]\naws_access_key_id=a\naws_secret_access_key=b\n").unwrap();
        let pod = [
            ("AWS_SHARED_CREDENTIALS_FILE", file.to_str().unwrap()),
            ("AWS_ROLE_ARN", "arn:aws:iam::1:role/jobs"),
            ("AWS_WEB_IDENTITY_TOKEN_FILE", "/var/run/secrets/token"),
        ];
        let builder = configured(&StorageOptions::default(), &pod);
        assert_eq!(value(&builder, AmazonS3ConfigKey::AccessKeyId), None, "keys would be taken first");
        assert_eq!(value(&builder, AmazonS3ConfigKey::WebIdentityTokenFile).as_deref(), Some("/var/run/secrets/token"));
        assert_eq!(value(&builder, AmazonS3ConfigKey::RoleArn).as_deref(), Some("arn:aws:iam::1:role/jobs"));
        let builder = configured(&StorageOptions::default(), &pod[..1]);
        assert_eq!(value(&builder, AmazonS3ConfigKey::AccessKeyId).as_deref(), Some("a"), "without one it is taken");
    }

    #[test]
    fn endpoints_carry_the_bucket_in_path_or_host() {
        let endpoint = |path_style, variables: &[(&str, &str)]| {
            let options = StorageOptions {
                s3_endpoint: variables.is_empty().then(|| "http://minio:9000".to_string()),
                s3_path_style: path_style,
                ..StorageOptions::default()
            };
            value(&configured(&options, variables), AmazonS3ConfigKey::S3Endpoint)
        };
        assert_eq!(endpoint(true, &[]).as_deref(), Some("http://minio:9000"));
        assert_eq!(endpoint(false, &[]).as_deref(), Some("http://bucket.minio:9000"));
        assert_eq!(endpoint(true, &[("AWS_ENDPOINT_URL", "http://env:1")]).as_deref(), Some("http://env:1"));
    }

    #[test]
    fn a_bundle_without_a_certificate_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let (empty, absent) = (dir.path().join("empty.pem"), dir.path().join("absent.pem"));
        std::fs::write(&empty, "no certificate").unwrap();
        for (path, why) in [(empty, "holds no certificate"), (absent, "can't be read")] {
            let options = StorageOptions { s3_ca_bundle: Some(path.clone()), ..StorageOptions::default() };
            let error = configure("bucket", &options, &|_| None, std::iter::empty()).unwrap_err();
            assert!(error.message.contains(&format!("s3.ssl.ca-bundle: {} {why}", path.display())), "{error}");
            assert!(!error.retryable);
        }
    }

    #[test]
    fn half_a_pair_of_keys_is_refused_by_name() {
        let options = StorageOptions { s3_access_key: Some("a".to_string()), ..StorageOptions::default() };
        let error = configure("bucket", &options, &|_| None, std::iter::empty()).unwrap_err();
        assert!(error.message.contains("s3.secret-key is not") && !error.retryable);
    }
}
