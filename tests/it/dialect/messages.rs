//! Anthropic's `/v1/messages`: what reaches the provider, what is charged, and what is refused.

use serde_json::{Value, json};

use crate::{
    dialect::dialects::{
        ANTHROPIC, MESSAGE, MESSAGE_STREAM, MESSAGE_TOKENS, ask, breaking, config, is_refused,
        message,
    },
    downstream::disconnect::over,
    support::{Answer, Config, Gateway, LICENSE, Mock, Reply, Step, contains},
};

const PLAN: &str = "messages: 1000/month, tokens: 100000000/month, models: [\"*\"]";

async fn start(reply: Reply) -> (Mock, Gateway) {
    let mock = Mock::start(reply).await;
    let gateway = Gateway::start(config(&mock).plan("free", PLAN)).await;
    (mock, gateway)
}

fn says(content: Value) -> Value {
    message(&json!({ "messages": [{ "role": "user", "content": content }] }))
}

#[tokio::test]
async fn what_costs_more_or_runs_elsewhere_is_refused_by_name() {
    let (mock, gateway) = start(Reply::json(200, MESSAGE)).await;
    let tool = |kind: &str| json!({ "tools": [{ "type": kind, "name": "x" }] });
    for (more, field) in [
        (tool("web_search_20250305"), "tools"),
        (tool("web_fetch_20250910"), "tools"),
        (tool("code_execution_20250825"), "tools"),
        (tool("computer_20250124"), "tools"),
        (tool("tool_search_tool_regex_20251119"), "tools"),
        (json!({ "tools": [{ "type": "mcp_toolset", "mcp_server_name": "x" }] }), "tools"),
        (
            json!({ "mcp_servers": [{ "type": "url", "url": "https://example.com" }] }),
            "mcp_servers",
        ),
        (json!({ "container": "container_1" }), "container"),
        (json!({ "max_tokens": 0 }), "max_tokens"),
        (json!({ "max_tokens": "many" }), "max_tokens"),
        (json!({ "stream": "yes" }), "stream"),
        (json!({ "model": 7 }), "model"),
    ] {
        let answer = ask(&gateway, ANTHROPIC, &message(&more)).await;
        is_refused(&answer, ANTHROPIC, 400, "invalid_request");
        assert_eq!(answer.error("type"), "invalid_request_error");
        // Where Anthropic's SDKs look.
        assert_eq!(answer.json()["message"], answer.error("message"));
        assert_eq!(answer.json()["request_id"], answer.header("request-id").unwrap());
        let words = answer.error("message");
        assert!(words.as_str().unwrap().contains(&format!("\"{field}\"")), "{words}");
    }
    for (content, kind) in [
        (
            json!([{ "type": "document", "source": { "type": "base64", "data": "JVBERi0x" } }]),
            "file",
        ),
        (
            json!([{ "type": "image", "source": { "type": "file", "file_id": "file_1" } }]),
            "file_id",
        ),
        (json!([{ "type": "container_upload", "file_id": "file_1" }]), "file_id"),
        (
            json!([{ "type": "tool_result", "tool_use_id": "t", "content": [
            { "type": "document", "source": { "type": "file", "file_id": "file_1" } }] }]),
            "file_id",
        ),
        (
            json!([{ "type": "web_search_tool_result", "tool_use_id": "t" }]),
            "web_search_tool_result",
        ),
    ] {
        let answer = ask(&gateway, ANTHROPIC, &says(content)).await;
        is_refused(&answer, ANTHROPIC, 400, "invalid_request");
        assert!(answer.text().contains(kind), "{}", answer.text());
    }
    assert_eq!(mock.count(), 0);
    assert_eq!(gateway.messages(LICENSE).await, 0);
}

#[tokio::test]
async fn only_listed_members_go_upstream_and_the_app_is_its_licence() {
    let (mock, gateway) = start(Reply::json(200, MESSAGE)).await;
    let extra = json!({
        "system": "Be brief.", "temperature": 0.50, "top_k": 3, "stop_sequences": ["x"],
        "thinking": { "type": "disabled" }, "tool_choice": { "type": "auto" },
        "tools": [{ "name": "look", "input_schema": { "type": "object" } }],
        "metadata": { "user_id": "buyer@example.com", "more": 1 },
        "service_tier": "auto", "speed": "fast", "inference_geo": "us", "betas": ["x"],
        "context_management": { "edits": [] }, "store": true, "unknown": 1,
    });
    ask(&gateway, ANTHROPIC, &message(&extra)).await.ok();
    let sent = mock.only().json();
    let mut names: Vec<_> = sent.as_object().unwrap().keys().cloned().collect();
    names.sort_unstable();
    let expected = [
        "max_tokens",
        "messages",
        "metadata",
        "model",
        "stop_sequences",
        "system",
        "temperature",
        "thinking",
        "tool_choice",
        "tools",
        "top_k",
    ];
    assert_eq!(names, expected);
    assert_eq!(sent["metadata"].as_object().unwrap().len(), 1);
    assert!(!contains(&mock.only().body, "buyer@example.com"));
    // One licence, one name; another licence, another.
    ask(&gateway, ANTHROPIC, &message(&json!({}))).await.ok();
    assert_eq!(mock.last().json()["metadata"], sent["metadata"]);
}

#[tokio::test]
async fn headers_of_the_app_stay_here_but_for_the_version() {
    let (mock, gateway) = start(Reply::json(200, MESSAGE)).await;
    let allowed = [
        "accept",
        "accept-encoding",
        "anthropic-version",
        "content-length",
        "content-type",
        "host",
        "user-agent",
        "x-api-key",
    ];
    for path in [ANTHROPIC, "/v1/messages?beta=true"] {
        let request = gateway.app().request("POST", path).header("x-api-key", LICENSE);
        let request = request
            .header("anthropic-beta", "context-1m-2025-08-07,code-execution-2025-05-22")
            .header("anthropic-dangerous-direct-browser-access", "true")
            .header("anthropic-version", "2023-06-01")
            .header("x-stainless-lang", "js")
            .header("cookie", "a=b");
        Answer::of(request.body(message(&json!({})).to_string())).await.ok();
        let seen = mock.last();
        assert_eq!(seen.header_names(), allowed, "{path}");
        assert_eq!(seen.path, "/v1/messages");
        assert_eq!(seen.header("anthropic-version"), Some("2023-06-01"));
    }
    for odd in ["latest", "2023-06-01, 2026-10-21", "2023_06_01", ""] {
        let request = gateway.app().post(ANTHROPIC, message(&json!({})).to_string());
        let answer = Answer::of(request.header("anthropic-version", odd)).await;
        is_refused(&answer, ANTHROPIC, 400, "invalid_request");
    }
    assert_eq!(mock.count(), 2);
    assert!(!gateway.logs().contains(LICENSE));
}

#[tokio::test]
async fn images_are_reserved_by_the_piece_and_not_by_their_bytes() {
    let mock = Mock::start(Reply::json(200, MESSAGE)).await;
    let plan = "messages: 1000/month, models: [\"*\"], max_input_tokens: 3000";
    let gateway = Gateway::start(config(&mock).plan("free", plan)).await;
    let image = json!({ "type": "image", "source": {
        "type": "base64", "media_type": "image/png", "data": "A".repeat(400_000) } });
    let answer = ask(&gateway, ANTHROPIC, &says(json!([image]))).await;
    answer.ok();
    let answer = ask(&gateway, ANTHROPIC, &says(json!([image, image]))).await;
    is_refused(&answer, ANTHROPIC, 413, "body_too_large");
    let shown = json!([{ "type": "tool_result", "tool_use_id": "t", "content": [image, image] }]);
    let answer = ask(&gateway, ANTHROPIC, &says(shown)).await;
    is_refused(&answer, ANTHROPIC, 413, "body_too_large");
    let long = message(&json!({ "system": [{ "type": "text", "text": "word ".repeat(4000) }] }));
    is_refused(&ask(&gateway, ANTHROPIC, &long).await, ANTHROPIC, 413, "body_too_large");
    assert_eq!(mock.count(), 1);
}

#[tokio::test]
async fn a_cap_shrinks_to_what_is_left_and_never_below_the_thinking() {
    let mock = Mock::start(Reply::json(200, MESSAGE)).await;
    let plan = "messages: 1000/month, tokens: 2000/month, models: [\"*\"], min_output_tokens: 16";
    let gateway = Gateway::start(config(&mock).plan("free", plan)).await;
    ask(&gateway, ANTHROPIC, &message(&json!({}))).await.ok();
    assert_eq!(gateway.tokens(LICENSE).await, MESSAGE_TOKENS);
    let body = message(&json!({ "max_tokens": 4000 }));
    let answer = ask(&gateway, ANTHROPIC, &body).await;
    let sent = mock.last().json()["max_tokens"].as_u64().unwrap();
    assert!((700..785).contains(&sent), "{sent}");
    assert_eq!(answer.ok().number("x-quota-capped"), sent);
    let gateway = Gateway::start(config(&mock).plan("free", plan)).await;
    let thinking = json!({ "type": "enabled", "budget_tokens": 3000 });
    let body = message(&json!({ "max_tokens": 4000, "thinking": thinking }));
    let answer = ask(&gateway, ANTHROPIC, &body).await;
    is_refused(&answer, ANTHROPIC, 402, "quota_exceeded");
    assert_eq!(answer.error("type"), "billing_error");
    assert_eq!(answer.error("quota"), "tokens");
    assert!(answer.error("resets_at").is_string());
    assert_eq!(answer.header("x-should-retry"), Some("false"));
}

#[tokio::test]
async fn what_is_no_answer_is_asked_of_the_next_key() {
    let begun = MESSAGE_STREAM.find("event: content_block_delta").unwrap();
    let error = r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#;
    for (what, bad, stream) in [
        ("only a start and a ping", Reply::sse(&[&MESSAGE_STREAM[..begun]]), true),
        ("an error inside a 200", Reply::json(200, error), false),
        (
            "an error as the first event",
            Reply::sse(&[format!("event: error\ndata: {error}\n\n")]),
            true,
        ),
        ("half a JSON", Reply::json(200, &MESSAGE[..200]), false),
        ("529", Reply::json(529, error), false),
        ("closed", Reply::instead([Step::Close]), true),
    ] {
        let good = if stream { Reply::sse(&[MESSAGE_STREAM]) } else { Reply::json(200, MESSAGE) };
        let mock = Mock::sequence([bad, good]).await;
        let gateway = Gateway::start(config(&mock).plan("free", PLAN)).await;
        let answer = ask(&gateway, ANTHROPIC, &message(&json!({ "stream": stream }))).await;
        assert_eq!(answer.ok().text(), if stream { MESSAGE_STREAM } else { MESSAGE }, "{what}");
        assert_eq!((mock.count(), answer.number("x-gatekeeper-attempts")), (2, 2), "{what}");
        over(&gateway).await;
        assert_eq!(gateway.messages(LICENSE).await, 1, "{what}");
        assert_eq!(gateway.tokens(LICENSE).await, MESSAGE_TOKENS, "{what}");
    }
}

#[tokio::test]
async fn a_message_whose_stop_reason_was_said_is_whole_and_gets_its_stop() {
    let stop = MESSAGE_STREAM.find("event: message_stop").unwrap();
    let (_mock, gateway) = start(breaking(&MESSAGE_STREAM[..stop], "event: message_delta")).await;
    let text = ask(&gateway, ANTHROPIC, &message(&json!({ "stream": true }))).await.ok().text();
    assert_eq!(text.matches("event: message_stop\n").count(), 1, "{text}");
    let last = text.trim_end().rsplit("\n\n").next().unwrap();
    assert!(last.starts_with("event: message_stop\n") && !text.contains("event: error"), "{text}");
    over(&gateway).await;
    assert_eq!(gateway.tokens(LICENSE).await, MESSAGE_TOKENS);
}

#[tokio::test]
async fn an_answer_without_a_count_is_estimated() {
    let mut bare: Value = serde_json::from_str(MESSAGE).unwrap();
    bare.as_object_mut().unwrap().remove("usage");
    let (_mock, gateway) = start(Reply::json(200, bare.to_string())).await;
    ask(&gateway, ANTHROPIC, &message(&json!({}))).await.ok();
    let tokens = gateway.tokens(LICENSE).await;
    assert!((15..60).contains(&tokens), "{tokens}");
    let estimated = [("source", "estimated"), ("provider", "a")];
    assert!(gateway.metrics().await.sum("gatekeeper_tokens_total", &estimated) > 0.0);
}

#[tokio::test]
async fn what_is_not_served_is_told_in_anthropics_words() {
    let (mock, gateway) = start(Reply::json(200, MESSAGE)).await;
    for (path, status, code, kind) in [
        ("/v1/messages/count", 404, "not_found", "not_found_error"),
        ("/v1/messages/batches", 404, "not_found", "not_found_error"),
    ] {
        let answer = ask(&gateway, path, &message(&json!({}))).await;
        is_refused(&answer, ANTHROPIC, status, code);
        assert_eq!(answer.error("type"), kind);
    }
    let broken = gateway.app().post(ANTHROPIC, "{\"model\":");
    is_refused(&Answer::of(broken).await, ANTHROPIC, 400, "invalid_request");
    let plan = "messages: 10/month, models: [fast]";
    let gateway = Gateway::start(
        Config::new(&mock)
            .plan("free", plan)
            .provider_at("a", &mock.url(), ", dialect: anthropic", &["sk-ant-1"])
            .model("claude", "[a/m]"),
    )
    .await;
    let answer = ask(&gateway, ANTHROPIC, &message(&json!({}))).await;
    is_refused(&answer, ANTHROPIC, 403, "model_not_allowed");
    assert_eq!(answer.error("type"), "permission_error");
    assert_eq!(mock.count(), 0);
}
