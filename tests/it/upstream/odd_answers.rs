//! Answers as no provider should send them, and as some servers in front of providers do: the app gets a whole answer,
//! of this provider or of the next.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;

use crate::support::{Config, Gateway, Mock, Reply, Step, client, sse};

/// Never reaches an app.
const SECRET: &str = "SECRET-of-another-buyer";

struct Odd {
    what: &'static str,
    reply: Reply,
    stream: bool,
    /// One where the answer is good, two where the next target gives it.
    attempts: u64,
}

fn odd(what: &'static str, reply: Reply, attempts: u64) -> Odd {
    Odd { what, reply, stream: false, attempts }
}

/// An answer written by hand, after which the connection stays open.
fn raw(bytes: impl Into<String>) -> Reply {
    Reply::instead([Step::Write(bytes.into().into()), Step::Hang])
}

/// A good body under this status and these lines.
fn with(status: &str, lines: &str) -> Reply {
    raw(format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\n{lines}\r\n{}", sse::CHAT))
}

fn all() -> Vec<Odd> {
    let (chat, length) = (sse::CHAT, sse::CHAT.len());
    let chunks = format!("{length:x}\r\n{chat}\r\n0\r\n");
    let typed = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n";
    let wait = || Step::Wait(Duration::from_millis(200));
    let mut all = vec![
        odd(
            "a length twice",
            with("200 OK", &format!("content-length: {length}\r\n").repeat(2)),
            1,
        ),
        odd(
            "two lengths",
            with(
                "200 OK",
                &format!("content-length: {length}\r\ncontent-length: {}\r\n", length - 9),
            ),
            2,
        ),
        odd(
            "a length beside chunks",
            raw(format!(
                "{typed}content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n{chunks}\r\n"
            )),
            1,
        ),
        odd(
            "trailers",
            raw(format!(
                "{typed}transfer-encoding: chunked\r\n\r\n{chunks}x-account: {SECRET}\r\n\r\n"
            )),
            1,
        ),
        odd("two interim answers", Reply::chat().interim(103).interim(100), 1),
        odd("no HTTP", raw(format!("{chat}\r\n\r\n")), 2),
        odd(
            "a blank line before the JSON, again and again",
            {
                let slow = Reply::status(200).header("content-type", "application/json").chunked();
                slow.write("\n")
                    .then(wait())
                    .write("\n")
                    .then(wait())
                    .write("\n")
                    .then(wait())
                    .write(chat)
            },
            1,
        ),
        odd(
            "a head that never ends",
            {
                let begun = Step::Write("HTTP/1.1 200 OK\r\nx: ".into());
                Reply::instead([begun, Step::Endless("a".into(), Duration::from_millis(50))])
            },
            2,
        ),
        odd(
            "a page of HTML",
            Reply::status(520).header("content-type", "text/html").write("<h1>"),
            2,
        ),
        odd(
            "a model that loads",
            Reply::json(503, r#"{"error":{"message":"Loading model","code":503}}"#),
            2,
        ),
    ];
    for status in [
        "101 Switching Protocols",
        "204 No Content",
        "304 Not Modified",
        "302 Found",
        "099 Low",
        "999 High",
    ] {
        let line = format!("content-length: {length}\r\nlocation: http://127.0.0.1:1/\r\n");
        all.push(odd("an odd status", with(status, &line), 2));
    }
    all.push(Odd {
        stream: true,
        ..odd(
            "comments alone",
            {
                let silent = Reply::sse(&[": processing\n\n"]);
                silent.then(Step::Endless(": processing\n\n".into(), Duration::from_millis(50)))
            },
            2,
        )
    });
    all
}

/// One provider for each, at an address of its own: nothing of one is seen in another.
#[tokio::test]
async fn an_odd_answer_is_whole_or_the_next_target_s() {
    let mock = Mock::everywhere(Reply::chat()).await;
    let fallback = Mock::start(Reply::chat()).await;
    let streams = Mock::start(Reply::stream()).await;
    let mut config = Config::new(&fallback).provider("events", &streams, &["sk-events"]);
    for (number, odd) in all().into_iter().enumerate() {
        let name = format!("odd{number}");
        let base = format!("http://127.70.{number}.1:{}/v1", mock.addr.port());
        let timeouts = ", timeouts: { first_byte: 1s, first_token: 1s }";
        mock.key(&name, [odd.reply]);
        let next = if odd.stream { "events" } else { "p" };
        config = config.provider_at(&name, &base, timeouts, &[&name]);
        config = config.model(&name, &format!("[{name}/m, {next}/m1]"));
    }
    let gateway = Gateway::start(config).await;
    let asked = all().into_iter().enumerate().map(|(number, odd)| {
        let app = gateway.app();
        async move {
            let body =
                client::chat(&json!({ "model": format!("odd{number}"), "stream": odd.stream }));
            (app.ask(&body).await, odd)
        }
    });
    for (answer, odd) in join_all(asked).await {
        let what = odd.what;
        assert_eq!(answer.status, 200, "{what}: {}", answer.text());
        assert!(answer.whole && !answer.text().contains(SECRET), "{what}: {}", answer.text());
        assert!(
            odd.stream || answer.text().trim() == sse::CHAT.trim(),
            "{what}: {}",
            answer.text()
        );
        assert_eq!(answer.number("x-gatekeeper-attempts"), odd.attempts, "{what}");
        assert!(answer.header("x-account").is_none(), "{what}");
    }
}

/// What comes behind an answer is nobody's: its connection is not used again.
#[tokio::test]
async fn an_answer_behind_an_answer_reaches_no_other_buyer() {
    let other = sse::CHAT.replace("Hel", SECRET);
    let answer = |body: &str| {
        let typed = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n";
        format!("{typed}content-length: {}\r\n\r\n{body}", body.len())
    };
    assert!(other.contains(SECRET));
    let together = format!("{}{}", answer(sse::CHAT), answer(&other));
    let mock = Mock::start(Reply::chat()).await;
    let config = Config::new(&mock).keys("p", &["sk-one"]);
    let gateway = Gateway::start(config).await;
    for pause in [0, 50] {
        let behind = [
            Step::Write(answer(sse::CHAT).into()),
            Step::Wait(Duration::from_millis(pause)),
            Step::Write(answer(&other).into()),
            Step::Hang,
        ];
        for reply in [raw(together.clone()), Reply::instead(behind)] {
            mock.answer([reply, Reply::chat()]);
            for _ in 0..3 {
                assert_eq!(gateway.app().chat().await.ok().body, sse::CHAT);
                tokio::time::sleep(Duration::from_millis(pause)).await;
            }
        }
    }
}
