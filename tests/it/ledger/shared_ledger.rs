//! Several gateways that count on one Redis behave as one.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, TcpStream},
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::{
    Answer, Config, Gate, Gateway, Http, LICENSE, Mock, Redis, Reply, Step, client, eventually, sse,
};

/// Gateways on one Redis, and what they stand on.
pub struct Fleet {
    pub gateways: Vec<Gateway>,
    pub redis: Redis,
    pub mock: Mock,
}

impl Fleet {
    /// `plan` is that of [`LICENSE`].
    pub async fn start(size: usize, plan: &str, reply: Reply, store: &str) -> Self {
        let (mock, redis) = (Mock::start(reply).await, Redis::start().await);
        let mut config = Config::new(&mock).plan("free", plan).redis(&redis.url());
        if !store.is_empty() {
            config = config.store_with(store);
        }
        Self { gateways: start(size, config).await, redis, mock }
    }

    /// Every gateway decides on the store.
    pub async fn is_counting(&self) {
        are_counting(&self.gateways).await;
    }

    pub fn apps(&self) -> Vec<Http> {
        self.gateways.iter().map(Gateway::app).collect()
    }

    /// So many requests at once, dealt out to the gateways in turn.
    pub async fn ask(&self, count: usize, body: &Value) -> Vec<Answer> {
        let (apps, body) = (self.apps(), Arc::new(body.clone()));
        let mut asking = JoinSet::new();
        for turn in 0..count {
            let (app, body) = (apps[turn % apps.len()].clone(), body.clone());
            asking.spawn(async move { app.ask(&body).await });
        }
        asking.join_all().await
    }

    /// All gateways say the same, and nothing is open.
    pub async fn used_is(&self, messages: u64, tokens: u64) {
        agree(&self.gateways, LICENSE, messages, tokens).await;
    }
}

/// So many gateways, and all of them decide on the store.
pub async fn start(size: usize, config: Config) -> Vec<Gateway> {
    let mut gateways = Vec::new();
    for _ in 0..size {
        gateways.push(Gateway::start(config.clone()).await);
    }
    are_counting(&gateways).await;
    gateways
}

pub async fn are_counting(gateways: &[Gateway]) {
    for gateway in gateways {
        eventually("the store is up", Duration::from_secs(20), || async {
            gateway.metrics().await.sum("gatekeeper_store_up", &[]) == 1.0
        })
        .await;
    }
}

/// All gateways say that a licence has used so much, and nothing is open.
pub async fn agree(gateways: &[Gateway], key: &str, messages: u64, tokens: u64) {
    for gateway in gateways {
        let mut last = String::new();
        let agreed = tokio::time::timeout(Duration::from_secs(10), async {
            loop {
                let me = gateway.app().get("/v1/me").bearer_auth(key).send().await.unwrap();
                let me = me.json::<Value>().await.unwrap();
                let is = |kind: &str, used| {
                    let known = &me["limits"][kind];
                    known["used"].as_u64() == Some(used)
                        || (known.is_null() && me["plan"].is_string())
                };
                let open = gateway.metrics().await.sum("gatekeeper_reservations_open", &[]);
                if is("messages", messages) && is("tokens", tokens) && open == 0.0 {
                    return;
                }
                last = format!("{me}, {open} open");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
        if agreed.await.is_err() {
            panic!("expected {messages} messages and {tokens} tokens: {last}");
        }
    }
}

fn count(answers: &[Answer], status: u16) -> usize {
    answers.iter().filter(|answer| answer.status == status).count()
}

/// N at once against a limit of L: exactly min(N, L), at three gateways as at one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exactly_the_limit_passes_however_many_gateways_there_are() {
    for (limit, asked) in [(0, 60), (1, 90), (7, 90), (200, 600)] {
        let plan = format!("messages: {}/month, models: [fast]", limit.max(1));
        let reply = Reply::chat().before_head(Step::Wait(Duration::from_millis(20)));
        let fleet = Fleet::start(3, &plan, reply, "on_store_down: closed").await;
        if limit == 0 {
            fleet.gateways[0].app().chat().await.ok();
        }
        let used = u64::from(limit == 0);
        let mut answers = fleet.ask(asked, &client::chat(&json!({}))).await;
        // A machine that is too busy to ask Redis in 50 ms says so, and is asked again.
        while count(&answers, 503) > 0 {
            let again = count(&answers, 503);
            answers.retain(|answer| answer.status != 503);
            tokio::time::sleep(Duration::from_millis(600)).await;
            answers.extend(fleet.ask(again, &client::chat(&json!({}))).await);
        }
        assert_eq!(count(&answers, 200), limit.min(asked), "limit {limit}");
        assert_eq!(count(&answers, 402), asked - limit.min(asked), "limit {limit}");
        let used = used + limit as u64;
        assert_eq!(fleet.mock.count() as u64, used);
        fleet.used_is(used, used * sse::TOKENS).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_are_granted_once_by_all_gateways() {
    let plan = "tokens: 3000/month, models: [fast]";
    let fleet = Fleet::start(2, plan, Reply::chat(), "on_store_down: closed").await;
    let answers = fleet.ask(200, &client::chat(&json!({ "max_tokens": 100 }))).await;
    let passed = count(&answers, 200) as u64;
    let known = |answer: &Answer| [200, 402, 429, 503].contains(&answer.status);
    assert!(answers.iter().all(known));
    assert!(passed >= 10, "only {passed} passed");
    assert!(passed * sse::TOKENS <= 3_000);
    fleet.used_is(passed, passed * sse::TOKENS).await;
}

#[tokio::test]
async fn a_cap_shrinks_to_what_all_gateways_left() {
    let plan = "tokens: 400/month, models: [fast], min_output_tokens: 20";
    let fleet = Fleet::start(2, plan, Reply::chat(), "").await;
    let mut last = None;
    for turn in 0..400 {
        let answer = fleet.apps()[turn % 2].ask(&client::chat(&json!({ "max_tokens": 300 }))).await;
        if answer.status != 200 {
            answer.is(402, "quota_exceeded");
            break;
        }
        if let Some(cap) = answer.header("x-quota-capped") {
            let cap: u64 = cap.parse().unwrap();
            assert!((20..300).contains(&cap));
            assert_eq!(fleet.mock.last().json()["max_tokens"], cap);
            assert!(last.is_none_or(|last| cap < last), "{cap} after {last:?}");
            last = Some(cap);
        }
        // What one gateway settled the others know a moment later.
        let used = (turn as u64 + 1) * sse::TOKENS;
        fleet.used_is(0, used).await;
    }
    assert!(last.is_some(), "no cap shrank");
}

#[tokio::test]
async fn rate_and_open_requests_are_counted_together() {
    let gate = Gate::new();
    let reply = Reply::chat().before_head(Step::Gate(gate.clone()));
    let plan = "rate: 6/hour, concurrency: 3, messages: 100/month, models: [fast]";
    let fleet = Fleet::start(3, plan, reply, "").await;
    let apps = fleet.apps();
    let mut open = JoinSet::new();
    for app in apps.clone() {
        open.spawn(async move { app.chat().await });
    }
    eventually("three are open", Duration::from_secs(5), || async { fleet.mock.count() == 3 })
        .await;
    for app in &apps {
        app.chat().await.is(429, "rate_limited");
    }
    gate.open();
    for answer in open.join_all().await {
        answer.ok();
    }
    fleet.used_is(3, 3 * sse::TOKENS).await;
    for app in &apps {
        app.chat().await.ok();
    }
    for app in &apps {
        let answer = app.chat().await;
        answer.is(429, "rate_limited");
        assert!(answer.text().contains("6 a hour"), "{}", answer.text());
    }
}

#[tokio::test]
async fn a_message_id_counts_once_wherever_its_requests_go() {
    let plan = "messages: 2/month, models: [fast]";
    let fleet = Fleet::start(3, plan, Reply::chat(), "").await;
    let ask = async |app: &Http, id: &str| {
        let body = client::chat(&json!({})).to_string();
        Answer::of(app.post("/v1/chat/completions", body).header("x-message-id", id)).await
    };
    let apps = fleet.apps();
    for turn in 0..10 {
        ask(&apps[turn % 3], "first").await.ok();
    }
    fleet.used_is(1, 10 * sse::TOKENS).await;
    // The eleventh is a message of its own.
    ask(&apps[0], "first").await.ok();
    fleet.used_is(2, 11 * sse::TOKENS).await;
    ask(&apps[1], "second").await.is(402, "quota_exceeded");
    ask(&apps[2], "first").await.ok();
}

/// What fails everywhere costs no message, whichever gateway tried first.
#[tokio::test]
async fn a_message_that_is_given_back_is_free_for_the_next_of_its_id() {
    let plan = "messages: 1/month, models: [fast]";
    let fleet = Fleet::start(2, plan, Reply::status(400), "").await;
    let apps = fleet.apps();
    let ask = async |app: &Http| {
        let body = client::chat(&json!({})).to_string();
        let request = app.post("/v1/chat/completions", body);
        Answer::of(request.header("x-message-id", "m")).await.status
    };
    assert_eq!((ask(&apps[0]).await, ask(&apps[1]).await), (400, 400));
    fleet.used_is(0, 0).await;
    fleet.mock.answer([Reply::chat()]);
    assert_eq!((ask(&apps[1]).await, ask(&apps[0]).await), (200, 200));
    fleet.used_is(1, 2 * sse::TOKENS).await;
    apps[0].chat().await.is(402, "quota_exceeded");
}

/// Killed in the middle of a stream; started again it charges what was open, and says so.
#[tokio::test]
async fn a_killed_gateway_charges_what_was_open_when_it_is_back() {
    let reply = Reply::sse(&[sse::text("Hel")]).then(Step::Hang);
    let plan = "messages: 10/month, tokens: 10000/month, models: [fast]";
    let mut fleet = Fleet::start(2, plan, reply, "").await;
    let mut open = fleet.gateways[0].app().open(&client::chat(&json!({ "stream": true }))).await;
    open.chunk().await.unwrap().expect("the first event");
    assert_eq!(fleet.gateways[1].messages(LICENSE).await, 1);
    fleet.gateways[0].kill();
    fleet.gateways[0].restart().await;
    fleet.is_counting().await;
    for gateway in &fleet.gateways {
        let me = gateway.me(LICENSE).await;
        assert_eq!(me["limits"]["messages"]["used"], 1, "{me}");
        let tokens = me["limits"]["tokens"]["used"].as_u64().unwrap();
        assert!((1..100).contains(&tokens), "{me}");
    }
    fleet.mock.answer([Reply::chat()]);
    fleet.gateways[0].app().chat().await.ok();
    assert_eq!(fleet.gateways[1].messages(LICENSE).await, 2);
}

#[tokio::test]
async fn a_gateway_that_ends_has_told_everything() {
    let plan = "messages: 100/month, models: [fast]";
    let mut fleet = Fleet::start(2, plan, Reply::chat(), "").await;
    for _ in 0..20 {
        fleet.gateways[0].app().chat().await.ok();
    }
    fleet.gateways[0].signal(Signal::TERM);
    fleet.gateways[0].exited(Duration::from_secs(5)).await;
    assert_eq!(fleet.gateways[1].messages(LICENSE).await, 20);
    // And its own records are its own.
    let rows = rusqlite::Connection::open(fleet.gateways[0].store()).unwrap();
    let rows: i64 = rows.query_row("SELECT count(*) FROM requests", [], |row| row.get(0)).unwrap();
    assert_eq!(rows, 20);
}

/// One that joins others asks whether they are whole, and must not miss what they answer.
#[tokio::test]
async fn a_gateway_that_joins_others_serves_at_once() {
    let plan = "messages: 1000/month, models: [fast]";
    let mut fleet = Fleet::start(2, plan, Reply::chat(), "on_store_down: closed").await;
    for _ in 0..12 {
        fleet.gateways[0].restart().await;
        let ready = Instant::now();
        fleet.is_counting().await;
        let waited = ready.elapsed();
        assert!(waited < Duration::from_secs(1), "it waits {waited:?} for gateways that are whole");
    }
}

#[tokio::test]
async fn a_store_that_evicts_or_forgets_is_refused_unless_it_is_meant() {
    let (mock, redis) = (Mock::start(Reply::chat()).await, Redis::start().await);
    let config = Config::new(&mock).redis(&redis.url());
    for (set, says) in [
        (["maxmemory-policy", "allkeys-lru"], "maxmemory-policy noeviction"),
        (["appendonly", "no"], "appendonly yes"),
    ] {
        assert_eq!(redis.ask(&["CONFIG", "SET", set[0], set[1]]).text(), "OK");
        let dir = Arc::new(tempfile::TempDir::new().unwrap());
        let mut refused = Gateway::spawn(dir, config.clone());
        let status = refused.exited(Duration::from_secs(10)).await;
        assert!(!status.success());
        refused.logged(says).await;
        let meant = Gateway::start(config.clone().store_with("unsafe_eviction: true")).await;
        eventually("it is served all the same", Duration::from_secs(5), || async {
            meant.app().chat().await.status == 200
        })
        .await;
        redis.ask(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    }
}

/// What they keep there has another form: each would misread the other.
#[tokio::test]
async fn a_store_that_gateways_of_another_version_use_is_refused() {
    let (mock, redis) = (Mock::start(Reply::chat()).await, Redis::start().await);
    let config = Config::new(&mock).redis(&redis.url());
    // It listens to beats, and says nothing of the form in which it writes.
    let mut older = TcpStream::connect((Ipv4Addr::LOCALHOST, redis.port())).unwrap();
    older.write_all(b"SUBSCRIBE gk:beats\r\n").unwrap();
    assert!(older.read(&mut [0; 64]).unwrap() > 0);
    let mut refused = Gateway::spawn(Arc::new(tempfile::TempDir::new().unwrap()), config.clone());
    assert!(!refused.exited(Duration::from_secs(20)).await.success());
    let says = "gateways of another version are connected to it";
    refused.logged(says).await;
    drop(older);
    let gateways = start(2, config).await;
    gateways[0].app().chat().await.ok();
    agree(&gateways, LICENSE, 1, sse::TOKENS).await;
}

/// A limit that changes while requests run takes nothing back and grants nothing above itself.
#[tokio::test]
async fn a_changed_limit_holds_for_what_was_used_before() {
    let gate = Gate::new();
    let reply = Reply::chat().before_head(Step::Gate(gate.clone()));
    let mut fleet = Fleet::start(2, "messages: 10/month, models: [fast]", reply, "").await;
    let mut open = JoinSet::new();
    for turn in 0..5 {
        let app = fleet.apps()[turn % 2].clone();
        open.spawn(async move { app.chat().await });
    }
    eventually("five are open", Duration::from_secs(5), || async { fleet.mock.count() == 5 }).await;
    for (limit, passes) in [(4, 0), (8, 3)] {
        for gateway in &mut fleet.gateways {
            let plan = format!("messages: {limit}/month, models: [fast]");
            let config = gateway.config.clone().plan("free", &plan);
            assert!(gateway.reload(config).await, "{}", gateway.logs());
        }
        gate.open();
        while let Some(answer) = open.join_next().await {
            answer.unwrap().ok();
        }
        let answers = fleet.ask(6, &client::chat(&json!({}))).await;
        assert_eq!((count(&answers, 200), count(&answers, 402)), (passes, 6 - passes));
    }
    fleet.used_is(8, 8 * sse::TOKENS).await;
}

/// What an app calls its messages lies on Redis as a hash alone.
#[tokio::test]
async fn what_an_app_calls_a_message_is_not_on_redis() {
    let fleet = Fleet::start(1, "messages: 9/month, models: [fast]", Reply::chat(), "").await;
    let body = client::chat(&json!({})).to_string();
    let request = fleet.apps()[0].post("/v1/chat/completions", body);
    Answer::of(request.header("x-message-id", "anna-4711")).await.ok();
    fleet.used_is(1, sse::TOKENS).await;
    for kept in [fleet.redis.content(), fleet.redis.files()] {
        assert!(!crate::support::contains(&kept, "anna-4711"));
        assert!(crate::support::contains(&kept, ":message:"));
    }
}
