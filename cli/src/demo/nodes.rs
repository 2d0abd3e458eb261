//! The demo's four nodes: this machine as it is, and three more whose disks are files of the demo's own.
//!
//! Decides what each disk is called: what discovery said of this machine's, and for the rest an operator's word in the
//! DiskPool, so that there are three of flash and one that turns.

use std::path::PathBuf;

use bedplate_agent::discover::Report;
use bedplate_agent::surroundings::carries;
use bedplate_core::bytes::{Bytes, MIB};
use bedplate_core::disk::DeviceNumber;
use bedplate_core::media::Media;

use super::ground::Ground;
use super::own_disk::xfs_or_ext4;
use super::workshop::{OVERHEAD, Workshop};
use crate::client::Agent;

/// Nodes of the cluster.
pub const NODES: u64 = 4;

/// A node with a disk and a pool on it.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its name in the cluster.
    pub name: String,
    /// The name of its pool.
    pub pool: String,
    /// Where the pool lies.
    pub directory: PathBuf,
    /// Its own folder, by a path that is short enough for sockets.
    pub folder: PathBuf,
    /// What the pool lies on.
    pub ground: Ground,
    /// For a disk of the demo's own: whether reads and writes pass the host's page cache by.
    pub direct: Option<bool>,
    /// What its disk is called.
    pub media: Media,
    /// On whose word.
    pub word: String,
}

impl Node {
    /// Its kubelet's root folder.
    pub fn kubelet(&self) -> PathBuf {
        self.folder.join("kubelet")
    }

    /// Where its agent answers people.
    pub fn agent(&self) -> Agent {
        Agent { socket: self.folder.join("admin.sock") }
    }
}

/// How large things are, by the size of a volume.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// A volume that is made.
    pub volume: Bytes,
    /// What a pool may hold: a volume, and most of a second.
    pub pool: Bytes,
    /// A volume of the pod that fits nowhere: beside the first there is room for one such, not for two.
    pub misfit: Bytes,
}

impl Sizes {
    /// By a volume's size.
    pub fn of(volume: Bytes) -> Self {
        let volume = volume.get().next_multiple_of(MIB);
        let misfit = (volume / 2).next_multiple_of(MIB);
        Self { volume: Bytes(volume), misfit: Bytes(misfit), pool: Bytes(volume + misfit + misfit / 2) }
    }

    /// What all disks need together.
    pub fn need(self) -> Bytes {
        Bytes(NODES * (self.pool.get() + OVERHEAD))
    }
}

/// What this machine's disk is, as far as discovery can tell, and on what that rests.
pub fn found(report: &Report, ground: &Ground) -> (Media, String) {
    let number = ground
        .device
        .split_once(':')
        .and_then(|(major, minor)| Some(DeviceNumber { major: major.parse().ok()?, minor: minor.parse().ok()? }));
    let disk = number.and_then(|number| report.disks.iter().find(|disk| carries(disk, number)));
    match disk.map(|disk| (&disk.facts.name, &disk.classification)) {
        Some((name, known)) if known.media != Media::Unknown => {
            let (confidence, source) = (known.confidence, known.source);
            (known.media, format!("{source} of {name}, {confidence} confidence"))
        }
        Some((name, _)) => (Media::Ssd, format!("operator: discovery of {name} cannot tell")),
        None => (Media::Ssd, "operator: no disk is seen beneath".to_owned()),
    }
}

/// What the other three are called: with this machine's, three that take claims for flash, and one that turns.
pub fn others(machine: Media) -> [Media; 3] {
    match machine {
        Media::Hdd => [Media::Ssd; 3],
        Media::Nvme | Media::Ssd | Media::Unknown => [Media::Ssd, Media::Ssd, Media::Hdd],
    }
}

/// Make the folders, disks and pools of all nodes.
pub fn furnish(workshop: &Workshop, sizes: Sizes, (media, word): (Media, String)) -> anyhow::Result<Vec<Node>> {
    let machine =
        if workshop.why_not_here().is_some() { Some(workshop.disk("node-1", "ext4", sizes.pool)?) } else { None };
    let folder = workshop.node("node-1")?;
    let mut nodes = vec![Node {
        name: "this-machine".to_owned(),
        pool: format!("{media}-1"),
        directory: machine.as_ref().map_or(folder, |disk| disk.mount.clone()).join("pool"),
        folder: workshop.short_path().join("node-1"),
        direct: machine.as_ref().map(|disk| disk.direct),
        ground: machine.map_or_else(|| workshop.ground().clone(), |disk| disk.ground),
        media,
        word,
    }];
    for (media, number) in others(media).into_iter().zip(2..) {
        let name = format!("node-{number}");
        let disk = workshop.disk(&name, if number == 3 { xfs_or_ext4() } else { "ext4" }, sizes.pool)?;
        nodes.push(Node {
            pool: format!("{media}-{number}"),
            directory: disk.mount.join("pool"),
            folder: workshop.short_path().join(&name),
            direct: Some(disk.direct),
            ground: disk.ground,
            media,
            word: "operator, in the DiskPool".to_owned(),
            name,
        });
    }
    for node in &nodes {
        std::fs::create_dir(&node.directory)?;
    }
    Ok(nodes)
}

/// What a search on the nodes' disks reaches in the end.
pub fn reach(nodes: &[Node], beneath: &Ground) -> String {
    let own: Vec<&str> = nodes.iter().filter(|node| node.direct.is_some()).map(|node| node.name.as_str()).collect();
    let reaches = beneath.keeps_places() && nodes.iter().all(|node| node.direct != Some(false));
    let (fs, source) = (&beneath.fs_type, &beneath.source);
    let rest = if reaches {
        format!("passes every read and write on to its file's fixed blocks on {source}")
    } else {
        format!("is what is searched: where {fs} on {source} keeps the bytes beneath is not known")
    };
    format!("The disk of each of {} is a loop device on a file there. It {rest}.", own.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_always_three_disks_for_flash_and_one_that_turns() {
        for machine in [Media::Nvme, Media::Ssd, Media::Hdd] {
            let mut all = others(machine).to_vec();
            all.push(machine);
            assert_eq!(all.iter().filter(|media| **media == Media::Hdd).count(), 1, "{machine}");
        }
    }

    #[test]
    fn beside_a_volume_a_pool_has_room_for_one_of_the_misfits_and_not_for_two() {
        for mib in [300, 320, 321, 512, 1023] {
            let Sizes { volume, pool, misfit } = Sizes::of(Bytes(mib * MIB - 7));
            let left = pool.get() - volume.get();
            assert!(misfit.get() <= left && left < 2 * misfit.get(), "{mib}");
            assert!(volume.get() >= mib * MIB - 7 && misfit.get() < volume.get());
        }
    }
}
