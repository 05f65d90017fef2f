//! From what is wanted to what was sent: claims, the provider, and how the claims end.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::join_all;
use poste_provider::{Notification, Outcome};

use crate::server::{Limited, PushServer};
use crate::store::{Claim, ClaimEnd, ClaimKey, DeviceId, Registration};

/// A note that a device was reached is worth a write to disk only so often.
const NOTE_EVERY_S: u64 = 24 * 60 * 60;

/// What became of a notification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Delivery {
    /// The provider took it.
    Sent,
    /// An earlier request for it was sent.
    SentBefore,
    /// Surely not sent: it may be asked for again.
    Refused,
    /// Not sent, because the request is of the past.
    TooOld,
    /// Not sent, because the receiver was notified too often.
    TooFast,
    /// Perhaps sent.
    Unknown,
    /// An earlier request for it was perhaps sent.
    UnknownBefore,
    /// The store failed before anything was sent.
    Unclaimed,
}

/// Notifications of one message, at most one for each device.
pub(super) struct Deliveries {
    message_id: Vec<u8>,
    wanted: BTreeMap<DeviceId, Wanted>,
}

struct Wanted {
    notification: Notification,
    /// Whether it is to be noted that the device was reached.
    is_note_due: bool,
}

/// What became of all notifications of a request.
pub(super) struct Delivered {
    by_device: BTreeMap<DeviceId, Delivery>,
    /// How the claims that were won end.
    pub(super) ends: Vec<(ClaimKey, ClaimEnd)>,
    /// Devices of which it is to be noted that they were reached.
    pub(super) reached: Vec<DeviceId>,
    /// False if some are being sent for another request.
    pub(super) is_complete: bool,
}

/// All notifications of a request are being sent for another one.
pub(super) struct InProgress;

impl Deliveries {
    pub(super) fn new(message_id: &[u8]) -> Self {
        Self { message_id: message_id.to_vec(), wanted: BTreeMap::new() }
    }

    /// Adds one, unless there is one for this device.
    pub(super) fn add(&mut self, row: &Registration, notification: impl FnOnce() -> Notification) {
        if !self.wanted.contains_key(&row.device) {
            let notification = notification();
            let now_s = notification.sent_at.as_secs();
            let is_note_due = row.reached_unix_s.is_none_or(|reached| reached + NOTE_EVERY_S <= now_s);
            self.wanted.insert(row.device.clone(), Wanted { notification, is_note_due });
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.wanted.is_empty()
    }

    /// What became of none.
    pub(super) fn none(self) -> Delivered {
        Delivered { by_device: BTreeMap::new(), ends: Vec::new(), reached: Vec::new(), is_complete: true }
    }
}

impl Delivered {
    /// None if it is being sent for another request.
    pub(super) fn of(&self, device: &DeviceId) -> Option<Delivery> {
        self.by_device.get(device).copied()
    }
}

impl PushServer {
    /// Claims all, and sends what it won. The claims are not ended yet: see [`Delivered::ends`].
    pub(super) async fn deliver(
        &self,
        deliveries: Deliveries,
        made_at: Duration,
        now: Duration,
    ) -> Result<Delivered, InProgress> {
        let age = now.saturating_sub(made_at);
        let Deliveries { message_id, wanted } = deliveries;
        let key = |device: &DeviceId| ClaimKey { message_id: message_id.clone(), device: device.clone() };
        let claims = match self.store.claim(wanted.keys().map(key).collect(), now.as_secs()).await {
            Ok(claims) => claims,
            Err(error) => {
                self.store_failed(&error);
                let unclaimed = |device| (device, Delivery::Unclaimed);
                let by_device = wanted.into_keys().map(unclaimed).collect();
                return Ok(Delivered { by_device, ends: Vec::new(), reached: Vec::new(), is_complete: true });
            }
        };
        if claims.iter().all(|claim| *claim == Claim::Open) {
            return Err(InProgress);
        }
        let is_complete = !claims.contains(&Claim::Open);
        let is_too_old = age > self.settings.max_request_age;
        let mut by_device = BTreeMap::new();
        let mut won = Vec::new();
        for ((device, wanted), claim) in wanted.into_iter().zip(claims) {
            let delivery = match claim {
                Claim::Won if is_too_old => Delivery::TooOld,
                Claim::Won if !self.allows(Limited::Notifications, &device.key, made_at, now) => {
                    Delivery::TooFast
                }
                Claim::Won => {
                    won.push((device, wanted));
                    continue;
                }
                Claim::Sent => Delivery::SentBefore,
                Claim::Unknown => Delivery::UnknownBefore,
                Claim::Open => continue,
            };
            by_device.insert(device, delivery);
        }
        let mut ends: Vec<_> = by_device
            .iter()
            .filter(|(_, delivery)| matches!(delivery, Delivery::TooOld | Delivery::TooFast))
            .map(|(device, _)| (key(device), ClaimEnd::Refused))
            .collect();
        let mut reached = Vec::new();
        for (device, is_note_due, outcome) in self.send(won, age).await {
            let (delivery, end) = match outcome {
                Outcome::Sent => (Delivery::Sent, ClaimEnd::Sent),
                Outcome::Refused(_) => (Delivery::Refused, ClaimEnd::Refused),
                Outcome::Unknown(_) => (Delivery::Unknown, ClaimEnd::Unknown),
            };
            ends.push((key(&device), end));
            if delivery == Delivery::Sent && is_note_due {
                reached.push(device.clone());
            }
            by_device.insert(device, delivery);
        }
        Ok(Delivered { by_device, ends, reached, is_complete })
    }

    async fn send(&self, won: Vec<(DeviceId, Wanted)>, age: Duration) -> Vec<(DeviceId, bool, Outcome)> {
        let sending = won.into_iter().map(|(device, Wanted { notification, is_note_due })| async move {
            self.metrics.push_age(age);
            (device, is_note_due, self.provider.send(notification).await)
        });
        join_all(sending).await
    }
}

impl Delivery {
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::SentBefore => "sent_before",
            Self::Refused => "refused",
            Self::TooOld => "too_old",
            Self::TooFast => "too_fast",
            Self::Unknown => "unknown",
            Self::UnknownBefore => "unknown_before",
            Self::Unclaimed => "store_failed",
        }
    }
}
