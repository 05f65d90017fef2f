//! Mail: requests in their layouts, a sealed request, completions, direct requests, and the sync packets of shh/6.

use bytes::Bytes;
use poste_codec::rlp::Encoder;
use poste_wire::mail::{
    DirectRequest, MailRequest, MailRequestPacket, REQUEST_TTL, Refusal, RequestForm, RequestFormError,
    RequestKeys, RequestSeal, open_request, seal_request,
};
use poste_wire::packet::{Completion, SyncRequest, SyncResponse, code};
use poste_wire::{Bloom, Cursor, Dialect, Envelope, Hash, Packet, Topic, payload};

use crate::entry::{Entry, Outcome, same};
use crate::plan::{Plan, Section};
use crate::{envelopes, payloads};

/// The request that the completions and direct requests of the file are about.
const REQUEST_ID: &str = "72859a6ae50aa97f593f23df1c78bb1fd78cfc493fcef64159d6486223196833";
const LAST_HASH: &str = "da6923606c6e1c49cd954a874ef22bd005744fa776d4e42c0812e0e030ebd525";
const CURSOR: [u8; 36] = [0xcc; 36];
/// The minimum of the node that made the sealed request.
const REQUEST_POW: f64 = 0.002;

pub(crate) fn add(section: &mut Section<'_>, plan: &mut Plan) {
    section.each("request_payloads", plan, request_payload);
    section.each("request_arity", plan, request_arity);
    section.one("request_envelope", plan, request_envelope);
    section.each("complete", plan, complete);
    section.each("complete_parsing", plan, complete_parsing);
    section.one("failed", plan, failed);
    section.one("direct_request_waku", plan, |entry| direct_request(entry, Dialect::Waku1));
    section.one("direct_request_shh", plan, |entry| direct_request(entry, Dialect::Shh6));
    section.one("sync_request_shh", plan, sync_request);
    section.each("sync_response_shh", plan, sync_response);
    section.finish();
}

/// Where ours answers although the recorded server refuses.
pub(crate) fn differences() -> impl Iterator<Item = String> {
    let layouts = arities().into_iter().filter_map(|arity| {
        Some(format!("mailserver.request_arity \"{}\": {}", arity.layout, arity.difference?))
    });
    let bloom = "mailserver.request_payloads \"bloom filter is empty\": topics alone are answered, as by newer servers";
    layouts.chain([bloom.to_owned()])
}

fn request_payload(entry: &Entry<'_>) -> Outcome {
    let rlp = entry.bytes("rlp")?;
    let topics: Result<Vec<Topic>, _> =
        entry.list("topics")?.iter().map(|topic| topic.as_str().unwrap_or_default().parse()).collect();
    let limit = u32::try_from(entry.uint("limit")?).map_err(|error| error.to_string())?;
    let expected = MailRequest {
        lower: u32::try_from(entry.uint("lower")?).map_err(|error| error.to_string())?,
        upper: u32::try_from(entry.uint("upper")?).map_err(|error| error.to_string())?,
        bloom: entry.bytes("bloom")?.into(),
        topics: topics.map_err(|error| error.to_string())?,
        limit,
        cursor: entry.bytes("cursor")?.into(),
        batch: entry.flag("batch")?,
    };
    same("written", &expected.encode(), &rlp)?;
    same("read", MailRequest::decode(&rlp), Ok((expected.clone(), RequestForm::Deployed)))?;

    let recorded_error = entry.text("validation_error")?;
    let checked = expected.clone().validate(RequestForm::Deployed, 1_600_086_400);
    let recorded_limit = entry.uint("limit_after_defaults")?;
    match &checked {
        Ok(valid) => same("limit", u64::from(valid.limit), recorded_limit)?,
        Err(_) => same("limit", u64::from(limit), recorded_limit)?,
    }
    if recorded_error == "bloom filter is empty" && !expected.topics.is_empty() {
        return same("answered by topics", checked.is_ok(), true);
    }
    // The server puts "request is invalid: " in front, except of the range (which it checks before).
    let ours = checked.err().map(|refusal| refusal.to_string()).unwrap_or_default();
    same("refusal", ours.strip_prefix("request is invalid: ").unwrap_or(&ours), recorded_error)
}

/// A layout: how it is written, what ours and what the recorded decoder make of it.
struct Arity {
    layout: &'static str,
    items: usize,
    rest: fn(&mut Encoder),
    ours: Result<RequestForm, RequestFormError>,
    recorded_error: &'static str,
    difference: Option<&'static str>,
}

fn arities() -> [Arity; 6] {
    let no_list =
        "rlp: expected input list for [][]uint8, decoding into (mailserver.MessagesRequestPayload).Topics";
    let too_many = "rlp: input list has too many elements for mailserver.MessagesRequestPayload";
    fn topics(encoder: &mut Encoder) -> &mut Encoder {
        encoder.list(1).bytes(&[1, 2, 3, 4])
    }
    let arity = |layout, items, rest, ours, recorded_error, difference| Arity {
        layout,
        items,
        rest,
        ours,
        recorded_error,
        difference,
    };
    let read = Some("read, because clients of that time or of the specification wrote it");
    [
        arity(
            "4 items: lower upper bloom limit",
            4,
            |e| _ = e.uint(3),
            Ok(RequestForm::Specified),
            no_list,
            read,
        ),
        arity(
            "5 items: + cursor",
            5,
            |e| _ = e.uint(3).bytes(&CURSOR),
            Ok(RequestForm::Specified),
            no_list,
            read,
        ),
        arity(
            "6 items, older layout: lower upper bloom limit cursor batch",
            6,
            |e| _ = e.uint(3).bytes(&CURSOR).bool(true),
            Ok(RequestForm::Batch2019),
            no_list,
            read,
        ),
        arity(
            "6 items, spec layout: lower upper bloom limit cursor topics",
            6,
            |e| _ = topics(e.uint(3).bytes(&CURSOR)),
            Ok(RequestForm::Specified),
            no_list,
            read,
        ),
        arity(
            "7 items, deployed layout",
            7,
            |e| _ = topics(e).uint(3).bytes(&CURSOR).bool(true),
            Ok(RequestForm::Deployed),
            "",
            None,
        ),
        arity(
            "8 items",
            8,
            |e| _ = topics(e).uint(3).bytes(&CURSOR).bool(true).uint(9),
            Err(RequestFormError::Items(8)),
            too_many,
            None,
        ),
    ]
}

fn request_arity(entry: &Entry<'_>) -> Outcome {
    let layout = entry.text("layout")?;
    let arity = arities().into_iter().find(|arity| arity.layout == layout).ok_or("an unknown layout")?;
    let mut encoder = Encoder::new();
    (arity.rest)(encoder.list(arity.items).uint(1).uint(2).bytes(&[0xff; 64]));
    let rlp = entry.bytes("rlp")?;
    same("written", &encoder.finish(), &rlp)?;

    let read = MailRequest::decode(&rlp);
    same("layout", read.as_ref().map(|(_, form)| *form).map_err(|error| *error), arity.ours)?;
    if let Ok((request, form)) = read {
        same("bounds and limit", (request.lower, request.upper, request.limit), (1, 2, 3))?;
        same("bloom", &request.bloom[..], &[0xff; 64])?;
        same("cursor", request.cursor.len(), if arity.items == 4 { 0 } else { 36 })?;
        same("batch", request.batch, matches!(form, RequestForm::Batch2019 | RequestForm::Deployed))?;
        let topics = if layout.contains("spec") || form == RequestForm::Deployed { 1 } else { 0 };
        same("topics", request.topics, vec![Topic([1, 2, 3, 4]); topics])?;
    }
    let recorded = entry.flag("decodes")?;
    same("recorded error", arity.recorded_error, if entry.has("error") { entry.text("error")? } else { "" })?;
    same("recorded answer", arity.recorded_error.is_empty(), recorded)?;
    same("a difference", arity.ours.is_ok() != recorded, arity.difference.is_some())
}

/// A request that a real client sealed: opened, and sealed anew from its parts.
fn request_envelope(entry: &Entry<'_>) -> Outcome {
    let nested = Entry::new(entry.value("envelope")?)?;
    envelopes::envelope(&nested)?;
    nested.finish()?;
    let envelope = Envelope::decode(nested.bytes("rlp")?.into()).map_err(|error| error.to_string())?;

    let packet_rlp = Bytes::from(entry.bytes("packet_126_rlp")?);
    let request = MailRequestPacket::Sealed(envelope.clone());
    let packet = Packet::MailRequest(request.clone());
    same("packet", packet.encode(Dialect::Waku1), Ok((code::MAIL_REQUEST, packet_rlp.clone())))?;
    same("packet read", Packet::decode(Dialect::Waku1, code::MAIL_REQUEST, packet_rlp), Ok(Some(packet)))?;
    same("request id", request.request_id(), entry.parsed("request_id")?)?;

    let key = payloads::derived(entry.text("password")?);
    same("key", *key.as_bytes(), entry.array("symkey")?)?;
    let signer = payloads::secret_key(entry, "signer_private_key")?;
    let keys = RequestKeys { password: Some(&key), node: None };
    let opened = open_request(&envelope, keys, REQUEST_POW).map_err(|refusal| refusal.to_string())?;
    let recorded = entry.bytes("payload_rlp")?;
    same("payload", opened.payload.to_vec(), recorded.clone())?;
    same("signer", opened.signer, signer.public())?;
    same("min pow", open_request(&envelope, keys, 1.0).err(), Some(Refusal::PowTooLow))?;

    let plaintext = payload::open_symmetric(&key, envelope.data()).map_err(|error| error.to_string())?;
    let used = payload::parse(&plaintext).map_err(|error| error.to_string())?.padding;
    let mut padding = [0; payload::MAX_PADDING];
    padding[..used.len()].copy_from_slice(used);
    let nonce = *envelope.data().last_chunk().ok_or("no nonce")?;
    let now = envelope.sent();
    let seal = RequestSeal {
        payload: &recorded,
        signer: &signer,
        key: &key,
        now,
        pow_target: REQUEST_POW,
        nonce,
        padding: &padding,
    };
    let sealed = seal_request(&seal, || false).map_err(|error| error.to_string())?;
    same("ttl", sealed.ttl(), REQUEST_TTL)?;
    same("sealed anew", sealed.rlp(), envelope.rlp())
}

fn complete(entry: &Entry<'_>) -> Outcome {
    let cursor = match &entry.bytes("cursor")?[..] {
        [] => None,
        bytes => Some(Cursor::try_from(bytes).map_err(|error| error.to_string())?),
    };
    let completion = Completion::Done {
        request_id: entry.parsed("request_id")?,
        last_hash: entry.parsed("last_envelope_hash")?,
        cursor,
    };
    completion_packet(entry, completion)
}

fn failed(entry: &Entry<'_>) -> Outcome {
    let (request_id, error) = (entry.parsed("request_id")?, entry.text("error")?.to_owned());
    same("error", &error, &Refusal::RateLimited.to_string())?;
    completion_packet(entry, Completion::Failed { request_id, error })
}

fn completion_packet(entry: &Entry<'_>, completion: Completion) -> Outcome {
    same("payload", completion.to_bytes(), entry.bytes("payload")?)?;
    let rlp = Bytes::from(entry.bytes("packet_rlp")?);
    let packet = Packet::MailComplete(completion);
    for dialect in Dialect::ALL {
        same("written", packet.encode(dialect), Ok((code::MAIL_COMPLETE, rlp.clone())))?;
        same("read", Packet::decode(dialect, code::MAIL_COMPLETE, rlp.clone()), Ok(Some(packet.clone())))?;
    }
    Ok(())
}

/// What clients make of completions of odd lengths: all but the last are cuts of one, with a zero behind it.
fn complete_parsing(entry: &Entry<'_>) -> Outcome {
    let payload = entry.bytes("payload")?;
    let read = Completion::decode(&payload);
    same("accepted", read.is_ok(), entry.flag("accepted")?)?;
    if !payload.starts_with(b"ERROR=") {
        let whole = [hash(REQUEST_ID).0.as_slice(), &hash(LAST_HASH).0, &CURSOR, &[0]].concat();
        same("payload", Some(&payload[..]), whole.get(..payload.len()))?;
    }
    let completion = match read {
        Ok(completion) => completion,
        Err(error) => {
            return same("error", &*format!("unexpected payload size: {}", error.0), entry.text("error")?);
        }
    };
    same("request id", completion.request_id(), entry.parsed("request_id")?)?;
    let (last_hash, cursor, error) = match completion {
        Completion::Done { last_hash, cursor, .. } => (last_hash, cursor, None),
        Completion::Failed { error, .. } => (Hash::default(), None, Some(error)),
    };
    same("last hash", last_hash, entry.parsed("last_envelope_hash")?)?;
    let cursor = cursor.map(|cursor| cursor.to_bytes().to_vec()).unwrap_or_default();
    same("cursor", cursor, entry.bytes("cursor")?)?;
    let recorded = if entry.has("mailserver_error") { Some(entry.text("mailserver_error")?) } else { None };
    same("error", error.as_deref(), recorded)
}

fn direct_request(entry: &Entry<'_>, dialect: Dialect) -> Outcome {
    let topic = Topic([1, 2, 3, 4]);
    let layout = match dialect {
        Dialect::Shh6 => "id from to limit cursor bloom",
        _ => "id from to limit cursor bloom topics",
    };
    same("layout", layout, entry.text("layout")?)?;
    let request = MailRequest {
        lower: 1_600_000_000,
        upper: 1_600_086_400,
        bloom: Bytes::copy_from_slice(&Bloom::sample(topic).0),
        topics: if dialect.is_waku() { vec![topic] } else { vec![] },
        limit: 100,
        cursor: Bytes::new(),
        batch: true,
    };
    let direct = DirectRequest { id: hash(REQUEST_ID), request };
    let packet = Packet::MailRequest(MailRequestPacket::Direct(direct));
    both_ways(&packet, dialect, entry)
}

fn sync_request(entry: &Entry<'_>) -> Outcome {
    same("layout", "lower upper bloom limit cursor", entry.text("layout")?)?;
    let cursor = Some(Cursor::from(CURSOR));
    let request = SyncRequest { lower: 1, upper: 2, bloom: Bloom::FULL, limit: 1000, cursor };
    both_ways(&Packet::SyncRequest(request), Dialect::Shh6, entry)
}

fn sync_response(entry: &Entry<'_>) -> Outcome {
    same("layout", "envelopes cursor final error", entry.text("layout")?)?;
    let last = SyncResponse {
        envelopes: vec![],
        cursor: Some(Cursor::from(CURSOR)),
        is_final: true,
        error: String::new(),
    };
    let failed = SyncResponse { envelopes: vec![], cursor: None, is_final: false, error: "boom".to_owned() };
    both_ways(&Packet::SyncResponse(last), Dialect::Shh6, entry)
        .or_else(|_| both_ways(&Packet::SyncResponse(failed), Dialect::Shh6, entry))
}

/// The packet is written as the entry's `rlp`, and read from it.
pub(crate) fn both_ways(packet: &Packet, dialect: Dialect, entry: &Entry<'_>) -> Outcome {
    let rlp = Bytes::from(entry.bytes("rlp")?);
    same("written", packet.encode(dialect), Ok((packet.code(), rlp.clone())))?;
    same("read", Packet::decode(dialect, packet.code(), rlp), Ok(Some(packet.clone())))
}

fn hash(text: &str) -> Hash {
    text.parse().expect("the constant is a hash")
}
