//! The admin listener's tokens: one that may act, one that only reads; neither is ever refused because of others'
//! wrong ones, and a browser that has logged in stays so over a restart.

use std::{fs, path::Path, process::Command, sync::Arc, time::Duration};

use serde_json::json;
use tempfile::TempDir;

use crate::{
    admin::admin_access::{TOKEN, cookie, locked},
    support::{
        Answer, Config, Gateway, Mock, Reply, ca, eventually, gateway, run, yaml::write_private,
    },
};

const READER: &str = "a-token-that-only-reads-01";

async fn get(gateway: &Gateway, path: &str, token: &str) -> Answer {
    let request = gateway.stranger().get(path).header("accept", "application/json");
    Answer::of(request.header("authorization", format!("Bearer {token}"))).await
}

async fn grant(gateway: &Gateway, headers: &[(&str, String)]) -> Answer {
    let mut request = gateway.stranger().request("POST", "/api/licenses/show");
    for (name, value) in headers {
        request = request.header(*name, value);
    }
    let body = json!({ "key": crate::support::LICENSE }).to_string();
    Answer::of(request.header("content-type", "application/json").body(body)).await
}

#[tokio::test]
async fn the_read_token_reads_and_changes_nothing() {
    let mock = Mock::start(Reply::chat()).await;
    let dir = Arc::new(TempDir::new().unwrap());
    let (token, reader) = (dir.path().join("token"), dir.path().join("reader"));
    write_private(&token, TOKEN);
    write_private(&reader, READER);
    let admin =
        format!("token: \"file:{}\", read_token: \"file:{}\"", token.display(), reader.display());
    let gateway = Gateway::start_in(dir, Config::new(&mock).admin(&admin)).await;
    for path in ["/metrics", "/status", "/api/history"] {
        assert_eq!(get(&gateway, path, READER).await.status, 200, "{path}");
        assert_eq!(get(&gateway, path, TOKEN).await.status, 200, "{path}");
        assert_eq!(get(&gateway, path, "neither-of-the-two-tokens").await.status, 401, "{path}");
    }
    let bearer = |token: &str| [("authorization", format!("Bearer {token}"))];
    let refused = grant(&gateway, &bearer(READER)).await;
    assert_eq!(refused.status, 403, "{}", refused.text());
    assert!(refused.text().contains("only reads"), "{}", refused.text());
    assert_eq!(grant(&gateway, &bearer(TOKEN)).await.status, 200);
    // A browser that logs in with it looks, too, and acts as little.
    let login = gateway.stranger().request("POST", "/api/session");
    let body = json!({ "token": READER }).to_string();
    let answer = Answer::of(login.header("content-type", "application/json").body(body)).await;
    let set = answer.header("set-cookie").unwrap().split(';').next().unwrap().to_owned();
    let seen = gateway.stranger().get("/status").header("accept", "application/json");
    assert_eq!(Answer::of(seen.header("cookie", &set)).await.status, 200);
    assert_eq!(grant(&gateway, &[("cookie", set)]).await.status, 403);
}

#[tokio::test]
async fn wrong_tokens_never_keep_the_right_one_out() {
    let (_mock, gateway) = locked("").await;
    let mut refusals = Vec::new();
    for number in 0..40 {
        refusals.push(
            get(&gateway, "/metrics", &format!("a-wrong-token-of-length-{number}")).await.status,
        );
        assert_eq!(get(&gateway, "/metrics", TOKEN).await.status, 200, "after {number} wrong ones");
    }
    assert!(refusals.iter().all(|status| *status == 401), "{refusals:?}");
    for _ in 0..12 {
        refusals.push(get(&gateway, "/metrics", "a-wrong-token-of-length").await.status);
    }
    // Guessing is still slowed for who knows none.
    assert_eq!(refusals.last(), Some(&429));
    assert_eq!(get(&gateway, "/metrics", TOKEN).await.status, 200);
    assert_eq!(grant(&gateway, &[("authorization", format!("bearer {TOKEN}"))]).await.status, 200);
}

#[tokio::test]
async fn a_login_outlives_a_restart_and_not_its_token() {
    let (mock, mut gateway) = locked("").await;
    let cookie = cookie(&gateway).await;
    let seen = async |gateway: &Gateway| {
        let request = gateway.stranger().get("/status").header("accept", "application/json");
        Answer::of(request.header("cookie", &cookie)).await.status
    };
    assert_eq!(seen(&gateway).await, 200);
    gateway.kill();
    let (dir, config) = (gateway.dir.clone(), gateway.config.clone());
    drop(gateway);
    let gateway = Gateway::start_in(dir.clone(), config.clone()).await;
    assert_eq!(seen(&gateway).await, 200, "{}", gateway.logs());
    drop(gateway);
    write_private(&dir.path().join("token"), "another-admin-token-012345");
    let gateway = Gateway::start_in(dir, config).await;
    assert_eq!(seen(&gateway).await, 401);
    drop(mock);
}

#[test]
fn short_tokens_and_tokens_in_clear_are_refused_by_check() {
    let dir = TempDir::new().unwrap();
    let check = |admin: &str| {
        let mock = "providers: { p: { base_url: stand-in } }\nmodels: { fast: [p/m] }\n";
        let yaml = format!(
            "admin: {{ {admin} }}\n\
             licenses: {{ sources: [ {{ static: {{ keys: [ {{ key: JSTAR-TEST-0001, plan: a }} ] }} }} ] }}\n\
             plans: {{ a: {{ models: [fast] }} }}\n{mock}"
        );
        let file = dir.path().join("gatekeeper.yaml");
        fs::write(&file, yaml).unwrap();
        let out = run(&["check", "-c", file.to_str().unwrap()], dir.path());
        (out.status.success(), String::from_utf8_lossy(&out.stderr).into_owned())
    };
    let [short, long] = ["short", "long"].map(|name| dir.path().join(name));
    write_private(&short, "fifteen-letters");
    write_private(&long, "sixteen-letters-");
    let (short, long) = (format!("file:{}", short.display()), format!("file:{}", long.display()));
    for (admin, is_good, says) in [
        (format!("token: '{short}'"), false, "shorter than 16 characters"),
        (format!("token: '{long}'"), true, ""),
        (format!("token: '{long}', read_token: '{short}'"), false, "shorter than 16 characters"),
        (format!("read_token: '{long}'"), false, "goes with `token` only"),
        (format!("listen: '0.0.0.0:9090', token: '{long}'"), false, "in clear"),
        (format!("listen: '0.0.0.0:9090', token: '{long}', behind_tls: true"), true, ""),
        ("listen: '0.0.0.0:9090', behind_tls: true".to_owned(), false, "needs a `token`"),
    ] {
        let (good, said) = check(&admin);
        assert_eq!(good, is_good, "{admin}: {said}");
        assert!(said.contains(says), "{admin}: {said}");
    }
}

/// The page over TLS, and the command line that finds it there.
#[tokio::test]
async fn the_admin_listener_speaks_tls() {
    let mock = Mock::start(Reply::chat()).await;
    let dir = Arc::new(TempDir::new().unwrap());
    let pair = ca::issue(&["localhost", "127.0.0.1"]);
    let (cert, key) = (dir.path().join("admin.pem"), dir.path().join("admin.key"));
    let token = dir.path().join("token");
    fs::write(&cert, pair.cert).unwrap();
    write_private(&key, &pair.key);
    write_private(&token, TOKEN);
    let admin = format!(
        "token: \"file:{}\", tls: {{ cert: {}, key: {} }}",
        token.display(),
        cert.display(),
        key.display()
    );
    let gateway = Gateway::spawn(dir.clone(), Config::new(&mock).admin(&admin));
    let file = dir.path().join("gatekeeper.yaml");
    let command = |name: &str, file: &Path| {
        let mut command = Command::new(gateway::program());
        command.args([name, "-c"]).arg(file).current_dir(dir.path());
        let out = command.output().unwrap();
        let said = [out.stdout, out.stderr].concat();
        (out.status.success(), String::from_utf8_lossy(&said).into_owned())
    };
    eventually("the gateway is well", Duration::from_secs(20), async || command("health", &file).0)
        .await;
    let (_, said) = command("health", &file);
    assert!(said.contains(&format!("https://{}/healthz: well", gateway.admin)), "{said}");
    let (done, said) = command("reload", &file);
    assert!(done, "{said}");
    // Another certificate than the file's is not this gateway's.
    let other = ca::issue(&["localhost"]);
    let (other_cert, other_key) = (dir.path().join("other.pem"), dir.path().join("other.key"));
    fs::write(&other_cert, other.cert).unwrap();
    write_private(&other_key, &other.key);
    let yaml = fs::read_to_string(&file)
        .unwrap()
        .replace(cert.to_str().unwrap(), other_cert.to_str().unwrap())
        .replace(key.to_str().unwrap(), other_key.to_str().unwrap());
    let other_file = dir.path().join("other.yaml");
    fs::write(&other_file, yaml).unwrap();
    let (done, said) = command("reload", &other_file);
    assert!(!done && said.contains("another certificate"), "{said}");
}
