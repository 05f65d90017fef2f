//! Export files: anything behind a sound beginning, in pieces of two sizes. What is sound can be gone on with.
#![no_main]

use libfuzzer_sys::fuzz_target;
use poste_archive::export::{Decoder, Encoder, Header, Piece};
use poste_archive::store::StoreId;

fn read(file: &[u8], step: usize) -> (Vec<Piece>, Decoder, bool) {
    let mut decoder = Decoder::new();
    let mut pieces = Vec::new();
    for bytes in file.chunks(step) {
        decoder.push(bytes);
        loop {
            match decoder.next_piece() {
                Ok(Some(piece)) => pieces.push(piece),
                Ok(None) => break,
                Err(_) => return (pieces, decoder, false),
            }
        }
    }
    let is_whole = decoder.finish().is_ok();
    (pieces, decoder, is_whole)
}

fuzz_target!(|input: (bool, u8, &[u8])| {
    let (behind_header, step, bytes) = input;
    let mut file = Vec::new();
    if behind_header {
        let header =
            Header { store_id: StoreId([7; 16]), space: "waku1".into(), from_ns: i64::MIN, to_ns: i64::MAX };
        Encoder::begin(&header, &mut file).expect("a space with a name");
    }
    file.extend_from_slice(bytes);
    let (pieces, decoder, is_whole) = read(&file, usize::from(step) + 1);
    let (at_once, again, is_whole_at_once) = read(&file, usize::MAX);
    assert_eq!((&pieces, is_whole), (&at_once, is_whole_at_once));
    assert_eq!(decoder.sound_bytes(), again.sound_bytes());
    let sound = usize::try_from(decoder.sound_bytes()).expect("no longer than the file");
    assert!(sound <= file.len());
    if decoder.header().is_some() && !is_whole && !pieces.iter().any(|piece| matches!(piece, Piece::End(_))) {
        let mut ended = file[..sound].to_vec();
        Encoder::resume(decoder.place()).end(&mut ended);
        assert!(read(&ended, usize::MAX).2);
    }
});
