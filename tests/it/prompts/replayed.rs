//! A message that comes twice: one provider is asked, one is charged, both get the answer.

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use serde_json::{Value, json};

use crate::support::{
    Answer, Config, Gate, Gateway, LICENSE, Mock, Reply, Step, client, eventually, repeat, soon,
    sse,
};

const PLAN: &str =
    "messages: 100000/month, concurrency: unlimited, models: [\"*\"], idempotency: 10m";

fn config(mock: &Mock) -> Config {
    Config::new(mock).plan("free", PLAN)
}

async fn send(gateway: &Gateway, message: &str, body: &Value) -> Answer {
    let request = gateway.app().post("/v1/chat/completions", body.to_string());
    Answer::of(request.header("x-message-id", message)).await
}

fn said(text: &str) -> Value {
    client::chat(&json!({ "messages": [{ "role": "user", "content": text }] }))
}

#[tokio::test]
async fn the_same_message_gets_the_same_answer_and_costs_once() {
    let mock = Mock::start(Reply::chat()).await;
    let gateway = Gateway::start(config(&mock)).await;
    let first = send(&gateway, "m-1", &said("Hi")).await;
    assert_eq!(first.ok().header("x-gatekeeper-replayed"), None);
    let again = send(&gateway, "m-1", &said("Hi")).await;
    assert_eq!(again.ok().header("x-gatekeeper-replayed"), Some("1"));
    assert_eq!((again.text(), again.header("x-gatekeeper-model")), (first.text(), Some("p/m1")));
    assert_ne!(again.header("x-request-id"), first.header("x-request-id"));
    assert_eq!((mock.count(), gateway.messages(LICENSE).await), (1, 1));
    // Another body, another message, no id: asked anew.
    for (message, text) in [("m-1", "Hello"), ("m-2", "Hi")] {
        let other = send(&gateway, message, &said(text)).await;
        assert_eq!(other.ok().header("x-gatekeeper-replayed"), None);
    }
    gateway.app().ask(&said("Hi")).await.ok();
    assert_eq!(mock.count(), 4);
    // Another licence.
    let mut gateway = gateway;
    assert!(gateway.reload(config(&mock).license("JSTAR-OTHER-0001", "free")).await);
    let request = gateway.app().request("POST", "/v1/chat/completions");
    let request = request.bearer_auth("JSTAR-OTHER-0001").header("x-message-id", "m-1");
    let request = request.header("content-type", "application/json").body(said("Hi").to_string());
    assert_eq!(Answer::of(request).await.ok().header("x-gatekeeper-replayed"), None);
}

#[tokio::test]
async fn a_failure_is_not_given_again() {
    let mock = Mock::sequence([Reply::error(400), Reply::chat()]).await;
    let gateway = Gateway::start(config(&mock)).await;
    assert_eq!(send(&gateway, "m-1", &said("Hi")).await.status, 400);
    send(&gateway, "m-1", &said("Hi")).await.ok();
    assert_eq!(mock.count(), 2);
}

#[tokio::test]
async fn a_second_request_shares_the_stream_from_its_beginning() {
    let gate = Gate::new();
    let reply = Reply::sse(&[sse::ROLE.to_owned(), sse::text("Hel")])
        .then(Step::Gate(gate.clone()))
        .write(sse::text("lo"))
        .write(sse::FINISH)
        .write(sse::DONE);
    let mock = Mock::start(reply).await;
    let gateway = Gateway::start(config(&mock)).await;
    let body = client::chat(&json!({ "stream": true })).to_string();
    let open = async || {
        let request = gateway.app().post("/v1/chat/completions", body.clone());
        request.header("x-message-id", "m-1").send().await.unwrap()
    };
    let (mut first, mut second) = (open().await, open().await);
    assert_eq!(second.headers()["x-gatekeeper-replayed"], "1");
    let beginning: Bytes = soon("the first event", second.chunk()).await.unwrap().unwrap();
    gate.open();
    let (mut one, mut two) = (Vec::new(), beginning.to_vec());
    while let Some(chunk) = soon("the first stream", first.chunk()).await.unwrap() {
        one.extend_from_slice(&chunk);
    }
    while let Some(chunk) = soon("the second stream", second.chunk()).await.unwrap() {
        two.extend_from_slice(&chunk);
    }
    assert_eq!(one, two);
    assert_eq!(one, sse::plain(&["Hel", "lo"]).concat().as_bytes());
    let third = Answer::of(
        gateway.app().post("/v1/chat/completions", body.clone()).header("x-message-id", "m-1"),
    )
    .await;
    assert_eq!(third.ok().text().as_bytes(), one);
    assert_eq!((mock.count(), gateway.messages(LICENSE).await), (1, 1));
}

#[tokio::test]
async fn the_first_app_may_leave_while_a_second_waits() {
    for stream in [true, false] {
        let gate = Gate::new();
        let reply = match stream {
            true => Reply::sse(&[sse::ROLE.to_owned(), sse::text("Hel")])
                .then(Step::Gate(gate.clone()))
                .write(sse::text("lo"))
                .write(sse::FINISH)
                .write(sse::DONE),
            false => Reply::chat().before_head(Step::Gate(gate.clone())),
        };
        let mock = Mock::start(reply).await;
        let gateway = Gateway::start(config(&mock)).await;
        let body = client::chat(&json!({ "stream": stream })).to_string();
        let request = || {
            let request = gateway.app().post("/v1/chat/completions", body.clone());
            request.header("x-message-id", "m-1")
        };
        let first = tokio::spawn(request().send());
        eventually("the provider is asked", Duration::from_secs(10), || async {
            gate.waiting() == 1
        })
        .await;
        let second = tokio::spawn(Answer::of(request()));
        let both = || async { gateway.metrics().await.sum("gatekeeper_in_flight", &[]) == 2.0 };
        eventually("both wait", Duration::from_secs(10), both).await;
        first.abort();
        drop(first.await);
        // Time for the gateway to see that the first is gone: it looks at it every quarter of a second.
        tokio::time::sleep(Duration::from_millis(600)).await;
        assert!(mock.seen()[0].left.is_none(), "the provider was left");
        gate.open();
        let answer = soon("the second answer", second).await.unwrap();
        assert_eq!(answer.ok().header("x-gatekeeper-replayed"), Some("1"));
        if stream {
            assert_eq!(answer.text().as_bytes(), sse::plain(&["Hel", "lo"]).concat().as_bytes());
        }
        assert_eq!(mock.count(), 1);
        eventually("it is charged once", Duration::from_secs(5), || async {
            gateway.messages(LICENSE).await == 1
        })
        .await;
    }
}

#[tokio::test]
async fn where_the_first_fails_the_second_asks_itself() {
    let gate = Gate::new();
    let broken = Reply::error(400).before_head(Step::Gate(gate.clone()));
    let mock = Mock::sequence([broken, Reply::chat()]).await;
    let gateway = Gateway::start(config(&mock)).await;
    let body = said("Hi");
    let (first, second) = tokio::join!(send(&gateway, "m-1", &body), async {
        eventually("the provider is asked", Duration::from_secs(10), || async {
            gate.waiting() == 1
        })
        .await;
        let second = send(&gateway, "m-1", &body);
        let opened = async {
            let both = || async { gateway.metrics().await.sum("gatekeeper_in_flight", &[]) == 2.0 };
            eventually("both wait", Duration::from_secs(10), both).await;
            gate.open();
        };
        tokio::join!(second, opened).0
    });
    assert_eq!(first.status, 400);
    assert_eq!(second.ok().header("x-gatekeeper-replayed"), None);
    assert_eq!(mock.count(), 2);
}

/// A tenth in `make test`.
#[tokio::test]
async fn messages_delivered_twice_are_asked_and_charged_once() {
    let messages = repeat::times("GATEKEEPER_REPLAYED_MESSAGES", 100_usize);
    let mock = Mock::start(Reply::chat()).await;
    let gateway = Gateway::start(config(&mock)).await;
    let twice = (0..messages).map(|nth| {
        let gateway = &gateway;
        async move {
            let (message, body) = (format!("m-{nth}"), said(&format!("{nth}")));
            let late = async {
                tokio::time::sleep(Duration::from_millis(nth as u64 * 7 % 400)).await;
                send(gateway, &message, &body).await
            };
            let (one, two) = tokio::join!(send(gateway, &message, &body), late);
            assert_eq!(one.ok().text(), two.ok().text());
            let replayed = |answer: &Answer| answer.header("x-gatekeeper-replayed").is_some();
            assert!(replayed(&one) ^ replayed(&two));
        }
    });
    futures_util::stream::iter(twice).buffer_unordered(50).collect::<Vec<_>>().await;
    assert_eq!(mock.count(), messages);
    assert_eq!(gateway.messages(LICENSE).await, messages as u64);
}
