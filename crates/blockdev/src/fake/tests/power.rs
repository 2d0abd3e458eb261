use super::*;

fn every(host: &FakeHost) -> Vec<Outcome> {
    host.outcomes(Breadth::full(32, 1))
}

#[test]
fn after_a_kill_everything_written_and_attached_is_still_there() {
    let m = made();
    let device = m.host.attach(&m.pool, "v", &m.identity).unwrap();
    let _lock = m.host.lock(&m.pool, "lock").unwrap();
    m.host.tenant_write(device.number, 0, b"live").unwrap();
    let at = m.host.steps() + 1;
    m.host.set_script(Script::new().kill_at(at, Done::Whole));
    assert!(m.host.append(&m.pool, "log", b"last words").is_err());
    assert!(m.host.is_dead() && m.host.list(&m.pool).is_err());
    let next = m.host.after_kill();
    let pool = next.open_dir(pool_path()).unwrap();
    assert_eq!(next.read(&pool, "log").unwrap().unwrap(), b"last words");
    assert_eq!(next.attachments(&pool, "v", &m.identity).unwrap()[0].device, device);
    assert_eq!(&next.tenant_read(device.number, 0, BLOCK).unwrap()[..4], b"live");
    assert!(next.lock(&pool, "lock").is_ok(), "the dead process holds no lock");
    assert!(next.waiting() > 0, "a kill makes nothing durable");
}

#[test]
fn after_a_power_cut_no_loop_device_is_left_and_numbers_change() {
    let m = made();
    let before = m.host.attach(&m.pool, "v", &m.identity).unwrap();
    m.host.set_script(Script::new().power_loss_at(m.host.steps() + 1, Done::Nothing));
    assert!(m.host.list(&m.pool).is_err());
    assert!(m.host.tenant_write(before.number, 0, b"x").is_err());
    let m = m.again(m.host.after_power_loss(&Outcome::nothing()));
    assert_eq!(m.host.attachments(&m.pool, "v", &m.identity).unwrap(), []);
    assert_ne!(m.host.attach(&m.pool, "v", &m.identity).unwrap().number, before.number);
}

#[test]
fn a_name_without_a_synced_directory_may_stay_or_go() {
    let m = made();
    m.host.write(&m.pool, "new", b"content").unwrap();
    m.host.sync_file(&m.pool, "new").unwrap();
    let found: Vec<_> = every(&m.host).iter().map(|o| m.host.after_power_loss(o).content(pool_path(), "new")).collect();
    assert!(found.contains(&None));
    assert!(found.contains(&Some(b"content".to_vec())));
    assert_eq!(found.len(), 2);
    m.host.sync_dir(&m.pool).unwrap();
    assert_eq!(every(&m.host).len(), 1, "nothing waits any more");
}

#[test]
fn a_rename_may_be_undone_and_never_leaves_half() {
    let m = made();
    for (name, content) in [("now", b"old"), ("tmp", b"new")] {
        m.host.write(&m.pool, name, content).unwrap();
        m.host.sync_file(&m.pool, name).unwrap();
    }
    m.host.sync_dir(&m.pool).unwrap();
    m.host.rename(&m.pool, "tmp", "now").unwrap();
    let mut found: Vec<_> =
        every(&m.host).iter().map(|o| m.host.after_power_loss(o).content(pool_path(), "now").unwrap()).collect();
    found.sort();
    assert_eq!(found, [b"new".to_vec(), b"old".to_vec()]);
}

#[test]
fn a_rename_of_unsynced_content_may_leave_an_empty_file() {
    let m = made();
    m.host.write(&m.pool, "tmp", b"new").unwrap();
    m.host.rename(&m.pool, "tmp", "now").unwrap();
    m.host.sync_dir(&m.pool).unwrap();
    let found: Vec<_> =
        every(&m.host).iter().map(|o| m.host.after_power_loss(o).content(pool_path(), "now").unwrap()).collect();
    assert!(found.contains(&Vec::new()) && found.contains(&b"n".to_vec()) && found.contains(&b"new".to_vec()));
}

#[test]
fn an_unlink_may_be_undone_with_all_its_content() {
    let m = made();
    let mut device = m.open();
    device.write_at(0, &filled(b'S', 16)).unwrap();
    device.flush().unwrap();
    drop(device);
    m.host.remove_backing(&m.pool, "v", &m.identity).unwrap();
    assert_eq!(m.host.backing(&m.pool, "v").unwrap(), None);
    let back = m.host.after_power_loss(&Outcome::nothing());
    assert!(back.file_bytes(pool_path(), "v").unwrap().iter().all(|b| *b == b'S'));
    m.host.sync_dir(&m.pool).unwrap();
    assert_eq!(m.host.after_power_loss(&Outcome::nothing()).names(pool_path()), Vec::<String>::new());
}

#[test]
fn an_unsynced_removal_does_not_lend_its_blocks_to_others() {
    let m = made();
    let old = m.host.map(&m.pool, "v", &m.identity).unwrap();
    m.host.remove_backing(&m.pool, "v", &m.identity).unwrap();
    let next = m.host.create_backing(&m.pool, "next").unwrap();
    m.host.allocate_backing(&m.pool, "next", &next, SIZE).unwrap();
    let new = m.host.map(&m.pool, "next", &next).unwrap();
    assert_ne!(old.extents[0].physical, new.extents[0].physical);
}

#[test]
fn a_log_may_be_cut_at_any_byte_and_truncation_undone() {
    let m = made();
    m.host.append(&m.pool, "log", b"one\n").unwrap();
    m.host.sync_file(&m.pool, "log").unwrap();
    m.host.sync_dir(&m.pool).unwrap();
    m.host.append(&m.pool, "log", b"two\n").unwrap();
    let found: Vec<_> =
        every(&m.host).iter().map(|o| m.host.after_power_loss(o).content(pool_path(), "log").unwrap()).collect();
    for end in 4..=8 {
        assert!(found.contains(&b"one\ntwo\n"[..end].to_vec()), "cut at {end}");
    }
    assert!(found.contains(&b"one\n\0\0\0\0".to_vec()), "length without content");
    m.host.sync_file(&m.pool, "log").unwrap();
    m.host.truncate(&m.pool, "log", 4).unwrap();
    let cut = m.host.after_power_loss(&Outcome::nothing());
    assert_eq!(cut.content(pool_path(), "log").unwrap(), b"one\ntwo\n");
}

#[test]
fn a_failed_sync_has_forgotten_what_it_should_have_kept() {
    let m = made();
    m.host.write(&m.pool, "log", b"one").unwrap();
    m.host.sync_dir(&m.pool).unwrap();
    m.host.set_script(Script::new().break_op("sync_file", 0, 1, Errno::EIO, Done::Part(0)));
    assert!(m.host.sync_file(&m.pool, "log").is_err());
    m.host.sync_file(&m.pool, "log").unwrap();
    assert_eq!(m.host.content(pool_path(), "log").unwrap(), b"one", "the page cache still shows it");
    let after = m.host.after_power_loss(&Outcome::nothing());
    assert_eq!(after.content(pool_path(), "log").unwrap(), b"");
}

#[test]
fn an_unsynced_allocation_may_vanish_with_or_without_its_file() {
    let m = made();
    let id = m.host.create_backing(&m.pool, "w").unwrap();
    m.host.allocate_backing(&m.pool, "w", &id, SIZE).unwrap();
    m.host.sync_dir(&m.pool).unwrap();
    let facts: Vec<_> = every(&m.host)
        .iter()
        .map(|o| m.host.after_power_loss(o).backing(&m.pool, "w").unwrap().unwrap())
        .map(|f| (f.identity == id, f.size, f.allocated))
        .collect();
    assert_eq!(facts, [(true, 0, 0), (true, SIZE, SIZE)]);
}

#[test]
fn data_may_reach_the_medium_while_the_map_still_says_unwritten() {
    let m = made();
    m.open().write_at(0, &filled(b'S', 1)).unwrap();
    let lost = m.host.after_power_loss(&Outcome::of(vec![Fate::DataOnly]));
    assert_eq!(lost.file_bytes(pool_path(), "v").unwrap()[0], 0);
    assert!(!lost.find(b"SSSS").is_empty());
}

#[test]
fn a_torn_write_is_torn_between_blocks() {
    let m = made();
    let mut device = m.open();
    m.host.set_script(Script::new().fail_at(m.host.steps() + 1, Errno::EIO, Done::Part(4)));
    assert!(device.write_at(0, &filled(b'S', 16)).is_err());
    let firsts: Vec<u8> = read(device.as_mut(), 0, 16).chunks(BLOCK).map(|b| b[0]).collect();
    let written = firsts.iter().position(|b| *b == 0).unwrap();
    assert!(written > 0 && firsts[written..].iter().all(|b| *b == 0), "{firsts:?}");
}

#[test]
fn an_older_write_does_not_come_back_over_a_flushed_one() {
    let m = made();
    let mut device = m.open();
    device.write_at(0, &filled(b'S', 1)).unwrap();
    device.zero(0, SIZE, ZeroMethod::DirectWrites).unwrap();
    assert!(!m.host.may_hold(b"SSSS").is_empty(), "before the flush it might");
    device.flush().unwrap();
    assert_eq!(m.host.may_hold(b"SSSS"), Vec::<u64>::new());
}

#[derive(Clone, Debug)]
enum Act {
    Write { block: u64, byte: u8 },
    Flush,
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let write = (0u64..16, 1u8..=255).prop_map(|(block, byte)| Act::Write { block, byte });
    prop::collection::vec(prop_oneof![4 => write, 1 => Just(Act::Flush)], 1..24)
}

/// What each block may hold after a power cut: the last flushed byte and every one written since.
fn play(m: &Made, acts: &[Act]) -> Vec<Vec<u8>> {
    let mut allowed = vec![vec![0u8]; 16];
    let mut device = m.open();
    for act in acts {
        match act {
            Act::Write { block, byte } => {
                device.write_at(block * BLOCK as u64, &filled(*byte, 1)).unwrap();
                allowed[usize::try_from(*block).unwrap()].push(*byte);
            }
            Act::Flush => {
                device.flush().unwrap();
                for list in &mut allowed {
                    list.drain(..list.len() - 1);
                }
            }
        }
    }
    allowed
}

fn firsts(host: &FakeHost) -> Vec<u8> {
    host.file_bytes(pool_path(), "v").unwrap().chunks(BLOCK).map(|b| b[0]).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn what_a_flush_covered_survives_and_nothing_is_invented(acts in acts()) {
        let m = made();
        let allowed = play(&m, &acts);
        for outcome in m.host.outcomes(Breadth { each: 8, cuts: 4, random: 8, seed: 3 }) {
            let found = firsts(&m.host.after_power_loss(&outcome));
            for (block, byte) in found.iter().enumerate() {
                prop_assert!(allowed[block].contains(byte), "block {block} holds {byte} after {outcome}");
            }
        }
    }

    #[test]
    fn an_uncovered_write_sometimes_survives_and_sometimes_not(acts in acts(), block in 0u64..16) {
        let m = made();
        play(&m, &acts);
        let before = firsts(&m.host)[usize::try_from(block).unwrap()];
        let byte = before.wrapping_add(1).max(1);
        m.open().write_at(block * BLOCK as u64, &filled(byte, 1)).unwrap();
        let found: Vec<u8> = every(&m.host)
            .iter()
            .map(|o| firsts(&m.host.after_power_loss(o))[usize::try_from(block).unwrap()])
            .collect();
        prop_assert!(found.contains(&byte));
        prop_assert!(found.iter().any(|f| *f != byte));
    }

    #[test]
    fn the_same_script_and_seed_give_the_same_machine(acts in acts(), seed in any::<u64>(), at in 6u64..20) {
        let run = || {
            let m = made();
            m.host.set_script(Script::new().power_loss_at(at, Done::Part(seed)));
            if let Ok(mut device) = m.host.open_backing(&m.pool, "v", &m.identity, SIZE) {
                for act in &acts {
                    let done = match act {
                        Act::Write { block, byte } => device.write_at(block * BLOCK as u64, &filled(*byte, 1)),
                        Act::Flush => device.flush(),
                    };
                    if done.is_err() {
                        break;
                    }
                }
            }
            let outcomes = m.host.outcomes(Breadth { each: 3, cuts: 3, random: 4, seed });
            let media: Vec<Vec<u8>> = outcomes.iter().map(|o| firsts(&m.host.after_power_loss(o))).collect();
            (m.host.trace(), outcomes, media)
        };
        prop_assert_eq!(run(), run());
    }
}
