//! Queries: which devices an owner has here, and how to get at the token that lets one notify them.
//!
//! A query is broadcast on a topic that everybody can compute, so whoever holds nothing about its keys says nothing: an
//! answer would only confirm that a server listens.

use std::collections::BTreeSet;

use bytes::Bytes;
use poste_wire::Topic;
use poste_wire::status::proto::{
    PushNotificationQuery, PushNotificationQueryInfo, PushNotificationQueryResponse,
};
use poste_wire::status::{ApplicationMessage, HashedPublicKey, PushMessage};
use prost::Message;

use crate::device::Device;
use crate::server::{Decision, Limited, PushServer, Taken, Unanswered, When};
use crate::store::Registration;

/// Tag and length of an entry, and what else an answer holds once.
const OVERHEAD_BYTES: usize = 8;

impl PushServer {
    /// Only about owners of the topic that the query came on, unlike deployed servers: or one query on any topic could
    /// use up what a hundred others may be asked about. Clients ask for one key, on its topic.
    pub(crate) async fn query(
        &self,
        message: &ApplicationMessage,
        topic: Topic,
        when: When,
        taken: &mut Taken,
    ) -> Decision {
        let query =
            PushNotificationQuery::read(message.payload.clone()).map_err(|_| Unanswered::Unreadable)?;
        let asked: BTreeSet<HashedPublicKey> =
            query.public_keys.iter().filter_map(|key| HashedPublicKey::try_from(&key[..]).ok()).collect();
        let owners: BTreeSet<HashedPublicKey> =
            self.topics.of_topic(topic).into_iter().map(|(owner, _)| owner).collect();
        let mut info = Vec::new();
        let mut room = self.settings.max_query_answer_bytes;
        let mut left_out = 0;
        let mut why_not = Unanswered::NothingKnown;
        for owner in asked.intersection(&owners) {
            if !self.allows_once(Limited::Queries, owner, when, taken) {
                why_not = Unanswered::TooFast;
                continue;
            }
            // Held until the rows are gone: what is copied out of them is short.
            let _rows_in_memory = self.query_rows.acquire().await;
            let rows = match self.store.registrations(owner).await {
                Ok(rows) => rows,
                Err(error) => {
                    self.only_damaged(&error)?;
                    why_not = Unanswered::Damaged;
                    continue;
                }
            };
            for row in rows {
                let Some(device) = query_info(row) else { continue };
                match room.checked_sub(device.encoded_len() + OVERHEAD_BYTES) {
                    Some(rest) => {
                        room = rest;
                        info.push(copied(device));
                    }
                    None => left_out += 1,
                }
            }
        }
        self.metrics.query_devices.inc_by(info.len() as u64);
        self.metrics.query_devices_left_out.inc_by(left_out);
        if info.is_empty() {
            return Err(why_not);
        }
        let message_id = Bytes::copy_from_slice(message.id.as_bytes());
        Ok(PushNotificationQueryResponse { info, message_id, success: true }.write())
    }
}

/// Bytes of its own: those of a row keep the whole registration in memory.
fn copied(mut info: PushNotificationQueryInfo) -> PushNotificationQueryInfo {
    info.grant = Bytes::copy_from_slice(&info.grant);
    for entry in &mut info.allowed_key_list {
        *entry = Bytes::copy_from_slice(entry);
    }
    info
}

/// The token itself, or what only contacts can read it from; never both.
fn query_info(row: Registration) -> Option<PushNotificationQueryInfo> {
    let Device { registration, .. } = Device::read(&row.data)?;
    let (access_token, allowed_key_list) = if registration.allow_from_contacts_only {
        (String::new(), registration.allowed_key_list)
    } else {
        (registration.access_token, Vec::new())
    };
    Some(PushNotificationQueryInfo {
        access_token,
        installation_id: row.device.installation.to_string(),
        public_key: Bytes::copy_from_slice(row.device.key.as_bytes()),
        allowed_key_list,
        grant: registration.grant,
        version: row.version,
        server_public_key: Bytes::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_answered_keeps_no_registration_in_memory() {
        let row = Bytes::from(vec![7; 1000]);
        let info = PushNotificationQueryInfo {
            grant: row.slice(..65),
            allowed_key_list: vec![row.slice(100..164), row.slice(200..264)],
            ..Default::default()
        };
        let copy = copied(info.clone());
        assert_eq!(copy, info);
        assert!(copy.grant.is_unique() && copy.allowed_key_list.iter().all(Bytes::is_unique));
    }
}
