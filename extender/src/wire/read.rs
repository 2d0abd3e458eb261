//! Reading a request in place.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

/// Why a request cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Malformed {
    /// Not JSON, or not of the shape.
    #[error("the body is not ExtenderArgs: {0}")]
    Json(serde_json::Error),
    /// No pod.
    #[error("ExtenderArgs has no Pod")]
    NoPod,
    /// Neither `Nodes` nor `NodeNames`.
    #[error("ExtenderArgs has neither NodeNames nor Nodes")]
    NoNodes,
    /// One of them is no list.
    #[error("NodeNames is no array, or Nodes is no NodeList")]
    NotAList,
    /// Both of them.
    #[error("ExtenderArgs has both NodeNames and Nodes")]
    BothForms,
}

/// `ExtenderArgs`.
#[derive(Debug)]
pub struct Arguments<'a> {
    /// The pod, still as text.
    pub pod: &'a RawValue,
    /// The nodes, still as text.
    pub nodes: Form<'a>,
}

/// How nodes are named.
#[derive(Debug)]
pub enum Form<'a> {
    /// `NodeNames`: the extender is configured as `nodeCacheCapable`.
    Names {
        /// As they stood in the request.
        text: &'a str,
        /// The same, read.
        names: Vec<Cow<'a, str>>,
    },
    /// `Nodes`: whole objects, as text.
    Objects(&'a RawValue),
}

/// What Go writes between pod and names.
const BETWEEN: &[u8] = br#","Nodes":null,"NodeNames":"#;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Raw<'a> {
    #[serde(borrow)]
    pod: Option<&'a RawValue>,
    #[serde(borrow)]
    nodes: Option<&'a RawValue>,
    #[serde(borrow)]
    node_names: Option<&'a RawValue>,
}

impl<'a> Arguments<'a> {
    /// Read a body.
    ///
    /// # Errors
    /// See [`Malformed`].
    pub fn read(body: &'a [u8]) -> Result<Self, Malformed> {
        if let Some(arguments) = Self::as_sent(body) {
            return Ok(arguments);
        }
        let raw: Raw = serde_json::from_slice(body).map_err(Malformed::Json)?;
        let set = |value: Option<&'a RawValue>| value.filter(|value| value.get() != "null");
        let pod = set(raw.pod).ok_or(Malformed::NoPod)?;
        let shaped = |value: Option<&'a RawValue>, begins: char| match value {
            Some(value) if !value.get().starts_with(begins) => Err(Malformed::NotAList),
            value => Ok(value),
        };
        let nodes = match (shaped(set(raw.node_names), '[')?, shaped(set(raw.nodes), '{')?) {
            (Some(names), None) => Form::Names { text: names.get(), names: strings(names.get())? },
            (None, Some(objects)) => Form::Objects(objects),
            (None, None) => return Err(Malformed::NoNodes),
            (Some(_), Some(_)) => return Err(Malformed::BothForms),
        };
        Ok(Self { pod, nodes })
    }

    /// The order in which Go writes the fields, read without looking at each byte of the names twice. Quotes within strings
    /// are escaped, so the text looked for is never part of one; what precedes it must be one whole value, and what follows
    /// it to the end an array of plain strings: then it stands at the top and nowhere else. Anything else is not for here.
    fn as_sent(body: &'a [u8]) -> Option<Self> {
        let body = body.trim_ascii();
        let inner = body.strip_prefix(br#"{"Pod":"#)?.strip_suffix(b"}")?;
        // From the front: the pod is short, and what is found within it leaves half a value before it.
        let at = memchr::memmem::find(inner, BETWEEN)?;
        let pod: &RawValue = serde_json::from_slice(inner.get(..at)?).ok()?;
        if pod.get() == "null" {
            return None;
        }
        let text = std::str::from_utf8(inner.get(at + BETWEEN.len()..)?).ok()?;
        plain(text).map(|names| Self { pod, nodes: Form::Names { text, names } })
    }

    /// The pod, as far as placement reads it.
    ///
    /// # Errors
    /// Where it is none.
    pub fn pod(&self) -> Result<PodIn<'a>, Malformed> {
        serde_json::from_str(self.pod.get()).map_err(Malformed::Json)
    }
}

/// The nodes of a request, in its order.
#[derive(Debug, Default)]
pub struct Nodes<'a> {
    /// Their names; one is borrowed only where it stood in the request without escapes.
    pub names: Vec<Cow<'a, str>>,
    /// The whole objects, where the request has them.
    pub objects: Option<Vec<&'a RawValue>>,
}

#[derive(Deserialize)]
struct NodeList<'a> {
    #[serde(borrow, default)]
    items: Option<Vec<&'a RawValue>>,
}

#[derive(Deserialize)]
struct NodeObject<'a> {
    #[serde(borrow)]
    metadata: NodeMetadata<'a>,
}

#[derive(Deserialize)]
struct NodeMetadata<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
}

impl<'a> Form<'a> {
    /// The nodes, in the request's order.
    ///
    /// # Errors
    /// Where they are not names, or objects without names.
    pub fn nodes(self) -> Result<Nodes<'a>, Malformed> {
        match self {
            Self::Names { text: _, names } => Ok(Nodes { names, objects: None }),
            Self::Objects(raw) => {
                let list: NodeList = serde_json::from_str(raw.get()).map_err(Malformed::Json)?;
                let objects = list.items.unwrap_or_default();
                let name = |object: &&'a RawValue| {
                    let node: NodeObject = serde_json::from_str(object.get()).map_err(Malformed::Json)?;
                    Ok(node.metadata.name)
                };
                let names = objects.iter().map(name).collect::<Result<_, Malformed>>()?;
                Ok(Nodes { names, objects: Some(objects) })
            }
        }
    }
}

/// An array of strings, however it is written.
fn strings(array: &str) -> Result<Vec<Cow<'_, str>>, Malformed> {
    match plain(array) {
        Some(names) => Ok(names),
        None => serde_json::from_str(array).map_err(Malformed::Json),
    }
}

/// An array of strings without escapes, which is what names of nodes are, cut at the quotes. `None` where it is anything
/// else.
fn plain(array: &str) -> Option<Vec<Cow<'_, str>>> {
    let inner = array.trim_ascii().strip_prefix('[')?.strip_suffix(']')?.trim_ascii();
    // One pass without branches: what is quoted below needs no escapes when it is written again.
    if inner.bytes().fold(0, |found, byte| found | u8::from(byte < b' ') | u8::from(byte == b'\\')) != 0 {
        return None;
    }
    let mut names = Vec::with_capacity(inner.len() / 16);
    let mut rest = inner;
    while !rest.is_empty() {
        let name = rest.strip_prefix('"')?;
        let close = memchr::memchr(b'"', name.as_bytes())?;
        names.push(Cow::Borrowed(name.get(..close)?));
        rest = name.get(close + 1..)?.trim_ascii_start();
        if !rest.is_empty() {
            rest = Some(rest.strip_prefix(',')?.trim_ascii_start()).filter(|next| !next.is_empty())?;
        }
    }
    Some(names)
}

/// A pod, as far as placement reads it. Every list may be `null`: Go writes unset ones so.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct PodIn<'a> {
    #[serde(borrow, default)]
    metadata: Metadata<'a>,
    #[serde(borrow, default)]
    spec: Spec<'a>,
    #[serde(borrow, default)]
    status: Status<'a>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata<'a> {
    #[serde(borrow, default)]
    name: Cow<'a, str>,
    #[serde(borrow, default)]
    namespace: Cow<'a, str>,
    #[serde(borrow, default)]
    uid: Cow<'a, str>,
    #[serde(borrow, default)]
    resource_version: Cow<'a, str>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Spec<'a> {
    #[serde(borrow, default)]
    volumes: Option<Vec<VolumeIn<'a>>>,
}

#[derive(Clone, Debug, Default, Deserialize)]
struct Status<'a> {
    #[serde(borrow, default)]
    conditions: Option<Vec<Condition<'a>>>,
}

/// A condition of a pod.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition<'a> {
    /// Which.
    #[serde(borrow, rename = "type", default)]
    pub kind: Cow<'a, str>,
    /// `True`, `False` or `Unknown`.
    #[serde(borrow, default)]
    pub status: Cow<'a, str>,
    /// Why, in words.
    #[serde(borrow, default)]
    pub message: Option<Cow<'a, str>>,
    /// Since when.
    #[serde(borrow, default)]
    pub last_transition_time: Option<Cow<'a, str>>,
}

/// A volume of a pod.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VolumeIn<'a> {
    #[serde(borrow, default)]
    name: Cow<'a, str>,
    #[serde(borrow, default)]
    persistent_volume_claim: Option<ClaimSource<'a>>,
    #[serde(default)]
    ephemeral: Option<serde::de::IgnoredAny>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ClaimSource<'a> {
    #[serde(borrow, default)]
    claim_name: Cow<'a, str>,
}

/// Where a pod's volume comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source<'a> {
    /// A claim of the pod's namespace.
    Claim(Cow<'a, str>),
    /// Anything that is no claim.
    Other,
}

impl PodIn<'_> {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.metadata.name
    }

    /// Its namespace.
    pub fn namespace(&self) -> &str {
        &self.metadata.namespace
    }

    /// Its uid.
    pub fn uid(&self) -> &str {
        &self.metadata.uid
    }

    /// Which version of it the scheduler looks at.
    pub fn version(&self) -> &str {
        &self.metadata.resource_version
    }

    /// The condition by which the scheduler said that it found no node, if it did.
    pub fn unscheduled(&self) -> Option<&Condition<'_>> {
        let mut conditions = self.status.conditions.iter().flatten();
        conditions.find(|condition| condition.kind == "PodScheduled" && condition.status == "False")
    }

    /// Where each of its volumes comes from.
    pub fn sources(&self) -> impl Iterator<Item = Source<'_>> {
        self.spec.volumes.iter().flatten().map(|volume| match volume {
            VolumeIn { persistent_volume_claim: Some(claim), .. } => Source::Claim(Cow::Borrowed(&claim.claim_name)),
            // Its claim is named after pod and volume.
            VolumeIn { name, ephemeral: Some(_), .. } => {
                Source::Claim(Cow::Owned(format!("{}-{name}", self.metadata.name)))
            }
            VolumeIn { .. } => Source::Other,
        })
    }
}
