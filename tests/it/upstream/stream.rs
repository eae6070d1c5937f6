//! Streams: the commit point, what comes after it, and an app that leaves.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{
    Answer, Config, Gate, Gateway, LICENSE, Mock, Reply, Step, Wire, client, eventually, soon, sse,
};

const PLAN: &str = "messages: 50/month, tokens: 100000/month, models: [\"*\"]";

async fn start(mock: &Mock, wire: Wire) -> Gateway {
    Gateway::start(Config::new(mock).plan("free", PLAN).over(wire)).await
}

fn streaming() -> serde_json::Value {
    client::chat(&json!({ "stream": true }))
}

async fn events_arrive_as_they_are_sent(wire: Wire) {
    let (first, second) = (Gate::new(), Gate::new());
    let reply = Reply::sse(&[sse::ROLE.to_owned(), sse::text("Hel")])
        .then(Step::Gate(first.clone()))
        .write(sse::text("lo"))
        .then(Step::Gate(second.clone()))
        .write(sse::FINISH)
        .write(sse::DONE);
    let mock = Mock::start(reply).await;
    let gateway = start(&mock, wire).await;
    let mut open = soon("the head", gateway.app().open(&streaming())).await;
    let mut body = Vec::new();
    for (gate, upto) in [(&first, "Hel"), (&second, "Hello")] {
        while sse::content(&body) != upto {
            let chunk = soon("an event that was sent", open.chunk()).await.unwrap();
            body.extend_from_slice(&chunk.expect("more to come"));
        }
        gate.open();
    }
    while let Some(chunk) = soon("the end", open.chunk()).await.unwrap() {
        body.extend_from_slice(&chunk);
    }
    assert_eq!(body, sse::plain(&["Hel", "lo"]).concat().as_bytes());
    assert_eq!(mock.count(), 1);
}

/// Breaks after the first event that carries output: never another key, never a clean end.
async fn a_stream_that_breaks_ends_in_an_error(wire: Wire) {
    // The break comes when the app has seen something: until then another key may still answer.
    let begun = || {
        let words = [sse::ROLE.to_owned(), sse::text("Hel"), sse::text("lo")];
        Reply::sse(&words).then(Step::Wait(Duration::from_millis(100)))
    };
    let breaks = [
        ("closed", begun().then(Step::Close)),
        ("reset", begun().then(Step::Reset)),
        ("an error event", begun().write(sse::ERROR)),
        ("an error event, then DONE", begun().write(sse::ERROR).write(sse::DONE)),
        ("the end without a finish", begun()),
        ("half an event", begun().write(sse::text("!")[..30].to_owned()).then(Step::Close)),
    ];
    for (what, reply) in breaks {
        let mock = Mock::start(reply).await;
        let gateway = start(&mock, wire).await;
        let answer = gateway.app().ask(&streaming()).await;
        assert_eq!(answer.status, 200, "{what}");
        let text = answer.text();
        let good = [sse::ROLE.to_owned(), sse::text("Hel"), sse::text("lo")].concat();
        assert!(text.starts_with(&good), "{what}: {text}");
        let error = sse::closing_error(&answer.body);
        assert_eq!(error["code"], "upstream_error", "{what}: {text}");
        assert!(!text.contains("SECRET"), "{what}: {text}");
        assert_eq!(mock.count(), 1, "{what}: no other key after the first event");
        assert_eq!(gateway.messages(LICENSE).await, 1, "{what}: what was delivered is charged");
        assert!(gateway.tokens(LICENSE).await > 0, "{what}");
    }
}

async fn an_app_that_leaves_cancels_the_provider_and_pays(wire: Wire) {
    let gate = Gate::new();
    let reply = Reply::sse(&[sse::ROLE.to_owned(), sse::text("Hel")]).then(Step::Gate(gate));
    let mock = Mock::start(reply).await;
    let gateway = start(&mock, wire).await;
    let app = gateway.app();
    let mut open = app.open(&streaming()).await;
    soon("the first event", open.chunk()).await.unwrap().expect("an event");
    let left = Instant::now();
    drop(open);
    drop(app);
    let cancelled = mock.left(0).await;
    assert!(cancelled - left < Duration::from_secs(1), "after {:?}", cancelled - left);
    eventually("the request is over", Duration::from_secs(3), || async {
        gateway.status().await["in_flight"] == 0
    })
    .await;
    assert_eq!(gateway.messages(LICENSE).await, 1);
    assert!(gateway.tokens(LICENSE).await > 0);
    let requests = gateway.status().await["requests"].clone();
    assert_eq!(requests[0]["status"], 499, "{requests}");
    let left = [("endpoint", "chat"), ("status", "499")];
    assert_eq!(gateway.metrics().await.sum("gatekeeper_requests_total", &left), 1.0);
    assert_eq!(mock.count(), 1);
}

async fn leaving_before_the_first_event_is_not_free(wire: Wire) {
    for stream in [false, true] {
        let mock = Mock::start(Reply::instead([Step::Hang])).await;
        let gateway = start(&mock, wire).await;
        let app = gateway.app();
        let body = client::chat(&json!({ "stream": stream }));
        let asking = tokio::spawn(async move { app.ask(&body).await });
        mock.saw(1).await;
        let left = Instant::now();
        asking.abort();
        let _ = asking.await;
        let cancelled = mock.left(0).await;
        assert!(cancelled - left < Duration::from_secs(1), "after {:?}", cancelled - left);
        eventually("the message is charged", Duration::from_secs(3), || async {
            gateway.status().await["in_flight"] == 0 && gateway.messages(LICENSE).await == 1
        })
        .await;
        assert!(gateway.tokens(LICENSE).await > 0);
        assert_eq!(mock.count(), 1, "nobody waits for another key");
    }
}

over_every_wire! {
    events_arrive_as_they_are_sent,
    a_stream_that_breaks_ends_in_an_error,
    an_app_that_leaves_cancels_the_provider_and_pays,
    leaving_before_the_first_event_is_not_free,
}

#[tokio::test]
async fn the_role_is_held_until_there_is_output() {
    let gate = Gate::new();
    let reply = Reply::sse(&[sse::ROLE]).then(Step::Gate(gate.clone())).write(sse::ERROR);
    let mock = Mock::sequence([reply, Reply::stream()]).await;
    let gateway = start(&mock, Wire::Plain).await;
    let app = gateway.app();
    let asking = tokio::spawn(async move { app.ask(&streaming()).await });
    mock.saw(1).await;
    gate.open();
    let answer = asking.await.unwrap();
    assert_eq!(answer.ok().text(), sse::plain(&["Hel", "lo"]).concat());
    assert_eq!(mock.count(), 2);
}

#[tokio::test]
async fn tool_calls_reasoning_and_refusals_commit_too() {
    let chunk = |delta: serde_json::Value| {
        let choice = json!({ "index": 0, "delta": delta, "finish_reason": null });
        format!(
            "data: {}\n\n",
            json!({ "id": "c1", "object": "chat.completion.chunk", "choices": [choice] })
        )
    };
    let call = json!({ "tool_calls": [{ "index": 0, "id": "call_1", "type": "function", "function": { "name": "f", "arguments": "" } }] });
    for delta in [
        call,
        json!({ "reasoning": "Hm" }),
        json!({ "reasoning_content": "Hm" }),
        json!({ "refusal": "No" }),
    ] {
        let gate = Gate::new();
        let reply = Reply::sse(&[sse::ROLE.to_owned(), chunk(delta.clone())])
            .then(Step::Gate(gate.clone()))
            .then(Step::Close);
        let mock = Mock::sequence([reply, Reply::stream()]).await;
        let gateway = start(&mock, Wire::Plain).await;
        let answer = gateway.app().open(&streaming()).await;
        // Its head has come: it is committed.
        gate.open();
        let answer = Answer::read(answer).await;
        assert_eq!(answer.status, 200, "{delta}");
        sse::closing_error(&answer.body);
        assert_eq!(mock.count(), 1, "{delta}");
    }
}

#[tokio::test]
async fn a_broken_stream_is_a_failure_in_the_status() {
    let mock = Mock::start(
        Reply::sse(&[sse::text("Hel")])
            .then(Step::Wait(Duration::from_millis(100)))
            .then(Step::Close),
    )
    .await;
    let gateway = start(&mock, Wire::Plain).await;
    gateway.app().stream().await;
    eventually("it is counted", Duration::from_secs(3), || async {
        let status = gateway.status().await;
        status["failed"] == 1 && status["success"] == 0
    })
    .await;
}

#[tokio::test]
async fn a_json_answer_for_a_stream_and_a_stream_for_json_do_not_hang() {
    let mock = Mock::sequence([Reply::chat(), Reply::stream()]).await;
    let gateway = start(&mock, Wire::Plain).await;
    for stream in [true, false] {
        let body = client::chat(&json!({ "stream": stream }));
        let answer = soon("some answer", gateway.app().ask(&body)).await;
        assert!([200, 502, 503].contains(&answer.status), "{stream}: {}", answer.status);
    }
}

/// A minute is nothing to a reasoning model; an app gives up earlier if it hears nothing.
#[tokio::test]
async fn a_silent_stream_is_kept_awake_and_can_still_be_rescued() {
    let silent =
        Reply::sse(&[sse::ROLE]).then(Step::Wait(Duration::from_millis(16_500))).write(sse::ERROR);
    let mock = Mock::sequence([silent, Reply::stream()]).await;
    let gateway = start(&mock, Wire::Plain).await;
    let mut open = gateway.app().open(&streaming()).await;
    assert_eq!(open.status(), 200);
    let first = soon("a comment", open.chunk()).await.unwrap().expect("a comment");
    assert!(first.starts_with(b":"), "{}", String::from_utf8_lossy(&first));
    assert_eq!(mock.count(), 1, "the head came while the provider was silent");
    let answer = Answer::read(open).await;
    assert_eq!(sse::content(&answer.ok().body), "Hello");
    assert!(answer.text().contains("[DONE]"));
    assert_eq!(mock.count(), 2);
    assert_eq!(gateway.messages(LICENSE).await, 1);
}
