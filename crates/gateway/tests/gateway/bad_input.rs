//! Bad input: what a stranger sends that no good peer would. Nothing panics, the witness notices nothing, each refusal
//! is the protocol's own, and is counted.

mod offers;
mod packets;
mod requests;
mod statuses;
mod transport;
