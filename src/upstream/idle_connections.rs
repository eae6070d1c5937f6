//! HTTP/1 connections to providers that wait for their next request. A connection is looked at when it is taken and by
//! [`IdleConnections::sweep`]; none has a task of its own.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
    time::{Duration, Instant},
};

use futures_util::FutureExt;
use parking_lot::Mutex;
use pingora_core::protocols::Stream;
use tokio::io::AsyncReadExt;

struct Idle {
    stream: Stream,
    /// It is closed then.
    until: Option<Instant>,
}

/// By the hash of the peer that they lead to (`Peer::reuse_hash`); the one that was given back last is at the end.
#[derive(Default)]
struct Shard {
    peers: HashMap<u64, Vec<Idle>>,
    /// Of all peers.
    count: usize,
}

impl Shard {
    fn pop(&mut self, peer: u64) -> Option<Idle> {
        let idle = self.peers.get_mut(&peer)?.pop()?;
        self.count -= 1;
        Some(idle)
    }

    /// Without a place, the one that has waited longest goes, of the peer that has most of them.
    fn push(&mut self, peer: u64, idle: Idle, most: usize) {
        if self.count >= most {
            if let Some(largest) = self.peers.values_mut().max_by_key(|same| same.len())
                && !largest.is_empty()
            {
                largest.remove(0);
            }
        } else {
            self.count += 1;
        }
        self.peers.entry(peer).or_default().push(idle);
    }

    fn sweep(&mut self, now: Instant) {
        self.peers.retain(|_, same| {
            same.retain_mut(|idle| idle.is_usable(now));
            !same.is_empty()
        });
        self.count = self.peers.values().map(Vec::len).sum();
    }
}

/// One shard a thread: threads meet only where one has none of its own.
pub struct IdleConnections {
    shards: Box<[Mutex<Shard>]>,
    /// Connections in a shard.
    most: usize,
}

impl IdleConnections {
    pub fn new(threads: usize, most: usize) -> Self {
        Self { shards: (0..threads.max(1)).map(|_| Mutex::default()).collect(), most }
    }

    /// A connection to this peer on which nothing has come.
    pub fn take(&self, peer: u64) -> Option<Stream> {
        let (first, count) = (self.own(), self.shards.len());
        (0..count).find_map(|step| self.take_from(&self.shards[(first + step) % count], peer))
    }

    fn take_from(&self, shard: &Mutex<Shard>, peer: u64) -> Option<Stream> {
        let now = Instant::now();
        loop {
            let mut idle = shard.lock().pop(peer)?;
            if idle.is_usable(now) {
                return Some(idle.stream);
            }
        }
    }

    /// Keeps a connection for so long at most.
    pub fn put(&self, peer: u64, stream: Stream, time: Option<Duration>) {
        let idle = Idle { stream, until: time.map(|time| Instant::now() + time) };
        self.shards[self.own()].lock().push(peer, idle, self.most);
    }

    /// Closes connections that the other side has closed or sent data on, and those idle for too long.
    pub fn sweep(&self) {
        let now = Instant::now();
        self.shards.iter().for_each(|shard| shard.lock().sweep(now));
    }

    fn own(&self) -> usize {
        static THREADS: AtomicUsize = AtomicUsize::new(0);
        thread_local! {
            static OWN: usize = THREADS.fetch_add(1, Relaxed);
        }
        OWN.with(|own| own % self.shards.len())
    }
}

impl Idle {
    /// A server sends nothing before a request: data is the rest of an abandoned answer, or the end.
    fn is_usable(&mut self, now: Instant) -> bool {
        let mut byte = [0];
        self.until.is_none_or(|until| now < until)
            && tokio::task::unconstrained(self.stream.read(&mut byte)).now_or_never().is_none()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncWriteExt, duplex};

    use super::*;

    fn pair() -> (Stream, tokio::io::DuplexStream) {
        let (ours, theirs) = duplex(64);
        (Box::new(ours), theirs)
    }

    #[tokio::test]
    async fn only_silent_connections_are_taken_again() {
        let pool = IdleConnections::new(2, 8);
        let (quiet, mut of_quiet) = pair();
        let (closed, of_closed) = pair();
        let (talks, mut of_talks) = pair();
        for stream in [quiet, closed, talks] {
            pool.put(7, stream, None);
        }
        drop(of_closed);
        of_talks.write_all(b"HTTP/1.1 408 \r\n\r\n").await.unwrap();
        assert!(pool.take(8).is_none());
        let mut taken = pool.take(7).unwrap();
        taken.write_all(b"x").await.unwrap();
        assert_eq!(of_quiet.read_u8().await.unwrap(), b'x');
        assert!(pool.take(7).is_none());
    }

    #[tokio::test]
    async fn a_sweep_closes_what_waits_too_long_or_was_closed() {
        let pool = IdleConnections::new(1, 2);
        let (stays, mut of_stays) = pair();
        let (late, mut of_late) = pair();
        pool.put(1, stays, Some(Duration::from_secs(60)));
        pool.put(1, late, Some(Duration::ZERO));
        pool.sweep();
        assert_eq!(of_late.read(&mut [0]).await.unwrap(), 0);
        let mut others = Vec::new();
        for peer in [1, 2] {
            let (stream, theirs) = pair();
            pool.put(peer, stream, None);
            others.push(theirs);
        }
        let oldest_of_most = of_stays.read(&mut [0]).await.unwrap();
        assert_eq!(oldest_of_most, 0, "there are two places");
        assert!(pool.take(1).is_some() && pool.take(2).is_some());
        assert!(pool.take(1).is_none() && pool.take(2).is_none());
    }
}
