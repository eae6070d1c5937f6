//! Polar, Creem, Dodo, Keygen, Freemius, Payhip and a licence server of one's own, over real sockets. What each answer means is a table
//! of its own (`src/shops/tests/table.rs`, with the place where each shape is stated).

use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

use crate::{
    ledger::shared_ledger,
    licenses::devices::{activate, chat_on, deactivate},
    licenses::verdicts::unavailable,
    support::{
        Answer, Config, Gateway, Mock, Redis, Reply, Says, Shop, Vendor, VendorCall, eventually,
        vendor::VendorAnswer,
    },
};

pub const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
pub const KEY: &str = "JSTAR-3F2A9C1E-7B4D-4E8A-9D60-5C1B8E7F2A34";
const SOON: Duration = Duration::from_secs(10);
const PLENTY: &str = "messages: 1000/month, models: [\"*\"]";
const REQUIRED: &str = "messages: 1000/month, models: [\"*\"], devices: required";

/// Members of a source, in YAML.
pub type Members<'a> = &'a [(&'a str, &'a str)];

pub fn told(status: u16, body: Value) -> VendorAnswer {
    (status, body.to_string())
}

/// A source of this kind, with the plan `pro`.
fn sold_by(mock: &Mock, kind: &str, vendor: &Vendor, members: Members<'_>) -> Config {
    let place = if kind == "http" { "url" } else { "base_url" };
    let config = Config::new(mock).plan("pro", PLENTY).env("OUR_KEY", "our-own-key");
    let config = config.of_shop(kind, place, &format!("\"{}\"", vendor.url()));
    members.iter().fold(config, |config, (name, value)| config.of_shop(kind, name, value))
}

/// The members of a source of Polar.
pub const POLAR: Members<'static> =
    &[("organization_id", "org-1"), ("token", "\"env:OUR_KEY\""), ("benefits", "{ ben-1: pro }")];

fn polar(mock: &Mock, vendor: &Vendor) -> Config {
    sold_by(mock, "polar", vendor, POLAR).webhook_secret("polar", SECRET)
}

pub fn polar_license(status: &str) -> Value {
    json!({
        "id": "lk-1", "organization_id": "org-1", "customer_id": "cus-1", "benefit_id": "ben-1",
        "key": KEY, "status": status, "limit_activations": null, "usage": 0, "limit_usage": null,
        "expires_at": null, "activation": null,
    })
}

/// Sends an event as Standard Webhooks say.
pub async fn event(gateway: &Gateway, shop: &str, id: &str, body: &Value) -> Answer {
    event_at(gateway, shop, (id, now()), body).await
}

async fn event_at(gateway: &Gateway, shop: &str, (id, at): (&str, u64), body: &Value) -> Answer {
    let body = body.to_string();
    let key = STANDARD.decode(SECRET.trim_start_matches("whsec_")).unwrap();
    // Polar signs with the text of the secret.
    let key = if shop == "polar" { SECRET.as_bytes().to_vec() } else { key };
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
    mac.update(format!("{id}.{at}.{body}").as_bytes());
    let signature = STANDARD.encode(mac.finalize().into_bytes());
    let request = gateway
        .app()
        .request("POST", &format!("/webhooks/{shop}"))
        .header("webhook-id", id)
        .header("webhook-timestamp", at)
        .header("webhook-signature", format!("v1,{signature}"))
        .body(body);
    Answer::of(request).await
}

fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

async fn source_of(gateway: &Gateway, name: &str) -> Value {
    let status = gateway.status_now().await;
    let sources = status["sources"].as_array().unwrap();
    sources.iter().find(|source| source["name"] == name).unwrap().clone()
}

#[tokio::test]
async fn polar_is_asked_by_the_id_once_the_licence_is_known_and_an_event_ends_it_at_once() {
    let mock = Mock::start(Reply::chat()).await;
    let vendor = Vendor::open(|_| told(200, polar_license("granted"))).await;
    let gateway = Gateway::start(polar(&mock, &vendor)).await;
    gateway.app().chat_as(KEY).await.ok();
    gateway.app().chat_as(KEY).await.ok();
    let calls = vendor.calls();
    assert_eq!(calls.len(), 1, "the answer is kept");
    assert!(calls[0].is("POST", "/v1/license-keys/validate"));
    assert_eq!(calls[0].header("authorization"), Some("Bearer our-own-key"));
    assert_eq!(calls[0].body, json!({ "key": KEY, "organization_id": "org-1" }));
    vendor.says(|_| told(200, polar_license("revoked")));
    let revoked = json!({
        "type": "benefit_grant.revoked",
        "data": { "customer_id": "cus-1", "properties": { "license_key_id": "lk-1" } },
    });
    event(&gateway, "polar", "msg_1", &revoked).await.ok();
    gateway.app().chat_as(KEY).await.is(403, "license_disabled");
    assert!(vendor.calls()[1].is("GET", "/v1/license-keys/lk-1"));
    assert!(source_of(&gateway, "polar").await["last_event"].is_string());
    // The same event again is taken and does nothing; one from another time is refused.
    event(&gateway, "polar", "msg_1", &revoked).await.ok();
    gateway.app().chat_as(KEY).await.is(403, "license_disabled");
    assert_eq!(vendor.calls().len(), 2);
    for at in [now() - 400, now() + 400] {
        event_at(&gateway, "polar", ("msg_2", at), &revoked).await.is(401, "license_missing");
    }
}

#[tokio::test]
async fn a_key_whose_shape_fits_two_shops_is_asked_of_both_and_a_yes_wins() {
    let uuid = "3F2A9C1E-7B4D-4E8A-9D60-5C1B8E7F2A34";
    let (mock, shop) = (Mock::start(Reply::chat()).await, Shop::open().await);
    let license = move || {
        let mut license = polar_license("granted");
        license["key"] = uuid.into();
        told(200, license)
    };
    let vendor = Vendor::open(move |_| license()).await;
    let config = Config::new(&mock).lemonsqueezy(&shop);
    let config = config
        .of_shop("polar", "base_url", &format!("\"{}\"", vendor.url()))
        .of_shop("polar", "organization_id", "org-1")
        .of_shop("polar", "benefits", "{ ben-1: pro }");
    let mut gateway = Gateway::start(config).await;
    // Lemon Squeezy knows it as disabled: after a move the buyer's key lives on at the new shop.
    shop.sells(uuid, Says::refused("disabled"));
    gateway.app().chat_as(uuid).await.ok();
    assert_eq!((shop.calls_for(uuid).len(), vendor.calls().len()), (1, 1));
    assert!(vendor.calls()[0].is("POST", "/v1/customer-portal/license-keys/validate"));
    assert_eq!(vendor.calls()[0].header("authorization"), None, "the public call");
    // One that Lemon Squeezy served goes on where the new shop has it, with what was used.
    let moved = "00000001-7B4D-4E8A-9D60-5C1B8E7F2A34";
    vendor.says(|_| told(404, json!({ "error": "ResourceNotFound", "detail": "Not found" })));
    shop.sells(moved, Says::license());
    gateway.app().chat_as(moved).await.ok();
    shop.sells(moved, Says::refused("disabled"));
    vendor.says(move |_| {
        let mut license = polar_license("granted");
        license["key"] = moved.into();
        told(200, license)
    });
    let mut config = gateway.config.clone();
    config = config.cache("fresh: 1s, stale: 1h");
    assert!(gateway.reload(config).await);
    eventually("the new shop is asked", SOON, || async {
        gateway.app().chat_as(moved).await.ok();
        vendor.calls().iter().filter(|call| call.body["key"] == moved).count() >= 1
    })
    .await;
    gateway.app().chat_as(moved).await.ok();
    assert!(gateway.messages(moved).await >= 2);
    // No answer beats a refusal.
    vendor.says(|_| (500, String::new()));
    let other = "00000002-7B4D-4E8A-9D60-5C1B8E7F2A34";
    unavailable(&gateway.app().chat_as(other).await);
}

#[tokio::test]
async fn a_wrong_key_of_ours_is_an_alarm_and_no_buyers_fault() {
    let mock = Mock::start(Reply::chat()).await;
    let forbidden = |_: &VendorCall| {
        told(403, json!({ "trace_id": "t", "status": 403, "error": "Forbidden", "message": [] }))
    };
    let creem = [("api_key", "\"env:OUR_KEY\""), ("products", "{ prod_1: pro }")];
    let dodo =
        [("api_key", "\"env:OUR_KEY\""), ("products", "{ pdt_1: pro }"), ("business_id", "bus_1")];
    let http = [("token", "\"env:OUR_KEY\"")];
    let kinds: [(&str, Members<'_>); 6] = [
        ("creem", &creem),
        ("dodo", &dodo),
        ("http", &http),
        ("polar", POLAR),
        ("freemius", FREEMIUS),
        ("payhip", PAYHIP),
    ];
    for (kind, members) in kinds {
        let vendor = Vendor::open(forbidden).await;
        let gateway = Gateway::start(sold_by(&mock, kind, &vendor, members)).await;
        unavailable(&chat_on(&gateway, KEY, Some("ins_1")).await);
        let source = source_of(&gateway, kind).await;
        assert_eq!(source["state"], "misconfigured", "{kind}: {source}");
        assert!(source["why"].as_str().unwrap().contains("credential"), "{kind}: {source}");
        let labels = [("source", kind), ("state", "misconfigured")];
        let metrics = gateway.metrics().await;
        assert_eq!(metrics.sum("gatekeeper_license_source_state", &labels), 1.0);
        gateway.logged("misconfigured").await;
        assert!(!gateway.logs().contains("our-own-key"), "{kind}");
    }
}

#[tokio::test]
async fn known_buyers_of_every_shop_outlive_an_outage() {
    let mock = Mock::start(Reply::chat()).await;
    let keygen = [("account", "acme"), ("product", "prod-1"), ("policies", "{ pol-1: pro }")];
    let dodo =
        [("api_key", "\"env:OUR_KEY\""), ("products", "{ pdt_1: pro }"), ("business_id", "bus_1")];
    let polar = [("organization_id", "org-1"), ("benefits", "{ ben-1: pro }")];
    let kinds: [(&str, Members<'_>, VendorAnswer); 6] = [
        ("keygen", &keygen, told(200, keygen_license())),
        ("dodo", &dodo, told(200, dodo_activated("bus_1"))),
        ("polar", &polar, told(200, polar_license("granted"))),
        ("http", &[], told(200, json!({ "verdict": "valid", "plan": "pro" }))),
        ("freemius", FREEMIUS, told(200, json!({ "licenses": [freemius_license(KEY)] }))),
        ("payhip", PAYHIP, told(200, payhip_license(KEY))),
    ];
    let outages = kinds.map(|(kind, members, good)| outage(&mock, kind, members, good));
    futures_util::future::join_all(outages).await;
}

/// Served while the shop of a known licence says nothing that could be a refusal.
async fn outage(mock: &Mock, kind: &str, members: Members<'_>, good: VendorAnswer) {
    let vendor = Vendor::open(move |_| good.clone()).await;
    let config = sold_by(mock, kind, &vendor, members).cache("fresh: 1s, stale: 1h");
    let gateway = Gateway::start(config).await;
    gateway.app().chat_as(KEY).await.ok();
    // The last one has the shop left alone for a while.
    for (status, body) in [(404, "x"), (200, "<html>"), (401, "{}"), (429, "{}")] {
        vendor.says(move |_| (status, body.to_owned()));
        let before = vendor.calls().len();
        eventually(&format!("{kind} is asked again"), SOON, || async {
            gateway.app().chat_as(KEY).await.ok();
            vendor.calls().len() > before || status == 429
        })
        .await;
        gateway.app().chat_as(KEY).await.ok();
    }
}

fn creem_license(instance: &str) -> Value {
    json!({
        "id": "lic_1", "mode": "prod", "object": "license", "product_id": "prod_1", "status": "active",
        "key": "ABC12", "activation": 1, "activation_limit": 2, "expires_at": null,
        "instance": { "id": instance, "status": "active", "name": "x" },
    })
}

#[tokio::test]
async fn a_key_of_creem_begins_with_a_device() {
    let mock = Mock::start(Reply::chat()).await;
    let vendor = Vendor::open(|call| match call.path.as_str() {
        "/v1/licenses/activate" | "/v1/licenses/deactivate" => told(200, creem_license("ins_1")),
        _ if call.body["instance_id"] == "ins_1" => told(200, creem_license("ins_1")),
        _ => told(404, json!({ "trace_id": "t", "status": 404, "error": "Bad Request" })),
    })
    .await;
    let members = [("api_key", "\"env:OUR_KEY\""), ("products", "{ prod_1: pro }")];
    let config = sold_by(&mock, "creem", &vendor, &members).plan("pro", REQUIRED);
    let gateway = Gateway::start(config.webhook_secret("creem", "creem_secret_0123456789")).await;
    let refused = chat_on(&gateway, KEY, None).await;
    refused.is(403, "device_limit");
    assert!(vendor.calls().is_empty(), "there is nothing to ask about");
    let activated = activate(&gateway, KEY, "LAPTOP").await;
    assert_eq!(activated.ok().json()["instance_id"], "ins_1");
    assert_eq!(activated.json()["devices"], json!({ "used": 1, "max": 2 }));
    let call = &vendor.calls()[0];
    assert!(call.is("POST", "/v1/licenses/activate"));
    assert_eq!(call.header("x-api-key"), Some("our-own-key"));
    assert_eq!(call.body, json!({ "key": KEY, "instance_name": "LAPTOP" }));
    chat_on(&gateway, KEY, Some("ins_1")).await.ok();
    chat_on(&gateway, KEY, None).await.is(403, "device_limit");
    // An event names product or customer, never the key.
    vendor.says(|_| {
        let mut license = creem_license("ins_1");
        license["status"] = "disabled".into();
        told(200, license)
    });
    let body = json!({
        "id": "evt_1", "eventType": "refund.created",
        "object": { "customer": { "id": "cust_1" }, "product": "prod_1" },
    })
    .to_string();
    let mut mac = Hmac::<Sha256>::new_from_slice(b"creem_secret_0123456789").unwrap();
    mac.update(body.as_bytes());
    let hex: String = mac.finalize().into_bytes().iter().map(|b| format!("{b:02x}")).collect();
    let request = gateway.app().request("POST", "/webhooks/creem");
    Answer::of(request.header("creem-signature", hex).body(body)).await.ok();
    chat_on(&gateway, KEY, Some("ins_1")).await.is(403, "license_disabled");
}

#[tokio::test]
async fn a_place_at_another_seller_is_given_back() {
    let mock = Mock::start(Reply::chat()).await;
    let vendor = Vendor::open(|call| match call.path.as_str() {
        "/licenses/validate" => told(200, json!({ "valid": true })),
        "/licenses/activate" => told(201, dodo_activated("bus_2")),
        _ => (200, String::new()),
    })
    .await;
    let members = [("products", "{ pdt_1: pro }"), ("business_id", "bus_1")];
    let config = sold_by(&mock, "dodo", &vendor, &members).plan("pro", REQUIRED);
    let gateway = Gateway::start(config).await;
    chat_on(&gateway, KEY, None).await.is(403, "device_limit");
    activate(&gateway, KEY, "LAPTOP").await.is(403, "license_wrong_product");
    let last = vendor.calls().pop().unwrap();
    assert!(last.is("POST", "/licenses/deactivate"));
    assert_eq!(last.body["license_key_instance_id"], "lki_1");
}

fn dodo_activated(business: &str) -> Value {
    json!({
        "id": "lki_1", "business_id": business, "license_key_id": "lic_1", "name": "gatekeeper",
        "customer": { "customer_id": "cus_1", "email": "maren@example.com" },
        "product": { "product_id": "pdt_1", "name": "JStar" }, "created_at": "2026-01-01T00:00:00Z",
    })
}

#[tokio::test]
async fn dodo_is_activated_once_and_then_asked_by_the_id() {
    let mock = Mock::start(Reply::chat()).await;
    let record = |status: &str| {
        json!({
            "id": "lic_1", "business_id": "bus_1", "customer_id": "cus_1", "key": KEY, "product_id": "pdt_1",
            "status": status, "instances_count": 1, "activations_limit": null, "expires_at": null,
            "payment_id": "pay_1", "subscription_id": null,
        })
    };
    let vendor = Vendor::open(move |call| match call.method.as_str() {
        "POST" => told(201, dodo_activated("bus_1")),
        _ => told(200, record("active")),
    })
    .await;
    let members =
        [("api_key", "\"env:OUR_KEY\""), ("products", "{ pdt_1: pro }"), ("business_id", "bus_1")];
    let config = sold_by(&mock, "dodo", &vendor, &members).webhook_secret("dodo", SECRET);
    let gateway = Gateway::start(config).await;
    gateway.app().chat_as(KEY).await.ok();
    assert!(vendor.calls()[0].is("POST", "/licenses/activate"));
    assert_eq!(vendor.calls()[0].body, json!({ "license_key": KEY, "name": "gatekeeper" }));
    vendor.says(move |_| told(200, record("disabled")));
    let refund = json!({
        "business_id": "bus_1", "type": "refund.succeeded", "timestamp": "2026-11-24T09:00:00Z",
        "data": { "payment_id": "pay_1", "customer": { "customer_id": "cus_1" } },
    });
    event(&gateway, "dodo", "evt_1", &refund).await.ok();
    gateway.app().chat_as(KEY).await.is(403, "license_disabled");
    let last = vendor.calls().pop().unwrap();
    assert!(last.is("GET", "/license_keys/lic_1"));
    assert_eq!(last.header("authorization"), Some("Bearer our-own-key"));
}

fn keygen_license() -> Value {
    json!({
        "meta": { "valid": true, "code": "VALID", "detail": "is valid", "ts": "2026-11-24T09:00:00Z" },
        "data": {
            "id": "lic-1", "type": "licenses",
            "attributes": { "key": KEY, "expiry": null, "maxMachines": 2 },
            "relationships": {
                "product": { "data": { "type": "products", "id": "prod-1" } },
                "policy": { "data": { "type": "policies", "id": "pol-1" } },
                "machines": { "meta": { "count": 0 } },
            },
        },
    })
}

#[tokio::test]
async fn keygen_counts_machines() {
    let mock = Mock::start(Reply::chat()).await;
    let vendor = Vendor::open(|call| match (call.method.as_str(), call.path.as_str()) {
        ("POST", "/v1/accounts/acme/machines") => told(201, json!({ "data": call.body["data"] })),
        ("DELETE", _) => (204, String::new()),
        _ if call.body["meta"]["scope"]["fingerprint"].is_string() => {
            let mut license = keygen_license();
            license["meta"]["valid"] = false.into();
            license["meta"]["code"] = "FINGERPRINT_SCOPE_MISMATCH".into();
            told(200, license)
        }
        _ => told(200, keygen_license()),
    })
    .await;
    let members = [("account", "acme"), ("product", "prod-1"), ("policies", "{ pol-1: pro }")];
    let config = sold_by(&mock, "keygen", &vendor, &members).plan("pro", REQUIRED);
    let gateway = Gateway::start(config).await;
    chat_on(&gateway, KEY, None).await.is(403, "device_limit");
    let call = &vendor.calls()[0];
    assert!(call.is("POST", "/v1/accounts/acme/licenses/actions/validate-key"));
    assert_eq!(call.header("content-type"), Some("application/vnd.api+json"));
    assert_eq!(call.body["meta"], json!({ "key": KEY, "scope": { "product": "prod-1" } }));
    let activated = activate(&gateway, KEY, "LAPTOP").await;
    let id = activated.ok().json()["instance_id"].as_str().unwrap().to_owned();
    let machine = vendor.calls().pop().unwrap();
    assert_eq!(machine.header("authorization"), Some(&*format!("License {KEY}")));
    assert_eq!(machine.body["data"]["attributes"]["fingerprint"], *id);
    chat_on(&gateway, KEY, Some(&id)).await.ok();
    deactivate(&gateway, KEY, &id).await.ok();
    chat_on(&gateway, KEY, Some(&id)).await.is(403, "device_limit");
}

const FREEMIUS: Members<'_> =
    &[("product_id", "1234"), ("token", "\"env:OUR_KEY\""), ("plans", "{ \"90\": pro }")];

fn freemius_license(key: &str) -> Value {
    json!({
        "id": "4711", "plugin_id": "1234", "user_id": "77", "plan_id": "90", "quota": 3, "activated": 1,
        "expiration": null, "secret_key": key, "is_block_features": true, "is_cancelled": false,
        "environment": 0,
    })
}

/// Its keys hold what an address, a form or a log would read as something else.
#[tokio::test]
async fn freemius_is_searched_once_then_asked_by_the_id_and_an_event_ends_a_licence() {
    const ODD: &str = "sk_123FGqM456Pa786WtOp%^+67Y+;sXX";
    let mock = Mock::start(Reply::chat()).await;
    let vendor = Vendor::open(|_| told(200, json!({ "licenses": [freemius_license(ODD)] }))).await;
    let config = sold_by(&mock, "freemius", &vendor, FREEMIUS).webhook_secret("freemius", SECRET);
    let gateway = Gateway::start(config).await;
    gateway.app().chat_as(ODD).await.ok();
    let search = &vendor.calls()[0];
    let (path, query) = search.path.split_once('?').unwrap();
    assert_eq!((search.method.as_str(), path), ("GET", "/v1/products/1234/licenses.json"));
    let asked: Vec<_> = url::form_urlencoded::parse(query.as_bytes()).collect();
    assert_eq!(asked, [("search".into(), ODD.into())]);
    assert_eq!(search.header("authorization"), Some("Bearer our-own-key"));
    vendor.says(|_| {
        let mut license = freemius_license(ODD);
        license["is_cancelled"] = true.into();
        told(200, license)
    });
    let cancelled = json!({
        "id": "1", "type": "license.cancelled", "plugin_id": "1234",
        "objects": { "license": { "id": "4711" } },
    });
    let body = cancelled.to_string();
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.update(body.as_bytes());
    let signature: String =
        mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    let send = |signature: String, body: String| {
        let request = gateway.app().request("POST", "/webhooks/freemius");
        Answer::of(request.header("x-signature", signature).body(body))
    };
    send(signature.replace(|digit: char| digit.is_ascii_digit(), "0"), body.clone())
        .await
        .is(401, "license_missing");
    gateway.app().chat_as(ODD).await.ok();
    send(signature, body).await.ok();
    gateway.app().chat_as(ODD).await.is(403, "license_disabled");
    assert!(vendor.calls()[1].is("GET", "/v1/products/1234/licenses/4711.json"));
    let logs = gateway.logs();
    assert!(!logs.contains("sk_123FGqM") && !logs.contains("our-own-key"), "{logs}");
}

const PAYHIP: Members<'_> = &[("secret", "\"env:OUR_KEY\""), ("products", "{ mVT0: pro }")];

fn payhip_license(key: &str) -> Value {
    json!({ "data": {
        "enabled": true, "product_link": "mVT0", "license_key": key,
        "buyer_email": "maren@example.com", "uses": 0, "date": "2026-02-22T11:23:05+00:00",
    } })
}

/// An empty answer is Payhip's refusal, and what a broken proxy sends: it never ends a licence that is known.
#[tokio::test]
async fn an_empty_answer_of_payhip_refuses_a_stranger_and_never_a_buyer() {
    let mock = Mock::start(Reply::chat()).await;
    let vendor = Vendor::open(|_| told(200, payhip_license(KEY))).await;
    let config = sold_by(&mock, "payhip", &vendor, PAYHIP).cache("fresh: 1s, stale: 1h");
    let gateway = Gateway::start(config).await;
    gateway.app().chat_as(KEY).await.ok();
    let call = &vendor.calls()[0];
    assert!(call.is("GET", &format!("/api/v2/license/verify?license_key={KEY}")), "{}", call.path);
    assert_eq!(call.header("product-secret-key"), Some("our-own-key"));
    vendor.says(|_| (200, String::new()));
    gateway.app().chat_as("AAAAA-BBBBB-CCCCC-DDDDD").await.is(403, "license_invalid");
    eventually("the buyer is asked about again", SOON, || async {
        gateway.app().chat_as(KEY).await.ok();
        vendor.calls().iter().filter(|call| call.path.contains(KEY)).count() >= 2
    })
    .await;
    gateway.app().chat_as(KEY).await.ok();
    vendor.says(|_| {
        let mut license = payhip_license(KEY);
        license["data"]["enabled"] = false.into();
        told(200, license)
    });
    eventually("a refund ends it", SOON, || async {
        gateway.app().chat_as(KEY).await.error("code") == "license_disabled"
    })
    .await;
    assert!(!gateway.logs().contains("our-own-key"));
}

#[tokio::test]
async fn a_server_of_ones_own_is_asked_and_tells_what_changed() {
    let mock = Mock::start(Reply::chat()).await;
    let valid =
        || told(200, json!({ "verdict": "valid", "plan": "pro", "id": "42", "max_devices": 1 }));
    let vendor = Vendor::open(move |_| valid()).await;
    let members = [("token", "\"env:OUR_KEY\"")];
    let config = sold_by(&mock, "http", &vendor, &members).webhook_secret("http", SECRET);
    let gateway = Gateway::start(config.plan("pro", REQUIRED)).await;
    let activated = activate(&gateway, KEY, "LAPTOP").await;
    assert_eq!(activated.ok().json()["devices"], json!({ "used": 1, "max": 1 }));
    let id = activated.json()["instance_id"].as_str().unwrap().to_owned();
    chat_on(&gateway, KEY, Some(&id)).await.ok();
    activate(&gateway, KEY, "DESKTOP").await.is(403, "device_limit");
    assert_eq!(vendor.calls()[0].body, json!({ "key": KEY }));
    for (name, by, code) in [
        ("refunded", json!({ "id": "42" }), "license_refunded"),
        ("expired", json!({ "data": { "keys": [KEY.to_lowercase()] } }), "license_expired"),
    ] {
        vendor.says(move |_| told(200, json!({ "verdict": name, "plan": "pro", "id": "42" })));
        event(&gateway, "http", name, &by).await.ok();
        chat_on(&gateway, KEY, Some(&id)).await.is(403, code);
    }
    event(&gateway, "http", "nothing", &json!({})).await.is(400, "invalid_request");
    let forged = gateway.app().request("POST", "/webhooks/http").body("{}");
    Answer::of(forged).await.is(401, "license_missing");
}

/// A process that ends with its test.
struct Ends(std::process::Child);

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn the_example_of_a_licence_server_works_with_its_configuration() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/licence-server");
    let dir = tempfile::tempdir().unwrap();
    let list = dir.path().join("licences.json");
    std::fs::copy(root.join("licences.json"), &list).unwrap();
    let port = crate::support::gateway::free_port();
    let mock = Mock::start(Reply::chat()).await;
    let config = Config::new(&mock)
        .plan("pro", PLENTY)
        .env("OUR_KEY", "our-own-key")
        .of_shop("http", "url", &format!("\"http://127.0.0.1:{port}/licence\""))
        .of_shop("http", "token", "\"env:OUR_KEY\"")
        .webhook_secret("http", "raw-secret-of-the-example");
    let gateway = Gateway::start(config).await;
    let webhook =
        gateway.app().request("POST", "/webhooks/http").build().unwrap().url().to_string();
    let server = std::process::Command::new("node")
        .arg(root.join("server.js"))
        .envs([("TOKEN", "our-own-key"), ("SECRET", "raw-secret-of-the-example")])
        .env("LICENCES", &list)
        .env("PORT", port.to_string())
        .env("WEBHOOK", webhook)
        .spawn()
        .expect("node runs the examples");
    let _server = Ends(server);
    eventually("the server listens", SOON, || async {
        tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok()
    })
    .await;
    let (good, refunded) = ("INKWELL-0001-9F3K2M7QXT", "INKWELL-0002-4D8W6PVB2H");
    gateway.app().chat_as(good).await.ok();
    gateway.app().chat_as(refunded).await.is(403, "license_refunded");
    gateway.app().chat_as("INKWELL-0003-NOBODY").await.is(403, "license_invalid");
    let text = std::fs::read_to_string(&list).unwrap();
    std::fs::write(&list, text.replacen("\"valid\"", "\"disabled\"", 1)).unwrap();
    eventually("the change is told", SOON, || async {
        gateway.app().chat_as(good).await.status == 403
    })
    .await;
}

/// A tenth here; all of them in `make soak`.
fn first_requests() -> usize {
    std::env::var("GATEKEEPER_FIRST_REQUESTS").map_or(100, |text| text.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_first_requests_over_two_gateways_are_one_call_to_each_shop() {
    let (mock, redis) = (Mock::start(Reply::chat()).await, Redis::start().await);
    let keygen = [("account", "acme"), ("product", "prod-1"), ("policies", "{ pol-1: pro }")];
    let dodo =
        [("api_key", "\"env:OUR_KEY\""), ("products", "{ pdt_1: pro }"), ("business_id", "bus_1")];
    let creem = [("api_key", "\"env:OUR_KEY\""), ("products", "{ prod_1: pro }")];
    let polar = [("organization_id", "org-1"), ("benefits", "{ ben-1: pro }")];
    let kinds: [(&str, Members<'_>, VendorAnswer); 7] = [
        ("keygen", &keygen, told(200, keygen_license())),
        ("dodo", &dodo, told(200, dodo_activated("bus_1"))),
        ("creem", &creem, told(200, creem_license("ins_1"))),
        ("polar", &polar, told(200, polar_license("granted"))),
        ("http", &[], told(200, json!({ "verdict": "valid", "plan": "pro" }))),
        ("freemius", FREEMIUS, told(200, json!({ "licenses": [freemius_license(KEY)] }))),
        ("payhip", PAYHIP, told(200, payhip_license(KEY))),
    ];
    for (place, (kind, members, good)) in kinds.into_iter().enumerate() {
        // A licence of its own for each shop: they share the store.
        let key = format!("JSTAR-3F2A9C1E-7B4D-4E8A-9D60-5C1B8E7F2A{:02}", place + 10);
        let answer = (good.0, good.1.replace(KEY, &key));
        let vendor = Vendor::open(move |_| answer.clone()).await;
        let config = sold_by(&mock, kind, &vendor, members).redis(&redis.url());
        let config = config.plan("pro", "models: [\"*\"], concurrency: unlimited");
        let gateways = shared_ledger::start(2, config).await;
        let mut asking = tokio::task::JoinSet::new();
        for turn in 0..first_requests() {
            let (app, key) = (gateways[turn % 2].app(), key.clone());
            asking.spawn(async move {
                let request = app.get("/v1/me").bearer_auth(key).header("x-instance-id", "ins_1");
                request.send().await.unwrap().status()
            });
        }
        while let Some(status) = asking.join_next().await {
            assert_eq!(status.unwrap(), 200, "{kind}");
        }
        assert_eq!(vendor.calls().len(), 1, "{kind}");
    }
}

#[tokio::test]
async fn check_online_asks_each_source_once_and_says_what_is_wrong() {
    let mock = Mock::start(Reply::chat()).await;
    let members = [("api_key", "\"env:CARGO_PKG_NAME\""), ("products", "{ prod_1: pro }")];
    let missing = |_: &VendorCall| {
        told(404, json!({ "trace_id": "t", "status": 404, "error": "Bad Request" }))
    };
    let vendor = Vendor::open(missing).await;
    let config = sold_by(&mock, "creem", &vendor, &members).plan("pro", REQUIRED);
    let dir = tempfile::tempdir().unwrap();
    config.file(dir.path());
    let check = || async {
        let dir = dir.path().to_owned();
        let args = ["check", "-c", "gatekeeper.yaml", "--online"];
        let asked = tokio::task::spawn_blocking(move || crate::support::run(&args, &dir));
        let output = asked.await.unwrap();
        (output.status.success(), String::from_utf8(output.stdout).unwrap())
    };
    let (is_good, said) = check().await;
    assert!(is_good && said.contains("creem: good"), "{said}");
    assert_eq!(vendor.calls().len(), 1);
    vendor.says(|_| told(403, json!({ "trace_id": "t", "status": 403, "error": "Forbidden" })));
    let (is_good, said) = check().await;
    assert!(!is_good && said.contains("creem.api_key"), "{said}");
    assert_eq!(vendor.calls().len(), 2);
}
