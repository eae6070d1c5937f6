//! Of a buyer nothing is kept: no key, no name, no address, wherever one looks.

use std::{fs, sync::Arc, time::Duration};

use rustix::process::Signal;
use serde_json::json;
use tempfile::TempDir;

use crate::{
    licenses::webhooks::{DISABLED, SECRET, send_signed},
    support::{
        Answer, Config, Gateway, Mock, Mood, Redis, Reply, Says, Shop, client, contains,
        eventually,
        shop::{BUYER, EMAIL},
    },
    vault::canary::files_below,
};

const LEMON: &str = "CA11A2E1-7B4D-4E8A-9D60-5C1B8E7F2A34";
const GUMROAD: &str = "CA11A2E2-C11D4B06-A2335A6B-8C079166";
/// What an app calls a message.
const MESSAGE: &str = "message-CA11A2F7";
const STRANGER: &str = "CA11A2E3-7B4D-4E8A-9D60-5C1B8E7F2A34";
/// What must never be found: parts of keys in both cases, buyers of the answers and the webhook.
const CANARIES: [&str; 8] =
    ["CA11A2E", "ca11a2e", "5C1B8E7F2A34", "8C079166", BUYER, "canary.buyer", EMAIL, "Maren"];

fn nothing_in(what: &str, bytes: &[u8]) {
    for canary in CANARIES {
        assert!(!contains(bytes, canary), "{canary} stands in {what}");
    }
}

/// Everything that happens to a licence.
async fn live(gateway: &Gateway, shop: &Shop) {
    let app = gateway.app();
    shop.sells(LEMON, Says::license()).sells(GUMROAD, Says::membership());
    for key in [LEMON, GUMROAD] {
        app.chat_as(key).await.ok();
        app.chat_as(&key.to_lowercase()).await.ok();
        let request = app.request("POST", "/license/activate").bearer_auth(key);
        let answer = Answer::of(request.body("{\"name\":\"LAPTOP\"}")).await;
        let id = answer.ok().json()["instance_id"].as_str().unwrap().to_owned();
        let body = client::chat(&json!({})).to_string();
        let request = app.request("POST", "/chat").bearer_auth(key).body(body);
        let request = request.header("x-instance-id", &id).header("x-message-id", MESSAGE);
        Answer::of(request).await.ok();
    }
    app.chat_as(STRANGER).await.is(403, "license_invalid");
    let webhook = String::from_utf8_lossy(DISABLED).replace("3F2A9C1E", "CA11A2E1");
    assert_eq!(send_signed(gateway, webhook).await.status, 200);
    app.chat_as(LEMON).await.ok();
    // The shop repeats the key in words of its own.
    let echo = format!("No license {STRANGER} of {EMAIL}");
    for mood in [Mood::Status(500), Mood::Html] {
        shop.mood(mood);
        let key = STRANGER.replace("E3", "E4");
        app.chat_as(&key).await.is(503, "license_check_unavailable");
    }
    shop.mood(Mood::Well);
    let odd = STRANGER.replace("E3", "E5");
    shop.sells(&odd, Says::json(400, json!({ "message": echo })));
    app.chat_as(&odd).await.is(503, "license_check_unavailable");
    shop.close().await;
    app.chat_as(&STRANGER.replace("E3", "E6")).await.is(503, "license_check_unavailable");
}

async fn leaves_no_trace(redis: Option<&Redis>) {
    let (mock, shop) = (Mock::start(Reply::chat()).await, Shop::open().await);
    let mut config = Config::new(&mock)
        .lemonsqueezy(&shop)
        .gumroad(&shop)
        .webhook_secret("lemonsqueezy", SECRET)
        .plan("pro", "messages: 1000/month, models: [\"*\"], max_devices: 2")
        .env("RUST_LOG", "trace")
        .env("RUST_BACKTRACE", "1")
        .more("log: { access: stdout, level: trace }");
    if let Some(redis) = redis {
        config = config.redis(&redis.url());
    }
    let mut gateway = Gateway::start_in(Arc::new(TempDir::new().unwrap()), config).await;
    live(&gateway, &shop).await;
    if let Some(redis) = redis {
        eventually("something is shared", Duration::from_secs(5), || async {
            !redis.content().is_empty()
        })
        .await;
        nothing_in("Redis", &redis.content());
        assert!(!contains(&redis.content(), MESSAGE), "a message's id stands there in clear");
        nothing_in("the files of Redis", &redis.files());
    }
    nothing_in("the metrics", gateway.metrics().await.0.as_bytes());
    nothing_in("the status", gateway.status().await.to_string().as_bytes());
    gateway.signal(Signal::TERM);
    gateway.exited(Duration::from_secs(10)).await;
    let logs = gateway.logs();
    assert!(logs.len() > 1_000, "a run at trace says more than that:\n{logs}");
    nothing_in("the logs", logs.as_bytes());
    let files = files_below(gateway.store().parent().unwrap());
    assert!(!files.is_empty());
    for file in files {
        nothing_in(&file.display().to_string(), &fs::read(&file).unwrap());
    }
}

#[tokio::test]
async fn of_a_buyer_nothing_stands_in_store_journal_logs_and_metrics() {
    leaves_no_trace(None).await;
}

#[tokio::test]
async fn of_a_buyer_nothing_stands_in_redis_either() {
    let redis = Redis::start().await;
    leaves_no_trace(Some(&redis)).await;
}
