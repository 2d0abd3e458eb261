//! Reading a `.tree` file and laying it out in a folder.
//!
//! `[/sys/…]` names a folder, the `key = value` lines below it its attributes; `dir x` an empty folder in it. `[disk PATH
//! MAJ:MIN size=… rotational=…]` also writes what every disk has, and links it into `/sys/block`; `[part …]` does so for
//! a partition of it. `vpdb1`, `vpd80` and `ata` write SCSI pages. `[look]`, `[hold]`, `[udev …]`, `[mounts PID]` and
//! `[swaps]` record the rest, `[expect]` what must follow.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use bedplate_agent::discover::{Disk, Eyes, Report, Roots};
use bedplate_core::bytes::Bytes;
use bedplate_core::disk::{DeviceNumber, Exclusive};
use bedplate_core::media::{MeasuredLatency, Media};
use bedplate_core::signature::{Contents, ENDS, Look, Signature, Usage};
use bedplate_core::verdict::{Reason, Verdict};

/// A laid-out machine.
pub struct Tree {
    dir: tempfile::TempDir,
    looks: BTreeMap<String, String>,
    holds: BTreeMap<String, String>,
    expect: Vec<String>,
    partitions: String,
}

/// Where the files are.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/trees")
}

impl Tree {
    pub fn load(name: &str) -> Self {
        let text = std::fs::read_to_string(folder().join(format!("{name}.tree"))).unwrap();
        assert!(text.contains("# Facts from: "), "{name} does not say where its facts are from");
        let mut tree = Self {
            dir: tempfile::tempdir().unwrap(),
            looks: BTreeMap::new(),
            holds: BTreeMap::new(),
            expect: Vec::new(),
            partitions: "major minor  #blocks  name\n\n".to_owned(),
        };
        tree.put("proc/swaps", "Filename Type Size Used Priority\n");
        tree.link("proc/self/ns/pid", "pid:[4026531836]");
        tree.folder("sys/block");
        let mut section = Section::None;
        let mut disk = PathBuf::new();
        for line in text.lines().map(str::trim_end).filter(|l| !l.is_empty() && !l.starts_with('#')) {
            if let Some(head) = line.strip_prefix('[').and_then(|l| l.strip_suffix(']')) {
                section = tree.open(head, &mut disk);
            } else {
                tree.take(&section, line);
            }
        }
        let partitions = tree.partitions.clone();
        tree.put("proc/partitions", &partitions);
        tree
    }

    pub fn roots(&self) -> Roots {
        let at = |name: &str| self.dir.path().join(name);
        Roots { sys: at("sys"), proc: at("proc"), dev: at("dev"), run_udev: at("run/udev") }
    }

    pub fn eyes(&self) -> Recorded {
        Recorded { looks: self.looks.clone(), holds: self.holds.clone() }
    }

    pub fn overrides(&self) -> BTreeMap<String, Media> {
        let lines = self.expect.iter().filter_map(|l| l.strip_prefix("override "));
        lines.map(|l| words(l.split('|').next().unwrap())).map(|w| (w[0].clone(), w[1].parse().unwrap())).collect()
    }

    fn put(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.dir.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }

    fn append(&self, path: &str, line: &str) {
        let old = std::fs::read_to_string(self.dir.path().join(path)).unwrap_or_default();
        self.put(path, format!("{old}{line}\n"));
    }

    fn folder(&self, path: &str) {
        std::fs::create_dir_all(self.dir.path().join(path)).unwrap();
    }

    fn link(&self, path: &str, target: &str) {
        let path = self.dir.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(target, path).unwrap();
    }

    fn open(&mut self, head: &str, disk: &mut PathBuf) -> Section {
        let parts = words(head);
        match parts[0].as_str() {
            "disk" => {
                *disk = PathBuf::from(parts[1].trim_start_matches('/'));
                let name = disk.file_name().unwrap().to_str().unwrap().to_owned();
                self.block(disk, &name, &parts[2..]);
                let place = disk.strip_prefix("sys").unwrap().display().to_string();
                self.link(&format!("sys/block/{name}"), &format!("..{}", place.replacen("devices", "/devices", 1)));
                let up = if disk.parent().unwrap().ends_with("block") { "../.." } else { ".." };
                if !disk.starts_with("sys/devices/virtual/block") {
                    self.link(&format!("{}/device", disk.display()), up);
                }
                Section::Folder(disk.display().to_string())
            }
            "part" => {
                let folder = disk.join(&parts[1]);
                self.block(&folder, &parts[1], &parts[2..]);
                let number: String = parts[1].chars().rev().take_while(char::is_ascii_digit).collect();
                self.put(&format!("{}/partition", folder.display()), number.chars().rev().collect::<String>());
                Section::Folder(folder.display().to_string())
            }
            "udev" => {
                self.put(&format!("run/udev/data/b{}", parts[1]), "");
                Section::Udev(parts[1].clone())
            }
            "mounts" => {
                self.put(&format!("proc/{}/mountinfo", parts[1]), "");
                self.link(&format!("proc/{}/ns/mnt", parts[1]), &format!("mnt:[{}]", parts[1]));
                Section::Mounts(parts[1].clone())
            }
            "swaps" => Section::Swaps,
            "look" => Section::Look,
            "hold" => Section::Hold,
            "expect" => Section::Expect,
            path => Section::Folder(path.trim_start_matches('/').to_owned()),
        }
    }

    /// What every disk and partition has.
    fn block(&mut self, folder: &Path, name: &str, parts: &[String]) {
        let number: DeviceNumber = parts[0].parse().unwrap();
        let options: BTreeMap<&str, &str> = parts[1..].iter().map(|p| p.split_once('=').unwrap()).collect();
        let at = |file: &str| format!("{}/{file}", folder.display());
        let size: u64 = options["size"].parse().unwrap();
        self.put(&at("dev"), format!("{number}\n"));
        self.put(&at("size"), format!("{size}\n"));
        self.folder(&at("holders"));
        if let Some(start) = options.get("start") {
            self.put(&at("start"), format!("{start}\n"));
        } else {
            let (logical, physical) = options.get("sector").unwrap_or(&"512/512").split_once('/').unwrap();
            self.put(&at("ro"), "0\n");
            self.put(&at("removable"), "0\n");
            self.put(&at("hidden"), "0\n");
            self.put(&at("diskseq"), format!("{}\n", number.minor + 1));
            self.put(&at("queue/rotational"), format!("{}\n", options["rotational"]));
            self.put(&at("queue/logical_block_size"), format!("{logical}\n"));
            self.put(&at("queue/physical_block_size"), format!("{physical}\n"));
            self.put(&at("queue/scheduler"), "[none] mq-deadline\n");
            self.put(&at("queue/zoned"), "none\n");
            self.folder(&at("slaves"));
        }
        writeln!(self.partitions, "{:4} {:8} {:10} {name}", number.major, number.minor, size / 2).unwrap();
    }

    fn take(&mut self, section: &Section, line: &str) {
        match section {
            Section::None => panic!("a line before any section: {line}"),
            Section::Folder(folder) => self.attribute(folder, line),
            Section::Udev(number) => self.append(&format!("run/udev/data/b{number}"), line),
            Section::Mounts(pid) => self.append(&format!("proc/{pid}/mountinfo"), line),
            Section::Swaps => self.append("proc/swaps", line),
            Section::Look | Section::Hold => {
                let (name, value) = line.split_once(" = ").unwrap();
                let into = if matches!(section, Section::Look) { &mut self.looks } else { &mut self.holds };
                into.insert(name.to_owned(), value.to_owned());
            }
            Section::Expect => self.expect.push(line.to_owned()),
        }
    }

    fn attribute(&self, folder: &str, line: &str) {
        if let Some(name) = line.strip_prefix("dir ") {
            self.folder(&format!("{folder}/{name}"));
        } else if let Some(code) = line.strip_prefix("vpdb1 ") {
            let mut page = vec![0, 0xb1, 0, 60];
            page.extend(code.parse::<u16>().unwrap().to_be_bytes());
            page.resize(64, 0);
            self.put(&format!("{folder}/vpd_pgb1"), page);
        } else if let Some(serial) = line.strip_prefix("vpd80 ") {
            let mut page = vec![0, 0x80, 0, u8::try_from(serial.len()).unwrap()];
            page.extend(serial.as_bytes());
            self.put(&format!("{folder}/vpd_pg80"), page);
        } else if let Some(identify) = line.strip_prefix("ata ") {
            let parts: Vec<&str> = identify.split('|').map(str::trim).collect();
            let mut page = vec![0u8; 572];
            page[1] = 0x89;
            let mut text = |word: usize, text: &str, length: usize| {
                for (i, pair) in format!("{text:length$}").as_bytes().chunks(2).enumerate() {
                    page[60 + 2 * (word + i)..][..2].copy_from_slice(&[pair[1], pair[0]]);
                }
            };
            text(27, parts[0], 40);
            text(10, parts[1], 20);
            page[60 + 434..][..2].copy_from_slice(&parts[2].parse::<u16>().unwrap().to_le_bytes());
            self.put(&format!("{folder}/vpd_pg89"), page);
        } else {
            let (name, value) = line.split_once(" = ").unwrap_or_else(|| panic!("not understood: {line}"));
            self.put(&format!("{folder}/{name}"), format!("{value}\n"));
        }
    }

    /// Where a scan differs from what is expected; empty where it does not.
    pub fn differences(&self, report: &Report) -> Vec<String> {
        let mut wrong = Vec::new();
        let mut named = Vec::new();
        let find = |name: &str| report.disks.iter().find(|d| d.facts.name == name);
        for line in &self.expect {
            let mut complain = |found: String| wrong.push(format!("  expected {line}\n  found    {found}"));
            let parts = words(line);
            match parts[0].as_str() {
                "absent" => {
                    for name in parts[1..].iter().filter(|n| find(n).is_some()) {
                        complain(name.clone());
                    }
                }
                "measured" => {
                    let mut measured = report.clone();
                    let latency =
                        MeasuredLatency { p50_us: parts[2].parse().unwrap(), samples: 500, zero_fraction: 0.0 };
                    measured.measured(&BTreeMap::from([(parts[1].clone(), latency)]));
                    let disk = measured.disks.iter().find(|d| d.facts.name == parts[1]).unwrap();
                    if class(disk) != parts[4..].join(" ") {
                        complain(class(disk));
                    }
                }
                "override" => {
                    let disk = find(&parts[4]).unwrap();
                    if class(disk) != parts[5..].join(" ") {
                        complain(class(disk));
                    }
                    named.push(parts[4].clone());
                }
                "says" => {
                    let said: Vec<String> =
                        find(&parts[1]).unwrap().verdict.reasons().iter().map(ToString::to_string).collect();
                    if !said.contains(&parts[2..].join(" ")) {
                        complain(said.join("; "));
                    }
                }
                "model" => {
                    let model = find(&parts[1]).unwrap().facts.model.clone().unwrap_or_default();
                    if model != parts[2..].join(" ") {
                        complain(model);
                    }
                }
                "size" => {
                    let all = report.disks.iter().flat_map(|d| {
                        let own = std::iter::once((d.facts.name.as_str(), d.facts.size));
                        own.chain(d.facts.partitions.iter().map(|p| (p.name.as_str(), p.size)))
                    });
                    let size = all.filter(|(name, _)| *name == parts[1]).find_map(|(_, size)| size);
                    if size != Some(Bytes(parts[2].parse().unwrap())) {
                        complain(format!("{size:?}"));
                    }
                }
                "sector" => {
                    let sector = find(&parts[1]).unwrap().facts.logical_sector;
                    if sector != Some(parts[2].parse().unwrap()) {
                        complain(format!("{sector:?}"));
                    }
                }
                name => {
                    named.push(name.to_owned());
                    match find(name) {
                        None => complain("no such disk".to_owned()),
                        Some(disk) => {
                            if let Some(found) = differs(disk, line, &self.expect) {
                                complain(found);
                            }
                        }
                    }
                }
            }
        }
        for disk in report.disks.iter().filter(|d| !named.contains(&d.facts.name)) {
            wrong.push(format!("  not expected at all: {}", disk.facts.name));
        }
        wrong
    }
}

/// `NAME VERDICT REASONS | MEDIA SOURCE CONFIDENCE | STRENGTH ID…` against a disk.
fn differs(disk: &Disk, line: &str, all: &[String]) -> Option<String> {
    let sections: Vec<Vec<String>> = line.split('|').map(words).collect();
    let codes: Vec<&str> = disk.verdict.reasons().iter().map(Reason::code).collect();
    let whose = match &disk.verdict {
        Verdict::Foreign { .. } => "foreign",
        Verdict::Free { .. } => "free",
        Verdict::Ours { .. } => "ours",
    };
    let reasons: Vec<&str> = sections[0].get(2).map(|r| r.split(',').collect()).unwrap_or_default();
    let id = disk.identity.id.as_ref().map(ToString::to_string).unwrap_or_default();
    let strength = format!("{:?}", disk.identity.strength).to_lowercase();
    let overridden = all.iter().any(|l| l.starts_with("override ") && words(l).get(4) == Some(&disk.facts.name));
    let fits = sections[0][1] == whose
        && reasons.iter().all(|r| codes.contains(r))
        && (whose == "free") == reasons.is_empty()
        && (overridden || class(disk) == sections[1].join(" "))
        && strength == sections[2][0]
        && sections[2].get(1).is_none_or(|prefix| id.starts_with(prefix.as_str()));
    (!fits).then(|| {
        let said: Vec<String> = disk.verdict.reasons().iter().map(ToString::to_string).collect();
        format!(
            "{} {whose} {} | {} | {strength} {id}\n           ({}; {})",
            disk.facts.name,
            codes.join(","),
            class(disk),
            said.join("; "),
            disk.classification.why
        )
    })
}

fn class(disk: &Disk) -> String {
    let found = &disk.classification;
    format!("{} {} {}", found.media, found.source, found.confidence)
}

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

enum Section {
    None,
    Folder(String),
    Udev(String),
    Mounts(String),
    Swaps,
    Look,
    Hold,
    Expect,
}

/// What looking at the devices would have shown.
pub struct Recorded {
    looks: BTreeMap<String, String>,
    holds: BTreeMap<String, String>,
}

impl Eyes for Recorded {
    fn look(&self, node: &Path, _number: DeviceNumber, _sector: u32) -> Look {
        let name = node.file_name().unwrap().to_str().unwrap();
        let Some(look) = self.looks.get(name) else { return Look::NotDone };
        let (kind, rest) = look.split_once(' ').unwrap_or((look, ""));
        let contents = |signatures, data_at| {
            Look::Done(Contents {
                signatures,
                data_at,
                head: Bytes(ENDS),
                tail: Bytes(ENDS),
                read: Bytes(2 * ENDS),
                size: Bytes(u64::MAX),
            })
        };
        let signature = |format: &str, usage| {
            let uuid = Some(format!("{format}-{name}"));
            contents(vec![Signature { format: format.to_owned(), usage, label: None, uuid, offset: 0 }], Some(0))
        };
        match kind {
            "blank" => contents(vec![], None),
            "data" => contents(vec![], Some(rest.parse().unwrap())),
            "error" => Look::Failed(rest.to_owned()),
            "table" => signature(rest, Usage::PartitionTable),
            "crypto_LUKS" => signature(kind, Usage::Crypto),
            member if member.ends_with("_member") => signature(member, Usage::Member),
            filesystem => signature(filesystem, Usage::Filesystem),
        }
    }

    fn hold(&self, node: &Path, _number: DeviceNumber) -> Exclusive {
        match self.holds.get(node.file_name().unwrap().to_str().unwrap()).map(String::as_str) {
            Some("free") => Exclusive::Opened,
            Some("busy") => Exclusive::Busy,
            Some(other) => Exclusive::Failed(other.to_owned()),
            None => Exclusive::NotTried,
        }
    }
}
