//! The access log and the gateway's own log, while they are moved, changed and turned up and down.

use std::{fs, path::Path, time::Duration};

use rustix::process::Signal;
use serde_json::Value;

use crate::support::{Config, Gateway, LICENSE, Mock, Reply, eventually};

const SOON: Duration = Duration::from_secs(10);

async fn gateway(log: &str) -> (Mock, Gateway) {
    let mock = Mock::start(Reply::chat()).await;
    let gateway = Gateway::start(Config::new(&mock).more(&format!("log: {{ {log} }}"))).await;
    (mock, gateway)
}

fn read(path: &Path) -> Vec<Value> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// So many requests stand in this file of the gateway's directory.
async fn has(gateway: &Gateway, name: &str, count: usize) -> Vec<Value> {
    let path = gateway.dir.path().join(name);
    eventually(&format!("{count} lines in {name}"), SOON, || async {
        chats(&read(&path)).len() == count
    })
    .await;
    chats(&read(&path))
}

fn chats(lines: &[Value]) -> Vec<Value> {
    lines.iter().filter(|line| line["endpoint"] == "chat").cloned().collect()
}

#[tokio::test]
async fn a_request_is_a_line_with_the_fields_of_its_record() {
    let (_mock, gateway) = gateway("access: \"file:access.log\"").await;
    gateway.app().chat().await.ok();
    let lines = has(&gateway, "access.log", 1).await;
    let line = lines[0].as_object().unwrap();
    let names: Vec<&str> = line.keys().map(String::as_str).collect();
    let mut expected = [
        "time",
        "request",
        "license",
        "endpoint",
        "path",
        "error",
        "plan",
        "model",
        "served",
        "provider",
        "key",
        "source",
        "input",
        "output",
        "cached",
        "cache_write",
        "wasted",
        "charged",
        "cost",
        "status",
        "ms",
        "attempts",
    ];
    expected.sort_unstable();
    assert_eq!(names, expected);
    assert_eq!((&line["model"], &line["served"]), (&"fast".into(), &"p/m1".into()));
    assert_eq!((&line["status"], &line["attempts"]), (&200.into(), &1.into()));
    assert!(!fs::read_to_string(gateway.dir.path().join("access.log")).unwrap().contains(LICENSE));
}

#[tokio::test]
async fn a_log_that_was_moved_away_is_begun_anew_at_sighup_whatever_the_file_is_like() {
    let (_mock, gateway) = gateway("access: \"file:access.log\"").await;
    let path = |name: &str| gateway.dir.path().join(name);
    gateway.app().chat().await.ok();
    has(&gateway, "access.log", 1).await;
    fs::rename(path("access.log"), path("access.log.1")).unwrap();
    gateway.signal(Signal::HUP);
    eventually("it is begun anew", SOON, || async { path("access.log").exists() }).await;
    gateway.app().chat().await.ok();
    has(&gateway, "access.log", 1).await;
    // A configuration that is broken meanwhile does not stop it.
    fs::write(path("gatekeeper.yaml"), "nonsense: true\n").unwrap();
    fs::rename(path("access.log"), path("access.log.2")).unwrap();
    gateway.signal(Signal::HUP);
    eventually("it is begun anew", SOON, || async { path("access.log").exists() }).await;
    gateway.app().chat().await.ok();
    has(&gateway, "access.log", 1).await;
    has(&gateway, "access.log.1", 1).await;
    has(&gateway, "access.log.2", 1).await;
}

#[tokio::test]
async fn another_path_holds_from_a_reload_on_and_one_that_can_not_be_written_changes_nothing() {
    let (mock, mut gateway) = gateway("access: off").await;
    let log = |log: &str| Config::new(&mock).more(&format!("log: {{ {log} }}"));
    gateway.app().chat().await.ok();
    for (round, name) in ["one.log", "two.log"].into_iter().enumerate() {
        assert!(gateway.reload(log(&format!("access: \"file:{name}\""))).await);
        assert_eq!(gateway.status().await["config"]["waits_for_restart"], serde_json::json!([]));
        for _ in 0..=round {
            gateway.app().chat().await.ok();
        }
        has(&gateway, name, round + 1).await;
    }
    assert!(!gateway.reload(log("access: \"file:no/such/directory/x.log\"")).await);
    let refused = gateway.status().await["config"]["refused"].to_string();
    assert!(refused.contains("log.access") && refused.contains("no/such/directory"), "{refused}");
    gateway.app().chat().await.ok();
    has(&gateway, "two.log", 3).await;
    assert!(gateway.reload(log("access: off")).await);
    gateway.app().chat().await.ok();
    assert!(gateway.reload(log("access: \"file:three.log\"")).await);
    gateway.app().chat().await.ok();
    has(&gateway, "three.log", 1).await;
    has(&gateway, "two.log", 3).await;
    has(&gateway, "one.log", 1).await;
}

#[tokio::test]
async fn fields_of_the_old_rotation_are_a_warning_that_says_what_took_its_place() {
    let (_mock, gateway) =
        gateway("access: \"file:access.log\", access_max_size: 2KiB, access_keep: 3").await;
    for _ in 0..20 {
        gateway.app().chat().await.ok();
    }
    has(&gateway, "access.log", 20).await;
    assert!(!gateway.dir.path().join("access.log.1").exists());
    for field in ["log.access_max_size", "log.access_keep"] {
        let logs = gateway.logs();
        let line = logs.lines().find(|line| line.contains(field)).unwrap_or_default();
        assert!(line.contains("WARN") && line.contains("logrotate"), "{field}: {logs}");
    }
}

#[tokio::test]
async fn levels_are_by_part_and_change_while_it_runs() {
    let (mock, mut gateway) = gateway("access: off").await;
    let log = |log: &str| Config::new(&mock).more(&format!("log: {{ access: off, {log} }}"));
    let refused = |gateway: &Gateway| gateway.logs().matches("A request was refused").count();
    let refuse = async |gateway: &Gateway| {
        gateway
            .app()
            .ask_as("NO-SUCH-LICENCE", &crate::support::client::chat(&serde_json::json!({})))
            .await;
    };
    refuse(&gateway).await;
    assert_eq!(refused(&gateway), 0);
    assert!(gateway.reload(log("levels: { proxy: debug, pingora: trace }")).await);
    refuse(&gateway).await;
    assert_eq!(refused(&gateway), 1);
    let logs = gateway.logs();
    assert!(!logs.contains("DEBUG pingora") && !logs.contains("TRACE pingora"), "{logs}");
    assert!(logs.contains("log level is capped at `info`"), "{logs}");
    assert!(gateway.reload(log("level: debug, levels: { proxy: error }")).await);
    refuse(&gateway).await;
    assert_eq!(refused(&gateway), 1);
    assert!(!gateway.reload(log("levels: { poool: debug }")).await);
    let said = gateway.status().await["config"]["refused"].to_string();
    assert!(said.contains("did you mean `pool`"), "{said}");
}
