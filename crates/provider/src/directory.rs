//! For development: every notification becomes a JSON file in a directory, where a device would have rung.
//!
//! The files hold device tokens in clear. They appear whole or not at all, in the order of their names.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::future::{BoxFuture, FutureExt};

use crate::metrics::Metrics;
use crate::notification::Notification;
use crate::outcome::{Outcome, Refused, Unknown};
use crate::{PushProvider, Unavailable};

/// Writes notifications into a directory.
#[derive(Debug)]
pub struct DirectoryProvider {
    directory: Arc<Path>,
    written: AtomicU64,
    metrics: Metrics,
}

impl DirectoryProvider {
    /// Makes the directory if it is not there, for its owner alone. Blocks for a moment: to be called at start.
    pub fn open(directory: impl Into<PathBuf>, metrics: Metrics) -> io::Result<Self> {
        let directory = directory.into();
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
        Ok(Self { directory: directory.into(), written: AtomicU64::new(0), metrics })
    }

    async fn write(&self, notification: &Notification) -> Outcome {
        let number = self.written.fetch_add(1, Ordering::Relaxed);
        // The process is in the name because the number begins anew with each.
        let name =
            format!("{:013}-{}-{number:06}.json", notification.sent_at.as_millis(), std::process::id());
        let text = render(notification);
        let directory = self.directory.clone();
        let writing = tokio::task::spawn_blocking(move || write(&directory, &name, &text));
        match writing.await {
            Ok(Ok(())) => Outcome::Sent,
            Ok(Err(error)) => {
                tracing::warn!(%error, "notification directory cannot be written");
                Outcome::Refused(Refused::Unreachable)
            }
            Err(_) => Outcome::Unknown(Unknown::ConnectionLost),
        }
    }
}

impl PushProvider for DirectoryProvider {
    fn send(&self, notification: Notification) -> BoxFuture<'_, Outcome> {
        async move {
            let outcome = self.write(&notification).await;
            self.metrics.count_notification(notification.service.service(), outcome);
            outcome
        }
        .boxed()
    }

    fn check(&self) -> BoxFuture<'_, Result<(), Unavailable>> {
        async move {
            match tokio::fs::metadata(&*self.directory).await {
                Ok(found) if found.is_dir() => Ok(()),
                Ok(_) => Err(Unavailable(format!("{} is not a directory", self.directory.display()))),
                Err(error) => Err(Unavailable(format!("{}: {error}", self.directory.display()))),
            }
        }
        .boxed()
    }
}

fn render(notification: &Notification) -> String {
    let data: serde_json::Map<_, _> = notification
        .data
        .iter()
        .map(|(name, value)| (name.clone().into_owned(), value.clone().into()))
        .collect();
    let service = notification.service.service();
    serde_json::json!({
        "service": service.label(),
        "token": notification.token.expose(),
        "message": notification.message,
        "data": data,
        "sent_at_ms": u64::try_from(notification.sent_at.as_millis()).unwrap_or(u64::MAX),
    })
    .to_string()
}

fn write(directory: &Path, name: &str, text: &str) -> io::Result<()> {
    let unfinished = directory.join(format!(".{name}.unfinished"));
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&unfinished)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .and_then(|()| fs::rename(&unfinished, directory.join(name)));
    if written.is_err() {
        // What cannot be written often cannot be removed either; readers pass over such names.
        let _ = fs::remove_file(&unfinished);
    }
    written
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

    use super::*;
    use crate::notification::{DeviceToken, PushService, Reference};

    fn notification(token: &str) -> Notification {
        Notification {
            reference: Reference::new(b"row").unwrap(),
            sent_at: Duration::from_millis(1234),
            token: DeviceToken::new(token),
            service: PushService::Fcm,
            message: "You have a new message".into(),
            data: vec![("chatId".into(), "0x01".into())],
            collapse_id: None,
            expires: None,
        }
    }

    #[tokio::test]
    async fn each_notification_is_a_file_in_order() {
        let directory = tempfile::tempdir().unwrap();
        let provider = DirectoryProvider::open(directory.path().join("rings"), Metrics::new()).unwrap();
        provider.check().await.unwrap();
        let mode = fs::metadata(directory.path().join("rings")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700, "tokens are for the owner");
        for token in ["first", "second"] {
            assert_eq!(provider.send(notification(token)).await, Outcome::Sent);
        }
        let mut files: Vec<_> = fs::read_dir(directory.path().join("rings"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        files.sort();
        let texts: Vec<_> = files.iter().map(|file| fs::read_to_string(file).unwrap()).collect();
        assert_eq!(texts.len(), 2);
        for (text, token) in texts.iter().zip(["first", "second"]) {
            let expected = serde_json::json!({
                "service": "fcm", "token": token, "message": "You have a new message",
                "data": { "chatId": "0x01" }, "sent_at_ms": 1234,
            });
            assert_eq!(serde_json::from_str::<serde_json::Value>(text).unwrap(), expected);
        }
    }

    #[tokio::test]
    async fn a_directory_that_went_away_refuses() {
        let directory = tempfile::tempdir().unwrap();
        let provider = DirectoryProvider::open(directory.path().join("rings"), Metrics::new()).unwrap();
        fs::remove_dir(directory.path().join("rings")).unwrap();
        assert_eq!(provider.send(notification("first")).await, Outcome::Refused(Refused::Unreachable));
        assert!(provider.check().await.is_err());
    }
}
