//! gorush's masking of tokens in what it logs, answers and reports.

const MARK_BYTES: usize = 10;

/// Masks the first and the last ten bytes, wherever else in the token they occur too; a token shorter than both
/// together is masked whole.
pub(super) fn mask(token: &str) -> String {
    let bytes = token.as_bytes();
    if bytes.len() < 2 * MARK_BYTES {
        return "*".repeat(bytes.len());
    }
    let masked = replace_all(bytes, &bytes[bytes.len() - MARK_BYTES..]);
    let masked = replace_all(&masked, &bytes[..MARK_BYTES]);
    String::from_utf8_lossy(&masked).into_owned()
}

fn replace_all(bytes: &[u8], part: &[u8]) -> Vec<u8> {
    let mut masked = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((&first, after)) = rest.split_first() {
        if let Some(after) = rest.strip_prefix(part) {
            masked.extend([b'*'; MARK_BYTES]);
            rest = after;
        } else {
            masked.push(first);
            rest = after;
        }
    }
    masked
}

#[cfg(test)]
mod tests {
    use super::mask;

    #[test]
    fn both_ends_are_masked() {
        assert_eq!(mask("0123456789-middle-abcdefghij"), "**********-middle-**********");
        assert_eq!(mask("0123456789abcdefghij"), "*".repeat(20));
        assert_eq!(mask("0123456789abcdefghi"), "*".repeat(19));
        assert_eq!(mask(""), "");
    }

    #[test]
    fn what_repeats_an_end_is_masked_too() {
        assert_eq!(mask("start-abcdefghij-abcdefghij"), "start-**********-**********");
    }

    #[test]
    fn texts_that_are_cut_within_a_character_are_masked() {
        assert!(mask("äöüäöüäöüäöüäöüäöüäöü").contains("**********"));
    }
}
