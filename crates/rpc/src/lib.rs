//! The internal gRPC interfaces of Poste: the code generated from `proto/poste`, and what every client and
//! server of them does alike.
//!
//! [`archive`], [`gateway`] and [`push`] hold the messages, with constructors that set the message limits.
//! [`server::Server`] serves them on a bound listener with health, reflection and a graceful stop;
//! [`client::Target`] is where a client calls. Plaintext HTTP/2; TLS is not part of this crate yet.

pub mod client;
pub mod server;

/// The largest message that a client or server of Poste sends or takes, in bytes.
pub const MAX_MESSAGE_BYTES: usize = 8 * 1024 * 1024;

/// The encoded descriptor set of all interfaces: what reflection answers from.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// The mailserver archive, package `poste.archive`.
pub mod archive {
    use tonic::transport::Channel;

    use crate::MAX_MESSAGE_BYTES;

    /// Package `poste.archive.v1`, generated.
    #[allow(missing_docs, missing_debug_implementations, clippy::all, rustdoc::all)]
    pub mod v1 {
        tonic::include_proto!("poste.archive.v1");
    }

    /// The largest message that an archive takes, in bytes: a batch is 4 MiB of bodies, and what stands around them.
    pub const MAX_REQUEST_BYTES: usize = 5 * 1024 * 1024;

    /// An archive as a gRPC service, with the message limits of this house.
    pub fn server<T: v1::archive_service_server::ArchiveService>(
        archive: T,
    ) -> v1::archive_service_server::ArchiveServiceServer<T> {
        v1::archive_service_server::ArchiveServiceServer::new(archive)
            .max_decoding_message_size(MAX_REQUEST_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// An archive's administration as a gRPC service; it belongs on a listener of its own.
    pub fn admin_server<T: v1::archive_admin_service_server::ArchiveAdminService>(
        admin: T,
    ) -> v1::archive_admin_service_server::ArchiveAdminServiceServer<T> {
        v1::archive_admin_service_server::ArchiveAdminServiceServer::new(admin)
            .max_decoding_message_size(MAX_REQUEST_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// A client of an archive, with the message limits of this house.
    pub fn client(channel: Channel) -> v1::archive_service_client::ArchiveServiceClient<Channel> {
        v1::archive_service_client::ArchiveServiceClient::new(channel)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// A client of an archive's administration.
    pub fn admin_client(
        channel: Channel,
    ) -> v1::archive_admin_service_client::ArchiveAdminServiceClient<Channel> {
        v1::archive_admin_service_client::ArchiveAdminServiceClient::new(channel)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }
}

/// The Waku gateway, package `poste.gateway`.
pub mod gateway {
    use tonic::transport::Channel;

    use crate::MAX_MESSAGE_BYTES;

    /// Package `poste.gateway.v1`, generated.
    #[allow(missing_docs, missing_debug_implementations, clippy::all, rustdoc::all)]
    pub mod v1 {
        tonic::include_proto!("poste.gateway.v1");
    }

    /// A gateway as a gRPC service, with the message limits of this house.
    pub fn server<T: v1::gateway_service_server::GatewayService>(
        gateway: T,
    ) -> v1::gateway_service_server::GatewayServiceServer<T> {
        v1::gateway_service_server::GatewayServiceServer::new(gateway)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// A gateway's administration as a gRPC service; it belongs on a listener of its own.
    pub fn admin_server<T: v1::gateway_admin_service_server::GatewayAdminService>(
        admin: T,
    ) -> v1::gateway_admin_service_server::GatewayAdminServiceServer<T> {
        v1::gateway_admin_service_server::GatewayAdminServiceServer::new(admin)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// A client of a gateway, with the message limits of this house.
    pub fn client(channel: Channel) -> v1::gateway_service_client::GatewayServiceClient<Channel> {
        v1::gateway_service_client::GatewayServiceClient::new(channel)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// A client of a gateway's administration.
    pub fn admin_client(
        channel: Channel,
    ) -> v1::gateway_admin_service_client::GatewayAdminServiceClient<Channel> {
        v1::gateway_admin_service_client::GatewayAdminServiceClient::new(channel)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }
}

/// The Status push notification server, package `poste.push`.
pub mod push {
    use tonic::transport::Channel;

    use crate::MAX_MESSAGE_BYTES;

    /// Package `poste.push.v1`, generated.
    #[allow(missing_docs, missing_debug_implementations, clippy::all, rustdoc::all)]
    pub mod v1 {
        tonic::include_proto!("poste.push.v1");
    }

    /// A push server as a gRPC service, with the message limits of this house.
    pub fn server<T: v1::push_service_server::PushService>(
        push: T,
    ) -> v1::push_service_server::PushServiceServer<T> {
        v1::push_service_server::PushServiceServer::new(push)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// A push server's administration as a gRPC service; it belongs on a listener of its own.
    pub fn admin_server<T: v1::push_admin_service_server::PushAdminService>(
        admin: T,
    ) -> v1::push_admin_service_server::PushAdminServiceServer<T> {
        v1::push_admin_service_server::PushAdminServiceServer::new(admin)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// A client of a push server, with the message limits of this house.
    pub fn client(channel: Channel) -> v1::push_service_client::PushServiceClient<Channel> {
        v1::push_service_client::PushServiceClient::new(channel)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// A client of a push server's administration.
    pub fn admin_client(channel: Channel) -> v1::push_admin_service_client::PushAdminServiceClient<Channel> {
        v1::push_admin_service_client::PushAdminServiceClient::new(channel)
            .max_decoding_message_size(MAX_MESSAGE_BYTES)
            .max_encoding_message_size(MAX_MESSAGE_BYTES)
    }
}
