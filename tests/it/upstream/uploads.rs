//! What a provider does while a large request is on its way to it, and connections that end as one begins.

use std::{sync::Arc, time::Duration};

use tempfile::TempDir;

use crate::support::{
    Answer, Config, Gateway, LICENSE, Mock, Raw, Reply, Step, body_of, ca, client, eventually,
    soon, sse,
};

/// More than all buffers between the gateway and a provider that reads nothing.
const SIZE: usize = 9 * 1024 * 1024;
const PLAN: &str = "messages: 5000/month, tokens: 10000000000/month, models: [\"*\"]";
/// What a test may take that would wait for this long if the answer were not heard.
const FIRST_BYTE: &str = "first_byte: 20s";
const HEARD: Duration = Duration::from_secs(10);

fn one_key(mock: &Mock) -> Config {
    Config::new(mock).plan("free", PLAN).keys("p", &["sk-one"]).timeouts("p", FIRST_BYTE)
}

async fn start(config: Config) -> Gateway {
    let dir = Arc::new(TempDir::new().unwrap());
    let roots = dir.path().join("roots.pem");
    std::fs::write(&roots, ca::root()).unwrap();
    let config = config.env("SSL_CERT_FILE", roots.to_str().unwrap());
    Gateway::start_in(dir, config).await
}

async fn upload(gateway: &Gateway) -> Answer {
    Answer::of(gateway.app().post("/v1/chat/completions", body_of(SIZE))).await
}

/// A provider over HTTP/1.1 or HTTP/2.
async fn provider(http2: bool, replies: Vec<Reply>) -> Mock {
    if http2 { Mock::h2(replies).await } else { Mock::sequence(replies).await }
}

#[tokio::test]
async fn a_refusal_is_heard_of_a_provider_that_reads_nothing() {
    for http2 in [false, true] {
        let refused = Reply::error(429).header("retry-after", "30").deaf();
        let mock = provider(http2, vec![refused, Reply::chat()]).await;
        let gateway = start(one_key(&mock).keys("p", &["sk-one", "sk-two"])).await;
        let answer = crate::support::within(HEARD, "the next key's answer", upload(&gateway)).await;
        assert_eq!(answer.ok().number("x-gatekeeper-attempts"), 2, "HTTP/2 {http2}");
        let status = gateway.status().await;
        let mut keys = status["keys"].as_array().unwrap().iter();
        assert!(keys.any(|key| key["state"] == "cooling"), "HTTP/2 {http2}: {status}");

        let mock = provider(http2, vec![Reply::error(413).deaf()]).await;
        let gateway = start(one_key(&mock)).await;
        let answer = crate::support::within(HEARD, "what it says", upload(&gateway)).await;
        assert_eq!(answer.status, 413, "HTTP/2 {http2}: {}", answer.text());
        assert_eq!(gateway.messages(LICENSE).await, 0, "HTTP/2 {http2}");
    }
}

/// It gets the rest of the request, and over HTTP/1.1 its connection serves again.
#[tokio::test]
async fn a_good_answer_may_begin_during_the_upload() {
    for http2 in [false, true] {
        let mock = provider(http2, vec![Reply::chat().early(), Reply::chat()]).await;
        let gateway = start(one_key(&mock)).await;
        for _ in 0..2 {
            let answer = upload(&gateway).await;
            assert_eq!(answer.ok().body, sse::CHAT, "HTTP/2 {http2}");
            assert_eq!(answer.number("x-gatekeeper-attempts"), 1, "HTTP/2 {http2}");
        }
        let seen = mock.seen();
        assert!(seen[1].body.len() > SIZE - 100, "HTTP/2 {http2}");
        assert_eq!((seen[0].connection, seen[1].connection), (0, 0), "HTTP/2 {http2}");
        assert_eq!(gateway.tokens(LICENSE).await, 2 * sse::TOKENS, "HTTP/2 {http2}");
    }
}

/// No provider works on half a request: neither a message nor tokens.
#[tokio::test]
async fn who_leaves_before_the_provider_has_the_request_pays_nothing() {
    for http2 in [false, true] {
        let silent = Reply::instead([Step::Hang]).deaf();
        let mock = provider(http2, vec![silent, Reply::chat()]).await;
        let gateway = start(one_key(&mock)).await;
        let mut app = gateway.raw().await;
        let head = client::post_head("/v1/chat/completions");
        app.send(format!("{head}content-length: {SIZE}\r\n\r\n")).await;
        app.send(body_of(SIZE)).await;
        mock.saw(1).await;
        app.leave().await;
        eventually("it is over", Duration::from_secs(10), || async {
            gateway.status_now().await["in_flight"] == 0
        })
        .await;
        let used = (gateway.messages(LICENSE).await, gateway.tokens(LICENSE).await);
        assert_eq!(used, (0, 0), "HTTP/2 {http2}");
        gateway.app().chat().await.ok();
        assert_eq!(gateway.messages(LICENSE).await, 1, "HTTP/2 {http2}");
    }
}

/// The server gave the connection up just before the request came (RFC 9110, 15.5.9).
#[tokio::test]
async fn a_request_that_meets_the_timeout_of_an_idle_connection_is_asked_anew() {
    let late = Reply::status(408).until_close();
    let mock = Mock::sequence([Reply::chat(), late, Reply::chat()]).await;
    let gateway = start(one_key(&mock)).await;
    for _ in 0..2 {
        assert_eq!(gateway.app().chat().await.ok().number("x-gatekeeper-attempts"), 1);
    }
    let connections: Vec<usize> = mock.seen().iter().map(|seen| seen.connection).collect();
    assert_eq!(connections, [0, 0, 1]);
    assert_eq!(gateway.status().await["keys"][0]["errors"], 0);
    assert_eq!(gateway.messages(LICENSE).await, 2);
}

/// Once a byte of an answer has come the provider has seen the request: asked anew, that is an attempt like any other.
#[tokio::test]
async fn an_idle_connection_that_dies_under_an_answer_is_an_attempt() {
    let head = "HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-ty";
    for came in [head, "H"] {
        let dies = Reply::instead([Step::Write(came.into()), Step::Close]);
        let mock = Mock::sequence([Reply::chat(), dies, Reply::chat()]).await;
        let gateway = start(one_key(&mock)).await;
        gateway.app().chat().await.ok();
        let answer = gateway.app().chat().await;
        assert_eq!(answer.ok().number("x-gatekeeper-attempts"), 2, "{came:?}");
    }
}

/// What a provider leaves open behind the end of its answer keeps no app waiting, and where it ends soon the connection
/// serves again.
#[tokio::test]
async fn no_app_waits_for_the_end_behind_an_answer() {
    let stream = || Reply::sse(&sse::with_usage(&["Hel", "lo"]));
    let (ends, stays) = (Step::Wait(Duration::from_millis(50)), Step::Hang);
    let mock = Mock::sequence([
        stream().then(stays),
        Reply::chat(),
        stream().then(ends),
        Reply::chat(),
        Reply::chat().before_head(Step::Wait(Duration::from_millis(100))),
    ])
    .await;
    let gateway = start(one_key(&mock)).await;
    let mut app = gateway.raw().await;
    ask_twice(&mut app).await;
    let left = mock.left(0).await;
    assert!(mock.seen()[1].at < left, "the second request waited for the first one's end");
    assert_eq!(mock.seen()[1].connection, 1, "the first one's connection is not free");
    ask_twice(&mut app).await;
    eventually("it was read to its end", Duration::from_secs(5), || async {
        mock.seen()[2].answered
    })
    .await;
    // Two at one time, on the two connections that there are.
    eventually("its connection serves again", Duration::from_secs(5), || async {
        let app = gateway.app();
        let (one, other) = tokio::join!(app.chat(), app.chat());
        one.ok();
        other.ok();
        let seen = mock.seen();
        seen[seen.len() - 2..].iter().any(|last| last.connection == seen[2].connection)
    })
    .await;
}

async fn ask_twice(app: &mut Raw) {
    for stream in [true, false] {
        let body = client::chat(&serde_json::json!({ "stream": stream }));
        app.send(client::post("/v1/chat/completions", &body)).await;
        let answer = soon("an answer", app.answer()).await.expect("an answer");
        assert_eq!(answer.status, 200);
    }
}
