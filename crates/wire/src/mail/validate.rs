//! Which requests are answered: the rules and defaults of deployed mailservers, and ours where theirs would panic
//! (bloom filters of other lengths) or lose mail (cursors of other lengths).

use super::{MailRequest, Refusal, RequestForm};
use crate::{Bloom, Cursor, Topic};

/// The most envelopes of one page, and the number for a request that names none.
pub const MAX_LIMIT: u32 = 1000;
/// How far behind now a range without an end reaches, in seconds.
pub const OPEN_END_SECONDS: u32 = 60;
/// The longest range of a request in the fixed layout, in seconds.
pub const BINARY_MAX_RANGE_SECONDS: u32 = 24 * 60 * 60;
/// The most topics of one request.
pub const MAX_TOPICS: usize = 10_000;

/// A request that can be answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValidRequest {
    /// Not created before this, unix seconds.
    pub lower: u32,
    /// Not created after this, unix seconds; not below `lower`.
    pub upper: u32,
    /// Which topics.
    pub filter: Filter,
    /// How many envelopes at most: 1 to 1000.
    pub limit: u32,
    /// Only what comes behind this place.
    pub cursor: Option<Cursor>,
    /// Whether several envelopes may come in one packet.
    pub batch: bool,
    /// How the request was written.
    pub form: RequestForm,
}

/// Which topics a request is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filter {
    /// Every topic.
    All,
    /// Those that the filter holds.
    Bloom(Bloom),
    /// These, sorted, none twice.
    Topics(Vec<Topic>),
}

impl Filter {
    /// Whether it holds a topic.
    pub fn matches(&self, topic: Topic) -> bool {
        match self {
            Self::All => true,
            Self::Bloom(bloom) => bloom.matches(topic),
            Self::Topics(topics) => topics.binary_search(&topic).is_ok(),
        }
    }
}

impl MailRequest {
    /// Applies the defaults and checks the rules, in the order of deployed servers. `now` is in unix seconds.
    pub fn validate(self, form: RequestForm, now: u32) -> Result<ValidRequest, Refusal> {
        let upper = if self.upper == 0 { now.saturating_add(OPEN_END_SECONDS) } else { self.upper };
        let span = upper.checked_sub(self.lower).ok_or(match form {
            RequestForm::Direct => Refusal::DirectRangeInverted,
            _ => Refusal::RangeInverted,
        })?;
        if form == RequestForm::Binary && span > BINARY_MAX_RANGE_SECONDS {
            return Err(Refusal::RangeTooLong);
        }
        let filter = filter(&self.bloom, self.topics)?;
        let limit = if self.limit == 0 { MAX_LIMIT } else { self.limit };
        if limit > MAX_LIMIT {
            return Err(Refusal::LimitTooHigh);
        }
        let cursor = match &self.cursor[..] {
            [] => None,
            bytes => Some(Cursor::try_from(bytes).map_err(|error| Refusal::CursorLength(error.0))?),
        };
        Ok(ValidRequest { lower: self.lower, upper, filter, limit, cursor, batch: self.batch, form })
    }
}

/// Topics win over the bloom filter. status-go 0.83 repeats topics and puts zero ones in front: that costs nothing.
fn filter(bloom: &[u8], mut topics: Vec<Topic>) -> Result<Filter, Refusal> {
    if !bloom.is_empty() && bloom.len() != Bloom::LENGTH {
        return Err(Refusal::BloomLength(bloom.len()));
    }
    if topics.len() > MAX_TOPICS {
        return Err(Refusal::TooManyTopics(topics.len()));
    }
    if !topics.is_empty() {
        topics.sort_unstable();
        topics.dedup();
        return Ok(Filter::Topics(topics));
    }
    match Bloom::try_from(bloom) {
        Ok(Bloom::FULL) => Ok(Filter::All),
        Ok(bloom) => Ok(Filter::Bloom(bloom)),
        Err(_) => Err(Refusal::NoFilter),
    }
}
