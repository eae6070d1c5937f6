//! A stand-in for a provider, inside the process: shows the whole gateway at work with no key and no
//! network. It speaks every dialect that the gateway serves, with a few fixed texts: chat, responses,
//! embeddings, Anthropic's messages and Gemini's contents; it calls offered tools once, and follows
//! schemas.

mod answer;
mod asked;
mod chat;
mod embeddings;
mod gemini;
mod messages;
mod render;
mod responses;
mod schema;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use pingora_core::{
    apps::HttpServerApp, protocols::http::ServerSession, server::ShutdownWatch,
    services::background::BackgroundService,
};
use pingora_http::ResponseHeader;
use tokio::net::{TcpListener, TcpStream};

use self::answer::StandInRequest;

/// Between two words of a stream.
const PACE: Duration = Duration::from_millis(15);

pub struct StandIn {
    listener: Mutex<Option<std::net::TcpListener>>,
    address: SocketAddr,
}

impl StandIn {
    /// Takes a free port of the loopback interface, if `wants`.
    ///
    /// # Errors
    /// No port is free.
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
    let target = session.req_header().uri.path_and_query().map_or("", |target| target.as_str());
    if session.req_header().method == http::Method::GET {
        // What a probe asks for.
        return write(session, Bytes::from_static(br#"{"object":"list","data":[]}"#)).await;
    }
    let Ok(body) = serde_json::from_slice(&body) else {
        return session.respond_error(400).await;
    };
    let asked = StandInRequest::of(target, body);
    if asked.stream {
        stream(session, &asked).await
    } else {
        write(session, asked.whole().into()).await
    }
}

fn head(kind: &str) -> pingora_core::Result<ResponseHeader> {
    let mut head = ResponseHeader::build(200, Some(2))?;
    head.insert_header("content-type", kind)?;
    Ok(head)
}

async fn write(session: &mut ServerSession, body: Bytes) -> pingora_core::Result<()> {
    let mut head = head("application/json")?;
    head.set_content_length(body.len())?;
    session.write_response_header(Box::new(head)).await?;
    session.write_response_body(body, true).await
}

async fn stream(session: &mut ServerSession, asked: &StandInRequest) -> pingora_core::Result<()> {
    let mut head = head("text/event-stream")?;
    head.insert_header("transfer-encoding", "chunked")?;
    session.write_response_header(Box::new(head)).await?;
    let events = asked.events();
    let last = events.len().saturating_sub(1);
    for (place, event) in events.into_iter().enumerate() {
        if place > 0 {
            tokio::time::sleep(PACE).await;
        }
        session.write_response_body(Bytes::from(event), place == last).await?;
    }
    Ok(())
}
