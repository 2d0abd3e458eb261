//! The scheduler extender: filter and prioritize over an in-memory index.
