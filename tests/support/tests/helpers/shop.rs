//! The shop and the Redis of these tests do what they are told.

use serde_json::Value;

use gatekeeper_test_support::{
    Mood, Raw, Redis, Says, Shop,
    shop::{BOUGHT, BUYER, GUMROAD},
};

/// Calls the shop as the gateway does; status and body.
async fn call(shop: &Shop, path: &str, form: &str) -> Option<(u16, Value)> {
    let addr = shop.url().trim_start_matches("http://").parse().unwrap();
    let mut raw = Raw::to(addr).await.ok()?;
    let length = form.len();
    raw.send(format!(
        "POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-www-form-urlencoded\r\n\
         content-length: {length}\r\n\r\n{form}"
    ))
    .await;
    let answer = raw.answer().await?;
    Some((answer.status, serde_json::from_slice(&answer.body).unwrap_or_default()))
}

async fn validate(shop: &Shop, form: &str) -> (u16, Value) {
    call(shop, "/v1/licenses/validate", form).await.expect("an answer")
}

#[tokio::test]
async fn it_answers_by_key_and_keeps_every_call() {
    let shop = Shop::open().await;
    shop.sells(BOUGHT, Says::license()).sells(GUMROAD, Says::sale());
    let (status, said) = validate(&shop, &format!("license_key={}", BOUGHT.to_lowercase())).await;
    assert_eq!((status, &said["valid"]), (200, &Value::Bool(true)));
    assert_eq!(said["meta"]["customer_name"], BUYER);
    let (status, said) = validate(&shop, "license_key=another+key%21").await;
    assert_eq!((status, &said["error"]), (404, &Value::from("license_key not found.")));
    let form = format!("product_id=a%3D%3D&license_key={GUMROAD}");
    let (status, said) = call(&shop, "/v2/licenses/verify", &form).await.unwrap();
    assert_eq!((status, &said["purchase"]["license_key"]), (200, &Value::from(GUMROAD)));
    let keys: Vec<String> = shop.calls().into_iter().map(|call| call.key).collect();
    assert_eq!(keys, [BOUGHT.to_lowercase().as_str(), "another key!", GUMROAD]);
    assert_eq!(shop.calls_for(GUMROAD)[0].field("product_id"), Some("a=="));
    assert_eq!(shop.most_in_a_minute(), 3);
    shop.forget();
    assert!(shop.calls().is_empty());
}

#[tokio::test]
async fn it_counts_devices() {
    let shop = Shop::open().await;
    shop.sells(BOUGHT, Says::license().with("/license_key/activation_limit", 1.into()));
    let form = format!("license_key={BOUGHT}&instance_name=LAPTOP");
    let (status, said) = call(&shop, "/v1/licenses/activate", &form).await.unwrap();
    assert_eq!((status, &said["activated"]), (200, &Value::Bool(true)));
    assert_eq!(said["license_key"]["activation_usage"], 1);
    let id = said["instance"]["id"].as_str().unwrap();
    assert_eq!(call(&shop, "/v1/licenses/activate", &form).await.unwrap().0, 400);
    let known = format!("license_key={BOUGHT}&instance_id={id}");
    assert_eq!(validate(&shop, &known).await.1["instance"]["name"], "LAPTOP");
    let (status, said) = validate(&shop, &format!("license_key={BOUGHT}&instance_id=x")).await;
    assert_eq!((status, &said["error"]), (404, &Value::from("instance_id not found.")));
    assert_eq!(shop.devices(BOUGHT), ["LAPTOP"]);
    let (status, said) = call(&shop, "/v1/licenses/deactivate", &known).await.unwrap();
    assert_eq!((status, &said["deactivated"]), (200, &Value::Bool(true)));
    assert!(shop.devices(BOUGHT).is_empty());
}

#[tokio::test]
async fn it_has_moods() {
    let shop = Shop::open().await;
    shop.sells(BOUGHT, Says::license());
    let form = format!("license_key={BOUGHT}");
    for (mood, status) in
        [(Mood::Status(500), 500), (Mood::TooMany(7), 429), (Mood::Html, 200), (Mood::Well, 200)]
    {
        shop.mood(mood);
        let (said, body) = validate(&shop, &form).await;
        assert_eq!((said, body["valid"] == true), (status, mood == Mood::Well), "{mood:?}");
    }
    shop.mood(Mood::ProductId);
    assert_eq!(validate(&shop, &form).await.0, 200);
    assert_eq!(call(&shop, "/v2/licenses/verify", "product_id=a").await.unwrap().0, 500);
    shop.mood(Mood::Well);
    shop.allows(1);
    assert_eq!(validate(&shop, &form).await.0, 429);
    shop.allows(100);
    shop.close().await;
    assert!(call(&shop, "/v1/licenses/validate", &form).await.is_none());
    shop.reopen();
    assert_eq!(validate(&shop, &form).await.0, 200);
}

#[tokio::test]
async fn redis_keeps_what_it_has_over_a_kill_and_forgets_on_command() {
    let mut redis = Redis::start().await;
    assert_eq!(redis.ask(&["SET", "a", "canary"]).text(), "OK");
    redis.ask(&["HSET", "b", "field", "sparrow"]);
    for needle in ["canary", "sparrow"] {
        assert!(String::from_utf8_lossy(&redis.content()).contains(needle), "{needle}");
    }
    redis.kill();
    redis.restart().await;
    assert_eq!(redis.ask(&["GET", "a"]).text(), "canary");
    assert!(String::from_utf8_lossy(&redis.files()).contains("sparrow"));
    redis.flush();
    assert!(redis.content().is_empty());
}
