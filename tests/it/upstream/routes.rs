//! The long form of a model: whole delivery, its own timeouts, and which fallbacks are too dear.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::{
    dialect::dialects::{self, ANTHROPIC, MESSAGE_STREAM, MESSAGE_TOKENS},
    downstream::disconnect::over,
    pool::healing::key,
    support::{Answer, Config, Gateway, LICENSE, Mock, Reply, Step, client, eventually, sse},
};

fn question() -> serde_json::Value {
    client::chat(&json!({ "stream": true }))
}

fn plenty(config: Config) -> Config {
    config.plan("free", "messages: 100000/month, tokens: 100000000/month, models: [\"*\"]")
}

/// A stream that breaks after its first words: at every place, in every way.
fn broken() -> Vec<(&'static str, Reply)> {
    let begun = || Reply::sse(&[sse::ROLE.to_owned(), sse::text("WRONG ")]);
    let cut = |reply: Reply| reply.then(Step::Close);
    vec![
        ("closed after the first word", cut(begun())),
        ("reset after the first word", begun().then(Step::Reset)),
        ("ended without a finish", begun()),
        ("an error in the middle", begun().write(sse::ERROR)),
        ("half an event", cut(begun().write("data: {\"choi"))),
        ("a stall", begun().then(Step::Hang)),
        ("words without end", {
            begun().then(Step::Endless(sse::text("WRONG ").repeat(2000).into(), Duration::ZERO))
        }),
    ]
}

#[tokio::test]
async fn whole_delivery_mends_a_break_at_every_place() {
    for (name, fault) in broken() {
        let (mock, other) =
            (Mock::start(Reply::stream()).await, Mock::start(Reply::stream()).await);
        mock.key("sk-bad", [fault]);
        let base = plenty(Config::new(&mock))
            .provider("q", &other, &["sk-other"])
            .timeouts("q", "idle: 500ms");
        let by_key = base
            .clone()
            .provider("p", &mock, &["sk-bad", "sk-good"])
            .timeouts("p", "idle: 500ms")
            .model("fast", "{ targets: [p/m1], delivery: whole }");
        let by_target = base
            .provider("p", &mock, &["sk-bad"])
            .timeouts("p", "idle: 500ms")
            .model("fast", "{ targets: [p/m1, q/m2], delivery: whole }");
        for (way, config) in [("key", by_key), ("target", by_target)] {
            let gateway = Gateway::start(config).await;
            let mut tried = 0;
            // With two keys it may be the good one's turn.
            for turn in 1..=2 {
                let answer = gateway.app().ask(&question()).await;
                assert_eq!(answer.status, 200, "{name}, {way}: {}", answer.text());
                let text = answer.text();
                assert!(!text.contains("WRONG"), "{name}, {way}: {text}");
                assert!(text.trim_end().ends_with("data: [DONE]"), "{name}, {way}: {text}");
                tried += answer.header("x-gatekeeper-attempts").unwrap().parse::<u64>().unwrap();
                over(&gateway).await;
                let used = (gateway.messages(LICENSE).await, gateway.tokens(LICENSE).await);
                assert_eq!(used, (turn, turn * sse::TOKENS), "{name}, {way}");
            }
            assert!(tried > 2, "{name}, {way}: the bad key was never asked");
        }
    }
}

/// The first word comes when the last has come; until then a comment keeps the app awake.
#[tokio::test]
async fn whole_delivery_sends_nothing_before_the_end() {
    let slow = Reply::sse(&[sse::ROLE.to_owned(), sse::text("Hel")])
        .then(Step::Wait(Duration::from_millis(2000)))
        .write(sse::text("lo"))
        .write(sse::FINISH)
        .write(sse::USAGE)
        .write(sse::DONE);
    let mock = Mock::start(slow).await;
    let config = plenty(Config::new(&mock));
    let whole = config.clone().model("fast", "{ targets: [p/m1], delivery: whole }");
    for (config, waits) in [(config, false), (whole, true)] {
        let gateway = Gateway::start(config).await;
        let began = Instant::now();
        let mut open = gateway.app().open(&question()).await;
        open.chunk().await.unwrap().expect("an event");
        let took = began.elapsed();
        assert_eq!(took > Duration::from_millis(1900), waits, "{took:?}");
        drop(open);
        over(&gateway).await;
        assert_eq!(gateway.messages(LICENSE).await, 1);
    }
}

#[tokio::test]
async fn leaving_a_whole_answer_cancels_the_provider_and_is_not_free() {
    let mock =
        Mock::start(Reply::sse(&[sse::ROLE.to_owned(), sse::text("Hel")]).then(Step::Hang)).await;
    let config = plenty(Config::new(&mock)).model("fast", "{ targets: [p/m1], delivery: whole }");
    let gateway = Gateway::start(config).await;
    let mut app = gateway.raw().await;
    app.send(client::post("/v1/chat/completions", &question())).await;
    mock.saw(1).await;
    app.leave().await;
    mock.left(0).await;
    over(&gateway).await;
    assert_eq!(gateway.messages(LICENSE).await, 1);
    assert!(gateway.tokens(LICENSE).await > 5);
}

/// The app saw nothing, so it is told by the status, and its message is its own again.
#[tokio::test]
async fn a_whole_answer_that_nobody_finishes_is_an_error_in_the_status() {
    let broken = Reply::sse(&[sse::ROLE.to_owned(), sse::text("WRONG")]).write(sse::ERROR);
    let mock = Mock::start(broken).await;
    let config = plenty(Config::new(&mock)).model("fast", "{ targets: [p/m1], delivery: whole }");
    let gateway = Gateway::start(config).await;
    let answer = gateway.app().ask(&question()).await;
    answer.is(502, "upstream_error");
    assert!(!answer.text().contains("WRONG"), "{}", answer.text());
    assert_eq!(mock.count(), 3, "both keys, and one of them once more");
    over(&gateway).await;
    assert_eq!(gateway.messages(LICENSE).await, 0);
}

/// What the app does not see yet keeps no proxy awake: the comments do, and the break is mended after them.
#[tokio::test]
async fn comments_keep_the_app_awake_while_a_whole_answer_is_read() {
    let mut talks = Reply::sse(&[sse::ROLE]);
    for _ in 0..33 {
        talks = talks.write(sse::text("WRONG ")).then(Step::Wait(Duration::from_millis(500)));
    }
    let mock = Mock::sequence([talks.write(sse::ERROR), Reply::stream()]).await;
    let config = plenty(Config::new(&mock)).model("fast", "{ targets: [p/m1], delivery: whole }");
    let gateway = Gateway::start(config).await;
    let mut open = gateway.app().open(&question()).await;
    let first = open.chunk().await.unwrap().expect("a comment");
    assert_eq!(first, ": keep-alive\n\n");
    assert_eq!(mock.count(), 1, "the first answer was still being read");
    let answer = Answer::read(open).await;
    assert_eq!(sse::content(&answer.ok().body), "Hello");
    assert!(!answer.text().contains("WRONG") && answer.text().ends_with(sse::DONE));
    over(&gateway).await;
    let used = (gateway.messages(LICENSE).await, gateway.tokens(LICENSE).await);
    assert_eq!(used, (1, sse::TOKENS));
}

#[tokio::test]
async fn whole_delivery_mends_an_answer_of_another_dialect() {
    let (begun, _) = MESSAGE_STREAM.split_at(MESSAGE_STREAM.find("event: message_delta").unwrap());
    let mock = Mock::sequence([Reply::sse(&[begun]), Reply::sse(&[MESSAGE_STREAM])]).await;
    let config = dialects::config(&mock)
        .model("claude", "{ targets: [a/claude-sonnet-5], delivery: whole }");
    let gateway = Gateway::start(config).await;
    let body = dialects::message(&json!({ "stream": true }));
    let answer = dialects::ask(&gateway, ANTHROPIC, &body).await;
    assert_eq!(answer.ok().text(), MESSAGE_STREAM);
    assert_eq!(answer.number("x-gatekeeper-attempts"), 2);
    over(&gateway).await;
    let used = (gateway.messages(LICENSE).await, gateway.tokens(LICENSE).await);
    assert_eq!(used, (1, MESSAGE_TOKENS));
}

/// How fast a key answers is when it begins to, however long its answer is held back.
#[tokio::test]
async fn a_whole_answer_does_not_make_its_key_look_slow() {
    let long = Reply::sse(&[sse::ROLE.to_owned(), sse::text("Hel")])
        .then(Step::Wait(Duration::from_millis(1500)))
        .write(sse::text("lo"))
        .write(sse::FINISH)
        .write(sse::USAGE)
        .write(sse::DONE);
    let mock = Mock::start(long).await;
    let config = plenty(Config::new(&mock))
        .keys("p", &["sk-one"])
        .model("fast", "{ targets: [p/m1], delivery: whole }");
    let gateway = Gateway::start(config).await;
    gateway.app().ask(&question()).await.ok();
    let took = key(&gateway, 0).await["ttft_ms"].as_u64().expect("it was measured");
    assert!(took < 1000, "{took} ms");
}

#[tokio::test]
async fn a_provider_silent_before_its_head_has_no_longer_than_to_its_first_token() {
    for stream in [false, true] {
        let good = if stream { Reply::stream() } else { Reply::chat() };
        let (mock, other) =
            (Mock::start(Reply::instead([Step::Hang])).await, Mock::start(good).await);
        let config = plenty(Config::new(&mock))
            .provider("q", &other, &["sk-other"])
            .model("fast", "{ targets: [p/m1, q/m2], timeouts: { first_token: 300ms } }");
        let gateway = Gateway::start(config).await;
        let began = Instant::now();
        let answer = gateway.app().ask(&client::chat(&json!({ "stream": stream }))).await;
        assert_eq!(answer.ok().header("x-gatekeeper-model"), Some("q/m2"));
        assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
        assert_eq!(mock.count(), 1, "its other key would be as slow");
        mock.left(0).await;
        assert_eq!(gateway.messages(LICENSE).await, 1);
    }
}

/// Not even where the next target rests: no other key is made to do the same work.
#[tokio::test]
async fn a_slow_target_is_asked_once_when_the_next_one_rests() {
    let mock = Mock::sequence([Reply::instead([Step::Hang]), Reply::chat()]).await;
    let other = Mock::start(Reply::status(429).header("retry-after", "60")).await;
    let config = plenty(Config::new(&mock))
        .provider("q", &other, &["sk-other"])
        .timeouts("p", "first_byte: 300ms")
        .model("fast", "[p/m1, q/m2]")
        .model("other", "[q/m2]");
    let gateway = Gateway::start(config).await;
    gateway
        .app()
        .ask(&client::chat(&json!({ "model": "other" })))
        .await
        .is(503, "upstream_exhausted");
    gateway.app().chat().await.is(504, "upstream_timeout");
    assert_eq!((mock.count(), other.count()), (1, 1));
}

#[tokio::test]
async fn a_models_own_timeouts_win_and_a_slow_first_token_goes_to_the_next_target() {
    let slow = Reply::sse(&[sse::ROLE]).then(Step::Wait(Duration::from_secs(5)));
    let (mock, other) = (Mock::start(slow).await, Mock::start(Reply::stream()).await);
    let config = plenty(Config::new(&mock))
        .provider("q", &other, &["sk-other"])
        .model("fast", "{ targets: [p/m1, q/m2], timeouts: { first_token: 300ms } }")
        .model("hasty", "{ targets: [p/m1], timeouts: { total: 400ms } }");
    let gateway = Gateway::start(config).await;
    let began = Instant::now();
    let answer = gateway.app().ask(&question()).await;
    assert_eq!(answer.ok().header("x-gatekeeper-model"), Some("q/m2"));
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    assert_eq!(mock.count(), 1, "its other key would be as slow");
    mock.left(0).await;
    let mut body = question();
    body["model"] = json!("hasty");
    let began = Instant::now();
    gateway.app().ask(&body).await.is(504, "upstream_timeout");
    assert!(began.elapsed() < Duration::from_secs(3));
}

#[tokio::test]
async fn a_fallback_dearer_than_what_the_plan_pays_for_is_skipped() {
    let (mock, other) = (Mock::start(Reply::error(500)).await, Mock::start(Reply::chat()).await);
    let prices = "prices: { p/m1: { input: 1, output: 1 }, q/dear: { input: 1, output: 9 }, \
                  q/cheap: { input: 1, output: 1 } }";
    let config = Config::new(&mock)
        .provider("q", &other, &["sk-other"])
        .more(prices)
        .model("fast", "[p/m1, q/dear, q/cheap]")
        .model("strong", "[q/dear]");
    for (models, served) in
        [("[fast]", "q/cheap"), ("[fast, strong]", "q/dear"), ("[\"*\"]", "q/dear")]
    {
        let plan = format!("messages: 100000/month, models: {models}");
        let gateway = Gateway::start(config.clone().plan("free", &plan)).await;
        let answer = gateway.app().chat().await;
        assert_eq!(answer.ok().header("x-gatekeeper-model"), Some(served), "{models}");
    }
}

/// What is silent in the middle of an answer is kept awake, too.
#[tokio::test]
async fn a_silent_stream_gets_comments_between_its_events() {
    let slow = Reply::sse(&[sse::ROLE.to_owned(), sse::text("Hel")])
        .then(Step::Wait(Duration::from_secs(17)))
        .write(sse::text("lo"))
        .write(sse::FINISH)
        .write(sse::USAGE)
        .write(sse::DONE);
    let mock = Mock::start(slow).await;
    let gateway = Gateway::start(plenty(Config::new(&mock))).await;
    let answer = gateway.app().ask(&question()).await;
    let text = answer.ok().text();
    let at = |part: &str| text.find(part).unwrap_or_else(|| panic!("no {part} in {text}"));
    assert!(at("Hel") < at(": keep-alive\n\n") && at(": keep-alive\n\n") < at("lo\""), "{text}");
    assert!(text.trim_end().ends_with("[DONE]"));
    eventually("it is counted", Duration::from_secs(3), || async {
        gateway.tokens(LICENSE).await == sse::TOKENS
    })
    .await;
}
