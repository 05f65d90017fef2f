//! From an accepted call to Apple and Google, and the failures that come back.

use std::sync::Arc;

use super::answer::Log;
use super::mask::mask;
use super::request::Notification;
use super::{Core, Providers, Push, feedback};

const IOS: i64 = 1;
const ANDROID: i64 = 2;
/// A Google object with more tokens fails as a whole, and nobody is told.
const MAX_ANDROID_TOKENS: usize = 500;

impl Core {
    /// Whether the object counts; the others are dropped without a word.
    pub(super) fn takes(&self, notification: &Notification) -> bool {
        match notification.platform {
            IOS => self.settings.is_ios_enabled,
            ANDROID => self.settings.is_android_enabled,
            _ => false,
        }
    }

    /// Pushes to every token of the object, reports the failures, and returns their logs.
    pub(super) async fn push(self: &Arc<Self>, notification: &Notification) -> Vec<Log> {
        let is_ios = notification.platform == IOS;
        let has_target = !notification.tokens.is_empty() || !(is_ios || notification.topic.is_empty());
        if !has_target || (!is_ios && notification.tokens.len() > MAX_ANDROID_TOKENS) {
            return Vec::new();
        }
        let settings = &self.settings;
        tokio::time::sleep(if is_ios { settings.apple_delay } else { settings.google_delay }).await;
        if settings.providers == Providers::Down && !is_ios {
            tokio::time::sleep(settings.google_retries).await;
        }
        // For Google a topic is a broadcast of its own; for Apple it is only the app's name.
        let broadcast = Some(&notification.topic).filter(|topic| !is_ios && !topic.is_empty());
        let mut logs = Vec::new();
        for token in broadcast.into_iter().chain(&notification.tokens) {
            let error = self.failure(is_ios, token);
            self.pushes.send_modify(|pushes| {
                pushes.push(Push {
                    platform: notification.platform,
                    token: token.clone(),
                    notification: notification.object.clone(),
                    has_rung: error.is_none(),
                });
            });
            let Some(error) = error else { continue };
            let log = self.log(notification, token, error);
            self.report(&log);
            logs.push(log);
        }
        logs
    }

    /// What gorush says of a push that failed.
    fn failure(&self, is_ios: bool, token: &str) -> Option<String> {
        const REFUSED: &str = "dial tcp 127.0.0.1:443: connect: connection refused";
        match self.settings.providers {
            Providers::Down if is_ios => {
                Some(format!("Post \"https://api.sandbox.push.apple.com/3/device/{token}\": {REFUSED}"))
            }
            Providers::Down => Some(format!(
                "failed to establish a connection: Post \
                 \"https://fcm.googleapis.com/v1/projects/{}/messages:send\": {REFUSED}",
                self.settings.google_project
            )),
            Providers::Up if !token.starts_with(&self.settings.dead_prefix) => None,
            Providers::Up if is_ios => Some("Unregistered".into()),
            Providers::Up => Some("Requested entity was not found.".into()),
        }
    }

    fn log(&self, notification: &Notification, token: &str, error: String) -> Log {
        let settings = &self.settings;
        Log {
            notif_id: notification.notif_id.clone(),
            kind: "failed-push",
            platform: if notification.platform == IOS { "ios" } else { "android" },
            token: if settings.hide_token { mask(token) } else { token.to_owned() },
            message: if settings.hide_messages {
                "(message redacted)".into()
            } else {
                notification.message.clone()
            },
            error,
        }
    }

    fn report(self: &Arc<Self>, log: &Log) {
        if let Some(hook) = self.settings.feedback.clone() {
            let log = log.clone();
            self.deliveries.spawn(async move { feedback::report(&hook, &log).await });
        }
    }
}
