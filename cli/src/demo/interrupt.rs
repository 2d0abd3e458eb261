//! Ctrl-C, politely: whatever runs stops at its next piece, and everything that was made is taken away again.

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// The demo was told to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("stopped by a signal")]
pub struct Interrupted;

/// Knows whether the demo was told to stop.
#[derive(Clone, Debug)]
pub struct Interrupt(watch::Receiver<bool>);

impl Interrupt {
    /// Listen for SIGINT, SIGTERM and SIGHUP from now on; they do not end the process any more.
    pub fn listen() -> anyhow::Result<Self> {
        let mut signals = Vec::new();
        for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
            signals.push(signal(kind).context("cannot listen for signals")?);
        }
        let (send, receive) = watch::channel(false);
        for mut signal in signals {
            let send = send.clone();
            tokio::spawn(async move {
                signal.recv().await;
                send.send_replace(true);
            });
        }
        Ok(Self(receive))
    }

    /// Between two pieces of work.
    pub fn check(&self) -> Result<(), Interrupted> {
        if *self.0.borrow() { Err(Interrupted) } else { Ok(()) }
    }

    /// The signal, when it comes.
    pub async fn wait(&self) -> Interrupted {
        // The senders live as long as the runtime: an error means the end as well.
        let _ = self.0.clone().wait_for(|told| *told).await;
        Interrupted
    }

    /// Wait for something, but not longer than until the signal.
    pub async fn unless<T>(&self, work: impl Future<Output = T>) -> Result<T, Interrupted> {
        tokio::select! {
            done = work => Ok(done),
            told = self.wait() => Err(told),
        }
    }
}
