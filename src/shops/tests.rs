//! What each shop's answers mean, cell by cell.

use std::sync::Arc;

use bytes::Bytes;
use gatekeeper_filters::kernel::{Code, ModelSet, OnDisconnect, Plan};
use secrecy::SecretString;
use serde_json::json;

use super::*;

pub const NOW: UnixMs = UnixMs(1_795_510_800_000); // 2026-11-24T09:00:00Z

pub fn plan(name: &str) -> Arc<Plan> {
    Arc::new(Plan {
        name: name.into(),
        messages: None,
        tokens: None,
        rate: None,
        concurrency: None,
        concurrency_is_default: false,
        models: ModelSet::All,
        prompts: ModelSet::NONE,
        prompts_only: false,
        conversation: None,
        idempotency: None,
        max_output_tokens: None,
        min_output_tokens: 256,
        max_input_tokens: None,
        devices_required: false,
        max_devices: None,
        on_disconnect: OnDisconnect::default(),
        upgrade_url: None,
    })
}

pub fn hash() -> KeyedHash {
    KeyedHash::new(&[7; 32])
}

pub fn answer(status: u16, body: impl Into<Vec<u8>>) -> ShopResponse {
    ShopResponse { status, retry_after: None, body: Bytes::from(body.into()) }
}

pub fn source(shop: &str) -> ShopSource {
    ShopSource::new(by_name(shop).unwrap())
}

/// One product of one plan.
pub fn product(id: &str) -> Vec<(Arc<str>, Variants)> {
    vec![(id.into(), Variants { named: Vec::new(), other: Some(plan("pro")) })]
}

pub fn secret(text: &str) -> Option<SecretString> {
    Some(SecretString::from(text))
}

#[path = "tests/table.rs"]
pub mod table;

#[path = "tests/mutations.rs"]
mod mutations;

#[test]
fn the_shape_of_a_key_tells_its_shops() {
    let uuid = "3F2A9C1E-7B4D-4E8A-9D60-5C1B8E7F2A34";
    let groups = "85DB562A-C11D4B06-A2335A6B-8C079166";
    let names = |key: &str| -> Vec<&str> {
        ALL.iter().filter(|shop| shop.has_shape(key)).map(|shop| shop.name()).collect()
    };
    let any = ["creem", "dodo", "keygen", "freemius", "payhip", "http"];
    let with = |first: &[&'static str]| [first, &any[..]].concat();
    assert_eq!(names(uuid), with(&["lemonsqueezy", "polar"]));
    assert_eq!(names(&uuid.to_lowercase()), with(&["lemonsqueezy", "polar"]));
    assert_eq!(names(&format!("JSTAR-{uuid}")), with(&["polar"]));
    assert_eq!(names(&format!("JSTAR{uuid}")), with(&[]));
    assert_eq!(names(groups), with(&["gumroad"]));
    for other in ["JSTAR-DEMO-0001", &format!("{uuid}-1"), &uuid.replace('F', "G")] {
        assert_eq!(names(other), with(&[]), "{other}");
    }
    for none in ["", "short", "with space inside", &"x".repeat(257)] {
        assert!(names(none).is_empty(), "{none}");
    }
}

#[test]
fn licences_are_stored_so_that_they_are_read_again() {
    let stored = [
        // As versions before the registry wrote them.
        r#"{"shop":"lemonsqueezy","status":"active","store":58213,"product":588102,"variant":912744,"test_mode":false,"expires":null,"order":"a1","activation_limit":3,"activations":1}"#,
        r#"{"shop":"gumroad","status":"sold","product":"abc==","variant":"(Pro)","test":false,"refunded":true,"ends":null,"sale":"b2"}"#,
        r#"{"shop":"gumroad","status":"revoked","product":"abc==","variant":"","test":false,"refunded":false,"ends":null,"sale":null}"#,
        r#"{"shop":"polar","status":"disabled","seller":"org","product":"ben","variant":"","test":false,"until":1795510800000,"references":["c3"],"handle":"id","activation_limit":null,"activations":null}"#,
    ];
    for text in stored {
        let license: ShopLicense = serde_json::from_str(text).unwrap();
        let again: Value = serde_json::to_value(&license).unwrap();
        assert_eq!(again, serde_json::from_str::<Value>(text).unwrap());
    }
    for broken in ["{}", r#"{"shop":"none"}"#, r#"{"shop":"polar"}"#, r#"{"shop":"lemonsqueezy"}"#]
    {
        assert!(serde_json::from_str::<ShopLicense>(broken).is_err(), "{broken}");
    }
}

#[test]
fn requests_show_no_secret_and_an_id_can_not_leave_its_place() {
    let source = ShopSource { api_key: secret("polar_oat_canary"), ..source("polar") };
    let known = ShopLicense {
        handle: Some("../customers?x=/y".into()),
        ..ShopLicense::new(source.shop, Status::Active)
    };
    let asked = Asked { known: Some(&known), ..Asked::about("KEY-CANARY") };
    let request = source.shop.request(&source, &asked).unwrap();
    assert!(!format!("{request:?}").contains("canary"));
    assert_eq!(request.path, "/v1/license-keys/..%2Fcustomers%3Fx%3D%2Fy");
    assert_eq!(wire::segment(".."), "%2E%2E");
}
