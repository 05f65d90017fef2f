//! Listening to what a node relays.

use poste_waku::{Event, Session};
use poste_wire::packet::Messages;
use poste_wire::{Envelope, Packet};

use crate::ClientError;

/// Hands every envelope that the node relays to `take`, until the session ends. Cancel it to stop.
pub async fn listen(
    session: &mut Session,
    mut take: impl FnMut(Envelope),
) -> Result<std::convert::Infallible, ClientError> {
    loop {
        if let Event::Packet(_, Packet::Messages(Messages { envelopes, .. })) = session.next().await? {
            envelopes.into_iter().for_each(&mut take);
        }
    }
}
