//! What the services inside and the operators see: Publish, NodeInfo, Peers.

use std::time::Duration;

use poste_rpc::gateway::v1::gateway_service_client::GatewayServiceClient;
use poste_rpc::gateway::v1::{Peer as PeerInfo, PeersRequest, PublishRequest, PublishResponse};
use poste_service::config::ByteSize;
use poste_wire::packet::Options;
use poste_wire::{Bloom, Dialect, Envelope, Packet};
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::envelopes::{TOPIC, envelope, envelope_at, everything, mined, weak};
use crate::peer::{Appearance, Peer, in_order};
use crate::stack::{NOW, Stack, eventually};

fn publisher(stack: &Stack) -> GatewayServiceClient<Channel> {
    poste_rpc::gateway::client(stack.grpc().channel())
}

async fn publish(stack: &Stack, envelope: &Envelope, mine: Option<f64>) -> Result<PublishResponse, Status> {
    let request = PublishRequest { envelope: envelope.rlp().clone(), mine_to_pow: mine };
    Ok(publisher(stack).publish(request).await?.into_inner())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_published_goes_to_peers_and_into_the_archive() {
    let stack = Stack::start().await;
    let wants = Options { bloom: Some(Bloom::of_topics([TOPIC])), ..Options::default() };
    let mut reader = Peer::wanting(&stack, Dialect::Waku1, wants.clone()).await;
    let mut whisperer = Peer::wanting(&stack, Dialect::Shh6, wants).await;
    let _quiet = Peer::quiet(&stack, Dialect::Waku1).await;
    stack.counted("peers", "", 3).await;
    let one = envelope(TOPIC, 100);
    let response = publish(&stack, &one, None).await.unwrap();
    assert_eq!(response.hash, one.hash().as_bytes()[..]);
    assert_eq!((response.envelope, response.duplicate), (one.rlp().clone(), false));
    assert!(response.peers <= 2, "{}", response.peers);
    for peer in [&mut reader, &mut whisperer] {
        assert_eq!(peer.relayed_until(&one).await, []);
    }
    assert_eq!(reader.fetch(&everything()).await, std::slice::from_ref(&one));

    let again = publish(&stack, &one, None).await.unwrap();
    assert_eq!((again.duplicate, again.peers), (true, 0));
    assert_eq!(stack.metric("archived_envelopes", "outcome=\"stored\""), 1);
    stack.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nonce_is_found_for_who_asks() {
    let stack = Stack::with(|config| config.min_pow = 0.002).await;
    let weak = weak(NOW, 50, TOPIC, 100, 0.001);
    let status = publish(&stack, &weak, None).await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::InvalidArgument, "proof of work is below this node's minimum")
    );
    let response = publish(&stack, &weak, Some(0.002)).await.unwrap();
    let mined = Envelope::decode(response.envelope).unwrap();
    assert!(mined.pow() >= 0.002);
    assert_eq!((mined.data(), mined.topic(), mined.expiry()), (weak.data(), TOPIC, weak.expiry()));
    assert_eq!(response.hash, mined.hash().as_bytes()[..]);
    // Less than the node wants, no number, and more than can be found in time. (Of this size a nonce that was hardly
    // looked for has enough work once in half a million times.)
    let large = Envelope::new(NOW + 5000, 5000, TOPIC, envelope(TOPIC, 100_000).data(), 0);
    for (target, code) in [
        (1e-12, Code::InvalidArgument),
        (-1.0, Code::InvalidArgument),
        (f64::NAN, Code::InvalidArgument),
        (f64::INFINITY, Code::InvalidArgument),
        (1e9, Code::DeadlineExceeded),
    ] {
        let published = publish(&stack, &large, Some(target)).await;
        assert_eq!(published.unwrap_err().code(), code, "{target}");
    }
    let mut peer = Peer::quiet(&stack, Dialect::Waku1).await;
    assert_eq!(peer.fetch(&everything()).await, [mined]);
    stack.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_published_is_an_invalid_argument() {
    let stack = Stack::start().await;
    for bytes in [&b""[..], b"\xc0", b"\x01\x02", &[0xff; 100]] {
        let request = PublishRequest { envelope: bytes.to_vec().into(), mine_to_pow: None };
        let status = publisher(&stack).publish(request).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert!(status.message().starts_with("not an envelope"), "{}", status.message());
    }
    for (bad, text) in [
        (envelope_at(NOW - 60, 50, TOPIC, 10), "envelope has expired"),
        (envelope_at(NOW + 60, 50, TOPIC, 10), "envelope from the future: check your clock"),
        (Envelope::new(NOW, 0, TOPIC, b"data", 0), "ttl must not be 0"),
    ] {
        let status = publish(&stack, &bad, None).await.unwrap_err();
        assert_eq!((status.code(), status.message()), (Code::InvalidArgument, text));
    }
    stack.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_archive_is_away_publishing_promises_what_the_spool_holds() {
    let mut stack = Stack::with(|config| config.spool_size = ByteSize(5_000)).await;
    stack.reaches_archive(true).await;
    stack.stop_archive().await;
    stack.reaches_archive(false).await;
    let (one, large) = (envelope(TOPIC, 1000), envelope(TOPIC, 4_000));
    assert!(!publish(&stack, &one, None).await.unwrap().duplicate);
    // This one does not fit, which is known after a while, and the next is not even taken.
    let status = publish(&stack, &large, None).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_eq!(
        publish(&stack, &envelope(TOPIC, 10), None).await.unwrap_err().code(),
        Code::ResourceExhausted
    );
    // Peers have it, though, and asking again after the return is a promise.
    stack.start_archive().await;
    eventually("the spool to have room", || stack.spool_fault().is_none()).await;
    let response = publish(&stack, &large, None).await.unwrap();
    assert!(response.duplicate);
    let mut peer = Peer::quiet(&stack, Dialect::Waku1).await;
    assert_eq!(peer.fetch_in_time(&everything()).await, in_order(&[one, large]));
    stack.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_see_the_node_and_its_peers() {
    let stack = Stack::with(|config| {
        config.min_pow = 0.001;
        config.max_peers = 7;
    })
    .await;
    let mut poster =
        Peer::wanting(&stack, Dialect::Waku1, Options { pow_requirement: Some(0.5), ..Options::default() })
            .await;
    let dialects = vec![Dialect::Shh6, Dialect::Waku1];
    let both = Appearance {
        dialects,
        ..Appearance::wanting(Dialect::Waku1, Options { light: Some(true), ..Options::default() })
    };
    let mut second = Peer::appear(&stack, &both).await;
    let posted: Vec<_> = (0..3).map(|_| mined(NOW + 50, 50, TOPIC, 100, 0.001)).collect();
    poster.post_confirmed(&posted).await;
    second.relayed_until(&posted[2]).await;
    second.dialect = Dialect::Waku1;
    second.page(&everything()).await;
    stack.clock.advance(Duration::from_secs(5));

    let info = stack.node_info().await;
    assert_eq!(info.enode, stack.enode().to_string());
    assert_eq!(info.node_id, stack.enode().key.node_id()[..]);
    assert_eq!(info.capabilities, ["waku/1", "shh/6"]);
    assert_eq!((info.min_pow, info.max_message_size), (0.001, 1 << 20));
    assert_eq!((info.peers, info.max_peers), (2, 7));
    let bytes: usize = posted.iter().map(|envelope| envelope.rlp().len()).sum();
    assert_eq!((info.pool_envelopes, info.pool_bytes), (3, bytes as u64));
    assert_eq!((info.pending_envelopes, info.pending_bytes, info.archive_reachable), (0, 0, true));

    let peers = peers(&stack).await;
    let of = |key: &poste_codec::SecretKey| {
        let key = format!("enode://{}@127.0.0.1:", key.public());
        peers.iter().find(|peer| peer.enode.starts_with(&key)).unwrap()
    };
    let expected = PeerInfo {
        enode: of(&poster.key).enode.clone(),
        client_name: "a peer of the tests".to_owned(),
        capability: "waku/1".to_owned(),
        inbound: true,
        connected_seconds: 5,
        min_pow: 0.5,
        light: false,
        full_node: true,
        envelopes_in: 3,
        envelopes_out: 0,
        mail_requests: 0,
    };
    assert_eq!(of(&poster.key), &expected);
    let seen = of(&second.key);
    assert_eq!((seen.light, seen.envelopes_in, seen.envelopes_out, seen.mail_requests), (true, 0, 3, 1));
    assert_eq!((&seen.capability[..], seen.min_pow), ("waku/1", 0.0));

    second.say(&Packet::StatusUpdate(Options { bloom: Some(Bloom::EMPTY), ..Options::default() })).await;
    second.page(&everything()).await;
    assert!(!self::peers(&stack).await.iter().any(|peer| peer.light && peer.full_node));
    stack.end().await;
}

async fn peers(stack: &Stack) -> Vec<PeerInfo> {
    let mut admin = poste_rpc::gateway::admin_client(stack.admin().channel());
    admin.peers(PeersRequest {}).await.unwrap().into_inner().peers
}
