//! The dashboard as one that is open costs a gateway: its feed is read, and it asks for the rest.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{interval, timeout};

/// How often `dashboard/main.js` asks, and what for.
const ASKED: [(&str, Duration); 2] =
    [("/status", Duration::from_secs(2)), ("/api/history", Duration::from_secs(15))];
/// There are four events a second at most, and one in two seconds where nothing happens.
const SILENCE: Duration = Duration::from_secs(5);

/// An open page; closed with this value.
pub struct Page(JoinSet<Result<()>>);

impl Page {
    pub async fn open(admin: SocketAddr) -> Result<Self> {
        let mut feed = TcpStream::connect(admin).await?;
        feed.write_all(request(admin, "/feed", "keep-alive").as_bytes()).await?;
        let mut first = [0; 12];
        feed.read_exact(&mut first).await?;
        ensure!(&first == b"HTTP/1.1 200", "no feed: {}", first.escape_ascii());
        let mut tasks = JoinSet::new();
        tasks.spawn(read(feed));
        for (path, every) in ASKED {
            tasks.spawn(ask(admin, path, every));
        }
        Ok(Self(tasks))
    }

    /// # Errors
    /// It was not answered as a page has to be.
    pub fn is_served(&mut self) -> Result<()> {
        match self.0.try_join_next() {
            None => Ok(()),
            Some(ended) => ended?.context("the page"),
        }
    }
}

async fn read(mut feed: TcpStream) -> Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    while timeout(SILENCE, feed.read(&mut buffer)).await.context("the feed is silent")?? > 0 {}
    anyhow::bail!("the feed ended")
}

async fn ask(admin: SocketAddr, path: &'static str, every: Duration) -> Result<()> {
    let mut turns = interval(every);
    loop {
        turns.tick().await;
        let mut connection = TcpStream::connect(admin).await?;
        connection.write_all(request(admin, path, "close").as_bytes()).await?;
        let mut answer = Vec::new();
        connection.read_to_end(&mut answer).await?;
        ensure!(answer.starts_with(b"HTTP/1.1 200"), "{path} is not answered");
    }
}

fn request(admin: SocketAddr, path: &str, connection: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: {admin}\r\nconnection: {connection}\r\n\r\n")
}
