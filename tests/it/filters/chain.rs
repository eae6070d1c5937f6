//! The chain: each refusal of each filter, the output cap, and the order YAML gives.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{
    Answer, Config, Gate, Gateway, LICENSE, MODEL, Mock, Reply, Step, client, eventually, run, sse,
};

const UPGRADE: &str = "https://example.com/upgrade";

async fn start(plan: &str) -> (Mock, Gateway) {
    let mock = Mock::start(Reply::chat()).await;
    let gateway = Gateway::start(Config::new(&mock).plan("free", plan)).await;
    (mock, gateway)
}

/// The first moment of next month, as answers write it.
fn next_month() -> String {
    let first = jiff::tz::Offset::UTC.to_datetime(jiff::Timestamp::now()).date().first_of_month();
    use jiff::ToSpan;
    format!("{}T00:00:00Z", first.checked_add(1.month()).unwrap())
}

#[tokio::test]
async fn an_unknown_licence_is_refused_with_a_way_to_buy() {
    let (mock, gateway) = start("messages: 5/month, models: [fast]").await;
    for key in ["NO-SUCH-LICENCE", "JSTAR-TEST-0001x", "JSTAR-TEST-000", "jstar_test_0001"] {
        let answer = gateway.app().ask_as(key, &client::chat(&json!({}))).await;
        answer.is(403, "license_invalid");
        assert_eq!(answer.error("upgrade_url"), "https://example.com/buy");
        assert_eq!(answer.header("x-should-retry"), Some("false"));
    }
    for path in ["/v1/me", "/v1/models"] {
        let request = gateway.app().get(path).bearer_auth("NO-SUCH-LICENCE");
        Answer::of(request).await.is(403, "license_invalid");
    }
    assert_eq!(mock.count(), 0);
}

#[tokio::test]
async fn spellings_of_one_key_share_one_quota() {
    let (_mock, gateway) = start("messages: 5/month, models: [fast]").await;
    for key in ["jstar-test-0001", "JStar-Test-0001"] {
        gateway.app().ask_as(key, &client::chat(&json!({}))).await.ok();
    }
    assert_eq!(gateway.messages(LICENSE).await, 2);
}

#[tokio::test]
async fn a_model_outside_the_plan_is_403_and_an_unknown_one_404() {
    let mock = Mock::start(Reply::chat()).await;
    let plan = format!("messages: 5/month, models: [fast], upgrade_url: \"{UPGRADE}\"");
    let config = Config::new(&mock).model("strong", "[p/m2]").plan("free", &plan);
    let gateway = Gateway::start(config).await;
    let answer = gateway.app().ask(&client::chat(&json!({ "model": "strong" }))).await;
    answer.is(403, "model_not_allowed");
    assert_eq!(answer.error("upgrade_url"), UPGRADE);
    for unknown in ["gpt-5", "Fast", "fast ", "p/m1", "m1", ""] {
        let answer = gateway.app().ask(&client::chat(&json!({ "model": unknown }))).await;
        answer.is(404, "model_not_found");
    }
    assert_eq!(mock.count(), 0);
    assert_eq!(gateway.messages(LICENSE).await, 0);
}

#[tokio::test]
async fn used_up_messages_are_402_with_a_date_and_a_way_out() {
    let plan = format!("messages: 2/month, models: [fast], upgrade_url: \"{UPGRADE}\"");
    let (mock, gateway) = start(&plan).await;
    for left in [1, 0] {
        assert_eq!(gateway.app().chat().await.ok().number("x-quota-messages-remaining"), left);
    }
    for stream in [false, true] {
        let answer = gateway.app().ask(&client::chat(&json!({ "stream": stream }))).await;
        answer.is(402, "quota_exceeded");
        assert_eq!(answer.error("resets_at"), next_month());
        assert_eq!(answer.error("upgrade_url"), UPGRADE);
        assert_eq!(answer.header("retry-after"), None);
        assert_eq!(answer.header("x-should-retry"), Some("false"));
        let message = answer.error("message").as_str().unwrap().to_owned();
        assert!(message.contains("message") && message.contains('2'), "{message}");
    }
    assert_eq!(mock.count(), 2);
    let metrics = gateway.metrics().await;
    let labels = [("plan", "free"), ("limit", "messages")];
    assert_eq!(metrics.sum("gatekeeper_quota_rejections_total", &labels), 2.0);
}

#[tokio::test]
async fn used_up_tokens_are_402_telling_left_and_needed() {
    let (mock, gateway) = start("tokens: 1000/month, models: [fast]").await;
    let usage = sse::CHAT.replace(
        "\"completion_tokens\":7,\"total_tokens\":18",
        "\"completion_tokens\":889,\"total_tokens\":900",
    );
    mock.answer([Reply::json(200, usage)]);
    gateway.app().chat().await.ok();
    assert_eq!(gateway.tokens(LICENSE).await, 900);
    let answer = gateway.app().chat().await;
    answer.is(402, "quota_exceeded");
    let message = answer.error("message").as_str().unwrap().to_owned();
    assert!(message.contains("token") && message.contains("100"), "{message}");
    assert_eq!(answer.error("resets_at"), next_month());
    assert_eq!(mock.count(), 1);
    // An app that asks for less than the usual floor can still be served.
    gateway.app().ask(&client::chat(&json!({ "max_tokens": 20 }))).await.ok();
    assert_eq!(mock.count(), 2);
}

/// Keys of the file are as hard to guess as those of a shop.
#[tokio::test]
async fn an_address_that_tries_many_unknown_keys_has_to_wait() {
    let mock = Mock::start(Reply::chat()).await;
    let gateway = Gateway::start(Config::new(&mock)).await;
    let app = gateway.app();
    for number in 0..20 {
        app.chat_as(&format!("JSTAR-GUESS-{number:04}")).await.is(403, "license_invalid");
    }
    let refused = app.chat_as("JSTAR-GUESS-9999").await;
    refused.is(429, "rate_limited");
    assert!((1..=60).contains(&refused.number("retry-after")), "{:?}", refused.headers);
    // A buyer who mistyped once, and everyone with a licence, is served from the same address.
    app.chat_as("JSTAR-GUESS-0003").await.is(403, "license_invalid");
    app.chat().await.ok();
    assert_eq!(mock.count(), 1);
}

#[tokio::test]
async fn too_fast_is_429_with_a_short_wait() {
    let (mock, gateway) = start("rate: 3/day, models: [fast]").await;
    for _ in 0..3 {
        gateway.app().chat().await.ok();
    }
    let answer = gateway.app().chat().await;
    answer.is(429, "rate_limited");
    assert!((1..=60).contains(&answer.number("retry-after")));
    assert_eq!(mock.count(), 3);
    gateway.me(LICENSE).await;
}

#[tokio::test]
async fn too_many_at_once_is_429_until_one_ends() {
    let gate = Gate::new();
    let mock = Mock::sequence([
        Reply::sse(&[sse::ROLE.to_owned(), sse::text("Hi")])
            .then(Step::Gate(gate.clone()))
            .write(sse::FINISH)
            .write(sse::DONE),
        Reply::chat(),
    ])
    .await;
    let config = Config::new(&mock).plan("free", "concurrency: 1, models: [fast]");
    let gateway = Gateway::start(config).await;
    let mut open = gateway.app().open(&client::chat(&json!({ "stream": true }))).await;
    assert!(open.chunk().await.unwrap().is_some());
    let answer = gateway.app().chat().await;
    answer.is(429, "rate_limited");
    assert!((1..=60).contains(&answer.number("retry-after")));
    gate.open();
    Answer::read(open).await.ok();
    eventually("the place is free again", Duration::from_secs(2), || async {
        gateway.app().chat().await.status == 200
    })
    .await;
}

#[tokio::test]
async fn open_reservations_alone_are_429_not_402() {
    let gate = Gate::new();
    let mock =
        Mock::sequence([Reply::chat().before_head(Step::Gate(gate.clone())), Reply::chat()]).await;
    let config = Config::new(&mock).plan("free", "tokens: 1000/month, models: [fast]");
    let gateway = Gateway::start(config).await;
    let app = gateway.app();
    let first = tokio::spawn(async move { app.chat().await });
    mock.saw(1).await;
    let answer = gateway.app().chat().await;
    answer.is(429, "rate_limited");
    assert!((1..=5).contains(&answer.number("retry-after")));
    gate.open();
    first.await.unwrap().ok();
    gateway.app().chat().await.ok();
    assert_eq!(gateway.tokens(LICENSE).await, 2 * sse::TOKENS);
}

#[tokio::test]
async fn a_prompt_over_the_plan_is_413() {
    let (mock, gateway) = start("max_input_tokens: 100, models: [fast]").await;
    let long = json!([{ "role": "user", "content": "the quick brown fox ".repeat(200) }]);
    let answer = gateway.app().ask(&client::chat(&json!({ "messages": long }))).await;
    answer.is(413, "body_too_large");
    assert_eq!(mock.count(), 0);
    gateway.app().chat().await.ok();
}

#[tokio::test]
async fn an_image_counts_as_tokens_not_by_its_bytes() {
    let (mock, gateway) = start("max_input_tokens: 2500, models: [fast]").await;
    let image = |count: usize| {
        let url = format!("data:image/png;base64,{}", "iVBORw0KGgo".repeat(5_000));
        let part = json!({ "type": "image_url", "image_url": { "url": url } });
        json!([{ "role": "user", "content": vec![part; count] }])
    };
    gateway.app().ask(&client::chat(&json!({ "messages": image(1) }))).await.ok();
    let two = gateway.app().ask(&client::chat(&json!({ "messages": image(2) }))).await;
    two.is(413, "body_too_large");
    assert_eq!(mock.count(), 1);
}

#[tokio::test]
async fn the_plan_lowers_the_cap_in_the_field_the_app_used() {
    let (mock, gateway) = start("messages: 50/month, max_output_tokens: 100, models: [fast]").await;
    let cases = [
        (json!({ "max_tokens": 5000 }), json!({ "max_tokens": 100 })),
        (json!({ "max_completion_tokens": 5000 }), json!({ "max_completion_tokens": 100 })),
        (json!({ "max_tokens": 40 }), json!({ "max_tokens": 40 })),
        (json!({}), json!({ "max_completion_tokens": 100 })),
        (
            json!({ "max_tokens": 9000, "max_completion_tokens": 50 }),
            json!({ "max_tokens": 50, "max_completion_tokens": 50 }),
        ),
        (
            json!({ "max_completion_tokens": 9000, "max_tokens": 9000 }),
            json!({ "max_tokens": 100, "max_completion_tokens": 100 }),
        ),
    ];
    for (asked, sent) in cases {
        let answer = gateway.app().ask(&client::chat(&asked)).await;
        assert_eq!(answer.ok().header("x-quota-capped"), None, "{asked}");
        assert_eq!(caps(&mock.last().json()), sent, "{asked}");
    }
    mock.answer([Reply::json(200, sse::RESPONSE)]);
    for body in [
        json!({ "model": MODEL, "input": "Hi" }),
        json!({ "model": MODEL, "input": "Hi", "max_output_tokens": 9000 }),
    ] {
        Answer::of(gateway.app().post("/v1/responses", body.to_string())).await.ok();
        assert_eq!(caps(&mock.last().json()), json!({ "max_output_tokens": 100 }));
    }
    mock.answer([Reply::json(200, sse::EMBEDDINGS)]);
    let body = json!({ "model": MODEL, "input": "Hi" }).to_string();
    Answer::of(gateway.app().post("/v1/embeddings", body)).await.ok();
    assert_eq!(caps(&mock.last().json()), json!({}));
}

/// The output caps of a body.
fn caps(body: &Value) -> Value {
    let mut caps = json!({});
    for name in ["max_tokens", "max_completion_tokens", "max_output_tokens"] {
        if let Some(value) = body.get(name) {
            caps[name] = value.clone();
        }
    }
    caps
}

#[tokio::test]
async fn without_any_cap_a_token_limit_brings_4096_and_no_limit_brings_none() {
    let (mock, gateway) = start("tokens: 1000000/month, models: [fast]").await;
    gateway.app().chat().await.ok();
    assert_eq!(caps(&mock.only().json()), json!({ "max_completion_tokens": 4096 }));
    let (mock, gateway) = start("messages: 5/month, models: [fast]").await;
    gateway.app().chat().await.ok();
    assert_eq!(caps(&mock.only().json()), json!({}));
}

#[tokio::test]
async fn a_provider_names_the_field_of_an_injected_cap() {
    let mock = Mock::start(Reply::chat()).await;
    let config = Config::new(&mock)
        .plan("free", "max_output_tokens: 100, models: [fast]")
        .provider_at("p", &mock.url(), ", output_cap_field: max_tokens", &["sk-one"]);
    let gateway = Gateway::start(config).await;
    gateway.app().chat().await.ok();
    assert_eq!(caps(&mock.only().json()), json!({ "max_tokens": 100 }));
}

#[tokio::test]
async fn the_cap_shrinks_to_what_is_left_and_says_so() {
    let (mock, gateway) = start("tokens: 1000/month, models: [fast]").await;
    let answer = gateway.app().ask(&client::chat(&json!({ "max_tokens": 5000 }))).await;
    let capped = answer.ok().number("x-quota-capped");
    assert!((900..1000).contains(&capped), "{capped}");
    assert_eq!(caps(&mock.last().json()), json!({ "max_tokens": capped }));
    mock.answer([Reply::stream(), Reply::chat()]);
    let answer = gateway.app().stream().await;
    let capped = answer.ok().number("x-quota-capped");
    assert_eq!(caps(&mock.last().json()), json!({ "max_completion_tokens": capped }));
    // A cap that fits as it is stays as it is.
    let answer = gateway.app().ask(&client::chat(&json!({ "max_tokens": 300 }))).await;
    assert_eq!(answer.ok().header("x-quota-capped"), None);
}

#[tokio::test]
async fn a_message_id_makes_retries_count_once() {
    let (mock, gateway) = start("messages: 5/month, tokens: 100000/month, models: [fast]").await;
    let body = client::chat(&json!({})).to_string();
    for id in ["turn-1", "turn-1", "turn-1", "turn-2"] {
        let request = gateway.app().post("/v1/chat/completions", body.clone());
        Answer::of(request.header("x-message-id", id)).await.ok();
    }
    assert_eq!(gateway.messages(LICENSE).await, 2);
    assert_eq!(gateway.tokens(LICENSE).await, 4 * sse::TOKENS);
    assert_eq!(mock.last().header("x-message-id"), None);
    for odd in ["", "a b", "ä", &"x".repeat(65)] {
        let request = gateway.app().post("/v1/chat/completions", body.clone());
        let answer = Answer::of(request.header("x-message-id", odd.as_bytes())).await;
        answer.is(400, "invalid_request");
    }
}

#[tokio::test]
async fn an_eleventh_request_of_one_message_is_a_new_message() {
    let (_mock, gateway) = start("messages: 50/month, models: [fast]").await;
    let body = client::chat(&json!({})).to_string();
    for round in 1..=11 {
        let request = gateway.app().post("/v1/chat/completions", body.clone());
        Answer::of(request.header("x-message-id", "turn-1")).await.ok();
        assert_eq!(gateway.messages(LICENSE).await, if round <= 10 { 1 } else { 2 }, "{round}");
    }
}

#[tokio::test]
async fn what_is_not_in_the_chain_does_not_act() {
    let plan = "messages: 1/month, rate: 1/day, models: [fast]";
    let mock = Mock::start(Reply::chat()).await;
    let with = |filters: &str| Config::new(&mock).plan("free", plan).filters(filters);

    let gateway = Gateway::start(with("[license, rate_limit, route, quota, meter]")).await;
    gateway.app().chat().await.ok();
    gateway.app().chat().await.is(429, "rate_limited");

    let gateway = Gateway::start(with("[license, route, quota, meter]")).await;
    gateway.app().chat().await.ok();
    gateway.app().chat().await.is(402, "quota_exceeded");

    let gateway = Gateway::start(with("[license, route, meter]")).await;
    for _ in 0..3 {
        gateway.app().chat().await.ok();
    }
}

#[tokio::test]
async fn explain_shows_the_chain_in_the_order_of_the_file() {
    let mock = Mock::start(Reply::chat()).await;
    for order in [
        ["license", "rate_limit", "route", "quota", "meter"],
        ["license", "route", "rate_limit", "quota", "meter"],
    ] {
        let gateway =
            Gateway::start(Config::new(&mock).filters(&format!("[{}]", order.join(", ")))).await;
        gateway.app().chat().await.ok();
        let output = run(&["explain", "-c", "gatekeeper.yaml"], gateway.dir.path());
        assert!(output.status.success());
        let text = String::from_utf8(output.stdout).unwrap();
        let line = |name: &str| {
            let at = text.lines().position(|line| {
                line.split_whitespace().any(|word| {
                    word.trim_matches(|c: char| !c.is_alphanumeric() && c != '_') == name
                })
            });
            at.unwrap_or_else(|| panic!("no {name} in:\n{text}"))
        };
        let places: Vec<usize> = order.iter().map(|name| line(name)).collect();
        assert!(places.is_sorted(), "{order:?}:\n{text}");
    }
}

#[tokio::test]
async fn a_chain_that_cannot_hold_is_a_config_error() {
    let mock = Mock::start(Reply::chat()).await;
    let cases = [
        ("[rate_limit, route, quota, meter]", "no `license`"),
        ("[]", "no `license`"),
        ("[rate_limit, license, route, quota, meter]", "`rate_limit` must stand after"),
        ("[quota, license, route, meter]", "`quota` must stand after"),
        ("[license, route, quota, quota, meter]", "twice"),
        ("[license, route, qouta, meter]", "did you mean `quota`"),
        ("[license, route, quota, { meter: { no_such_option: 1 } }]", "no_such_option"),
    ];
    for (filters, word) in cases {
        let dir = std::sync::Arc::new(tempfile::TempDir::new().unwrap());
        let config = Config::new(&mock).filters(filters);
        let mut gateway = Gateway::spawn(dir.clone(), config);
        let status = gateway.exited(Duration::from_secs(10)).await;
        assert!(!status.success(), "{filters}");
        gateway.logged(word).await;
        let check = run(&["check", "-c", "gatekeeper.yaml"], dir.path());
        assert_eq!(check.status.code(), Some(1), "{filters}");
        let said = [check.stdout, check.stderr].concat();
        assert!(String::from_utf8_lossy(&said).contains(word), "{filters}");
    }
}
