//! A provider that costs next to nothing: raw HTTP/1.1, every byte of the answer made beforehand.
//!
//! What it answers is asked for by the model's name, the one thing that every proxy passes on:
//! `json`, or `stream-<chunks>-<milliseconds between them>`.

use std::io;
use std::net::TcpListener;
use std::time::Duration;

use anyhow::Result;
use memchr::memmem;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{MissedTickBehavior, interval};

/// As a chat completion of a few sentences: 700 bytes with its usage.
const ANSWER: &str = r#"{"id":"chatcmpl-7b1d0c5e9f3a4b6d8e2f","object":"chat.completion","created":1764000000,"model":"stand-in","system_fingerprint":"fp_5d1c9a","choices":[{"index":0,"message":{"role":"assistant","content":"Thanks for your message! The parcel left our warehouse this morning and should be with you in two or three working days. The tracking link is on its way to your inbox. If anything looks wrong with the order, reply here and we will put it right at once."},"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":83,"completion_tokens":57,"total_tokens":140,"prompt_tokens_details":{"cached_tokens":0},"completion_tokens_details":{"reasoning_tokens":0}}}"#;
const EVENT: &str = r#"data: {"id":"chatcmpl-7b1d0c5e9f3a4b6d8e2f","object":"chat.completion.chunk","created":1764000000,"model":"stand-in","system_fingerprint":"fp_5d1c9a","choices":[{"index":0,"delta":{"content":" parcel"},"logprobs":null,"finish_reason":null}]}"#;
const FINISH: &str = r#"data: {"id":"chatcmpl-7b1d0c5e9f3a4b6d8e2f","object":"chat.completion.chunk","created":1764000000,"model":"stand-in","system_fingerprint":"fp_5d1c9a","choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}]}"#;
const USAGE: &str = r#"data: {"id":"chatcmpl-7b1d0c5e9f3a4b6d8e2f","object":"chat.completion.chunk","created":1764000000,"model":"stand-in","system_fingerprint":"fp_5d1c9a","choices":[],"usage":{"prompt_tokens":83,"completion_tokens":100,"total_tokens":183}}"#;
/// What a shop says of a licence that is good.
const LICENSE: &str = r#"{"valid":true,"error":null,"license_key":{"status":"active","activation_limit":5,"activation_usage":0,"expires_at":null,"test_mode":false},"instance":null,"meta":{"store_id":1,"order_id":1,"product_id":1,"variant_id":1}}"#;
const DONE: &str = "data: [DONE]";

/// Events that a stream of `chunks` chunks ends with beside them, for an app that asked for no
/// usage: the finish and `[DONE]`.
pub const LAST_EVENTS: usize = 2;

/// A provider on a thread of its own, ready when this returns.
pub fn spawn(listener: TcpListener) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("provider".into()).spawn(move || {
        if let Err(e) = runtime.block_on(serve(listener)) {
            eprintln!("the stand-in provider stopped: {e}");
        }
    })?;
    Ok(())
}

pub async fn serve(listener: TcpListener) -> Result<()> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let replies = std::sync::Arc::new(Replies::new());
    loop {
        let (socket, _) = listener.accept().await?;
        let replies = replies.clone();
        // A proxy that goes away in the middle is no news here.
        tokio::spawn(async move { drop(connection(socket, &replies).await) });
    }
}

struct Replies {
    json: Vec<u8>,
    license: Vec<u8>,
    stream_head_and_first: Vec<u8>,
    chunk: Vec<u8>,
    last: Vec<u8>,
    last_with_usage: Vec<u8>,
}

impl Replies {
    fn new() -> Self {
        let json = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nx-request-id: req_1\r\ncontent-length: {}\r\n\r\n{ANSWER}",
            ANSWER.len()
        );
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\nx-request-id: req_1\r\ntransfer-encoding: chunked\r\n\r\n";
        let chunk = |event: &str| format!("{:x}\r\n{event}\n\n\r\n", event.len() + 2);
        let end = "0\r\n\r\n";
        let license = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{LICENSE}",
            LICENSE.len()
        );
        Self {
            json: json.into(),
            license: license.into(),
            stream_head_and_first: (head.to_owned() + &chunk(EVENT)).into(),
            chunk: chunk(EVENT).into(),
            last: (chunk(FINISH) + &chunk(DONE) + end).into(),
            last_with_usage: (chunk(FINISH) + &chunk(USAGE) + &chunk(DONE) + end).into(),
        }
    }
}

async fn connection(mut socket: TcpStream, replies: &Replies) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let mut buf = Vec::with_capacity(8 << 10);
    loop {
        let Some(request) = next_request(&mut socket, &mut buf).await? else { return Ok(()) };
        match request {
            Ask::Json => socket.write_all(&replies.json).await?,
            Ask::Stream { chunks, gap, usage } => {
                stream(&mut socket, replies, chunks, gap, usage).await?;
            }
            Ask::License => socket.write_all(&replies.license).await?,
            Ask::Unknown => {
                socket.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").await?;
            }
        }
    }
}

/// One write for each chunk, as a provider does that flushes each token.
async fn stream(
    socket: &mut TcpStream,
    replies: &Replies,
    chunks: u32,
    gap: Duration,
    usage: bool,
) -> io::Result<()> {
    socket.write_all(&replies.stream_head_and_first).await?;
    if gap.is_zero() {
        for _ in 1..chunks {
            socket.write_all(&replies.chunk).await?;
        }
    } else {
        let mut ticks = interval(gap);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.tick().await;
        for _ in 1..chunks {
            ticks.tick().await;
            socket.write_all(&replies.chunk).await?;
        }
    }
    socket.write_all(if usage { &replies.last_with_usage } else { &replies.last }).await
}

enum Ask {
    Json,
    Stream {
        chunks: u32,
        gap: Duration,
        usage: bool,
    },
    /// The shop is asked about a licence.
    License,
    Unknown,
}

/// Reads one request off `buf` and the socket; `None` when the proxy closed the connection.
async fn next_request(socket: &mut TcpStream, buf: &mut Vec<u8>) -> io::Result<Option<Ask>> {
    loop {
        if let Some(head) = memmem::find(buf, b"\r\n\r\n") {
            let end = head + 4 + content_length(&buf[..head]);
            if buf.len() >= end {
                let ask = match buf.starts_with(b"POST /v1/licenses/validate ") {
                    true => Ask::License,
                    false => asked(&buf[head + 4..end]),
                };
                buf.drain(..end);
                return Ok(Some(ask));
            }
        }
        if socket.read_buf(buf).await? == 0 {
            return Ok(None);
        }
    }
}

fn content_length(head: &[u8]) -> usize {
    head.split(|b| *b == b'\n')
        .filter_map(|line| std::str::from_utf8(line).ok()?.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.trim().parse().ok())
        .unwrap_or(0)
}

fn asked(body: &[u8]) -> Ask {
    let model = memmem::find(body, b"\"model\"").and_then(|at| {
        let mut quoted = body[at + 7..].split(|b| *b == b'"');
        quoted.next(); // the colon
        std::str::from_utf8(quoted.next()?).ok()
    });
    let Some(model) = model else { return Ask::Unknown };
    if model == "json" {
        return Ask::Json;
    }
    let numbers = model.strip_prefix("stream-").and_then(|rest| rest.split_once('-'));
    match numbers.map(|(chunks, gap)| (chunks.parse(), gap.parse())) {
        Some((Ok(chunks), Ok(gap))) => Ask::Stream {
            chunks,
            gap: Duration::from_millis(gap),
            usage: memmem::find(body, b"\"include_usage\"").is_some(),
        },
        _ => Ask::Unknown,
    }
}
