//! What a probe may do to a disk, and what may be believed of what it saw.
//!
//! Pure: which reads are allowed next ([`plan`]), where they go ([`offsets`]), how steady they were ([`stats`]), the
//! figures that are published ([`figures`]), when new figures take the place of old ones ([`mod@settle`]) and how figures
//! become labels ([`mod@bucket`]). Time and seeds are arguments; nothing here touches a device.
//!
//! A figure is an *observed read capability* of some seconds on a disk in use. It is never "steady-state IOPS": the
//! SNIA test needs a purged, preconditioned device and writes (SSS PTS 2.0.2 §7.1).

pub mod bucket;
pub mod figures;
pub mod offsets;
pub mod plan;
pub mod schedule;
pub mod settle;
pub mod stats;

pub use bucket::{bucket, bucket_latency};
pub use figures::{
    Conditions, Confidence, DepthFigure, Doubt, Engine, Figures, Medium, Method, ReadHealth, ScratchFigures,
    WriteFigures,
};
pub use offsets::Offsets;
pub use plan::{Budget, Next, Ramp, ReadPlan, Step, StepKind, StepOutcome, StopReason};
pub use schedule::next_due;
pub use settle::{Measurement, PoolWrites, Settled, agrees, settle};
pub use stats::{Stability, WINDOWS, judge, stability, windows};
