//! What a shop said is asked for once, kept over restarts, and read under today's configuration.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::{
    license_admin::operator::show,
    licenses::known,
    licenses::verdicts::{both, start},
    support::{
        Config, Gateway, LICENSE, Mock, Mood, Reply, Says, Shop, client, eventually,
        shop::{BOUGHT, GUMROAD, gumroad_key, license_key},
    },
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_first_requests_at_once_are_one_call() {
    let (_mock, shop, gateway) = both().await;
    shop.mood(Mood::Slow(Duration::from_millis(500)));
    for (key, says) in [(BOUGHT, Says::license()), (GUMROAD, Says::membership())] {
        shop.sells(key, says);
        let app = gateway.app();
        let mut asking = JoinSet::new();
        for _ in 0..1000 {
            let app = app.clone();
            asking.spawn(async move { app.chat_as(key).await.status });
        }
        let statuses = asking.join_all().await;
        assert!(statuses.iter().all(|status| *status == 200), "{statuses:?}");
        assert_eq!(shop.calls_for(key).len(), 1);
        assert_eq!(gateway.messages(key).await, 1000);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_wrong_key_a_hundred_times_at_once_is_one_call() {
    let (_mock, shop, gateway) = both().await;
    shop.mood(Mood::Slow(Duration::from_millis(200)));
    let app = gateway.app();
    let mut asking = JoinSet::new();
    for _ in 0..100 {
        let app = app.clone();
        asking.spawn(async move {
            app.chat_as(&license_key(1)).await.is(403, "license_invalid");
        });
    }
    asking.join_all().await;
    assert_eq!(shop.calls_for(&license_key(1)).len(), 1);
}

/// An app that gives up waiting takes the call with it from nobody else.
#[tokio::test]
async fn who_leaves_does_not_spoil_it_for_the_others() {
    let (_mock, shop, gateway) = both().await;
    shop.sells(BOUGHT, Says::license()).mood(Mood::Held);
    let mut leaves = gateway.raw().await;
    let question = client::post("/v1/chat/completions", &client::chat(&json!({})));
    leaves.send(question.replace(LICENSE, BOUGHT)).await;
    shop.saw(BOUGHT, 1).await;
    let app = gateway.app();
    let stays = tokio::spawn(async move { app.chat_as(BOUGHT).await.status });
    eventually("both ask", Duration::from_secs(10), async || {
        gateway.status_now().await["in_flight"] == 2
    })
    .await;
    drop(leaves);
    shop.mood(Mood::Well);
    assert_eq!(stays.await.unwrap(), 200);
    assert_eq!(shop.calls_for(BOUGHT).len(), 1);
}

#[tokio::test]
async fn what_a_shop_said_outlives_a_restart_and_a_kill() {
    let (_mock, shop, mut gateway) = both().await;
    shop.sells(BOUGHT, Says::license()).sells(GUMROAD, Says::membership());
    for key in [BOUGHT, GUMROAD] {
        gateway.app().chat_as(key).await.ok();
    }
    gateway.signal(Signal::TERM);
    gateway.exited(Duration::from_secs(5)).await;
    gateway.restart().await;
    let both_are_served = async |gateway: &Gateway| {
        for key in [BOUGHT, GUMROAD] {
            gateway.app().chat_as(key).await.ok();
            assert_eq!(shop.calls_for(key).len(), 1, "{key}");
        }
    };
    both_are_served(&gateway).await;
    gateway.kill();
    // Even while nobody is at the shop.
    shop.close().await;
    gateway.restart().await;
    both_are_served(&gateway).await;
}

/// The first answer is worth keeping as soon as it was used.
#[tokio::test]
async fn a_kill_right_after_the_first_answer_loses_nothing_for_long() {
    let (_mock, shop, mut gateway) = both().await;
    shop.sells(BOUGHT, Says::license());
    gateway.app().chat_as(BOUGHT).await.ok();
    eventually("the answer is on the disk", Duration::from_secs(5), async || {
        known::licenses(&gateway.store()) == 1
    })
    .await;
    gateway.kill();
    gateway.restart().await;
    gateway.app().chat_as(BOUGHT).await.ok();
    assert_eq!(shop.calls_for(BOUGHT).len(), 1);
}

#[tokio::test]
async fn a_changed_mapping_acts_at_once_without_a_call() {
    let (_mock, shop, mut gateway) = both().await;
    shop.sells(BOUGHT, Says::license());
    assert_eq!(gateway.me(BOUGHT).await["plan"], "pro");
    gateway.signal(Signal::TERM);
    gateway.exited(Duration::from_secs(5)).await;
    let mapped = |to: &str| format!("{{ 588102: {to} }}");
    let config = gateway.config.clone();
    for (to, plan) in [("{ 912744: basic }", "basic"), ("{ \"*\": pro }", "pro")] {
        gateway.config = config.clone().of_shop("lemonsqueezy", "products", &mapped(to));
        gateway.restart().await;
        assert_eq!(gateway.me(BOUGHT).await["plan"], plan);
    }
    gateway.config = config.clone().of_shop("lemonsqueezy", "products", &mapped("{ 912745: pro }"));
    gateway.restart().await;
    gateway.app().chat_as(BOUGHT).await.is(403, "license_wrong_product");
    gateway.config = config.of_shop("lemonsqueezy", "store_id", "58214");
    gateway.restart().await;
    gateway.app().chat_as(BOUGHT).await.is(403, "license_wrong_product");
    assert_eq!(shop.calls_for(BOUGHT).len(), 1);
}

/// The same while it runs, and for a key that was refused.
#[tokio::test]
async fn a_mapping_changed_by_reload_acts_at_once_without_a_call() {
    let (_mock, shop, mut gateway) = both().await;
    let other = license_key(1);
    shop.sells(BOUGHT, Says::license());
    shop.sells(&other, Says::license().with("/meta/variant_id", json!(7)));
    assert_eq!(gateway.me(BOUGHT).await["plan"], "pro");
    gateway.app().chat_as(&other).await.is(403, "license_wrong_product");
    let mapped = |to: &str| format!("{{ 588102: {to} }}");
    let config = gateway.config.clone();
    for (to, plan) in [("{ 912744: basic }", "basic"), ("{ \"*\": pro }", "pro")] {
        let config = config.clone().of_shop("lemonsqueezy", "products", &mapped(to));
        assert!(gateway.reload(config).await, "{}", gateway.logs());
        assert_eq!(gateway.me(BOUGHT).await["plan"], plan);
    }
    gateway.app().chat_as(&other).await.ok();
    let gone = config.clone().of_shop("lemonsqueezy", "store_id", "58214");
    assert!(gateway.reload(gone).await);
    gateway.app().chat_as(BOUGHT).await.is(403, "license_wrong_product");
    assert!(gateway.reload(config).await);
    assert_eq!(gateway.me(BOUGHT).await["plan"], "pro");
    assert_eq!(shop.calls_for(BOUGHT).len(), 1);
}

#[tokio::test]
async fn what_was_used_moves_to_the_new_plan() {
    let (_mock, shop, mut gateway) = both().await;
    shop.sells(BOUGHT, Says::license());
    for _ in 0..3 {
        gateway.app().chat_as(BOUGHT).await.ok();
    }
    let config = gateway
        .config
        .clone()
        .plan("basic", "messages: 4/month, models: [\"*\"]")
        .of_shop("lemonsqueezy", "products", "{ 588102: { 912744: basic } }");
    assert!(gateway.reload(config).await, "{}", gateway.logs());
    gateway.app().chat_as(BOUGHT).await.ok();
    gateway.app().chat_as(BOUGHT).await.is(402, "quota_exceeded");
}

#[tokio::test]
async fn a_wrong_key_asked_again_is_one_call_for_a_while() {
    let (_mock, shop, gateway) = both().await;
    let wrong = [license_key(1), gumroad_key(1)];
    for key in &wrong {
        for _ in 0..20 {
            gateway.app().chat_as(key).await.is(403, "license_invalid");
        }
        assert_eq!(shop.calls_for(key).len(), 1, "{key}");
    }
}

/// A shop that tells cases apart: what it says of one spelling it does not say of another.
#[tokio::test]
async fn a_key_refused_in_one_spelling_is_good_in_the_right_one() {
    let (_mock, shop, gateway) =
        start(|config, shop| config.lemonsqueezy(shop).cache("fresh: 1s, stale: 1h")).await;
    let app = gateway.app();
    shop.sells_spelled(BOUGHT, Says::license());
    let wrong = BOUGHT.to_ascii_lowercase();
    app.chat_as(&wrong).await.is(403, "license_invalid");
    app.chat_as(BOUGHT).await.ok();
    // Known now: asked again under the wrong spelling, the shop's "not found" takes nothing away.
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_millis(1100)).await;
        app.chat_as(&wrong).await.ok();
    }
    app.chat_as(BOUGHT).await.ok();
    assert_eq!(gateway.messages(BOUGHT).await, 6, "one licence, whatever its spelling");
}

/// A key bought a minute ago may not be known everywhere at the shop yet.
#[tokio::test]
async fn a_key_that_was_wrong_is_right_once_it_is_sold() {
    let (_mock, shop, gateway) =
        start(|config, shop| config.lemonsqueezy(shop).cache("negative: 1s")).await;
    let app = gateway.app();
    app.chat_as(BOUGHT).await.is(403, "license_invalid");
    shop.sells(BOUGHT, Says::license());
    eventually("the sale is seen", Duration::from_secs(10), || async {
        app.chat_as(BOUGHT).await.status == 200
    })
    .await;
    assert_eq!(shop.calls_for(BOUGHT).len(), 2);
}

#[tokio::test]
async fn me_tells_what_the_shop_knows() {
    let (_mock, shop, mut gateway) = both().await;
    shop.sells(BOUGHT, Says::license()).sells(GUMROAD, Says::membership());
    shop.activate(BOUGHT, "OLD-LAPTOP");
    let me = gateway.me(BOUGHT).await;
    assert_eq!(me["plan"], "pro");
    assert!(me["status"].as_str().is_some_and(|status| !status.is_empty()), "{me}");
    let until = me["until"].as_str().unwrap();
    assert!(until.starts_with("2127-03-02T09:14:55"), "{until}");
    assert_eq!(me["devices"], json!({ "used": 1, "max": 3 }));
    assert!(me["models"].is_array() && me["limits"]["messages"]["left"].is_u64(), "{me}");
    // Nothing else of what the shop said.
    let mut members: Vec<&String> = me.as_object().unwrap().keys().collect();
    members.sort_unstable();
    assert_eq!(members, ["devices", "id", "limits", "models", "plan", "status", "until"]);
    let id = me["id"].as_str().unwrap().to_owned();
    let shown = show(&gateway, BOUGHT).await;
    assert_eq!(shown["public_id"], *id);
    assert!(id.len() == 32 && !shown["license"].as_str().unwrap().contains(&id), "{shown}");
    let me = gateway.me(GUMROAD).await;
    assert_ne!(me["id"], *id);
    assert_eq!((&me["plan"], &me["until"]), (&json!("pro"), &Value::Null));
    assert_eq!(shop.calls_for(BOUGHT).len() + shop.calls_for(GUMROAD).len(), 2);
    gateway.restart().await;
    assert_eq!(gateway.me(BOUGHT).await["id"], *id);
}

#[tokio::test]
async fn the_operator_sees_calls_and_cache() {
    let (mock, shop) = (Mock::start(Reply::chat()).await, Shop::open().await);
    let gateway = Gateway::start(Config::new(&mock).lemonsqueezy(&shop)).await;
    shop.sells(BOUGHT, Says::license());
    let app = gateway.app();
    for _ in 0..3 {
        app.chat_as(BOUGHT).await.ok();
        app.chat_as(&license_key(1)).await.is(403, "license_invalid");
    }
    shop.mood(Mood::Status(500));
    app.chat_as(&license_key(2)).await.is(503, "license_check_unavailable");
    let metrics = gateway.metrics().await;
    for verdict in ["valid", "invalid", "unknown"] {
        let labels = [("source", "lemonsqueezy"), ("verdict", verdict)];
        assert!(metrics.sum("gatekeeper_license_checks_total", &labels) >= 1.0, "{verdict}");
    }
    let labels = [("source", "lemonsqueezy")];
    let checks = metrics.sum("gatekeeper_license_checks_total", &labels);
    assert_eq!(checks, shop.calls().len() as f64);
    for (result, count) in [("fresh", 2.0), ("negative", 2.0), ("miss", 3.0), ("stale", 0.0)] {
        let found = metrics.sum("gatekeeper_license_cache_total", &[("result", result)]);
        assert_eq!(found, count, "{result}");
    }
    for name in ["checks_total", "cache_total", "source_state"] {
        let help = format!("# HELP gatekeeper_license_{name} ");
        assert!(metrics.0.contains(&help), "no help for {name}");
    }
}
