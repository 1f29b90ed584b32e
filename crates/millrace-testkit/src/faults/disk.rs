//! A small disk that can be filled up.

use std::{
    fs::{self, File},
    io::{ErrorKind, Write},
    path::{Path, PathBuf},
    process::Command,
};

use crate::services::{Result, io_error, workdir::WorkDir};

/// How much is written at once while it is filled.
const CHUNK: usize = 64 << 10;
const BALLAST: &str = "ballast";

/// A file system in memory of a certain size, mounted for as long as this lives. To mount it takes root.
#[derive(Debug)]
pub struct SmallDisk {
    /// Unmounted before the directory goes.
    mount: Mount,
    /// A directory of its own, where it was given no other.
    _dir: Option<WorkDir>,
}

#[derive(Debug)]
struct Mount(PathBuf);

impl SmallDisk {
    /// Mounts an empty one.
    pub fn mount(megabytes: usize) -> Result<Self> {
        let dir = WorkDir::new("disk")?;
        let path = dir.path().join("mounted");
        fs::create_dir(&path).map_err(io_error(format!("making {}", path.display())))?;
        Ok(Self { _dir: Some(dir), ..Self::mount_at(path, megabytes)? })
    }

    /// Mounts an empty one over this directory.
    pub fn mount_at(path: PathBuf, megabytes: usize) -> Result<Self> {
        run(Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={megabytes}m"), "tmpfs"]).arg(&path))?;
        Ok(Self { mount: Mount(path), _dir: None })
    }

    /// Whether this process may mount one.
    pub fn is_possible() -> bool {
        rustix::process::geteuid().is_root()
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.mount.0
    }

    /// Takes all space that is left, as of now. Returns how many bytes that were.
    pub fn fill(&self) -> Result<u64> {
        let path = self.path().join(BALLAST);
        let failed = || io_error(format!("filling {}", path.display()));
        let mut ballast = File::options().create(true).append(true).open(&path).map_err(failed())?;
        let (chunk, mut size, mut filled) = (vec![0; CHUNK], CHUNK, 0);
        while size > 0 {
            match ballast.write(&chunk[..size]) {
                Ok(written) => filled += written as u64,
                Err(error) if error.kind() == ErrorKind::StorageFull => size /= 2,
                Err(error) => return Err(failed()(error)),
            }
        }
        Ok(filled)
    }

    /// Gives it back.
    pub fn free(&self) -> Result<()> {
        let path = self.path().join(BALLAST);
        fs::remove_file(&path).map_err(io_error(format!("removing {}", path.display())))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // At once, even where a process that is about to end has a file open.
        let _ = run(Command::new("umount").arg("--lazy").arg(&self.0));
    }
}

fn run(command: &mut Command) -> Result<()> {
    let failed = || io_error(format!("{command:?}"));
    let output = Command::new(command.get_program()).args(command.get_args()).output().map_err(failed())?;
    if output.status.success() {
        return Ok(());
    }
    Err(failed()(std::io::Error::other(String::from_utf8_lossy(&output.stderr).trim().to_owned())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_takes_nothing_until_it_is_freed() {
        if !SmallDisk::is_possible() {
            println!("skipped: to mount a small disk takes root");
            return;
        }
        let disk = SmallDisk::mount(1).unwrap();
        let file = disk.path().join("file");
        fs::write(&file, "before").unwrap();
        assert!(disk.fill().unwrap() > 900_000);
        assert_eq!(fs::write(disk.path().join("more"), [1; 5000]).unwrap_err().kind(), ErrorKind::StorageFull);
        disk.free().unwrap();
        fs::write(disk.path().join("more"), [1; 5000]).unwrap();
        let path = disk.path().to_owned();
        drop(disk);
        assert!(!path.exists());
    }
}
