//! The gate: what it lets through is canonical, so writing what was read gives the same bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use poste_codec::rlp::{Encoder, Item};

fn write(item: &Item<'_>, encoder: &mut Encoder) {
    match item.list() {
        Ok(list) => {
            encoder.list(list.len());
            list.for_each(|item| write(&item, encoder));
        }
        Err(_) => drop(encoder.bytes(item.bytes().expect("what is no list is a string"))),
    }
}

fuzz_target!(|bytes: &[u8]| {
    if let Ok(item) = Item::parse(bytes) {
        let mut encoder = Encoder::new();
        write(&item, &mut encoder);
        assert_eq!(encoder.finish(), bytes);
        let _ = (item.u64(), item.bool());
    }
});
