//! Binding a TCP listener, with errors that name the setting to change.

use std::io;
use std::net::SocketAddr;

use thiserror::Error;
use tokio::net::TcpListener;

/// Binds `address` (port 0: any free port) for the setting `setting`, for example `gateway.rlpx_listen`.
pub async fn bind(setting: &'static str, address: SocketAddr) -> Result<TcpListener, BindError> {
    TcpListener::bind(address).await.map_err(|source| BindError::Refused { setting, address, source })
}

/// Like [`bind`], for plaintext gRPC between services: an address other than loopback needs the operator's
/// explicit `insecure = true` in the same section.
pub async fn bind_internal(
    setting: &'static str,
    address: SocketAddr,
    insecure: bool,
) -> Result<TcpListener, BindError> {
    check_internal(setting, address, insecure)?;
    bind(setting, address).await
}

/// Whether [`bind_internal`] would consent to the address.
pub fn check_internal(setting: &'static str, address: SocketAddr, insecure: bool) -> Result<(), BindError> {
    if !insecure && !address.ip().is_loopback() {
        return Err(BindError::Insecure { setting, address });
    }
    Ok(())
}

/// Why an address could not be bound.
#[derive(Debug, Error)]
pub enum BindError {
    /// The system refused.
    #[error("{setting}: {address} {}", explain(.source))]
    Refused {
        /// The setting that holds the address.
        setting: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Plaintext gRPC on an address that others can reach.
    #[error(
        "{setting}: {address} is not a loopback address, and this listener is plaintext: listen on 127.0.0.1, or \
         set {}.insecure = true on a network that only the stack's own services can reach", section(.setting)
    )]
    Insecure {
        /// The setting that holds the address.
        setting: &'static str,
        /// The address.
        address: SocketAddr,
    },
}

fn explain(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            "is in use: stop what listens there or choose another port (0 takes any free one)".into()
        }
        io::ErrorKind::AddrNotAvailable => "is not an address of this machine".into(),
        io::ErrorKind::PermissionDenied => {
            "may not be bound by this user: ports below 1024 need a privilege".into()
        }
        _ => format!("cannot be bound: {error}"),
    }
}

fn section(setting: &str) -> &str {
    setting.split('.').next().unwrap_or(setting)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_in_use_is_named_with_its_setting() {
        let first = bind("gateway.rlpx_listen", "127.0.0.1:0".parse().unwrap()).await.unwrap();
        let taken = first.local_addr().unwrap();
        let error = bind("gateway.rlpx_listen", taken).await.unwrap_err().to_string();
        assert!(error.starts_with(&format!("gateway.rlpx_listen: {taken} is in use")), "{error}");
    }

    #[tokio::test]
    async fn plaintext_beyond_loopback_needs_consent() {
        let everywhere = "0.0.0.0:0".parse().unwrap();
        let error = bind_internal("archive.grpc_listen", everywhere, false).await.unwrap_err().to_string();
        assert!(error.contains("archive.insecure = true"), "{error}");
        bind_internal("archive.grpc_listen", everywhere, true).await.unwrap();
        bind_internal("archive.grpc_listen", "[::1]:0".parse().unwrap(), false).await.ok();
        bind_internal("archive.grpc_listen", "127.0.0.1:0".parse().unwrap(), false).await.unwrap();
    }
}
