//! A TCP proxy between a gateway and its archive: it can be cut, or stand still, while the archive serves others.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// What the proxy does with connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Through,
    /// They end, and new ones too.
    Cut,
    /// They stay, and nothing goes over them.
    Still,
}

/// A proxy. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    mode: watch::Sender<Mode>,
}

impl Proxy {
    /// In front of `target`. Must be called inside a tokio runtime.
    pub(crate) fn start(target: SocketAddr) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let (mode, watching) = watch::channel(Mode::Through);
        tokio::spawn(serve(TcpListener::from_std(listener).unwrap(), target, watching));
        Self { address, mode }
    }

    pub(crate) fn cut(&self) {
        self.mode.send_replace(Mode::Cut);
    }

    pub(crate) fn stand_still(&self) {
        self.mode.send_replace(Mode::Still);
    }

    pub(crate) fn mend(&self) {
        self.mode.send_replace(Mode::Through);
    }
}

async fn serve(listener: TcpListener, target: SocketAddr, mut mode: watch::Receiver<Mode>) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            gone = async { while mode.changed().await.is_ok() {} } => return gone,
        };
        let Ok((inbound, _)) = accepted else { return };
        if *mode.borrow() == Mode::Cut {
            continue;
        }
        let mut mode = mode.clone();
        tokio::spawn(async move {
            let Ok(outbound) = TcpStream::connect(target).await else { return };
            let (from, to) = (inbound.into_split(), outbound.into_split());
            tokio::select! {
                () = pump(from.0, to.1, mode.clone()) => {}
                () = pump(to.0, from.1, mode.clone()) => {}
                _ = mode.wait_for(|mode| *mode == Mode::Cut) => {}
            }
        });
    }
}

async fn pump(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut mode: watch::Receiver<Mode>,
) {
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        if mode.wait_for(|mode| *mode != Mode::Still).await.is_err()
            || to.write_all(&buffer[..count]).await.is_err()
        {
            return;
        }
    }
}
