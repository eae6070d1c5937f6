//! Where an answer ends: what comes after a finish reason, what never comes, and answers that say nothing.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::{Answer, Config, Gateway, LICENSE, Mock, Reply, Step, client, sse};

/// One provider that answers in its own way, and what the app has in the end.
struct Case {
    name: &'static str,
    gemini: bool,
    reply: Reply,
    text: &'static str,
    /// Milliseconds from the request to the end of the answer.
    took: std::ops::Range<u64>,
    /// Tokens that are charged; `None` where they are estimated.
    tokens: Option<u64>,
}

fn wait(ms: u64) -> Step {
    Step::Wait(Duration::from_millis(ms))
}

fn begun() -> Reply {
    Reply::sse(&[sse::ROLE.to_owned(), sse::text("Hel"), sse::text("lo"), sse::FINISH.to_owned()])
}

/// A chunk of Gemini's; `stop` and `counts` where it says so.
fn chunk(text: &str, stop: bool, counts: Option<u64>) -> String {
    let parts = if text.is_empty() { json!([]) } else { json!([{ "text": text }]) };
    let mut chunk =
        json!({ "candidates": [{ "content": { "parts": parts, "role": "model" }, "index": 0 }] });
    if stop {
        chunk["candidates"][0]["finishReason"] = json!("STOP");
    }
    if let Some(output) = counts {
        chunk["usageMetadata"] = json!({ "promptTokenCount": 11, "candidatesTokenCount": output,
            "totalTokenCount": 11 + output });
    }
    format!("data: {chunk}\n\n")
}

/// With a finish reason in it.
fn chat_stop(text: &str) -> String {
    sse::text(text).replace("\"finish_reason\":null", "\"finish_reason\":\"stop\"")
}

#[allow(clippy::too_many_lines, reason = "one table")]
fn cases() -> Vec<Case> {
    let chat = |name, reply: Reply, took, tokens| Case {
        name,
        gemini: false,
        reply,
        text: "Hello",
        took,
        tokens,
    };
    let gemini = |name, reply: Reply, took| Case {
        name,
        gemini: true,
        reply,
        text: "Hello",
        took,
        tokens: Some(18),
    };
    let counted = || begun().write(sse::USAGE);
    let quick = 0..1500;
    vec![
        chat("usage, then FIN", counted().then(Step::Close), quick.clone(), Some(18)),
        chat(
            "usage, then reset",
            counted().then(wait(100)).then(Step::Reset),
            quick.clone(),
            Some(18),
        ),
        chat("FIN", begun().then(Step::Close), quick.clone(), None),
        chat("reset", begun().then(wait(100)).then(Step::Reset), quick.clone(), None),
        chat(
            "an error event",
            counted().write(sse::ERROR).write(sse::DONE),
            quick.clone(),
            Some(18),
        ),
        chat("a torn event", counted().write("data: {\"id\"").then(Step::Close), quick, Some(18)),
        chat("usage, then silence", counted().then(Step::Hang), 1900..4000, Some(18)),
        chat("silence", begun().then(Step::Hang), 9900..13_000, None),
        chat(
            "comments for ever",
            counted().then(Step::Endless(": beat\n\n".into(), Duration::from_millis(300))),
            1900..4000,
            Some(18),
        ),
        chat(
            "usage 5 s late",
            begun().then(wait(5000)).write(sse::USAGE).write(sse::DONE),
            4900..7000,
            Some(18),
        ),
        chat(
            "usage 5 s late, then silence",
            begun().then(wait(5000)).write(sse::USAGE).then(Step::Hang),
            6900..9500,
            Some(18),
        ),
        chat(
            "stop in each chunk, 3 s apart",
            {
                Reply::sse(&[chat_stop("H")])
                    .then(wait(3000))
                    .write(chat_stop("el"))
                    .then(wait(3000))
                    .write(chat_stop("lo"))
                    .write(sse::USAGE)
                    .write(sse::DONE)
            },
            5900..8500,
            Some(18),
        ),
        gemini(
            "STOP in each chunk, 3 s apart, usage in each",
            {
                Reply::sse(&[chunk("H", true, Some(3))])
                    .then(wait(3000))
                    .write(chunk("el", true, Some(5)))
                    .then(wait(3000))
                    .write(chunk("lo", true, Some(7)))
            },
            5900..8500,
        ),
        gemini(
            "STOP in an empty first chunk",
            {
                Reply::sse(&[chunk("", true, Some(0))])
                    .then(wait(3000))
                    .write(chunk("Hel", false, None))
                    .then(wait(3000))
                    .write(chunk("lo", false, Some(7)))
            },
            5900..8500,
        ),
        gemini(
            "STOP in an empty first chunk, silence at the end",
            {
                Reply::sse(&[chunk("", true, Some(0))])
                    .then(wait(500))
                    .write(chunk("Hel", false, None))
                    .write(chunk("lo", true, Some(7)))
                    .then(Step::Hang)
            },
            9900..13_500,
        ),
        gemini(
            "STOP, usage, silence",
            {
                Reply::sse(&[chunk("Hel", false, Some(3)), chunk("lo", true, Some(7))])
                    .then(Step::Hang)
            },
            1900..4000,
        ),
    ]
}

fn text_of(answer: &Answer, gemini: bool) -> String {
    if !gemini {
        return sse::content(&answer.body);
    }
    let text = |event: &Value| {
        event.pointer("/candidates/0/content/parts/0/text")?.as_str().map(str::to_owned)
    };
    sse::events(&answer.body).iter().filter_map(text).collect()
}

async fn check(case: Case, place: usize, gateway: Arc<Gateway>) {
    let (name, key) = (case.name, license(place));
    let began = Instant::now();
    let answer = if case.gemini {
        let path = format!("/v1beta/models/m{place}:streamGenerateContent?alt=sse");
        let body = json!({ "contents": [{ "parts": [{ "text": "Hi" }] }] });
        let app = gateway.app();
        let request = app.request("POST", &path).bearer_auth(&key);
        Answer::of(request.header("content-type", "application/json").body(body.to_string())).await
    } else {
        let model = format!("m{place}");
        gateway.app().ask_as(&key, &client::chat(&json!({ "stream": true, "model": model }))).await
    };
    let took = began.elapsed().as_millis() as u64;
    assert!(answer.ok().whole, "{name}");
    let body = answer.text();
    assert!(!body.contains("\"error\""), "{name}: {body}");
    assert_eq!(text_of(&answer, case.gemini), case.text, "{name}: {body}");
    assert!(case.gemini || body.ends_with(sse::DONE), "{name}: {body}");
    assert!(case.took.contains(&took), "{name}: took {took} ms");
    let used = &gateway.me(&key).await["limits"];
    assert_eq!(used["messages"]["used"], 1, "{name}");
    let tokens = used["tokens"]["used"].as_u64().unwrap();
    match case.tokens {
        Some(expected) => assert_eq!(tokens, expected, "{name}"),
        None => assert!((1..40).contains(&tokens), "{name}: {tokens}"),
    }
}

fn license(place: usize) -> String {
    format!("JSTAR-END-{place:04}")
}

#[tokio::test]
async fn a_finished_answer_is_an_answer_whatever_becomes_of_its_connection() {
    let mock = Mock::start(Reply::status(418)).await;
    let plan = "messages: 50/month, tokens: 100000/month, models: [\"*\"]";
    let mut config = Config::empty().plan("free", plan);
    let cases = cases();
    for (place, case) in cases.iter().enumerate() {
        let (name, secret) = (format!("p{place}"), format!("c{place}"));
        let dialect = if case.gemini { ", dialect: gemini" } else { "" };
        mock.key(&secret, [case.reply.clone()]);
        config = config
            .provider_at(&name, &mock.url(), dialect, &[&secret])
            .model(&format!("m{place}"), &format!("[{name}/m1]"))
            .license(&license(place), "free");
    }
    let gateway = Arc::new(Gateway::start(config).await);
    let mut running = JoinSet::new();
    for (place, case) in cases.into_iter().enumerate() {
        running.spawn(check(case, place, gateway.clone()));
    }
    while let Some(done) = running.join_next().await {
        done.unwrap();
    }
    let status = gateway.status().await;
    assert_eq!(status["failed"], 0, "{status}");
}

/// An answer that broke before it said that it was finished stays broken.
#[tokio::test]
async fn what_was_taken_back_or_never_said_is_no_end() {
    for reply in [
        Reply::sse(&[sse::text("Hel")]).then(wait(500)).then(Step::Close),
        Reply::sse(&[chat_stop("Hel"), sse::text("lo")]).then(wait(100)).then(Step::Reset),
        Reply::sse(&[sse::FINISH.to_owned(), sse::text("Hel")]).then(wait(100)).then(Step::Reset),
    ] {
        let mock = Mock::start(reply).await;
        let gateway = Gateway::start(Config::new(&mock)).await;
        let answer = gateway.app().stream().await;
        assert_eq!(sse::closing_error(&answer.ok().body)["code"], "upstream_error");
    }
}

#[tokio::test]
async fn a_whole_delivery_does_not_ask_again_for_what_was_finished() {
    let reply = begun().write(sse::USAGE).then(wait(100)).then(Step::Reset);
    let mock = Mock::start(reply).await;
    let config = Config::new(&mock).model("fast", "{ targets: [p/m1], delivery: whole }");
    let gateway = Gateway::start(config).await;
    let answer = gateway.app().stream().await;
    assert_eq!(sse::content(&answer.ok().body), "Hello");
    assert_eq!((answer.number("x-gatekeeper-attempts"), mock.count()), (1, 1));
}

/// To give up a slow answer helps nobody where nobody else can give one.
#[tokio::test]
async fn the_time_to_a_first_token_acts_only_where_somebody_else_can_serve() {
    let slow = || {
        Reply::sse(&[sse::ROLE]).then(wait(2500)).write(sse::with_usage(&["Hel", "lo"]).concat())
    };
    let slow_json = Reply::status(200).header("content-type", "application/json").chunked();
    let slow_json = slow_json.then(wait(2500)).write(sse::CHAT);
    let timeouts = "first_token: 400ms";
    for (stream, reply) in [(true, slow()), (false, slow_json)] {
        let mock = Mock::start(reply).await;
        let config = Config::new(&mock).keys("p", &["sk-one"]).timeouts("p", timeouts);
        let gateway = Gateway::start(config).await;
        let answer = gateway.app().ask(&client::chat(&json!({ "stream": stream }))).await;
        assert_eq!(answer.ok().number("x-gatekeeper-attempts"), 1);
        let spare = Mock::start(if stream { Reply::stream() } else { Reply::chat() }).await;
        let config = Config::new(&mock)
            .keys("p", &["sk-one"])
            .timeouts("p", timeouts)
            .provider("q", &spare, &["sk-q"])
            .model("fast", "[p/m1, q/m2]");
        let gateway = Gateway::start(config).await;
        let began = Instant::now();
        let answer = gateway.app().ask(&client::chat(&json!({ "stream": stream }))).await;
        assert_eq!(answer.ok().header("x-gatekeeper-model"), Some("q/m2"));
        assert!(began.elapsed() < Duration::from_millis(2300), "{:?}", began.elapsed());
    }
}

/// An answer that ended well and says nothing, as JSON and as a stream.
fn hollow() -> [(bool, Reply); 2] {
    let json = sse::CHAT
        .replace("Hel\\u006co", "")
        .replace("\"completion_tokens\":7", "\"completion_tokens\":0");
    let json = json.replace("\"total_tokens\":18", "\"total_tokens\":11");
    let usage = sse::USAGE.replace(":7", ":0").replace(":18", ":11");
    [
        (false, Reply::json(200, json)),
        (true, Reply::sse(&[sse::ROLE, sse::FINISH]).write(usage).write(sse::DONE)),
    ]
}

#[tokio::test]
async fn an_empty_answer_is_asked_for_once_more() {
    let plan = "messages: 50/month, tokens: 100000/month, models: [\"*\"]";
    for (stream, empty) in hollow() {
        let good = if stream { Reply::stream() } else { Reply::chat() };
        let ask = client::chat(&json!({ "stream": stream }));
        for keys in [&["sk-one"][..], &["sk-one", "sk-two"]] {
            let mock = Mock::sequence([empty.clone(), good.clone()]).await;
            let config = Config::new(&mock).keys("p", keys).plan("free", plan);
            let gateway = Gateway::start(config).await;
            let answer = gateway.app().ask(&ask).await;
            assert_eq!(answer.ok().number("x-gatekeeper-attempts"), 2);
            assert!(answer.text().contains("lo"), "{}", answer.text());
            assert_eq!(gateway.messages(LICENSE).await, 1);
            assert_eq!(gateway.tokens(LICENSE).await, sse::TOKENS);
        }
        let mock = Mock::start(empty.clone()).await;
        let gateway = Gateway::start(Config::new(&mock)).await;
        let answer = gateway.app().ask(&ask).await;
        assert_eq!(answer.ok().number("x-gatekeeper-attempts"), 2, "then it is what it is");
        assert_eq!((mock.count(), gateway.messages(LICENSE).await), (2, 1));
        let config = Config::new(&mock).model("fast", "{ targets: [p/m1], on_empty: deliver }");
        let gateway = Gateway::start(config).await;
        assert_eq!(gateway.app().ask(&ask).await.ok().number("x-gatekeeper-attempts"), 1);
    }
}

#[tokio::test]
async fn geminis_unreadable_call_is_asked_for_once_more_and_its_refusals_are_not() {
    let said = |reason: &str, output: u64| {
        json!({ "candidates": [{ "content": {}, "finishReason": reason, "index": 0 }],
            "usageMetadata": { "promptTokenCount": 11, "candidatesTokenCount": output,
                "totalTokenCount": 11 + output } })
    };
    let good = chunk("Hello", true, Some(7));
    for (reason, output, attempts) in [
        ("MALFORMED_FUNCTION_CALL", 9, 2),
        ("STOP", 0, 2),
        ("STOP", 5, 1),
        ("SAFETY", 0, 1),
        ("MAX_TOKENS", 0, 1),
    ] {
        for stream in [false, true] {
            let data = said(reason, output).to_string();
            let replies = match stream {
                true => [
                    Reply::sse(&[format!("data: {data}\n\n")]),
                    Reply::sse(std::slice::from_ref(&good)),
                ],
                false => {
                    [Reply::json(200, data), Reply::json(200, good["data: ".len()..].to_owned())]
                }
            };
            let mock = Mock::sequence(replies).await;
            let config = Config::new(&mock)
                .provider_at("g", &mock.url(), ", dialect: gemini", &["sk-g"])
                .model("gem", "[g/m1]");
            let gateway = Gateway::start(config).await;
            let way = if stream { "streamGenerateContent?alt=sse" } else { "generateContent" };
            let body = json!({ "contents": [{ "parts": [{ "text": "Hi" }] }] });
            let request =
                gateway.app().post(&format!("/v1beta/models/gem:{way}"), body.to_string());
            let answer = Answer::of(request).await;
            assert_eq!(answer.ok().number("x-gatekeeper-attempts"), attempts, "{reason} {stream}");
            assert_eq!(answer.text().contains("Hello"), attempts == 2, "{reason} {stream}");
        }
    }
}

#[tokio::test]
async fn proper_events_are_events_under_odd_types_and_a_page_is_not() {
    let events = || sse::with_usage(&["Hel", "lo"]).concat();
    let of = |kind: &str, body: String| {
        let reply = Reply::status(200).chunked().write(body);
        if kind.is_empty() { reply } else { reply.header("content-type", kind) }
    };
    for kind in [
        "Text/Event-Stream",
        "text/event-stream;charset=utf-8",
        "text/plain; charset=utf-8",
        "application/x-ndjson",
        "",
    ] {
        let mock = Mock::start(of(kind, events())).await;
        let gateway = Gateway::start(Config::new(&mock)).await;
        let answer = gateway.app().stream().await;
        assert_eq!(answer.ok().text(), sse::plain(&["Hel", "lo"]).concat(), "{kind}");
        assert_eq!(answer.number("x-gatekeeper-attempts"), 1, "{kind}");
    }
    let page = format!("<h1>Maintenance</h1>{}", "\n\n<p>Soon.</p>".repeat(20_000));
    let error = "{\"error\":{\"message\":\"no\",\"type\":\"insufficient_quota\"}}".to_owned();
    for (kind, body) in [
        ("text/plain", page),
        ("text/plain", error.clone()),
        ("", error),
        ("application/x-ndjson", "{\"choices\":[]}\n".into()),
    ] {
        let mock = Mock::sequence([of(kind, body), Reply::stream()]).await;
        let plan = "messages: 50/month, tokens: 100000/month, models: [\"*\"]";
        let gateway = Gateway::start(Config::new(&mock).plan("free", plan)).await;
        let answer = gateway.app().stream().await;
        assert_eq!(answer.ok().text(), sse::plain(&["Hel", "lo"]).concat(), "{kind}");
        assert_eq!(answer.number("x-gatekeeper-attempts"), 2, "{kind}");
    }
}

/// A picture comes in one event.
#[tokio::test]
async fn an_event_of_some_mebibytes_passes() {
    let picture = "A".repeat(3 * 1024 * 1024);
    let big = sse::text(&picture);
    let end = [sse::FINISH, sse::USAGE, sse::DONE].concat();
    let mock = Mock::start(Reply::sse(&[sse::ROLE]).write(big).write(end)).await;
    let gateway = Gateway::start(Config::new(&mock)).await;
    let answer = gateway.app().stream().await;
    assert_eq!(sse::content(&answer.ok().body).len(), picture.len());
}

/// What was no answer costs no tokens, however often an SDK asks.
#[tokio::test]
async fn nobody_pays_for_a_page_in_a_200() {
    let plan = "messages: 50/month, tokens: 100000/month, models: [\"*\"]";
    let page =
        || Reply::status(200).header("content-type", "text/html").write("<h1>Maintenance</h1>");
    for (stream, reply) in [
        (false, page()),
        (true, page()),
        (false, Reply::json(200, &sse::CHAT[..60])),
        (true, Reply::json(200, sse::CHAT)),
        (true, Reply::sse(&[sse::ROLE]).then(Step::Close)),
        (true, Reply::sse(&[sse::ERROR])),
        (false, Reply::chat().header("content-encoding", "gzip")),
    ] {
        let mock = Mock::start(reply).await;
        let gateway = Gateway::start(Config::new(&mock).plan("free", plan)).await;
        let words = "a long question ".repeat(2000);
        let more = json!({ "stream": stream, "messages": [{ "role": "user", "content": words }] });
        gateway.app().ask(&client::chat(&more)).await.is(502, "upstream_error");
        assert_eq!(gateway.messages(LICENSE).await, 0);
        assert_eq!(gateway.tokens(LICENSE).await, 0);
    }
}
