//! Secrets and prompts leave no trace: not in logs, metrics, the status, files or the process table.

use std::{fs, path::Path, sync::Arc, time::Duration};

use rustix::process::Signal;
use serde_json::json;

use crate::support::{
    Config, Gateway, Mock, Reply, Step, client, contains, run, run_with_input, sse,
    yaml::write_private,
};

const SEALED: &str = "sk-canaryQ7sealedQ7master";
const FILED: &str = "sk-canaryQ8filedQ8master";
const HOLDER: &str = "CANARYQ9-HOLDER-LICENCE";
const SPENT: &str = "CANARYQ9-SPENT-LICENCE";
const STRANGER: &str = "CANARYQ9-STRANGER-LICENCE";
const PROMPT: &str = "canaryQ5 prompt that nobody may keep";
const ANSWER: &str = "canaryQ6 answer that nobody may keep";

/// What must never be found. Short enough to show in a fragment as well.
const CANARIES: [&str; 6] =
    ["canaryQ7", "canaryQ8", "CANARYQ9", "canaryQ5", "canaryQ6", "canaryq9"];

/// Every file in this directory and those below.
pub fn files_below(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(files_below(&path));
        } else {
            files.push(path);
        }
    }
    files
}

fn nothing_in(what: &str, bytes: &[u8]) {
    for canary in CANARIES {
        assert!(!contains(bytes, canary), "{canary} stands in {what}");
    }
}

/// A vault, and the sealed form of this secret for this key.
pub fn seal(dir: &Path, config: &Config, provider: &str, id: &str, secret: &str) -> String {
    let file = config.file(dir);
    let file = file.to_str().unwrap();
    let output = run_with_input(&["seal", "-c", file, provider, id], dir, secret);
    let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    assert!(output.status.success(), "{said}");
    assert!(!said.contains(secret), "seal shows the secret");
    let start = said.find("sealed:v1:").unwrap_or_else(|| panic!("no sealed secret in {said}"));
    let rest = &said[start..];
    let end = rest.find(|c: char| c.is_whitespace() || c == '"' || c == '\'').unwrap_or(rest.len());
    rest[..end].to_owned()
}

#[tokio::test]
async fn no_secret_and_no_prompt_stands_anywhere() {
    let answer = sse::CHAT.replace("Hel\\u006co", ANSWER);
    let echo = format!(
        "{{\"error\":{{\"message\":\"bad: {PROMPT} with {FILED}\",\"type\":\"invalid_request_error\",\"param\":null,\"code\":null}}}}"
    );
    let mock = Mock::start(Reply::json(200, answer.clone())).await;
    let dir = Arc::new(tempfile::TempDir::new().unwrap());
    let kek = dir.path().join("kek");
    let config = Config::new(&mock)
        .plan("spent", "messages: 1/month, models: [\"*\"]")
        .license(HOLDER, "free")
        .license(SPENT, "spent")
        .keys("p", &["not used", FILED])
        .more(&format!(
            "vault: {{ kek: \"file:{}\" }}\nlog: {{ access: stdout, level: trace }}",
            kek.display()
        ));
    let sealed = seal(dir.path(), &config, "p", "p-1", SEALED);
    assert!(!sealed.contains(SEALED));
    let config = config.secret("p", 0, &sealed).env("RUST_LOG", "trace").env("RUST_BACKTRACE", "1");
    let mut gateway = Gateway::start_in(dir.clone(), config).await;
    let app = gateway.app();
    let body = |more: serde_json::Value| {
        let mut body = client::chat(&more);
        body["messages"] = json!([{ "role": "user", "content": PROMPT }]);
        body
    };

    // Success, on both keys.
    for _ in 0..2 {
        app.ask_as(HOLDER, &body(json!({ "user": "canaryQ5" }))).await.ok();
    }
    assert_eq!(mock.keys().iter().filter(|key| *key == SEALED).count(), 1, "the sealed key works");
    // A rate limit that another key rescues; bad credentials; the app's own mistake, echoed.
    mock.answer([
        Reply::error(429).header("retry-after-ms", "50"),
        Reply::json(200, answer.clone()),
    ]);
    app.ask_as(HOLDER, &body(json!({}))).await.ok();
    mock.answer([Reply::json(400, echo.clone())]);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(app.ask_as(HOLDER, &body(json!({}))).await.status, 400);
    // Streams: whole, broken, abandoned.
    mock.answer([
        Reply::sse(&sse::with_usage(&[ANSWER])),
        Reply::sse(&[sse::text(ANSWER)])
            .then(Step::Wait(Duration::from_millis(100)))
            .then(Step::Close),
        Reply::sse(&[sse::text(ANSWER)]).then(Step::Hang),
    ]);
    let stream = body(json!({ "stream": true }));
    app.ask_as(HOLDER, &stream).await.ok();
    app.ask_as(HOLDER, &stream).await;
    let open = app.request("POST", "/chat").bearer_auth(HOLDER).body(stream.to_string()).send();
    drop(open.await);
    // Used up, unknown, malformed.
    mock.answer([Reply::json(200, answer)]);
    app.ask_as(SPENT, &body(json!({}))).await.ok();
    app.ask_as(SPENT, &body(json!({}))).await.is(402, "quota_exceeded");
    app.ask_as(STRANGER, &body(json!({}))).await.is(403, "license_invalid");
    app.ask_as(HOLDER, &body(json!({ "model": PROMPT }))).await.is(404, "model_not_found");
    app.ask_as(HOLDER, &body(json!({ "n": 3 }))).await.is(400, "invalid_request");
    for bytes in [
        format!(
            "POST /chat HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {HOLDER}\r\nx-api-key: {HOLDER}\r\ncontent-length: 0\r\n\r\n"
        ),
        format!(
            "POST /chat HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {HOLDER}\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nx"
        ),
        format!("POST /{PROMPT} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {HOLDER}\r\n\r\n"),
        format!(
            "GET /v1/me?key={HOLDER} HTTP/1.1\r\nhost: x\r\nauthorization : Bearer {HOLDER}\r\n\r\n"
        ),
        format!(
            "POST /chat HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {HOLDER}\r\ncontent-length: 40\r\n\r\n{{\"model\":\"fast\",\"messages\":\"{PROMPT}\",\"a\":1,\"a\":1}}"
        ),
        format!("\0\u{1}{HOLDER}\r\n\r\n"),
    ] {
        let mut raw = gateway.raw().await;
        raw.send(bytes).await;
        raw.rest(Duration::from_millis(300)).await;
    }

    let process = format!("/proc/{}", gateway.pid());
    for name in ["cmdline", "environ"] {
        // A process that is not dumpable does not even show them.
        if let Ok(bytes) = fs::read(format!("{process}/{name}")) {
            nothing_in(name, &bytes);
        }
    }
    nothing_in("metrics", gateway.metrics().await.0.as_bytes());
    nothing_in("the status", gateway.status().await.to_string().as_bytes());
    gateway.signal(Signal::TERM);
    gateway.exited(Duration::from_secs(10)).await;
    let logs = gateway.logs();
    assert!(logs.len() > 1_000, "a run at trace says more than that:\n{logs}");
    nothing_in("the logs", logs.as_bytes());
    let data = gateway.store().parent().unwrap().to_path_buf();
    let files = files_below(&data);
    assert!(!files.is_empty());
    for file in files {
        nothing_in(&file.display().to_string(), &fs::read(&file).unwrap());
    }
    for command in ["check", "explain"] {
        let output = run(&[command, "-c", "gatekeeper.yaml"], dir.path());
        nothing_in(command, &[output.stdout, output.stderr].concat());
    }
}

#[tokio::test]
async fn a_broken_configuration_does_not_show_its_secrets() {
    let dir = tempfile::TempDir::new().unwrap();
    let file = dir.path().join("gatekeeper.yaml");
    write_private(&dir.path().join("key"), FILED);
    for yaml in [
        format!(
            "licenses: {{ sources: [ {{ static: {{ keys: [ {{ key: {HOLDER}, plam: free }} ] }} }} ] }}\n"
        ),
        format!(
            "providers: {{ p: {{ base_url: \"https://x.example\", keys: [ {{ id: a, secret: {FILED} }} ] }} }}\n"
        ),
        format!(
            "providers: {{ p: {{ keys: [ {{ id: a, secret: \"sealed:v1:x:{SEALED}\" }} ] }} }}\n"
        ),
        format!("admin: {{ token: {HOLDER} }}\n"),
    ] {
        fs::write(&file, yaml).unwrap();
        let output = run(&["check", "-c", file.to_str().unwrap()], dir.path());
        assert_eq!(output.status.code(), Some(1));
        nothing_in("what check says", &[output.stdout, output.stderr].concat());
    }
}
