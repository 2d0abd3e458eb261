//! Lists: selectors, pages and the revision they are taken at. Reads only.

use std::sync::Arc;

use super::call::{Call, encode};
use super::refusal::Refusal;
use super::store::{Key, Object, Store};

/// Where a list goes on: revision, and the last key that was given.
struct Continue {
    revision: u64,
    after: Key,
}

impl Continue {
    fn parse(token: &str) -> Result<Self, Refusal> {
        let bad = || Refusal::bad("invalid continue token: continue key is not valid");
        let [revision, namespace, name] = token.split('/').collect::<Vec<_>>().try_into().map_err(|_| bad())?;
        let revision = revision.parse().map_err(|_| bad())?;
        Ok(Self { revision, after: (namespace.to_owned(), name.to_owned()) })
    }

    fn token(&self) -> String {
        format!("{}/{}/{}", self.revision, self.after.0, self.after.1)
    }
}

/// A page of objects as they were at one revision.
pub(super) struct Page {
    revision: u64,
    objects: Vec<(Key, Arc<Object>)>,
    more: Option<Continue>,
    /// Objects behind this page; unknown with a selector.
    remaining: Option<usize>,
}

/// The page that a list asks for.
pub(super) fn list(store: &Store, call: &Call) -> Result<Page, Refusal> {
    let selector = call.selector()?;
    let limit = call.param("limit").parse().ok().filter(|limit| *limit > 0).unwrap_or(usize::MAX);
    let from = Some(call.param("continue")).filter(|token| !token.is_empty()).map(Continue::parse).transpose()?;
    let asked = revision(store, call)?;
    let exact = call.param("resourceVersionMatch") == "Exact";
    let storage = &call.res.storage;
    let (past, at) = match (&from, asked) {
        (Some(from), _) => (from.revision != store.revision, from.revision),
        (None, Some(asked)) if exact => (asked != store.revision, asked),
        _ => (false, store.revision),
    };
    let expired = || Refusal::expired(at, store.oldest(storage));
    let past = if past && at < store.compacted { return Err(expired()) } else { past };
    let snapshot = if past { Some(store.at(storage, at).ok_or_else(expired)?) } else { None };
    let objects = match (&snapshot, store.table(storage)) {
        (Some(objects), _) => objects,
        (None, Some(table)) => &table.objects,
        (None, None) => return Err(Refusal::no_path()),
    };
    let first: Key = (call.namespace.clone().unwrap_or_default(), String::new());
    let mut wanted = objects
        .range(from.as_ref().map_or(first, |from| from.after.clone())..)
        .filter(|(key, _)| from.as_ref().is_none_or(|from| **key != from.after))
        .take_while(|((namespace, _), _)| call.namespace.as_ref().is_none_or(|wanted| wanted == namespace))
        .filter(|(key, object)| call.covers(key) && selector.matches(&object.value));
    let taken: Vec<_> = wanted.by_ref().take(limit).collect();
    let rest = wanted.count();
    Ok(Page {
        revision: at,
        more: taken.last().filter(|_| rest > 0).map(|(key, _)| Continue { revision: at, after: (*key).clone() }),
        remaining: (rest > 0 && selector.is_empty()).then_some(rest),
        objects: taken.into_iter().map(|(key, object)| (key.clone(), Arc::clone(object))).collect(),
    })
}

/// The resourceVersion that a list or watch names. None: none, or 0. One that is not reached yet is refused, as after
/// the time that a real server waits for it.
fn revision(store: &Store, call: &Call) -> Result<Option<u64>, Refusal> {
    let asked = parse_revision(call)?;
    match asked {
        Some(asked) if asked > store.revision => Err(Refusal::future(asked, store.revision)),
        other => Ok(other),
    }
}

/// The resourceVersion that a query names; None if none or 0.
pub(super) fn parse_revision(call: &Call) -> Result<Option<u64>, Refusal> {
    match call.param("resourceVersion") {
        "" | "0" => Ok(None),
        text => text.parse().map(Some).map_err(|_| Refusal::bad(format!("resourceVersion {text} is no number"))),
    }
}

impl Page {
    pub fn keys(&self) -> impl Iterator<Item = &Key> {
        self.objects.iter().map(|(key, _)| key)
    }

    /// The List object. Items of built-in kinds carry no kind of their own, as on a real server.
    pub fn encode(&self, call: &Call) -> Vec<u8> {
        let res = &call.res;
        let more = self.more.as_ref().map(|more| format!(",\"continue\":\"{}\"", more.token())).unwrap_or_default();
        let left = self.remaining.map(|left| format!(",\"remainingItemCount\":{left}")).unwrap_or_default();
        let (kind, version, revision) = (&res.kind, res.group_version(), self.revision);
        let mut body = format!(
            "{{\"kind\":\"{kind}List\",\"apiVersion\":\"{version}\",\"metadata\":{{\"resourceVersion\":\"{revision}\"{more}{left}}},\"items\":["
        )
        .into_bytes();
        for (place, (_, object)) in self.objects.iter().enumerate() {
            if place > 0 {
                body.push(b',');
            }
            encode(res, object, res.custom(), &mut body);
        }
        body.extend_from_slice(b"]}");
        body
    }
}
