//! Reading one folder of small attribute files, as sysfs has them. A file that is missing, unreadable or gone in the
//! middle of the read is `None`: the caller decides what that means.

use std::path::{Path, PathBuf};

use bedplate_core::bytes::Bytes;

/// A folder of attributes.
#[derive(Clone, Debug)]
pub(super) struct Attributes(PathBuf);

impl Attributes {
    pub(super) fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    pub(super) fn sub(&self, name: &str) -> Self {
        Self(self.0.join(name))
    }

    pub(super) fn exists(&self, name: &str) -> bool {
        self.0.join(name).exists()
    }

    /// An attribute as trimmed text; `None` also where it is empty.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        let bytes = std::fs::read(self.0.join(name)).ok()?;
        let text = String::from_utf8_lossy(&bytes);
        let text = text.trim_matches(|c: char| c.is_whitespace() || c.is_control());
        (!text.is_empty()).then(|| text.chars().filter(|c| !c.is_control()).collect())
    }

    /// An attribute's bytes.
    pub(super) fn bytes(&self, name: &str) -> Option<Vec<u8>> {
        std::fs::read(self.0.join(name)).ok().filter(|bytes| !bytes.is_empty())
    }

    /// A decimal attribute.
    pub(super) fn number<T: std::str::FromStr>(&self, name: &str) -> Option<T> {
        self.text(name)?.parse().ok()
    }

    /// An attribute in bytes.
    pub(super) fn amount(&self, name: &str) -> Option<Bytes> {
        self.number(name).map(Bytes)
    }

    /// An attribute counted in units of 512 bytes, whatever the disk's sector is (kernel `Documentation/ABI/stable/
    /// sysfs-block`: "size" and "start" are in 512-byte sectors).
    pub(super) fn sectors(&self, name: &str) -> Option<Bytes> {
        self.number::<u64>(name)?.checked_mul(512).map(Bytes)
    }

    /// A `0` or `1` attribute.
    pub(super) fn flag(&self, name: &str) -> Option<bool> {
        match self.text(name)?.as_str() {
            "0" => Some(false),
            "1" => Some(true),
            _ => None,
        }
    }

    /// Names in a sub-folder, sorted; empty where there is none.
    pub(super) fn names(&self, sub: &str) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.0.join(sub)) else { return Vec::new() };
        let mut names: Vec<String> =
            entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
        names.sort_unstable();
        names
    }
}
