//! What an operator does about one buyer, over the admin listener of one gateway.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::{
    licenses::verdicts::start,
    support::{
        Answer, Config, Gateway, LICENSE, Mock, Reply, Says, Step, client, contains, eventually,
        shop::{BOUGHT, GUMROAD, license_key},
        sse,
        yaml::write_private,
    },
};

/// Tells the gateway to do something about a licence.
pub async fn order(gateway: &Gateway, command: &str, body: &Value) -> Answer {
    let request = gateway
        .operator()
        .request("POST", &format!("/api/licenses/{command}"))
        .header("content-type", "application/json")
        .body(body.to_string());
    Answer::of(request).await
}

/// The same, about a key, where it works.
pub async fn done(gateway: &Gateway, command: &str, key: &str, more: &Value) -> Value {
    let mut body = json!({ "key": key });
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    let answer = order(gateway, command, &body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

pub async fn show(gateway: &Gateway, key: &str) -> Value {
    done(gateway, "show", key, &json!({})).await
}

async fn embedded(plan: &str) -> (Mock, Gateway) {
    let mock = Mock::start(Reply::chat()).await;
    let gateway = Gateway::start(Config::new(&mock).plan("free", plan)).await;
    (mock, gateway)
}

#[tokio::test]
async fn extra_messages_are_seen_wherever_the_limit_is() {
    let (_mock, mut gateway) =
        embedded("messages: 2/month, tokens: 100000/month, models: [fast]").await;
    gateway.app().chat().await.ok();
    gateway.app().chat().await.ok();
    gateway.app().chat().await.is(402, "quota_exceeded");
    let more = json!({ "messages": 3, "tokens": 500, "id": "monday", "note": "sorry" });
    let granted = done(&gateway, "grant", LICENSE, &more).await;
    assert_eq!(granted["done"]["repeated"], false, "{granted}");
    assert_eq!(granted["limits"]["messages"]["limit"], 5);
    // Killed right after the answer.
    gateway.restart().await;
    let answer = gateway.app().chat().await;
    assert_eq!(answer.ok().number("x-quota-messages-remaining"), 2);
    let me = gateway.me(LICENSE).await;
    let of = |name: &str| me["limits"]["messages"][name].as_u64().unwrap();
    assert_eq!((of("limit"), of("used"), of("left")), (5, 3, 2), "{me}");
    assert_eq!(me["limits"]["tokens"]["limit"], 100_500);
    gateway.app().chat().await.ok();
    gateway.app().chat().await.ok();
    let refused = gateway.app().chat().await;
    refused.is(402, "quota_exceeded");
    assert!(refused.text().contains("all 5 messages of this month"), "{}", refused.text());
    // The same order again is done once, over restarts too.
    let again = done(&gateway, "grant", LICENSE, &more).await;
    assert_eq!(
        (&again["done"]["repeated"], &again["limits"]["messages"]["limit"]),
        (&json!(true), &json!(5))
    );
    let actions = again["actions"].as_array().unwrap();
    assert_eq!(actions.len(), 1);
    assert_eq!((&actions[0]["action"], &actions[0]["note"]), (&json!("grant"), &json!("sorry")));
}

#[tokio::test]
async fn a_reset_forgives_what_was_used_and_open_requests_count() {
    let (mock, gateway) = embedded("messages: 3/month, models: [fast]").await;
    gateway.app().chat().await.ok();
    gateway.app().chat().await.ok();
    mock.answer([Reply::sse(&[sse::text("Hel")]).then(Step::Hang)]);
    let mut open = gateway.app().open(&client::chat(&json!({ "stream": true }))).await;
    open.chunk().await.unwrap().expect("the first event");
    let reset = done(&gateway, "reset", LICENSE, &json!({ "id": "r" })).await;
    assert_eq!(reset["limits"]["messages"]["used"], 1, "{reset}");
    assert_eq!((&reset["open"], &reset["limits"]["messages"]["forgiven"]), (&json!(1), &json!(2)));
    done(&gateway, "reset", LICENSE, &json!({ "id": "r" })).await;
    drop(open);
    eventually("it is charged", Duration::from_secs(10), || async {
        show(&gateway, LICENSE).await["open"] == 0
    })
    .await;
    assert_eq!(gateway.messages(LICENSE).await, 1, "retried, it forgives nothing more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_grants_at_once_add_up() {
    let (_mock, gateway) = embedded("messages: 1/month, models: [fast]").await;
    let mut asking = JoinSet::new();
    for nth in 0..20 {
        let request = gateway
            .operator()
            .request("POST", "/api/licenses/grant")
            .header("content-type", "application/json");
        // Each one twice: as if the first answer had been lost.
        let id = format!("id-{}", nth / 2);
        let body = json!({ "key": LICENSE, "messages": 7, "id": id }).to_string();
        asking.spawn(async move { Answer::of(request.body(body)).await });
    }
    for answer in asking.join_all().await {
        answer.ok();
    }
    assert_eq!(show(&gateway, LICENSE).await["limits"]["messages"]["limit"], 71);
}

#[tokio::test]
async fn a_revoked_licence_is_refused_at_once_whatever_its_source_says() {
    let (_mock, shop, mut gateway) =
        start(|config, shop| config.lemonsqueezy(shop).gumroad(shop)).await;
    shop.sells(BOUGHT, Says::license()).sells(GUMROAD, Says::sale());
    for key in [LICENSE, BOUGHT, GUMROAD] {
        gateway.app().chat_as(key).await.ok();
        let revoked = done(&gateway, "revoke", key, &json!({ "note": "published" })).await;
        assert_eq!((&revoked["status"], &revoked["revoked"]), (&json!("revoked"), &json!(true)));
        gateway.app().chat_as(key).await.is(403, "license_disabled");
    }
    gateway.restart().await;
    shop.forget();
    for key in [LICENSE, BOUGHT, GUMROAD] {
        gateway.app().chat_as(key).await.is(403, "license_disabled");
        let again = done(&gateway, "revoke", key, &json!({})).await;
        assert_eq!(again["actions"][0]["detail"], "it was so already");
    }
    assert!(shop.calls().iter().all(|call| !format!("{call:?}").contains(BOUGHT)), "not re-asked");
    for key in [LICENSE, BOUGHT, GUMROAD] {
        let restored = done(&gateway, "restore", key, &json!({})).await;
        assert_eq!(restored["status"], "valid", "{restored}");
        gateway.app().chat_as(key).await.ok();
    }
    gateway.restart().await;
    gateway.app().chat_as(BOUGHT).await.ok();
    // A key that was never used can be revoked, too: its shop is asked first.
    let fresh = license_key(7);
    shop.sells(&fresh, Says::license());
    done(&gateway, "revoke", &fresh, &json!({})).await;
    gateway.app().chat_as(&fresh).await.is(403, "license_disabled");
}

#[tokio::test]
async fn show_knows_the_used_the_unused_and_the_unknown() {
    let (_mock, shop, gateway) = start(|config, shop| config.lemonsqueezy(shop)).await;
    let unused = show(&gateway, LICENSE).await;
    assert_eq!((&unused["plan"], &unused["source"]), (&json!("free"), &json!("static")));
    assert_eq!((&unused["last_seen"], &unused["checked"]), (&Value::Null, &Value::Null));
    assert_eq!((&unused["open"], &unused["limits"]["tokens"]), (&json!(0), &Value::Null));
    shop.sells(BOUGHT, Says::license());
    gateway.app().chat_as(BOUGHT).await.ok();
    let used = show(&gateway, BOUGHT).await;
    assert_eq!((&used["plan"], &used["source"]), (&json!("pro"), &json!("lemonsqueezy")));
    assert_eq!(
        (&used["status"], &used["limits"]["messages"]["used"]),
        (&json!("valid"), &json!(1))
    );
    assert!(used["last_seen"].is_string() && used["checked"].is_string(), "{used}");
    // By its id, as well.
    let by_id = order(&gateway, "show", &json!({ "license": used["license"] })).await;
    assert_eq!(by_id.json()["plan"], "pro");
    for body in [
        json!({ "key": "NOBODY-KNOWS-IT" }),
        json!({ "key": license_key(9) }),
        json!({ "license": "0a".repeat(32) }),
    ] {
        for command in ["show", "revoke", "grant"] {
            let mut body = body.clone();
            if command == "grant" {
                body["messages"] = json!(1);
            }
            let answer = order(&gateway, command, &body).await;
            assert_eq!(answer.status, 404, "{}", answer.text());
            assert_eq!(answer.error("code"), "license_not_found");
        }
    }
    shop.close().await;
    let answer = order(&gateway, "show", &json!({ "key": license_key(8) })).await;
    assert_eq!((answer.status, answer.error("code")), (503, json!("license_check_unavailable")));
    // One that was disabled at its shop keeps the plan it had.
    shop.reopen();
    shop.sells(&license_key(3), Says::refused("disabled"));
    gateway.app().chat_as(&license_key(3)).await.is(403, "license_disabled");
    assert_eq!(show(&gateway, &license_key(3)).await["status"], "disabled");
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_in_words() {
    let (_mock, gateway) = embedded("messages: 3/month, models: [fast]").await;
    for (command, body, status, code) in [
        ("grant", json!({ "key": LICENSE }), 400, "invalid_request"),
        ("grant", json!({ "key": LICENSE, "tokens": 5 }), 409, "no_limit"),
        ("grant", json!({ "key": LICENSE, "messages": "5" }), 400, "invalid_request"),
        ("show", json!({ "key": LICENSE, "plan": "pro" }), 400, "invalid_request"),
        ("revoke", json!([LICENSE]), 400, "invalid_request"),
        ("destroy", json!({ "key": LICENSE }), 404, "not_found"),
        ("grant", json!({ "key": LICENSE, "note": "x".repeat(20_000) }), 413, "body_too_large"),
    ] {
        let answer = order(&gateway, command, &body).await;
        assert_eq!((answer.status, answer.error("code")), (status, json!(code)), "{body}");
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert!(!answer.text().contains(LICENSE), "{}", answer.text());
    }
    assert_eq!(show(&gateway, LICENSE).await["actions"], json!([]));
}

#[tokio::test]
async fn only_an_operator_changes_anything() {
    let mock = Mock::start(Reply::chat()).await;
    let dir = tempfile::tempdir().unwrap();
    let token = dir.path().join("token");
    write_private(&token, "a-long-admin-token-0123456789");
    let members = format!("token: \"file:{}\", hosts: [gateway.example]", token.display());
    let gateway = Gateway::start(Config::new(&mock).admin(&members)).await;
    let body = json!({ "key": LICENSE }).to_string();
    let json = ("content-type", "application/json");
    let bearer = ("authorization", "Bearer a-long-admin-token-0123456789");
    let own = format!("http://{}", gateway.admin);
    for (method, headers, status) in [
        ("POST", vec![json, bearer], 200),
        ("POST", vec![json, ("origin", &*own), bearer], 200),
        ("POST", vec![json, ("origin", "https://gateway.example"), bearer], 200),
        ("POST", vec![json, ("host", "gateway.example:9090"), bearer], 200),
        ("POST", vec![("content-type", "application/json; charset=utf-8"), bearer], 200),
        ("GET", vec![json, bearer], 405),
        ("DELETE", vec![json, bearer], 405),
        ("POST", vec![bearer], 415),
        ("POST", vec![("content-type", "text/plain"), bearer], 415),
        ("POST", vec![json], 401),
        ("GET", vec![json], 401),
        ("POST", vec![json, ("origin", "https://evil.example")], 403),
        ("POST", vec![json, ("origin", "null"), bearer], 403),
        ("POST", vec![json, ("origin", "https://evil.example"), bearer], 403),
        ("POST", vec![json, ("host", "evil.example")], 403),
        ("POST", vec![json, ("authorization", "Bearer wrong")], 401),
    ] {
        for command in ["show", "revoke", "restore"] {
            let mut request =
                gateway.stranger().request(method, &format!("/api/licenses/{command}"));
            for (name, value) in &headers {
                request = request.header(*name, *value);
            }
            let answer = Answer::of(request.body(body.clone())).await;
            assert_eq!(answer.status, status, "{method} {headers:?}: {}", answer.text());
            assert!(status == 200 || answer.error("code").is_string(), "{}", answer.text());
        }
    }
    // Health and the other pages are as they were.
    assert_eq!(gateway.readyz().await, Some(200));
    gateway.status().await;
}

#[tokio::test]
async fn actions_are_rows_and_lines_without_keys() {
    let (_mock, gateway) = embedded("messages: 3/month, models: [fast]").await;
    let granted =
        done(&gateway, "grant", LICENSE, &json!({ "messages": 9, "note": "n\u{f6}te" })).await;
    done(&gateway, "revoke", &LICENSE.to_ascii_lowercase(), &json!({})).await;
    let id = granted["license"].as_str().unwrap().to_owned();
    let rows = || {
        let database = rusqlite::Connection::open(gateway.store()).unwrap();
        let query = "SELECT action, license, detail, note FROM actions ORDER BY rowid";
        let mut statement = database.prepare(query).unwrap();
        let rows = statement.query_map([], |row| {
            Ok([row.get::<_, String>(0)?, row.get(1)?, row.get(2)?, row.get(3)?])
        });
        rows.unwrap().map(Result::unwrap).collect::<Vec<_>>()
    };
    eventually("both are in the database", Duration::from_secs(10), || async { rows().len() == 2 })
        .await;
    assert_eq!(rows()[0], ["grant", &*id, "9 messages", "n\u{f6}te"]);
    assert_eq!(rows()[1], ["revoke", &*id, "", ""]);
    let logs = gateway.logs();
    let line = format!("license={}", &id[..12]);
    assert_eq!(logs.matches(&line).count(), 2, "{logs}");
    assert!(!logs.contains(&id) && !logs.to_uppercase().contains(LICENSE), "{logs}");
    for file in ["gatekeeper.db", "gatekeeper.db-wal"] {
        let bytes = std::fs::read(gateway.store().with_file_name(file)).unwrap_or_default();
        assert!(!contains(&bytes.to_ascii_uppercase(), LICENSE), "{file}");
    }
}

/// The page lists those that used most, those that were seen last, and those that were refused: ids, never keys.
#[tokio::test]
async fn licences_are_listed_by_use_by_time_and_by_refusal() {
    let (_mock, gateway) = embedded("messages: 1/month, models: [fast]").await;
    gateway.app().chat().await.ok();
    for _ in 0..2 {
        gateway.app().chat().await.is(402, "quota_exceeded");
    }
    gateway.app().chat_as("JSTAR-NOT-KNOWN-0001").await.is(403, "license_invalid");
    let id = show(&gateway, LICENSE).await["license"].clone();
    let lists =
        async || -> Value { Answer::of(gateway.operator().get("/api/licenses")).await.ok().json() };
    // The store's days are written in batches.
    eventually("the licence to be in the list", Duration::from_secs(5), || async {
        lists().await["all"] == 1
    })
    .await;
    let lists = lists().await;
    assert_eq!((&lists["licenses"][0]["license"], &lists["seen"][0]["license"]), (&id, &id));
    assert!(lists["seen"][0]["last_seen"].as_str().is_some_and(|at| at.len() > 10), "{lists}");
    let refused = lists["refused"].as_array().unwrap();
    assert_eq!(refused.len(), 1, "{lists}");
    assert_eq!((&refused[0]["license"], &refused[0]["times"]), (&id, &json!(2)));
    assert_eq!(
        (&refused[0]["error"], &refused[0]["plan"]),
        (&json!("quota_exceeded"), &json!("free"))
    );
    assert_eq!(lists["unknown_keys"]["times"], 1);
    assert!(!lists.to_string().contains("JSTAR"), "{lists}");
    done(&gateway, "revoke", LICENSE, &json!({})).await;
    gateway.app().chat().await.is(403, "license_disabled");
    let again: Value = Answer::of(gateway.operator().get("/api/licenses")).await.json();
    assert_eq!(again["refused"][0]["error"], "license_disabled");
    assert_eq!((&again["refused"][0]["license"], &again["refused"][0]["times"]), (&id, &json!(3)));
}
