//! What every store must do: a model test against ordered maps, and the promises by name. [`suite`] makes the tests of
//! one store: `suite!(open, reopen)`, where `fn open(Caps) -> (Store, Alive)` opens an empty store and gives whatever
//! it needs to stay alive, and `async fn reopen(Store, &Alive) -> Store` ends the store, which may have been closed
//! before, and opens it again.
//!
//! `POSTE_SEED` repeats a run of the model that failed, `POSTE_MODEL_OPERATIONS` sets how many operations it makes in
//! all, for long runs.

mod model;
mod promises;

use std::fmt::Write;

use poste_wire::status::{HashedPublicKey, InstallationId};

use super::{
    AnswerId, Caps, Checkpoint, Claim, ClaimEnd, ClaimKey, DeviceData, DeviceId, NewRegistration, OwnerState,
    Registered, Registration, RegistrationStore, Retention, StoreError, TokenType, TopicKeys,
};

pub(crate) use model::model;
pub(crate) use promises::*;

macro_rules! suite {
    ($open:path, $reopen:path) => {
        $crate::store::conformance::suite!(@open $open:
            a_closed_store_takes_nothing
            a_claim_is_won_once_by_many_callers
            a_late_failure_never_deletes_a_newer_registration
            a_refused_claim_is_free_again
            a_registration_is_found_as_it_was_given
            an_owner_has_so_many_bytes
            an_owner_has_so_many_devices
            a_full_store_takes_no_new_owners
            devices_are_opened_once_and_few_at_a_time
            an_unregistration_is_remembered_of_devices_never_seen
            answers_are_repeated_until_they_expire
            claims_are_looked_at_without_being_taken
            claims_are_of_one_message_one_owner_and_one_installation
            expiry_goes_on_in_pieces
            of_many_registrations_at_once_the_highest_version_stays
            only_what_is_too_large_is_refused
            successes_are_noted_once_a_day
            versions_of_the_forgotten_expire_in_pieces
            what_is_forgotten_now_is_no_old_version
        );
        $crate::store::conformance::suite!(@reopen ($open, $reopen):
            model
            a_checkpoint_never_sinks
            open_claims_are_unknown_after_a_restart
            what_was_stored_outlives_the_store
        );
    };
    (@open $open:path: $($promise:ident)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $promise() {
            $crate::store::conformance::$promise($open).await;
        }
    )*};
    (@reopen ($open:path, $reopen:path): $($promise:ident)*) => {$(
        #[tokio::test]
        async fn $promise() {
            $crate::store::conformance::$promise($open, $reopen).await;
        }
    )*};
}
pub(crate) use suite;

/// When tests begin, seconds since 1970.
pub(crate) const START: u64 = 1_700_000_000;

/// One of few owners: some share all bytes but the last.
pub(crate) fn owner(number: u8) -> HashedPublicKey {
    let mut hash = [number % 3; HashedPublicKey::LENGTH];
    hash[HashedPublicKey::LENGTH - 1] = number;
    // The first and the last of all owners there could be.
    match number {
        0 => HashedPublicKey([0; HashedPublicKey::LENGTH]),
        255 => HashedPublicKey([255; HashedPublicKey::LENGTH]),
        _ => HashedPublicKey(hash),
    }
}

/// A device of an owner. The ids of some begin with those of others.
pub(crate) fn device(owner_number: u8, number: u32) -> DeviceId {
    let mut id = String::from("phone");
    if number > 0 {
        write!(id, "-{number}").expect("texts grow");
    }
    DeviceId { key: owner(owner_number), installation: InstallationId::any(&id).expect("it is short") }
}

/// A registration whose bytes tell it from all others.
pub(crate) fn registration(device: &DeviceId, version: u64) -> NewRegistration {
    let data = format!("token {version} of {:?}", device.installation);
    let last = device.key.as_bytes()[HashedPublicKey::LENGTH - 1];
    NewRegistration {
        device: device.clone(),
        version,
        token_type: if version.is_multiple_of(2) { TokenType::Apn } else { TokenType::Firebase },
        data: DeviceData::new(data.into_bytes()),
        topic_keys: TopicKeys::new(&[last; 32], &[!last; 32]),
        at_unix_s: START.saturating_add(version),
    }
}

/// How a registration is found.
pub(crate) fn found(new: &NewRegistration, reached_unix_s: Option<u64>) -> Registration {
    Registration {
        device: new.device.clone(),
        version: new.version,
        token_type: new.token_type,
        data: new.data.clone(),
        registered_unix_s: new.at_unix_s,
        reached_unix_s,
    }
}

pub(crate) fn claim_key(message: &[u8], device: &DeviceId) -> ClaimKey {
    ClaimKey { message_id: message.to_vec(), device: device.clone() }
}

fn done(registrations: usize) -> Registered {
    Registered::Done(OwnerState { registrations })
}

async fn register(store: &dyn RegistrationStore, device: &DeviceId, version: u64) -> Registered {
    store.register(registration(device, version)).await.expect("the store is open")
}

async fn all_owners(store: &dyn RegistrationStore, page: usize) -> Vec<HashedPublicKey> {
    let mut owners: Vec<HashedPublicKey> = Vec::new();
    loop {
        let next = store.keys(owners.last(), page).await.expect("the store answers");
        let is_end = next.len() < page;
        for next in next {
            assert!(owners.last().is_none_or(|last| *last < next), "each once, in order");
            owners.push(next);
        }
        if is_end {
            return owners;
        }
    }
}
