//! Restarts: what a new process finds after the old one was killed, or after the power was gone.

use std::collections::BTreeSet;

use super::FakeHost;
use super::disk::Ino;
use super::effect::{self, Breadth, Effect, Fate, Outcome};
use super::machine::Machine;
use super::script::Script;

impl FakeHost {
    /// How many effects wait for a sync now.
    pub fn waiting(&self) -> usize {
        self.machine().waiting.len()
    }

    /// What waits for a sync now, for messages.
    pub fn waiting_effects(&self) -> Vec<String> {
        self.machine().waiting.iter().map(|w| format!("{:?}", w.effect).chars().take(160).collect()).collect()
    }

    /// The states that a power cut now may leave, as many of each family as `breadth` asks for, each once.
    pub fn outcomes(&self, breadth: Breadth) -> Vec<Outcome> {
        let machine = self.machine();
        let effects: Vec<&Effect> = machine.waiting.iter().map(|w| &w.effect).collect();
        effect::outcomes(&effects, breadth)
    }

    /// The machine after a power cut now that left `outcome`, switched on again: no loop devices, no locks, no users,
    /// a new process. The hardware's faults stay, the script does not.
    #[must_use]
    pub fn after_power_loss(&self, outcome: &Outcome) -> Self {
        let mut machine = self.machine().clone();
        // A file can not grow past bytes that never arrived.
        let mut broken: BTreeSet<Ino> = BTreeSet::new();
        for (i, w) in std::mem::take(&mut machine.waiting).into_iter().enumerate() {
            let mut fate = outcome.fate(i);
            if matches!(w.effect, Effect::Append { .. }) && broken.contains(&w.effect.ino()) {
                fate = Fate::Lost;
            }
            if matches!(w.effect, Effect::Append { .. } | Effect::Replace { .. }) && fate != Fate::Kept {
                broken.insert(w.effect.ino());
            }
            machine.durable.apply(&w.effect, fate);
        }
        let named: BTreeSet<Ino> = machine.durable.names.values().copied().collect();
        machine.durable.inodes.retain(|ino, _| named.contains(ino));
        machine.live = machine.durable.clone();
        machine.loops.clear();
        machine.next_loop += 3;
        machine.locks.clear();
        machine.handles.clear();
        machine.file_holders.clear();
        machine.powered = true;
        machine.alive.clear();
        Self::born_into(machine)
    }

    /// The machine after this process was killed: everything it did stays, also what waits for a sync, and so do loop
    /// devices and other people's holds; its locks and open files are gone.
    #[must_use]
    pub fn after_kill(&self) -> Self {
        let mut machine = self.machine().clone();
        let process = self.process;
        machine.alive.remove(&process);
        machine.locks.retain(|_, holder| *holder != process);
        machine.handles.retain(|_, (holder, _)| *holder != process);
        machine.collect();
        Self::born_into(machine)
    }

    /// Another process on the same machine, at the same time.
    #[must_use]
    pub fn second_process(&self) -> Self {
        let mut machine = self.machine();
        let process = machine.spawn();
        drop(machine);
        Self { shared: self.shared.clone(), process }
    }

    fn born_into(mut machine: Machine) -> Self {
        machine.script = Script::new();
        machine.steps = 0;
        machine.trace.clear();
        let process = machine.spawn();
        Self { shared: super::share(machine), process }
    }
}

impl Machine {
    pub(super) fn spawn(&mut self) -> u32 {
        let process = self.next_process;
        self.next_process += 1;
        self.alive.insert(process);
        process
    }
}
