//! Writes Events about pods. Repeats of one text become a series; a text that changed becomes another Event.

use k8s_openapi::api::core::v1::Pod;
use kube::runtime::events::{Event, EventType, Recorder};
use kube::{Client, Resource, ResourceExt};
use parking_lot::Mutex;
use std::collections::HashMap;

/// The API server takes no longer notes.
const LIMIT: usize = 1024;

/// The events of one component.
pub(crate) struct Notes {
    client: Client,
    component: String,
    /// Of warnings, by text.
    recorders: Mutex<HashMap<String, Recorder>>,
}

impl Notes {
    pub fn new(client: &Client, component: &str) -> Self {
        Self { client: client.clone(), component: component.to_owned(), recorders: Mutex::default() }
    }

    /// Says something about a pod; what cannot be written is only logged.
    pub async fn tell(&self, pod: &Pod, type_: EventType, reason: &str, action: &str, text: String) {
        let (reason, action, text) = (reason.to_owned(), action.to_owned(), cut(text));
        let new = || Recorder::new(self.client.clone(), self.component.as_str().into());
        let recorder = match type_ {
            EventType::Normal => new(),
            EventType::Warning => self.recorders.lock().entry(text.clone()).or_insert_with(new).clone(),
        };
        let event = Event { type_, reason, action, note: Some(text), secondary: None };
        if let Err(error) = recorder.publish(&event, &pod.object_ref(&())).await {
            tracing::debug!(error = %error, pod = pod.name_any(), "event not written");
        }
    }
}

/// As the real recorder cuts it.
fn cut(mut text: String) -> String {
    if text.len() > LIMIT {
        let end = (0..=LIMIT - 4).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
        text.push_str(" ...");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_note_is_cut_as_the_recorder_cuts_it() {
        assert_eq!(cut("x".repeat(1024)).len(), 1024);
        let note = cut("x".repeat(1025));
        assert_eq!((note.len(), &note[1019..]), (1024, "x ..."));
    }
}
