//! A filter from another crate stands in the chain wherever YAML puts it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test")]

use gatekeeper_test_support::{Answer, Config, Gateway, LICENSE, Mock, Reply, client, run};
use serde_json::json;

const RULE: &str = "{ forbidden_word: { word: gibberish } }";

async fn start(filters: &str) -> (Mock, Gateway) {
    let mock = Mock::sequence([Reply::chat(), Reply::stream()]).await;
    let plan = "messages: 1/month, models: [\"*\"]";
    let config = Config::new(&mock).plan("free", plan).filters(filters);
    (mock, Gateway::start(config).await)
}

fn question(model: &str, words: &str) -> serde_json::Value {
    client::chat(&json!({ "model": model, "messages": [{ "role": "user", "content": words }] }))
}

#[tokio::test]
async fn it_refuses_passes_and_marks() {
    let (mock, gateway) =
        start(&format!("[license, rate_limit, {RULE}, route, quota, meter]")).await;
    let refused = gateway.app().ask(&question("fast", "some gibberish")).await;
    refused.is(400, "invalid_request");
    assert_eq!(refused.error("param"), "messages");
    assert!(refused.error("message").as_str().unwrap().contains("gibberish"));
    assert_eq!(mock.count(), 0);
    assert_eq!(gateway.messages(LICENSE).await, 0);
    let passed: Answer = gateway.app().ask(&question("fast", "hello")).await;
    assert_eq!(passed.ok().header("x-word-check"), Some("checked"));
    assert_eq!(gateway.messages(LICENSE).await, 1);
}

#[tokio::test]
async fn the_order_in_yaml_is_the_order_of_refusal() {
    let both_wrong = question("no-such-model", "some gibberish");
    let (_mock, before) = start(&format!("[license, {RULE}, route, quota, meter]")).await;
    before.app().ask(&both_wrong).await.is(400, "invalid_request");
    let (_mock, after) = start(&format!("[license, route, {RULE}, quota, meter]")).await;
    after.app().ask(&both_wrong).await.is(404, "model_not_found");

    let wrong = question("fast", "some gibberish");
    let (_mock, first) = start(&format!("[license, route, {RULE}, quota, meter]")).await;
    let (_mock, last) = start(&format!("[license, route, quota, meter, {RULE}]")).await;
    for (gateway, status, code) in
        [(&first, 400, "invalid_request"), (&last, 402, "quota_exceeded")]
    {
        gateway.app().ask(&question("fast", "hello")).await.ok();
        gateway.app().ask(&wrong).await.is(status, code);
        assert_eq!(gateway.messages(LICENSE).await, 1);
    }
}

#[tokio::test]
async fn a_refusal_after_the_quota_gives_the_charge_back() {
    let (mock, gateway) = start(&format!("[license, route, quota, meter, {RULE}]")).await;
    gateway.app().ask(&question("fast", "some gibberish")).await.is(400, "invalid_request");
    assert_eq!(gateway.messages(LICENSE).await, 0);
    gateway.app().ask(&question("fast", "hello")).await.ok();
    assert_eq!(mock.count(), 1);
}

#[tokio::test]
async fn explain_shows_it_with_its_effective_options() {
    let (_mock, gateway) = start(&format!("[license, {RULE}, route, quota, meter]")).await;
    let output = run(&["explain", "-c", "gatekeeper.yaml"], gateway.dir.path());
    let text = String::from_utf8(output.stdout).unwrap();
    for words in ["forbidden_word", "refuses questions that contain a word", "gibberish", "checked"]
    {
        assert!(text.contains(words), "no {words} in\n{text}");
    }
}

#[tokio::test]
async fn wrong_options_are_a_config_error_with_its_line() {
    let mock = Mock::start(Reply::chat()).await;
    for (rule, words) in [
        ("{ forbidden_word: { wrod: x } }", "wrod"),
        ("{ forbidden_word: { word: \"\" } }", "every question would be refused"),
        ("forbidden_word", "word"),
        ("{ forbiden_word: { word: x } }", "forbidden_word"),
    ] {
        let dir = tempfile::TempDir::new().unwrap();
        let filters = format!("[license, {rule}, route, quota, meter]");
        Config::new(&mock).filters(&filters).file(dir.path());
        let output = run(&["check", "-c", "gatekeeper.yaml"], dir.path());
        assert_eq!(output.status.code(), Some(1), "{rule}");
        let said = [output.stdout, output.stderr].concat();
        assert!(String::from_utf8_lossy(&said).contains(words), "{rule}");
    }
    let dir = tempfile::TempDir::new().unwrap();
    Config::new(&mock)
        .filters("[license, { forbidden_word: { word: x } }, route, quota, meter]")
        .file(dir.path());
    assert!(run(&["check", "-c", "gatekeeper.yaml"], dir.path()).status.success());
}

#[test]
fn the_guide_shows_exactly_this_filter() {
    let guide = include_str!("../../../filters/README.md");
    let filter = include_str!("../src/main.rs");
    assert!(guide.contains(filter), "filters/README.md and src/main.rs have grown apart");
}
