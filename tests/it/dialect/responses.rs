//! OpenAI's responses and embeddings: nothing is kept at the provider, everything is counted.

use serde_json::{Value, json};

use crate::{
    downstream::disconnect::over,
    support::{Answer, Config, Gateway, LICENSE, MODEL, Mock, Reply},
};

const RESPONSE: &str = include_str!("../../fixtures/openai/openai_responses.json");
const RESPONSE_STREAM: &str = include_str!("../../fixtures/openai/openai_responses_stream.sse");
const EMBEDDINGS: &str = include_str!("../../fixtures/openai/openai_embeddings.json");
const PLAN: &str = "messages: 1000/month, tokens: 1000000/month, models: [\"*\"]";

async fn start(reply: Reply) -> (Mock, Gateway) {
    let mock = Mock::start(reply).await;
    let gateway = Gateway::start(Config::new(&mock).plan("free", PLAN)).await;
    (mock, gateway)
}

async fn ask(gateway: &Gateway, path: &str, body: Value) -> Answer {
    Answer::of(gateway.app().post(path, body.to_string())).await
}

fn respond(more: &Value) -> Value {
    let mut body = json!({ "model": MODEL, "input": "What is the capital of Iceland?" });
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

/// What a fixture counts.
fn total(whole: &Value) -> u64 {
    whole["usage"]["total_tokens"].as_u64().unwrap()
}

#[tokio::test]
async fn nothing_is_kept_and_nothing_that_was_kept_is_read() {
    let (mock, gateway) = start(Reply::json(200, RESPONSE)).await;
    for kept in [json!(true), json!(false), json!(null)] {
        let extra = json!({ "store": kept, "metadata": { "a": "b" }, "user": "me@example.com" });
        ask(&gateway, "/v1/responses", respond(&extra)).await.ok();
        let sent = mock.last().json();
        assert_eq!(sent["store"], false);
        assert_eq!(sent.get("metadata"), None);
        assert_eq!(sent["user"].as_str().unwrap().len(), 32);
    }
    mock.forget();
    let input = |item: Value| json!({ "input": [{ "role": "user", "content": "Hi" }, item] });
    for item in [
        json!({ "type": "item_reference", "id": "msg_1" }),
        json!({ "id": "msg_1" }),
        json!({ "id": "msg_1", "type": null }),
    ] {
        let answer = ask(&gateway, "/v1/responses", respond(&input(item))).await;
        answer.is(400, "invalid_request");
        let words = answer.error("message");
        let option = "providerOptions: { openai: { store: false } }";
        assert!(words.as_str().unwrap().contains(option), "{words}");
        assert_eq!(answer.error("param"), "input");
    }
    for content in [
        json!([{ "type": "input_file", "file_id": "file_1" }]),
        json!([{ "type": "input_image", "file_id": "file_1" }]),
    ] {
        let body = respond(&input(json!({ "role": "user", "content": content })));
        ask(&gateway, "/v1/responses", body).await.is(400, "invalid_request");
    }
    for (more, field) in [
        (json!({ "background": true }), "background"),
        (json!({ "service_tier": "priority" }), "service_tier"),
        (json!({ "tools": [{ "type": "web_search" }] }), "tools"),
        (json!({ "tools": [{ "type": "file_search", "vector_store_ids": ["vs_1"] }] }), "tools"),
        (json!({ "tools": [{ "type": "code_interpreter", "container": "c_1" }] }), "tools"),
        (json!({ "tools": [{ "type": "mcp", "server_url": "https://example.com" }] }), "tools"),
    ] {
        let answer = ask(&gateway, "/v1/responses", respond(&more)).await;
        assert_eq!(answer.is(400, "invalid_request").error("param"), field);
    }
    assert_eq!(mock.count(), 0);
}

#[tokio::test]
async fn responses_are_counted_capped_and_passed_as_they_are() {
    let (mock, gateway) = start(Reply::json(200, RESPONSE)).await;
    let whole: Value = serde_json::from_str(RESPONSE).unwrap();
    let answer = ask(&gateway, "/v1/responses", respond(&json!({}))).await;
    assert_eq!(answer.ok().json(), whole);
    assert_eq!(mock.last().json()["max_output_tokens"], 4096);
    assert_eq!(gateway.tokens(LICENSE).await, total(&whole));
    ask(&gateway, "/v1/responses", respond(&json!({ "max_output_tokens": 77 }))).await.ok();
    assert_eq!(mock.last().json()["max_output_tokens"], 77);
    let before = gateway.tokens(LICENSE).await;
    mock.answer([Reply::sse(&[RESPONSE_STREAM]).bytewise()]);
    let streamed = ask(&gateway, "/v1/responses", respond(&json!({ "stream": true }))).await;
    assert_eq!(streamed.ok().text(), RESPONSE_STREAM);
    over(&gateway).await;
    let completed = RESPONSE_STREAM.lines().rfind(|line| line.starts_with("data: ")).unwrap();
    let completed: Value = serde_json::from_str(&completed["data: ".len()..]).unwrap();
    assert_eq!(gateway.tokens(LICENSE).await, before + total(&completed["response"]));
}

#[tokio::test]
async fn embeddings_are_counted_and_have_no_output_to_cap() {
    let (mock, gateway) = start(Reply::json(200, EMBEDDINGS)).await;
    let whole: Value = serde_json::from_str(EMBEDDINGS).unwrap();
    let texts = json!(["The capital of Iceland", "is Reykjavík"]);
    let body =
        json!({ "model": MODEL, "input": texts, "dimensions": 8, "max_tokens": 5, "store": true });
    let answer = ask(&gateway, "/v1/embeddings", body).await;
    assert_eq!(answer.ok().json(), whole);
    assert_eq!(mock.only().path, "/v1/embeddings");
    let mut sent = mock.only().json();
    let user = sent["user"].take();
    assert_eq!(user.as_str().unwrap().len(), 32, "the licence's hash");
    let expected = json!({ "model": "m1", "input": texts, "dimensions": 8, "user": null });
    assert_eq!(sent, expected);
    assert_eq!(gateway.tokens(LICENSE).await, total(&whole));
    assert_eq!(gateway.messages(LICENSE).await, 1);
    // The app's own mistake is told, and costs nothing.
    let mistake = r#"{"error":{"message":"dimensions: too many","type":"invalid_request_error","param":"dimensions","code":null}}"#;
    mock.answer([Reply::json(400, mistake)]);
    let refused = ask(&gateway, "/v1/embeddings", json!({ "model": MODEL, "input": "Hi" })).await;
    assert_eq!((refused.status, refused.error("param")), (400, json!("dimensions")));
    assert_eq!(gateway.messages(LICENSE).await, 1);
    // An answer without vectors is none.
    mock.answer([Reply::json(200, r#"{"object":"list"}"#), Reply::json(200, EMBEDDINGS)]);
    let answer = ask(&gateway, "/v1/embeddings", json!({ "model": MODEL, "input": "Hi" })).await;
    assert_eq!(answer.ok().number("x-gatekeeper-attempts"), 2);
}

#[tokio::test]
async fn embeddings_end_where_the_tokens_do() {
    let mock = Mock::start(Reply::json(200, EMBEDDINGS)).await;
    let plan = "messages: 1000/month, tokens: 100/month, models: [\"*\"]";
    let gateway = Gateway::start(Config::new(&mock).plan("free", plan)).await;
    let long = json!({ "model": MODEL, "input": ["word ".repeat(300)] });
    ask(&gateway, "/v1/embeddings", long).await.is(402, "quota_exceeded");
    let numbers = json!({ "model": MODEL, "input": [vec![7; 300]] });
    ask(&gateway, "/v1/embeddings", numbers).await.is(402, "quota_exceeded");
    assert_eq!(mock.count(), 0);
    ask(&gateway, "/v1/embeddings", json!({ "model": MODEL, "input": "Hi" })).await.ok();
}
