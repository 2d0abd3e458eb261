//! The recording as types. Read from the file, never written.

use serde::Deserialize;
use serde_json::Value;

/// What was asked and answered, case by case.
#[derive(Debug, Deserialize)]
pub struct Golden {
    cases: Vec<Case>,
}

/// Steps that follow upon each other.
#[derive(Debug, Deserialize)]
pub struct Case {
    pub name: String,
    pub steps: Vec<Step>,
}

/// One request and its answer.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Step {
    pub method: String,
    pub path: String,
    pub status: u16,
    #[serde(default)]
    pub body: Value,
    #[serde(default)]
    pub content_type: String,
    #[serde(default)]
    pub response: Value,
    #[serde(default)]
    pub events: Vec<Value>,
    #[serde(default)]
    pub note: String,
    #[serde(default)]
    pub same_resource_version_as_before: bool,
}

impl Golden {
    /// The recording of a 1.36 server.
    pub fn load() -> Self {
        serde_json::from_str(include_str!("../../golden/api-1.36.json")).expect("the recording")
    }

    pub fn names(&self) -> Vec<&str> {
        self.cases.iter().map(|case| case.name.as_str()).collect()
    }

    pub fn cases(&self) -> &[Case] {
        &self.cases
    }

    /// One case of it.
    pub fn take(self, name: &str) -> Case {
        self.cases.into_iter().find(|case| case.name == name).expect("a recorded case")
    }
}

impl Case {
    /// True if what is asked for here is what controllers do, in their own time.
    pub fn needs_controllers(&self) -> bool {
        self.name.contains("in-tree controllers")
    }
}
