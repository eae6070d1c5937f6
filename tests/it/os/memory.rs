//! Memory under attack: what all requests hold together has a bound, and above it they are told to come
//! again.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{
    Answer, Config, Gate, Gateway, LICENSE, Mock, Reply, Step, body_of,
    client::{self, post_head},
    eventually, sse,
};

const MIB: usize = 1024 * 1024;
/// What may be held in these tests, and what a process of ours takes beside it: a body is held as it
/// came and as it is sent, and each open request has its buffers.
const BUFFERED: u64 = 32;
const BESIDE: u64 = 48;
/// How many ask at once.
const ASKED: usize = 60;

async fn start(mock: &Mock, model: &str) -> Gateway {
    let server = format!("grace: 5s, limits: {{ buffered: {BUFFERED}MiB }}");
    Gateway::start(Config::new(mock).server(&server).model("fast", model)).await
}

/// Asks 60 times at once, opens the gate when all have got as far as they can (answered, or waiting at the
/// provider's gate), and counts those that were served and those that were refused.
async fn flood(mock: &Mock, gateway: &Gateway, gate: &Gate, body: Vec<u8>) -> (usize, usize) {
    let before = gateway.memory("VmRSS");
    let asked: Vec<_> = (0..ASKED)
        .map(|_| {
            let (app, body) = (gateway.app(), body.clone());
            tokio::spawn(async move { Answer::of(app.post("/chat", body)).await })
        })
        .collect();
    let finished = || asked.iter().filter(|answer| answer.is_finished()).count();
    eventually("some are refused and the others wait", Duration::from_secs(30), || async {
        let refused = finished();
        refused > 0 && refused + gate.waiting() == ASKED
    })
    .await;
    gate.open();
    let (mut served, mut refused) = (0, 0);
    for answer in asked {
        let answer = answer.await.unwrap();
        match answer.status {
            200 => {
                answer.ok();
                served += 1;
            }
            _ => {
                refused += 1;
                answer.is(503, "upstream_exhausted");
                assert_eq!(answer.header("retry-after"), Some("1"));
            }
        }
    }
    let most = gateway.memory("VmHWM").saturating_sub(before) / 1024;
    println!("{served} served, {refused} refused, {most} MiB more at most");
    assert!(most <= 2 * BUFFERED + BESIDE, "{most} MiB more");
    assert!(served > 0 && refused > 0, "{served} served, {refused} refused");
    mock.answer([Reply::chat()]);
    gateway.app().chat().await.ok();
    let status = gateway.status().await;
    for key in status["keys"].as_array().unwrap() {
        assert_eq!((&key["state"], &key["errors"]), (&json!("ready"), &json!(0)), "{status}");
    }
    (served, refused)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_bodies() {
    let gate = Gate::new();
    let mock = Mock::start(Reply::chat().before_head(Step::Gate(gate.clone()))).await;
    let gateway = start(&mock, "[p/m1]").await;
    let (served, _) = flood(&mock, &gateway, &gate, body_of(4 * MIB)).await;
    assert_eq!(gateway.messages(LICENSE).await, served as u64 + 1, "who was refused pays nothing");
}

/// A whole answer, most of which comes at once and the rest when the gate opens.
fn large_answer(gate: &Gate) -> Reply {
    let (head, tail) = sse::CHAT.split_at(sse::CHAT.find("Hel").unwrap());
    Reply::json(200, [head.as_bytes(), &vec![b'a'; 4 * MIB]].concat())
        .then(Step::Gate(gate.clone()))
        .write(tail)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_answers() {
    for reply in [large_answer as fn(&Gate) -> Reply, |gate: &Gate| large_answer(gate).chunked()] {
        let gate = Gate::new();
        let mock = Mock::start(reply(&gate)).await;
        let gateway = start(&mock, "[p/m1]").await;
        let body = client::chat(&json!({})).to_string().into_bytes();
        flood(&mock, &gateway, &gate, body).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whole_deliveries() {
    let gate = Gate::new();
    let text = "a".repeat(256 * 1024);
    let mut events = vec![sse::ROLE.to_owned()];
    events.extend((0..16).map(|_| sse::text(&text)));
    let reply =
        Reply::sse(&events).then(Step::Gate(gate.clone())).write(sse::FINISH).write(sse::DONE);
    let mock = Mock::start(reply).await;
    let gateway = start(&mock, "{ targets: [p/m1], delivery: whole }").await;
    let body = client::chat(&json!({ "stream": true })).to_string().into_bytes();
    flood(&mock, &gateway, &gate, body).await;
}

#[tokio::test]
async fn open_requests_have_a_bound() {
    let gate = Gate::new();
    let mock = Mock::start(Reply::chat().before_head(Step::Gate(gate.clone()))).await;
    let server = "grace: 5s, limits: { requests: 3 }";
    let gateway = Gateway::start(Config::new(&mock).server(server)).await;
    let ask = || {
        let app = gateway.app();
        tokio::spawn(async move { app.chat().await })
    };
    let open: Vec<_> = (0..3).map(|_| ask()).collect();
    mock.saw(3).await;
    for _ in 0..2 {
        let refused = ask().await.unwrap();
        assert_eq!(refused.is(503, "upstream_exhausted").header("retry-after"), Some("1"));
    }
    // What costs nothing is answered all the same.
    assert_eq!(gateway.app().get("/healthz").send().await.unwrap().status(), 200);
    assert_eq!(gateway.messages(LICENSE).await, 3);
    gate.open();
    for open in open {
        open.await.unwrap().ok();
    }
    gateway.app().chat().await.ok();
}

/// An event that does not end is held, too; a stream that has begun ends in an error then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_without_an_end() {
    let (begun, gate) = (Gate::new(), Gate::new());
    let part = format!("data: {{\"x\":\"{}", "a".repeat(900 * 1024));
    let reply = Reply::sse(&[sse::ROLE.to_owned(), sse::text("Hel")])
        .then(Step::Gate(begun.clone()))
        .write(part)
        .then(Step::Gate(gate.clone()))
        .write("\"}\n\n")
        .write(sse::FINISH)
        .write(sse::DONE);
    let mock = Mock::start(reply).await;
    let server = "grace: 5s, limits: { body: 1MiB, buffered: 8MiB }";
    let gateway = Gateway::start(Config::new(&mock).server(server)).await;
    let before = gateway.memory("VmRSS");
    let asked: Vec<_> = (0..30)
        .map(|_| {
            let app = gateway.app();
            tokio::spawn(async move { app.stream().await })
        })
        .collect();
    // One that had not begun by then would be refused.
    mock.saw(30).await;
    begun.open();
    eventually("some are ended", Duration::from_secs(20), || async {
        asked.iter().filter(|answer| answer.is_finished()).count() >= 10
    })
    .await;
    gate.open();
    let mut broken = 0;
    for answer in asked {
        let answer = answer.await.unwrap();
        let whole = answer.text().ends_with(sse::DONE);
        broken += usize::from(!whole);
        assert!(whole || answer.text().contains("The answer broke off."), "{}", answer.text());
    }
    assert!((10..30).contains(&broken), "{broken} were broken off");
    let most = gateway.memory("VmHWM").saturating_sub(before) / 1024;
    assert!(most <= 16 + BESIDE, "{most} MiB more");
    assert_eq!(gateway.status().await["keys"][0]["errors"], 0);
}

/// One licence, one address: a quarter of what may be held, however slow its bodies are.
#[tokio::test]
async fn what_one_licence_holds_leaves_room_for_the_others() {
    let mock = Mock::start(Reply::chat()).await;
    let config = Config::new(&mock).license("JSTAR-TEST-0002", "free").server(
        "grace: 5s, limits: { body: 2MiB, buffered: 16MiB }, trusted_proxies: [127.0.0.0/8]",
    );
    let gateway = Gateway::start(config).await;
    let mut open = Vec::new();
    let (mut waiting, mut refused) = (0, 0);
    for address in ["192.0.2.1", "192.0.2.1", "192.0.2.2", "192.0.2.3"].into_iter().cycle().take(16)
    {
        let mut raw = gateway.raw().await;
        let head = post_head("/chat");
        raw.send(format!("{head}x-forwarded-for: {address}\r\ncontent-length: 1900000\r\n\r\n"))
            .await;
        raw.send(vec![b' '; 1_800_000]).await;
        match tokio::time::timeout(Duration::from_millis(150), raw.answer()).await {
            Ok(answer) => {
                let answer = answer.expect("an answer");
                assert_eq!((answer.status, answer.code().as_str()), (503, "upstream_exhausted"));
                assert_eq!(answer.header("retry-after"), Some("1"));
                refused += 1;
            }
            Err(_) => waiting += 1,
        }
        open.push(raw);
        gateway.app().chat_from("192.0.2.9", "JSTAR-TEST-0002").await.ok();
    }
    println!("{waiting} bodies of one licence wait, {refused} are refused");
    assert!((1..=2).contains(&waiting) && refused >= 14, "{waiting} wait, {refused} are refused");
}

/// A byte now and then keeps nothing open.
#[tokio::test]
async fn a_body_must_keep_a_kibibyte_a_second() {
    let mock = Mock::start(Reply::chat()).await;
    let gateway = Gateway::start(Config::new(&mock)).await;
    let body = body_of(40_000);
    let head = format!("{}content-length: {}\r\n\r\n", post_head("/chat"), body.len());
    let began = Instant::now();
    let fine = async {
        let mut raw = gateway.raw().await;
        raw.send(&head).await;
        // 4 KiB a second.
        for piece in body.chunks(4096) {
            raw.send(piece).await;
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        raw.answer().await.expect("an answer").status
    };
    let slow = async {
        let (mut read, mut write) = gateway.raw().await.into_halves();
        write.write_all(head.as_bytes()).await.unwrap();
        write.write_all(&body[..2000]).await.unwrap();
        let drip = async {
            for byte in body[2000..].chunks(1) {
                tokio::time::sleep(Duration::from_secs(1)).await;
                if write.write_all(byte).await.is_err() {
                    break;
                }
            }
        };
        let mut answer = vec![0; 12];
        tokio::select! {
            read = read.read_exact(&mut answer) => drop(read.expect("an answer")),
            () = drip => {}
        }
        (String::from_utf8_lossy(&answer).into_owned(), began.elapsed())
    };
    let (fine, (slow, took)) = tokio::join!(fine, slow);
    assert_eq!(fine, 200);
    assert_eq!(slow, "HTTP/1.1 400");
    assert!((7..13).contains(&took.as_secs()), "after {took:?}");
}

#[tokio::test]
async fn a_body_that_would_never_fit_is_made_smaller() {
    let mock = Mock::start(Reply::chat()).await;
    let gateway = Gateway::start(Config::new(&mock).server("limits: { buffered: 2MiB }")).await;
    gateway.logged("server.limits.body: ").await;
    Answer::of(gateway.app().post("/chat", body_of(1_500_000))).await.ok();
    Answer::of(gateway.app().post("/chat", body_of(2_000_000))).await.is(413, "body_too_large");
}
