//! Requests for which there is no time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use poste_wire::status::proto::{PushNotificationRequest, PushNotificationResponse};
use poste_wire::status::{ApplicationMessage, PushMessage};

use super::deliver::{Deliveries, Delivery, claim_keys};
use super::{Entry, Found, LookUp, Report};
use crate::server::{Decision, PushServer, StoreAway, Unanswered};
use crate::store::{AnswerId, Claim, ClaimKey, DeviceId};

impl PushServer {
    /// What a request is told without the provider: its remembered answer, or what is true of each entry now, with
    /// INTERNAL_ERROR for what was never claimed. What is being sent for another request is left out: that one gets the
    /// report. Nothing is remembered, so that the same may be asked for again.
    pub(crate) async fn turned_away(&self, message: &ApplicationMessage, now: Duration) -> Decision {
        let request =
            PushNotificationRequest::read(message.payload.clone()).map_err(|_| Unanswered::Unreadable)?;
        if request.message_id.is_empty() {
            return Err(Unanswered::NoMessageId);
        }
        let id = AnswerId(message.dedupe_key().0);
        let entries: Vec<Entry> = request.requests.into_iter().filter_map(Entry::read).collect();
        // Nobody hands them to the provider.
        let mut deliveries = Deliveries::new(&request.message_id);
        let found = match self.look_up(&id, &entries, now, &mut deliveries).await? {
            LookUp::Answered(answer) => {
                self.metrics.answers_repeated.inc();
                return Ok(answer);
            }
            LookUp::Found(found) => found,
        };
        let named = entries.iter().zip(&found).filter(|(_, found)| matches!(found, Found::Delivery));
        let named = named.filter_map(|(entry, _)| entry.device.as_ref()).collect();
        let claimed = self.claimed(&request.message_id, &named).await?;
        let mut reported = Vec::new();
        for (entry, found) in entries.iter().zip(found) {
            let report = match found {
                Found::NotRegistered => Report::NotRegistered,
                Found::WrongToken => Report::WrongToken,
                Found::Nothing => Report::Damaged,
                Found::Delivery => match entry.device.as_ref().and_then(|device| claimed.get(device)) {
                    Some(Some(delivery)) => Report::Delivery(*delivery),
                    Some(None) => continue,
                    None => Report::Delivery(Delivery::Refused),
                },
            };
            reported.push((entry, report));
        }
        if reported.is_empty() && !entries.is_empty() {
            return Err(Unanswered::InProgress);
        }
        let reports = reported.into_iter().map(|(entry, report)| self.report(entry, report)).collect();
        Ok(PushNotificationResponse { message_id: request.message_id, reports }.write())
    }

    /// What became of those of some devices for which the message was claimed before. None for what is being sent.
    async fn claimed(
        &self,
        message_id: &[u8],
        devices: &BTreeSet<&DeviceId>,
    ) -> Result<BTreeMap<DeviceId, Option<Delivery>>, StoreAway> {
        let keys: Vec<ClaimKey> = devices.iter().flat_map(|device| claim_keys(message_id, device)).collect();
        if keys.is_empty() {
            return Ok(BTreeMap::new());
        }
        let became = |device: &&DeviceId, delivery| ((*device).clone(), delivery);
        let met = match self.store.claims(keys).await {
            Ok(met) => met,
            Err(error) => {
                self.only_damaged(&error)?;
                return Ok(devices.iter().map(|device| became(device, Some(Delivery::Unclaimed))).collect());
            }
        };
        let met = devices.iter().zip(met.chunks(2)).filter_map(|(device, met)| {
            let delivery = match met.iter().flatten().next()? {
                Claim::Sent => Some(Delivery::SentBefore),
                Claim::Unknown => Some(Delivery::UnknownBefore),
                Claim::Open | Claim::Won => None,
            };
            Some(became(device, delivery))
        });
        Ok(met.collect())
    }
}
