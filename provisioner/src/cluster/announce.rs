//! Events: people's only way to hear why. The same thing about the same object is said once and then only counted, at most
//! every few minutes.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bedplate_api::names;
use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use tokio::sync::Mutex;

use crate::cluster::action::{Kind, Notice};

/// How long a notice is not repeated.
const QUIET: Duration = Duration::from_mins(5);
/// The longest note that the API server takes, in bytes (events.k8s.io/v1).
const LONGEST: usize = 1024;

/// Writes Events.
pub struct Announcer {
    recorder: Recorder,
    said: Mutex<HashMap<Notice, Instant>>,
    call: Duration,
}

impl Announcer {
    /// In the name of the provisioner that has this identity.
    #[must_use]
    pub fn new(client: Client, identity: &str, call: Duration) -> Self {
        let reporter =
            Reporter { controller: names::MANAGER_PROVISIONER.to_owned(), instance: Some(identity.to_owned()) };
        Self { recorder: Recorder::new(client, reporter), said: Mutex::new(HashMap::new()), call }
    }

    /// Say it, unless it was said lately. An Event that cannot be written is logged: nothing waits for it.
    pub async fn say(&self, notice: &Notice) {
        let now = Instant::now();
        {
            let mut said = self.said.lock().await;
            said.retain(|_, at| now.duration_since(*at) < QUIET);
            if said.contains_key(notice) {
                return;
            }
            said.insert(notice.clone(), now);
        }
        let (api_version, kind) = match notice.kind {
            Kind::Claim => ("v1", "PersistentVolumeClaim"),
            Kind::Volume => ("v1", "PersistentVolume"),
            Kind::Pod => ("v1", "Pod"),
            Kind::Local => ("bedplate.dev/v1alpha1", "LocalVolume"),
        };
        let about = ObjectReference {
            api_version: Some(api_version.to_owned()),
            kind: Some(kind.to_owned()),
            namespace: notice.namespace.clone(),
            name: Some(notice.name.clone()),
            uid: Some(notice.uid.clone()),
            ..ObjectReference::default()
        };
        let event = Event {
            type_: if notice.reason == names::REASON_REBUILT { EventType::Normal } else { EventType::Warning },
            reason: notice.reason.to_owned(),
            note: Some(shortened(&notice.message)),
            action: "Provision".to_owned(),
            secondary: None,
        };
        tracing::warn!(object = notice.name, reason = notice.reason, message = notice.message, "event");
        match tokio::time::timeout(self.call, self.recorder.publish(&event, &about)).await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => tracing::warn!(object = notice.name, error = %error, "event could not be written"),
            Err(_) => tracing::warn!(object = notice.name, "event could not be written in time"),
        }
        self.said.lock().await.remove(notice);
    }
}

fn shortened(message: &str) -> String {
    if message.len() <= LONGEST {
        return message.to_owned();
    }
    let mut end = LONGEST - 3;
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}...", &message[..end])
}
