//! What reaches the provider: nothing of the app's but the body, whatever the app tries.

use std::collections::BTreeSet;

use futures_util::StreamExt as _;
use serde_json::json;

use crate::support::{
    Config, Gateway, LICENSE, Mock, Noise, Reply, Seen,
    client::{self, post_head},
    contains,
};

const CANARY: &str = "canary-header-value";

/// All that may ever be sent upstream.
const ALLOWED: [&str; 8] = [
    "host",
    "authorization",
    "content-type",
    "content-length",
    "accept",
    "accept-encoding",
    "user-agent",
    "connection",
];

async fn start() -> (Mock, Gateway) {
    let mock = Mock::start(Reply::chat()).await;
    let gateway = Gateway::start(Config::new(&mock).keys("p", &["sk-ours"])).await;
    (mock, gateway)
}

/// Sends a chat question with these header lines on top; tells the status, 0 if there was none.
async fn ask(gateway: &Gateway, lines: &str) -> u16 {
    let body = client::chat(&json!({})).to_string();
    let head = post_head("/v1/chat/completions");
    let mut raw = gateway.raw().await;
    raw.send(format!("{head}{lines}content-length: {}\r\n\r\n{body}", body.len())).await;
    raw.answer().await.map_or(0, |answer| answer.status)
}

fn is_clean(seen: &Seen, mock: &Mock) {
    let head = String::from_utf8_lossy(&seen.head).into_owned();
    assert_eq!(seen.path, "/v1/chat/completions", "{head}");
    for name in seen.header_names() {
        assert!(ALLOWED.contains(&name), "{name} in {head}");
    }
    let names: BTreeSet<&str> = seen.header_names().into_iter().collect();
    assert_eq!(names.len(), seen.headers.len(), "a header twice: {head}");
    assert_eq!(seen.header("authorization"), Some("Bearer sk-ours"), "{head}");
    assert_eq!(seen.header("host"), Some(mock.addr.to_string().as_str()), "{head}");
    assert_eq!(seen.header("content-type"), Some("application/json"), "{head}");
    assert_eq!(seen.header("accept-encoding").unwrap_or("identity"), "identity", "{head}");
    for secret in [LICENSE, CANARY] {
        assert!(!contains(&seen.head, secret), "{secret} in {head}");
        assert!(!contains(&seen.body, secret), "{secret} in a body");
    }
}

/// Header lines an attacker would try.
fn hostile_sets() -> Vec<String> {
    let names = [
        "api-key",
        "X-Api-Key-2",
        "x-goog-user-project",
        "openai-organization",
        "OpenAI-Project",
        "openai-beta",
        "anthropic-version",
        "anthropic-beta",
        "cookie",
        "Cookie2",
        "forwarded",
        "x-forwarded-for",
        "X-Forwarded-Host",
        "x-forwarded-proto",
        "x-forwarded-authorization",
        "x-real-ip",
        "via",
        "proxy-authorization",
        "proxy-connection",
        "x_api_key",
        "Authorization_",
        "x-http-method-override",
        "x-method-override",
        "x-original-url",
        "x-rewrite-url",
        "referer",
        "origin",
        "user-agent",
        "accept",
        "accept-encoding",
        "accept-language",
        "te",
        "trailer",
        "keep-alive",
        "x-stainless-lang",
        "x-stainless-retry-count",
        "x-request-id",
        "x-client-request-id",
        "traceparent",
        "tracestate",
        "baggage",
        "idempotency-key",
        "if-none-match",
        "if-modified-since",
        "range",
        "cache-control",
        "pragma",
        "x-message-id-2",
        "x-instance-id",
        "x-conversation-id",
        "x-gatekeeper-tier",
        "x-gatekeeper-model",
        "x-quota-messages-remaining",
        "from",
        "max-forwards",
        "priority",
        "sec-fetch-site",
        "cf-connecting-ip",
        "true-client-ip",
        "x-amz-security-token",
        "x-openai-client-user-agent",
        "http2-settings",
        "content-language",
        "content-disposition",
        "content-md5",
        "x-envoy-original-path",
        "x-sendfile",
        "early-data",
    ];
    let cases: [fn(&str) -> String; 3] =
        [|name| name.to_lowercase(), |name| name.to_uppercase(), |name| name.to_owned()];
    let mut noise = Noise::new(3);
    (0..200)
        .map(|round| {
            (0..1 + noise.below(12))
                .map(|place| {
                    let name = noise.pick(&cases)(
                        names
                            [(round * 7 + noise.below(60) as usize + place as usize) % names.len()],
                    );
                    match noise.below(4) {
                        0 => format!("{name}: {LICENSE}\r\n"),
                        1 => format!("{name}: Bearer {LICENSE}\r\n"),
                        _ => format!("{name}: {CANARY}-{}\r\n", noise.below(1000)),
                    }
                })
                .collect()
        })
        .collect()
}

#[tokio::test]
async fn hostile_headers_leave_no_trace() {
    let (mock, gateway) = start().await;
    let mut served = 0;
    for lines in hostile_sets() {
        let status = ask(&gateway, &lines).await;
        // A header that looks like a second credential is one.
        assert!([200, 400, 401].contains(&status), "{status} for\n{lines}");
        served += usize::from(status == 200);
    }
    assert_eq!(mock.count(), served);
    assert!(served >= 130, "only {served} of 200 were served");
    for seen in mock.seen() {
        is_clean(&seen, &mock);
    }
    let agents: BTreeSet<Option<String>> =
        mock.seen().iter().map(|seen| seen.header("user-agent").map(str::to_owned)).collect();
    assert_eq!(agents.len(), 1, "the app's user agent shows: {agents:?}");
}

#[tokio::test]
async fn connection_may_name_any_header_and_nothing_changes() {
    let (mock, gateway) = start().await;
    assert_eq!(ask(&gateway, "").await, 200);
    let usual = mock.only();
    is_clean(&usual, &mock);
    let nominated = [
        "authorization",
        "Authorization",
        "x-api-key",
        "host",
        "Host",
        "content-length",
        "content-type",
        "accept",
        "accept-encoding",
        "user-agent",
        "transfer-encoding",
        "cookie",
        "api-key",
        "x-goog-api-key",
        "openai-organization",
        "x-forwarded-for",
        "te",
        "trailer",
        "expect",
        "connection",
        "proxy-authorization",
        "x-request-id",
        "keep-alive, authorization",
        "close, authorization",
        "authorization, authorization",
        "authorization\r\nconnection: host",
        ",authorization",
        " authorization ,",
        "\"authorization\"",
    ];
    for name in nominated {
        mock.forget();
        let status = ask(&gateway, &format!("connection: {name}\r\n")).await;
        assert_eq!(status, 200, "connection: {name}");
        let seen = mock.only();
        is_clean(&seen, &mock);
        assert_eq!(seen.headers, usual.headers, "connection: {name}");
        assert_eq!(seen.body, usual.body, "connection: {name}");
    }
}

#[tokio::test]
async fn mutated_paths_with_hostile_headers_carry_nothing() {
    let (mock, gateway) = start().await;
    let paths = crate::proxy::gate::mutations();
    let sets = hostile_sets();
    assert!(paths.len() >= 400);
    let body = client::chat(&json!({})).to_string();
    let all = paths.iter().enumerate().flat_map(|(round, path)| {
        [
            (round, path.clone()),
            (round, format!("/v1/chat/completions?next={path}")),
            (round, format!("/chat?key={LICENSE}&{round}")),
        ]
    });
    let send = async |(round, path): (usize, String)| {
        let (lines, head) = (&sets[round % sets.len()], post_head(&path));
        let mut raw = gateway.raw().await;
        let length = body.len();
        raw.send(format!(
            "{head}{lines}connection: close\r\ncontent-length: {length}\r\n\r\n{body}"
        ))
        .await;
        raw.rest(std::time::Duration::from_secs(10)).await.expect("an end");
    };
    // What is malformed is answered at once, and its connection lingers for half a second.
    futures_util::stream::iter(all).for_each_concurrent(64, send).await;
    for seen in mock.seen() {
        is_clean(&seen, &mock);
    }
}

#[tokio::test]
async fn trailers_do_not_travel() {
    let (mock, gateway) = start().await;
    let body = client::chat(&json!({})).to_string();
    let head = post_head("/v1/chat/completions");
    let mut raw = gateway.raw().await;
    raw.send(format!(
        "{head}trailer: authorization\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\nauthorization: Bearer {CANARY}\r\nx-api-key: {CANARY}\r\n\r\n",
        body.len()
    ))
    .await;
    let status = raw.answer().await.map_or(0, |answer| answer.status);
    assert!([200, 400].contains(&status), "{status}");
    for seen in mock.seen() {
        is_clean(&seen, &mock);
    }
}

/// What a provider finds wrong with one buyer's prompts, it can say of that buyer alone.
#[tokio::test]
async fn each_request_names_its_licence_to_the_provider_and_nobody_else() {
    let mock = Mock::start(Reply::chat()).await;
    let other = Mock::start(Reply::chat()).await;
    let config = Config::new(&mock)
        .license("JSTAR-TEST-0002", "free")
        .provider_at("q", &other.url(), ", identify: off", &["sk-three"])
        .model("silent", "[q/m1]");
    let gateway = Gateway::start(config).await;
    let app = gateway.app();
    app.chat().await.ok();
    app.ask(&client::chat(&json!({ "user": "me@example.com" }))).await.ok();
    app.chat_as("JSTAR-TEST-0002").await.ok();
    let users: Vec<String> =
        mock.seen().iter().map(|seen| seen.json()["user"].as_str().unwrap().to_owned()).collect();
    assert_eq!(users[0].len(), 32);
    assert_eq!(users[0], users[1], "the app's own word for its user stays here");
    assert_ne!(users[0], users[2]);
    app.ask(&client::chat(&json!({ "model": "silent", "user": "me@example.com" }))).await.ok();
    let sent = other.only().json();
    assert_eq!(sent["user"].as_str().unwrap().len(), 32, "never the app's own word: {sent}");
    app.ask(&client::chat(&json!({ "model": "silent" }))).await.ok();
    let sent = other.last().json();
    assert!(sent.get("user").is_none() && sent.get("safety_identifier").is_none(), "{sent}");
}
