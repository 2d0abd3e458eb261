//! Many at once: those who must wait (their volume is still in use) keep nobody else from being served or wiped.
#![allow(clippy::unwrap_used, clippy::panic)] // helpers of tests are not seen as tests by the lint

use bedplate_core::ids::VolumeId;
use bedplate_core::volume::Mode;
use bedplate_provisioner::engine::Engine;
use bedplate_tests::agent::{Agent, Place};
use bedplate_tests::engine::{Node, phase, queue, release, wait, want};
use bedplate_tests::meddle::Meddler;
use bedplate_tests::orchestrator::Orchestrator;
use bedplate_tests::scripted::{STATE, machine, open_through};
use bedplate_tests::skip::need_root;
use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Volumes that are released while somebody has their files open come before it in the queue, and stay there.
#[test]
fn volumes_in_use_do_not_hold_up_the_wipes_behind_them() {
    if !need_root("volumes_in_use_do_not_hold_up_the_wipes_behind_them") {
        return;
    }
    let node = Node::new("ext4", 320).unwrap();
    let engine = node.open().unwrap();
    let make = |name: String| engine.create(&want(&name, 1, Mode::Block)).unwrap().id;
    let held: Vec<VolumeId> = (0..8).map(|n| make(format!("held {n}"))).collect();
    let files: Vec<File> =
        node.files().unwrap().iter().map(|f| File::open(node.directory().join(f)).unwrap()).collect();
    for id in &held {
        assert!(release(&engine, id).unwrap_err().to_string().contains("in use"));
    }
    drop(files);
    for id in &held {
        release(&engine, id).unwrap();
    }
    let files: Vec<File> =
        node.files().unwrap().iter().map(|f| File::open(node.directory().join(f)).unwrap()).collect();
    let wiping = queue(&engine).unwrap();
    let behind = make("behind".to_owned());
    release(&engine, &behind).unwrap();
    let freed = || (phase(&engine, &behind) == "Freed").then_some(());
    assert!(wait(Duration::from_secs(15), freed).is_some(), "{:?}", engine.volumes(false));
    assert!(held.iter().all(|id| phase(&engine, id) == "Released"));
    // And they are not forgotten over it.
    drop(files);
    let all = || engine.volumes(false).is_empty().then_some(());
    assert!(wait(Duration::from_secs(30), all).is_some(), "{:?}", engine.volumes(false));
    drop(wiping);
}

/// Each of them waits for its wipe as long as its caller does; the pods of this node still get their volumes.
#[test]
fn a_hundred_deletions_that_wait_keep_nobody_from_a_volume() {
    if !need_root("a_hundred_deletions_that_wait_keep_nobody_from_a_volume") {
        return;
    }
    let node = Node::new("ext4", 320).unwrap();
    let place = Place::new(node.place(), node.state());
    let config = place.write(&place.config(node.directory(), "")).unwrap();
    let agent = Agent::start(&place, &config).unwrap();
    let calls = Orchestrator::new(&place.csi());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let mut ids = Vec::new();
        for n in 0..100 {
            ids.push(calls.create(&format!("v{n}"), 1).await.unwrap());
        }
        // A first deletion records the release and is given up by its caller at once; then somebody opens every file.
        for id in &ids {
            let _ = calls.delete_within(id, Duration::from_millis(1)).await;
        }
        let open = |f: &String| File::open(node.directory().join(f)).ok();
        let held: Vec<File> = node.files().unwrap().iter().filter_map(open).collect();
        let (begun, target) = (Instant::now(), node.place().join("target"));
        let waiting: Vec<_> = ids
            .iter()
            .map(|id| {
                let (calls, id) = (calls.clone(), id.clone());
                tokio::spawn(async move { calls.delete_within(&id, Duration::from_secs(20)).await })
            })
            .collect();
        std::fs::create_dir(&target).unwrap();
        let id = calls.create("a pod's", 8).await.unwrap();
        calls.stage(&id, &target).await.unwrap();
        calls.unstage(&id, &target).await.unwrap();
        let took = begun.elapsed();
        assert!(took < Duration::from_secs(8), "a pod waited {took:?} behind deletions\n{}", agent.last_words());
        drop(held);
        for (id, waited) in ids.iter().zip(waiting) {
            // Whoever was sent away comes again.
            if waited.await.unwrap().is_err() {
                wait_until_deleted(&calls, id).await;
            }
        }
        wait_until_deleted(&calls, &id).await;
    });
    assert_eq!(node.files().unwrap(), Vec::<String>::new());
    assert!(agent.terminate().unwrap().success());
}

async fn wait_until_deleted(calls: &Orchestrator, id: &str) {
    let begun = Instant::now();
    while let Err(error) = calls.delete(id).await {
        assert!(begun.elapsed() < Duration::from_mins(1), "{error:#}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// While the record that a wipe is verified is still being written, its state can be seen already. Nobody is told.
#[test]
fn nobody_is_told_of_a_deletion_whose_record_is_not_durable() {
    let host = machine();
    let (written, go_on) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (look, meet, leave) = (host.clone(), written.clone(), go_on.clone());
    let slow = Meddler::new(Arc::new(host.clone()), move |op| {
        let ledger = || look.content(Path::new(STATE), "ledger.log").unwrap_or_default();
        if op == "sync_file"
            && !meet.load(Ordering::SeqCst)
            && String::from_utf8_lossy(&ledger()).contains("\"verified\"")
        {
            meet.store(true, Ordering::SeqCst);
            // A disk that takes its time for this one sync.
            assert!(wait(Duration::from_secs(20), || leave.load(Ordering::SeqCst).then_some(())).is_some());
        }
        None
    });
    let engine = open_through(Arc::new(slow)).unwrap();
    let id = engine.create(&want("a", 1, Mode::Block)).unwrap().id;
    release(&engine, &id).unwrap();
    let wiping = queue(&engine).unwrap();
    assert!(wait(Duration::from_secs(20), || written.load(Ordering::SeqCst).then_some(())).is_some());
    assert_eq!(engine.peek(&id).unwrap().phase(), "Verified", "this test shows nothing otherwise");
    let told = AtomicU32::new(0);
    std::thread::scope(|scope| {
        let ask = |question: fn(&Engine, &VolumeId)| {
            let (engine, id, told) = (&engine, &id, &told);
            scope.spawn(move || {
                question(engine, id);
                told.fetch_add(1, Ordering::SeqCst);
            });
        };
        ask(|engine, _| engine.durable().unwrap());
        ask(|engine, id| drop(engine.volume(id)));
        ask(|engine, id| drop(engine.state(id)));
        ask(|engine, id| release(engine, id).unwrap());
        let early = wait(Duration::from_millis(300), || (told.load(Ordering::SeqCst) > 0).then_some(()));
        assert!(early.is_none(), "told before the record was durable");
        go_on.store(true, Ordering::SeqCst);
    });
    assert!(wait(Duration::from_secs(20), || (phase(&engine, &id) == "Freed").then_some(())).is_some());
    drop(wiping);
}
