//! A changed configuration goes live while requests run, or changes nothing.

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use rustix::process::Signal;
use serde_json::json;

use crate::support::{
    Config, Gate, Gateway, LICENSE, MODEL, Mock, Reply, Step, client, eventually, soon, sse,
};

async fn start(mock: &Mock) -> Gateway {
    Gateway::start(Config::new(mock)).await
}

#[tokio::test]
async fn plans_keys_and_models_change_and_what_was_used_stays() {
    let mock = Mock::start(Reply::chat()).await;
    let mut gateway = start(&mock).await;
    let app = gateway.app();
    for _ in 0..3 {
        app.chat().await.ok();
    }
    let config = gateway
        .config
        .clone()
        .plan("free", "messages: 4/month, models: [\"*\"]")
        .license("JSTAR-NEW-0001", "free")
        .model("other", "[p/m2]");
    app.chat_as("JSTAR-NEW-0001").await.is(403, "license_invalid");
    assert!(gateway.reload(config).await, "{}", gateway.logs());
    app.chat_as("JSTAR-NEW-0001").await.ok();
    app.ask(&client::chat(&json!({ "model": "other" }))).await.ok();
    app.chat().await.is(402, "quota_exceeded");
    assert_eq!(gateway.messages(LICENSE).await, 4);
    let config = Config::new(&mock);
    assert!(gateway.reload(config).await, "{}", gateway.logs());
    app.chat().await.ok();
    app.chat_as("JSTAR-NEW-0001").await.is(403, "license_invalid");
    app.ask(&client::chat(&json!({ "model": "other" }))).await.is(404, "model_not_found");
    assert!(gateway.status().await["config"]["refused"].is_null());
}

#[tokio::test]
async fn a_request_under_way_keeps_the_configuration_it_began_with() {
    let gate = Gate::new();
    let reply = Reply::sse(&[sse::ROLE.to_owned(), sse::text("Hel")])
        .then(Step::Gate(gate.clone()))
        .write(sse::text("lo"))
        .write(sse::FINISH)
        .write(sse::DONE);
    let (old, new) = (Mock::start(reply).await, Mock::start(Reply::chat()).await);
    let mut gateway = start(&old).await;
    let mut open = gateway.app().open(&client::chat(&json!({ "stream": true }))).await;
    let mut body = open.chunk().await.unwrap().expect("the first event").to_vec();
    let elsewhere =
        Config::empty().plan("free", "messages: 9/month, models: [\"*\"]").license(LICENSE, "free");
    let elsewhere = elsewhere.provider("q", &new, &["sk-three"]).model(MODEL, "[q/m1]");
    assert!(gateway.reload(elsewhere).await, "{}", gateway.logs());
    gateway.app().chat().await.ok();
    assert_eq!((old.seen().len(), new.seen().len()), (1, 1));
    gate.open();
    while let Some(chunk) = soon("the rest of the stream", open.chunk()).await.unwrap() {
        body.extend_from_slice(&chunk);
    }
    assert_eq!(body, sse::plain(&["Hel", "lo"]).concat().as_bytes());
    eventually("both are charged", Duration::from_secs(5), || async {
        gateway.messages(LICENSE).await == 2
    })
    .await;
}

#[tokio::test]
async fn a_broken_file_changes_nothing_and_says_what_is_wrong() {
    let mock = Mock::start(Reply::chat()).await;
    let gateway = start(&mock).await;
    let since = gateway.status().await["config"]["since"].clone();
    let file = gateway.dir.path().join("gatekeeper.yaml");
    let good = fs::read_to_string(&file).unwrap();
    let broken = [
        (good.replace("plans:", "planz:"), "did you mean `plans`"),
        (good.replace("[p/m1]", "[q/m1]"), "unknown provider `q`"),
        ("server: {".to_owned(), "gatekeeper.yaml:"),
        (String::new(), "gatekeeper.yaml:"),
        (good.split("plans:").next().unwrap().to_owned(), "plans"),
    ];
    for (times, (text, says)) in broken.into_iter().enumerate() {
        fs::write(&file, &text).unwrap();
        assert!(!gateway.read_again().await, "{text}");
        gateway.logged(says).await;
        let config = gateway.status().await["config"].clone();
        let problems = config["refused"]["problems"].as_array().unwrap();
        assert!(!problems.is_empty() && problems[0].as_str().unwrap().contains(':'), "{config}");
        assert_eq!(config["since"], since);
        let failed = gateway.metrics().await;
        let failed = failed.sum("gatekeeper_config_reload_total", &[("result", "failure")]);
        assert_eq!(failed, (times + 1) as f64);
        gateway.app().chat().await.ok();
    }
    fs::remove_file(&file).unwrap();
    assert!(!gateway.read_again().await);
    fs::write(&file, good).unwrap();
    assert!(gateway.read_again().await);
    assert!(gateway.status().await["config"]["refused"].is_null());
}

#[tokio::test]
async fn what_only_a_start_can_change_is_named_and_stays() {
    let mock = Mock::start(Reply::chat()).await;
    let mut gateway = start(&mock).await;
    let file = gateway.dir.path().join("gatekeeper.yaml");
    let good = fs::read_to_string(&file).unwrap();
    let changed = good
        .replace("threads: 1", "threads: 2")
        .replace(&gateway.public.to_string(), "127.0.0.1:1")
        .replace("gatekeeper.db", "other.db")
        + "log: { access: off, level: debug }\n";
    fs::write(&file, changed).unwrap();
    assert!(gateway.read_again().await, "{}", gateway.logs());
    let config = gateway.status().await["config"].clone();
    let waits = json!(["server.listen", "server.threads", "store"]);
    assert_eq!(config["waits_for_restart"], waits);
    for field in waits.as_array().unwrap() {
        let line = format!(
            "the change of {} takes effect after `gatekeeper upgrade` or a restart",
            field.as_str().unwrap()
        );
        gateway.logged(&line).await;
    }
    gateway.app().chat().await.ok();
    let same = gateway.config.clone();
    assert!(gateway.reload(same).await);
    assert_eq!(gateway.status().await["config"]["waits_for_restart"], json!([]));
}

#[tokio::test]
async fn a_reload_never_opens_what_was_closed_nor_shuts_everybody_out() {
    let mock = Mock::start(Reply::chat()).await;
    let dir = Arc::new(tempfile::TempDir::new().unwrap());
    let token = dir.path().join("token");
    crate::support::yaml::write_private(&token, "a-long-admin-token-0123456789");
    let config = Config::new(&mock).admin(&format!("token: \"file:{}\"", token.display()));
    let mut gateway = Gateway::start_in(dir, config.clone()).await;
    assert!(!gateway.reload(Config::new(&mock)).await);
    gateway.logged("admin.token").await;
    assert!(gateway.reload(config).await);
    // It is said that there is none.
    assert!(gateway.reload(Config::new(&mock).admin("token: none")).await, "{}", gateway.logs());
    let file = gateway.dir.path().join("gatekeeper.yaml");
    let text = fs::read_to_string(&file).unwrap();
    let (before, rest) = text.split_once("  sources:\n").unwrap();
    let (sources, after) = rest.split_once("plans:\n").unwrap();
    let with = |sources: &str| format!("{before}{sources}plans:\n{after}");
    for (sources, says) in [
        ("  sources: []\n", "must not be empty"),
        ("", "licenses.sources: missing"),
        ("  sources: nobody\n", "`none`"),
        ("  sources:\n    - static: { keys: [] }\n", "no licence key in any source"),
    ] {
        fs::write(&file, with(sources)).unwrap();
        assert!(!gateway.read_again().await, "{sources}");
        gateway.logged(says).await;
        gateway.app().chat().await.ok();
    }
    // Another source is left, but those who are listed would be shut out.
    let shop =
        "    - gumroad: { base_url: \"http://127.0.0.1:9\", products: { x: { \"*\": free } } }\n";
    fs::write(&file, with(&format!("  sources:\n    - static: {{ keys: [] }}\n{shop}"))).unwrap();
    assert!(!gateway.read_again().await);
    gateway.logged("the list of `static` is empty now, and the 1 licences").await;
    fs::write(&file, with(&format!("  sources:\n{shop}"))).unwrap();
    assert!(gateway.read_again().await, "{}", gateway.logs());
    assert_ne!(gateway.app().chat().await.status, 200);
    fs::write(&file, with(&format!("  sources:\n{sources}"))).unwrap();
    assert!(gateway.read_again().await, "{}", gateway.logs());
    gateway.app().chat().await.ok();
    // It is said that nobody may come in.
    fs::write(&file, with("  sources: none\n")).unwrap();
    assert!(gateway.read_again().await, "{}", gateway.logs());
    gateway.app().chat().await.is(403, "license_invalid");
    fs::write(&file, text).unwrap();
    assert!(gateway.read_again().await, "{}", gateway.logs());
    gateway.app().chat().await.ok();
}

/// A request that is under way when its keys are replaced asks none of them again, and is served by those that are
/// there now.
#[tokio::test]
async fn a_removed_key_gets_no_more_request() {
    let gate = Gate::new();
    let mock = Mock::start(Reply::chat()).await;
    let held = Reply::error(401).before_head(Step::Gate(gate.clone()));
    for key in ["sk-one", "sk-two"] {
        mock.key(key, [held.clone()]);
    }
    let mut gateway = start(&mock).await;
    let app = gateway.app();
    let apps: Vec<_> = (0..6)
        .map(|_| {
            let app = app.clone();
            tokio::spawn(async move { app.chat().await })
        })
        .collect();
    eventually("all are asked", Duration::from_secs(5), || async { mock.count() == 6 }).await;
    let config = gateway.config.clone();
    assert!(gateway.reload(config.keys("p", &["sk-new"])).await, "{}", gateway.logs());
    mock.forget();
    gate.open();
    for app in apps {
        soon("an answer", app).await.unwrap().ok();
    }
    assert_eq!(mock.keys(), ["sk-new"; 6]);
    // What comes back is used again.
    for keys in [["sk-other"], ["sk-new"]] {
        mock.forget();
        let config = gateway.config.clone();
        assert!(gateway.reload(config.keys("p", &keys)).await, "{}", gateway.logs());
        gateway.app().chat().await.ok();
        assert_eq!(mock.keys(), keys);
    }
}

/// A key that is taken away between its choice and the moment when the request is written, here while TLS is agreed
/// on, is not used either.
#[tokio::test]
async fn a_key_that_goes_while_its_connection_is_made_is_not_used() {
    let mock = Mock::tls(&["localhost"], Reply::chat()).await;
    let relay = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://localhost:{}/v1", relay.local_addr().unwrap().port());
    let (accepted, gate, behind) = (Arc::new(AtomicUsize::new(0)), Gate::new(), mock.addr);
    let (count, wait) = (accepted.clone(), gate.clone());
    tokio::spawn(async move {
        loop {
            let (mut near, _) = relay.accept().await.unwrap();
            count.fetch_add(1, Relaxed);
            let wait = wait.clone();
            tokio::spawn(async move {
                wait.pass().await;
                let mut far = tokio::net::TcpStream::connect(behind).await.unwrap();
                let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
            });
        }
    });
    let dir = Arc::new(tempfile::TempDir::new().unwrap());
    let roots = dir.path().join("roots.pem");
    fs::write(&roots, crate::support::ca::root()).unwrap();
    let config = Config::new(&mock)
        .env("SSL_CERT_FILE", roots.to_str().unwrap())
        .provider_at("p", &url, "", &["sk-one"])
        .timeouts("p", "connect: 20s");
    let mut gateway = Gateway::start_in(dir, config.clone()).await;
    let app = gateway.app();
    let asked = tokio::spawn(async move { app.chat().await });
    eventually("it connects", Duration::from_secs(5), || async { accepted.load(Relaxed) > 0 })
        .await;
    assert!(gateway.reload(config.keys("p", &["sk-new"])).await, "{}", gateway.logs());
    gate.open();
    soon("an answer", asked).await.unwrap().ok();
    assert_eq!(mock.keys(), ["sk-new"]);
    let metrics = gateway.metrics().await;
    assert_eq!(metrics.sum("gatekeeper_upstream_attempts_total", &[("outcome", "key_gone")]), 1.0);
}

/// The same where the whole provider is another one now, and where nothing is left of the model.
#[tokio::test]
async fn requests_under_way_find_the_provider_that_took_their_place() {
    let gate = Gate::new();
    let (old, new) = (Mock::start(Reply::chat()).await, Mock::start(Reply::chat()).await);
    old.answer([Reply::error(500).before_head(Step::Gate(gate.clone()))]);
    let mut gateway = start(&old).await;
    let ask = |gateway: &Gateway| {
        let app = gateway.app();
        tokio::spawn(async move { app.chat().await })
    };
    let first = ask(&gateway);
    eventually("it is asked", Duration::from_secs(5), || async { old.count() == 1 }).await;
    let plan = "messages: 100000/month, models: [\"*\"]";
    let elsewhere = Config::empty().plan("free", plan).license(LICENSE, "free");
    let elsewhere = elsewhere.provider("zero", &old, &["sk-x"]).provider("q", &new, &["sk-three"]);
    let elsewhere = elsewhere.more("budget: { day: $20 }").model(MODEL, "[q/m1]");
    assert!(gateway.reload(elsewhere.clone()).await, "{}", gateway.logs());
    gate.open();
    soon("an answer", first).await.unwrap().ok();
    assert_eq!((old.count(), new.keys()), (1, vec!["sk-three".to_owned()]));
    assert_eq!(gateway.messages(LICENSE).await, 1);
    // Nothing there serves that model any more: the app is told, and pays nothing.
    let gate = Gate::new();
    new.answer([Reply::error(500).before_head(Step::Gate(gate.clone()))]);
    let second = ask(&gateway);
    eventually("it is asked", Duration::from_secs(5), || async { new.count() == 2 }).await;
    let nothing = Config::empty().plan("free", plan).license(LICENSE, "free");
    let nothing = nothing.provider("zero", &old, &["sk-x"]).model("other", "[zero/m1]");
    assert!(gateway.reload(nothing).await, "{}", gateway.logs());
    gate.open();
    soon("an answer", second).await.unwrap().is(502, "upstream_error");
    assert_eq!(gateway.messages(LICENSE).await, 1);
}

#[tokio::test]
async fn a_secret_in_a_file_is_live_when_that_file_is_saved() {
    let mock = Mock::start(Reply::chat()).await;
    let gateway = start(&mock).await;
    for key in ["p-1.key", "p-2.key"] {
        crate::support::yaml::write_private(&gateway.dir.path().join(key), "sk-rotated\n");
    }
    eventually("the new secret is used", Duration::from_secs(5), || async {
        gateway.app().chat().await.ok();
        mock.last().key == "sk-rotated"
    })
    .await;
    gateway.logged("provider p: key p-1: secret changed").await;
    assert!(!gateway.logs().contains("sk-rotated"));
    // A secret that is gone is a refused reload; back again, the next look takes it.
    let file = gateway.dir.path().join("p-1.key");
    fs::remove_file(&file).unwrap();
    let refused = async |is: bool| {
        eventually("it is seen", Duration::from_secs(5), || async {
            gateway.status().await["config"]["refused"].is_null() != is
        })
        .await;
    };
    refused(true).await;
    gateway.app().chat().await.ok();
    crate::support::yaml::write_private(&file, "sk-back");
    refused(false).await;
}

#[tokio::test]
async fn token_hosts_and_header_timeout_are_live() {
    let mock = Mock::start(Reply::chat()).await;
    let dir = Arc::new(tempfile::TempDir::new().unwrap());
    let token = dir.path().join("token");
    crate::support::yaml::write_private(&token, "the-first-admin-token");
    let base = Config::new(&mock).admin(&format!("token: \"file:{}\"", token.display()));
    let gateway = Gateway::start_in(dir, base).await;
    let looks = async |name: &str, value: &str| {
        let request = gateway.stranger().get("/status").header(name, value);
        request.send().await.unwrap().status().as_u16()
    };
    assert_eq!(looks("authorization", "Bearer the-first-admin-token").await, 200);
    assert_eq!(looks("host", "board.example").await, 403);
    crate::support::yaml::write_private(&token, "the-second-admin-token");
    let file = gateway.dir.path().join("gatekeeper.yaml");
    let text = fs::read_to_string(&file).unwrap();
    let changed = text.replace("token: \"file", "hosts: [board.example], token: \"file");
    let changed = changed.replace("grace: 5s", "grace: 5s, limits: { header_timeout: 300ms }");
    fs::write(&file, changed).unwrap();
    gateway.signal(Signal::HUP);
    eventually("the second token is live", Duration::from_secs(5), || async {
        looks("authorization", "Bearer the-second-admin-token").await == 200
    })
    .await;
    assert_eq!(looks("authorization", "Bearer the-first-admin-token").await, 401);
    // The name is known; the token is asked for.
    assert_eq!(looks("host", "board.example").await, 401);
    assert_eq!(gateway.status().await["config"]["waits_for_restart"], json!([]));
    for changed in ["admin: token changed", "admin: hosts none → board.example"] {
        gateway.logged(changed).await;
    }
    let mut slow = gateway.raw().await;
    slow.send("GET /healthz HTTP/1.1\r\nhost: x\r\n").await;
    let began = std::time::Instant::now();
    assert_eq!(slow.rest(Duration::from_secs(5)).await.as_deref(), Some(&b""[..]));
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
}

#[tokio::test]
async fn another_secret_heals_a_key_at_once_and_its_neighbours_keep_their_state() {
    let mock = Mock::start(Reply::chat()).await;
    mock.key("sk-bad", [Reply::error(401)]);
    let config = Config::new(&mock).keys("p", &["sk-bad", "sk-two"]);
    let mut gateway = Gateway::start(config.clone()).await;
    for _ in 0..4 {
        gateway.app().chat().await.ok();
    }
    let states = async |gateway: &Gateway| {
        let status = gateway.status().await;
        let keys = status["keys"].as_array().unwrap().clone();
        let of = |key: &serde_json::Value| {
            (key["state"].as_str().unwrap().to_owned(), key["requests"].as_u64().unwrap())
        };
        (of(&keys[0]), of(&keys[1]))
    };
    let (bad, good) = states(&gateway).await;
    assert_eq!((&*bad.0, &*good.0), ("quarantined", "ready"));
    // The same file again changes nothing.
    assert!(gateway.reload(config.clone()).await);
    assert_eq!(states(&gateway).await, (bad, good.clone()));
    assert!(gateway.reload(config.keys("p", &["sk-mended", "sk-two"])).await);
    assert_eq!(states(&gateway).await, (("ready".to_owned(), 0), good));
}

#[tokio::test]
async fn a_provider_with_a_new_name_is_found() {
    let mock = Mock::start(Reply::chat()).await;
    let mut gateway = start(&mock).await;
    let named = mock.url().replace("127.0.0.1", "localhost");
    let config = gateway
        .config
        .clone()
        .provider_at("named", &named, "", &["sk-three"])
        .model(MODEL, "[named/m1]");
    for _ in 0..2 {
        assert!(gateway.reload(config.clone()).await, "{}", gateway.logs());
        gateway.app().chat().await.ok();
    }
    assert_eq!(mock.seen().len(), 2);
}

/// Every request is answered, whatever changes meanwhile.
#[tokio::test]
async fn reloads_under_load_disturb_nobody() {
    let mock = Mock::start(Reply::chat()).await;
    let mut gateway = start(&mock).await;
    let app = gateway.app();
    let done = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let load: Vec<_> = (0..8)
        .map(|_| {
            let (app, done) = (app.clone(), done.clone());
            tokio::spawn(async move {
                let mut served = 0;
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    app.chat().await.ok();
                    served += 1;
                }
                served
            })
        })
        .collect();
    let config = gateway.config.clone();
    for turn in 0..12 {
        let config = match turn % 2 {
            0 => config.clone().model("extra", "[p/m9]").keys("p", &["sk-one"]),
            _ => config.clone(),
        };
        assert!(gateway.reload(config).await, "{}", gateway.logs());
    }
    done.store(true, std::sync::atomic::Ordering::Relaxed);
    let mut served = 0;
    for load in load {
        served += load.await.unwrap();
    }
    assert!(served > 100, "{served}");
    assert_eq!(gateway.messages(LICENSE).await, served);
}
