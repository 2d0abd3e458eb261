//! The orchestrator and the tenants: they remember what was acknowledged and ask again for what was not, as a kubelet
//! does after every restart of the agent.

use std::collections::BTreeMap;
use std::sync::Arc;

use bedplate_blockdev::User;
use bedplate_blockdev::fake::FakeHost;
use bedplate_core::chain::chain;
use bedplate_core::class::Class;
use bedplate_core::filesystem::FsType;
use bedplate_core::ids::VolumeId;
use bedplate_core::volume::{Mode, ReleaseKind, StuckReason};
use bedplate_core::wipe::{Level, VerifyDemand, ZeroMethod};
use bedplate_provisioner::engine::{CreateVolume, Driven, Engine, Stop};

use super::world::{BLOCK, BLOCKS, SIZE, World, open, pool};

/// What a tenant of the deleted volume writes; nowhere else.
pub const SECRET: &[u8; 24] = b"\xD7\xE1SECRET of the tenant\xF0\x9A";
/// What the tenant of the living volume writes.
pub const LIVING: &[u8; 24] = b"\xC3\x8ELIVING tenant's data\xB5\x81";
/// Blocks of either volume that their tenant flushed; it wrote the rest and did not flush.
pub const FLUSHED: u64 = BLOCKS - 2;

/// What the orchestrator is about to ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Want {
    Create,
    Stage,
    Write,
    Unstage,
    Release,
    Wipe,
    Done,
}

/// The volume that is never released.
#[derive(Clone, Debug)]
pub struct Living {
    pub id: VolumeId,
    pub file: String,
    pub device: u32,
    pub boot: String,
}

/// Everything that somebody outside the node remembers.
#[derive(Clone, Debug)]
pub struct Client {
    pub want: Want,
    pub id: Option<VolumeId>,
    pub device: u32,
    pub living: Option<Living>,
    /// The level that the class demands.
    pub demand: Level,
    pub method: ZeroMethod,
    /// `mkfs` runs on the machine when the tenant began to write.
    pub mkfs_runs: usize,
}

/// Why a life of the engine ended before everything was done.
#[derive(Debug)]
pub enum Trouble {
    /// A call failed, which may be so.
    Failed(String),
    /// A wipe needs a person.
    Stuck(StuckReason),
    /// A promise was broken.
    Broken(String),
}

fn failed(what: &str, error: &dyn std::error::Error) -> Trouble {
    Trouble::Failed(format!("{what}: {}", chain(error)))
}

/// What a tenant writes into a block: its marker all over, and the block's number.
fn content(token: &[u8; 24], block: u64) -> Vec<u8> {
    let mut out = token.repeat(BLOCK / token.len() + 1);
    out.truncate(BLOCK);
    out[..8].copy_from_slice(&(block + 1).to_le_bytes());
    out
}

/// Write every block through the loop device; flush all but the last two.
fn fill(host: &FakeHost, device: u32, token: &[u8; 24]) {
    for block in 0..BLOCKS {
        if block == FLUSHED {
            host.tenant_flush(device).unwrap();
        }
        host.tenant_write(device, block * BLOCK as u64, &content(token, block)).unwrap();
    }
}

/// Whether every flushed block is as it was written, and every other one that or what was there before.
fn intact(bytes: &[u8], token: &[u8; 24]) -> Result<(), Trouble> {
    for (block, found) in (0..).zip(bytes.chunks(BLOCK)) {
        let whole = found == content(token, block);
        if !whole && block < FLUSHED {
            return Err(Trouble::Broken(format!(
                "flushed block {block} of {} changed",
                String::from_utf8_lossy(token)
            )));
        }
    }
    Ok(())
}

fn tenant() -> User {
    User::Mount { pid: 4242, target: "/var/lib/kubelet/pods/p/mount".to_owned() }
}

impl Client {
    pub fn new(demand: Level, method: ZeroMethod) -> Self {
        Self { want: Want::Create, id: None, device: 0, living: None, demand, method, mkfs_runs: 0 }
    }

    /// What the orchestrator asks for.
    pub fn order(&self, name: &str) -> CreateVolume {
        CreateVolume {
            name: name.to_owned(),
            required: SIZE,
            limit: 0,
            mode: Mode::Filesystem(FsType::Ext4),
            class: Class { wipe: Some(self.demand), verify: VerifyDemand::Full, ..Class::default() },
            parameters: BTreeMap::new(),
            origin: None,
        }
    }

    /// Make the living volume and let its tenant write.
    pub fn settle_in(&mut self, engine: &Engine, host: &FakeHost, world: &World) {
        use bedplate_provisioner::surroundings::Surroundings;
        let id = engine.create(&self.order("living")).unwrap().id;
        let device = engine.stage(&id, "/staging/living").unwrap().number;
        host.hold(device, tenant());
        fill(host, device, LIVING);
        let file = host.names(pool()).into_iter().find(|n| !n.starts_with('.')).unwrap();
        self.living = Some(Living { id, file, device, boot: world.boot() });
    }

    /// One life of the engine: open it, serve the living volume, and bring the other one as far as it goes.
    pub fn live(&mut self, host: &FakeHost, world: &Arc<World>) -> Result<(), Trouble> {
        let engine = open(host, world, self.method).map_err(|e| failed("open", &e))?;
        self.serve(&engine, host, world)?;
        self.go_on(&engine, host)
    }

    /// The living volume is there and its data too; after a reboot it is staged again first.
    fn serve(&mut self, engine: &Engine, host: &FakeHost, world: &World) -> Result<(), Trouble> {
        use bedplate_provisioner::surroundings::Surroundings;
        let Some(living) = &mut self.living else { return Ok(()) };
        if living.boot != world.boot() {
            let device = engine.stage(&living.id, "/staging/living").map_err(|e| failed("stage living", &e))?;
            living.device = device.number;
            living.boot = world.boot();
            host.hold(living.device, tenant());
        }
        let bytes = host.tenant_read(living.device, 0, usize::try_from(SIZE).unwrap());
        let bytes = bytes.map_err(|e| Trouble::Broken(format!("the living volume is not served: {e}")))?;
        intact(&bytes, LIVING)
    }

    /// Ask for the next thing until all is done.
    pub fn go_on(&mut self, engine: &Engine, host: &FakeHost) -> Result<(), Trouble> {
        if self.want == Want::Write {
            // Whatever was mounted is gone with the restart, or is mounted again by asking again.
            self.want = Want::Stage;
        }
        while self.want != Want::Done {
            self.want = self.ask(engine, host)?;
        }
        Ok(())
    }

    fn ask(&mut self, engine: &Engine, host: &FakeHost) -> Result<Want, Trouble> {
        let Some(id) = self.id.clone() else {
            let made = engine.create(&self.order("victim")).map_err(|e| failed("create", &e))?;
            self.id = Some(made.id);
            return Ok(Want::Stage);
        };
        if engine.volume(&id).is_none() {
            return Err(Trouble::Broken(format!("volume {id} was acknowledged and is unknown now")));
        }
        match self.want {
            Want::Create | Want::Stage => {
                let device = engine.stage(&id, "/staging/victim").map_err(|e| failed("stage", &e))?;
                self.device = device.number;
                Ok(Want::Write)
            }
            Want::Write => {
                self.mkfs_runs = host.mkfs_runs().len();
                host.hold(self.device, tenant());
                fill(host, self.device, SECRET);
                Ok(Want::Unstage)
            }
            Want::Unstage => {
                self.unreleased(host)?;
                host.release(self.device);
                engine.unstage(&id).map_err(|e| failed("unstage", &e))?;
                Ok(Want::Release)
            }
            Want::Release => {
                self.unreleased(host)?;
                engine.release(&id, ReleaseKind::Deleted, "a test").map_err(|e| failed("release", &e))?;
                Ok(Want::Wipe)
            }
            Want::Wipe => match engine.drive(&id, &Stop::default(), &|| ()) {
                Ok(Driven::Freed) => Ok(Want::Done),
                Ok(Driven::Stuck { reason }) => Err(Trouble::Stuck(reason)),
                Ok(Driven::Nothing) => Err(Trouble::Broken("a released volume has nothing to wipe".to_owned())),
                Ok(other) => Err(Trouble::Failed(format!("wipe: {other:?}"))),
                Err(error) => Err(failed("wipe", &error)),
            },
            Want::Done => Ok(Want::Done),
        }
    }

    /// Until its release is recorded, the other volume keeps what its tenant flushed.
    fn unreleased(&self, host: &FakeHost) -> Result<(), Trouble> {
        match self.victim(host).and_then(|file| host.file_bytes(pool(), &file)) {
            Some(bytes) => intact(&bytes, SECRET),
            None => Err(Trouble::Broken("the volume's file is gone before it was released".to_owned())),
        }
    }

    /// The backing file of the volume that gets deleted, as long as there is one.
    pub fn victim(&self, host: &FakeHost) -> Option<String> {
        let living = self.living.as_ref().map(|l| l.file.as_str());
        host.names(pool()).into_iter().find(|name| !name.starts_with('.') && Some(name.as_str()) != living)
    }

    /// A person orders another try.
    pub fn retry(&self, host: &FakeHost, world: &Arc<World>) -> Result<(), Trouble> {
        let engine = open(host, world, self.method).map_err(|e| failed("open", &e))?;
        let Some(id) = &self.id else { return Ok(()) };
        engine.retry(id, "a test").map_err(|e| failed("retry", &e))
    }
}
