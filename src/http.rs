//! The HTTP port: metrics, health, and the state of the node as JSON.
//!
//! Whoever reads here must not be able to harm those who send messages: a connection serves one
//! request, has ten seconds for all of it, sends a few KiB at most, and there are few of them. A client
//! that is slow, or many that are, cost the node a handful of sockets. What is asked is answered on a
//! thread that may block, because a scrape asks the file system how full it is.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::serve::Listener;
use axum::{Json, Router, middleware};
use gantry_raft::{BoxFuture, NodeNumber};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Sleep;

use crate::transfer::NotMoved;

const NOT_FOUND: &str = "\
no such path; this port answers
/metrics        metrics for Prometheus
/healthz        whether the process runs
/readyz         whether the node can serve clients
/api/v1/status  the state of the node and its groups, as JSON
/api/v1/transactions  open transactions of the groups that the node leads, as JSON
POST /api/v1/groups/GROUP/leader/NODE  node NODE leads GROUP from now on, when it can
";

const LIMITS: Limits = Limits {
    time_max: Duration::from_secs(10),
    bytes_max: 16 << 10,
    connections_max: 32,
};

/// Where the answers come from. Each is called once per request, on a thread that may block, and by
/// several requests at once.
pub struct HttpHandlers {
    /// The metrics in Prometheus' text format.
    pub metrics: Box<dyn Fn() -> String + Send + Sync>,
    /// The state of the node.
    pub status: Box<dyn Fn() -> serde_json::Value + Send + Sync>,
    /// The open transactions of the groups that the node leads.
    pub transactions: Box<dyn Fn() -> serde_json::Value + Send + Sync>,
    /// Whether the node can serve clients, or the reason why not.
    pub ready: Box<dyn Fn() -> Result<(), String> + Send + Sync>,
    /// Moves leadership of a group to a node.
    pub transfer: Box<dyn Fn(String, NodeNumber) -> Transfer + Send + Sync>,
}

/// Leadership on its way.
pub type Transfer = BoxFuture<'static, Result<(), NotMoved>>;

/// What one client may cost.
#[derive(Clone, Copy)]
struct Limits {
    /// From accepting a connection to its end, also while draining.
    time_max: Duration,
    /// What is read from a connection, give or take one buffer.
    bytes_max: usize,
    /// Connections at a time; more wait in the listener's backlog.
    connections_max: usize,
}

/// Serves until `stop` becomes true or its sender is gone, then finishes the requests under way
/// (10 s at most).
pub async fn serve(listener: TcpListener, handlers: HttpHandlers, stop: watch::Receiver<bool>) {
    serve_within(LIMITS, listener, handlers, stop).await;
}

async fn serve_within(
    limits: Limits,
    listener: TcpListener,
    handlers: HttpHandlers,
    mut stop: watch::Receiver<bool>,
) {
    let places = Arc::new(Semaphore::new(limits.connections_max));
    let door = Door {
        listener,
        places,
        limits,
    };
    let stopped = async move {
        // The error is that nobody is left to say so, which is a stop too.
        let _gone = stop.wait_for(|stop| *stop).await;
    };
    let serving = axum::serve(door, routes(Arc::new(handlers))).with_graceful_shutdown(stopped);
    serving
        .await
        .expect("errors of connections end these, those of the listener are retried");
}

fn routes(handlers: Arc<HttpHandlers>) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(async || "ok"))
        .route("/readyz", get(ready))
        .route("/api/v1/status", get(status))
        .route("/api/v1/transactions", get(transactions))
        .route("/api/v1/groups/{group}/leader/{node}", post(transfer))
        .fallback(async || (StatusCode::NOT_FOUND, NOT_FOUND))
        .layer(middleware::map_response(close))
        .with_state(handlers)
}

async fn metrics(State(handlers): State<Arc<HttpHandlers>>) -> Response {
    let text = off_thread(move || (handlers.metrics)()).await;
    ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response()
}

async fn ready(State(handlers): State<Arc<HttpHandlers>>) -> Response {
    match off_thread(move || (handlers.ready)()).await {
        Ok(()) => "ready".into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, reason).into_response(),
    }
}

async fn status(State(handlers): State<Arc<HttpHandlers>>) -> Response {
    Json(off_thread(move || (handlers.status)()).await).into_response()
}

async fn transactions(State(handlers): State<Arc<HttpHandlers>>) -> Response {
    Json(off_thread(move || (handlers.transactions)()).await).into_response()
}

async fn transfer(
    State(handlers): State<Arc<HttpHandlers>>,
    Path((group, node)): Path<(String, NodeNumber)>,
) -> Response {
    match (handlers.transfer)(group, node).await {
        Ok(()) => "moved".into_response(),
        Err(error) => {
            let status = match error {
                NotMoved::Unknown(_) => StatusCode::NOT_FOUND,
                NotMoved::Impossible(_) => StatusCode::CONFLICT,
                NotMoved::Late(_) => StatusCode::GATEWAY_TIMEOUT,
            };
            (status, error.to_string()).into_response()
        }
    }
}

/// Says that the connection ends, which also ends it.
async fn close(mut response: Response) -> Response {
    response
        .headers_mut()
        .insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

async fn off_thread<T: Send + 'static>(ask: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(ask)
        .await
        .expect("handlers do not panic")
}

/// Accepts connections, few at a time, and limits each.
struct Door {
    listener: TcpListener,
    places: Arc<Semaphore>,
    limits: Limits,
}

impl Listener for Door {
    type Io = Limited;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Limited, SocketAddr) {
        let place = self.places.clone().acquire_owned().await;
        let place = place.expect("the semaphore is never closed");
        let (stream, peer) = Listener::accept(&mut self.listener).await;
        let deadline = Box::pin(tokio::time::sleep(self.limits.time_max));
        let limited = Limited {
            stream,
            deadline,
            bytes_left: self.limits.bytes_max,
            _place: place,
        };
        (limited, peer)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

/// A connection that fails when its time is over or too much was read from it.
struct Limited {
    stream: TcpStream,
    deadline: Pin<Box<Sleep>>,
    bytes_left: usize,
    _place: OwnedSemaphorePermit,
}

impl Limited {
    fn check_deadline(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.deadline.as_mut().poll(cx) {
            Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl AsyncRead for Limited {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check_deadline(cx)?;
        if self.bytes_left == 0 {
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        let read = buffer.filled().len() - before;
        self.bytes_left = self.bytes_left.saturating_sub(read);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Limited {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check_deadline(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::task::JoinHandle;

    use super::*;

    struct Running {
        address: SocketAddr,
        stop: watch::Sender<bool>,
        serving: JoinHandle<()>,
    }

    async fn start(limits: Limits, ready: Result<(), String>) -> Running {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let handlers = HttpHandlers {
            metrics: Box::new(|| "some_metric 1\n".to_string()),
            status: Box::new(|| serde_json::json!({"node": 7})),
            transactions: Box::new(|| serde_json::json!([])),
            ready: Box::new(move || ready.clone()),
            transfer: Box::new(|group, node| {
                Box::pin(async move {
                    match (group.as_str(), node) {
                        ("broker-a", 2) => Ok(()),
                        ("broker-a", _) => Err(NotMoved::Impossible("not that one".to_string())),
                        _ => Err(NotMoved::Unknown("which?".to_string())),
                    }
                })
            }),
        };
        let (stop, stopped) = watch::channel(false);
        let serving = tokio::spawn(serve_within(limits, listener, handlers, stopped));
        Running {
            address,
            stop,
            serving,
        }
    }

    /// Sends `request`; gives all that comes until the connection ends.
    async fn exchange(address: SocketAddr, request: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    async fn get(address: SocketAddr, path: &str) -> (u16, String, String) {
        let request = format!("GET {path} HTTP/1.1\r\nHost: node\r\n\r\n");
        let answer = exchange(address, &request).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.strip_prefix("HTTP/1.1 ").unwrap()[..3]
            .parse()
            .unwrap();
        (status, head.to_lowercase(), body.to_string())
    }

    #[tokio::test]
    async fn every_path_answers() {
        let node = start(LIMITS, Ok(())).await;
        let (status, head, body) = get(node.address, "/metrics").await;
        assert_eq!((status, body.as_str()), (200, "some_metric 1\n"));
        assert!(
            head.contains("content-type: text/plain; version=0.0.4"),
            "{head}"
        );
        let (status, _, body) = get(node.address, "/healthz").await;
        assert_eq!((status, body.as_str()), (200, "ok"));
        let (status, _, body) = get(node.address, "/readyz").await;
        assert_eq!((status, body.as_str()), (200, "ready"));
        let (status, head, body) = get(node.address, "/api/v1/status").await;
        assert_eq!((status, body.as_str()), (200, r#"{"node":7}"#));
        assert!(head.contains("content-type: application/json"), "{head}");
        let (status, _, body) = get(node.address, "/elsewhere").await;
        assert_eq!(status, 404);
        for path in ["/metrics", "/healthz", "/readyz", "/api/v1/status"] {
            assert!(body.contains(path), "{path} is not in {body}");
        }
    }

    #[tokio::test]
    async fn a_node_that_is_not_ready_says_why() {
        let node = start(LIMITS, Err("group broker-a has no leader".to_string())).await;
        let (status, _, body) = get(node.address, "/readyz").await;
        assert_eq!(
            (status, body.as_str()),
            (503, "group broker-a has no leader")
        );
        assert_eq!(get(node.address, "/healthz").await.0, 200);
    }

    #[tokio::test]
    async fn other_methods_are_refused() {
        let node = start(LIMITS, Ok(())).await;
        let answer = exchange(node.address, "POST /metrics HTTP/1.1\r\nHost: node\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 405 "), "{answer}");
    }

    #[tokio::test]
    async fn leadership_moves_by_a_post() {
        let node = start(LIMITS, Ok(())).await;
        let post = async |path: &str| {
            let request = format!(
                "POST /api/v1/groups/{path} HTTP/1.1\r\nHost: n\r\ncontent-length: 0\r\n\r\n"
            );
            exchange(node.address, &request).await
        };
        assert!(post("broker-a/leader/2").await.starts_with("HTTP/1.1 200 "));
        let refused = post("broker-a/leader/3").await;
        assert!(refused.starts_with("HTTP/1.1 409 "), "{refused}");
        assert!(refused.ends_with("not that one"), "{refused}");
        assert!(post("broker-x/leader/1").await.starts_with("HTTP/1.1 404 "));
        assert!(
            post("broker-a/leader/me")
                .await
                .starts_with("HTTP/1.1 400 ")
        );
        let path = "/api/v1/groups/broker-a/leader/2";
        assert_eq!(get(node.address, path).await.0, 405, "a look moves nothing");
    }

    #[tokio::test]
    async fn a_client_that_does_not_finish_loses_its_place_to_the_next() {
        let limits = Limits {
            connections_max: 1,
            time_max: Duration::from_millis(300),
            ..LIMITS
        };
        let node = start(limits, Ok(())).await;
        let mut slow = TcpStream::connect(node.address).await.unwrap();
        slow.write_all(b"GET /metrics HTTP/1.1\r\nHost: no")
            .await
            .unwrap();
        assert_eq!(get(node.address, "/healthz").await.0, 200);
        let mut rest = String::new();
        slow.read_to_string(&mut rest).await.unwrap();
        assert_eq!(rest, "");
    }

    #[tokio::test]
    async fn a_request_without_end_is_cut_off() {
        let node = start(LIMITS, Ok(())).await;
        let mut stream = TcpStream::connect(node.address).await.unwrap();
        let mut request = b"GET /metrics HTTP/1.1\r\nHost: ".to_vec();
        request.resize(4 * LIMITS.bytes_max, b'x');
        // Either fails when the node has closed already.
        let written = stream.write_all(&request).await;
        let ended = async { written.is_err() || !matches!(stream.read(&mut [0]).await, Ok(1..)) };
        let ended = tokio::time::timeout(LIMITS.time_max / 2, ended).await;
        assert!(
            ended.expect("no time limit is waited for"),
            "it was answered"
        );
        assert_eq!(get(node.address, "/healthz").await.0, 200);
    }

    #[tokio::test]
    async fn a_stop_ends_idle_connections_at_once() {
        let node = start(LIMITS, Ok(())).await;
        let mut idle = TcpStream::connect(node.address).await.unwrap();
        assert_eq!(get(node.address, "/healthz").await.0, 200);
        node.stop.send(true).unwrap();
        let stopped = tokio::time::timeout(LIMITS.time_max / 2, node.serving).await;
        stopped.expect("no time limit is waited for").unwrap();
        let mut rest = String::new();
        idle.read_to_string(&mut rest).await.unwrap();
        assert!(
            TcpStream::connect(node.address).await.is_err(),
            "the port is closed"
        );
    }
}
