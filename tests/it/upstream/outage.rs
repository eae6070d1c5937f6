//! A provider that hangs: no buyer waits for it in vain for long, and it serves again soon.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::task::JoinSet;

use crate::support::{Config, Gateway, Mock, Reply, Step, eventually};

/// Requests over the outage.
const REQUESTS: u32 = 200;
/// `first_byte` of the provider.
const PATIENCE: Duration = Duration::from_millis(500);

/// It accepts everything and says nothing, its list of models included.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_hangs_refuses_fast_and_serves_again_soon() {
    let hangs = std::env::var("GATEKEEPER_HANG_SECONDS").ok().and_then(|s| s.parse().ok());
    let hangs = Duration::from_secs(hangs.unwrap_or(6));
    let mock = Mock::start(Reply::instead([Step::Hang])).await;
    let plan = "messages: 100000/month, concurrency: 1000, models: [fast]";
    let config = Config::new(&mock).plan("free", plan).timeouts("p", "first_byte: 500ms");
    let gateway = Arc::new(Gateway::start(config).await);
    let (began, mut apps) = (Instant::now(), JoinSet::new());
    for number in 0..REQUESTS {
        let gateway = gateway.clone();
        let at = began + hangs * number / REQUESTS;
        apps.spawn(async move {
            tokio::time::sleep_until(at.into()).await;
            let asked = Instant::now();
            let answer = gateway.app().chat().await;
            assert!([502, 504].contains(&answer.status), "{}", answer.text());
            (answer.status, asked, Instant::now())
        });
    }
    let is_open = async || gateway.status_now().await["providers"][0]["state"] == "sick";
    eventually("the circuit opens", hangs, is_open).await;
    let opened = Instant::now();
    let ended = apps.join_all().await;
    let second = Duration::from_secs(1);
    let fast = |(_, asked, told): &&(u16, Instant, Instant)| *told < opened.max(*asked) + second;
    let refused = ended.iter().filter(fast).count();
    let waited = ended.iter().filter(|(status, ..)| *status == 504).count();
    assert!(refused >= 190, "{refused} of {REQUESTS}");
    assert!(waited < 60, "{waited} waited for it");
    tokio::time::sleep_until((began + hangs).into()).await;
    let sent = mock.seen().iter().filter(|seen| seen.method == "POST").count();
    mock.answer([Reply::chat()]);
    let back = Instant::now();
    eventually("it serves again", Duration::from_secs(5), || async {
        gateway.app().chat().await.status == 200
    })
    .await;
    println!(
        "a hang of {} s: the circuit opened after {:.1} s, {refused} of {REQUESTS} requests were refused within a \
         second, {sent} were sent on; it served again after {:.1} s",
        hangs.as_secs(),
        (opened - began).as_secs_f64(),
        back.elapsed().as_secs_f64()
    );
    assert!(sent <= 60, "{sent}");
    assert!(PATIENCE < second);
}

/// Its list of models answers, its models don't: the requests that find out must not keep it closed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_hangs_as_the_trial_keeps_nobody_out_once_it_is_well() {
    let mock = Mock::start(Reply::instead([Step::Hang])).await;
    mock.path("/v1/models", Reply::json(200, "{}"));
    let config =
        Config::new(&mock).timeouts("p", "first_byte: 5s, total: 6s").keys("p", &["sk-only"]);
    let gateway = Arc::new(Gateway::start(config).await);
    let mut apps = JoinSet::new();
    for _ in 0..4 {
        let gateway = gateway.clone();
        apps.spawn(async move { gateway.app().chat().await.status });
    }
    assert_eq!(apps.join_all().await, [504; 4]);
    let began = Instant::now();
    // Refused at once, by the circuit, but for those that find out.
    gateway.app().chat().await.is(502, "upstream_error");
    assert!(began.elapsed() < Duration::from_millis(400));
    let asked = || mock.seen().iter().filter(|seen| seen.method == "POST").count();
    let (trial, before) = (gateway.clone(), asked());
    eventually("a request finds out", Duration::from_secs(15), || async {
        let trial = trial.clone();
        tokio::spawn(async move { trial.app().chat().await });
        tokio::time::sleep(Duration::from_millis(50)).await;
        asked() > before
    })
    .await;
    mock.answer([Reply::chat()]);
    eventually("it serves again", Duration::from_secs(5), || async {
        gateway.app().chat().await.status == 200
    })
    .await;
}
