//! Draining has bounds: time, bytes, number, the end of the process. Hanging up multiplies nothing.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::task::JoinSet;

use crate::{
    downstream::disconnect::{
        COUNTED, WORDS, ask, config, counted, logged, over, plan, question, stream, used, words,
    },
    support::{Gate, Gateway, LICENSE, Mock, Raw, Reply, Step, client, eventually, sse},
};

/// Leaves after two words; what it is charged.
async fn left_after_two_words(gateway: &Gateway) -> u64 {
    let before = used(gateway).await;
    let mut app = ask(gateway, true).await;
    app.until(WORDS[1]).await;
    // While words keep coming, only a connection that is closed on both sides tells of it.
    drop(app);
    over(gateway).await;
    let now = used(gateway).await;
    assert_eq!(now.0, before.0 + 1);
    now.1 - before.1
}

/// What `cut` charges who leaves after two words.
async fn cut_after_two_words() -> u64 {
    let mock = Mock::start(words(2).then(Step::Hang)).await;
    left_after_two_words(&Gateway::start(config(&mock, "cut")).await).await
}

#[tokio::test]
async fn what_is_not_counted_in_time_is_charged_as_if_cut() {
    let cut = cut_after_two_words().await;
    let mock = Mock::start(words(2).then(Step::Hang)).await;
    let slow = Gateway::start(config(&mock, "drain").timeouts("p", "idle: 900ms")).await;
    let began = Instant::now();
    assert_eq!(left_after_two_words(&slow).await, cut);
    assert!(began.elapsed() >= Duration::from_millis(800), "{:?}", began.elapsed());
    mock.left(0).await;
    // A count that was only begun, and below what was delivered already.
    let partial = counted(sse::USAGE).replace("40", "1").replace("260", "0").replace("300", "1");
    mock.answer([words(2).then(Step::Wait(Duration::from_millis(400))).write(partial)]);
    assert_eq!(left_after_two_words(&slow).await, cut);
    for broken in [sse::ERROR, "data: {\"choi"] {
        let wait = Step::Wait(Duration::from_millis(400));
        mock.answer([words(2).then(wait).write(broken).then(Step::Close), Reply::stream()]);
        assert_eq!(left_after_two_words(&slow).await, cut, "{broken}");
    }
    assert_eq!(mock.count(), 4, "nobody waits for another key");
}

#[tokio::test]
async fn an_answer_without_end_is_left() {
    let endless = |bytes: String, pause| Step::Endless(bytes.into(), Duration::from_millis(pause));
    let word = sse::text("and ");
    let mock = Mock::start(words(2).then(endless(word.clone(), 20))).await;
    // Bounded by the time the answer has.
    let gateway = Gateway::start(config(&mock, "drain").timeouts("p", "total: 2s")).await;
    let began = Instant::now();
    let short = left_after_two_words(&gateway).await;
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    mock.left(0).await;
    // Bounded by what may be read: long before the time is over.
    let gateway = Gateway::start(config(&mock, "drain")).await;
    mock.answer([words(2).then(endless(word.repeat(400), 5))]);
    let began = Instant::now();
    let long = left_after_two_words(&gateway).await;
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    mock.left(1).await;
    assert!(short > 10 && long > short, "{short} {long}");
    assert!(long <= 600, "never above the reservation: {long}");
    // A JSON answer has the same bound.
    let json = Reply::json(200, "{\"x\":\"").chunked();
    mock.answer([json.then(endless("x".repeat(64 * 1024), 20))]);
    let before = used(&gateway).await;
    let app = ask(&gateway, false).await;
    mock.saw(3).await;
    app.leave().await;
    over(&gateway).await;
    mock.left(2).await;
    let now = used(&gateway).await;
    assert!(now.0 == before.0 + 1 && now.1 > before.1);
}

#[tokio::test]
async fn the_place_stays_taken_until_the_count_is_there() {
    let gate = Gate::new();
    let mock = Mock::sequence([stream(1, &gate), Reply::chat()]).await;
    let one = format!("{}, concurrency: 1", plan("drain"));
    let gateway = Gateway::start(config(&mock, "drain").plan("free", &one)).await;
    let mut app = ask(&gateway, true).await;
    app.until(WORDS[0]).await;
    app.leave().await;
    for _ in 0..5 {
        gateway.app().chat().await.is(429, "rate_limited");
    }
    assert_eq!(used(&gateway).await, (1, 0), "an open reservation counts as a message");
    gate.open();
    over(&gateway).await;
    assert_eq!(used(&gateway).await, (1, COUNTED));
    gateway.app().chat().await.ok();
    assert_eq!(mock.last().connection, 0);
}

#[tokio::test]
async fn a_provider_that_fails_when_the_app_is_gone_is_not_made_good() {
    for fault in [Reply::error(500), Reply::error(429), Reply::error(400), Reply::instead([])] {
        let gate = Gate::new();
        let fault = fault.before_head(Step::Gate(gate.clone())).until_close();
        let mock = Mock::sequence([fault, Reply::chat()]).await;
        let gateway = Gateway::start(config(&mock, "drain")).await;
        let app = ask(&gateway, false).await;
        mock.saw(1).await;
        app.leave().await;
        gate.open();
        over(&gateway).await;
        let (messages, tokens) = used(&gateway).await;
        assert!(messages == 1 && tokens > 5, "{messages} {tokens}");
        assert_eq!(logged(&gateway, 1).await["attempts"], 1);
        assert_eq!(mock.count(), 1, "nobody waits for another key");
    }
}

#[tokio::test]
async fn a_licence_has_two_places_and_all_have_32_and_what_finds_none_is_cut() {
    let gate = Gate::new();
    let mock = Mock::start(stream(1, &gate)).await;
    let others: Vec<String> = (1..16).map(|nth| format!("JSTAR-OTHER-{nth:04}")).collect();
    let mut config = config(&mock, "drain").license(LATE, "free");
    for key in &others {
        config = config.license(key, "free");
    }
    let gateway = Gateway::start(config).await;
    let mut leaving = JoinSet::new();
    let keys = || std::iter::once(LICENSE).chain(others.iter().map(String::as_str));
    for key in keys().chain(keys()) {
        leaving.spawn(begun(&gateway, key).await.leave());
    }
    // Each has been let go of: all places are taken.
    leaving.join_all().await;
    for (place, key) in [(32, LICENSE), (33, LATE)] {
        let last = begun(&gateway, key).await;
        assert_eq!(gateway.status().await["in_flight"], 33);
        last.leave().await;
        mock.left(place).await;
    }
    assert!(mock.seen()[..32].iter().all(|seen| seen.left.is_none()));
    let cut = used(&gateway).await.1;
    assert!(cut > 5 && cut < 100, "{cut}");
    gate.open();
    over(&gateway).await;
    assert_eq!(used(&gateway).await, (3, cut + 2 * COUNTED));
    assert_eq!(left_after_two_words(&gateway).await, COUNTED, "places are free again");
}

const LATE: &str = "JSTAR-OTHER-9999";

/// An answer of this licence whose first word has come.
async fn begun(gateway: &Gateway, key: &str) -> Raw {
    let mut app = gateway.raw().await;
    let request = client::post("/v1/chat/completions", &question(true)).replace(LICENSE, key);
    app.send(request).await;
    app.until(WORDS[0]).await;
    app
}

#[tokio::test]
async fn the_process_ends_in_time_with_everything_charged() {
    let cut = cut_after_two_words().await;
    let gate = Gate::new();
    for (reply, grace, expected) in
        [(words(2).then(Step::Hang), "grace: 1s", cut), (stream(2, &gate), "grace: 20s", COUNTED)]
    {
        let mock = Mock::start(reply).await;
        let mut gateway = Gateway::start(config(&mock, "drain").server(grace)).await;
        let mut app = ask(&gateway, true).await;
        app.until(WORDS[1]).await;
        app.leave().await;
        gateway.signal(Signal::TERM);
        eventually("it takes no more", Duration::from_secs(5), || async {
            gateway.readyz().await != Some(200)
        })
        .await;
        gate.open();
        let status = gateway.exited(Duration::from_secs(4)).await;
        assert!(status.success(), "{status}");
        gateway.restart().await;
        assert_eq!(used(&gateway).await, (1, expected), "{grace}");
    }
}
