//! Apps that speak Anthropic's or Gemini's API: in, out, counted and refused in their own dialect.

use std::time::Duration;

use serde_json::{Value, json};

use crate::{
    downstream::disconnect::over,
    support::{Answer, Config, Gateway, LICENSE, Mock, Reply, Step, client, contains},
};

pub const MESSAGE: &str = include_str!("../../fixtures/anthropic/anthropic_messages.json");
pub const MESSAGE_STREAM: &str = include_str!("../../fixtures/anthropic/anthropic_stream.sse");
const BROKEN_STREAM: &str =
    include_str!("../../fixtures/anthropic/anthropic_stream_overloaded.sse");
pub const GENERATED: &str = include_str!("../../fixtures/gemini/gemini_generate.json");
pub const GENERATED_STREAM: &str = include_str!("../../fixtures/gemini/gemini_stream.sse");

/// What the fixtures count.
pub const MESSAGE_TOKENS: u64 = 1215;
pub const GENERATED_TOKENS: u64 = 1389;
pub const GENERATED_STREAM_TOKENS: u64 = 77;

pub const ANTHROPIC: &str = "/v1/messages";
pub const GEMINI: &str = "/v1beta/models/gemini:generateContent";
pub const GEMINI_STREAM: &str = "/v1beta/models/gemini:streamGenerateContent?alt=sse";

pub fn config(mock: &Mock) -> Config {
    let base = mock.url();
    Config::new(mock)
        .provider_at("a", &base, ", dialect: anthropic", &["sk-ant-1", "sk-ant-2"])
        .provider_at("g", &base, ", dialect: gemini", &["AIza-1", "AIza-2"])
        .model("claude", "[a/claude-sonnet-5]")
        .model("gemini", "[g/gemini-3.5-flash]")
        .plan("free", "messages: 1000/month, tokens: 1000000/month, models: [\"*\"]")
}

pub fn message(more: &Value) -> Value {
    let mut body = json!({
        "model": "claude", "max_tokens": 400,
        "messages": [{ "role": "user", "content": "What is the capital of Iceland?" }],
    });
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

pub fn contents(more: &Value) -> Value {
    let mut body = json!({
        "contents": [{ "role": "user", "parts": [{ "text": "What is the capital of Iceland?" }] }],
    });
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

/// With the key where this dialect's SDK sends it.
pub async fn ask(gateway: &Gateway, path: &str, body: &Value) -> Answer {
    ask_as(gateway, LICENSE, path, body).await
}

pub async fn ask_as(gateway: &Gateway, key: &str, path: &str, body: &Value) -> Answer {
    let name = if path.starts_with(ANTHROPIC) { "x-api-key" } else { "x-goog-api-key" };
    let request = gateway.app().request("POST", path).header(name, key);
    Answer::of(request.header("content-type", "application/json").body(body.to_string())).await
}

#[tokio::test]
async fn a_message_goes_through_with_the_providers_credential_and_is_counted() {
    let mock = Mock::start(Reply::json(200, MESSAGE)).await;
    let gateway = Gateway::start(config(&mock)).await;
    let extra = json!({ "metadata": { "user_id": "me@example.com" }, "service_tier": "auto" });
    let answer = ask(&gateway, ANTHROPIC, &message(&extra)).await;
    assert_eq!(answer.ok().json(), serde_json::from_str::<Value>(MESSAGE).unwrap());
    assert_eq!(answer.header("x-gatekeeper-model"), Some("a/claude-sonnet-5"));
    let seen = mock.only();
    assert_eq!((&*seen.method, &*seen.path), ("POST", "/v1/messages"));
    assert!(seen.header("x-api-key").unwrap().starts_with("sk-ant-"));
    assert_eq!(seen.header("anthropic-version"), Some("2023-06-01"));
    assert_eq!(seen.header("authorization"), None);
    let sent = seen.json();
    assert_eq!((&sent["model"], &sent["max_tokens"]), (&json!("claude-sonnet-5"), &json!(400)));
    assert_eq!(sent["metadata"]["user_id"].as_str().unwrap().len(), 32);
    assert!(sent.get("service_tier").is_none());
    assert!(!contains(&seen.head, LICENSE) && !contains(&seen.body, "me@example.com"));
    assert_eq!(gateway.tokens(LICENSE).await, MESSAGE_TOKENS);
    // The version is the app's where it says one; other headers stay here.
    let request = gateway.app().post(ANTHROPIC, message(&json!({})).to_string());
    let request = request
        .header("anthropic-version", "2026-10-21")
        .header("anthropic-beta", "code-execution-2025-05-22");
    Answer::of(request).await.ok();
    assert_eq!(mock.last().header("anthropic-version"), Some("2026-10-21"));
    assert_eq!(mock.last().header("anthropic-beta"), None);
}

#[tokio::test]
async fn streams_of_both_dialects_pass_byte_by_byte_and_are_counted() {
    for (path, body, stream, tokens) in [
        (ANTHROPIC, message(&json!({ "stream": true })), MESSAGE_STREAM, MESSAGE_TOKENS),
        (GEMINI_STREAM, contents(&json!({})), GENERATED_STREAM, GENERATED_STREAM_TOKENS),
    ] {
        let mock = Mock::start(Reply::sse(&[stream])).await;
        let gateway = Gateway::start(config(&mock)).await;
        let answer = ask(&gateway, path, &body).await;
        assert_eq!(answer.ok().text(), stream);
        assert!(answer.header("content-type").unwrap().starts_with("text/event-stream"));
        over(&gateway).await;
        assert_eq!(gateway.tokens(LICENSE).await, tokens);
        mock.answer([Reply::sse(&[stream]).bytewise()]);
        assert_eq!(ask(&gateway, path, &body).await.ok().text(), stream);
        over(&gateway).await;
        assert_eq!(gateway.tokens(LICENSE).await, 2 * tokens);
    }
}

#[tokio::test]
async fn gemini_is_asked_at_the_targets_path_with_its_header() {
    let mock = Mock::start(Reply::json(200, GENERATED)).await;
    let gateway = Gateway::start(config(&mock)).await;
    let answer = ask(&gateway, GEMINI, &contents(&json!({ "labels": { "a": "b" } }))).await;
    assert_eq!(answer.ok().json(), serde_json::from_str::<Value>(GENERATED).unwrap());
    let seen = mock.only();
    assert_eq!(seen.path, "/v1/models/gemini-3.5-flash:generateContent");
    assert!(seen.header("x-goog-api-key").unwrap().starts_with("AIza-"));
    assert_eq!(seen.header("authorization"), None);
    assert!(seen.json().get("model").is_none() && seen.json().get("labels").is_none());
    assert_eq!(gateway.tokens(LICENSE).await, GENERATED_TOKENS);
    mock.answer([Reply::sse(&[GENERATED_STREAM])]);
    ask(&gateway, GEMINI_STREAM, &contents(&json!({}))).await.ok();
    let path = "/v1/models/gemini-3.5-flash:streamGenerateContent?alt=sse";
    assert_eq!(mock.last().path, path);
}

#[tokio::test]
async fn caps_are_lowered_where_each_dialect_has_them() {
    let mock = Mock::start(Reply::json(200, MESSAGE)).await;
    let plan =
        "messages: 1000/month, tokens: 100000000/month, max_output_tokens: 50, models: [\"*\"]";
    let gateway = Gateway::start(config(&mock).plan("free", plan)).await;
    for (app, sent) in [(json!(20), 20), (json!(5000), 50), (Value::Null, 50)] {
        ask(&gateway, ANTHROPIC, &message(&json!({ "max_tokens": app }))).await.ok();
        assert_eq!(mock.last().json()["max_tokens"], sent);
    }
    mock.answer([Reply::json(200, GENERATED)]);
    for (app, sent) in [(json!(20), 20), (json!(5000), 50), (Value::Null, 50)] {
        let mut config = json!({ "temperature": 0.5, "topK": 3 });
        if !app.is_null() {
            config["maxOutputTokens"] = app;
        }
        let body = contents(&json!({ "generationConfig": config }));
        ask(&gateway, GEMINI, &body).await.ok();
        let config = mock.last().json()["generationConfig"].clone();
        assert_eq!(config, json!({ "temperature": 0.5, "topK": 3, "maxOutputTokens": sent }));
    }
    ask(&gateway, GEMINI, &contents(&json!({}))).await.ok();
    assert_eq!(mock.last().json()["generationConfig"], json!({ "maxOutputTokens": 50 }));
    // Anthropic answers nothing without one, whatever the plan says.
    mock.answer([Reply::json(200, MESSAGE)]);
    let gateway =
        Gateway::start(config(&mock).plan("free", "messages: 9/month, models: [\"*\"]")).await;
    let mut body = message(&json!({}));
    body.as_object_mut().unwrap().remove("max_tokens");
    ask(&gateway, ANTHROPIC, &body).await.ok();
    assert_eq!(mock.last().json()["max_tokens"], 4096);
}

/// What is wrong, and how each dialect says it.
pub fn is_refused(answer: &Answer, path: &str, status: u16, code: &str) {
    assert_eq!(answer.status, status, "{}", answer.text());
    let body = answer.json();
    if path == ANTHROPIC {
        assert_eq!(
            (&body["type"], &body["error"]["code"]),
            (&json!("error"), &json!(code)),
            "{body}"
        );
        assert!(body["request_id"].as_str().unwrap().starts_with("req_"));
        assert!(body["error"]["type"].is_string() && body["error"]["message"].is_string());
    } else {
        let error = &body["error"];
        assert_eq!(error["code"], status, "{body}");
        assert_eq!(error["details"][0]["reason"], code.to_uppercase(), "{body}");
        assert!(error["status"].is_string() && error["message"].is_string());
    }
}

#[tokio::test]
async fn refusals_come_in_the_apps_own_envelope() {
    let mock = Mock::start(Reply::json(200, MESSAGE)).await;
    let plan = "messages: 1/month, models: [claude, gemini]";
    let gateway = Gateway::start(config(&mock).plan("free", plan)).await;
    for (path, body, hosted) in [
        (ANTHROPIC, message(&json!({})), json!([{ "type": "web_search_20250305", "name": "w" }])),
        (GEMINI, contents(&json!({})), json!([{ "googleSearch": {} }])),
    ] {
        let none = gateway.app().request("POST", path).body(body.to_string());
        is_refused(&Answer::of(none).await, path, 401, "license_missing");
        let twice = gateway.app().post(path, body.to_string());
        let name = if path == ANTHROPIC { "x-api-key" } else { "x-goog-api-key" };
        is_refused(&Answer::of(twice.header(name, LICENSE)).await, path, 401, "license_missing");
        let unknown = ask_as(&gateway, "NOBODY-0001", path, &body).await;
        is_refused(&unknown, path, 403, "license_invalid");
        let get = Answer::of(gateway.app().get(path)).await;
        is_refused(&get, path, 405, "method_not_allowed");
        let mut tools = body.clone();
        tools["tools"] = hosted;
        is_refused(&ask(&gateway, path, &tools).await, path, 400, "invalid_request");
    }
    let unknown =
        ask(&gateway, "/v1beta/models/nothing:generateContent", &contents(&json!({}))).await;
    is_refused(&unknown, GEMINI, 404, "model_not_found");
    let array = ask(&gateway, &GEMINI_STREAM.replace("?alt=sse", ""), &contents(&json!({}))).await;
    is_refused(&array, GEMINI, 400, "invalid_request");
    assert!(array.text().contains("alt=sse"));
    let in_the_address = format!("{GEMINI}?key={LICENSE}");
    let leaked = gateway.app().request("POST", &in_the_address).body("{}");
    is_refused(&Answer::of(leaked).await, GEMINI, 401, "license_missing");
    assert_eq!(mock.count(), 0);
    ask(&gateway, ANTHROPIC, &message(&json!({}))).await.ok();
    is_refused(&ask(&gateway, GEMINI, &contents(&json!({}))).await, GEMINI, 402, "quota_exceeded");
    is_refused(
        &ask(&gateway, ANTHROPIC, &message(&json!({}))).await,
        ANTHROPIC,
        402,
        "quota_exceeded",
    );
    assert!(!gateway.logs().contains(&format!("key={LICENSE}")));
}

#[tokio::test]
async fn a_model_is_served_in_its_providers_dialect_only() {
    let mock = Mock::start(Reply::json(200, MESSAGE)).await;
    let gateway = Gateway::start(config(&mock)).await;
    let answer = ask(&gateway, ANTHROPIC, &message(&json!({ "model": "fast" }))).await;
    is_refused(&answer, ANTHROPIC, 404, "model_not_found");
    let answer = ask(&gateway, "/v1beta/models/fast:generateContent", &contents(&json!({}))).await;
    is_refused(&answer, GEMINI, 404, "model_not_found");
    gateway
        .app()
        .ask(&client::chat(&json!({ "model": "gemini" })))
        .await
        .is(404, "model_not_found");
}

#[tokio::test]
async fn errors_take_the_next_key_or_are_told_in_the_dialect() {
    let overloaded = include_str!("../../fixtures/anthropic/anthropic_529.json");
    let limited = include_str!("../../fixtures/gemini/gemini_429.json");
    let mock = Mock::start(Reply::json(200, MESSAGE)).await;
    let gateway = Gateway::start(config(&mock)).await;
    mock.key("sk-ant-1", [Reply::json(529, overloaded)]);
    for _ in 0..2 {
        ask(&gateway, ANTHROPIC, &message(&json!({}))).await.ok();
    }
    mock.key("AIza-1", [Reply::json(429, limited)]);
    mock.answer([Reply::json(200, GENERATED)]);
    for _ in 0..2 {
        ask(&gateway, GEMINI, &contents(&json!({}))).await.ok();
    }
    // The app's own mistake comes back, in its envelope, without the account.
    let mistake = json!({ "type": "error", "error": { "type": "invalid_request_error",
        "message": "messages: roles must alternate, says org-Zx81qLmN0pT7vRw2" } });
    mock.key("sk-ant-2", [Reply::json(400, mistake.to_string())]);
    mock.key("sk-ant-1", [Reply::json(400, mistake.to_string())]);
    let answer = ask(&gateway, ANTHROPIC, &message(&json!({}))).await;
    assert_eq!(answer.status, 400);
    assert_eq!(answer.json()["error"]["type"], "invalid_request_error");
    assert!(answer.text().contains("roles must alternate") && !answer.text().contains("Zx81"));
    // Nobody could: our own words.
    for key in ["sk-ant-1", "sk-ant-2"] {
        mock.key(key, [Reply::status(500)]);
    }
    let answer = ask(&gateway, ANTHROPIC, &message(&json!({}))).await;
    is_refused(&answer, ANTHROPIC, 502, "upstream_error");
}

/// The break comes when the app has seen something: until then another key may still answer.
pub fn breaking(stream: &str, before: &str) -> Reply {
    let (good, bad) = stream.split_at(stream.find(before).unwrap());
    Reply::sse(&[good.to_owned()])
        .then(Step::Wait(Duration::from_millis(100)))
        .write(bad.to_owned())
}

#[tokio::test]
async fn a_stream_that_breaks_ends_in_an_error_event_and_counts_what_it_counted() {
    let mock = Mock::start(breaking(BROKEN_STREAM, "event: error")).await;
    let gateway = Gateway::start(config(&mock)).await;
    let answer = ask(&gateway, ANTHROPIC, &message(&json!({ "stream": true }))).await;
    let text = answer.ok().text();
    assert!(text.contains("Reykjavík") && !text.contains("Overloaded"), "{text}");
    let last = text.trim_end().rsplit("\n\n").next().unwrap();
    assert!(
        last.starts_with("event: error\ndata: {\"error\":{\"code\":\"upstream_error\""),
        "{last}"
    );
    assert!(!text.contains("message_stop"));
    over(&gateway).await;
    // The provider had counted the input; the words are weighed. No more is charged than was reserved.
    let tokens = gateway.tokens(LICENSE).await;
    assert!((400..MESSAGE_TOKENS).contains(&tokens), "{tokens}");
    assert_eq!(mock.count(), 1, "no other key after the first word");

    let cut = GENERATED_STREAM.split_inclusive("\r\n\r\n").next().unwrap().to_owned();
    let torn = "data: {\"torn";
    mock.answer([breaking(&format!("{cut}{torn}"), torn).then(Step::Close)]);
    let text = ask(&gateway, GEMINI_STREAM, &contents(&json!({}))).await.ok().text();
    let last = text.strip_prefix(&cut).unwrap_or_else(|| panic!("{text}"));
    assert!(last.starts_with("data: {\"error\":{\"code\":502"), "{last}");
    assert!(last.contains("\"reason\":\"UPSTREAM_ERROR\""), "{last}");
    // What it said last of its count: 9 in, 3 and 58 out.
    over(&gateway).await;
    assert_eq!(gateway.tokens(LICENSE).await, tokens + 70);
}
