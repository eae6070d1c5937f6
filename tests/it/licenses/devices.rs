//! Devices: activated at Lemon Squeezy, or kept by the gateway where the shop keeps no list.

use std::{collections::HashSet, time::Duration};

use serde_json::{Value, json};

use crate::{
    licenses::verdicts::{start, unavailable},
    support::{
        Answer, Config, Gateway, LICENSE, Says, Shop, client, contains, eventually,
        shop::{BOUGHT, BUYER, EMAIL, GUMROAD, license_key},
    },
};

/// A plan that takes activated devices only, two of each licence where the gateway counts.
pub const REQUIRED: &str =
    "messages: 1000/month, models: [\"*\"], devices: required, max_devices: 2";
const NOBODY: &str = "00000000-4a7e-4c39-8f15-92d3e7a6c480";

fn requiring(config: Config, shop: &Shop) -> Config {
    let config = config.lemonsqueezy(shop).gumroad(shop);
    ["free", "basic", "pro"].into_iter().fold(config, |config, plan| config.plan(plan, REQUIRED))
}

async fn post(gateway: &Gateway, key: &str, path: &str, body: &str) -> Answer {
    let request = gateway
        .app()
        .request("POST", path)
        .bearer_auth(key)
        .header("content-type", "application/json")
        .body(body.to_owned());
    Answer::of(request).await
}

pub async fn activate(gateway: &Gateway, key: &str, name: &str) -> Answer {
    post(gateway, key, "/license/activate", &json!({ "name": name }).to_string()).await
}

pub async fn deactivate(gateway: &Gateway, key: &str, id: &str) -> Answer {
    let body = json!({ "instance_id": id }).to_string();
    post(gateway, key, "/license/deactivate", &body).await
}

/// The new device's id; the answer holds that and the count, and nothing else.
#[track_caller]
pub fn id_of(answer: &Answer, used: u64, max: &Value) -> String {
    let said = answer.ok().json();
    let members: Vec<&String> = said.as_object().unwrap().keys().collect();
    assert_eq!(members.len(), 2, "{said}");
    assert_eq!(said["devices"], json!({ "used": used, "max": max }));
    said["instance_id"].as_str().unwrap().to_owned()
}

/// A chat question from this device.
pub async fn chat_on(gateway: &Gateway, key: &str, id: Option<&str>) -> Answer {
    let mut request = gateway
        .app()
        .request("POST", "/v1/chat/completions")
        .bearer_auth(key)
        .header("content-type", "application/json")
        .body(client::chat(&json!({})).to_string());
    if let Some(id) = id {
        request = request.header("x-instance-id", id);
    }
    Answer::of(request).await
}

/// What `/v1/me` says of devices, asked from this one.
async fn devices_of(gateway: &Gateway, key: &str, id: &str) -> Value {
    let request = gateway.app().get("/v1/me").bearer_auth(key).header("x-instance-id", id);
    Answer::of(request).await.ok().json()["devices"].clone()
}

/// Refused, with words that tell the buyer what to do.
#[track_caller]
fn asks_for_activation(answer: &Answer) {
    let words = answer.is(403, "device_limit").error("message");
    assert!(words.as_str().unwrap().to_lowercase().contains("activate"), "{words}");
}

#[tokio::test]
async fn a_device_is_activated_and_deactivated_at_the_shop_in_our_own_words() {
    let (_mock, shop, gateway) = start(|config, shop| config.lemonsqueezy(shop)).await;
    shop.sells(BOUGHT, Says::license());
    let first = activate(&gateway, BOUGHT, "MAREN-LAPTOP").await;
    let first_id = id_of(&first, 1, &json!(3));
    let second = activate(&gateway, BOUGHT, "Maren's café ☕").await;
    id_of(&second, 2, &json!(3));
    assert_eq!(shop.devices(BOUGHT), ["MAREN-LAPTOP", "Maren's café ☕"]);
    assert_eq!(gateway.me(BOUGHT).await["devices"], json!({ "used": 2, "max": 3 }));
    let gone = deactivate(&gateway, BOUGHT, &first_id).await;
    assert_eq!(shop.devices(BOUGHT), ["Maren's café ☕"]);
    assert_eq!(gone.ok().json()["devices"], json!({ "used": 1, "max": 3 }));
    for answer in [first, second, gone] {
        for canary in [BUYER, EMAIL, BOUGHT, "Inkwell", "588102", "customer", "meta"] {
            assert!(!contains(&answer.body, canary), "{canary}: {}", answer.text());
        }
    }
}

#[tokio::test]
async fn a_licence_without_a_limit_says_so() {
    let (_mock, shop, gateway) = start(|config, shop| config.lemonsqueezy(shop)).await;
    shop.sells(BOUGHT, Says::license().with("/license_key/activation_limit", Value::Null));
    id_of(&activate(&gateway, BOUGHT, "LAPTOP").await, 1, &Value::Null);
}

#[tokio::test]
async fn the_shops_limit_is_device_limit() {
    let (_mock, shop, gateway) = start(|config, shop| config.lemonsqueezy(shop)).await;
    shop.sells(BOUGHT, Says::license().with("/license_key/activation_limit", json!(1)));
    let id = id_of(&activate(&gateway, BOUGHT, "LAPTOP").await, 1, &json!(1));
    let refused = activate(&gateway, BOUGHT, "DESKTOP").await;
    assert_eq!(refused.is(403, "device_limit").error("upgrade_url"), "https://example.com/buy");
    assert!(!contains(&refused.body, EMAIL));
    deactivate(&gateway, BOUGHT, &id).await.ok();
    id_of(&activate(&gateway, BOUGHT, "DESKTOP").await, 1, &json!(1));
}

#[tokio::test]
async fn a_plan_that_requires_devices_takes_only_those_of_the_licence() {
    let (_mock, shop, gateway) = start(requiring).await;
    let other = license_key(1);
    shop.sells(BOUGHT, Says::license()).sells(&other, Says::license());
    asks_for_activation(&chat_on(&gateway, BOUGHT, None).await);
    let id = id_of(&activate(&gateway, BOUGHT, "LAPTOP").await, 1, &json!(3));
    let foreign = shop.activate(&other, "STRANGER");
    chat_on(&gateway, BOUGHT, Some(&id)).await.ok();
    chat_on(&gateway, &other, Some(&foreign)).await.ok();
    for (key, id) in [(BOUGHT, &*foreign), (&*other, &*id), (BOUGHT, NOBODY)] {
        asks_for_activation(&chat_on(&gateway, key, Some(id)).await);
    }
    asks_for_activation(&chat_on(&gateway, BOUGHT, None).await);
    for twice_or_nothing in ["", "a b", &"a".repeat(10_000)] {
        let status = chat_on(&gateway, BOUGHT, Some(twice_or_nothing)).await.status;
        assert!([400, 403, 431].contains(&status), "{status}");
    }
    assert_eq!(devices_of(&gateway, BOUGHT, &id).await, json!({ "used": 1, "max": 3 }));
    // Gone is gone, at once.
    deactivate(&gateway, BOUGHT, &id).await.ok();
    asks_for_activation(&chat_on(&gateway, BOUGHT, Some(&id)).await);
}

#[tokio::test]
async fn a_device_is_asked_about_once() {
    let (_mock, shop, gateway) = start(requiring).await;
    shop.sells(BOUGHT, Says::license());
    let old = shop.activate(BOUGHT, "OLD-LAPTOP");
    let asked_about = |shop: &Shop, id: &str| {
        let calls = shop.calls_for(BOUGHT);
        calls.iter().filter(|call| call.field("instance_id") == Some(id)).count()
    };
    for _ in 0..10 {
        chat_on(&gateway, BOUGHT, Some(&old)).await.ok();
        asks_for_activation(&chat_on(&gateway, BOUGHT, Some(NOBODY)).await);
    }
    assert_eq!((asked_about(&shop, &old), asked_about(&shop, NOBODY)), (1, 1));
    assert!(shop.calls_for(BOUGHT).len() <= 3);
}

#[tokio::test]
async fn many_requests_of_a_device_at_once_ask_about_it_once() {
    let (_mock, shop, gateway) = start(requiring).await;
    shop.sells(BOUGHT, Says::license());
    let old = shop.activate(BOUGHT, "OLD-LAPTOP");
    let requests = (0..50).map(|_| chat_on(&gateway, BOUGHT, Some(&old)));
    for answer in futures_util::future::join_all(requests).await {
        answer.ok();
    }
    let calls = shop.calls_for(BOUGHT);
    let about = calls.iter().filter(|call| call.field("instance_id") == Some(&*old)).count();
    assert_eq!(about, 1);
}

#[tokio::test]
async fn the_sixth_unknown_device_within_the_hour_costs_no_call() {
    let (_mock, shop, gateway) = start(requiring).await;
    shop.sells(BOUGHT, Says::license());
    let known = id_of(&activate(&gateway, BOUGHT, "LAPTOP").await, 1, &json!(3));
    chat_on(&gateway, BOUGHT, Some(&known)).await.ok();
    let before = shop.calls_for(BOUGHT).len();
    for number in 0..10 {
        let id = format!("{number:08x}-4a7e-4c39-8f15-92d3e7a6c480");
        let answer = chat_on(&gateway, BOUGHT, Some(&id)).await;
        assert!([403, 429].contains(&answer.status), "{}", answer.text());
    }
    assert_eq!(shop.calls_for(BOUGHT).len() - before, 5);
    chat_on(&gateway, BOUGHT, Some(&known)).await.ok();
}

#[tokio::test]
async fn the_sixth_activation_within_the_hour_is_429() {
    let (_mock, shop, gateway) = start(|config, shop| config.lemonsqueezy(shop)).await;
    shop.sells(BOUGHT, Says::license().with("/license_key/activation_limit", json!(100)));
    for number in 1..=5 {
        id_of(&activate(&gateway, BOUGHT, "LAPTOP").await, number, &json!(100));
    }
    for _ in 0..2 {
        let answer = activate(&gateway, BOUGHT, "LAPTOP").await;
        assert!(answer.is(429, "rate_limited").number("retry-after") <= 60);
    }
    assert_eq!(shop.devices(BOUGHT).len(), 5);
}

/// Neither the file nor Gumroad knows devices.
#[tokio::test]
async fn where_the_shop_has_no_list_the_gateway_keeps_it() {
    let (_mock, shop, mut gateway) = start(requiring).await;
    shop.sells(GUMROAD, Says::membership());
    let mut ids = HashSet::new();
    for key in [LICENSE, GUMROAD] {
        asks_for_activation(&chat_on(&gateway, key, None).await);
        asks_for_activation(&chat_on(&gateway, key, Some(NOBODY)).await);
        let first = id_of(&activate(&gateway, key, "LAPTOP").await, 1, &json!(2));
        let second = id_of(&activate(&gateway, key, "DESKTOP").await, 2, &json!(2));
        activate(&gateway, key, "THIRD").await.is(403, "device_limit");
        assert_eq!(devices_of(&gateway, key, &first).await, json!({ "used": 2, "max": 2 }));
        // As hard to guess as 128 random bits.
        assert!(first.len() >= 22 && second.len() >= 22, "{first} {second}");
        gateway.restart().await;
        for id in [&first, &second] {
            chat_on(&gateway, key, Some(id)).await.ok();
        }
        activate(&gateway, key, "THIRD").await.is(403, "device_limit");
        deactivate(&gateway, key, &first).await.ok();
        asks_for_activation(&chat_on(&gateway, key, Some(&first)).await);
        let third = id_of(&activate(&gateway, key, "THIRD").await, 2, &json!(2));
        chat_on(&gateway, key, Some(&third)).await.ok();
        ids.extend([first, second, third]);
    }
    assert_eq!(ids.len(), 6);
    // Those of one licence are nothing to another.
    for id in &ids {
        let statuses = [
            chat_on(&gateway, LICENSE, Some(id)).await.status,
            chat_on(&gateway, GUMROAD, Some(id)).await.status,
        ];
        assert_ne!(statuses, [200, 200]);
    }
    assert_eq!(shop.calls_for(GUMROAD).len(), 1);
}

#[tokio::test]
async fn nobody_deactivates_the_device_of_another() {
    let (_mock, shop, gateway) = start(requiring).await;
    let other = license_key(1);
    shop.sells(BOUGHT, Says::license()).sells(&other, Says::license());
    shop.sells(GUMROAD, Says::membership());
    for (owner, stranger) in [(BOUGHT, other.as_str()), (GUMROAD, LICENSE)] {
        let id = activate(&gateway, owner, "LAPTOP").await.ok().json()["instance_id"].clone();
        let id = id.as_str().unwrap();
        let status = deactivate(&gateway, stranger, id).await.status;
        assert!((400..500).contains(&status), "{status}");
        chat_on(&gateway, owner, Some(id)).await.ok();
    }
}

#[tokio::test]
async fn a_bad_body_is_400() {
    let (_mock, shop, gateway) = start(requiring).await;
    shop.sells(BOUGHT, Says::license());
    for key in [BOUGHT, LICENSE] {
        for body in [
            "",
            "{",
            "[]",
            "null",
            "{}",
            "{\"name\":7}",
            "{\"name\":\"\"}",
            "{\"name\":\"a\",\"name\":\"b\"}",
            "name=LAPTOP",
        ] {
            let answer = post(&gateway, key, "/license/activate", body).await;
            assert_eq!(answer.status, 400, "{body}: {}", answer.text());
            answer.is(400, "invalid_request");
        }
        for body in ["", "{}", "{\"instance_id\":7}", "{\"instance_id\":\"\"}"] {
            post(&gateway, key, "/license/deactivate", body).await.is(400, "invalid_request");
        }
    }
    assert!(shop.devices(BOUGHT).is_empty());
}

#[tokio::test]
async fn who_may_not_come_in_activates_nothing() {
    let (_mock, shop, gateway) = start(requiring).await;
    shop.sells(BOUGHT, Says::refused("disabled"));
    activate(&gateway, BOUGHT, "LAPTOP").await.is(403, "license_disabled");
    activate(&gateway, &license_key(1), "LAPTOP").await.is(403, "license_invalid");
    let foreign = license_key(2);
    shop.sells(&foreign, Says::license().with("/meta/store_id", json!(7)));
    activate(&gateway, &foreign, "LAPTOP").await.is(403, "license_wrong_product");
    let body = json!({ "name": "LAPTOP" }).to_string();
    let request = gateway.app().request("POST", "/license/activate").body(body);
    Answer::of(request).await.is(401, "license_missing");
    assert!(shop.devices(BOUGHT).is_empty() && shop.devices(&foreign).is_empty());
    for path in ["/license/activate", "/license/deactivate"] {
        let request = gateway.app().get(path).bearer_auth(LICENSE);
        Answer::of(request).await.is(405, "method_not_allowed");
    }
}

#[tokio::test]
async fn while_the_shop_is_down_nothing_is_activated() {
    let (_mock, shop, gateway) = start(requiring).await;
    shop.sells(BOUGHT, Says::license());
    let id = id_of(&activate(&gateway, BOUGHT, "LAPTOP").await, 1, &json!(3));
    shop.close().await;
    unavailable(&activate(&gateway, BOUGHT, "DESKTOP").await);
    unavailable(&deactivate(&gateway, BOUGHT, &id).await);
    // Who was activated before goes on, and so do licences the shop has no part in.
    chat_on(&gateway, BOUGHT, Some(&id)).await.ok();
    activate(&gateway, LICENSE, "LAPTOP").await.ok();
    shop.reopen();
    eventually("the shop is back", Duration::from_secs(20), || async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        deactivate(&gateway, BOUGHT, &id).await.status == 200
    })
    .await;
}
