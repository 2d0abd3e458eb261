//! What SCSI and ATA disks were made to answer, from the vital product data that the kernel keeps in sysfs.
//!
//! Page layouts: SPC-5 (80), SBC-4 (B1), SAT-3 (89, which holds the ATA IDENTIFY DEVICE data from byte 60 on). Devices
//! send anything, so every read is bounded.

use bedplate_core::disk::{Rotation, RotationReport, RotationSource};

use super::attributes::Attributes;

/// ATA IDENTIFY DEVICE data, 256 words.
struct Identify(Vec<u8>);

impl Identify {
    fn of(device: &Attributes) -> Option<Self> {
        let page = device.bytes("vpd_pg89")?;
        (page.get(1) == Some(&0x89)).then_some(())?;
        page.get(60..60 + 512).map(|data| Self(data.to_vec()))
    }

    fn word(&self, index: usize) -> Option<u16> {
        let bytes = self.0.get(2 * index..2 * index + 2)?;
        Some(u16::from_le_bytes([bytes[0], bytes[1]]))
    }

    /// Text with the two bytes of every word swapped, as ATA keeps it.
    fn text(&self, words: std::ops::Range<usize>) -> Option<String> {
        let bytes: Option<Vec<[u8; 2]>> = words.map(|word| self.word(word).map(u16::to_be_bytes)).collect();
        let text: String =
            bytes?.concat().into_iter().map(char::from).filter(|c| c.is_ascii_graphic() || *c == ' ').collect();
        let text = text.trim();
        (!text.is_empty()).then(|| text.to_owned())
    }
}

/// Model as ATA says it: SCSI's own field is cut off at 16 characters.
pub(super) fn ata_model(device: &Attributes) -> Option<String> {
    Identify::of(device)?.text(27..47)
}

/// Unit serial number: page 80, else ATA's.
pub(super) fn serial(device: &Attributes) -> Option<String> {
    let page80 = || {
        let page = device.bytes("vpd_pg80")?;
        (page.get(1) == Some(&0x80)).then_some(())?;
        let length = usize::from(u16::from_be_bytes([*page.get(2)?, *page.get(3)?]));
        let text: String =
            String::from_utf8_lossy(page.get(4..4 + length)?).chars().filter(|c| !c.is_control()).collect();
        let text = text.trim();
        (!text.is_empty()).then(|| text.to_owned())
    };
    page80().or_else(|| Identify::of(device)?.text(10..20))
}

/// The device's own statement about turning parts; one that says something is preferred to one that does not.
pub(super) fn rotation(device: &Attributes) -> Option<RotationReport> {
    let ata = || {
        let rotation = Rotation::from_code(Identify::of(device)?.word(217)?)?;
        Some(RotationReport { rotation, source: RotationSource::AtaWord217 })
    };
    let scsi = || {
        let page = device.bytes("vpd_pgb1")?;
        (page.get(1) == Some(&0xb1)).then_some(())?;
        let rotation = Rotation::from_code(u16::from_be_bytes([*page.get(4)?, *page.get(5)?]))?;
        Some(RotationReport { rotation, source: RotationSource::ScsiVpdB1 })
    };
    let reports: Vec<RotationReport> = [ata(), scsi()].into_iter().flatten().collect();
    reports.iter().find(|r| r.rotation != Rotation::NotReported).or_else(|| reports.first()).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(page: &str, bytes: &[u8]) -> (tempfile::TempDir, Attributes) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(page), bytes).unwrap();
        let attributes = Attributes::new(dir.path());
        (dir, attributes)
    }

    #[test]
    fn an_ata_disk_speaks_through_page_89() {
        let mut page = vec![0u8; 572];
        page[1] = 0x89;
        page[60 + 2 * 217..][..2].copy_from_slice(&7200u16.to_le_bytes());
        for (i, pair) in b"WDC WD40EFRX-68A7E1N".chunks(2).enumerate() {
            page[60 + 2 * (27 + i)..][..2].copy_from_slice(&[pair[1], pair[0]]);
        }
        let (_dir, device) = with("vpd_pg89", &page);
        let report = rotation(&device).unwrap();
        assert_eq!((report.rotation, report.source), (Rotation::Rpm(7200), RotationSource::AtaWord217));
        assert_eq!(ata_model(&device).as_deref(), Some("WDC WD40EFRX-68A7E1N"));
    }

    #[test]
    fn a_page_that_is_cut_off_or_another_page_is_no_answer() {
        for bytes in [&[0u8, 0xb1, 0, 60][..], &[0, 0xb1, 0, 60, 0], &[0, 0x83, 0, 60, 0, 1], &[]] {
            let (_dir, device) = with("vpd_pgb1", bytes);
            assert_eq!(rotation(&device), None, "{bytes:?}");
        }
        for bytes in [&[0u8, 0x80, 0xff, 0xff, b'A'][..], &[0, 0x80], &[0, 0x80, 0, 2, b' ', b' ']] {
            let (_dir, device) = with("vpd_pg80", bytes);
            assert_eq!(serial(&device), None, "{bytes:?}");
        }
    }
}
