//! From what is wanted to what was sent: claims, the provider, and how the claims end.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::join_all;
use poste_provider::{Notification, Outcome};
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::filter::Judged;
use super::pace::Trouble;
use crate::server::{Limited, PushServer, StoreAway, Toll, When};
use crate::store::{Claim, ClaimEnd, ClaimKey, DeviceId, Registration, TokenType};

/// A note that a device was reached is worth a write to disk only so often.
const NOTE_EVERY_S: u64 = 24 * 60 * 60;

/// In front of the message id in claims on what is held back. Message ids are 32 bytes of a hash.
const HELD_BACK: &[u8] = b"held back ";
/// The same for one reason: in front of a hash of it and the message id.
const HELD_BACK_OF: &[u8] = b"held back of ";

/// The claims on a message to a device: of what is sent, and of what is held back, whomever of.
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
    /// Not sent, because the provider does not keep up.
    TurnedAway,
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

struct Wanted {
    /// A hash of whether the receiver wants it, and for what entry of the lists not, or of what author.
    about: [u8; 32],
    service: TokenType,
    kind: Kind,
}

enum Kind {
    Notification {
        notification: Notification,
        /// Whether it is to be noted that the device was reached.
        is_note_due: bool,
    },
    /// By us and not by the receiver.
    HeldBack {
        /// The value of a metric's label.
        why: &'static str,
        /// Anybody can think of any number of such.
        is_of_no_list: bool,
    },
}

/// What may be sent or held back now.
struct Due {
    device: DeviceId,
    service: TokenType,
    kind: Kind,
    toll: Toll,
    /// The first decides. None for what is held back and not claimed.
    claims: Vec<ClaimKey>,
}

/// What became of a notification whose claim was won.
struct Sent {
    device: DeviceId,
    toll: Toll,
    claims: Vec<ClaimKey>,
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

impl Kind {
    /// What is held back is claimed apart: or whoever is blocked could use up a notification that is not. It is claimed
    /// for its reason, so that the first request of each takes as long as one that is sent; and for all, so that a later one
    /// meets a claim, whoever asks.
    fn claim_keys(&self, about: &[u8; 32], message_id: &[u8], device: &DeviceId) -> Vec<ClaimKey> {
        let [notification, held_back] = claim_keys(message_id, device);
        match self {
            Self::Notification { .. } => vec![notification],
            Self::HeldBack { .. } => {
                let message_id = [HELD_BACK_OF, about, message_id].concat();
                vec![ClaimKey { message_id, device: device.clone() }, held_back]
            }
        }
    }

    fn is_held_back(&self) -> bool {
        matches!(self, Self::HeldBack { .. })
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
        judged: &Judged,
        now: Duration,
        notification: impl FnOnce() -> Notification,
    ) {
        let known = self.wanted.get(&row.device).map(|known| known.kind.is_held_back());
        let kind = match (known, judged.why_not) {
            (Some(false), _) | (Some(_), Some(_)) => return,
            (None, Some(why)) => Kind::HeldBack { why, is_of_no_list: judged.is_of_no_list() },
            (_, None) => {
                let note_after = row.reached_unix_s.map_or(0, |reached| reached + NOTE_EVERY_S);
                let is_note_due = note_after <= now.as_secs();
                Kind::Notification { notification: notification(), is_note_due }
            }
        };
        let wanted = Wanted { about: about(judged), service: row.token_type, kind };
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
    /// What is turned away is only looked up: it may have been sent before.
    pub(super) async fn deliver(
        &self,
        deliveries: Deliveries,
        when: When,
        is_turned_away: bool,
    ) -> Result<Delivered, StoreAway> {
        let age = when.now.saturating_sub(when.made_at);
        let Deliveries { message_id, wanted } = deliveries;
        let mut delivered = Delivered::nothing();
        let is_too_old = age > self.settings.max_request_age;
        let (mut due, mut not_due) = (Vec::new(), Vec::new());
        if is_turned_away {
            self.metrics.refusal("slow_provider");
        }
        for (device, Wanted { about, service, kind }) in wanted {
            let toll = Toll { receiver: device.key, about, is_held_back: kind.is_held_back() };
            if is_turned_away {
                not_due.push((device, Delivery::TurnedAway));
            } else if is_too_old {
                not_due.push((device, Delivery::TooOld));
            } else if !self.takes_toll(&toll, when) {
                not_due.push((device, Delivery::TooFast));
            } else {
                let claims = kind.claim_keys(&about, &message_id, &device);
                due.push(Due { device, service, kind, toll, claims });
            }
        }
        let looked = self.look_at_claims(&message_id, not_due, &mut due, &mut delivered).await;
        looked.inspect_err(|_| due.iter().for_each(|due| self.give_toll_back(&due.toll)))?;
        for due in &mut due {
            // What is in no list has no other bound, and tells nothing that anybody wants to know: beyond this one it is not
            // worth the disk.
            if matches!(due.kind, Kind::HeldBack { is_of_no_list: true, .. })
                && !self.allows(Limited::HeldBack, &due.device.key, when)
            {
                due.claims.clear();
            }
        }
        let won = self.claim(due, when.now, &mut delivered).await?;
        for Sent { device, toll, claims, is_note_due, delivery } in self.send(won, age).await {
            let end = match delivery {
                Delivery::Refused => {
                    self.give_toll_back(&toll);
                    ClaimEnd::Refused
                }
                Delivery::Sent | Delivery::HeldBack(_) => ClaimEnd::Sent,
                _ => ClaimEnd::Unknown,
            };
            delivered.ends.extend(claims.into_iter().map(|claim| (claim, end)));
            if delivery == Delivery::Sent && is_note_due {
                delivered.reached.push(device.clone());
            }
            delivered.by_device.insert(device, delivery);
        }
        Ok(delivered)
    }

    /// What is not to be sent now may have been, or been held back, when it was asked for before; and what is held back may
    /// have been sent for another author. A claim costs a write to disk, and is lost with a crash: this takes none. Of what
    /// is not due, claims of both kinds count, whichever it would take: or whoever is blocked could ask again under
    /// another author's name, and learn it.
    async fn look_at_claims(
        &self,
        message_id: &[u8],
        not_due: Vec<(DeviceId, Delivery)>,
        due: &mut Vec<Due>,
        delivered: &mut Delivered,
    ) -> Result<(), StoreAway> {
        let held_back = due.iter().filter(|due| due.kind.is_held_back());
        let devices: Vec<&DeviceId> =
            not_due.iter().map(|(device, _)| device).chain(held_back.map(|due| &due.device)).collect();
        if devices.is_empty() {
            return Ok(());
        }
        let keys = devices.iter().flat_map(|device| claim_keys(message_id, device)).collect();
        let met = match self.store.claims(keys).await {
            Ok(met) => met,
            Err(error) => {
                self.only_damaged(&error)?;
                let devices = not_due.into_iter().map(|(device, _)| (device, Delivery::Unclaimed));
                delivered.by_device.extend(devices);
                return Ok(());
            }
        };
        let mut met = met.chunks(2);
        for ((device, delivery), met) in not_due.into_iter().zip(&mut met) {
            match met.iter().flatten().next() {
                Some(claim) => delivered.met(device, *claim),
                None => drop(delivered.by_device.insert(device, delivery)),
            }
        }
        due.retain(|due| {
            let met = if due.kind.is_held_back() { met.next() } else { None };
            let sent = met.and_then(|met| *met.first()?);
            if let Some(claim) = sent {
                self.give_toll_back(&due.toll);
                delivered.met(due.device.clone(), claim);
            }
            sent.is_none()
        });
        Ok(())
    }

    /// Those whose claims were won, and those that take none.
    async fn claim(
        &self,
        due: Vec<Due>,
        now: Duration,
        delivered: &mut Delivered,
    ) -> Result<Vec<Due>, StoreAway> {
        let keys: Vec<ClaimKey> = due.iter().flat_map(|due| due.claims.iter().cloned()).collect();
        if keys.is_empty() {
            return Ok(due);
        }
        let claims = match self.store.claim(keys, now.as_secs()).await {
            Ok(claims) => claims,
            Err(error) => {
                due.iter().for_each(|due| self.give_toll_back(&due.toll));
                self.only_damaged(&error)?;
                delivered.by_device.extend(due.into_iter().map(|due| (due.device, Delivery::Unclaimed)));
                return Ok(Vec::new());
            }
        };
        let mut claims = claims.into_iter();
        let mut won = Vec::new();
        let mut ends = Vec::new();
        for mut due in due {
            let met: Vec<Claim> = claims.by_ref().take(due.claims.len()).collect();
            let first = met.first().copied().unwrap_or(Claim::Won);
            let mut met = met.into_iter();
            due.claims.retain(|_| met.next() == Some(Claim::Won));
            if first == Claim::Won {
                won.push(due);
                continue;
            }
            self.give_toll_back(&due.toll);
            let end = match first {
                Claim::Sent => ClaimEnd::Sent,
                Claim::Unknown => ClaimEnd::Unknown,
                Claim::Open | Claim::Won => ClaimEnd::Refused,
            };
            ends.extend(due.claims.into_iter().map(|claim| (claim, end)));
            delivered.met(due.device, first);
        }
        // Now, and not with the others: there may be nothing else to end.
        self.end(ends, None, now).await;
        Ok(won)
    }

    async fn send(&self, won: Vec<Due>, age: Duration) -> Vec<Sent> {
        let sending = won.into_iter().map(|Due { device, service, kind, toll, claims }| async move {
            let (is_note_due, delivery) = match kind {
                Kind::Notification { notification, is_note_due } => {
                    self.metrics.push_age(age);
                    let began = Instant::now();
                    let outcome = self.provider.send(notification).await;
                    self.pace.note(service, began.elapsed(), outcome);
                    let delivery = match outcome {
                        Outcome::Sent => Delivery::Sent,
                        Outcome::Refused(_) => Delivery::Refused,
                        Outcome::Unknown(_) => Delivery::Unknown,
                    };
                    (is_note_due, delivery)
                }
                Kind::HeldBack { why, .. } => {
                    let delivery = match self.pace.wait(service).await {
                        None => Delivery::HeldBack(why),
                        Some(Trouble::Refused) => Delivery::Refused,
                        Some(Trouble::Unknown) => Delivery::Unknown,
                    };
                    (false, delivery)
                }
            };
            Sent { device, toll, claims, is_note_due, delivery }
        });
        join_all(sending).await
    }
}

fn about(judged: &Judged) -> [u8; 32] {
    let why = judged.why_not.unwrap_or("wanted");
    Sha256::new_with_prefix(why).chain_update([0]).chain_update(&judged.of).finalize().into()
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
            Self::TurnedAway => "turned_away",
            Self::Unknown => "unknown",
            Self::UnknownBefore => "unknown_before",
            Self::Unclaimed => "damaged",
        }
    }
}
