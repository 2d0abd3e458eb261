//! What earlier calls said about volumes that are in use now: only to tell a repeated call from a contradicting one.
//! Lost with the process, after which a contradiction that the mount table does not show goes unnoticed.

use crate::csi::request::{Access, Capability, Sharing};
use bedplate_core::ids::VolumeId;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// One use of a volume.
#[derive(Debug, Default)]
struct Use {
    staged: Option<Access>,
    published: HashMap<PathBuf, Capability>,
}

/// All volumes in use.
#[derive(Debug, Default)]
pub struct Memory {
    uses: Mutex<HashMap<VolumeId, Use>>,
    /// Held while the scratch folder is used: there is one.
    pub scratch: Mutex<()>,
}

impl Memory {
    fn uses(&self) -> MutexGuard<'_, HashMap<VolumeId, Use>> {
        self.uses.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How the volume was staged, if that is remembered.
    pub fn staged(&self, id: &VolumeId) -> Option<Access> {
        self.uses().get(id).and_then(|used| used.staged.clone())
    }

    /// How the volume was published at `target`, if that is remembered.
    pub fn published(&self, id: &VolumeId, target: &Path) -> Option<Capability> {
        self.uses().get(id).and_then(|used| used.published.get(target).cloned())
    }

    /// Whether any remembered publication of the volume tolerates no other.
    pub fn is_exclusive(&self, id: &VolumeId, places: &[PathBuf]) -> bool {
        let uses = self.uses();
        let remembered = |place| uses.get(id).and_then(|used| used.published.get(place));
        places.iter().filter_map(remembered).any(|capability| capability.sharing != Sharing::Many)
    }

    /// Remembers a successful stage.
    pub fn keep_staged(&self, id: &VolumeId, access: &Access) {
        self.uses().entry(id.clone()).or_default().staged = Some(access.clone());
    }

    /// Remembers a successful publication.
    pub fn keep_published(&self, id: &VolumeId, target: &Path, capability: Capability) {
        self.uses().entry(id.clone()).or_default().published.insert(target.to_owned(), capability);
    }

    /// Forgets a publication.
    pub fn drop_published(&self, id: &VolumeId, target: &Path) {
        if let Some(used) = self.uses().get_mut(id) {
            used.published.remove(target);
        }
    }

    /// Forgets the volume.
    pub fn drop_volume(&self, id: &VolumeId) {
        self.uses().remove(id);
    }
}
