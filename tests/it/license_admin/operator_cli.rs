//! `gatekeeper licenses`, with a gateway and without one.

use std::{path::Path, process::Output, time::Duration};

use serde_json::Value;
use tempfile::TempDir;

use crate::{
    ledger::shared_ledger::start,
    license_admin::operator::show,
    support::{
        Config, Gateway, LICENSE, Mock, Redis, Reply, eventually, gateway::free_port, run,
        run_with_input, yaml::write_private,
    },
};

const PLAN: &str = "messages: 3/month, tokens: 100000/month, models: [fast]";

fn licenses(dir: &Path, words: &[&str], input: &str) -> Output {
    let file = dir.join("gatekeeper.yaml");
    let words = [&["licenses", words[0], "-c", file.to_str().unwrap()], &words[1..]].concat();
    run_with_input(&words, dir, input)
}

#[track_caller]
fn says(output: &Output, code: i32) -> String {
    let text = [&output.stdout[..], &output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert!(!text.contains(LICENSE) && !text.contains("panicked"), "{text}");
    text
}

fn shown(dir: &Path) -> Value {
    let output = licenses(dir, &["show", "--json"], LICENSE);
    says(&output, 0);
    serde_json::from_slice(&output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_gateway_is_asked() {
    let mock = Mock::start(Reply::chat()).await;
    let secrets = TempDir::new().unwrap();
    let token = secrets.path().join("token");
    write_private(&token, "a-long-admin-token-0123456789");
    let config = Config::new(&mock)
        .plan("free", PLAN)
        .admin(&format!("token: \"file:{}\"", token.display()));
    let gateway = Gateway::start(config).await;
    let dir = gateway.dir.path();
    let fresh = says(&licenses(dir, &["show"], &format!("{LICENSE}\n")), 0);
    assert!(fresh.contains("never used here") && fresh.contains("0 of 3 used, 3 left"), "{fresh}");
    gateway.app().chat().await.ok();
    let granted = licenses(dir, &["grant", "--messages", "100", "--note", "sorry"], LICENSE);
    let granted = says(&granted, 0);
    assert!(granted.contains("Granted 100 messages"), "{granted}");
    assert!(granted.contains("1 of 103 used, 102 left until"), "{granted}");
    assert_eq!(gateway.me(LICENSE).await["limits"]["messages"]["limit"], 103);
    let id = shown(dir)["license"].as_str().unwrap().to_owned();
    // Its first digits name it, once what it used is in the database; a program gets all of them.
    eventually("its first digits name it", Duration::from_secs(5), || async {
        licenses(dir, &["show", "--license", &id[..8]], "").status.success()
    })
    .await;
    let usage = run(&["usage", "-c", "gatekeeper.yaml", "--by", "licence", "--csv"], dir);
    let usage = String::from_utf8_lossy(&usage.stdout).into_owned();
    assert!(usage.contains(&format!("\n{id},")), "{usage}");
    let reset = says(&licenses(dir, &["reset", "--license", &id], ""), 0);
    assert!(reset.contains("0 of 103 used"), "{reset}");
    says(&licenses(dir, &["revoke"], LICENSE), 0);
    gateway.app().chat().await.is(403, "license_disabled");
    let restored = says(&licenses(dir, &["restore"], LICENSE), 0);
    assert!(restored.contains("valid") && restored.contains("(sorry)"), "{restored}");
    gateway.app().chat().await.ok();
    // What can't be done ends with 1 and says why.
    for (words, input, why) in [
        (&["show"][..], "NOBODY-KNOWS-IT", "No source knows this licence key"),
        (&["show"], "\n", "expected a licence key"),
        (&["show", "--license", "0a"], "", "64 hex digits"),
        (&["grant"], LICENSE, "above 0"),
    ] {
        let refused = says(&licenses(dir, words, input), 1);
        assert!(refused.contains(why), "{refused}");
    }
    // Of another file: the gateway would soon take a new one of its own.
    let elsewhere = TempDir::new().unwrap();
    let other = elsewhere.path().join("token");
    write_private(&other, "another-admin-token-0123456789");
    let text = std::fs::read_to_string(dir.join("gatekeeper.yaml")).unwrap();
    let text = text.replace(token.to_str().unwrap(), other.to_str().unwrap());
    std::fs::write(elsewhere.path().join("gatekeeper.yaml"), text).unwrap();
    let refused = says(&licenses(elsewhere.path(), &["show"], LICENSE), 1);
    assert!(refused.contains("admin token"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_gateway_the_store_itself_is_changed() {
    let mock = Mock::start(Reply::chat()).await;
    let mut gateway = Gateway::start(Config::new(&mock).plan("free", PLAN)).await;
    gateway.app().chat().await.ok();
    gateway.kill();
    let dir = gateway.dir.clone();
    let granted = says(&licenses(dir.path(), &["grant", "--messages", "4"], LICENSE), 0);
    assert!(granted.contains("1 of 7 used"), "{granted}");
    says(&licenses(dir.path(), &["revoke"], LICENSE), 0);
    assert_eq!(shown(dir.path())["status"], "revoked");
    gateway.restart().await;
    gateway.app().chat().await.is(403, "license_disabled");
    let now = show(&gateway, LICENSE).await;
    assert_eq!(now["limits"]["messages"]["limit"], 7, "{now}");
    assert_eq!(now["actions"].as_array().unwrap().len(), 2);
    // The store is in use, and the file names another address.
    let file = dir.path().join("gatekeeper.yaml");
    let text = std::fs::read_to_string(&file).unwrap();
    let admin = gateway.admin.to_string();
    std::fs::write(&file, text.replace(&admin, &format!("127.0.0.1:{}", free_port()))).unwrap();
    let refused = says(&licenses(dir.path(), &["show"], LICENSE), 1);
    assert!(refused.contains("in use by another gateway"), "{refused}");
    assert!(refused.contains("no gateway answers on the admin address"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_gateway_the_shared_store_is_told() {
    let (mock, redis) = (Mock::start(Reply::chat()).await, Redis::start().await);
    let config = Config::new(&mock).plan("free", PLAN).redis(&redis.url());
    let mut gateways = start(2, config.clone()).await;
    gateways[0].app().chat().await.ok();
    gateways[1].kill();
    let dir = gateways[1].dir.clone();
    let file = dir.path().join("gatekeeper.yaml");
    let words = ["licenses", "grant", "--messages", "4", "-c", file.to_str().unwrap()];
    let mut program = std::process::Command::new(crate::support::gateway::program());
    program.args(words).current_dir(dir.path());
    program.envs(config.env.iter().map(|(name, value)| (name, value)));
    let output = crate::support::gateway::feed(program, LICENSE);
    let said = says(&output, 0);
    assert!(said.contains("1 of 7 used"), "{said}");
    let now = show(&gateways[0], LICENSE).await;
    assert_eq!(now["limits"]["messages"]["limit"], 7, "{now}");
    // It outlives the store as what that gateway's own store knows.
    redis.flush();
    gateways[1].restart().await;
    crate::ledger::shared_ledger::are_counting(&gateways).await;
    crate::support::eventually("it is told again", Duration::from_secs(10), || async {
        show(&gateways[0], LICENSE).await["limits"]["messages"]["limit"] == 7
    })
    .await;
}

#[tokio::test]
async fn without_gateway_and_store_nothing_is_made_up() {
    let mock = Mock::start(Reply::chat()).await;
    let dir = TempDir::new().unwrap();
    Config::new(&mock).file(dir.path());
    let refused = says(&licenses(dir.path(), &["grant", "--messages", "4"], LICENSE), 1);
    assert!(refused.contains("is not here"), "{refused}");
    assert!(!dir.path().join("data/gatekeeper.db").exists());
}
