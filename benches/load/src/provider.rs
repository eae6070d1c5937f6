//! A provider that costs next to nothing: raw HTTP/1.1, every byte of the answer made beforehand.
//! `traffic.rs` has what it is asked and what it answers.

use std::io;
use std::net::TcpListener;
use std::time::Duration;

use anyhow::Result;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{MissedTickBehavior, interval};

use crate::traffic::{Ask, Asked, Kind, Replies, UNKNOWN};

/// A provider on a thread of its own, ready when this returns.
pub fn spawn(listener: TcpListener) -> io::Result<()> {
    spawn_thread(serve(listener))
}

/// Runs `provider` on a thread of its own.
pub fn spawn_thread(provider: impl Future<Output = Result<()>> + Send + 'static) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("provider".into()).spawn(move || {
        if let Err(e) = runtime.block_on(provider) {
            eprintln!("the stand-in provider stopped: {e}");
        }
    })?;
    Ok(())
}

pub async fn serve(listener: TcpListener) -> Result<()> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let replies = std::sync::Arc::new(Replies::default());
    loop {
        let (socket, _) = listener.accept().await?;
        let replies = replies.clone();
        socket.set_nodelay(true)?;
        // A proxy that goes away in the middle is no news here.
        tokio::spawn(async move { drop(connection(socket, &replies).await) });
    }
}

/// Answers what comes on one connection until it is closed.
pub async fn connection(
    mut socket: impl AsyncRead + AsyncWrite + Unpin,
    replies: &Replies,
) -> io::Result<()> {
    let mut buf = Vec::with_capacity(8 << 10);
    loop {
        let Some(asked) = Asked::take(&mut buf) else {
            if socket.read_buf(&mut buf).await? == 0 {
                return Ok(());
            }
            continue;
        };
        match asked {
            Asked::Chat { ask, usage } => match ask.kind {
                Kind::Json | Kind::Prompt => socket.write_all(replies.json(ask.headers)).await?,
                Kind::Stream { chunks, gap_ms } => {
                    let gap = Duration::from_millis(gap_ms.into());
                    stream(&mut socket, replies, ask, chunks, gap, usage).await?;
                }
            },
            Asked::License => socket.write_all(&replies.license).await?,
            Asked::Unknown => socket.write_all(UNKNOWN).await?,
        }
        socket.flush().await?;
    }
}

/// One write for each chunk, as a provider does that flushes each token.
async fn stream(
    socket: &mut (impl AsyncWrite + Unpin),
    replies: &Replies,
    ask: Ask,
    chunks: u32,
    gap: Duration,
    usage: bool,
) -> io::Result<()> {
    socket.write_all(replies.first(ask.headers)).await?;
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
    socket.write_all(replies.last(usage)).await
}
