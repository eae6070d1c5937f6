//! A shop in trouble says nothing about a licence: who is known is served, who is not may come back.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::{
    licenses::verdicts::{start, unavailable},
    support::{
        Config, Gateway, Mock, Mood, Reply, Says, Shop, eventually,
        shop::{BOUGHT, GUMROAD, gumroad_key, license_key},
        soon,
    },
};

/// Freshness that a test can wait for.
const SHORT: &str = "fresh: 1s, stale: 600s, negative: 1s";
const IN_TIME: Duration = Duration::from_secs(15);

async fn both(cache: &str) -> (Mock, Shop, Gateway) {
    start(|config, shop| config.lemonsqueezy(shop).gumroad(shop).cache(cache)).await
}

/// What `/status` says of a source.
async fn state_of(gateway: &Gateway, source: &str) -> String {
    let status = gateway.status().await;
    let sources = status["sources"].as_array().unwrap_or_else(|| panic!("no sources in {status}"));
    let known = sources.iter().find(|known| known["name"] == source);
    let known = known.unwrap_or_else(|| panic!("no {source} in {status}"));
    known["state"].as_str().unwrap().to_owned()
}

async fn is_in_state(gateway: &Gateway, source: &str, state: &str) {
    eventually(&format!("{source} is {state}"), IN_TIME, || async {
        state_of(gateway, source).await == state
    })
    .await;
    let labels = [("source", source), ("state", state)];
    let metrics = gateway.metrics().await;
    assert_eq!(metrics.sum("gatekeeper_license_source_state", &labels), 1.0, "{source} {state}");
    // Exactly one state at a time.
    assert_eq!(metrics.sum("gatekeeper_license_source_state", &[("source", source)]), 1.0);
}

#[tokio::test]
async fn a_known_licence_is_served_to_the_end_of_stale() {
    let (_mock, shop, gateway) = both("fresh: 2s, stale: 2s, negative: 1s").await;
    shop.sells(BOUGHT, Says::license());
    let app = gateway.app();
    let before = Instant::now();
    app.chat_as(BOUGHT).await.ok();
    let checked = Instant::now();
    shop.close().await;
    app.chat_as(&license_key(1)).await.is(503, "license_check_unavailable");
    let (refused, answer) = loop {
        let asked = Instant::now();
        let answer = app.chat_as(BOUGHT).await;
        if answer.status != 200 {
            break (asked, answer);
        }
        assert!(checked.elapsed() < IN_TIME, "it is served for ever");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    unavailable(&answer);
    // Freshness may end a tenth early, and no earlier.
    let served = refused - before;
    assert!(served >= Duration::from_millis(3_700), "only for {served:?}");
    let served = refused - checked;
    assert!(served <= Duration::from_millis(6_500), "for {served:?}");
    shop.reopen();
    comes_back(&gateway, BOUGHT).await;
}

/// Asks now and then, as an app would, until the licence is served; never a refusal for good.
async fn comes_back(gateway: &Gateway, key: &str) {
    let (app, began) = (gateway.app(), Instant::now());
    loop {
        let answer = app.chat_as(key).await;
        if answer.status == 200 {
            return;
        }
        unavailable(&answer);
        assert!(began.elapsed() < Duration::from_secs(30), "the shop is back, but nobody noticed");
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

/// `None` is a shop where nobody listens.
async fn nothing_is_said_by(mood: Option<Mood>) {
    let (_mock, shop, gateway) = both(SHORT).await;
    let (known, new) = ([BOUGHT, GUMROAD], [license_key(1), gumroad_key(1)]);
    for key in [BOUGHT, &new[0]] {
        shop.sells(key, Says::license());
    }
    for key in [GUMROAD, &new[1]] {
        shop.sells(key, Says::membership());
    }
    let app = gateway.app();
    for key in known {
        app.chat_as(key).await.ok();
    }
    match mood {
        Some(mood) => shop.mood(mood),
        None => shop.close().await,
    }
    let troubled = Instant::now();
    for key in &new {
        unavailable(&soon("an answer about a new key", app.chat_as(key)).await);
    }
    // To well after the end of freshness.
    let mut over = false;
    while !over {
        over = troubled.elapsed() > Duration::from_millis(1_800);
        for key in known {
            let asked = Instant::now();
            app.chat_as(key).await.ok();
            assert!(asked.elapsed() < Duration::from_secs(1), "{key} waits for the shop");
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    shop.mood(Mood::Well);
    if mood.is_none() {
        shop.reopen();
    }
    for key in &new {
        comes_back(&gateway, key).await;
    }
}

#[tokio::test]
async fn a_shop_that_answers_500_says_nothing() {
    nothing_is_said_by(Some(Mood::Status(500))).await;
}

#[tokio::test]
async fn a_shop_that_answers_403_says_nothing() {
    nothing_is_said_by(Some(Mood::Status(403))).await;
}

#[tokio::test]
async fn a_shop_that_answers_429_says_nothing() {
    nothing_is_said_by(Some(Mood::TooMany(1))).await;
}

#[tokio::test]
async fn a_shop_that_answers_html_says_nothing() {
    nothing_is_said_by(Some(Mood::Html)).await;
}

#[tokio::test]
async fn a_shop_that_hangs_says_nothing() {
    nothing_is_said_by(Some(Mood::Hangs)).await;
}

#[tokio::test]
async fn a_shop_where_nobody_listens_says_nothing() {
    nothing_is_said_by(None).await;
}

#[tokio::test]
async fn a_known_licence_falls_at_once_by_an_explicit_no() {
    let (_mock, shop, gateway) = both(SHORT).await;
    let falls = [
        (license_key(1), Says::license(), Says::refused("disabled"), "license_disabled"),
        (license_key(2), Says::license(), Says::refused("expired"), "license_expired"),
        (
            gumroad_key(1),
            Says::sale(),
            Says::sale().with("/purchase/refunded", json!(true)),
            "license_refunded",
        ),
        (
            gumroad_key(2),
            Says::membership(),
            Says::membership()
                .with("/purchase/subscription_ended_at", json!("2026-06-02T09:14:55Z")),
            "license_expired",
        ),
    ];
    let app = gateway.app();
    for (key, valid, _, _) in &falls {
        shop.sells(key, valid.clone());
        app.chat_as(key).await.ok();
    }
    for (key, _, refused, code) in falls {
        shop.sells(&key, refused);
        eventually(&format!("{code} is seen"), IN_TIME, || async {
            app.chat_as(&key).await.status == 403
        })
        .await;
        app.chat_as(&key).await.is(403, code);
    }
}

/// It takes three over a quarter of an hour: shops have said that of good licences, too.
#[tokio::test]
async fn a_known_licence_that_is_not_found_is_served_for_now() {
    let (_mock, shop, mut gateway) = both(SHORT).await;
    shop.sells(BOUGHT, Says::license());
    let app = gateway.app();
    app.chat_as(BOUGHT).await.ok();
    shop.sells(BOUGHT, Says::not_found());
    eventually("the shop is asked again", IN_TIME, || async {
        app.chat_as(BOUGHT).await.ok();
        shop.calls_for(BOUGHT).len() >= 2
    })
    .await;
    eventually("the shop is asked twice more", IN_TIME, || async {
        app.chat_as(BOUGHT).await.ok();
        shop.calls_for(BOUGHT).len() >= 4
    })
    .await;
    // Even a restart does not make the shop's slip a refusal.
    gateway.restart().await;
    gateway.app().chat_as(BOUGHT).await.ok();
}

#[tokio::test]
async fn gumroads_word_about_the_product_is_our_own_mistake() {
    let (mock, shop) = (Mock::start(Reply::chat()).await, Shop::open().await);
    shop.mood(Mood::ProductId);
    shop.sells(BOUGHT, Says::license()).sells(GUMROAD, Says::membership());
    let config = Config::new(&mock).lemonsqueezy(&shop).gumroad(&shop);
    let gateway = Gateway::start(config.cache(SHORT)).await;
    // Nobody has asked for anything yet.
    is_in_state(&gateway, "gumroad", "misconfigured").await;
    is_in_state(&gateway, "lemonsqueezy", "ok").await;
    let status = gateway.status().await;
    let sources = status["sources"].as_array().unwrap();
    let gumroad = sources.iter().find(|known| known["name"] == "gumroad").unwrap();
    assert!(gumroad["why"].as_str().is_some_and(|why| why.contains("product")), "{gumroad}");
    gateway.logged("product").await;
    let probe = shop.calls();
    assert_eq!(probe.len(), 1, "one product, one call");
    assert!(!probe[0].key.is_empty());
    assert_eq!(probe[0].field("increment_uses_count"), Some("false"));

    let app = gateway.app();
    unavailable(&app.chat_as(GUMROAD).await);
    app.chat_as(BOUGHT).await.ok();
    shop.mood(Mood::Well);
    comes_back(&gateway, GUMROAD).await;
    is_in_state(&gateway, "gumroad", "ok").await;
}

#[tokio::test]
async fn a_known_licence_outlives_our_own_mistake() {
    let (_mock, shop, gateway) = both(SHORT).await;
    shop.sells(GUMROAD, Says::membership());
    let app = gateway.app();
    app.chat_as(GUMROAD).await.ok();
    shop.mood(Mood::ProductId);
    eventually("the shop is asked again", IN_TIME, || async {
        app.chat_as(GUMROAD).await.ok();
        shop.calls_for(GUMROAD).len() >= 2
    })
    .await;
    is_in_state(&gateway, "gumroad", "misconfigured").await;
    app.chat_as(GUMROAD).await.ok();
}

/// Many known licences that are suddenly nobody's are the shop's mistake, or ours.
async fn is_held(sudden: Says) {
    let (_mock, shop, mut gateway) = both(SHORT).await;
    let keys: Vec<String> = (1..=12).map(license_key).collect();
    let (last, turned) = keys.split_last().unwrap();
    let app = gateway.app();
    for key in &keys {
        shop.sells(key, Says::license());
        app.chat_as(key).await.ok();
    }
    is_in_state(&gateway, "lemonsqueezy", "ok").await;
    for key in turned {
        shop.sells(key, sudden.clone());
    }
    // Each is asked about again after the end of its freshness, and served all the same.
    let before: Vec<usize> = keys.iter().map(|key| shop.calls_for(key).len()).collect();
    for (key, before) in keys.iter().zip(before) {
        eventually(&format!("the shop is asked about {key} again"), IN_TIME, || async {
            app.chat_as(key).await.ok();
            shop.calls_for(key).len() > before
        })
        .await;
    }
    is_in_state(&gateway, "lemonsqueezy", "holding").await;
    for key in &keys {
        app.chat_as(key).await.ok();
    }
    // What the shop says in so many words acts all the same.
    shop.sells(last, Says::refused("disabled"));
    eventually("the explicit no acts", Duration::from_secs(30), || async {
        app.chat_as(last).await.status == 403
    })
    .await;
    app.chat_as(last).await.is(403, "license_disabled");
    for key in turned {
        app.chat_as(key).await.ok();
    }
    // A restart is no reason to believe it.
    gateway.signal(rustix::process::Signal::TERM);
    gateway.exited(Duration::from_secs(5)).await;
    gateway.restart().await;
    is_in_state(&gateway, "lemonsqueezy", "holding").await;
    for key in turned {
        gateway.app().chat_as(key).await.ok();
    }
    assert!(shop.most_in_a_minute() <= 50);
}

#[tokio::test]
async fn many_licences_that_the_configuration_refuses_at_once_are_held() {
    let (_mock, shop, mut gateway) = both("fresh: 1h").await;
    let keys: Vec<String> = (1..=12).map(license_key).collect();
    for key in &keys {
        shop.sells(key, Says::license());
        gateway.app().chat_as(key).await.ok();
    }
    gateway.signal(rustix::process::Signal::TERM);
    gateway.exited(Duration::from_secs(5)).await;
    gateway.config = gateway.config.clone().of_shop("lemonsqueezy", "store_id", "58214");
    gateway.restart().await;
    is_in_state(&gateway, "lemonsqueezy", "holding").await;
    for key in &keys {
        gateway.app().chat_as(key).await.ok();
    }
    gateway.logged("refuses 12 of 12").await;
}

/// A mapping that was mistyped on a running gateway, noticed and mended.
#[tokio::test]
async fn many_licences_that_a_reload_refuses_at_once_are_held_until_it_is_mended() {
    let (_mock, shop, mut gateway) = both("fresh: 1h").await;
    let keys: Vec<String> = (1..=12).map(license_key).collect();
    for key in &keys {
        shop.sells(key, Says::license());
        gateway.app().chat_as(key).await.ok();
    }
    let good = gateway.config.clone();
    let mistyped = good.clone().of_shop("lemonsqueezy", "products", "{ 588120: { 912744: pro } }");
    assert!(gateway.reload(mistyped).await, "{}", gateway.logs());
    is_in_state(&gateway, "lemonsqueezy", "holding").await;
    gateway.logged("refuses 12 of 12").await;
    for key in &keys {
        gateway.app().chat_as(key).await.ok();
    }
    assert!(gateway.reload(good).await, "{}", gateway.logs());
    is_in_state(&gateway, "lemonsqueezy", "ok").await;
    for key in &keys {
        gateway.app().chat_as(key).await.ok();
        assert_eq!(shop.calls_for(key).len(), 1, "{key}");
    }
}

#[tokio::test]
async fn many_licences_not_found_at_once_are_held() {
    is_held(Says::not_found()).await;
}

#[tokio::test]
async fn many_licences_of_another_product_at_once_are_held() {
    is_held(Says::license().with("/meta/product_id", json!(7))).await;
}
