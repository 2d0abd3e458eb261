//! Faults that tests inject: what happens to the next requests that match.

use std::fmt;
use std::time::Duration;

use axum::http::Method;
use parking_lot::Mutex;

/// What happens to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It is refused with this HTTP code, as a Status; nothing is done.
    Refuse(u16),
    /// The connection breaks before anything is done.
    Drop,
    /// It is done, but the connection breaks before the answer: the client cannot know.
    LoseAnswer,
    /// It is done after this time.
    Delay(Duration),
}

type Matcher = Box<dyn Fn(&Method, &str) -> bool + Send + Sync>;

struct Planned {
    left: usize,
    matches: Matcher,
    fault: Fault,
}

/// The faults that are still to come.
#[derive(Default)]
pub(super) struct Faults(Mutex<Vec<Planned>>);

impl fmt::Debug for Faults {
    fn fmt(&self, formatter: &mut fmt::Formatter) -> fmt::Result {
        write!(formatter, "{} planned", self.0.lock().len())
    }
}

impl Faults {
    pub fn plan(&self, times: usize, fault: Fault, matches: Matcher) {
        self.0.lock().push(Planned { left: times, matches, fault });
    }

    pub fn clear(&self) {
        self.0.lock().clear();
    }

    /// What happens to this request; takes one off the first plan that matches.
    pub fn next(&self, method: &Method, path_and_query: &str) -> Option<Fault> {
        let mut plans = self.0.lock();
        let plan = plans.iter_mut().find(|plan| plan.left > 0 && (plan.matches)(method, path_and_query))?;
        plan.left -= 1;
        let fault = plan.fault;
        plans.retain(|plan| plan.left > 0);
        Some(fault)
    }
}
