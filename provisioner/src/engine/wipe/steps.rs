//! The steps that touch the medium: canaries, zeroes, read-back, and giving the space back.

use bedplate_blockdev::{Aligned, Device, HostError};
use bedplate_core::ledger::Event;
use bedplate_core::receipt::{RECEIPT_VERSION, ReadBack, Receipt};
use bedplate_core::volume::{Change, StuckReason, Verified, Verifying, Volume, Wiping};
use bedplate_core::wipe::{LevelLoss, Verification, WipePlan, is_zero, level_after_wipe};

use super::{Driven, Engine, Next, Stop, WipeError};
use crate::engine::Stage;
use crate::engine::io_reason;
use crate::pool::Pool;
use crate::store::CommitError;

/// Bytes zeroed between two looks at the stop flag and the throttle.
const PIECE: u64 = 64 << 20;

impl Engine {
    /// Plant the canaries, flush, and read each back from the medium.
    pub(super) fn place_canaries(
        &self,
        volume: &Volume<Wiping>,
        device: &mut dyn Device,
        stop: &Stop,
        between: &dyn Fn(),
    ) -> Result<Next, WipeError> {
        let plan = &volume.state.plan;
        let mut buffer = Aligned::zeroed(plan.geometry.block as usize);
        for chunk in plan.chunks(0) {
            if stop.is_set() {
                return Ok(Next::End(Driven::Stopped));
            }
            for canary in plan.canaries(&chunk) {
                buffer.copy_from_slice(&canary.content);
                if let Err(error) = device.write_at(canary.offset, &buffer) {
                    return Ok(Next::Stuck(io_reason(&error)));
                }
            }
            between();
            self.progress_at(&volume.spec.id, Stage::Canaries, chunk.end, plan.size);
        }
        if let Err(error) = device.flush() {
            return Ok(Next::Stuck(io_reason(&error)));
        }
        for chunk in plan.chunks(0) {
            if stop.is_set() {
                return Ok(Next::End(Driven::Stopped));
            }
            for canary in plan.canaries(&chunk) {
                if let Err(error) = device.read_at(canary.offset, &mut buffer) {
                    return Ok(Next::Stuck(io_reason(&error)));
                }
                if buffer[..] != canary.content[..] {
                    return Ok(Next::Stuck(StuckReason::CanaryNotStored { offset: canary.offset }));
                }
            }
        }
        self.journal(volume, Change::CanariesPlaced)?;
        Ok(Next::On)
    }

    /// Zero chunk by chunk from the checkpoint on; each checkpoint is journalled after its flush.
    pub(super) fn zero(
        &self,
        volume: &Volume<Wiping>,
        device: &mut dyn Device,
        stop: &Stop,
        between: &dyn Fn(),
    ) -> Result<Next, WipeError> {
        let plan = &volume.state.plan;
        if volume.state.offset < plan.size {
            for chunk in plan.chunks(volume.state.offset) {
                let mut at = chunk.start;
                while at < chunk.end {
                    if stop.is_set() {
                        return Ok(Next::End(Driven::Stopped));
                    }
                    between();
                    let length = PIECE.min(chunk.end - at);
                    if let Err(error) = device.zero(at, length, plan.method) {
                        return Ok(Next::Stuck(io_reason(&error)));
                    }
                    at += length;
                    self.progress_at(&volume.spec.id, Stage::Wiping, at, plan.size);
                }
                if let Err(error) = device.flush() {
                    return Ok(Next::Stuck(io_reason(&error)));
                }
                self.journal(volume, Change::Wiped { offset: chunk.end })?;
            }
        }
        self.journal(volume, Change::Flushed)?;
        Ok(Next::On)
    }

    /// Read back, look for canaries, look at the map, and write the receipt.
    pub(super) fn verify(
        &self,
        pool: &Pool,
        volume: &Volume<Verifying>,
        device: &mut dyn Device,
        stop: &Stop,
        between: &dyn Fn(),
    ) -> Result<Next, WipeError> {
        let wiping = &volume.state.wiping;
        let plan = &wiping.plan;
        let read = match self.read_back(volume, device, stop, between) {
            Ok(read) => read,
            Err(end) => return Ok(end),
        };
        let backing = &wiping.released.backing;
        let (file, identity) = (volume.spec.file.as_str(), &backing.identity);
        let after = match self.host.map(&pool.dir, file, identity) {
            Ok(after) => after,
            Err(error) => return Ok(Next::Stuck(io_reason(&error))),
        };
        let mut earlier = wiping.released.losses.clone();
        match self.host.backing(&pool.dir, file) {
            Ok(Some(facts)) if facts.links > 1 => earlier.push(LevelLoss::Linked { links: facts.links }),
            Ok(_) => {}
            Err(error) => return Ok(Next::Stuck(io_reason(&error))),
        }
        let (level, losses) = level_after_wipe(plan.method, &backing.map, &after, plan.size, &earlier);
        if !wiping.released.level_accepted && volume.spec.demand.is_some_and(|demand| !level.satisfies(demand)) {
            return Ok(Next::Stuck(StuckReason::LevelLost { losses }));
        }
        let facts = self.host.pool_facts(&pool.dir).ok();
        let mut disk = self.surroundings.disk(facts.and_then(|f| f.device));
        disk.filesystem_uuid = Some(pool.record.fs_uuid.to_string());
        let ended = self.surroundings.now();
        let commit = |source| WipeError::Commit { id: volume.spec.id.clone(), source };
        let committed = self.store.commit(|ledger| {
            let mut receipt = Receipt {
                version: RECEIPT_VERSION,
                number: ledger.receipts + 1,
                ledger: ledger.id,
                node: ledger.node.clone(),
                volume: volume.spec.id.clone(),
                name: volume.spec.name.clone(),
                claim: volume.spec.claim.clone(),
                class: volume.spec.parameters.clone(),
                release: wiping.released.release.clone(),
                pool: volume.spec.pool.clone(),
                disk: disk.clone(),
                bytes: plan.size,
                ranges: backing.map.clone(),
                method: plan.method,
                passes: 1,
                seed: plan.seed,
                verification: read,
                resumed_at: wiping.resumed_at.clone(),
                level,
                level_losses: losses.clone(),
                started: wiping.started,
                ended,
                agent: self.config.agent_version.clone(),
                previous: ledger.last_receipt.clone(),
                hash: String::new(),
            };
            receipt.hash = receipt.computed_hash().unwrap_or_default();
            // The typed transition refuses a level that the class does not accept.
            let (change, _) = volume.clone().verified(receipt).ok_or(())?;
            Ok::<_, ()>((Event::Volume { id: volume.spec.id.clone(), change }, ()))
        });
        match committed.map_err(commit)? {
            Ok(()) => {
                tracing::info!(volume = %volume.spec.id, level = %level, bytes = plan.size, "wipe verified");
                Ok(Next::On)
            }
            Err(()) => Ok(Next::Stuck(StuckReason::LevelLost { losses })),
        }
    }

    fn read_back(
        &self,
        volume: &Volume<Verifying>,
        device: &mut dyn Device,
        stop: &Stop,
        between: &dyn Fn(),
    ) -> Result<ReadBack, Next> {
        let plan = &volume.state.wiping.plan;
        let ranges = plan.to_verify(&volume.state.wiping.resumed_at);
        let longest = ranges.iter().map(|r| r.end - r.start).max().unwrap_or_default();
        let block = u64::from(plan.geometry.block);
        let mut buffer = Aligned::zeroed(usize::try_from(longest.max(block)).unwrap_or(usize::MAX));
        let total: u64 = ranges.iter().map(|r| r.end - r.start).sum();
        let mut bytes = 0;
        for range in ranges {
            if stop.is_set() {
                return Err(Next::End(Driven::Stopped));
            }
            between();
            check_zero(plan, device, &mut buffer, range.start, range.end - range.start)?;
            bytes += range.end - range.start;
            self.progress_at(&volume.spec.id, Stage::Verifying, bytes, total);
        }
        let mut canaries = 0;
        for chunk in plan.chunks(0) {
            for canary in plan.canaries(&chunk) {
                canaries += 1;
                // A full read has met every canary's place already.
                if plan.verification != Verification::Full {
                    check_zero(plan, device, &mut buffer, canary.offset, block)?;
                    bytes += block;
                }
            }
        }
        Ok(ReadBack { kind: plan.verification, bytes, bound_ppm: plan.verification.bound_ppm(), canaries })
    }

    /// Keep the receipt, remove the file, and only then offer the space again.
    pub(super) fn give_back(
        &self,
        pool: &Pool,
        volume: &Volume<Verified>,
        device: &mut Option<Box<dyn Device>>,
    ) -> Result<(), WipeError> {
        let id = || volume.spec.id.clone();
        self.receipts
            .ensure(&*self.host, self.store.dir(), &volume.state.receipt)
            .map_err(|source| WipeError::Receipts { id: id(), source })?;
        let remove = |source: HostError| WipeError::Remove { id: id(), source };
        self.host.remove_backing(&pool.dir, &volume.spec.file, &volume.state.backing.identity).map_err(remove)?;
        // Blocks go back to the host when the last descriptor is closed, and on btrfs only with the sync after that.
        *device = None;
        self.host.sync_dir(&pool.dir).map_err(remove)?;
        self.change(&volume.spec.id, Change::Freed).map_err(|source| WipeError::Commit { id: id(), source })?;
        tracing::info!(volume = %volume.spec.id, receipt = volume.state.receipt.number, "space given back");
        Ok(())
    }

    fn journal<S>(&self, volume: &Volume<S>, change: Change) -> Result<(), WipeError> {
        let failed = |source: CommitError| WipeError::Commit { id: volume.spec.id.clone(), source };
        self.change(&volume.spec.id, change).map_err(failed)
    }
}

/// Read a range and refuse the first block that is not zero.
fn check_zero(
    plan: &WipePlan,
    device: &mut dyn Device,
    buffer: &mut Aligned,
    offset: u64,
    length: u64,
) -> Result<(), Next> {
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    let Some(buffer) = buffer.get_mut(..length) else {
        let what = format!("a read of {length} bytes does not fit the buffer");
        return Err(Next::Stuck(StuckReason::IoError { what }));
    };
    // So that a read that changes nothing is not taken for zeroes.
    for block in buffer.chunks_mut(plan.geometry.block as usize) {
        block[0] = 0xA5;
    }
    device.read_at(offset, buffer).map_err(|error| Next::Stuck(io_reason(&error)))?;
    if is_zero(buffer) {
        return Ok(());
    }
    let block = plan.geometry.block as usize;
    let (index, content) =
        buffer.chunks(block).enumerate().find(|(_, b)| !is_zero(b)).unwrap_or((0, &buffer[..block.min(length)]));
    let at = offset + (index * block) as u64;
    let canary = plan
        .chunks(at)
        .next()
        .is_some_and(|chunk| plan.canaries(&chunk).iter().any(|c| c.offset == at && c.content == content));
    Err(Next::Stuck(StuckReason::NotZero { offset: at, canary }))
}
