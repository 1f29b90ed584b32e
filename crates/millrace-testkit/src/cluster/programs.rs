//! Programs that tests run as processes: where they are, and how they end.

use std::{env, fmt::Display, path::PathBuf, process::ExitCode};

use super::{Error, Result};

/// The path of a binary of this workspace, built by the same profile as the running test.
///
/// Cargo tells a test only where the binaries of its own package are, and builds no others for it.
pub fn program(name: &str) -> Result<PathBuf> {
    let test = env::current_exe().map_err(|source| Error::File { path: PathBuf::from("the test"), source })?;
    // <target>/<profile>/deps/<test>; an example or a binary of its own lies elsewhere in the profile's directory.
    let is_profile = |directory: &&std::path::Path| directory.join(".fingerprint").is_dir();
    let profile = test.ancestors().skip(1).find(is_profile).map(PathBuf::from).unwrap_or_default();
    let path = profile.join(name);
    if path.is_file() {
        return Ok(path);
    }
    let profile = if profile.ends_with("release") { " --release" } else { "" };
    Err(Error::NotBuilt { path, profile })
}

/// What a program ends with: its error is told on standard error.
pub fn exit_code<E: Display>(result: Result<(), E>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_built_is_named_with_the_command_that_builds_it() {
        let error = program("no-such-program").unwrap_err().to_string();
        assert!(error.contains("/no-such-program is not built"), "{error}");
        assert!(error.contains("-p millrace-examples -p millrace-worker"), "{error}");
    }
}
