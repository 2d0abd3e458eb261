//! Which filesystems this node can make and mount: the kernel has it, built in or as a module, and `mkfs` is installed.

use bedplate_core::filesystem::FsType;
use bedplate_core::volume::Mode;
use std::path::{Path, PathBuf};

/// Where tools are looked for, as the engine does.
const TOOL_DIRS: [&str; 4] = ["/usr/sbin", "/sbin", "/usr/bin", "/bin"];

/// Where to look.
#[derive(Debug, Clone)]
pub struct Filesystems {
    registered: PathBuf,
    modules: PathBuf,
    tools: Vec<PathBuf>,
}

impl Default for Filesystems {
    fn default() -> Self {
        let release =
            nix::sys::utsname::uname().map(|name| name.release().to_string_lossy().into_owned()).unwrap_or_default();
        Self {
            registered: "/proc/filesystems".into(),
            modules: Path::new("/lib/modules").join(release),
            tools: TOOL_DIRS.map(PathBuf::from).to_vec(),
        }
    }
}

impl Filesystems {
    /// Whether a volume of that mode can be made and used here; else why not, by name. Looked up at every call: modules
    /// are loaded and tools installed while we run.
    pub fn offer(&self, mode: Mode) -> Result<(), String> {
        let Mode::Filesystem(fs_type) = mode else { return Ok(()) };
        if !self.kernel_has(fs_type) {
            return Err(format!("this node's kernel has no {fs_type}; use another fs_type"));
        }
        let tool = format!("mkfs.{fs_type}");
        if !self.tools.iter().any(|dir| dir.join(&tool).exists()) {
            return Err(format!("this node has no {tool}; install it, or use another fs_type"));
        }
        Ok(())
    }

    fn kernel_has(&self, fs_type: FsType) -> bool {
        let registered = std::fs::read_to_string(&self.registered).unwrap_or_default();
        if registered.lines().any(|line| line.split_whitespace().next_back() == Some(fs_type.name())) {
            return true;
        }
        let file = format!("/{fs_type}.ko");
        ["modules.dep", "modules.builtin"].iter().any(|list| {
            let text = std::fs::read_to_string(self.modules.join(list)).unwrap_or_default();
            text.lines().any(|line| {
                let module = line.split(':').next().unwrap_or_default();
                module.find(&file).is_some_and(|at| !module[at + file.len()..].contains('/'))
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filesystem_needs_kernel_and_tool_and_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("filesystems"), "nodev\tproc\n\text4\n\txfs\n").unwrap();
        std::fs::write(at("modules.dep"), "kernel/fs/btrfs/btrfs.ko.xz: kernel/lib/xor.ko\n").unwrap();
        for tool in ["mkfs.ext4", "mkfs.btrfs", "mkfs.f2fs"] {
            std::fs::write(at(tool), "").unwrap();
        }
        let node =
            Filesystems { registered: at("filesystems"), modules: dir.path().into(), tools: vec![dir.path().into()] };
        assert_eq!(node.offer(Mode::Block), Ok(()));
        assert_eq!(node.offer(Mode::Filesystem(FsType::Ext4)), Ok(()));
        assert_eq!(node.offer(Mode::Filesystem(FsType::Btrfs)), Ok(()), "a module that is not loaded yet counts");
        assert!(node.offer(Mode::Filesystem(FsType::F2fs)).unwrap_err().contains("kernel has no f2fs"));
        assert!(node.offer(Mode::Filesystem(FsType::Xfs)).unwrap_err().contains("no mkfs.xfs"));
    }
}
