//! What the base protocol of devp2p reads, snappy, and enode URLs.
#![no_main]

use libfuzzer_sys::fuzz_target;
use poste_rlpx::{DisconnectReason, Enode, Hello, snappy};

fuzz_target!(|bytes: &[u8]| {
    let _ = Hello::decode(bytes);
    let _ = DisconnectReason::decode(bytes);
    if let Ok(plain) = snappy::decompress(bytes, 1 << 16) {
        assert!(plain.len() <= 1 << 16);
    }
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(enode) = text.parse::<Enode>()
    {
        assert_eq!(enode.to_string().parse(), Ok(enode));
    }
});
