//! The agent without Kubernetes: what the configuration file says, served on a CSI socket to any orchestrator.

use std::sync::Arc;

use bedplate_blockdev::Host;
use bedplate_blockdev::scratch::remove_stale_scratch;
use bedplate_core::chain::chain;
use bedplate_core::class::MediaDemand;
use bedplate_core::disk::DeviceNumber;
use bedplate_core::ids::NodeName;
use bedplate_core::media::Media;
use bedplate_provisioner::config::PoolConfig;
use bedplate_provisioner::csi::Offer;
use bedplate_provisioner::surroundings::Surroundings;

use crate::config::Config;
use crate::discover::{Disk, Opened, Settings, discover};
use crate::serving::{Open, ServingError};
use crate::surroundings::carries;

/// Serve until `shutdown` resolves. `ready` is called once both sockets answer.
///
/// # Errors
/// See [`ServingError`].
pub async fn run(
    config: Config,
    node: NodeName,
    host: Arc<dyn Host>,
    surroundings: Arc<dyn Surroundings>,
    shutdown: impl Future<Output = ()>,
    ready: impl FnOnce(),
) -> Result<(), ServingError> {
    let look = |pools: &mut Vec<PoolConfig>| look_at_pools(pools);
    let open = Open::new(&config, &node, host, surroundings, Offer::Everything, look).await?;
    ready();
    open.serve(shutdown, std::future::pending()).await
}

/// Remove what a killed probe left in a pool. Not needed to serve, so a failure ends nothing.
pub(crate) fn tidy(pool: &PoolConfig) {
    match remove_stale_scratch(&pool.directory) {
        Ok(stale) if stale.removed.is_empty() => {}
        Ok(stale) => {
            tracing::info!(pool = %pool.name, removed = ?stale.removed, "removed what a killed probe left");
        }
        Err(error) => tracing::debug!(pool = %pool.name, error = %chain(&error), "no look for left-over probes"),
    }
}

/// The disk among `disks` that a directory's filesystem stands on.
pub(crate) fn beneath<'a>(disks: &'a [Disk], directory: &std::path::Path) -> Option<&'a Disk> {
    let stat = nix::sys::stat::stat(directory).ok()?;
    let major = u32::try_from(nix::sys::stat::major(stat.st_dev)).ok()?;
    let minor = u32::try_from(nix::sys::stat::minor(stat.st_dev)).ok()?;
    disks.iter().find(|disk| carries(disk, DeviceNumber { major, minor }))
}

/// A medium as classes ask for it.
pub(crate) const fn demanded(media: Media) -> Option<MediaDemand> {
    match media {
        Media::Nvme => Some(MediaDemand::Nvme),
        Media::Ssd => Some(MediaDemand::Ssd),
        Media::Hdd => Some(MediaDemand::Hdd),
        Media::Unknown => None,
    }
}

/// Before the pools are opened: tidy them, and find out their medium where the operator does not say.
fn look_at_pools(pools: &mut [PoolConfig]) {
    pools.iter().for_each(tidy);
    if pools.iter().all(|pool| pool.media.is_some()) {
        return;
    }
    let report = match discover(&Settings::default(), &Opened) {
        Ok(report) => report,
        Err(error) => {
            tracing::warn!(error = %chain(&error), "media of pools are unknown, classes that ask for one do not fit");
            return;
        }
    };
    for pool in pools.iter_mut().filter(|pool| pool.media.is_none()) {
        pool.media = beneath(&report.disks, &pool.directory).and_then(|disk| demanded(disk.classification.media));
        let medium = pool.media.map_or("unknown", MediaDemand::name);
        tracing::info!(pool = %pool.name, medium, "medium of the pool's disk, by discovery");
    }
}
