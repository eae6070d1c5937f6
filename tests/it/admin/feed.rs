//! The live feed, as a browser hears it.

use std::{
    collections::HashSet,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    task::JoinSet,
};

use crate::{
    admin::admin_access::{TOKEN, locked},
    support::{
        Config, Gateway, LICENSE, Mock, Reply, Step, client, eventually, repeat, soon, within,
    },
};

/// An open feed.
pub struct Feed {
    stream: TcpStream,
    pub head: String,
    pending: Vec<u8>,
}

impl Feed {
    /// `Err` is the status of a refusal.
    pub async fn open(admin: SocketAddr, headers: &str) -> Result<Self, u16> {
        Self::over(TcpStream::connect(admin).await.unwrap(), admin, headers).await
    }

    /// One whose kernel keeps next to nothing of what it does not read.
    async fn narrow(admin: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        Self::over(socket.connect(admin).await.unwrap(), admin, "").await.unwrap()
    }

    async fn over(mut stream: TcpStream, admin: SocketAddr, headers: &str) -> Result<Self, u16> {
        let ask = format!("GET /feed HTTP/1.1\r\nhost: {admin}\r\n{headers}\r\n");
        stream.write_all(ask.as_bytes()).await.unwrap();
        let mut feed = Self { stream, head: String::new(), pending: Vec::new() };
        let end = loop {
            if let Some(at) = memchr::memmem::find(&feed.pending, b"\r\n\r\n") {
                break at + 4;
            }
            assert!(soon("the head of a feed", feed.fill()).await, "no head");
        };
        feed.head = String::from_utf8(feed.pending.drain(..end).collect()).unwrap();
        match feed.head[9..12].parse().unwrap() {
            200 => Ok(feed),
            refused => Err(refused),
        }
    }

    async fn fill(&mut self) -> bool {
        self.pending.reserve(64 * 1024);
        matches!(self.stream.read_buf(&mut self.pending).await, Ok(1..))
    }

    /// The next event; `None` when the feed has ended. An event is one chunk.
    pub async fn next(&mut self) -> Option<Value> {
        let chunk = soon("an event", self.chunk()).await?;
        if chunk.is_empty() {
            return None;
        }
        let text = String::from_utf8(chunk).unwrap();
        let data = text.strip_prefix("data: ").and_then(|rest| rest.strip_suffix("\n\n"));
        let data = data.unwrap_or_else(|| panic!("not one event: {text:?}"));
        assert!(!data.contains(['\n', '\r']), "an event in one line");
        Some(serde_json::from_str(data).unwrap())
    }

    async fn chunk(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(line) = memchr::memmem::find(&self.pending, b"\r\n") {
                let size = std::str::from_utf8(&self.pending[..line]).unwrap();
                let size = usize::from_str_radix(size, 16).unwrap();
                let (start, end) = (line + 2, line + 2 + size);
                if self.pending.len() >= end + 2 {
                    let chunk = self.pending[start..end].to_vec();
                    self.pending.drain(..end + 2);
                    return Some(chunk);
                }
            }
            if !self.fill().await {
                return None;
            }
        }
    }

    /// The next event that tells of a request.
    pub async fn news(&mut self) -> Value {
        loop {
            let event = self.next().await.expect("the feed goes on");
            if event["requests"].as_array().is_some_and(|requests| !requests.is_empty()) {
                return event;
            }
        }
    }

    /// It ends as the protocol wants it.
    pub async fn ends(&mut self, limit: Duration) {
        let end = async { while self.next().await.is_some() {} };
        within(limit, "the end of a feed", end).await;
        assert!(self.pending.is_empty());
    }
}

fn ids(event: &Value) -> Vec<u64> {
    let requests = event["requests"].as_array().unwrap();
    requests.iter().map(|request| request["id"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn a_feed_begins_with_the_newest_and_goes_on_with_what_comes() {
    let mock = Mock::start(Reply::chat()).await;
    let config = Config::new(&mock).more("prices: { p/m1: { input: 1, output: 2 } }");
    let gateway = Gateway::start(config).await;
    let app = gateway.app();
    app.chat().await.ok();
    app.ask(&client::chat(&json!({ "model": "no-such-model" }))).await.is(404, "model_not_found");
    app.chat().await.ok();
    gateway.status().await;
    let mut feed = Feed::open(gateway.admin, "").await.unwrap();
    let head = feed.head.to_ascii_lowercase();
    for header in [
        "content-type: text/event-stream; charset=utf-8",
        "cache-control: no-store",
        "x-accel-buffering: no",
        "x-content-type-options: nosniff",
        "cross-origin-resource-policy: same-origin",
    ] {
        assert!(head.contains(header), "{header} in {head}");
    }
    let first = feed.next().await.unwrap();
    assert_eq!(ids(&first), [3, 2, 1]);
    assert_eq!(first["total"], 3);
    assert_eq!(first["refused"], 1);
    let [chat, refused] = [&first["requests"][2], &first["requests"][1]];
    assert_eq!(
        (&chat["outcome"], &chat["error"], &chat["status"], &chat["plan"], &chat["route"]),
        (&json!("whole"), &json!(null), &json!(200), &json!("free"), &json!("model"))
    );
    assert_eq!(
        chat["tokens"].as_u64(),
        Some(chat["input"].as_u64().unwrap() + chat["output"].as_u64().unwrap())
    );
    assert!(chat["cost"].as_f64().unwrap() > 0.0 && chat["attempts"][0]["key"] == "p-1");
    assert_eq!(
        (&refused["outcome"], &refused["error"], &refused["model"]),
        (&json!("refused"), &json!("model_not_found"), &json!(""))
    );
    let status = gateway.status().await;
    assert_eq!(first["boot"], status["boot"]);
    assert_eq!(first["success_rate"], status["success_rate"]);
    // What comes then is told once, to all that listen.
    let mut other = Feed::open(gateway.admin, "").await.unwrap();
    assert_eq!(ids(&other.next().await.unwrap()), [3, 2, 1]);
    app.chat().await.ok();
    for feed in [&mut feed, &mut other] {
        let news = feed.news().await;
        assert_eq!((ids(&news), &news["total"]), (vec![4], &json!(4)));
    }
    // Without news the totals come all the same, so that a page knows that somebody is there.
    let quiet = Instant::now();
    assert_eq!(ids(&feed.next().await.unwrap()), [0; 0]);
    assert!(quiet.elapsed() < Duration::from_secs(3));
}

/// At most four a second, newest first, no request twice, none of the newest lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_load_events_come_four_times_a_second_at_most() {
    let mock = Mock::start(Reply::chat()).await;
    let gateway = Gateway::start(Config::new(&mock)).await;
    let load = Load::on(&gateway, 4);
    let mut seen = HashSet::new();
    let mut feeds = Vec::new();
    let began = Instant::now();
    for _ in 0..5 {
        // Some begin in the middle of it.
        let mut feed = Feed::open(gateway.admin, "").await.unwrap();
        let first = feed.next().await.unwrap();
        assert!(ids(&first).len() <= 50);
        feeds.push((feed, HashSet::<u64>::from_iter(ids(&first)), Instant::now(), 0u32));
    }
    while began.elapsed() < Duration::from_secs(2) {
        for (feed, told, _, events) in &mut feeds {
            let event = feed.next().await.unwrap();
            *events += 1;
            let ids = ids(&event);
            assert!(ids.len() <= 50 && ids.is_sorted_by(|a, b| a > b), "{ids:?}");
            for id in ids {
                assert!(told.insert(id), "{id} was told twice");
                seen.insert(id);
            }
        }
    }
    for (_, _, since, events) in &feeds {
        let most = since.elapsed().as_secs_f64() * 4.0 + 1.5;
        assert!(f64::from(*events) <= most, "{events} events in {:?}", since.elapsed());
    }
    let served = load.end().await;
    assert!(!seen.is_empty() && served > 50);
    let status = gateway.status().await;
    assert_eq!((&status["total"], &status["success"]), (&json!(served), &json!(served)));
    // The last fifty of all are what a new feed begins with.
    let last = Feed::open(gateway.admin, "").await.unwrap().next().await.unwrap();
    let expected: Vec<u64> = (served - 49..=served).rev().collect();
    assert_eq!(ids(&last), expected);
}

/// Names are the operator's, but nothing anybody sends or configures gets out of its string.
#[tokio::test]
async fn hostile_names_stay_in_their_strings() {
    const EVIL: &str = "</script><img/src=x\\onerror=alert(1)>";
    const ASKED: &str = "\"}\n\ndata: {\"forged\":true}\r\n\r\n<script>alert(2)</script>\u{2028}";
    let mock = Mock::start(Reply::chat()).await;
    let config = Config::new(&mock).model(&format!("'{EVIL}'"), "[p/m1]");
    let gateway = Gateway::start(config).await;
    let app = gateway.app();
    app.ask(&client::chat(&json!({ "model": EVIL }))).await.ok();
    app.ask(&client::chat(&json!({ "model": ASKED }))).await.is(404, "model_not_found");
    app.ask_as("<script>alert(3)</script>", &client::chat(&json!({}))).await;
    let user_agent = app
        .request("POST", "/v1/chat/completions")
        .bearer_auth(LICENSE)
        .header("content-type", "application/json")
        .header("user-agent", "<script>alert(4)</script>")
        .header("x-conversation-id", "alert-5")
        .body(client::chat(&json!({ "user": "<b>alert(6)</b>" })).to_string());
    user_agent.send().await.unwrap();
    gateway.status().await;
    let mut feed = Feed::open(gateway.admin, "").await.unwrap();
    let first = feed.next().await.unwrap();
    let models: Vec<&str> = first["requests"]
        .as_array()
        .unwrap()
        .iter()
        .map(|request| request["model"].as_str().unwrap())
        .collect();
    assert_eq!(models, ["fast", "", "", EVIL]);
    for path in ["/status", "/api/history", "/metrics"] {
        let answer = gateway.operator().get(path).send().await.unwrap();
        assert_ne!(answer.headers()["content-type"], "text/html");
        let text = answer.text().await.unwrap();
        for sign in ["alert(2)", "alert(3)", "alert(4)", "alert-5", "alert(6)", "forged"] {
            assert!(!text.contains(sign) && !first.to_string().contains(sign), "{sign} in {path}");
        }
    }
}

#[tokio::test]
async fn a_restart_forgets_everything_and_shows_it() {
    let mock = Mock::start(Reply::chat()).await;
    let mut gateway = Gateway::start(Config::new(&mock)).await;
    gateway.app().chat().await.ok();
    gateway.status().await;
    let first = Feed::open(gateway.admin, "").await.unwrap().next().await.unwrap();
    gateway.restart().await;
    let second = Feed::open(gateway.admin, "").await.unwrap().next().await.unwrap();
    assert_eq!((ids(&first).len(), ids(&second).len()), (1, 0));
    assert_eq!((&second["total"], &second["success_rate"]), (&json!(0), &json!(null)));
    assert_ne!(first["boot"], second["boot"]);
    assert_eq!(gateway.status().await["requests"], json!([]));
    // The same licence is somebody else from now on.
    gateway.app().chat().await.ok();
    let who = gateway.status().await["requests"][0]["who"].clone();
    assert_ne!(who, first["requests"][0]["who"]);
}

#[tokio::test]
async fn a_feed_ends_with_the_process() {
    let mock = Mock::start(Reply::chat().before_head(Step::Wait(Duration::from_secs(2)))).await;
    let mut gateway = Gateway::start(Config::new(&mock)).await;
    let mut feed = Feed::open(gateway.admin, "").await.unwrap();
    feed.next().await.unwrap();
    let app = gateway.app();
    let asking = tokio::spawn(async move { app.chat().await });
    mock.saw(1).await;
    gateway.signal(Signal::TERM);
    feed.ends(Duration::from_secs(1)).await;
    assert_eq!(Feed::open(gateway.admin, "").await.err(), Some(503));
    asking.await.unwrap().ok();
    gateway.exited(Duration::from_secs(10)).await;
}

#[tokio::test]
async fn a_bearer_token_that_is_taken_back_ends_its_feeds() {
    let (_mock, gateway) = locked("").await;
    let bearer = format!("authorization: Bearer {TOKEN}\r\n");
    let mut feed = Feed::open(gateway.admin, &bearer).await.unwrap();
    feed.next().await.unwrap();
    assert_eq!(Feed::open(gateway.admin, "").await.err(), Some(401));
    let token = gateway.dir.path().join("token");
    crate::support::yaml::write_private(&token, "another-admin-token-0123456789");
    gateway.signal(Signal::HUP);
    feed.ends(Duration::from_secs(10)).await;
    assert_eq!(Feed::open(gateway.admin, &bearer).await.err(), Some(401));
}

/// Apps that ask without a pause.
struct Load {
    stop: Arc<AtomicBool>,
    served: Arc<AtomicU64>,
    apps: JoinSet<()>,
}

impl Load {
    fn on(gateway: &Gateway, apps: usize) -> Self {
        let (stop, served) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let mut set = JoinSet::new();
        for _ in 0..apps {
            let (app, stop, served) = (gateway.app(), stop.clone(), served.clone());
            set.spawn(async move {
                while !stop.load(Relaxed) {
                    app.chat().await.ok();
                    served.fetch_add(1, Relaxed);
                    // Other tests run beside this one.
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
            });
        }
        Self { stop, served, apps: set }
    }

    async fn end(self) -> u64 {
        self.stop.store(true, Relaxed);
        self.apps.join_all().await;
        self.served.load(Relaxed)
    }
}

/// They measure the machine, or keep all of it busy: `make test` runs them with nothing beside them.
mod alone {
    use super::*;

    /// `make soak` lets it run for ten minutes.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn soak_of_two_hundred_feeds_under_load_which_cost_next_to_nothing() {
        const FEEDS: usize = 200;
        const SLOW: usize = 10;
        let time = repeat::time("GATEKEEPER_FEED_SECONDS", 6.0);
        let mock = Mock::start(Reply::chat()).await;
        // Ten minutes of load are more than a plan usually has.
        let plenty = "messages: 1000000000/month, models: [\"*\"]";
        let gateway = Gateway::start(Config::new(&mock).plan("free", plenty)).await;
        let load = Load::on(&gateway, 2);
        tokio::time::sleep(Duration::from_secs(2)).await;
        // Its own memory: pages of the journal come and go with the files they are of.
        let before = gateway.memory("RssAnon");
        let heard = Arc::new(AtomicU64::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let mut feeds = JoinSet::new();
        for _ in 0..FEEDS {
            let mut feed = Feed::open(gateway.admin, "").await.unwrap();
            let (heard, stop) = (heard.clone(), stop.clone());
            feeds.spawn(async move {
                while !stop.load(Relaxed) {
                    // Not parsed: two hundred readers share this machine with the gateway.
                    assert!(soon("an event", feed.chunk()).await.is_some(), "the feed goes on");
                    heard.fetch_add(1, Relaxed);
                }
            });
        }
        // Some don't read: they are cut off.
        let mut slow = Vec::new();
        for _ in 0..SLOW {
            slow.push(Feed::narrow(gateway.admin).await);
        }
        // And there is an end to how many there may be.
        let mut more = Vec::new();
        while let Ok(feed) = Feed::open(gateway.admin, "").await {
            more.push(feed);
            assert!(more.len() <= 256 - FEEDS, "feeds without end");
        }
        assert_eq!(Feed::open(gateway.admin, "").await.err(), Some(503));
        drop(more);
        tokio::time::sleep(time / 3).await;
        let (warm, began) = (gateway.memory("RssAnon"), Instant::now());
        let (heard_before, time_before) = (heard.load(Relaxed), gateway.cpu());
        tokio::time::sleep(time * 2 / 3).await;
        let last = gateway.memory("RssAnon");
        let events = heard.load(Relaxed) - heard_before;
        let spent = gateway.cpu() - time_before;
        let elapsed = began.elapsed();
        // There were 256 of them for a moment.
        let (per_feed, rate) = ((warm - before) / 256, events as f64 / elapsed.as_secs_f64());
        println!(
            "{FEEDS} feeds: {rate:.0} events/s, {per_feed} KiB a feed, {before} KiB before, {warm} KiB \
         warm, {last} KiB at the end, {} ms of processor time in {} ms with all requests",
            spent.as_millis(),
            elapsed.as_millis()
        );
        assert!(last <= warm + 2048, "{warm} KiB became {last} KiB");
        assert!(per_feed <= 96, "{per_feed} KiB a feed");
        // Nobody was starved by the others: more than two events a second for each.
        assert!(rate > 2.0 * FEEDS as f64, "{rate} events a second");
        // A place comes back when the reader is cut off; the rest of its bytes may still be with its kernel.
        let mut cut = JoinSet::new();
        for mut feed in slow {
            cut.spawn(async move {
                while feed.fill().await {
                    feed.pending.clear()
                }
            });
        }
        within(Duration::from_secs(10), "slow readers are cut off", cut.join_all()).await;
        stop.store(true, Relaxed);
        feeds.join_all().await;
        load.end().await;
        eventually("their places are free again", Duration::from_secs(5), || async {
            Feed::open(gateway.admin, "").await.is_ok()
        })
        .await;
    }
}
