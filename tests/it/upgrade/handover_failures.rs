//! A hand-over that fails at any point leaves everything as it was, and what is counted exact.

use std::{
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    time::{Duration, Instant},
};

use rustix::process::Signal;
use serde_json::json;

use crate::{
    ledger::kills::{App, TOKENS, exact},
    support::{
        Config, Gate, Gateway, LICENSE, Mock, Noise, Reply, Step, client, eventually, repeat, soon,
        sse,
    },
    upgrade::handover::upgrade,
};

/// A program that is none of ours.
fn script(gateway: &Gateway, name: &str, text: &str) -> PathBuf {
    let path = gateway.dir.path().join(name);
    std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// Serves as before, with every message so far counted.
async fn serves_on(gateway: &Gateway, messages: u64) {
    assert_eq!(gateway.readyz().await, Some(200));
    assert_eq!(gateway.messages(LICENSE).await, messages - 1);
    gateway.app().chat().await.ok();
    assert_eq!(gateway.messages(LICENSE).await, messages);
}

#[tokio::test]
async fn sigquit_without_a_successor_changes_nothing() {
    let mock = Mock::start(Reply::chat()).await;
    let mut gateway = Gateway::start(Config::new(&mock)).await;
    let mut kept = gateway.raw().await;
    gateway.signal(Signal::QUIT);
    eventually("it says so", Duration::from_secs(5), async || {
        gateway.logs().contains("SIGQUIT: no successor waits")
    })
    .await;
    kept.send(client::post("/v1/chat/completions", &client::chat(&json!({})))).await;
    let answer = kept.answer().await.unwrap();
    assert_eq!(answer.status, 200);
    assert_ne!(answer.header("connection"), Some("close"));
    serves_on(&gateway, 2).await;
    // One that comes a moment later is taken.
    let file = gateway.dir.path().join("gatekeeper.yaml");
    let next = Gateway::spawn_upgrade(&gateway, &file);
    gateway.exited(Duration::from_secs(20)).await;
    assert_eq!(next.messages(LICENSE).await, 2);
}

#[tokio::test]
async fn without_a_gateway_there_is_nothing_to_take_over() {
    let mock = Mock::start(Reply::chat()).await;
    let mut gateway = Gateway::start(Config::new(&mock)).await;
    gateway.kill();
    let file = gateway.dir.path().join("gatekeeper.yaml");
    let args = ["run", "-c", file.to_str().unwrap(), "--upgrade"];
    let said = crate::support::run(&args, gateway.dir.path());
    assert!(!said.status.success());
    assert!(String::from_utf8_lossy(&said.stderr).contains("no gateway runs"), "{said:?}");
    let said = upgrade(&gateway, &[]);
    assert!(!said.status.success());
    assert!(String::from_utf8_lossy(&said.stderr).contains("no gateway runs"), "{said:?}");
}

#[tokio::test]
async fn a_successor_that_cannot_start_leaves_the_old_one_serving() {
    let gate = Gate::new();
    let mock = Mock::start(Reply::chat()).await;
    let reply = Reply::sse(&[sse::ROLE.to_owned(), sse::text("Hel")]);
    mock.key("sk-slow", [reply.then(Step::Gate(gate.clone())).write(sse::FINISH).write(sse::DONE)]);
    let config = Config::new(&mock).provider("s", &mock, &["sk-slow"]).model("slow", "[s/m1]");
    let gateway = Gateway::start(config.clone()).await;
    let body = client::chat(&json!({ "model": "slow", "stream": true }));
    let mut open = gateway.app().open(&body).await;
    open.chunk().await.unwrap().expect("the first event");
    let good = std::fs::read_to_string(gateway.dir.path().join("gatekeeper.yaml")).unwrap();
    let write = |text: &str| {
        std::fs::write(gateway.dir.path().join("gatekeeper.yaml"), text).unwrap();
    };
    let fails = |more: &[&str], why: &str| {
        let said = upgrade(&gateway, more);
        let words = String::from_utf8_lossy(&said.stderr).into_owned();
        assert!(!said.status.success(), "{words}");
        assert!(words.contains(why), "{why}: {words}");
        assert!(words.contains("unchanged") || words.contains("nothing was changed"), "{words}");
    };
    // Does not start at all.
    let ends = script(&gateway, "ends", "[ \"$1\" = check ] && exit 0; exit 3");
    fails(&["--binary", ends.to_str().unwrap()], "ended before it was ready (exit status: 3)");
    fails(&["--binary", "/nowhere/gatekeeper"], "/nowhere/gatekeeper");
    serves_on(&gateway, 2).await;
    // Has the store already when it finds that it can't serve.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let elsewhere = taken.local_addr().unwrap();
    write(&good.replace(&gateway.admin.to_string(), &elsewhere.to_string()));
    fails(&[], "is in use: end what uses it");
    serves_on(&gateway, 3).await;
    // It is still found by whoever comes next.
    fails(&["--binary", ends.to_str().unwrap()], "ended before it was ready");
    // A configuration with a problem, and one of another store.
    write("providers: {}\nnonsense: 1\n");
    let said = upgrade(&gateway, &[]);
    assert!(!said.status.success());
    assert!(String::from_utf8_lossy(&said.stderr).contains("nonsense"), "{said:?}");
    serves_on(&gateway, 4).await;
    gate.open();
    while soon("the rest", open.chunk()).await.unwrap().is_some() {}
    write(&good);
    // And after all that it works.
    let mut gateway = gateway;
    let mut old = gateway.hand_over().await;
    old.exited(Duration::from_secs(5)).await;
    serves_on(&gateway, 5).await;
}

#[tokio::test]
async fn a_program_that_hangs_is_ended() {
    let mock = Mock::start(Reply::chat()).await;
    let gateway = Gateway::start(Config::new(&mock)).await;
    let hangs = script(&gateway, "hangs", "[ \"$1\" = check ] && exit 0; exec sleep 100");
    let (said, ()) = tokio::join!(
        async {
            let (dir, hangs) = (gateway.dir.clone(), hangs.clone());
            let ask = move || {
                let file = dir.path().join("gatekeeper.yaml");
                let args = ["upgrade", "-c", file.to_str().unwrap(), "--binary"];
                crate::support::run(&[&args[..], &[hangs.to_str().unwrap()]].concat(), dir.path())
            };
            tokio::task::spawn_blocking(ask).await.unwrap()
        },
        async {
            for message in 1..=10 {
                serves_on(&gateway, message).await;
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    );
    assert!(!said.status.success());
    let words = String::from_utf8_lossy(&said.stderr).into_owned();
    assert!(words.contains("was not ready after"), "{words}");
}

#[tokio::test]
async fn a_successor_that_dies_later_gives_everything_back() {
    let gate = Gate::new();
    let mock = Mock::start(Reply::chat()).await;
    let reply = Reply::sse(&[sse::ROLE.to_owned(), sse::text("Hel")]);
    let reply = reply.then(Step::Gate(gate.clone())).write(sse::FINISH).write(sse::USAGE);
    mock.key("sk-slow", [reply.write(sse::DONE)]);
    let config = Config::new(&mock)
        .plan("free", "messages: 1000/month, tokens: 1000000/month, models: [\"*\"]")
        .provider("s", &mock, &["sk-slow"])
        .model("slow", "[s/m1]");
    let mut gateway = Gateway::start(config).await;
    let body = client::chat(&json!({ "model": "slow", "stream": true }));
    let mut open = gateway.app().open(&body).await;
    open.chunk().await.unwrap().expect("the first event");
    let old = gateway.hand_over().await;
    gateway.app().chat().await.ok();
    assert_eq!(gateway.requests_today().await, 1);
    gateway.kill();
    eventually("the old process serves again", Duration::from_secs(10), async || {
        old.logs().contains("This process serves again")
    })
    .await;
    old.app().chat().await.ok();
    assert_eq!(old.messages(LICENSE).await, 3, "two answers and an open stream");
    gate.open();
    while soon("the rest", open.chunk()).await.unwrap().is_some() {}
    eventually("the stream is settled", Duration::from_secs(5), async || {
        old.tokens(LICENSE).await == 3 * sse::TOKENS
    })
    .await;
    assert_eq!(old.requests_today().await, 3, "the page shows what the successor had answered");
    // It can hand over again.
    let mut again = old;
    let mut first = again.hand_over().await;
    first.exited(Duration::from_secs(5)).await;
    assert_eq!(again.messages(LICENSE).await, 3);
    assert_eq!(again.requests_today().await, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_of_either_in_the_middle_loses_nothing() {
    const APPS: usize = 6;
    let rounds: u64 = repeat::times("GATEKEEPER_HANDOVER_KILLS", 4);
    let mut apps: Vec<App> = (0..APPS).map(App::new).collect();
    let (_mock, config) = exact(&apps).await;
    let mut gateway = Gateway::start(config).await;
    let mut noise = Noise::new(7);
    let mut cut = [0; APPS];
    let mut survivors = [0, 0];
    for round in 0..rounds {
        let http = gateway.app();
        let old_dies = round % 2 == 0;
        let working: Vec<_> = apps
            .drain(..)
            .map(|mut app| {
                let http = http.clone();
                tokio::spawn(async move {
                    let end = Instant::now() + Duration::from_millis(700);
                    while Instant::now() < end {
                        // The place of a request that died with its process is free a moment later.
                        let status = app.try_ask(&http).await;
                        // So is one that the old process sent on to the one that was killed.
                        let sent_on = status == Some(503) && !old_dies;
                        assert!(sent_on || matches!(status, None | Some(200 | 429)), "{status:?}");
                    }
                    app
                })
            })
            .collect();
        let mut next = gateway.successor().await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        gateway.signal(Signal::QUIT);
        tokio::time::sleep(Duration::from_millis(noise.below(120))).await;
        if old_dies {
            gateway.kill();
        } else {
            next.kill();
        }
        for app in working {
            apps.push(app.await.unwrap());
        }
        // Whoever is left serves; an old one that had handed over ends or takes everything back.
        if old_dies {
            gateway = next;
            assert!(gateway.ready().await, "round {round}: {}", gateway.logs());
        }
        survivors[usize::from(old_dies)] += 1;
        eventually("somebody serves", Duration::from_secs(20), async || {
            gateway.readyz().await == Some(200)
        })
        .await;
        eventually("nothing is open", Duration::from_secs(10), async || {
            let open = gateway.metrics().await.sum("gatekeeper_reservations_open", &[]);
            open.abs() < 0.5
        })
        .await;
        for (app, cut) in apps.iter().zip(&mut cut) {
            let messages = gateway.messages(&app.license).await;
            let known = app.delivered + *cut;
            assert!(
                messages >= known && messages <= known + 2,
                "round {round}, {}: {messages} charged for {} delivered and {cut} cut off",
                app.license,
                app.delivered,
            );
            *cut = messages - app.delivered;
            let tokens = gateway.tokens(&app.license).await;
            // An answer that the old process ended while nobody had the ledger is charged its input when it
            // dies before the new one hears of it.
            let least = (app.delivered - survivors[1].min(app.delivered)) * TOKENS;
            assert!(tokens >= least, "round {round}, {}: {tokens} of {least}", app.license);
        }
        let http = gateway.app();
        for app in &mut apps {
            assert!(app.ask(&http).await, "round {round}: {} is locked out", app.license);
        }
    }
    println!(
        "{rounds} hand-overs with a kill -9 in the middle ({} of the new process, {} of the old): every \
         answer charged, {} questions cut off and charged too",
        survivors[0],
        survivors[1],
        cut.iter().sum::<u64>()
    );
}
