//! The embedded API server is held to what a real one answers: each case of `tests/golden/api-1.36.json` is a test.
//!
//! What must agree: status codes, reasons, shape and content of objects, order and types of watch events, finalizers and
//! annotations that the control plane sets. What need not: the wording of messages, and managedFields.
//! The same cases run against a real API server where one is named or installed (see `real`).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests are not seen as tests by the lint

mod compare;
mod golden;
mod real;
mod replay;
mod setup;

use bedplate_sim::apiserver::{ApiServer, Options};
use bedplate_sim::controllers;

use golden::Golden;
use replay::Replay;

/// A case against a server of its own; `control` also proves, answer by answer, that a changed one would be noticed.
/// Returns how many changes were tried.
async fn embedded(case: &str, control: bool) -> usize {
    let server = ApiServer::start(Options::default()).unwrap();
    let config = kube::Config::new(server.url().parse().unwrap());
    let case = Golden::load().take(case);
    let running = case.needs_controllers().then(|| {
        // The server's own control of namespaces suffices here.
        controllers::start(&server.client().unwrap(), controllers::Options { garbage: false, ..Default::default() })
    });
    let mut replay = Replay::new(setup::client(config).unwrap(), setup::Kind::Embedded, control);
    replay.case(&case).await;
    drop(running);
    replay.noticed
}

macro_rules! cases {
    ($($test:ident = $name:literal;)+) => {
        const CASES: &[&str] = &[$($name),+];

        $(
            #[tokio::test]
            async fn $test() {
                embedded($name, false).await;
            }
        )+
    };
}

cases! {
    discovery = "discovery";
    create_and_read = "create, read, already exists, not found";
    generate_name = "generateName";
    update = "update: stale resourceVersion conflicts, none overwrites, unchanged keeps the version";
    patches = "patches: merge, JSON (test passes and fails), strategic, unknown type";
    apply = "server-side apply: create, own, conflict, force, drop";
    apply_labels = "server-side apply on node labels by two managers";
    selectors = "selectors: equality, sets, existence, fields; bad ones";
    paging = "paging";
    watch = "watch: initial list then changes; selector enter and leave; bookmarks; closing by timeout";
    delete = "delete: body, preconditions, dry run, finalizers, collection";
    custom_resource =
        "custom resource: schema, defaulting, pruning, status subresource, generation, selectable field";
    binding = "binding a pod";
    lease = "lease: create, renew, conflicting renew";
    events = "events: new style create and series patch";
    claim = "a WaitForFirstConsumer claim through its life, as the in-tree controllers play it";
}

#[test]
fn every_recorded_case_is_replayed() {
    let golden = Golden::load();
    assert_eq!(golden.names(), CASES, "tests above, in the order of the recording");
}

#[tokio::test]
async fn an_answer_that_differs_in_anything_that_must_agree_is_noticed() {
    let tried = futures::future::join_all(CASES.iter().map(|case| embedded(case, true))).await;
    assert!(tried.iter().all(|changes| *changes > 0), "{tried:?}");
    assert!(tried.iter().sum::<usize>() > 500, "{tried:?}");
}

#[tokio::test]
async fn a_real_server_agrees_where_there_is_one() {
    let Some(real) = real::server().await else {
        println!(
            "contract: no real API server here (BEDPLATE_E2E_KUBECONFIG, KUBEBUILDER_ASSETS): the embedded one only"
        );
        return;
    };
    let golden = Golden::load();
    for case in golden.cases() {
        if real.controllers || !case.needs_controllers() {
            Replay::new(real.client.clone(), setup::Kind::Real, false).case(case).await;
        }
    }
}
