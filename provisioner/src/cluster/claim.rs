//! Whether a claim can be met at all, in words (DESIGN §3): what is not supported is refused by name, never half-done.
//!
//! Pure. Input is the claim and its class as the view has them; where a claim waits or is left alone, nothing is said.

use std::collections::BTreeMap;

use bedplate_api::placement::{Unsupported, bytes_of, is_populated};
use bedplate_core::class::{BadParameter, Class as Parameters};
use bedplate_core::filesystem::FsType;
use bedplate_core::placement::ClaimDemand;
use bedplate_core::volume::Mode;
use bedplate_core::wipe::Level;
use k8s_openapi::api::core::v1::PersistentVolumeClaimSpec;

use crate::cluster::objects::{Claim, Class};
use bedplate_api::names;

/// What a claim asks for, as far as a decision reads it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// The request as written.
    pub request: String,
    /// Access modes.
    pub modes: Vec<String>,
    /// Whether it wants a device instead of a filesystem.
    pub block: bool,
    /// The claim's labels, for receipts.
    pub labels: BTreeMap<String, String>,
    /// What of it is not supported.
    pub unsupported: Option<Unsupported>,
    /// Whether a populator fills it.
    pub populated: bool,
}

impl Wish {
    /// Read a claim's spec.
    #[must_use]
    pub fn of(spec: &PersistentVolumeClaimSpec, labels: Option<BTreeMap<String, String>>) -> Self {
        let request = spec.resources.as_ref().and_then(|resources| resources.requests.as_ref());
        Self {
            request: request.and_then(|request| request.get("storage")).map(|q| q.0.clone()).unwrap_or_default(),
            modes: spec.access_modes.clone().unwrap_or_default(),
            block: spec.volume_mode.as_deref() == Some("Block"),
            labels: labels.unwrap_or_default(),
            unsupported: Unsupported::of(spec),
            populated: is_populated(spec),
        }
    }
}

/// What a claim is worth doing about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// Nothing: it is another's, is bound, goes, or waits for somebody else.
    Leave,
    /// It cannot be met; say so.
    Refuse(Refusal),
    /// It could not be met, and no node was chosen for it yet: say so once a pod wants it. Until then it may still be bound to
    /// a volume made by hand.
    Doubt(Refusal),
    /// A volume like this, on the selected node.
    Make(Box<Order>),
}

/// Why a claim is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Of the Event.
    pub reason: &'static str,
    /// Names the field and the way out.
    pub message: String,
}

/// A volume to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// What it asks of a node's pools.
    pub demand: ClaimDemand,
    /// The level its wipe must reach.
    pub wipe: Option<Level>,
}

/// Judge a claim by itself and its class.
#[must_use]
pub fn judge(claim: &Claim, class: Option<&Class>) -> Judgement {
    let Some(wish) = &claim.wish else { return Judgement::Leave };
    if claim.volume_name.is_some() || claim.deleting {
        return Judgement::Leave;
    }
    if !claim.ours {
        return unplaceable(claim, wish, class);
    }
    let refuse = |reason, message| Judgement::Refuse(Refusal { reason, message });
    let Some(class) = class else {
        if claim.selected_node.is_none() {
            return Judgement::Leave;
        }
        let message = format!(
            "spec.storageClassName: the StorageClass {:?} does not exist; make it, or delete the claim and name another",
            claim.class_name
        );
        return refuse(names::REASON_CLASS, message);
    };
    if !class.ours {
        return Judgement::Leave;
    }
    if !class.waits {
        let message = format!(
            "StorageClass {:?}, field volumeBindingMode: Immediate would choose a node before the pod's other needs are \
             known; make a class with volumeBindingMode: WaitForFirstConsumer and name it in a new claim",
            class.meta.name
        );
        return refuse(names::REASON_IMMEDIATE, message);
    }
    if claim.selected_node.is_none() {
        return unplaceable(claim, wish, Some(class));
    }
    if wish.populated {
        return Judgement::Leave;
    }
    match order(&claim.meta.name, wish, class) {
        Ok(order) => Judgement::Make(Box::new(order)),
        Err(refusal) => Judgement::Refuse(refusal),
    }
}

/// What is wrong with a claim that no node was chosen for. Most likely none will be: the extender, and where the class cannot be
/// read the capacities, let its pod go nowhere, so nobody else would ever tell.
fn unplaceable(claim: &Claim, wish: &Wish, class: Option<&Class>) -> Judgement {
    let class = class.filter(|class| class.ours && class.waits);
    let refusal = class.and_then(|class| order(&claim.meta.name, wish, class).err());
    refusal.map_or(Judgement::Leave, Judgement::Doubt)
}

fn order(name: &str, wish: &Wish, class: &Class) -> Result<Order, Refusal> {
    let refuse = |reason, message: String| Err(Refusal { reason, message });
    match &wish.unsupported {
        None => {}
        Some(Unsupported::Snapshot(name)) => {
            let message = format!(
                "spec.dataSource: snapshots are not supported yet (VolumeSnapshot {name:?}); leave it out and restore the \
                 data into the volume"
            );
            return refuse(names::REASON_SOURCE, message);
        }
        Some(Unsupported::Clone(name)) => {
            let message = format!(
                "spec.dataSource: clones are not supported yet (PersistentVolumeClaim {name:?}); leave it out and copy \
                 the data"
            );
            return refuse(names::REASON_SOURCE, message);
        }
        Some(Unsupported::Selector) => {
            let message = "spec.selector: volumes are made for the claim, there is nothing to select from; leave it out, \
                           or name an existing volume in spec.volumeName";
            return refuse(names::REASON_SELECTOR, message.to_owned());
        }
        Some(Unsupported::AttributesClass(name)) => {
            let message = format!("spec.volumeAttributesClassName: {name:?} is not supported yet; leave it out");
            return refuse(names::REASON_ATTRIBUTES, message);
        }
        Some(Unsupported::AccessMode(mode)) => {
            let message = format!(
                "spec.accessModes: {mode} is not possible, the bytes are on one node's disk; use ReadWriteOnce or \
                 ReadWriteOncePod"
            );
            return refuse(names::REASON_ACCESS_MODE, message);
        }
    }
    let mode = mode(wish, class)?;
    let parameters = parameters(class, mode)?;
    if let Mode::Filesystem(fs) = mode {
        crate::mount::Options::parse(fs, &class.mount_options).map_err(|error| Refusal {
            reason: names::REASON_PARAMETER,
            message: format!("StorageClass {:?}, field mountOptions: {error}", class.meta.name),
        })?;
    }
    let demand = bytes_of(&wish.request)
        .map_err(|error| error.to_string())
        .and_then(|required| ClaimDemand::new(name, required, &parameters, mode).map_err(|error| error.to_string()));
    let demand = demand.map_err(|why| Refusal {
        reason: names::REASON_SIZE,
        message: format!("spec.resources.requests.storage: {why}"),
    })?;
    Ok(Order { demand, wipe: parameters.wipe })
}

fn mode(wish: &Wish, class: &Class) -> Result<Mode, Refusal> {
    let refuse = |message: String| Refusal { reason: names::REASON_PARAMETER, message };
    if wish.block {
        if class.parameters.contains_key(names::PARAMETER_MKFS_OPTIONS) {
            return Err(refuse(format!(
                "StorageClass {:?}, parameter {:?}: the claim has volumeMode Block, which is not formatted; use a class \
                 without it",
                class.meta.name,
                names::PARAMETER_MKFS_OPTIONS
            )));
        }
        return Ok(Mode::Block);
    }
    let fs = match class.parameters.get(names::PARAMETER_FSTYPE).filter(|name| !name.is_empty()) {
        None => FsType::Ext4,
        Some(name) => name.parse().map_err(|error| {
            refuse(format!("StorageClass {:?}, parameter {:?}: {error}", class.meta.name, names::PARAMETER_FSTYPE))
        })?,
    };
    Ok(Mode::Filesystem(fs))
}

/// A class's parameters, read; options for `mkfs` are checked against the filesystem that will be made.
///
/// # Errors
/// At the first one that cannot be met, by class and name.
pub fn parameters(class: &Class, mode: Mode) -> Result<Parameters, Refusal> {
    let mut given = class.parameters.clone();
    if let (Mode::Filesystem(fs), None) = (mode, given.get(names::PARAMETER_FSTYPE)) {
        given.insert(names::PARAMETER_FSTYPE.to_owned(), fs.name().to_owned());
    }
    Parameters::parse(&given).map_err(|error: BadParameter| Refusal {
        reason: names::REASON_PARAMETER,
        message: format!(
            "StorageClass {:?}: {error}; parameters of a class cannot be edited: delete and re-create it",
            class.meta.name
        ),
    })
}

#[cfg(test)]
mod tests;
