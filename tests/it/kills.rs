//! kill -9 under load: what was delivered whole is charged, and nobody is locked out.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::json;

use crate::support::{Config, Gateway, Http, LICENSE, Mock, Noise, Reply, client, sse};

const WORKERS: usize = 8;

#[derive(Default)]
struct Delivered {
    messages: AtomicU64,
    tokens: AtomicU64,
    sent: AtomicU64,
    stop: AtomicBool,
}

/// Asks until the gateway is gone; counts the answers that came whole.
async fn work(app: Http, stream: bool, delivered: Arc<Delivered>) {
    let model = if stream { "stream" } else { "fast" };
    let body = json!({ "model": model, "stream": stream, "max_tokens": 50 });
    let body = client::chat(&body).to_string();
    while !delivered.stop.load(Ordering::Relaxed) {
        delivered.sent.fetch_add(1, Ordering::Relaxed);
        let Ok(response) = app.post("/v1/chat/completions", body.clone()).send().await else {
            return;
        };
        let status = response.status();
        let Ok(bytes) = response.bytes().await else { return };
        let whole = match stream {
            false => bytes == sse::CHAT,
            true => bytes.ends_with(sse::DONE.as_bytes()),
        };
        if status == 200 && whole {
            delivered.messages.fetch_add(1, Ordering::Relaxed);
            delivered.tokens.fetch_add(sse::TOKENS, Ordering::Relaxed);
        } else {
            assert!(status == 200 || status.as_u16() >= 500, "{status}: {bytes:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_delivered_is_lost_and_nobody_is_locked_out() {
    let kills: u64 = match std::env::var("GATEKEEPER_KILLS") {
        Ok(count) => count.parse().expect("GATEKEEPER_KILLS is a number"),
        Err(_) => 20,
    };
    let mock = Mock::start(Reply::chat()).await;
    // Streams and JSON go by key, so that both kinds are under way when the gateway dies.
    mock.key("sk-stream", [Reply::stream()]);
    let plan = format!(
        "messages: 100000000/month, tokens: 10000000000/month, concurrency: {WORKERS}, models: [\"*\"]"
    );
    let config = Config::new(&mock)
        .plan("free", &plan)
        .provider("s", &mock, &["sk-stream"])
        .model("stream", "[s/m1]");
    let mut gateway = Gateway::start(config).await;
    let mut noise = Noise::new(9);
    let total = Arc::new(Delivered::default());
    let (mut worst, mut over) = (Duration::ZERO, 0);
    for kill in 0..kills {
        let app = gateway.app();
        let round = Arc::new(Delivered::default());
        let workers: Vec<_> = (0..WORKERS)
            .map(|worker| tokio::spawn(work(app.clone(), worker % 2 == 1, round.clone())))
            .collect();
        tokio::time::sleep(Duration::from_millis(40 + noise.below(260))).await;
        gateway.kill();
        for worker in workers {
            worker.await.unwrap();
        }
        for (sum, part) in [
            (&total.messages, &round.messages),
            (&total.tokens, &round.tokens),
            (&total.sent, &round.sent),
        ] {
            sum.fetch_add(part.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        let began = Instant::now();
        gateway.restart().await;
        let sum = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (messages, tokens) = (gateway.messages(LICENSE).await, gateway.tokens(LICENSE).await);
        assert!(
            messages >= sum(&total.messages),
            "kill {kill}: {messages} charged, {} delivered",
            sum(&total.messages)
        );
        assert!(
            tokens >= sum(&total.tokens),
            "kill {kill}: {tokens} tokens charged, {} delivered",
            sum(&total.tokens)
        );
        assert!(
            messages <= sum(&total.sent),
            "kill {kill}: {messages} charged, {} sent",
            sum(&total.sent)
        );
        over = messages - sum(&total.messages);
        // As many as may be open at once, all of them right away.
        let asking: Vec<_> = (0..WORKERS)
            .map(|_| {
                let app = gateway.app();
                tokio::spawn(async move { app.chat().await.status })
            })
            .collect();
        for one in asking {
            assert_eq!(one.await.unwrap(), 200, "kill {kill}: the licence is locked out");
            total.messages.fetch_add(1, Ordering::Relaxed);
            total.tokens.fetch_add(sse::TOKENS, Ordering::Relaxed);
            total.sent.fetch_add(1, Ordering::Relaxed);
        }
        worst = worst.max(began.elapsed());
    }
    println!(
        "{kills} kills -9 under load: {} answers delivered whole, 0 of them not charged, {over} cut \
         ones charged too; back within {} ms at worst",
        total.messages.load(Ordering::Relaxed),
        worst.as_millis(),
    );
}
