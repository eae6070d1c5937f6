//! An app of OpenAI's chat, served by Anthropic's models.

use serde_json::{Value, json};

use crate::{
    dialect::dialects::{self, MESSAGE, MESSAGE_STREAM, MESSAGE_TOKENS, breaking},
    downstream::disconnect::over,
    support::{Answer, Config, Gate, Gateway, LICENSE, Mock, Reply, Step, client, contains, sse},
};

const WORDS: &str = "Reykjavík is the capital of Iceland.";
const OVERLOADED: &str = include_str!("../../fixtures/anthropic/anthropic_stream_overloaded.sse");
const BUSY: &str = include_str!("../../fixtures/anthropic/anthropic_529.json");

/// A question to the model that only Anthropic's provider serves.
fn question(more: &Value) -> Value {
    let mut body = client::chat(more);
    if more.get("model").is_none() {
        body["model"] = json!("claude");
    }
    body
}

async fn ask(gateway: &Gateway, more: Value) -> Answer {
    gateway.app().ask(&question(&more)).await
}

/// One model, first on OpenAI's side, then on Anthropic's, then on OpenAI's again.
async fn three() -> (Mock, Mock, Mock, Config) {
    let (first, second, third) = (
        Mock::start(Reply::chat()).await,
        Mock::start(Reply::json(200, MESSAGE)).await,
        Mock::start(Reply::chat()).await,
    );
    let config = Config::new(&first)
        .keys("p", &["sk-first"])
        .provider_at("a", &second.url(), ", dialect: anthropic", &["sk-ant-1"])
        .provider("q", &third, &["sk-third"])
        .plan("free", "messages: 1000/month, tokens: 1000000/month, models: [\"*\"]")
        .model("claude", "[p/gpt-5, a/claude-sonnet-5, q/llama]");
    (first, second, third, config)
}

#[tokio::test]
async fn a_chat_is_asked_in_anthropics_words_and_answered_in_openais() {
    let mock = Mock::start(Reply::json(200, MESSAGE)).await;
    let gateway = Gateway::start(dialects::config(&mock)).await;
    let image =
        json!({ "type": "image_url", "image_url": { "url": "data:image/png;base64,aGk=" } });
    let answer = ask(
        &gateway,
        json!({
            "messages": [
                { "role": "system", "content": "Be brief." },
                { "role": "user", "content": [{ "type": "text", "text": "And this?" }, image] },
            ],
            "max_completion_tokens": 300, "temperature": 2, "seed": 1, "user": "me@example.com",
        }),
    )
    .await;
    let said = answer.ok().json();
    assert_eq!(
        (&said["object"], &said["model"]),
        (&json!("chat.completion"), &json!("claude-sonnet-5"))
    );
    assert_eq!(said["choices"][0]["message"]["content"], WORDS);
    assert_eq!(said["choices"][0]["finish_reason"], "stop");
    assert_eq!(said["usage"]["prompt_tokens"], 1201);
    assert_eq!(said["usage"]["total_tokens"], MESSAGE_TOKENS);
    assert!(said["created"].as_u64().unwrap() > 1_700_000_000);
    assert_eq!(answer.header("x-gatekeeper-model"), Some("a/claude-sonnet-5"));
    assert_eq!(answer.header("x-gatekeeper-attempts"), Some("1"));

    let seen = mock.only();
    assert_eq!((&*seen.method, &*seen.path), ("POST", "/v1/messages"));
    assert!(seen.header("x-api-key").unwrap().starts_with("sk-ant-"));
    assert_eq!(seen.header("anthropic-version"), Some("2023-06-01"));
    assert_eq!(seen.header("authorization"), None);
    let mut sent = seen.json();
    let user = sent["metadata"]["user_id"].take();
    assert_eq!(user.as_str().unwrap().len(), 32, "the licence's hash");
    let source = json!({ "type": "base64", "media_type": "image/png", "data": "aGk=" });
    let expected = json!({
        "model": "claude-sonnet-5", "system": "Be brief.", "max_tokens": 300, "temperature": 1,
        "messages": [{ "role": "user", "content": [
            { "type": "text", "text": "And this?" }, { "type": "image", "source": source },
        ]}],
        "metadata": { "user_id": null },
    });
    assert_eq!(sent, expected);
    assert!(!contains(&seen.head, LICENSE) && !contains(&seen.body, "me@example.com"));
    assert_eq!(gateway.tokens(LICENSE).await, MESSAGE_TOKENS);
    let labels = [("endpoint", "chat"), ("status", "200")];
    assert_eq!(gateway.metrics().await.sum("gatekeeper_requests_total", &labels), 1.0);
    // What else OpenAI has is nothing that Anthropic serves.
    for path in ["/v1/responses", "/v1/embeddings"] {
        let body = json!({ "model": "claude", "input": "Hi" }).to_string();
        Answer::of(gateway.app().post(path, body)).await.is(404, "model_not_found");
    }
}

#[tokio::test]
async fn a_stream_is_chunks_however_its_bytes_come() {
    let mock = Mock::start(Reply::sse(&[MESSAGE_STREAM])).await;
    let gateway = Gateway::start(dialects::config(&mock)).await;
    let mut texts = Vec::new();
    for reply in [Reply::sse(&[MESSAGE_STREAM]), Reply::sse(&[MESSAGE_STREAM]).bytewise()] {
        mock.answer([reply]);
        let answer = ask(&gateway, json!({ "stream": true })).await;
        assert!(answer.header("content-type").unwrap().starts_with("text/event-stream"));
        let events = sse::events(&answer.ok().body);
        assert_eq!(sse::content(&answer.body), WORDS);
        assert_eq!(events[0]["choices"][0]["delta"]["role"], "assistant");
        assert_eq!(events[events.len() - 2]["choices"][0]["finish_reason"], "stop");
        assert_eq!(events.last(), Some(&json!("[DONE]")));
        assert!(!answer.text().contains("prompt_tokens"), "the app did not ask for it");
        over(&gateway).await;
        texts.push(
            answer.text().split("\"created\":").map(|it| it[10..].to_owned()).collect::<Vec<_>>(),
        );
    }
    assert_eq!(texts[0][1..], texts[1][1..]);
    let options = json!({ "stream": true, "stream_options": { "include_usage": true } });
    let answer = ask(&gateway, options).await;
    let events = sse::events(&answer.ok().body);
    let usage = &events[events.len() - 2];
    assert_eq!(
        (&usage["choices"], &usage["usage"]["total_tokens"]),
        (&json!([]), &json!(MESSAGE_TOKENS))
    );
    assert_eq!(mock.last().json()["stream"], true);
    assert!(mock.last().json().get("stream_options").is_none());
    over(&gateway).await;
    assert_eq!(gateway.tokens(LICENSE).await, 3 * MESSAGE_TOKENS);
}

#[tokio::test]
async fn a_tool_is_called_and_its_result_goes_back() {
    let call = json!({ "type": "tool_use", "id": "toolu_1", "name": "parcel", "input": { "order": "20391" } });
    let mut asked: Value = serde_json::from_str(MESSAGE).unwrap();
    asked["content"] = json!([{ "type": "text", "text": "Let me look." }, call]);
    asked["stop_reason"] = json!("tool_use");
    let mock =
        Mock::sequence([Reply::json(200, asked.to_string()), Reply::json(200, MESSAGE)]).await;
    let gateway = Gateway::start(dialects::config(&mock).keys("a", &["sk-ant-1"])).await;
    let schema = json!({ "type": "object", "properties": { "order": { "type": "string" } } });
    let tools =
        json!([{ "type": "function", "function": { "name": "parcel", "parameters": schema } }]);
    let mut messages = vec![json!({ "role": "user", "content": "Where is 20391?" })];
    let more =
        |messages: &[Value]| json!({ "messages": messages, "tools": tools, "tool_choice": "auto" });
    let first = ask(&gateway, more(&messages)).await.ok().json();
    let said = &first["choices"][0];
    assert_eq!(said["finish_reason"], "tool_calls");
    let made = &said["message"]["tool_calls"][0];
    assert_eq!((&made["id"], &made["type"]), (&json!("toolu_1"), &json!("function")));
    assert_eq!(made["function"], json!({ "name": "parcel", "arguments": "{\"order\":\"20391\"}" }));

    messages.push(said["message"].clone());
    messages.push(json!({ "role": "tool", "tool_call_id": "toolu_1", "content": "on its way" }));
    let second = ask(&gateway, more(&messages)).await.ok().json();
    assert_eq!(second["choices"][0]["message"]["content"], WORDS);
    let sent = mock.last().json();
    assert_eq!(sent["tools"], json!([{ "name": "parcel", "input_schema": schema }]));
    assert_eq!(sent["tool_choice"], json!({ "type": "auto" }));
    assert_eq!(sent["messages"][1], json!({ "role": "assistant", "content": asked["content"] }));
    let found = json!([{ "type": "text", "text": "on its way" }]);
    let result = json!({ "type": "tool_result", "tool_use_id": "toolu_1", "content": found });
    assert_eq!(sent["messages"][2], json!({ "role": "user", "content": [result] }));
    assert_eq!(gateway.tokens(LICENSE).await, 2 * MESSAGE_TOKENS);
}

#[tokio::test]
async fn a_large_image_is_sent_whole_at_every_attempt() {
    let mock = Mock::sequence([Reply::error(500), Reply::json(200, MESSAGE)]).await;
    let gateway = Gateway::start(dialects::config(&mock)).await;
    let data = "iVBORw0K".repeat(64 * 1024);
    let image = json!({ "type": "image_url", "image_url": { "url": format!("data:image/png;base64,{data}") } });
    let content = json!([{ "type": "text", "text": "And \u{e9}\"this\"?" }, image]);
    let answer =
        ask(&gateway, json!({ "messages": [{ "role": "user", "content": content }] })).await;
    assert_eq!(answer.ok().number("x-gatekeeper-attempts"), 2);
    let seen = mock.seen();
    assert_eq!(seen[0].body, seen[1].body);
    let sent = &seen[1].json()["messages"][0]["content"];
    assert_eq!(sent[0]["text"], "And \u{e9}\"this\"?");
    assert!(sent[1]["source"]["data"] == data);
}

#[tokio::test]
async fn the_cap_is_the_plans_or_what_is_left_and_never_missing() {
    let mock = Mock::start(Reply::json(200, MESSAGE)).await;
    let plan =
        "messages: 1000/month, tokens: 1000000/month, max_output_tokens: 50, models: [\"*\"]";
    let gateway = Gateway::start(dialects::config(&mock).plan("free", plan)).await;
    for (asked, sent) in
        [(json!({ "max_tokens": 20 }), 20), (json!({ "max_tokens": 5000 }), 50), (json!({}), 50)]
    {
        ask(&gateway, asked).await.ok();
        assert_eq!(mock.last().json()["max_tokens"], sent);
        assert!(mock.last().json().get("max_completion_tokens").is_none());
    }
    let free = "messages: 1000/month, models: [\"*\"]";
    let gateway = Gateway::start(dialects::config(&mock).plan("free", free)).await;
    for (asked, sent) in [(json!({}), 4096), (json!({ "max_completion_tokens": 9000 }), 9000)] {
        ask(&gateway, asked).await.ok();
        assert_eq!(mock.last().json()["max_tokens"], sent);
    }
    let short = "messages: 1000/month, tokens: 2000/month, min_output_tokens: 100, models: [\"*\"]";
    let gateway = Gateway::start(dialects::config(&mock).plan("free", short)).await;
    ask(&gateway, json!({ "max_tokens": 500 })).await.ok();
    let answer = ask(&gateway, json!({ "max_tokens": 1500 })).await;
    let capped = answer.ok().number("x-quota-capped");
    assert!((100..2000 - MESSAGE_TOKENS).contains(&capped), "{capped}");
    assert_eq!(mock.last().json()["max_tokens"], capped);
}

#[tokio::test]
async fn one_request_goes_from_openai_to_anthropic_and_back() {
    for stream in [false, true] {
        let (first, second, third, config) = three().await;
        let gateway = Gateway::start(config).await;
        let body = json!({ "stream": stream });
        first.answer([Reply::error(503)]);
        second.answer([Reply::json(529, BUSY)]);
        third.answer([if stream { Reply::stream() } else { Reply::chat() }]);
        let answer = ask(&gateway, body.clone()).await;
        let expected =
            if stream { sse::plain(&["Hel", "lo"]).concat() } else { sse::CHAT.to_owned() };
        assert_eq!(answer.ok().text(), expected, "OpenAI's own bytes");
        assert_eq!(answer.header("x-gatekeeper-model"), Some("q/llama"));
        assert_eq!(answer.number("x-gatekeeper-attempts"), 3);
        assert_eq!(
            (&*first.only().path, &*second.only().path),
            ("/v1/chat/completions", "/v1/messages")
        );
        assert_eq!(first.only().json()["messages"], third.only().json()["messages"]);
        over(&gateway).await;
        assert_eq!(gateway.tokens(LICENSE).await, sse::TOKENS);

        second.answer([if stream {
            Reply::sse(&[MESSAGE_STREAM])
        } else {
            Reply::json(200, MESSAGE)
        }]);
        let answer = ask(&gateway, body).await;
        let said = if stream {
            sse::content(&answer.ok().body)
        } else {
            answer.ok().json()["choices"][0]["message"]["content"].as_str().unwrap().to_owned()
        };
        assert_eq!(said, WORDS);
        over(&gateway).await;
        assert_eq!(gateway.tokens(LICENSE).await, sse::TOKENS + MESSAGE_TOKENS);
        assert_eq!(gateway.messages(LICENSE).await, 2);
    }
}

#[tokio::test]
async fn an_error_in_the_stream_is_mended_before_the_first_word_and_told_after_it() {
    let (first, second, third, config) = three().await;
    let gateway = Gateway::start(config.model("claude", "[a/claude-sonnet-5, q/llama]")).await;
    let error = OVERLOADED.find("event: error").unwrap();
    let start = OVERLOADED.find("event: content_block_delta").unwrap();
    second.answer([Reply::sse(&[[&OVERLOADED[..start], &OVERLOADED[error..]].concat()])]);
    third.answer([Reply::stream()]);
    let answer = ask(&gateway, json!({ "stream": true })).await;
    assert_eq!(answer.ok().text(), sse::plain(&["Hel", "lo"]).concat());
    assert_eq!(answer.number("x-gatekeeper-attempts"), 2);
    over(&gateway).await;
    assert_eq!(gateway.tokens(LICENSE).await, sse::TOKENS);

    second.answer([breaking(OVERLOADED, "event: error")]);
    let answer = ask(&gateway, json!({ "stream": true })).await;
    let error = sse::closing_error(&answer.ok().body);
    assert_eq!(error["code"], "upstream_error");
    assert!(answer.text().starts_with("data: {\"id\":\"msg_"), "{}", answer.text());
    assert!(answer.text().contains("Reykjavík") && !answer.text().contains("verloaded"));
    assert_eq!((first.count(), third.count()), (0, 1), "nobody goes on with another's words");
}

#[tokio::test]
async fn whole_delivery_mends_a_break_in_the_middle() {
    let (_first, second, third, config) = three().await;
    let model = "{ targets: [a/claude-sonnet-5, q/llama], delivery: whole }";
    let gateway = Gateway::start(config.model("claude", model)).await;
    second.answer([Reply::sse(&[OVERLOADED])]);
    third.answer([Reply::stream()]);
    let answer = ask(&gateway, json!({ "stream": true })).await;
    assert_eq!(sse::content(&answer.ok().body), "Hello");
    second.answer([Reply::sse(&[MESSAGE_STREAM])]);
    let answer = ask(&gateway, json!({ "stream": true })).await;
    assert_eq!(sse::content(&answer.ok().body), WORDS);
}

#[tokio::test]
async fn hanging_up_is_charged_for_what_came_or_for_the_providers_count() {
    let cut = MESSAGE_STREAM.find("event: content_block_stop").unwrap();
    let (words, rest) = MESSAGE_STREAM.split_at(cut);
    for (leaving, counted) in [("cut", false), ("drain", true)] {
        let gate = Gate::new();
        let reply = Reply::sse(&[words]).then(Step::Gate(gate.clone())).write(rest);
        let mock = Mock::start(reply).await;
        let plan = format!(
            "messages: 100/month, tokens: 1000000/month, models: [\"*\"], on_disconnect: {leaving}"
        );
        let gateway = Gateway::start(dialects::config(&mock).plan("free", &plan)).await;
        let mut app = gateway.raw().await;
        let body = question(&json!({ "stream": true, "max_tokens": 2000 }));
        app.send(client::post("/v1/chat/completions", &body)).await;
        app.until("of Iceland.").await;
        app.leave().await;
        if counted {
            gate.open();
        } else {
            mock.left(0).await;
        }
        over(&gateway).await;
        let tokens = gateway.tokens(LICENSE).await;
        // The provider counted the input at the start; the words are weighed.
        let expected =
            if counted { MESSAGE_TOKENS..MESSAGE_TOKENS + 1 } else { 1205..MESSAGE_TOKENS + 9 };
        assert!(expected.contains(&tokens), "{leaving}: {tokens}");
        assert_eq!(gateway.messages(LICENSE).await, 1);
    }
}

#[tokio::test]
async fn what_has_no_translation_goes_to_another_target_or_is_refused_by_name() {
    let (first, second, third, config) = three().await;
    let model = "[a/claude-sonnet-5, a/claude-haiku-4-5, q/llama]";
    let gateway =
        Gateway::start(config.model("claude", model).model("alone", "[a/claude-sonnet-5]")).await;
    let answer = ask(&gateway, json!({ "logprobs": true })).await;
    assert_eq!(answer.ok().header("x-gatekeeper-model"), Some("q/llama"));
    assert_eq!(answer.number("x-gatekeeper-attempts"), 1, "passing over is no attempt");
    assert_eq!(third.only().json()["logprobs"], true);
    let used = (gateway.messages(LICENSE).await, gateway.tokens(LICENSE).await);

    let alone =
        ask(&gateway, json!({ "model": "alone", "response_format": { "type": "json_object" } }))
            .await;
    assert_eq!(alone.is(400, "invalid_request").error("param"), "response_format");
    // What another target could have served is that one's failure.
    third.answer([Reply::error(500)]);
    ask(&gateway, json!({ "logprobs": true })).await.is(502, "upstream_error");
    over(&gateway).await;
    assert_eq!((gateway.messages(LICENSE).await, gateway.tokens(LICENSE).await), used);
    assert_eq!((first.count(), second.count()), (0, 0));
}

#[tokio::test]
async fn the_apps_own_mistake_comes_back_in_openais_envelope() {
    let mistake = json!({ "type": "error", "request_id": "req_011CVRz8hTnXc5LtY3oUzF0e", "error": {
        "type": "invalid_request_error", "message": "max_tokens: 9000 > 8192, says org-Zx81qLmN0pT7vRw2" } });
    let mock = Mock::start(Reply::json(400, mistake.to_string())).await;
    let gateway = Gateway::start(dialects::config(&mock)).await;
    for stream in [false, true] {
        let answer = ask(&gateway, json!({ "stream": stream })).await;
        answer.is(400, "invalid_request");
        assert_eq!(answer.error("type"), "invalid_request_error");
        let message = answer.error("message");
        assert!(message.as_str().unwrap().starts_with("max_tokens: 9000 > 8192"), "{message}");
        assert!(!answer.text().contains("Zx81") && !answer.text().contains("req_011C"));
    }
    over(&gateway).await;
    assert_eq!((mock.count() as u64, gateway.messages(LICENSE).await), (2, 0));
    mock.answer([Reply::json(200, "{\"type\":\"message\"")]);
    ask(&gateway, json!({})).await.is(502, "upstream_error");
}
