//! Answers that are changed at will.

use proptest::prelude::*;

use super::{
    table::{POLAR_KEY, valid_answers},
    *,
};

/// One change somewhere in a document.
#[derive(Debug, Clone)]
enum Change {
    Cut(usize),
    Byte(usize, u8),
    Member(usize, usize),
    Status(u16),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        any::<usize>().prop_map(Change::Cut),
        (any::<usize>(), any::<u8>()).prop_map(|(at, byte)| Change::Byte(at, byte)),
        (any::<usize>(), any::<usize>()).prop_map(|(at, kind)| Change::Member(at, kind)),
        prop_oneof![
            Just(201u16),
            Just(204),
            Just(400),
            Just(401),
            Just(403),
            Just(404),
            Just(409),
            Just(422),
            Just(429),
            Just(500),
            Just(503),
            100u16..600
        ]
        .prop_map(Change::Status),
    ]
}

/// The places of all members of a document.
fn places(value: &Value, path: &str, found: &mut Vec<String>) {
    for (name, below) in value.as_object().into_iter().flatten() {
        let path = format!("{path}/{name}");
        places(below, &path, found);
        found.push(path);
    }
}

fn apply(change: &Change, status: &mut u16, body: &mut Vec<u8>) {
    match change {
        Change::Cut(at) => body.truncate(at % (body.len() + 1)),
        Change::Byte(at, byte) if !body.is_empty() => {
            let at = at % body.len();
            body[at] = *byte;
        }
        Change::Byte(..) => {}
        Change::Status(other) => *status = *other,
        Change::Member(at, kind) => {
            let Ok(mut value) = serde_json::from_slice::<Value>(body) else { return };
            let mut found = Vec::new();
            places(&value, "", &mut found);
            let Some(path) = found.get(at % found.len().max(1)) else { return };
            let others = [Value::Null, json!(true), json!(0), json!("x"), json!([]), json!({})];
            if let Some(member) = value.pointer_mut(path) {
                *member = others[kind % others.len()].clone();
            }
            *body = value.to_string().into_bytes();
        }
    }
}

/// Answers that give no information about a key.
fn unknown(kind: usize) -> (u16, Vec<u8>) {
    let all: [(u16, &str); 8] = [
        (500, r#"{"error":"internal"}"#),
        (429, r#"{"message":"slow down"}"#),
        (502, "<html>bad gateway</html>"),
        (200, "<html>a portal</html>"),
        (403, r#"{"trace_id":"t","status":403,"error":"Forbidden","message":["x"]}"#),
        (401, r#"{"error":"invalid_token"}"#),
        (404, "not here"),
        (200, "{}"),
    ];
    let (status, body) = all[kind % all.len()];
    (status, body.as_bytes().to_vec())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), ..ProptestConfig::default() })]

    /// An answer without information stays one after any mutation.
    #[test]
    fn no_change_turns_no_answer_into_a_valid_licence(
        shop in 0usize..9,
        kind in any::<usize>(),
        changes in prop::collection::vec(change(), 1..6),
    ) {
        let (source, _) = valid_answers().swap_remove(shop);
        let (mut status, mut body) = unknown(kind);
        for change in &changes {
            apply(change, &mut status, &mut body);
        }
        let asked = Asked { instance: Some("ins_1"), ..Asked::about(POLAR_KEY) };
        let reply = source.shop.read(&source, &asked, &answer(status, body), &hash());
        if let ShopReply::License(license) = reply {
            prop_assert!(!source.shop.judge(&license, &source, NOW).is_valid());
        }
    }

    /// A valid answer with another status is no valid answer, and with members of other types never names another
    /// plan.
    #[test]
    fn a_valid_answer_is_valid_only_with_its_status(
        shop in 0usize..7,
        status in 300u16..600,
    ) {
        let (source, body) = valid_answers().swap_remove(shop);
        let asked = Asked { instance: Some("ins_1"), ..Asked::about(POLAR_KEY) };
        let reply = source.shop.read(&source, &asked, &answer(status, body), &hash());
        if let ShopReply::License(license) = reply {
            prop_assert!(!source.shop.judge(&license, &source, NOW).is_valid());
        }
    }
}

/// A tenth here; all of them in `make soak`.
fn cases() -> u32 {
    let text = std::env::var("GATEKEEPER_SHOP_MUTATIONS").unwrap_or_default();
    text.parse().unwrap_or(512)
}
