//! Keys of Gumroad and Polar that become our own when they are first used, as those of Lemon Squeezy do.

use std::time::Duration;

use serde_json::{Value, json};

use crate::{
    license_admin::operator::show,
    licenses::{
        issued::issued,
        webhooks::{PING, PING_SECRET, ping},
    },
    shops::vendors::{KEY, POLAR, SECRET, event, polar_license, told},
    support::{Config, Gateway, Mock, Mood, Reply, Says, Shop, Vendor, eventually, shop::GUMROAD},
};

const SOON: Duration = Duration::from_secs(10);

fn adopting(mock: &Mock, shop: &str) -> Config {
    issued(mock).of_shop("issued", "adopt", &format!("[{shop}]"))
}

async fn is_ours(gateway: &Gateway, key: &str) {
    let shown = show(gateway, key).await;
    let standing = (&shown["source"], &shown["plan"], &shown["status"]);
    assert_eq!(standing, (&json!("issued"), &json!("pro"), &json!("valid")), "{shown}");
}

/// With the shop out of the configuration, and then back in it.
async fn lives_without_its_shop(gateway: &mut Gateway, key: &str, without: Config) {
    let with = std::mem::replace(&mut gateway.config, without);
    gateway.restart().await;
    gateway.app().chat_as(key).await.ok();
    is_ours(gateway, key).await;
    gateway.config = with;
    gateway.restart().await;
    gateway.app().chat_as(key).await.ok();
    assert_eq!(gateway.messages(key).await, 4, "its usage came along");
}

#[tokio::test]
async fn a_gumroad_key_used_once_needs_gumroad_no_more_until_it_is_refunded() {
    let (mock, shop) = (Mock::start(Reply::chat()).await, Shop::open().await);
    let config = adopting(&mock, "gumroad").gumroad(&shop).webhook_secret("gumroad", PING_SECRET);
    let mut gateway = Gateway::start(config).await;
    shop.sells(GUMROAD, Says::membership());
    gateway.app().chat_as(GUMROAD).await.ok();
    is_ours(&gateway, GUMROAD).await;
    let asked = shop.calls_for(GUMROAD).len();
    shop.mood(Mood::Status(404));
    gateway.app().chat_as(GUMROAD).await.ok();
    assert_eq!(shop.calls_for(GUMROAD).len(), asked, "it is our own: nothing is asked");
    lives_without_its_shop(&mut gateway, GUMROAD, adopting(&mock, "gumroad")).await;
    // A ping that is none of Gumroad's ends nothing; Gumroad's has it asked, and its word counts.
    shop.mood(Mood::Well);
    shop.sells(GUMROAD, Says::membership().with("/purchase/refunded", json!(true)));
    assert_eq!(ping(&gateway, "/webhooks/gumroad/wrong", PING).await.status, 401);
    gateway.app().chat_as(GUMROAD).await.ok();
    let right = format!("/webhooks/gumroad/{PING_SECRET}");
    assert_eq!(ping(&gateway, &right, PING).await.status, 200);
    eventually("the ping has Gumroad asked", SOON, || async {
        gateway.app().chat_as(GUMROAD).await.status == 403
    })
    .await;
    gateway.app().chat_as(GUMROAD).await.is(403, "license_refunded");
    assert_eq!(show(&gateway, GUMROAD).await["source"], "issued");
}

#[tokio::test]
async fn a_polar_key_used_once_needs_polar_no_more_until_it_is_revoked() {
    let license = |status: &str| -> Value {
        let mut license = polar_license(status);
        license["expires_at"] = "2100-01-31T00:00:00Z".into();
        license["limit_activations"] = 2.into();
        license
    };
    let mock = Mock::start(Reply::chat()).await;
    let granted = license("granted");
    let vendor = Vendor::open(move |_| told(200, granted.clone())).await;
    let config = adopting(&mock, "polar").env("OUR_KEY", "our-own-key").of_shop(
        "polar",
        "base_url",
        &format!("\"{}\"", vendor.url()),
    );
    let config =
        POLAR.iter().fold(config, |config, (name, value)| config.of_shop("polar", name, value));
    let mut gateway = Gateway::start(config.webhook_secret("polar", SECRET)).await;
    gateway.app().chat_as(KEY).await.ok();
    is_ours(&gateway, KEY).await;
    assert_eq!(gateway.me(KEY).await["until"], "2100-01-31T00:00:00Z", "its end came along");
    assert_eq!(show(&gateway, KEY).await["devices"]["max"], 2, "and its devices");
    vendor.says(|_| (500, String::new()));
    gateway.app().chat_as(KEY).await.ok();
    assert_eq!(vendor.calls().len(), 1, "it is our own: nothing is asked");
    lives_without_its_shop(&mut gateway, KEY, adopting(&mock, "polar")).await;
    let revoked = license("revoked");
    vendor.says(move |_| told(200, revoked.clone()));
    let about = json!({
        "type": "benefit_grant.revoked",
        "data": { "customer_id": "cus-1", "properties": { "license_key_id": "lk-1" } },
    });
    event(&gateway, "polar", "msg_1", &about).await.ok();
    eventually("the event has Polar asked", SOON, || async {
        gateway.app().chat_as(KEY).await.status == 403
    })
    .await;
    gateway.app().chat_as(KEY).await.is(403, "license_disabled");
    assert_eq!(show(&gateway, KEY).await["source"], "issued");
}
