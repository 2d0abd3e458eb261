//! What people get wrong: configuration files, folders that are no place for a pool, wishes that cannot be met. The agent's
//! own program answers each with the object, the field and the way out, and nothing is made or lost.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests are not seen as tests by the lint

use bedplate_csi::v1::volume_capability::access_mode::Mode;
use bedplate_csi::v1::{CapacityRange, CreateVolumeRequest};
use bedplate_tests::agent::{Agent, Place, refusal};
use bedplate_tests::csi;
use bedplate_tests::engine::Node;
use bedplate_tests::loopfs::{HostFs, Recipe, real_dir, run};
use bedplate_tests::orchestrator::Orchestrator;
use bedplate_tests::skip::need_root;
use std::path::{Path, PathBuf};
use tonic::Code;

/// What the agent's check says of a configuration; it must refuse.
fn check(place: &Place, config: &str) -> String {
    let path = place.write(config).unwrap();
    let (status, said) = refusal(&["--check", "--config", path.to_str().unwrap()]).unwrap();
    assert!(!status.success(), "accepted:\n{config}\n{said}");
    assert!(said.contains("agent.toml"), "the file is not named: {said}");
    said
}

#[test]
fn a_mistake_in_the_configuration_is_named_with_its_line_and_field() {
    let folder = real_dir().unwrap();
    let place = Place::new(folder.path(), &folder.path().join("state"));
    let good = place.config(Path::new("/srv/pool"), "");
    let path = place.write(&good).unwrap();
    let (status, said) = refusal(&["--check", "--config", path.to_str().unwrap()]).unwrap();
    assert!(status.success(), "{said}");
    let line = |text: &str| 1 + good.lines().position(|l| l.starts_with(text)).unwrap();
    for (from, to, wants) in [
        ("chunk = ", "chunck = ", vec!["chunck".to_owned(), format!("line {}", line("chunk"))]),
        ("reserve = \"0\"", "reserve = \"10 Gibibytes\"", vec!["reserve".into(), format!("line {}", line("reserve"))]),
        ("reserve = \"0\"", "reserve = -5", vec!["reserve".into(), format!("line {}", line("reserve"))]),
        ("[[pool]]", "[[pools]]", vec!["pools".into()]),
        ("name = \"local\"", "name = \"../local\"", vec!["name".into(), "../local".into()]),
        ("directory = \"/srv", "directory = \"srv", vec!["directory".into(), "whole path".into()]),
        ("chunk = \"1Mi\"", "chunk = \"1000\"", vec!["wipe.chunk".into(), "1Mi".into()]),
        ("node = \"node-1\"", "node = \"node 1\"", vec!["node".into(), "node 1".into()]),
        ("node = \"node-1\"", "", vec!["node".into()]),
        ("node = \"node-1\"", "node = \"a\"\nnode = \"b\"", vec!["node".into(), "duplicate".into(), "line 2".into()]),
        ("percent = 100", "percent = 101", vec!["pause_above_io_pressure_percent".into()]),
        ("[wipe]", "[wipe", vec!["line".into()]),
        ("reserve = \"0\"", "wipe_method = \"discard\"", vec!["wipe_method".into(), "discard".into()]),
        ("reserve = \"0\"", "capacity = \"10\"", vec!["capacity".into()]),
    ] {
        assert!(good.contains(from), "{from}");
        let said = check(&place, &good.replacen(from, to, 1));
        for word in wants {
            assert!(said.contains(&word), "{to:?}: {word:?} is not in\n{said}");
        }
    }
    let twice = format!("{good}\n[[pool]]\nname = \"other\"\ndirectory = \"/srv/pool/inside\"\n");
    assert!(check(&place, &twice).contains("lie in one another"));
    let said = check(&place, "");
    assert!(said.contains("node"), "{said}");
    let (status, said) = refusal(&["--check", "--config", "/nonexistent/agent.toml"]).unwrap();
    assert!(!status.success() && said.contains("/nonexistent/agent.toml"), "{said}");
    assert!(!place.state().exists(), "a check makes nothing");
}

/// What an agent says that is told to use `directory`; it must refuse to start and leave the folder as it is.
fn refused_pool(place: &Place, directory: &Path) -> String {
    let path = place.write(&place.config(directory, "")).unwrap();
    let before = listing(directory);
    let (status, said) = refusal(&["--standalone", "--config", path.to_str().unwrap()]).unwrap();
    assert!(!status.success(), "{said}");
    for word in ["local", directory.to_str().unwrap()] {
        assert!(said.contains(word), "{word:?} is not in\n{said}");
    }
    let after: Vec<_> = listing(directory).into_iter().filter(|n| n != ".bedplate-lock").collect();
    assert_eq!(after, before);
    assert!(!place.csi().exists() || std::os::unix::net::UnixStream::connect(place.csi()).is_err());
    said
}

fn listing(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Something mounted by the test; unmounted when dropped.
struct Mount(PathBuf);

impl Mount {
    fn new(kind: &str, options: &str, target: &Path) -> Self {
        std::fs::create_dir_all(target).unwrap();
        run("mount", &["-t", kind, "-o", options, kind, target.to_str().unwrap()]).unwrap();
        Self(target.to_owned())
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = run("umount", &[&self.0]);
    }
}

#[test]
fn a_folder_that_is_no_place_for_a_pool_is_refused_by_what_is_wrong_with_it() {
    if !need_root("a_folder_that_is_no_place_for_a_pool_is_refused_by_what_is_wrong_with_it") {
        return;
    }
    let folder = real_dir().unwrap();
    let place = Place::new(folder.path(), &folder.path().join("state"));
    let at = |name: &str| folder.path().join(name);
    let said = refused_pool(&place, &at("missing"));
    assert!(said.contains("missing") || said.contains("No such file"), "{said}");
    std::fs::write(at("file"), "not a folder").unwrap();
    refused_pool(&place, &at("file"));
    {
        let tmpfs = Mount::new("tmpfs", "size=64m", &at("tmpfs"));
        let said = refused_pool(&place, &tmpfs.0);
        assert!(said.contains("tmpfs") && said.contains("ext4, xfs or btrfs"), "{said}");
    }
    for name in ["lower", "upper", "work"] {
        std::fs::create_dir(at(name)).unwrap();
    }
    {
        let options = format!(
            "lowerdir={},upperdir={},workdir={}",
            at("lower").display(),
            at("upper").display(),
            at("work").display()
        );
        let overlay = Mount::new("overlay", &options, &at("merged"));
        let said = refused_pool(&place, &overlay.0);
        assert!(said.contains("overlay") && said.contains("ext4, xfs or btrfs"), "{said}");
    }
    let ext4 = HostFs::make(Recipe { options: "data=journal", ..Recipe::new("ext4", 320 << 20) }).unwrap();
    let said = refused_pool(&place, &ext4.pool("pool").unwrap());
    assert!(said.contains("data=journal") && said.contains("data=ordered"), "{said}");
    drop(ext4);
    let xfs = HostFs::new("xfs", 320 << 20).unwrap();
    let pool = xfs.pool("pool").unwrap();
    run("mount", &["-o", "remount,ro", xfs.path().to_str().unwrap()]).unwrap();
    let said = refused_pool(&place, &pool);
    assert!(said.contains("read-only") && said.contains("remount"), "{said}");
    drop(xfs);
    let btrfs = HostFs::new("btrfs", 320 << 20).unwrap();
    std::fs::create_dir(btrfs.path().join("plain")).unwrap();
    let said = refused_pool(&place, &btrfs.path().join("plain"));
    assert!(said.contains("subvolume") && said.contains("btrfs subvolume create"), "{said}");
    let copying = btrfs.path().join("copying");
    run("btrfs", &["-q", "subvolume", "create", copying.to_str().unwrap()]).unwrap();
    let said = refused_pool(&place, &copying);
    assert!(said.contains("copy-on-write") && said.contains("chattr +C"), "{said}");
    drop(btrfs);
    let packed = HostFs::make(Recipe { options: "compress-force=zstd", ..Recipe::new("btrfs", 320 << 20) }).unwrap();
    let said = refused_pool(&place, &packed.pool("pool").unwrap());
    assert!(said.contains("compress"), "{said}");
}

/// An agent on a small pool, for one wish after the other.
struct Served {
    // Ended before its filesystem goes.
    agent: Agent,
    calls: Orchestrator,
    node: Node,
}

impl Served {
    fn new(mib: u64) -> Self {
        let node = Node::new("ext4", mib).unwrap();
        let place = Place::new(node.place(), node.state());
        let config = place.write(&place.config(node.directory(), "")).unwrap();
        let agent = Agent::start(&place, &config).unwrap();
        Self { agent, calls: Orchestrator::new(&place.csi()), node }
    }

    /// The bytes it got, or the answer's code and text.
    fn wish(&self, name: &str, fs: &str, required: i64, limit: i64) -> Result<i64, (Code, String)> {
        let request = CreateVolumeRequest {
            name: name.to_owned(),
            capacity_range: Some(CapacityRange { required_bytes: required, limit_bytes: limit }),
            volume_capabilities: vec![csi::mount(Mode::SingleNodeWriter, fs, &[])],
            ..CreateVolumeRequest::default()
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let answer = runtime.block_on(self.calls.create_volume(request));
        answer.map(|volume| volume.capacity_bytes).map_err(|error| {
            let status = error.downcast::<tonic::Status>().unwrap();
            (status.code(), status.message().to_owned())
        })
    }
}

#[test]
fn a_size_that_cannot_be_is_answered_with_what_could() {
    if !need_root("a_size_that_cannot_be_is_answered_with_what_could") {
        return;
    }
    let served = Served::new(320);
    let mib = csi::MIB;
    // Unaligned ones are rounded up to whole MiB, within the limit.
    for (n, (required, got)) in [(1, mib), (mib + 1, 2 * mib), (3 * mib - 1, 3 * mib)].into_iter().enumerate() {
        assert_eq!(served.wish(&format!("odd {n}"), "ext4", required, 0), Ok(got));
    }
    for (what, fs, required, limit, code, words) in [
        ("negative", "ext4", -1, 0, Code::InvalidArgument, vec!["required_bytes"]),
        ("negative limit", "ext4", 0, -1, Code::InvalidArgument, vec!["limit_bytes"]),
        ("limit below", "ext4", 2 * mib, mib, Code::InvalidArgument, vec!["required_bytes", "limit_bytes"]),
        ("beyond", "ext4", 4096 * mib, 0, Code::ResourceExhausted, vec!["local", "free"]),
        ("largest", "ext4", i64::MAX, 0, Code::OutOfRange, vec!["largest"]),
        ("too small for xfs", "xfs", 0, 16 * mib, Code::OutOfRange, vec!["xfs", "limit_bytes"]),
        ("no such filesystem", "f2fs", mib, 0, Code::InvalidArgument, vec!["f2fs"]),
        ("no filesystem", "ntfs", mib, 0, Code::InvalidArgument, vec!["ntfs"]),
        ("path", "../ext4", mib, 0, Code::InvalidArgument, vec!["ext4"]),
    ] {
        let (got, said) = served.wish(what, fs, required, limit).unwrap_err();
        assert_eq!(got, code, "{what}: {said}");
        for word in words {
            assert!(said.contains(word), "{what}: {word:?} is not in {said:?}");
        }
    }
    // Nothing of the refused ones is there.
    assert_eq!(served.node.files().unwrap().len(), 3);
    assert_eq!(served.wish("zero", "ext4", 0, 0).unwrap_err().0, Code::InvalidArgument);
    assert_eq!(served.wish("zero, limited", "ext4", 0, 5 * mib), Ok(5 * mib));
    assert!(served.agent.terminate().unwrap().success());
}

#[test]
fn a_nearly_full_host_gives_what_it_has_and_says_when_it_has_no_more() {
    if !need_root("a_nearly_full_host_gives_what_it_has_and_says_when_it_has_no_more") {
        return;
    }
    let served = Served::new(320);
    let filler = served.node.fs.path().join("filler");
    let free = nix::sys::statvfs::statvfs(served.node.fs.path()).unwrap();
    let free = free.blocks_available() * free.fragment_size();
    run("fallocate", &["--length", &(free - (9 << 20)).to_string(), filler.to_str().unwrap()]).unwrap();
    let (code, said) = served.wish("a", "ext4", 16 * csi::MIB, 0).unwrap_err();
    assert_eq!(code, Code::ResourceExhausted, "{said}");
    assert!(said.contains("local") && said.contains("16 MiB"), "{said}");
    assert_eq!(served.wish("a", "ext4", 4 * csi::MIB, 0), Ok(4 * csi::MIB));
    let (code, _) = served.wish("b", "ext4", 8 * csi::MIB, 0).unwrap_err();
    assert_eq!(code, Code::ResourceExhausted);
    assert_eq!(served.node.files().unwrap().len(), 1);
    std::fs::remove_file(filler).unwrap();
    assert_eq!(served.wish("b", "ext4", 8 * csi::MIB, 0), Ok(8 * csi::MIB));
}

#[test]
fn a_second_agent_on_the_same_state_pool_or_sockets_does_not_start() {
    if !need_root("a_second_agent_on_the_same_state_pool_or_sockets_does_not_start") {
        return;
    }
    let served = Served::new(320);
    let pid = served.agent.pid().to_string();
    let folder = real_dir().unwrap();
    let other = |state: &Path, directory: &Path| {
        let place = Place::new(folder.path(), state);
        let path = place.write(&place.config(directory, "")).unwrap();
        let (status, said) = refusal(&["--standalone", "--config", path.to_str().unwrap()]).unwrap();
        assert!(!status.success());
        said
    };
    // The same ledger: its holder is named.
    let said = other(served.node.state(), served.node.directory());
    assert!(said.contains(&served.node.state().display().to_string()) && said.contains(&pid), "{said}");
    // Another ledger, the same pool.
    let said = other(&folder.path().join("state"), served.node.directory());
    assert!(said.contains(&served.node.directory().display().to_string()) && said.contains(&pid), "{said}");
    // The same sockets: they are not taken away from a living agent.
    let place = Place::new(served.node.place(), &folder.path().join("third"));
    let elsewhere = HostFs::new("ext4", 320 << 20).unwrap();
    let config = folder.path().join("third.toml");
    std::fs::write(&config, place.config(&elsewhere.pool("pool").unwrap(), "")).unwrap();
    let (status, said) = refusal(&["--standalone", "--config", config.to_str().unwrap()]).unwrap();
    assert!(!status.success() && said.contains(&place.csi().display().to_string()), "{said}");
    assert_eq!(served.wish("still served", "ext4", csi::MIB, 0), Ok(csi::MIB));
}
