//! Other people's hands on the machine: hidden users, missing mounts, snapshots, replaced files, a second agent, a
//! damaged ledger. The engine waits, gets stuck or stays closed, says why, and frees nothing it cannot prove clean.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's helpers may panic")]
#![allow(dead_code, reason = "shares its world with the crash matrix")]

#[path = "crash_matrix/client.rs"]
mod client;
#[path = "crash_matrix/oracle.rs"]
mod oracle;
#[path = "crash_matrix/story.rs"]
mod story;
#[path = "crash_matrix/world.rs"]
mod world;

use bedplate_blockdev::fake::{Done, FakeHost, Script};
use bedplate_blockdev::{Host, User};
use bedplate_core::class::Class;
use bedplate_core::receipt::Receipt;
use bedplate_core::volume::{Mode, ReleaseKind, StuckReason};
use bedplate_core::wipe::{Level, LevelLoss, ZeroMethod};
use bedplate_provisioner::engine::{CreateError, CreateVolume, Driven, Engine, Stop};
use bedplate_provisioner::receipts;
use bedplate_provisioner::store::JOURNAL;
use client::{SECRET, Trouble, Want};
use nix::errno::Errno;
use story::Moment;
use world::{open, pool, state};

fn inhabited(demand: Level) -> Moment {
    Moment::inhabited(demand, ZeroMethod::DirectWrites)
}

/// The tenant has written, everything is unmounted and unstaged; the release is the next thing asked for.
fn unstaged(demand: Level) -> Moment {
    let start = inhabited(demand);
    // Every volume is attached once before its file is first opened for the wipe; go back from there.
    let calls = start.calls();
    let detach = calls.iter().rposition(|s| s.op == "detach").unwrap();
    let commit = detach + calls[detach..].iter().position(|s| s.op == "sync_file").unwrap();
    let next = calls[commit + 1].number;
    let moment = start.struck(Script::new().kill_at(next, Done::Nothing)).fork();
    assert_eq!(moment.client.want, Want::Release, "{:?}", calls[commit + 1]);
    moment
}

fn engine(story: &Moment) -> Engine {
    open(&story.host, &story.world, story.client.method).unwrap()
}

fn drive(story: &Moment, engine: &Engine) -> Driven {
    engine.drive(story.client.id.as_ref().unwrap(), &Stop::default(), &|| ()).unwrap()
}

fn release(story: &Moment, engine: &Engine) -> Result<(), String> {
    engine.release(story.client.id.as_ref().unwrap(), ReleaseKind::Deleted, "a test").map_err(|e| e.to_string())
}

fn victim(story: &Moment) -> String {
    story.client.victim(&story.host).unwrap()
}

/// Where every marker lies that the tenant wrote.
fn markers(host: &FakeHost) -> usize {
    host.find(SECRET).len()
}

#[test]
fn a_volume_that_somebody_uses_is_not_released() {
    let story = unstaged(Level::Clear);
    let user = User::Descriptor { pid: 77, command: "dd".to_owned() };
    story.host.hold_file(pool(), &victim(&story), user);
    let engine = engine(&story);
    let refused = release(&story, &engine).unwrap_err();
    assert!(refused.contains("open in process 77 (dd)"), "{refused}");
    assert_eq!(engine.volume(story.client.id.as_ref().unwrap()).unwrap().phase, "Ready");
    story.host.release_file(pool(), &victim(&story));
    release(&story, &engine).unwrap();
}

#[test]
fn a_wipe_waits_for_a_user_that_no_listing_shows() {
    let mut story = unstaged(Level::Clear);
    let engine = engine(&story);
    release(&story, &engine).unwrap();
    let file = victim(&story);
    let dir = story.host.open_dir(pool()).unwrap();
    let identity = story.host.backing(&dir, &file).unwrap().unwrap().identity;
    let stray = story.host.attach(&dir, &file, &identity).unwrap();
    story.host.hold_unseen(stray.number);
    let before = markers(&story.host);
    for _ in 0..3 {
        let driven = drive(&story, &engine);
        assert!(matches!(&driven, Driven::Waiting { users } if users.contains("unseen")), "{driven:?}");
    }
    assert_eq!(markers(&story.host), before, "nothing was touched while it was held");
    story.host.release(stray.number);
    assert_eq!(drive(&story, &engine), Driven::Freed);
    drop(engine);
    story.client.want = Want::Done;
    story.judge().unwrap();
}

#[test]
fn a_missing_mount_is_a_debt_that_is_paid_on_return() {
    let mut story = unstaged(Level::Clear);
    let first = engine(&story);
    release(&story, &first).unwrap();
    drop(first);
    story.client.want = Want::Wipe;
    story.host.host_unmount(pool());
    let absent = engine(&story);
    let driven = drive(&story, &absent);
    assert!(matches!(&driven, Driven::Debt { why } if why.contains("mount its filesystem")), "{driven:?}");
    assert_eq!(story.host.names(pool()), Vec::<String>::new(), "nothing is made in the directory beneath");
    assert_eq!(absent.volume(story.client.id.as_ref().unwrap()).unwrap().phase, "Debt");
    drop(absent);
    story.host.host_mount(pool());
    story.judge().unwrap();
}

#[test]
fn a_snapshot_a_link_or_a_moved_block_lowers_the_level_and_a_class_that_demands_more_gets_stuck() {
    type Meddle = fn(&FakeHost, &str);
    type Is = fn(&LevelLoss) -> bool;
    let cases: [(Meddle, Is); 4] = [
        (|host, file| host.host_reflink(pool(), file, ".snapshot"), |l| matches!(l, LevelLoss::Shared { .. })),
        (|host, file| host.host_link(pool(), file, ".other-name"), |l| matches!(l, LevelLoss::Linked { links: 2 })),
        (|host, file| host.host_move_block(pool(), file, 65536), |l| matches!(l, LevelLoss::Moved { .. })),
        (|host, file| host.host_punch(pool(), file, 65536, 16384), |l| matches!(l, LevelLoss::Hole { .. })),
    ];
    for (n, (meddle, is)) in cases.into_iter().enumerate() {
        for demand in [Level::Clear, Level::Isolation] {
            let story = unstaged(demand);
            let host = FakeHost::clone(&story.host);
            meddle(&host, &victim(&story));
            let engine = engine(&story);
            release(&story, &engine).unwrap();
            let driven = drive(&story, &engine);
            if demand == Level::Clear {
                let stuck = matches!(&driven, Driven::Stuck { reason: StuckReason::LevelLost { losses } }
                    if losses.iter().any(is));
                assert!(stuck, "case {n}: {driven:?}");
                assert!(engine.pools()[0].withheld > 0, "case {n}: its space stays withheld");
                continue;
            }
            assert_eq!(driven, Driven::Freed, "case {n}");
            let dir = host.open_dir(state()).unwrap();
            let receipts = bedplate_provisioner::receipts::read(&host, &dir).unwrap();
            assert_eq!(receipts[0].level, Level::Isolation);
            assert!(receipts[0].level_losses.iter().any(is), "case {n}: {:?}", receipts[0].level_losses);
        }
    }
}

#[test]
fn a_deleted_truncated_or_replaced_file_is_stuck_and_never_freed() {
    let cases: [fn(&FakeHost, &str); 3] = [
        |host, file| host.host_remove(pool(), file),
        |host, file| host.host_truncate(pool(), file, 4 * 16384),
        |host, file| host.host_replace(pool(), file),
    ];
    for (n, meddle) in cases.into_iter().enumerate() {
        let mut story = unstaged(Level::Clear);
        meddle(&story.host, &victim(&story));
        story.client.want = Want::Wipe;
        let engine = engine(&story);
        release(&story, &engine).unwrap();
        let driven = drive(&story, &engine);
        let changed = matches!(&driven, Driven::Stuck { reason: StuckReason::BackingChanged { .. } });
        assert!(changed, "case {n}: {driven:?}");
        assert!(engine.pools()[0].withheld > 0, "its space stays withheld");
        let again = story.client.go_on(&engine, &story.host);
        assert!(matches!(again, Err(Trouble::Stuck(_))), "{again:?}");
    }
}

#[test]
fn a_second_agent_on_the_same_state_opens_nothing() {
    let story = inhabited(Level::Clear);
    let engine = engine(&story);
    let other = story.host.second_process();
    let before = other.names(pool());
    let refused = open(&other, &story.world, ZeroMethod::DirectWrites).err().unwrap();
    let text = bedplate_core::chain::chain(&refused);
    assert!(text.contains("holds it"), "{text}");
    assert_eq!(other.names(pool()), before);
    drop(engine);
    assert!(open(&other, &story.world, ZeroMethod::DirectWrites).is_ok());
}

#[test]
fn a_ledger_cut_or_changed_anywhere_stays_closed_or_says_the_truth() {
    let mut story = inhabited(Level::Clear);
    story.judge().unwrap();
    let whole = story.host.content(state(), JOURNAL).unwrap();
    let mut damaged: Vec<(String, Option<Vec<u8>>)> = vec![("missing".to_owned(), None)];
    for at in (0..whole.len()).filter(|at| at % 53 == 0 || whole[*at] == b'\n') {
        damaged.push((format!("cut at {at}"), Some(whole[..at].to_vec())));
        damaged.push((format!("cut after {at}"), Some(whole[..=at].to_vec())));
        let mut flipped = whole.clone();
        flipped[at] ^= 4;
        damaged.push((format!("flipped at {at}"), Some(flipped)));
        let mut zeroed = whole.clone();
        zeroed[at..].fill(0);
        damaged.push((format!("zeroes from {at}"), Some(zeroed)));
    }
    let (mut closed, mut open_still) = (0, 0);
    for (what, bytes) in damaged {
        let case = story.fork();
        match &bytes {
            Some(bytes) => case.host.host_write(state(), JOURNAL, bytes),
            None => case.host.host_remove(state(), JOURNAL),
        }
        let files = case.host.names(pool());
        match open(&case.host, &case.world, ZeroMethod::DirectWrites) {
            Err(_) => closed += 1,
            Ok(engine) => {
                open_still += 1;
                let living = engine.volume(&case.client.living.as_ref().unwrap().id);
                assert_eq!(living.map(|v| v.phase).as_deref(), Some("Ready"), "{what}");
                let gone = engine.volume(case.client.id.as_ref().unwrap());
                assert_eq!(gone.map(|v| v.phase).as_deref(), Some("Freed"), "{what}");
            }
        }
        assert_eq!(case.host.names(pool()), files, "{what}: no file is touched");
    }
    assert!(closed > 100, "{closed} closed, {open_still} open");
}

#[test]
fn a_retained_volume_is_given_up_by_a_person_and_by_nothing_else() {
    let story = unstaged(Level::Clear);
    let engine = engine(&story);
    let id = story.client.id.clone().unwrap();
    engine.retain(&id, "ann").unwrap();
    let before = markers(&story.host);
    assert!(before > 0);
    for kind in [ReleaseKind::Deleted, ReleaseKind::Reclaimed, ReleaseKind::NeverBound] {
        let refused = engine.release(&id, kind, "an orchestrator").unwrap_err().to_string();
        assert!(refused.contains("only a person") && refused.contains("bedplate volumes release"), "{refused}");
    }
    assert_eq!(drive(&story, &engine), Driven::Nothing);
    assert_eq!(markers(&story.host), before);
    engine.release(&id, ReleaseKind::ByHand, "ann").unwrap();
    assert_eq!(drive(&story, &engine), Driven::Freed);
    assert_eq!(markers(&story.host), 0);
}

#[test]
fn a_volume_that_was_handed_out_once_is_never_wiped_as_one_that_nobody_had() {
    let story = unstaged(Level::Clear);
    let engine = engine(&story);
    let id = story.client.id.clone().unwrap();
    let before = markers(&story.host);
    assert!(before > 0);
    let refused = engine.release(&id, ReleaseKind::NeverBound, "an orchestrator").unwrap_err().to_string();
    assert!(refused.contains("handed out once") && refused.contains("nothing is wiped"), "{refused}");
    assert_eq!(drive(&story, &engine), Driven::Nothing);
    assert_eq!(markers(&story.host), before);
}

#[test]
fn what_never_reached_the_disk_is_not_answered_as_done() {
    let story = unstaged(Level::Clear);
    let engine = engine(&story);
    let id = story.client.id.clone().unwrap();
    // Every fsync fails from now on: the first commit closes the ledger.
    story.host.set_script(Script::new().fail_op("sync_file", 0, u64::MAX, nix::errno::Errno::EIO));
    let first = engine.release(&id, ReleaseKind::Deleted, "a test").unwrap_err().to_string();
    assert!(first.contains("journalled"), "{first}");
    assert!(engine.failure().is_some());
    // The same call again finds the release in memory, and must not take it for done.
    let second = engine.release(&id, ReleaseKind::Deleted, "a test").unwrap_err().to_string();
    assert!(second.contains("until the agent restarts"), "{second}");
    let waited = engine.wait_until(&id, std::time::Instant::now(), |_| Some(()));
    assert_eq!(waited, None);
    assert!(engine.stage(&id, "/elsewhere").is_err());
}

#[test]
fn a_pool_that_is_mounted_late_comes_back_by_itself() {
    let story = unstaged(Level::Clear);
    {
        let engine = engine(&story);
        release(&story, &engine).unwrap();
    }
    let host = story.host.after_kill();
    host.host_unmount(pool());
    let engine = open(&host, &story.world, story.client.method).unwrap();
    let id = story.client.id.as_ref().unwrap();
    let drive = || engine.drive(id, &Stop::default(), &|| ()).unwrap();
    assert!(matches!(drive(), Driven::Debt { .. }));
    engine.look_for_absent_pools();
    assert!(matches!(drive(), Driven::Debt { .. }), "still not mounted");
    host.host_mount(pool());
    engine.look_for_absent_pools();
    assert_eq!(drive(), Driven::Freed);
}

#[test]
fn what_a_failed_creation_could_not_remove_is_removed_later_and_its_room_comes_back() {
    let (host, world) = (world::machine(), std::sync::Arc::new(world::World::default()));
    let engine = open(&host, &world, ZeroMethod::DirectWrites).unwrap();
    let want = CreateVolume {
        name: "unlucky".to_owned(),
        required: world::SIZE,
        limit: 0,
        mode: Mode::Block,
        class: Class::default(),
        parameters: std::collections::BTreeMap::new(),
        origin: None,
    };
    let (free, files) = (engine.pools()[0].free, host.names(pool()).len());
    host.set_script(Script::new().fail_op("allocate_backing", 0, 1, Errno::EIO).fail_op(
        "remove_backing",
        0,
        2,
        Errno::EIO,
    ));
    let refused = engine.create(&want).unwrap_err();
    assert!(matches!(refused, CreateError::HostAndCleanup { .. }), "{refused:?}");
    engine.clean_up_unmade();
    assert_eq!((engine.volumes(false).len(), host.names(pool()).len()), (1, files + 1), "still there");
    engine.clean_up_unmade();
    assert!(engine.volumes(false).is_empty(), "{:?}", engine.volumes(false));
    assert_eq!((engine.pools()[0].free, host.names(pool()).len()), (free, files));
    engine.create(&want).unwrap();
}

#[test]
fn the_receipts_log_keeps_every_receipt_once_however_many_and_however_torn() {
    let story = unstaged(Level::Clear);
    let engine = engine(&story);
    release(&story, &engine).unwrap();
    assert!(matches!(drive(&story, &engine), Driven::Freed));
    let (host, dir) = (&story.host, story.host.open_dir(state()).unwrap());
    let first = receipts::read(host, &dir).unwrap().pop().unwrap();
    let another = |number: u64| Receipt { number, hash: format!("{number:064}"), ..first.clone() };
    let log = receipts::Log::default();
    std::thread::scope(|scope| {
        for half in [2..150, 150..300] {
            let (log, dir) = (&log, &dir);
            scope.spawn(move || half.for_each(|number| log.ensure(host, dir, &another(number)).unwrap()));
        }
    });
    let numbers = |all: Vec<Receipt>| all.into_iter().map(|receipt| receipt.number).collect::<Vec<_>>();
    let mut all = numbers(receipts::read(host, &dir).unwrap());
    all.sort_unstable();
    assert_eq!(all, (1..300).collect::<Vec<_>>());
    // A write that was cut short, by a process that knows nothing of it any more; then the same receipt once more.
    host.append(&dir, receipts::RECEIPTS, b"{\"version\":1,\"num").unwrap();
    for log in [log, receipts::Log::default()] {
        log.ensure(host, &dir, &another(300)).unwrap();
        log.ensure(host, &dir, &another(7)).unwrap();
        assert_eq!(receipts::read(host, &dir).unwrap().len(), 300);
    }
    let (mut paged, mut place, mut pages) = (Vec::new(), 0, 0);
    loop {
        let (some, next) = receipts::read_from(host, &dir, place).unwrap();
        paged.extend(some);
        if next == place {
            break;
        }
        (place, pages) = (next, pages + 1);
    }
    assert_eq!((paged, pages > 2), (receipts::read(host, &dir).unwrap(), true));
    // A line that is none stops everything that would be freed on its strength.
    host.append(&dir, receipts::RECEIPTS, b"nonsense\n").unwrap();
    assert!(receipts::Log::default().ensure(host, &dir, &another(301)).is_err());
}
