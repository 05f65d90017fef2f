//! What all peers of a gateway share.

use std::sync::Arc;

use poste_codec::PublicKey;
use poste_rlpx::{Limits, LocalNode};
use poste_service::Clock;
use poste_wire::packet::{Options, RateLimits};
use poste_wire::{Bloom, Dialect, Envelope, SymKey};

use crate::acceptance::{self, Refusal, Rules};
use crate::mailserver::{Learn, MailServer, Receipt, Stored};
use crate::metrics::Metrics;
use crate::peers::{Peer, Peers};
use crate::pool::{Pool, Pooled, Slot};
use crate::quota::PeerQuotas;
use crate::spacing::Spacing;

/// The dialects that a gateway offers.
pub(crate) const DIALECTS: [Dialect; 2] = [Dialect::Waku1, Dialect::Shh6];

/// The largest packet that is taken and sent, decompressed, in bytes: the limit of deployed nodes.
pub(crate) const MAX_MESSAGE_SIZE: usize = 1024 * 1024;

/// A node of the network, and the face of a mailserver.
#[derive(Debug)]
pub(crate) struct Node {
    /// Key and capabilities, as Hello says them.
    pub(crate) local: LocalNode,
    pub(crate) limits: Limits,
    pub(crate) rules: Rules,
    pub(crate) clock: Clock,
    pub(crate) pool: Arc<Pool>,
    pub(crate) peers: Peers,
    pub(crate) mail: Arc<dyn MailServer>,
    /// The key of the mail password.
    pub(crate) mail_key: SymKey,
    pub(crate) mail_spacing: Spacing,
    pub(crate) quotas: Arc<PeerQuotas>,
    pub(crate) metrics: Metrics,
}

impl Node {
    /// What this node says about itself: it wants everything, and confirms what it stored.
    pub(crate) fn status(&self) -> Options {
        Options {
            pow_requirement: Some(self.rules.min_pow),
            bloom: Some(Bloom::FULL),
            light: Some(false),
            confirmations: Some(true),
            packet_limits: Some(RateLimits::default()),
            topic_interest: None,
            byte_limits: Some(RateLimits::default()),
        }
    }

    /// Unix seconds.
    pub(crate) fn now(&self) -> u32 {
        u32::try_from(self.clock.unix_seconds()).unwrap_or(u32::MAX)
    }

    /// Takes one envelope from a peer (its key, and its slot) or from inside: checks it, pools it, archives it. Hashes
    /// the data.
    pub(crate) fn take(
        &self,
        envelope: &Envelope,
        from: Option<(&PublicKey, Slot)>,
    ) -> Result<Pooled, Refusal> {
        let taken = acceptance::check(envelope, self.now(), &self.rules).and_then(|pow| {
            let archive = |envelope: &Envelope| self.archive(envelope, from.map(|(key, _)| key));
            self.pool.offer(envelope, pow, from.map(|(_, slot)| slot), self.clock.now(), archive)
        });
        match &taken {
            Ok(pooled) => self.metrics.taken(pooled.known),
            Err(refusal) => self.metrics.refused(*refusal),
        }
        taken
    }

    /// Archives a new envelope, if its sender has quota left for it.
    fn archive(&self, envelope: &Envelope, from: Option<&PublicKey>) -> Result<Receipt, Refusal> {
        let (bytes, now) = (envelope.rlp().len(), self.clock.now());
        if from.is_some_and(|key| !self.quotas.has_room(key, bytes, now)) {
            return Err(Refusal::OverQuota);
        }
        let charge = from.and_then(|key| self.quotas.charge(key, bytes, now));
        let learn = charge.map(|charge| -> Learn {
            Box::new(move |stored| {
                if !stored.may_come_again() {
                    charge.keep();
                }
            })
        });
        self.mail.archive(envelope, learn).map_err(|_| Refusal::ArchiveFull)
    }

    /// How many connected peers want an envelope with this proof of work.
    pub(crate) fn takers(&self, envelope: &Envelope, pow: f64) -> usize {
        let wants =
            |peer: &Peer| peer.wants.borrow().as_ref().is_some_and(|wants| wants.takes(envelope, pow));
        self.peers.all().iter().filter(|(_, peer)| wants(peer)).count()
    }
}

/// What a receipt means for the sender of an envelope; none: this process stops without knowing.
pub(crate) async fn outcome(receipt: &Receipt) -> Option<Result<(), Refusal>> {
    match receipt.stored().await {
        Stored::Yes => Some(Ok(())),
        Stored::Refused => Some(Err(Refusal::ArchiveRefused)),
        Stored::OverQuota => Some(Err(Refusal::ArchiveOverQuota)),
        Stored::NoRoom => Some(Err(Refusal::ArchiveFull)),
        Stored::Unknown => None,
    }
}
