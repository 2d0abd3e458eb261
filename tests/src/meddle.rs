//! A machine between the engine and the real one (or the fake): something happens just before a call, or a call lies.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use bedplate_blockdev::{
    Attachment, BackingFacts, Detached, Device, Dir, FileIdentity, Host, HostError, Lock, LoopDevice, Mkfs, PoolFacts,
    User,
};
use bedplate_core::extent::PhysicalMap;

/// Called with the name of each call before it is made; `Some` is the call's answer instead.
pub type Hook = Box<dyn FnMut(&str) -> Option<HostError> + Send>;

/// The same for a call that is to be kept waiting while others go on.
pub type Gate = Box<dyn Fn(&str) + Send + Sync>;

/// The machine.
pub struct Meddler {
    inner: Arc<dyn Host>,
    hook: Mutex<Hook>,
    /// Every look for a signature says "blank".
    pub blind: bool,
    /// Passed before the hook.
    pub gate: Option<Gate>,
}

impl Meddler {
    /// In front of `inner`.
    pub fn new(inner: Arc<dyn Host>, hook: impl FnMut(&str) -> Option<HostError> + Send + 'static) -> Self {
        Self { inner, hook: Mutex::new(Box::new(hook)), blind: false, gate: None }
    }

    fn before(&self, op: &str) -> Result<&dyn Host, HostError> {
        if let Some(gate) = &self.gate {
            gate(op);
        }
        match (self.hook.lock().unwrap_or_else(PoisonError::into_inner))(op) {
            Some(error) => Err(error),
            None => Ok(&*self.inner),
        }
    }
}

impl Host for Meddler {
    fn open_dir(&self, path: &Path) -> Result<Dir, HostError> {
        self.before("open_dir")?.open_dir(path)
    }

    fn lock(&self, dir: &Dir, name: &str) -> Result<Box<dyn Lock>, HostError> {
        self.before("lock")?.lock(dir, name)
    }

    fn list(&self, dir: &Dir) -> Result<Vec<String>, HostError> {
        self.before("list")?.list(dir)
    }

    fn read(&self, dir: &Dir, name: &str) -> Result<Option<Vec<u8>>, HostError> {
        self.before("read")?.read(dir, name)
    }

    fn read_from(&self, dir: &Dir, name: &str, offset: u64, most: usize) -> Result<Option<Vec<u8>>, HostError> {
        self.before("read_from")?.read_from(dir, name, offset, most)
    }

    fn write(&self, dir: &Dir, name: &str, content: &[u8]) -> Result<(), HostError> {
        self.before("write")?.write(dir, name, content)
    }

    fn append(&self, dir: &Dir, name: &str, content: &[u8]) -> Result<(), HostError> {
        self.before("append")?.append(dir, name, content)
    }

    fn truncate(&self, dir: &Dir, name: &str, length: u64) -> Result<(), HostError> {
        self.before("truncate")?.truncate(dir, name, length)
    }

    fn sync_file(&self, dir: &Dir, name: &str) -> Result<(), HostError> {
        self.before("sync_file")?.sync_file(dir, name)
    }

    fn rename(&self, dir: &Dir, from: &str, to: &str) -> Result<(), HostError> {
        self.before("rename")?.rename(dir, from, to)
    }

    fn sync_dir(&self, dir: &Dir) -> Result<(), HostError> {
        self.before("sync_dir")?.sync_dir(dir)
    }

    fn pool_facts(&self, dir: &Dir) -> Result<PoolFacts, HostError> {
        self.before("pool_facts")?.pool_facts(dir)
    }

    fn create_backing(&self, dir: &Dir, name: &str) -> Result<FileIdentity, HostError> {
        self.before("create_backing")?.create_backing(dir, name)
    }

    fn allocate_backing(&self, dir: &Dir, name: &str, identity: &FileIdentity, size: u64) -> Result<(), HostError> {
        self.before("allocate_backing")?.allocate_backing(dir, name, identity, size)
    }

    fn backing(&self, dir: &Dir, name: &str) -> Result<Option<BackingFacts>, HostError> {
        self.before("backing")?.backing(dir, name)
    }

    fn map(&self, dir: &Dir, name: &str, identity: &FileIdentity) -> Result<PhysicalMap, HostError> {
        self.before("map")?.map(dir, name, identity)
    }

    fn open_backing(
        &self,
        dir: &Dir,
        name: &str,
        identity: &FileIdentity,
        size: u64,
    ) -> Result<Box<dyn Device>, HostError> {
        self.before("open_backing")?.open_backing(dir, name, identity, size)
    }

    fn remove_backing(&self, dir: &Dir, name: &str, identity: &FileIdentity) -> Result<(), HostError> {
        self.before("remove_backing")?.remove_backing(dir, name, identity)
    }

    fn attach(&self, dir: &Dir, name: &str, identity: &FileIdentity) -> Result<LoopDevice, HostError> {
        self.before("attach")?.attach(dir, name, identity)
    }

    fn attachments(&self, dir: &Dir, name: &str, identity: &FileIdentity) -> Result<Vec<Attachment>, HostError> {
        self.before("attachments")?.attachments(dir, name, identity)
    }

    fn detach(
        &self,
        dir: &Dir,
        name: &str,
        identity: &FileIdentity,
        device: &LoopDevice,
    ) -> Result<Detached, HostError> {
        self.before("detach")?.detach(dir, name, identity, device)
    }

    fn users(
        &self,
        dir: &Dir,
        name: &str,
        identity: &FileIdentity,
        device: Option<&LoopDevice>,
    ) -> Result<Vec<User>, HostError> {
        self.before("users")?.users(dir, name, identity, device)
    }

    fn signature(&self, device: &LoopDevice) -> Result<Option<String>, HostError> {
        let inner = self.before("signature")?;
        if self.blind { Ok(None) } else { inner.signature(device) }
    }

    fn mkfs(&self, device: &LoopDevice, mkfs: &Mkfs) -> Result<(), HostError> {
        self.before("mkfs")?.mkfs(device, mkfs)
    }
}
