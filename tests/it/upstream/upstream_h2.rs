//! HTTP/2 to the provider, as all large ones speak it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::json;
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::support::{
    Answer, Config, Gate, Gateway, LICENSE, Mock, Reply, Step, body_of, ca, client, soon, sse,
};

const PLAN: &str = "messages: 5000/month, tokens: 10000000/month, models: [\"*\"]";

async fn start(mock: &Mock) -> Gateway {
    start_with(Config::new(mock)).await
}

async fn start_with(config: Config) -> Gateway {
    let dir = Arc::new(TempDir::new().unwrap());
    let roots = dir.path().join("roots.pem");
    std::fs::write(&roots, ca::root()).unwrap();
    let config = config.plan("free", PLAN).env("SSL_CERT_FILE", roots.to_str().unwrap());
    Gateway::start_in(dir, config).await
}

#[tokio::test]
async fn answers_and_streams_pass_untouched_on_one_connection() {
    let mock = Mock::h2([Reply::chat(), Reply::stream(), Reply::stream().bytewise()]).await;
    let gateway = start(&mock).await;
    assert_eq!(gateway.app().chat().await.ok().body, sse::CHAT);
    for _ in 0..2 {
        let answer = gateway.app().stream().await;
        assert_eq!(answer.ok().text(), sse::plain(&["Hel", "lo"]).concat());
    }
    assert_eq!(gateway.tokens(LICENSE).await, 3 * sse::TOKENS);
    let authority = format!("localhost:{}", mock.addr.port());
    for seen in mock.seen() {
        assert_eq!(seen.connection, 0);
        assert_eq!((seen.method.as_str(), seen.path.as_str()), ("POST", "/v1/chat/completions"));
        assert_eq!(seen.header(":authority"), Some(authority.as_str()));
        let names = [
            ":authority",
            "accept",
            "accept-encoding",
            "authorization",
            "content-length",
            "content-type",
            "user-agent",
        ];
        assert_eq!(seen.header_names(), names);
        assert_eq!(seen.header("content-length"), Some(seen.body.len().to_string().as_str()));
    }
}

#[tokio::test]
async fn what_one_key_cannot_do_the_next_does() {
    let faults = [
        ("status 429", Reply::error(429)),
        ("status 500", Reply::error(500)),
        ("status 401", Reply::error(401)),
        ("reset before the head", Reply::instead([Step::Reset])),
        ("reset in the answer", Reply::json(200, &sse::CHAT[..50]).chunked().then(Step::Reset)),
        ("shorter than said", Reply::json(200, &sse::CHAT[..50]).lying_length(5_000)),
        ("truncated", Reply::json(200, &sse::CHAT[..50])),
    ];
    for (what, fault) in faults {
        let mock = Mock::h2([fault, Reply::chat()]).await;
        let gateway = start(&mock).await;
        let answer = gateway.app().chat().await;
        assert_eq!(answer.status, 200, "{what}: {}", answer.text());
        assert_eq!(answer.number("x-gatekeeper-attempts"), 2, "{what}");
        assert_eq!(mock.seen()[0].body, mock.seen()[1].body, "{what}");
        assert_eq!(gateway.tokens(LICENSE).await, sse::TOKENS, "{what}");
    }
}

#[tokio::test]
async fn a_reset_after_the_first_event_ends_in_an_error() {
    let words = [sse::ROLE.to_owned(), sse::text("Hel")];
    let broken = Reply::sse(&words).then(Step::Wait(Duration::from_millis(100)));
    for (what, reply) in [("reset", broken.clone().then(Step::Reset)), ("unfinished", broken)] {
        let mock = Mock::h2([reply]).await;
        let gateway = start(&mock).await;
        let answer = gateway.app().stream().await;
        assert_eq!(sse::closing_error(&answer.body)["code"], "upstream_error", "{what}");
        assert_eq!(mock.count(), 1, "{what}");
        assert_eq!(gateway.messages(LICENSE).await, 1, "{what}");
    }
}

#[tokio::test]
async fn leaving_cancels_the_stream_and_spares_the_connection() {
    let gate = Gate::new();
    let held = Reply::sse(&[sse::ROLE.to_owned(), sse::text("Hel")]).then(Step::Gate(gate));
    let mock = Mock::h2([held, Reply::instead([Step::Hang]), Reply::chat()]).await;
    let gateway = start(&mock).await;
    let mut open = gateway.app().open(&client::chat(&json!({ "stream": true }))).await;
    soon("the first event", open.chunk()).await.unwrap().expect("an event");
    let left = Instant::now();
    drop(open);
    assert!(mock.left(0).await - left < Duration::from_secs(1));
    let app = gateway.app();
    let asking = tokio::spawn(async move { app.chat().await });
    mock.saw(2).await;
    let left = Instant::now();
    asking.abort();
    assert!(mock.left(1).await - left < Duration::from_secs(1));
    gateway.app().chat().await.ok();
    assert!(mock.seen().iter().all(|seen| seen.connection == 0), "a connection was given up");
    assert_eq!(gateway.messages(LICENSE).await, 3);
}

#[tokio::test]
async fn silence_is_cancelled_and_another_target_asked() {
    let mock = Mock::h2([Reply::instead([Step::Hang]), Reply::chat()]).await;
    let config = Config::new(&mock).timeouts("p", "first_byte: 400ms");
    let gateway = start_with(config.model("fast", "[p/m1, p/m2]")).await;
    assert_eq!(gateway.app().chat().await.ok().number("x-gatekeeper-attempts"), 2);
    mock.left(0).await;
}

#[tokio::test]
async fn a_large_body_passes_the_flow_control_twice() {
    let mock = Mock::h2([Reply::error(429), Reply::chat()]).await;
    let gateway = start(&mock).await;
    let request = gateway.app().post("/v1/chat/completions", body_of(10 * 1024 * 1024));
    let answer = Answer::of(request).await;
    assert_eq!(answer.ok().number("x-gatekeeper-attempts"), 2);
    let seen = mock.seen();
    assert!(seen[0].body == seen[1].body);
    assert!(seen[1].body.len() > 10 * 1024 * 1024 - 100);
}

/// An answer that comes before the body is out ends the stream, not the connection.
#[tokio::test]
async fn an_early_answer_is_heard() {
    let mock = Mock::h2([Reply::error(429).early(), Reply::chat()]).await;
    let gateway = start_with(Config::new(&mock).timeouts("p", "first_byte: 5s")).await;
    let request = gateway.app().post("/v1/chat/completions", body_of(8 * 1024 * 1024));
    assert_eq!(Answer::of(request).await.ok().number("x-gatekeeper-attempts"), 2);
}

#[tokio::test]
async fn many_requests_share_few_connections() {
    let slow = Reply::stream().before_head(Step::Wait(Duration::from_millis(200)));
    let mock = Mock::h2([slow]).await;
    let gateway = start(&mock).await;
    gateway.app().stream().await.ok();
    let app = gateway.app();
    let mut asking = JoinSet::new();
    for _ in 0..60 {
        let app = app.clone();
        asking.spawn(async move { sse::content(&app.stream().await.ok().body) });
    }
    let answers = asking.join_all().await;
    assert!(answers.iter().all(|answer| answer == "Hello"));
    let connections = mock.seen().iter().map(|seen| seen.connection).max().unwrap() + 1;
    assert!(connections <= 2, "{connections} connections for 60 requests");
    assert_eq!(gateway.tokens(LICENSE).await, 61 * sse::TOKENS);
}

/// A refused stream was not looked at (RFC 9113, 8.7): it is tried anew, on the first connection, too.
#[tokio::test]
async fn a_refused_stream_is_tried_on_a_fresh_connection() {
    let refused = Reply::instead([Step::Refuse]);
    let mock = Mock::h2([refused.clone(), Reply::chat(), refused, Reply::chat()]).await;
    let gateway = start_with(Config::new(&mock).keys("p", &["sk-one"])).await;
    for _ in 0..2 {
        assert_eq!(gateway.app().chat().await.ok().number("x-gatekeeper-attempts"), 1);
    }
    assert_eq!(mock.count(), 4);
    let connections: std::collections::BTreeSet<_> =
        mock.seen().iter().map(|seen| seen.connection).collect();
    assert!(connections.len() > 1, "{connections:?}");
}

/// Its provider has seen the request: that is an attempt, and where nothing else is left the only key is asked once more.
#[tokio::test]
async fn a_reset_stream_is_asked_for_once_more() {
    let mock = Mock::h2([Reply::chat(), Reply::instead([Step::Reset]), Reply::chat()]).await;
    let gateway = start_with(Config::new(&mock).keys("p", &["sk-one"])).await;
    gateway.app().chat().await.ok();
    assert_eq!(gateway.app().chat().await.ok().number("x-gatekeeper-attempts"), 2);
    assert_eq!(gateway.messages(LICENSE).await, 2);
}

/// A connection that its provider ends is given up by nobody's fault: while it idles, and under a stream.
#[tokio::test]
async fn a_provider_that_ends_a_connection_costs_no_answer() {
    let (begun, gate) = (Gate::new(), Gate::new());
    let words = sse::with_usage(&["Hel", "lo"]);
    let leaving = Reply::sse(&words[..2])
        .then(Step::GoAway)
        .then(Step::Gate(gate.clone()))
        .write(words[2..].concat());
    let idle = Reply::chat().then(Step::GoAway);
    let held = Reply::chat().before_head(Step::Gate(begun.clone()));
    let mock = Mock::h2([idle, leaving, held.clone(), Reply::chat()]).await;
    let gateway = start_with(Config::new(&mock).keys("p", &["sk-one"])).await;
    gateway.app().chat().await.ok();
    let app = gateway.app();
    let streaming = tokio::spawn(async move { app.stream().await });
    mock.saw(2).await;
    begun.open();
    for _ in 0..2 {
        assert_eq!(gateway.app().chat().await.ok().number("x-gatekeeper-attempts"), 1);
    }
    gate.open();
    let streamed = streaming.await.unwrap();
    assert_eq!(sse::content(&streamed.ok().body), "Hello");
    assert_eq!(streamed.number("x-gatekeeper-attempts"), 1);
    let status = gateway.status().await;
    assert_eq!(status["keys"][0]["errors"], 0, "{status}");
    assert_eq!(gateway.tokens(LICENSE).await, 4 * sse::TOKENS);
}

#[tokio::test]
async fn a_provider_that_takes_one_stream_at_a_time_serves_all() {
    let slow = Reply::stream().before_head(Step::Wait(Duration::from_millis(100)));
    let mock = Mock::h2_of_few_streams(1, slow).await;
    let gateway = start(&mock).await;
    let mut asking = JoinSet::new();
    for _ in 0..6 {
        let app = gateway.app();
        asking.spawn(async move { sse::content(&app.stream().await.ok().body) });
    }
    let answers = asking.join_all().await;
    assert!(answers.iter().all(|answer| answer == "Hello"), "{answers:?}");
}
