//! Start, readiness and the end of the process.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use crate::support::{
    Config, Gate, Gateway, LICENSE, Mock, Raw, Reply, Step, Wire, ca, client, eventually, soon, sse,
};

async fn start(mock: &Mock, server: &str) -> Gateway {
    Gateway::start(Config::new(mock).server(server)).await
}

#[tokio::test]
async fn without_traffic_sigterm_ends_at_once() {
    let mock = Mock::start(Reply::chat()).await;
    for signal in [Signal::TERM, Signal::INT] {
        let mut gateway = start(&mock, "grace: 300s").await;
        gateway.app().chat().await.ok();
        // An idle connection is no traffic.
        let mut idle = gateway.raw().await;
        idle.send("GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await;
        assert_eq!(idle.answer().await.unwrap().status, 200);
        let began = Instant::now();
        gateway.signal(signal);
        let status = gateway.exited(Duration::from_secs(2)).await;
        assert!(status.success(), "{signal:?}: {status}");
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    }
}

over_every_wire! { a_stream_under_way_is_finished_first }

async fn a_stream_under_way_is_finished_first(wire: Wire) {
    let gate = Gate::new();
    let reply = Reply::sse(&[sse::ROLE.to_owned(), sse::text("Hel")])
        .then(Step::Gate(gate.clone()))
        .write(sse::text("lo"))
        .write(sse::FINISH)
        .write(sse::DONE);
    let mock = Mock::start(reply).await;
    let mut gateway = Gateway::start(Config::new(&mock).server("grace: 20s").over(wire)).await;
    let mut open = gateway.app().open(&client::chat(&json!({ "stream": true }))).await;
    let mut body = open.chunk().await.unwrap().expect("the first event").to_vec();
    gateway.signal(Signal::TERM);
    eventually("no new work is taken", Duration::from_secs(5), || async {
        let ready = gateway.readyz().await;
        ready == Some(503) || ready.is_none()
    })
    .await;
    // A new request is refused, either at the door or in words.
    if wire == Wire::Plain
        && let Ok(mut raw) = Raw::to(gateway.public).await
    {
        let text = client::chat(&json!({})).to_string();
        let head = client::post_head("/chat");
        raw.send(format!("{head}content-length: {}\r\n\r\n{text}", text.len())).await;
        if let Some(answer) = raw.answer().await {
            assert_eq!((answer.status, answer.code().as_str()), (503, "shutting_down"));
        }
    }
    gate.open();
    while let Some(chunk) = soon("the rest of the stream", open.chunk()).await.unwrap() {
        body.extend_from_slice(&chunk);
    }
    assert_eq!(body, sse::plain(&["Hel", "lo"]).concat().as_bytes());
    let status = gateway.exited(Duration::from_secs(3)).await;
    assert!(status.success(), "{status}");
    gateway.restart().await;
    assert_eq!(gateway.messages(LICENSE).await, 1);
}

#[tokio::test]
async fn grace_has_an_end_and_what_was_begun_is_charged() {
    let mock = Mock::start(Reply::sse(&[sse::text("Hel")]).then(Step::Hang)).await;
    let mut gateway = start(&mock, "grace: 1s").await;
    let mut open = gateway.app().open(&client::chat(&json!({ "stream": true }))).await;
    open.chunk().await.unwrap().expect("the first event");
    let began = Instant::now();
    gateway.signal(Signal::TERM);
    gateway.exited(Duration::from_secs(4)).await;
    assert!(began.elapsed() >= Duration::from_millis(900), "{:?}", began.elapsed());
    gateway.restart().await;
    assert_eq!(gateway.messages(LICENSE).await, 1);
}

#[tokio::test]
async fn a_second_signal_does_not_wait() {
    let mock = Mock::start(Reply::sse(&[sse::text("Hel")]).then(Step::Hang)).await;
    let mut gateway = start(&mock, "grace: 300s").await;
    let mut open = gateway.app().open(&client::chat(&json!({ "stream": true }))).await;
    open.chunk().await.unwrap().expect("the first event");
    gateway.signal(Signal::TERM);
    eventually("it drains", Duration::from_secs(5), || async {
        gateway.readyz().await != Some(200)
    })
    .await;
    gateway.signal(Signal::TERM);
    let status = gateway.exited(Duration::from_secs(2)).await;
    assert!(status.success(), "{status}");
    // Not at the next start: whoever looks into the store finds it whole.
    let store = rusqlite::Connection::open(gateway.store()).unwrap();
    let one = |query: &str| store.query_row(query, [], |row| row.get::<_, i64>(0)).unwrap();
    assert_eq!(one("SELECT count(*) FROM open"), 0);
    assert_eq!(one("SELECT messages FROM usage WHERE period = 'month'"), 1);
    gateway.restart().await;
    assert_eq!(gateway.messages(LICENSE).await, 1);
}

#[tokio::test]
async fn kept_connections_are_told_to_leave() {
    let gate = Gate::new();
    let reply = Reply::sse(&[sse::text("Hel")]).then(Step::Gate(gate.clone()));
    let mock = Mock::start(reply.write(sse::FINISH).write(sse::DONE)).await;
    for wire in [Wire::Plain, Wire::H2] {
        let mut gateway = Gateway::start(Config::new(&mock).server("grace: 20s").over(wire)).await;
        let mut open = gateway.app().open(&client::chat(&json!({ "stream": true }))).await;
        open.chunk().await.unwrap().expect("the first event");
        if wire == Wire::Plain {
            let mut kept = gateway.raw().await;
            kept.send("GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await;
            assert_ne!(kept.answer().await.unwrap().header("connection"), Some("close"));
            gateway.signal(Signal::TERM);
            eventually("it drains", Duration::from_secs(5), || async {
                gateway.readyz().await == Some(503)
            })
            .await;
            kept.send(client::post("/v1/chat/completions", &client::chat(&json!({})))).await;
            let answer = kept.answer().await.unwrap();
            assert_eq!((answer.status, answer.code().as_str()), (503, "shutting_down"));
            assert_eq!(answer.header("connection"), Some("close"));
        } else {
            let socket = tokio::net::TcpStream::connect(gateway.public).await.unwrap();
            let name = "localhost".try_into().unwrap();
            let tls = ca::connector(&[b"h2"]).connect(name, socket).await.unwrap();
            let (mut app, connection) = ::h2::client::handshake(tls).await.unwrap();
            let connection = tokio::spawn(connection);
            let request = http::Request::get("https://localhost/healthz").body(()).unwrap();
            let (answer, _) = app.send_request(request, true).unwrap();
            assert_eq!(answer.await.unwrap().status(), 200);
            gateway.signal(Signal::TERM);
            // GOAWAY, and nothing is open on it.
            let _ = soon("the connection ends", connection).await.unwrap();
            assert!(gateway.readyz().await == Some(503), "the process is still there");
        }
        gate.open();
        while soon("the rest of the stream", open.chunk()).await.unwrap().is_some() {}
        let began = Instant::now();
        gateway.exited(Duration::from_secs(3)).await;
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    }
}

#[tokio::test]
async fn a_taken_port_is_told_and_ends_the_start() {
    let mock = Mock::start(Reply::chat()).await;
    let first = start(&mock, "grace: 1s").await;
    let dir = std::sync::Arc::new(tempfile::TempDir::new().unwrap());
    let config = Config::new(&mock);
    let file = config.write(dir.path(), first.public, first.admin);
    let mut second = Gateway::spawn_file(dir, config, first.public, first.admin, &file);
    let status = second.exited(Duration::from_secs(10)).await;
    assert!(!status.success());
    second.logged("in use").await;
    first.app().chat().await.ok();
}

#[tokio::test]
async fn the_admin_listener_answers_only_to_its_own_names() {
    let mock = Mock::start(Reply::chat()).await;
    let gateway = start(&mock, "grace: 1s").await;
    let port = gateway.admin.port();
    for (host, fine) in [
        (format!("127.0.0.1:{port}"), true),
        (format!("localhost:{port}"), true),
        (format!("[::1]:{port}"), true),
        (format!("attacker.example:{port}"), false),
        ("127.0.0.1.attacker.example".to_owned(), false),
        ("169.254.169.254".to_owned(), false),
    ] {
        let mut raw = Raw::to(gateway.admin).await.unwrap();
        raw.send(format!("GET /status HTTP/1.1\r\nhost: {host}\r\n\r\n")).await;
        let answer = raw.answer().await.unwrap();
        assert_eq!(answer.status == 200, fine, "{host}: {}", answer.status);
    }
}

#[tokio::test]
async fn a_token_opens_the_admin_pages_under_any_name() {
    let mock = Mock::start(Reply::chat()).await;
    let dir = std::sync::Arc::new(tempfile::TempDir::new().unwrap());
    let token = dir.path().join("token");
    crate::support::yaml::write_private(&token, "a-long-admin-token-0123456789");
    let config = Config::new(&mock)
        .admin(&format!("token: \"file:{}\", hosts: [gateway.example]", token.display()));
    let gateway = Gateway::start_in(dir, config).await;
    for (host, token, fine) in [
        ("prometheus.example", Some("a-long-admin-token-0123456789"), true),
        ("prometheus.example", Some("a-long-admin-token-0123456788"), false),
        ("prometheus.example", Some(""), false),
        ("prometheus.example", None, false),
        ("gateway.example", None, false),
        ("127.0.0.1", None, false),
    ] {
        let mut raw = Raw::to(gateway.admin).await.unwrap();
        let line = token.map(|token| format!("authorization: Bearer {token}\r\n"));
        let line = line.unwrap_or_default();
        raw.send(format!("GET /metrics HTTP/1.1\r\nhost: {host}\r\n{line}\r\n")).await;
        let answer = raw.answer().await.unwrap();
        assert_eq!(answer.status == 200, fine, "{host} {token:?}: {}", answer.status);
    }
}
