//! A wire to Redis that is slow, and that stands still when the test wants it to.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{mpsc, watch},
    task::JoinHandle,
};

use crate::support::Noise;

/// Takes connections for a Redis and passes everything on, in its order and late.
pub struct SlowWire {
    addr: SocketAddr,
    still: watch::Sender<bool>,
    serving: JoinHandle<()>,
}

impl Drop for SlowWire {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl SlowWire {
    /// What Redis answers comes `least` to `most` milliseconds late.
    pub async fn to(port: u16, least: u64, most: u64, seed: u64) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let addr = listener.local_addr().unwrap();
        let still = watch::Sender::new(false);
        let noise = Arc::new(Mutex::new(Noise::new(seed)));
        let stands = still.clone();
        let serving = tokio::spawn(async move {
            while let Ok((app, _)) = listener.accept().await {
                let Ok(redis) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await else {
                    continue;
                };
                let _ = (app.set_nodelay(true), redis.set_nodelay(true));
                let ((from_app, to_app), (from_redis, to_redis)) =
                    (app.into_split(), redis.into_split());
                let noise = noise.clone();
                let late =
                    move || Duration::from_millis(least + noise.lock().below(most - least + 1));
                pass(from_app, to_redis, || Duration::ZERO, stands.subscribe());
                pass(from_redis, to_app, late, stands.subscribe());
            }
        });
        Self { addr, still, serving }
    }

    pub fn url(&self) -> String {
        format!("redis://{}", self.addr)
    }

    /// Nothing passes from now on.
    pub fn stop(&self) {
        self.still.send_replace(true);
    }

    /// Everything that waits passes.
    pub fn go_on(&self) {
        self.still.send_replace(false);
    }

    /// Stands still for so long.
    pub async fn pause(&self, time: Duration) {
        self.stop();
        tokio::time::sleep(time).await;
        self.go_on();
    }
}

fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    late: impl Fn() -> Duration + Send + 'static,
    mut still: watch::Receiver<bool>,
) {
    let (send, mut waiting) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
    tokio::spawn(async move {
        let mut bytes = [0; 16 << 10];
        while let Ok(length @ 1..) = from.read(&mut bytes).await {
            if send.send((Instant::now() + late(), bytes[..length].to_vec())).is_err() {
                return;
            }
        }
    });
    tokio::spawn(async move {
        while let Some((due, bytes)) = waiting.recv().await {
            tokio::time::sleep_until(due.into()).await;
            if still.wait_for(|still| !still).await.is_err() || to.write_all(&bytes).await.is_err()
            {
                return;
            }
        }
    });
}
