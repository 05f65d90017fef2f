//! What a gateway counts. Every label has a closed set of values: never a peer, a topic or a hash.

use poste_service::metrics::Scope;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

use crate::acceptance::Refusal;
use crate::mailserver::Stored;

/// The metrics of a gateway. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    pub(crate) peers: Gauge,
    pub(crate) pool_envelopes: Gauge,
    pub(crate) pool_bytes: Gauge,
    pub(crate) outbox_envelopes: Gauge,
    pub(crate) outbox_bytes: Gauge,
    pub(crate) archive_connected: Gauge,
    pub(crate) held_back_seconds: Gauge,
    pub(crate) spool: SpoolMetrics,
    envelopes_in: Counter,
    envelopes_known: Counter,
    envelopes_out: Counter,
    mail_envelopes: Counter,
    mail_below_floor: Counter,
    mail_damaged: Counter,
    refused: Family<Reason, Counter>,
    archived: Family<Outcome, Counter>,
    mail_requests: Family<Outcome, Counter>,
    packets_undecodable: Counter,
    packets_ignored: Counter,
    handshakes_failed: Family<Reason, Counter>,
    sessions_ended: Family<Reason, Counter>,
    connections_refused: Family<Reason, Counter>,
}

/// What is counted about a spool.
#[derive(Debug, Clone)]
pub(crate) struct SpoolMetrics {
    pub(crate) bytes: Gauge,
    pub(crate) envelopes: Gauge,
    pub(crate) full_state: Gauge,
    pub(crate) unreadable: Gauge,
    pub(crate) damaged: Gauge,
    pub(crate) spooled: Counter,
    pub(crate) drained: Counter,
    pub(crate) retired: Counter,
    pub(crate) lost: Counter,
}

impl SpoolMetrics {
    fn new(scope: &Scope) -> Self {
        Self {
            bytes: scope.gauge("spool_bytes", "Bytes of the spool's files"),
            envelopes: scope
                .gauge("spool_envelopes", "Envelopes in the spool that the archive has not acknowledged"),
            full_state: scope
                .gauge("spool_full_state", "1 while the spool is full or its disk refuses, else 0"),
            unreadable: scope.gauge(
                "spool_unreadable_files",
                "Files of the spool of which the disk does not give some part",
            ),
            damaged: scope.gauge(
                "spool_damaged_files",
                "Files of the spool in which confirmed envelopes are lost, until they are set aside",
            ),
            spooled: scope.counter("spooled_envelopes", "Envelopes confirmed from the spool"),
            drained: scope.counter("drained_envelopes", "Envelopes that went from a spool into the archive"),
            retired: scope.counter(
                "spool_retired_envelopes",
                "Confirmed envelopes that waited in a spool until they were older than what the archive keeps",
            ),
            lost: scope.counter(
                "spool_lost_envelopes",
                "Confirmed envelopes that were lost in a spool; a damaged stretch counts as one",
            ),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

impl Metrics {
    /// Registers everything.
    pub(crate) fn new(scope: &Scope) -> Self {
        let counter = |name, help| scope.counter(name, help);
        Self {
            peers: scope.gauge("peers", "Connected peers"),
            pool_envelopes: scope.gauge("pool_envelopes", "Live envelopes in the pool"),
            pool_bytes: scope.gauge("pool_bytes", "Bytes of live envelopes in the pool"),
            outbox_envelopes: scope
                .gauge("outbox_envelopes", "Envelopes that the archive has not acknowledged"),
            outbox_bytes: scope
                .gauge("outbox_bytes", "Bytes of envelopes that the archive has not acknowledged"),
            archive_connected: scope
                .gauge("archive_connected", "Whether a stream to the archive is open"),
            held_back_seconds: scope.gauge(
                "held_back_seconds",
                "Age of the oldest envelope that is in the spool, or waits for the archive for long; 0 when none is",
            ),
            spool: SpoolMetrics::new(scope),
            envelopes_in: counter(
                "received_envelopes",
                "Envelopes taken from peers and Publish for the first time",
            ),
            envelopes_known: counter("known_envelopes", "Envelopes received again"),
            envelopes_out: counter("relayed_envelopes", "Envelopes handed to peers"),
            mail_envelopes: counter("mail_envelopes", "Envelopes delivered as mail"),
            mail_below_floor: counter(
                "mail_below_floor",
                "Pages of mail whose range reached below what the archive keeps",
            ),
            mail_damaged: counter(
                "mail_damaged",
                "Pages of mail from an archive that has damaged places, which may be gaps in them",
            ),
            refused: scope.register("refused_envelopes", "Envelopes not taken, by reason", Family::default()),
            archived: scope.register(
                "archived_envelopes",
                "Envelopes that the archive answered for",
                Family::default(),
            ),
            mail_requests: scope.register(
                "mail_requests",
                "Requests for mail, by outcome",
                Family::default(),
            ),
            packets_undecodable: counter("undecodable_packets", "Packets that could not be read"),
            packets_ignored: counter("ignored_packets", "Packets of unknown kinds, and second statuses"),
            handshakes_failed: scope.register(
                "failed_handshakes",
                "Connections that came to nothing",
                Family::default(),
            ),
            sessions_ended: scope.register(
                "ended_sessions",
                "Sessions that ended, by cause",
                Family::default(),
            ),
            connections_refused: scope.register(
                "refused_connections",
                "Peers turned away",
                Family::default(),
            ),
        }
    }

    /// For another gateway's spool: counts with these, and shows its sizes to nobody.
    pub(crate) fn adopting(&self) -> Self {
        let spool = SpoolMetrics {
            bytes: Gauge::default(),
            envelopes: Gauge::default(),
            full_state: Gauge::default(),
            unreadable: Gauge::default(),
            damaged: Gauge::default(),
            ..self.spool.clone()
        };
        Self { outbox_envelopes: Gauge::default(), outbox_bytes: Gauge::default(), spool, ..self.clone() }
    }

    pub(crate) fn taken(&self, known: bool) {
        let counter = if known { &self.envelopes_known } else { &self.envelopes_in };
        counter.inc();
    }

    pub(crate) fn relayed(&self, envelopes: usize) {
        self.envelopes_out.inc_by(envelopes as u64);
    }

    pub(crate) fn mailed(&self, envelopes: usize) {
        self.mail_envelopes.inc_by(envelopes as u64);
    }

    pub(crate) fn refused(&self, refusal: Refusal) {
        self.refused.get_or_create(&Reason { reason: refusal.label() }).inc();
    }

    pub(crate) fn archived(&self, stored: Stored) {
        let outcome = match stored {
            Stored::Yes => "stored",
            Stored::Refused => "refused",
            Stored::OverQuota => "over_quota",
            Stored::NoRoom => "no_room",
            Stored::Unknown => "unknown",
        };
        self.archived.get_or_create(&Outcome { outcome }).inc();
    }

    /// A peer's page was answered by the archive: did it ask for what is retired, and may damage have made gaps in it?
    pub(crate) fn page_answered(&self, below_floor: bool, damaged: bool) {
        self.mail_below_floor.inc_by(below_floor.into());
        self.mail_damaged.inc_by(damaged.into());
    }

    pub(crate) fn mail_request(&self, outcome: &'static str) {
        self.mail_requests.get_or_create(&Outcome { outcome }).inc();
    }

    pub(crate) fn undecodable_packet(&self) {
        self.packets_undecodable.inc();
    }

    pub(crate) fn ignored_packet(&self) {
        self.packets_ignored.inc();
    }

    pub(crate) fn handshake_failed(&self, reason: &'static str) {
        self.handshakes_failed.get_or_create(&Reason { reason }).inc();
    }

    pub(crate) fn session_ended(&self, reason: &'static str) {
        self.sessions_ended.get_or_create(&Reason { reason }).inc();
    }

    pub(crate) fn connection_refused(&self, reason: &'static str) {
        self.connections_refused.get_or_create(&Reason { reason }).inc();
    }
}
