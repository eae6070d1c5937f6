//! Licences from shops: what a shop says becomes a plan or a refusal.

use std::{collections::HashSet, fs, path::PathBuf, time::Duration};

use serde_json::{Value, json};

use crate::support::{
    Answer, Config, Gateway, LICENSE, Mock, Noise, Reply, Says, Shop, eventually,
    shop::{BOUGHT, GUMROAD, PRODUCT, gumroad_key, license_key},
};

/// A gateway with these sources, and what it stands on.
pub async fn start(config: impl FnOnce(Config, &Shop) -> Config) -> (Mock, Shop, Gateway) {
    let (mock, shop) = (Mock::start(Reply::chat()).await, Shop::open().await);
    let gateway = Gateway::start(config(Config::new(&mock), &shop)).await;
    (mock, shop, gateway)
}

pub async fn both() -> (Mock, Shop, Gateway) {
    start(|config, shop| config.lemonsqueezy(shop).gumroad(shop)).await
}

/// 503 for now, and never a word against the licence.
#[track_caller]
pub fn unavailable(answer: &Answer) {
    answer.is(503, "license_check_unavailable");
    assert!(answer.number("retry-after") <= 60);
}

/// Asserts the verdict as the index of the recorded answers words it.
#[track_caller]
fn means(answer: &Answer, verdict: &str, what: &str) {
    match verdict {
        "valid" => assert_eq!(answer.status, 200, "{what}: {}", answer.text()),
        verdict if verdict.starts_with("unknown") => {
            assert_eq!(answer.status, 503, "{what}: {}", answer.text());
            unavailable(answer);
        }
        code => {
            assert_eq!(answer.error("code"), code, "{what}");
            assert_eq!(answer.is(403, code).error("upgrade_url"), "https://example.com/buy");
        }
    }
}

#[tokio::test]
async fn every_recorded_answer_means_what_its_index_says() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/shops");
    let index: Value =
        serde_json::from_slice(&fs::read(folder.join("index.json")).unwrap()).unwrap();
    let mut checked = HashSet::new();
    for (name, facts) in index.as_object().unwrap() {
        // A limit of devices is no verdict on the licence.
        let verdict = facts["expect_verdict"].as_str().filter(|verdict| *verdict != "device_limit");
        let Some(verdict) = verdict else { continue };
        // What ran on when it was recorded runs on for ever.
        let body = fs::read_to_string(folder.join(name)).unwrap().replace("2027-03-", "2127-03-");
        let mut says = Says::json(200, serde_json::from_str(&body).unwrap());
        says.status = facts["status"].as_u64().unwrap().try_into().unwrap();
        let headers = facts["headers"].as_object().unwrap().iter();
        says.headers = headers
            .map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned()))
            .collect();
        let key = if name.starts_with("gumroad") { GUMROAD } else { BOUGHT };
        let (_mock, shop, gateway) = both().await;
        shop.sells(key, says);
        means(&gateway.app().chat_as(key).await, verdict, name);
        assert_eq!(shop.calls_for(key).len(), 1, "{name}");
        checked.insert(verdict.to_owned());
    }
    for verdict in ["valid", "unknown", "license_expired", "license_disabled", "license_refunded"] {
        assert!(checked.contains(verdict), "no recorded answer is {verdict}");
    }
}

/// The status of these answers is written down nowhere: the body decides.
#[tokio::test]
async fn expired_and_disabled_are_so_with_any_status() {
    let (_mock, shop, gateway) = both().await;
    let mut number = 0;
    for word in ["expired", "disabled"] {
        for status in [200, 400, 404] {
            number += 1;
            let key = license_key(number);
            shop.sells(&key, Says::refused(word).status(status));
            let answer = gateway.app().chat_as(&key).await;
            means(&answer, &format!("license_{word}"), &format!("{word} with {status}"));
        }
    }
}

#[tokio::test]
async fn an_unused_licence_is_valid_and_one_without_an_end_too() {
    let (_mock, shop, gateway) = both().await;
    shop.sells(BOUGHT, Says::license().with("/license_key/status", json!("inactive")));
    gateway.app().chat_as(BOUGHT).await.ok();
    let key = license_key(1);
    let body = Says::license()
        .with("/license_key/expires_at", Value::Null)
        .with("/license_key/activation_limit", Value::Null);
    shop.sells(&key, body);
    gateway.app().chat_as(&key).await.ok();
    assert_eq!(gateway.me(&key).await["until"], Value::Null);
}

#[tokio::test]
async fn another_store_product_or_variant_is_the_wrong_product() {
    let (_mock, shop, gateway) = both().await;
    let cases = [
        ("another store", "/meta/store_id"),
        ("another product", "/meta/product_id"),
        ("another variant", "/meta/variant_id"),
    ];
    for (number, (what, pointer)) in cases.into_iter().enumerate() {
        let key = license_key(number);
        shop.sells(&key, Says::license().with(pointer, json!(7)));
        means(&gateway.app().chat_as(&key).await, "license_wrong_product", what);
    }
    let key = gumroad_key(1);
    shop.sells(&key, Says::sale().with("/purchase/product_id", json!("another==")));
    means(&gateway.app().chat_as(&key).await, "license_wrong_product", "Gumroad's product");
}

#[tokio::test]
async fn a_gumroad_variant_that_no_plan_is_for_is_the_wrong_product() {
    let only_pro = format!("{{ \"{PRODUCT}\": {{ \"(Pro)\": pro }} }}");
    let (_mock, shop, gateway) =
        start(|config, shop| config.gumroad(shop).of_shop("gumroad", "products", &only_pro)).await;
    shop.sells(GUMROAD, Says::membership());
    assert_eq!(gateway.me(GUMROAD).await["plan"], "pro");
    let key = gumroad_key(1);
    shop.sells(&key, Says::sale());
    means(&gateway.app().chat_as(&key).await, "license_wrong_product", "no variant");
}

/// Anybody can make such licences in a shop of their own.
#[tokio::test]
async fn a_licence_of_test_mode_is_not_valid() {
    let (_mock, shop, gateway) = both().await;
    shop.sells(BOUGHT, Says::license().with("/license_key/test_mode", json!(true)));
    means(&gateway.app().chat_as(BOUGHT).await, "license_invalid", "Lemon Squeezy's test mode");
    shop.sells(GUMROAD, Says::sale().with("/purchase/test", json!(true)));
    means(&gateway.app().chat_as(GUMROAD).await, "license_invalid", "a seller's own purchase");
}

#[tokio::test]
async fn money_that_went_back_and_memberships_that_ended_are_refused() {
    let (_mock, shop, gateway) = both().await;
    let disputed = Says::sale().with("/purchase/disputed", json!(true));
    let member = |name: &str, date: &str| {
        Says::membership().with(&format!("/purchase/subscription_{name}_at"), json!(date))
    };
    let (past, future) = ("2026-06-02T09:14:55Z", "2127-06-02T09:14:55Z");
    let cases = [
        (Says::sale().with("/purchase/refunded", json!(true)), "license_refunded"),
        (Says::sale().with("/purchase/chargebacked", json!(true)), "license_refunded"),
        (disputed.clone(), "license_refunded"),
        (disputed.with("/purchase/dispute_won", json!(true)), "valid"),
        (member("ended", past), "license_expired"),
        (member("failed", past), "license_expired"),
        (member("cancelled", past), "license_expired"),
        // Paid to the end of the period.
        (member("cancelled", future), "valid"),
    ];
    for (number, (says, verdict)) in cases.into_iter().enumerate() {
        let key = gumroad_key(number);
        let what = says.body.to_string();
        shop.sells(&key, says);
        means(&gateway.app().chat_as(&key).await, verdict, &what);
    }
    let until = gateway.me(&gumroad_key(7)).await["until"].clone();
    assert!(
        until.as_str().is_some_and(|until| until.starts_with("2127-06-02T09:14:55")),
        "{until}"
    );
}

#[tokio::test]
async fn the_shop_gets_the_key_as_typed_and_nothing_of_the_app() {
    let (_mock, shop, gateway) = both().await;
    let typed = [BOUGHT.to_lowercase(), GUMROAD.to_lowercase()];
    shop.sells(BOUGHT, Says::license()).sells(GUMROAD, Says::membership());
    for key in &typed {
        gateway.app().chat_as(key).await.ok();
    }
    let validate = shop.calls_for(BOUGHT).remove(0);
    assert_eq!(
        (validate.method.as_str(), validate.path.as_str()),
        ("POST", "/v1/licenses/validate")
    );
    assert_eq!(validate.fields, [("license_key".to_owned(), typed[0].clone())]);
    let verify = shop.calls_for(GUMROAD).remove(0);
    assert_eq!(verify.path, "/v2/licenses/verify");
    assert_eq!(verify.key, typed[1]);
    assert_eq!(verify.field("product_id"), Some(PRODUCT));
    for call in shop.calls() {
        let kind = call.header("content-type").unwrap();
        assert!(kind.starts_with("application/x-www-form-urlencoded"), "{kind}");
        for name in ["authorization", "cookie", "x-forwarded-for", "referer"] {
            assert_eq!(call.header(name), None, "{name}");
        }
        let counts = call.field("increment_uses_count");
        assert_eq!(counts, call.path.starts_with("/v2").then_some("false"));
    }
    assert_eq!(validate.header("accept"), Some("application/json"));
}

#[tokio::test]
async fn a_hundred_spellings_are_one_licence_and_one_call() {
    let (_mock, shop, gateway) = both().await;
    shop.sells(BOUGHT, Says::license());
    let (app, mut noise) = (gateway.app(), Noise::new(4));
    let mut spellings = HashSet::new();
    while spellings.len() < 100 {
        let mixed: String = BOUGHT
            .chars()
            .map(|c| if noise.below(2) == 0 { c.to_ascii_lowercase() } else { c })
            .collect();
        let (before, after) = (noise.below(4) as usize, noise.below(4) as usize);
        spellings.insert(format!("{}{mixed}{}", " ".repeat(before), " ".repeat(after)));
    }
    for spelling in &spellings {
        app.chat_as(spelling).await.ok();
    }
    assert_eq!(shop.calls_for(BOUGHT).len(), 1);
    assert_eq!(gateway.messages(BOUGHT).await, 100);
}

#[tokio::test]
async fn a_key_of_no_source_s_shape_costs_no_call() {
    let (_mock, shop, gateway) = start(|config, shop| config.lemonsqueezy(shop)).await;
    let long = "3F2A9C1E".repeat(30);
    for key in
        ["NO-SUCH-LICENCE", &BOUGHT[1..], &BOUGHT.replace('F', "G"), "3F2A'/**/or/**/1=1--", &long]
    {
        gateway.app().chat_as(key).await.is(403, "license_invalid");
    }
    assert!(shop.calls().is_empty());
}

#[tokio::test]
async fn a_static_key_never_calls_a_shop() {
    // Even where it looks like a shop's.
    let (key, other) = (license_key(1), gumroad_key(1));
    let (_mock, shop, gateway) = start(|config, shop| {
        config.license(&key, "free").license(&other, "free").lemonsqueezy(shop).gumroad(shop)
    })
    .await;
    for key in [LICENSE, &key, &other] {
        gateway.app().chat_as(key).await.ok();
        assert!(shop.calls_for(key).is_empty());
        assert_eq!(gateway.me(key).await["plan"], "free");
    }
}

/// The date is known beforehand: no shop has to say it, and a renewal is seen in time.
#[tokio::test]
async fn a_licence_ends_on_its_day_and_a_renewal_goes_on() {
    let (_mock, shop, gateway) =
        start(|config, shop| config.lemonsqueezy(shop).cache("negative: 1s")).await;
    let end = jiff::Timestamp::now() + Duration::from_secs(3);
    let ends = Says::license().with("/license_key/expires_at", json!(end.to_string()));
    let (ending, renewed) = (license_key(1), license_key(2));
    shop.sells(&ending, ends.clone()).sells(&renewed, ends);
    let app = gateway.app();
    for key in [&ending, &renewed] {
        app.chat_as(key).await.ok();
    }
    shop.sells(&renewed, Says::license());
    eventually("the day comes", Duration::from_secs(10), || async {
        app.chat_as(&ending).await.status == 403
    })
    .await;
    app.chat_as(&ending).await.is(403, "license_expired");
    eventually("the renewal is seen", Duration::from_secs(10), || async {
        app.chat_as(&renewed).await.status == 200
    })
    .await;
}
