//! A stand-in for a provider, inside the process: lets a newcomer see everything work with no key
//! and no network. It speaks the OpenAI dialect and answers with a few fixed words.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use gatekeeper_filters::{
    kernel::json::{Document, Value},
    meter::estimate,
};
use parking_lot::Mutex;
use pingora_core::{
    apps::HttpServerApp, protocols::http::ServerSession, server::ShutdownWatch,
    services::background::BackgroundService,
};
use pingora_http::ResponseHeader;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};

/// Between two words of a stream.
const PACE: Duration = Duration::from_millis(15);

pub struct StandIn {
    listener: Mutex<Option<std::net::TcpListener>>,
    address: SocketAddr,
}

impl StandIn {
    /// Takes a free port of the loopback interface, if somebody `wants` it.
    ///
    /// # Errors
    /// No port can be had.
    pub fn bind_if(wants: bool) -> std::io::Result<Option<Self>> {
        if !wants {
            return Ok(None);
        }
        let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        Ok(Some(Self { listener: Mutex::new(Some(listener)), address }))
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

#[async_trait]
impl BackgroundService for StandIn {
    async fn start(&self, shutdown: ShutdownWatch) {
        let Some(listener) = self.listener.lock().take() else { return };
        let listener = match TcpListener::from_std(listener) {
            Ok(listener) => listener,
            Err(error) => return log::error!("The stand-in provider can't listen: {error}."),
        };
        // Streams that are open when the gateway drains are answered to their end.
        loop {
            match listener.accept().await {
                Ok((stream, _)) => drop(tokio::spawn(converse(stream, shutdown.clone()))),
                // Out of file descriptors: wait for some to come back.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }
}

async fn converse(stream: TcpStream, shutdown: ShutdownWatch) {
    let _ = stream.set_nodelay(true);
    let stream: pingora_core::protocols::l4::stream::Stream = stream.into();
    let app = Arc::new(Answers);
    let mut session = ServerSession::new_http1(Box::new(stream));
    loop {
        session.set_keepalive(Some(60));
        let Some(reused) = app.process_new_http(session, &shutdown).await else { return };
        let (stream, settings) = reused.consume();
        session = ServerSession::new_http1(stream);
        if let Some(settings) = settings {
            settings.apply_to_session(&mut session);
        }
    }
}

struct Answers;

#[async_trait]
impl HttpServerApp for Answers {
    async fn process_new_http(
        self: &Arc<Self>,
        mut session: ServerSession,
        _shutdown: &ShutdownWatch,
    ) -> Option<pingora_core::apps::ReusedHttpStream> {
        use pingora_core::apps::{HttpPersistentSettings, ReusedHttpStream};
        if !session.read_request().await.ok()? {
            return None;
        }
        answer(&mut session).await.ok()?;
        let settings = HttpPersistentSettings::for_session(&session);
        let stream = session.finish().await.ok()??;
        Some(ReusedHttpStream::from_reusable_stream(stream, settings))
    }
}

async fn answer(session: &mut ServerSession) -> pingora_core::Result<()> {
    let mut body = Vec::new();
    while let Some(chunk) = session.read_request_body().await? {
        body.extend_from_slice(&chunk);
    }
    let Ok(document) = Document::parse(Bytes::from(body)) else {
        return session.respond_error(400).await;
    };
    let ask = document.root();
    let model = ask.get("model").and_then(|model| model.as_str()).unwrap_or_default();
    let input = estimate::tokens(estimate::text(&String::from_utf8_lossy(ask.raw())));
    let is_stream = ask.get("stream").and_then(|stream| stream.as_bool()) == Some(true);
    if session.req_header().uri.path().ends_with("/embeddings") {
        return whole(session, &embedding(&model, input)).await;
    }
    let words = reply(&ask);
    if is_stream {
        stream(session, &model, &words, input).await
    } else {
        whole(session, &completion(&model, &words.concat(), input)).await
    }
}

/// The answer, in pieces of about a token.
fn reply(ask: &Value<'_>) -> Vec<String> {
    let question = ask
        .get("messages")
        .and_then(|messages| messages.items().last())
        .and_then(|message| message.get("content"))
        .and_then(|content| content.as_str().map(|text| text.into_owned()))
        .unwrap_or_default();
    let heard: String = question.chars().take(60).collect();
    let text = format!("This is the stand-in provider. You said: \"{heard}\". All is well.");
    text.split_inclusive(' ').map(str::to_owned).collect()
}

fn usage(input: u64, output: u64) -> serde_json::Value {
    json!({
        "prompt_tokens": input, "completion_tokens": output, "total_tokens": input + output,
    })
}

fn completion(model: &str, text: &str, input: u64) -> String {
    let output = estimate::tokens(estimate::text(text));
    json!({
        "id": "chatcmpl-stand-in", "object": "chat.completion", "created": 0, "model": model,
        "choices": [{
            "index": 0, "message": { "role": "assistant", "content": text },
            "finish_reason": "stop",
        }],
        "usage": usage(input, output),
    })
    .to_string()
}

fn embedding(model: &str, input: u64) -> String {
    json!({
        "object": "list", "model": model,
        "data": [{ "object": "embedding", "index": 0, "embedding": [0.1, -0.2, 0.3, 0.4] }],
        "usage": { "prompt_tokens": input, "total_tokens": input },
    })
    .to_string()
}

fn head(kind: &str) -> pingora_core::Result<ResponseHeader> {
    let mut head = ResponseHeader::build(200, Some(2))?;
    head.insert_header("content-type", kind)?;
    Ok(head)
}

async fn whole(session: &mut ServerSession, body: &str) -> pingora_core::Result<()> {
    let mut head = head("application/json")?;
    head.set_content_length(body.len())?;
    session.write_response_header(Box::new(head)).await?;
    session.write_response_body(Bytes::from(body.to_owned()), true).await
}

async fn stream(
    session: &mut ServerSession,
    model: &str,
    words: &[String],
    input: u64,
) -> pingora_core::Result<()> {
    let mut head = head("text/event-stream")?;
    head.insert_header("transfer-encoding", "chunked")?;
    session.write_response_header(Box::new(head)).await?;
    let event = |delta: serde_json::Value, finish: Option<&str>| {
        let chunk = json!({
            "id": "chatcmpl-stand-in", "object": "chat.completion.chunk", "created": 0,
            "model": model,
            "choices": [{ "index": 0, "delta": delta, "finish_reason": finish }],
        });
        Bytes::from(format!("data: {chunk}\n\n"))
    };
    session.write_response_body(event(json!({ "role": "assistant" }), None), false).await?;
    for word in words {
        tokio::time::sleep(PACE).await;
        session.write_response_body(event(json!({ "content": word }), None), false).await?;
    }
    session.write_response_body(event(json!({}), Some("stop")), false).await?;
    let output = estimate::tokens(estimate::text(&words.concat()));
    let last = json!({
        "id": "chatcmpl-stand-in", "object": "chat.completion.chunk", "created": 0,
        "model": model, "choices": [], "usage": usage(input, output),
    });
    let last = Bytes::from(format!("data: {last}\n\ndata: [DONE]\n\n"));
    session.write_response_body(last, true).await
}
