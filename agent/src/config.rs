//! The agent's configuration file (TOML), validated whole at load.
//!
//! A typo is answered with its line and field, a contradiction with the field and the way out; nothing is opened or made
//! before the whole file is good.

use std::path::{Path, PathBuf};

use bedplate_core::bytes::{Bytes, GIB};
use bedplate_core::class::MediaDemand;
use bedplate_core::ids::{NodeName, PoolName};
use bedplate_core::wipe::{Geometry, VerifyDemand, ZeroMethod};
use bedplate_provisioner::config::{EngineConfig, PoolConfig};
use serde::Deserialize;

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each field is named in the message")]
pub enum ConfigError {
    #[error("configuration {path} cannot be read")]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("configuration {path}: {message}")]
    Parse { path: PathBuf, message: String },
    #[error("configuration {path}: field `{field}`: {why}")]
    Field { path: PathBuf, field: String, why: String },
}

/// The file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// This node's name. In a cluster it may come from the command line instead.
    pub node: Option<NodeName>,
    /// Where ledger and receipts lie. Made if missing.
    #[serde(default = "state_dir")]
    pub state_dir: PathBuf,
    /// Where CSI is served.
    #[serde(default = "csi_socket")]
    pub csi_socket: PathBuf,
    /// Where the command line and metrics scrapers ask.
    #[serde(default = "admin_socket")]
    pub admin_socket: PathBuf,
    /// How wipes behave.
    #[serde(default)]
    pub wipe: WipeSection,
    /// Whether and how disks are measured.
    #[serde(default)]
    pub probe: ProbeSection,
    /// How the agent behaves in a cluster.
    #[serde(default)]
    pub cluster: ClusterSection,
    /// The pools.
    #[serde(default, rename = "pool")]
    pub pools: Vec<PoolSection>,
}

/// Whether and how disks are measured. Only an agent in a cluster measures by itself.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProbeSection {
    /// Whether disks beneath pools are measured at all.
    #[serde(default = "yes")]
    pub enabled: bool,
}

impl Default for ProbeSection {
    fn default() -> Self {
        Self { enabled: yes() }
    }
}

/// How the agent behaves in a cluster.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterSection {
    /// For how many days WipeReceipt objects are kept; the node's own log keeps every receipt.
    #[serde(default = "receipt_days")]
    pub receipt_days: u32,
    /// Seconds between two looks at all disks when nothing happens.
    #[serde(default = "rescan_seconds")]
    pub rescan_seconds: u64,
}

impl Default for ClusterSection {
    fn default() -> Self {
        Self { receipt_days: receipt_days(), rescan_seconds: rescan_seconds() }
    }
}

/// Who runs the agent: what must stand in the file depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// No Kubernetes: the file names node and pools.
    Standalone,
    /// Kubernetes: DiskPools may stand for the file's pools.
    Cluster,
}

/// How wipes behave.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WipeSection {
    /// Bytes between checkpoints.
    #[serde(default = "chunk")]
    pub chunk: Bytes,
    /// A wipe pauses, for two seconds at a time at most, while others keep its disk busy or tasks stall on I/O for more than
    /// this share of the time, in percent; looked at once in a second of work, while the wipe is silent; 100 never pauses.
    #[serde(default = "pressure")]
    pub pause_above_io_pressure_percent: u8,
}

impl Default for WipeSection {
    fn default() -> Self {
        Self { chunk: chunk(), pause_above_io_pressure_percent: pressure() }
    }
}

/// One pool.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PoolSection {
    /// Its name.
    pub name: PoolName,
    /// What it is made of.
    #[serde(default)]
    pub backend: Backend,
    /// Where its files lie. Must exist.
    pub directory: PathBuf,
    /// The most it may hold.
    pub capacity: Option<Bytes>,
    /// What is left to the host.
    #[serde(default = "reserve")]
    pub reserve: Bytes,
    /// How volumes are wiped.
    #[serde(default)]
    pub wipe_method: ZeroMethod,
    /// How wipes are verified where the class does not say.
    #[serde(default)]
    pub verify: VerifyDemand,
    /// Up to this size `auto` verifies in full.
    #[serde(default = "full_verify_up_to")]
    pub full_verify_up_to: Bytes,
    /// The medium beneath, where the operator knows better than discovery.
    pub media: Option<MediaSection>,
}

/// What a pool is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// Fully allocated files on a host filesystem.
    #[default]
    Image,
}

/// The medium beneath a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the media by their names")]
pub enum MediaSection {
    Ssd,
    Nvme,
    Hdd,
}

impl From<MediaSection> for MediaDemand {
    fn from(media: MediaSection) -> Self {
        match media {
            MediaSection::Ssd => Self::Ssd,
            MediaSection::Nvme => Self::Nvme,
            MediaSection::Hdd => Self::Hdd,
        }
    }
}

fn state_dir() -> PathBuf {
    PathBuf::from("/var/lib/bedplate")
}

fn csi_socket() -> PathBuf {
    PathBuf::from("/run/bedplate/csi.sock")
}

fn admin_socket() -> PathBuf {
    PathBuf::from("/run/bedplate/admin.sock")
}

fn yes() -> bool {
    true
}

fn receipt_days() -> u32 {
    90
}

fn rescan_seconds() -> u64 {
    300
}

fn chunk() -> Bytes {
    Bytes(Geometry::default().chunk)
}

fn pressure() -> u8 {
    40
}

fn reserve() -> Bytes {
    Bytes(10 * GIB)
}

fn full_verify_up_to() -> Bytes {
    Bytes(1024 * GIB)
}

impl Config {
    /// Read and check a file.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn load(path: &Path, mode: Mode) -> Result<Self, ConfigError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::parse(path, &text, mode)
    }

    /// What holds where there is no file.
    pub fn without_file() -> Self {
        Self {
            node: None,
            state_dir: state_dir(),
            csi_socket: csi_socket(),
            admin_socket: admin_socket(),
            wipe: WipeSection::default(),
            probe: ProbeSection::default(),
            cluster: ClusterSection::default(),
            pools: Vec::new(),
        }
    }

    /// Check a text; `path` is for messages.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn parse(path: &Path, text: &str, mode: Mode) -> Result<Self, ConfigError> {
        let config: Self = toml::from_str(text)
            .map_err(|error| ConfigError::Parse { path: path.to_owned(), message: error.to_string() })?;
        config.check(mode).map_err(|(field, why)| ConfigError::Field { path: path.to_owned(), field, why })?;
        Ok(config)
    }

    /// Check the whole of it.
    ///
    /// # Errors
    /// The field and what is wrong with it.
    pub fn check(&self, mode: Mode) -> Result<(), (String, String)> {
        let refuse = |field: &str, why: String| Err((field.to_owned(), why));
        for (field, path) in
            [("state_dir", &self.state_dir), ("csi_socket", &self.csi_socket), ("admin_socket", &self.admin_socket)]
        {
            if !path.is_absolute() {
                return refuse(field, format!("{} is not absolute; write the whole path", path.display()));
            }
        }
        if self.csi_socket == self.admin_socket {
            return refuse("admin_socket", "it is the same path as csi_socket; give each its own".to_owned());
        }
        let chunk = self.wipe.chunk.get();
        if chunk < 1 << 20 || !chunk.is_multiple_of(1 << 20) || chunk > 16 * GIB {
            return refuse("wipe.chunk", format!("{chunk} bytes: use whole MiB between 1Mi and 16Gi"));
        }
        if self.wipe.pause_above_io_pressure_percent > 100 {
            return refuse("wipe.pause_above_io_pressure_percent", "use 0 to 100".to_owned());
        }
        if mode == Mode::Standalone && self.node.is_none() {
            return refuse("node", "it is missing; give this node a name".to_owned());
        }
        if self.cluster.receipt_days == 0 || self.cluster.rescan_seconds == 0 {
            return refuse("cluster", "receipt_days and rescan_seconds must be at least 1".to_owned());
        }
        if mode == Mode::Standalone && self.pools.is_empty() {
            return refuse("pool", "there is none; add a [[pool]] with name and directory".to_owned());
        }
        for (i, pool) in self.pools.iter().enumerate() {
            let field = |name: &str| format!("pool[{i}].{name}");
            if !pool.directory.is_absolute() {
                let why = format!("{} is not absolute; write the whole path", pool.directory.display());
                return refuse(&field("directory"), why);
            }
            if pool.capacity.is_some_and(|c| c.get() < 1 << 20) {
                return refuse(&field("capacity"), "smaller than the smallest volume; use at least 1Mi".to_owned());
            }
            for other in &self.pools[..i] {
                if other.name == pool.name {
                    return refuse(&field("name"), format!("pool {} is there twice; rename one", pool.name));
                }
                if pool.directory.starts_with(&other.directory) || other.directory.starts_with(&pool.directory) {
                    let why = format!(
                        "{} and {} of pool {} lie in one another; give each pool a directory of its own",
                        pool.directory.display(),
                        other.directory.display(),
                        other.name
                    );
                    return refuse(&field("directory"), why);
                }
            }
        }
        Ok(())
    }

    /// What the engine needs of it.
    pub fn engine(&self, node: &NodeName, agent_version: &str) -> EngineConfig {
        EngineConfig {
            node: node.clone(),
            state_dir: self.state_dir.clone(),
            pools: self.pools.iter().map(PoolSection::engine).collect(),
            geometry: Geometry { chunk: self.wipe.chunk.get(), ..Geometry::default() },
            agent_version: agent_version.to_owned(),
        }
    }
}

impl PoolSection {
    fn engine(&self) -> PoolConfig {
        let Self {
            name,
            backend: Backend::Image,
            directory,
            capacity,
            reserve,
            wipe_method,
            verify,
            full_verify_up_to,
            media,
        } = self.clone();
        PoolConfig {
            name,
            directory,
            capacity,
            reserve,
            method: wipe_method,
            verify,
            full_verify_up_to,
            media: media.map(Into::into),
            iops: None,
            draining: false,
        }
    }
}

#[cfg(test)]
mod tests;
