//! Registrations: who may be notified, and how. The checks stand in the order of the deployed server, so that a message
//! with several faults gets the same code from both.

use bytes::Bytes;
use poste_codec::PublicKey;
use poste_wire::status::proto::push_notification_registration::TokenType as WireTokenType;
use poste_wire::status::proto::push_notification_registration_response::ErrorType;
use poste_wire::status::proto::{PushNotificationRegistration, PushNotificationRegistrationResponse};
use poste_wire::status::{
    ApplicationMessage, DedupeKey, Grant, HashedPublicKey, InstallationId, PushMessage, RequestId, SharedKey,
    is_uuid,
};
use zeroize::Zeroizing;

use crate::device::Device;
use crate::server::{Decision, Limited, PushServer, StoreAway, Taken, Unanswered, When, compute};
use crate::store::{AnswerId, DeviceId, NewRegistration, Registered, StoreError, TokenType, TopicKeys};

/// Remembered of an unregistration: only that it succeeded.
const UNREGISTERED: &[u8] = &[1];

/// A registration as far as it was read.
struct Claimed {
    owner: HashedPublicKey,
    device: DeviceId,
    came_in: DedupeKey,
    when: When,
    registration: PushNotificationRegistration,
}

/// Why a registration is not made.
enum NotMade {
    /// The answer says so.
    Told(ErrorType),
    /// It is tried again.
    StoreAway,
}

impl From<ErrorType> for NotMade {
    fn from(error: ErrorType) -> Self {
        Self::Told(error)
    }
}

impl PushServer {
    pub(crate) async fn registration(
        &self,
        message: ApplicationMessage,
        when: When,
        taken: &mut Taken,
    ) -> Decision {
        let (opened, request_id) = self.unseal(&message).await.ok_or(Unanswered::Unsealed)?;
        let registered = match self.register(&message, opened, when, taken).await {
            Ok(()) => Ok(()),
            Err(NotMade::Told(error)) => Err(error),
            Err(NotMade::StoreAway) => return Err(Unanswered::StoreFailed),
        };
        let error = registered.err().unwrap_or(ErrorType::UnknownErrorType);
        self.metrics.registration(if registered.is_ok() { "success" } else { label(error) });
        let response = PushNotificationRegistrationResponse {
            success: registered.is_ok(),
            error: error.into(),
            request_id: Bytes::copy_from_slice(request_id.as_bytes()),
        };
        Ok(response.write())
    }

    /// What the signer sealed for us. Who sends on what another sealed has no key that opens it, and gets no answer
    /// that would tell so.
    async fn unseal(&self, message: &ApplicationMessage) -> Option<(Zeroizing<Vec<u8>>, RequestId)> {
        let (identity, signer, sealed) = (self.identity.clone(), message.signer, message.payload.clone());
        let work = move || {
            let opened = SharedKey::between(&identity, &signer).open(&sealed).ok()?;
            Some((opened, RequestId::of(&sealed)))
        };
        compute(message.payload.len(), work).await?
    }

    async fn register(
        &self,
        message: &ApplicationMessage,
        opened: Zeroizing<Vec<u8>>,
        when: When,
        taken: &mut Taken,
    ) -> Result<(), NotMade> {
        let registration = PushNotificationRegistration::read(Bytes::from_owner(opened))
            .map_err(|_| ErrorType::MalformedMessage)?;
        if registration.version == 0 {
            return Err(ErrorType::MalformedMessage.into());
        }
        let installation =
            self.installation(&registration.installation_id).ok_or(ErrorType::MalformedMessage)?;
        let owner = HashedPublicKey::of(&message.signer);
        let claimed = Claimed {
            owner,
            device: DeviceId { key: owner, installation },
            came_in: message.dedupe_key(),
            when,
            registration,
        };

        let _turn = self.turns.take(owner).await;
        let stored = self.store.version(&claimed.device).await.map_err(|error| self.internal(&error))?;
        if let Some(stored) = stored.filter(|stored| *stored >= claimed.registration.version) {
            return self.repeat(&claimed, stored).await;
        }
        // Only now: a stranger who sends the owner's messages of the past uses up nothing of the owner's.
        self.charge(Limited::Registrations, &claimed, taken)?;
        if claimed.registration.unregister {
            // Also of what never came, by anybody: the store bounds how many versions it keeps, and a rate for all
            // strangers would be used up by one, so that what others take back comes back later.
            return self.unregister(&claimed, stored.is_some()).await;
        }
        let token_type = check(&claimed.registration, &message.signer, &self.public)?;
        self.save(claimed, token_type, taken).await
    }

    fn charge(&self, what: Limited, claimed: &Claimed, taken: &mut Taken) -> Result<(), ErrorType> {
        let allows = self.allows_once(what, &claimed.owner, claimed.when, taken);
        if allows { Ok(()) } else { Err(ErrorType::InternalError) }
    }

    fn installation(&self, text: &str) -> Option<InstallationId> {
        if self.settings.any_installation_id {
            InstallationId::any(text).ok()
        } else {
            InstallationId::uuid(text).ok()
        }
    }

    /// The version is not above the stored one. A message that made the stored one gets its answer again: it may have
    /// been lost, and deployed clients ask in no other way.
    async fn repeat(&self, claimed: &Claimed, stored: u64) -> Result<(), NotMade> {
        if stored != claimed.registration.version {
            return Err(ErrorType::VersionMismatch.into());
        }
        let rows =
            self.store.find(vec![claimed.device.clone()]).await.map_err(|error| self.internal(&error))?;
        let is_repeated = match rows.into_iter().next().flatten() {
            Some(row) => Device::read(&row.data).is_some_and(|device| device.came_in == claimed.came_in),
            None if claimed.registration.unregister => {
                let remembered = self.store.answer(&AnswerId(claimed.came_in.0)).await;
                remembered.map_err(|error| self.internal(&error))?.is_some()
            }
            None => false,
        };
        if !is_repeated {
            return Err(ErrorType::VersionMismatch.into());
        }
        self.metrics.answers_repeated.inc();
        Ok(())
    }

    async fn unregister(&self, claimed: &Claimed, is_known: bool) -> Result<(), NotMade> {
        let at_unix_s = claimed.when.now.as_secs();
        let remember = async || {
            let answer = (AnswerId(claimed.came_in.0), UNREGISTERED.to_vec());
            let remembered = self.store.finish(Vec::new(), Some(answer), at_unix_s).await;
            remembered.map_err(|error| self.internal(&error))
        };
        // Remembered first: it counts only once the device is forgotten with this version, and between the two
        // nothing can be lost. But of a device that nobody has heard of only if there is room for it: anybody could fill
        // the disk, and a crash in between tells nobody but a stranger of another version.
        if is_known {
            remember().await?;
        }
        let done = self.store.unregister(&claimed.device, claimed.registration.version, at_unix_s).await;
        let done = done.map_err(|error| self.internal(&error))?;
        if !is_known && matches!(done, Registered::Done(_)) {
            remember().await?;
        }
        if let Registered::Done(owner) = done
            && owner.registrations == 0
        {
            self.leave(claimed.owner).await;
        }
        Ok(self.outcome(done)?)
    }

    async fn save(&self, claimed: Claimed, token_type: TokenType, taken: &mut Taken) -> Result<(), NotMade> {
        let topic_keys = self.topic_keys(&claimed, taken).await?;
        let Claimed { owner, device, came_in, when, registration } = claimed;
        // Before the row is there: whoever learns that it is may be asked about at once.
        self.topics.join(owner).await.map_err(|error| {
            tracing::warn!(%error, "a registration had to be refused");
            ErrorType::InternalError
        })?;
        let version = registration.version;
        let data = Device { came_in, registration }.write();
        let at_unix_s = when.now.as_secs();
        let new = NewRegistration { device, version, token_type, data, topic_keys, at_unix_s };
        let done = self.store.register(new).await;
        if !matches!(done, Ok(Registered::Done(_))) {
            self.leave_unless_registered(owner).await;
        }
        self.count_owners();
        Ok(self.outcome(done.map_err(|error| self.internal(&error))?)?)
    }

    /// Those of the owner's other devices, or new ones.
    async fn topic_keys(&self, claimed: &Claimed, taken: &mut Taken) -> Result<TopicKeys, NotMade> {
        if let Some(keys) = self.topic_keys_of(&claimed.owner).await? {
            return Ok(keys);
        }
        self.charge(Limited::NewOwners, claimed, taken)?;
        let derived = self.derivations.derive(claimed.owner).await;
        Ok(derived.ok_or_else(|| {
            self.metrics.refusal("derivations_waiting");
            ErrorType::InternalError
        })?)
    }

    /// There for an owner with registrations.
    async fn topic_keys_of(&self, owner: &HashedPublicKey) -> Result<Option<TopicKeys>, NotMade> {
        self.store.topic_keys(owner).await.map_err(|error| self.internal(&error))
    }

    /// Stops listening for an owner without registrations. Call it in the owner's turn.
    pub(crate) async fn leave_unless_registered(&self, owner: HashedPublicKey) {
        // Listening to too much does no harm.
        if let Ok(None) = self.store.topic_keys(&owner).await {
            self.leave(owner).await;
        }
    }

    pub(crate) async fn leave(&self, owner: HashedPublicKey) {
        self.topics.leave(owner).await;
        self.count_owners();
    }

    fn count_owners(&self) {
        self.metrics.owners.set(i64::try_from(self.topics.owner_count()).unwrap_or(i64::MAX));
    }

    fn outcome(&self, registered: Registered) -> Result<(), ErrorType> {
        let refusal = match registered {
            Registered::Done(_) => return Ok(()),
            Registered::VersionMismatch { .. } => return Err(ErrorType::VersionMismatch),
            Registered::TooManyDevices => "too_many_devices",
            Registered::StoreFull => {
                tracing::warn!("the store is full: a registration had to be refused");
                "store_full"
            }
        };
        self.metrics.refusal(refusal);
        // The client has done nothing wrong, and another server may take it.
        Err(ErrorType::InternalError)
    }

    fn internal(&self, error: &StoreError) -> NotMade {
        match self.only_damaged(error) {
            Ok(()) => NotMade::Told(ErrorType::InternalError),
            Err(StoreAway) => NotMade::StoreAway,
        }
    }
}

/// What is asked of a registration that is none of the past and takes nothing back.
fn check(
    registration: &PushNotificationRegistration,
    client: &PublicKey,
    server: &PublicKey,
) -> Result<TokenType, ErrorType> {
    let malformed = ErrorType::MalformedMessage;
    if !is_uuid(&registration.access_token) {
        return Err(malformed);
    }
    let grant = Grant::from_bytes(&registration.grant).map_err(|_| malformed)?;
    grant.verify(client, server, &registration.access_token).map_err(|_| malformed)?;
    if registration.device_token.is_empty() {
        return Err(malformed);
    }
    match WireTokenType::try_from(registration.token_type) {
        Ok(WireTokenType::ApnToken) if registration.apn_topic.is_empty() => Err(malformed),
        Ok(WireTokenType::ApnToken) => Ok(TokenType::Apn),
        Ok(WireTokenType::FirebaseToken) => Ok(TokenType::Firebase),
        Ok(WireTokenType::UnknownTokenType) | Err(_) => Err(ErrorType::UnsupportedTokenType),
    }
}

fn label(error: ErrorType) -> &'static str {
    match error {
        ErrorType::UnknownErrorType => "unknown",
        ErrorType::MalformedMessage => "malformed_message",
        ErrorType::VersionMismatch => "version_mismatch",
        ErrorType::UnsupportedTokenType => "unsupported_token_type",
        ErrorType::InternalError => "internal_error",
    }
}

#[cfg(test)]
mod tests;
