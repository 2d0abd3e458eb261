//! Names and ids, each valid by construction.
//!
//! Ids end up in paths, log lines and receipts; none may hold a separator, a control character or a path step.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Why a text is not a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{what} {text:?} is not valid: use 1 to {max} characters out of a-z, A-Z, 0-9, '-', '_' and '.', starting with a letter or digit"
)]
pub struct InvalidName {
    what: &'static str,
    text: String,
    max: usize,
}

fn check(what: &'static str, text: &str, max: usize) -> Result<(), InvalidName> {
    let good = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let starts_well = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    if starts_well && text.len() <= max && text.bytes().all(good) && !text.contains("..") {
        Ok(())
    } else {
        Err(InvalidName { what, text: text.chars().take(200).collect(), max })
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $what:literal, $max:literal) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(String);

        impl $type {
            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = InvalidName;

            fn from_str(text: &str) -> Result<Self, InvalidName> {
                check($what, text, $max)?;
                Ok(Self(text.to_owned()))
            }
        }

        impl TryFrom<String> for $type {
            type Error = InvalidName;

            fn try_from(text: String) -> Result<Self, InvalidName> {
                text.parse()
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> Self {
                name.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(
    /// A volume's id: what CSI calls `volume_id`. Never used again for another volume.
    VolumeId, "volume id", 128
);
impl VolumeId {
    /// An id that nobody else draws.
    #[must_use]
    pub fn from_random(bits: [u8; 16]) -> Self {
        Self(format!("vol-{}", hex::encode(bits)))
    }
}

name!(
    /// A pool's name.
    PoolName, "pool name", 63
);
name!(
    /// A node's name; also its topology value, hence at most 63 characters.
    NodeName, "node name", 63
);

/// A ledger's id. A new one means: whatever is found beside it belongs to somebody unknown and is withheld.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LedgerId(pub Uuid);

impl fmt::Display for LedgerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn path_steps_and_control_characters_are_refused() {
        for text in ["", "..", "a/../b", "a\nb", "a\0b", ".hidden", "-x", "a b", "ü", "a..b", &"x".repeat(129)] {
            assert!(text.parse::<VolumeId>().is_err(), "{text:?}");
        }
        assert!("pvc-0f3e_1.x".parse::<VolumeId>().is_ok());
    }

    proptest! {
        #[test]
        fn a_valid_id_is_a_single_path_component(text in ".{0,140}") {
            if let Ok(id) = text.parse::<VolumeId>() {
                let path = std::path::Path::new("/pool").join(id.as_str());
                prop_assert_eq!(path.components().count(), 3);
            }
        }
    }
}
