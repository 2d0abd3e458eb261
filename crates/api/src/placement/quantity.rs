//! Kubernetes quantities as bytes, rounded up: `10Gi`, `1.5Gi`, `1e9`, `500M`, `1500m`.

/// Why a text is not a size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a size: write one such as 10Gi")]
pub struct NotAQuantity(String);

/// The bytes of a quantity, rounded up; never negative.
///
/// # Errors
/// Where it is none by Kubernetes' grammar, is negative, or is more than can be counted.
pub fn bytes_of(text: &str) -> Result<u64, NotAQuantity> {
    parse(text).ok_or_else(|| NotAQuantity(text.chars().take(64).collect()))
}

/// Bytes as Kubernetes writes them: with the largest binary suffix that leaves a whole number.
#[must_use]
pub fn quantity_of(bytes: u64) -> String {
    const SUFFIXES: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    // Zero has none, as for every Kubernetes quantity.
    let power = if bytes == 0 { 0 } else { (bytes.trailing_zeros() / 10) as usize };
    let suffix = SUFFIXES.get(power).copied().unwrap_or_default();
    format!("{}{suffix}", bytes >> (10 * power))
}

fn parse(text: &str) -> Option<u64> {
    let number = text.strip_prefix('+').unwrap_or(text);
    let end = number.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(number.len());
    let (number, suffix) = number.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.len() + fraction.len() == 0 || whole.len() > 30 || fraction.len() > 18 || fraction.contains('.') {
        return None;
    }
    // value = digits × factor ÷ divisor, all exact.
    let digits: u128 = format!("{whole}{fraction}").parse().ok()?;
    let mut divisor = 10u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let factor: u128 = match suffix {
        "" => 1,
        "Ki" => 1 << 10,
        "Mi" => 1 << 20,
        "Gi" => 1 << 30,
        "Ti" => 1 << 40,
        "Pi" => 1 << 50,
        "Ei" => 1 << 60,
        "k" => 1_000,
        "M" => 1_000_000,
        "G" => 1_000_000_000,
        "T" => 1_000_000_000_000,
        "P" => 1_000_000_000_000_000,
        "E" => 1_000_000_000_000_000_000,
        "m" | "u" | "n" => {
            let step = match suffix {
                "m" => 1_000,
                "u" => 1_000_000,
                _ => 1_000_000_000,
            };
            divisor = divisor.checked_mul(step)?;
            1
        }
        exponent => {
            let exponent = exponent.strip_prefix(['e', 'E'])?;
            let power = exponent.strip_prefix('-').unwrap_or(exponent.strip_prefix('+').unwrap_or(exponent));
            let power = 10u128.checked_pow(power.parse().ok()?)?;
            if exponent.starts_with('-') {
                divisor = divisor.checked_mul(power)?;
                1
            } else {
                power
            }
        }
    };
    u64::try_from(digits.checked_mul(factor)?.div_ceil(divisor)).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{bytes_of, quantity_of};

    #[test]
    fn bytes_are_written_with_the_largest_suffix_that_is_exact() {
        for (bytes, text) in [
            (0, "0"),
            (1, "1"),
            (1023, "1023"),
            (1024, "1Ki"),
            (64 << 20, "64Mi"),
            (3 << 29, "1536Mi"),
            (1 << 60, "1Ei"),
        ] {
            assert_eq!(quantity_of(bytes), text);
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(bytes: u64) {
            prop_assert_eq!(bytes_of(&quantity_of(bytes)), Ok(bytes));
        }
    }

    #[test]
    fn quantities_are_read_by_kubernetes_grammar_and_rounded_up() {
        for (text, bytes) in [
            ("0", 0),
            ("10Gi", 10 << 30),
            ("1.5Gi", 3 << 29),
            ("0.5", 1),
            (".5Ki", 512),
            ("5.", 5),
            ("1e9", 1_000_000_000),
            ("12E2", 1_200),
            ("1E", 1_000_000_000_000_000_000),
            ("15Ei", 15 << 60),
            ("1500m", 2),
            ("1000e-3", 1),
            ("+7k", 7_000),
        ] {
            assert_eq!(bytes_of(text), Ok(bytes), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused() {
        for text in
            ["", "Gi", "-1", "1.2.3", "1 Gi", "1gi", "16Ei", "99999999999999999999999999999999", "1e", "1e99", "é"]
        {
            assert!(bytes_of(text).is_err(), "{text}");
        }
    }
}
