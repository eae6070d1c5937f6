//! How many requests of one licence are open at one time, where its plan says nothing and where it does.

use std::time::{Duration, Instant};

use futures_util::future::join_all;

use crate::support::{Config, Gate, Gateway, LICENSE, Mock, Reply, Step, within};

/// A provider that holds every answer back until the test lets them go.
async fn held(plan: &str) -> (Mock, Gate, Gateway) {
    let gate = Gate::new();
    let mock = Mock::start(Reply::chat().before_head(Step::Gate(gate.clone()))).await;
    let gateway = Gateway::start(Config::new(&mock).plan_as_written("free", plan)).await;
    (mock, gate, gateway)
}

#[tokio::test]
async fn a_burst_over_the_default_waits_and_is_served() {
    let (mock, gate, gateway) = held("messages: 1000/month, models: [\"*\"]").await;
    let app = gateway.app();
    let burst = join_all((0..48).map(|_| app.chat_as(LICENSE)));
    let served = async {
        mock.saw(16).await;
        // A moment in which a seventeenth would come.
        tokio::time::sleep(Duration::from_millis(300)).await;
        assert_eq!(mock.count(), 16);
        gate.open();
    };
    let (answers, ()) =
        within(Duration::from_secs(10), "the burst", async { tokio::join!(burst, served) }).await;
    let refused: Vec<_> = answers.iter().filter(|answer| answer.status != 200).collect();
    assert!(refused.is_empty(), "{} refused: {}", refused.len(), refused[0].text());
    assert_eq!(gateway.messages(LICENSE).await, 48);
}

#[tokio::test]
async fn a_request_that_finds_no_place_is_refused_after_five_seconds_and_told_why() {
    let (mock, gate, gateway) = held("messages: 1000/month, models: [\"*\"]").await;
    let app = gateway.app();
    let open = join_all((0..16).map(|_| app.chat_as(LICENSE)));
    let refused = async {
        mock.saw(16).await;
        let begun = Instant::now();
        let refused = app.chat_as(LICENSE).await;
        let waited = begun.elapsed();
        refused.is(429, "rate_limited");
        assert!(refused.text().contains("`concurrency`"), "{}", refused.text());
        assert!(waited >= Duration::from_secs(5) && waited < Duration::from_secs(8), "{waited:?}");
        gate.open();
    };
    let (answers, ()) = tokio::join!(open, refused);
    assert!(answers.iter().all(|answer| answer.status == 200));
    assert_eq!(mock.count(), 16);
}

#[tokio::test]
async fn a_number_in_the_plan_refuses_at_once_and_unlimited_never() {
    let (mock, gate, gateway) = held("messages: 1000/month, concurrency: 2, models: [\"*\"]").await;
    let app = gateway.app();
    let open = join_all((0..2).map(|_| app.chat_as(LICENSE)));
    let refused = async {
        mock.saw(2).await;
        let begun = Instant::now();
        app.chat_as(LICENSE).await.is(429, "rate_limited");
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
        gate.open();
    };
    tokio::join!(open, refused);
    let (mock, gate, gateway) =
        held("messages: 1000/month, concurrency: unlimited, models: [\"*\"]").await;
    let app = gateway.app();
    let open = join_all((0..40).map(|_| app.chat_as(LICENSE)));
    tokio::join!(open, async {
        mock.saw(40).await;
        gate.open();
    });
}
