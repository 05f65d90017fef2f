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
//! | claimed before, and sent then, or not wanted then | success | no |
//! | claimed before, and nobody knows | failure without a reason | no |
//! | being sent for another request | none: that one gets the report | no |
//! | not claimed, for the request is too old to be of use | INTERNAL_ERROR | no |
//! | not claimed, for the receiver was notified too often | INTERNAL_ERROR | no |
//! | not claimed, for the provider does not keep up | INTERNAL_ERROR | no |
//! | claimed now, and not wanted by the receiver | success | no |
//! | claimed now; the provider took it | success | yes |
//! | claimed now; surely not sent | INTERNAL_ERROR | no |
//! | claimed now; nobody knows | failure without a reason | perhaps |
//! | what is stored is damaged | failure without a reason | no |
//!
//! What the receiver does not want goes the same way as what is sent, but for the provider, in whose place a wait stands, so
//! that no report, no limit and no time tells a sender who is blocked (decision 22, with what remains).

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
use crate::server::{Decision, PushServer, StoreAway, Unanswered, When};
use crate::store::{AnswerId, ClaimEnd, ClaimKey, DeviceId, LookedUp, Registration};
use deliver::{Delivered, Deliveries, Delivery};

pub(crate) use pace::Pace;

/// How many devices the store is asked for at once, at most.
const DEVICES_AT_ONCE: usize = 100;

/// How long it is waited until the ends of claims are written again that could not be.
const PAUSES_OF_ENDS: [Duration; 2] = [Duration::from_secs(1), Duration::ZERO];

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
    /// A delivery, be it one that is held back.
    Delivery,
    /// What is stored is damaged.
    Nothing,
}

/// What is known of a request.
enum LookUp {
    /// It was answered before.
    Answered(Vec<u8>),
    /// What is found about each of its entries.
    Found(Vec<Found>),
}

/// What the sender is told of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Report {
    NotRegistered,
    WrongToken,
    Delivery(Delivery),
    Damaged,
}

impl PushServer {
    /// What a request came to. One that is turned away has no place at the provider: see [`Delivery::TurnedAway`].
    pub(crate) async fn request(
        &self,
        message: &ApplicationMessage,
        when: When,
        is_turned_away: bool,
    ) -> Decision {
        let now = when.now;
        let request =
            PushNotificationRequest::read(message.payload.clone()).map_err(|_| Unanswered::Unreadable)?;
        if request.message_id.is_empty() {
            return Err(Unanswered::NoMessageId);
        }
        // The same for every way in which this request can be signed and encoded.
        let id = AnswerId(message.dedupe_key().0);
        let entries: Vec<Entry> = request.requests.into_iter().filter_map(Entry::read).collect();
        let mut deliveries = Deliveries::new(&request.message_id);
        let found = match self.look_up(&id, &entries, now, &mut deliveries).await? {
            LookUp::Answered(answer) => {
                self.metrics.answers_repeated.inc();
                return Ok(answer);
            }
            LookUp::Found(found) => found,
        };
        let delivered = match deliveries.is_empty() {
            true => Delivered::nothing(),
            false => self.deliver(deliveries, when, is_turned_away).await?,
        };

        let reported: Vec<(&Entry, Report)> = entries
            .iter()
            .zip(found)
            .filter_map(|(entry, found)| {
                let report = match found {
                    Found::NotRegistered => Report::NotRegistered,
                    Found::WrongToken => Report::WrongToken,
                    Found::Nothing => Report::Damaged,
                    Found::Delivery => Report::Delivery(delivered.of(entry.device.as_ref()?)?),
                };
                Some((entry, report))
            })
            .collect();
        if reported.is_empty() && !delivered.is_complete {
            return Err(Unanswered::InProgress);
        }
        let is_final = delivered.is_complete && reported.iter().all(|(_, report)| report.is_final());
        let is_worth_it = reported.iter().any(|(_, report)| report.is_of_known_token());
        let reports = reported.into_iter().map(|(entry, report)| self.report(entry, report)).collect();
        let answer = PushNotificationResponse { message_id: request.message_id, reports }.write();
        let remember = (is_final && is_worth_it).then(|| (id, answer.clone()));
        self.end(delivered.ends, remember, now).await;
        self.note_reached(delivered.reached, now).await;
        Ok(answer)
    }

    async fn remembered(&self, id: &AnswerId) -> Result<Option<Vec<u8>>, StoreAway> {
        match self.store.answer(id).await {
            Ok(answer) => Ok(answer),
            // Claims keep the devices from being notified twice.
            Err(error) => self.only_damaged(&error).map(|()| None),
        }
    }

    /// The remembered answer, or what is found about each entry. Each device is opened and read once, and few are in
    /// memory at a time: a request of a few bytes may name many, and each may have megabytes.
    async fn look_up(
        &self,
        id: &AnswerId,
        entries: &[Entry],
        now: Duration,
        deliveries: &mut Deliveries,
    ) -> Result<LookUp, StoreAway> {
        let mut found: Vec<Found> = entries.iter().map(|_| Found::NotRegistered).collect();
        let mut named: BTreeMap<&DeviceId, Vec<usize>> = BTreeMap::new();
        for (number, entry) in entries.iter().enumerate() {
            if let Some(device) = &entry.device {
                named.entry(device).or_default().push(number);
            }
        }
        let named: Vec<(&DeviceId, Vec<usize>)> = named.into_iter().collect();
        let devices = |asked: &[(&DeviceId, Vec<usize>)]| -> Vec<DeviceId> {
            asked.iter().map(|(device, _)| (*device).clone()).collect()
        };
        let mut rest = named.as_slice();
        let mut at_once = DEVICES_AT_ONCE;
        let mut first = match self.store.look_up(id, devices(&rest[..rest.len().min(at_once)])).await {
            Ok(LookedUp::Answer(answer)) => return Ok(LookUp::Answered(answer)),
            Ok(LookedUp::Devices(rows)) => Some(rows),
            Err(error) => {
                self.only_damaged(&error)?;
                // Either may be damaged, the answer or a device.
                if let Some(answer) = self.remembered(id).await? {
                    return Ok(LookUp::Answered(answer));
                }
                None
            }
        };
        while !rest.is_empty() {
            let asked = &rest[..rest.len().min(at_once)];
            let rows = match first.take() {
                Some(rows) => Ok(rows),
                None => self.store.find(devices(asked)).await,
            };
            let (rows, is_damaged) = match rows {
                Ok(rows) => (rows, false),
                Err(error) => {
                    self.only_damaged(&error)?;
                    (vec![None], true)
                }
            };
            if is_damaged && asked.len() > 1 {
                // One by one from here on: the others are served.
                at_once = 1;
                continue;
            }
            let (done, later) = rest.split_at(rows.len().clamp(1, asked.len()));
            for ((_, numbers), row) in done.iter().zip(rows) {
                if is_damaged {
                    numbers.iter().for_each(|number| found[*number] = Found::Nothing);
                }
                let Some(row) = row else { continue };
                let Some(Device { registration, .. }) = Device::read(&row.data) else { continue };
                for number in numbers {
                    found[*number] = self.judge(&entries[*number], &row, &registration, now, deliveries);
                }
            }
            rest = later;
        }
        Ok(LookUp::Found(found))
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
        let judged = filter::judge(entry.kind, &entry.asked, registration, self.settings.honour_enabled);
        deliveries
            .add(row, &judged, now, || notification::build(entry.kind, &entry.asked, row, registration, now));
        Found::Delivery
    }

    fn report(&self, entry: &Entry, report: Report) -> PushNotificationReport {
        self.metrics.report(report.label());
        PushNotificationReport {
            success: matches!(
                report,
                Report::Delivery(Delivery::Sent | Delivery::SentBefore | Delivery::HeldBack(_))
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
        for pause in PAUSES_OF_ENDS {
            match self.store.finish(ends.clone(), remember.clone(), now.as_secs()).await {
                Ok(()) => return,
                Err(error) => self.store_failed(&error),
            }
            tokio::time::sleep(pause).await;
        }
        // What was claimed stays so, and is unknown after a restart. This answer is still true.
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
            Self::Delivery(
                Delivery::Refused | Delivery::TooOld | Delivery::TooFast | Delivery::TurnedAway,
            ) => ErrorType::InternalError,
            Self::Delivery(_) | Self::Damaged => ErrorType::UnknownErrorType,
        }
    }

    /// The answer would be the same another time, as far as this entry goes.
    fn is_final(self) -> bool {
        let is_of_now = |delivery| {
            use Delivery::{Refused, TooFast, TooOld, TurnedAway, Unclaimed};
            matches!(delivery, Refused | TooOld | TooFast | TurnedAway | Unclaimed)
        };
        match self {
            Self::Damaged => false,
            Self::Delivery(delivery) => !is_of_now(delivery),
            Self::NotRegistered | Self::WrongToken => true,
        }
    }

    /// An answer without such an entry is not worth a place on disk: anybody could fill it, and looking again gives
    /// what is true by then.
    fn is_of_known_token(self) -> bool {
        matches!(self, Self::Delivery(_))
    }

    fn label(self) -> &'static str {
        match self {
            Self::NotRegistered => "not_registered",
            Self::WrongToken => "wrong_token",
            Self::Damaged => "damaged",
            Self::Delivery(delivery) => delivery.label(),
        }
    }
}

#[cfg(test)]
mod tests;
