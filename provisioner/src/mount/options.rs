//! Mount options that a user may ask for, against an allow list: one that names another device, another part of a
//! filesystem or a way to take the node down (`errors=panic`) is refused by name. Sources: mount(8), ext4(5), xfs(5),
//! btrfs(5), the kernel's f2fs documentation.

use bedplate_core::filesystem::FsType;
use nix::mount::MsFlags;

/// Why an option is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("mount option {flag:?} is not allowed for {fs_type}: {why}")]
pub struct BadFlag {
    /// The option as given.
    pub flag: String,
    /// For which filesystem.
    pub fs_type: FsType,
    /// Why not.
    pub why: &'static str,
}

/// Options ready for mount(2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    pub(super) flags: MsFlags,
    pub(super) data: String,
}

impl Default for Options {
    fn default() -> Self {
        Self { flags: MsFlags::empty(), data: String::new() }
    }
}

/// Names that may stand alone or, ending in `=`, with a value.
const EXT4: &[&str] = &[
    "acl",
    "noacl",
    "auto_da_alloc",
    "noauto_da_alloc",
    "barrier",
    "nobarrier",
    "barrier=",
    "block_validity",
    "commit=",
    "data=",
    "delalloc",
    "nodelalloc",
    "discard",
    "nodiscard",
    "errors=",
    "grpquota",
    "init_itable=",
    "noinit_itable",
    "journal_async_commit",
    "journal_checksum",
    "max_batch_time=",
    "min_batch_time=",
    "prjquota",
    "quota",
    "noquota",
    "stripe=",
    "user_xattr",
    "nouser_xattr",
    "usrquota",
];
const XFS: &[&str] = &[
    "allocsize=",
    "discard",
    "nodiscard",
    "gquota",
    "grpquota",
    "inode32",
    "inode64",
    "largeio",
    "nolargeio",
    "logbsize=",
    "logbufs=",
    "noalign",
    "noquota",
    "pquota",
    "prjquota",
    "sunit=",
    "swalloc",
    "swidth=",
    "uquota",
    "usrquota",
    "wsync",
];
const BTRFS: &[&str] = &[
    "acl",
    "noacl",
    "autodefrag",
    "noautodefrag",
    "barrier",
    "nobarrier",
    "commit=",
    "compress",
    "compress=",
    "compress-force",
    "compress-force=",
    "datacow",
    "nodatacow",
    "datasum",
    "nodatasum",
    "discard",
    "discard=",
    "nodiscard",
    "flushoncommit",
    "noflushoncommit",
    "max_inline=",
    "metadata_ratio=",
    "space_cache=",
    "ssd",
    "nossd",
    "ssd_spread",
    "nossd_spread",
    "thread_pool=",
    "treelog",
    "notreelog",
    "user_subvol_rm_allowed",
];
const F2FS: &[&str] = &[
    "acl",
    "noacl",
    "active_logs=",
    "atgc",
    "background_gc=",
    "checkpoint_merge",
    "compress_algorithm=",
    "discard",
    "nodiscard",
    "extent_cache",
    "noextent_cache",
    "flush_merge",
    "noflush_merge",
    "fsync_mode=",
    "gc_merge",
    "inline_data",
    "noinline_data",
    "inline_dentry",
    "inline_xattr",
    "mode=",
    "user_xattr",
    "nouser_xattr",
];

impl Options {
    /// Reads a capability's mount flags; each may hold several options, separated by commas.
    ///
    /// # Errors
    /// At the first one that is not on the list.
    pub fn parse(fs_type: FsType, given: &[String]) -> Result<Self, BadFlag> {
        let mut options = Self::default();
        for flag in given.iter().flat_map(|text| text.split(',')) {
            options.add(fs_type, flag).map_err(|why| BadFlag {
                flag: flag.chars().take(80).collect(),
                fs_type,
                why,
            })?;
        }
        Ok(options)
    }

    /// Whether the user asked for a read-only mount.
    pub fn read_only(&self) -> bool {
        self.flags.contains(MsFlags::MS_RDONLY)
    }

    fn add(&mut self, fs_type: FsType, flag: &str) -> Result<(), &'static str> {
        let set = match flag {
            "defaults" | "rw" | "atime" | "diratime" | "exec" | "async" | "nostrictatime" => MsFlags::empty(),
            "ro" => MsFlags::MS_RDONLY,
            "noexec" => MsFlags::MS_NOEXEC,
            "nosuid" => MsFlags::MS_NOSUID,
            "nodev" => MsFlags::MS_NODEV,
            "noatime" => MsFlags::MS_NOATIME,
            "nodiratime" => MsFlags::MS_NODIRATIME,
            "relatime" => MsFlags::MS_RELATIME,
            "strictatime" => MsFlags::MS_STRICTATIME,
            "lazytime" => MsFlags::MS_LAZYTIME,
            "sync" => MsFlags::MS_SYNCHRONOUS,
            "dirsync" => MsFlags::MS_DIRSYNC,
            "suid" | "dev" => return Err("volumes are always mounted nosuid and nodev; remove it"),
            _ => return self.add_data(fs_type, flag),
        };
        self.flags |= set;
        Ok(())
    }

    fn add_data(&mut self, fs_type: FsType, flag: &str) -> Result<(), &'static str> {
        let known = match fs_type {
            FsType::Ext4 => EXT4,
            FsType::Xfs => XFS,
            FsType::Btrfs => BTRFS,
            FsType::F2fs => F2FS,
        };
        let name = flag.split_inclusive('=').next().unwrap_or_default();
        if !known.contains(&name) {
            return Err("it is not on the list in docs/csi.md; remove it");
        }
        let value = &flag[name.len()..];
        if name.ends_with('=') && value.is_empty() {
            return Err("it needs a value");
        }
        if !value.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.:+-".contains(&b)) {
            return Err("its value may hold only letters, digits and _ . : + -");
        }
        if flag == "errors=panic" {
            return Err("one broken volume must not stop the node; use errors=remount-ro");
        }
        if !self.data.is_empty() {
            self.data.push(',');
        }
        self.data.push_str(flag);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(fs_type: FsType, flags: &[&str]) -> Result<Options, BadFlag> {
        Options::parse(fs_type, &flags.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn usual_options_become_flags_and_data() {
        let options = parse(FsType::Ext4, &["noatime,ro", "commit=30", "defaults", "errors=remount-ro"]).unwrap();
        assert_eq!(options.flags, MsFlags::MS_NOATIME | MsFlags::MS_RDONLY);
        assert_eq!(options.data, "commit=30,errors=remount-ro");
        assert!(options.read_only());
        assert_eq!(parse(FsType::Xfs, &[]).unwrap(), Options::default());
        assert_eq!(parse(FsType::Btrfs, &["compress=zstd:3"]).unwrap().data, "compress=zstd:3");
    }

    #[test]
    fn options_that_reach_beyond_the_volume_are_refused_by_name() {
        for (fs_type, flag) in [
            (FsType::Ext4, "loop"),
            (FsType::Ext4, "loop=/dev/loop0"),
            (FsType::Ext4, "offset=4096"),
            (FsType::Ext4, "sizelimit=1"),
            (FsType::Ext4, "bind"),
            (FsType::Ext4, "remount"),
            (FsType::Ext4, "errors=panic"),
            (FsType::Ext4, "journal_dev=0x101"),
            (FsType::Ext4, "journal_path=/dev/sda"),
            (FsType::Xfs, "logdev=/dev/sda"),
            (FsType::Xfs, "rtdev=/dev/sda"),
            (FsType::Btrfs, "device=/dev/sda"),
            (FsType::Btrfs, "subvol=x"),
            (FsType::Btrfs, "subvolid=256"),
            (FsType::Ext4, "suid"),
            (FsType::Ext4, "dev"),
            (FsType::Ext4, "commit="),
            (FsType::Ext4, "commit=1\n2"),
            (FsType::Ext4, "data=../x"),
            (FsType::Ext4, "data"),
            (FsType::Ext4, ""),
            (FsType::Ext4, "compress=zstd"),
        ] {
            let refused = parse(fs_type, &["noatime", flag]).unwrap_err();
            assert_eq!(refused.flag, flag);
            assert!(refused.to_string().contains(&format!("{flag:?}")), "{refused}");
        }
    }
}
