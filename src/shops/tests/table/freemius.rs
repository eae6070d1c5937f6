use super::*;

/// `License` of `schema.d.ts`, and `expiration` as <https://freemius.com/help/api/licenses> shows it.
pub const FREEMIUS: &str = r#"{"id":"4711","plugin_id":"1234","user_id":"77","plan_id":"90","pricing_id":"91","quota":3,"activated":1,"expiration":null,"secret_key":"sk_123FGqM456Pa786WtOp%^+67Y+;sXX","is_block_features":true,"is_cancelled":false,"environment":0,"created":"2026-01-01 00:00:00"}"#;
/// What a search finds of a key that was imported from another shop.
pub const FREEMIUS_FOUND: &str = r#"{"licenses":[{"id":"4711","plugin_id":"1234","user_id":"77","plan_id":"90","pricing_id":"91","quota":3,"activated":1,"expiration":null,"secret_key":"JSTAR-3F2A9C1E-7B4D-4E8A-9D60-5C1B8E7F2A34","is_block_features":true,"is_cancelled":false,"environment":0,"created":"2026-01-01 00:00:00"}]}"#;
pub const FREEMIUS_KEY: &str = "sk_123FGqM456Pa786WtOp%^+67Y+;sXX";

pub fn freemius_source() -> ShopSource {
    ShopSource {
        seller: Some("1234".into()),
        products: product("90"),
        api_key: secret("token"),
        ..source("freemius")
    }
}

#[test]
fn freemius() {
    let change = |path: &str, value| with(FREEMIUS, path, value);
    let error =
        r#"{"path":"/v1/","error":{"type":"","message":"x","code":"not_found","http":404}}"#;
    let past = || change("/expiration", json!("2025-12-31 23:59:59"));
    let lenient = || with(&past(), "/is_block_features", json!(false));
    let mut cases = noise(FREEMIUS);
    cases.extend([
        case("valid", 200, FREEMIUS, Valid),
        case("valid", 200, change("/expiration", json!("2027-12-31 23:59:59")), Valid),
        // Only updates end.
        case("valid", 200, lenient(), Valid),
        // Ids are numbers in some answers.
        case("valid", 200, change("/plugin_id", json!(1234)), Valid),
        case("unknown", 404, error, NotFound),
        case("expired", 200, past(), Invalid(Code::LicenseExpired)),
        case("disabled", 200, change("/is_cancelled", json!(true)), Invalid(Code::LicenseDisabled)),
        // The buyer got another key for the same licence.
        case(
            "disabled",
            200,
            change("/secret_key", json!("sk_another_key_of_the_licence")),
            Invalid(Code::LicenseDisabled),
        ),
        case(
            "other product",
            200,
            change("/plan_id", json!("92")),
            Invalid(Code::LicenseWrongProduct),
        ),
        case(
            "other seller",
            200,
            change("/plugin_id", json!("1235")),
            Invalid(Code::LicenseWrongProduct),
        ),
        case("test mode", 200, change("/environment", json!(1)), Invalid(Code::LicenseInvalid)),
        case("wrong types", 200, change("/environment", Value::Null), Unknown),
        case("wrong types", 200, change("/is_cancelled", json!(0)), Unknown),
        case("wrong types", 200, change("/is_block_features", Value::Null), Unknown),
        case("wrong types", 200, change("/expiration", json!("tomorrow")), Unknown),
        case("wrong types", 200, change("/plan_id", json!(["90"])), Unknown),
        case("our key wrong", 401, error, Alarm),
        case("our key wrong", 403, "", Alarm),
    ]);
    let absent = [("refunded", "a refund cancels the licence")];
    let known = ShopLicense {
        handle: Some("4711".into()),
        ..ShopLicense::new(by_name("freemius").unwrap(), Status::Active)
    };
    let asked = Asked { known: Some(&known), ..Asked::about(FREEMIUS_KEY) };
    check(&freemius_source(), &asked, cases, &absent);
    // An app that writes the key in other case asks about the same licence, and must not end it.
    let other_case = FREEMIUS_KEY.to_uppercase();
    let asked = Asked { key: &other_case, ..asked };
    assert_eq!(means(&freemius_source(), &asked, &case("valid", 200, FREEMIUS, Valid)), Valid);
}

/// The search is not exact: what it finds must be the key, letter for letter.
#[test]
fn a_search_at_freemius_finds_the_key_and_nothing_like_it() {
    let found = |licenses: Value| {
        let body = json!({ "licenses": licenses }).to_string();
        let case = case("valid", 200, body, Valid);
        means(&freemius_source(), &Asked::about(FREEMIUS_KEY), &case)
    };
    let license: Value = serde_json::from_str(FREEMIUS).unwrap();
    let mut other = license.clone();
    other["secret_key"] = json!(FREEMIUS_KEY.to_lowercase());
    assert_eq!(found(json!([other, license])), Valid);
    assert_eq!(found(json!([other])), NotFound);
    assert_eq!(found(json!([])), NotFound);
    // Without its keys a list says nothing.
    assert_eq!(found(json!([{ "id": "4711" }])), Unknown);
    assert_eq!(found(json!({})), Unknown);
}

#[test]
fn freemius_is_asked_by_key_once_and_the_key_is_no_part_of_what_is_logged() {
    let source = freemius_source();
    let request = source.shop.request(&source, &Asked::about(FREEMIUS_KEY)).unwrap();
    assert_eq!(request.path, "/v1/products/1234/licenses.json");
    assert_eq!(request.query, Some(("search", FREEMIUS_KEY.to_owned())));
    assert!(!format!("{request:?}").contains("sk_"));
}

#[test]
fn an_event_of_freemius_names_the_licence_its_key_and_its_user() {
    let (source, hash) = (freemius_source(), hash());
    let read = |event: Value| {
        source.shop.webhook().unwrap().read(event.to_string().as_bytes(), &source, &hash)
    };
    let license: Value = serde_json::from_str(FREEMIUS).unwrap();
    let known = source.shop.read(
        &source,
        &Asked::about(FREEMIUS_KEY),
        &answer(200, json!({ "licenses": [license] }).to_string()),
        &hash,
    );
    let ShopReply::License(known) = known else { panic!("{known:?}") };
    let by_reference = |event: WebhookEvent| {
        event.subjects.iter().any(|subject| {
            matches!(subject, WebhookSubject::Reference(id) if known.references.contains(id))
        })
    };
    let cancelled = json!({
        "id": "1", "type": "license.cancelled", "plugin_id": "1234", "user_id": "77",
        "data": { "license_id": "4711" }, "objects": { "license": license },
    });
    let event = read(cancelled).unwrap().unwrap();
    assert!(event.subjects.contains(&WebhookSubject::License(hash.id(FREEMIUS_KEY))));
    assert!(by_reference(event));
    // Of one that was deleted there is no object.
    let deleted =
        json!({ "type": "license.deleted", "plugin_id": 1234, "data": { "license_id": 4711 } });
    assert!(by_reference(read(deleted).unwrap().unwrap()));
    let other =
        json!({ "type": "license.cancelled", "plugin_id": "9", "data": { "license_id": "4711" } });
    assert_eq!(read(other), Ok(None));
    assert_eq!(source.shop.webhook().unwrap().read(b"{", &source, &hash), Err(Unreadable));
}
