//! What a receiver does not want to be notified of. All entries of the lists are hashes and are only compared.

use bytes::Bytes;
use poste_wire::status::proto::push_notification::PushNotificationType;
use poste_wire::status::proto::{PushNotification, PushNotificationRegistration};

/// What the receiver's lists say of a notification.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Judged {
    /// Why the receiver does not want it, as the value of a metric's label; none if it is wanted.
    pub(super) why_not: Option<&'static str>,
    /// The entry of a list that it is not wanted for: so many there are. Else its author, or a chat that is in no list,
    /// of which there are any number.
    pub(super) of: Bytes,
}

impl Judged {
    /// Whether anybody can think of any number of such notifications.
    pub(super) fn is_of_no_list(&self) -> bool {
        matches!(
            self.why_not,
            Some("filtered_disabled" | "filtered_mentions_blocked" | "filtered_mention_not_allowed")
        )
    }
}

pub(super) fn judge(
    kind: PushNotificationType,
    asked: &PushNotification,
    registration: &PushNotificationRegistration,
    honour_enabled: bool,
) -> Judged {
    let why_not = reason(kind, asked, registration, honour_enabled);
    let is_of_chat = matches!(
        why_not,
        Some("filtered_blocked_chat" | "filtered_muted_chat" | "filtered_mention_not_allowed")
    );
    Judged { why_not, of: if is_of_chat { asked.chat_id.clone() } else { asked.author.clone() } }
}

fn reason(
    kind: PushNotificationType,
    asked: &PushNotification,
    registration: &PushNotificationRegistration,
    honour_enabled: bool,
) -> Option<&'static str> {
    let is_by_blocked = || is_in(&asked.author, &registration.blocked_chat_list);
    if honour_enabled && !registration.enabled {
        return Some("filtered_disabled");
    }
    match kind {
        PushNotificationType::Message => {
            // Clients before June 2023 put muted chats among the blocked ones.
            if is_in(&asked.chat_id, &registration.blocked_chat_list) {
                return Some("filtered_blocked_chat");
            }
            if is_in(&asked.chat_id, &registration.muted_chat_list) {
                return Some("filtered_muted_chat");
            }
        }
        PushNotificationType::Mention => {
            if registration.block_mentions {
                return Some("filtered_mentions_blocked");
            }
            if !is_in(&asked.chat_id, &registration.allowed_mentions_chat_list) {
                return Some("filtered_mention_not_allowed");
            }
        }
        PushNotificationType::RequestToJoinCommunity | PushNotificationType::UnknownPushNotificationType => {}
    }
    is_by_blocked().then_some("filtered_blocked_author")
}

/// What is absent is in no list.
fn is_in(hash: &Bytes, list: &[Bytes]) -> bool {
    !hash.is_empty() && list.contains(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHAT: &[u8] = &[1; 64];
    const AUTHOR: &[u8] = &[2; 64];

    fn asked() -> PushNotification {
        PushNotification {
            chat_id: Bytes::from_static(CHAT),
            author: Bytes::from_static(AUTHOR),
            ..Default::default()
        }
    }

    fn list(hash: &'static [u8]) -> Vec<Bytes> {
        vec![Bytes::from_static(&[9; 64]), Bytes::from_static(hash)]
    }

    #[test]
    fn each_type_asks_its_own_lists() {
        use PushNotificationType::{Mention, Message, RequestToJoinCommunity};
        let nothing = PushNotificationRegistration::default;
        let blocked_chat = PushNotificationRegistration { blocked_chat_list: list(CHAT), ..nothing() };
        let blocked_author = PushNotificationRegistration { blocked_chat_list: list(AUTHOR), ..nothing() };
        let muted = PushNotificationRegistration { muted_chat_list: list(CHAT), ..nothing() };
        let joined = PushNotificationRegistration { allowed_mentions_chat_list: list(CHAT), ..nothing() };
        let blocks_mentions = PushNotificationRegistration { block_mentions: true, ..joined.clone() };
        let joined_blocked =
            PushNotificationRegistration { blocked_chat_list: list(AUTHOR), ..joined.clone() };
        let joined_muted = PushNotificationRegistration { muted_chat_list: list(CHAT), ..joined.clone() };
        for (kind, registration, expected) in [
            (Message, &nothing(), None),
            (Message, &blocked_chat, Some("filtered_blocked_chat")),
            (Message, &blocked_author, Some("filtered_blocked_author")),
            (Message, &muted, Some("filtered_muted_chat")),
            (Message, &blocks_mentions, None),
            (Mention, &nothing(), Some("filtered_mention_not_allowed")),
            (Mention, &joined, None),
            (Mention, &blocks_mentions, Some("filtered_mentions_blocked")),
            (Mention, &joined_blocked, Some("filtered_blocked_author")),
            (Mention, &joined_muted, None),
            (RequestToJoinCommunity, &blocked_chat, None),
            (RequestToJoinCommunity, &muted, None),
            (RequestToJoinCommunity, &blocked_author, Some("filtered_blocked_author")),
        ] {
            assert_eq!(reason(kind, &asked(), registration, false), expected, "{kind:?} {registration:?}");
        }
        assert_eq!(reason(Message, &asked(), &nothing(), true), Some("filtered_disabled"));
    }

    #[test]
    fn what_is_absent_is_in_no_list() {
        let registration = PushNotificationRegistration {
            blocked_chat_list: vec![Bytes::new()],
            muted_chat_list: vec![Bytes::new()],
            allowed_mentions_chat_list: vec![Bytes::new()],
            ..Default::default()
        };
        let nothing = PushNotification::default();
        assert_eq!(reason(PushNotificationType::Message, &nothing, &registration, false), None);
        let mention = reason(PushNotificationType::Mention, &nothing, &registration, false);
        assert_eq!(mention, Some("filtered_mention_not_allowed"));
    }
}
