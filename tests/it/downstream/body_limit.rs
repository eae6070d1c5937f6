//! The body limit: exactly as much as it says, counted on what really comes.

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{
    Answer, Config, Gate, Gateway, Mock, Reply, Step, Wire, body_of, client::post_head, soon,
};

const LIMIT: usize = 10 * 1024 * 1024;

async fn start(wire: Wire) -> (Mock, Gateway) {
    let mock = Mock::start(Reply::chat()).await;
    let gateway = Gateway::start(Config::new(&mock).over(wire)).await;
    (mock, gateway)
}

/// A body of unknown length: chunked, or without content-length on h2.
fn in_pieces(body: Vec<u8>) -> reqwest::Body {
    let body = Bytes::from(body);
    let pieces: Vec<Result<Bytes, std::io::Error>> = (0..body.len())
        .step_by(60_000)
        .map(|at| Ok(body.slice(at..(at + 60_000).min(body.len()))))
        .collect();
    reqwest::Body::wrap_stream(futures_util::stream::iter(pieces))
}

async fn exactly_the_limit_passes(wire: Wire) {
    let (mock, gateway) = start(wire).await;
    let body = body_of(LIMIT);
    Answer::of(gateway.app().post("/v1/chat/completions", body.clone())).await.ok();
    Answer::of(gateway.app().post("/v1/chat/completions", in_pieces(body))).await.ok();
    assert_eq!(mock.count(), 2);
}

async fn one_byte_more_is_413(wire: Wire) {
    let (mock, gateway) = start(wire).await;
    let body = body_of(LIMIT + 1);
    for framing in ["length", "chunks"] {
        let sent = match framing {
            "length" => gateway.app().post("/v1/chat/completions", body.clone()).send().await,
            _ => gateway.app().post("/v1/chat/completions", in_pieces(body.clone())).send().await,
        };
        // An HTTP/1.1 client may lose the answer while it is still sending; `raw` does not.
        match sent {
            Ok(response) => {
                Answer::read(response).await.is(413, "body_too_large");
            }
            Err(error) => assert_ne!(wire, Wire::H2, "{framing}: {error}"),
        }
    }
    assert_eq!(mock.count(), 0);
    gateway.app().chat().await.ok();
}

over_every_wire! { exactly_the_limit_passes, one_byte_more_is_413 }

/// Sends everything, reads meanwhile: the answer must arrive.
async fn the_413_reaches_a_client_that_is_still_sending(wire: Wire) {
    let (mock, gateway) = start(wire).await;
    let body = body_of(LIMIT + 1);
    let head = post_head("/v1/chat/completions");
    let with_length = format!("{head}content-length: {}\r\n\r\n", body.len()).into_bytes();
    let mut chunked = format!("{head}transfer-encoding: chunked\r\n\r\n").into_bytes();
    for piece in body.chunks(100_000) {
        chunked.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
        chunked.extend_from_slice(piece);
        chunked.extend_from_slice(b"\r\n");
    }
    chunked.extend_from_slice(b"0\r\n\r\n");
    for request in [[with_length, body].concat(), chunked] {
        let (mut read, mut write) = gateway.raw().await.into_halves();
        let sending = tokio::spawn(async move {
            let _ = write.write_all(&request).await;
            let _ = write.flush().await;
            write
        });
        let mut answer = Vec::new();
        let mut buffer = [0; 4096];
        soon("the 413", async {
            while !answer.windows(14).any(|window| window == b"body_too_large") {
                match read.read(&mut buffer).await {
                    Ok(count) if count > 0 => answer.extend_from_slice(&buffer[..count]),
                    _ => break,
                }
            }
        })
        .await;
        let text = String::from_utf8_lossy(&answer).into_owned();
        assert!(text.starts_with("HTTP/1.1 413 "), "{text}");
        assert!(text.contains("body_too_large"), "{text}");
        sending.abort();
    }
    assert_eq!(mock.count(), 0);
}

over_http1! { the_413_reaches_a_client_that_is_still_sending }

#[tokio::test]
async fn a_length_over_the_limit_is_refused_before_the_body_comes() {
    let (mock, gateway) = start(Wire::Plain).await;
    let mut raw = gateway.raw().await;
    let head = post_head("/v1/chat/completions");
    raw.send(format!("{head}content-length: {}\r\n\r\n", LIMIT + 1)).await;
    let answer = raw.answer().await.unwrap();
    assert_eq!((answer.status, answer.code().as_str()), (413, "body_too_large"));
    assert_eq!(mock.count(), 0);
}

#[tokio::test]
async fn the_limit_can_be_set() {
    let mock = Mock::start(Reply::chat()).await;
    let gateway = Gateway::start(Config::new(&mock).server("limits: { body: 1KiB }")).await;
    Answer::of(gateway.app().post("/chat", body_of(1024))).await.ok();
    Answer::of(gateway.app().post("/chat", body_of(1025))).await.is(413, "body_too_large");
}

/// All bodies together have a limit too; a request above it is asked to come again.
#[tokio::test]
async fn bodies_held_at_one_time_are_limited() {
    let gate = Gate::new();
    let mock =
        Mock::sequence([Reply::chat().before_head(Step::Gate(gate.clone())), Reply::chat()]).await;
    let limits = "limits: { body: 1MiB, buffered: 1500KiB }";
    let gateway = Gateway::start(Config::new(&mock).server(limits)).await;
    let app = gateway.app();
    let first =
        tokio::spawn(async move { Answer::of(app.post("/chat", body_of(1_000_000))).await });
    mock.saw(1).await;
    let second = Answer::of(gateway.app().post("/chat", body_of(1_000_000))).await;
    assert_eq!(second.status, 503, "{}", second.text());
    assert!(second.number("retry-after") <= 60);
    gateway.app().chat().await.ok();
    gate.open();
    first.await.unwrap().ok();
    Answer::of(gateway.app().post("/chat", body_of(1_000_000))).await.ok();
}
