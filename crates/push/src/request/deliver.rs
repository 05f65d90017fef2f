//! From what is wanted to what was sent: claims, the provider, and how the claims end.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::join_all;
use poste_provider::{Notification, Outcome};
use tokio::time::Instant;

use super::pace::Trouble;
use crate::server::{Limited, PushServer, StoreAway, Unanswered, When};
use crate::store::{Claim, ClaimEnd, ClaimKey, DeviceId, Registration};

/// A note that a device was reached is worth a write to disk only so often.
const NOTE_EVERY_S: u64 = 24 * 60 * 60;

/// In front of the message id in claims on what is held back. Message ids are 32 bytes of a hash.
const HELD_BACK: &[u8] = b"held back ";

/// Those of a notification that is sent, and of one that is held back.
fn claim_keys(message_id: &[u8], device: &DeviceId) -> [ClaimKey; 2] {
    [message_id.to_vec(), [HELD_BACK, message_id].concat()]
        .map(|message_id| ClaimKey { message_id, device: device.clone() })
}

/// What became of a notification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Delivery {
    /// The provider took it.
    Sent,
    /// An earlier request for it was sent.
    SentBefore,
    /// Not sent, because the receiver does not want it, and why: the value of a metric's label.
    HeldBack(&'static str),
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
    /// What is stored is damaged, and nothing was sent.
    Unclaimed,
}

/// Notifications of one message, at most one for each device.
pub(super) struct Deliveries {
    message_id: Vec<u8>,
    wanted: BTreeMap<DeviceId, Wanted>,
}

enum Wanted {
    Notification {
        notification: Notification,
        /// Whether it is to be noted that the device was reached.
        is_note_due: bool,
    },
    /// By us and not by the receiver: why.
    HeldBack(&'static str),
}

/// What became of a notification whose claim was won.
struct Sent {
    claim: ClaimKey,
    limited: Limited,
    /// Whether it is to be noted that the device was reached, if it was.
    is_note_due: bool,
    delivery: Delivery,
}

/// What became of all notifications of a request.
#[derive(Default)]
pub(super) struct Delivered {
    by_device: BTreeMap<DeviceId, Delivery>,
    /// How the claims that were won end.
    pub(super) ends: Vec<(ClaimKey, ClaimEnd)>,
    /// Devices of which it is to be noted that they were reached.
    pub(super) reached: Vec<DeviceId>,
    /// False if some are being sent for another request.
    pub(super) is_complete: bool,
}

impl Wanted {
    /// What is held back is claimed apart: or whoever is blocked could use up a notification that is not.
    fn claim_key(&self, message_id: &[u8], device: &DeviceId) -> ClaimKey {
        let [notification, held_back] = claim_keys(message_id, device);
        match self {
            Self::Notification { .. } => notification,
            Self::HeldBack(_) => held_back,
        }
    }

    /// Which tokens it takes.
    fn limited(&self) -> Limited {
        match self {
            Self::Notification { .. } => Limited::Notifications,
            Self::HeldBack(_) => Limited::HeldBack,
        }
    }
}

impl Deliveries {
    pub(super) fn new(message_id: &[u8]) -> Self {
        Self { message_id: message_id.to_vec(), wanted: BTreeMap::new() }
    }

    /// Adds one, unless there is one for this device that is not held back.
    pub(super) fn add(
        &mut self,
        row: &Registration,
        now: Duration,
        why_held_back: Option<&'static str>,
        notification: impl FnOnce() -> Notification,
    ) {
        let known = self.wanted.get(&row.device);
        let wanted = match (known, why_held_back) {
            (Some(Wanted::Notification { .. }), _) | (Some(_), Some(_)) => return,
            (None, Some(why)) => Wanted::HeldBack(why),
            (_, None) => {
                let note_after = row.reached_unix_s.map_or(0, |reached| reached + NOTE_EVERY_S);
                let is_note_due = note_after <= now.as_secs();
                Wanted::Notification { notification: notification(), is_note_due }
            }
        };
        self.wanted.insert(row.device.clone(), wanted);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.wanted.is_empty()
    }
}

impl Delivered {
    /// What became of none.
    pub(super) fn nothing() -> Self {
        Self { is_complete: true, ..Self::default() }
    }

    /// None if it is being sent for another request.
    pub(super) fn of(&self, device: &DeviceId) -> Option<Delivery> {
        self.by_device.get(device).copied()
    }

    /// A claim that is not ours.
    fn met(&mut self, device: DeviceId, claim: Claim) {
        let delivery = match claim {
            Claim::Sent => Delivery::SentBefore,
            Claim::Unknown => Delivery::UnknownBefore,
            Claim::Open | Claim::Won => {
                self.is_complete = false;
                return;
            }
        };
        self.by_device.insert(device, delivery);
    }
}

impl PushServer {
    /// Claims what may be sent now, and sends what it won. The claims are not ended yet: see [`Delivered::ends`].
    pub(super) async fn deliver(&self, deliveries: Deliveries, when: When) -> Result<Delivered, Unanswered> {
        let age = when.now.saturating_sub(when.made_at);
        let Deliveries { message_id, wanted } = deliveries;
        let mut delivered = Delivered::nothing();
        let is_too_old = age > self.settings.max_request_age;
        let (mut due, mut not_due) = (Vec::new(), Vec::new());
        for (device, wanted) in wanted {
            if is_too_old {
                not_due.push((device, Delivery::TooOld));
            } else if !self.allows(wanted.limited(), &device.key, when) {
                not_due.push((device, Delivery::TooFast));
            } else {
                due.push((wanted.claim_key(&message_id, &device), wanted));
            }
        }
        self.look_at_claims(&message_id, not_due, &mut delivered).await?;
        let won = self.claim(due, when.now, &mut delivered).await?;
        if won.is_empty() && delivered.by_device.is_empty() {
            return Err(Unanswered::InProgress);
        }
        for Sent { claim, limited, is_note_due, delivery } in self.send(won, age).await {
            let device = claim.device.clone();
            let end = match delivery {
                Delivery::Refused => {
                    self.give_back(limited, &device.key);
                    ClaimEnd::Refused
                }
                Delivery::Sent | Delivery::HeldBack(_) => ClaimEnd::Sent,
                _ => ClaimEnd::Unknown,
            };
            delivered.ends.push((claim, end));
            if delivery == Delivery::Sent && is_note_due {
                delivered.reached.push(device.clone());
            }
            delivered.by_device.insert(device, delivery);
        }
        Ok(delivered)
    }

    /// What is not to be sent now: it may have been, or been held back, when it was asked for before. A claim costs a
    /// write to disk, and is lost with a crash: it takes none. Claims of both kinds count, whichever this one would take:
    /// or whoever is blocked could ask again under another author's name, and learn it.
    async fn look_at_claims(
        &self,
        message_id: &[u8],
        not_due: Vec<(DeviceId, Delivery)>,
        delivered: &mut Delivered,
    ) -> Result<(), StoreAway> {
        if not_due.is_empty() {
            return Ok(());
        }
        let keys = not_due.iter().flat_map(|(device, _)| claim_keys(message_id, device)).collect();
        let met = match self.store.claims(keys).await {
            Ok(met) => met,
            Err(error) => {
                self.only_damaged(&error)?;
                let devices = not_due.into_iter().map(|(device, _)| (device, Delivery::Unclaimed));
                delivered.by_device.extend(devices);
                return Ok(());
            }
        };
        for ((device, delivery), met) in not_due.into_iter().zip(met.chunks(2)) {
            match met.iter().flatten().next() {
                Some(claim) => delivered.met(device, *claim),
                None => drop(delivered.by_device.insert(device, delivery)),
            }
        }
        Ok(())
    }

    /// Those whose claims were won.
    async fn claim(
        &self,
        due: Vec<(ClaimKey, Wanted)>,
        now: Duration,
        delivered: &mut Delivered,
    ) -> Result<Vec<(ClaimKey, Wanted)>, StoreAway> {
        if due.is_empty() {
            return Ok(Vec::new());
        }
        let keys = due.iter().map(|(key, _)| key.clone()).collect();
        let claims = match self.store.claim(keys, now.as_secs()).await {
            Ok(claims) => claims,
            Err(error) => {
                due.iter().for_each(|(key, wanted)| self.give_back(wanted.limited(), &key.device.key));
                self.only_damaged(&error)?;
                delivered.by_device.extend(due.into_iter().map(|(key, _)| (key.device, Delivery::Unclaimed)));
                return Ok(Vec::new());
            }
        };
        let mut won = Vec::new();
        for ((key, wanted), claim) in due.into_iter().zip(claims) {
            if claim == Claim::Won {
                won.push((key, wanted));
            } else {
                self.give_back(wanted.limited(), &key.device.key);
                delivered.met(key.device, claim);
            }
        }
        Ok(won)
    }

    async fn send(&self, won: Vec<(ClaimKey, Wanted)>, age: Duration) -> Vec<Sent> {
        let sending = won.into_iter().map(|(claim, wanted)| async move {
            let limited = wanted.limited();
            match wanted {
                Wanted::Notification { notification, is_note_due } => {
                    self.metrics.push_age(age);
                    let began = Instant::now();
                    let outcome = self.provider.send(notification).await;
                    self.pace.note(began.elapsed(), outcome);
                    let delivery = match outcome {
                        Outcome::Sent => Delivery::Sent,
                        Outcome::Refused(_) => Delivery::Refused,
                        Outcome::Unknown(_) => Delivery::Unknown,
                    };
                    Sent { claim, limited, is_note_due, delivery }
                }
                Wanted::HeldBack(why) => {
                    let delivery = match self.pace.wait().await {
                        None => Delivery::HeldBack(why),
                        Some(Trouble::Refused) => Delivery::Refused,
                        Some(Trouble::Unknown) => Delivery::Unknown,
                    };
                    Sent { claim, limited, is_note_due: false, delivery }
                }
            }
        });
        join_all(sending).await
    }
}

impl Delivery {
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::SentBefore => "sent_before",
            Self::HeldBack(why) => why,
            Self::Refused => "refused",
            Self::TooOld => "too_old",
            Self::TooFast => "too_fast",
            Self::Unknown => "unknown",
            Self::UnknownBefore => "unknown_before",
            Self::Unclaimed => "damaged",
        }
    }
}
