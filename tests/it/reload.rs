//! A changed configuration goes live while requests run, or changes nothing.

use std::{fs, sync::Arc, time::Duration};

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
        assert!(gateway.logs().contains(says), "{says}: {}", gateway.logs());
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
        let line = format!("{} changed, which takes a restart", field.as_str().unwrap());
        assert!(gateway.logs().contains(&line), "{line}: {}", gateway.logs());
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
    assert!(gateway.logs().contains("admin.token"), "{}", gateway.logs());
    assert!(gateway.reload(config).await);
    let file = gateway.dir.path().join("gatekeeper.yaml");
    let text = fs::read_to_string(&file).unwrap();
    let (before, rest) = text.split_once("  sources:\n").unwrap();
    let (_, after) = rest.split_once("plans:\n").unwrap();
    fs::write(&file, format!("{before}  sources: []\nplans:\n{after}")).unwrap();
    assert!(!gateway.read_again().await);
    gateway.app().chat().await.ok();
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

/// Two hundred reloads under load: every request is answered.
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
    for turn in 0..100 {
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
