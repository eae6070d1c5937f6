use gatekeeper_filters::kernel::Code;
use serde_json::json;

use super::*;
use crate::shops::{
    LicenseVerdict,
    tests::{NOW, answer, hash, plan, source},
};

fn store() -> ShopSource {
    let variants =
        crate::shops::Variants { named: vec![("912744".into(), plan("pro"))], other: None };
    ShopSource {
        seller: Some("58213".into()),
        products: vec![("588102".into(), variants)],
        ..source("lemonsqueezy")
    }
}

fn judge(license: &ShopLicense, source: &ShopSource) -> LicenseVerdict {
    LemonSqueezy.judge(license, source, NOW)
}

/// The valid fixture with some members replaced.
fn changed(change: impl FnOnce(&mut Value)) -> LicenseVerdict {
    let fixture = include_str!("../../../tests/fixtures/shops/lemonsqueezy_valid.json");
    let mut body: Value = serde_json::from_str(fixture).unwrap();
    change(&mut body);
    match read(&answer(200, body.to_string()), "valid", &hash()) {
        ShopReply::License(license) => judge(&license, &store()),
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
        seller: "58213".into(),
        product: Some("588102".into()),
        variant: Some("5".into()),
        test: true,
        ..ShopLicense::new(&LemonSqueezy, Status::Active)
    };
    let LicenseVerdict::Valid { plan, .. } = judge(&facts, &store) else { panic!() };
    assert_eq!(&*plan.name, "basic");
}

#[test]
fn only_a_boolean_valid_says_anything_about_a_key() {
    let down = |status, body: &str| read(&answer(status, body), "valid", &hash());
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
    let ShopReply::License(facts) = read(&answer(200, fixture), "valid", &hash()) else { panic!() };
    let kept = serde_json::to_string(&facts).unwrap();
    for buyer in ["maren", "Maren", "3F2A9C1E", "6120947", "7240158"] {
        assert!(!kept.contains(buyer), "{buyer} in {kept}");
    }
}

#[test]
fn device_answers_tell_device_and_licence_apart() {
    let read = |status, flag: &str, body: &str| read_instance(&answer(status, body), flag, &hash());
    let activated = include_str!("../../../tests/fixtures/shops/lemonsqueezy_activated.json");
    let InstanceReply { reply, instance: device } = read(200, "activated", activated);
    assert_eq!(device, Instance::Is("b1f0c6d2-4a7e-4c39-8f15-92d3e7a6c480".into()));
    assert!(matches!(reply, ShopReply::License(_)));

    let full = include_str!("../../../tests/fixtures/shops/lemonsqueezy_activation_limit.json");
    let InstanceReply { reply, instance: device } = read(400, "activated", full);
    assert_eq!(device, Instance::Full);
    let ShopReply::License(facts) = reply else { panic!("{reply:?}") };
    assert!(judge(&facts, &store()).is_valid(), "the licence itself is good");

    let unknown = r#"{"valid":false,"error":"instance_id not found.","license_key":null}"#;
    let InstanceReply { reply, instance: device } = read(404, "valid", unknown);
    assert_eq!(device, Instance::IsNot);
    assert!(matches!(reply, ShopReply::Unknown(_)), "it says nothing of the licence");

    let gone = include_str!("../../../tests/fixtures/shops/lemonsqueezy_deactivated.json");
    assert_eq!(read(200, "deactivated", gone).instance, Instance::Released);
    assert_eq!(read(500, "valid", "<html>").instance, Instance::Unsaid);
}

#[test]
fn a_word_of_the_wrong_type_is_no_answer() {
    let said = |member: &str, value: Value| {
        let fixture = include_str!("../../../tests/fixtures/shops/lemonsqueezy_valid.json");
        let mut body: Value = serde_json::from_str(fixture).unwrap();
        body["license_key"][member] = value;
        read(&answer(200, body.to_string()), "valid", &hash())
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
        ShopReply::License(facts) => facts.status,
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
