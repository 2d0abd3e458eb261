//! How long a caller is willing to wait: the `grpc-timeout` header (gRPC over HTTP/2, "Timeout").

use std::time::Duration;
use tonic::metadata::MetadataMap;

/// Waited at most where the caller names no deadline, so that no thread waits for ever on a wipe of hours.
const LONGEST: Duration = Duration::from_mins(10);

/// How long to work before an answer must be on its way: a little less than the caller waits.
pub fn patience(metadata: &MetadataMap) -> Duration {
    let asked = metadata.get("grpc-timeout").and_then(|value| parse(value.to_str().ok()?));
    let Some(asked) = asked else { return LONGEST };
    let margin = (asked / 10).clamp(Duration::from_millis(20), Duration::from_millis(500));
    asked.saturating_sub(margin).min(LONGEST)
}

/// At most eight digits and a unit.
fn parse(text: &str) -> Option<Duration> {
    let unit = text.chars().next_back()?;
    let digits = text.strip_suffix(unit)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    Some(match unit {
        'H' => Duration::from_hours(number),
        'M' => Duration::from_mins(number),
        'S' => Duration::from_secs(number),
        'm' => Duration::from_millis(number),
        'u' => Duration::from_micros(number),
        'n' => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patience_for(header: &str) -> Duration {
        let mut metadata = MetadataMap::new();
        metadata.insert("grpc-timeout", header.parse().unwrap());
        patience(&metadata)
    }

    #[test]
    fn a_deadline_is_met_a_little_early() {
        assert_eq!(patience_for("10S"), Duration::from_millis(9_500));
        assert_eq!(patience_for("1000m"), Duration::from_millis(900));
        assert_eq!(patience_for("15000000u"), Duration::from_millis(14_500));
        assert_eq!(patience_for("5m"), Duration::ZERO);
        assert_eq!(patience_for("9H"), LONGEST);
    }

    #[test]
    fn no_deadline_or_a_senseless_one_means_the_longest() {
        assert_eq!(patience(&MetadataMap::new()), LONGEST);
        for header in ["", "S", "10", "x9S", "123456789S", "-1S", "1 S"] {
            assert_eq!(patience_for(header), LONGEST, "{header:?}");
        }
    }
}
