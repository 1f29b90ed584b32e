//! The checkpoint store that the settings name.

use millrace_core::Result;
use millrace_state::storage::{CheckpointStorage, StorageOptions};

use crate::config::Settings;

/// Opens the store at a URI, or one in this process's memory where there is none.
pub fn open(uri: Option<&str>, settings: &Settings) -> Result<CheckpointStorage> {
    CheckpointStorage::open(uri.unwrap_or("memory:"), &options(settings))
}

/// How stores are reached.
pub fn options(settings: &Settings) -> StorageOptions {
    let s3 = settings.s3.clone();
    StorageOptions {
        s3_endpoint: s3.endpoint,
        s3_region: s3.region,
        s3_access_key: s3.access_key.map(|key| key.0),
        s3_secret_key: s3.secret_key.map(|key| key.0.into()),
        s3_ca_bundle: s3.ca_bundle,
        s3_path_style: s3.path_style_access,
        ..StorageOptions::default()
    }
}
