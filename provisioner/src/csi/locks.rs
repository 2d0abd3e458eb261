//! One operation at a time on a volume, a name or a path. A second caller is not queued but told ABORTED, as the
//! specification has it, and comes again.
//!
//! The guard travels into the blocking work: a client that goes away drops its call, not the work and not the lock.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

/// What is locked.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Key {
    /// A volume's id.
    Volume(String),
    /// A name to be created.
    Name(String),
    /// A staging or target path.
    Path(String),
}

/// The keys that are taken.
#[derive(Debug, Clone, Default)]
pub struct Locks {
    taken: Arc<Mutex<HashSet<Key>>>,
}

/// Somebody else has it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("an operation on {what} is still running; wait for it and call again")]
pub struct Taken {
    what: String,
}

impl Locks {
    /// Takes all of `keys`, or none.
    ///
    /// # Errors
    /// One of them is taken.
    pub fn take(&self, keys: Vec<Key>) -> Result<Guard, Taken> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(key) = keys.iter().find(|key| taken.contains(key)) {
            let what = match key {
                Key::Volume(id) => format!("volume {id:?}"),
                Key::Name(name) => format!("the volume named {name:?}"),
                Key::Path(path) => format!("path {path:?}"),
            };
            return Err(Taken { what });
        }
        taken.extend(keys.iter().cloned());
        Ok(Guard { locks: self.clone(), keys })
    }
}

/// Holds its keys until dropped.
#[derive(Debug)]
pub struct Guard {
    locks: Locks,
    keys: Vec<Key>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        let mut taken = self.locks.taken.lock().unwrap_or_else(PoisonError::into_inner);
        for key in &self.keys {
            taken.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_given_once_and_all_keys_or_none() {
        let locks = Locks::default();
        let (volume, path) = (Key::Volume("a".into()), Key::Path("/a".into()));
        let held = locks.take(vec![volume.clone(), path.clone()]).unwrap();
        let refused = locks.take(vec![Key::Name("a".into()), volume.clone()]).unwrap_err();
        assert_eq!(refused.to_string(), "an operation on volume \"a\" is still running; wait for it and call again");
        locks.take(vec![Key::Name("a".into())]).expect("nothing of a refused set is kept");
        drop(held);
        locks.take(vec![volume, path]).unwrap();
    }
}
