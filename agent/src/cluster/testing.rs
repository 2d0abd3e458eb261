//! What the unit tests of loops work with: an engine on a machine in memory, and an API server that holds nothing and
//! takes whatever is made.

use std::path::PathBuf;
use std::sync::Arc;

use axum::body::Body as Answer;
use axum::http::{Method, Request, Response};
use bedplate_blockdev::fake::FakeHost;
use bedplate_provisioner::queue::{Throttle, WipeQueue};
use http_body_util::BodyExt;
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::{Board, Context, Events, Settings};
use crate::discover;
use crate::metrics::{Metrics, tests::engine_on};

/// A context on that machine, and the names of the objects that are made.
pub fn context(host: &FakeHost) -> (Arc<Context>, UnboundedReceiver<String>) {
    let (tell, made) = unbounded_channel();
    let client = Client::new(tower::service_fn(move |request| answer(request, tell.clone())), "default");
    let node: bedplate_core::ids::NodeName = "n1".parse().unwrap();
    let engine = Arc::new(engine_on(host));
    let throttle: Throttle = Arc::new(|_| ());
    let context = Context {
        events: Events::new(client.clone(), &node).0,
        client,
        settings: Settings {
            node: node.clone(),
            kubelet_root: PathBuf::new(),
            endpoint: PathBuf::new(),
            discover: discover::Settings::default(),
            rescan_seconds: 0,
            receipt_days: 1,
            probe: false,
        },
        node,
        queue: Arc::new(WipeQueue::start(&engine, &throttle).unwrap()),
        engine,
        metrics: Arc::new(Metrics::new().unwrap()),
        board: Board::default(),
        own_pools: Vec::new(),
        state_dir: PathBuf::from("/state"),
    };
    (Arc::new(context), made)
}

async fn answer(request: Request<Body>, made: UnboundedSender<String>) -> Result<Response<Answer>, kube::Error> {
    if request.method() != Method::POST {
        let none = json!({"apiVersion": "v1", "kind": "List", "metadata": {}, "items": []});
        return Ok(Response::new(Answer::from(none.to_string())));
    }
    let object = request.into_body().collect().await?.to_bytes();
    let read: Value = serde_json::from_slice(&object).unwrap();
    // Nobody listens any more where the test has ended.
    let _ = made.send(read["metadata"]["name"].as_str().unwrap().to_owned());
    Ok(Response::new(Answer::from(object)))
}
