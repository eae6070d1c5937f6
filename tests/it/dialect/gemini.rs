//! Gemini's own API: the model stands in the path, the key in a header, the cap inside a member.

use serde_json::{Value, json};

use crate::{
    dialect::dialects::{
        GEMINI, GEMINI_STREAM, GENERATED, GENERATED_STREAM, GENERATED_STREAM_TOKENS,
        GENERATED_TOKENS, ask, breaking, config, contents, is_refused,
    },
    downstream::disconnect::over,
    support::{Answer, Gateway, LICENSE, Mock, Reply, Step, soon},
};

const PLAN: &str = "messages: 1000/month, tokens: 100000000/month, models: [\"*\"]";

async fn start(reply: Reply) -> (Mock, Gateway) {
    let mock = Mock::start(reply).await;
    let gateway = Gateway::start(config(&mock).plan("free", PLAN)).await;
    (mock, gateway)
}

fn says(part: &Value) -> Value {
    contents(&json!({ "contents": [{ "role": "user", "parts": part }] }))
}

#[tokio::test]
async fn what_costs_more_or_is_kept_elsewhere_is_refused_by_name() {
    let (mock, gateway) = start(Reply::json(200, GENERATED)).await;
    let config = |config: Value| json!({ "generationConfig": config });
    for (more, field) in [
        (json!({ "tools": [{ "googleSearch": {} }] }), "tools"),
        (json!({ "tools": [{ "codeExecution": {} }] }), "tools"),
        (json!({ "tools": [{ "urlContext": {} }] }), "tools"),
        (json!({ "tools": [{ "computerUse": {} }] }), "tools"),
        (json!({ "tools": [{ "fileSearch": { "fileSearchStoreNames": ["x"] } }] }), "tools"),
        (json!({ "tools": [{ "functionDeclarations": [], "googleMaps": {} }] }), "tools"),
        (json!({ "tools": { "googleSearch": {} } }), "tools"),
        (json!({ "cachedContent": "cachedContents/1" }), "cachedContent"),
        (json!({ "serviceTier": "priority" }), "serviceTier"),
        (json!({ "system_instruction": { "parts": [] } }), "system_instruction"),
        (config(json!({ "candidateCount": 2 })), "generationConfig.candidateCount"),
        (config(json!({ "candidate_count": 2 })), "generationConfig"),
        (config(json!({ "responseModalities": ["AUDIO"] })), "generationConfig.responseModalities"),
        (config(json!({ "maxOutputTokens": "9" })), "generationConfig.maxOutputTokens"),
        (config(json!("x")), "generationConfig"),
    ] {
        let answer = ask(&gateway, GEMINI, &contents(&more)).await;
        is_refused(&answer, GEMINI, 400, "invalid_request");
        assert_eq!(answer.error("status"), "INVALID_ARGUMENT");
        let words = answer.error("message");
        assert!(words.as_str().unwrap().contains(&format!("\"{field}\"")), "{words}");
    }
    let inline = |kind: &str| json!([{ "inlineData": { "mimeType": kind, "data": "AAAA" } }]);
    for (part, kind) in [
        (inline("application/pdf"), "file"),
        (inline("audio/wav"), "input_audio"),
        (inline("video/mp4"), "video_url"),
        (json!([{ "fileData": { "fileUri": "https://example.com/files/1" } }]), "file_id"),
        (json!({ "fileData": { "fileUri": "https://example.com/files/1" } }), "file_id"),
        (json!([{ "executableCode": { "code": "1" } }]), "executableCode"),
    ] {
        let answer = ask(&gateway, GEMINI, &says(&part)).await;
        is_refused(&answer, GEMINI, 400, "invalid_request");
        assert!(answer.text().contains(kind), "{}", answer.text());
    }
    assert_eq!(mock.count(), 0);
    assert_eq!(gateway.messages(LICENSE).await, 0);
}

#[tokio::test]
async fn media_that_the_model_accepts_goes_through() {
    let mock = Mock::start(Reply::json(200, GENERATED)).await;
    let accepting = "{ targets: [g/gemini-3.5-flash], accepts: [file] }";
    let config = config(&mock).plan("free", PLAN).model("gemini", accepting);
    let gateway = Gateway::start(config).await;
    let file = json!([{ "inlineData": { "mimeType": "application/pdf", "data": "AAAA" } }]);
    ask(&gateway, GEMINI, &says(&file)).await.ok();
    assert_eq!(mock.last().json()["contents"][0]["parts"], file);
    let stored = json!([{ "fileData": { "fileUri": "https://example.com/files/1" } }]);
    is_refused(&ask(&gateway, GEMINI, &says(&stored)).await, GEMINI, 400, "invalid_request");
}

#[tokio::test]
async fn safety_settings_may_only_be_stricter_than_the_default() {
    let (mock, gateway) = start(Reply::json(200, GENERATED)).await;
    let setting = |threshold: Value| {
        let setting = json!({ "category": "HARM_CATEGORY_HARASSMENT", "threshold": threshold });
        contents(&json!({ "safetySettings": [setting] }))
    };
    for lax in [json!("BLOCK_NONE"), json!("OFF"), json!("BLOCK_ONLY_HIGH"), json!(4), json!(null)]
    {
        let refused = ask(&gateway, GEMINI, &setting(lax)).await;
        is_refused(&refused, GEMINI, 400, "invalid_request");
        assert!(refused.text().contains("safetySettings"), "{}", refused.text());
    }
    assert_eq!(mock.count(), 0);
    for strict in ["BLOCK_MEDIUM_AND_ABOVE", "BLOCK_LOW_AND_ABOVE"] {
        ask(&gateway, GEMINI, &setting(json!(strict))).await.ok();
        assert_eq!(mock.last().json()["safetySettings"][0]["threshold"], strict);
    }
}

#[tokio::test]
async fn only_listed_members_go_upstream() {
    let (mock, gateway) = start(Reply::json(200, GENERATED)).await;
    let more = json!({
        "systemInstruction": { "parts": [{ "text": "Be brief." }] },
        "tools": [{ "functionDeclarations": [{ "name": "look" }] }],
        "toolConfig": { "functionCallingConfig": { "mode": "AUTO" } },
        "safetySettings": [], "labels": { "a": "b" }, "model": "models/other", "serviceTier": "flex",
        "generationConfig": { "temperature": 0.5, "candidateCount": 1, "mediaResolution": "HIGH",
            "responseModalities": ["TEXT"], "thinkingConfig": { "thinkingBudget": 100 },
            "speechConfig": {}, "maxOutputTokens": 900 },
    });
    ask(&gateway, GEMINI, &contents(&more)).await.ok();
    let sent = mock.only().json();
    let mut names: Vec<_> = sent.as_object().unwrap().keys().cloned().collect();
    names.sort_unstable();
    let expected = [
        "contents",
        "generationConfig",
        "safetySettings",
        "systemInstruction",
        "toolConfig",
        "tools",
    ];
    assert_eq!(names, expected);
    assert_eq!(
        sent["generationConfig"],
        json!({ "temperature": 0.5, "thinkingConfig": { "thinkingBudget": 100 }, "maxOutputTokens": 900 })
    );
    let allowed = [
        "accept",
        "accept-encoding",
        "content-length",
        "content-type",
        "host",
        "user-agent",
        "x-goog-api-key",
    ];
    let request = gateway.app().request("POST", GEMINI).header("x-goog-api-key", LICENSE);
    let request = request
        .header("x-goog-user-project", "other")
        .header("x-goog-api-client", "google-genai-sdk/2.32.0")
        .header("anthropic-version", "whatever");
    Answer::of(request.body(contents(&json!({})).to_string())).await.ok();
    assert_eq!(mock.last().header_names(), allowed);
}

/// Every way to say something else with the path.
#[tokio::test]
async fn the_path_names_a_model_and_a_method_and_nothing_else() {
    let (mock, gateway) = start(Reply::json(200, GENERATED)).await;
    let body = contents(&json!({})).to_string();
    for path in [
        "gemini:countTokens",
        "gemini:embedContent",
        "gemini:batchGenerateContent",
        "gemini:generateContent/",
        "gemini:generatecontent",
        "gemini%3AgenerateContent",
        "gemini:generateContent%20",
        "models%2Fgemini:generateContent",
        "x/../gemini:generateContent",
        "../tunedModels/gemini:generateContent",
        "%67emini:generateContent",
        ":generateContent",
        "gemini:",
        "gemini",
        "",
    ] {
        let mut raw = gateway.raw().await;
        raw.send(format!(
            "POST /v1beta/models/{path} HTTP/1.1\r\nhost: a\r\nx-goog-api-key: {LICENSE}\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        ))
        .await;
        let answer = raw.answer().await.expect("an answer");
        assert_eq!(answer.status, 404, "{path}");
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(text.contains("\"reason\":\"NOT_FOUND\""), "{path}: {text}");
    }
    // What is no route of Gemini's here has the envelope of all others.
    for path in [
        "/v1beta/cachedContents",
        "/v1beta/files",
        "/v1beta/models",
        "/v1beta/tunedModels/x:generateContent",
    ] {
        ask(&gateway, path, &contents(&json!({}))).await.is(404, "not_found");
    }
    assert_eq!(mock.count(), 0);
    // What an app puts into the query goes nowhere.
    for query in ["alt=sse", "alt=json&$alt=proto", "fields=usageMetadata", "model=other"] {
        ask(&gateway, &format!("{GEMINI}?{query}"), &contents(&json!({}))).await.ok();
        assert_eq!(mock.last().path, "/v1/models/gemini-3.5-flash:generateContent");
    }
    for query in [format!("key={LICENSE}"), format!("alt=sse&key={LICENSE}")] {
        let path = format!("{GEMINI}?{query}");
        is_refused(
            &ask(&gateway, &path, &contents(&json!({}))).await,
            GEMINI,
            401,
            "license_missing",
        );
    }
}

#[tokio::test]
async fn a_model_may_be_named_with_a_colon() {
    let mock = Mock::start(Reply::json(200, GENERATED)).await;
    let config = config(&mock).plan("free", PLAN).model("\"gemini:fast\"", "[g/gemini-3.5-flash]");
    let gateway = Gateway::start(config).await;
    let path = "/v1beta/models/gemini:fast:generateContent";
    ask(&gateway, path, &contents(&json!({}))).await.ok();
    assert_eq!(mock.only().path, "/v1/models/gemini-3.5-flash:generateContent");
}

#[tokio::test]
async fn what_is_no_answer_is_asked_of_the_next_key() {
    let error =
        r#"{"error":{"code":503,"message":"The model is overloaded.","status":"UNAVAILABLE"}}"#;
    let invalid = r#"{"error":{"code":400,"message":"API key not valid.","status":"INVALID_ARGUMENT",
        "details":[{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":"API_KEY_INVALID"}]}}"#;
    for (what, bad, path) in [
        ("503", Reply::json(503, error), GEMINI),
        ("an error inside a 200", Reply::json(200, error), GEMINI),
        ("an error in a list", Reply::json(200, format!("[{error}]")), GEMINI),
        ("a key that is not taken", Reply::json(400, invalid), GEMINI),
        ("nothing", Reply::json(200, "{}"), GEMINI),
        ("half a JSON", Reply::json(200, &GENERATED[..200]), GEMINI),
        ("an error event", Reply::sse(&[format!("data: {error}\r\n\r\n")]), GEMINI_STREAM),
        ("an empty stream", Reply::sse(&[": nothing\r\n\r\n"]), GEMINI_STREAM),
    ] {
        let stream = path == GEMINI_STREAM;
        let good = if stream { GENERATED_STREAM } else { GENERATED };
        let reply = if stream { Reply::sse(&[good]) } else { Reply::json(200, good) };
        let mock = Mock::sequence([bad, reply]).await;
        let gateway = Gateway::start(config(&mock).plan("free", PLAN)).await;
        let answer = ask(&gateway, path, &contents(&json!({}))).await;
        assert_eq!(answer.ok().text(), good, "{what}");
        assert_eq!((mock.count(), answer.number("x-gatekeeper-attempts")), (2, 2), "{what}");
        over(&gateway).await;
        assert_eq!(gateway.messages(LICENSE).await, 1, "{what}");
        let tokens = if stream { GENERATED_STREAM_TOKENS } else { GENERATED_TOKENS };
        assert_eq!(gateway.tokens(LICENSE).await, tokens, "{what}");
    }
}

#[tokio::test]
async fn the_apps_own_mistake_comes_back_without_the_account() {
    let mistake = r#"{"error":{"code":400,"message":"Unable to process input image of projects/1234567890/x.",
        "status":"INVALID_ARGUMENT","details":[{"@type":"type.googleapis.com/google.rpc.Help",
        "links":[{"url":"https://console.cloud.google.com/?project=1234567890"}]}]}}"#;
    let (mock, gateway) = start(Reply::json(400, mistake)).await;
    for path in [GEMINI, GEMINI_STREAM] {
        let answer = ask(&gateway, path, &contents(&json!({}))).await;
        let error = answer.json()["error"].clone();
        assert_eq!((answer.status, &error["code"]), (400, &json!(400)));
        assert_eq!(error["status"], "INVALID_ARGUMENT");
        assert_eq!(error["details"][0]["reason"], "INVALID_ARGUMENT");
        assert_eq!(error["message"], "Unable to process input image of […].");
        assert!(!answer.text().contains("1234567890"), "{error}");
    }
    assert_eq!((mock.count(), gateway.messages(LICENSE).await), (2, 0));
}

#[tokio::test]
async fn a_stream_without_its_finish_is_broken_and_one_with_it_is_whole() {
    let finish = GENERATED_STREAM.rfind("data: ").unwrap();
    let last = GENERATED_STREAM[..finish].rfind("data: ").unwrap();
    let (_mock, gateway) =
        start(breaking(&GENERATED_STREAM[..finish], &GENERATED_STREAM[last..finish])).await;
    let text = ask(&gateway, GEMINI_STREAM, &contents(&json!({}))).await.ok().text();
    let error = text.trim_end().rsplit("\n\n").next().unwrap();
    assert!(error.contains("\"status\":\"INTERNAL\""), "{text}");
    over(&gateway).await;
    assert_eq!(gateway.tokens(LICENSE).await, GENERATED_STREAM_TOKENS);
    // A prompt that was refused is an answer, too.
    let blocked = r#"data: {"promptFeedback":{"blockReason":"SAFETY"},"usageMetadata":{"promptTokenCount":9,"totalTokenCount":9}}"#;
    let blocked = format!("{blocked}\r\n\r\n");
    let (mock, gateway) = start(Reply::sse(std::slice::from_ref(&blocked))).await;
    assert_eq!(ask(&gateway, GEMINI_STREAM, &contents(&json!({}))).await.ok().text(), blocked);
    over(&gateway).await;
    assert_eq!((mock.count(), gateway.tokens(LICENSE).await), (1, 9));
}

/// Some models count their output at the end only: who leaves before it pays for what was said.
#[tokio::test]
async fn leaving_before_the_output_is_counted_is_not_free() {
    let words = "word ".repeat(200);
    let chunk = json!({ "candidates": [{ "content": { "parts": [{ "text": words }] } }],
        "usageMetadata": { "promptTokenCount": 9, "totalTokenCount": 9 } });
    let (mock, gateway) =
        start(Reply::sse(&[format!("data: {chunk}\r\n\r\n")]).then(Step::Hang)).await;
    let app = gateway.app();
    let request = app.request("POST", GEMINI_STREAM).header("x-goog-api-key", LICENSE);
    let mut open = request.body(contents(&json!({})).to_string()).send().await.unwrap();
    soon("the first event", open.chunk()).await.unwrap().expect("an event");
    drop(open);
    drop(app);
    mock.left(0).await;
    over(&gateway).await;
    let tokens = gateway.tokens(LICENSE).await;
    assert!((150..400).contains(&tokens), "{tokens}");
}
