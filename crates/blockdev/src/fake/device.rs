//! An open backing file, and a held lock.

use std::io;

use nix::errno::Errno;

use super::FakeHost;
use super::disk::Ino;
use super::effect::Effect;
use super::machine::Machine;
use super::script::{Done, os_error};
use crate::{Aligned, Device, HostError, Lock, ZeroMethod};

pub(super) struct FakeLock {
    pub host: FakeHost,
    pub key: (u64, String),
}

impl Lock for FakeLock {}

impl Drop for FakeLock {
    fn drop(&mut self) {
        let mut machine = self.host.machine();
        if machine.locks.get(&self.key) == Some(&self.host.process) {
            machine.locks.remove(&self.key);
        }
    }
}

pub(super) struct FakeDevice {
    pub host: FakeHost,
    pub handle: u64,
    pub name: String,
    pub size: u64,
    pub block: usize,
}

impl FakeDevice {
    /// O_DIRECT's own rules: whole blocks, aligned memory, inside the file.
    fn check(&self, offset: u64, length: u64, memory: Option<*const u8>) -> io::Result<()> {
        let block = self.block as u64;
        let aligned = offset.is_multiple_of(block)
            && length.is_multiple_of(block)
            && memory.is_none_or(|at| at.addr().is_multiple_of(self.block.min(Aligned::ALIGN)));
        let inside = offset.checked_add(length).is_some_and(|end| end <= self.size);
        if aligned && inside { Ok(()) } else { Err(os_error(Errno::EINVAL)) }
    }

    fn act<T>(
        &self,
        op: &'static str,
        verb: &'static str,
        offset: u64,
        length: u64,
        act: impl FnOnce(&mut Machine, Ino, Done) -> io::Result<T>,
    ) -> Result<T, HostError> {
        let object = format!("{} bytes {offset}+{length}", self.name);
        self.host.step(op, &object, |m, done| {
            let opened = m.handles.get(&self.handle).map(|(_, ino)| *ino);
            let ino = opened.ok_or_else(|| HostError::failed(verb, &object, os_error(Errno::EBADF)))?;
            act(m, ino, done).map_err(|e| HostError::failed(verb, &object, e))
        })
    }
}

impl Device for FakeDevice {
    fn size(&self) -> u64 {
        self.size
    }

    fn block_size(&self) -> u32 {
        u32::try_from(self.block).unwrap_or(u32::MAX)
    }

    fn read_at(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), HostError> {
        self.act("device.read_at", "read", offset, buf.len() as u64, |m, ino, _| {
            self.check(offset, buf.len() as u64, Some(buf.as_ptr()))?;
            m.read_blocks(ino, offset, buf)
        })
    }

    fn write_at(&mut self, offset: u64, buf: &[u8]) -> Result<(), HostError> {
        self.act("device.write_at", "write", offset, buf.len() as u64, |m, ino, done| {
            self.check(offset, buf.len() as u64, Some(buf.as_ptr()))?;
            m.write_blocks(ino, offset, buf, done)
        })
    }

    fn zero(&mut self, offset: u64, length: u64, method: ZeroMethod) -> Result<(), HostError> {
        self.act("device.zero", "zero", offset, length, |m, ino, done| {
            self.check(offset, length, None)?;
            match method {
                ZeroMethod::DirectWrites => {
                    let zeroes = vec![0; super::disk::index(length)];
                    m.write_blocks(ino, offset, &zeroes, done)
                }
                ZeroMethod::ZeroRange => {
                    let block = self.block as u64;
                    for logical in offset / block..(offset + length) / block {
                        m.perform(Effect::Unwrite { ino, logical });
                    }
                    Ok(())
                }
            }
        })
    }

    fn flush(&mut self) -> Result<(), HostError> {
        self.act("device.flush", "flush", 0, self.size, |m, ino, done| {
            if !matches!(done, Done::Part(_)) {
                m.sync_inode(ino);
            }
            Ok(())
        })
    }
}

impl Drop for FakeDevice {
    fn drop(&mut self) {
        let mut machine = self.host.machine();
        machine.handles.remove(&self.handle);
        machine.collect();
    }
}
