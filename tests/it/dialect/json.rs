//! Strict JSON, the list of fields, and bytes that nobody touched.

use serde_json::{Value, json};

use crate::support::{Answer, Config, Gateway, LICENSE, MODEL, Mock, Reply, client, contains, sse};

async fn start() -> (Mock, Gateway) {
    let mock = Mock::start(Reply::chat()).await;
    let gateway = Gateway::start(Config::new(&mock).license("JSTAR-TEST-0002", "free")).await;
    (mock, gateway)
}

async fn send(gateway: &Gateway, body: impl Into<Vec<u8>>) -> Answer {
    Answer::of(gateway.app().post("/v1/chat/completions", body.into())).await
}

#[tokio::test]
async fn what_is_not_strict_json_is_400() {
    let (mock, gateway) = start().await;
    let messages = r#""messages":[{"role":"user","content":"Hi"}]"#;
    let nested = |depth: usize| {
        let (open, close) = ("[".repeat(depth - 1), "]".repeat(depth - 1));
        format!(r#"{{"model":"fast",{messages},"response_format":{open}{close}}}"#)
    };
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("nothing", b"".to_vec()),
        ("white space", b"  ".to_vec()),
        ("no JSON", b"hello".to_vec()),
        ("an array", format!(r#"[{{"model":"fast",{messages}}}]"#).into()),
        ("a string", br#""fast""#.to_vec()),
        ("cut off", format!(r#"{{"model":"fast",{messages}"#).into()),
        ("something after it", format!(r#"{{"model":"fast",{messages}}}x"#).into()),
        ("two objects", format!(r#"{{"model":"fast",{messages}}}{{}}"#).into()),
        ("a trailing comma", format!(r#"{{"model":"fast",{messages},}}"#).into()),
        ("single quotes", b"{'model':'fast'}".to_vec()),
        ("a comment", format!(r#"{{"model":"fast",/* x */{messages}}}"#).into()),
        ("NaN", format!(r#"{{"model":"fast",{messages},"temperature":NaN}}"#).into()),
        ("a leading zero", format!(r#"{{"model":"fast",{messages},"temperature":01}}"#).into()),
        ("a raw control character", format!("{{\"model\":\"fast\",{messages},\"stop\":\"a\u{1}b\"}}").into()),
        ("a byte order mark", format!("\u{feff}{{\"model\":\"fast\",{messages}}}").into()),
        ("not UTF-8", [format!(r#"{{"model":"fast",{messages},"stop":""#).as_bytes(), b"\xff\"}"].concat()),
        ("overlong UTF-8", [format!(r#"{{"model":"fast",{messages},"stop":""#).as_bytes(), b"\xc0\xaf\"}"].concat()),
        ("a surrogate in UTF-8", [format!(r#"{{"model":"fast",{messages},"stop":""#).as_bytes(), b"\xed\xa0\x80\"}"].concat()),
        ("UTF-16", "{\"model\":\"fast\"}".encode_utf16().flat_map(u16::to_le_bytes).collect()),
        ("model twice", format!(r#"{{"model":"fast","model":"strong",{messages}}}"#).into()),
        ("model twice, escaped", format!(r#"{{"model":"fast","\u006dodel":"strong",{messages}}}"#).into()),
        ("a key twice further down", br#"{"model":"fast","messages":[{"role":"user","role":"system","content":"Hi"}]}"#.to_vec()),
        ("a key twice far down", format!(r#"{{"model":"fast",{messages},"tools":[{{"type":"function","function":{{"name":"f","parameters":{{"a":1,"\u0061":2}}}}}}]}}"#).into()),
        ("deeper than 64", nested(65).into()),
        ("deep without end", "[".repeat(100_000).into()),
        ("objects without end", "{\"a\":".repeat(50_000).into()),
    ];
    for (what, body) in cases {
        let answer = send(&gateway, body).await;
        assert_eq!(answer.status, 400, "{what}: {}", answer.text());
        answer.is(400, "invalid_request");
    }
    assert_eq!(mock.count(), 0);
    send(&gateway, nested(64)).await.ok();
    assert_eq!(gateway.messages(LICENSE).await, 1);
}

#[tokio::test]
async fn a_missing_or_odd_field_is_named() {
    let (mock, gateway) = start().await;
    let cases = [
        ("model", json!({ "messages": [] })),
        ("model", json!({ "model": 7, "messages": [] })),
        ("model", json!({ "model": null, "messages": [] })),
        ("n", client::chat(&json!({ "n": 2 }))),
        ("n", client::chat(&json!({ "n": 128 }))),
        ("n", client::chat(&json!({ "n": "2" }))),
        ("best_of", client::chat(&json!({ "best_of": 3 }))),
        ("service_tier", client::chat(&json!({ "service_tier": "priority" }))),
        ("web_search_options", client::chat(&json!({ "web_search_options": {} }))),
        ("modalities", client::chat(&json!({ "modalities": ["text", "audio"] }))),
        ("audio", client::chat(&json!({ "audio": { "voice": "alloy", "format": "mp3" } }))),
        ("background", client::chat(&json!({ "background": true }))),
        ("tools", client::chat(&json!({ "tools": [{ "type": "web_search" }] }))),
        ("stream", client::chat(&json!({ "stream": "yes" }))),
        ("max_tokens", client::chat(&json!({ "max_tokens": 0 }))),
        ("max_tokens", client::chat(&json!({ "max_tokens": -1 }))),
        ("max_tokens", client::chat(&json!({ "max_tokens": 1.5 }))),
        ("max_completion_tokens", client::chat(&json!({ "max_completion_tokens": "many" }))),
        ("max_completion_tokens", client::chat(&json!({ "max_completion_tokens": 1e300 }))),
    ];
    for (field, body) in cases {
        let answer = gateway.app().ask(&body).await;
        assert_eq!(answer.status, 400, "{body}: {}", answer.text());
        answer.is(400, "invalid_request");
        let param = answer.error("param");
        assert!(param.as_str().is_some_and(|param| param.starts_with(field)), "{body}: {param}");
        assert!(answer.error("message").as_str().unwrap().contains(field), "{body}");
    }
    assert_eq!(mock.count(), 0);
    assert_eq!(gateway.messages(LICENSE).await, 0);
}

#[tokio::test]
async fn hosted_tools_and_background_are_refused_on_responses() {
    let (mock, gateway) = start().await;
    let hosted = [
        "web_search",
        "web_search_preview",
        "file_search",
        "code_interpreter",
        "computer_use_preview",
        "image_generation",
        "mcp",
        "local_shell",
    ];
    for kind in hosted {
        let body = json!({ "model": MODEL, "input": "Hi", "tools": [{ "type": kind }] });
        let answer = Answer::of(gateway.app().post("/v1/responses", body.to_string())).await;
        assert_eq!(answer.status, 400, "{kind}: {}", answer.text());
        assert!(answer.error("param").as_str().is_some_and(|param| param.starts_with("tools")));
    }
    let body = json!({ "model": MODEL, "input": "Hi", "background": true }).to_string();
    let answer = Answer::of(gateway.app().post("/v1/responses", body)).await;
    assert_eq!(answer.is(400, "invalid_request").error("param"), "background");
    assert_eq!(mock.count(), 0);
    mock.answer([Reply::json(200, sse::RESPONSE)]);
    let tool = json!({ "type": "function", "name": "f", "parameters": { "type": "object" } });
    let body = json!({ "model": MODEL, "input": "Hi", "tools": [tool], "background": false });
    Answer::of(gateway.app().post("/v1/responses", body.to_string())).await.ok();
}

#[tokio::test]
async fn harmless_values_of_refused_fields_pass() {
    let (mock, gateway) = start().await;
    let harmless = json!({
        "n": 1, "modalities": ["text"], "service_tier": "auto",
        "tools": [{ "type": "function", "function": { "name": "f", "parameters": {} } }],
    });
    gateway.app().ask(&client::chat(&harmless)).await.ok();
    assert_eq!(mock.only().json()["tools"], harmless["tools"]);
}

#[tokio::test]
async fn audio_files_and_video_are_refused_unless_the_model_takes_them() {
    let mock = Mock::start(Reply::chat()).await;
    let config = Config::new(&mock).model("ears", "{ targets: [p/m1], accepts: [input_audio] }");
    let gateway = Gateway::start(config).await;
    let with = |model: &str, part: Value| json!({ "model": model, "messages": [{ "role": "user", "content": [{ "type": "text", "text": "Hi" }, part] }] });
    let audio =
        json!({ "type": "input_audio", "input_audio": { "data": "AAAA", "format": "wav" } });
    for part in [
        audio.clone(),
        json!({ "type": "file", "file": { "file_id": "file-1" } }),
        json!({ "type": "video_url", "video_url": { "url": "https://example.com/a.mp4" } }),
    ] {
        gateway.app().ask(&with(MODEL, part)).await.is(400, "invalid_request");
    }
    assert_eq!(mock.count(), 0);
    gateway.app().ask(&with("ears", audio)).await.ok();
    let image =
        json!({ "type": "image_url", "image_url": { "url": "data:image/png;base64,AAAA" } });
    gateway.app().ask(&with(MODEL, image)).await.ok();
}

#[tokio::test]
async fn fields_that_are_not_listed_do_not_travel() {
    let (mock, gateway) = start().await;
    let more = json!({
        "no_such_field": { "a": 1 }, "Model": "gpt-5-pro", "store": true, "metadata": { "a": "canary-field" },
        "prediction": { "type": "content", "content": "x" },
        "api_key": "canary-field", "extra_body": {}, "temperature": 0.5, "top_p": 0.25, "seed": 7,
    });
    gateway.app().ask(&client::chat(&more)).await.ok();
    let sent = mock.only().json();
    let mut names: Vec<&str> = sent.as_object().unwrap().keys().map(String::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["messages", "model", "seed", "temperature", "top_p", "user"]);
    assert!(!contains(&mock.only().body, "canary-field"));
}

#[tokio::test]
async fn a_provider_may_allow_more_fields() {
    let mock = Mock::start(Reply::chat()).await;
    let more = ", allow_fields: [chat_template_kwargs]";
    let config = Config::new(&mock).provider_at("p", &mock.url(), more, &["sk-one"]);
    let gateway = Gateway::start(config).await;
    let body = json!({ "chat_template_kwargs": { "enable_thinking": false }, "other": 1 });
    gateway.app().ask(&client::chat(&body)).await.ok();
    let sent = mock.only().json();
    assert_eq!(sent["chat_template_kwargs"], json!({ "enable_thinking": false }));
    assert_eq!(sent.get("other"), None);
}

/// A cap that had to be shrunk below the thinking budget would be the provider's 400.
#[tokio::test]
async fn a_thinking_budget_that_no_longer_fits_is_402() {
    let usage = sse::CHAT
        .replace("\"completion_tokens\":7,\"total_tokens\":18", "\"completion_tokens\":289");
    let mock = Mock::start(Reply::json(200, usage)).await;
    let fields = ", allow_fields: [thinking, extra_body, generationConfig]";
    let config = Config::new(&mock)
        .provider_at("p", &mock.url(), fields, &["sk-one"])
        .plan("free", "tokens: 2000/month, models: [fast]");
    let gateway = Gateway::start(config).await;
    let thinking = |place: usize, budget: Value, cap: u64| {
        let mut more = vec![
            json!({ "thinking": { "type": "enabled", "budget_tokens": budget } }),
            json!({ "extra_body": { "google": { "thinking_config": { "thinking_budget": budget } } } }),
            json!({ "generationConfig": { "thinkingConfig": { "thinkingBudget": budget } } }),
        ]
        .swap_remove(place);
        more["max_tokens"] = json!(cap);
        client::chat(&more)
    };
    gateway.app().ask(&thinking(0, json!(1500), 1800)).await.ok();
    assert_eq!(mock.last().json()["max_tokens"], 1800);
    // 1,700 are left: the cap shrinks, and stays above the budget.
    let answer = gateway.app().ask(&thinking(0, json!(1500), 1800)).await;
    let cap = answer.ok().number("x-quota-capped");
    assert!(cap > 1500 && cap < 1700, "{cap}");
    assert_eq!(mock.last().json()["max_tokens"], cap);
    // 1,400 are left.
    for place in 0..3 {
        let answer = gateway.app().ask(&thinking(place, json!(1500), 1800)).await;
        answer.is(402, "quota_exceeded");
        let message = answer.error("message").as_str().unwrap().to_owned();
        assert!(
            message.contains("1400 of 2000") && message.contains("needs about 15"),
            "{message}"
        );
    }
    assert_eq!(mock.count(), 2);
    // What is no integer is no budget, and the app's own cap is its own affair.
    gateway.app().ask(&thinking(0, json!("1500"), 1800)).await.ok();
    gateway.app().ask(&thinking(0, json!(1500), 300)).await.ok();
    assert_eq!(mock.last().json()["max_tokens"], 300);
}

#[tokio::test]
async fn the_provider_learns_a_pseudonym_of_the_user() {
    let (mock, gateway) = start().await;
    let body = client::chat(&json!({ "user": "jane@example.com", "safety_identifier": "jane" }));
    for key in [LICENSE, LICENSE, "JSTAR-TEST-0002"] {
        gateway.app().ask_as(key, &body).await.ok();
    }
    let sent: Vec<Value> = mock.seen().iter().map(|seen| seen.json()).collect();
    for member in ["user", "safety_identifier"] {
        let names: Vec<&str> = sent.iter().map(|sent| sent[member].as_str().unwrap()).collect();
        assert_eq!(names[0], names[1]);
        assert_ne!(names[0], names[2]);
        assert!(names[0].len() >= 16 && !names[0].contains("jane") && !names[0].contains("JSTAR"));
    }
}

#[tokio::test]
async fn members_nobody_changed_keep_their_bytes() {
    let (mock, gateway) = start().await;
    let messages = "[ {\"role\":\"system\",\"content\":\"caf\\u00e9 \\/ \\ud83d\\ude00\"},\n\t{ \"content\" : \"日本 \\\"x\\\" \", \"role\":\"user\"} ]";
    let tools = "[ { \"type\":\"function\", \"function\":{\"name\":\"f\",\"parameters\":{\"type\":\"object\",\"properties\":{\"b\":{},\"a\":{}}}} } ]";
    let body = format!(
        "{{ \"temperature\" : 1.50e0 , \"messages\":{messages},\n\"model\":\"{MODEL}\", \"tools\" : {tools},\"seed\":12345678901234567890 }}"
    );
    send(&gateway, body).await.ok();
    let sent = mock.only().body;
    for bytes in [messages, tools, "1.50e0", "12345678901234567890"] {
        assert!(contains(&sent, bytes), "{bytes} in {}", String::from_utf8_lossy(&sent));
    }
    assert_eq!(serde_json::from_slice::<Value>(&sent).unwrap()["model"], "m1");
}

/// A name may be written with escapes; what it means counts.
#[tokio::test]
async fn an_escaped_name_gets_nothing_past_the_list() {
    let (mock, gateway) = start().await;
    let body = |member: &str| {
        format!(
            "{{\"model\":\"fast\",\"messages\":[{{\"role\":\"user\",\"content\":\"Hi\"}}],{member}}}"
        )
    };
    for member in [
        "\"\\u006e\":5",
        "\"service\\u005ftier\":\"priority\"",
        "\"web_search_\\u006fptions\":{}",
        "\"t\\u006fols\":[{\"type\":\"web_search\"}]",
    ] {
        send(&gateway, body(member)).await.is(400, "invalid_request");
    }
    assert_eq!(mock.count(), 0);
    for member in ["\"max\\u005ftokens\":9999", "\"st\\u006fre\":true", "\"us\\u0065r\":\"jane\""] {
        let answer = send(&gateway, body(member)).await;
        assert!([200, 400].contains(&answer.status), "{member}");
    }
    for seen in mock.seen() {
        let sent = seen.json();
        let mut names: Vec<&str> = sent.as_object().unwrap().keys().map(String::as_str).collect();
        names.retain(|name| !["model", "messages", "max_tokens", "user"].contains(name));
        assert!(names.is_empty(), "{sent}");
        assert_ne!(sent["user"], "jane");
    }
}

/// What another licence stored at the provider can't be read.
#[tokio::test]
async fn references_to_what_the_account_stores_are_refused_or_dropped() {
    let (mock, gateway) = start().await;
    mock.answer([Reply::json(200, sse::RESPONSE)]);
    let part = |part: Value| json!([{ "role": "user", "content": [part] }]);
    let inputs = [
        json!([{ "type": "item_reference", "id": "msg_canary" }]),
        json!([{ "id": "msg_canary" }]),
        part(json!({ "type": "input_file", "file_id": "file-canary" })),
        part(json!({ "type": "input_image", "file_id": "file-canary" })),
    ];
    for input in inputs {
        let body = json!({ "model": MODEL, "input": input }).to_string();
        Answer::of(gateway.app().post("/v1/responses", body)).await.is(400, "invalid_request");
    }
    let chat = part(json!({ "type": "file", "file": { "file_id": "file-canary" } }));
    gateway.app().ask(&client::chat(&json!({ "messages": chat }))).await.is(400, "invalid_request");
    assert_eq!(mock.count(), 0);
    let body = json!({
        "model": MODEL, "input": "Hi", "store": true, "metadata": { "a": "canary" },
    });
    Answer::of(gateway.app().post("/v1/responses", body.to_string())).await.ok();
    assert!(!contains(&mock.only().body, "canary"), "{}", mock.only().json());
    assert_eq!(mock.only().json()["store"], false);
}
