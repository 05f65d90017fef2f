//! Queries: which devices an owner has here, and how to get at the token that lets one notify them.
//!
//! A query is broadcast on a topic that everybody can compute, so whoever holds nothing about its keys says nothing: an
//! answer would only confirm that a server listens.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use poste_wire::status::proto::{
    PushNotificationQuery, PushNotificationQueryInfo, PushNotificationQueryResponse,
};
use poste_wire::status::{ApplicationMessage, HashedPublicKey, PushMessage};
use prost::Message;

use crate::device::Device;
use crate::server::{Decision, Limited, PushServer, Unanswered};
use crate::store::Registration;

/// Tag and length of an entry, and what else an answer holds once.
const OVERHEAD_BYTES: usize = 8;

/// So many bytes of registrations are opened for one query, about; the keys behind are left out. Most of what a
/// registration holds is never answered, so that the room in the answer is no bound for it.
const MAX_OPENED_BYTES: usize = 64 * 1024 * 1024;

impl PushServer {
    /// Keys that do not belong to the topic are answered too, as deployed servers do.
    pub(crate) async fn query(
        &self,
        message: &ApplicationMessage,
        made_at: Duration,
        now: Duration,
    ) -> Decision {
        let query =
            PushNotificationQuery::read(message.payload.clone()).map_err(|_| Unanswered::Unreadable)?;
        let keys: BTreeSet<HashedPublicKey> =
            query.public_keys.iter().filter_map(|key| HashedPublicKey::try_from(&key[..]).ok()).collect();
        let mut info = Vec::new();
        let mut room = self.settings.max_query_answer_bytes;
        let mut left_out = 0;
        let mut opened_bytes = 0;
        let mut is_too_fast = false;
        for key in keys {
            if opened_bytes >= MAX_OPENED_BYTES {
                left_out += 1;
                continue;
            }
            if !self.topics.has_owner(&key) {
                continue;
            }
            if !self.allows(Limited::Queries, &key, made_at, now) {
                is_too_fast = true;
                continue;
            }
            let rows = self.store.registrations(&key).await.map_err(|error| {
                self.store_failed(&error);
                Unanswered::StoreFailed
            })?;
            opened_bytes += rows.iter().map(|row| row.data.as_bytes().len()).sum::<usize>();
            for device in rows.into_iter().filter_map(query_info) {
                match room.checked_sub(device.encoded_len() + OVERHEAD_BYTES) {
                    Some(rest) => {
                        room = rest;
                        info.push(device);
                    }
                    None => left_out += 1,
                }
            }
        }
        self.metrics.query_devices.inc_by(info.len() as u64);
        self.metrics.query_devices_left_out.inc_by(left_out);
        if info.is_empty() {
            return Err(if is_too_fast { Unanswered::TooFast } else { Unanswered::NothingKnown });
        }
        let message_id = Bytes::copy_from_slice(message.id.as_bytes());
        Ok(PushNotificationQueryResponse { info, message_id, success: true }.write())
    }
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
