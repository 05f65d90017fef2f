//! The push server as a service, on a real gateway and a real archive over gRPC.

mod client;
mod life;
mod neighbours;
mod source;
mod stack;
mod topics;
