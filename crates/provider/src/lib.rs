//! The way to a device: hands one notification for one device token to whoever can make the device ring, says
//! honestly what came of it, and learns later which tokens are dead.
//!
//! What it is not: it keeps nothing, knows no registration and decides no claim; that is the caller's, who maps
//! [`Outcome`] to what it promises. No token reaches a log, a metric or a `Debug` from here.
//!
//! Start with [`PushProvider`]. [`GorushProvider`] speaks to a gorush, whose calls to our [`FeedbackHook`] become
//! [`Feedback`]; [`DirectoryProvider`] writes files, for development.

mod dead_tokens;
mod directory;
mod feedback;
mod gorush;
mod metrics;
mod notif_id;
mod notification;
mod outcome;

use std::fmt;

use futures::future::BoxFuture;
use thiserror::Error;

pub use dead_tokens::{DeadTokenPolicy, DeadTokens, Verdict};
pub use directory::DirectoryProvider;
pub use feedback::{Feedback, FeedbackHook, FeedbackSettings};
pub use gorush::{GorushProvider, GorushSettings, SettingsError};
pub use metrics::{Metrics, Registrar};
pub use notif_id::{NotificationKey, TokenFingerprint};
pub use notification::{
    CollapseId, DeviceToken, MAX_REFERENCE_BYTES, Notification, PushService, Reference, ReferenceTooLong,
    Service,
};
pub use outcome::{FailureReason, Outcome, Refused, Unknown};

/// Whoever can make a device ring.
pub trait PushProvider: Send + Sync + fmt::Debug {
    /// Hands over one notification, and says what came of it once that is known; every wait inside has a deadline.
    ///
    /// A caller that drops the future learns nothing: the notification may have been sent, or may yet be.
    fn send(&self, notification: Notification) -> BoxFuture<'_, Outcome>;

    /// Whether the provider would take a notification now, for a readiness check. Sends none.
    fn check(&self) -> BoxFuture<'_, Result<(), Unavailable>>;
}

/// Why a provider would take nothing now.
#[derive(Debug, Clone, Error, PartialEq, Eq)]
#[error("{0}")]
pub struct Unavailable(pub(crate) String);
