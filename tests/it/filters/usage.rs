//! Usage: asked for, read however the bytes are split, and charged to the token.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::support::{Answer, Config, Gateway, LICENSE, MODEL, Mock, Reply, client, sse};

const PLAN: &str = "messages: 5000/month, tokens: 10000000/month, models: [\"*\"]";

async fn start(mock: &Mock) -> Gateway {
    Gateway::start(Config::new(mock).plan("free", PLAN)).await
}

fn streaming(options: Value) -> Value {
    match options {
        Value::Null => client::chat(&json!({ "stream": true })),
        options => client::chat(&json!({ "stream": true, "stream_options": options })),
    }
}

#[tokio::test]
async fn usage_is_asked_for_and_its_chunk_taken_out_again() {
    let mock = Mock::start(Reply::stream()).await;
    let gateway = start(&mock).await;
    let cases = [
        (Value::Null, false),
        (json!({}), false),
        (json!({ "include_usage": false }), false),
        (json!({ "include_usage": true }), true),
    ];
    for (round, (options, wanted)) in cases.into_iter().enumerate() {
        let answer = gateway.app().ask(&streaming(options.clone())).await;
        let words = ["Hel", "lo"];
        let expected = if wanted { sse::with_usage(&words) } else { sse::plain(&words) };
        assert_eq!(answer.ok().text(), expected.concat(), "{options}");
        assert_eq!(mock.last().json()["stream_options"]["include_usage"], true, "{options}");
        assert_eq!(gateway.tokens(LICENSE).await, sse::TOKENS * (round as u64 + 1));
    }
    mock.answer([Reply::chat()]);
    gateway.app().chat().await.ok();
    assert_eq!(mock.last().json().get("stream_options"), None);
}

#[tokio::test]
async fn an_unusual_stream_passes_untouched_and_is_counted() {
    let crlf = sse::with_usage(&["Hel", "lo"]).concat().replace('\n', "\r\n");
    let cr = sse::with_usage(&["Hel", "lo"]).concat().replace('\n', "\r");
    let comments = [
        ": OPENROUTER PROCESSING\n\n".to_owned(),
        sse::ROLE.to_owned(),
        ": keep\n:\n".to_owned(),
        sse::text("日本 ☀️ \u{1f600}"),
        format!("event: message\nid: 7\nretry: 10\n{}", sse::FINISH),
        sse::USAGE.replace("data: ", "data:"),
        sse::DONE.to_owned(),
    ]
    .concat();
    let no_last_line = sse::with_usage(&["Hi"]).concat().trim_end().to_owned();
    let marked = format!("\u{feff}{}", sse::with_usage(&["Hi"]).concat());
    for (what, stream) in [
        ("CRLF", crlf),
        ("CR", cr),
        ("comments", comments),
        ("no last line", no_last_line),
        ("a byte order mark", marked),
    ] {
        for bytewise in [false, true] {
            let mut reply = Reply::sse(std::slice::from_ref(&stream));
            if bytewise {
                reply = reply.bytewise();
            }
            let mock = Mock::start(reply).await;
            let gateway = start(&mock).await;
            let asks = streaming(json!({ "include_usage": true }));
            let answer = gateway.app().ask(&asks).await;
            assert_eq!(answer.ok().text(), stream, "{what}, bytewise {bytewise}");
            assert_eq!(gateway.tokens(LICENSE).await, sse::TOKENS, "{what}, bytewise {bytewise}");
        }
    }
}

/// Usage on every chunk (cumulative), on the finish chunk, or three times over: the last counts.
#[tokio::test]
async fn the_last_word_counts_and_nothing_is_added_up() {
    let usage = |output: u64| json!({ "prompt_tokens": 11, "completion_tokens": output, "total_tokens": 11 + output });
    let chunk = |delta: Value, finish: Value, usage: Value, groq: Value| {
        let choice = json!({ "index": 0, "delta": delta, "finish_reason": finish });
        let mut chunk =
            json!({ "id": "c1", "object": "chat.completion.chunk", "choices": [choice] });
        if !usage.is_null() {
            chunk["usage"] = usage;
        }
        if !groq.is_null() {
            chunk["x_groq"] = json!({ "id": "req_1", "usage": groq });
        }
        format!("data: {chunk}\n\n")
    };
    let text = |word: &str| json!({ "content": word });
    let none = Value::Null;
    let cumulative = vec![
        chunk(text("Hel"), none.clone(), usage(3), none.clone()),
        chunk(text("lo"), none.clone(), usage(5), none.clone()),
        chunk(json!({}), json!("stop"), usage(7), none.clone()),
        sse::DONE.to_owned(),
    ];
    let three_times = vec![
        chunk(text("Hello"), none.clone(), none.clone(), none.clone()),
        chunk(json!({}), json!("stop"), usage(7), usage(7)),
        sse::USAGE.to_owned(),
        sse::DONE.to_owned(),
    ];
    let groq_only = vec![
        chunk(text("Hello"), none.clone(), none.clone(), none.clone()),
        chunk(json!({}), json!("stop"), none, usage(7)),
        sse::DONE.to_owned(),
    ];
    for (what, events) in
        [("cumulative", cumulative), ("three times", three_times), ("x_groq", groq_only)]
    {
        let mock = Mock::start(Reply::sse(&events)).await;
        let gateway = start(&mock).await;
        let answer = gateway.app().stream().await;
        assert_eq!(sse::content(&answer.ok().body), "Hello", "{what}");
        assert_eq!(gateway.tokens(LICENSE).await, 18, "{what}");
    }
}

/// Gemini leaves thoughts out of `completion_tokens`, but not out of the total.
#[tokio::test]
async fn output_is_what_the_total_leaves() {
    let body = sse::CHAT.replace("\"total_tokens\":18", "\"total_tokens\":77");
    let mock = Mock::start(Reply::json(200, body)).await;
    let gateway = start(&mock).await;
    gateway.app().chat().await.ok();
    assert_eq!(gateway.tokens(LICENSE).await, 77);
}

#[tokio::test]
async fn without_usage_the_record_is_an_estimate() {
    let words = "The capital of Iceland is Reykjavik, of course. ";
    let no_usage = format!("{}}}", &sse::CHAT[..sse::CHAT.find(",\n\"usage\"").unwrap()]);
    for (stream, reply) in [
        (true, Reply::sse(&sse::plain(&[words, words, words]))),
        (false, Reply::json(200, no_usage.clone())),
        (false, Reply::json(200, no_usage.replacen("{\"id\"", "{\"usage\":null,\"id\"", 1))),
    ] {
        let mock = Mock::start(reply).await;
        let gateway = start(&mock).await;
        gateway.app().ask(&client::chat(&json!({ "stream": stream }))).await.ok();
        let tokens = gateway.tokens(LICENSE).await;
        let (least, most) = if stream { (25, 80) } else { (2, 40) };
        assert!((least..=most).contains(&tokens), "stream {stream}: {tokens}");
        let metrics = gateway.metrics().await;
        let estimated = [("source", "estimated"), ("direction", "input")];
        assert!(metrics.sum("gatekeeper_tokens_total", &estimated) > 0.0);
        assert_eq!(metrics.sum("gatekeeper_tokens_total", &[("source", "reported")]), 0.0);
    }
}

#[tokio::test]
async fn a_reported_nought_is_nought_where_nothing_was_said() {
    let none = "\"usage\":{\"prompt_tokens\":0,\"completion_tokens\":0,\"total_tokens\":0}";
    let body = format!("{}{none}}}", &sse::CHAT[..sse::CHAT.find("\"usage\"").unwrap()]);
    let silent = body.replace("\"Hel\\u006co\"", "\"\"");
    let mock = Mock::start(Reply::json(200, silent)).await;
    let gateway = start(&mock).await;
    gateway.app().chat().await.ok();
    assert_eq!(gateway.tokens(LICENSE).await, 0);
    assert_eq!(gateway.messages(LICENSE).await, 1);
}

#[tokio::test]
async fn nonsense_is_not_charged_as_it_stands() {
    for nonsense in [
        "{\"prompt_tokens\":-5,\"completion_tokens\":-1,\"total_tokens\":-6}",
        "{\"prompt_tokens\":\"many\",\"completion_tokens\":\"more\"}",
        "{\"prompt_tokens\":9223372036854775807,\"completion_tokens\":9223372036854775807}",
        "{\"prompt_tokens\":1e300,\"completion_tokens\":7}",
        "{\"prompt_tokens\":5000000,\"completion_tokens\":4000000,\"total_tokens\":9000000}",
        "[]",
        "\"18\"",
    ] {
        let start_of_usage = sse::CHAT.find("\"usage\"").unwrap();
        let body = format!("{}\"usage\":{nonsense}}}", &sse::CHAT[..start_of_usage]);
        let mock = Mock::start(Reply::json(200, body.clone())).await;
        let gateway = start(&mock).await;
        let answer = gateway.app().ask(&client::chat(&json!({ "max_tokens": 500 }))).await;
        assert_eq!(answer.ok().text(), body);
        let tokens = gateway.tokens(LICENSE).await;
        // Up to the bytes that were sent, what wraps them, and the cap.
        assert!((1..=4096 + 200 + 500).contains(&tokens), "{nonsense}: {tokens}");
    }
}

#[tokio::test]
async fn more_than_the_cap_is_no_matter_of_the_buyer() {
    let body = sse::CHAT.replace(
        "\"completion_tokens\":7,\"total_tokens\":18",
        "\"completion_tokens\":900,\"total_tokens\":911",
    );
    let mock = Mock::start(Reply::json(200, body)).await;
    let gateway = start(&mock).await;
    gateway.app().ask(&client::chat(&json!({ "max_tokens": 500 }))).await.ok();
    // The input as it was counted, and the cap.
    assert_eq!(gateway.tokens(LICENSE).await, 11 + 500);
    let metrics = gateway.metrics().await;
    assert_eq!(metrics.sum("gatekeeper_reservation_overruns_total", &[]), 1.0);
}

/// Recorded answers of real providers, where they are at hand.
#[tokio::test]
async fn recorded_answers_count_as_their_index_says() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/openai");
    let Ok(index) = std::fs::read(folder.join("index.json")) else { return };
    let index: Value = serde_json::from_slice(&index).unwrap();
    let mut checked = 0;
    for (name, facts) in index.as_object().unwrap() {
        let Ok(bytes) = std::fs::read(folder.join(name)) else { continue };
        if facts["status"] != 200 {
            continue;
        }
        let stream = name.ends_with(".sse");
        let (path, body) = match name.as_str() {
            name if name.contains("responses") => {
                ("/v1/responses", json!({ "model": MODEL, "input": "Hi", "stream": stream }))
            }
            name if name.contains("embeddings") => {
                ("/v1/embeddings", json!({ "model": MODEL, "input": "Hi" }))
            }
            _ => (
                "/v1/chat/completions",
                client::chat(
                    &json!({ "stream": stream, "stream_options": { "include_usage": true } }),
                ),
            ),
        };
        let mut body = body;
        if !stream && let Some(members) = body.as_object_mut() {
            members.remove("stream_options");
        }
        let kind = facts["headers"]["content-type"].as_str().unwrap().to_owned();
        let reply = Reply::status(200).header("content-type", &kind).write(bytes.clone());
        let reply = if stream { reply.chunked().bytewise() } else { reply };
        let mock = Mock::start(reply).await;
        let gateway = start(&mock).await;
        let answer = Answer::of(gateway.app().post(path, body.to_string())).await;
        assert_eq!(answer.ok().body, bytes, "{name}");
        let tokens = gateway.tokens(LICENSE).await;
        match facts["expect_usage"]["total"].as_u64() {
            Some(total) => assert_eq!(tokens, total, "{name}"),
            None => assert!(tokens > 0, "{name}"),
        }
        checked += 1;
    }
    assert!(checked >= 6, "only {checked} recorded answers");
}
