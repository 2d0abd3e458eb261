//! One watch: first what is there, if asked, then every change after a revision, in order, until it is closed.
//!
//! A change is told as what it means for the selector: an object that begins to match is ADDED, one that no longer does
//! is DELETED. A watcher that history no longer covers gets one ERROR with code 410 and the end.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use futures::Stream;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::Shared;
use super::call::{Call, encode};
use super::read::parse_revision;
use super::refusal::Refusal;
use super::selector::Selector;
use super::store::{Event, Object};

/// How a test ends all watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interruption {
    /// The stream ends.
    Close,
    /// An ERROR event with code 410, then the end.
    Expire,
}

/// A watch that is under way.
struct Watch {
    shared: Arc<Shared>,
    call: Call,
    selector: Selector,
    /// Everything up to this revision has been told.
    cursor: u64,
    out: Vec<u8>,
    changed: watch::Receiver<u64>,
    interrupt: watch::Receiver<Interruption>,
    end: Instant,
    /// When the next bookmark is due, if the client wants any.
    bookmark: Option<Instant>,
    done: bool,
}

/// Begins a watch. What is wrong with the request is an error; what is wrong with its revision comes in the stream.
pub(super) fn start(
    shared: &Arc<Shared>,
    call: Call,
) -> Result<impl Stream<Item = Result<Bytes, std::io::Error>> + Send + use<>, Refusal> {
    let selector = call.selector()?;
    let asked = parse_revision(&call)?;
    let initial = call.query.get("sendInitialEvents").map(|value| value == "true");
    if initial.is_some() && call.param("resourceVersionMatch") != "NotOlderThan" {
        let why = "Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan".to_owned();
        let cause = ("FieldValueForbidden", "resourceVersionMatch".to_owned(), why);
        return Err(Refusal::invalid_as("meta.k8s.io", "ListOptions", "", &[cause]));
    }
    let seconds = call.param("timeoutSeconds").parse().ok().filter(|seconds| *seconds > 0).unwrap_or(1800);
    let store = shared.store.read();
    let table = store.table(&call.res.storage).ok_or_else(Refusal::no_path)?;
    let from_scratch = initial.unwrap_or(asked.is_none());
    let mut watch = Watch {
        shared: Arc::clone(shared),
        selector,
        cursor: asked.filter(|_| !from_scratch).unwrap_or(store.revision),
        out: Vec::new(),
        changed: table.changed.subscribe(),
        interrupt: shared.interrupt.subscribe(),
        end: Instant::now() + Duration::from_secs(seconds),
        bookmark: call.flag("allowWatchBookmarks").then(|| Instant::now() + shared.options.bookmark_every),
        done: false,
        call,
    };
    let oldest = store.oldest(&watch.call.res.storage);
    if from_scratch {
        for (key, object) in table.scan(watch.call.namespace.as_deref()) {
            if watch.call.covers(key) && watch.selector.matches(&object.value) {
                tell(&watch.call, &mut watch.out, "ADDED", object);
            }
        }
        if initial.is_some() && watch.bookmark.is_some() {
            watch.tell_bookmark(true);
        }
    } else if watch.cursor < oldest {
        watch.expire(oldest);
    } else {
        watch.changed.mark_changed(); // what came since that revision is told at once
    }
    Ok(futures::stream::unfold(watch, |mut watch| async move { Some((Ok(watch.next().await?), watch)) }))
}

fn tell(call: &Call, out: &mut Vec<u8>, kind: &str, object: &Object) {
    out.extend_from_slice(format!("{{\"type\":\"{kind}\",\"object\":").as_bytes());
    encode(&call.res, object, true, out);
    out.extend_from_slice(b"}\n");
}

impl Watch {
    /// What there is to tell, waited for. None: the end.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if !self.out.is_empty() {
                return Some(std::mem::take(&mut self.out).into());
            }
            if self.done {
                return None;
            }
            let due = self.bookmark.map_or(self.end, |bookmark| bookmark.min(self.end));
            tokio::select! {
                biased;
                interrupted = self.interrupt.changed() => {
                    self.done = true;
                    if interrupted.is_ok() && *self.interrupt.borrow() == Interruption::Expire {
                        self.expire(self.cursor + 1);
                    }
                }
                // The table is gone: its resource is no longer served, or the store was restored.
                changed = self.changed.changed() => match changed {
                    Ok(()) => self.catch_up(),
                    Err(_) => self.done = true,
                },
                () = sleep_until(due) => {
                    if Instant::now() >= self.end {
                        self.done = true;
                    } else {
                        self.catch_up();
                        self.tell_bookmark(false);
                    }
                }
            }
        }
    }

    fn catch_up(&mut self) {
        let shared = Arc::clone(&self.shared);
        let store = shared.store.read();
        let Some(table) = store.table(&self.call.res.storage) else {
            self.done = true;
            return;
        };
        match table.since(self.cursor) {
            Some(events) => events.for_each(|event| self.tell_change(event)),
            None => self.expire(store.oldest(&self.call.res.storage)),
        }
        self.cursor = self.cursor.max(store.revision);
    }

    fn tell_change(&mut self, event: &Event) {
        if !self.call.covers(&event.key) {
            return;
        }
        let matches = |object: &Option<Arc<Object>>| {
            object.as_ref().filter(|object| self.selector.matches(&object.value)).map(Arc::clone)
        };
        let (kind, object) = match (matches(&event.old), matches(&event.new)) {
            (None, Some(new)) => ("ADDED", new),
            (Some(_), Some(new)) => ("MODIFIED", new),
            (Some(old), None) => ("DELETED", event.last().map_or(old, Arc::clone)),
            (None, None) => return,
        };
        tell(&self.call, &mut self.out, kind, &object);
    }

    fn tell_bookmark(&mut self, initial_end: bool) {
        let res = &self.call.res;
        let mut metadata = json!({"resourceVersion": self.cursor.to_string()});
        if initial_end {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let object = json!({"kind": res.kind, "apiVersion": res.group_version(), "metadata": metadata});
        self.tell_value("BOOKMARK", &object);
        self.bookmark = Some(Instant::now() + self.shared.options.bookmark_every);
    }

    fn expire(&mut self, oldest: u64) {
        self.tell_value("ERROR", &Refusal::expired(self.cursor, oldest).body());
        self.done = true;
    }

    fn tell_value(&mut self, kind: &str, object: &Value) {
        self.out.extend_from_slice(json!({"type": kind, "object": object}).to_string().as_bytes());
        self.out.push(b'\n');
    }
}
