use super::*;

/// With a key of the seller's own list. <https://help.payhip.com/article/317-software-license-keys-new>
pub const PAYHIP: &str = r#"{"data":{"enabled":true,"product_link":"mVT0","license_key":"JSTAR-3F2A9C1E-7B4D-4E8A-9D60-5C1B8E7F2A34","buyer_email":"maren@example.com","uses":0,"date":"2026-02-22T11:23:05+00:00"}}"#;

pub fn payhip_source() -> ShopSource {
    ShopSource { products: product("mVT0"), api_key: secret("prod_sk_x"), ..source("payhip") }
}

#[test]
fn payhip() {
    let change = |path: &str, value| with(PAYHIP, path, value);
    let mut cases = noise(PAYHIP);
    cases.extend([
        case("valid", 200, PAYHIP, Valid),
        case(
            "disabled",
            200,
            change("/data/enabled", json!(false)),
            Invalid(Code::LicenseDisabled),
        ),
        case(
            "other product",
            200,
            change("/data/product_link", json!("abc1")),
            Invalid(Code::LicenseWrongProduct),
        ),
        case("wrong types", 200, change("/data/enabled", json!("true")), Unknown),
        case("wrong types", 200, change("/data/enabled", json!(1)), Unknown),
        case("wrong types", 200, change("/data/product_link", Value::Null), Unknown),
        // An answer about another key is none about this one.
        case("wrong types", 200, change("/data/license_key", json!("AAAAA-AAAAA")), Unknown),
        case("our key wrong", 401, "", Alarm),
        case("our key wrong", 403, r#"{"message":"forbidden"}"#, Alarm),
        // The same empty answer as below: of a licence that is known it is no refusal.
        case("unknown", 200, "", Unknown),
    ]);
    let absent = [
        ("expired", "its keys have no end"),
        ("refunded", "a refund disables the key"),
        ("other seller", "the secret sees its own product only"),
        ("test mode", "there is none"),
    ];
    let known = ShopLicense::new(by_name("payhip").unwrap(), Status::Active);
    let asked = Asked { known: Some(&known), ..Asked::about(POLAR_KEY) };
    check(&payhip_source(), &asked, cases, &absent);
    let stranger = Asked::about(POLAR_KEY);
    for (status, wanted) in [(200, NotFound), (400, NotFound), (500, Unknown)] {
        let answer = case("unknown", status, "", wanted);
        assert_eq!(means(&payhip_source(), &stranger, &answer), wanted, "{status}");
    }
    let page = "<html><body></body></html>";
    assert_eq!(means(&payhip_source(), &stranger, &case("HTML", 200, page, Unknown)), Unknown);
}

#[test]
fn the_key_and_the_secret_of_payhip_are_no_part_of_what_is_logged() {
    let source = payhip_source();
    let request = source.shop.request(&source, &Asked::about(POLAR_KEY)).unwrap();
    assert_eq!(request.query, Some(("license_key", POLAR_KEY.to_owned())));
    let shown = format!("{request:?}");
    assert!(!shown.contains("JSTAR") && !shown.contains("prod_sk"), "{shown}");
}
