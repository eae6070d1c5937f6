//! Master keys heal by themselves, and no buyer sees a provider's bad day.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::{
    Answer, Config, Gate, Gateway, Mock, Reply, Step, client, eventually, repeat, sse,
};

const SOON: Duration = Duration::from_secs(10);

/// Keys of two accounts: one with two keys, one with one.
fn two_accounts(mock: &Mock) -> Config {
    Config::new(mock)
        .provider("p", mock, &["sk-a1", "sk-a2", "sk-b"])
        .member("p", 0, "group: a")
        .member("p", 1, "group: a")
        .member("p", 2, "group: b")
}

pub async fn key(gateway: &Gateway, place: usize) -> Value {
    gateway.status().await["keys"][place].clone()
}

pub async fn order(gateway: &Gateway, command: &str, id: &str) -> Answer {
    let request = gateway
        .operator()
        .request("POST", &format!("/api/keys/{command}"))
        .header("content-type", "application/json")
        .body(json!({ "provider": "p", "key": id }).to_string());
    Answer::of(request).await
}

fn models(mock: &Mock) -> usize {
    mock.seen().iter().filter(|seen| seen.path == "/v1/models").count()
}

/// The first probe comes after half a minute, asks for the list of models, and is believed.
#[tokio::test]
async fn a_refused_key_is_probed_and_taken_again() {
    let mock = Mock::start(Reply::chat()).await;
    mock.key("sk-one", [Reply::error(401)]);
    let gateway = Gateway::start(Config::new(&mock)).await;
    for _ in 0..3 {
        gateway.app().chat().await.ok();
    }
    let began = Instant::now();
    let sick = key(&gateway, 0).await;
    assert_eq!((&sick["state"], &sick["why"]), (&json!("quarantined"), &json!("bad_credential")));
    assert_eq!(models(&mock), 0, "never probed at once");
    mock.key("sk-one", [Reply::chat()]);
    eventually("it is ready", Duration::from_secs(40), || async {
        key(&gateway, 0).await["state"] == "ready"
    })
    .await;
    let took = began.elapsed();
    assert!(took > Duration::from_secs(27), "{took:?}");
    assert_eq!(models(&mock), 1, "one probe");
    let probe = mock.seen().into_iter().find(|seen| seen.path == "/v1/models").unwrap();
    assert_eq!((&*probe.method, &*probe.key), ("GET", "sk-one"));
    assert!(probe.body.is_empty());
    mock.forget();
    for _ in 0..4 {
        gateway.app().chat().await.ok();
    }
    assert!(mock.keys().contains(&"sk-one".to_owned()));
}

#[tokio::test]
async fn an_operator_probes_pauses_and_resumes_a_key() {
    let mock = Mock::start(Reply::chat()).await;
    mock.key("sk-one", [Reply::error(401)]);
    let gateway = Gateway::start(Config::new(&mock)).await;
    let id = key(&gateway, 0).await["id"].as_str().unwrap().to_owned();
    for _ in 0..3 {
        gateway.app().chat().await.ok();
    }
    let probed = order(&gateway, "probe", &id).await.ok().json();
    assert_eq!((&probed["found"], &probed["state"]), (&json!("refused"), &json!("quarantined")));
    mock.key("sk-one", [Reply::chat()]);
    let probed = order(&gateway, "probe", &id).await.ok().json();
    assert_eq!((&probed["found"], &probed["state"]), (&json!("taken"), &json!("ready")));
    assert_eq!(order(&gateway, "pause", &id).await.ok().json()["state"], "off");
    mock.forget();
    for _ in 0..4 {
        gateway.app().chat().await.ok();
    }
    assert!(!mock.keys().contains(&"sk-one".to_owned()));
    assert_eq!(order(&gateway, "resume", &id).await.ok().json()["state"], "ready");
    for _ in 0..2 {
        gateway.app().chat().await.ok();
    }
    assert!(mock.keys().contains(&"sk-one".to_owned()));
    assert_eq!(order(&gateway, "resume", "nobody").await.status, 404);
    assert_eq!(order(&gateway, "melt", &id).await.status, 404);
    let get = gateway.operator().get("/api/keys/resume");
    assert_eq!(Answer::of(get).await.status, 405);
}

/// Without money none of an account's keys serves; the operator says when it has been paid for.
#[tokio::test]
async fn an_empty_account_rests_with_all_its_keys_until_the_operator_resumes_it() {
    let quota = include_str!("../../fixtures/openai/openai_429_quota.json");
    let in_a_stream = format!("data: {}\n\n", quota.replace('\n', " "));
    for (stream, empty) in
        [(false, Reply::json(429, quota)), (true, Reply::sse(&[sse::ROLE.to_owned(), in_a_stream]))]
    {
        let mock = Mock::start(Reply::chat()).await;
        mock.key("sk-b", [if stream { Reply::stream() } else { Reply::chat() }]);
        for name in ["sk-a1", "sk-a2"] {
            mock.key(name, [empty.clone()]);
        }
        let gateway = Gateway::start(two_accounts(&mock)).await;
        let question = client::chat(&json!({ "stream": stream }));
        for _ in 0..6 {
            gateway.app().ask(&question).await.ok();
        }
        let keys = mock.keys();
        assert_eq!(keys.iter().filter(|key| key.starts_with("sk-a")).count(), 1, "{keys:?}");
        for place in [0, 1] {
            let key = key(&gateway, place).await;
            assert_eq!((&key["state"], &key["why"]), (&json!("quarantined"), &json!("no_money")));
            assert!(key["left_ms"].as_u64().unwrap() > 1_700_000, "{key}");
        }
        assert_eq!(key(&gateway, 2).await["state"], "ready");
        let id = key(&gateway, 0).await["id"].as_str().unwrap().to_owned();
        order(&gateway, "resume", &id).await.ok();
        for place in [0, 1] {
            assert_eq!(key(&gateway, place).await["state"], "ready", "its whole account");
        }
        assert_eq!(models(&mock), 0, "a list of models says nothing about money");
    }
}

/// A length that does not hold, or JSON where events were awaited: what is said of the account is heard.
#[tokio::test]
async fn what_an_error_says_counts_however_it_comes() {
    let empty = r#"{"error":{"type":"insufficient_quota","message":"You exceeded your quota."}}"#;
    for (stream, error, good) in [
        (false, Reply::json(429, empty).lying_length(1000), Reply::chat()),
        (true, Reply::json(200, empty), Reply::stream()),
    ] {
        let mock = Mock::start(good).await;
        mock.key("sk-a1", [error.clone()]).key("sk-a2", [error]);
        let gateway = Gateway::start(two_accounts(&mock)).await;
        for _ in 0..3 {
            gateway.app().ask(&client::chat(&json!({ "stream": stream }))).await.ok();
        }
        let key = key(&gateway, 0).await;
        assert_eq!((&key["state"], &key["why"]), (&json!("quarantined"), &json!("no_money")));
        assert_eq!(mock.keys().iter().filter(|key| key.starts_with("sk-a")).count(), 1);
    }
}

/// Nor can an app make a provider say so of its account: a message quotes what was sent.
#[tokio::test]
async fn what_a_provider_quotes_is_not_what_it_says() {
    let quoting = "Invalid value: 'credit balance is too low'. You have reached your specified API \
                   usage limits is no effort.";
    let body = json!({ "error": { "type": "invalid_request_error", "message": quoting } });
    let mock = Mock::start(Reply::json(400, body.to_string())).await;
    let gateway = Gateway::start(two_accounts(&mock)).await;
    assert_eq!(gateway.app().chat().await.status, 400);
    for place in 0..3 {
        assert_eq!(key(&gateway, place).await["state"], "ready");
    }
}

/// Asked again at another account, on the very connection.
#[tokio::test]
async fn the_connection_of_a_failed_attempt_is_used_again() {
    let mock = Mock::sequence([Reply::error(429), Reply::chat()]).await;
    let gateway = Gateway::start(two_accounts(&mock)).await;
    gateway.app().chat().await.ok();
    let connections: Vec<usize> = mock.seen().iter().map(|seen| seen.connection).collect();
    assert_eq!(connections, [0, 0]);
}

/// What is tried by a long answer is free for others from its first word.
#[tokio::test]
async fn a_provider_is_well_again_while_the_first_answer_still_streams() {
    let (sick, well) = (Mock::start(Reply::error(503)).await, Mock::start(Reply::stream()).await);
    let config = Config::new(&sick)
        .provider("p", &sick, &["sk-one", "sk-two"])
        .provider("q", &well, &["sk-three"])
        .model("fast", "[p/m1, q/m2]");
    let gateway = Gateway::start(config).await;
    let body = client::chat(&json!({ "stream": true }));
    let state = async || gateway.status_now().await["providers"][0]["state"].clone();
    eventually("it is sick", SOON, || async {
        gateway.app().ask(&body).await.ok();
        state().await == "sick"
    })
    .await;
    let gate = Gate::new();
    let slow = Reply::sse(&[sse::ROLE.to_owned(), sse::text("Hel")]).then(Step::Gate(gate.clone()));
    // The probe first.
    sick.answer([Reply::json(200, "{}"), slow.write(sse::FINISH).write(sse::DONE)]);
    let began = Instant::now();
    let mut trial = loop {
        let mut open = gateway.app().open(&body).await;
        if open.headers()["x-gatekeeper-model"] == "p/m1" {
            break open;
        }
        while open.chunk().await.unwrap().is_some() {}
        assert!(began.elapsed() < SOON, "it is not tried");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    trial.chunk().await.unwrap().expect("the first event");
    assert_eq!(state().await, "serving");
    gate.open();
    while trial.chunk().await.unwrap().is_some() {}
}

/// Down, it costs nobody an answer, is asked hardly ever, and serves again soon after it is back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flapping_provider_is_left_and_returned_to() {
    let down = repeat::time("GATEKEEPER_DOWN_SECONDS", 6.0);
    let (sick, well) = (Mock::start(Reply::chat()).await, Mock::start(Reply::chat()).await);
    let config = Config::new(&sick)
        .provider("p", &sick, &["sk-one", "sk-two"])
        .provider("q", &well, &["sk-three"])
        .model("fast", "[p/m1, q/m2]")
        .plan("free", "messages: 1000000/month, models: [\"*\"]");
    let gateway = Arc::new(Gateway::start(config).await);
    gateway.app().chat().await.ok();
    assert_eq!(well.count(), 0);
    for fault in [Reply::instead([Step::Reset]), Reply::error(503)] {
        sick.answer([fault]);
        sick.forget();
        let began = Instant::now();
        let mut asked = 0;
        while began.elapsed() < down {
            gateway.app().chat().await.ok();
            asked += 1;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let bothered = sick.count() as u64;
        assert!(bothered <= 8 + down.as_secs(), "{bothered} of {asked} and {down:?}");
        let provider = gateway.status().await["providers"][0].clone();
        assert_eq!(provider["state"], "sick", "{provider}");
        sick.answer([Reply::chat()]);
        let (back, before) = (Instant::now(), well.count());
        eventually("it serves again", SOON, || async {
            let answer = gateway.app().chat().await;
            answer.ok().header("x-gatekeeper-model") == Some("p/m1")
        })
        .await;
        println!(
            "down {} s: {asked} answers, {bothered} requests and probes to the sick one; it served \
             again after {:.1} s, {} answers later",
            down.as_secs(),
            back.elapsed().as_secs_f64(),
            well.count() - before
        );
        let metrics = gateway.metrics().await;
        let serving = [("provider", "p"), ("state", "serving")];
        assert_eq!(metrics.sum("gatekeeper_provider_state", &serving), 1.0);
    }
}

/// Refused everywhere, requests are told to wait instead of being sent again and again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_429_is_not_made_worse() {
    for pause in ["1", "30"] {
        let mock = Mock::start(Reply::status(429).header("retry-after", pause)).await;
        let config = two_accounts(&mock).plan("free", "messages: 100000/month, models: [fast]");
        let gateway = Arc::new(Gateway::start(config).await);
        let mut apps = JoinSet::new();
        for _ in 0..40 {
            let gateway = gateway.clone();
            apps.spawn(async move {
                for _ in 0..10 {
                    gateway.app().chat().await.is(503, "upstream_exhausted");
                }
            });
        }
        apps.join_all().await;
        let sent = mock.count();
        println!("400 requests in a storm of 429 (retry-after {pause}): {sent} were sent on");
        assert!(sent <= 440, "{sent}");
        assert_eq!(gateway.messages(crate::support::LICENSE).await, 0);
    }
}

#[tokio::test]
async fn a_short_pause_is_waited_for_rather_than_refused() {
    let mock = Mock::start(Reply::chat()).await;
    let limited = Reply::status(429).header("retry-after-ms", "1200");
    mock.key("sk-only", [limited, Reply::chat()]);
    let gateway = Gateway::start(Config::new(&mock).provider("p", &mock, &["sk-only"])).await;
    let began = Instant::now();
    // By the request that was told, and by one that comes meanwhile.
    let (app, other) = (gateway.app(), gateway.app());
    let later = async {
        mock.saw(1).await;
        other.chat().await
    };
    let (first, second) = tokio::join!(app.chat(), later);
    assert_eq!(first.ok().number("x-gatekeeper-attempts"), 2);
    assert_eq!(second.ok().number("x-gatekeeper-attempts"), 1);
    let took = began.elapsed();
    assert!(took > Duration::from_millis(1150) && took < Duration::from_secs(3), "{took:?}");
    assert_eq!(mock.count(), 3);
}

#[tokio::test]
async fn an_account_that_runs_dry_gets_fewer_requests() {
    let mock = Mock::start(Reply::chat()).await;
    let nearly = Reply::chat()
        .header("x-ratelimit-limit-requests", "1000")
        .header("x-ratelimit-remaining-requests", "20")
        .header("x-ratelimit-reset-requests", "50s");
    for name in ["sk-a1", "sk-a2"] {
        mock.key(name, [nearly.clone()]);
    }
    let config = two_accounts(&mock).plan("free", "messages: 100000/month, models: [fast]");
    let gateway = Gateway::start(config).await;
    for _ in 0..300 {
        gateway.app().chat().await.ok();
    }
    let dry = mock.keys().iter().filter(|key| key.starts_with("sk-a")).count();
    // A tenth of its share of two thirds.
    assert!((2..70).contains(&dry), "{dry} of 300");
    let key = key(&gateway, 0).await;
    assert_eq!((&key["remaining"], &key["limit"]), (&json!(20), &json!(1000)));
    // Alone it serves all the same.
    mock.key("sk-b", [Reply::status(429).header("retry-after", "60")]);
    for _ in 0..20 {
        gateway.app().chat().await.ok();
    }
}

#[tokio::test]
async fn each_strategy_takes_the_key_it_should() {
    let gate = Gate::new();
    let mock = Mock::start(Reply::chat()).await;
    mock.key("sk-one", [Reply::chat().before_head(Step::Gate(gate.clone()))]);
    let strategy = |name: &str| {
        Config::new(&mock)
            .provider_at("p", &mock.url(), &format!(", strategy: {name}"), &["sk-one", "sk-two"])
            .plan("free", "messages: 100000/month, models: [fast]")
    };
    let gateway = Arc::new(Gateway::start(strategy("least_busy")).await);
    let mut held = JoinSet::new();
    for _ in 0..2 {
        let gateway = gateway.clone();
        held.spawn(async move { gateway.app().chat().await });
    }
    mock.saw(2).await;
    assert!(mock.keys().contains(&"sk-one".into()), "one is held");
    mock.forget();
    for _ in 0..10 {
        gateway.app().chat().await.ok();
    }
    assert_eq!(mock.keys(), vec!["sk-two"; 10], "the busy one is left alone");
    gate.open();
    held.join_all().await;

    mock.key("sk-one", [Reply::chat().before_head(Step::Wait(Duration::from_millis(80)))]);
    let gateway = Gateway::start(strategy("fastest")).await;
    for _ in 0..6 {
        gateway.app().chat().await.ok();
    }
    mock.forget();
    for _ in 0..20 {
        gateway.app().chat().await.ok();
    }
    let slow = mock.keys().iter().filter(|key| *key == "sk-one").count();
    assert!(slow <= 2, "{slow} of 20 went to the slow one");
}
