//! A client of a session, connected to our gateway: it sends recorded payloads as they are and keeps account of all that
//! comes.

use anyhow::{Context as _, bail};
use bytes::Bytes;
use poste_codec::SecretKey;
use poste_rlpx::{Closed, DisconnectReason, Enode, Limits, LocalNode, Receiver, Sender};
use poste_wire::Dialect;
use tokio::time::timeout;

use crate::PATIENCE;
use crate::account::{Account, Heard};

pub(crate) struct Peer {
    pub(crate) account: Account,
    /// What the server did to the connection.
    pub(crate) ended: Option<Closed>,
    dialect: Dialect,
    receiver: Receiver,
    sender: Sender,
}

impl Peer {
    /// Connects with a node key and one capability.
    pub(crate) async fn dial(enode: &Enode, key: &SecretKey, dialect: Dialect) -> anyhow::Result<Self> {
        let node = LocalNode {
            key: key.clone(),
            client_name: "recording".to_owned(),
            capabilities: vec![poste_waku::offered(dialect)],
            listen_port: 0,
        };
        let endpoint = enode.endpoint.as_ref().context("the enode names no host")?;
        let limits = Limits::default();
        let dialling = poste_rlpx::dial(endpoint.address(), &enode.key, &node, &limits);
        let connection = timeout(PATIENCE, dialling).await.context("the gateway does not answer")??;
        let (receiver, sender) = connection.split();
        Ok(Self { account: Account::default(), ended: None, dialect, receiver, sender })
    }

    /// Sends a payload; gives its place among what was sent.
    pub(crate) async fn send(&mut self, code: u8, payload: Bytes) -> anyhow::Result<usize> {
        self.account.send(code, &payload);
        let sending = timeout(PATIENCE, self.sender.send(0, code, payload));
        sending.await.with_context(|| format!("packet {code} cannot be sent"))??;
        Ok(self.account.sent.len() - 1)
    }

    /// Listens until the account says that it came; `what` is for the error.
    pub(crate) async fn until(&mut self, what: &str, came: impl Fn(&Account) -> bool) -> anyhow::Result<()> {
        while !came(&self.account) {
            let message = timeout(PATIENCE, self.receiver.next())
                .await
                .with_context(|| format!("{what} did not come within {} s", PATIENCE.as_secs()))?;
            match message {
                Ok(message) => {
                    let heard = Heard::decode(self.dialect, message.code, &message.payload)?;
                    self.account.hear(heard, 0);
                }
                Err(closed) => {
                    let error = format!("the connection ended before {what} came: {closed}");
                    self.ended = Some(closed);
                    bail!(error);
                }
            }
        }
        Ok(())
    }

    /// Says goodbye as clients do, unless the connection has ended.
    pub(crate) async fn leave(self) -> Gone {
        let Self { account, ended, receiver, sender, .. } = self;
        sender.disconnect(DisconnectReason::Quitting);
        drop(receiver);
        sender.closed().await;
        Gone { account, ended }
    }
}

/// A client that has left.
pub(crate) struct Gone {
    pub(crate) account: Account,
    /// What the server had done to the connection.
    pub(crate) ended: Option<Closed>,
}

impl Gone {
    /// Whether the server said what it says to a peer that breaks the rules of a capability.
    pub(crate) fn ended_by_the_server(&self) -> bool {
        matches!(self.ended, Some(Closed::Disconnected(DisconnectReason::SubprotocolError)))
    }
}
