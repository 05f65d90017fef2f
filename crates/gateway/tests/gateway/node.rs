//! The node, as a good peer sees it, and as the services inside do.

mod away;
mod confirming;
mod grpc;
mod mail;
mod quotas;
mod relaying;
mod seats;
mod slow;
mod spool;
mod strange_archive;
