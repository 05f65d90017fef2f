//! Grants: a client's signature that lets one server act for it with one access token.

use std::fmt;

use poste_codec::{PublicKey, SecretKey, keccak256, recover};
use subtle::ConstantTimeEq;
use thiserror::Error;

/// The length of a grant: R‖S‖V.
pub const GRANT_LENGTH: usize = 65;

/// Why a grant is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum GrantError {
    /// Not as many bytes as a signature has.
    #[error("a grant has {GRANT_LENGTH} bytes, not {0}")]
    Length(usize),
    /// By another client, for another server or token, or no signature.
    #[error("the client did not grant this server the use of this token")]
    Signature,
}

/// A signature by the client, V 0 or 1. Never printed; compared in constant time.
#[derive(Clone, Copy)]
pub struct Grant([u8; GRANT_LENGTH]);

impl Grant {
    /// What is signed: both compressed keys and the token's text.
    pub fn material(client: &PublicKey, server: &PublicKey, access_token: &str) -> Vec<u8> {
        [&client.to_compressed()[..], &server.to_compressed(), access_token.as_bytes()].concat()
    }

    /// Grants the server the use of the token. The token goes in as it is sent, letter for letter.
    pub fn sign(client: &SecretKey, server: &PublicKey, access_token: &str) -> Self {
        Self(client.sign(&keccak256(&Self::material(&client.public(), server, access_token))))
    }

    /// Takes the bytes of a grant; whether it is one says [`Self::verify`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, GrantError> {
        bytes.try_into().map(Self).map_err(|_| GrantError::Length(bytes.len()))
    }

    /// Whether the client let the server use the token. V must be below 4, as with deployed servers; S may be in the
    /// upper half.
    pub fn verify(
        &self,
        client: &PublicKey,
        server: &PublicKey,
        access_token: &str,
    ) -> Result<(), GrantError> {
        if self.0[GRANT_LENGTH - 1] > 3 {
            return Err(GrantError::Signature);
        }
        let digest = keccak256(&Self::material(client, server, access_token));
        match recover(&digest, &self.0) {
            Ok(signer) if signer == *client => Ok(()),
            _ => Err(GrantError::Signature),
        }
    }

    /// The 65 bytes.
    pub fn as_bytes(&self) -> &[u8; GRANT_LENGTH] {
        &self.0
    }
}

impl PartialEq for Grant {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for Grant {}

impl fmt::Debug for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Grant(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> SecretKey {
        SecretKey::from_bytes(&[byte; 32]).unwrap()
    }

    #[test]
    fn a_grant_is_for_one_client_server_and_token() {
        let (client, server) = (key(1).public(), key(2).public());
        let grant = Grant::sign(&key(1), &server, "token");
        assert_eq!(grant.verify(&client, &server, "token"), Ok(()));
        let refused = Err(GrantError::Signature);
        assert_eq!(grant.verify(&key(3).public(), &server, "token"), refused);
        assert_eq!(grant.verify(&client, &key(3).public(), "token"), refused);
        assert_eq!(grant.verify(&client, &server, "Token"), refused);
        for at in 0..GRANT_LENGTH {
            let mut altered = *grant.as_bytes();
            altered[at] ^= 1;
            assert_eq!(Grant(altered).verify(&client, &server, "token"), refused, "byte {at}");
        }
        let mut specified = *grant.as_bytes();
        specified[64] += 27;
        assert_eq!(Grant(specified).verify(&client, &server, "token"), refused);
    }

    #[test]
    fn a_grant_has_65_bytes() {
        assert_eq!(Grant::from_bytes(&[0; 64]), Err(GrantError::Length(64)));
        assert_eq!(Grant::from_bytes(&[]), Err(GrantError::Length(0)));
        let zero = Grant::from_bytes(&[0; 65]).unwrap();
        assert!(zero.verify(&key(1).public(), &key(2).public(), "").is_err());
        assert_eq!(format!("{zero:?}"), "Grant(redacted)");
    }
}
