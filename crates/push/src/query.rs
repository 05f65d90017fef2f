//! Queries: which devices an owner has here, and how to get at the token that lets one notify them.
//!
//! A query is broadcast on a topic that everybody can compute, so whoever holds nothing about its keys says nothing: an
//! answer would only confirm that a server listens. For the same reason no short answer is refused for how often others
//! have asked: everybody can ask, and would silence all who need to know.

mod look_ups;

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use poste_wire::Topic;
use poste_wire::status::proto::{
    PushNotificationQuery, PushNotificationQueryInfo, PushNotificationQueryResponse,
};
use poste_wire::status::{ApplicationMessage, HashedPublicKey, PushMessage, TopicName};

use crate::device::Device;
use crate::server::{Decision, Limited, Opened, PushServer, Taken, Unanswered, When, compute};
use crate::store::{Registration, StoreError};
pub(crate) use look_ups::{Found, LookUps};

/// What of an answer is not limited by how often an owner is asked about, only by how many queries are answered at a
/// time. About a thousand contacts.
const SHORT_BYTES: usize = 64 * 1024;
/// Owners with much to read whom one query may be about: they are read one by one. Clients ask about one.
const LONG_OWNERS: usize = 4;

impl PushServer {
    /// On a query topic only about its owners, unlike deployed servers: or one query on any topic could use up what a
    /// hundred others may be asked about. Clients ask for one key, on its topic. A query without a topic was sealed to
    /// the server, may be about anybody, and takes what its asker may have besides: a long answer takes what the owner
    /// has, since anybody can ask with a new key each time.
    pub(crate) async fn query(
        &self,
        message: &ApplicationMessage,
        topic: Option<Topic>,
        when: When,
        taken: &mut Taken,
    ) -> Decision {
        let asked = asked(message).ok_or(Unanswered::Unreadable)?;
        let longest = self.settings.max_query_answer_bytes;
        let mut room = longest.min(SHORT_BYTES);
        if topic.is_none()
            && !self.allows_once(Limited::SealedQueries, &HashedPublicKey::of(&message.signer), when, taken)
        {
            return Err(Unanswered::TooFast);
        }
        let mut answer = Vec::new();
        let (mut named, mut left_out) = (0, 0);
        let mut why_not = Unanswered::NothingKnown;
        let mut long_owners = 0;
        for owner in asked.iter().filter(|owner| self.listens_for(owner, topic)) {
            if long_owners >= LONG_OWNERS && self.look_ups.was_long(owner) {
                self.metrics.refusal("long_query");
                continue;
            }
            let found = match self.devices_of(*owner).await {
                Ok(found) => found,
                Err(error) => {
                    self.only_damaged(&error)?;
                    why_not = Unanswered::Damaged;
                    continue;
                }
            };
            long_owners += usize::from(found.is_long());
            left_out += found.left_out;
            let bytes: usize = found.devices.iter().map(Vec::len).sum();
            if answer.len() + bytes > room && room < longest {
                if self.allows_once(Limited::Queries, owner, when, taken) {
                    room = longest;
                } else {
                    why_not = Unanswered::TooFast;
                }
            }
            for device in &found.devices {
                if answer.len() + device.len() <= room {
                    answer.extend_from_slice(device);
                    named += 1;
                } else {
                    left_out += 1;
                }
            }
        }
        self.metrics.query_devices.inc_by(named);
        self.metrics.query_devices_left_out.inc_by(left_out);
        if named == 0 {
            return Err(why_not);
        }
        let message_id = Bytes::copy_from_slice(message.id.as_bytes());
        let rest = PushNotificationQueryResponse { info: Vec::new(), message_id, success: true };
        answer.extend_from_slice(&rest.write());
        Ok(answer)
    }

    /// Whether it is a query about somebody with so much to read that it takes its time.
    pub(crate) fn takes_long(&self, opened: &Opened) -> bool {
        let asked = opened.query().and_then(asked);
        asked.is_some_and(|asked| asked.iter().any(|owner| self.look_ups.was_long(owner)))
    }

    /// Ends a query for which too many others wait, and tells nobody: who asks needs an answer soon, and asks again.
    pub(crate) fn drop_query(&self, opened: &mut Opened) {
        self.metrics.refusal("waiting_queries");
        self.metrics.message("dropped");
        opened.release();
    }

    /// On this topic, or on any.
    fn listens_for(&self, owner: &HashedPublicKey, topic: Option<Topic>) -> bool {
        let topic = topic.unwrap_or_else(|| TopicName::query(owner).topic());
        self.topics.of_topic(topic).iter().any(|(of_topic, _)| of_topic == owner)
    }

    async fn devices_of(&self, owner: HashedPublicKey) -> Result<Arc<Found>, StoreError> {
        let room = self.settings.max_query_answer_bytes;
        let read = async || {
            let rows = self.store.registrations(&owner).await?;
            let bytes = rows.iter().map(|row| row.data.as_bytes().len()).sum();
            let found = compute(bytes, move || Found { bytes, ..found(rows, room) }).await;
            // The runtime ends where there is nothing.
            found.ok_or(StoreError::Closed)
        };
        self.look_ups.of(owner, read).await
    }
}

/// Whom a query is about, if it can be read.
fn asked(message: &ApplicationMessage) -> Option<BTreeSet<HashedPublicKey>> {
    let query = PushNotificationQuery::read(message.payload.clone()).ok()?;
    Some(query.public_keys.iter().filter_map(|key| HashedPublicKey::try_from(&key[..]).ok()).collect())
}

/// What answers of so many bytes say of devices. Bytes of their own: nothing keeps the rows in memory.
fn found(rows: Vec<Registration>, mut room: usize) -> Found {
    let mut found = Found::default();
    for row in rows {
        let Some(info) = query_info(row) else { continue };
        // Parts of a message one behind the other are the message.
        let part = PushNotificationQueryResponse { info: vec![info], ..Default::default() }.write();
        match room.checked_sub(part.len()) {
            Some(rest) => {
                room = rest;
                found.devices.push(part);
            }
            None => found.left_out += 1,
        }
    }
    found
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
