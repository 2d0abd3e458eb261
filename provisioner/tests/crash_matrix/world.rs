//! The world around the engine under test: a fake machine, a clock and a dice that outlive restarts, and the engine's
//! settings in small: volumes of 1 MiB in 64 blocks, wiped in 4 chunks.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bedplate_blockdev::fake::{Config, FakeHost};
use bedplate_core::bytes::{Bytes, KIB};
use bedplate_core::receipt::DiskName;
use bedplate_core::wipe::{Geometry, ZeroMethod};
use bedplate_provisioner::config::{EngineConfig, PoolConfig};
use bedplate_provisioner::engine::{Engine, OpenError};
use bedplate_provisioner::surroundings::Surroundings;
use jiff::Timestamp;

/// Bytes of a block of the fake medium.
pub const BLOCK: usize = 16 << 10;
/// Bytes of a volume.
pub const SIZE: u64 = 1 << 20;
/// Blocks of a volume.
pub const BLOCKS: u64 = SIZE / BLOCK as u64;

/// Blocks of the medium: room for three volumes and a little.
pub const MEDIUM: u64 = 3 * BLOCKS + 4;

/// The state directory.
pub fn state() -> &'static Path {
    Path::new("/state")
}

/// The pool's directory.
pub fn pool() -> &'static Path {
    Path::new("/pool")
}

/// Clock, dice and boot id: none of them ever repeats, whatever crashes.
#[derive(Default)]
pub struct World {
    ticks: AtomicU64,
    boots: AtomicU64,
}

impl World {
    /// The same moment again, for another branch of the story.
    pub fn fork(&self) -> Arc<Self> {
        let copy = |n: &AtomicU64| AtomicU64::new(n.load(Ordering::Relaxed));
        Arc::new(Self { ticks: copy(&self.ticks), boots: copy(&self.boots) })
    }

    /// The machine starts again.
    pub fn reboot(&self) {
        self.boots.fetch_add(1, Ordering::Relaxed);
    }

    fn tick(&self) -> u64 {
        self.ticks.fetch_add(1, Ordering::Relaxed)
    }
}

impl Surroundings for World {
    fn now(&self) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + i64::try_from(self.tick()).unwrap()).unwrap()
    }

    fn random(&self) -> [u8; 32] {
        let mut state = self.tick().wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ 0x5DEE_CE66;
        std::array::from_fn(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state.to_be_bytes()[0]
        })
    }

    fn boot(&self) -> String {
        format!("boot-{}", self.boots.load(Ordering::Relaxed))
    }

    fn disk(&self, _: Option<(u32, u32)>) -> DiskName {
        DiskName { identity: "weak".to_owned(), ..DiskName::default() }
    }
}

/// A blank machine.
pub fn machine() -> FakeHost {
    FakeHost::new(Config { block: BLOCK, blocks: MEDIUM, ..Config::default() })
}

/// The engine's settings.
pub fn config(method: ZeroMethod) -> EngineConfig {
    let mut pool = PoolConfig::new("p".parse().unwrap(), "/pool".into());
    pool.reserve = Bytes(0);
    pool.method = method;
    EngineConfig {
        node: "node-1".parse().unwrap(),
        state_dir: "/state".into(),
        pools: vec![pool],
        geometry: Geometry { chunk: 256 * KIB, block: 16 << 10, canaries: 1 },
        agent_version: "test".to_owned(),
    }
}

/// Start the engine.
pub fn open(host: &FakeHost, world: &Arc<World>, method: ZeroMethod) -> Result<Engine, OpenError> {
    Engine::open(Arc::new(host.clone()), world.clone(), config(method))
}
