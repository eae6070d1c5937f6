//! The way of a request: what goes in reaches the provider, what comes back reaches the app.

use serde_json::{Value, json};

use crate::support::{
    Answer, Config, Gateway, LICENSE, MODEL, Mock, Reply, Wire, client, eventually, sse,
};

const PLAN: &str = "messages: 50/month, tokens: 100000/month, models: [\"*\"]";

async fn gateway(mock: &Mock, wire: Wire) -> Gateway {
    Gateway::start(Config::new(mock).plan("free", PLAN).over(wire)).await
}

async fn a_json_answer_comes_back_byte_for_byte(wire: Wire) {
    let mock = Mock::start(Reply::chat()).await;
    let gateway = gateway(&mock, wire).await;
    for path in ["/chat", "/v1/chat/completions"] {
        mock.forget();
        let body = client::chat(&json!({})).to_string();
        let answer = Answer::of(gateway.app().post(path, body)).await;
        assert_eq!(answer.ok().body, sse::CHAT, "{path}");
        assert_eq!(answer.header("content-type"), Some("application/json"));
        let seen = mock.only();
        assert_eq!((seen.method.as_str(), seen.path.as_str()), ("POST", "/v1/chat/completions"));
        assert!(["sk-one", "sk-two"].contains(&seen.key.as_str()));
        assert_eq!(seen.json()["model"], "m1");
    }
}

async fn a_stream_comes_back_byte_for_byte(wire: Wire) {
    let mock = Mock::start(Reply::stream()).await;
    let gateway = gateway(&mock, wire).await;
    let asks_for_usage = json!({ "stream": true, "stream_options": { "include_usage": true } });
    let answer = gateway.app().ask(&client::chat(&asks_for_usage)).await;
    assert_eq!(answer.ok().text(), sse::with_usage(&["Hel", "lo"]).concat());
    assert!(answer.header("content-type").unwrap().starts_with("text/event-stream"));
    assert_eq!(answer.header("content-length"), None);
}

async fn an_answer_says_who_served_it_and_what_is_left(wire: Wire) {
    let mock = Mock::sequence([Reply::chat(), Reply::stream()]).await;
    let gateway = gateway(&mock, wire).await;
    let first = gateway.app().chat().await;
    let second = gateway.app().stream().await;
    for (answer, left) in [(&first, 49), (&second, 48)] {
        answer.ok();
        assert_eq!(answer.header("x-gatekeeper-model"), Some("p/m1"));
        assert_eq!(answer.number("x-gatekeeper-attempts"), 1);
        assert!(answer.header("x-gatekeeper-route").is_some());
        assert_eq!(answer.number("x-quota-messages-remaining"), left);
        assert!(answer.number("x-quota-tokens-remaining") <= 100_000);
        assert!(answer.header("x-quota-reset").is_some());
    }
    assert_ne!(first.header("x-request-id"), second.header("x-request-id"));
    assert!(!first.header("x-request-id").unwrap().is_empty());
}

over_every_wire! {
    a_json_answer_comes_back_byte_for_byte,
    a_stream_comes_back_byte_for_byte,
    an_answer_says_who_served_it_and_what_is_left,
}

#[tokio::test]
async fn embeddings_and_responses_take_their_own_paths() {
    let mock =
        Mock::sequence([Reply::json(200, sse::EMBEDDINGS), Reply::json(200, sse::RESPONSE)]).await;
    let gateway = gateway(&mock, Wire::Plain).await;
    let embed = json!({ "model": MODEL, "input": ["a", "b"] }).to_string();
    let answer = Answer::of(gateway.app().post("/v1/embeddings", embed)).await;
    assert_eq!(answer.ok().body, sse::EMBEDDINGS);
    let respond = json!({ "model": MODEL, "input": "Hi" }).to_string();
    let answer = Answer::of(gateway.app().post("/v1/responses", respond)).await;
    assert_eq!(answer.ok().body, sse::RESPONSE);
    let paths: Vec<String> = mock.seen().into_iter().map(|seen| seen.path).collect();
    assert_eq!(paths, ["/v1/embeddings", "/v1/responses"]);
    assert_eq!(gateway.messages(LICENSE).await, 2);
    assert_eq!(gateway.tokens(LICENSE).await, 8 + 18);
}

#[tokio::test]
async fn a_responses_stream_needs_no_end_marker() {
    let completed = format!(
        "event: response.completed\ndata: {{\"type\":\"response.completed\",\"sequence_number\":2,\"response\":{}}}\n\n",
        sse::RESPONSE.replace('\n', "")
    );
    let events = [
        "event: response.created\ndata: {\"type\":\"response.created\",\"sequence_number\":0,\"response\":{\"id\":\"resp_1\"}}\n\n".to_owned(),
        "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"sequence_number\":1,\"delta\":\"Hello\"}\n\n".to_owned(),
        completed,
    ];
    let mock = Mock::start(Reply::sse(&events)).await;
    let gateway = gateway(&mock, Wire::Plain).await;
    let body = json!({ "model": MODEL, "input": "Hi", "stream": true }).to_string();
    let answer = Answer::of(gateway.app().post("/v1/responses", body)).await;
    assert_eq!(answer.ok().text(), events.concat());
    assert_eq!(gateway.tokens(LICENSE).await, 18);
}

#[tokio::test]
async fn models_are_those_of_the_plan() {
    let mock = Mock::start(Reply::chat()).await;
    let config = Config::new(&mock)
        .model("strong", "[p/m2]")
        .plan("small", "messages: 5/month, models: [fast]")
        .license("JSTAR-SMALL-0001", "small");
    let gateway = Gateway::start(config).await;
    let names = |list: Value| -> Vec<String> {
        let data = list["data"].as_array().unwrap().clone();
        data.iter().map(|model| model["id"].as_str().unwrap().to_owned()).collect()
    };
    for (key, expected) in [(LICENSE, vec!["fast", "strong"]), ("JSTAR-SMALL-0001", vec!["fast"])] {
        let answer = gateway.app().get("/v1/models").bearer_auth(key).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        let list: Value = answer.json().await.unwrap();
        assert_eq!(list["object"], "list");
        assert_eq!(names(list), expected);
    }
    assert_eq!(mock.count(), 0);
}

#[tokio::test]
async fn me_tells_plan_and_limits_and_costs_nothing() {
    let mock = Mock::start(Reply::chat()).await;
    let gateway = gateway(&mock, Wire::Plain).await;
    gateway.app().chat().await.ok();
    for _ in 0..3 {
        let me = gateway.me(LICENSE).await;
        assert_eq!(me["plan"], "free");
        assert_eq!(me["until"], Value::Null);
        assert!(me["status"].is_string());
        let messages = &me["limits"]["messages"];
        assert_eq!(
            (&messages["limit"], &messages["used"], &messages["left"]),
            (&json!(50), &json!(1), &json!(49))
        );
        let tokens = &me["limits"]["tokens"];
        assert_eq!(
            (&tokens["limit"], &tokens["used"], &tokens["left"]),
            (&json!(100_000), &json!(18), &json!(100_000 - 18))
        );
        let next_month = messages["resets_at"].as_str().unwrap();
        assert!(next_month.ends_with("-01T00:00:00Z"), "{next_month}");
        assert!(me["models"].as_array().unwrap().contains(&json!(MODEL)));
    }
}

#[tokio::test]
async fn a_plan_without_limits_says_so() {
    let mock = Mock::start(Reply::chat()).await;
    let config = Config::new(&mock).plan("free", "models: [\"*\"]");
    let gateway = Gateway::start(config).await;
    let answer = gateway.app().chat().await;
    assert_eq!(answer.ok().header("x-quota-messages-remaining"), None);
    let me = gateway.me(LICENSE).await;
    assert_eq!(me["limits"]["messages"], Value::Null);
    assert_eq!(me["limits"]["tokens"], Value::Null);
}

#[tokio::test]
async fn health_needs_no_credential_and_the_admin_pages_are_not_public() {
    let mock = Mock::start(Reply::chat()).await;
    let gateway = gateway(&mock, Wire::Plain).await;
    assert_eq!(gateway.app().get("/healthz").send().await.unwrap().status(), 200);
    for path in ["/metrics", "/status", "/readyz", "/api/reload"] {
        let answer = Answer::of(gateway.app().get(path).bearer_auth(LICENSE)).await;
        answer.is(404, "not_found");
    }
    for path in ["/healthz", "/readyz", "/metrics", "/status"] {
        assert_eq!(gateway.operator().get(path).send().await.unwrap().status(), 200, "{path}");
    }
    let chat = gateway.operator().post("/v1/chat/completions", "{}").send().await.unwrap();
    assert_eq!(chat.status(), 404);
}

#[tokio::test]
async fn the_operator_sees_each_request_once() {
    let mock = Mock::sequence([Reply::chat(), Reply::error(500)]).await;
    let config = Config::new(&mock).plan("free", PLAN).keys("p", &["sk-one"]);
    let gateway = Gateway::start(config).await;
    gateway.app().chat().await.ok();
    gateway.app().chat().await.is(502, "upstream_error");
    gateway
        .app()
        .ask_as("NO-SUCH-LICENCE", &client::chat(&json!({})))
        .await
        .is(403, "license_invalid");

    eventually("the status knows all three", std::time::Duration::from_secs(3), || async {
        gateway.status().await["total"] == 3
    })
    .await;
    let status = gateway.status().await;
    assert_eq!(
        (&status["success"], &status["failed"], &status["refused"], &status["in_flight"]),
        (&json!(1), &json!(1), &json!(1), &json!(0))
    );
    assert_eq!(status["success_rate"].as_f64(), Some(0.5));
    let requests = status["requests"].as_array().unwrap();
    assert_eq!(requests.len(), 3);
    let good = requests.iter().find(|request| request["status"] == 200).unwrap();
    for member in ["time", "endpoint", "model", "served", "provider", "tokens", "ms", "attempts"] {
        assert!(!good[member].is_null(), "no {member} in {good}");
    }
    assert_eq!((&good["model"], &good["served"]), (&json!(MODEL), &json!("p/m1")));
    assert_eq!(good["tokens"], 18);

    let metrics = gateway.metrics().await;
    let count = |status| {
        metrics.sum("gatekeeper_requests_total", &[("endpoint", "chat"), ("status", status)])
    };
    assert_eq!((count("200"), count("502"), count("403")), (1.0, 1.0, 1.0));
    let tokens = |direction| {
        let labels = [("provider", "p"), ("direction", direction), ("source", "reported")];
        metrics.sum("gatekeeper_tokens_total", &labels)
    };
    assert_eq!((tokens("input"), tokens("output")), (11.0, 7.0));
    // The only key was asked once more.
    assert_eq!(metrics.sum("gatekeeper_upstream_attempts_total", &[("provider", "p")]), 3.0);
    assert_eq!(metrics.sum("gatekeeper_in_flight", &[]), 0.0);
    assert_eq!(metrics.sum("gatekeeper_reservations_open", &[]), 0.0);
    assert_eq!(metrics.sum("gatekeeper_store_up", &[]), 1.0);
    for name in [
        "gatekeeper_requests_total",
        "gatekeeper_request_duration_seconds",
        "gatekeeper_overhead_seconds",
        "gatekeeper_time_to_first_token_seconds",
        "gatekeeper_key_state",
    ] {
        assert!(metrics.0.contains(&format!("# HELP {name} ")), "no help for {name}");
    }
}

#[tokio::test]
async fn connections_to_the_provider_are_used_again() {
    let mock = Mock::start(Reply::chat()).await;
    let gateway = gateway(&mock, Wire::Plain).await;
    for _ in 0..4 {
        gateway.app().chat().await.ok();
    }
    assert!(mock.seen().iter().all(|seen| seen.connection == 0));
}

#[tokio::test]
async fn the_status_shows_the_last_fifty() {
    let mock = Mock::start(Reply::chat()).await;
    let gateway = Gateway::start(Config::new(&mock)).await;
    for _ in 0..60 {
        gateway.app().chat().await.ok();
    }
    eventually("all are counted", std::time::Duration::from_secs(3), || async {
        gateway.status().await["total"] == 60
    })
    .await;
    assert_eq!(gateway.status().await["requests"].as_array().unwrap().len(), 50);
}

/// Labels come from closed sets: what an app makes up opens no series.
#[tokio::test]
async fn made_up_names_open_no_series() {
    let mock = Mock::start(Reply::chat()).await;
    let gateway = Gateway::start(Config::new(&mock)).await;
    let app = gateway.app();
    let series = || async { gateway.metrics().await.0.lines().count() };
    let ask = async |round: usize| {
        let body = client::chat(&json!({ "model": format!("made-up-{round}") }));
        // Fewer than an address may try a minute.
        app.ask_as(&format!("MADE-UP-KEY-{:04}", round % 15), &body).await;
        app.ask(&body).await;
        Answer::of(app.get(&format!("/made/up/{round}")).bearer_auth(LICENSE)).await;
        Answer::of(app.request("PROPFIND", "/chat").bearer_auth(LICENSE)).await;
    };
    ask(0).await;
    app.chat().await.ok();
    // A request is counted when its answer is out.
    eventually("the answer is counted", std::time::Duration::from_secs(3), || async {
        gateway.metrics().await.0.contains("gatekeeper_time_to_first_token_seconds_count")
    })
    .await;
    let before = series().await;
    for round in 1..100 {
        ask(round).await;
    }
    assert_eq!(series().await, before);
    let text = gateway.metrics().await.0;
    assert!(!text.contains("made-up") && !text.contains("MADE-UP"), "{text}");
}
