//! The one line that a server prints on stdout once everything accepts connections.

use std::io::{self, Write};
use std::net::SocketAddr;

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::running::RunningService;

/// `{"event":"ready","enode":…,"push_key":…,"grpc":{…},"admin":{…},"feedback":…,"http":…}`; what a process does not have is left out.
#[derive(Clone, Debug, Serialize)]
pub struct ReadyLine {
    event: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    enode: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    push_key: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty", serialize_with = "as_map")]
    grpc: Vec<(&'static str, SocketAddr)>,
    #[serde(skip_serializing_if = "Vec::is_empty", serialize_with = "as_map")]
    admin: Vec<(&'static str, SocketAddr)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    feedback: Option<SocketAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    http: Option<SocketAddr>,
}

impl ReadyLine {
    /// The line of a process that runs `services` and the health listener at `http`.
    pub fn new<'a>(services: impl IntoIterator<Item = &'a RunningService>, http: Option<SocketAddr>) -> Self {
        let mut line = Self {
            event: "ready",
            enode: None,
            push_key: None,
            grpc: Vec::new(),
            admin: Vec::new(),
            feedback: None,
            http,
        };
        for service in services {
            let addresses = service.addresses();
            line.enode = line.enode.or_else(|| addresses.enode.clone());
            line.push_key = line.push_key.or_else(|| addresses.push_key.clone());
            line.feedback = line.feedback.or(addresses.feedback);
            line.grpc.extend(addresses.grpc.map(|address| (service.name(), address)));
            line.admin.extend(addresses.admin.map(|address| (service.name(), address)));
        }
        line
    }

    /// Writes the line with its end, and flushes.
    pub fn write(&self, mut out: impl Write) -> io::Result<()> {
        let mut line = serde_json::to_vec(self)?;
        line.push(b'\n');
        out.write_all(&line)?;
        out.flush()
    }
}

fn as_map<S: Serializer>(parts: &[(&'static str, SocketAddr)], serializer: S) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(parts.len()))?;
    for (name, address) in parts {
        map.serialize_entry(name, address)?;
    }
    map.end()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::running::Addresses;
    use tokio_util::sync::CancellationToken;

    fn service(name: &'static str, addresses: Addresses) -> RunningService {
        RunningService::new(name, addresses, CancellationToken::new(), tokio::spawn(async { Ok(()) }))
    }

    fn line(services: &[RunningService], http: Option<&str>) -> String {
        let mut out = Vec::new();
        ReadyLine::new(services, http.map(|http| http.parse().unwrap())).write(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[tokio::test]
    async fn the_whole_stack_on_one_line() {
        let gateway = Addresses {
            grpc: Some("127.0.0.1:7100".parse().unwrap()),
            admin: Some("127.0.0.1:7101".parse().unwrap()),
            enode: Some("enode://ab@127.0.0.1:30303".into()),
            ..Addresses::default()
        };
        let archive = Addresses { grpc: Some("127.0.0.1:7200".parse().unwrap()), ..Addresses::default() };
        let push = Addresses {
            grpc: Some("127.0.0.1:7300".parse().unwrap()),
            feedback: Some("127.0.0.1:7302".parse().unwrap()),
            push_key: Some("02ab".into()),
            ..Addresses::default()
        };
        let services = [service("gateway", gateway), service("archive", archive), service("push", push)];
        assert_eq!(
            line(&services, Some("127.0.0.1:9100")),
            concat!(
                r#"{"event":"ready","enode":"enode://ab@127.0.0.1:30303","push_key":"02ab","#,
                r#""grpc":{"gateway":"127.0.0.1:7100","archive":"127.0.0.1:7200","push":"127.0.0.1:7300"},"#,
                r#""admin":{"gateway":"127.0.0.1:7101"},"feedback":"127.0.0.1:7302","http":"127.0.0.1:9100"}"#,
                "\n"
            )
        );
    }

    #[tokio::test]
    async fn absent_parts_are_left_out() {
        let archive = Addresses { grpc: Some("127.0.0.1:7200".parse().unwrap()), ..Addresses::default() };
        let services = [service("archive", archive)];
        assert_eq!(
            line(&services, None),
            "{\"event\":\"ready\",\"grpc\":{\"archive\":\"127.0.0.1:7200\"}}\n"
        );
    }
}
