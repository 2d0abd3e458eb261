//! A StorageClass's parameters, read strictly: an unknown, contradictory or not yet supported one is refused by name.

mod mkfs;

use std::collections::BTreeMap;

use crate::filesystem::FsType;
use crate::ids::PoolName;
use crate::names;
use crate::volume::Claim;
use crate::wipe::{Level, VerifyDemand};

/// The medium a class asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MediaDemand {
    /// Flash, NVMe included.
    Ssd,
    /// Flash behind NVMe.
    Nvme,
    /// Turning platters.
    Hdd,
}

impl MediaDemand {
    /// The word in classes.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ssd => "ssd",
            Self::Nvme => "nvme",
            Self::Hdd => "hdd",
        }
    }
}

/// What a class asks of a volume.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Class {
    /// In this pool and no other.
    pub pool: Option<PoolName>,
    /// On this medium; `ssd` accepts NVMe.
    pub media: Option<MediaDemand>,
    /// At least this level; a pool that cannot give it refuses the volume before it is made.
    pub wipe: Option<Level>,
    /// How the wipe is verified.
    pub verify: VerifyDemand,
    /// The filesystem, where the class and not the capability names it.
    pub fs_type: Option<FsType>,
    /// Extra `mkfs` arguments, checked word by word.
    pub mkfs_options: Vec<String>,
    /// Who asks, from the metadata that provisioners add.
    pub claim: Claim,
}

/// Why parameters are refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each field is named in the message")]
pub enum BadParameter {
    #[error("parameter {name:?} is unknown; known ones are {known}", known = names::PARAMETERS.join(", "))]
    Unknown { name: String },
    #[error("parameter {name:?} is not supported yet; remove it from the class")]
    NotYet { name: String },
    #[error("parameter {name:?} has the value {value:?}: {why}")]
    Value { name: String, value: String, why: String },
}

impl Class {
    /// Read a parameter map.
    ///
    /// # Errors
    /// At the first parameter, in name order, that is unknown, not supported or has a value that cannot be met.
    pub fn parse(parameters: &BTreeMap<String, String>) -> Result<Self, BadParameter> {
        let mut class = Self::default();
        let mut options = None;
        for (name, value) in parameters {
            let bad =
                |why: String| BadParameter::Value { name: name.clone(), value: value.chars().take(200).collect(), why };
            match name.as_str() {
                names::PARAMETER_POOL => class.pool = Some(value.parse().map_err(|e| bad(format!("{e}")))?),
                names::PARAMETER_MEDIA => {
                    class.media = Some(match value.as_str() {
                        "ssd" => MediaDemand::Ssd,
                        "nvme" => MediaDemand::Nvme,
                        "hdd" => MediaDemand::Hdd,
                        _ => return Err(bad("use ssd, nvme or hdd".into())),
                    });
                }
                names::PARAMETER_WIPE => {
                    class.wipe = Some(match value.as_str() {
                        "clear" => Level::Clear,
                        "crypto-erase" => Level::CryptoErase,
                        "isolation" => Level::Isolation,
                        _ => return Err(bad("use clear, crypto-erase or isolation".into())),
                    });
                }
                names::PARAMETER_VERIFY => {
                    class.verify = match value.as_str() {
                        "auto" => VerifyDemand::Auto,
                        "full" => VerifyDemand::Full,
                        "sample" => VerifyDemand::Sample,
                        _ => return Err(bad("use auto, full or sample".into())),
                    };
                }
                names::PARAMETER_FSTYPE => class.fs_type = Some(value.parse().map_err(|e| bad(format!("{e}")))?),
                names::PARAMETER_MKFS_OPTIONS => options = Some(value),
                names::PARAMETER_PROFILE | names::PARAMETER_SPREAD | names::PARAMETER_EXCLUSIVE_DISK => {
                    return Err(BadParameter::NotYet { name: name.clone() });
                }
                names::METADATA_CLAIM_NAME => class.claim.name.clone_from(value),
                names::METADATA_CLAIM_NAMESPACE => class.claim.namespace.clone_from(value),
                names::METADATA_CLAIM_UID => class.claim.uid.clone_from(value),
                names::METADATA_VOLUME_NAME => {}
                _ => return Err(BadParameter::Unknown { name: name.chars().take(200).collect() }),
            }
        }
        if let Some(value) = options {
            let fs = class.fs_type.unwrap_or(FsType::Ext4);
            class.mkfs_options = mkfs::checked(fs, value).map_err(|why| BadParameter::Value {
                name: names::PARAMETER_MKFS_OPTIONS.to_owned(),
                value: value.chars().take(200).collect(),
                why,
            })?;
        }
        Ok(class)
    }
}

#[cfg(test)]
mod tests;
