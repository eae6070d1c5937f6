//! What gateways on one Redis tell each other beside counting.

use std::time::Duration;

use serde_json::{Value, json};

use crate::{
    ledger::shared_ledger::start,
    pool::healing,
    support::{Config, Gateway, LICENSE, Mock, Redis, Reply, client, eventually, run, sse},
};

const SOON: Duration = Duration::from_secs(15);

async fn pair(change: impl FnOnce(Config) -> Config) -> (Mock, Redis, Vec<Gateway>) {
    let (mock, redis) = (Mock::start(Reply::chat()).await, Redis::start().await);
    let config = Config::new(&mock).license("SECOND-BUYER-0001", "free").redis(&redis.url());
    let gateways = start(2, change(config)).await;
    (mock, redis, gateways)
}

/// What an operator says of the first key at one gateway.
async fn order(gateway: &Gateway, command: &str) {
    let id = healing::key(gateway, 0).await["id"].as_str().unwrap().to_owned();
    healing::order(gateway, command, &id).await.ok();
}

async fn key_is(gateway: &Gateway, state: &str) {
    eventually(&format!("the key is {state}"), SOON, || async {
        healing::key(gateway, 0).await["state"] == state
    })
    .await;
}

async fn provider_is(gateway: &Gateway, state: &str) {
    eventually(&format!("the provider is {state}"), SOON, || async {
        gateway.status().await["providers"][0]["state"] == state
    })
    .await;
}

#[tokio::test]
async fn what_the_operator_says_of_a_key_holds_at_all_gateways_and_at_later_ones() {
    let (mock, _redis, gateways) = pair(|config| config).await;
    order(&gateways[0], "pause").await;
    key_is(&gateways[1], "off").await;
    let late = Gateway::start(gateways[0].config.clone()).await;
    key_is(&late, "off").await;
    mock.forget();
    for _ in 0..4 {
        gateways[1].app().chat().await.ok();
    }
    assert!(mock.keys().iter().all(|key| key.contains("sk-two")), "{:?}", mock.keys());
    order(&gateways[1], "resume").await;
    for gateway in [&gateways[0], &gateways[1], &late] {
        key_is(gateway, "ready").await;
    }
    key_is(&Gateway::start(gateways[0].config.clone()).await, "ready").await;
    // A pause of an hour that the operator ends at one gateway is over at all.
    mock.key("sk-one", [Reply::status(429).header("retry-after", "3600")]);
    mock.key("sk-two", [Reply::chat()]);
    for _ in 0..3 {
        gateways[0].app().chat().await.ok();
    }
    key_is(&gateways[1], "cooling").await;
    order(&gateways[1], "resume").await;
    for gateway in [&gateways[0], &gateways[1], &late] {
        key_is(gateway, "ready").await;
    }
}

#[tokio::test]
async fn a_provider_that_one_gateway_found_sick_is_left_by_all_and_returned_to_by_all() {
    let well = Mock::start(Reply::chat()).await;
    let (sick, _redis, gateways) =
        pair(|config| config.provider("q", &well, &["sk-three"]).model("fast", "[p/m1, q/m2]"))
            .await;
    sick.answer([Reply::error(503)]);
    eventually("one gateway finds it sick", SOON, || async {
        gateways[0].app().chat().await.ok();
        gateways[0].status().await["providers"][0]["state"] == "sick"
    })
    .await;
    provider_is(&gateways[1], "sick").await;
    sick.forget();
    gateways[1].app().chat().await.ok();
    assert!(sick.seen().iter().all(|seen| seen.path == "/v1/models"), "only probes");
    sick.answer([Reply::chat()]);
    // Whichever asks it first after the probe tells the other.
    eventually("it serves again", SOON, || async {
        gateways[0].app().chat().await.header("x-gatekeeper-model") == Some("p/m1")
    })
    .await;
    provider_is(&gateways[1], "serving").await;
}

/// A dollar a token: a few answers are the budget.
#[tokio::test]
async fn a_budget_is_that_of_all_gateways() {
    let (_mock, _redis, gateways) = pair(|config| {
        config
            .more("prices: { p/m1: { input: 1000000, output: 1000000 } }")
            .more("budget: { day: $70 }")
    })
    .await;
    // 18 dollars each.
    for turn in 0..4 {
        gateways[turn % 2].app().chat().await.ok();
    }
    for gateway in &gateways {
        eventually("the budget is spent everywhere", SOON, || async {
            gateway.app().chat().await.status == 503
        })
        .await;
        let answer = gateway.app().chat().await;
        answer.is(503, "upstream_exhausted");
        assert_eq!(answer.header("retry-after"), None);
        let used = gateway.metrics().await;
        assert!(used.sum("gatekeeper_budget_used_ratio", &[("provider", "all")]) >= 1.0);
    }
}

#[tokio::test]
async fn a_key_that_rests_at_one_gateway_rests_at_all() {
    let (mock, _redis, gateways) = pair(|config| config.model("other", "[p/m2]")).await;
    mock.key("sk-one", [Reply::status(429).header("retry-after", "60"), Reply::chat()]);
    mock.key("sk-two", [Reply::chat()]);
    for _ in 0..4 {
        gateways[0].app().chat().await.ok();
    }
    let state = async |gateway: &Gateway, place: usize| {
        gateway.status().await["keys"][place]["state"].as_str().unwrap().to_owned()
    };
    assert_eq!(state(&gateways[0], 0).await, "cooling");
    eventually("the other gateway knows", SOON, || async {
        state(&gateways[1], 0).await == "cooling"
    })
    .await;
    mock.forget();
    for _ in 0..6 {
        gateways[1].app().chat().await.ok();
    }
    assert!(mock.keys().iter().all(|key| key.contains("sk-two")), "{:?}", mock.keys());
    // One model of it does: the other one serves.
    let resting = gateways[1].status().await["keys"][0]["models"].clone();
    assert_eq!((&resting[0]["model"], &resting[1]), (&json!("m1"), &Value::Null));
    for _ in 0..2 {
        gateways[1].app().ask(&client::chat(&json!({ "model": "other" }))).await.ok();
    }
    assert!(mock.keys().iter().any(|key| key.contains("sk-one")), "{:?}", mock.keys());
    // A credential that is no good, too; and a gateway that starts later hears of both.
    mock.key("sk-two", [Reply::error(401)]);
    assert_ne!(gateways[1].app().chat().await.status, 200);
    let late = Gateway::start(gateways[0].config.clone()).await;
    for gateway in [&gateways[0], &late] {
        eventually("everybody knows", SOON, || async {
            state(gateway, 0).await == "cooling" && state(gateway, 1).await == "quarantined"
        })
        .await;
    }
}

#[tokio::test]
async fn usage_licences_and_requests_are_those_of_all_gateways() {
    let (_mock, redis, gateways) = pair(|config| config).await;
    for (gateway, key) in [(0, LICENSE), (1, LICENSE), (1, "SECOND-BUYER-0001")] {
        gateways[gateway].app().chat_as(key).await.ok();
    }
    let usage = || {
        let dir = gateways[0].dir.path();
        let file = dir.join("gatekeeper.yaml");
        let args = ["usage", "-c", file.to_str().unwrap(), "--by", "plan", "--csv"];
        // The secret of the vault is not needed to read.
        String::from_utf8(run(&args, dir).stdout).unwrap()
    };
    eventually("usage has all three", SOON, || async {
        let text = usage();
        text.lines().any(|line| line.starts_with("free,2,3,"))
    })
    .await;
    // Emptied, it is told again.
    redis.flush();
    eventually("usage has all three again", SOON, || async {
        usage().lines().any(|line| line.starts_with("free,2,3,"))
    })
    .await;
    for gateway in &gateways {
        eventually("two licences are active", SOON, || async {
            let metrics = gateway.metrics().await;
            metrics.sum("gatekeeper_active_licenses", &[("window", "1d")]) == 2.0
        })
        .await;
        eventually("the requests of both are seen", SOON, || async {
            let status = gateway.status().await;
            let requests = status["requests"].as_array().unwrap();
            let gateways = status["gateways"].as_array().map_or(0, Vec::len);
            requests.len() == 3 && gateways == 2
        })
        .await;
        let status = gateway.status().await;
        let totals = status["gateways"].as_array().unwrap();
        let total: u64 = totals.iter().filter_map(|one| one["total"].as_u64()).sum();
        assert_eq!(total, 3, "{status}");
        let tokens = |request: &Value| request["tokens"].as_u64().unwrap();
        let requests = status["requests"].as_array().unwrap();
        assert!(requests.iter().all(|request| tokens(request) == sse::TOKENS));
    }
}
