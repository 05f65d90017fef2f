//! `Lookup`: presence and bodies of records by id.

use poste_rpc::archive::v1;
use poste_wire::Hash;
use tonic::Status;

use super::{ArchiveGrpc, convert};

const MAX_IDS: usize = 1000;
/// Sum of the bodies of one answer; a single larger record still makes one.
const MAX_BYTES: usize = 2 * 1024 * 1024;
/// Ids that are looked up together when bodies are wanted: so many of the largest are read at most in vain.
const IDS_AT_A_TIME: usize = 16;

pub(super) async fn answer(
    service: &ArchiveGrpc,
    request: v1::LookupRequest,
) -> Result<v1::LookupResponse, Status> {
    let space = convert::space(&request.space)?;
    if request.ids.len() > MAX_IDS {
        return Err(Status::invalid_argument(format!("a look-up has at most {MAX_IDS} ids")));
    }
    let ids: Vec<Hash> =
        request.ids.iter().map(|id| convert::hash(id, "an id")).collect::<Result<_, Status>>()?;
    service.metrics.lookups.inc();
    let mut response = v1::LookupResponse::default();
    let mut bytes = 0;
    let at_a_time = if request.with_bodies { IDS_AT_A_TIME } else { MAX_IDS };
    for some in ids.chunks(at_a_time) {
        let found = service
            .store
            .lookup(space, some.to_vec(), request.with_bodies)
            .await
            .map_err(|error| convert::status(&error))?;
        for record in found {
            if let Some(record) = record {
                bytes += record.body.len();
                if bytes > MAX_BYTES && !response.records.is_empty() {
                    return Ok(response);
                }
                response.records.push(convert::record_message(record));
            }
            response.answered += 1;
        }
    }
    Ok(response)
}
