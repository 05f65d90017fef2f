//! 7/WAKU-DATA: opened plaintexts, and ciphertexts of both kinds.
#![no_main]

use libfuzzer_sys::fuzz_target;
use poste_codec::SecretKey;
use poste_wire::{SymKey, payload};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(parsed) = payload::parse(bytes) {
        assert!(parsed.payload.len() + parsed.padding.len() < bytes.len());
    }
    let key = SymKey::from_bytes([1; 32]).expect("not zero");
    let _ = payload::open_symmetric(&key, bytes);
    let secret = SecretKey::from_bytes(&[1; 32]).expect("a key");
    let _ = payload::open_asymmetric(&secret, bytes);
});
