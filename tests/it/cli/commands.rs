//! The commands an operator types.

use std::{
    fs, os::unix::fs::PermissionsExt, path::Path, process::Output, sync::Arc, time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    support::{
        Config, Gateway, Http, LICENSE, Mock, Reply, Wire, client, gateway::free_port, run,
        run_with_input, yaml::write_private,
    },
    vault::canary::seal,
};

fn said(output: &Output) -> String {
    let all = [output.stdout.as_slice(), &output.stderr].concat();
    String::from_utf8_lossy(&all).into_owned()
}

fn check(dir: &Path, yaml: &str) -> (Option<i32>, String) {
    let file = dir.join("gatekeeper.yaml");
    fs::write(&file, yaml).unwrap();
    let output = run(&["check", "-c", file.to_str().unwrap()], dir);
    (output.status.code(), said(&output))
}

#[test]
fn check_reports_every_problem_with_line_path_and_a_guess() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("key"), "sk-x").unwrap();
    let yaml = r#"server:
  listen: "127.0.0.1:8080"
  threds: 2
admin: { listen: "127.0.0.1:9090" }
store: { kind: embeded, path: data/gatekeeper.db }
licenses:
  sources:
    - static: { keys: [ { key: JSTAR-DEMO-0001, plan: fre } ] }
plans:
  free:
    mesages: 50/month
    rate: fast
    models: [fast]
providers:
  groq:
    base_url: https://api.groq.com/openai/v1
    dialect: openia
    keys: [ { id: groq-1, secret: "env:GATEKEEPER_TEST_UNSET" } ]
models:
  fast: [ grok/llama ]
filters: [ license, rate_limit, route, qouta, meter ]
"#;
    let (code, said) = check(dir.path(), yaml);
    assert_eq!(code, Some(1), "{said}");
    let line_with = |needle: &str| {
        let line = said.lines().find(|line| line.contains(needle));
        line.unwrap_or_else(|| panic!("nothing about `{needle}` in:\n{said}")).to_owned()
    };
    for (needle, line, guess) in [
        ("server.threds", ":3:", "threads"),
        ("store.kind", ":5:", "embedded"),
        ("`fre`", ":8:", "free"),
        ("plans.free.mesages", ":11:", "messages"),
        ("providers.groq.dialect", ":17:", "openai"),
        ("`grok`", ":20:", "groq"),
        ("`qouta`", ":21:", "quota"),
    ] {
        let problem = line_with(needle);
        assert!(problem.contains(line), "no line {line}: {problem}");
        assert!(problem.contains(&format!("did you mean `{guess}`")), "no guess: {problem}");
    }
    for needle in ["plans.free.rate", "GATEKEEPER_TEST_UNSET"] {
        line_with(needle);
    }
}

#[test]
fn check_refuses_what_cannot_be_read() {
    let dir = TempDir::new().unwrap();
    for (what, yaml) in [
        ("a syntax error", "server: { listen: \"127.0.0.1:8080\"\nadmin: [".to_owned()),
        ("nothing", String::new()),
        ("a list", "- a\n- b\n".to_owned()),
        ("a key twice", "server: {}\nserver: {}\n".to_owned()),
        ("too large", format!("# {}\n", "x".repeat(1_100_000))),
    ] {
        let (code, said) = check(dir.path(), &yaml);
        assert_eq!(code, Some(1), "{what}");
        assert!(said.len() > 10, "{what}: {said}");
        assert!(!said.contains("panicked"), "{what}: {said}");
    }
    let missing = run(&["check", "-c", "no-such-file.yaml"], dir.path());
    assert_eq!(missing.status.code(), Some(1));
    assert!(said(&missing).contains("no-such-file.yaml"));
}

#[tokio::test]
async fn check_knows_what_is_dangerous() {
    let mock = Mock::start(Reply::chat()).await;
    let dir = TempDir::new().unwrap();
    let good = {
        let port = |port: u16| ([127, 0, 0, 1], port).into();
        let file = Config::new(&mock).write(dir.path(), port(18081), port(18080));
        fs::read_to_string(file).unwrap()
    };
    let (code, said) = check(dir.path(), &good);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("max_input_tokens") || said.contains("tokens"), "no warning: {said}");
    let url = mock.url();
    for (what, from, to) in [
        ("off loopback without TLS", "listen: \"127.0.0.1:18081\"", "listen: \"0.0.0.0:18081\""),
        (
            "admin off loopback without a token",
            "listen: \"127.0.0.1:18080\"",
            "listen: \"0.0.0.0:18080\"",
        ),
        ("plain http to the world", url.as_str(), "http://api.example.com/v1"),
        ("a private address", url.as_str(), "https://10.1.2.3/v1"),
        ("the metadata service", url.as_str(), "http://169.254.169.254/v1"),
        ("not a URL", url.as_str(), "ftp://x"),
        ("a short licence key", "JSTAR-TEST-0001", "SHORT"),
        ("no keys", "keys: [ {", "keys: [ ] # {"),
    ] {
        assert!(good.contains(from), "{what}: {from} is not in\n{good}");
        let (code, said) = check(dir.path(), &good.replacen(from, to, 1));
        assert_eq!(code, Some(1), "{what}: {said}");
    }
    let allowed =
        good.replacen(&url, "https://10.1.2.3/v1\", allow_private: true, dialect: \"openai", 1);
    let (code, said) = check(dir.path(), &allowed);
    assert_eq!(code, Some(0), "{said}");
}

#[tokio::test]
async fn seal_reads_standard_input_and_makes_a_private_kek() {
    let mock = Mock::start(Reply::chat()).await;
    let dir = Arc::new(TempDir::new().unwrap());
    let kek = dir.path().join("secrets/kek");
    let config = Config::new(&mock)
        .keys("p", &["sk-one"])
        .more(&format!("vault: {{ kek: \"file:{}\" }}", kek.display()));
    // A line end from `echo` does not belong to the secret.
    let first = seal(dir.path(), &config, "p", "p-1", "sk-sealed\n");
    let mode = fs::metadata(&kek).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600, "{mode:o}");
    let bytes = STANDARD.decode(fs::read_to_string(&kek).unwrap().trim()).unwrap();
    assert_eq!(bytes.len(), 32);
    let second = seal(dir.path(), &config, "p", "p-1", "sk-sealed\n");
    assert_ne!(first, second, "a nonce is used once");
    assert_eq!(first.split(':').count(), 4, "sealed:v1:<kek id>:<base64>");

    let gateway = Gateway::start_in(dir.clone(), config.clone().secret("p", 0, &first)).await;
    gateway.app().chat().await.ok();
    assert_eq!(mock.keys(), ["sk-sealed"]);
    drop(gateway);

    // Bound to its place: another key's secret does not open, nor a changed one.
    let elsewhere =
        seal(dir.path(), &config.clone().keys("p", &["a", "b"]), "p", "p-2", "sk-sealed");
    config.clone().secret("p", 0, &first).file(dir.path());
    let good = run(&["check", "-c", "gatekeeper.yaml"], dir.path());
    assert_eq!(good.status.code(), Some(0), "{}", said(&good));
    let mut flipped = first.clone().into_bytes();
    let at = flipped.len() - 6;
    flipped[at] = if flipped[at] == b'A' { b'B' } else { b'A' };
    for wrong in [elsewhere, String::from_utf8(flipped).unwrap(), "sealed:v1:x:AAAA".into()] {
        config.clone().secret("p", 0, &wrong).file(dir.path());
        let output = run(&["check", "-c", "gatekeeper.yaml"], dir.path());
        assert_eq!(output.status.code(), Some(1), "{wrong}");
    }

    for mode in [0o640, 0o604, 0o644] {
        fs::set_permissions(&kek, fs::Permissions::from_mode(mode)).unwrap();
        config.clone().secret("p", 0, &first).file(dir.path());
        let output = run(&["check", "-c", "gatekeeper.yaml"], dir.path());
        assert_eq!(output.status.code(), Some(1), "{mode:o}");
    }
}

#[tokio::test]
async fn a_secret_on_the_command_line_is_not_taken() {
    let mock = Mock::start(Reply::chat()).await;
    let dir = TempDir::new().unwrap();
    let kek = dir.path().join("kek");
    let vault = format!("vault: {{ kek: \"file:{}\" }}", kek.display());
    Config::new(&mock).more(&vault).file(dir.path());
    let output = run_with_input(
        &["seal", "-c", "gatekeeper.yaml", "p", "p-1", "sk-on-the-line"],
        dir.path(),
        "",
    );
    assert!(!output.status.success());
    let empty = run_with_input(&["seal", "-c", "gatekeeper.yaml", "p", "p-1"], dir.path(), "\n");
    assert!(!empty.status.success(), "{}", said(&empty));
}

fn new_kek(path: &Path, byte: u8) {
    write_private(path, &STANDARD.encode([byte; 32]));
}

#[tokio::test]
async fn rewrap_keeps_comments_and_what_was_used() {
    let mock = Mock::start(Reply::chat()).await;
    let dir = Arc::new(TempDir::new().unwrap());
    let (old, new) = (dir.path().join("kek-old"), dir.path().join("kek-new"));
    new_kek(&old, 1);
    new_kek(&new, 2);
    let vault = |vault: String| {
        Config::new(&mock).keys("p", &["a", "b"]).more("# a comment to keep").more(&vault)
    };
    let before = vault(format!("vault: {{ kek: \"file:{}\" }}   # the vault", old.display()));
    let one = seal(dir.path(), &before, "p", "p-1", "sk-sealed-1");
    let two = seal(dir.path(), &before, "p", "p-2", "sk-sealed-2");
    let before = before.secret("p", 0, &one).secret("p", 1, &two);
    let mut gateway = Gateway::start_in(dir.clone(), before).await;
    for _ in 0..3 {
        gateway.app().chat().await.ok();
    }
    gateway.signal(rustix::process::Signal::TERM);
    gateway.exited(Duration::from_secs(5)).await;
    let config = gateway.config.clone();
    drop(gateway);

    let file = dir.path().join("gatekeeper.yaml");
    let both = format!(
        "vault: {{ kek: \"file:{}\", previous: \"file:{}\" }}   # the vault",
        new.display(),
        old.display()
    );
    let yaml = fs::read_to_string(&file).unwrap();
    let yaml =
        yaml.replace(&format!("vault: {{ kek: \"file:{}\" }}   # the vault", old.display()), &both);
    assert!(yaml.contains("previous"));
    fs::write(&file, &yaml).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    let output = run(&["rewrap", "-c", file.to_str().unwrap()], dir.path());
    assert!(output.status.success(), "{}", said(&output));

    let wrapped = fs::read_to_string(&file).unwrap();
    for comment in ["# a comment to keep", "# the vault"] {
        assert!(wrapped.contains(comment), "{wrapped}");
    }
    for secret in [&one, &two] {
        assert!(!wrapped.contains(secret.as_str()), "a secret is still under the old KEK");
    }
    assert!(wrapped.matches("sealed:v1:").count() >= 2);
    let kek_id = |sealed: &str| sealed.split(':').nth(2).unwrap().to_owned();
    let now = wrapped[wrapped.find("sealed:v1:").unwrap()..].to_owned();
    assert_ne!(kek_id(&now), kek_id(&one));
    let mode = fs::metadata(&file).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o640, "the file's mode changed to {mode:o}");
    let left_over: Vec<_> = fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.contains("gatekeeper.yaml") && name != "gatekeeper.yaml")
        .collect();
    assert!(left_over.is_empty(), "{left_over:?}");

    // The old KEK can go, and nothing of what was used is lost.
    let previous = format!(", previous: \"file:{}\"", old.display());
    assert!(wrapped.contains(&previous));
    fs::write(&file, wrapped.replace(&previous, "")).unwrap();
    fs::remove_file(&old).unwrap();
    let address = |line: &str| -> std::net::SocketAddr {
        let yaml = fs::read_to_string(&file).unwrap();
        let line = yaml.lines().find(|known| known.starts_with(line)).unwrap().to_owned();
        line.split('"').nth(1).unwrap().parse().unwrap()
    };
    let (public, admin) = (address("server:"), address("admin:"));
    let mut gateway = Gateway::spawn_file(dir.clone(), config, public, admin, &file);
    assert!(gateway.ready().await, "{}", gateway.logs());
    assert_eq!(gateway.messages(LICENSE).await, 3);
    gateway.app().chat().await.ok();
    assert!(mock.last().key.starts_with("sk-sealed-"));
    assert_eq!(gateway.messages(LICENSE).await, 4);
}

#[tokio::test]
async fn another_pepper_on_the_same_store_is_refused() {
    let mock = Mock::start(Reply::chat()).await;
    let dir = Arc::new(TempDir::new().unwrap());
    let kek = dir.path().join("kek");
    new_kek(&kek, 1);
    let config = Config::new(&mock).more(&format!("vault: {{ kek: \"file:{}\" }}", kek.display()));
    let gateway = Gateway::start_in(dir.clone(), config.clone()).await;
    gateway.app().chat().await.ok();
    drop(gateway);
    new_kek(&kek, 2);
    let mut gateway = Gateway::spawn(dir.clone(), config.clone());
    let status = gateway.exited(Duration::from_secs(10)).await;
    assert!(!status.success());
    gateway.logged("pepper").await;
    new_kek(&kek, 1);
    let gateway = Gateway::start_in(dir, config).await;
    assert_eq!(gateway.messages(LICENSE).await, 1);
}

fn repository(path: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

#[tokio::test]
async fn the_default_configuration_starts_as_it_is() {
    let shipped = repository("conf/gatekeeper.yaml");
    let dir = Arc::new(TempDir::new().unwrap());
    let checked = run(&["check", "-c", shipped.to_str().unwrap()], dir.path());
    assert_eq!(checked.status.code(), Some(0), "{}", said(&checked));
    // Started on other ports only because those it names may be taken.
    let (public, admin) = (free_port(), free_port());
    let yaml = fs::read_to_string(&shipped).unwrap();
    assert!(yaml.contains("127.0.0.1:8080") && yaml.contains("127.0.0.1:9090"));
    let yaml = yaml
        .replace("127.0.0.1:8080", &format!("127.0.0.1:{public}"))
        .replace("127.0.0.1:9090", &format!("127.0.0.1:{admin}"));
    let file = dir.path().join("copy.yaml");
    fs::write(&file, &yaml).unwrap();
    let address = |port| ([127, 0, 0, 1], port).into();
    let mut gateway =
        Gateway::spawn_file(dir, Config::empty(), address(public), address(admin), &file);
    assert!(gateway.ready().await, "{}", gateway.logs());
    let key = yaml
        .split("{ key: ")
        .nth(1)
        .map(|rest| rest.split([',', ' ', '}']).next().unwrap().trim_matches('"').to_owned())
        .expect("a licence key in the default configuration");
    let app = Http::new(gateway.public, Wire::Plain);
    let models = app.get("/v1/models").bearer_auth(&key).send().await.unwrap();
    let models: Value = models.json().await.unwrap();
    let model = models["data"][0]["id"].as_str().expect("a model").to_owned();
    for stream in [false, true] {
        let body = client::chat(&serde_json::json!({ "model": model, "stream": stream }));
        app.ask_as(&key, &body).await.ok();
    }
}

#[test]
fn every_example_passes_check() {
    let folder = repository("conf/examples");
    let mut count = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            let output = run(&["check", "-c", path.to_str().unwrap()], &repository("."));
            assert_eq!(output.status.code(), Some(0), "{}: {}", path.display(), said(&output));
            count += 1;
        }
    }
    assert!(count > 0);
}

#[test]
fn the_schema_is_json_and_the_shipped_one_is_current() {
    let output = run(&["schema"], &repository("."));
    assert!(output.status.success(), "{}", said(&output));
    let schema: Value = serde_json::from_slice(&output.stdout).unwrap();
    for section in ["server", "admin", "vault", "store", "licenses", "plans", "providers", "models"]
    {
        assert!(schema["properties"][section].is_object(), "no {section}");
    }
    let shipped = fs::read(repository("conf/schema.json")).unwrap();
    let shipped: Value = serde_json::from_slice(&shipped).unwrap();
    assert_eq!(schema, shipped, "conf/schema.json is old: `gatekeeper schema > conf/schema.json`");
}

#[test]
fn an_unknown_command_says_what_there_is() {
    let dir = TempDir::new().unwrap();
    let output = run(&["rnu"], dir.path());
    assert!(!output.status.success());
    let help = said(&run(&["--help"], dir.path()));
    for command in ["run", "check", "explain", "seal", "rewrap", "schema", "demo"] {
        assert!(help.contains(command), "no {command} in\n{help}");
    }
}
