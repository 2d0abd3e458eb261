//! What kube-scheduler and its extenders say to each other (`k8s.io/kube-scheduler/extender/v1`).
//!
//! Go's structs carry no JSON tags, so keys are PascalCase and unset pointers arrive as `null`; inner objects are ordinary
//! Kubernetes JSON without kind. Requests are read in place: names are borrowed, the pod is read only as far as volumes,
//! and what nobody asks for is skipped. Answers are written by hand, since they are long and flat.

mod read;
mod write;

pub use read::{Arguments, Condition, Form, Malformed, Nodes, PodIn, Source, VolumeIn};
pub use write::{Misfits, echo, filtered, no_scores, scores};

#[cfg(test)]
mod tests;
