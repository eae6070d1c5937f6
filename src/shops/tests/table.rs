//! Shops × what can come back. Each shape has the place where it is stated; all were made by hand.

use super::*;

#[path = "table/freemius.rs"]
mod freemius;
#[path = "table/payhip.rs"]
mod payhip;

/// What an answer must mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Means {
    Valid,
    Invalid(Code),
    NotFound,
    /// No word about the key.
    Unknown,
    /// The same, and an alarm for the operator.
    Alarm,
}

use Means::{Alarm, Invalid, NotFound, Unknown, Valid};

/// Every shop has each of these cells.
const CELLS: [&str; 15] = [
    "valid",
    "unknown",
    "expired",
    "disabled",
    "refunded",
    "other product",
    "other seller",
    "test mode",
    "429",
    "5xx",
    "HTML",
    "cut JSON",
    "wrong types",
    "time-out",
    "our key wrong",
];

struct Case {
    cell: &'static str,
    /// `None`: nothing came back.
    answer: Option<(u16, String)>,
    means: Means,
}

fn case(cell: &'static str, status: u16, body: impl ToString, means: Means) -> Case {
    Case { cell, answer: Some((status, body.to_string())), means }
}

/// What no shop can mean as a word about a key.
fn noise(valid: &str) -> Vec<Case> {
    let page = "<html><body>502 Bad Gateway</body></html>";
    vec![
        case("429", 429, r#"{"message":"Too Many Requests"}"#, Unknown),
        case("5xx", 500, valid, Unknown),
        case("5xx", 502, page, Unknown),
        case("5xx", 503, "", Unknown),
        case("HTML", 200, page, Unknown),
        case("HTML", 404, page, Unknown),
        case("cut JSON", 200, &valid[..valid.len() / 2], Unknown),
        case("cut JSON", 200, "", Unknown),
        case("wrong types", 200, "[]", Unknown),
        case("wrong types", 200, "null", Unknown),
        case("wrong types", 200, r#""valid""#, Unknown),
        case("wrong types", 200, "{}", Unknown),
        Case { cell: "time-out", answer: None, means: Unknown },
    ]
}

fn with(valid: &str, path: &str, value: Value) -> String {
    let mut body: Value = serde_json::from_str(valid).unwrap();
    *body.pointer_mut(path).unwrap_or_else(|| panic!("{path}")) = value;
    body.to_string()
}

fn means(source: &ShopSource, asked: &Asked<'_>, case: &Case) -> Means {
    let shop = source.shop;
    let reply = match &case.answer {
        Some((status, body)) => shop.read(source, asked, &answer(*status, body.clone()), &hash()),
        None => ShopReply::Unknown(ShopError::Down("no answer in time".into())),
    };
    match reply {
        ShopReply::Unknown(ShopError::Misconfigured(_)) => Alarm,
        ShopReply::Unknown(_) | ShopReply::NeedsDevice => Unknown,
        ShopReply::NotFound => NotFound,
        ShopReply::License(license) => match shop.judge(&license, source, NOW) {
            LicenseVerdict::Valid { .. } => Valid,
            LicenseVerdict::Invalid(code) => Invalid(code),
        },
    }
}

/// `absent` are cells that the shop can't have, each with the reason.
fn check(source: &ShopSource, asked: &Asked<'_>, cases: Vec<Case>, absent: &[(&str, &str)]) {
    let name = source.shop.name();
    for cell in CELLS {
        let is_there = cases.iter().any(|case| case.cell == cell);
        let is_absent = absent.iter().any(|(known, _)| *known == cell);
        assert!(is_there != is_absent, "{name} × {cell}: one case or one reason");
    }
    for case in cases {
        assert_eq!(
            means(source, asked, &case),
            case.means,
            "{name} × {}: {:?}",
            case.cell,
            case.answer
        );
    }
}

const LEMON_SQUEEZY: &str = r#"{"valid":true,"error":null,"license_key":{"id":1,"status":"active","key":"K","activation_limit":3,"activation_usage":1,"expires_at":null,"test_mode":false},"instance":null,"meta":{"store_id":58213,"order_id":6,"variant_id":9,"product_id":5}}"#;

fn lemon_squeezy_source() -> ShopSource {
    ShopSource { seller: Some("58213".into()), products: product("5"), ..source("lemonsqueezy") }
}

#[test]
fn lemon_squeezy() {
    // https://docs.lemonsqueezy.com/api/license-api/validate-license-key
    let (source, valid) = (lemon_squeezy_source(), LEMON_SQUEEZY);
    let change = |path: &str, value| with(valid, path, value);
    let mut cases = noise(valid);
    cases.extend([
        case("valid", 200, valid, Valid),
        case("valid", 200, change("/license_key/status", json!("inactive")), Valid),
        case("unknown", 404, r#"{"valid":false,"error":"license_key not found."}"#, NotFound),
        case(
            "expired",
            200,
            change("/license_key/status", json!("expired")),
            Invalid(Code::LicenseExpired),
        ),
        case(
            "disabled",
            400,
            change("/license_key/status", json!("disabled")),
            Invalid(Code::LicenseDisabled),
        ),
        case(
            "other product",
            200,
            change("/meta/product_id", json!(6)),
            Invalid(Code::LicenseWrongProduct),
        ),
        case(
            "other seller",
            200,
            change("/meta/store_id", json!(1)),
            Invalid(Code::LicenseWrongProduct),
        ),
        case(
            "test mode",
            200,
            change("/license_key/test_mode", json!(true)),
            Invalid(Code::LicenseInvalid),
        ),
        case("wrong types", 200, change("/valid", json!("true")), Unknown),
        case("wrong types", 200, change("/license_key/expires_at", json!(5)), Unknown),
    ]);
    let absent = [("refunded", "told by webhooks only"), ("our key wrong", "there is none")];
    check(&source, &Asked::about("K"), cases, &absent);
}

const GUMROAD: &str = r#"{"success":true,"uses":1,"purchase":{"product_id":"p==","sale_id":"s","variants":"","refunded":false,"disputed":false,"dispute_won":false,"chargebacked":false,"test":false,"subscription_ended_at":null}}"#;

fn gumroad_source() -> ShopSource {
    ShopSource { products: product("p=="), ..source("gumroad") }
}

#[test]
fn gumroad() {
    // https://github.com/antiwork/gumroad, app/controllers/api/v2/licenses_controller.rb
    let (source, valid) = (gumroad_source(), GUMROAD);
    let change = |path: &str, value| with(valid, path, value);
    let no = |text: &str| json!({ "success": false, "message": text });
    let mut cases = noise(valid);
    cases.extend([
        case("valid", 200, valid, Valid),
        case("unknown", 404, no("That license does not exist for the provided product."), NotFound),
        case(
            "expired",
            404,
            no("Access to the purchase associated with this license has expired."),
            Invalid(Code::LicenseExpired),
        ),
        case(
            "expired",
            200,
            change("/purchase/subscription_ended_at", json!("2026-01-01T00:00:00Z")),
            Invalid(Code::LicenseExpired),
        ),
        case(
            "disabled",
            404,
            no("This license key has been disabled."),
            Invalid(Code::LicenseDisabled),
        ),
        case(
            "refunded",
            200,
            change("/purchase/refunded", json!(true)),
            Invalid(Code::LicenseRefunded),
        ),
        case(
            "refunded",
            200,
            change("/purchase/disputed", json!(true)),
            Invalid(Code::LicenseRefunded),
        ),
        case(
            "other product",
            200,
            change("/purchase/product_id", json!("q==")),
            Invalid(Code::LicenseWrongProduct),
        ),
        case(
            "test mode",
            200,
            change("/purchase/test", json!(true)),
            Invalid(Code::LicenseInvalid),
        ),
        case("wrong types", 200, change("/purchase/refunded", json!("false")), Unknown),
        case("our key wrong", 500, no("The 'product_id' parameter is required to verify"), Alarm),
    ]);
    let asked = Asked { subject: "p==", ..Asked::about("K") };
    check(&source, &asked, cases, &[("other seller", "a product id belongs to one seller")]);
}

/// `server/polar/license_key/schemas.py`, `LicenseKeyRead`.
const POLAR: &str = r#"{"id":"lk-1","organization_id":"org-1","customer_id":"cus-1","customer":{"email":"maren@example.com"},"benefit_id":"ben-1","key":"JSTAR-3F2A9C1E-7B4D-4E8A-9D60-5C1B8E7F2A34","display_key":"****-2A34","status":"granted","limit_activations":null,"usage":0,"limit_usage":null,"validations":1,"last_validated_at":null,"expires_at":null,"activation":null}"#;
pub const POLAR_KEY: &str = "JSTAR-3F2A9C1E-7B4D-4E8A-9D60-5C1B8E7F2A34";

fn polar_source() -> ShopSource {
    ShopSource {
        seller: Some("org-1".into()),
        products: product("ben-1"),
        api_key: secret("polar_oat_x"),
        ..source("polar")
    }
}

#[test]
fn polar() {
    let change = |path: &str, value| with(POLAR, path, value);
    // `server/polar/exceptions.py`, `ResourceNotFound`; the texts are those of `license_key/service.py`.
    let no = |text: &str| json!({ "error": "ResourceNotFound", "detail": text });
    let gone = no("License key is no longer active.");
    let cases = || {
        let mut cases = noise(POLAR);
        cases.extend([
            case("valid", 200, POLAR, Valid),
            case("valid", 200, change("/expires_at", json!("2127-01-01T00:00:00Z")), Valid),
            case("unknown", 404, no("Not found"), NotFound),
            case("unknown", 404, no("A text that is new"), Unknown),
            case("unknown", 404, r#"{"detail":"Not found"}"#, Unknown),
            case("expired", 404, no("License key has expired."), Invalid(Code::LicenseExpired)),
            case(
                "expired",
                200,
                change("/expires_at", json!("2026-01-01T00:00:00Z")),
                Invalid(Code::LicenseExpired),
            ),
            case("disabled", 404, &gone, Invalid(Code::LicenseDisabled)),
            case(
                "disabled",
                200,
                change("/status", json!("disabled")),
                Invalid(Code::LicenseDisabled),
            ),
            case(
                "disabled",
                200,
                change("/key", json!("JSTAR-OTHER")),
                Invalid(Code::LicenseDisabled),
            ),
            case(
                "refunded",
                200,
                change("/status", json!("revoked")),
                Invalid(Code::LicenseDisabled),
            ),
            case(
                "other product",
                200,
                change("/benefit_id", json!("ben-2")),
                Invalid(Code::LicenseWrongProduct),
            ),
            case(
                "other seller",
                200,
                change("/organization_id", json!("org-2")),
                Invalid(Code::LicenseWrongProduct),
            ),
            case("wrong types", 200, change("/status", json!(true)), Unknown),
            case("wrong types", 200, change("/status", json!("paused")), Unknown),
            case("wrong types", 200, change("/expires_at", json!(1)), Unknown),
            case(
                "our key wrong",
                401,
                r#"{"error":"invalid_token","error_description":"The access token is invalid"}"#,
                Alarm,
            ),
            case("our key wrong", 403, r#"{"error":"insufficient_scope"}"#, Alarm),
            case("our key wrong", 422, r#"{"detail":[{"loc":["body","organization_id"]}]}"#, Alarm),
        ]);
        cases
    };
    let absent = [("test mode", "the sandbox is another address with keys of its own")];
    check(&polar_source(), &Asked::about(POLAR_KEY), cases(), &absent);
    // By the id of a known licence the same shapes come back.
    let known = ShopLicense {
        handle: Some("lk-1".into()),
        ..ShopLicense::new(by_name("polar").unwrap(), Status::Active)
    };
    let asked = Asked { known: Some(&known), ..Asked::about(POLAR_KEY) };
    check(&polar_source(), &asked, cases(), &absent);
}

/// `packages/docs/api-reference/openapi.json`, `LicenseEntity`.
const CREEM: &str = r#"{"id":"lic_1","mode":"prod","object":"license","product_id":"prod_1","status":"active","key":"ABC12-ABC12-ABC12","activation":1,"activation_limit":3,"expires_at":null,"created_at":"2026-01-01T00:00:00Z","instance":{"id":"ins_1","mode":"prod","object":"license-instance","name":"mac","status":"active","created_at":"2026-01-01T00:00:00Z"}}"#;

fn creem_source() -> ShopSource {
    ShopSource { products: product("prod_1"), api_key: secret("creem_x"), ..source("creem") }
}

#[test]
fn creem() {
    let change = |path: &str, value| with(CREEM, path, value);
    // `code/error-codes.mdx`.
    let error = |status: u16, error: &str| json!({ "trace_id": "t", "status": status, "error": error, "message": ["x"], "timestamp": 1 });
    let mut cases = noise(CREEM);
    cases.extend([
        case("valid", 200, CREEM, Valid),
        case(
            "valid",
            200,
            change("/instance", json!([{ "id": "ins_1", "status": "active" }])),
            Valid,
        ),
        case("valid", 200, change("/status", json!("inactive")), Valid),
        case("unknown", 404, error(404, "Bad Request"), NotFound),
        case("expired", 200, change("/status", json!("expired")), Invalid(Code::LicenseExpired)),
        case("disabled", 200, change("/status", json!("disabled")), Invalid(Code::LicenseDisabled)),
        case(
            "other product",
            200,
            change("/product_id", json!("prod_2")),
            Invalid(Code::LicenseWrongProduct),
        ),
        case("test mode", 200, change("/mode", json!("test")), Invalid(Code::LicenseInvalid)),
        case("test mode", 200, change("/mode", json!("sandbox")), Invalid(Code::LicenseInvalid)),
        case("wrong types", 200, change("/mode", Value::Null), Unknown),
        case("wrong types", 200, change("/status", json!(["active"])), Unknown),
        case("wrong types", 200, change("/activation_limit", json!("3")), Unknown),
        case("our key wrong", 403, error(403, "Forbidden"), Alarm),
        case("our key wrong", 401, error(401, "Unauthorized"), Alarm),
    ]);
    let absent = [
        ("refunded", "a refund disables the licence"),
        ("other seller", "the API key sees its own store only"),
    ];
    let asked = Asked { instance: Some("ins_1"), ..Asked::about("ABC12-ABC12-ABC12") };
    check(&creem_source(), &asked, cases, &absent);
    let alone = Asked::about("ABC12-ABC12-ABC12");
    assert!(by_name("creem").unwrap().request(&creem_source(), &alone).is_none());
    // For an unknown key 404 concerns the key; for a known licence it may be the instance that was removed.
    let gone = answer(404, r#"{"trace_id":"t","status":404,"error":"Not Found"}"#);
    let read =
        |asked: &Asked<'_>| by_name("creem").unwrap().read(&creem_source(), asked, &gone, &hash());
    let known = ShopLicense::new(&creem::Creem, Status::Active);
    assert_eq!(read(&asked), ShopReply::NotFound);
    assert_eq!(read(&Asked { known: Some(&known), ..asked }), ShopReply::NeedsDevice);
}

/// `src/resources/license-keys/license-keys.ts`, `LicenseKey`.
const DODO: &str = r#"{"id":"lic_1","brand_id":"b","business_id":"bus_1","customer_id":"cus_1","key":"AAAA-BBBB-CCCC","product_id":"pdt_1","status":"active","instances_count":1,"activations_limit":null,"expires_at":null,"payment_id":"pay_1","subscription_id":null,"source":"auto","created_at":"2026-01-01T00:00:00Z"}"#;
/// `src/resources/licenses.ts`, `LicenseActivateResponse`.
const DODO_ACTIVATED: &str = r#"{"id":"lki_1","business_id":"bus_1","license_key_id":"lic_1","customer":{"customer_id":"cus_1","email":"maren@example.com","name":"Maren"},"product":{"product_id":"pdt_1","name":"JStar"},"name":"gatekeeper","created_at":"2026-01-01T00:00:00Z"}"#;

fn dodo_source(api_key: Option<SecretString>) -> ShopSource {
    ShopSource {
        seller: Some("bus_1".into()),
        products: product("pdt_1"),
        api_key,
        ..source("dodo")
    }
}

#[test]
fn dodo() {
    let change = |path: &str, value| with(DODO, path, value);
    let no = r#"{"code":"NOT_FOUND","message":"not found"}"#;
    let mut cases = noise(DODO);
    cases.extend([
        case("valid", 200, DODO, Valid),
        case("unknown", 404, no, NotFound),
        case("expired", 200, change("/status", json!("expired")), Invalid(Code::LicenseExpired)),
        case("disabled", 200, change("/status", json!("disabled")), Invalid(Code::LicenseDisabled)),
        case(
            "other product",
            200,
            change("/product_id", json!("pdt_2")),
            Invalid(Code::LicenseWrongProduct),
        ),
        case(
            "other seller",
            200,
            change("/business_id", json!("bus_2")),
            Invalid(Code::LicenseWrongProduct),
        ),
        case("wrong types", 200, change("/expires_at", json!(7)), Unknown),
        case("wrong types", 200, change("/business_id", Value::Null), Unknown),
        case("our key wrong", 401, r#"{"message":"unauthorized"}"#, Alarm),
        case("our key wrong", 403, "", Alarm),
    ]);
    let absent = [
        ("refunded", "a refund disables the key"),
        ("test mode", "test mode is another address with keys of its own"),
    ];
    let known = ShopLicense {
        handle: Some("lic_1".into()),
        ..ShopLicense::new(by_name("dodo").unwrap(), Status::Active)
    };
    let asked = Asked { known: Some(&known), ..Asked::about("AAAA-BBBB-CCCC") };
    check(&dodo_source(secret("key")), &asked, cases, &absent);
}

#[test]
fn dodo_says_whose_a_key_is_when_it_is_activated_and_never_else() {
    let asked = Asked::about("AAAA-BBBB-CCCC");
    let (with_key, without) = (dodo_source(secret("key")), dodo_source(None));
    let said = |source: &ShopSource, status, body: &str| {
        means(source, &asked, &case("valid", status, body, Valid))
    };
    assert_eq!(said(&with_key, 200, DODO_ACTIVATED), Valid);
    let other = with(DODO_ACTIVATED, "/business_id", json!("bus_2"));
    assert_eq!(said(&with_key, 200, &other), Invalid(Code::LicenseWrongProduct));
    assert_eq!(said(&with_key, 404, r#"{"message":"License key not found"}"#), NotFound);
    // A bare yes is the yes of any seller.
    assert_eq!(said(&without, 200, r#"{"valid":true}"#), Unknown);
    assert_eq!(said(&without, 200, r#"{"valid":false}"#), NotFound);
    assert_eq!(said(&without, 200, r#"{"valid":"true"}"#), Unknown);
    assert_eq!(said(&with_key, 200, r#"{"valid":true}"#), Unknown);
}

/// `app/services/license_validation_service.rb`, rendered as <https://keygen.sh/docs/api/licenses/>.
const KEYGEN: &str = r#"{"meta":{"ts":"2026-11-24T09:00:00Z","valid":true,"detail":"is valid","code":"VALID","scope":{"product":"prod-1"}},"data":{"id":"lic-1","type":"licenses","attributes":{"key":"K","expiry":null,"status":"ACTIVE","maxMachines":null},"relationships":{"product":{"data":{"type":"products","id":"prod-1"}},"policy":{"data":{"type":"policies","id":"pol-1"}},"machines":{"meta":{"count":0}}}}}"#;

fn keygen_source() -> ShopSource {
    ShopSource {
        seller: Some("acme".into()),
        scope: Some("prod-1".into()),
        products: product("pol-1"),
        ..source("keygen")
    }
}

#[test]
fn keygen() {
    let change = |path: &str, value| with(KEYGEN, path, value);
    let code = |valid: bool, code: &str| {
        with(&change("/meta/valid", json!(valid)), "/meta/code", json!(code))
    };
    let none =
        r#"{"meta":{"valid":false,"detail":"does not exist","code":"NOT_FOUND"},"data":null}"#;
    let mut cases = noise(KEYGEN);
    cases.extend([
        case("valid", 200, KEYGEN, Valid),
        // `valid` judges: a policy may let these go on.
        case("valid", 200, code(true, "EXPIRED"), Valid),
        case("valid", 200, code(true, "TOO_MANY_MACHINES"), Valid),
        case("valid", 200, code(false, "TOO_MANY_MACHINES"), Valid),
        case("unknown", 200, none, NotFound),
        case("unknown", 200, r#"{"meta":{"valid":true,"code":"NOT_FOUND"},"data":null}"#, Unknown),
        case("expired", 200, code(false, "EXPIRED"), Invalid(Code::LicenseExpired)),
        case("expired", 200, code(false, "OVERDUE"), Invalid(Code::LicenseExpired)),
        case("disabled", 200, code(false, "SUSPENDED"), Invalid(Code::LicenseDisabled)),
        case("disabled", 200, code(false, "BANNED"), Invalid(Code::LicenseDisabled)),
        case(
            "other product",
            200,
            code(false, "PRODUCT_SCOPE_MISMATCH"),
            Invalid(Code::LicenseWrongProduct),
        ),
        case(
            "other product",
            200,
            change("/data/relationships/product/data/id", json!("prod-2")),
            Invalid(Code::LicenseWrongProduct),
        ),
        case(
            "other product",
            200,
            change("/data/relationships/policy/data/id", json!("pol-2")),
            Invalid(Code::LicenseWrongProduct),
        ),
        case("disabled", 200, code(false, "A_CODE_THAT_IS_NEW"), Invalid(Code::LicenseInvalid)),
        case("wrong types", 200, change("/meta/valid", json!("true")), Unknown),
        case("wrong types", 200, change("/data/attributes/expiry", json!(1)), Unknown),
        case(
            "our key wrong",
            404,
            r#"{"errors":[{"title":"Not found","code":"NOT_FOUND"}]}"#,
            Alarm,
        ),
    ]);
    let absent = [
        ("refunded", "a refund suspends the licence"),
        ("other seller", "the account is part of the address"),
        ("test mode", "there is none"),
    ];
    check(&keygen_source(), &Asked::about("KEY-1234"), cases, &absent);
}

#[test]
fn an_entitlement_of_keygen_is_a_question_of_its_own() {
    let source = ShopSource { labels: vec![("AI_PRO".into(), plan("max"))], ..keygen_source() };
    assert_eq!(source.shop.subjects(&source), [Arc::from("AI_PRO"), Arc::from("")]);
    let asked = Asked { subject: "AI_PRO", ..Asked::about("KEY-1234") };
    let request = source.shop.request(&source, &asked).unwrap();
    let Body::Json(body) = &request.body else { panic!() };
    assert_eq!(body["meta"]["scope"], json!({ "product": "prod-1", "entitlements": ["AI_PRO"] }));
    let plan_of = |body: String| {
        let reply = source.shop.read(&source, &asked, &answer(200, body), &hash());
        let ShopReply::License(license) = reply else { panic!("{reply:?}") };
        match source.shop.judge(&license, &source, NOW) {
            LicenseVerdict::Valid { plan, .. } => Ok(plan.name.to_string()),
            LicenseVerdict::Invalid(code) => Err(code),
        }
    };
    assert_eq!(plan_of(KEYGEN.to_owned()), Ok("max".to_owned()));
    let lacks = with(KEYGEN, "/meta/code", json!("ENTITLEMENTS_MISSING"));
    let lacks = with(&lacks, "/meta/valid", json!(false));
    assert_eq!(plan_of(lacks), Err(Code::LicenseWrongProduct), "the next question decides");
}

fn http_source() -> ShopSource {
    ShopSource { plans: vec![plan("pro")], api_key: secret("token"), ..source("http") }
}

#[test]
fn http() {
    // conf/licence-server.openapi.yaml
    let valid = r#"{"verdict":"valid","plan":"pro","until":"2127-01-01T00:00:00Z","max_devices":3,"id":"42"}"#;
    let mut cases = noise(valid);
    cases.extend([
        case("valid", 200, valid, Valid),
        case("valid", 200, r#"{"verdict":"valid","plan":"pro"}"#, Valid),
        case("unknown", 200, r#"{"verdict":"invalid"}"#, NotFound),
        case("unknown", 404, r#"{"verdict":"invalid"}"#, Unknown),
        case(
            "expired",
            200,
            r#"{"verdict":"expired","plan":"pro"}"#,
            Invalid(Code::LicenseExpired),
        ),
        case("expired", 200, r#"{"verdict":"expired"}"#, Invalid(Code::LicenseExpired)),
        case(
            "disabled",
            200,
            r#"{"verdict":"disabled","plan":"pro"}"#,
            Invalid(Code::LicenseDisabled),
        ),
        case("refunded", 200, r#"{"verdict":"refunded"}"#, Invalid(Code::LicenseRefunded)),
        case("other product", 200, r#"{"verdict":"valid","plan":"none"}"#, Alarm),
        case("wrong types", 200, r#"{"verdict":true,"plan":"pro"}"#, Unknown),
        case("wrong types", 200, r#"{"verdict":"VALID","plan":"pro"}"#, Unknown),
        case("wrong types", 200, r#"{"verdict":"valid"}"#, Unknown),
        case("wrong types", 200, r#"{"verdict":"valid","plan":"pro","until":7}"#, Unknown),
        case("our key wrong", 401, "{}", Alarm),
        case("our key wrong", 403, r#"{"verdict":"invalid"}"#, Alarm),
    ]);
    let absent = [("other seller", "the server is one's own"), ("test mode", "there is none")];
    check(&http_source(), &Asked::about("KEY-1234"), cases, &absent);
}

/// Valid answers with their sources, for tests of what changes in them.
pub fn valid_answers() -> Vec<(ShopSource, &'static str)> {
    vec![
        (polar_source(), POLAR),
        (creem_source(), CREEM),
        (dodo_source(secret("key")), DODO_ACTIVATED),
        (keygen_source(), KEYGEN),
        (http_source(), r#"{"verdict":"valid","plan":"pro"}"#),
        (freemius::freemius_source(), freemius::FREEMIUS_FOUND),
        (payhip::payhip_source(), payhip::PAYHIP),
        (lemon_squeezy_source(), LEMON_SQUEEZY),
        (gumroad_source(), GUMROAD),
    ]
}

#[test]
fn nothing_about_the_buyer_is_kept() {
    for (source, body) in valid_answers() {
        let asked = Asked { instance: Some("ins_1"), ..Asked::about(POLAR_KEY) };
        let reply = source.shop.read(&source, &asked, &answer(200, body), &hash());
        let ShopReply::License(license) = reply else { panic!("{reply:?}") };
        let kept = serde_json::to_string(&license).unwrap();
        for buyer in ["maren", "Maren", "cus-1", "cus_1", "pay_1", "3F2A9C1E", "AAAA-BBBB"] {
            assert!(!kept.contains(buyer), "{buyer} in {kept}");
        }
    }
}
