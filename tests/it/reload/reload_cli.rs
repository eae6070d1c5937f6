//! `gatekeeper reload` and `POST /api/reload`: what changes, before it does and as it does.

use std::{fs, path::Path, process::Output};

use serde_json::{Value, json};

use crate::support::{Config, Gateway, LICENSE, Mock, Reply, eventually, run, yaml::write_private};

const SOON: std::time::Duration = std::time::Duration::from_secs(10);

fn reload(dir: &Path, words: &[&str]) -> Output {
    run(&[&["reload"], words].concat(), dir)
}

#[track_caller]
fn says(output: &Output, code: i32) -> String {
    let text = [&output.stdout[..], &output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    // What the file's own warnings are is no matter here.
    let lines = text.lines().filter(|line| !line.ends_with("(warning)"));
    let text: String = lines.map(|line| format!("{line}\n")).collect();
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert!(
        !text.contains("sk-") && !text.contains("JSTAR") && !text.contains("panicked"),
        "{text}"
    );
    text
}

const APPLY: &[&str] = &["-c", "gatekeeper.yaml"];
const DIFF: &[&str] = &["--diff", "-c", "gatekeeper.yaml"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_are_told_before_and_as_they_are_applied() {
    let mock = Mock::start(Reply::chat()).await;
    let gateway = Gateway::start(Config::new(&mock)).await;
    let dir = gateway.dir.path();
    assert_eq!(says(&reload(dir, DIFF), 0), "Nothing changes.\n");
    let text = fs::read_to_string(dir.join("gatekeeper.yaml")).unwrap();
    write_private(&dir.join("third.key"), "sk-three");
    let changed = text
        .replace("messages: 100000/month", "messages: 5/month")
        .replace("threads: 1", "threads: 2")
        .replace(" ] }\n", ", { id: p-3, secret: \"file:third.key\", group: org-b } ] }\n")
        .replace("fast: [p/m1]", "fast: [p/m2, p/m1]")
        .replace(LICENSE, "JSTAR-TEST-0002");
    // A copy can be compared: what the gateway would make of it.
    fs::write(dir.join("copy.yaml"), &changed).unwrap();
    let expected = "plan free: messages 100000/month → 5/month\n\
                    provider p: key p-3 added (group org-b)\n\
                    model fast: targets p/m1 → p/m2, p/m1\n\
                    1 listed licence added (plan free)\n\
                    1 listed licence removed (plan free)\n\
                    server.threads waits for a hand-over (`gatekeeper upgrade`) or a restart\n\
                    5 changes; nothing was applied.\n";
    assert_eq!(says(&reload(dir, &["--diff", "-c", "copy.yaml"]), 0), expected);
    gateway.app().chat().await.ok();
    let applied = reload(dir, &["-c", "copy.yaml"]);
    let applied = says(&applied, 1);
    assert!(
        applied.contains("This gateway runs with") && applied.contains("copy.yaml"),
        "{applied}"
    );
    gateway.app().chat().await.ok();
    // By its own file; the watcher may be faster, so the answer is looked at where nobody else reads.
    fs::rename(dir.join("copy.yaml"), dir.join("gatekeeper.yaml")).unwrap();
    let applied = says(&reload(dir, APPLY), 0);
    assert!(
        applied.ends_with("5 changes, live.\n")
            || applied.ends_with("Until then nothing changes.\n"),
        "{applied}"
    );
    gateway.app().chat().await.is(403, "license_invalid");
    gateway.app().chat_as("JSTAR-TEST-0002").await.ok();
    let logs = gateway.logs();
    for line in expected.lines().take(5) {
        assert!(logs.contains(&format!("gatekeeper.yaml: {line}")), "{line}: {logs}");
    }
    let config = gateway.status().await["config"].clone();
    assert_eq!(config["waits_for_restart"], json!(["server.threads"]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_refused_is_told_and_exits_with_1() {
    let mock = Mock::start(Reply::chat()).await;
    let dir = std::sync::Arc::new(tempfile::TempDir::new().unwrap());
    write_private(&dir.path().join("token"), "an-admin-token-0123456789");
    let config = Config::new(&mock).admin("token: \"file:token\"");
    let gateway = Gateway::start_in(dir, config).await;
    let dir = gateway.dir.path();
    let file = dir.join("gatekeeper.yaml");
    let text = fs::read_to_string(&file).unwrap();
    // The file alone tells it.
    fs::write(&file, text.replace("plans:", "planz:")).unwrap();
    for words in [DIFF, APPLY] {
        let told = says(&reload(dir, words), 1);
        assert!(told.contains("did you mean `plans`") && told.contains("Refused:"), "{told}");
    }
    // Who has lost the token may not ask; the gateway sees what was saved all the same.
    fs::write(&file, text.replace(", token: \"file:token\"", "")).unwrap();
    for words in [DIFF, APPLY] {
        let told = says(&reload(dir, words), 1);
        assert!(told.contains("admin.token") && told.contains("SIGHUP"), "{told}");
    }
    eventually("it says why it stays as it is", SOON, || async {
        gateway.logs().contains("admin.token: missing")
    })
    .await;
    // A new token goes live by itself.
    write_private(&dir.join("token"), "another-admin-token-0123456789");
    fs::write(&file, &text).unwrap();
    eventually("the new token is live", SOON, || async {
        gateway.logs().contains("admin: token changed")
    })
    .await;
    says(&reload(dir, APPLY), 0);
}

#[tokio::test]
async fn where_no_gateway_runs_that_is_said() {
    let mock = Mock::start(Reply::chat()).await;
    let dir = tempfile::TempDir::new().unwrap();
    Config::new(&mock).file(dir.path());
    for (words, says_what) in [(DIFF, "nothing was compared"), (APPLY, "nothing was reloaded")] {
        let told = says(&reload(dir.path(), words), 1);
        assert!(told.contains("no gateway answers on 127.0.0.1:2"), "{told}");
        assert!(told.contains(says_what), "{told}");
    }
}

#[tokio::test]
async fn the_listener_takes_orders_by_the_rules_of_all_others() {
    let mock = Mock::start(Reply::chat()).await;
    let gateway = Gateway::start(Config::new(&mock)).await;
    let operator = gateway.operator();
    let post = |body: &str| {
        operator
            .request("POST", "/api/reload")
            .body(body.to_owned())
            .header("content-type", "application/json")
    };
    let answer = async |request: reqwest::RequestBuilder| {
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap())
    };
    let (status, dry) = answer(post("{\"dry_run\": true}")).await;
    let same = json!({
        "ok": true, "live": false, "changes": [], "waits_for_restart": [], "warnings": dry["warnings"],
        "problems": [],
    });
    assert_eq!((status, &dry), (200, &same));
    for body in ["", "{}"] {
        let (status, live) = answer(post(body)).await;
        assert_eq!((status, &live["ok"], &live["live"]), (200, &json!(true), &json!(true)));
    }
    for (request, status, code) in [
        (post("{\"dry\": true}"), 400, "invalid_request"),
        (post("{\"text\": \"plans:\"}"), 400, "invalid_request"),
        (post("{\"file\": \"/etc/passwd\"}"), 409, "no_file"),
        (post("{}").header("origin", "https://evil.example"), 403, "forbidden"),
        (post("{}").header("host", "evil.example"), 403, "forbidden"),
        (post("{}").header("authorization", "Bearer wrong"), 401, "unauthorized"),
        (operator.request("POST", "/api/reload").body("{}"), 415, "unsupported_media_type"),
        (operator.get("/api/reload"), 405, "method_not_allowed"),
    ] {
        let (was, body) = answer(request).await;
        assert_eq!((was, body["error"]["code"].as_str()), (status, Some(code)), "{body}");
    }
    let order = json!({ "dry_run": true, "text": "plans: [" }).to_string();
    let (status, broken) = answer(post(&order)).await;
    assert_eq!((status, &broken["ok"]), (200, &json!(false)));
    assert!(broken["problems"][0].as_str().unwrap().contains("is never closed"), "{broken}");
    // Nothing of that changed anything.
    assert!(gateway.status().await["config"]["refused"].is_null());
    gateway.app().chat().await.ok();
}
