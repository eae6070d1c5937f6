use std::sync::Arc;

use bytes::Bytes;
use gatekeeper_filters::kernel::{OnDisconnect, Plan};
use serde_json::json;

use super::*;
use crate::{
    config::{base_url, settings::Variants},
    licenses::shop_license::ShopLicense as AnyFacts,
};

const NOW: UnixMs = UnixMs(1_795_510_800_000); // 2026-11-24T09:00:00Z

pub fn plan(name: &str) -> Arc<Plan> {
    Arc::new(Plan {
        name: name.into(),
        messages: None,
        tokens: None,
        rate: None,
        concurrency: None,
        concurrency_is_default: false,
        models: gatekeeper_filters::kernel::ModelSet::All,
        max_output_tokens: None,
        min_output_tokens: 256,
        max_input_tokens: None,
        devices_required: false,
        max_devices: None,
        on_disconnect: OnDisconnect::default(),
        upgrade_url: None,
    })
}

fn store() -> LemonSqueezy {
    LemonSqueezy {
        base: base_url::parse("https://api.lemonsqueezy.com", false).unwrap(),
        store_id: 58_213,
        products: vec![(588_102, Variants { named: vec![(912_744, plan("pro"))], other: None })],
        test_mode: false,
        webhook_secret: None,
    }
}

fn hasher() -> KeyedHash {
    KeyedHash::new(&[7; 32])
}

fn answer(status: u16, body: impl Into<Vec<u8>>) -> ShopResponse {
    ShopResponse { status, retry_after: None, body: Bytes::from(body.into()) }
}

/// The valid fixture with some members replaced.
fn changed(change: impl FnOnce(&mut Value)) -> LicenseVerdict {
    let fixture = include_str!("../../../tests/fixtures/shops/lemonsqueezy_valid.json");
    let mut body: Value = serde_json::from_str(fixture).unwrap();
    change(&mut body);
    match read(&answer(200, body.to_string()), "valid", &hasher()) {
        ShopReply::ShopLicense(AnyFacts::LemonSqueezy(facts)) => judge(&facts, &store(), NOW),
        reply => panic!("{reply:?}"),
    }
}

#[test]
fn a_licence_of_ours_has_the_plan_of_its_variant_until_it_expires() {
    let LicenseVerdict::Valid { plan, until } = changed(|_| {}) else { panic!() };
    assert_eq!(&*plan.name, "pro");
    assert_eq!(&*until.unwrap().to_rfc3339(), "2027-03-02T09:14:55Z");
    let never = changed(|body| body["license_key"]["expires_at"] = Value::Null);
    assert!(matches!(never, LicenseVerdict::Valid { until: None, .. }));
    let unused = changed(|body| body["license_key"]["status"] = json!("inactive"));
    assert!(unused.is_valid(), "no activation yet");
}

#[test]
fn what_is_not_ours_or_no_longer_good_is_refused() {
    let cases: [(&str, &str, Value, Code); 9] = [
        ("meta", "store_id", json!(1), Code::LicenseWrongProduct),
        ("meta", "product_id", json!(1), Code::LicenseWrongProduct),
        ("meta", "variant_id", json!(1), Code::LicenseWrongProduct),
        ("license_key", "test_mode", json!(true), Code::LicenseInvalid),
        ("license_key", "status", json!("disabled"), Code::LicenseDisabled),
        ("license_key", "status", json!("expired"), Code::LicenseExpired),
        ("license_key", "expires_at", json!("2026-11-24T09:00:00.000000Z"), Code::LicenseExpired),
        ("license_key", "expires_at", json!("2026-11-23T00:00:00Z"), Code::LicenseExpired),
        ("meta", "store_id", json!("58214"), Code::LicenseWrongProduct),
    ];
    for (part, member, value, code) in cases {
        let verdict = changed(|body| body[part][member] = value.clone());
        assert_eq!(verdict, LicenseVerdict::Invalid(code), "{part}.{member} = {value}");
    }
    let no = changed(|body| body["valid"] = json!(false));
    assert_eq!(no, LicenseVerdict::Invalid(Code::LicenseInvalid), "a no without a reason");
}

#[test]
fn a_variant_that_is_any_other_and_test_mode_where_it_is_meant() {
    let mut store = store();
    store.products[0].1.other = Some(plan("basic"));
    store.test_mode = true;
    let facts = ShopLicense {
        status: Status::Active,
        store: 58_213,
        product: 588_102,
        variant: 5,
        test_mode: true,
        expires: None,
        order: None,
        activation_limit: None,
        activations: 0,
    };
    let LicenseVerdict::Valid { plan, .. } = judge(&facts, &store, NOW) else { panic!() };
    assert_eq!(&*plan.name, "basic");
}

#[test]
fn only_a_boolean_valid_says_anything_about_a_key() {
    let down = |status, body: &str| read(&answer(status, body), "valid", &hasher());
    let not_found = r#"{"valid":false,"error":"license_key not found."}"#;
    assert_eq!(down(404, not_found), ShopReply::NotFound);
    assert_eq!(down(200, not_found), ShopReply::NotFound);
    for (status, body) in [
        (500, not_found),
        (502, "<html>"),
        (200, "<html>"),
        (200, "{}"),
        (200, r#"{"valid":"true"}"#),
        (200, r#"{"valid":true}"#),
        (422, r#"{"message":"The license key field is required."}"#),
        (429, r#"{"message":"Too Many Attempts."}"#),
        (404, r#"{"message":"Not Found"}"#),
        (301, not_found),
    ] {
        assert!(matches!(down(status, body), ShopReply::Unknown(_)), "{status} {body}");
    }
    let odd = r#"{"valid":true,"license_key":{"status":"active","expires_at":"soon"},"meta":{}}"#;
    assert!(matches!(down(200, odd), ShopReply::Unknown(_)), "facts that can't be read");
}

#[test]
fn nothing_about_the_buyer_is_kept() {
    let fixture = include_str!("../../../tests/fixtures/shops/lemonsqueezy_valid.json");
    let ShopReply::ShopLicense(facts) = read(&answer(200, fixture), "valid", &hasher()) else {
        panic!()
    };
    let kept = serde_json::to_string(&facts).unwrap();
    for buyer in ["maren", "Maren", "3F2A9C1E", "6120947", "7240158"] {
        assert!(!kept.contains(buyer), "{buyer} in {kept}");
    }
}

#[test]
fn device_answers_tell_device_and_licence_apart() {
    let read = |status, flag: &str, body: &str| read_device(&answer(status, body), flag, &hasher());
    let activated = include_str!("../../../tests/fixtures/shops/lemonsqueezy_activated.json");
    let InstanceReply { reply, device } = read(200, "activated", activated);
    assert_eq!(device, Instance::Is("b1f0c6d2-4a7e-4c39-8f15-92d3e7a6c480".into()));
    assert!(matches!(reply, ShopReply::ShopLicense(_)));

    let full = include_str!("../../../tests/fixtures/shops/lemonsqueezy_activation_limit.json");
    let InstanceReply { reply, device } = read(400, "activated", full);
    assert_eq!(device, Instance::Full);
    let ShopReply::ShopLicense(AnyFacts::LemonSqueezy(facts)) = reply else { panic!("{reply:?}") };
    assert!(judge(&facts, &store(), NOW).is_valid(), "the licence itself is good");

    let unknown = r#"{"valid":false,"error":"instance_id not found.","license_key":null}"#;
    let InstanceReply { reply, device } = read(404, "valid", unknown);
    assert_eq!(device, Instance::IsNot);
    assert!(matches!(reply, ShopReply::Unknown(_)), "it says nothing of the licence");

    let gone = include_str!("../../../tests/fixtures/shops/lemonsqueezy_deactivated.json");
    assert_eq!(read(200, "deactivated", gone).device, Instance::Released);
    assert_eq!(read(500, "valid", "<html>").device, Instance::Unsaid);
}

#[test]
fn a_word_of_the_wrong_type_is_no_answer() {
    let said = |member: &str, value: Value| {
        let fixture = include_str!("../../../tests/fixtures/shops/lemonsqueezy_valid.json");
        let mut body: Value = serde_json::from_str(fixture).unwrap();
        body["license_key"][member] = value;
        read(&answer(200, body.to_string()), "valid", &hasher())
    };
    for wrong in [json!("true"), json!("false"), json!(1), json!(0), json!([])] {
        let reply = said("test_mode", wrong.clone());
        assert!(matches!(reply, ShopReply::Unknown(_)), "test_mode = {wrong}: {reply:?}");
    }
    for wrong in [json!("1"), json!(2), json!([])] {
        let reply = said("disabled", wrong.clone());
        assert!(matches!(reply, ShopReply::Unknown(_)), "disabled = {wrong}: {reply:?}");
    }
    let status = |reply| match reply {
        ShopReply::ShopLicense(AnyFacts::LemonSqueezy(facts)) => facts.status,
        other => panic!("{other:?}"),
    };
    for (value, expected) in [
        (json!(1), Status::Disabled),
        (json!(true), Status::Disabled),
        (json!(0), Status::Active),
        (json!(false), Status::Active),
        (Value::Null, Status::Active),
    ] {
        assert_eq!(status(said("disabled", value.clone())), expected, "{value}");
    }
}
