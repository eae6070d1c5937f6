//! Webhooks: what the shop tells by itself acts on the next request, and nobody else can tell it.

use std::{
    fs,
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    licenses::known::hmac,
    licenses::verdicts::start,
    support::{
        Answer, Config, Gateway, Mock, Reply, Says, Shop, eventually, run,
        shop::{BOUGHT, GUMROAD, ORDER, gumroad_key, license_key},
        yaml::write_private,
    },
};

pub const SECRET: &str = "gatekeeper-test-secret";
/// Part of Gumroad's address; must stand in no log.
pub const PING_SECRET: &str = "pingCanaryQ3secret-0123456789";
const WEBHOOK: &str = "/webhooks/lemonsqueezy";

/// The recorded webhook about [`BOUGHT`], which was disabled, and a ping about [`GUMROAD`].
pub const DISABLED: &[u8] =
    include_bytes!("../../fixtures/shops/lemonsqueezy_webhook_license_key_updated.json");
pub const PING: &str = include_str!("../../fixtures/shops/gumroad_ping.txt");
/// What Lemon Squeezy sent with it.
const SIGNATURE: &str = "e095b21df9a531126e143268c7608bccde7aa65116f777a5aae913db0376e85e";

fn with_webhooks(config: Config, shop: &Shop) -> Config {
    config
        .lemonsqueezy(shop)
        .gumroad(shop)
        .webhook_secret("lemonsqueezy", SECRET)
        .webhook_secret("gumroad", PING_SECRET)
}

/// A gateway that knows both licences.
async fn knowing() -> (Mock, Shop, Gateway) {
    let (mock, shop, gateway) = start(with_webhooks).await;
    shop.sells(BOUGHT, Says::license()).sells(GUMROAD, Says::membership());
    for key in [BOUGHT, GUMROAD] {
        gateway.app().chat_as(key).await.ok();
    }
    (mock, shop, gateway)
}

async fn send(gateway: &Gateway, body: impl Into<Vec<u8>>, signature: Option<&str>) -> Answer {
    let mut request = gateway
        .app()
        .request("POST", WEBHOOK)
        .header("content-type", "application/json")
        .header("x-event-name", "license_key_updated")
        .body(body.into());
    if let Some(signature) = signature {
        request = request.header("x-signature", signature);
    }
    Answer::of(request).await
}

/// Sends it as Lemon Squeezy would.
pub async fn send_signed(gateway: &Gateway, body: impl Into<Vec<u8>>) -> Answer {
    let body = body.into();
    let signature = hmac(SECRET.as_bytes(), &body);
    send(gateway, body, Some(&signature)).await
}

pub async fn ping(gateway: &Gateway, path: &str, body: &str) -> Answer {
    let request = gateway
        .app()
        .request("POST", path)
        .header("content-type", "application/x-www-form-urlencoded")
        .body(body.to_owned());
    Answer::of(request).await
}

/// The recorded webhook with these members changed.
fn changed(members: &[(&str, Value)]) -> Vec<u8> {
    let mut body: Value = serde_json::from_slice(DISABLED).unwrap();
    for (pointer, value) in members {
        *body.pointer_mut(pointer).unwrap() = value.clone();
    }
    body.to_string().into_bytes()
}

/// An event about an order or a subscription; such events name no key.
fn about_order(event: &str, kind: &str, id: &str, attributes: Value) -> Vec<u8> {
    let mut body = json!({
        "meta": { "event_name": event, "test_mode": false },
        "data": { "type": kind, "id": id, "attributes": attributes },
    });
    body["data"]["attributes"]["test_mode"] = json!(false);
    body.to_string().into_bytes()
}

fn refund(order: &str, store: u64) -> Vec<u8> {
    let attributes = json!({
        "store_id": store, "status": "refunded", "refunded": true,
        "refunded_at": "2026-11-24T02:00:00.000000Z", "user_email": "maren@example.com",
    });
    about_order("order_refunded", "orders", order, attributes)
}

#[tokio::test]
async fn a_licence_disabled_at_the_shop_is_refused_with_the_next_request() {
    let (_mock, shop, gateway) = knowing().await;
    shop.sells(BOUGHT, Says::refused("disabled"));
    // Without the webhook, what is known is good for a day.
    gateway.app().chat_as(BOUGHT).await.ok();
    assert_eq!(send(&gateway, DISABLED, Some(SIGNATURE)).await.status, 200);
    let told = Instant::now();
    gateway.app().chat_as(BOUGHT).await.is(403, "license_disabled");
    assert!(told.elapsed() < Duration::from_secs(1), "{:?}", told.elapsed());
    assert_eq!(shop.calls_for(BOUGHT).len(), 2);
    // Nobody else's business.
    gateway.app().chat_as(GUMROAD).await.ok();
    assert_eq!(shop.calls_for(GUMROAD).len(), 1);
}

/// The body alone decides nothing: it is a reason to ask.
#[tokio::test]
async fn a_webhook_only_makes_the_gateway_ask() {
    let (_mock, shop, gateway) = knowing().await;
    assert_eq!(send(&gateway, DISABLED, Some(SIGNATURE)).await.status, 200);
    gateway.app().chat_as(BOUGHT).await.ok();
    assert_eq!(shop.calls_for(BOUGHT).len(), 2);
}

#[tokio::test]
async fn a_forged_or_rewritten_webhook_changes_nothing() {
    let (_mock, shop, gateway) = knowing().await;
    shop.sells(BOUGHT, Says::refused("disabled"));
    let rewritten: Value = serde_json::from_slice(DISABLED).unwrap();
    let rewritten = serde_json::to_vec_pretty(&rewritten).unwrap();
    let with_line_end = [DISABLED, b"\n"].concat();
    let forged = hmac(b"gatekeeper-test-secreT", DISABLED);
    let empty_secret = hmac(b"", DISABLED);
    let cases: [(&str, &[u8], Option<&str>); 9] = [
        ("another secret", DISABLED, Some(&forged)),
        ("no secret", DISABLED, Some(&empty_secret)),
        ("another body", b"{}", Some(SIGNATURE)),
        ("written anew", &rewritten, Some(SIGNATURE)),
        ("one more byte", &with_line_end, Some(SIGNATURE)),
        ("none", DISABLED, None),
        ("empty", DISABLED, Some("")),
        ("cut off", DISABLED, Some(&SIGNATURE[..62])),
        ("no digits", DISABLED, Some("sha256=e095b21d")),
    ];
    for (what, body, signature) in cases {
        assert_eq!(send(&gateway, body, signature).await.status, 401, "{what}");
    }
    let doubled = gateway.app().request("POST", WEBHOOK).header("x-signature", &forged);
    let doubled = doubled.header("x-signature", SIGNATURE).body(DISABLED);
    assert_eq!(Answer::of(doubled).await.status, 401, "two signatures");
    gateway.app().chat_as(BOUGHT).await.ok();
    assert_eq!(shop.calls_for(BOUGHT).len(), 1);
}

#[tokio::test]
async fn a_webhook_of_more_than_256_kib_is_413() {
    let (_mock, shop, gateway) = knowing().await;
    let body_of = |size: usize| {
        let mut body: Value = serde_json::from_slice(DISABLED).unwrap();
        body["meta"]["custom_data"] = json!({ "padding": "" });
        let rest = body.to_string().len();
        body["meta"]["custom_data"]["padding"] = json!("a".repeat(size - rest));
        body.to_string().into_bytes()
    };
    assert_eq!(body_of(256 * 1024).len(), 256 * 1024);
    let answer = send_signed(&gateway, body_of(256 * 1024 + 1)).await;
    answer.is(413, "body_too_large");
    gateway.app().chat_as(BOUGHT).await.ok();
    assert_eq!(shop.calls_for(BOUGHT).len(), 1);
    assert_eq!(send_signed(&gateway, body_of(256 * 1024)).await.status, 200);
}

#[tokio::test]
async fn a_short_secret_stops_the_start() {
    let (mock, shop) = (Mock::start(Reply::chat()).await, Shop::open().await);
    for kind in ["lemonsqueezy", "gumroad"] {
        for (secret, fine) in [("123456789012345", false), ("1234567890123456", true)] {
            let dir = Arc::new(TempDir::new().unwrap());
            let file = dir.path().join("secret");
            write_private(&file, secret);
            let secret = format!("\"file:{}\"", file.display());
            let config = Config::new(&mock).lemonsqueezy(&shop).gumroad(&shop);
            let config = config.of_shop(kind, "webhook_secret", &secret);
            let yaml = config.file(dir.path());
            let output = run(&["check", "-c", yaml.to_str().unwrap()], dir.path());
            let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
            assert_eq!(output.status.success(), fine, "{said}");
            if fine {
                continue;
            }
            let text = fs::read_to_string(&yaml).unwrap();
            let line = 1 + text.lines().position(|line| line.contains("webhook_secret")).unwrap();
            let problem = said.lines().find(|problem| problem.contains("webhook_secret"));
            let problem = problem.unwrap_or_else(|| panic!("nothing about it in {said}"));
            assert!(problem.contains(&format!(":{line}:")), "no line {line}: {problem}");
            assert!(!said.contains("123456789012345"), "{said}");
            let mut gateway = Gateway::spawn(dir, config);
            assert!(!gateway.exited(Duration::from_secs(10)).await.success());
        }
    }
}

#[tokio::test]
async fn a_restart_forgets_no_last_webhook() {
    let (_mock, _shop, mut gateway) = knowing().await;
    let told = async |gateway: &Gateway, taken: usize| {
        // It is answered before it is noted.
        eventually("it is noted", Duration::from_secs(5), async || {
            gateway.logs().matches("Webhook accepted. shop=lemonsqueezy").count() == taken
        })
        .await;
        let status = gateway.status().await;
        let sources = status["sources"].as_array().unwrap();
        ["lemonsqueezy", "gumroad"]
            .map(|name| sources.iter().find(|one| one["name"] == name).unwrap().clone())
    };
    assert_eq!(send(&gateway, DISABLED, Some("00")).await.status, 401);
    send_signed(&gateway, DISABLED).await.ok();
    let [before, _] = told(&gateway, 1).await;
    assert!(before["webhook"]["taken"].is_string() && before["webhook"]["refused"].is_string());
    gateway.signal(Signal::TERM);
    assert!(gateway.exited(Duration::from_secs(10)).await.success());
    gateway.restart().await;
    let [after, never] = told(&gateway, 1).await;
    assert_eq!(after["webhook"], before["webhook"]);
    assert_eq!(after["last_event"], before["webhook"]["taken"]);
    assert!(never["webhook"]["taken"].is_null(), "{never}");
    // A process that hands over leaves them to its successor.
    send_signed(&gateway, DISABLED).await.ok();
    let [before, _] = told(&gateway, 2).await;
    let _before = gateway.hand_over().await;
    let [after, _] = told(&gateway, 2).await;
    assert_eq!(after["webhook"], before["webhook"]);
}

/// An empty secret would be one that everybody knows.
#[tokio::test]
async fn without_a_secret_no_webhook_is_taken() {
    let (_mock, shop, gateway) =
        start(|config, shop| config.lemonsqueezy(shop).gumroad(shop)).await;
    shop.sells(BOUGHT, Says::license()).sells(GUMROAD, Says::sale());
    for key in [BOUGHT, GUMROAD] {
        gateway.app().chat_as(key).await.ok();
    }
    for secret in ["", SECRET] {
        let signature = hmac(secret.as_bytes(), DISABLED);
        let status = send(&gateway, DISABLED, Some(&signature)).await.status;
        assert!([401, 404].contains(&status), "{status}");
    }
    for path in ["/webhooks/gumroad/", "/webhooks/gumroad", "/webhooks/gumroad/*"] {
        assert_eq!(ping(&gateway, path, PING).await.status, 404, "{path}");
    }
    for key in [BOUGHT, GUMROAD] {
        gateway.app().chat_as(key).await.ok();
        assert_eq!(shop.calls_for(key).len(), 1);
    }
}

#[tokio::test]
async fn a_webhook_sent_again_and_again_is_one_more_call() {
    let (_mock, shop, gateway) = knowing().await;
    for _ in 0..100 {
        assert_eq!(send(&gateway, DISABLED, Some(SIGNATURE)).await.status, 200);
        gateway.app().chat_as(BOUGHT).await.ok();
    }
    assert_eq!(shop.calls_for(BOUGHT).len(), 2);
}

#[tokio::test]
async fn when_the_shop_cannot_answer_what_is_known_still_serves() {
    let (_mock, shop, gateway) = knowing().await;
    shop.sells(BOUGHT, Says::refused("disabled"));
    shop.close().await;
    assert_eq!(send(&gateway, DISABLED, Some(SIGNATURE)).await.status, 200);
    for _ in 0..3 {
        gateway.app().chat_as(BOUGHT).await.ok();
    }
}

#[tokio::test]
async fn another_store_or_a_test_changes_nothing() {
    let (_mock, shop, gateway) = knowing().await;
    let others = [
        changed(&[("/data/attributes/store_id", json!(58_214))]),
        changed(&[("/meta/test_mode", json!(true))]),
        changed(&[("/data/attributes/test_mode", json!(true))]),
        changed(&[
            ("/data/attributes/key", json!(license_key(1))),
            ("/data/attributes/order_id", json!(1)),
        ]),
        refund(ORDER, 58_214),
        refund("6120948", 58_213),
    ];
    for body in others {
        let what = String::from_utf8_lossy(&body).into_owned();
        assert_eq!(send_signed(&gateway, body).await.status, 200, "{what}");
        gateway.app().chat_as(BOUGHT).await.ok();
        assert_eq!(shop.calls_for(BOUGHT).len(), 1, "{what}");
    }
    assert!(shop.calls_for(&license_key(1)).is_empty(), "a webhook makes no licence known");
}

#[tokio::test]
async fn a_refunded_order_ends_its_licence() {
    let (_mock, shop, mut gateway) = knowing().await;
    let key = license_key(1);
    shop.sells(&key, Says::license().with("/meta/order_id", json!(6_120_948)));
    gateway.app().chat_as(&key).await.ok();
    // The shop goes on calling the licence valid.
    assert_eq!(send_signed(&gateway, refund(ORDER, 58_213)).await.status, 200);
    gateway.app().chat_as(BOUGHT).await.is(403, "license_refunded");
    gateway.app().chat_as(&key).await.ok();
    gateway.app().chat_as(BOUGHT).await.is(403, "license_refunded");
    gateway.restart().await;
    gateway.app().chat_as(BOUGHT).await.is(403, "license_refunded");
    gateway.app().chat_as(&key).await.ok();
}

#[tokio::test]
async fn a_subscription_that_ends_is_found_by_its_order() {
    let (_mock, shop, gateway) = knowing().await;
    shop.sells(BOUGHT, Says::refused("expired"));
    let attributes = json!({ "store_id": 58_213, "order_id": 6_120_947, "status": "expired" });
    let body = about_order("subscription_expired", "subscriptions", "415907", attributes);
    assert_eq!(send_signed(&gateway, body).await.status, 200);
    gateway.app().chat_as(BOUGHT).await.is(403, "license_expired");
}

#[tokio::test]
async fn a_ping_of_gumroad_makes_the_gateway_ask_about_a_known_licence() {
    let (_mock, shop, gateway) = knowing().await;
    let right = format!("/webhooks/gumroad/{PING_SECRET}");
    shop.sells(GUMROAD, Says::membership().with("/purchase/refunded", json!(true)));
    for wrong in [
        "/webhooks/gumroad/wrong".to_owned(),
        right[..right.len() - 1].to_owned(),
        format!("{right}0"),
        right.to_uppercase().replace("/WEBHOOKS/GUMROAD/", "/webhooks/gumroad/"),
    ] {
        assert_eq!(ping(&gateway, &wrong, PING).await.status, 401, "{wrong}");
    }
    assert_eq!(ping(&gateway, &format!("{right}/"), PING).await.status, 404);
    gateway.app().chat_as(GUMROAD).await.ok();
    assert_eq!(shop.calls_for(GUMROAD).len(), 1);
    // Who is not known yet, is not asked about.
    let stranger = PING.replace(GUMROAD, &gumroad_key(1));
    assert_eq!(ping(&gateway, &right, &stranger).await.status, 200);
    assert_eq!(ping(&gateway, &right, PING).await.status, 200);
    gateway.app().chat_as(GUMROAD).await.is(403, "license_refunded");
    assert_eq!(shop.calls_for(GUMROAD).len(), 2);
    assert!(shop.calls_for(&gumroad_key(1)).is_empty());
}

#[tokio::test]
async fn a_hundred_pings_are_one_more_call() {
    let (_mock, shop, gateway) = knowing().await;
    for _ in 0..100 {
        let path = format!("/webhooks/gumroad/{PING_SECRET}");
        assert_eq!(ping(&gateway, &path, PING).await.status, 200);
        gateway.app().chat_as(GUMROAD).await.ok();
    }
    assert_eq!(shop.calls_for(GUMROAD).len(), 2);
}

#[tokio::test]
async fn the_secret_of_the_pings_stands_nowhere() {
    let (_mock, _shop, gateway) = start(|config, shop| {
        with_webhooks(config, shop)
            .env("RUST_LOG", "trace")
            .more("log: { access: stdout, level: trace }")
    })
    .await;
    let right = format!("/webhooks/gumroad/{PING_SECRET}");
    assert_eq!(ping(&gateway, &right, PING).await.status, 200);
    assert_eq!(ping(&gateway, &format!("{right}0"), PING).await.status, 401);
    assert!(ping(&gateway, &format!("{right}?a=b"), "not%a&form").await.status < 500);
    eventually("the webhooks are logged", Duration::from_secs(5), || async {
        gateway.logs().contains("gumroad")
    })
    .await;
    let status = gateway.status().await.to_string();
    for (what, text) in
        [("logs", gateway.logs()), ("metrics", gateway.metrics().await.0), ("status", status)]
    {
        assert!(!text.contains("pingCanaryQ3"), "the secret stands in the {what}");
    }
    let output = run(&["explain", "-c", "gatekeeper.yaml"], gateway.dir.path());
    let said = [output.stdout, output.stderr].concat();
    assert!(!String::from_utf8_lossy(&said).contains("pingCanaryQ3"));
}

#[tokio::test]
async fn webhooks_are_posts() {
    let (_mock, _shop, gateway) = start(with_webhooks).await;
    for method in ["GET", "PUT", "DELETE", "OPTIONS"] {
        Answer::of(gateway.app().request(method, WEBHOOK)).await.is(405, "method_not_allowed");
    }
}

/// Lemon Squeezy's licence answers don't tell a refund, so one that comes first is remembered.
#[tokio::test]
async fn a_refund_before_the_first_use_is_remembered() {
    let (_mock, shop, mut gateway) = knowing().await;
    let key = license_key(1);
    shop.sells(&key, Says::license().with("/meta/order_id", json!(6_120_948)));
    assert_eq!(send_signed(&gateway, refund("6120948", 58_213)).await.status, 200);
    gateway.restart().await;
    gateway.app().chat_as(&key).await.is(403, "license_refunded");
    gateway.app().chat_as(BOUGHT).await.ok();
}
