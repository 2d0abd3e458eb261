//! System calls that no crate wraps: statx with all its fields, FIEMAP, inode flags, loop ioctls, leases.
//!
//! The only unsafe code of the real machine. Each function does one call on a descriptor it is lent, copies plain data
//! in or out, and gives the kernel's own errno.
#![allow(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use bedplate_core::extent::{Extent, ExtentFlags, RawExtent};
use bedplate_core::volume::FileIdentity;
use nix::errno::Errno;
use nix::libc;
use uuid::Uuid;

/// What `statx` tells of an open file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    /// Device the file lies on.
    pub dev: (u32, u32),
    /// Device the file is, for device nodes.
    pub rdev: (u32, u32),
    /// Inode number.
    pub inode: u64,
    /// Birth time in nanoseconds since the epoch, where the filesystem keeps one.
    pub born: Option<i64>,
    /// Type and mode bits.
    pub mode: u32,
    /// Length in bytes.
    pub size: u64,
    /// Bytes of blocks it holds.
    pub allocated: u64,
    /// Hard links.
    pub links: u64,
    /// The mount it was reached through.
    pub mount: u64,
    /// What direct I/O must be a multiple of, in bytes (larger of memory and offset); `None` where not told.
    pub direct_align: Option<u32>,
}

impl Facts {
    pub(super) fn is(&self, kind: libc::mode_t) -> bool {
        self.mode & libc::S_IFMT == kind
    }

    /// `None` where the filesystem keeps no birth times.
    pub(super) fn identity(&self) -> Option<FileIdentity> {
        self.born.map(|born| FileIdentity { inode: self.inode, born })
    }
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    Errno::result(result).map_err(io::Error::from)
}

fn statx(fd: libc::c_int, path: &std::ffi::CStr, flags: libc::c_int) -> io::Result<Facts> {
    let mask = libc::STATX_BASIC_STATS | libc::STATX_BTIME | libc::STATX_MNT_ID | libc::STATX_DIOALIGN;
    let mut buffer = MaybeUninit::<libc::statx>::zeroed();
    // SAFETY: the path is a C string, the buffer has the size the kernel fills, and all-zero is a valid statx.
    let found = unsafe {
        check(libc::statx(fd, path.as_ptr(), flags, mask, buffer.as_mut_ptr()))?;
        buffer.assume_init()
    };
    let has = |bit| found.stx_mask & bit == bit;
    let born = has(libc::STATX_BTIME)
        .then(|| found.stx_btime.tv_sec.checked_mul(1_000_000_000)?.checked_add(i64::from(found.stx_btime.tv_nsec)))
        .flatten();
    let align = found.stx_dio_mem_align.max(found.stx_dio_offset_align);
    Ok(Facts {
        dev: (found.stx_dev_major, found.stx_dev_minor),
        rdev: (found.stx_rdev_major, found.stx_rdev_minor),
        inode: found.stx_ino,
        born,
        mode: u32::from(found.stx_mode),
        size: found.stx_size,
        allocated: found.stx_blocks.saturating_mul(512),
        links: u64::from(found.stx_nlink),
        mount: found.stx_mnt_id,
        direct_align: (has(libc::STATX_DIOALIGN) && align > 0).then_some(align),
    })
}

/// What an open file is, through its descriptor.
pub(super) fn facts(file: impl AsFd) -> io::Result<Facts> {
    statx(file.as_fd().as_raw_fd(), c"", libc::AT_EMPTY_PATH)
}

/// What stands at a path (links followed), without asking a server and without opening it: for the links under
/// `/proc/<pid>/fd`.
pub(super) fn facts_at(path: &std::ffi::CStr) -> io::Result<Facts> {
    statx(libc::AT_FDCWD, path, libc::AT_STATX_DONT_SYNC | libc::AT_NO_AUTOMOUNT)
}

// <linux/fiemap.h>
const FIEMAP_SYNC: u32 = 1;
const EXTENT_LAST: u32 = 0x1;
const EXTENT_UNKNOWN: u32 = 0x2;
const EXTENT_DELALLOC: u32 = 0x4;
const EXTENT_ENCODED: u32 = 0x8;
const EXTENT_ENCRYPTED: u32 = 0x80;
const EXTENT_NOT_ALIGNED: u32 = 0x100;
const EXTENT_INLINE: u32 = 0x200;
const EXTENT_TAIL: u32 = 0x400;
const EXTENT_UNWRITTEN: u32 = 0x800;
const EXTENT_SHARED: u32 = 0x2000;
/// Extents asked for at once.
const BATCH: u32 = 256;

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct FiemapHead {
    start: u64,
    length: u64,
    flags: u32,
    mapped: u32,
    count: u32,
    reserved: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct FiemapExtent {
    logical: u64,
    physical: u64,
    length: u64,
    reserved64: [u64; 2],
    flags: u32,
    reserved: [u32; 3],
}

#[repr(C)]
struct Fiemap {
    head: FiemapHead,
    extents: [FiemapExtent; BATCH as usize],
}

nix::ioctl_readwrite!(fs_ioc_fiemap, b'f', 11, FiemapHead);
// Their numbers announce a long; what is read and written is an int.
nix::ioctl_read_bad!(fs_ioc_getflags, nix::request_code_read!(b'f', 1, size_of::<libc::c_long>()), libc::c_int);
nix::ioctl_write_ptr_bad!(fs_ioc_setflags, nix::request_code_write!(b'f', 2, size_of::<libc::c_long>()), libc::c_int);

/// Where the first `size` bytes of a file lie, after everything delayed has been placed.
pub(super) fn extents(file: BorrowedFd<'_>, size: u64) -> io::Result<Vec<RawExtent>> {
    let mut all = Vec::new();
    let mut start = 0;
    while start < size {
        let mut map =
            Box::new(Fiemap { head: FiemapHead::default(), extents: [FiemapExtent::default(); BATCH as usize] });
        map.head = FiemapHead { start, length: size - start, flags: FIEMAP_SYNC, count: BATCH, ..map.head };
        // SAFETY: `head` is the start of a repr(C) struct with room for the BATCH extents that it announces; the whole
        // struct is borrowed through the Box's own pointer.
        unsafe { fs_ioc_fiemap(file.as_raw_fd(), (&raw mut *map).cast::<FiemapHead>())? };
        let got = &map.extents[..map.head.mapped.min(BATCH) as usize];
        let Some(last) = got.last() else { break };
        all.extend(got.iter().map(raw));
        let next = last.logical.saturating_add(last.length);
        if last.flags & EXTENT_LAST != 0 || next <= start {
            break;
        }
        start = next;
    }
    Ok(all)
}

fn raw(found: &FiemapExtent) -> RawExtent {
    let any = |bits| found.flags & bits != 0;
    RawExtent {
        extent: Extent { logical: found.logical, physical: found.physical, length: found.length },
        flags: ExtentFlags {
            unwritten: any(EXTENT_UNWRITTEN),
            shared: any(EXTENT_SHARED),
            encoded: any(EXTENT_ENCODED | EXTENT_ENCRYPTED),
            unplaced: any(EXTENT_UNKNOWN | EXTENT_DELALLOC | EXTENT_NOT_ALIGNED | EXTENT_INLINE | EXTENT_TAIL),
        },
    }
}

/// Inode flag: compressed.
pub(super) const FLAG_COMPRESSED: libc::c_int = 0x4;
/// Inode flag: overwritten in place.
pub(super) const FLAG_NO_COW: libc::c_int = 0x0080_0000;

/// Inode flag of ext4: data goes through the host's journal, which keeps copies of it.
pub(super) const FLAG_JOURNAL_DATA: libc::c_int = 0x4000;

/// The inode flags that `lsattr` shows.
pub(super) fn inode_flags(file: impl AsFd) -> io::Result<libc::c_int> {
    let mut flags: libc::c_int = 0;
    // SAFETY: the kernel writes one int.
    unsafe { fs_ioc_getflags(file.as_fd().as_raw_fd(), &raw mut flags)? };
    Ok(flags)
}

/// Sets the inode flags that `chattr` sets.
pub(super) fn set_inode_flags(file: impl AsFd, flags: libc::c_int) -> io::Result<()> {
    // SAFETY: the kernel reads one int.
    unsafe { fs_ioc_setflags(file.as_fd().as_raw_fd(), &raw const flags)? };
    Ok(())
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct FsUuid {
    length: u8,
    uuid: [u8; 16],
}

/// `struct btrfs_ioctl_fs_info_args`: only its first fields are looked at.
#[repr(C)]
#[derive(Clone, Copy)]
struct BtrfsInfo {
    max_id: u64,
    devices: u64,
    fsid: [u8; 16],
    rest: [u64; 124],
}

nix::ioctl_read!(fs_ioc_getfsuuid, 0x15, 0, FsUuid);
nix::ioctl_read!(btrfs_ioc_fs_info, 0x94, 31, BtrfsInfo);

/// The UUID of the filesystem a file lies on, where the kernel tells (6.9 and later).
pub(super) fn fs_uuid(file: impl AsFd) -> io::Result<Option<Uuid>> {
    let mut found = FsUuid::default();
    // SAFETY: plain data of the size that the request number announces.
    unsafe { fs_ioc_getfsuuid(file.as_fd().as_raw_fd(), &raw mut found)? };
    Ok((found.length == 16).then(|| Uuid::from_bytes(found.uuid)).filter(|u| !u.is_nil()))
}

/// UUID and number of devices of a btrfs.
pub(super) fn btrfs_info(file: impl AsFd) -> io::Result<(Uuid, u64)> {
    let mut found = BtrfsInfo { max_id: 0, devices: 0, fsid: [0; 16], rest: [0; 124] };
    // SAFETY: plain data of the size that the request number announces (1 KiB).
    unsafe { btrfs_ioc_fs_info(file.as_fd().as_raw_fd(), &raw mut found)? };
    Ok((Uuid::from_bytes(found.fsid), found.devices))
}

/// Loop flag: no writes.
pub(super) const LOOP_READ_ONLY: u32 = 1;
/// Loop flag: lets go at the last close.
pub(super) const LOOP_AUTOCLEAR: u32 = 4;
/// Loop flag: past the page cache.
pub(super) const LOOP_DIRECT_IO: u32 = 16;

/// `struct loop_info64`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct LoopInfo {
    /// Device that the backing file lies on, as [`huge_dev`] encodes it.
    pub device: u64,
    /// Inode of the backing file.
    pub inode: u64,
    /// Device that the backing file is, where it is one.
    pub rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt: [u32; 2],
    /// `LOOP_*` flags.
    pub flags: u32,
    name: [u8; 64],
    crypt_name: [u8; 64],
    crypt_key: [u8; 32],
    init: [u64; 2],
}

impl LoopInfo {
    const EMPTY: Self = Self {
        device: 0,
        inode: 0,
        rdevice: 0,
        offset: 0,
        size_limit: 0,
        number: 0,
        encrypt: [0; 2],
        flags: 0,
        name: [0; 64],
        crypt_name: [0; 64],
        crypt_key: [0; 32],
        init: [0; 2],
    };

    /// Whether the whole of that file is what the device shows.
    pub(super) fn is_on(&self, file: &Facts) -> bool {
        self.device == huge_dev(file.dev) && self.inode == file.inode
    }

    /// Whether the device starts at the file's first byte and ends with it.
    pub(super) fn is_whole(&self) -> bool {
        self.offset == 0 && self.size_limit == 0
    }
}

/// A device number as loop devices report it.
pub(super) fn huge_dev((major, minor): (u32, u32)) -> u64 {
    u64::from((minor & 0xff) | (major << 8) | ((minor & !0xff) << 12))
}

#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo,
    reserved: [u64; 8],
}

// <linux/loop.h>: these requests carry no direction or size.
const LOOP_CLR_FD: u64 = 0x4C01;
const LOOP_GET_STATUS64: u64 = 0x4C05;
const LOOP_CONFIGURE: u64 = 0x4C0A;
const LOOP_CTL_ADD: u64 = 0x4C80;
const LOOP_CTL_REMOVE: u64 = 0x4C81;

nix::ioctl_none_bad!(loop_clr_fd, LOOP_CLR_FD);
nix::ioctl_read_bad!(loop_get_status64, LOOP_GET_STATUS64, LoopInfo);
nix::ioctl_write_ptr_bad!(loop_configure_raw, LOOP_CONFIGURE, LoopConfig);
nix::ioctl_write_int_bad!(loop_ctl_add_raw, LOOP_CTL_ADD);
nix::ioctl_write_int_bad!(loop_ctl_remove_raw, LOOP_CTL_REMOVE);
// <linux/fs.h>: no size, although it points to an int.
nix::ioctl_write_ptr_bad!(blkroset, nix::request_code_none!(0x12, 93), libc::c_int);

fn int(number: u32) -> io::Result<libc::c_int> {
    libc::c_int::try_from(number).map_err(|_| io::Error::from(Errno::EINVAL))
}

/// Makes loop device `number`. EEXIST where there is one.
pub(super) fn loop_add(control: impl AsFd, number: u32) -> io::Result<()> {
    // SAFETY: the argument is a plain number.
    unsafe { loop_ctl_add_raw(control.as_fd().as_raw_fd(), int(number)?)? };
    Ok(())
}

/// Removes loop device `number`. EBUSY where it is attached or open.
pub(super) fn loop_remove(control: impl AsFd, number: u32) -> io::Result<()> {
    // SAFETY: the argument is a plain number.
    unsafe { loop_ctl_remove_raw(control.as_fd().as_raw_fd(), int(number)?)? };
    Ok(())
}

/// Attaches `file` to a free loop device, past the page cache. EBUSY where it is attached already.
pub(super) fn loop_configure(device: impl AsFd, file: impl AsFd, block_size: u32) -> io::Result<()> {
    let fd = u32::try_from(file.as_fd().as_raw_fd()).map_err(|_| io::Error::from(Errno::EBADF))?;
    let info = LoopInfo { flags: LOOP_DIRECT_IO, ..LoopInfo::EMPTY };
    let config = LoopConfig { fd, block_size, info, reserved: [0; 8] };
    // SAFETY: plain data laid out as the kernel's struct loop_config.
    unsafe { loop_configure_raw(device.as_fd().as_raw_fd(), &raw const config)? };
    Ok(())
}

/// What a loop device is attached to. ENXIO where to nothing.
pub(super) fn loop_status(device: impl AsFd) -> io::Result<LoopInfo> {
    let mut info = LoopInfo::EMPTY;
    // SAFETY: plain data laid out as the kernel's struct loop_info64.
    unsafe { loop_get_status64(device.as_fd().as_raw_fd(), &raw mut info)? };
    Ok(info)
}

/// Asks a loop device to let go: at once where this descriptor is its only opener, else at the last close.
pub(super) fn loop_clear(device: impl AsFd) -> io::Result<()> {
    // SAFETY: no argument.
    unsafe { loop_clr_fd(device.as_fd().as_raw_fd())? };
    Ok(())
}

/// Lets a block device refuse writes, or take them again.
pub(super) fn set_read_only(device: impl AsFd, read_only: bool) -> io::Result<()> {
    let flag = libc::c_int::from(read_only);
    // SAFETY: the argument points to an int that outlives the call.
    unsafe { blkroset(device.as_fd().as_raw_fd(), &raw const flag)? };
    Ok(())
}

/// `fcntl` command: which signal tells of a broken lease (<asm-generic/fcntl.h>).
const F_SETSIG: libc::c_int = 10;

/// Whether this descriptor is the only one, of any process or of the kernel, through which the file is open for reading
/// or writing: a write lease is granted only then, and is given back at once.
///
/// Somebody who opens the file in between breaks the lease; the signal for that is set to SIGURG, which is ignored
/// unless a process asks for it (SIGIO would end the process).
pub(super) fn is_only_opener(file: impl AsFd) -> io::Result<bool> {
    let fd = file.as_fd().as_raw_fd();
    // SAFETY: fcntl with plain numbers on a descriptor that is open for the whole call.
    unsafe {
        check(libc::fcntl(fd, F_SETSIG, libc::SIGURG))?;
        match check(libc::fcntl(fd, libc::F_SETLEASE, libc::F_WRLCK)) {
            Ok(_) => {
                check(libc::fcntl(fd, libc::F_SETLEASE, libc::F_UNLCK))?;
                Ok(true)
            }
            Err(e) if e.raw_os_error() == Some(libc::EAGAIN) => Ok(false),
            Err(e) => Err(e),
        }
    }
}

/// Lets the kernel kill the command when the thread that starts it ends, so that no tool writes on without its master.
pub(super) fn die_with_parent(command: &mut Command) {
    let parent = nix::unistd::getpid();
    // SAFETY: between fork and exec only async-signal-safe calls are made: prctl, getppid, and no allocation.
    unsafe {
        command.pre_exec(move || {
            check(libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL))?;
            // It may have died before the request.
            if nix::unistd::getppid() == parent { Ok(()) } else { Err(io::Error::from(Errno::ESRCH)) }
        });
    }
}
