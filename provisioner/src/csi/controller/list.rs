//! ListVolumes, in order of id. A token names the last id of its page, so pages stay right when volumes come and go.

use super::volume;
use crate::csi::reply::status;
use crate::csi::request::BadField;
use crate::csi::{Driver, View};
use bedplate_core::ids::VolumeId;
use bedplate_csi::v1::list_volumes_response::{Entry, VolumeStatus};
use bedplate_csi::v1::{ListVolumesRequest, ListVolumesResponse};
use tonic::{Code, Status};

/// Marks a token as one of ours, of this form.
const TOKEN: &str = "after:";

/// Why there is no page.
#[derive(Debug, thiserror::Error)]
enum ListError {
    #[error(transparent)]
    Field(BadField),
    #[error("field starting_token: {0:?} is not a token of this service; begin again with an empty one")]
    Token(String),
}

impl From<ListError> for Status {
    fn from(error: ListError) -> Self {
        let code = match error {
            ListError::Field(_) => Code::InvalidArgument,
            ListError::Token(_) => Code::Aborted,
        };
        status(code, &error)
    }
}

/// One page.
pub fn run(driver: &Driver, given: &ListVolumesRequest) -> Result<ListVolumesResponse, Status> {
    let max = usize::try_from(given.max_entries).map_err(|_| {
        let why = format!("is {}; use 0 for all, or a positive number", given.max_entries);
        ListError::Field(BadField { field: "max_entries", why })
    })?;
    let after = token(&given.starting_token)?;
    let mut views = View::all(&driver.engine);
    views.retain(|view| after.as_ref().is_none_or(|after| view.id > *after));
    let mut next_token = String::new();
    if max != 0 && views.len() > max {
        views.truncate(max);
        next_token = views.last().map(|last| format!("{TOKEN}{}", last.id)).unwrap_or_default();
    }
    let entries = views
        .iter()
        .map(|view| Entry {
            volume: Some(volume(view, driver)),
            status: Some(VolumeStatus { published_node_ids: Vec::new(), volume_condition: Some(view.condition()) }),
        })
        .collect();
    Ok(ListVolumesResponse { entries, next_token })
}

fn token(text: &str) -> Result<Option<VolumeId>, ListError> {
    if text.is_empty() {
        return Ok(None);
    }
    let id = text.strip_prefix(TOKEN).and_then(|id| id.parse().ok());
    id.map(Some).ok_or_else(|| ListError::Token(text.chars().take(128).collect()))
}
