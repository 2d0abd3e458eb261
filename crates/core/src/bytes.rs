//! Byte counts and their arithmetic.
//!
//! Sizes are promises to users, so nothing here wraps: every operation that could overflow returns an `Option`.
//! Text form follows Kubernetes quantities (`10Gi`, `500M`, plain bytes).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// One binary kilobyte, in bytes.
pub const KIB: u64 = 1 << 10;
/// One binary megabyte, in bytes.
pub const MIB: u64 = 1 << 20;
/// One binary gigabyte, in bytes.
pub const GIB: u64 = 1 << 30;

/// A number of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes(pub u64);

impl Bytes {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// The plain number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// Sum, or `None` where it does not fit.
    #[must_use]
    pub const fn checked_add(self, other: Self) -> Option<Self> {
        match self.0.checked_add(other.0) {
            Some(sum) => Some(Self(sum)),
            None => None,
        }
    }

    /// Difference, never below zero.
    #[must_use]
    pub const fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// The next multiple of `align` bytes at or above this, or `None` where it does not fit or `align` is zero.
    #[must_use]
    pub const fn align_up(self, align: u64) -> Option<Self> {
        match self.0.checked_next_multiple_of(align) {
            Some(n) => Some(Self(n)),
            None => None,
        }
    }

    /// The last multiple of `align` bytes at or below this (`align` zero gives zero).
    #[must_use]
    pub const fn align_down(self, align: u64) -> Self {
        match self.0.checked_rem(align) {
            Some(rest) => Self(self.0 - rest),
            None => Self(0),
        }
    }
}

/// Why a text is not a size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not a size: write a whole number of bytes, or one with Ki, Mi, Gi, Ti, Pi, k, M, G, T or P, such as 10Gi"
)]
pub struct NotASize {
    text: String,
}

const UNITS: [(&str, u64); 10] = [
    ("Ki", 1 << 10),
    ("Mi", 1 << 20),
    ("Gi", 1 << 30),
    ("Ti", 1 << 40),
    ("Pi", 1 << 50),
    ("k", 1_000),
    ("M", 1_000_000),
    ("G", 1_000_000_000),
    ("T", 1_000_000_000_000),
    ("P", 1_000_000_000_000_000),
];

impl FromStr for Bytes {
    type Err = NotASize;

    fn from_str(text: &str) -> Result<Self, NotASize> {
        let refuse = || NotASize { text: text.to_owned() };
        let (digits, factor) =
            UNITS.iter().find_map(|(unit, factor)| Some((text.strip_suffix(unit)?, *factor))).unwrap_or((text, 1));
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(refuse());
        }
        let number: u64 = digits.parse().map_err(|_| refuse())?;
        number.checked_mul(factor).map(Self).ok_or_else(refuse)
    }
}

impl fmt::Display for Bytes {
    /// Exact where a binary unit divides it, otherwise rounded to one decimal for people.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some((unit, factor)) = UNITS[..5].iter().rev().find(|(_, factor)| self.0 >= *factor) else {
            return write!(f, "{} B", self.0);
        };
        if self.0.is_multiple_of(*factor) {
            write!(f, "{} {unit}B", self.0 / factor)
        } else {
            write!(f, "{:.1} {unit}B", self.0 as f64 / *factor as f64)
        }
    }
}

impl Serialize for Bytes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(self.0)
    }
}

impl<'de> Deserialize<'de> for Bytes {
    /// A plain number of bytes or a quantity text.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            Number(u64),
            Text(String),
        }
        match Form::deserialize(deserializer)? {
            Form::Number(n) => Ok(Self(n)),
            Form::Text(text) => text.parse().map_err(serde::de::Error::custom),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn quantities_are_read_as_kubernetes_writes_them() {
        assert_eq!("10Gi".parse(), Ok(Bytes(10 * GIB)));
        assert_eq!("500M".parse(), Ok(Bytes(500_000_000)));
        assert_eq!("4096".parse(), Ok(Bytes(4096)));
    }

    #[test]
    fn what_is_no_size_is_refused_with_an_example() {
        for text in ["", "-1", "1.5Gi", "Gi", "10 Gi", "0x10", "99999999999Pi", "+5"] {
            let error = text.parse::<Bytes>().unwrap_err().to_string();
            assert!(error.contains("such as 10Gi"), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn alignment_never_wraps_and_brackets_the_value(n in any::<u64>(), shift in 0u32..40) {
            let align = 1u64 << shift;
            let down = Bytes(n).align_down(align);
            prop_assert!(down.0 <= n && down.0.is_multiple_of(align));
            if let Some(up) = Bytes(n).align_up(align) {
                prop_assert!(up.0 >= n && up.0.is_multiple_of(align) && up.0 - down.0 <= align);
            } else {
                prop_assert!(n > u64::MAX - align);
            }
        }

        #[test]
        fn a_parsed_quantity_is_number_times_unit(n in 0u64..10_000, unit in 0usize..10) {
            let (name, factor) = UNITS[unit];
            prop_assert_eq!(format!("{n}{name}").parse::<Bytes>(), Ok(Bytes(n * factor)));
        }
    }
}
