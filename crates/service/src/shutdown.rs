//! The end of a process: SIGTERM and SIGINT, and how long a drain may take.

use std::io;

use serde::{Deserialize, Serialize};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::config::{HumanDuration, Key, Section};

/// The section `[drain]`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DrainConfig {
    /// Between "not ready" and the end of accepting: the time a balancer needs to look away.
    pub delay: HumanDuration,
    /// How long open work of each service may take to end.
    pub timeout: HumanDuration,
}

impl Default for DrainConfig {
    fn default() -> Self {
        Self { delay: HumanDuration::from_secs(0), timeout: HumanDuration::from_secs(10) }
    }
}

impl Section for DrainConfig {
    const NAME: &'static str = "drain";
    const KEYS: &'static [Key] = &[
        Key::new(
            "delay",
            "wait between becoming not ready and closing the listeners, for balancers to notice",
        ),
        Key::new("timeout", "how long open work of each service may take to end after that"),
    ];
}

/// The signals that end a process.
#[derive(Debug)]
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// From here on SIGTERM and SIGINT no longer kill the process; they wait for [`Signals::next`].
    pub fn listen() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for the next one and returns its name. Cancel safe.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
