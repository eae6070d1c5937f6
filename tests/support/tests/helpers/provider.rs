//! The provider of these tests does what it is told: without that no other test means anything.

use std::time::Duration;

use gatekeeper_test_support::{Gate, Mock, Raw, Reply, Step, client::count_answers, soon, sse};

const REQUEST: &str = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer sk-a\r\n\
                       content-length: 2\r\n\r\n{}";

#[tokio::test]
async fn it_answers_by_key_and_by_turn_and_keeps_what_it_saw() {
    let mock = Mock::start(Reply::error(500)).await;
    mock.key("sk-a", [Reply::error(429).header("retry-after", "3"), Reply::chat()]);
    let mut raw = Raw::to(mock.addr).await.unwrap();
    raw.send(REQUEST).await;
    let first = raw.answer().await.unwrap();
    assert_eq!((first.status, first.header("retry-after")), (429, Some("3")));
    raw.send(REQUEST).await;
    assert_eq!(raw.answer().await.unwrap().body, sse::CHAT.as_bytes());
    raw.send(REQUEST.replace("sk-a", "sk-b")).await;
    assert_eq!(raw.answer().await.unwrap().status, 500);
    assert_eq!(mock.keys(), ["sk-a", "sk-a", "sk-b"]);
    let last = mock.last();
    assert_eq!((last.connection, last.body.as_slice(), last.answered), (0, &b"{}"[..], true));
    assert_eq!(last.header("host"), Some("x"));
}

#[tokio::test]
async fn it_streams_in_chunks_and_byte_by_byte() {
    let whole = sse::with_usage(&["Hel", "lo"]).concat();
    for reply in [Reply::stream(), Reply::stream().bytewise()] {
        let mock = Mock::start(reply).await;
        let mut raw = Raw::to(mock.addr).await.unwrap();
        raw.send(REQUEST).await;
        assert_eq!(raw.answer().await.unwrap().body, whole.as_bytes());
    }
    assert_eq!(sse::content(whole.as_bytes()), "Hello");
}

#[tokio::test]
async fn it_resets_closes_and_lies() {
    let replies = [
        Reply::instead([Step::Reset]),
        Reply::instead([Step::Close]),
        Reply::sse(&[sse::text("Hel")]).then(Step::Reset),
        Reply::json(200, "{\"id\"").lying_length(100),
    ];
    let mock = Mock::sequence(replies).await;
    let mut heads = Vec::new();
    for _ in 0..4 {
        let mut raw = Raw::to(mock.addr).await.unwrap();
        raw.send(REQUEST).await;
        heads.push(count_answers(&raw.rest(Duration::from_secs(5)).await.unwrap()));
    }
    assert_eq!(heads[..2], [0, 0]);
    assert_eq!(heads[3], 1);
}

#[tokio::test]
async fn it_sees_when_the_other_side_leaves() {
    let gate = Gate::new();
    let mock = Mock::start(Reply::sse(&[sse::ROLE]).then(Step::Gate(gate))).await;
    let mut raw = Raw::to(mock.addr).await.unwrap();
    raw.send(REQUEST).await;
    mock.saw(1).await;
    drop(raw);
    soon("the cancel", mock.left(0)).await;
}
