//! Few file descriptors: apps wait or come again, and nobody else is blamed or hurt.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::net::TcpStream;

use crate::support::{
    Answer, Config, Gate, Gateway, Mock, Raw, Reply, Step, client, client::post_head, eventually,
    soon, sse,
};

/// As few as a careless container may give, of which apps get 208.
const FEW: &[&str] = &["prlimit", "--nofile=256", "--"];

fn config(mock: &Mock) -> Config {
    Config::new(mock).server("grace: 5s, limits: { header_timeout: 2s }").under(FEW)
}

/// No word about a provider or key that would be at fault.
async fn nobody_is_blamed(gateway: &Gateway) {
    let status = gateway.status().await;
    for key in status["keys"].as_array().unwrap() {
        assert_eq!((&key["state"], &key["errors"]), (&json!("ready"), &json!(0)), "{status}");
    }
    let labels = [("provider", "p"), ("state", "serving")];
    assert_eq!(gateway.metrics().await.sum("gatekeeper_provider_state", &labels), 1.0);
    for word in ["panicked", "Accept() failed", "An attempt failed", "is sick"] {
        assert!(!gateway.logs().contains(word), "{}", gateway.logs());
    }
}

/// Idle connections that nobody closes end by themselves, and then whoever waits is served.
#[tokio::test]
async fn who_waits_in_the_queue_is_served_when_others_time_out() {
    let mock = Mock::start(Reply::chat()).await;
    let gateway = Gateway::start(config(&mock)).await;
    let mut idle = Vec::new();
    for _ in 0..150 {
        idle.push(TcpStream::connect(gateway.public).await.unwrap());
    }
    gateway.app().chat().await.ok();
    nobody_is_blamed(&gateway).await;
}

/// Of those that apps get, few are left for providers.
const HEADS: usize = 132;

#[tokio::test]
async fn a_request_without_a_connection_to_its_provider_is_asked_to_come_again() {
    let gate = Gate::new();
    let mock = Mock::start(Reply::chat().before_head(Step::Gate(gate.clone()))).await;
    let gateway = Gateway::start(config(&mock)).await;
    // All connections are let in: each has begun a request, and needs nothing more yet.
    let body = client::chat(&json!({})).to_string();
    let mut apps = Vec::new();
    for count in 1..=HEADS {
        let mut raw = Raw::to(gateway.public).await.unwrap();
        raw.send(format!("{}content-length: {}\r\n\r\n", post_head("/chat"), body.len())).await;
        apps.push(raw);
        if count % 20 == 0 {
            eventually("their heads are read", Duration::from_secs(5), || async {
                gateway.status_now().await["in_flight"] == count
            })
            .await;
        }
    }
    let asked: Vec<_> = apps
        .into_iter()
        .map(|mut app| {
            let body = body.clone();
            tokio::spawn(async move {
                app.send(body).await;
                app.answer().await.expect("an answer")
            })
        })
        .collect();
    eventually("the rest is refused", Duration::from_secs(10), || async {
        let refused = asked.iter().filter(|answer| answer.is_finished()).count();
        refused > 0 && refused + mock.count() == HEADS
    })
    .await;
    assert!(gateway.descriptors() <= 220, "{} are open", gateway.descriptors());
    gate.open();
    let (mut served, mut refused) = (0, 0);
    for answer in asked {
        let answer = answer.await.unwrap();
        match answer.status {
            200 => served += 1,
            503 => {
                refused += 1;
                assert_eq!(answer.code(), "upstream_exhausted");
                assert_eq!(answer.header("retry-after"), Some("1"));
            }
            other => panic!("{other}: {}", String::from_utf8_lossy(&answer.body)),
        }
    }
    assert!(served > 10 && refused > 10, "{served} served, {refused} refused");
    assert_eq!(gateway.messages(crate::support::LICENSE).await, served, "the others cost nothing");
    nobody_is_blamed(&gateway).await;
    gateway.app().chat().await.ok();
}

#[tokio::test]
async fn a_low_soft_limit_is_raised_to_the_hard_one() {
    let mock = Mock::start(Reply::chat()).await;
    let under = ["prlimit", "--nofile=128:4096", "--"];
    let gateway = Gateway::start(Config::new(&mock).under(&under)).await;
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", gateway.pid())).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    assert_eq!(line.split_whitespace().nth(3), Some("4096"), "{line}");
}

/// They measure the machine, or keep all of it busy: `make test` runs them with nothing beside them.
mod alone {
    use super::*;

    #[tokio::test]
    async fn idle_connections_use_up_none_that_others_need() {
        let gate = Gate::new();
        let open = Reply::sse(&[sse::ROLE.to_owned(), sse::text("Hel")])
            .then(Step::Gate(gate.clone()))
            .write(sse::text("lo"))
            .write(sse::FINISH)
            .write(sse::DONE);
        let mock = Mock::sequence([vec![open; 10], vec![Reply::chat()]].concat()).await;
        let gateway = Gateway::start(config(&mock)).await;
        let mut streams = Vec::new();
        for _ in 0..10 {
            let mut stream = gateway.app().open(&client::chat(&json!({ "stream": true }))).await;
            assert!(stream.chunk().await.unwrap().is_some());
            streams.push(stream);
        }
        // More than there are files for. The kernel takes them all; the gateway takes what it can.
        let mut idle = Vec::new();
        for _ in 0..400 {
            idle.push(TcpStream::connect(gateway.public).await.unwrap());
        }
        eventually("it notices", Duration::from_secs(5), || async {
            gateway.logs().contains("Open files:")
        })
        .await;
        let (began, before) = (Instant::now(), gateway.cpu());
        while began.elapsed() < Duration::from_secs(1) {
            assert!(gateway.descriptors() <= 220, "{} are open", gateway.descriptors());
            assert_eq!(gateway.readyz().await, Some(200), "operators are let in");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let used = gateway.cpu() - before;
        assert!(used < began.elapsed() / 4, "it spins: {used:?}");
        gate.open();
        for stream in streams {
            let answer = soon("a stream that was open", Answer::read(stream)).await;
            assert!(answer.ok().text().ends_with(sse::DONE), "{}", answer.text());
        }
        drop(idle);
        let freed = Instant::now();
        gateway.app().chat().await.ok();
        let took = freed.elapsed();
        assert!(took < Duration::from_secs(1), "it recovers only after {took:?}");
        nobody_is_blamed(&gateway).await;
        assert_eq!(gateway.logs().matches("Open files:").count(), 1, "{}", gateway.logs());
        println!(
            "256 files, 400 idle connections: {used:?} of processor time a second, back in {took:?}"
        );
    }
}
