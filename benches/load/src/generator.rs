//! The apps: connections that stay open, each asking again as soon as it was answered.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use memchr::memmem;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{sleep, timeout};

use crate::traffic::{Ask, Kind, LAST_EVENTS, content_length};

/// No answer here takes longer; one that does has hung.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Default)]
pub struct Outcome {
    pub latencies: Vec<Duration>,
    pub elapsed: Duration,
}

impl Outcome {
    pub fn add(&mut self, other: Self) {
        self.latencies.extend(other.latencies);
        self.elapsed += other.elapsed;
    }
}

/// Loads `to` for `time`. Whatever was begun is read to its end, so that the processor time spent
/// belongs to exactly the requests counted. One wrong answer fails the whole.
pub async fn load(
    to: SocketAddr,
    key: &str,
    ask: Ask,
    connections: u32,
    time: Duration,
) -> Result<Outcome> {
    let request: Rc<[u8]> = ask.request(to, key).into();
    let begun = Instant::now();
    let until = begun + time;
    LocalSet::new()
        .run_until(async {
            let mut apps = JoinSet::new();
            for n in 0..connections {
                let request = request.clone();
                // Spread over one answer's time: real streams are not in step with each other.
                let wait = ask.paced() * n / connections;
                apps.spawn_local(async move {
                    sleep(wait).await;
                    let mut app = App::connect(to).await?;
                    let mut latencies = Vec::with_capacity(4096);
                    while Instant::now() < until {
                        let asked = Instant::now();
                        timeout(PATIENCE, app.ask(&request, ask)).await.context("no answer")??;
                        latencies.push(asked.elapsed());
                    }
                    anyhow::Ok(latencies)
                });
            }
            let mut latencies = Vec::new();
            while let Some(app) = apps.join_next().await {
                latencies.extend(app??);
            }
            Ok(Outcome { latencies, elapsed: begun.elapsed() })
        })
        .await
}

/// One request on a connection of its own.
pub async fn once(to: SocketAddr, key: &str, ask: Ask) -> Result<()> {
    let mut app = App::connect(to).await?;
    timeout(PATIENCE, app.ask(&ask.request(to, key), ask)).await.context("no answer")?
}

/// Streams that stay open until this is dropped.
pub struct Open(#[allow(dead_code)] JoinSet<()>); // held for its Drop

/// Opens `count` streams and returns when the first event of each has arrived.
pub async fn open(to: SocketAddr, key: &str, ask: Ask, count: usize) -> Result<Open> {
    let request: std::sync::Arc<[u8]> = ask.request(to, key).into();
    // Not all at once: a burst would measure the buffers of the burst.
    let at_once = std::sync::Arc::new(Semaphore::new(64));
    let (opened, mut results) = mpsc::unbounded_channel();
    let mut streams = JoinSet::new();
    for _ in 0..count {
        let (request, at_once, opened) = (request.clone(), at_once.clone(), opened.clone());
        streams.spawn(async move {
            let app = async {
                let _turn = at_once.acquire().await?;
                let mut app = App::connect(to).await?;
                timeout(PATIENCE, app.first_event(&request)).await.context("no first event")??;
                anyhow::Ok(app)
            };
            match app.await {
                Ok(mut app) => {
                    drop(opened.send(Ok(())));
                    // Reading on, as an app does that shows each token.
                    while app.socket.read_buf(&mut app.buf).await.is_ok_and(|n| n > 0) {
                        app.buf.clear();
                    }
                }
                Err(e) => drop(opened.send(Err(e))),
            }
        });
    }
    for _ in 0..count {
        results.recv().await.context("a stream ended")??;
    }
    Ok(Open(streams))
}

struct App {
    socket: TcpStream,
    buf: Vec<u8>,
}

impl App {
    async fn connect(to: SocketAddr) -> Result<Self> {
        let socket = TcpStream::connect(to).await?;
        socket.set_nodelay(true)?;
        Ok(Self { socket, buf: Vec::with_capacity(4 << 10) })
    }

    async fn ask(&mut self, request: &[u8], ask: Ask) -> Result<()> {
        self.buf.clear();
        self.socket.write_all(request).await?;
        let head = self.head().await?;
        match content_length(&self.buf[..head]) {
            Some(length) => {
                while self.buf.len() < head + length {
                    self.more().await?;
                }
            }
            // Neither JSON nor these events hold a carriage return, so this is only ever the end.
            None => {
                while !self.buf.ends_with(b"\r\n0\r\n\r\n") {
                    self.more().await?;
                }
            }
        }
        let body = &self.buf[head..];
        match ask.kind {
            Kind::Json | Kind::Prompt => {
                ensure!(memmem::find(body, b"\"usage\"").is_some(), "half an answer")
            }
            Kind::Stream { chunks, .. } => {
                let events = memmem::find_iter(body, b"data: ").count();
                ensure!(events == chunks as usize + LAST_EVENTS, "{events} events in a stream");
                ensure!(memmem::rfind(body, b"data: [DONE]\n\n").is_some(), "no [DONE]");
            }
        }
        Ok(())
    }

    async fn first_event(&mut self, request: &[u8]) -> Result<()> {
        self.socket.write_all(request).await?;
        let head = self.head().await?;
        while memmem::find(&self.buf[head..], b"data: ").is_none() {
            self.more().await?;
        }
        self.buf.clear();
        Ok(())
    }

    /// Reads the head, which must say 200; returns where the body begins.
    async fn head(&mut self) -> Result<usize> {
        loop {
            if let Some(end) = memmem::find(&self.buf, b"\r\n\r\n") {
                if !self.buf.starts_with(b"HTTP/1.1 200 ") {
                    drop(timeout(Duration::from_millis(200), self.more()).await); // its body
                    bail!("refused:\n{}", String::from_utf8_lossy(&self.buf));
                }
                return Ok(end + 4);
            }
            self.more().await?;
        }
    }

    async fn more(&mut self) -> Result<()> {
        ensure!(self.socket.read_buf(&mut self.buf).await? > 0, "the connection was closed");
        Ok(())
    }
}
