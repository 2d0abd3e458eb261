//! What every story of this suite begins and ends with: a pod that writes all the time into a volume with markers, and
//! the questions whether all of that is still there and whether it still goes the ordinary way.

use anyhow::{Result, ensure};
use bedplate_api::local_volume::Phase;
use bedplate_tests::cluster::Site;
use bedplate_tests::cluster::objects::Work;
use bedplate_tests::cluster::sight::Bound;
use bedplate_tests::cluster::wait::{SOON, until_one};

/// A pod that writes into its claim of the same name.
#[derive(Debug)]
pub struct Tenant {
    /// Pod and claim.
    pub name: String,
    /// Its marker.
    pub mark: u32,
    /// What stands behind its claim.
    pub volume: Bound,
    written: u64,
}

impl Tenant {
    /// Moves in: `mib` MiB.
    pub async fn of(site: &Site, name: &str, mark: u32, mib: u64) -> Result<Self> {
        Self::on(site, name, mark, mib, None).await
    }

    /// The same on a node of the story's choice.
    pub async fn on(site: &Site, name: &str, mark: u32, mib: u64, node: Option<&str>) -> Result<Self> {
        site.claim(name, mib).await?;
        site.pod(&Work { name, claims: vec![(name, mark)], node, busy: true }).await?;
        let volume = site.settled(name, name, mark).await?;
        let written = site.ticks(name).await?;
        Ok(Self { name: name.to_owned(), mark, volume, written })
    }

    /// The pod still writes.
    pub async fn writes(&mut self, site: &Site) -> Result<()> {
        self.written = site.ticks_on(&self.name, self.written).await?;
        Ok(())
    }

    /// Not one live byte is lost: the pod still writes, its markers are on the disk, the ledger has the volume Ready, and
    /// no receipt says otherwise.
    pub async fn lives(&mut self, site: &Site) -> Result<()> {
        self.writes(site).await?;
        site.recorded(&self.volume, Phase::Ready).await?;
        site.disk_holds(&self.volume.node, &[self.mark]).await?;
        self.was_not_wiped(site).await
    }

    /// No receipt says that it was wiped, neither in the cluster nor in its node's own log.
    pub async fn was_not_wiped(&self, site: &Site) -> Result<()> {
        let told = site.receipts(&self.volume.claim_uid).await?;
        let logged = site.receipts_in_log(&self.volume)?;
        ensure!(told == 0 && logged == 0, "{self:?} was wiped: {told} receipts told, {logged} logged");
        Ok(())
    }

    /// Its pod is gone, or cannot run; its bytes are where they were, and their space is nobody's to have.
    pub async fn bytes_stay(&self, site: &Site, free: i64) -> Result<()> {
        site.disk_holds(&self.volume.node, &[self.mark]).await?;
        self.was_not_wiped(site).await?;
        offers_no_more_than(site, &self.volume.node, free).await
    }

    /// It still lives when its pod is replaced by another: stage and publish work as before, and find everything.
    pub async fn lives_on(&mut self, site: &Site) -> Result<()> {
        self.lives(site).await?;
        site.delete_pod(&self.name).await?;
        site.pod(&Work { name: &self.name, claims: vec![(&self.name, self.mark)], busy: true, ..Work::default() })
            .await?;
        let node = site.running(&self.name).await?;
        ensure!(node == self.volume.node, "{self:?} runs on {node}");
        site.found(&self.name, self.mark).await?;
        // The file of the former pod is not asked for: it was another pod's uid.
        self.written = site.ticks(&self.name).await?;
        Ok(())
    }

    /// It moves out the ordinary way, and is wiped with a receipt; before that its markers are there, after it none.
    pub async fn moves_out(self, site: &Site) -> Result<()> {
        site.disk_holds(&self.volume.node, &[self.mark]).await?;
        site.delete_pod(&self.name).await?;
        site.delete_claim(&self.name).await?;
        site.wiped(&self.volume).await?;
        site.disk_lacks(&self.volume.node, &[self.mark]).await
    }
}

/// Not one dirty byte is offered: a node still offers no more than `free` bytes.
pub async fn offers_no_more_than(site: &Site, node: &str, free: i64) -> Result<()> {
    let room = site.room(node).await?;
    ensure!(room.free <= free && room.largest_volume <= free, "{free} bytes of {node} were free, now {room:?}");
    Ok(())
}

/// Waits until a LocalVolume of that name is there (again) and not on its way out.
pub async fn local_is_back(site: &Site, volume: &Bound) -> Result<()> {
    until_one::<bedplate_api::LocalVolume, _>(site.all(), &volume.local, "there again, Ready", SOON, |local| {
        let local = local?;
        (local.metadata.deletion_timestamp.is_none() && local.phase() == Some(Phase::Ready)).then_some(())
    })
    .await
}
