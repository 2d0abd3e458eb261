//! udev's database: one text file a device, named after its number. It is a second opinion on identity and content where
//! it exists; many containers and small systems have none.

use std::collections::BTreeMap;
use std::io;

use bedplate_core::disk::{DeviceNumber, Rotation, RotationReport, RotationSource, UdevView};

use super::Roots;

/// What udev recorded about one device.
#[derive(Clone, Debug, Default)]
pub(super) struct Record {
    properties: BTreeMap<String, String>,
    links: Vec<String>,
    view: UdevView,
}

impl Record {
    /// The record of a device; absent, missing and unreadable are told apart in [`Record::view`].
    pub(super) fn of(roots: &Roots, number: DeviceNumber) -> Self {
        let data = roots.run_udev.join("data");
        if !data.is_dir() {
            return Self::default();
        }
        match std::fs::read(data.join(format!("b{number}"))) {
            Ok(bytes) => Self::parse(&String::from_utf8_lossy(&bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Self { view: UdevView::NotRecorded, ..Self::default() }
            }
            Err(error) => Self { view: UdevView::Failed(error.to_string()), ..Self::default() },
        }
    }

    fn parse(text: &str) -> Self {
        let mut record = Self::default();
        for line in text.lines() {
            if let Some(link) = line.strip_prefix("S:") {
                record.links.push(link.to_owned());
            } else if let Some((key, value)) = line.strip_prefix("E:").and_then(|l| l.split_once('=')) {
                record.properties.insert(key.to_owned(), value.to_owned());
            }
        }
        record.links.sort_unstable();
        record.view = record.content().map_or(UdevView::Blank, UdevView::Content);
        record
    }

    fn content(&self) -> Option<String> {
        ["ID_FS_TYPE", "ID_FS_USAGE", "ID_FS_AMBIVALENT", "ID_PART_TABLE_TYPE"].iter().find_map(|key| self.text(key))
    }

    /// What udev saw on the device.
    pub(super) fn view(&self) -> UdevView {
        self.view.clone()
    }

    /// A property that is not empty.
    pub(super) fn text(&self, key: &str) -> Option<String> {
        let text = self.properties.get(key)?.trim();
        (!text.is_empty()).then(|| text.to_owned())
    }

    /// Names under `/dev/disk/<folder>`.
    pub(super) fn names(&self, folder: &str) -> Vec<String> {
        let prefix = format!("disk/{folder}/");
        self.links.iter().filter_map(|link| link.strip_prefix(&prefix)).map(str::to_owned).collect()
    }

    /// The model with its blanks: udev keeps it with `\x20` for them.
    pub(super) fn model(&self) -> Option<String> {
        let text = self.text("ID_MODEL_ENC").map(|m| m.replace("\\x20", " ").trim().to_owned());
        text.filter(|m| !m.is_empty()).or_else(|| self.text("ID_MODEL"))
    }

    /// The world-wide name; the long form, because LUNs of one array share the short one.
    pub(super) fn wwn(&self) -> Option<String> {
        self.text("ID_WWN_WITH_EXTENSION").or_else(|| self.text("ID_WWN"))
    }

    /// The serial number of the device itself.
    pub(super) fn serial(&self) -> Option<String> {
        ["ID_SCSI_SERIAL", "ID_SERIAL_SHORT"].iter().find_map(|key| self.text(key))
    }

    /// udev asks ATA devices for their rotation rate; zero means that nothing turns.
    pub(super) fn rotation(&self) -> Option<RotationReport> {
        let rotation = match self.text("ID_ATA_ROTATION_RATE_RPM")?.parse::<u16>().ok()? {
            0 => Rotation::Solid,
            rpm => Rotation::Rpm(rpm),
        };
        Some(RotationReport { rotation, source: RotationSource::UdevAta })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_blank_only_without_any_trace_of_content() {
        assert_eq!(Record::parse("S:disk/by-id/x\nE:ID_SERIAL=x\n").view(), UdevView::Blank);
        for line in ["E:ID_FS_TYPE=ext4", "E:ID_PART_TABLE_TYPE=gpt", "E:ID_FS_AMBIVALENT=a b"] {
            assert!(matches!(Record::parse(line).view(), UdevView::Content(_)), "{line}");
        }
    }

    #[test]
    fn links_and_names_are_read() {
        let record = Record::parse("S:disk/by-id/wwn-0x5\nS:disk/by-path/pci-1\nE:ID_MODEL_ENC=ST4000\\x20NM\\x20\n");
        assert_eq!(record.names("by-id"), ["wwn-0x5"]);
        assert_eq!(record.names("by-path"), ["pci-1"]);
        assert_eq!(record.model().as_deref(), Some("ST4000 NM"));
    }
}
