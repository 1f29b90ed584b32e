//! The files in `~/.aws`, as far as a checkpoint store needs them: static credentials and the region of a profile.

use std::path::PathBuf;

use super::options::Secret;

/// What a profile says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Profile {
    pub(super) access_key: Option<String>,
    pub(super) secret_key: Option<Secret>,
    pub(super) session_token: Option<Secret>,
    pub(super) region: Option<String>,
}

impl Profile {
    /// Reads the profile of this name (else `AWS_PROFILE`, else `default`) from the files that the environment names.
    pub(super) fn load(name: Option<&str>, env: &dyn Fn(&str) -> Option<String>) -> Self {
        let name = name.map(str::to_string).or_else(|| env("AWS_PROFILE")).unwrap_or_else(|| "default".to_string());
        let file = |variable: &str, in_home: &str| {
            let path = env(variable).map(PathBuf::from);
            let path = path.or_else(|| env("HOME").map(|home| PathBuf::from(home).join(".aws").join(in_home)))?;
            std::fs::read_to_string(path).ok()
        };
        let mut profile = Self::default();
        if let Some(text) = file("AWS_CONFIG_FILE", "config") {
            let section = if name == "default" { name.clone() } else { format!("profile {name}") };
            profile.read(&text, &section);
        }
        if let Some(text) = file("AWS_SHARED_CREDENTIALS_FILE", "credentials") {
            profile.read(&text, &name);
        }
        profile
    }

    /// Takes over what a section of an INI file says.
    fn read(&mut self, text: &str, section: &str) {
        let mut inside = false;
        for line in text.lines().map(str::trim) {
            if let Some(header) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
                inside = header.trim() == section;
            } else if let (true, Some((key, value))) = (inside, line.split_once('=')) {
                let value = value.trim().to_string();
                match key.trim() {
                    "aws_access_key_id" => self.access_key = Some(value),
                    "aws_secret_access_key" => self.secret_key = Some(value.into()),
                    "aws_session_token" => self.session_token = Some(value.into()),
                    "region" => self.region = Some(value),
                    _ => {}
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_found_in_both_files() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join(".aws")).unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(".aws").join(name), text).unwrap();
        write(
            "credentials",
            "[default]\naws_access_key_id = a\naws_secret_access_key=b=\n# x\n[ci]\naws_access_key_id=c\n",
        );
        write("config", "[default]\nregion = here\n[profile ci]\nregion = there\n");
        let home = dir.path().to_str().unwrap().to_string();
        let env = |extra: Option<&'static str>| {
            let home = home.clone();
            move |name: &str| match name {
                "HOME" => Some(home.clone()),
                "AWS_PROFILE" => extra.map(str::to_string),
                _ => None,
            }
        };
        let default = Profile::load(None, &env(None));
        assert_eq!((default.access_key.as_deref(), default.region.as_deref()), (Some("a"), Some("here")));
        assert_eq!(default.secret_key.as_ref().map(Secret::expose), Some("b="));
        for ci in [Profile::load(None, &env(Some("ci"))), Profile::load(Some("ci"), &env(None))] {
            assert_eq!((ci.access_key.as_deref(), ci.region.as_deref()), (Some("c"), Some("there")));
            assert_eq!(ci.secret_key, None);
        }
        assert_eq!(Profile::load(None, &|_| None), Profile::default());
    }
}
