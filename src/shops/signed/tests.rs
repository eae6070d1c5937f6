use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::json;

use super::*;
use crate::shops::tests::{NOW, plan};

const AUDIENCE: &str = "jstar";

fn pair(seed: u8) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap()
}

fn public(seed: u8) -> [u8; 32] {
    pair(seed).public_key().as_ref().try_into().unwrap()
}

fn source() -> SignedSource {
    SignedSource {
        format: Format::Jwt,
        keys: vec![("k1".into(), public(1)), ("k2".into(), public(2))],
        audience: AUDIENCE.into(),
        id: "sub".into(),
        plan: "plan".into(),
        plans: vec![("pro".into(), plan("pro")), ("free".into(), plan("free"))],
        perpetual: false,
        revoked: HashSet::new(),
    }
}

fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn claims() -> Value {
    json!({ "sub": "buyer-1", "aud": AUDIENCE, "plan": "pro", "exp": NOW.0 / 1000 + 3600, "jti": "t-1" })
}

fn token_of(header: &str, claims: &str, seed: u8) -> String {
    let message = format!("{}.{}", encode(header), encode(claims));
    let signature = pair(seed).sign(message.as_bytes());
    format!("{message}.{}", encode(signature))
}

fn token(header: Value, claims: &Value) -> String {
    token_of(&header.to_string(), &claims.to_string(), 1)
}

fn good() -> String {
    token(json!({ "alg": "EdDSA", "typ": "JWT", "kid": "k1" }), &claims())
}

fn refused(token: &str) -> Option<Code> {
    verify(&source(), token, NOW).err()
}

#[test]
fn a_signed_licence_has_its_plan_until_it_ends() {
    let license = verify(&source(), &good(), NOW).unwrap();
    assert_eq!((&*license.id, &*license.plan.name), ("buyer-1", "pro"));
    assert_eq!(license.until, Some(UnixMs((NOW.0 / 1000 + 3600) * 1000)));
    for header in [json!({ "alg": "EdDSA" }), json!({ "alg": "Ed25519", "kid": "k1" })] {
        assert_eq!(refused(&token(header, &claims())), None);
    }
    let many = json!(["other", AUDIENCE]);
    assert_eq!(refused(&changed("aud", many)), None);
}

/// A good token with another claim.
fn changed(name: &str, value: Value) -> String {
    let mut claims = claims();
    claims[name] = value;
    token(json!({ "alg": "EdDSA", "kid": "k1" }), &claims)
}

#[test]
fn the_algorithm_is_that_of_the_key_whatever_the_token_says() {
    let invalid = Some(Code::LicenseInvalid);
    for header in [
        json!({ "alg": "none", "kid": "k1" }),
        json!({ "alg": "HS256", "kid": "k1" }),
        json!({ "alg": "RS256" }),
        json!({ "alg": "ES256" }),
        json!({ "alg": "eddsa" }),
        json!({ "alg": ["EdDSA"] }),
        json!({ "alg": "EdDSA", "crit": [] }),
        json!({ "alg": "EdDSA", "crit": ["exp"], "kid": "k1" }),
        json!({ "alg": "EdDSA", "kid": "k3" }),
        json!({ "alg": "EdDSA", "kid": "k2" }),
        json!({ "alg": "EdDSA", "kid": 1 }),
        json!({ "alg": "EdDSA", "kid": null }),
        json!({ "kid": "k1" }),
    ] {
        assert_eq!(refused(&token(header.clone(), &claims())), invalid, "{header}");
    }
    // A key that the token brings along is not looked at.
    let own = json!({ "alg": "EdDSA", "jwk": { "kty": "OKP", "crv": "Ed25519", "x": encode(public(9)) } });
    assert_eq!(refused(&token_of(&own.to_string(), &claims().to_string(), 9)), invalid);
    // Signed with the public key as a secret of HMAC.
    let message =
        format!("{}.{}", encode(r#"{"alg":"HS256","kid":"k1"}"#), encode(claims().to_string()));
    use hmac::{Hmac, KeyInit, Mac};
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(&public(1)).unwrap();
    mac.update(message.as_bytes());
    let forged = format!("{message}.{}", encode(mac.finalize().into_bytes()));
    assert_eq!(refused(&forged), invalid);
}

#[test]
fn what_is_changed_or_stands_twice_is_no_licence() {
    let invalid = Some(Code::LicenseInvalid);
    let good = good();
    for at in 0..good.len() {
        let mut bytes = good.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(bytes).unwrap();
        // The last letter of a part may hold bits that stand for nothing.
        if decode(changed.rsplit('.').next().unwrap()) != decode(good.rsplit('.').next().unwrap())
            || at < good.rfind('.').unwrap()
        {
            assert_eq!(refused(&changed), invalid, "{at}");
        }
    }
    let (head, _) = good.rsplit_once('.').unwrap();
    for broken in [format!("{head}."), head.to_owned(), format!("{good}.x"), format!("{good} ")] {
        assert_eq!(refused(&broken), invalid, "{broken}");
    }
    let twice = r#"{"sub":"a","sub":"b","aud":"jstar","plan":"pro","exp":9999999999}"#;
    assert_eq!(refused(&token_of(r#"{"alg":"EdDSA"}"#, twice, 1)), invalid);
    let twice = token_of(r#"{"alg":"none","alg":"EdDSA"}"#, &claims().to_string(), 1);
    assert_eq!(refused(&twice), invalid);
    assert_eq!(refused(&"a".repeat(LONGEST + 1)), invalid);
}

#[test]
fn each_claim_counts() {
    let seconds = NOW.0 / 1000;
    for (name, value, code) in [
        ("aud", json!("other"), Some(Code::LicenseWrongProduct)),
        ("aud", json!([]), Some(Code::LicenseWrongProduct)),
        ("aud", Value::Null, Some(Code::LicenseWrongProduct)),
        ("exp", json!(seconds - 59), None),
        ("exp", json!(seconds - 60), Some(Code::LicenseExpired)),
        ("exp", Value::Null, Some(Code::LicenseInvalid)),
        ("exp", json!("9999999999"), Some(Code::LicenseInvalid)),
        ("exp", json!(-1), Some(Code::LicenseInvalid)),
        ("exp", json!(1e300), Some(Code::LicenseInvalid)),
        ("nbf", json!(seconds + 60), None),
        ("nbf", json!(seconds + 61), Some(Code::LicenseInvalid)),
        ("nbf", json!("now"), Some(Code::LicenseInvalid)),
        ("sub", json!(""), Some(Code::LicenseInvalid)),
        ("sub", json!(7), Some(Code::LicenseInvalid)),
        ("plan", json!("gold"), Some(Code::LicenseWrongProduct)),
        ("plan", json!(["pro"]), Some(Code::LicenseWrongProduct)),
    ] {
        assert_eq!(refused(&changed(name, value.clone())), code, "{name} = {value}");
    }
    let perpetual = SignedSource { perpetual: true, ..source() };
    let token = changed("exp", Value::Null);
    assert_eq!(verify(&perpetual, &token, NOW).unwrap().until, None);
    let over = changed("exp", json!(1));
    assert_eq!(verify(&perpetual, &over, NOW), Err(Code::LicenseExpired), "an end is an end");
}

#[test]
fn an_id_or_one_token_of_it_is_revoked() {
    for name in ["buyer-1", "t-1"] {
        let source = SignedSource { revoked: HashSet::from([name.to_owned()]), ..source() };
        assert_eq!(verify(&source, &good(), NOW), Err(Code::LicenseDisabled), "{name}");
    }
    let other = SignedSource { revoked: HashSet::from(["t-2".to_owned()]), ..source() };
    assert!(verify(&other, &good(), NOW).is_ok());
}

/// <https://keygen.sh/docs/api/cryptography/#cryptographic-keys>, scheme `ED25519_SIGN`.
#[test]
fn a_signed_key_of_keygen_is_verified_without_a_call() {
    let source = SignedSource {
        format: Format::Keygen,
        audience: "prod-1".into(),
        id: "license.id".into(),
        plan: "policy.id".into(),
        plans: vec![("pol-1".into(), plan("pro"))],
        ..source()
    };
    let key = |dataset: Value, seed: u8| {
        let message = format!("key/{}", URL_SAFE.encode(dataset.to_string()));
        let signature = pair(seed).sign(message.as_bytes());
        format!("{message}.{}", URL_SAFE.encode(signature))
    };
    let dataset = |expiry: Value| {
        json!({
            "account": { "id": "acc-1" }, "product": { "id": "prod-1" },
            "policy": { "id": "pol-1", "duration": null }, "user": null,
            "license": { "id": "lic-1", "created": "2026-01-01T00:00:00Z", "expiry": expiry },
        })
    };
    let license = verify(&source, &key(dataset(json!("2127-01-01T00:00:00Z")), 1), NOW).unwrap();
    assert_eq!((&*license.id, &*license.plan.name), ("lic-1", "pro"));
    let said = |key: &str| verify(&source, key, NOW).err();
    assert_eq!(said(&key(dataset(json!("2026-01-01T00:00:00Z")), 1)), Some(Code::LicenseExpired));
    assert_eq!(said(&key(dataset(Value::Null), 1)), Some(Code::LicenseInvalid), "no end");
    assert_eq!(said(&key(dataset(json!("2127-01-01T00:00:00Z")), 9)), Some(Code::LicenseInvalid));
    assert_eq!(said(&good()), Some(Code::LicenseInvalid), "another format");
}
