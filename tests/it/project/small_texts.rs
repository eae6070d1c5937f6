//! Small texts on which first-time users stumbled: plurals, dates, doubled errors, places that are none, times.

use std::{
    fs::{self, File},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::unix::fs::MetadataExt,
    path::Path,
    process::Command,
    sync::Arc,
};

use tempfile::TempDir;

use crate::support::{
    Answer, Config, Gateway, Mock, Reply,
    gateway::{feed, free_port, program},
    run,
    yaml::write_private,
};

#[tokio::test]
async fn buyers_read_plurals_dates_and_no_developers_words() {
    let mock = Mock::start(Reply::chat()).await;
    let config = Config::new(&mock).plan("free", "messages: 1/month, models: [fast]");
    let gateway = Gateway::start(config).await;
    gateway.app().chat().await.ok();
    let answer = gateway.app().chat().await;
    answer.is(402, "quota_exceeded");
    let words = answer.error("message").as_str().unwrap().to_owned();
    assert!(words.starts_with("You have used the one message of this month. It comes back on 1 "));
    assert!(!words.contains("00:00") && !words.contains("UTC"), "{words}");
    let request = gateway.app().request("POST", "/v1/chat/completions");
    let answer = Answer::of(request.header("authorization", "Bearer JSTAR TEST 0001")).await;
    answer.is(401, "license_missing");
    let words = answer.error("message").as_str().unwrap().to_owned();
    assert!(words.contains("does not look like a licence key: it has a space"), "{words}");
    assert!(!words.contains("Bearer") && !words.contains("header"), "{words}");
}

/// What a command says that ends with this status, in a directory of its own.
fn said(dir: &Path, words: &[&str], status: i32) -> String {
    let output = run(words, dir);
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert_eq!(output.status.code(), Some(status), "{words:?}: {said}");
    said
}

#[test]
fn operators_read_each_reason_once_at_a_place_that_is_one() {
    let dir = TempDir::new().unwrap();
    let dir = dir.path();
    let good = format!(
        "server: {{ listen: \"127.0.0.1:{}\" }}\nadmin: {{ listen: \"127.0.0.1:{}\" }}\n\
         store: {{ kind: embedded, path: data/gatekeeper.db }}\n\
         licenses: {{ sources: [ {{ static: {{ keys: [ {{ key: JSTAR-TEST-0001, plan: free }} ] }} }} ] }}\n\
         plans: {{ free: {{ messages: 5/month, tokens: 5000/month, models: [fast] }} }}\n\
         providers: {{ p: {{ base_url: stand-in }} }}\nmodels: {{ fast: [ p/m ] }}\n",
        free_port(),
        free_port()
    );
    let file = |name: &str, from: &str, to: &str| {
        assert!(good.contains(from), "{from}");
        write_private(&dir.join(name), &good.replacen(from, to, 1));
    };
    write_private(&dir.join("good.yaml"), &good);
    let counts = said(dir, &["check", "good.yaml"], 0);
    assert!(counts.contains("1 provider, ") && counts.contains("1 licence key, "), "{counts}");
    let shop = "lemonsqueezy: { store_id: 1, products: { 2: { 3: free } } }";
    file("shop.yaml", "static: { keys: [ { key: JSTAR-TEST-0001, plan: free } ] }", shop);
    let counts = said(dir, &["check", "shop.yaml"], 0);
    assert!(counts.contains(", 1 shop, ") && !counts.contains("licence key"), "{counts}");
    let missing = said(dir, &["check", "nope.yaml"], 1);
    assert!(missing.starts_with("nope.yaml: can't be read: No such file"), "{missing}");
    file("proc.yaml", "data/gatekeeper.db", "/proc/m.db");
    let store = said(dir, &["run", "proc.yaml"], 1);
    assert_eq!(store.matches("os error").count(), 1, "{store}");
    assert!(store.contains("/proc/m.db"), "{store}");
    // TEST-NET-1 (RFC 5737) is no machine's.
    file("away.yaml", "listen: \"127.0.0.1:", "behind_tls: true, listen: \"192.0.2.1:");
    let address = said(dir, &["run", "away.yaml"], 1);
    assert!(address.contains("192.0.2.1:") && address.contains("is no address of this machine"));
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = format!("listen: \"{}\"", taken.local_addr().unwrap());
    let free = good.lines().next().unwrap().split(&['{', '}'][..]).nth(1).unwrap().trim();
    file("taken.yaml", free, &port);
    let address = said(dir, &["run", "taken.yaml"], 1);
    assert!(address.contains("is in use: end what uses it or choose another"), "{address}");
}

#[tokio::test]
async fn log_lines_have_times_but_in_the_journal() {
    let mock = Mock::start(Reply::chat()).await;
    for is_journal in [false, true] {
        let dir = Arc::new(TempDir::new().unwrap());
        let path = dir.path().join("stderr.log");
        File::create(&path).unwrap();
        let log = fs::metadata(&path).unwrap();
        // A terminal or a file below a service inherits the variable; only where the log goes to it, it is the journal's.
        let inode = if is_journal { log.ino() } else { log.ino() + 1 };
        let stream = format!("{}:{inode}", log.dev());
        let config = Config::new(&mock).env("JOURNAL_STREAM", &stream);
        let _gateway = Gateway::start_in(dir, config).await;
        let text = fs::read_to_string(&path).unwrap();
        let first = text.lines().next().unwrap();
        let time = first.split(' ').next().unwrap();
        let is_time = time.len() == 20 && time.ends_with('Z') && time.as_bytes()[10] == b'T';
        assert_eq!(is_time, !is_journal, "{first}");
    }
}

/// A user, or a process without the right to, who tries port 443. The network namespace has Linux's default of what is
/// privileged, whatever this machine says (containers lower `net.ipv4.ip_unprivileged_port_start` to 0).
#[test]
fn a_port_below_1024_without_the_right_to_it_is_told_with_the_way_out() {
    const SYSCTL: &str = "/proc/sys/net/ipv4/ip_unprivileged_port_start";
    let dir = TempDir::new().unwrap();
    let config = Config::empty()
        .server("behind_tls: true")
        .plan("free", "tokens: 1000/month, models: [fast]")
        .license("JSTAR-TEST-0001", "free")
        .provider_at("p", "http://127.0.0.1:9/v1", "", &["sk-one"])
        .model("fast", "[p/m]");
    let public = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 443));
    let file = config.write(dir.path(), public, (Ipv4Addr::LOCALHOST, free_port()).into());
    let is_root = rustix::process::getuid().is_root();
    let apart: &[&str] = if is_root { &["--net"] } else { &["--net", "--map-root-user"] };
    let can_unshare = Command::new("unshare")
        .args(apart)
        .arg("true")
        .output()
        .is_ok_and(|it| it.status.success());
    if !can_unshare {
        let first: u16 = fs::read_to_string(SYSCTL).unwrap().trim().parse().unwrap();
        if first <= 443 {
            eprintln!("skipped: {SYSCTL} is {first}, and there is no namespace to be had");
            return;
        }
    }
    let mut command = Command::new("timeout");
    command.arg("20");
    if can_unshare {
        command.arg("unshare").args(apart);
    }
    if is_root || can_unshare {
        command.args([
            "setpriv",
            "--bounding-set=-net_bind_service",
            "--inh-caps=-net_bind_service",
        ]);
    }
    command.arg(program()).arg("run").arg("-c").arg(&file).current_dir(dir.path());
    let output = feed(command, "");
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let told = said.lines().find(|line| line.contains("server.listen: 0.0.0.0:443")).expect(&said);
    for part in ["needs rights", "choose a port from 1024 on", "CAP_NET_BIND_SERVICE"] {
        assert!(told.contains(part), "{part}: {said}");
    }
}
