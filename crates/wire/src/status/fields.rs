//! A walk over the fields of a protobuf message that allocates nothing: so that lists are counted before they are
//! decoded (two bytes on the wire become an entry of 32 in memory), and one field is read without the others.

use thiserror::Error;

/// Groups nested deeper than this are refused; no message here has any.
const MAX_GROUPS: u32 = 16;

/// Bytes that are no protobuf message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the bytes are no protobuf message")]
pub(super) struct FieldError;

/// A field: its number and what it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Field<'m> {
    pub(super) number: u32,
    pub(super) value: FieldValue<'m>,
}

/// What a field holds, as far as anybody here asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FieldValue<'m> {
    /// Bytes, a text, a message, or packed numbers.
    Bytes(&'m [u8]),
    /// A number.
    Number,
}

/// The fields of a message in their order; those inside of groups are checked, but not given out. Ends after an error.
#[derive(Debug, Clone)]
pub(super) struct Fields<'m> {
    rest: &'m [u8],
}

impl<'m> Fields<'m> {
    pub(super) fn new(message: &'m [u8]) -> Self {
        Self { rest: message }
    }

    fn field(&mut self) -> Result<Option<Field<'m>>, FieldError> {
        let mut groups = 0;
        loop {
            if self.rest.is_empty() {
                return if groups == 0 { Ok(None) } else { Err(FieldError) };
            }
            let tag = u32::try_from(self.varint()?).map_err(|_| FieldError)?;
            let number = tag >> 3;
            if number == 0 {
                return Err(FieldError);
            }
            let value = match tag & 7 {
                0 => {
                    self.varint()?;
                    FieldValue::Number
                }
                1 => self.take(8).map(|_| FieldValue::Number)?,
                2 => {
                    let length = usize::try_from(self.varint()?).map_err(|_| FieldError)?;
                    FieldValue::Bytes(self.take(length)?)
                }
                3 if groups < MAX_GROUPS => {
                    groups += 1;
                    continue;
                }
                4 if groups > 0 => {
                    groups -= 1;
                    continue;
                }
                5 => self.take(4).map(|_| FieldValue::Number)?,
                _ => return Err(FieldError),
            };
            if groups == 0 {
                return Ok(Some(Field { number, value }));
            }
        }
    }

    fn varint(&mut self) -> Result<u64, FieldError> {
        let mut value = 0;
        for at in 0..10 {
            let (byte, rest) = self.rest.split_first().ok_or(FieldError)?;
            self.rest = rest;
            if at == 9 && *byte > 1 {
                return Err(FieldError);
            }
            value |= u64::from(byte & 0x7f) << (7 * at);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(FieldError)
    }

    fn take(&mut self, length: usize) -> Result<&'m [u8], FieldError> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(FieldError)?;
        self.rest = rest;
        Ok(taken)
    }
}

impl<'m> Iterator for Fields<'m> {
    type Item = Result<Field<'m>, FieldError>;

    fn next(&mut self) -> Option<Self::Item> {
        let field = self.field().transpose();
        if matches!(field, Some(Err(_))) {
            self.rest = &[];
        }
        field
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message;

    use super::*;
    use crate::status::proto::{PushNotificationRegistration, SegmentMessage};

    fn fields(message: &[u8]) -> Result<Vec<Field<'_>>, FieldError> {
        Fields::new(message).collect()
    }

    #[test]
    fn fields_of_every_wire_type_are_walked_over() {
        let message = b"\x08\x96\x01\x12\x02hi\x19\0\0\0\0\0\0\0\0\x25\0\0\0\0\x0b\x08\x01\x0c\x2a\0";
        let number = |number| Field { number, value: FieldValue::Number };
        let bytes = |number, bytes| Field { number, value: FieldValue::Bytes(bytes) };
        let expected = [number(1), bytes(2, b"hi"), number(3), number(4), bytes(5, b"")];
        assert_eq!(fields(message).unwrap(), expected);
    }

    #[test]
    fn what_is_no_message_is_refused() {
        let groups = [vec![0x0b; 17], vec![0x0c; 17]].concat();
        for message in [
            &b"\x08"[..],
            b"\x08\xff",
            b"\x12\x03hi",
            b"\x12\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
            b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02",
            b"\x00\x00",
            b"\x0e\x00",
            b"\x0c",
            b"\x0b",
            b"\x19\0\0\0",
            b"\xff\xff\xff",
            &groups,
        ] {
            assert_eq!(fields(message), Err(FieldError), "{message:x?}");
        }
    }

    proptest! {
        #[test]
        fn walking_never_panics_and_ends(message: Vec<u8>) {
            prop_assert!(Fields::new(&message).count() <= message.len());
        }

        /// The bounds are checked on what the walk sees, so it must see whatever the decoder takes.
        #[test]
        fn what_the_decoder_takes_is_walked_over(message: Vec<u8>) {
            if SegmentMessage::decode(&message[..]).is_ok() && !message.iter().any(|byte| byte & 7 == 3) {
                prop_assert!(fields(&message).is_ok());
            }
        }

        #[test]
        fn lists_are_counted_as_the_decoder_does(entries: Vec<Vec<u8>>, token: String) {
            let message = PushNotificationRegistration {
                device_token: token,
                muted_chat_list: entries.iter().cloned().map(Into::into).collect(),
                ..Default::default()
            };
            let encoded = message.encode_to_vec();
            let counted = fields(&encoded).unwrap().iter().filter(|field| field.number == 15).count();
            prop_assert_eq!(counted, entries.len());
        }
    }
}
