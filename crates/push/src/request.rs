//! Requests for notifications: looks up each device, compares tokens, filters, claims what is left, hands it to the
//! provider, and reports what came of each.
//!
//! What a report says of an entry, and whether its device is notified:
//!
//! | found | report | notified |
//! |---|---|---|
//! | a type that is none of ours | none | no |
//! | no such device | NOT_REGISTERED | no |
//! | another token | WRONG_TOKEN | no |
//! | not wanted by the receiver | success | no |
//! | claimed before, and sent then | success | no |
//! | claimed before, and nobody knows | failure without a reason | no |
//! | being sent for another request | none: that one gets the report | no |
//! | claimed now; the provider took it | success | yes |
//! | claimed now; surely not sent, or the request is too old to be of use | INTERNAL_ERROR | no |
//! | claimed now; the receiver was notified too often | INTERNAL_ERROR | no |
//! | claimed now; nobody knows | failure without a reason | perhaps |
//! | the store failed | failure without a reason | no |

mod deliver;
mod filter;
mod notification;
mod pace;

use std::collections::BTreeMap;
use std::time::Duration;

use poste_wire::status::proto::push_notification::PushNotificationType;
use poste_wire::status::proto::push_notification_report::ErrorType;
use poste_wire::status::proto::{
    PushNotification, PushNotificationRegistration, PushNotificationReport, PushNotificationRequest,
    PushNotificationResponse,
};
use poste_wire::status::{AccessToken, ApplicationMessage, HashedPublicKey, InstallationId, PushMessage};

use crate::device::Device;
use crate::server::{Decision, PushServer, Unanswered};
use crate::store::{AnswerId, ClaimEnd, ClaimKey, DeviceId, Registration};
use deliver::{Deliveries, Delivery};

pub(crate) use pace::Pace;
use pace::Started;

/// How many devices the store is asked for at once, at most.
const DEVICES_AT_ONCE: usize = 100;

/// An entry of a request: what it asks for, and of whom.
struct Entry {
    kind: PushNotificationType,
    /// None if no device can be called so.
    device: Option<DeviceId>,
    asked: PushNotification,
}

/// What is found about an entry without asking anybody else.
enum Found {
    NotRegistered,
    WrongToken,
    Filtered,
    Wanted,
    /// The store failed.
    Nothing,
}

/// What the sender is told of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Report {
    NotRegistered,
    WrongToken,
    Filtered,
    Delivery(Delivery),
    StoreFailed,
}

impl PushServer {
    pub(crate) async fn request(
        &self,
        message: ApplicationMessage,
        made_at: Duration,
        now: Duration,
    ) -> Decision {
        let request =
            PushNotificationRequest::read(message.payload.clone()).map_err(|_| Unanswered::Unreadable)?;
        if request.message_id.is_empty() {
            return Err(Unanswered::NoMessageId);
        }
        // The same for every way in which this request can be signed and encoded.
        let id = AnswerId(message.dedupe_key().0);
        if let Some(answer) = self.remembered(&id).await {
            self.metrics.answers_repeated.inc();
            return Ok(answer);
        }

        let started = Started::now();
        let entries: Vec<Entry> = request.requests.into_iter().filter_map(Entry::read).collect();
        let mut deliveries = Deliveries::new(&request.message_id);
        let found = self.look_up(&entries, now, &mut deliveries).await;
        let is_filtered = found.iter().any(|found| matches!(found, Found::Filtered));
        let delivered = if deliveries.is_empty() {
            if is_filtered {
                // Who is filtered must not learn that from an early answer.
                self.pace.wait(started).await;
            }
            deliveries.none()
        } else {
            let age = now.saturating_sub(made_at);
            let delivered =
                self.deliver(deliveries, made_at, now).await.map_err(|_| Unanswered::InProgress)?;
            if age <= self.settings.max_request_age {
                self.pace.note(started);
            }
            delivered
        };

        let reported: Vec<(&Entry, Report)> = entries
            .iter()
            .zip(found)
            .filter_map(|(entry, found)| {
                let report = match found {
                    Found::NotRegistered => Report::NotRegistered,
                    Found::WrongToken => Report::WrongToken,
                    Found::Filtered => Report::Filtered,
                    Found::Nothing => Report::StoreFailed,
                    Found::Wanted => Report::Delivery(delivered.of(entry.device.as_ref()?)?),
                };
                Some((entry, report))
            })
            .collect();
        let is_final = delivered.is_complete && reported.iter().all(|(_, report)| report.is_final());
        let is_worth_it = reported.iter().any(|(_, report)| report.is_of_known_token());
        let reports = reported.into_iter().map(|(entry, report)| self.report(entry, report)).collect();
        let answer = PushNotificationResponse { message_id: request.message_id, reports }.write();
        let remember = (is_final && is_worth_it).then(|| (id, answer.clone()));
        self.end(delivered.ends, remember, now).await;
        self.note_reached(delivered.reached, now).await;
        Ok(answer)
    }

    async fn remembered(&self, id: &AnswerId) -> Option<Vec<u8>> {
        match self.store.answer(id).await {
            Ok(answer) => answer,
            Err(error) => {
                // Claims keep the devices from being notified twice.
                self.store_failed(&error);
                None
            }
        }
    }

    /// What is found about each entry. Each device is opened and read once, and few are in memory at a time: a request
    /// of a few bytes may name many, and each may have megabytes.
    async fn look_up(&self, entries: &[Entry], now: Duration, deliveries: &mut Deliveries) -> Vec<Found> {
        let mut found: Vec<Found> = entries.iter().map(|_| Found::NotRegistered).collect();
        let mut named: BTreeMap<&DeviceId, Vec<usize>> = BTreeMap::new();
        for (number, entry) in entries.iter().enumerate() {
            if let Some(device) = &entry.device {
                named.entry(device).or_default().push(number);
            }
        }
        let mut named = named.into_iter().peekable();
        while named.peek().is_some() {
            let piece: Vec<(&DeviceId, Vec<usize>)> = named.by_ref().take(DEVICES_AT_ONCE).collect();
            let mut rest = piece.as_slice();
            while !rest.is_empty() {
                let devices = rest.iter().map(|(device, _)| (*device).clone()).collect();
                let rows = self.store.find(devices).await.unwrap_or_else(|error| {
                    self.store_failed(&error);
                    Vec::new()
                });
                if rows.is_empty() {
                    let failed = rest.iter().flat_map(|(_, numbers)| numbers);
                    failed.for_each(|number| found[*number] = Found::Nothing);
                    break;
                }
                let (done, later) = rest.split_at(rows.len().min(rest.len()));
                for ((_, numbers), row) in done.iter().zip(rows) {
                    let Some(row) = row else { continue };
                    let Some(Device { registration, .. }) = Device::read(&row.data) else { continue };
                    for number in numbers {
                        found[*number] = self.judge(&entries[*number], &row, &registration, now, deliveries);
                    }
                }
                rest = later;
            }
        }
        found
    }

    fn judge(
        &self,
        entry: &Entry,
        row: &Registration,
        registration: &PushNotificationRegistration,
        now: Duration,
        deliveries: &mut Deliveries,
    ) -> Found {
        let token = AccessToken::uuid(&registration.access_token);
        if !token.is_ok_and(|token| token.matches(&entry.asked.access_token)) {
            return Found::WrongToken;
        }
        if let Some(why) =
            filter::reason(entry.kind, &entry.asked, registration, self.settings.honour_enabled)
        {
            self.metrics.report(why);
            return Found::Filtered;
        }
        deliveries.add(row, || notification::build(entry.kind, &entry.asked, row, registration, now));
        Found::Wanted
    }

    fn report(&self, entry: &Entry, report: Report) -> PushNotificationReport {
        if let Some(label) = report.label() {
            self.metrics.report(label);
        }
        PushNotificationReport {
            success: matches!(
                report,
                Report::Filtered | Report::Delivery(Delivery::Sent | Delivery::SentBefore)
            ),
            error: report.error().into(),
            public_key: entry.asked.public_key.clone(),
            installation_id: entry.asked.installation_id.clone(),
        }
    }

    /// Ends the claims and remembers the answer, in one step.
    async fn end(
        &self,
        ends: Vec<(ClaimKey, ClaimEnd)>,
        remember: Option<(AnswerId, Vec<u8>)>,
        now: Duration,
    ) {
        if ends.is_empty() && remember.is_none() {
            return;
        }
        if let Err(error) = self.store.finish(ends, remember, now.as_secs()).await {
            // What was claimed stays so, and is unknown after a restart. This answer is still true.
            self.store_failed(&error);
        }
    }

    async fn note_reached(&self, devices: Vec<DeviceId>, now: Duration) {
        if !devices.is_empty()
            && let Err(error) = self.store.note_successes(devices, now.as_secs()).await
        {
            self.store_failed(&error);
        }
    }
}

impl Entry {
    /// None for types that no notification has here.
    fn read(asked: PushNotification) -> Option<Self> {
        let kind = PushNotificationType::try_from(asked.r#type).ok()?;
        if kind == PushNotificationType::UnknownPushNotificationType {
            return None;
        }
        let key = HashedPublicKey::try_from(&asked.public_key[..]).ok();
        let installation = InstallationId::any(&asked.installation_id).ok();
        let device = key.zip(installation).map(|(key, installation)| DeviceId { key, installation });
        Some(Self { kind, device, asked })
    }
}

impl Report {
    fn error(self) -> ErrorType {
        match self {
            Self::NotRegistered => ErrorType::NotRegistered,
            Self::WrongToken => ErrorType::WrongToken,
            Self::Delivery(Delivery::Refused | Delivery::TooOld | Delivery::TooFast) => {
                ErrorType::InternalError
            }
            Self::Filtered | Self::Delivery(_) | Self::StoreFailed => ErrorType::UnknownErrorType,
        }
    }

    /// The answer would be the same another time, as far as this entry goes.
    fn is_final(self) -> bool {
        let is_of_now = |delivery| {
            use Delivery::{Refused, TooFast, TooOld, Unclaimed};
            matches!(delivery, Refused | TooOld | TooFast | Unclaimed)
        };
        match self {
            Self::StoreFailed => false,
            Self::Delivery(delivery) => !is_of_now(delivery),
            Self::NotRegistered | Self::WrongToken | Self::Filtered => true,
        }
    }

    /// An answer without such an entry is not worth a place on disk: anybody could fill it, and looking again gives
    /// what is true by then.
    fn is_of_known_token(self) -> bool {
        matches!(self, Self::Filtered | Self::Delivery(_))
    }

    /// Filtered ones are counted by their reasons.
    fn label(self) -> Option<&'static str> {
        Some(match self {
            Self::NotRegistered => "not_registered",
            Self::WrongToken => "wrong_token",
            Self::Filtered => return None,
            Self::StoreFailed => "store_failed",
            Self::Delivery(delivery) => delivery.label(),
        })
    }
}

#[cfg(test)]
mod tests;
