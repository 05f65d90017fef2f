//! Which sections the configuration has, and which of them concern which process.

use poste_archive::ArchiveConfig;
use poste_gateway::GatewayConfig;
use poste_push::PushConfig;
use poste_service::config::Schema;
use poste_service::health::HttpConfig;
use poste_service::logging::LogConfig;
use poste_service::shutdown::DrainConfig;

/// What every server has: logs, the HTTP listener, the drain.
pub fn common() -> Schema {
    Schema::new().with::<LogConfig>().with::<HttpConfig>().with::<DrainConfig>()
}

/// The sections of `poste serve gateway`.
pub fn gateway() -> Schema {
    common().with::<GatewayConfig>()
}

/// The sections of `poste serve archive`.
pub fn archive() -> Schema {
    common().with::<ArchiveConfig>()
}

/// The sections of `poste serve push`.
pub fn push() -> Schema {
    common().with::<PushConfig>()
}

/// Every section: what a file and the environment may hold.
pub fn all() -> Schema {
    gateway().with::<ArchiveConfig>().with::<PushConfig>()
}
