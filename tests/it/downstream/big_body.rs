//! A body at the limit survives a failover: the same bytes twice, and they are the app's.

use bytes::Bytes;
use serde_json::Value;

use crate::support::{
    Answer, Config, Gateway, LICENSE, MODEL, Mock, Noise, Reply, body_of, contains, sse,
};

const SIZE: usize = 10 * 1024 * 1024;

/// Messages with text that no serialiser would write the same way.
fn messages() -> Vec<u8> {
    let mut noise = Noise::new(10);
    let words = ["plain ", "caf\\u00e9 ", "\\/ ", "日本語 ", "\\ud83d\\ude00 ", "tab\\t", "<&> "];
    let frame = format!("{{\"messages\":,\"model\":\"{MODEL}\"}}").len();
    let mut bytes = b"[ {\"role\":\"system\",  \"content\":\"x\"}".to_vec();
    while bytes.len() < SIZE - frame - 4_000 {
        bytes.extend_from_slice(b" ,\n{ \"role\" : \"user\",\"content\":\"");
        for _ in 0..200 {
            bytes.extend_from_slice(noise.pick(&words).as_bytes());
        }
        bytes.extend_from_slice(b"\" }");
    }
    bytes.resize(SIZE - frame - 1, b' ');
    bytes.push(b']');
    bytes
}

async fn both_keys_get_the_same_bytes(chunked: bool) {
    let mock = Mock::sequence([Reply::error(429).header("retry-after", "5"), Reply::chat()]).await;
    let gateway = Gateway::start(Config::new(&mock)).await;
    let messages = messages();
    let body =
        [b"{\"messages\":".as_slice(), &messages, format!(",\"model\":\"{MODEL}\"}}").as_bytes()]
            .concat();
    assert_eq!(body.len(), SIZE);
    let body = match chunked {
        false => reqwest::Body::from(body),
        true => {
            let body = Bytes::from(body);
            let pieces: Vec<Result<Bytes, std::io::Error>> = (0..SIZE)
                .step_by(33_333)
                .map(|at| Ok(body.slice(at..(at + 33_333).min(SIZE))))
                .collect();
            reqwest::Body::wrap_stream(futures_util::stream::iter(pieces))
        }
    };
    let answer = Answer::of(gateway.app().post("/v1/chat/completions", body)).await;
    assert_eq!(answer.ok().body, sse::CHAT);
    assert_eq!(answer.number("x-gatekeeper-attempts"), 2);
    let seen = mock.seen();
    assert_eq!(seen.len(), 2);
    assert_ne!(seen[0].key, seen[1].key);
    assert!(seen[0].body == seen[1].body, "the attempts differ");
    assert!(contains(&seen[1].body, &messages), "the app's messages were changed");
    let sent: Value = seen[1].json();
    assert_eq!(sent["model"], "m1");
    assert_eq!(gateway.messages(LICENSE).await, 1);
}

#[tokio::test]
async fn with_a_length() {
    both_keys_get_the_same_bytes(false).await;
}

#[tokio::test]
async fn in_chunks() {
    both_keys_get_the_same_bytes(true).await;
}

/// A provider may refuse before it has read everything. Its words are heard all the same, and what
/// it did not read yet is never followed by another request: it would be taken for the rest.
#[tokio::test]
async fn an_answer_during_the_upload_is_an_answer_and_ends_the_connection() {
    let early = Reply::error(429).header("retry-after", "5").early();
    let mock = Mock::sequence([early, Reply::chat()]).await;
    let gateway = Gateway::start(Config::new(&mock).timeouts("p", "first_byte: 3s")).await;
    let body = body_of(SIZE);
    let answer = Answer::of(gateway.app().post("/v1/chat/completions", body)).await;
    assert_eq!(answer.ok().number("x-gatekeeper-attempts"), 2);
    let seen = mock.seen();
    assert_eq!(seen.len(), 2);
    assert_ne!(seen[0].connection, seen[1].connection);
    assert_eq!(seen[1].json()["messages"][0]["role"], "user");
}
