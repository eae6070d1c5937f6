//! Failover: what one key can't do, the next does, and the app never learns of it.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::json;

use crate::support::{Config, Gateway, LICENSE, Mock, Reply, Step, client, mock::nobody, sse};

/// Every way in which a first attempt can fail before the app has seen anything.
fn faults(stream: bool) -> Vec<(&'static str, Reply)> {
    let error_in_200 = "{\"error\":{\"message\":\"overloaded\",\"type\":\"server_error\"}}";
    let mut faults: Vec<(&str, Reply)> = [401, 402, 403, 408, 429, 500, 502, 503, 504, 529]
        .into_iter()
        .map(|status| {
            let name: &str = Box::leak(format!("status {status}").into_boxed_str());
            (name, Reply::error(status))
        })
        .collect();
    faults.extend([
        ("reset before the answer", Reply::instead([Step::Reset])),
        ("closed before the answer", Reply::instead([Step::Close])),
        (
            "half a head",
            Reply::instead([Step::Write("HTTP/1.1 200 OK\r\ncontent-".into()), Step::Close]),
        ),
        ("no HTTP", Reply::instead([Step::Write("SSH-2.0-OpenSSH_9\r\n\r\n".into()), Step::Close])),
        ("a head without end", {
            let line: bytes::Bytes = format!("x-filler: {}\r\n", "a".repeat(1000)).into();
            let start = Step::Write("HTTP/1.1 200 OK\r\n".into());
            Reply::instead([start, Step::Endless(line, Duration::ZERO)])
        }),
        ("a switch of protocols", Reply::status(101).header("upgrade", "websocket")),
        ("a compressed answer", {
            let kind = if stream { "text/event-stream" } else { "application/json" };
            Reply::status(200)
                .header("content-type", kind)
                .header("content-encoding", "gzip")
                .write("x")
        }),
        ("a redirect", Reply::status(302).header("location", "http://169.254.169.254/")),
    ]);
    let json_only = [
        ("truncated JSON", Reply::json(200, &sse::CHAT[..60])),
        (
            "JSON shorter than said",
            Reply::json(200, &sse::CHAT[..60]).lying_length(sse::CHAT.len()),
        ),
        ("JSON reset half way", Reply::json(200, sse::CHAT).lying_length(9_999).then(Step::Reset)),
        ("chunked JSON without end", Reply::json(200, sse::CHAT).chunked().then(Step::Close)),
        ("an error in a 200", Reply::json(200, error_in_200)),
        ("an empty 200", Reply::json(200, "")),
        ("an answer without end", {
            let filler = Step::Endless(" ".repeat(256 * 1024).into(), Duration::ZERO);
            Reply::json(200, "{").chunked().then(filler)
        }),
        (
            "HTML in a 200",
            Reply::status(200).header("content-type", "text/html").write("<h1>Hi</h1>"),
        ),
    ];
    faults.extend(json_only.map(|(name, reply)| (name, reply.header("x-only", "json"))));
    let stream_only = [
        ("an error as the first event", Reply::sse(&[sse::ERROR])),
        ("a role, then an error", Reply::sse(&[sse::ROLE, sse::ERROR])),
        ("a role, then the end", Reply::sse(&[sse::ROLE])),
        ("a role, then closed", Reply::sse(&[sse::ROLE]).then(Step::Close)),
        ("a role, then reset", Reply::sse(&[sse::ROLE]).then(Step::Reset)),
        ("half an event", Reply::sse(&[&sse::ROLE[..40]]).then(Step::Close)),
        ("nothing but a comment", Reply::sse(&[": processing\n\n"])),
        ("a JSON error for a stream", Reply::json(200, error_in_200)),
        ("an event without end", {
            let filler = Step::Endless("x".repeat(64 * 1024).into(), Duration::ZERO);
            Reply::sse(&["data: {\"id\":\""]).then(filler)
        }),
    ];
    faults.extend(stream_only.map(|(name, reply)| (name, reply.header("x-only", "stream"))));
    faults
}

/// One gateway; each fault has a provider and a licence of its own.
async fn the_next_key_answers(stream: bool) {
    let other = if stream { "json" } else { "stream" };
    let good = if stream { Reply::stream() } else { Reply::chat() };
    let expected = if stream { sse::plain(&["Hel", "lo"]).concat() } else { sse::CHAT.to_owned() };
    let is_of_other =
        |reply: &Reply| format!("{reply:?}").contains(&format!("\"x-only\", \"{other}\""));
    let plan = "messages: 50/month, tokens: 100000/month, models: [\"*\"]";
    let mut config = Config::empty().plan("free", plan);
    let mut cases = Vec::new();
    for (what, fault) in faults(stream).into_iter().filter(|(_, fault)| !is_of_other(fault)) {
        let name = format!("fault{}", cases.len());
        let license = format!("JSTAR-FAULT-{:04}", cases.len());
        let mock = Mock::sequence([fault, good.clone()]).await;
        config = config
            .license(&license, "free")
            .provider(&name, &mock, &["sk-one", "sk-two"])
            .model(&name, &format!("[{name}/m1]"));
        cases.push((what, name, license, mock));
    }
    let gateway = Gateway::start(config).await;
    let asked = cases.iter().map(|(what, name, license, mock)| {
        let (gateway, expected) = (&gateway, &expected);
        async move {
            let body = client::chat(&json!({ "model": name, "stream": stream }));
            let answer = gateway.app().ask_as(license, &body).await;
            assert_eq!(answer.status, 200, "{what}: {}", answer.text());
            assert_eq!(answer.ok().text(), *expected, "{what}");
            assert_eq!(answer.number("x-gatekeeper-attempts"), 2, "{what}");
            // A key that was refused is probed meanwhile: that asks for the list of models.
            let mut asked = mock.seen();
            asked.retain(|seen| seen.method == "POST");
            assert_eq!(asked.len(), 2, "{what}: {:?}", mock.keys());
            assert_ne!(asked[0].key, asked[1].key, "{what}: the same key again");
            assert_eq!(asked[0].body, asked[1].body, "{what}");
            assert_eq!(gateway.messages(license).await, 1, "{what}");
            assert_eq!(gateway.tokens(license).await, sse::TOKENS, "{what}");
        }
    });
    join_all(asked).await;
}

#[tokio::test]
async fn the_next_key_answers_for_json() {
    the_next_key_answers(false).await;
}

#[tokio::test]
async fn the_next_key_answers_for_streams() {
    the_next_key_answers(true).await;
}

#[tokio::test]
async fn a_provider_that_refuses_connections_is_left_for_the_next_target() {
    let mock = Mock::start(Reply::chat()).await;
    let config = Config::new(&mock)
        .provider_at("dead", &nobody(), "", &["sk-dead"])
        .model("fast", "[dead/m0, p/m1]");
    let gateway = Gateway::start(config).await;
    let began = Instant::now();
    let answer = gateway.app().chat().await;
    assert_eq!(answer.ok().header("x-gatekeeper-model"), Some("p/m1"));
    assert_eq!(answer.number("x-gatekeeper-attempts"), 2);
    assert!(began.elapsed() < Duration::from_secs(1), "took {:?}", began.elapsed());
    assert_eq!(gateway.messages(LICENSE).await, 1);
}

#[tokio::test]
async fn after_a_provider_fault_one_more_key_then_the_next_target() {
    let first = Mock::start(Reply::error(503)).await;
    let second = Mock::start(Reply::chat()).await;
    let config = Config::new(&first)
        .keys("p", &["sk-1", "sk-2", "sk-3", "sk-4"])
        .provider("q", &second, &["sk-q"])
        .model("fast", "[p/m1, q/m2]");
    let gateway = Gateway::start(config).await;
    let answer = gateway.app().chat().await;
    assert_eq!(answer.ok().header("x-gatekeeper-model"), Some("q/m2"));
    assert_eq!(answer.number("x-gatekeeper-attempts"), 3);
    assert_eq!((first.count(), second.count()), (2, 1));
    assert_eq!(second.only().json()["model"], "m2");
}

#[tokio::test]
async fn the_last_attempt_belongs_to_the_next_target() {
    let first = Mock::start(Reply::error(429)).await;
    let second = Mock::start(Reply::chat()).await;
    let config = Config::new(&first)
        .keys("p", &["sk-1", "sk-2", "sk-3", "sk-4"])
        .provider("q", &second, &["sk-q"])
        .model("fast", "[p/m1, q/m2]");
    let gateway = Gateway::start(config).await;
    let answer = gateway.app().chat().await;
    assert_eq!(answer.ok().number("x-gatekeeper-attempts"), 3);
    assert_eq!((first.count(), second.count()), (2, 1));
}

#[tokio::test]
async fn there_are_never_more_than_three_attempts() {
    let mock = Mock::start(Reply::error(429)).await;
    let config = Config::new(&mock).keys("p", &["sk-1", "sk-2", "sk-3", "sk-4", "sk-5"]);
    let gateway = Gateway::start(config).await;
    let answer = gateway.app().chat().await;
    answer.is(503, "upstream_exhausted");
    assert!(answer.number("retry-after") <= 60);
    assert_eq!(mock.count(), 3);
    let mut keys = mock.keys();
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), 3, "each attempt has a key of its own");
    assert_eq!(gateway.messages(LICENSE).await, 0);
}

#[tokio::test]
async fn a_provider_that_fails_everywhere_is_502_and_free() {
    for stream in [false, true] {
        let mock = Mock::start(Reply::error(500)).await;
        let config = Config::new(&mock).keys("p", &["sk-1", "sk-2", "sk-3"]);
        let gateway = Gateway::start(config).await;
        let answer = gateway.app().ask(&client::chat(&json!({ "stream": stream }))).await;
        answer.is(502, "upstream_error");
        assert!(!answer.text().contains("SECRET"), "{}", answer.text());
        assert_eq!(mock.count(), 3, "no key is left untried");
        assert_eq!(gateway.messages(LICENSE).await, 0);
    }
}

/// One key and no fallback: what passes in a moment is waited for.
#[tokio::test]
async fn the_only_key_is_asked_once_more() {
    let short = || Reply::error(429).header("retry-after", "1");
    for (what, fault, pause) in [
        ("500", Reply::error(500), 300),
        ("503", Reply::error(503), 300),
        ("reset", Reply::instead([Step::Reset]), 300),
        ("429 for a second", short(), 1000),
    ] {
        for stream in [false, true] {
            let good = if stream { Reply::stream() } else { Reply::chat() };
            let mock = Mock::sequence([fault.clone(), good]).await;
            let gateway = Gateway::start(Config::new(&mock).keys("p", &["sk-only"])).await;
            let began = Instant::now();
            let answer = gateway.app().ask(&client::chat(&json!({ "stream": stream }))).await;
            assert_eq!(answer.ok().number("x-gatekeeper-attempts"), 2, "{what}");
            let took = began.elapsed().as_millis();
            assert!((pause..pause + 900).contains(&took), "{what}: {took} ms");
            assert_eq!(gateway.messages(LICENSE).await, 1, "{what}");
        }
    }
    // Not what would come again, and not for long.
    let page = Reply::status(200).header("content-type", "text/html").write("<h1>Hi</h1>");
    for (fault, code) in [
        (Reply::error(504), "upstream_error"),
        (page, "upstream_error"),
        (Reply::error(429).header("retry-after", "3"), "upstream_exhausted"),
    ] {
        let mock = Mock::sequence([fault, Reply::chat()]).await;
        let gateway = Gateway::start(Config::new(&mock).keys("p", &["sk-only"])).await;
        assert_eq!(gateway.app().chat().await.error("code"), code);
        assert_eq!(mock.count(), 1);
    }
}

/// A SYN that nobody answers costs one connect, not one a key.
#[tokio::test]
async fn a_host_that_nobody_answers_at_costs_one_connect() {
    let full = FullHost::new().await;
    let mock = Mock::start(Reply::chat()).await;
    let config = Config::new(&mock)
        .provider_at("dead", &full.url(), ", timeouts: { connect: 1500ms }", &["sk-1", "sk-2"])
        .model("fast", "[dead/m0, dead/m00, p/m1]");
    let gateway = Gateway::start(config).await;
    let began = Instant::now();
    let answer = gateway.app().chat().await;
    assert_eq!(answer.ok().header("x-gatekeeper-model"), Some("p/m1"));
    assert_eq!(answer.number("x-gatekeeper-attempts"), 2);
    let took = began.elapsed();
    assert!(took > Duration::from_millis(1450) && took < Duration::from_millis(2900), "{took:?}");
}

/// Listens, and has no place for another connection: the kernel drops the SYN.
struct FullHost {
    listener: tokio::net::TcpListener,
    _queued: Vec<tokio::net::TcpStream>,
}

impl FullHost {
    async fn new() -> Self {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(1).unwrap();
        let mut queued = Vec::new();
        let addr = listener.local_addr().unwrap();
        let connect = || {
            let connect = tokio::net::TcpStream::connect(addr);
            tokio::time::timeout(Duration::from_millis(100), connect)
        };
        while let Ok(Ok(stream)) = connect().await {
            queued.push(stream);
        }
        Self { listener, _queued: queued }
    }

    fn url(&self) -> String {
        format!("http://{}/v1", self.listener.local_addr().unwrap())
    }
}

/// `[a (two keys), b (two keys), c]`: two that fail don't use up the attempts of the third.
#[tokio::test]
async fn a_third_target_is_reached() {
    let (first, second) =
        (Mock::start(Reply::error(503)).await, Mock::start(Reply::error(520)).await);
    let third = Mock::start(Reply::chat()).await;
    let config = Config::new(&first)
        .provider("b", &second, &["sk-b1", "sk-b2"])
        .provider("c", &third, &["sk-c"])
        .model("fast", "[p/m1, b/m2, c/m3]");
    let gateway = Gateway::start(config).await;
    for _ in 0..10 {
        assert_eq!(gateway.app().chat().await.ok().header("x-gatekeeper-model"), Some("c/m3"));
    }
}

/// One account of two is broken: nobody notices, and its provider is not blamed.
#[tokio::test]
async fn a_broken_account_costs_nobody_an_answer() {
    let requests = std::env::var("GATEKEEPER_ACCOUNT_REQUESTS").ok().and_then(|s| s.parse().ok());
    let requests: usize = requests.unwrap_or(100);
    let page = Reply::status(200).header("content-type", "text/html").write("<h1>Hi</h1>");
    for fault in [Reply::error(500), Reply::instead([Step::Reset]), page] {
        let mock = Mock::start(Reply::chat()).await;
        mock.key("sk-bad", [fault]);
        let gateway = Gateway::start(Config::new(&mock).keys("p", &["sk-bad", "sk-good"])).await;
        for _ in 0..requests {
            gateway.app().chat().await.ok();
        }
        let provider = gateway.status().await["providers"][0]["state"].clone();
        assert_eq!(provider, "serving");
        let bad = mock.keys().iter().filter(|key| *key == "sk-bad").count();
        assert!(bad < 4 + requests / 10, "{bad} of {requests} met it");
    }
}

/// Alone and failing: what is tried again, and what passes the open circuit, has a budget.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_faults_is_not_made_worse() {
    let mock = Mock::start(Reply::error(500)).await;
    let plan = "messages: 100000/month, concurrency: 100, models: [fast]";
    let config = Config::new(&mock).plan("free", plan).keys("p", &["sk-only"]);
    let gateway = std::sync::Arc::new(Gateway::start(config).await);
    let mut apps = tokio::task::JoinSet::new();
    for _ in 0..40 {
        let gateway = gateway.clone();
        apps.spawn(async move {
            for _ in 0..10 {
                gateway.app().chat().await.is(502, "upstream_error");
            }
        });
    }
    apps.join_all().await;
    let sent = mock.seen().iter().filter(|seen| seen.method == "POST").count();
    println!("400 requests in a storm of 500: {sent} were sent on");
    // Those that were open when the circuit opened, and a fifth of all.
    assert!((7..=40 + 80 + 5).contains(&sent), "{sent}");
}

#[tokio::test]
async fn a_model_the_provider_does_not_have_is_left_for_the_next_target() {
    let body = "{\"error\":{\"message\":\"The model `m1` does not exist\",\"type\":\"invalid_request_error\",\"param\":null,\"code\":\"model_not_found\"}}";
    let first = Mock::start(Reply::json(404, body)).await;
    let second = Mock::start(Reply::chat()).await;
    let config =
        Config::new(&first).provider("q", &second, &["sk-q"]).model("fast", "[p/m1, q/m2]");
    let gateway = Gateway::start(config).await;
    let answer = gateway.app().chat().await;
    assert_eq!(answer.ok().header("x-gatekeeper-model"), Some("q/m2"));
}

#[tokio::test]
async fn interim_answers_are_not_taken_for_the_answer() {
    let reply = Reply::chat().interim(100).interim(103);
    let mock = Mock::start(reply).await;
    let gateway = Gateway::start(Config::new(&mock)).await;
    let answer = gateway.app().chat().await;
    assert_eq!(answer.ok().body, sse::CHAT);
    assert_eq!(answer.number("x-gatekeeper-attempts"), 1);
}

#[tokio::test]
async fn every_framing_of_a_good_answer_is_good() {
    let mock = Mock::sequence([
        Reply::chat(),
        Reply::chat().chunked(),
        Reply::chat().bytewise(),
        Reply::chat().bytewise().chunked(),
        Reply::chat().header("connection", "close"),
        Reply::chat().until_close(),
        Reply::chat(),
    ])
    .await;
    let gateway = Gateway::start(Config::new(&mock)).await;
    for round in 0..7 {
        let answer = gateway.app().chat().await;
        assert_eq!(answer.ok().body, sse::CHAT, "{round}");
        assert_eq!(answer.number("x-gatekeeper-attempts"), 1, "{round}");
    }
    assert_eq!(mock.count(), 7);
}

#[tokio::test]
async fn a_connection_the_provider_closed_meanwhile_is_no_fault_of_its_key() {
    let mock = Mock::sequence([Reply::chat(), Reply::instead([Step::Close]), Reply::chat()]).await;
    let gateway = Gateway::start(Config::new(&mock).keys("p", &["sk-one"])).await;
    gateway.app().chat().await.ok();
    let answer = gateway.app().chat().await;
    assert_eq!(answer.ok().number("x-gatekeeper-attempts"), 1);
    let seen = mock.seen();
    assert_eq!((seen[0].connection, seen[1].connection, seen[2].connection), (0, 0, 1));
    assert_eq!(gateway.messages(LICENSE).await, 2);
}

#[tokio::test]
async fn an_error_whose_body_never_ends_does_not_hold_the_request() {
    let endless = Reply::json(429, "{\"error\":").chunked().then(Step::Hang);
    let mock = Mock::sequence([endless, Reply::chat()]).await;
    let gateway = Gateway::start(Config::new(&mock)).await;
    let began = Instant::now();
    assert_eq!(gateway.app().chat().await.ok().number("x-gatekeeper-attempts"), 2);
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
}

/// Nobody counted or said anything: the buyer gets the message back, and the tokens.
#[tokio::test]
async fn a_200_that_was_no_answer_costs_the_buyer_nothing() {
    let mock = Mock::start(Reply::json(200, &sse::CHAT[..60])).await;
    let plan = "messages: 50/month, tokens: 100000/month, models: [\"*\"]";
    let gateway = Gateway::start(Config::new(&mock).plan("free", plan)).await;
    gateway.app().chat().await.is(502, "upstream_error");
    assert_eq!(gateway.messages(LICENSE).await, 0);
    assert_eq!(gateway.tokens(LICENSE).await, 0);
}
