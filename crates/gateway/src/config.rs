//! The section `[gateway]`.

use std::net::SocketAddr;
use std::path::PathBuf;

use poste_rpc::client;
use poste_service::config::{ByteSize, HumanDuration, Key, Secret, Section};
use poste_service::listener;
use serde::{Deserialize, Serialize};

use crate::StartError;

/// The settings of a gateway.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GatewayConfig {
    /// Where peers connect.
    pub rlpx_listen: SocketAddr,
    /// The host in the enode; by default that of `rlpx_listen`, or 127.0.0.1 when that is unspecified.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub advertise: Option<String>,
    /// Where other services call.
    pub grpc_listen: SocketAddr,
    /// Where operators call.
    pub admin_listen: SocketAddr,
    /// Allows the two above on addresses other than loopback, in plaintext.
    pub insecure: bool,
    /// The archive's gRPC.
    pub archive: String,
    /// The id of the archive's store, hexadecimal; none: the one that was met first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub archive_store: Option<String>,
    /// The directory of what must survive: the node key, and the spool.
    pub data: PathBuf,
    /// Enodes to connect to and stay connected to.
    pub static_peers: Vec<String>,
    /// Connections at a time, static peers not counted.
    pub max_peers: usize,
    /// The least proof of work of envelopes and mail requests.
    pub min_pow: f64,
    /// What mail requests are encrypted with. The default is the public one of the deployed network: no secret.
    pub mail_password: Secret,
    /// The least time between two mail requests of one peer.
    pub mail_interval: HumanDuration,
    /// The bound of the pool of live envelopes.
    pub pool_bytes: ByteSize,
    /// The longest ttl of an envelope.
    pub max_ttl: HumanDuration,
    /// The bound of what waits for an archive that is away.
    pub archive_queue_bytes: ByteSize,
    /// The bound of the spool's files, which keep what is accepted while the archive is away.
    pub spool_size: ByteSize,
    /// Data directories of gateways that will not come back, whose spools this one drains.
    pub adopt_spools: Vec<PathBuf>,
    /// Bytes of envelopes of 64 KiB or more that one peer may add in a day; 0 is no limit.
    pub peer_quota_large: ByteSize,
    /// Bytes of envelopes from 4 KiB to below 64 KiB that one peer may add in a day; 0 is no limit.
    pub peer_quota_medium: ByteSize,
    /// Bytes of envelopes below 4 KiB that one peer may add in a day; 0 is no limit.
    pub peer_quota_small: ByteSize,
}

impl Default for GatewayConfig {
    fn default() -> Self {
        Self {
            rlpx_listen: SocketAddr::from(([0, 0, 0, 0], 30303)),
            advertise: None,
            grpc_listen: SocketAddr::from(([127, 0, 0, 1], 7100)),
            admin_listen: SocketAddr::from(([127, 0, 0, 1], 7101)),
            insecure: false,
            archive: "http://127.0.0.1:7200".to_owned(),
            archive_store: None,
            data: PathBuf::from("./poste-data/gateway"),
            static_peers: Vec::new(),
            max_peers: 500,
            min_pow: 0.000_002,
            mail_password: Secret::new("status-offline-inbox"),
            mail_interval: HumanDuration::from_secs(0),
            pool_bytes: ByteSize::mebibytes(128),
            max_ttl: HumanDuration::from_secs(24 * 60 * 60),
            archive_queue_bytes: ByteSize::mebibytes(64),
            spool_size: ByteSize::mebibytes(1024),
            adopt_spools: Vec::new(),
            peer_quota_large: ByteSize::mebibytes(256),
            peer_quota_medium: ByteSize::mebibytes(2048),
            peer_quota_small: ByteSize(0),
        }
    }
}

impl Section for GatewayConfig {
    const NAME: &'static str = "gateway";
    const KEYS: &'static [Key] = &[
        Key::listener("rlpx_listen", "where Waku and Whisper nodes connect"),
        Key::new("advertise", "the host in the enode; default: the host of rlpx_listen, or 127.0.0.1"),
        Key::listener("grpc_listen", "where other services call (Publish)"),
        Key::listener("admin_listen", "where operators call (NodeInfo, Peers)"),
        Key::new("insecure", "allow plaintext gRPC on addresses other than loopback"),
        Key::new("archive", "the archive's gRPC, http://HOST:PORT"),
        Key::new(
            "archive_store",
            "id of the store to go on with when the archive has another one than before; default: the one that was met first",
        ),
        Key::new("data", "directory of the node key (node.key) and the spool; made if it is missing"),
        Key::new("static_peers", "enodes to connect to and stay connected to"),
        Key::new("max_peers", "connections at a time, static peers not counted"),
        Key::new("min_pow", "least proof of work of envelopes and mail requests"),
        Key::secret(
            "mail_password",
            "password of mail requests; the default is the deployed network's public one",
        ),
        Key::new("mail_interval", "least time between two mail requests of one peer (0s: no limit)"),
        Key::new("pool_bytes", "bound of the pool of live envelopes in memory"),
        Key::new("max_ttl", "longest ttl of an envelope"),
        Key::new(
            "archive_queue_bytes",
            "bound of the envelopes in memory that are neither in the archive nor in the spool yet",
        ),
        Key::new(
            "spool_size",
            "bound of the files that keep accepted envelopes while the archive is away; when it is reached nothing is accepted",
        ),
        Key::new(
            "adopt_spools",
            "data directories of gateways that will not come back: what their spools hold goes to the archive",
        ),
        Key::new(
            "peer_quota_large",
            "bytes of envelopes of 64 KiB or more that one peer may add in a day (0: no limit)",
        ),
        Key::new(
            "peer_quota_medium",
            "bytes of envelopes of 4 KiB to below 64 KiB that one peer may add in a day (0: no limit)",
        ),
        Key::new(
            "peer_quota_small",
            "bytes of envelopes below 4 KiB that one peer may add in a day (0: no limit)",
        ),
    ];

    fn validate(&self) -> Result<(), String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        for (setting, address) in
            [("gateway.grpc_listen", self.grpc_listen), ("gateway.admin_listen", self.admin_listen)]
        {
            listener::check_internal(setting, address, self.insecure).map_err(|error| text(&error))?;
        }
        client::check_address(&self.archive).map_err(|error| text(&StartError::Archive(error)))?;
        crate::static_peers(&self.static_peers).map_err(|error| text(&error))?;
        crate::rules(self).map_err(|error| text(&error))?;
        crate::archive_store(self).map_err(|error| text(&error))?;
        for (setting, size) in [
            ("pool_bytes", self.pool_bytes),
            ("archive_queue_bytes", self.archive_queue_bytes),
            ("spool_size", self.spool_size),
        ] {
            if size < MIN_BOUND {
                return Err(format!("{setting} is {size}: write {MIN_BOUND} or more"));
            }
        }
        if self.adopt_spools.contains(&self.data) {
            return Err("adopt_spools names this gateway's own data directory: take it out".to_owned());
        }
        Ok(())
    }
}

/// Room for some of the largest envelopes.
const MIN_BOUND: ByteSize = ByteSize::mebibytes(4);
