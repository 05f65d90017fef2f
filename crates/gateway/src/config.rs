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
        if self.max_ttl < MIN_TTL {
            return Err(format!("max_ttl is {}: write {MIN_TTL} or more", self.max_ttl));
        }
        if self.max_peers == 0 && self.static_peers.is_empty() {
            return Err(
                "max_peers is 0 and static_peers is empty: nobody could connect; write 1 or more".to_owned()
            );
        }
        if self.mail_password.expose().is_empty() {
            return Err(
                "mail_password is empty: write one, or leave it out for the network's public one".to_owned()
            );
        }
        if self.adopt_spools.contains(&self.data) {
            return Err("adopt_spools names this gateway's own data directory: take it out".to_owned());
        }
        Ok(())
    }
}

/// Room for some of the largest envelopes.
const MIN_BOUND: ByteSize = ByteSize::mebibytes(4);
/// The shortest ttl that an envelope can have: they are whole seconds, and 0 is refused.
const MIN_TTL: HumanDuration = HumanDuration::from_secs(1);

#[cfg(test)]
mod tests {
    use poste_service::config::Schema;

    use super::*;

    #[test]
    fn fields_and_keys_agree() {
        Schema::new().with::<GatewayConfig>().verify().unwrap();
    }

    type Change = fn(&mut GatewayConfig);

    #[test]
    fn what_cannot_be_used_is_named() {
        assert_eq!(GatewayConfig::default().validate(), Ok(()));
        let cases: [(Change, &str); 8] = [
            (|config| config.max_ttl.0 = std::time::Duration::from_millis(999), "max_ttl is 999ms: write 1s"),
            (|config| config.max_peers = 0, "max_peers is 0"),
            (|config| config.mail_password = Secret::new(""), "mail_password is empty"),
            (|config| config.min_pow = -1.0, "min_pow"),
            (|config| config.spool_size = ByteSize::mebibytes(3), "spool_size is 3MiB: write 4MiB"),
            (|config| config.archive_store = Some("7".into()), "archive_store"),
            (|config| config.static_peers.push("enode://7".into()), "static_peers"),
            (|config| config.adopt_spools.push(config.data.clone()), "adopt_spools"),
        ];
        for (change, named) in cases {
            let mut config = GatewayConfig::default();
            change(&mut config);
            let error = config.validate().unwrap_err();
            assert!(error.contains(named), "{error}");
        }
    }

    #[test]
    fn a_gateway_that_only_dials_needs_no_seats() {
        let key = poste_codec::SecretKey::from_bytes(&[7; 32]).unwrap();
        let peer = poste_rlpx::Enode::new(key.public(), "127.0.0.1".to_owned(), 30303).to_string();
        let config = GatewayConfig { max_peers: 0, static_peers: vec![peer], ..GatewayConfig::default() };
        assert_eq!(config.validate(), Ok(()));
    }
}
