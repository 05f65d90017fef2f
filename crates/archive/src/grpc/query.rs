//! `Query`: one page of history.

use std::time::Instant;

use poste_rpc::archive::v1;
use poste_rpc::archive::v1::query_request::Filter as FilterMessage;
use poste_wire::Bloom;
use tonic::Status;

use super::{ArchiveGrpc, convert};
use crate::store::{Direction, Filter, Query};

const MAX_RECORDS: usize = 1000;
const DEFAULT_BYTES: usize = 2 * 1024 * 1024;
/// The most bytes of bodies on a page, whatever is asked for: with its records' other fields and one record
/// of the largest size it fits a message.
const MAX_BYTES: usize = 4 * 1024 * 1024;
const MAX_TOPICS: usize = 10_000;

pub(super) async fn answer(
    service: &ArchiveGrpc,
    request: v1::QueryRequest,
) -> Result<v1::QueryResponse, Status> {
    let query = query(&request)?;
    let begun = Instant::now();
    let page = service.store.page(query).await.map_err(|error| convert::status(&error))?;
    service.metrics.query_seconds.observe(begun.elapsed().as_secs_f64());
    service.metrics.query_records.inc_by(page.records.len() as u64);
    Ok(v1::QueryResponse {
        records: page.records.into_iter().map(convert::record_message).collect(),
        next: page.next.map(convert::position_message),
        store_id: convert::store_id_bytes(service.store.store_id()),
        complete_until_ns: page.complete_until_ns,
        floor_ns: page.floor_ns,
        quarantined: page.quarantined,
    })
}

fn query(request: &v1::QueryRequest) -> Result<Query, Status> {
    let filter = match &request.filter {
        None => Filter::Everything,
        Some(FilterMessage::Topics(set)) if set.topics.len() > MAX_TOPICS => {
            return Err(Status::invalid_argument(format!("a question has at most {MAX_TOPICS} topics")));
        }
        Some(FilterMessage::Topics(set)) => Filter::Topics(convert::topics(&set.topics)?),
        Some(FilterMessage::Bloom(bytes)) => {
            let bloom = Bloom::try_from(bytes.as_ref())
                .map_err(|error| Status::invalid_argument(error.to_string()))?;
            Filter::Bloom(Box::new(bloom))
        }
    };
    let direction = match v1::Direction::try_from(request.direction) {
        Ok(v1::Direction::Unspecified | v1::Direction::Ascending) => Direction::Ascending,
        Ok(v1::Direction::Descending) => Direction::Descending,
        Err(_) => return Err(Status::invalid_argument("unknown direction")),
    };
    let max_records = match request.max_records as usize {
        0 => MAX_RECORDS,
        count if count <= MAX_RECORDS => count,
        _ => return Err(Status::invalid_argument(format!("a page has at most {MAX_RECORDS} records"))),
    };
    let max_bytes = match request.max_bytes as usize {
        0 => DEFAULT_BYTES,
        bytes => bytes.min(MAX_BYTES),
    };
    Ok(Query {
        space: convert::space(&request.space)?,
        from_ns: request.from_ns,
        to_ns: request.to_ns,
        filter,
        direction,
        max_records,
        max_bytes,
        cursor: request.cursor.as_ref().map(convert::position).transpose()?,
    })
}
