//! What the log says of requests that fail: one line each, with all that is needed to act.

use std::time::Duration;

use serde_json::json;

use crate::support::{Config, Gateway, Mock, Reply, Step, sse};

/// The log's lines about one request.
fn lines_of(gateway: &Gateway, request: &str) -> Vec<String> {
    let logs = gateway.logs();
    let found = logs.lines().filter(|line| line.contains(&format!("request={request}")));
    found.map(str::to_owned).collect()
}

/// In an outage two lines for each request would bury the one that matters.
#[tokio::test]
async fn a_failed_request_is_one_line_with_model_key_and_reason() {
    let refused = r#"{"error":{"message":"Invalid API Key","code":"invalid_api_key"}}"#;
    let bad = Mock::start(Reply::json(401, refused)).await;
    let well = Mock::start(Reply::chat()).await;
    let config = Config::new(&bad)
        .plan("free", "messages: 100/month, models: [\"*\"]")
        .keys("p", &["sk-one"])
        .provider_at("bad", &bad.url(), "", &["sk-two"])
        .provider_at("well", &well.url(), "", &["sk-three"])
        .model("both", "[bad/m, well/m]");
    let gateway = Gateway::start(config).await;
    let lines = |text: &str| {
        let logs = gateway.logs();
        let found = logs.lines().filter(|line| line.contains(text));
        found.map(str::to_owned).collect::<Vec<_>>()
    };
    gateway.app().chat().await.is(502, "upstream_error");
    let failed = lines("A request failed");
    assert_eq!((failed.len(), lines("An attempt failed").len()), (1, 0), "{}", gateway.logs());
    for part in ["upstream_error: ", "model=fast", "key=p/p-1 (", "attempts=1", "request=req_"] {
        assert!(failed[0].contains(part), "{part}: {failed:?}");
    }
    gateway.app().chat().await.is(502, "upstream_error");
    let failed = lines("A request failed");
    assert_eq!(failed.len(), 2);
    assert!(failed[1].contains("no key can be asked (p: p-1 quarantined (bad_credential))"));
    // What another key made good has a line of its own.
    let body = json!({ "model": "both", "messages": [{ "role": "user", "content": "Hi" }] });
    gateway.app().ask(&body).await.ok();
    gateway.logged("An attempt failed").await;
    let attempts = lines("An attempt failed");
    assert_eq!((lines("A request failed").len(), attempts.len()), (2, 1), "{}", gateway.logs());
    assert!(attempts[0].contains("target=bad/m key=bad-1"), "{attempts:?}");
}

/// Three keys of two providers that fail each in its own way, and a fourth that serves.
async fn three_bad_keys(level: &str) -> (Gateway, [Mock; 2]) {
    let said = |code: &str| format!(r#"{{"error":{{"message":"No.","code":"{code}"}}}}"#);
    let first = Mock::start(Reply::chat()).await;
    first.key("sk-one", [Reply::json(401, said("invalid_api_key"))]);
    first.key("sk-two", [Reply::json(500, said("oops"))]);
    let second = Mock::start(Reply::json(404, said("model_not_found"))).await;
    let config = Config::new(&first)
        .plan("free", "messages: 100/month, models: [\"*\"]")
        .keys("p", &["sk-one", "sk-two"])
        .provider("q", &second, &["sk-three"])
        .provider("well", &first, &["sk-four"])
        .model("fast", "[p/m, q/m]")
        .model("rescued", "[q/m, well/m]")
        .more(&format!("log: {{ level: {level} }}\n"));
    (Gateway::start(config).await, [first, second])
}

#[tokio::test]
async fn attempts_of_a_failed_request_are_in_its_one_line() {
    let (gateway, _mocks) = three_bad_keys("info").await;
    let answer = gateway.app().chat().await;
    answer.is(502, "upstream_error");
    let request = answer.header("x-request-id").unwrap().to_owned();
    gateway.logged("A request failed").await;
    let lines = lines_of(&gateway, &request);
    assert_eq!(lines.len(), 1, "{}", gateway.logs());
    for part in [
        "[WARN ",
        "A request failed: upstream_error: HTTP 404 model_not_found",
        "check `models` in the configuration",
        "model=fast key=q/q-1 (model_missing) attempts=3",
        "p/p-1 (bad_credential): HTTP 401 invalid_api_key",
        "p/p-2 (provider_error): HTTP 500 oops",
    ] {
        assert!(lines[0].contains(part), "{part}: {}", lines[0]);
    }
    assert!(!lines[0].contains("sk-") && !lines[0].contains("No."), "{}", lines[0]);
    // The last attempt is told once.
    assert_eq!(lines[0].matches("HTTP ").count(), 3, "{}", lines[0]);
}

#[tokio::test]
async fn each_attempt_has_a_line_of_its_own_at_debug() {
    let (gateway, _mocks) = three_bad_keys("debug").await;
    let answer = gateway.app().chat().await;
    answer.is(502, "upstream_error");
    let request = answer.header("x-request-id").unwrap().to_owned();
    gateway.logged("A request failed").await;
    let lines = lines_of(&gateway, &request);
    let with = |text: &str| lines.iter().filter(|line| line.contains(text)).count();
    assert_eq!((with("An attempt failed"), with("A request failed")), (3, 1), "{lines:#?}");
    let told: Vec<_> = lines.iter().filter(|line| line.contains("An attempt failed")).collect();
    assert!(told.iter().all(|line| line.contains("[DEBUG ")), "{told:#?}");
}

#[tokio::test]
async fn a_wrong_model_name_is_told_where_another_target_serves() {
    let (gateway, _mocks) = three_bad_keys("info").await;
    let body = json!({ "model": "rescued", "messages": [{ "role": "user", "content": "Hi" }] });
    let answer = gateway.app().ask(&body).await;
    answer.ok();
    let request = answer.header("x-request-id").unwrap().to_owned();
    gateway.logged(&request).await;
    let lines = lines_of(&gateway, &request);
    assert_eq!(lines.len(), 1, "{lines:#?}");
    for part in ["An attempt failed: HTTP 404", "check `models`", "target=q/m key=q-1"] {
        assert!(lines[0].contains(part), "{part}: {}", lines[0]);
    }
}

#[tokio::test]
async fn a_broken_stream_is_one_line_with_the_attempts_before_it() {
    let broken = Reply::sse(&[sse::text("Hel")])
        .then(Step::Wait(Duration::from_millis(100)))
        .then(Step::Close);
    let mock = Mock::start(broken).await;
    mock.key("sk-one", [Reply::json(500, r#"{"error":{"code":"oops"}}"#)]);
    let config = Config::new(&mock)
        .plan("free", "messages: 100/month, models: [\"*\"]")
        .provider_at("q", &mock.url(), "", &["sk-two"])
        .keys("p", &["sk-one"])
        .model("fast", "[p/m, q/m]");
    let gateway = Gateway::start(config).await;
    let answer = gateway.app().stream().await;
    assert_eq!(answer.status, 200);
    let request = answer.header("x-request-id").unwrap().to_owned();
    gateway.logged("A stream broke").await;
    let lines = lines_of(&gateway, &request);
    assert_eq!(lines.len(), 1, "{}", gateway.logs());
    for part in [
        "A stream broke after its first event: ",
        "model=fast key=q/q-1 (broken_answer) attempts=2",
        "earlier=[p/p-1 (provider_error): HTTP 500 oops]",
    ] {
        assert!(lines[0].contains(part), "{part}: {}", lines[0]);
    }
}
