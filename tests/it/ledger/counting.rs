//! The ledger: exact under concurrency, kept over a restart, one record a request.

use std::time::Duration;

use rusqlite::{Connection, OpenFlags};
use rustix::process::Signal;
use serde_json::json;
use tokio::task::JoinSet;

use crate::support::{Config, Gateway, LICENSE, Mock, Reply, Step, client, eventually, sse};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_at_once_against_five_hundred_pass_exactly() {
    let reply = Reply::chat().before_head(Step::Wait(Duration::from_millis(50)));
    let mock = Mock::start(reply).await;
    let config = Config::new(&mock).plan("free", "messages: 500/month, models: [fast]");
    let gateway = Gateway::start(config).await;
    let app = gateway.app();
    let mut asking = JoinSet::new();
    for _ in 0..1000 {
        let app = app.clone();
        asking.spawn(async move {
            let answer = app.chat().await;
            if answer.status != 200 {
                answer.is(402, "quota_exceeded");
            }
            answer.status
        });
    }
    let statuses = asking.join_all().await;
    let count = |status| statuses.iter().filter(|known| **known == status).count();
    assert_eq!((count(200), count(402)), (500, 500));
    assert_eq!(mock.count(), 500);
    assert_eq!(gateway.messages(LICENSE).await, 500);
    assert_eq!(gateway.metrics().await.sum("gatekeeper_reservations_open", &[]), 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_are_never_granted_twice() {
    let mock = Mock::start(Reply::chat()).await;
    let config = Config::new(&mock).plan("free", "tokens: 2000/month, models: [fast]");
    let gateway = Gateway::start(config).await;
    let app = gateway.app();
    let mut asking = JoinSet::new();
    for _ in 0..200 {
        let app = app.clone();
        asking.spawn(
            async move { app.ask(&client::chat(&json!({ "max_tokens": 100 }))).await.status },
        );
    }
    let statuses = asking.join_all().await;
    let passed = statuses.iter().filter(|status| **status == 200).count() as u64;
    assert!(statuses.iter().all(|status| [200, 402, 429].contains(status)), "{statuses:?}");
    assert!(passed >= 10, "only {passed} passed");
    let used = gateway.tokens(LICENSE).await;
    assert_eq!(used, passed * sse::TOKENS);
    assert!(used <= 2000);
}

#[tokio::test]
async fn what_is_used_outlives_a_restart() {
    let mock = Mock::start(Reply::chat()).await;
    let plan = "messages: 5/month, tokens: 100000/month, models: [fast]";
    let mut gateway = Gateway::start(Config::new(&mock).plan("free", plan)).await;
    gateway.app().chat().await.ok();
    gateway.app().chat().await.ok();
    gateway.signal(Signal::TERM);
    gateway.exited(Duration::from_secs(3)).await;
    gateway.restart().await;
    assert_eq!(gateway.messages(LICENSE).await, 2);
    assert_eq!(gateway.tokens(LICENSE).await, 2 * sse::TOKENS);
    gateway.app().chat().await.ok();
    gateway.kill();
    gateway.restart().await;
    assert_eq!(gateway.messages(LICENSE).await, 3);
    gateway.app().chat().await.ok();
    gateway.app().chat().await.ok();
    gateway.app().chat().await.is(402, "quota_exceeded");
}

#[tokio::test]
async fn a_changed_plan_keeps_what_was_used() {
    let mock = Mock::start(Reply::chat()).await;
    let config = Config::new(&mock).plan("free", "messages: 5/month, models: [fast]");
    let mut gateway = Gateway::start(config).await;
    for _ in 0..3 {
        gateway.app().chat().await.ok();
    }
    gateway.config = gateway.config.clone().plan("free", "messages: 4/month, models: [fast]");
    gateway.restart().await;
    assert_eq!(gateway.messages(LICENSE).await, 3);
    gateway.app().chat().await.ok();
    gateway.app().chat().await.is(402, "quota_exceeded");
    gateway.config = gateway.config.clone().plan("free", "messages: 2/month, models: [fast]");
    gateway.restart().await;
    let me = gateway.me(LICENSE).await;
    assert_eq!(me["limits"]["messages"]["used"], 4);
    assert_eq!(me["limits"]["messages"]["left"], 0);
}

/// A request that never reached a provider, or whose provider gave nothing, costs nothing: ten
/// thousand of them lower nothing either.
#[tokio::test]
async fn refused_and_failed_requests_give_their_charge_back_once() {
    let mock = Mock::sequence([Reply::chat(), Reply::json(400, "{\"error\":{\"message\":\"no\",\"type\":\"invalid_request_error\",\"param\":null,\"code\":null}}")]).await;
    let plan = "messages: 50/month, tokens: 100000/month, models: [fast]";
    let gateway = Gateway::start(Config::new(&mock).plan("free", plan)).await;
    gateway.app().chat().await.ok();
    for _ in 0..30 {
        assert_eq!(gateway.app().chat().await.status, 400);
        gateway.app().ask(&client::chat(&json!({ "n": 5 }))).await.is(400, "invalid_request");
    }
    assert_eq!(gateway.messages(LICENSE).await, 1);
    assert_eq!(gateway.tokens(LICENSE).await, sse::TOKENS);
}

/// A row of `requests`, as an operator queries it.
#[derive(Debug)]
struct Row {
    status: u16,
    source: String,
    attempts: u32,
    tokens: i64,
    provider: String,
}

fn records(gateway: &Gateway) -> rusqlite::Result<Vec<Row>> {
    let db = Connection::open_with_flags(gateway.store(), OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let mut query = db.prepare(
        "SELECT status, source, attempts, input + output, provider FROM requests ORDER BY rowid",
    )?;
    let rows = query.query_map([], |row| {
        Ok(Row {
            status: row.get(0)?,
            source: row.get(1)?,
            attempts: row.get(2)?,
            tokens: row.get(3)?,
            provider: row.get(4)?,
        })
    })?;
    rows.collect()
}

#[tokio::test]
async fn there_is_one_record_for_each_request() {
    let broken = Reply::sse(&[sse::text("Hel")])
        .then(Step::Wait(Duration::from_millis(100)))
        .then(Step::Close);
    let replies = [Reply::chat(), Reply::error(429), Reply::stream(), broken, Reply::error(500)];
    let mock = Mock::sequence(replies).await;
    let config = Config::new(&mock)
        .plan("free", "messages: 50/month, tokens: 100000/month, models: [fast]")
        .keys("p", &["sk-1", "sk-2", "sk-3", "sk-4"]);
    let gateway = Gateway::start(config).await;
    let app = gateway.app();
    app.chat().await.ok();
    assert_eq!(app.stream().await.ok().number("x-gatekeeper-attempts"), 2);
    app.stream().await;
    assert!(app.chat().await.status >= 500);
    app.ask(&client::chat(&json!({ "model": "nothing" }))).await.is(404, "model_not_found");

    eventually("five records", Duration::from_secs(5), || async {
        records(&gateway).is_ok_and(|records| records.len() >= 5)
    })
    .await;
    let records = records(&gateway).unwrap();
    assert_eq!(records.len(), 5, "{records:?}");
    let find = |status: u16, attempts: u32| {
        let alike = |record: &&Row| record.status == status && record.attempts == attempts;
        records.iter().filter(alike).count()
    };
    assert_eq!(find(200, 2), 1, "the failover: {records:?}");
    assert_eq!(find(404, 0), 1, "the refusal: {records:?}");
    let reported = records.iter().filter(|record| record.source == "reported");
    let tokens: Vec<i64> = reported.map(|record| record.tokens).collect();
    assert_eq!(tokens, [18, 18], "{records:?}");
    let mut served = records.iter().filter(|record| record.status == 200);
    assert!(served.all(|record| record.provider == "p"), "{records:?}");

    let db =
        Connection::open_with_flags(gateway.store(), OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    let mut names = db.prepare("SELECT name FROM pragma_table_info('requests')").unwrap();
    let names: Vec<String> =
        names.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    for column in [
        "time", "license", "plan", "model", "provider", "key", "input", "output", "source",
        "status", "ms", "attempts",
    ] {
        assert!(names.iter().any(|name| name == column), "no column {column} in {names:?}");
    }
}

#[tokio::test]
async fn two_gateways_cannot_share_one_embedded_store() {
    let mock = Mock::start(Reply::chat()).await;
    let first = Gateway::start(Config::new(&mock)).await;
    let mut second = Gateway::spawn(first.dir.clone(), first.config.clone());
    let status = second.exited(Duration::from_secs(10)).await;
    assert!(!status.success());
    first.app().chat().await.ok();
}
