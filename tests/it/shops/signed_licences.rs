//! Licences that prove themselves, over real sockets; each claim has its case in `src/shops/signed/tests.rs`.

use std::{fs, time::Duration};

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use ring::signature::{Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};

use crate::{
    license_admin::operator::done,
    support::{Config, Gateway, Mock, Reply, eventually},
};

const FAR: u64 = 4_102_444_800; // 2100

fn pair() -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap()
}

fn token(claims: &Value) -> String {
    let part = |text: String| URL_SAFE_NO_PAD.encode(text);
    let header = json!({ "alg": "EdDSA", "kid": "k1" });
    let message = format!("{}.{}", part(header.to_string()), part(claims.to_string()));
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(pair().sign(message.as_bytes())))
}

fn licence(sub: &str, jti: &str) -> String {
    token(&json!({ "sub": sub, "aud": "jstar", "plan": "pro", "exp": FAR, "jti": jti }))
}

fn signed(mock: &Mock) -> Config {
    let key = STANDARD.encode(pair().public_key().as_ref());
    Config::new(mock)
        .plan("pro", "messages: 1000/month, models: [\"*\"]")
        .of_shop("signed", "keys", &format!("{{ k1: \"ed25519:{key}\" }}"))
        .of_shop("signed", "audience", "jstar")
        .of_shop("signed", "plan", "claim:plan")
}

#[tokio::test]
async fn a_signed_licence_is_served_and_a_new_token_of_it_keeps_its_usage() {
    let mock = Mock::start(Reply::chat()).await;
    let gateway = Gateway::start(signed(&mock)).await;
    let (first, second) = (licence("buyer-1", "t-1"), licence("buyer-1", "t-2"));
    assert!(first.len() > 200);
    gateway.app().chat_as(&first).await.ok();
    gateway.app().chat_as(&second).await.ok();
    assert_eq!(gateway.messages(&second).await, 2);
    assert_eq!(gateway.messages(&licence("buyer-2", "t-3")).await, 0);
    let me = gateway.me(&first).await;
    assert_eq!((&me["plan"], &me["until"]), (&json!("pro"), &json!("2100-01-01T00:00:00Z")));
    let over = token(&json!({ "sub": "b", "aud": "jstar", "plan": "pro", "exp": 1 }));
    gateway.app().chat_as(&over).await.is(403, "license_expired");
    let other = token(&json!({ "sub": "b", "aud": "other", "plan": "pro", "exp": FAR }));
    gateway.app().chat_as(&other).await.is(403, "license_wrong_product");
    let long = token(&json!({
        "sub": "buyer-9", "aud": "jstar", "plan": "pro", "exp": FAR, "pad": "x".repeat(1_200),
    }));
    gateway.app().chat_as(&long).await.ok();
    let mut forged = first.clone();
    forged.replace_range(0..0, "x");
    gateway.app().chat_as(&forged).await.is(403, "license_invalid");
    assert!(!gateway.logs().contains(&first), "no token stands in a log");
    let status = gateway.status().await;
    assert!(status["sources"].as_array().unwrap().iter().any(|source| source["name"] == "signed"));
}

#[tokio::test]
async fn a_signed_licence_is_revoked_by_the_operator_and_by_the_file() {
    let mock = Mock::start(Reply::chat()).await;
    let dir = tempfile::tempdir().unwrap();
    let list = dir.path().join("revoked.txt");
    fs::write(&list, "# nothing yet\n").unwrap();
    let config =
        signed(&mock).of_shop("signed", "revoked", &format!("\"file:{}\"", list.display()));
    let gateway = Gateway::start(config).await;
    let (one, other) = (licence("buyer-1", "t-1"), licence("buyer-2", "t-2"));
    gateway.app().chat_as(&one).await.ok();
    gateway.app().chat_as(&other).await.ok();
    let said = done(&gateway, "revoke", &one, &json!({})).await;
    assert_eq!(said["source"], "signed", "{said}");
    gateway.app().chat_as(&one).await.is(403, "license_disabled");
    gateway.app().chat_as(&licence("buyer-1", "t-9")).await.is(403, "license_disabled");
    done(&gateway, "restore", &one, &json!({})).await;
    gateway.app().chat_as(&one).await.ok();
    fs::write(&list, "t-2\n").unwrap();
    eventually("the list is read when it is saved", Duration::from_secs(5), || async {
        gateway.app().chat_as(&other).await.status == 403
    })
    .await;
    gateway.app().chat_as(&other).await.is(403, "license_disabled");
    gateway.app().chat_as(&licence("buyer-2", "t-4")).await.ok();
}
