//! `bedplate ready`: whether the agent serves, as an exit code. The kubelet's probes run it: the agent's admin socket is on
//! no network, and the image holds no other client.

use clap::Args;

use crate::client::Agent;

/// Whether the agent serves.
#[derive(Debug, Args)]
pub struct ReadyArgs {
    /// Only whether it answers, not whether it could make a volume.
    #[arg(long)]
    alive: bool,
    #[command(flatten)]
    agent: Agent,
}

impl ReadyArgs {
    /// Ask; an error says what is missing.
    pub async fn run(self) -> anyhow::Result<()> {
        let Self { alive, agent } = self;
        if alive { agent.alive().await } else { agent.ready().await }
    }
}
