//! Status in three dialects, updates, odd lists of options, and confirmations.

use bytes::Bytes;
use poste_codec::rlp::{Encoder, RlpError};
use poste_wire::packet::{EnvelopeFault, MessageResponse, Options, PacketError, RateLimits, Status, code};
use poste_wire::{Bloom, BloomLengthError, Dialect, Hash, Packet, Topic};

use crate::entry::{Entry, Outcome, same};
use crate::mailserver::both_ways;
use crate::plan::{Plan, Section};

const POW: f64 = 0.002;
const PACKET_LIMITS: RateLimits = RateLimits { ip: 10, peer: 5, topic: 0 };
const TOPICS: [Topic; 2] = [Topic([1, 2, 3, 4]), Topic([5, 6, 7, 8])];
/// The batch and the envelope that the confirmations of the file are about.
const BATCH: &str = "a9126e4bf867072165130f767d49b03b9370774fbfb5224842ac5b288851843a";
const FAULTY: &str = "f7df29544b5c10a7073859b11e24fbe4d1c408416ef9544d649e3119c347cc2d";

pub(crate) fn add(section: &mut Section<'_>, plan: &mut Plan) {
    section.each("waku1_status", plan, |entry| waku_status(entry, Dialect::Waku1));
    section.each("waku0_status", plan, |entry| waku_status(entry, Dialect::Waku0));
    section.each("shh6_status", plan, shh_status);
    section.each("waku1_status_update", plan, |entry| status_update(entry, Dialect::Waku1));
    section.each("waku0_status_update", plan, |entry| status_update(entry, Dialect::Waku0));
    section.each("waku1_status_odd", plan, odd_status);
    section.own(
        &["rate_limits", "shh6_rate_limits", "shh6_pow_update", "shh6_bloom_update"],
        plan,
        shh_updates,
    );
    section.one("pow_bits", plan, pow_bits);
    section.one("batch_ack", plan, |entry| {
        Dialect::ALL
            .into_iter()
            .try_for_each(|dialect| both_ways(&Packet::BatchAcknowledged(hash(BATCH)), dialect, entry))
    });
    section.one("message_response", plan, message_response);
    section.one("message_response_no_errors", plan, |entry| {
        let response = MessageResponse { batch_hash: hash(BATCH), faults: vec![] };
        both_ways(&Packet::MessageResponse(response), Dialect::Waku1, entry)
    });
    section.one("error_codes", plan, error_codes);
    section.finish();
}

/// Where our decoder is better than the recorded one.
pub(crate) fn differences() -> impl Iterator<Item = String> {
    odd_cases()
        .into_iter()
        .filter_map(|odd| Some(format!("packets.waku1_status_odd \"{}\": {}", odd.case, odd.difference?)))
}

fn waku_status(entry: &Entry<'_>, dialect: Dialect) -> Outcome {
    let waku1 = dialect == Dialect::Waku1;
    let options = match entry.text("note")? {
        "full node, confirmations on" => Options {
            pow_requirement: Some(POW),
            bloom: Some(Bloom::FULL),
            light: Some(false),
            confirmations: Some(true),
            packet_limits: Some(PACKET_LIMITS),
            topic_interest: None,
            byte_limits: waku1.then_some(RateLimits { ip: 1 << 20, peer: 1 << 20, topic: 0 }),
        },
        "light node with topic interest" => Options {
            pow_requirement: Some(POW),
            bloom: None,
            light: Some(true),
            confirmations: Some(false),
            packet_limits: Some(if waku1 { RateLimits::default() } else { PACKET_LIMITS }),
            topic_interest: Some(TOPICS.to_vec()),
            byte_limits: waku1.then_some(RateLimits::default()),
        },
        note => return Err(format!("no status is known for {note:?}")),
    };
    both_ways(&Packet::Status(Status::new(options)), dialect, entry)
}

/// We write six items; four are only read.
fn shh_status(entry: &Entry<'_>) -> Outcome {
    let plain = Options {
        pow_requirement: Some(POW),
        bloom: Some(Bloom::FULL),
        light: Some(false),
        ..Options::default()
    };
    let (status, written) = match entry.text("note")? {
        "version pow bloom light confirmations rate-limits" => {
            let options = Options { confirmations: Some(true), packet_limits: Some(PACKET_LIMITS), ..plain };
            let status = Status { options, items: 6 };
            let written =
                Packet::Status(status.clone()).encode(Dialect::Shh6).map_err(|error| error.to_string())?.1;
            (status, written)
        }
        "version pow bloom light (plain go-ethereum)" => {
            let mut encoder = Encoder::new();
            encoder.list(4).uint(6).uint(POW.to_bits()).bytes(&Bloom::FULL.0).bool(false);
            (Status { options: plain, items: Status::GO_ETHEREUM_ITEMS }, encoder.finish().into())
        }
        note => return Err(format!("no status is known for {note:?}")),
    };
    let rlp = Bytes::from(entry.bytes("rlp")?);
    same("written", &written, &rlp)?;
    same("read", Packet::decode(Dialect::Shh6, code::STATUS, rlp), Ok(Some(Packet::Status(status))))
}

fn status_update(entry: &Entry<'_>, dialect: Dialect) -> Outcome {
    let nothing = Options::default();
    let options = match entry.text("note")? {
        "pow only" => Options { pow_requirement: Some(POW), ..nothing },
        "pow zero" => Options { pow_requirement: Some(0.0), ..nothing },
        "topic interest only" => Options { topic_interest: Some(TOPICS.to_vec()), ..nothing },
        "bloom only" => Options { bloom: Some(Bloom::FULL), ..nothing },
        note => return Err(format!("no update is known for {note:?}")),
    };
    both_ways(&Packet::StatusUpdate(options), dialect, entry)
}

/// An odd list of options: how it is written, what ours and what the recorded decoder make of it.
struct Odd {
    case: &'static str,
    write: fn(&mut Encoder),
    ours: Result<Options, PacketError>,
    recorded: Recorded,
    difference: Option<&'static str>,
}

/// What the recorded decoder had read when it ended.
#[derive(Clone, Copy)]
struct Recorded {
    error: &'static str,
    pow: Option<f64>,
    topics: Option<u64>,
}

fn odd_cases() -> [Odd; 8] {
    fn pow(encoder: &mut Encoder) -> &mut Encoder {
        encoder.list(2).uint(0).uint(POW.to_bits())
    }
    let nothing = Options::default;
    let pow_only = || Options { pow_requirement: Some(POW), ..nothing() };
    let fine = Recorded { error: "", pow: None, topics: None };
    let odd = |case, write, ours, recorded, difference| Odd { case, write, ours, recorded, difference };
    [
        odd("empty list", |e| _ = e.list(0), Ok(nothing()), fine, None),
        odd(
            "unknown key 9 placed last",
            |e| _ = pow(e.list(2)).list(2).uint(9).bytes(b"x"),
            Ok(pow_only()),
            Recorded { pow: Some(POW), ..fine },
            None,
        ),
        odd(
            "unknown key 9 placed first, key 0 after it",
            |e| _ = pow(e.list(2).list(2).uint(9).bytes(b"x")),
            Ok(pow_only()),
            fine,
            Some("an unknown key is skipped, as specified; status-go reads nothing behind it"),
        ),
        odd(
            "key 1 with empty bloom",
            |e| _ = e.list(1).list(2).uint(1).bytes(b""),
            Err(BloomLengthError(0).into()),
            fine,
            Some("a bloom filter has 64 bytes; status-go takes any length, and fails on it later"),
        ),
        odd(
            "key 5 with empty topic list",
            |e| _ = e.list(1).list(2).uint(5).list(0),
            Ok(Options { topic_interest: Some(vec![]), ..nothing() }),
            Recorded { topics: Some(0), ..fine },
            None,
        ),
        odd(
            "key 2 encoded as integer 2",
            |e| _ = e.list(1).list(2).uint(2).uint(2),
            Err(RlpError::Bool.into()),
            Recorded { error: "failed to decode an option 2: rlp: invalid boolean value: 2", ..fine },
            None,
        ),
        odd(
            "three items in a pair",
            |e| _ = e.list(1).list(3).uint(0).uint(POW.to_bits()).uint(1),
            Err(RlpError::Length.into()),
            Recorded { error: "rlp: call of ListEnd not positioned at EOL", pow: Some(POW), ..fine },
            None,
        ),
        odd(
            "key 0 twice",
            |e| _ = pow(e.list(2)).list(2).uint(0).uint(0),
            Ok(Options { pow_requirement: Some(0.0), ..nothing() }),
            Recorded { pow: Some(0.0), ..fine },
            None,
        ),
    ]
}

fn odd_status(entry: &Entry<'_>) -> Outcome {
    let case = entry.text("case")?;
    let odd = odd_cases().into_iter().find(|odd| odd.case == case).ok_or("an unknown case")?;
    let mut encoder = Encoder::new();
    (odd.write)(&mut encoder);
    let rlp = Bytes::from(entry.bytes("rlp")?);
    same("written", Bytes::from(encoder.finish()), rlp.clone())?;
    let read = Packet::decode(Dialect::Waku1, code::STATUS, rlp);
    let expected = odd.ours.clone().map(|options| Some(Packet::Status(Status::new(options))));
    same("read", read, expected)?;

    let recorded = odd.recorded;
    let accepted = recorded.error.is_empty();
    same("recorded as accepted", accepted, entry.flag("accepted")?)?;
    same("recorded error", recorded.error, if entry.has("error") { entry.text("error")? } else { "" })?;
    same("recorded bloom", 0, entry.uint("bloom_len")?)?;
    same("recorded reading of the pow", recorded.pow.is_some(), entry.flag("pow_read")?)?;
    let pow = if entry.has("pow_value") { Some(entry.float("pow_value")?) } else { None };
    same("recorded pow", recorded.pow, pow)?;
    same("recorded absence of topics", recorded.topics.is_none(), entry.flag("topic_interest_nil")?)?;
    same("recorded topics", recorded.topics.unwrap_or(0), entry.uint("topic_interest_len")?)?;

    let agrees = match &odd.ours {
        Err(_) => !accepted,
        Ok(options) => {
            let topics = options.topic_interest.as_ref().map(|topics| topics.len() as u64);
            accepted && (options.pow_requirement, topics) == (recorded.pow, recorded.topics)
        }
    };
    same("a difference", !agrees, odd.difference.is_some())
}

fn shh_updates(entry: &Entry<'_>) -> Outcome {
    let check = |name: &str, packet: Packet| {
        let rlp = Bytes::from(entry.bytes(name)?);
        same(name, packet.encode(Dialect::Shh6), Ok((packet.code(), rlp.clone())))?;
        same(name, Packet::decode(Dialect::Shh6, packet.code(), rlp), Ok(Some(packet)))
    };
    check("rate_limits", Packet::RateLimits(PACKET_LIMITS))?;
    check("shh6_rate_limits", Packet::RateLimits(PACKET_LIMITS))?;
    check("shh6_pow_update", Packet::PowRequirement(POW))?;
    check("shh6_bloom_update", Packet::BloomFilter(Bloom::FULL))
}

/// Each member's name is a number, its value the bits that go over the wire.
fn pow_bits(entry: &Entry<'_>) -> Outcome {
    for name in entry.names() {
        let pow: f64 = name.parse().map_err(|_| "the name is no number")?;
        let (_, payload) =
            Packet::PowRequirement(pow).encode(Dialect::Shh6).map_err(|error| error.to_string())?;
        let mut encoder = Encoder::new();
        encoder.uint(u64::from_be_bytes(entry.array(name)?));
        same(name, &payload[..], &encoder.finish()[..])?;
    }
    Ok(())
}

fn message_response(entry: &Entry<'_>) -> Outcome {
    let fault = |description: &str| EnvelopeFault {
        hash: hash(FAULTY),
        code: EnvelopeFault::time_code(Dialect::Waku1),
        description: description.to_owned(),
    };
    let faults = vec![fault("very old envelope"), fault("other")];
    let response = MessageResponse { batch_hash: entry.parsed("batch_hash")?, faults };
    both_ways(&Packet::MessageResponse(response), Dialect::Waku1, entry)
}

fn error_codes(entry: &Entry<'_>) -> Outcome {
    same("note", "every error is sent with the time code, see the fact sheet", entry.text("note")?)?;
    let (waku, whisper) = (Dialect::Waku1, Dialect::Shh6);
    same("waku, time", EnvelopeFault::time_code(waku), entry.uint("waku_time_not_synced")?)?;
    same("waku, sent for the time", EnvelopeFault::time_code(waku), entry.uint("waku_time_error_sample")?)?;
    same("waku, other", EnvelopeFault::other_code(waku), entry.uint("waku_other")?)?;
    same("whisper, time", EnvelopeFault::time_code(whisper), entry.uint("whisper_time_not_synced")?)?;
    same("whisper, sent for others", EnvelopeFault::time_code(whisper), entry.uint("whisper_other_sample")?)?;
    same("whisper, other", EnvelopeFault::other_code(whisper), entry.uint("whisper_other")?)
}

fn hash(text: &str) -> Hash {
    text.parse().expect("the constant is a hash")
}
