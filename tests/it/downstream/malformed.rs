//! Refusals are seen: whatever refuses a request, its sender gets the contract's words, and operators a count.

use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use serde_json::json;

use crate::support::{
    Answer, Config, Gateway, LICENSE, Mock, Raw, Reply, Wire,
    client::{self, count_answers, post_head},
    contains, eventually,
};

const LOUD: &str = "log: { level: debug }";

async fn start(wire: Wire) -> (Mock, Gateway) {
    let mock = Mock::start(Reply::chat()).await;
    let gateway = Gateway::start(Config::new(&mock).over(wire).more(LOUD)).await;
    (mock, gateway)
}

/// Heads that are refused before any route is looked for.
const MALFORMED: &[(&str, &str)] = &[
    ("no host", "GET /healthz HTTP/1.1\r\n\r\n"),
    ("a list of hosts", "GET /healthz HTTP/1.1\r\nhost: a, b\r\n\r\n"),
    ("a path for a host", "GET /healthz HTTP/1.1\r\nhost: x/y\r\n\r\n"),
    ("two words for a host", "GET /healthz HTTP/1.1\r\nhost: a b\r\n\r\n"),
    ("a port in words", "GET /healthz HTTP/1.1\r\nhost: h:8x\r\n\r\n"),
    ("a tag for a host", "GET /healthz HTTP/1.1\r\nhost: <script>\r\n\r\n"),
    ("two hosts", "GET /healthz HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n"),
    ("a fragment", "GET /healthz#x HTTP/1.1\r\nhost: a\r\n\r\n"),
    ("CR in the target", "GET /health\rz HTTP/1.1\r\nhost: a\r\n\r\n"),
    ("NUL in the target", "GET /health\0z HTTP/1.1\r\nhost: a\r\n\r\n"),
    ("two blanks", "GET  /healthz HTTP/1.1\r\nhost: a\r\n\r\n"),
    ("a blank in the target", "GET /health z HTTP/1.1\r\nhost: a\r\n\r\n"),
    ("absolute form", "GET http://a/healthz HTTP/1.1\r\nhost: a\r\n\r\n"),
    ("CONNECT", "CONNECT a:443 HTTP/1.1\r\nhost: a:443\r\n\r\n"),
    ("an odd method", "G{}T /healthz HTTP/1.1\r\nhost: a\r\n\r\n"),
    ("an odd name", "GET /healthz HTTP/1.1\r\nhost: a\r\nx y: 1\r\n\r\n"),
    ("no name", "GET /healthz HTTP/1.1\r\nhost: a\r\n: 1\r\n\r\n"),
    ("NUL in a value", "GET /healthz HTTP/1.1\r\nhost: a\r\nx: \0\r\n\r\n"),
    ("line feeds", "GET /healthz HTTP/1.1\nhost: a\n\n"),
    ("an empty line first", "\r\nGET /healthz HTTP/1.1\r\nhost: a\r\n\r\n"),
    ("HTTP/2 in clear", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    ("another version", "GET /healthz HTTP/3.0\r\nhost: a\r\n\r\n"),
    ("a folded line", "GET /healthz HTTP/1.1\r\nhost: a\r\nx: 1\r\n 2\r\n\r\n"),
    ("a blank before the colon", "GET /healthz HTTP/1.1\r\nhost: a\r\nx : 1\r\n\r\n"),
    ("1.0 with chunks", "POST /chat HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n"),
];

/// Sends it, with something behind it that must never be answered; the one answer.
async fn refused(mut raw: Raw, what: &str, request: &str) -> String {
    raw.send(format!("{request}GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n")).await;
    let began = Instant::now();
    let rest = raw.rest(Duration::from_secs(6)).await.unwrap_or_else(|| panic!("{what}: it stays"));
    assert!(began.elapsed() < Duration::from_secs(2), "{what}: {:?}", began.elapsed());
    assert_eq!(count_answers(&rest), 1, "{what}: {}", String::from_utf8_lossy(&rest));
    String::from_utf8(rest).unwrap()
}

fn is_envelope(what: &str, text: &str, status: &str) {
    assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{what}: {text}");
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    for header in ["x-request-id: ", "connection: close", "content-type: application/json"] {
        assert!(head.to_ascii_lowercase().contains(header), "{what}: no {header} in {head}");
    }
    assert!(!head.contains("Pingora"), "{what}: {head}");
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    let error = &body["error"];
    assert_eq!(error["code"], "invalid_request", "{what}: {body}");
    assert!(error["message"].as_str().is_some_and(|words| words.len() > 10), "{what}: {body}");
    assert!(error["type"].is_string() && error.get("param").is_some(), "{what}: {body}");
}

async fn what_the_parser_refuses_is_answered_counted_and_logged(wire: Wire) {
    let (mock, gateway) = start(wire).await;
    let many = format!("GET /healthz HTTP/1.1\r\nhost: a\r\n{}\r\n", "x: y\r\n".repeat(300));
    let requests = MALFORMED.iter().copied().chain([("many headers", &*many)]);
    let refusals = requests.map(async |(what, request)| {
        is_envelope(what, &refused(gateway.raw().await, what, request).await, "400");
    });
    join_all(refusals).await;
    let all = MALFORMED.len() as f64 + 1.0;
    let metrics = gateway.metrics().await;
    let labels = [("listener", "public")];
    assert_eq!(metrics.sum("gatekeeper_malformed_requests_total", &labels), all);
    assert_eq!(metrics.sum("gatekeeper_requests_total", &[("status", "400")]), all);
    let log = gateway.logs();
    let lines = log
        .lines()
        .filter(|line| line.contains("malformed request was refused: 400 invalid_request"));
    assert_eq!(lines.count() as f64, all, "{log}");
    assert!(!log.contains("ERROR"), "{log}");
    assert_eq!(mock.count(), 0);
    gateway.app().chat().await.ok();
}

over_http1! { what_the_parser_refuses_is_answered_counted_and_logged, a_head_may_have_64_kib }

#[tokio::test]
async fn the_admin_listener_says_the_same() {
    let (_mock, gateway) = start(Wire::Plain).await;
    let refusals = MALFORMED.iter().map(async |(what, request)| {
        let raw = Raw::to(gateway.admin).await.unwrap();
        is_envelope(what, &refused(raw, what, request).await, "400");
    });
    join_all(refusals).await;
    let labels = [("listener", "admin")];
    let count = gateway.metrics().await.sum("gatekeeper_malformed_requests_total", &labels);
    assert_eq!(count, MALFORMED.len() as f64);
    gateway.logged("listener=admin").await;
}

#[tokio::test]
async fn the_envelope_is_the_one_of_the_route() {
    let (_mock, gateway) = start(Wire::Plain).await;
    let mut raw = gateway.raw().await;
    raw.send("POST /v1/messages HTTP/1.1\r\nhost: a b\r\n\r\n").await;
    let answer = raw.answer().await.unwrap();
    let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!((answer.status, &body["type"]), (400, &json!("error")), "{body}");
}

/// A head of so many bytes.
fn head_of(size: usize) -> String {
    let (begin, end) = ("GET /healthz HTTP/1.1\r\nhost: a\r\nx: ", "\r\n\r\n");
    format!("{begin}{}{end}", "a".repeat(size - begin.len() - end.len()))
}

async fn a_head_may_have_64_kib(wire: Wire) {
    let (_mock, gateway) = start(wire).await;
    let most = 64 * 1024;
    let mut raw = gateway.raw().await;
    raw.send(head_of(most)).await;
    assert_eq!(raw.answer().await.unwrap().status, 200);
    for piece in [usize::MAX, 1000] {
        let mut raw = gateway.raw().await;
        let head = head_of(most + 1);
        for piece in head.as_bytes().chunks(piece) {
            raw.send(piece).await;
        }
        let answer = raw.answer().await.unwrap();
        assert_eq!((answer.status, answer.code().as_str()), (431, "invalid_request"));
        assert!(answer.header("x-request-id").is_some());
    }
    // One that never ends is refused as soon as it is too long.
    let mut raw = gateway.raw().await;
    raw.send(&head_of(2 * most)[..most + 10]).await;
    assert_eq!(raw.answer().await.unwrap().status, 431);
    let status = [("status", "431")];
    assert_eq!(gateway.metrics().await.sum("gatekeeper_requests_total", &status), 3.0);
}

/// Each byte is looked at once, however a head trickles.
#[tokio::test]
async fn a_trickling_head_costs_no_more_than_a_quick_one() {
    let (_mock, gateway) = start(Wire::Plain).await;
    let mut raw = gateway.raw().await;
    let head = head_of(60 * 1024);
    let (bulk, tail) = head.as_bytes().split_at(head.len() - 3000);
    raw.send(bulk).await;
    let before = gateway.cpu();
    for byte in tail.chunks(1) {
        raw.send(byte).await;
        tokio::time::sleep(Duration::from_micros(300)).await;
    }
    assert_eq!(raw.answer().await.unwrap().status, 200);
    let took = gateway.cpu() - before;
    println!("3,000 bytes, one by one, behind 57 KiB: {took:?}");
    assert!(took < Duration::from_millis(700), "{took:?}");
}

#[tokio::test]
async fn a_second_request_right_behind_the_first_is_announced_as_dropped() {
    let (_mock, gateway) = start(Wire::Plain).await;
    let get = "GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n";
    let post = client::post("/chat", &client::chat(&json!({})));
    for first in [get, &post] {
        let mut raw = gateway.raw().await;
        raw.send(format!("{first}{get}")).await;
        let answer = raw.answer().await.unwrap();
        assert_eq!((answer.status, answer.header("connection")), (200, Some("close")), "{first}");
        assert_eq!(raw.rest(Duration::from_secs(3)).await.as_deref(), Some(&b""[..]));
        // Alone, it keeps the connection; what comes a moment later is served.
        let mut raw = gateway.raw().await;
        for _ in 0..2 {
            raw.send(first).await;
            let answer = raw.answer().await.unwrap();
            assert_eq!(answer.header("connection"), Some("keep-alive"), "{first}");
        }
    }
}

/// What one parser takes for data is never a request here: not in the same segment, not in the next.
#[tokio::test]
async fn nothing_behind_chunks_is_ever_answered() {
    let (mock, gateway) = start(Wire::Plain).await;
    let body = client::chat(&json!({})).to_string();
    let head = format!("{}transfer-encoding: chunked\r\n\r\n", post_head("/chat"));
    let hidden =
        format!("GET /v1/me HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {LICENSE}\r\n\r\n");
    for last in ["0\r\n\r\n", "\r\n\r\n", ";x\r\n\r\n", " \r\n\r\n"] {
        for together in [true, false] {
            let mut raw = gateway.raw().await;
            let request = format!("{head}{:x}\r\n{body}\r\n{last}", body.len());
            if together {
                raw.send(format!("{request}{hidden}")).await;
            } else {
                raw.send(request).await;
            }
            let first = raw.answer().await.unwrap();
            assert_eq!(first.header("connection"), Some("close"), "{last:?}: {}", first.head);
            raw.send(&hidden).await;
            let rest = raw.rest(Duration::from_secs(3)).await.expect("the connection ends");
            assert!(rest.is_empty(), "{last:?}: {}", String::from_utf8_lossy(&rest));
        }
    }
    // A chunked request that is refused ends its connection, too.
    let mut raw = gateway.raw().await;
    raw.send(format!(
        "{}{:x}\r\n{body}\r\n0\r\n\r\n",
        head.replace(LICENSE, "WRONG-KEY-1"),
        body.len()
    ))
    .await;
    let answer = raw.answer().await.unwrap();
    assert_eq!((answer.status, answer.header("connection")), (403, Some("close")));
    assert!(mock.count() <= 8);
}

async fn health_answers_head(wire: Wire) {
    let (_mock, gateway) = start(wire).await;
    let answer = Answer::of(gateway.app().request("HEAD", "/healthz")).await;
    assert_eq!((answer.status, answer.body.len()), (200, 0));
    assert!(answer.header("content-length").is_some_and(|length| length != "0"));
    if wire != Wire::H2 {
        // The connection goes on.
        let mut raw = gateway.raw().await;
        raw.send("HEAD /healthz HTTP/1.1\r\nhost: a\r\n\r\n").await;
        raw.until("\r\n\r\n").await;
        raw.send("GET /healthz HTTP/1.0\r\nhost: a\r\n\r\n").await;
        let rest = raw.rest(Duration::from_secs(3)).await.unwrap();
        assert_eq!(count_answers(&rest), 2, "{}", String::from_utf8_lossy(&rest));
        assert!(contains(&rest, "{\"status\":\"ok\"}"));
    }
}

over_every_wire! { health_answers_head }

#[tokio::test]
async fn operators_may_spell_bearer_as_they_like() {
    let mock = Mock::start(Reply::chat()).await;
    let dir = tempfile::TempDir::new().unwrap();
    let file = dir.path().join("token");
    crate::support::yaml::write_private(&file, "a-token-of-enough-characters");
    let token = format!("token: \"file:{}\"", file.display());
    let gateway = Gateway::start(Config::new(&mock).admin(&token)).await;
    for scheme in ["Bearer", "bearer", "BEARER"] {
        let request = gateway.stranger().get("/status").header("accept", "application/json");
        let request =
            request.header("authorization", format!("{scheme} a-token-of-enough-characters"));
        assert_eq!(request.send().await.unwrap().status(), 200, "{scheme}");
    }
    for authorization in [None, Some("Basic eA=="), Some("Bearer wrong-token-0123456789")] {
        let mut request = gateway.stranger().get("/metrics");
        if let Some(value) = authorization {
            request = request.header("authorization", value);
        }
        let answer = Answer::of(request).await;
        assert_eq!(answer.status, 401, "{authorization:?}");
        assert_eq!(answer.header("www-authenticate"), Some("Bearer"), "{authorization:?}");
    }
}

/// A balancer's check connects and closes; others send what is no TLS.
#[tokio::test]
async fn a_check_of_the_tls_port_is_no_error() {
    let (_mock, gateway) = start(Wire::Tls).await;
    for _ in 0..50 {
        drop(Raw::to(gateway.public).await.unwrap());
        Raw::to(gateway.public).await.unwrap().leave().await;
    }
    for bytes in ["GET / HTTP/1.1\r\nhost: a\r\n\r\n", "\x16\x03\x01\x00\x05hello"] {
        let mut raw = Raw::to(gateway.public).await.unwrap();
        raw.send(bytes).await;
        raw.rest(Duration::from_secs(3)).await.expect("it ends");
    }
    gateway.app().chat().await.ok();
    eventually("the last one is logged", Duration::from_secs(3), || async {
        gateway.logs().contains("A TLS handshake failed")
    })
    .await;
    assert!(!gateway.logs().contains("ERROR"), "{}", gateway.logs());
}

/// Where a proxy carries many buyers over one connection, one stranger's refused uploads must not end it.
#[tokio::test]
async fn a_shared_h2_connection_survives_a_thousand_refused_uploads() {
    let (_mock, gateway) = start(Wire::H2).await;
    let raw = Raw::to(gateway.public).await.unwrap().shake(b"h2").await.unwrap();
    let (client, connection) = ::h2::client::handshake(raw.into_stream()).await.unwrap();
    let driver = tokio::spawn(connection);
    let upload = async |mut client: ::h2::client::SendRequest<Bytes>, key: &str| {
        client = client.ready().await?;
        let request = http::Request::post("https://localhost/v1/chat/completions")
            .header("authorization", format!("Bearer {key}"))
            .body(())
            .unwrap();
        let (answer, mut body) = client.send_request(request, false)?;
        let piece = Bytes::from(vec![b'a'; 16 * 1024]);
        for _ in 0..3 {
            // Refused meanwhile, perhaps.
            let _ = body.send_data(piece.clone(), false);
        }
        let _ = body.send_data(piece, true);
        Ok::<_, ::h2::Error>(answer.await?.status().as_u16())
    };
    let mut refused = 0;
    for _ in 0..100 {
        let round = (0..10).map(|_| upload(client.clone(), "WRONG-KEY-0001"));
        for status in futures_util::future::join_all(round).await {
            let status = status.unwrap_or_else(|error| panic!("after {refused}: {error}"));
            assert_eq!(status, 403);
            refused += 1;
        }
    }
    assert_eq!(upload(client, LICENSE).await.unwrap(), 400, "no JSON, of a licence");
    driver.abort();
}
