//! Ways in which a gorush, or what lies before it, fails.

use std::time::Duration;

/// What goes wrong with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The answer comes after this time; the pushes are queued at once.
    Slow(Duration),
    /// 400, and nothing is pushed.
    BadRequest,
    /// 500 with an empty body, and nothing is pushed: as when the queue is full.
    ServerError,
    /// The answer's count is off by so much; everything is pushed.
    WrongCount(i64),
    /// Pushed, but the connection ends before the answer.
    CloseBeforeAnswer,
    /// Pushed, but the connection ends within the answer's body.
    CloseInAnswer,
    /// Pushed, and answered 200 with a body that is not JSON.
    Gibberish,
    /// Pushed, and answered 200 with a body of so many bytes.
    LongAnswer(usize),
}
