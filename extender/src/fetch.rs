//! Objects that a pod names but the index lacks: waited for a moment, then fetched, never guessed.
//!
//! The scheduler's own watch may be ahead of ours by milliseconds; then waiting is enough. What is fetched serves one
//! request and is not put into the index: a watch may already have told of its end. Names that do not exist are
//! remembered for a few seconds, because classes of hand-made volumes are often names without an object.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures::future::join_all;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1 as storage;
use kube::{Api, Client};
use parking_lot::Mutex;

use crate::index::Key;
use crate::needs::Fetched;

/// How long a watch may lag before the API server is asked.
pub const PATIENCE: Duration = Duration::from_millis(50);
/// How long a name that does not exist is believed not to.
const ABSENT_FOR: Duration = Duration::from_secs(5);
/// Names remembered; beyond, all are forgotten.
const MOST_ABSENT: usize = 10_000;

/// Why an object could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// There is no API server to ask.
    #[error("no API server is configured to ask for {0:?}")]
    NoClient(Key),
    /// It did not answer.
    #[error("{key:?} cannot be read")]
    Api {
        /// What was asked for.
        key: Key,
        /// What the client says.
        #[source]
        source: Box<kube::Error>,
    },
}

/// Asks the API server.
#[derive(Default)]
pub struct Fetcher {
    client: Option<Client>,
    absent: Mutex<BTreeMap<Key, Instant>>,
}

impl Fetcher {
    /// One that asks with this client, or that can ask nobody.
    #[must_use]
    pub fn new(client: Option<Client>) -> Self {
        Self { client, ..Self::default() }
    }

    /// Which of these are known not to exist.
    pub fn known_absent(&self, keys: &[Key], fetched: &mut Fetched) {
        let absent = self.absent.lock();
        let now = Instant::now();
        for key in keys {
            if absent.get(key).is_some_and(|until| *until > now) {
                fetched.absent.insert(key.clone());
            }
        }
    }

    /// Fetch these.
    ///
    /// # Errors
    /// At the first that cannot be read. One that does not exist is no error.
    pub async fn fetch(&self, keys: &[Key], fetched: &mut Fetched) -> Result<(), FetchError> {
        for answer in join_all(keys.iter().map(|key| self.get(key))).await {
            match answer? {
                Got::Claim(namespace, name, claim) => {
                    fetched.objects.claims.entry(namespace).or_default().insert(name, (&*claim).into());
                }
                Got::Volume(name, volume) => {
                    fetched.objects.volumes.insert(name, (&*volume).into());
                }
                Got::Class(name, class) => {
                    fetched.objects.classes.insert(name, (&*class).into());
                }
                Got::Absent(key) => {
                    let mut absent = self.absent.lock();
                    if absent.len() >= MOST_ABSENT {
                        absent.clear();
                    }
                    absent.insert(key.clone(), Instant::now() + ABSENT_FOR);
                    fetched.absent.insert(key);
                }
            }
        }
        Ok(())
    }

    async fn get(&self, key: &Key) -> Result<Got, FetchError> {
        let client = || self.client.clone().ok_or_else(|| FetchError::NoClient(key.clone()));
        let failed = |source| FetchError::Api { key: key.clone(), source: Box::new(source) };
        tracing::debug!(?key, "index lacks object, asking for it");
        let absent = || Got::Absent(key.clone());
        Ok(match key {
            Key::Claim(namespace, name) => {
                let api = Api::<PersistentVolumeClaim>::namespaced(client()?, namespace);
                let got = api.get_opt(name).await.map_err(failed)?;
                got.map_or_else(absent, |claim| Got::Claim(namespace.clone(), name.clone(), Box::new(claim)))
            }
            Key::Volume(name) => {
                let got = Api::<PersistentVolume>::all(client()?).get_opt(name).await.map_err(failed)?;
                got.map_or_else(absent, |volume| Got::Volume(name.clone(), Box::new(volume)))
            }
            Key::Class(name) => {
                let got = Api::<storage::StorageClass>::all(client()?).get_opt(name).await.map_err(failed)?;
                got.map_or_else(absent, |class| Got::Class(name.clone(), Box::new(class)))
            }
        })
    }
}

enum Got {
    Claim(Box<str>, Box<str>, Box<PersistentVolumeClaim>),
    Volume(Box<str>, Box<PersistentVolume>),
    Class(Box<str>, Box<storage::StorageClass>),
    Absent(Key),
}
