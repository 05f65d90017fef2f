//! What a row holds of a device: the registration as it came, and which message it came in.

use bytes::Bytes;
use poste_wire::status::proto::PushNotificationRegistration;
use poste_wire::status::{DedupeKey, PushMessage};
use zeroize::Zeroizing;

use crate::store::DeviceData;

const VERSION: u8 = 1;

/// A device as it registered.
#[derive(Debug)]
pub(crate) struct Device {
    /// Of the message that it registered with: who sends that again gets the same answer again.
    pub(crate) came_in: DedupeKey,
    /// What it registered.
    pub(crate) registration: PushNotificationRegistration,
}

impl Device {
    /// For the store: version (1 byte), key of the message (32 bytes), the registration's protobuf.
    pub(crate) fn write(&self) -> DeviceData {
        let registration = Zeroizing::new(self.registration.write());
        let mut bytes = Zeroizing::new(Vec::with_capacity(1 + DedupeKey::LENGTH + registration.len()));
        bytes.push(VERSION);
        bytes.extend_from_slice(self.came_in.as_bytes());
        bytes.extend_from_slice(&registration);
        bytes.into()
    }

    /// What [`Self::write`] wrote, and nothing else.
    pub(crate) fn read(data: &DeviceData) -> Option<Self> {
        let (version, rest) = data.as_bytes().split_first()?;
        let (came_in, registration) = rest.split_first_chunk()?;
        if *version != VERSION {
            return None;
        }
        let registration = PushNotificationRegistration::read(Bytes::copy_from_slice(registration)).ok()?;
        Some(Self { came_in: DedupeKey(*came_in), registration })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_nothing_else() {
        let registration = PushNotificationRegistration {
            device_token: "token".into(),
            muted_chat_list: vec![Bytes::from_static(&[7; 64])],
            ..Default::default()
        };
        let data = Device { came_in: DedupeKey([3; 32]), registration: registration.clone() }.write();
        let read = Device::read(&data).unwrap();
        assert_eq!((read.came_in, read.registration), (DedupeKey([3; 32]), registration));
        let bytes = data.as_bytes();
        let other_version = [&[2], &bytes[1..]].concat();
        for other in [&[][..], &bytes[..20], &bytes[..bytes.len() - 1], &other_version] {
            assert!(Device::read(&DeviceData::new(other.to_vec())).is_none());
        }
    }
}
