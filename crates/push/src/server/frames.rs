//! Answers on their way to the publisher, frame by frame: what went out at one attempt does not at the next.

use bytes::Bytes;
use poste_codec::{PublicKey, keccak256};
use rand::Rng;

use super::{PushServer, compute};
use crate::answer::{Answer, AnswerKind, PublishError};

/// How many frames of an answer went out. Each attempt seals anew, but what it seals is the same to a byte, so that frames
/// of several attempts fit together.
#[derive(Debug, Default)]
pub(super) struct FramesOut {
    /// The hash of the answer's payload; of none that there is before the first attempt.
    payload: [u8; 32],
    count: usize,
}

impl FramesOut {
    /// What was decided anew may be another answer, of which nothing went out.
    fn of(&mut self, payload: &[u8]) -> &mut usize {
        let payload = keccak256(payload);
        if payload != self.payload {
            *self = Self { payload, count: 0 };
        }
        &mut self.count
    }
}

impl PushServer {
    pub(super) async fn publish(
        &self,
        kind: AnswerKind,
        to: &PublicKey,
        payload: Bytes,
        out: &mut FramesOut,
    ) -> Result<(), PublishError> {
        let out = out.of(&payload);
        let (identity, to, bytes) = (self.identity.clone(), *to, payload.len());
        let seal = move || Answer::seal(&identity, &to, kind, payload, |bytes| rand::rng().fill_bytes(bytes));
        let published = match compute(bytes, seal).await {
            Some(Ok(answer)) => self.publish_rest(answer, out).await,
            Some(Err(error)) => Err(PublishError::Refused(error.to_string())),
            None => Err(PublishError::Away("the server ends".to_owned())),
        };
        self.metrics.answer(kind, published.is_ok());
        published
    }

    async fn publish_rest(&self, answer: Answer, out: &mut usize) -> Result<(), PublishError> {
        let Answer { kind, topic, frames } = answer;
        for frame in frames.into_iter().skip(*out) {
            self.publisher.publish(Answer { kind, topic, frames: vec![frame] }).await?;
            *out += 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_another_answer_nothing_went_out() {
        let mut out = FramesOut::default();
        *out.of(b"one") += 2;
        assert_eq!((*out.of(b"one"), *out.of(b"another"), *out.of(b"one")), (2, 0, 0));
    }
}
