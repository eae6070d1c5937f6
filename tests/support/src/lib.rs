//! What the tests stand on: a provider and a shop with every fault, a real Redis, a gateway as its
//! own process, two clients.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "helpers of tests"
)]

pub mod ca;
pub mod client;
pub mod gateway;
pub mod lemonsqueezy_store;
pub mod memory_group;
pub mod mock;
pub mod redis;
pub mod repeat;
pub mod shop;
pub mod sse;
pub mod stripe;
pub mod topology;
pub mod vendor;
pub mod yaml;

pub use self::{
    client::{Answer, Http, Raw},
    gateway::{Gateway, run, run_with_input},
    lemonsqueezy_store::LemonSqueezyStore,
    mock::{Gate, Mock, Reply, Seen, Step},
    redis::Redis,
    shop::{Mood, Says, Shop},
    stripe::Stripe,
    vendor::{Vendor, VendorCall},
    yaml::{Config, LICENSE, MODEL, Wire},
};

use std::{future::Future, time::Duration};

/// Asks again and again until the answer is yes; panics with `what` when it stays no.
pub async fn eventually<F>(what: &str, within: Duration, mut is_so: impl FnMut() -> F)
where
    F: Future<Output = bool>,
{
    let deadline = tokio::time::Instant::now() + within;
    while !is_so().await {
        assert!(tokio::time::Instant::now() < deadline, "within {within:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A future that must end soon; a test that hangs tells what it waited for.
pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    within(Duration::from_secs(20), what, future).await
}

pub async fn within<T>(limit: Duration, what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(limit, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: nothing within {limit:?}"),
    }
}

/// Deterministic noise (xorshift): the same seed, the same test.
#[derive(Clone)]
pub struct Noise(u64);

impl Noise {
    /// Prints the seed: the captured output of a test that fails names it.
    pub fn new(seed: u64) -> Self {
        eprintln!("seed {seed}");
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len() as u64) as usize]
    }
}

/// Whether `needle` stands anywhere in `haystack`.
pub fn contains(haystack: &[u8], needle: impl AsRef<[u8]>) -> bool {
    memchr::memmem::find(haystack, needle.as_ref()).is_some()
}

/// A chat body of exactly this many bytes.
pub fn body_of(size: usize) -> Vec<u8> {
    let head = format!("{{\"model\":\"{MODEL}\",\"messages\":[{{\"role\":\"user\",\"content\":\"");
    let tail = "\"}]}";
    let mut body = head.into_bytes();
    body.resize(size - tail.len(), b'a');
    body.extend_from_slice(tail.as_bytes());
    assert_eq!(body.len(), size);
    body
}
