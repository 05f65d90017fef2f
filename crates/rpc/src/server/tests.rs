use tonic::{Request, Response, Status, Streaming};
use tonic_health::pb::health_check_response::ServingStatus as Answer;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use super::*;
use crate::client::Target;
use crate::gateway::v1::gateway_admin_service_server::GatewayAdminService;
use crate::gateway::v1::{NodeInfoRequest, NodeInfoResponse, PeersRequest, PeersResponse};

/// NodeInfo answers; Peers never does.
struct Admin;

#[tonic::async_trait]
impl GatewayAdminService for Admin {
    async fn node_info(&self, _: Request<NodeInfoRequest>) -> Result<Response<NodeInfoResponse>, Status> {
        Ok(Response::new(NodeInfoResponse { enode: "enode://".into(), ..Default::default() }))
    }

    async fn peers(&self, _: Request<PeersRequest>) -> Result<Response<PeersResponse>, Status> {
        std::future::pending().await
    }
}

const NAME: &str = "poste.gateway.v1.GatewayAdminService";

async fn start(drain: Duration) -> (Running, CancellationToken, Target) {
    start_announcing(drain, CancellationToken::new()).await
}

async fn start_announcing(
    drain: Duration,
    draining: CancellationToken,
) -> (Running, CancellationToken, Target) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stop = CancellationToken::new();
    let server = Server::new(drain, draining).with(crate::gateway::admin_server(Admin));
    let running = server.start(listener, stop.clone()).await.unwrap();
    let target = Target::lazy(&format!("http://{}", running.local_address())).unwrap();
    (running, stop, target)
}

async fn watch_health(target: &Target, service: &str) -> Streaming<HealthCheckResponse> {
    let request = HealthCheckRequest { service: service.into() };
    HealthClient::new(target.channel()).watch(request).await.unwrap().into_inner()
}

#[tokio::test]
async fn serves_calls_health_and_reflection() {
    let (running, stop, target) = start(Duration::from_secs(1)).await;
    let info = crate::gateway::admin_client(target.channel()).node_info(NodeInfoRequest {}).await.unwrap();
    assert_eq!(info.into_inner().enode, "enode://");

    let mut health = watch_health(&target, NAME).await;
    assert_eq!(health.message().await.unwrap().unwrap().status(), Answer::Serving);

    let ask = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut answers = ServerReflectionClient::new(target.channel())
        .server_reflection_info(tokio_stream::once(ask))
        .await
        .unwrap()
        .into_inner();
    let Some(MessageResponse::ListServicesResponse(list)) =
        answers.message().await.unwrap().unwrap().message_response
    else {
        panic!("no list of services")
    };
    let names: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
    assert!(names.iter().any(|name| name == NAME), "{names:?}");
    drop((health, answers));
    stop.cancel();
    running.stopped().await.unwrap();
}

#[tokio::test]
async fn a_stop_says_not_serving_first_and_cuts_what_outlasts_the_drain() {
    let (running, stop, target) = start(Duration::from_millis(300)).await;
    let mut health = watch_health(&target, "").await;
    assert_eq!(health.message().await.unwrap().unwrap().status(), Answer::Serving);
    let mut client = crate::gateway::admin_client(target.channel());
    let endless = tokio::spawn(async move { client.peers(PeersRequest {}).await });

    stop.cancel();
    assert_eq!(health.message().await.unwrap().unwrap().status(), Answer::NotServing);
    tokio::time::timeout(Duration::from_secs(10), running.stopped()).await.unwrap().unwrap();
    endless.await.unwrap().expect_err("the call was cut");
}

#[tokio::test]
async fn who_drains_says_so_and_serves_until_the_stop() {
    let draining = CancellationToken::new();
    let (running, stop, target) = start_announcing(Duration::from_millis(300), draining.clone()).await;
    let mut watched = [watch_health(&target, "").await, watch_health(&target, NAME).await];
    for health in &mut watched {
        assert_eq!(health.message().await.unwrap().unwrap().status(), Answer::Serving);
    }
    draining.cancel();
    for health in &mut watched {
        let said = tokio::time::timeout(Duration::from_secs(10), health.message()).await.expect("it says so");
        assert_eq!(said.unwrap().unwrap().status(), Answer::NotServing);
    }
    // Over a connection of its own, which it still accepts.
    let late = Target::lazy(target.address()).unwrap();
    crate::gateway::admin_client(late.channel()).node_info(NodeInfoRequest {}).await.unwrap();
    drop(watched);
    stop.cancel();
    tokio::time::timeout(Duration::from_secs(10), running.stopped()).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_stop_without_open_calls_does_not_wait_for_the_deadline() {
    let (running, stop, target) = start(Duration::from_secs(3600)).await;
    crate::gateway::admin_client(target.channel()).node_info(NodeInfoRequest {}).await.unwrap();
    stop.cancel();
    tokio::time::timeout(Duration::from_secs(10), running.stopped()).await.unwrap().unwrap();
}

#[tokio::test]
async fn an_error_of_the_listener_pauses_accepting() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let _client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let stream = listener.accept().await.unwrap().0;
    let full = || Err(io::Error::other("too many open files"));
    let accepted = tokio_stream::iter([full(), full(), Ok(stream)]);
    let began = std::time::Instant::now();
    let outcomes: Vec<_> = connections(accepted, CancellationToken::new()).collect().await;
    assert!(began.elapsed() >= 2 * ACCEPT_PAUSE);
    assert_eq!(outcomes.iter().map(Result::is_ok).collect::<Vec<_>>(), [false, false, true]);
}
