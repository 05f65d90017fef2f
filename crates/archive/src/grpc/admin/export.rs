//! `Export`: a walk through history, page by page, as the bytes of an export file. A page is read when the one
//! before the last has gone out, so a slow caller holds up nobody but itself.

use std::sync::Arc;

use futures::Stream;
use poste_rpc::archive::v1;
use poste_rpc::archive::v1::export_response::Kind;
use tokio::sync::OwnedSemaphorePermit;
use tonic::Status;

use crate::export::{Encoder, Flaw, Header, Place, Totals};
use crate::grpc::convert;
use crate::store::{ArchiveStore, Direction, Filter, Query};

/// A page, and so a chunk: what an export holds in memory at a time.
const PAGE_RECORDS: usize = 1000;
const PAGE_BYTES: usize = 1024 * 1024;
/// More records, and bytes of them, than any file holds: what is larger would overflow in the end.
const MAX_RECORDS: u64 = 1 << 48;
const MAX_RECORD_BYTES: u64 = 1 << 62;

/// One export.
pub(super) struct Export {
    store: Arc<dyn ArchiveStore>,
    query: Query,
    state: State,
    report: v1::ExportReport,
    _permit: OwnedSemaphorePermit,
}

enum State {
    /// More pages come; the header of a new file goes out with the first.
    Pages(Encoder, Vec<u8>),
    Report(Totals),
    Ended,
}

impl Export {
    pub(super) fn begin(
        store: Arc<dyn ArchiveStore>,
        request: &v1::ExportRequest,
        permit: OwnedSemaphorePermit,
    ) -> Result<Self, Status> {
        let space = convert::space(&request.space)?;
        let (from_ns, to_ns) = (request.from_ns, request.to_ns);
        let mut out = Vec::new();
        let mut report = v1::ExportReport::default();
        let (encoder, cursor) = match &request.resume {
            Some(resume) => {
                if resume.store_id != store.store_id().0.as_slice() {
                    return Err(Status::failed_precondition(
                        "the file is of another store: export into a new file",
                    ));
                }
                let place = place(resume)?;
                report.unclaimed_until_ns = place.last.map(|last| last.time_ns);
                (Encoder::resume(place), place.last)
            }
            None => {
                let header =
                    Header { store_id: store.store_id(), space: request.space.clone(), from_ns, to_ns };
                (Encoder::begin(&header, &mut out).map_err(internal)?, None)
            }
        };
        let query = Query {
            space,
            from_ns,
            to_ns,
            filter: Filter::Everything,
            direction: Direction::Ascending,
            max_records: PAGE_RECORDS,
            max_bytes: PAGE_BYTES,
            cursor,
        };
        Ok(Self { store, query, state: State::Pages(encoder, out), report, _permit: permit })
    }

    pub(super) fn responses(self) -> impl Stream<Item = Result<v1::ExportResponse, Status>> + Send {
        futures::stream::unfold(self, |mut export| async move {
            let kind = match std::mem::replace(&mut export.state, State::Ended) {
                State::Pages(encoder, out) => export.page(encoder, out).await,
                State::Report(totals) => Ok(Kind::Report(export.finished(totals))),
                State::Ended => return None,
            };
            Some((kind.map(|kind| v1::ExportResponse { kind: Some(kind) }), export))
        })
    }

    /// The next page, in bytes.
    async fn page(&mut self, mut encoder: Encoder, mut out: Vec<u8>) -> Result<Kind, Status> {
        let page = self.store.page(self.query.clone()).await.map_err(|error| convert::status(&error))?;
        for record in &page.records {
            encoder.record(record.position, &record.body, &mut out).map_err(internal)?;
        }
        let report = &mut self.report;
        let until = [report.complete_until_ns, page.complete_until_ns];
        report.complete_until_ns = until.into_iter().flatten().min();
        report.floor_ns = report.floor_ns.max(page.floor_ns);
        report.quarantined = report.quarantined.max(page.quarantined);
        self.state = if page.next.is_some() {
            self.query.cursor = page.next;
            State::Pages(encoder, Vec::new())
        } else {
            State::Report(encoder.end(&mut out))
        };
        Ok(Kind::Chunk(out.into()))
    }

    fn finished(&mut self, totals: Totals) -> v1::ExportReport {
        let (records, record_bytes) = (totals.records, totals.bytes);
        v1::ExportReport { records, record_bytes, ..std::mem::take(&mut self.report) }
    }
}

/// Where the caller's file stands. It is believed, because what follows from it concerns that file alone.
fn place(resume: &v1::ExportResume) -> Result<Place, Status> {
    let last = resume.after.as_ref().map(convert::position).transpose()?;
    let fits = last.is_some() == (resume.records > 0)
        && resume.records <= MAX_RECORDS
        && resume.record_bytes <= MAX_RECORD_BYTES
        && u64::from(resume.unchecked_records) <= resume.records
        && resume.unchecked_bytes <= resume.record_bytes;
    if !fits {
        return Err(Status::invalid_argument("no export file stands at such a place"));
    }
    let totals = Totals { records: resume.records, bytes: resume.record_bytes, crc: resume.record_crc };
    let (unchecked_records, unchecked_bytes) = (resume.unchecked_records, resume.unchecked_bytes);
    Ok(Place { last, totals, unchecked_records, unchecked_bytes })
}

/// A page of a store is in order and in range, so this says that the store is not what it should be.
fn internal(flaw: Flaw) -> Status {
    Status::internal(format!("the store's answer cannot be exported: {flaw}"))
}
