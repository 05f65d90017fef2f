//! Where a client of the internal gRPC calls: an address, a channel that connects by itself and reconnects,
//! and errors that name the address.

use std::time::Duration;

use thiserror::Error;
use tonic::transport::{Channel, Endpoint};

/// How long a connection attempt may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How often an open connection is pinged, and how long it may stay silent after that.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// HTTP/2 windows in bytes: a page of history is 2 MiB, and must not wait for window updates.
const STREAM_WINDOW: u32 = 4 * 1024 * 1024;
const CONNECTION_WINDOW: u32 = 16 * 1024 * 1024;

/// The address of a neighbour and a channel to it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Target {
    address: String,
    channel: Channel,
}

impl Target {
    /// A channel to `address` (`http://host:port`) that connects at its first call, and again after a
    /// broken connection. Must be called inside a tokio runtime.
    pub fn lazy(address: &str) -> Result<Self, AddressError> {
        let channel = endpoint(address)?
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .tcp_nodelay(true)
            .connect_lazy();
        Ok(Self { address: address.to_owned(), channel })
    }

    /// The address as it was given.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The channel, for [`crate::archive::client`] and its like.
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// The outcome of a call as an error that names this address.
    pub fn error(&self, status: &tonic::Status) -> CallError {
        let message = match status.code() {
            tonic::Code::Unimplemented if status.message().is_empty() => {
                "this address has another interface: services and their administration listen on ports of their own"
                    .to_owned()
            }
            _ => explain(status),
        };
        CallError { address: self.address.clone(), code: status.code(), message }
    }
}

/// Whether [`Target::lazy`] takes the address.
pub fn check_address(address: &str) -> Result<(), AddressError> {
    endpoint(address).map(drop)
}

fn endpoint(address: &str) -> Result<Endpoint, AddressError> {
    let refuse = |reason| AddressError { address: address.to_owned(), reason };
    if !address.starts_with("http://") {
        return Err(refuse("it must begin with http:// (TLS is not available)"));
    }
    let endpoint = Endpoint::from_shared(address.to_owned()).map_err(|_| refuse("it is not a URL"))?;
    if endpoint.uri().port().is_none() {
        return Err(refuse("it names no port"));
    }
    Ok(endpoint)
}

/// A gRPC address that cannot be used.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("gRPC address {address:?}: {reason}")]
pub struct AddressError {
    address: String,
    reason: &'static str,
}

/// A call that did not succeed.
#[derive(Clone, Debug, Error)]
#[error("{address}: {code:?}: {message}")]
pub struct CallError {
    /// Where the call went.
    pub address: String,
    /// The gRPC code.
    pub code: tonic::Code,
    /// For people.
    pub message: String,
}

/// The status' message, followed by the innermost cause: tonic says "transport error" and keeps the reason
/// ("connection refused") in its sources.
fn explain(status: &tonic::Status) -> String {
    let mut innermost = None;
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        innermost = Some(error);
        source = error.source();
    }
    match innermost {
        Some(error) => format!("{}: {error}", status.message()),
        None => status.message().to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::v1::StatsRequest;

    #[tokio::test]
    async fn unusable_addresses_are_refused_with_the_reason() {
        for (address, reason) in [
            ("127.0.0.1:7200", "must begin with http://"),
            ("https://archive:7200", "must begin with http://"),
            ("http://archive", "names no port"),
            ("http://arch ive:1", "not a URL"),
        ] {
            let error = Target::lazy(address).expect_err(address).to_string();
            assert!(error.contains(address) && error.contains(reason), "{error}");
        }
    }

    #[tokio::test]
    async fn an_absent_neighbour_is_named_by_its_address() {
        // A port that was just free: nobody listens there.
        let address = {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            format!("http://{}", listener.local_addr().unwrap())
        };
        let target = Target::lazy(&address).unwrap();
        let status = crate::archive::client(target.channel()).stats(StatsRequest {}).await.unwrap_err();
        let error = target.error(&status);
        assert_eq!(error.code, tonic::Code::Unavailable);
        let text = error.to_string();
        assert!(text.contains(&address) && text.to_lowercase().contains("refused"), "{text}");
    }
}
