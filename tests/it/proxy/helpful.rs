//! Addresses and models: those that are served, and what is said of those that are not.

use serde_json::{Value, json};

use crate::{
    dialect::dialects::MESSAGE,
    support::{Answer, Config, Gateway, LICENSE, MODEL, Mock, Reply},
};

async fn start() -> (Mock, Gateway) {
    let mock = Mock::start(Reply::chat()).await;
    let config = Config::new(&mock)
        .plan("free", "messages: 100/month, rate: 6/day, models: [fast, claude, \"a:b\"]")
        .provider_at("a", &mock.url(), ", dialect: anthropic", &["sk-ant-1"])
        .model("claude", "[a/claude-haiku]")
        .model("hidden", "[a/claude-opus]")
        .model("\"a:b\"", "[a/claude-haiku]");
    let gateway = Gateway::start(config).await;
    (mock, gateway)
}

fn said(answer: &Answer) -> String {
    answer.error("message").as_str().expect("a message").to_owned()
}

#[tokio::test]
async fn a_404_names_method_path_and_what_was_meant() {
    let (mock, gateway) = start().await;
    for (path, meant) in [
        ("/chat/completions", "/v1/chat/completions? The base URL ends in /v1."),
        ("/v1/v1/chat/completions", "/v1/chat/completions?"),
        ("/v1/completions", "/v1/chat/completions?"),
        ("/messages", "/v1/messages?"),
    ] {
        let answer = Answer::of(gateway.app().post(path, "{}")).await;
        answer.is(404, "not_found");
        let (said, wanted) = (said(&answer), format!("POST {path} is not served here."));
        assert!(said.starts_with(&wanted) && said.contains(meant), "{said}");
    }
    let answer =
        Answer::of(gateway.app().get("/v1/audio/speech?key=canary").bearer_auth(LICENSE)).await;
    let text = answer.text();
    assert!(
        text.contains("GET /v1/audio/speech is not") && text.contains("/v1/responses"),
        "{text}"
    );
    assert!(!text.contains("canary"));
    assert_eq!(mock.count(), 0);
}

#[tokio::test]
async fn a_model_that_is_not_there_is_told_what_is() {
    let (mock, gateway) = start().await;
    let ask =
        |model: &str| json!({ "model": model, "messages": [{ "role": "user", "content": "Hi" }] });
    let answer = gateway.app().ask(&ask("fats")).await;
    answer.is(404, "model_not_found");
    let words = said(&answer);
    assert!(words.contains("Did you mean \"fast\"?"), "{words}");
    assert!(words.contains("Your plan has \"a:b\", \"claude\", \"fast\"."), "{words}");
    assert!(!words.contains("hidden"), "{words}");
    let mut body = ask(MODEL);
    body["max_tokens"] = json!(10);
    let answer = Answer::of(gateway.app().post("/v1/messages", body.to_string())).await;
    assert_eq!((answer.status, answer.error("code")), (404, json!("model_not_found")));
    let words = answer.text();
    assert!(words.contains("exists, but is not served on this endpoint"), "{words}");
    assert!(words.contains("/v1/chat/completions or /v1/responses"), "{words}");
    assert_eq!(mock.count(), 0);
}

#[tokio::test]
async fn one_model_is_told_by_its_name() {
    let (mock, gateway) = start().await;
    let get = async |name: &str| {
        Answer::of(gateway.app().get(&format!("/v1/models/{name}")).bearer_auth(LICENSE)).await
    };
    let answer = get("fast").await;
    let model: Value = answer.ok().json();
    assert_eq!((&model["id"], &model["object"]), (&json!("fast"), &json!("model")));
    let list = Answer::of(gateway.app().get("/v1/models").bearer_auth(LICENSE)).await.json();
    assert!(list["data"].as_array().unwrap().contains(&model));
    assert_eq!(get("a%3Ab").await.ok().json()["id"], "a:b");
    get("fsat").await.is(404, "model_not_found");
    get("hidden").await.is(403, "model_not_allowed");
    Answer::of(gateway.app().get("/v1/models/fast")).await.is(401, "license_missing");
    assert_eq!(mock.count(), 0);
}

#[tokio::test]
async fn tokens_are_counted_here_at_the_plans_pace_and_cost_nothing() {
    let (mock, gateway) = start().await;
    let body =
        json!({ "model": "claude", "messages": [{ "role": "user", "content": "one two three" }] });
    let count = async |body: String| {
        let request = gateway.app().request("POST", "/v1/messages/count_tokens");
        Answer::of(request.header("x-api-key", LICENSE).body(body)).await
    };
    let answer = count(body.to_string()).await;
    let few = answer.ok().json()["input_tokens"].as_u64().unwrap();
    assert!((3..40).contains(&few), "{few}");
    let mut longer = body.clone();
    longer["system"] = json!("word ".repeat(1000));
    let many = count(longer.to_string()).await.ok().json()["input_tokens"].as_u64().unwrap();
    assert!((900..2000).contains(&(many - few)), "{few} and {many}");
    longer["system"] = json!("w".repeat(1 << 20));
    assert_eq!(count(longer.to_string()).await.status, 413);
    assert_eq!(count(body.to_string().replace("claude", "cloude")).await.status, 404);
    assert_eq!(count("{".to_owned()).await.status, 400);
    assert_eq!(mock.count(), 0);
    assert_eq!(gateway.messages(LICENSE).await, 0);
    count(body.to_string()).await.ok();
    let answer = count(body.to_string()).await;
    assert_eq!((answer.status, answer.error("code")), (429, json!("rate_limited")), "the seventh");
    assert_eq!(answer.error("type"), "rate_limit_error");
}

#[tokio::test]
async fn a_browsers_preflight_is_told_why_no_page_may_ask() {
    let (_mock, gateway) = start().await;
    for path in ["/v1/chat/completions", "/v1/nowhere"] {
        let request = gateway
            .app()
            .request("OPTIONS", path)
            .header("origin", "https://shop.example")
            .header("access-control-request-method", "POST");
        let answer = Answer::of(request).await;
        answer.is(405, "method_not_allowed");
        assert!(said(&answer).contains("no CORS") && said(&answer).contains("main process"));
        assert_eq!(answer.header("access-control-allow-origin"), None);
    }
}

#[tokio::test]
async fn what_an_answer_was_made_without_is_named() {
    let mock = Mock::start(Reply::chat()).await;
    let claude = Mock::start(Reply::json(200, MESSAGE)).await;
    let config = Config::new(&mock)
        .plan("free", "messages: 100/month, models: [\"*\"]")
        .provider_at("a", &claude.url(), ", dialect: anthropic", &["sk-ant-1"])
        .model("claude", "[a/claude-haiku]")
        .provider_at("x", &mock.url(), ", allow_fields: [top_k]", &["sk-x"])
        .model("extra", "[x/m]");
    let gateway = Gateway::start(config).await;
    let dropped = async |body: Value| {
        let mut whole =
            json!({ "model": MODEL, "messages": [{ "role": "user", "content": "Hi" }] });
        for (name, value) in body.as_object().unwrap() {
            whole[name] = value.clone();
        }
        let answer = gateway.app().ask(&whole).await;
        answer.ok().header("x-gatekeeper-dropped").map(str::to_owned)
    };
    assert_eq!(dropped(json!({ "temperature": 0, "stream": false, "store": false })).await, None);
    let many = json!({ "top_k": 5, "metadata": { "a": "b" }, "min_p": 0.1 });
    assert_eq!(dropped(many).await.as_deref(), Some("metadata, min_p, top_k"), "all three");
    assert_eq!(
        dropped(json!({ "model": "extra", "top_k": 5 })).await,
        None,
        "this provider takes it"
    );
    let claude = json!({ "model": "claude", "seed": 7, "temperature": 0.5, "top_p": 0.5 });
    assert_eq!(dropped(claude).await.as_deref(), Some("seed, top_p"));
    let odd = json!({ "a\r\nset-cookie: x": 1 });
    assert_eq!(dropped(odd).await.as_deref(), Some("a??set-cookie??x"));
    for name in ["previous_response_id", "conversation", "prompt"] {
        let body = json!({ "model": MODEL, "input": "Hi", name: "x_1" }).to_string();
        let answer = Answer::of(gateway.app().post("/v1/responses", body)).await;
        answer.is(400, "invalid_request");
        assert_eq!(answer.error("param"), name);
        assert!(said(&answer).contains("send the"), "{}", said(&answer));
    }
}

#[tokio::test]
async fn an_app_that_waits_for_less_is_not_told_to_retry() {
    let mock = Mock::start(Reply::chat()).await;
    let config = Config::new(&mock).plan("free", "rate: 1/minute, models: [fast]");
    let gateway = Gateway::start(config).await;
    let ask = async |most: Option<&str>| {
        let body = json!({ "model": MODEL, "messages": [{ "role": "user", "content": "Hi" }] });
        let mut request = gateway.app().post("/v1/chat/completions", body.to_string());
        if let Some(most) = most {
            request = request.header("x-max-wait", most);
        }
        Answer::of(request).await
    };
    // Near the end of a minute the first two would be of two.
    while ask(None).await.status == 200 {}
    for (most, told) in
        [(None, None), (Some("0"), Some("false")), (Some("61"), None), (Some("soon"), None)]
    {
        let answer = ask(most).await;
        if answer.status == 200 {
            continue; // another minute began
        }
        answer.is(429, "rate_limited");
        let pause: u32 = answer.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=60).contains(&pause), "{pause}");
        assert_eq!(answer.header("x-should-retry"), told, "{most:?}");
    }
}
