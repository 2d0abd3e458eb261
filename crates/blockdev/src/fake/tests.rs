use std::path::Path;

use nix::errno::Errno;
use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::{Aligned, Detached, Device, Dir, FileIdentity, Host, Mkfs, User, ZeroMethod};

const BLOCK: usize = 4096;
const SIZE: u64 = 16 * 4096;

mod lies;
mod power;

struct Made {
    host: FakeHost,
    pool: Dir,
    identity: FileIdentity,
}

fn pool_path() -> &'static Path {
    Path::new("/pool")
}

/// A machine with one durable backing file "v".
fn made() -> Made {
    let host = FakeHost::new(Config::default());
    let pool = host.open_dir(pool_path()).unwrap();
    let identity = host.create_backing(&pool, "v").unwrap();
    host.allocate_backing(&pool, "v", &identity, SIZE).unwrap();
    host.sync_file(&pool, "v").unwrap();
    host.sync_dir(&pool).unwrap();
    Made { host, pool, identity }
}

impl Made {
    fn open(&self) -> Box<dyn Device> {
        self.host.open_backing(&self.pool, "v", &self.identity, SIZE).unwrap()
    }

    fn again(&self, host: FakeHost) -> Self {
        Self { host, pool: self.pool.clone(), identity: self.identity }
    }
}

fn filled(byte: u8, blocks: usize) -> Aligned {
    let mut out = Aligned::zeroed(blocks * BLOCK);
    out.fill(byte);
    out
}

fn read(device: &mut dyn Device, offset: u64, blocks: usize) -> Aligned {
    let mut out = Aligned::zeroed(blocks * BLOCK);
    device.read_at(offset, &mut out).unwrap();
    out
}

#[test]
fn a_freed_block_keeps_its_bytes_and_comes_back_unwritten() {
    let m = made();
    let mut device = m.open();
    device.write_at(0, &filled(b'S', 1)).unwrap();
    device.flush().unwrap();
    drop(device);
    m.host.remove_backing(&m.pool, "v", &m.identity).unwrap();
    m.host.sync_dir(&m.pool).unwrap();
    let at = m.host.find(b"SSSS")[0];
    assert_eq!(m.host.owner_of(at), None);
    let next = m.host.create_backing(&m.pool, "next").unwrap();
    m.host.allocate_backing(&m.pool, "next", &next, SIZE).unwrap();
    assert_eq!(m.host.owner_of(at).as_deref(), Some("next"));
    assert_eq!(m.host.map(&m.pool, "next", &next).unwrap().unwritten, SIZE);
    let mut device = m.host.open_backing(&m.pool, "next", &next, SIZE).unwrap();
    assert!(read(device.as_mut(), 0, 16).iter().all(|b| *b == 0));
    assert!(!m.host.find(b"SSSS").is_empty(), "the raw medium still holds it");
}

#[test]
fn a_zero_range_hides_the_bytes_and_leaves_them_on_the_medium() {
    let m = made();
    let mut device = m.open();
    device.write_at(0, &filled(b'S', 16)).unwrap();
    device.zero(0, SIZE, ZeroMethod::ZeroRange).unwrap();
    device.flush().unwrap();
    assert!(read(device.as_mut(), 0, 16).iter().all(|b| *b == 0));
    assert!(!m.host.find(b"SSSS").is_empty());
    assert_eq!(m.host.map(&m.pool, "v", &m.identity).unwrap().unwritten, SIZE);
    device.zero(0, SIZE, ZeroMethod::DirectWrites).unwrap();
    assert_eq!(m.host.find(b"SSSS"), Vec::<u64>::new());
    assert_eq!(m.host.map(&m.pool, "v", &m.identity).unwrap().unwritten, 0);
}

#[test]
fn direct_io_refuses_what_is_not_aligned_or_not_inside() {
    let m = made();
    let mut device = m.open();
    let buf = filled(1, 2);
    assert!(device.write_at(512, &buf[..BLOCK]).is_err());
    assert!(device.write_at(0, &buf[..512]).is_err());
    assert!(device.write_at(0, &buf[512..512 + BLOCK]).is_err());
    assert!(device.write_at(SIZE, &buf[..BLOCK]).is_err());
    assert!(device.write_at(SIZE - BLOCK as u64, &buf[..BLOCK]).is_ok());
}

#[test]
fn an_open_file_is_open_to_nobody_else() {
    let m = made();
    let device = m.open();
    assert!(matches!(m.host.open_backing(&m.pool, "v", &m.identity, SIZE), Err(HostError::Refused(_))));
    assert_eq!(m.host.users(&m.pool, "v", &m.identity, None).unwrap().len(), 1);
    drop(device);
    let attached = m.host.attach(&m.pool, "v", &m.identity).unwrap();
    assert!(matches!(m.host.open_backing(&m.pool, "v", &m.identity, SIZE), Err(HostError::Refused(_))));
    assert_eq!(m.host.users(&m.pool, "v", &m.identity, Some(&attached)).unwrap(), []);
    assert_eq!(m.host.detach(&m.pool, "v", &m.identity, &attached).unwrap(), Detached::Gone);
    drop(m.open());
}

#[test]
fn a_held_loop_device_goes_only_with_its_last_user() {
    let m = made();
    let attached = m.host.attach(&m.pool, "v", &m.identity).unwrap();
    let user = User::Mount { pid: 7, target: "/mnt".to_owned() };
    m.host.hold(attached.number, user.clone());
    m.host.hold_unseen(attached.number);
    assert_eq!(m.host.detach(&m.pool, "v", &m.identity, &attached).unwrap(), Detached::StillHeld);
    assert_eq!(m.host.users(&m.pool, "v", &m.identity, Some(&attached)).unwrap(), [user]);
    m.host.release(attached.number);
    assert_eq!(m.host.attachments(&m.pool, "v", &m.identity).unwrap(), []);
}

#[test]
fn a_replaced_file_is_not_the_recorded_one() {
    let m = made();
    m.host.host_replace(pool_path(), "v");
    assert!(matches!(m.host.open_backing(&m.pool, "v", &m.identity, SIZE), Err(HostError::Refused(_))));
    assert!(matches!(m.host.attach(&m.pool, "v", &m.identity), Err(HostError::Refused(_))));
    assert!(matches!(m.host.remove_backing(&m.pool, "v", &m.identity), Err(HostError::Refused(_))));
    assert_eq!(m.host.backing(&m.pool, "v").unwrap().unwrap().size, SIZE);
}

#[test]
fn a_write_to_shared_blocks_moves_them_and_leaves_the_old_ones() {
    let m = made();
    let loops = m.host.attach(&m.pool, "v", &m.identity).unwrap().number;
    m.host.tenant_write(loops, 0, b"SECRET-ONE").unwrap();
    let before = m.host.map(&m.pool, "v", &m.identity).unwrap();
    m.host.host_reflink(pool_path(), "v", "snapshot");
    assert_eq!(m.host.map(&m.pool, "v", &m.identity).unwrap().shared, SIZE);
    m.host.tenant_write(loops, 0, &[0; BLOCK]).unwrap();
    m.host.tenant_flush(loops).unwrap();
    let after = m.host.map(&m.pool, "v", &m.identity).unwrap();
    assert!(!before.same_places(&after));
    assert_eq!(m.host.owner_of(m.host.find(b"SECRET-ONE")[0]).as_deref(), Some("snapshot"));
    m.host.host_remove(pool_path(), "snapshot");
    assert_eq!(m.host.owner_of(m.host.find(b"SECRET-ONE")[0]), None);
}

#[test]
fn a_full_disk_keeps_what_it_could_allocate() {
    let m = made();
    let big = m.host.create_backing(&m.pool, "big").unwrap();
    let error = m.host.allocate_backing(&m.pool, "big", &big, 1 << 30).unwrap_err();
    assert!(error.is_full());
    assert_eq!(m.host.pool_facts(&m.pool).unwrap().available, 0);
    m.host.remove_backing(&m.pool, "big", &big).unwrap();
    let small = m.host.create_backing(&m.pool, "small").unwrap();
    m.host.allocate_backing(&m.pool, "small", &small, SIZE).unwrap();
}

#[test]
fn a_tenant_cannot_discard_unless_somebody_switched_it_on() {
    let m = made();
    let loops = m.host.attach(&m.pool, "v", &m.identity).unwrap().number;
    assert!(m.host.tenant_discard(loops, 0, SIZE).is_err());
    m.host.host_enable_discard(loops);
    m.host.tenant_discard(loops, 0, 8192).unwrap();
    assert_eq!(m.host.map(&m.pool, "v", &m.identity).unwrap().holes(SIZE), 8192);
    assert!(!m.host.attachments(&m.pool, "v", &m.identity).unwrap()[0].discard_off);
}

#[test]
fn mkfs_leaves_a_signature_and_half_a_mkfs_leaves_something() {
    let m = made();
    let mut mkfs = Mkfs {
        fs_type: bedplate_core::filesystem::FsType::Ext4,
        uuid: Uuid::from_u128(7),
        options: Vec::new(),
        repeat: false,
    };
    let device = m.host.attach(&m.pool, "v", &m.identity).unwrap();
    assert_eq!(m.host.signature(&device).unwrap(), None);
    m.host.set_script(Script::new().break_op("mkfs", 0, 1, Errno::EINTR, Done::Part(0)));
    assert!(m.host.mkfs(&device, &mkfs).is_err());
    assert_eq!(m.host.signature(&device).unwrap().as_deref(), Some("unrecognised data"));
    assert!(matches!(m.host.mkfs(&device, &mkfs), Err(HostError::Refused(_))));
    mkfs.repeat = true;
    m.host.mkfs(&device, &mkfs).unwrap();
    let uuid = mkfs.uuid;
    assert_eq!(m.host.signature(&device).unwrap(), Some(format!("ext4 {uuid}")));
    assert_eq!(m.host.mkfs_runs().len(), 2);
}

#[test]
fn a_missing_mount_is_another_filesystem() {
    let m = made();
    let there = m.host.pool_facts(&m.pool).unwrap();
    m.host.host_unmount(pool_path());
    let beneath = m.host.open_dir(pool_path()).unwrap();
    assert_ne!(m.host.pool_facts(&beneath).unwrap().fs_uuid, there.fs_uuid);
    assert_eq!(m.host.list(&beneath).unwrap(), Vec::<String>::new());
    assert_eq!(m.host.list(&m.pool).unwrap(), ["v"], "a directory held open stays what it was");
    m.host.host_mount(pool_path());
    assert_eq!(m.host.open_dir(pool_path()).unwrap(), m.pool);
}

#[test]
fn a_second_process_is_told_who_holds_the_lock() {
    let m = made();
    let other = m.host.second_process();
    let lock = m.host.lock(&m.pool, "lock").unwrap();
    let refused = other.lock(&m.pool, "lock").err().unwrap();
    assert!(refused.to_string().contains("process 100 holds it"), "{refused}");
    drop(lock);
    assert!(other.lock(&m.pool, "lock").is_ok());
    m.host.host_describe(pool_path(), "ext4", &["ro"], true);
    assert!(m.host.write(&m.pool, "x", b"").is_err());
}

#[test]
fn calls_are_counted_and_fail_where_the_script_says() {
    let m = made();
    assert_eq!(m.host.steps(), 5);
    assert_eq!(m.host.trace()[2], Step { number: 3, op: "allocate_backing", object: "v".to_owned() });
    m.host.set_script(Script::new().fail_at(6, Errno::EIO, Done::Nothing).fail_op("list", 1, 1, Errno::EMFILE));
    assert!(m.host.list(&m.pool).is_err());
    assert!(m.host.list(&m.pool).is_err());
    assert!(m.host.list(&m.pool).is_ok());
    m.host.set_script(Script::new().fail_at(9, Errno::ENOSPC, Done::Part(3)));
    assert!(m.host.append(&m.pool, "log", b"0123456789").unwrap_err().is_full());
    let left = m.host.content(pool_path(), "log").unwrap();
    assert!(left.len() < 10 && b"0123456789".starts_with(&left));
}
