//! Connections that say nothing, or nothing in time: they end, and never keep anybody out.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use rustix::process::Signal;

use crate::support::{Answer, Config, Gateway, Mock, Raw, Reply, Wire, eventually};

const FEW: &[&str] = &["prlimit", "--nofile=256", "--"];
/// What HTTP/2 begins with, and an empty SETTINGS frame.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];
/// The beginning of a ClientHello.
const HELLO: &[u8] = &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3];

/// How far a client gets before it falls silent.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Silence {
    Connected,
    /// A line of a head.
    Begun,
    /// After an answer.
    Served,
    Hello,
    Shaken,
    /// TLS, with HTTP/2 agreed on.
    Agreed,
    HalfPreface,
    Preface,
    Settings,
}

use Silence::*;

impl Silence {
    const PLAIN: [Self; 3] = [Connected, Begun, Served];
    const TLS: [Self; 7] = [Connected, Hello, Shaken, Agreed, HalfPreface, Preface, Settings];

    async fn begin(self, gateway: &Gateway, wire: Wire) -> std::io::Result<Raw> {
        let mut raw = Raw::to(gateway.public).await?;
        if wire != Wire::Plain {
            match self {
                Connected | Hello => {}
                Agreed | HalfPreface | Preface | Settings => raw = raw.shake(b"h2").await?,
                _ => raw = raw.shake(b"http/1.1").await?,
            }
        }
        match self {
            Connected | Shaken | Agreed => {}
            Begun => drop(raw.send("GET /healthz HTTP/1.1\r\n").await),
            Served => {
                raw.send("GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n").await;
                raw.until("\"ok\"}").await;
            }
            Hello => drop(raw.send(HELLO).await),
            HalfPreface => drop(raw.send(&PREFACE[..10]).await),
            Preface => drop(raw.send(PREFACE).await),
            Settings => drop(raw.send([PREFACE, SETTINGS].concat()).await),
        }
        Ok(raw)
    }
}

async fn ends_in_time(gateway: &Gateway, wire: Wire, silence: Silence) {
    let began = Instant::now();
    let mut raw = silence.begin(gateway, wire).await.unwrap();
    let rest = raw.rest(Duration::from_secs(5)).await;
    let took = began.elapsed();
    assert!(rest.is_some(), "{silence:?} over {wire:?} is kept");
    assert!(took > Duration::from_millis(900), "{silence:?} over {wire:?}: after {took:?} already");
    assert!(took < Duration::from_secs(3), "{silence:?} over {wire:?}: after {took:?} only");
}

/// The handshake, the preface with its first frame and a head have `header_timeout`.
#[tokio::test]
async fn what_never_becomes_a_request_ends() {
    for (wire, kinds) in [(Wire::Plain, &[Connected, Begun][..]), (Wire::H2, &Silence::TLS[..6])] {
        let mock = Mock::start(Reply::chat()).await;
        let config =
            Config::new(&mock).over(wire).server("grace: 5s, limits: { header_timeout: 1s }");
        let gateway = Gateway::start(config).await;
        let all = kinds.iter().map(|silence| ends_in_time(&gateway, wire, *silence));
        futures_util::future::join_all(all).await;
        assert!(!gateway.logs().contains("ERROR"), "{}", gateway.logs());
        gateway.app().chat().await.ok();
    }
}

/// Opens `count` of a kind at once and holds them; each that is ended comes again.
async fn besiege(
    gateway: Arc<Gateway>,
    wire: Wire,
    silence: Silence,
    count: usize,
    stop: Arc<AtomicBool>,
) {
    let held = Arc::new(AtomicUsize::new(0));
    let holders = (0..count).map(|_| {
        let (gateway, stop, held) = (gateway.clone(), stop.clone(), held.clone());
        tokio::spawn(async move {
            while !stop.load(Relaxed) {
                let Ok(mut raw) = silence.begin(&gateway, wire).await else { continue };
                held.fetch_add(1, Relaxed);
                let _ = raw.rest(Duration::from_secs(2)).await;
                held.fetch_sub(1, Relaxed);
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        })
    });
    for holder in holders.collect::<Vec<_>>() {
        let _ = holder.await;
    }
}

/// How long the slowest of the requests of a good client took, each on a connection of its own.
async fn worst(gateway: &Gateway, within: Duration) -> Duration {
    let (began, mut worst) = (Instant::now(), Duration::ZERO);
    while began.elapsed() < within {
        let asked = Instant::now();
        let answer = tokio::time::timeout(Duration::from_secs(10), gateway.app().chat()).await;
        answer.expect("a good client is served").ok();
        worst = worst.max(asked.elapsed());
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    worst
}

/// Far more than there are descriptors for.
async fn a_good_client_is_served_beside(wire: Wire, kinds: &[Silence]) {
    let mock = Mock::start(Reply::chat()).await;
    let gateway = Arc::new(Gateway::start(Config::new(&mock).over(wire).under(FEW)).await);
    for silence in kinds {
        let stop = Arc::new(AtomicBool::new(false));
        let siege = besiege(gateway.clone(), wire, *silence, 200, stop.clone());
        let siege = tokio::spawn(siege);
        tokio::time::sleep(Duration::from_millis(100)).await;
        let worst = worst(&gateway, Duration::from_millis(1500)).await;
        println!(
            "200 × {silence:?} over {wire:?}, 256 files: the slowest answer came after {worst:?}"
        );
        assert!(worst < Duration::from_secs(1), "{silence:?} over {wire:?}: {worst:?}");
        assert_eq!(gateway.readyz().await, Some(200), "operators are let in");
        stop.store(true, Relaxed);
        siege.abort();
    }
    assert!(!gateway.logs().contains("panicked"), "{}", gateway.logs());
}

/// A connection that waits to be accepted is not sent away: its client would come again after a second only.
#[tokio::test]
async fn a_burst_of_connections_waits_while_the_gateway_is_busy() {
    let mock = Mock::start(Reply::chat()).await;
    let gateway = Gateway::start(Config::new(&mock)).await;
    gateway.signal(Signal::STOP);
    let connect = || tokio::time::timeout(Duration::from_millis(500), Raw::to(gateway.public));
    let burst = futures_util::future::join_all((0..1000).map(|_| connect())).await;
    gateway.signal(Signal::CONT);
    let waiting = burst.iter().filter(|client| matches!(client, Ok(Ok(_)))).count();
    assert_eq!(waiting, 1000, "the others' SYNs were dropped");
    gateway.app().chat().await.ok();
}

/// 200 clients that come again and again in the process that measures.
mod alone {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn silent_clients_keep_nobody_out_plain() {
        a_good_client_is_served_beside(Wire::Plain, &Silence::PLAIN).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn silent_clients_keep_nobody_out_tls() {
        a_good_client_is_served_beside(Wire::Tls, &[Connected, Hello, Shaken]).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn silent_clients_keep_nobody_out_h2() {
        a_good_client_is_served_beside(Wire::H2, &[Agreed, Settings]).await;
    }
}

/// A request under way is never ended for room, however long it takes, nor one of a licence in its first idle second.
#[tokio::test]
async fn open_requests_stay_when_room_is_made() {
    let gate = crate::support::Gate::new();
    let slow = Reply::chat().before_head(crate::support::Step::Gate(gate.clone()));
    let mock = Mock::sequence([vec![slow; 10], vec![Reply::chat()]].concat()).await;
    let gateway = Gateway::start(Config::new(&mock).under(FEW)).await;
    let asked: Vec<_> = (0..10)
        .map(|_| {
            let app = gateway.app();
            tokio::spawn(async move { app.chat().await })
        })
        .collect();
    mock.saw(10).await;
    let mut silent = Vec::new();
    for _ in 0..300 {
        silent.push(Raw::to(gateway.public).await.unwrap());
    }
    eventually("room is made", Duration::from_secs(5), || async {
        gateway.logs().contains("Open files:")
    })
    .await;
    tokio::time::sleep(Duration::from_millis(1300)).await;
    gate.open();
    for answer in asked {
        answer.await.unwrap().ok();
    }
}

/// What is kept back is not theirs: operators have a cap of their own.
#[tokio::test]
async fn operators_can_not_use_up_what_apps_need() {
    let mock = Mock::start(Reply::chat()).await;
    let gateway = Gateway::start(Config::new(&mock).under(FEW)).await;
    let mut idle = Vec::new();
    for _ in 0..200 {
        let mut raw = Raw::to(gateway.admin).await.unwrap();
        raw.send("GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
        idle.push(raw);
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(gateway.descriptors() < 100, "{} are open", gateway.descriptors());
    let began = Instant::now();
    gateway.app().chat().await.ok();
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    eventually("an operator is let in", Duration::from_secs(5), || async {
        gateway.readyz().await == Some(200)
    })
    .await;
    assert!(!gateway.logs().contains("Too many open files"), "{}", gateway.logs());
}

/// KiB of memory for each of so many.
async fn each_takes(gateway: &Gateway, wire: Wire, silence: Silence, count: usize) -> f64 {
    let before = gateway.memory("VmRSS");
    let mut open = Vec::new();
    for _ in 0..count {
        open.push(silence.begin(gateway, wire).await.unwrap());
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    (gateway.memory("VmRSS").saturating_sub(before)) as f64 / count as f64
}

/// An idle connection has no buffers of its own; TLS and HTTP/2 have their state.
#[tokio::test]
async fn idle_connections_take_little_memory() {
    for (wire, silence, most) in [
        (Wire::Plain, Connected, 24.0),
        (Wire::Plain, Served, 24.0),
        (Wire::Tls, Connected, 24.0),
        (Wire::Tls, Served, 40.0),
        (Wire::H2, Settings, 64.0),
    ] {
        let mock = Mock::start(Reply::chat()).await;
        let gateway = Gateway::start(Config::new(&mock).over(wire)).await;
        gateway.app().chat().await.ok();
        let takes = each_takes(&gateway, wire, silence, 500).await;
        println!("an idle connection ({silence:?}) over {wire:?} takes {takes:.1} KiB");
        assert!(takes < most, "{silence:?} over {wire:?}: {takes:.1} KiB");
    }
}

/// `check` and `/status` say so where peers can't be told apart.
#[tokio::test]
async fn limits_by_address_are_off_where_all_come_from_one() {
    let mock = Mock::start(Reply::chat()).await;
    for (server, on) in [
        ("behind_tls: true", false),
        ("behind_tls: true, trusted_proxies: [127.0.0.0/8]", true),
        ("grace: 5s", true),
    ] {
        let gateway = Gateway::start(Config::new(&mock).server(server)).await;
        assert_eq!(gateway.status().await["config"]["limits_by_address"], on, "{server}");
        let file = gateway.dir.path().join("gatekeeper.yaml");
        let output =
            crate::support::run(&["check", "-c", file.to_str().unwrap()], gateway.dir.path());
        let said = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(output.status.success(), "{said}");
        assert_eq!(!said.contains("limits by address are off"), on, "{server}: {said}");
        assert_eq!(gateway.logs().contains("limits by address are off"), !on, "{server}");
    }
}

/// With `behind_tls`, a hundred requests of other hosts without a sign of TLS are told in the log and on the page, until
/// one has the sign.
#[tokio::test]
async fn keys_that_may_cross_the_network_in_clear_are_told() {
    let mock = Mock::start(Reply::chat()).await;
    let server = "behind_tls: true, trusted_proxies: [127.0.0.0/8]";
    let gateway = Gateway::start(Config::new(&mock).server(server)).await;
    let missing = async || gateway.status().await["config"]["https_in_front_missing"].clone();
    let ask = async |headers: &[(&str, &str)]| {
        let request = gateway.app().get("/v1/me");
        let request =
            headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        assert_eq!(Answer::of(request).await.status, 401);
    };
    // Those of this host are no sign of anything.
    for _ in 0..5 {
        ask(&[("x-forwarded-for", "127.0.0.1")]).await;
    }
    let elsewhere = ("x-forwarded-for", "203.0.113.9");
    for _ in 0..99 {
        ask(&[elsewhere, ("x-forwarded-proto", "http")]).await;
    }
    assert_eq!(missing().await, false);
    ask(&[elsewhere]).await;
    assert_eq!(missing().await, true);
    gateway.logged("X-Forwarded-Proto: https: if nothing in front").await;
    ask(&[elsewhere, ("forwarded", "for=203.0.113.9;proto=https")]).await;
    assert_eq!(missing().await, false);
    let plain = Gateway::start(Config::new(&mock)).await;
    assert_eq!(plain.status().await["config"]["https_in_front_missing"], false);
}
