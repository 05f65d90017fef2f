//! Between the messages on the wire and the archive's own types. Lengths are checked here, at the border.

use bytes::Bytes;
use poste_rpc::archive::v1;
use poste_wire::{Hash, Topic};
use tonic::Status;

use crate::record::{Position, Record, Space};
use crate::store::{ErrorKind, StoreError, StoreId};

pub(super) fn space(name: &str) -> Result<Space, Status> {
    name.parse().map_err(|refusal: crate::record::Refusal| Status::invalid_argument(refusal.to_string()))
}

pub(super) fn hash(bytes: &[u8], what: &str) -> Result<Hash, Status> {
    <[u8; 32]>::try_from(bytes)
        .map(Hash)
        .map_err(|_| Status::invalid_argument(format!("{what} has {} bytes instead of 32", bytes.len())))
}

pub(super) fn topics(topics: &[Bytes]) -> Result<Vec<Topic>, Status> {
    let topic = |bytes: &Bytes| {
        <[u8; 4]>::try_from(bytes.as_ref())
            .map(Topic)
            .map_err(|_| Status::invalid_argument(format!("a topic has {} bytes instead of 4", bytes.len())))
    };
    topics.iter().map(topic).collect()
}

pub(super) fn topic_bytes(topic: Topic) -> Bytes {
    Bytes::copy_from_slice(&topic.0)
}

pub(super) fn position(position: &v1::Position) -> Result<Position, Status> {
    Ok(Position { time_ns: position.time_ns, id: hash(&position.id, "the id of a position")? })
}

pub(super) fn position_message(position: Position) -> v1::Position {
    v1::Position { time_ns: position.time_ns, id: Bytes::copy_from_slice(&position.id.0) }
}

pub(super) fn record_message(record: Record) -> v1::Record {
    v1::Record {
        position: Some(position_message(record.position)),
        topic: topic_bytes(record.topic),
        seq: record.seq,
        body: record.body,
    }
}

pub(super) fn store_id_bytes(store_id: StoreId) -> Bytes {
    Bytes::copy_from_slice(&store_id.0)
}

/// What a caller is told when the store did not answer.
pub(super) fn status(error: &StoreError) -> Status {
    match error.kind() {
        _ if matches!(error, StoreError::Displaced) => Status::aborted(error.to_string()),
        ErrorKind::Busy | ErrorKind::Unavailable => Status::unavailable(error.to_string()),
        ErrorKind::Full => Status::resource_exhausted(error.to_string()),
        ErrorKind::Corrupt => Status::data_loss(error.to_string()),
        ErrorKind::Invalid => Status::invalid_argument(error.to_string()),
    }
}
