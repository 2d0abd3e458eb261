//! The cluster half against an API server: each rule of the claim contract, each bad input, and what happens when things
//! fail in between. Agents and control plane are played by small tasks.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's helpers may panic")]

#[path = "cluster/agent.rs"]
mod agent;
#[path = "cluster/binder.rs"]
mod binder;
#[path = "cluster/world.rs"]
mod world;

#[path = "cluster/admission.rs"]
mod admission;
#[path = "cluster/faults.rs"]
mod faults;
#[path = "cluster/figures.rs"]
mod figures;
#[path = "cluster/leaders.rs"]
mod leaders;
#[path = "cluster/life.rs"]
mod life;
#[path = "cluster/program.rs"]
mod program;
#[path = "cluster/refusals.rs"]
mod refusals;
#[path = "cluster/safety.rs"]
mod safety;
