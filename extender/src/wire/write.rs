//! Writing an answer: PascalCase, every key present.

use std::borrow::Cow;

use bedplate_core::placement::Reason;

use super::{Form, Nodes};

/// Nodes that do not fit, by their places in the request.
pub type Misfits = Vec<(u32, Reason)>;

/// The answer to filter for a pod that is none of ours: every node, as it came.
#[must_use]
pub fn echo(nodes: &Form) -> Vec<u8> {
    let (key, other, raw) = match nodes {
        Form::Names { text, .. } => ("NodeNames", "Nodes", *text),
        Form::Objects(raw) => ("Nodes", "NodeNames", raw.get()),
    };
    let mut out = Vec::with_capacity(raw.len() + 128);
    out.extend_from_slice(format!("{{\"{other}\":null,\"{key}\":").as_bytes());
    out.extend_from_slice(raw.as_bytes());
    out.extend_from_slice(br#","FailedNodes":{},"FailedAndUnresolvableNodes":{},"Error":""}"#);
    out
}

/// The answer to filter. `fits` and `misfits` are places in `nodes`. Misfits are unresolvable: evicting pods frees no disk,
/// so the scheduler need not try.
#[must_use]
pub fn filtered(nodes: &Nodes, fits: &[u32], misfits: &Misfits) -> Vec<u8> {
    let length: usize = nodes.names.iter().map(|name| name.len() + 4).sum();
    let reasons: usize = misfits.iter().map(|(_, reason)| reason.text().len() + 4).sum();
    let mut out = Vec::with_capacity(256 + length + reasons);
    if let Some(objects) = &nodes.objects {
        out.extend_from_slice(br#"{"Nodes":{"metadata":{},"items":["#);
        let fitting = fits.iter().filter_map(|place| objects.get(*place as usize));
        listed(&mut out, fitting, |out, object| out.extend_from_slice(object.get().as_bytes()));
        out.extend_from_slice(br#"]},"NodeNames":null"#);
    } else {
        out.extend_from_slice(br#"{"Nodes":null,"NodeNames":["#);
        listed(&mut out, fits.iter().filter_map(|place| nodes.names.get(*place as usize)), quoted);
        out.push(b']');
    }
    out.extend_from_slice(br#","FailedNodes":{},"FailedAndUnresolvableNodes":{"#);
    let failed = misfits.iter().filter_map(|(place, reason)| Some((nodes.names.get(*place as usize)?, reason)));
    listed(&mut out, failed, |out, (name, reason)| {
        quoted(out, name);
        out.extend_from_slice(b":\"");
        out.extend_from_slice(reason.text().as_bytes());
        out.push(b'"');
    });
    out.extend_from_slice(br#"},"Error":""}"#);
    out
}

/// Things with commas between them.
fn listed<T>(out: &mut Vec<u8>, things: impl Iterator<Item = T>, mut write: impl FnMut(&mut Vec<u8>, T)) {
    for (place, thing) in things.enumerate() {
        if place > 0 {
            out.push(b',');
        }
        write(out, thing);
    }
}

/// The answer to prioritize: a score a node.
#[must_use]
pub fn scores<'a>(scores: impl Iterator<Item = (&'a Cow<'a, str>, u8)>) -> Vec<u8> {
    let mut out = Vec::with_capacity(64 + scores.size_hint().0 * 72);
    out.push(b'[');
    listed(&mut out, scores, |out, (name, score)| {
        out.extend_from_slice(br#"{"Host":"#);
        quoted(out, name);
        out.extend_from_slice(br#","Score":"#);
        if score >= 10 {
            out.extend_from_slice(b"10");
        } else {
            out.push(b'0' + score);
        }
        out.push(b'}');
    });
    out.push(b']');
    out
}

/// The answer to prioritize for a pod that is none of ours: no node is better than another.
#[must_use]
pub fn no_scores() -> Vec<u8> {
    b"[]".to_vec()
}

#[expect(clippy::ptr_arg, reason = "whether it is borrowed says that it needs no escapes")]
fn quoted(out: &mut Vec<u8>, name: &Cow<str>) {
    match name {
        Cow::Borrowed(plain) => {
            out.push(b'"');
            out.extend_from_slice(plain.as_bytes());
            out.push(b'"');
        }
        Cow::Owned(any) => {
            // Writing a string into memory cannot fail.
            let _ = serde_json::to_writer(out, any);
        }
    }
}
