//! A loop device on a file that the test made, detached again when it goes out of scope.
#![allow(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::path::{Path, PathBuf};

nix::ioctl_none_bad!(loop_get_free, 0x4C82);
nix::ioctl_write_int_bad!(loop_set_fd, 0x4C00);
nix::ioctl_none_bad!(loop_clear, 0x4C01);
nix::ioctl_write_int_bad!(loop_direct, 0x4C08);

/// An attached loop device.
pub(crate) struct Loopback {
    device: File,
    pub(crate) path: PathBuf,
}

impl Loopback {
    /// Attaches `backing` with direct I/O.
    pub(crate) fn attach(backing: &Path) -> io::Result<Self> {
        let control = OpenOptions::new().read(true).write(true).open("/dev/loop-control")?;
        let file = OpenOptions::new().read(true).write(true).open(backing)?;
        loop {
            // SAFETY: no argument; asks for the number of an unused loop device.
            let number = unsafe { loop_get_free(control.as_raw_fd()) }?;
            let path = PathBuf::from(format!("/dev/loop{number}"));
            let device = OpenOptions::new().read(true).write(true).open(&path)?;
            match set(device.as_raw_fd(), file.as_raw_fd()) {
                Ok(()) => return Ok(Self { device, path }),
                Err(nix::errno::Errno::EBUSY) => {} // another test took it first
                Err(e) => return Err(e.into()),
            }
        }
    }
}

fn set(device: RawFd, file: RawFd) -> nix::Result<()> {
    // SAFETY: both descriptors are open; the kernel takes its own reference to the file.
    unsafe {
        loop_set_fd(device, file)?;
        loop_direct(device, 1).inspect_err(|_| {
            let _ = loop_clear(device);
        })?;
    }
    Ok(())
}

impl Drop for Loopback {
    fn drop(&mut self) {
        // SAFETY: no argument; only this test's own device.
        let _ = unsafe { loop_clear(self.device.as_raw_fd()) };
    }
}
