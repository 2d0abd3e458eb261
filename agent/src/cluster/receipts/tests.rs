use std::path::Path;
use std::time::Instant;

use bedplate_core::class::Class;
use bedplate_core::filesystem::FsType;
use bedplate_core::volume::{Mode, ReleaseKind};
use bedplate_provisioner::engine::{CreateVolume, Engine};
use bedplate_provisioner::receipts::{RECEIPTS, ReceiptsError};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::timeout;

use super::*;
use crate::cluster::testing::context;
use crate::metrics::tests::machine;

/// Much longer than a failed look is waited out, much shorter than until all is compared anyway.
const SOON: Duration = Duration::from_mins(1);

fn state() -> &'static Path {
    Path::new("/state")
}

/// A volume's whole life. The name of its receipt.
fn wiped(engine: &Engine, name: &str) -> String {
    let want = CreateVolume {
        name: name.to_owned(),
        required: 1 << 20,
        limit: 0,
        mode: Mode::Filesystem(FsType::Ext4),
        class: Class::default(),
        parameters: std::collections::BTreeMap::new(),
        origin: None,
    };
    let id = engine.create(&want).unwrap().id;
    engine.release(&id, ReleaseKind::Deleted, "test").unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    engine.wait_until(&id, deadline, |volume| volume.is_over().then_some(())).expect("it is not wiped");
    format!("{id}-{}", engine.receipts_given())
}

async fn soon(made: &mut UnboundedReceiver<String>) -> String {
    timeout(SOON, made.recv()).await.expect("no receipt is published").unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_log_that_was_replaced_by_a_shorter_one_is_published_anew() {
    let host = machine();
    let (context, mut made) = context(&host);
    // The clock stands still while a volume is wiped: this thread waits for it.
    let before = [wiped(&context.engine, "a"), wiped(&context.engine, "b")];
    let looking = tokio::spawn(run(context.clone()));
    assert_eq!([soon(&mut made).await, soon(&mut made).await], before);
    // A copy from before the first wipe is put back.
    host.host_write(state(), RECEIPTS, b"");
    let after = wiped(&context.engine, "c");
    assert_eq!(soon(&mut made).await, after);
    looking.abort();
}

#[tokio::test]
async fn a_place_in_another_log_is_told_from_one_where_nothing_new_is() {
    let host = machine();
    let (context, mut made) = context(&host);
    let api: Api<WipeReceipt> = Api::all(context.client.clone());
    let (first, second) = (wiped(&context.engine, "a"), wiped(&context.engine, "b"));
    let Published { place, last } = whole(&context, &api).await.unwrap();
    assert_eq!((last, made.recv().await, made.recv().await), (2, Some(first.clone()), Some(second)));
    let again = publish(&context, &api, place, &BTreeSet::new()).await.unwrap();
    assert_eq!((again.place, again.last, made.try_recv().ok()), (place, 0, None));
    let log = host.content(state(), RECEIPTS).unwrap();
    let line = log.split_inclusive(|byte| *byte == b'\n').next().unwrap();
    host.host_write(state(), RECEIPTS, line);
    let refused = publish(&context, &api, place, &BTreeSet::new()).await.err().expect("it is not seen");
    assert!(matches!(&refused, PublishError::Log(ReceiptsError::Another { place: at }) if *at == place), "{refused:?}");
    assert_eq!(whole(&context, &api).await.unwrap().place, line.len() as u64);
    assert_eq!(made.recv().await, Some(first));
}
