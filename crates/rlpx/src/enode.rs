//! enode URLs: how nodes are named to people and in configuration.
//!
//! `enode://<128 hex digits of the key>@<host>:<tcp port>[?discport=<udp port>]`. An IPv6 address stands in
//! brackets; the UDP port is written only when it differs. A URL with only the key part is legal
//! ("incomplete"), also without `enode://`.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use poste_codec::PublicKey;
use thiserror::Error;

/// A node: its key, and where it listens if that is known.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Enode {
    /// The node's public key.
    pub key: PublicKey,
    /// Where it listens; none in an incomplete URL.
    pub endpoint: Option<Endpoint>,
}

/// Where a node listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// An IP address, IPv6 without brackets, or a host name.
    pub host: String,
    /// The TCP port.
    pub tcp_port: u16,
    /// The UDP port of discovery.
    pub udp_port: u16,
}

/// What is wrong with an enode URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum EnodeError {
    /// It does not begin with `enode://` and is no bare key either.
    #[error("an enode begins with enode:// and 128 hex digits")]
    Scheme,
    /// The key is not 128 hex digits of a point on the curve.
    #[error("the key of an enode is 128 hex digits of a secp256k1 public key")]
    Key,
    /// The host is neither an IP address nor a host name.
    #[error("the host of an enode is an IP address (IPv6 in brackets) or a host name")]
    Host,
    /// The TCP port, or the discport, is no number from 0 to 65535.
    #[error("an enode needs a port from 0 to 65535 behind its host")]
    Port,
}

impl Enode {
    /// A complete enode whose UDP port is its TCP port.
    pub fn new(key: PublicKey, host: impl Into<String>, port: u16) -> Self {
        Self { key, endpoint: Some(Endpoint { host: host.into(), tcp_port: port, udp_port: port }) }
    }
}

impl Endpoint {
    /// Host and TCP port, as `dial` takes them.
    pub fn address(&self) -> (&str, u16) {
        (&self.host, self.tcp_port)
    }
}

impl FromStr for Enode {
    type Err = EnodeError;

    fn from_str(text: &str) -> Result<Self, EnodeError> {
        let text = text.trim();
        let (rest, bare) = match text.get(..8) {
            Some(scheme) if scheme.eq_ignore_ascii_case("enode://") => (&text[8..], false),
            _ => (text, true),
        };
        let (key, endpoint) = match rest.split_once('@') {
            Some((key, endpoint)) => (key, Some(endpoint)),
            None => (rest, None),
        };
        if bare && (endpoint.is_some() || key.len() != 128) {
            return Err(EnodeError::Scheme);
        }
        let key = parse_key(key)?;
        Ok(Self { key, endpoint: endpoint.map(parse_endpoint).transpose()? })
    }
}

impl fmt::Display for Enode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "enode://{}", self.key)?;
        let Some(Endpoint { host, tcp_port, udp_port }) = &self.endpoint else { return Ok(()) };
        if host.contains(':') {
            write!(f, "@[{host}]:{tcp_port}")?;
        } else {
            write!(f, "@{host}:{tcp_port}")?;
        }
        if udp_port != tcp_port {
            write!(f, "?discport={udp_port}")?;
        }
        Ok(())
    }
}

fn parse_key(hex: &str) -> Result<PublicKey, EnodeError> {
    let hex = hex.as_bytes();
    if hex.len() != 128 {
        return Err(EnodeError::Key);
    }
    let mut key = [0u8; 64];
    for (byte, pair) in key.iter_mut().zip(hex.chunks_exact(2)) {
        let digit = |c: u8| char::from(c).to_digit(16).ok_or(EnodeError::Key);
        *byte = (digit(pair[0])? << 4 | digit(pair[1])?) as u8;
    }
    PublicKey::from_bytes(&key).map_err(|_| EnodeError::Key)
}

fn parse_endpoint(text: &str) -> Result<Endpoint, EnodeError> {
    let (address, query) = match text.split_once('?') {
        Some((address, query)) => (address, query),
        None => (text, ""),
    };
    let (host, port) = match address.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']').ok_or(EnodeError::Host)?;
            let host: Ipv6Addr = host.parse().map_err(|_| EnodeError::Host)?;
            (host.to_string(), port.strip_prefix(':').ok_or(EnodeError::Port)?)
        }
        None => {
            let (host, port) = address.rsplit_once(':').ok_or(EnodeError::Port)?;
            (parse_host(host)?, port)
        }
    };
    let tcp_port = parse_port(port)?;
    let discport = query.split('&').find_map(|pair| pair.strip_prefix("discport="));
    let udp_port = discport.map_or(Ok(tcp_port), parse_port)?;
    Ok(Endpoint { host, tcp_port, udp_port })
}

/// An IPv4 address or a host name; never empty, never an IPv6 address without brackets.
fn parse_host(host: &str) -> Result<String, EnodeError> {
    if let Ok(IpAddr::V4(address)) = host.parse() {
        return Ok(address.to_string());
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    if host.is_empty() || host.len() > 253 || !host.chars().all(allowed) {
        return Err(EnodeError::Host);
    }
    Ok(host.to_owned())
}

fn parse_port(text: &str) -> Result<u16, EnodeError> {
    let digits = !text.is_empty() && text.bytes().all(|c| c.is_ascii_digit());
    text.parse().ok().filter(|_| digits).ok_or(EnodeError::Port)
}

#[cfg(test)]
mod tests {
    use poste_codec::SecretKey;
    use proptest::prelude::*;

    use super::*;

    fn key() -> PublicKey {
        SecretKey::from_bytes(&[1; 32]).unwrap().public()
    }

    #[test]
    fn complete_urls() {
        for (rest, host, tcp, udp) in [
            ("127.0.0.1:30303", "127.0.0.1", 30303, 30303),
            ("mail-01.example.org:443", "mail-01.example.org", 443, 443),
            ("[::1]:30303?discport=0", "::1", 30303, 0),
            ("[2001:db8::17]:1?discport=2", "2001:db8::17", 1, 2),
        ] {
            let url = format!("enode://{}@{rest}", key());
            let enode: Enode = url.parse().unwrap();
            assert_eq!(enode.key, key());
            let endpoint = enode.endpoint.clone().unwrap();
            assert_eq!((endpoint.address(), endpoint.udp_port), ((host, tcp), udp));
            assert_eq!(enode.to_string(), url);
        }
    }

    #[test]
    fn forms_that_print_otherwise() {
        let same = Enode::new(key(), "10.0.0.1", 7);
        assert_eq!(format!("ENODE://{}@10.0.0.1:7?discport=7", key()).parse(), Ok(same.clone()));
        assert_eq!(
            format!(" enode://{}@10.0.0.1:7?x=1\n", key().to_string().to_uppercase()).parse(),
            Ok(same)
        );
        let incomplete = Enode { key: key(), endpoint: None };
        assert_eq!(key().to_string().parse(), Ok(incomplete.clone()));
        assert_eq!(incomplete.to_string().parse(), Ok(incomplete));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let with = |rest: &str| format!("enode://{}{rest}", key()).parse::<Enode>().unwrap_err();
        assert_eq!("".parse::<Enode>(), Err(EnodeError::Scheme));
        assert_eq!("http://x".parse::<Enode>(), Err(EnodeError::Scheme));
        assert_eq!("enode://".parse::<Enode>(), Err(EnodeError::Key));
        assert_eq!(format!("enode://{}@h:1", "1".repeat(128)).parse::<Enode>(), Err(EnodeError::Key));
        assert_eq!(format!("enode://{}@h:1", "é".repeat(64)).parse::<Enode>(), Err(EnodeError::Key));
        assert_eq!(with("@"), EnodeError::Port);
        assert_eq!(with("@host"), EnodeError::Port);
        assert_eq!(with("@host:"), EnodeError::Port);
        assert_eq!(with("@host:65536"), EnodeError::Port);
        assert_eq!(with("@host:+1"), EnodeError::Port);
        assert_eq!(with("@host:1?discport=x"), EnodeError::Port);
        assert_eq!(with("@:1"), EnodeError::Host);
        assert_eq!(with("@::1:1"), EnodeError::Host);
        assert_eq!(with("@[::1"), EnodeError::Host);
        assert_eq!(with("@[::1]"), EnodeError::Port);
        assert_eq!(with("@[1.2.3.4]:1"), EnodeError::Host);
        assert_eq!(with("@ho st:1"), EnodeError::Host);
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(enode://)?\\PC{0,200}") {
            let _ = text.parse::<Enode>();
        }

        #[test]
        fn no_endpoint_panics(rest in "\\PC{0,60}") {
            let _ = format!("enode://{}@{rest}", key()).parse::<Enode>();
        }
    }
}
