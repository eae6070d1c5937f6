//! What an app is told of a provider's refusal: what concerns its request, and nothing of the account.

use serde_json::{Value, json};

use crate::support::{Answer, Config, Gateway, LICENSE, Mock, Reply, contains};

#[tokio::test]
async fn the_apps_own_mistake_is_relayed_without_the_account() {
    let body = "{\"error\":{\"message\":\"Invalid 'temperature': 9 in organization org-AbCdEf1234567890AbCdEf12 on project proj_AbCdEf1234567890AbCdEf12 with key sk-proj-SECRETSECRETSECRET1234\",\
                \"type\":\"invalid_request_error\",\"param\":\"temperature\",\"code\":\"invalid_value\"}}";
    for status in [400, 413, 422] {
        let reply = Reply::json(status, body)
            .header("openai-organization", "org-AbCdEf1234567890AbCdEf12")
            .header("openai-project", "proj_SECRET")
            .header("x-request-id", "req_SECRET")
            .header("set-cookie", "__cf_bm=SECRET; path=/")
            .header("cf-ray", "SECRET-FRA")
            .header("server", "SECRET")
            .header("x-ratelimit-limit-requests", "500")
            .header("x-ratelimit-remaining-tokens", "SECRET");
        let mock = Mock::start(reply).await;
        let gateway = Gateway::start(Config::new(&mock)).await;
        let answer = gateway.app().chat().await;
        assert_eq!(answer.status, status, "{}", answer.text());
        let error = answer.json()["error"].clone();
        assert_eq!(
            (&error["param"], &error["code"]),
            (&json!("temperature"), &json!("invalid_value"))
        );
        assert!(error["message"].as_str().unwrap().contains("Invalid 'temperature': 9"), "{error}");
        for leak in ["org-AbCdEf", "proj_AbCdEf", "SECRET"] {
            assert!(!answer.text().contains(leak), "{error}");
            assert!(!format!("{:?}", answer.headers).contains(leak), "{:?}", answer.headers);
        }
        for name in [
            "openai-organization",
            "openai-project",
            "set-cookie",
            "cf-ray",
            "x-ratelimit-limit-requests",
        ] {
            assert_eq!(answer.header(name), None, "{name}");
        }
        assert_eq!(mock.count(), 1, "{status}: no other key can help");
        assert_eq!(gateway.messages(LICENSE).await, 0, "{status}");
    }
}

#[tokio::test]
async fn headers_of_an_account_never_come_back() {
    let dress = |reply: Reply| {
        reply
            .header("openai-organization", "org-SECRET")
            .header("openai-processing-ms", "12")
            .header("x-request-id", "req_SECRET")
            .header("request-id", "req_SECRET")
            .header("anthropic-organization-id", "SECRET")
            .header("set-cookie", "a=SECRET")
            .header("cf-ray", "SECRET")
            .header("alt-svc", "h3=\":443\"")
            .header("server", "SECRET")
            .header("x-ratelimit-remaining-requests", "SECRET")
            .header("x-groq-region", "SECRET")
            .header("location", "https://SECRET.example")
            .header("access-control-allow-origin", "*")
    };
    let mock = Mock::sequence([dress(Reply::chat()), dress(Reply::stream())]).await;
    let gateway = Gateway::start(Config::new(&mock)).await;
    for answer in [gateway.app().chat().await, gateway.app().stream().await] {
        answer.ok();
        assert!(!format!("{:?}", answer.headers).contains("SECRET"), "{:?}", answer.headers);
        let allowed = [
            "content-type",
            "content-length",
            "transfer-encoding",
            "date",
            "connection",
            "cache-control",
            "x-request-id",
            "x-should-retry",
            "retry-after",
            "vary",
            "x-accel-buffering",
            "server",
        ];
        for name in answer.headers.keys() {
            let name = name.as_str();
            let ours = name.starts_with("x-gatekeeper-") || name.starts_with("x-quota-");
            assert!(ours || allowed.contains(&name), "{name}");
        }
    }
}

#[tokio::test]
async fn geminis_wrapped_error_is_understood() {
    let wrapped = "[{\"error\":{\"code\":429,\"message\":\"You exceeded your current quota. Please retry in 20.7s.\",\"status\":\"RESOURCE_EXHAUSTED\",\
                   \"details\":[{\"@type\":\"type.googleapis.com/google.rpc.RetryInfo\",\"retryDelay\":\"20s\"}]}}]";
    let mock = Mock::start(Reply::json(429, wrapped)).await;
    let gateway = Gateway::start(Config::new(&mock)).await;
    let answer = gateway.app().chat().await;
    answer.is(503, "upstream_exhausted");
    assert!((15..=21).contains(&answer.number("retry-after")));
    mock.answer([Reply::json(400, "[{\"error\":{\"code\":400,\"message\":\"API key not valid.\",\"status\":\"INVALID_ARGUMENT\",\"details\":[{\"reason\":\"API_KEY_INVALID\"}]}}]")]);
    let gateway = Gateway::start(Config::new(&mock)).await;
    gateway.app().chat().await.is(502, "upstream_error");
}

#[tokio::test]
async fn an_error_never_shows_the_operators_names() {
    let mock = Mock::start(Reply::error(500)).await;
    let gateway = Gateway::start(Config::new(&mock)).await;
    let answer: Answer = gateway.app().chat().await;
    let error: Value = answer.is(502, "upstream_error").json();
    for name in ["p-1", "sk-one", "127.0.0.1", "m1"] {
        assert!(!contains(error.to_string().as_bytes(), name), "{error}");
    }
}
