//! What has no valid licence takes no buyer's place.

use std::time::{Duration, Instant};

use crate::support::{
    Config, Gateway, LICENSE, Mock, Raw, Reply, Shop, Wire,
    client::{RawAnswer, post_head},
    eventually,
    memory_group::MemoryGroup,
};

const WEBHOOK: &str = "/webhooks/lemonsqueezy";
const SECRET: &str = "gatekeeper-test-secret";
/// What a small container has, and how many connect to it and say nothing.
const GROUP: u64 = 256 << 20;
const SILENT: usize = 600;
/// Of the right shape, and of nothing.
const SIGNATURE: &str = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

async fn start(server: &str) -> (Mock, Shop, Gateway) {
    let (mock, shop) = (Mock::start(Reply::chat()).await, Shop::open().await);
    let gateway = Gateway::start(config(&mock, &shop, server)).await;
    (mock, shop, gateway)
}

fn config(mock: &Mock, shop: &Shop, server: &str) -> Config {
    Config::new(mock)
        .lemonsqueezy(shop)
        .gumroad(shop)
        .webhook_secret("lemonsqueezy", SECRET)
        .webhook_secret("gumroad", "pingCanaryQ3secret-0123456789")
        .server(&format!("grace: 5s{server}"))
}

fn head(path: &str, more: &str, length: usize) -> String {
    format!("POST {path} HTTP/1.1\r\nhost: a\r\n{more}content-length: {length}\r\n\r\n")
}

fn signed() -> String {
    format!("x-signature: {SIGNATURE}\r\n")
}

/// What is answered to a request of which only the head and a byte come, and how soon.
async fn answered(gateway: &Gateway, head: &str) -> (RawAnswer, Duration) {
    let mut raw = gateway.raw().await;
    raw.send(format!("{head}{{")).await;
    let began = Instant::now();
    let answer = raw.answer().await.expect("an answer");
    (answer, began.elapsed())
}

#[tokio::test]
async fn a_webhook_is_decided_before_its_body() {
    let (_mock, _shop, gateway) = start("").await;
    for (what, path, more, status) in [
        ("no signature", WEBHOOK, String::new(), 401),
        ("an odd signature", WEBHOOK, "x-signature: sha256=00\r\n".into(), 401),
        ("a short signature", WEBHOOK, format!("x-signature: {}\r\n", &SIGNATURE[2..]), 401),
        ("a wrong secret", "/webhooks/gumroad/wrong", String::new(), 401),
    ] {
        let (answer, took) = answered(&gateway, &head(path, &more, 60_000)).await;
        assert_eq!(answer.status, status, "{what}");
        assert!(took < Duration::from_millis(500), "{what}: after {took:?}");
    }
    let mock = Mock::start(Reply::chat()).await;
    let without = Gateway::start(Config::new(&mock)).await;
    for path in [WEBHOOK, "/webhooks/gumroad/any"] {
        let (answer, took) = answered(&without, &head(path, &signed(), 60_000)).await;
        assert_eq!(answer.status, 404, "no source takes webhooks");
        assert!(took < Duration::from_millis(500), "after {took:?}");
    }
}

#[tokio::test]
async fn a_webhook_has_little_time_and_few_places() {
    let (_mock, _shop, gateway) = start("").await;
    let head = head(WEBHOOK, &signed(), 200_000);
    let mut slow = Vec::new();
    for _ in 0..2 {
        let mut raw = gateway.raw().await;
        raw.send(format!("{head}{{")).await;
        slow.push(raw);
    }
    let began = Instant::now();
    eventually("both are read", Duration::from_secs(2), || async {
        gateway.status_now().await["in_flight"] == 2
    })
    .await;
    let (answer, _) = answered(&gateway, &head).await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (429, "rate_limited"),
        "two of one address"
    );
    assert_eq!(answer.header("retry-after"), Some("1"));
    for mut raw in slow {
        let answer = raw.answer().await.expect("an answer");
        assert_eq!((answer.status, answer.code().as_str()), (400, "invalid_request"));
    }
    let took = began.elapsed();
    assert!(took < Duration::from_secs(3), "16 KiB a second, but for the first: {took:?}");
    let (answer, _) = answered(&gateway, &head).await;
    assert_ne!(answer.status, 429, "there is room again");
}

/// One after the other, and all at once: who has no licence fills no limit of those who have.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn open_requests_of_strangers_do_not_count() {
    let (mock, _shop, gateway) =
        start(", limits: { requests: 3, buffered: 2MiB, body: 1MiB }").await;
    let wrong = post_head("/chat").replace(LICENSE, "WRONG-KEY-0001");
    let nowhere = post_head("/nowhere");
    let mut open = Vec::new();
    for _ in 0..20 {
        for head in [
            head(WEBHOOK, &signed(), 60_000),
            head(WEBHOOK, "", 60_000),
            head("/webhooks/gumroad/x", "", 60_000),
            format!("{wrong}content-length: 60000\r\n\r\n"),
            format!("{nowhere}content-length: 60000\r\n\r\n"),
        ] {
            let mut raw = gateway.raw().await;
            raw.send(format!("{head}{}", "a".repeat(50_000))).await;
            open.push(raw);
        }
        gateway.app().chat().await.ok();
    }
    assert_eq!(mock.count(), 20);
    let metrics = gateway.metrics().await;
    assert_eq!(metrics.sum("gatekeeper_requests_total", &[("status", "503")]), 0.0);
}

/// The answer first; then what is on its way is taken in for half a second.
async fn a_refusal_does_not_wait_for_the_body(wire: Wire) {
    let mock = Mock::start(Reply::chat()).await;
    let gateway = Gateway::start(Config::new(&mock).over(wire)).await;
    let wrong = post_head("/chat").replace(LICENSE, "WRONG-KEY-0001");
    let get = format!("GET /v1/me HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {LICENSE}\r\n");
    for (what, head, status) in [
        ("a wrong key", &wrong, 403),
        ("no such path", &post_head("/nowhere"), 404),
        ("no such method", &get.replace("GET", "PUT"), 405),
        ("too large", &post_head("/chat"), 413),
    ] {
        let length = if status == 413 { 11 << 20 } else { 60_000 };
        let mut raw = gateway.raw().await;
        raw.send(format!("{head}content-length: {length}\r\n\r\n{{")).await;
        let began = Instant::now();
        let answer = raw.answer().await.expect("an answer");
        let took = began.elapsed();
        assert_eq!((answer.status, answer.header("connection")), (status, Some("close")), "{what}");
        assert!(took < Duration::from_millis(300), "{what}: after {took:?}");
        assert!(raw.rest(Duration::from_secs(2)).await.is_some(), "{what}: it stays open");
        let lingered = began.elapsed();
        assert!(lingered > Duration::from_millis(300), "{what}: cut off after {lingered:?}");
    }
    assert_eq!(mock.count(), 0);
}

over_http1! { a_refusal_does_not_wait_for_the_body }

/// Many streams of one connection without a byte of a body.
#[tokio::test]
async fn streams_of_strangers_do_not_count() {
    let (mock, shop) = (Mock::start(Reply::chat()).await, Shop::open().await);
    let config = Config::new(&mock)
        .lemonsqueezy(&shop)
        .webhook_secret("lemonsqueezy", SECRET)
        .over(Wire::H2)
        .server("grace: 5s, limits: { requests: 3 }");
    let gateway = Gateway::start(config).await;
    let raw = Raw::to(gateway.public).await.unwrap().shake(b"h2").await.unwrap();
    let (client, connection) = ::h2::client::handshake(raw.into_stream()).await.unwrap();
    let driver = tokio::spawn(connection);
    let mut open = Vec::new();
    for _ in 0..60 {
        let mut client: ::h2::client::SendRequest<bytes::Bytes> =
            client.clone().ready().await.unwrap();
        let request = http::Request::post(format!("https://localhost{WEBHOOK}"))
            .header("x-signature", SIGNATURE)
            .header("content-length", "60000")
            .body(())
            .unwrap();
        open.push(client.send_request(request, false).unwrap());
    }
    for _ in 0..5 {
        gateway.app().chat().await.ok();
    }
    assert_eq!(gateway.messages(LICENSE).await, 5);
    drop(open);
    driver.abort();
}

/// Strangers of every kind at once: heads that are not whole, webhooks, and uploads with a wrong key.
async fn crowd(gateway: &Gateway) -> Vec<Raw> {
    let partial = format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}", "a".repeat(60_000));
    let webhook = format!("{}{}", head(WEBHOOK, &signed(), 250_000), "a".repeat(65_000));
    let wrong = post_head("/chat").replace(LICENSE, "WRONG-KEY-0001");
    let wrong = format!("{wrong}content-length: 10000000\r\n\r\n{}", "a".repeat(65_000));
    let mut open = Vec::new();
    let count: usize =
        std::env::var("GATEKEEPER_STRANGERS").map_or(400, |text| text.parse().unwrap());
    for _ in 0..count {
        for bytes in [&partial, &webhook, &wrong] {
            if let Ok(mut raw) = Raw::to(gateway.public).await {
                // The other side may have answered and closed by now.
                let _ = tokio::time::timeout(Duration::from_millis(50), raw.send(bytes)).await;
                open.push(raw);
            }
        }
    }
    open
}

/// What the process takes has a bound.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_alone_take_little_memory() {
    let (_mock, _shop, gateway) = start("").await;
    let before = gateway.memory("VmRSS");
    let open = crowd(&gateway).await;
    gateway.app().chat().await.ok();
    let most = gateway.memory("VmHWM") / 1024;
    println!("{} strangers: {most} MiB at most, {} before", open.len(), before / 1024);
    assert!(most < 300, "{most} MiB");
}

/// A small container: the kernel ends the process above its limit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_alone_have_no_process_ended_for_want_of_memory() {
    let Some(group) = MemoryGroup::make(GROUP) else { return };
    let (mock, shop) = (Mock::start(Reply::chat()).await, Shop::open().await);
    let words = group.starts();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let gateway = Gateway::start(config(&mock, &shop, "").under(&words)).await;
    let mut silent = Vec::new();
    for _ in 0..SILENT {
        silent.extend(Raw::to(gateway.public).await.ok());
    }
    let open = crowd(&gateway).await;
    gateway.app().chat().await.ok();
    let most = gateway.memory("VmHWM") / 1024;
    println!(
        "{} strangers and {} silent ones in a group of {} MiB: {most} MiB at most",
        open.len(),
        silent.len(),
        GROUP >> 20
    );
    assert_eq!(group.kills(), 0, "the kernel ended it");
}
