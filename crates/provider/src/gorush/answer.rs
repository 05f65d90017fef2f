//! gorush's answers. The body is read leniently: it comes from a neighbour, and versions differ.

use serde::Deserialize;

use crate::notification::Service;
use crate::outcome::FailureReason;

/// The body of a 200.
#[derive(Deserialize)]
pub(super) struct Taken {
    pub(super) counts: u64,
    #[serde(default)]
    logs: Option<Vec<Log>>,
    success: String,
}

/// A failure, in sync mode. The token in it may be masked and is not read.
#[derive(Deserialize)]
struct Log {
    #[serde(default)]
    notif_id: String,
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    error: String,
}

impl Taken {
    /// Reads a 200's body; none if it does not say that all went well.
    pub(super) fn read(body: &[u8]) -> Option<Self> {
        let taken: Self = serde_json::from_slice(body).ok()?;
        (taken.success == "ok").then_some(taken)
    }

    /// What the answer says of the failure of one notification.
    pub(super) fn failure(&self, notif_id: &str, service: Service) -> Option<FailureReason> {
        let logs = self.logs.iter().flatten();
        let mut failures = logs.filter(|log| log.kind == "failed-push" && log.notif_id == notif_id);
        failures.next().map(|log| FailureReason::read(service, &log.error))
    }

    pub(super) fn names_failures(&self) -> bool {
        self.logs.as_ref().is_some_and(|logs| !logs.is_empty())
    }
}

/// How many notifications gorush takes in one call, if the body of a 400 says that there were more.
pub(super) fn batch_limit(body: &[u8]) -> Option<usize> {
    #[derive(Deserialize)]
    struct Bad {
        message: String,
    }
    let bad: Bad = serde_json::from_slice(body).ok()?;
    let (_, limit) = bad.message.split_once("over limit(")?;
    limit.strip_suffix(')')?.parse().ok().filter(|limit| *limit > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_that_do_not_say_ok_are_none() {
        for body in [
            "",
            "ok",
            "{}",
            "[]",
            r#"{"success":"ok"}"#,
            r#"{"counts":1}"#,
            r#"{"counts":-1,"success":"ok"}"#,
            r#"{"counts":1,"success":"no"}"#,
            r#"{"counts":1,"logs":[],"success":"ok""#,
        ] {
            assert!(Taken::read(body.as_bytes()).is_none(), "{body}");
        }
        assert_eq!(Taken::read(br#"{"counts":1,"logs":null,"success":"ok"}"#).unwrap().counts, 1);
    }

    #[test]
    fn the_limit_of_a_call_is_read() {
        let said = |message| batch_limit(format!(r#"{{"code":400,"message":"{message}"}}"#).as_bytes());
        assert_eq!(said("Number of notifications(4) over limit(3)"), Some(3));
        assert_eq!(said("Number of notifications(4) over limit(0)"), None);
        assert_eq!(said("Missing notifications field."), None);
        assert_eq!(batch_limit(b"over limit(3)"), None);
    }
}
