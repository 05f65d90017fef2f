use bytes::Bytes;
use poste_wire::{Hash, Topic};
use proptest::prelude::*;

use super::*;
use crate::record::{Derived, Space};
use crate::store::conformance::envelope;

fn header() -> Header {
    Header {
        store_id: StoreId([9; 16]),
        space: "waku1".to_owned(),
        from_ns: 1_000_000_000,
        to_ns: 2_000_000_000_000,
    }
}

fn record(number: u64, body: &[u8]) -> (Position, Bytes) {
    let mut id = [0; 32];
    id[..8].copy_from_slice(&number.to_be_bytes());
    // Some share their time, and are told apart by their id.
    let time_ns = 1_000_000_000 + (number as i64 / 3) * 1_000_000;
    (Position { time_ns, id: Hash(id) }, Bytes::copy_from_slice(body))
}

fn records(count: u64) -> Vec<(Position, Bytes)> {
    (0..count).map(|number| record(number, &number.to_le_bytes())).collect()
}

fn file(records: &[(Position, Bytes)]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut encoder = Encoder::begin(&header(), &mut out).unwrap();
    for (position, body) in records {
        encoder.record(*position, body, &mut out).unwrap();
    }
    encoder.end(&mut out);
    out
}

/// Everything that a file says, when it comes in pieces of at most `step` bytes; the outcome is that of the end.
fn read(file: &[u8], step: usize) -> (Vec<Piece>, Decoder, Result<Totals, Damage>) {
    let mut decoder = Decoder::new();
    let mut pieces = Vec::new();
    for bytes in file.chunks(step.max(1)) {
        decoder.push(bytes);
        loop {
            match decoder.next_piece() {
                Ok(Some(piece)) => pieces.push(piece),
                Ok(None) => break,
                Err(damage) => return (pieces, decoder, Err(damage)),
            }
        }
    }
    let finished = decoder.finish();
    (pieces, decoder, finished)
}

fn records_of(pieces: &[Piece]) -> Vec<(Position, Bytes)> {
    let of = |piece: &Piece| match piece {
        Piece::Record { position, body } => Some((*position, body.clone())),
        _ => None,
    };
    pieces.iter().filter_map(of).collect()
}

/// Goes on behind the sound part of a file, as `poste ctl archive export --resume` does when it was cut off.
fn resumed(cut: &[u8], all: &[(Position, Bytes)]) -> Vec<u8> {
    let (_, decoder, _) = read(cut, usize::MAX);
    let mut out = cut[..decoder.sound_bytes() as usize].to_vec();
    let place = decoder.place();
    let mut encoder = match decoder.header() {
        Some(_) => Encoder::resume(place),
        None => Encoder::begin(&header(), &mut out).unwrap(),
    };
    for (position, body) in all.iter().filter(|(position, _)| place.last.is_none_or(|last| *position > last))
    {
        encoder.record(*position, body, &mut out).unwrap();
    }
    encoder.end(&mut out);
    out
}

/// A file of version 1 as it was first written: two envelopes. What reads it must read it for ever.
const FROZEN: &str = concat!(
    "504f53544545585001000000070707070707070707070707070707070000000000000000ffffffffffffff7f",
    "0577616b753163485872",
    "36000000014b261ff8",
    "0000a0d8855734167e9adb30b80a7e3e5df32c8b9bed4b7393326f36c91f32df032d59529fa984ee",
    "cd845f5e10323284010203046101",
    "360000000129f8fa80",
    "00ca3a1486573416d1836b028664a0490a94f7b0f63e293d543383c7e5161da0f6ab09a9afb0f45a",
    "cd845f5e10333284050505056201",
    "14000000036a78ede0",
    "02000000000000007e00000000000000b709bf26",
);

#[test]
fn a_frozen_sample_reads_and_writes_as_ever() {
    let header =
        Header { store_id: StoreId([7; 16]), space: "waku1".to_owned(), from_ns: 0, to_ns: i64::MAX };
    let mut out = Vec::new();
    let mut encoder = Encoder::begin(&header, &mut out).unwrap();
    let mut expected = vec![Piece::Header(header)];
    for envelope in
        [envelope(1_600_000_000, Topic([1, 2, 3, 4]), b"a"), envelope(1_600_000_001, Topic([5; 4]), b"b")]
    {
        let Derived { position, .. } = Derived::of(Space::Waku1, envelope.rlp()).unwrap();
        encoder.record(position, envelope.rlp(), &mut out).unwrap();
        expected.push(Piece::Record { position, body: envelope.rlp().clone() });
    }
    expected.push(Piece::End(encoder.end(&mut out)));
    assert_eq!(hex::encode(&out), FROZEN);
    assert_eq!(read(&hex::decode(FROZEN).unwrap(), 7).0, expected);
}

#[test]
fn checkpoints_stand_after_a_thousand_records_or_four_mebibytes() {
    let checkpoints = |records: &[(Position, Bytes)]| -> Vec<u64> {
        let (pieces, _, outcome) = read(&file(records), 10_000);
        assert_eq!(outcome.unwrap().records, records.len() as u64);
        let of = |piece: &Piece| match piece {
            Piece::Checkpoint(totals) => Some(totals.records),
            _ => None,
        };
        pieces.iter().filter_map(of).collect()
    };
    assert_eq!(checkpoints(&records(999)), Vec::<u64>::new());
    assert_eq!(checkpoints(&records(1000)), [1000]);
    assert_eq!(checkpoints(&records(2500)), [1000, 2000]);
    let large: Vec<_> = (0..10).map(|number| record(number, &vec![1; 1024 * 1024])).collect();
    assert_eq!(checkpoints(&large), [4, 8]);
}

#[test]
fn a_file_that_was_cut_off_anywhere_is_unfinished_and_goes_on_as_if_nothing_had_been() {
    let all = records(1003);
    let whole = file(&all);
    let near_checkpoint = whole.len() - 400;
    for cut in (0..200).chain(near_checkpoint..whole.len()) {
        let (pieces, decoder, outcome) = read(&whole[..cut], 4096);
        let damage = outcome.unwrap_err();
        assert_eq!(damage, Damage { at: decoder.sound_bytes(), flaw: Flaw::Unfinished }, "cut at {cut}");
        let found = records_of(&pieces);
        assert_eq!(found, all[..found.len()]);
        assert!(resumed(&whole[..cut], &all) == whole, "cut at {cut}");
    }
}

#[test]
fn a_length_that_reaches_past_the_end_of_the_file_is_damage_and_no_cut() {
    let all = records(5);
    let mut damaged = file(&all);
    let first = HEADER_FIXED_BYTES + 9;
    damaged[first + 1] ^= 0x80;
    let (pieces, _, outcome) = read(&damaged, 100);
    let length = u32::from_le_bytes(*damaged[first..].first_chunk().unwrap());
    assert_eq!(outcome, Err(Damage { at: first as u64, flaw: Flaw::Length(length) }));
    assert!(records_of(&pieces).is_empty());
}

#[test]
fn every_changed_byte_is_noticed() {
    let all = records(5);
    let whole = file(&all);
    for at in 0..whole.len() {
        for flip in [0x01, 0x80, 0xff] {
            let mut damaged = whole.clone();
            damaged[at] ^= flip;
            let (pieces, decoder, outcome) = read(&damaged, usize::MAX);
            let damage = outcome.unwrap_err();
            assert!(damage.at <= at as u64 && damage.at == decoder.sound_bytes(), "{at} {damage}");
            assert!(all.starts_with(&records_of(&pieces)), "{at}");
            assert!(resumed(&damaged, &all) == whole || at < HEADER_FIXED_BYTES + 9, "{at}");
        }
    }
}

/// A frame whose checksum fits, whatever is in it.
fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = (payload.len() as u32).to_le_bytes().to_vec();
    out.push(kind);
    let crc = crc32c::crc32c_append(crc32c::crc32c(&out), payload);
    out.extend(crc.to_le_bytes());
    out.extend(payload);
    out
}

#[test]
fn what_no_encoder_writes_is_refused_for_what_it_is() {
    let head = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = Vec::new();
        Encoder::begin(&header(), &mut bytes).unwrap();
        bytes.truncate(bytes.len() - 4);
        change(&mut bytes);
        let crc = crc32c::crc32c(&bytes);
        bytes.extend(crc.to_le_bytes());
        bytes
    };
    let flaw = |bytes: &[u8]| read(bytes, 11).2.unwrap_err().flaw;
    assert_eq!(flaw(b"not an export"), Flaw::NotAnExport);
    assert_eq!(flaw(&head(&|bytes| bytes[8] = 2)), Flaw::Version(2));
    assert_eq!(flaw(&head(&|bytes| bytes[44] = 0)), Flaw::SpaceName);
    assert_eq!(flaw(&head(&|bytes| bytes[44] = 129)), Flaw::SpaceName);
    assert_eq!(flaw(&head(&|bytes| bytes[45] = 0xff)), Flaw::SpaceName);

    let behind_two = |more: &[Vec<u8>]| {
        let whole = file(&records(2));
        let mut bytes = whole[..whole.len() - FRAME_HEAD_BYTES - TOTALS_BYTES].to_vec();
        let sound = bytes.len() as u64;
        bytes.extend(more.concat());
        let damage = read(&bytes, 50).2.unwrap_err();
        assert_eq!(damage.at, sound, "{damage}");
        damage.flaw
    };
    let payload = |number: u64| {
        let (position, body) = record(number, b"body");
        [&position.time_ns.to_le_bytes()[..], &position.id.0[..], &body[..]].concat()
    };
    assert_eq!(behind_two(&[frame(4, b"x")]), Flaw::Kind(4));
    assert_eq!(behind_two(&[frame(KIND_RECORD, &payload(7)[..40])]), Flaw::Length(40));
    assert_eq!(behind_two(&[frame(KIND_END, &[0; 21])]), Flaw::Length(21));
    // A length that no frame has is refused by its head alone.
    let mut endless = u32::MAX.to_le_bytes().to_vec();
    endless.extend([KIND_RECORD, 0, 0, 0, 0]);
    assert_eq!(behind_two(&[endless]), Flaw::Length(u32::MAX));
    assert_eq!(behind_two(&[frame(KIND_RECORD, &payload(1))]), Flaw::Order);
    assert_eq!(behind_two(&[frame(KIND_RECORD, &payload(10_000_000))]), Flaw::Range);
    let totals = Totals { records: 3, ..Totals::default() }.to_bytes();
    assert_eq!(behind_two(&[frame(KIND_CHECKPOINT, &totals)]), Flaw::CheckpointPlace);
    assert_eq!(behind_two(&[frame(KIND_END, &totals)]), Flaw::Totals);
    let mut more = file(&records(2));
    let sound = more.len() as u64;
    more.push(0);
    assert_eq!(read(&more, 50).2, Err(Damage { at: sound, flaw: Flaw::BehindTheEnd }));

    // A record more where a checkpoint is due, and one that is missing before the end.
    let whole = file(&records(1000));
    let before_checkpoint = whole.len() - 2 * (FRAME_HEAD_BYTES + TOTALS_BYTES);
    let bytes = [&whole[..before_checkpoint], &frame(KIND_RECORD, &payload(1000))].concat();
    assert_eq!(flaw(&bytes), Flaw::CheckpointPlace);
    let (first, rest) = (HEADER_FIXED_BYTES + 9, FRAME_HEAD_BYTES + RECORD_FIXED_BYTES + 8);
    let whole = file(&records(3));
    assert_eq!(flaw(&[&whole[..first], &whole[first + rest..]].concat()), Flaw::Totals);
}

#[test]
fn an_encoder_refuses_what_a_decoder_would() {
    let mut out = Vec::new();
    let nameless = Header { space: String::new(), ..header() };
    assert_eq!(Encoder::begin(&nameless, &mut out).unwrap_err(), Flaw::SpaceName);
    let long = Header { space: "x".repeat(129), ..header() };
    assert_eq!(Encoder::begin(&long, &mut out).unwrap_err(), Flaw::SpaceName);
    let mut encoder = Encoder::begin(&header(), &mut out).unwrap();
    let (position, body) = record(1, b"x");
    encoder.record(position, &body, &mut out).unwrap();
    let (place, length) = (encoder.place(), out.len());
    assert_eq!(encoder.record(position, &body, &mut out), Err(Flaw::Order));
    let next = record(2, b"").0;
    assert_eq!(encoder.record(next, b"", &mut out), Err(Flaw::Length(0)));
    let large = vec![0; MAX_BODY_BYTES + 1];
    assert!(matches!(encoder.record(next, &large, &mut out), Err(Flaw::Length(_))));
    assert_eq!((encoder.place(), out.len()), (place, length));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_was_written_is_read_in_steps_of_any_size_and_after_any_cut(
        sizes in prop::collection::vec(1_usize..3000, 0..1500),
        step in 1_usize..9000,
        cut in any::<prop::sample::Index>(),
    ) {
        let all: Vec<_> =
            sizes.iter().zip(0..).map(|(size, number)| record(number, &vec![number as u8; *size])).collect();
        let whole = file(&all);
        let (pieces, _, outcome) = read(&whole, step);
        prop_assert_eq!(outcome.unwrap().records, all.len() as u64);
        prop_assert_eq!(records_of(&pieces), all.clone());
        prop_assert!(resumed(&whole[..cut.index(whole.len())], &all) == whole);
    }

    #[test]
    fn no_bytes_do_harm(bytes in prop::collection::vec(any::<u8>(), 0..300), behind_header in any::<bool>()) {
        let mut file = Vec::new();
        if behind_header {
            Encoder::begin(&header(), &mut file).unwrap();
        }
        file.extend(&bytes);
        let (pieces, decoder, outcome) = read(&file, 13);
        let sound = decoder.sound_bytes() as usize;
        prop_assert!(sound <= file.len());
        prop_assert!(outcome.is_err());
        prop_assert_eq!(&pieces, &read(&file, usize::MAX).0);
        if decoder.header().is_some() {
            let mut ended = file[..sound].to_vec();
            Encoder::resume(decoder.place()).end(&mut ended);
            prop_assert!(read(&ended, usize::MAX).2.is_ok());
        }
    }
}
