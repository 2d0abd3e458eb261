//! The judge: looks at the raw medium and the files, never asks the engine whether it did well.

use std::sync::Arc;

use bedplate_blockdev::Host;
use bedplate_blockdev::fake::FakeHost;
use bedplate_core::journal::decode;
use bedplate_core::ledger::Event;
use bedplate_core::receipt::verify_chain;
use bedplate_core::volume::Change;
use bedplate_core::wipe::is_zero;
use bedplate_provisioner::receipts;
use bedplate_provisioner::store::JOURNAL;

use super::client::{Client, SECRET, Want};
use super::world::{BLOCK, MEDIUM, SIZE, World, open, pool, state};

/// At any moment: no block that is free, or that another file holds, carries a marker of the deleted volume's tenant,
/// nor can it after a power cut.
pub fn nothing_leaked(host: &FakeHost, client: &Client) -> Result<(), String> {
    let living = client.living.as_ref().map(|l| l.file.as_str());
    for offset in host.may_hold(SECRET) {
        match host.owner_of(offset) {
            None => return Err(format!("LEAK: a marker lies in free space at byte {offset}")),
            Some(owner) if Some(owner.as_str()) == living => {
                return Err(format!("LEAK: a marker lies in the living volume at byte {offset}"));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

/// After everything: freed, proven, accounted for.
pub fn all_is_well(host: &FakeHost, world: &Arc<World>, client: &Client) -> Result<(), String> {
    let id = client.id.as_ref().ok_or("no volume was ever acknowledged")?;
    if client.want != Want::Done {
        return Err(format!("it did not converge: still at {:?}", client.want));
    }
    if let Some(offset) = host.may_hold(SECRET).first() {
        return Err(format!("LEAK: freed, and a marker still lies at byte {offset}"));
    }
    space_adds_up(host, client)?;
    let engine = open(host, world, client.method).map_err(|e| format!("the engine does not open again: {e}"))?;
    let view = engine.volume(id).ok_or("the freed volume is forgotten")?;
    if view.phase != "Freed" {
        return Err(format!("the volume is {} after it was Freed: {}", view.phase, view.detail));
    }
    let pools = engine.pools();
    let living = u64::from(client.living.is_some()) * SIZE;
    let view = pools.first().ok_or("no pool")?;
    if view.absent.is_some() || view.allocated != living || view.withheld != 0 || !view.found.is_empty() {
        return Err(format!("the pool does not add up: {view:?}"));
    }
    let room = MEDIUM * BLOCK as u64 - living;
    if view.free != room / SIZE * SIZE {
        return Err(format!("{} bytes are offered, {room} are there", view.free));
    }
    proof(host, client, &engine)?;
    once_formatted(host, client)
}

/// Files, blocks and loop devices are those of the living volume and nothing else.
fn space_adds_up(host: &FakeHost, client: &Client) -> Result<(), String> {
    let names: Vec<String> = host.names(pool()).into_iter().filter(|n| !n.starts_with('.')).collect();
    let expected: Vec<String> = client.living.iter().map(|l| l.file.clone()).collect();
    if names != expected {
        return Err(format!("LEAKED SPACE: files {names:?}, expected {expected:?}"));
    }
    let bytes = expected.len() as u64 * SIZE;
    if host.allocated() != bytes {
        return Err(format!("LEAKED SPACE: {} bytes are allocated, files hold {bytes}", host.allocated()));
    }
    let loops = host.loops();
    let stale: Vec<_> = loops.iter().filter(|(n, _)| Some(*n) != client.living.as_ref().map(|l| l.device)).collect();
    if stale.is_empty() { Ok(()) } else { Err(format!("LEAKED LOOP DEVICES: {stale:?}")) }
}

/// Exactly one receipt, in an unbroken chain; Verified before Freed, each once; the receipt's ranges are zero.
fn proof(host: &FakeHost, client: &Client, engine: &bedplate_provisioner::engine::Engine) -> Result<(), String> {
    let id = client.id.as_ref().ok_or("no volume")?;
    let dir = host.open_dir(state()).map_err(|e| e.to_string())?;
    let receipts = receipts::read(host, &dir).map_err(|e| e.to_string())?;
    verify_chain(engine.ledger_id(), &receipts).map_err(|e| e.to_string())?;
    let ours: Vec<_> = receipts.iter().filter(|r| &r.volume == id).collect();
    let [receipt] = ours.as_slice() else {
        return Err(format!("{} receipts for one wipe", ours.len()));
    };
    if !receipt.level.satisfies(client.demand) {
        return Err(format!("the receipt states {}, the class demands {}", receipt.level, client.demand));
    }
    let medium = host.medium();
    for extent in &receipt.ranges.extents {
        let at = usize::try_from(extent.physical).map_err(|e| e.to_string())?;
        let length = usize::try_from(extent.length).map_err(|e| e.to_string())?;
        if !is_zero(&medium[at..at + length]) {
            return Err(format!("LEAK: the receipt's range at byte {at} is not zero"));
        }
    }
    let bytes = host.content(state(), JOURNAL).ok_or("no journal")?;
    let journal = decode(&bytes, &[]).map_err(|e| e.to_string())?;
    let changes: Vec<&Change> = journal
        .records
        .iter()
        .filter_map(|r| match &r.event {
            Event::Volume { id: of, change } if of == id => Some(change),
            _ => None,
        })
        .collect();
    let at = |is: fn(&Change) -> bool| -> Vec<usize> { (0..changes.len()).filter(|i| is(changes[*i])).collect() };
    let verified = at(|c| matches!(c, Change::Verified { .. }));
    let freed = at(|c| matches!(c, Change::Freed));
    let released = at(|c| matches!(c, Change::Released { .. }));
    match (released.as_slice(), verified.as_slice(), freed.as_slice()) {
        ([released], [verified], [freed]) if released < verified && verified < freed => Ok(()),
        _ => Err(format!("the journal says Released {released:?}, Verified {verified:?}, Freed {freed:?}")),
    }
}

/// `mkfs` ran only with one UUID a volume, never over anything foreign, never after the tenant had the volume.
fn once_formatted(host: &FakeHost, client: &Client) -> Result<(), String> {
    let runs = host.mkfs_runs();
    if runs.len() > client.mkfs_runs {
        return Err("mkfs ran after a tenant had the volume".to_owned());
    }
    for run in &runs {
        if runs.iter().any(|other| other.inode == run.inode && other.uuid != run.uuid) {
            return Err(format!("inode {} was formatted with two UUIDs", run.inode));
        }
        let partial =
            run.found.as_deref().is_none_or(|f| f == "unrecognised data" || f.contains(&run.uuid.to_string()));
        if !partial {
            return Err(format!("mkfs ran over {:?}", run.found));
        }
    }
    Ok(())
}
