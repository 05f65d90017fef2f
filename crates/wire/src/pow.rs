//! Proof of work (6/WAKU1, section "Proof of work"; EIP-627): how much an envelope has, and how to find a nonce.
//!
//! The work is in `Keccak-256(rlp[expiry, ttl, topic, data] ‖ nonce as 8 bytes)`: the number of its leading zero bits,
//! set against how long the envelope is and for how long it is to be relayed.

use poste_codec::rlp::Encoder;
use sha3::{Digest, Keccak256};
use thiserror::Error;

use crate::{Envelope, Topic};

/// How many nonces are tried between two questions whether to stop.
const ROUND: u64 = 1024;

/// The work that is in an envelope, apart from the time that it is divided by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Work {
    /// Leading zero bits of the hash.
    pub zero_bits: u32,
    /// Length of the encoding without the nonce, in bytes.
    pub short_length: usize,
}

impl Work {
    /// Measures an envelope; hashes its data.
    pub fn of(envelope: &Envelope) -> Self {
        let short = short_rlp(envelope.expiry(), envelope.ttl(), envelope.topic(), envelope.data());
        let zero_bits = leading_zero_bits(&Keccak256::new_with_prefix(&short), envelope.nonce());
        Self { zero_bits, short_length: short.len() }
    }

    /// The proof of work for `ttl` seconds, divided in the order of the deployed nodes, so that the floating-point
    /// result is theirs. Infinite for 0 seconds.
    pub fn pow(&self, ttl: u64) -> f64 {
        2f64.powi(self.zero_bits as i32) / self.short_length as f64 / ttl as f64
    }
}

/// Why no nonce was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum MineError {
    /// Negative, not a number, or so high that no nonce will ever do.
    #[error("the proof of work asked for is no number that can be reached")]
    Target,
    /// The caller said stop.
    #[error("mining was stopped before a nonce was found")]
    Stopped,
}

/// Makes an envelope whose nonce gives it at least the proof of work `target`; 0 asks for none. Nonces are tried from
/// 0 upwards, so the result is always the same; every 1024 of them `should_stop` is asked. Takes as long as the target
/// wants: not for an async task.
pub fn mine(
    expiry: u32,
    ttl: u32,
    topic: Topic,
    data: &[u8],
    target: f64,
    mut should_stop: impl FnMut() -> bool,
) -> Result<Envelope, MineError> {
    if target == 0.0 {
        return Ok(Envelope::new(expiry, ttl, topic, data, 0));
    }
    let bits = target_bits(target, Envelope::HEADER_SIZE + data.len(), ttl)?;
    let prefix = Keccak256::new_with_prefix(short_rlp(expiry, ttl, topic, data));
    let mut nonce = 0;
    while leading_zero_bits(&prefix, nonce) < bits {
        nonce += 1;
        if nonce % ROUND == 0 && should_stop() {
            return Err(MineError::Stopped);
        }
    }
    Ok(Envelope::new(expiry, ttl, topic, data, nonce))
}

/// The leading zero bits that a target takes. The deployed miners count the size with 20 bytes of header, the checkers
/// with the real 17 to 19, so what was mined passes.
fn target_bits(target: f64, size: usize, ttl: u32) -> Result<u32, MineError> {
    let bits = (target * size as f64 * f64::from(ttl)).log2().ceil();
    // A nonce has 64 bits: beyond that none may exist.
    if target < 0.0 || bits.is_nan() || bits > 64.0 {
        return Err(MineError::Target);
    }
    Ok(bits.max(1.0) as u32)
}

fn short_rlp(expiry: u32, ttl: u32, topic: Topic, data: &[u8]) -> Vec<u8> {
    let mut encoder = Encoder::new();
    encoder.list(4).uint(expiry.into()).uint(ttl.into()).bytes(&topic.0).bytes(data);
    encoder.finish()
}

fn leading_zero_bits(prefix: &Keccak256, nonce: u64) -> u32 {
    let hash = prefix.clone().chain_update(nonce.to_be_bytes()).finalize();
    let zero_bytes = hash.iter().take_while(|byte| **byte == 0).count();
    8 * zero_bytes as u32 + hash.get(zero_bytes).map_or(0, |byte| byte.leading_zeros())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_mined_has_the_work() {
        for target in [0.000_002, 0.002, 0.05] {
            let envelope = mine(1_600_000_050, 50, Topic([1; 4]), &[7; 284], target, || false).unwrap();
            assert!(envelope.pow() >= target);
        }
    }

    #[test]
    fn target_zero_mines_nothing() {
        assert_eq!(mine(1, 1, Topic([1; 4]), b"", 0.0, || true).unwrap().nonce(), 0);
    }

    #[test]
    fn mining_stops_when_told() {
        let mut asked = 0;
        let result = mine(1_600_000_050, 50, Topic([1; 4]), b"data", 1e9, || {
            asked += 1;
            asked == 3
        });
        assert_eq!((result, asked), (Err(MineError::Stopped), 3));
    }

    #[test]
    fn targets_that_are_no_numbers_are_refused() {
        for target in [-1.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e300] {
            assert_eq!(mine(1, 1, Topic([1; 4]), b"", target, || false), Err(MineError::Target), "{target}");
        }
    }

    #[test]
    fn at_least_one_bit_is_asked_for() {
        assert_eq!(target_bits(0.000_002, 304, 50), Ok(1));
        assert_eq!(target_bits(0.002, 304, 50), Ok(5));
        assert_eq!(target_bits(1.0, 304, 0), Ok(1));
    }
}
