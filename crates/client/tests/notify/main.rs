//! Push notifications over a real gateway and archive.

mod channel;
mod stack;
