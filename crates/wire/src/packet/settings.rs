//! What a peer wants, as its Status and its updates add up (6/WAKU1, sections "Status options" and "Status update").

use std::collections::BTreeSet;

use super::{Dialect, Options, RateLimits, Status};
use crate::{Bloom, Topic};

/// The least proof of work of a Waku node that does not say one.
const WAKU_DEFAULT_POW: f64 = 0.001;

/// Which envelopes a node wants. Of the two ways the one it named last counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Interest {
    /// Those whose topic this filter holds.
    Bloom(Bloom),
    /// Those of exactly these topics (Waku only). An empty set wants nothing.
    Topics(BTreeSet<Topic>),
}

impl Interest {
    /// Whether an envelope of this topic is wanted.
    pub fn wants(&self, topic: Topic) -> bool {
        match self {
            Self::Bloom(bloom) => bloom.matches(topic),
            Self::Topics(topics) => topics.contains(&topic),
        }
    }
}

/// The present settings of a peer.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The least proof of work that it takes.
    pub pow_requirement: f64,
    /// Which envelopes it wants.
    pub interest: Interest,
    /// Whether it is a light node.
    pub light: bool,
    /// Whether it confirms envelopes.
    pub confirmations: bool,
    /// Packets a second that it says it takes.
    pub packet_limits: RateLimits,
    /// Bytes a second that it says it takes.
    pub byte_limits: RateLimits,
}

impl Settings {
    /// The settings after the handshake. What was not said: every topic, not light, no confirmations, no limits; any
    /// proof of work in shh/6, 0.001 in Waku.
    pub fn of_status(dialect: Dialect, status: &Status) -> Self {
        let mut settings = Self {
            pow_requirement: if dialect.is_waku() { WAKU_DEFAULT_POW } else { 0.0 },
            interest: Interest::Bloom(Bloom::FULL),
            light: false,
            confirmations: false,
            packet_limits: RateLimits::default(),
            byte_limits: RateLimits::default(),
        };
        settings.update(&status.options);
        settings
    }

    /// Takes over what an update says (22; in shh/6 packets 2, 3 and 20 as [`Options`] with one field). A topic
    /// interest replaces a bloom filter and the other way round; said together, the topic interest counts.
    pub fn update(&mut self, options: &Options) {
        self.pow_requirement = options.pow_requirement.unwrap_or(self.pow_requirement);
        self.light = options.light.unwrap_or(self.light);
        self.confirmations = options.confirmations.unwrap_or(self.confirmations);
        self.packet_limits = options.packet_limits.unwrap_or(self.packet_limits);
        self.byte_limits = options.byte_limits.unwrap_or(self.byte_limits);
        if let Some(topics) = &options.topic_interest {
            self.interest = Interest::Topics(topics.iter().copied().collect());
        } else if let Some(bloom) = options.bloom {
            self.interest = Interest::Bloom(bloom);
        }
    }
}
