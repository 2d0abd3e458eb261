//! One story: a start, a blow at a step, what the blow left, and the way back to a settled state.

use std::sync::Arc;

use bedplate_blockdev::fake::{FakeHost, Outcome, Script, Step};
use bedplate_core::volume::StuckReason;
use bedplate_core::wipe::{Level, ZeroMethod};

use super::client::{Client, Trouble};
use super::oracle;
use super::world::{World, machine, open};

/// Restarts without a fault after which everything must be settled.
const ROUNDS: usize = 3;

/// A moment that a story can start from, any number of times.
pub struct Moment {
    pub host: FakeHost,
    pub world: Arc<World>,
    pub client: Client,
}

impl Moment {
    /// A machine where nothing was ever done.
    pub fn blank() -> Self {
        Self { host: machine(), world: Arc::default(), client: Client::new(Level::Clear, ZeroMethod::DirectWrites) }
    }

    /// A machine with a pool and a living volume.
    pub fn inhabited(demand: Level, method: ZeroMethod) -> Self {
        let mut moment = Self { client: Client::new(demand, method), ..Self::blank() };
        let engine = open(&moment.host, &moment.world, method).unwrap();
        moment.client.settle_in(&engine, &moment.host, &moment.world);
        moment
    }

    /// The same moment as seen by a new process; the old one is gone.
    pub fn fork(&self) -> Self {
        Self { host: self.host.after_kill(), world: self.world.fork(), client: self.client.clone() }
    }

    /// Every call of a life in which nothing goes wrong.
    pub fn calls(&self) -> Vec<Step> {
        let mut story = self.fork();
        story.client.live(&story.host, &story.world).unwrap();
        story.host.trace()
    }

    /// The moment at which `script` stops the story.
    pub fn struck(&self, script: Script) -> Self {
        let mut story = self.fork();
        story.host.set_script(script);
        // The script makes it fail; what it left is judged after the restart.
        if let Err(Trouble::Broken(what)) = story.client.live(&story.host, &story.world) {
            assert!(story.host.is_dead(), "{what}");
        }
        story
    }

    /// The machine switched on again after a power cut that left `outcome`.
    pub fn rebooted(&self, outcome: &Outcome) -> Self {
        let world = self.world.fork();
        world.reboot();
        Self { host: self.host.after_power_loss(outcome), world, client: self.client.clone() }
    }

    /// Restart the engine until all is done; nothing goes wrong any more.
    pub fn converge(&mut self) -> Result<(), String> {
        let mut troubles = Vec::new();
        for _ in 0..ROUNDS {
            oracle::nothing_leaked(&self.host, &self.client)?;
            match self.client.live(&self.host, &self.world) {
                Ok(()) => return Ok(()),
                Err(Trouble::Broken(what)) => return Err(what),
                Err(Trouble::Stuck(reason)) => return Err(format!("stuck, though the disk is well: {reason}")),
                Err(Trouble::Failed(what)) => troubles.push(what),
            }
            self.host = self.host.after_kill();
        }
        Err(format!("it does not converge: {troubles:?}"))
    }

    /// Settled, and still so after one more power cut.
    pub fn judge(&mut self) -> Result<(), String> {
        self.converge()?;
        oracle::all_is_well(&self.host, &self.world, &self.client)?;
        let mut after = self.rebooted(&Outcome::nothing());
        after.converge().map_err(|e| format!("after a later power cut: {e}"))?;
        oracle::all_is_well(&after.host, &after.world, &after.client)
            .map_err(|e| format!("after a later power cut: {e}"))
    }

    /// Live on in a process that met an error, as an agent does: ask again, restart where the ledger closed itself,
    /// and let a person retry what got stuck.
    pub fn muddle_through(&mut self) -> Result<Option<StuckReason>, String> {
        let mut stuck = None;
        for _ in 0..ROUNDS {
            match self.client.live(&self.host, &self.world) {
                Ok(()) => break,
                Err(Trouble::Broken(what)) => return Err(what),
                Err(Trouble::Failed(_)) => {}
                Err(Trouble::Stuck(reason)) => {
                    self.client.retry(&self.host, &self.world).map_err(|e| format!("retry: {e:?}"))?;
                    stuck = Some(reason);
                }
            }
        }
        Ok(stuck)
    }
}
