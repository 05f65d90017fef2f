//! Keys and randomness for tests.

use poste_codec::SecretKey;

/// The key of 32 times this byte, which must be neither 0 nor 255.
pub(super) fn key(byte: u8) -> SecretKey {
    SecretKey::from_bytes(&[byte; 32]).unwrap()
}

/// Two keys of one partition: 2792.
pub(super) fn neighbours() -> [SecretKey; 2] {
    [107, 158].map(|last| {
        let mut bytes = [0; 32];
        bytes[31] = last;
        SecretKey::from_bytes(&bytes).unwrap()
    })
}

/// Bytes that differ from call to call, the same for the same seed.
pub(super) fn fill(seed: u64) -> impl FnMut(&mut [u8]) {
    let mut state = seed;
    move |bytes| {
        for byte in bytes {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *byte = (state >> 56) as u8;
        }
    }
}
