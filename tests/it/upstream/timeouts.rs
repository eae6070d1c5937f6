//! Every wait has an end, and each end is the right one.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{Config, Gateway, LICENSE, Mock, Reply, Step, client, sse};

async fn start(mock: &Mock, timeouts: &str) -> Gateway {
    let plan = "messages: 50/month, tokens: 100000/month, models: [\"*\"]";
    Gateway::start(Config::new(mock).plan("free", plan).timeouts("p", timeouts)).await
}

fn ask(stream: bool) -> serde_json::Value {
    client::chat(&json!({ "stream": stream }))
}

/// It may have worked on the request all the while: no other key of it is made to do so again.
#[tokio::test]
async fn a_provider_silent_before_its_head_is_left_for_the_next_target() {
    for (stream, good) in [(false, Reply::chat()), (true, Reply::stream())] {
        let (mock, other) =
            (Mock::start(Reply::instead([Step::Hang])).await, Mock::start(good).await);
        let config = Config::new(&mock)
            .timeouts("p", "first_byte: 400ms")
            .provider("q", &other, &["sk-q"])
            .model("fast", "[p/m1, q/m2]");
        let gateway = Gateway::start(config).await;
        let began = Instant::now();
        let answer = gateway.app().ask(&ask(stream)).await;
        assert_eq!(answer.ok().number("x-gatekeeper-attempts"), 2);
        assert_eq!((mock.count(), other.count()), (1, 1));
        let took = began.elapsed();
        assert!(took >= Duration::from_millis(380) && took < Duration::from_secs(2), "{took:?}");
        assert_eq!(gateway.messages(LICENSE).await, 1);
        mock.left(0).await;
    }
}

#[tokio::test]
async fn a_provider_silent_before_its_first_token_is_left_for_the_next_key() {
    let starts =
        [Reply::sse::<&str>(&[]), Reply::sse(&[sse::ROLE]), Reply::sse(&[": waiting\n\n"])];
    for silent in starts {
        let mock = Mock::sequence([silent.then(Step::Hang), Reply::stream()]).await;
        let gateway = start(&mock, "first_token: 400ms").await;
        let answer = gateway.app().ask(&ask(true)).await;
        assert_eq!(answer.ok().number("x-gatekeeper-attempts"), 2);
        assert_eq!(answer.text(), sse::plain(&["Hel", "lo"]).concat());
        mock.left(0).await;
    }
}

#[tokio::test]
async fn a_json_answer_that_stops_half_way_is_left_for_the_next_key() {
    let half = Reply::json(200, &sse::CHAT[..40]).chunked().then(Step::Hang);
    let mock = Mock::sequence([half, Reply::chat()]).await;
    let gateway = start(&mock, "first_token: 400ms").await;
    let answer = gateway.app().ask(&ask(false)).await;
    assert_eq!(answer.ok().body, sse::CHAT);
    assert_eq!(answer.number("x-gatekeeper-attempts"), 2);
}

#[tokio::test]
async fn a_stream_that_falls_silent_ends_in_an_error() {
    let mock = Mock::start(Reply::sse(&[sse::text("Hel")]).then(Step::Hang)).await;
    let gateway = start(&mock, "idle: 500ms").await;
    let answer = gateway.app().ask(&ask(true)).await;
    assert_eq!(answer.status, 200);
    let error = sse::closing_error(&answer.body);
    assert_eq!(error["code"], "upstream_error");
    mock.left(0).await;
    assert_eq!(mock.count(), 1);
    assert_eq!(gateway.messages(LICENSE).await, 1);
}

#[tokio::test]
async fn silence_everywhere_is_504_and_free() {
    for stream in [false, true] {
        let mock = Mock::start(Reply::instead([Step::Hang])).await;
        let gateway = start(&mock, "first_byte: 300ms").await;
        let answer = gateway.app().ask(&ask(stream)).await;
        answer.is(504, "upstream_timeout");
        assert_eq!(mock.count(), 1, "no other key is made to do the work again");
        assert_eq!(gateway.messages(LICENSE).await, 0);
        assert_eq!(gateway.tokens(LICENSE).await, 0);
    }
}

#[tokio::test]
async fn the_total_time_holds_over_all_attempts() {
    for stream in [false, true] {
        let mock = Mock::start(Reply::instead([Step::Hang])).await;
        let limits = "first_byte: 1500ms, total: 2s";
        let config = Config::new(&mock)
            .timeouts("p", limits)
            .provider_at("q", &mock.url(), &format!(", timeouts: {{ {limits} }}"), &["sk-q"])
            .model("fast", "[p/m1, q/m2]");
        let gateway = Gateway::start(config).await;
        let began = Instant::now();
        let answer = gateway.app().ask(&ask(stream)).await;
        answer.is(504, "upstream_timeout");
        let took = began.elapsed();
        assert!(took < Duration::from_millis(2900), "{took:?}");
        assert_eq!(mock.count(), 2);
        assert_eq!(gateway.messages(LICENSE).await, 0);
    }
}

#[tokio::test]
async fn a_stream_without_end_is_ended() {
    let word = sse::text("again ");
    let endless =
        Reply::sse::<&str>(&[]).then(Step::Endless(word.into(), Duration::from_millis(20)));
    let mock = Mock::start(endless).await;
    let gateway = start(&mock, "total: 1s").await;
    let began = Instant::now();
    let answer = gateway.app().ask(&ask(true)).await;
    assert!(began.elapsed() < Duration::from_secs(3));
    assert_eq!(sse::closing_error(&answer.body)["code"], "upstream_error");
    mock.left(0).await;
    assert!(gateway.tokens(LICENSE).await > 20, "what came is charged");
}

#[tokio::test]
async fn a_slow_but_steady_answer_is_in_time() {
    let mut steady = Reply::sse(&[sse::ROLE]);
    for word in ["one ", "two ", "three ", "four "] {
        steady = steady.write(sse::text(word)).then(Step::Wait(Duration::from_millis(300)));
    }
    let mock = Mock::start(steady.write(sse::FINISH).write(sse::DONE)).await;
    let gateway = start(&mock, "first_byte: 500ms, first_token: 500ms, idle: 500ms").await;
    let answer = gateway.app().ask(&ask(true)).await;
    assert_eq!(sse::content(&answer.ok().body), "one two three four ");
    assert_eq!(mock.count(), 1);
}
