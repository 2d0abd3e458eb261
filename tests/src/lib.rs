//! What the suites that cross crates share: filesystems, engines and agents of their own, CSI over a socket, the search
//! of the raw disk, and how a test says that it is skipped.

pub mod agent;
pub mod cluster;
pub mod cluster_node;
pub mod container;
pub mod control_plane;
pub mod csi;
pub mod engine;
pub mod loopfs;
pub mod manifests;
pub mod meddle;
pub mod oracle;
pub mod orchestrator;
pub mod programs;
pub mod scripted;
pub mod skip;

/// One test for each host filesystem out of functions that take its name: `ext4::name`, `xfs::name`, `btrfs::name`.
/// Without root each says that it is skipped.
#[macro_export]
macro_rules! on_each_host {
    ($($name:ident),+ $(,)?) => {
        $crate::on_each_host!(@ ext4 $($name)+);
        $crate::on_each_host!(@ xfs $($name)+);
        $crate::on_each_host!(@ btrfs $($name)+);
    };
    (@ $fs:ident $($name:ident)+) => {
        mod $fs {
            $(
                #[test]
                fn $name() {
                    if $crate::skip::need_root(concat!(stringify!($fs), ".", stringify!($name))) {
                        super::$name(stringify!($fs));
                    }
                }
            )+
        }
    };
}
