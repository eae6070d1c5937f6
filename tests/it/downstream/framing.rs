//! Ambiguous framing is refused, and what followed it on the connection is never read as a request.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{
    Config, Gateway, LICENSE, Mock, Reply, Wire,
    client::{self, count_answers, post_head},
    contains, eventually,
};

/// What an attacker hides in a body: answered, it would show as a second answer.
const HIDDEN: &str = "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n";

async fn start(wire: Wire) -> (Mock, Gateway) {
    let mock = Mock::start(Reply::chat()).await;
    let config = Config::new(&mock).over(wire).server("limits: { header_timeout: 1s }, grace: 5s");
    let gateway = Gateway::start(config).await;
    (mock, gateway)
}

fn chunked(body: &str) -> String {
    format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len())
}

/// (what it is, the request)
fn malformed() -> Vec<(&'static str, Vec<u8>)> {
    let body = client::chat(&json!({})).to_string();
    let (length, chunks) = (body.len(), chunked(&body));
    let post = post_head("/v1/chat/completions");
    let with = |more: &str, rest: &str| format!("{post}{more}\r\n{rest}").into_bytes();
    let edited = |from: &str, to: &str| {
        let whole = format!("{post}content-length: {length}\r\n\r\n{body}");
        assert!(whole.contains(from));
        whole.replacen(from, to, 1).into_bytes()
    };
    let te = "transfer-encoding: chunked\r\n";
    let cl = format!("content-length: {length}\r\n");
    vec![
        ("length and chunks", with(&format!("{cl}{te}"), &chunks)),
        ("chunks and length", with(&format!("{te}{cl}"), &chunks)),
        ("length 0 and chunks", with(&format!("content-length: 0\r\n{te}"), &chunks)),
        ("two lengths", with(&format!("{cl}content-length: 5\r\n"), &body)),
        ("two lengths alike", with(&format!("{cl}{cl}"), &body)),
        ("a list of lengths", with(&format!("content-length: {length}, {length}\r\n"), &body)),
        ("a length with a sign", with(&format!("content-length: +{length}\r\n"), &body)),
        ("a negative length", with("content-length: -1\r\n", &body)),
        ("a length in hex", with("content-length: 0x10\r\n", &body)),
        ("a length too long", with("content-length: 99999999999999999999999\r\n", &body)),
        ("an empty length", with("content-length:\r\n", &body)),
        ("chunked twice", with("transfer-encoding: chunked, chunked\r\n", &chunks)),
        ("two encodings", with("transfer-encoding: gzip, chunked\r\n", &chunks)),
        ("identity, chunked", with("transfer-encoding: identity, chunked\r\n", &chunks)),
        ("two encoding lines", with(&format!("{te}{te}"), &chunks)),
        ("two encoding lines, one odd", with(&format!("transfer-encoding: x\r\n{te}"), &chunks)),
        ("an unknown encoding", with("transfer-encoding: xchunked\r\n", &chunks)),
        ("chunked not last", with("transfer-encoding: chunked, identity\r\n", &chunks)),
        ("a folded encoding", with("transfer-encoding:\r\n chunked\r\n", &chunks)),
        ("a quoted encoding", with("transfer-encoding: \"chunked\"\r\n", &chunks)),
        ("HTTP/1.0 with a body", edited("HTTP/1.1", "HTTP/1.0")),
        ("HTTP/1.0 with chunks", {
            let whole = format!("{post}{te}\r\n{chunks}");
            whole.replacen("HTTP/1.1", "HTTP/1.0", 1).into_bytes()
        }),
        ("HTTP/1.2", edited("HTTP/1.1", "HTTP/1.2")),
        ("HTTP/2.0", edited("HTTP/1.1", "HTTP/2.0")),
        ("no version", edited(" HTTP/1.1", "")),
        ("an upgrade", with(&format!("connection: upgrade\r\nupgrade: websocket\r\n{cl}"), &body)),
        ("an upgrade to h2c", {
            let more = "connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAAP__\r\n";
            with(&format!("{more}{cl}"), &body)
        }),
        ("bare line feeds", {
            let whole = format!("{post}{cl}\r\n");
            format!("{}{body}", whole.replace("\r\n", "\n")).into_bytes()
        }),
        ("one bare line feed", edited("application/json\r\n", "application/json\n")),
        ("a line feed in a value", edited("application/json", "application/json\nx-a: b")),
        ("a bare carriage return", edited("application/json", "application/json\rx-a: b")),
        ("a NUL", edited("application/json", "application/\0json")),
        ("a space before the colon", edited("content-length:", "content-length :")),
        ("a folded header", edited("content-type: application", "content-type:\r\n application")),
        ("a header without a name", edited("content-type:", ":")),
        ("a header without a colon", edited("content-type: application/json", "content-type")),
        ("a space in front of a header", edited("content-type:", " content-type:")),
        ("two hosts", edited("host: gateway.test", "host: gateway.test\r\nhost: other.test")),
        ("no host", edited("host: gateway.test\r\n", "")),
        ("two spaces in the first line", edited("POST /v1", "POST  /v1")),
        ("a target with a space", edited("/completions", "/completions x")),
        (
            "too many headers",
            edited("content-type:", &format!("{}content-type:", "x-a: b\r\n".repeat(400))),
        ),
    ]
}

async fn malformed_requests_are_refused_and_end_the_connection(wire: Wire) {
    let (mock, gateway) = start(wire).await;
    for (what, mut request) in malformed() {
        let mut raw = gateway.raw().await;
        request.extend_from_slice(HIDDEN.as_bytes());
        raw.send(&request).await;
        let rest = raw.rest(Duration::from_secs(6)).await;
        let answer = rest.unwrap_or_else(|| panic!("{what}: the connection stays open"));
        let text = String::from_utf8_lossy(&answer).into_owned();
        // A target with something odd in it may also be one that does not exist.
        let refused = ["HTTP/1.1 400 ", "HTTP/1.1 404 "].iter().any(|line| text.starts_with(line));
        assert!(text.is_empty() || refused, "{what}: {text}");
        assert!(count_answers(&answer) <= 1, "{what}: {text}");
    }
    assert_eq!(mock.count(), 0);
    gateway.app().chat().await.ok();
}

/// Chunk framing that breaks after a good head.
fn broken_chunks() -> Vec<(&'static str, String)> {
    let body = client::chat(&json!({})).to_string();
    let size = body.len();
    vec![
        ("a size in words", format!("ten\r\n{body}\r\n0\r\n\r\n")),
        ("a size with 0x", format!("0x{size:x}\r\n{body}\r\n0\r\n\r\n")),
        ("a negative size", format!("-{size:x}\r\n{body}\r\n0\r\n\r\n")),
        ("an empty size", format!("\r\n{body}\r\n0\r\n\r\n")),
        ("a size beyond 64 bits", format!("fffffffffffffffff\r\n{body}\r\n0\r\n\r\n")),
        ("a chunk longer than said", format!("{:x}\r\n{body}\r\n0\r\n\r\n", size - 3)),
        ("line feeds only", format!("{size:x}\n{body}\n0\n\n")),
    ]
}

async fn broken_chunks_never_reach_the_provider(wire: Wire) {
    let (mock, gateway) = start(wire).await;
    for (what, chunks) in broken_chunks() {
        let mut raw = gateway.raw().await;
        let head = post_head("/v1/chat/completions");
        raw.send(format!("{head}transfer-encoding: chunked\r\n\r\n{chunks}{HIDDEN}")).await;
        let rest = raw.rest(Duration::from_secs(6)).await;
        let answer = rest.unwrap_or_else(|| panic!("{what}: the connection stays open"));
        let text = String::from_utf8_lossy(&answer).into_owned();
        assert!(text.is_empty() || text.starts_with("HTTP/1.1 400 "), "{what}: {text}");
        assert!(count_answers(&answer) <= 1, "{what}: {text}");
    }
    assert_eq!(mock.count(), 0);
}

async fn a_body_is_never_read_as_the_next_request(wire: Wire) {
    let (mock, gateway) = start(wire).await;
    let hidden = "DELETE /hidden HTTP/1.1\r\nhost: x\r\n\r\n";
    let length = hidden.len();
    let refused = [
        (
            "no credential",
            format!("POST /chat HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n{hidden}"),
        ),
        (
            "no such path",
            post_head("/nowhere") + &format!("content-length: {length}\r\n\r\n{hidden}"),
        ),
        (
            "no such method",
            post_head("/v1/me") + &format!("content-length: {length}\r\n\r\n{hidden}"),
        ),
        ("not JSON", post_head("/chat") + &format!("content-length: {length}\r\n\r\n{hidden}")),
        ("a GET with a body", {
            let head = post_head("/v1/me").replacen("POST", "GET", 1);
            head + &format!("content-length: {length}\r\n\r\n{hidden}")
        }),
        ("compressed", {
            let more =
                format!("content-encoding: gzip\r\ncontent-length: {length}\r\n\r\n{hidden}");
            post_head("/chat") + &more
        }),
    ];
    let next = format!(
        "GET /v1/me HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {LICENSE}\r\nconnection: close\r\n\r\n"
    );
    for (what, request) in refused {
        let mut raw = gateway.raw().await;
        raw.send(&request).await;
        let first = raw.answer().await.unwrap_or_else(|| panic!("{what}: no answer"));
        raw.send(&next).await;
        let rest =
            raw.rest(Duration::from_secs(6)).await.unwrap_or_else(|| panic!("{what}: no end"));
        assert!(count_answers(&rest) <= 1, "{what}");
        // Either the connection is over, or the next answer is the one to the next request.
        let fine =
            rest.is_empty() || (rest.starts_with(b"HTTP/1.1 200 ") && contains(&rest, "\"plan\""));
        assert!(fine, "{what}: {} then {}", first.status, String::from_utf8_lossy(&rest));
    }
    assert_eq!(mock.count(), 0);
}

async fn a_slow_header_is_cut_off(wire: Wire) {
    let (_mock, gateway) = start(wire).await;
    let began = Instant::now();
    let (mut read, mut write) = gateway.raw().await.into_halves();
    let dribble = async {
        use tokio::io::AsyncWriteExt;
        let head = format!("GET /healthz HTTP/1.1\r\nhost: x\r\nx-slow: {}", "a".repeat(100));
        for byte in head.as_bytes().chunks(1) {
            if write.write_all(byte).await.is_err() || write.flush().await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let closed = async {
        use tokio::io::AsyncReadExt;
        let mut all = Vec::new();
        let _ = read.read_to_end(&mut all).await;
        all
    };
    let answer = tokio::select! {
        answer = closed => answer,
        () = dribble => panic!("a header may take {:?}", began.elapsed()),
    };
    let took = began.elapsed();
    assert!(took < Duration::from_secs(3), "cut off after {took:?} only");
    assert!(took > Duration::from_millis(900), "cut off after {took:?} already");
    assert!(!answer.starts_with(b"HTTP/1.1 200"), "a slow header was served");
}

async fn a_client_may_wait_for_100(wire: Wire) {
    let (mock, gateway) = start(wire).await;
    let body = client::chat(&json!({})).to_string();
    let head = post_head("/v1/chat/completions");
    let mut raw = gateway.raw().await;
    raw.send(format!("{head}content-length: {}\r\nexpect: 100-continue\r\n\r\n", body.len())).await;
    assert_eq!(raw.answer().await.unwrap().status, 100);
    assert_eq!(mock.count(), 0);
    raw.send(&body).await;
    assert_eq!(raw.answer().await.unwrap().status, 200);
    assert_eq!(mock.only().header("expect"), None);

    let mut refused = gateway.raw().await;
    let head = head.replace(LICENSE, "WRONG-KEY-0001");
    refused.send(format!("{head}content-length: 10\r\nexpect: 100-continue\r\n\r\n")).await;
    assert_eq!(refused.answer().await.unwrap().status, 403);
}

async fn a_connection_serves_one_request_after_the_other(wire: Wire) {
    let (mock, gateway) = start(wire).await;
    let body = client::chat(&json!({})).to_string();
    let head = post_head("/v1/chat/completions");
    let mut raw = gateway.raw().await;
    for _ in 0..5 {
        raw.send(format!("{head}content-length: {}\r\n\r\n{body}", body.len())).await;
        assert_eq!(raw.answer().await.unwrap().status, 200);
    }
    // Chunks end their connection: the parser below is lax about where they end.
    raw.send(format!("{head}transfer-encoding: chunked\r\n\r\n{}", chunked(&body))).await;
    let last = raw.answer().await.unwrap();
    assert_eq!((last.status, last.header("connection")), (200, Some("close")));
    assert_eq!(raw.rest(Duration::from_secs(3)).await.as_deref(), Some(&b""[..]));
    assert_eq!(mock.count(), 6);
    drop(raw);
    eventually("all are done", Duration::from_secs(3), || async {
        gateway.status().await["in_flight"] == 0
    })
    .await;
}

over_http1! {
    malformed_requests_are_refused_and_end_the_connection,
    broken_chunks_never_reach_the_provider,
    a_body_is_never_read_as_the_next_request,
    a_slow_header_is_cut_off,
    a_client_may_wait_for_100,
    a_connection_serves_one_request_after_the_other,
}

#[tokio::test]
async fn http_1_0_without_a_body_is_served_and_closed() {
    let (_mock, gateway) = start(Wire::Plain).await;
    let mut raw = gateway.raw().await;
    raw.send("GET /healthz HTTP/1.0\r\nhost: x\r\n\r\n").await;
    let answer = raw.rest(Duration::from_secs(5)).await.expect("the connection ends");
    assert!(answer.starts_with(b"HTTP/1."), "{}", String::from_utf8_lossy(&answer));
    assert!(contains(&answer, " 200 "));
}

#[tokio::test]
async fn connect_and_the_h2_preface_are_refused_on_the_plain_wire() {
    let (mock, gateway) = start(Wire::Plain).await;
    for bytes in [
        "CONNECT api.openai.com:443 HTTP/1.1\r\nhost: api.openai.com:443\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        let mut raw = gateway.raw().await;
        raw.send(bytes).await;
        let answer = raw.rest(Duration::from_secs(6)).await.expect("the connection ends");
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"), "{bytes}");
    }
    assert_eq!(mock.count(), 0);
}
