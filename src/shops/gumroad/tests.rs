use gatekeeper_filters::kernel::Code;
use serde_json::json;

use super::*;
use crate::shops::{
    LicenseVerdict,
    tests::{NOW, answer, hash, plan, source},
};

const PRODUCT: &str = "7Hn-wQx3LdTz5BpKcYfRjA==";

fn account() -> ShopSource {
    let variants = crate::shops::Variants {
        named: vec![("(Pro)".into(), plan("pro"))],
        other: Some(plan("basic")),
    };
    ShopSource { products: vec![(PRODUCT.into(), variants)], ..source("gumroad") }
}

fn read(status: u16, body: impl Into<Vec<u8>>) -> ShopReply {
    let asked = Asked { subject: PRODUCT, ..Asked::about("KEY") };
    Shop::read(&Gumroad, &account(), &asked, &answer(status, body), &hash())
}

fn judged(status: u16, body: impl Into<Vec<u8>>) -> LicenseVerdict {
    match read(status, body) {
        ShopReply::License(license) => Gumroad.judge(&license, &account(), NOW),
        reply => panic!("{reply:?}"),
    }
}

/// The membership's fixture with some members replaced.
fn changed(change: impl FnOnce(&mut Value)) -> LicenseVerdict {
    let fixture = include_str!("../../../tests/fixtures/shops/gumroad_valid.json");
    let mut body: Value = serde_json::from_str(fixture).unwrap();
    change(&mut body["purchase"]);
    judged(200, body.to_string())
}

#[test]
fn a_variant_finds_its_plan() {
    let name = |verdict| match verdict {
        LicenseVerdict::Valid { plan, .. } => plan.name.to_string(),
        verdict => panic!("{verdict:?}"),
    };
    assert_eq!(name(changed(|_| {})), "pro");
    assert_eq!(name(changed(|purchase| purchase["variants"] = json!("(Other)"))), "basic");
    let once = include_str!("../../../tests/fixtures/shops/gumroad_valid_onetime.json");
    assert_eq!(name(judged(200, once)), "basic");
}

#[test]
fn an_end_that_lies_ahead_cuts_nobody_off() {
    for date in ["subscription_ended_at", "subscription_cancelled_at", "subscription_failed_at"] {
        let ahead = changed(|purchase| purchase[date] = json!("2026-12-02T09:14:55Z"));
        let LicenseVerdict::Valid { until, .. } = ahead else { panic!("{date}") };
        assert_eq!(&*until.unwrap().to_rfc3339(), "2026-12-02T09:14:55Z");
        let past = changed(|purchase| purchase[date] = json!("2026-11-24T09:00:00Z"));
        assert_eq!(past, LicenseVerdict::Invalid(Code::LicenseExpired), "{date}");
    }
}

#[test]
fn success_true_is_not_enough() {
    let refunded = LicenseVerdict::Invalid(Code::LicenseRefunded);
    assert_eq!(changed(|purchase| purchase["refunded"] = json!(true)), refunded);
    assert_eq!(changed(|purchase| purchase["chargebacked"] = json!(true)), refunded);
    assert_eq!(changed(|purchase| purchase["disputed"] = json!(true)), refunded);
    let won = changed(|purchase| {
        purchase["disputed"] = json!(true);
        purchase["dispute_won"] = json!(true);
    });
    assert!(won.is_valid());
    let test = changed(|purchase| purchase["test"] = json!(true));
    assert_eq!(test, LicenseVerdict::Invalid(Code::LicenseInvalid));
    let other = changed(|purchase| purchase["product_id"] = json!("other=="));
    assert_eq!(other, LicenseVerdict::Invalid(Code::LicenseWrongProduct));
}

#[test]
fn buyers_who_were_imported_are_buyers() {
    let fixture = include_str!("../../../tests/fixtures/shops/gumroad_valid.json");
    let mut body: Value = serde_json::from_str(fixture).unwrap();
    body["imported_customer"] = body["purchase"].take();
    assert!(judged(200, body.to_string()).is_valid());
}

#[test]
fn a_no_is_read_from_its_words_and_an_outage_is_no_no() {
    let no = |message: &str| json!({"success": false, "message": message}).to_string();
    assert_eq!(
        judged(404, no("This license key has been disabled.")),
        LicenseVerdict::Invalid(Code::LicenseDisabled)
    );
    let revoked = no("Access to the purchase associated with this license has expired.");
    assert_eq!(judged(404, revoked), LicenseVerdict::Invalid(Code::LicenseExpired));
    let of = |status, body: String| read(status, body);
    let missing = no("That license does not exist for the provided product.");
    assert_eq!(of(404, missing.clone()), ShopReply::NotFound);
    let ours = no("The 'product_id' parameter is required to verify the license for this product.");
    assert!(matches!(of(500, ours), ShopReply::Unknown(ShopError::Misconfigured(_))));
    for (status, body) in
        [(404, "<html>".into()), (500, missing.clone()), (200, missing), (200, "{}".into())]
    {
        assert!(matches!(of(status, body), ShopReply::Unknown(ShopError::Down(_))), "{status}");
    }
}

#[test]
fn nothing_about_the_buyer_is_kept() {
    let fixture = include_str!("../../../tests/fixtures/shops/gumroad_valid.json");
    let reply = read(200, fixture);
    let ShopReply::License(facts) = reply else { panic!() };
    let kept = serde_json::to_string(&facts).unwrap();
    for buyer in ["maren", "85DB562A", "4242", "731904482", "5550321502811", "mN4kZ"] {
        assert!(!kept.contains(buyer), "{buyer} in {kept}");
    }
}

#[test]
fn a_word_of_the_wrong_type_is_no_answer() {
    let said = |change: &dyn Fn(&mut Value)| {
        let fixture = include_str!("../../../tests/fixtures/shops/gumroad_valid_onetime.json");
        let mut body: Value = serde_json::from_str(fixture).unwrap();
        change(&mut body["purchase"]);
        read(200, body.to_string())
    };
    for member in ["refunded", "chargebacked", "disputed", "dispute_won", "test"] {
        for wrong in [json!("true"), json!("false"), json!(1), json!(0), json!([]), json!({})] {
            let reply = said(&|purchase| {
                purchase["disputed"] = json!(true);
                purchase[member] = wrong.clone();
            });
            assert!(matches!(reply, ShopReply::Unknown(_)), "{member} = {wrong}: {reply:?}");
        }
    }
    let silent = said(&|purchase| drop(purchase.as_object_mut().unwrap().remove("refunded")));
    assert!(matches!(silent, ShopReply::Unknown(_)), "{silent:?}");
    let single = said(&|purchase| drop(purchase.as_object_mut().unwrap().remove("chargebacked")));
    assert!(matches!(single, ShopReply::License(_)), "{single:?}");
}
