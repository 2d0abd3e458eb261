//! The one store: for each resource a sorted table of JSON objects and the log of what happened to them.
//!
//! It knows revisions, history and snapshots, and nothing of Kubernetes rules: those stand in `write` and `lifecycle`.
//! Objects are kept without `kind` and `apiVersion` (the resource knows them) and are serialized once, however many
//! lists and watches they go to.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, OnceLock};

use axum::body::Bytes;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::resources::{self, Catalogue, Resource};
use super::values::{meta, text};

/// The first revision. Older ones are unknown, as to a server that was compacted.
const FIRST: u64 = 1000;

/// (namespace, name).
pub(super) type Key = (String, String);

/// One stored state of an object.
#[derive(Debug)]
pub(super) struct Object {
    pub revision: u64,
    pub value: Value,
    json: OnceLock<Bytes>,
}

impl Object {
    pub fn new(revision: u64, mut value: Value) -> Self {
        meta(&mut value).insert("resourceVersion".to_owned(), json!(revision.to_string()));
        Self { revision, value, json: OnceLock::new() }
    }

    /// The object as JSON without kind and apiVersion.
    pub fn json(&self) -> Bytes {
        self.json.get_or_init(|| serde_json::to_vec(&self.value).unwrap_or_default().into()).clone()
    }
}

/// One change: what an object was and what it became.
#[derive(Debug)]
pub(super) struct Event {
    pub revision: u64,
    pub key: Key,
    pub old: Option<Arc<Object>>,
    pub new: Option<Arc<Object>>,
    last: OnceLock<Arc<Object>>,
}

impl Event {
    /// What it was, at the revision of this change: what a watcher is told when it goes.
    pub fn last(&self) -> Option<&Arc<Object>> {
        let old = self.old.as_ref()?;
        Some(self.last.get_or_init(|| Arc::new(Object::new(self.revision, old.value.clone()))))
    }
}

/// The objects of one resource.
#[derive(Debug)]
pub(super) struct Table {
    pub objects: BTreeMap<Key, Arc<Object>>,
    log: VecDeque<Arc<Event>>,
    /// Revision of the youngest change that is no longer in the log.
    trimmed: u64,
    /// Tells watchers that there is something new. Gone with the table.
    pub changed: watch::Sender<u64>,
}

impl Table {
    fn new(revision: u64) -> Self {
        Self { objects: BTreeMap::new(), log: VecDeque::new(), trimmed: revision, changed: watch::channel(0).0 }
    }

    /// Changes after `revision`, oldest first. None if some of them are forgotten.
    pub fn since(&self, revision: u64) -> Option<impl DoubleEndedIterator<Item = &Arc<Event>>> {
        let from = self.log.partition_point(|event| event.revision <= revision);
        (revision >= self.trimmed).then(|| self.log.range(from..))
    }

    /// Objects of one namespace, or all.
    pub fn scan<'a>(&'a self, namespace: Option<&'a str>) -> impl Iterator<Item = (&'a Key, &'a Arc<Object>)> {
        let from = Bound::Included((namespace.unwrap_or_default().to_owned(), String::new()));
        self.objects
            .range((from, Bound::Unbounded))
            .take_while(move |((ns, _), _)| namespace.is_none_or(|wanted| wanted == ns))
    }
}

/// All objects at one moment. Cheap: objects are shared.
#[derive(Clone, Debug)]
pub struct Snapshot {
    revision: u64,
    tables: HashMap<String, BTreeMap<Key, Arc<Object>>>,
}

/// Every table, the catalogue that says what they hold, and the counter of changes.
#[derive(Debug)]
pub(super) struct Store {
    pub revision: u64,
    /// History up to here is forgotten for new watches and for pages.
    pub compacted: u64,
    pub catalogue: Catalogue,
    /// Changes kept for each resource.
    history: usize,
    tables: HashMap<String, Table>,
}

impl Store {
    pub fn new(history: usize) -> Self {
        let mut store =
            Self { revision: FIRST, compacted: FIRST, catalogue: Catalogue::new(), history, tables: HashMap::new() };
        store.refresh_catalogue();
        store
    }

    pub fn table(&self, storage: &str) -> Option<&Table> {
        self.tables.get(storage)
    }

    pub fn get(&self, storage: &str, key: &Key) -> Option<&Arc<Object>> {
        self.tables.get(storage)?.objects.get(key)
    }

    /// Stores a new state of an object and tells the watchers.
    pub fn put(&mut self, storage: &str, key: &Key, value: Value) -> Arc<Object> {
        let object = Arc::new(Object::new(self.revision + 1, value));
        self.log(storage, key, Some(Arc::clone(&object)));
        object
    }

    /// Removes an object and tells the watchers; what it was last, if it was there.
    pub fn remove(&mut self, storage: &str, key: &Key) -> Option<Arc<Object>> {
        self.get(storage, key)?;
        self.log(storage, key, None).last().cloned()
    }

    fn log(&mut self, storage: &str, key: &Key, new: Option<Arc<Object>>) -> Arc<Event> {
        self.revision += 1;
        let (revision, history) = (self.revision, self.history);
        let table = self.tables.entry(storage.to_owned()).or_insert_with(|| Table::new(revision - 1));
        let old = match &new {
            Some(object) => table.objects.insert(key.clone(), Arc::clone(object)),
            None => table.objects.remove(key),
        };
        let event = Arc::new(Event { revision, key: key.clone(), old, new, last: OnceLock::new() });
        table.log.push_back(Arc::clone(&event));
        if table.log.len() > history
            && let Some(forgotten) = table.log.pop_front()
        {
            table.trimmed = forgotten.revision;
        }
        table.changed.send_replace(revision);
        event
    }

    /// The objects as they were at `revision`. None if that is forgotten.
    pub fn at(&self, storage: &str, revision: u64) -> Option<BTreeMap<Key, Arc<Object>>> {
        let table = self.tables.get(storage)?;
        let mut objects = table.objects.clone();
        for event in table.since(revision)?.rev() {
            match &event.old {
                Some(old) => objects.insert(event.key.clone(), Arc::clone(old)),
                None => objects.remove(&event.key),
            };
        }
        Some(objects)
    }

    /// The oldest revision that a new watch of this resource may begin at.
    pub fn oldest(&self, storage: &str) -> u64 {
        self.compacted.max(self.tables.get(storage).map_or(0, |table| table.trimmed))
    }

    /// Forgets history for whoever begins now; a live watcher still gets what it has not seen.
    pub fn compact(&mut self) {
        self.compacted = self.revision;
    }

    /// Reads again what is to be served, after a definition changed. A resource that is no longer defined loses its
    /// table, and with it its watchers.
    pub fn refresh_catalogue(&mut self) {
        let mut catalogue = resources::built_in();
        if let Some(definitions) = self.tables.get(DEFINITIONS) {
            for row in definitions.objects.values().flat_map(|object| resources::custom(&object.value)) {
                catalogue.insert((row.group.clone(), row.version.clone(), row.plural.clone()), Arc::new(row));
            }
        }
        let served: Vec<_> = catalogue.values().map(|row| row.storage.clone()).collect();
        self.tables.retain(|storage, _| served.contains(storage));
        for storage in served {
            self.tables.entry(storage).or_insert_with(|| Table::new(self.revision));
        }
        self.catalogue = catalogue;
    }

    pub fn resource(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Resource>> {
        self.catalogue.get(&(group.to_owned(), version.to_owned(), plural.to_owned()))
    }

    pub fn snapshot(&self) -> Snapshot {
        let tables = self.tables.iter().map(|(storage, table)| (storage.clone(), table.objects.clone())).collect();
        Snapshot { revision: self.revision, tables }
    }

    /// Back to a snapshot, revision and all. Every watcher's table is gone; nobody is told what changed.
    pub fn restore(&mut self, snapshot: Snapshot) {
        self.revision = snapshot.revision;
        self.compacted = snapshot.revision;
        self.tables = snapshot
            .tables
            .into_iter()
            .map(|(storage, objects)| (storage, Table { objects, ..Table::new(snapshot.revision) }))
            .collect();
        self.refresh_catalogue();
    }

    /// The definition of a custom resource's table, if it is one.
    pub fn definition(&self, storage: &str) -> Option<&Arc<Object>> {
        let (group, plural) = storage.split_once('/')?;
        let key = (String::new(), format!("{plural}.{group}"));
        self.get(DEFINITIONS, &key).filter(|object| text(&object.value, "/spec/group") == group)
    }
}

/// Where the definitions of custom resources lie.
pub(super) const DEFINITIONS: &str = "apiextensions.k8s.io/customresourcedefinitions";
