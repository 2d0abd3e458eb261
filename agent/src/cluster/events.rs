//! Events on objects, for people: told in the background, repeated ones counted up instead of written anew.
//!
//! Telling never waits and never fails the one who tells: an event that cannot be written is logged and forgotten.

use bedplate_api::names::MANAGER_AGENT;
use bedplate_core::chain::chain;
use bedplate_core::ids::NodeName;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use tokio::sync::mpsc;

/// How many events wait at most; more are dropped.
const BACKLOG: usize = 64;
/// The longest note that the API takes, in bytes.
const LONGEST: usize = 1000;

/// One event.
#[derive(Clone, Debug)]
pub struct Notice {
    kind: EventType,
    about: ObjectReference,
    reason: &'static str,
    note: String,
}

impl Notice {
    /// Something a person should look at.
    pub fn warning(about: ObjectReference, reason: &'static str, note: String) -> Self {
        Self { kind: EventType::Warning, about, reason, note }
    }

    /// Something a person may want to know.
    pub fn normal(about: ObjectReference, reason: &'static str, note: String) -> Self {
        Self { kind: EventType::Normal, about, reason, note }
    }
}

/// Where events are told.
#[derive(Clone, Debug)]
pub struct Events {
    queue: mpsc::Sender<Notice>,
}

impl Events {
    /// A teller, and the work that writes for it, to be run beside everything else.
    pub fn new(client: Client, node: &NodeName) -> (Self, impl Future<Output = ()> + Send + use<>) {
        let (queue, mut waiting) = mpsc::channel::<Notice>(BACKLOG);
        let reporter = Reporter { controller: MANAGER_AGENT.to_owned(), instance: Some(node.to_string()) };
        // A recorder remembers for minutes what it told, to count repetitions up. What is normal happens once an object.
        let recorder = Recorder::new(client.clone(), reporter.clone());
        let work = async move {
            while let Some(Notice { kind, mut about, reason, mut note }) = waiting.recv().await {
                note.truncate(note.floor_char_boundary(LONGEST));
                // Cluster-scoped objects have their events in the default namespace.
                about.namespace.get_or_insert_with(|| "default".to_owned());
                let event = Event {
                    type_: kind,
                    reason: reason.to_owned(),
                    note: Some(note),
                    action: reason.to_owned(),
                    secondary: None,
                };
                let told = match event.type_ {
                    EventType::Warning => recorder.publish(&event, &about).await,
                    EventType::Normal => Recorder::new(client.clone(), reporter.clone()).publish(&event, &about).await,
                };
                if let Err(error) = told {
                    tracing::warn!(reason, error = %chain(&error), "an event could not be written");
                }
            }
        };
        (Self { queue }, work)
    }

    /// Tell, if there is room.
    pub fn tell(&self, notice: Notice) {
        if let Err(error) = self.queue.try_send(notice) {
            tracing::debug!(error = %error, "an event was dropped");
        }
    }
}
