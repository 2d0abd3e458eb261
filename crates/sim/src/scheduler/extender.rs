//! Speaks to one extender as kube-scheduler does: PascalCase keys, explicit nulls, objects without kind and apiVersion,
//! one POST without retry, only status 200 is success.
//!
//! Input: the configuration's extender entry and a cycle's pod and nodes. Answers are judged as the real one judges
//! them: a node that was not sent is an error, `{}` means no node at all.

use axum::body::{Body, to_bytes};
use axum::http::Request;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{Client, Config, ResourceExt};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// An extender, in the words of KubeSchedulerConfiguration.
#[derive(Debug, Clone)]
pub struct ExtenderConfig {
    /// Where it listens, such as `http://127.0.0.1:9817`; `https` for TLS.
    pub url_prefix: String,
    /// Path of filter, such as `filter`; empty: it does not filter.
    pub filter_verb: String,
    /// Path of prioritize; empty: it does not score.
    pub prioritize_verb: String,
    /// Factor of its scores.
    pub weight: i64,
    /// Whether pods are scheduled without it when it fails.
    pub ignorable: bool,
    /// Of one whole request; the real default is 5 s.
    pub http_timeout: Duration,
    /// Sends node names instead of whole nodes.
    pub node_cache_capable: bool,
    /// The authority that signed its certificate, PEM; none with TLS: any certificate is taken, as the real one does.
    pub ca_file: Option<PathBuf>,
}

impl Default for ExtenderConfig {
    fn default() -> Self {
        Self {
            url_prefix: String::new(),
            filter_verb: "filter".to_owned(),
            prioritize_verb: "prioritize".to_owned(),
            weight: 1,
            ignorable: true,
            http_timeout: Duration::from_millis(500),
            node_cache_capable: true,
            ca_file: None,
        }
    }
}

/// What went wrong with a call.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    #[error("cannot reach extender {0:?}")]
    Client(String, #[source] kube::Error),
    #[error("failed {verb} with extender at URL {url}")]
    Send { verb: String, url: String, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("failed {0} with extender at URL {1}: context deadline exceeded")]
    Late(String, String),
    #[error("failed {0} with extender at URL {1}, code {2}")]
    Status(String, String, u16),
    #[error("{0}")]
    Said(String),
    #[error("extender {0:?} claims a filtered node {1:?} which is not found in the input node list")]
    Foreign(String, String),
    #[error("extender URL {0:?} is none: {1}")]
    Url(String, String),
}

/// What an extender made of the nodes.
#[derive(Debug, Default)]
pub(super) struct Filtered {
    pub fit: Vec<Arc<Node>>,
    /// Node → reason; eviction may help.
    pub failed: HashMap<String, String>,
    /// Node → reason; nothing helps.
    pub unresolvable: HashMap<String, String>,
}

/// In Go's order, unset ones as null.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Arguments {
    pod: Value,
    nodes: Option<Value>,
    node_names: Option<Vec<String>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct FilterResult {
    #[serde(alias = "nodes")]
    nodes: Option<Items>,
    #[serde(alias = "nodeNames", alias = "nodenames")]
    node_names: Option<Vec<String>>,
    #[serde(alias = "failedNodes")]
    failed_nodes: Option<HashMap<String, String>>,
    #[serde(alias = "failedAndUnresolvableNodes")]
    failed_and_unresolvable_nodes: Option<HashMap<String, String>>,
    #[serde(alias = "error")]
    error: Option<String>,
}

#[derive(Deserialize)]
struct Items {
    items: Option<Vec<Node>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HostPriority {
    #[serde(alias = "host")]
    host: String,
    #[serde(alias = "score")]
    score: i64,
}

/// A configured extender.
pub(super) struct Extender {
    pub config: ExtenderConfig,
    client: Client,
}

impl Extender {
    pub fn new(config: ExtenderConfig) -> Result<Self, CallError> {
        let url = || config.url_prefix.clone();
        let uri: axum::http::Uri = url().parse().map_err(|error| CallError::Url(url(), format!("{error}")))?;
        let mut http = Config::new(uri);
        http.default_retry = false;
        http.accept_invalid_certs = config.ca_file.is_none();
        http.root_cert_file.clone_from(&config.ca_file);
        let client = Client::try_from(http).map_err(|error| CallError::Client(url(), error))?;
        Ok(Self { config, client })
    }

    /// Which of `nodes` it leaves.
    pub async fn filter(&self, pod: &Pod, nodes: Vec<Arc<Node>>) -> Result<Filtered, CallError> {
        let verb = &self.config.filter_verb;
        if verb.is_empty() {
            return Ok(Filtered { fit: nodes, ..Filtered::default() });
        }
        let result: FilterResult = self.call(verb, &self.arguments(pod, &nodes)).await?;
        if let Some(error) = result.error.filter(|error| !error.is_empty()) {
            return Err(CallError::Said(error));
        }
        let by_name: HashMap<String, &Arc<Node>> = nodes.iter().map(|node| (node.name_any(), node)).collect();
        let sent = |name: String| {
            let node = by_name.get(&name).map(|node| Arc::clone(node));
            node.ok_or_else(|| CallError::Foreign(self.config.url_prefix.clone(), name))
        };
        let mut seen = HashSet::new();
        let fit = match (result.node_names, result.nodes) {
            (Some(names), _) if self.config.node_cache_capable => {
                names.into_iter().map(sent).collect::<Result<_, _>>()?
            }
            (_, Some(nodes)) => nodes.items.into_iter().flatten().map(Arc::new).collect(),
            _ => Vec::new(),
        };
        let fit = fit.into_iter().filter(|node: &Arc<Node>| seen.insert(node.name_any())).collect();
        let failed = result.failed_nodes.unwrap_or_default();
        Ok(Filtered { fit, failed, unresolvable: result.failed_and_unresolvable_nodes.unwrap_or_default() })
    }

    /// Its scores by node, as it gave them.
    pub async fn prioritize(&self, pod: &Pod, nodes: &[Arc<Node>]) -> Result<HashMap<String, i64>, CallError> {
        let verb = &self.config.prioritize_verb;
        if verb.is_empty() {
            return Ok(HashMap::new());
        }
        let scores: Vec<HostPriority> = self.call(verb, &self.arguments(pod, nodes)).await?;
        Ok(scores.into_iter().map(|priority| (priority.host, priority.score)).collect())
    }

    fn arguments(&self, pod: &Pod, nodes: &[Arc<Node>]) -> Arguments {
        let names = || nodes.iter().map(|node| node.name_any()).collect();
        let items = || nodes.iter().map(|node| bare(node.as_ref())).collect();
        let whole = || json!({ "metadata": {}, "items": Value::Array(items()) });
        let by_name = self.config.node_cache_capable;
        Arguments { pod: bare(pod), nodes: (!by_name).then(whole), node_names: by_name.then(names) }
    }

    async fn call<T: DeserializeOwned>(&self, verb: &str, arguments: &Arguments) -> Result<T, CallError> {
        let url = format!("{}/{verb}", self.config.url_prefix.trim_end_matches('/'));
        let late = || CallError::Late(verb.to_owned(), url.clone());
        let whole = self.exchange(verb, &url, arguments);
        tokio::time::timeout(self.config.http_timeout, whole).await.map_err(|_| late())?
    }

    async fn exchange<T: DeserializeOwned>(
        &self,
        verb: &str,
        url: &str,
        arguments: &Arguments,
    ) -> Result<T, CallError> {
        let failed = |source| CallError::Send { verb: verb.to_owned(), url: url.to_owned(), source };
        let body = serde_json::to_vec(arguments).map_err(|error| failed(error.into()))?;
        let request = Request::post(format!("/{verb}"))
            .header("content-type", "application/json")
            .body(kube::client::Body::from(body))
            .map_err(|error| failed(error.into()))?;
        let response = self.client.send(request).await.map_err(|error| failed(error.into()))?;
        if response.status() != 200 {
            return Err(CallError::Status(verb.to_owned(), url.to_owned(), response.status().as_u16()));
        }
        let body = to_bytes(Body::new(response.into_body()), usize::MAX).await.map_err(|error| failed(error.into()))?;
        serde_json::from_slice(&body).map_err(|error| failed(error.into()))
    }
}

/// As Go encodes it inside the arguments: no kind, no apiVersion; and the real scheduler keeps no managedFields.
fn bare(object: &impl serde::Serialize) -> Value {
    let mut value = serde_json::to_value(object).unwrap_or_default();
    if let Some(fields) = value.as_object_mut() {
        fields.remove("kind");
        fields.remove("apiVersion");
        fields.get_mut("metadata").and_then(Value::as_object_mut).map(|metadata| metadata.remove("managedFields"));
    }
    value
}
