//! HDFS: a NameNode and a DataNode.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::OnceLock,
    time::Duration,
};

use super::{Result, installed, io_error, ports::ReservedPort, process::ManagedProcess, small_java, workdir::WorkDir};

const START_LIMIT: Duration = Duration::from_secs(120);

/// What the NameNode logs when the DataNode can take files.
const READY_LINE: &str = "BLOCK* processReport";
const SERVES_LINE: &str = "NameNode RPC up at";

/// A NameNode and a DataNode on loopback ports, with folders of their own. They end with it.
#[derive(Debug)]
pub struct Hdfs {
    // Dropped in this order: the processes end before their folder goes.
    _datanode: ManagedProcess,
    namenode: ManagedProcess,
    settings: Settings,
    dir: WorkDir,
}

/// What stays the same when the NameNode is started again.
#[derive(Debug)]
struct Settings {
    home: PathBuf,
    address: SocketAddr,
    starts: u32,
}

impl Hdfs {
    /// Starts both and waits until files can be written.
    pub fn start() -> Result<Self> {
        let home = installed("Hadoop", "MILLRACE_HADOOP_HOME", "hadoop", "scripts/fetch-hadoop.sh")?;
        let dir = WorkDir::new("hdfs")?;
        let port = ReservedPort::new();
        let mut settings = Settings { home, address: ([127, 0, 0, 1], port.port()).into(), starts: 0 };
        settings.prepare(dir.path()).map_err(io_error("preparing HDFS's folder"))?;
        port.release();
        let mut namenode = settings.launch_namenode(&dir)?;
        let datanode = settings.launch("datanode", "org.apache.hadoop.hdfs.server.datanode.DataNode", &dir)?;
        namenode.wait_until("DataNode", START_LIMIT, |process| process.stdout().contains(READY_LINE))?;
        Ok(Self { _datanode: datanode, namenode, settings, dir })
    }

    /// The file system that the tests of this process share. It ends with the process.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Hdfs> = OnceLock::new();
        SHARED.get_or_init(|| Self::start().unwrap_or_else(|error| panic!("{error}")))
    }

    /// The URI of a directory in it.
    pub fn uri(&self, path: &str) -> String {
        format!("hdfs://{}/{path}", self.settings.address)
    }

    /// Ends the NameNode with SIGKILL, and starts it again on the same port and data.
    pub fn restart_namenode(&mut self) -> Result<()> {
        self.namenode.kill()?;
        self.namenode = self.settings.launch_namenode(&self.dir)?;
        self.namenode.wait_until("DataNode", START_LIMIT, |process| process.stdout().contains(READY_LINE))
    }
}

impl Settings {
    /// Lays out the folder: configuration and a formatted, empty file system.
    fn prepare(&self, dir: &Path) -> std::io::Result<()> {
        let (data, conf) = (dir.join("files"), dir.join("conf"));
        copy(&self.home.join("formatted"), &data)?;
        fs::create_dir(&conf)?;
        let site = include_str!("../../../../tests/services/hadoop/hdfs-site.xml")
            .replace("@NAMENODE@", &self.address.to_string())
            .replace("@DATA@", &data.display().to_string());
        for name in ["core-site.xml", "hdfs-site.xml"] {
            fs::write(conf.join(name), &site)?;
        }
        fs::write(conf.join("log4j.properties"), include_str!("../../../../tests/services/hadoop/log4j.properties"))
    }

    fn launch_namenode(&mut self, dir: &WorkDir) -> Result<ManagedProcess> {
        let mut process = self.launch("namenode", "org.apache.hadoop.hdfs.server.namenode.NameNode", dir)?;
        process.wait_until("start", START_LIMIT, |process| process.stdout().contains(SERVES_LINE))?;
        Ok(process)
    }

    fn launch(&mut self, name: &str, class: &str, dir: &WorkDir) -> Result<ManagedProcess> {
        self.starts += 1;
        let mut command = small_java();
        command
            .arg("--add-opens=java.base/java.lang=ALL-UNNAMED")
            .arg("-cp")
            .arg(format!("{}:{}", dir.path().join("conf").display(), self.home.join("libs/*").display()))
            .arg(class)
            .current_dir(dir.path());
        ManagedProcess::spawn(&format!("{name}-{}", self.starts), &command, dir.path())
    }
}

/// Copies a directory with all that is in it.
fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
