//! One process takes over from another under load: no connection is refused, no stream cut, and what is
//! counted stays exact.

use std::{
    net::{Ipv4Addr, SocketAddr},
    os::unix::{fs::PermissionsExt, net::UnixDatagram},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use rustix::process::Signal;
use serde_json::json;
use tokio::task::{JoinHandle, JoinSet};

use crate::support::{
    Config, Gate, Gateway, Http, LICENSE, Mock, Redis, Reply, Step, Wire, client, eventually,
    repeat, run, soon, sse,
};

/// Apps that ask all the time.
const WORKERS: usize = 6;
/// Messages of a plan that is used up while processes change.
const FEW: u64 = 150;
const WORDS: [&str; 2] = ["Hel", "lo"];

fn worker(place: usize) -> String {
    format!("JSTAR-WORK-{place:04}")
}

/// A stream that says its last word when the gate opens.
fn waiting(gate: &Gate) -> Reply {
    Reply::sse(&[sse::ROLE.to_owned(), sse::text(WORDS[0])])
        .then(Step::Gate(gate.clone()))
        .write(sse::text(WORDS[1]))
        .write(sse::FINISH)
        .write(sse::USAGE)
        .write(sse::DONE)
}

/// Asks until told to stop, on connections that it keeps; the number of whole answers. Nothing else may
/// happen.
fn work(http: Http, license: String, stop: Arc<AtomicBool>) -> JoinHandle<u64> {
    tokio::spawn(async move {
        let mut delivered = 0;
        while !stop.load(Relaxed) {
            http.chat_as(&license).await.ok();
            delivered += 1;
        }
        delivered
    })
}

/// Asks for a licence with few messages until they are used up, and then on; the number of answers.
fn use_up(http: Http, license: &'static str, stop: Arc<AtomicBool>) -> JoinHandle<u64> {
    tokio::spawn(async move {
        let (mut delivered, mut refused) = (0, false);
        while !(stop.load(Relaxed) && refused) {
            let answer = http.chat_as(license).await;
            match answer.status {
                200 => delivered += 1,
                _ => {
                    answer.is(402, "quota_exceeded");
                    refused = true;
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        delivered
    })
}

async fn open_streams(gateway: &Gateway, count: usize) -> Vec<reqwest::Response> {
    let mut opening = JoinSet::new();
    for _ in 0..count {
        let app = gateway.app();
        opening.spawn(async move {
            let body = client::chat(&json!({ "model": "slow", "stream": true }));
            let mut open = app.open(&body).await;
            assert_eq!(open.status(), 200);
            open.chunk().await.unwrap().expect("the first event");
            open
        });
    }
    opening.join_all().await
}

async fn are_whole(streams: Vec<reqwest::Response>) {
    let mut reading = JoinSet::new();
    for mut open in streams {
        reading.spawn(async move {
            let mut rest = Vec::new();
            while let Some(chunk) = soon("the rest of a stream", open.chunk()).await.unwrap() {
                rest.extend_from_slice(&chunk);
            }
            let text = String::from_utf8(rest).unwrap();
            assert!(text.ends_with(sse::DONE), "{text}");
            assert!(text.contains(WORDS[1]), "{text}");
        });
    }
    reading.join_all().await;
}

async fn changes_under_load(redis: Option<&Redis>, wire: Wire) {
    let changes: usize = repeat::times("GATEKEEPER_HANDOVERS", 2);
    let count: usize = repeat::times("GATEKEEPER_HANDOVER_STREAMS", 20);
    let mock = Mock::start(Reply::chat()).await;
    let mut config = Config::new(&mock)
        .plan("free", "messages: 100000000/month, tokens: 100000000000/month, concurrency: unlimited, models: [\"*\"]")
        .plan("few", &format!("messages: {FEW}/month, models: [\"*\"]"))
        .provider("s", &mock, &["sk-slow"])
        .model("slow", "[s/m1]")
        .license("JSTAR-FEWS-0001", "few")
        .server("grace: 60s")
        .over(wire);
    for place in 0..WORKERS {
        config = config.license(&worker(place), "free");
    }
    if let Some(redis) = redis {
        config = config.redis(&redis.url());
    }
    let mut gateway = Gateway::start(config).await;
    if redis.is_some() {
        crate::ledger::shared_ledger::are_counting(std::slice::from_ref(&gateway)).await;
    }
    let stop = Arc::new(AtomicBool::new(false));
    let working: Vec<_> =
        (0..WORKERS).map(|place| work(gateway.app(), worker(place), stop.clone())).collect();
    let using: Vec<_> =
        (0..3).map(|_| use_up(gateway.app(), "JSTAR-FEWS-0001", stop.clone())).collect();
    // Kept connections of the operator's, too.
    let ready = {
        let (operator, stop) = (gateway.operator(), stop.clone());
        tokio::spawn(async move {
            while !stop.load(Relaxed) {
                let answer = operator.get("/readyz").send().await.unwrap();
                assert_eq!(answer.status(), 200);
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
    };
    let mut streams = 0;
    let mut worst = Duration::ZERO;
    for change in 0..changes {
        let gate = Gate::new();
        mock.key("sk-slow", [waiting(&gate)]);
        let open = open_streams(&gateway, count).await;
        let began = Instant::now();
        let mut old = gateway.hand_over().await;
        worst = worst.max(began.elapsed());
        // The old process is there for its streams, and for nothing else.
        assert_eq!(gateway.readyz().await, Some(200));
        tokio::time::sleep(Duration::from_millis(100)).await;
        gate.open();
        are_whole(open).await;
        streams += count as u64;
        let status = old.exited(Duration::from_secs(10)).await;
        assert!(status.success(), "hand-over {change}: {status}\n{}", gateway.logs());
    }
    stop.store(true, Relaxed);
    let mut delivered = Vec::new();
    for worker in working {
        delivered.push(worker.await.unwrap());
    }
    let mut few = 0;
    for user in using {
        few += user.await.unwrap();
    }
    ready.await.unwrap();
    assert_eq!(few, FEW, "a limit holds over all processes");
    eventually("everything is settled", Duration::from_secs(5), async || {
        gateway.messages(LICENSE).await == streams
    })
    .await;
    assert_eq!(gateway.tokens(LICENSE).await, streams * sse::TOKENS);
    for (place, delivered) in delivered.iter().enumerate() {
        assert_eq!(gateway.messages(&worker(place)).await, *delivered, "worker {place}");
        assert_eq!(gateway.tokens(&worker(place)).await, delivered * sse::TOKENS);
    }
    let asked: u64 = delivered.iter().sum::<u64>() + few + streams;
    assert_eq!(mock.count() as u64, asked);
    let open = gateway.metrics().await.sum("gatekeeper_reservations_open", &[]);
    assert!(open.abs() < 0.5, "{open}");
    println!(
        "{changes} hand-overs with {count} streams each and {asked} answers in all: none refused, none \
         cut, every one counted once; the longest took {} ms from the start of the successor",
        worst.as_millis()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hand_overs_under_load_lose_nothing() {
    changes_under_load(None, Wire::Plain).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hand_overs_under_load_lose_nothing_on_redis() {
    let redis = Redis::start().await;
    changes_under_load(Some(&redis), Wire::Plain).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hand_overs_under_load_lose_nothing_over_http2() {
    changes_under_load(None, Wire::H2).await;
}

#[tokio::test]
async fn places_ids_and_rates_go_along() {
    let gate = Gate::new();
    let mock = Mock::start(Reply::chat()).await;
    mock.key("sk-slow", [waiting(&gate)]);
    let config = Config::new(&mock)
        .plan("free", "messages: 100/month, rate: 4/hour, concurrency: 1, models: [\"*\"]")
        .provider("s", &mock, &["sk-slow"])
        .model("slow", "[s/m1]");
    let mut gateway = Gateway::start(config).await;
    let with_id = async |gateway: &Gateway| {
        let body = client::chat(&json!({})).to_string();
        let request = gateway.app().post("/v1/chat/completions", body);
        client::Answer::of(request.header("x-message-id", "one")).await
    };
    with_id(&gateway).await.ok();
    let open = open_streams(&gateway, 1).await;
    let mut old = gateway.hand_over().await;
    // The place is taken by a request of the other process.
    gateway.app().chat().await.is(429, "rate_limited");
    gate.open();
    are_whole(open).await;
    old.exited(Duration::from_secs(5)).await;
    with_id(&gateway).await.ok();
    assert_eq!(gateway.messages(LICENSE).await, 2, "one message with an id, one stream");
    with_id(&gateway).await.ok();
    // Four an hour: whoever served them.
    gateway.app().chat().await.is(429, "rate_limited");
}

#[tokio::test]
async fn a_request_that_comes_on_a_kept_connection_is_served_and_told_to_close() {
    let gate = Gate::new();
    let mock = Mock::start(Reply::chat()).await;
    mock.key("sk-slow", [waiting(&gate)]);
    let config = Config::new(&mock).provider("s", &mock, &["sk-slow"]).model("slow", "[s/m1]");
    let mut gateway = Gateway::start(config).await;
    let open = open_streams(&gateway, 1).await;
    let mut kept = gateway.raw().await;
    kept.send("GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert_eq!(kept.answer().await.unwrap().status, 200);
    let mut old = gateway.hand_over().await;
    kept.send(client::post("/v1/chat/completions", &client::chat(&json!({})))).await;
    let answer = kept.answer().await.unwrap();
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("connection"), Some("close"));
    assert_eq!(answer.header("x-quota-messages-remaining"), Some("99998"));
    gate.open();
    are_whole(open).await;
    old.exited(Duration::from_secs(5)).await;
    assert_eq!(gateway.messages(LICENSE).await, 2);
    // The new process alone has seen it.
    assert_eq!(gateway.status().await["total"], 1);
}

#[tokio::test]
async fn nobody_else_may_enter_the_directory() {
    let mock = Mock::start(Reply::chat()).await;
    let gateway = Gateway::start(Config::new(&mock)).await;
    let mut beside = gateway.store().into_os_string();
    beside.push(".handover");
    let mode = std::fs::metadata(&beside).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    let sockets: Vec<_> = std::fs::read_dir(&beside).unwrap().map(|f| f.unwrap().path()).collect();
    assert_eq!(sockets.len(), 1, "{sockets:?}");
    // Where systemd gives a directory, it lies there, and is found from both.
    let given = tempfile::TempDir::new().unwrap();
    let config = Config::new(&mock).env("RUNTIME_DIRECTORY", given.path().to_str().unwrap());
    let mut gateway = Gateway::start(config).await;
    let mode = std::fs::metadata(given.path().join("handover")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    let mut old = gateway.hand_over().await;
    old.exited(Duration::from_secs(5)).await;
    gateway.config = Config::new(&mock);
    let mut older = gateway.hand_over().await;
    older.exited(Duration::from_secs(5)).await;
    gateway.app().chat().await.ok();
}

/// Signals that mean something to a gateway that runs do not end one that waits to take over.
#[tokio::test]
async fn a_successor_that_waits_outlives_signals() {
    let mock = Mock::start(Reply::chat()).await;
    let mut gateway = Gateway::start(Config::new(&mock)).await;
    let next = gateway.successor().await;
    for signal in [Signal::HUP, Signal::QUIT] {
        next.signal(signal);
    }
    gateway.signal(Signal::QUIT);
    assert!(gateway.exited(Duration::from_secs(10)).await.success());
    next.app().chat().await.ok();
}

/// A link in the file's place may have been turned since the start, as a deployment does.
#[tokio::test]
async fn a_gateway_is_found_by_the_name_of_its_file_whatever_that_leads_to() {
    let mock = Mock::start(Reply::chat()).await;
    let mut gateway = Gateway::start(Config::new(&mock)).await;
    let at = |name: &str| gateway.dir.path().join(name);
    let (file, first, second) = (at("gatekeeper.yaml"), at("first.yaml"), at("second.yaml"));
    std::fs::copy(&file, &second).unwrap();
    std::fs::rename(&file, &first).unwrap();
    std::os::unix::fs::symlink(&first, &file).unwrap();
    let mut old = gateway.hand_over().await;
    assert!(old.exited(Duration::from_secs(5)).await.success());
    std::fs::remove_file(&file).unwrap();
    std::os::unix::fs::symlink(&second, &file).unwrap();
    let mut old = gateway.hand_over().await;
    assert!(old.exited(Duration::from_secs(5)).await.success());
    gateway.app().chat().await.ok();
}

#[tokio::test]
async fn the_command_does_it_all() {
    let mock = Mock::start(Reply::chat()).await;
    let mut gateway = Gateway::start(Config::new(&mock)).await;
    gateway.app().chat().await.ok();
    let said = upgrade(&gateway, &[]);
    assert!(said.status.success(), "{said:?}");
    let words = String::from_utf8(said.stderr).unwrap();
    let pid = words.split("starts as process ").nth(1).and_then(|rest| rest.lines().next());
    let successor = Successor(pid.unwrap().parse().unwrap());
    assert!(words.contains(&format!("process {} serves", successor.0)), "{words}");
    gateway.exited(Duration::from_secs(5)).await;
    gateway.app().chat().await.ok();
    assert_eq!(gateway.messages(LICENSE).await, 2);
}

/// What the first process still settles comes to the second, so the second hands nothing over until the first
/// has ended.
#[tokio::test]
async fn no_upgrade_begins_while_the_process_before_still_drains() {
    let gate = Gate::new();
    let mock = Mock::start(Reply::chat()).await;
    mock.key("sk-slow", [waiting(&gate)]);
    let config = Config::new(&mock)
        .plan("free", "messages: 1000/month, tokens: 1000000/month, models: [\"*\"]")
        .provider("s", &mock, &["sk-slow"])
        .model("slow", "[s/m1]");
    let mut gateway = Gateway::start(config).await;
    let open = open_streams(&gateway, 1).await;
    let mut first = gateway.hand_over().await;
    let drains = format!("process {} still drains", first.pid());
    let said = upgrade(&gateway, &[]);
    let words = String::from_utf8(said.stderr).unwrap();
    assert!(!said.status.success() && words.contains(&drains), "{words}");
    // By hand it is the same, and the one that waits may go on waiting.
    let waiting = gateway.successor().await;
    gateway.signal(Signal::QUIT);
    eventually("it says why", Duration::from_secs(10), async || {
        gateway.logs().contains(&format!("Nothing was handed over: {drains}"))
    })
    .await;
    gateway.app().chat().await.ok();
    gate.open();
    are_whole(open).await;
    assert!(first.exited(Duration::from_secs(10)).await.success());
    eventually("the stream is settled", Duration::from_secs(5), async || {
        gateway.tokens(LICENSE).await == 2 * sse::TOKENS
    })
    .await;
    gateway.signal(Signal::QUIT);
    assert!(gateway.exited(Duration::from_secs(10)).await.success());
    waiting.app().chat().await.ok();
    assert_eq!(waiting.messages(LICENSE).await, 3);
    assert_eq!(waiting.tokens(LICENSE).await, 3 * sse::TOKENS);
}

#[tokio::test]
async fn an_address_that_is_not_served_any_more_is_closed_with_the_process_before() {
    let mock = Mock::start(Reply::chat()).await;
    let mut gateway = Gateway::start(Config::new(&mock)).await;
    let before = gateway.public;
    let port = crate::support::gateway::free_port();
    let elsewhere = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    gateway.config.write(gateway.dir.path(), elsewhere, gateway.admin);
    gateway.public = elsewhere;
    let mut old = gateway.hand_over().await;
    gateway.app().chat().await.ok();
    old.exited(Duration::from_secs(10)).await;
    let refused = tokio::net::TcpStream::connect(before).await.unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    gateway.app().chat().await.ok();
    assert_eq!(gateway.messages(LICENSE).await, 2);
}

/// Runs `gatekeeper upgrade` on the file of a gateway.
pub fn upgrade(gateway: &Gateway, more: &[&str]) -> std::process::Output {
    let file = gateway.dir.path().join("gatekeeper.yaml");
    let args = ["upgrade", "-c", file.to_str().unwrap()];
    run(&[&args, more].concat(), gateway.dir.path())
}

/// A process that a gateway started.
pub struct Successor(pub i32);

impl Drop for Successor {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_raw(self.0).unwrap();
        let _ = rustix::process::kill_process(pid, Signal::KILL);
    }
}

#[tokio::test]
async fn systemd_hears_who_serves_and_when_it_ends() {
    let mock = Mock::start(Reply::chat()).await;
    let dir = tempfile::TempDir::new().unwrap();
    let path = dir.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let hear = || {
        let mut words = [0; 512];
        let length = socket.recv(&mut words).unwrap();
        String::from_utf8_lossy(&words[..length]).into_owned()
    };
    let config = Config::new(&mock).env("NOTIFY_SOCKET", path.to_str().unwrap());
    let mut gateway = Gateway::start(config).await;
    assert!(hear().starts_with(&format!("MAINPID={}\nREADY=1", gateway.pid())));
    gateway.signal(Signal::HUP);
    assert!(hear().starts_with("RELOADING=1\nMONOTONIC_USEC="));
    assert!(hear().contains("READY=1"));
    let mut old = gateway.hand_over().await;
    assert!(hear().starts_with(&format!("MAINPID={}\nREADY=1", gateway.pid())));
    old.exited(Duration::from_secs(5)).await;
    gateway.signal(Signal::TERM);
    gateway.exited(Duration::from_secs(2)).await;
    assert!(hear().starts_with("STOPPING=1"), "the old process said nothing when it ended");
}

#[tokio::test]
async fn what_the_old_process_learns_of_a_licence_is_known_to_the_new_one() {
    use crate::support::{Says, Shop, shop::license_key};
    let gate = Gate::new();
    let mock = Mock::start(Reply::chat()).await;
    mock.key("sk-slow", [waiting(&gate)]);
    let shop = Shop::open().await;
    let key = license_key(1);
    shop.sells(&key, Says::license());
    let config = Config::new(&mock)
        .provider("s", &mock, &["sk-slow"])
        .model("slow", "[s/m1]")
        .lemonsqueezy(&shop);
    let mut gateway = Gateway::start(config).await;
    gateway.app().chat_as(&key).await.ok();
    let open = open_streams(&gateway, 1).await;
    let mut old = gateway.hand_over().await;
    gateway.app().chat_as(&key).await.ok();
    assert_eq!(shop.calls_for(&key).len(), 1, "the shop is not asked again");
    gate.open();
    are_whole(open).await;
    old.exited(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn the_systemd_unit_is_one() {
    let unit = concat!(env!("CARGO_MANIFEST_DIR"), "/conf/systemd/gatekeeper.service");
    let verify = std::process::Command::new("systemd-analyze").args(["verify", unit]).output();
    let Ok(verify) = verify else {
        println!("skipped: there is no systemd-analyze here");
        return;
    };
    let said = String::from_utf8_lossy(&verify.stderr);
    // Neither the program nor its user need be installed where it is verified.
    let ours: Vec<&str> = said
        .lines()
        .filter(|line| line.contains("gatekeeper.service"))
        .filter(|line| !line.contains("is not executable"))
        .collect();
    assert!(ours.is_empty(), "{said}");
}
