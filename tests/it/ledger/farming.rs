//! Refund farming: no series of broken requests and hang-ups ever lowers what was used.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use serde_json::json;
use tokio::task::JoinSet;

use crate::{
    downstream::disconnect::over,
    support::{Config, Gateway, LICENSE, Mock, Noise, Raw, Reply, Step, client, sse},
};

const CONNECTIONS: u64 = 16;
const TRIES: usize = 10_000 / CONNECTIONS as usize;
const CHAT: &str = "/v1/chat/completions";

/// Bodies that reach no provider, and what they are told.
fn invalid() -> [(String, u16); 6] {
    let of = |more| client::chat(&more).to_string();
    [
        ("{\"model\":\"fast\",".into(), 400),
        ("[]".into(), 400),
        ("{\"model\":\"fast\",\"model\":\"fast\",\"messages\":[]}".into(), 400),
        (of(json!({ "n": 2 })), 400),
        (of(json!({ "max_tokens": -1 })), 400),
        (of(json!({ "model": "no-such-model" })), 404),
    ]
}

fn request(body: &str) -> String {
    format!("{}content-length: {}\r\n\r\n{body}", client::post_head(CHAT), body.len())
}

/// Tries everything in turn, as chance wants it.
async fn farm(gateway: Arc<Gateway>, seed: u64) {
    let mut noise = Noise::new(seed);
    let invalid = invalid();
    let ask = |model| client::post(CHAT, &client::chat(&json!({ "model": model, "stream": true })));
    let (quick, slow) = (ask("fast"), ask("slow"));
    let mut kept = gateway.raw().await;
    for _ in 0..TRIES {
        match noise.below(100) {
            0..50 => {
                let (body, status) = noise.pick(&invalid);
                if !kept.send(request(body)).await {
                    kept = gateway.raw().await;
                    continue;
                }
                match kept.answer().await {
                    Some(answer) => assert_eq!(answer.status, *status, "{body}"),
                    None => kept = gateway.raw().await,
                }
            }
            50..70 => {
                let part = noise.below(quick.len() as u64) as usize;
                leave_after(&gateway, &quick.as_bytes()[..part], false).await;
            }
            70..80 => leave_after(&gateway, quick.as_bytes(), false).await,
            80..98 => leave_after(&gateway, quick.as_bytes(), true).await,
            _ => leave_after(&gateway, slow.as_bytes(), false).await,
        }
    }
}

/// Leaves when these bytes are out, or when an event has come.
async fn leave_after(gateway: &Gateway, bytes: &[u8], event: bool) {
    let mut app: Raw = gateway.raw().await;
    app.send(bytes).await;
    if event {
        app.until("data:").await;
    }
}

/// A provider that answers, one that often does not, and the gateways between.
pub struct Farm {
    pub mock: Arc<Mock>,
    pub config: Config,
}

impl Farm {
    pub async fn new(on_disconnect: &str) -> Self {
        let mut quick = Reply::sse(&[sse::ROLE.to_owned(), sse::text("Hel")]);
        quick = quick.then(Step::Wait(Duration::from_millis(5))).write(sse::text("lo"));
        let quick = quick.write(sse::FINISH).write(sse::USAGE).write(sse::DONE);
        let mock = Arc::new(Mock::start(quick.clone()).await);
        // Not so often that its circuit opens: what that refuses is given back.
        let slow = |nth| if nth % 3 == 2 { Reply::instead([Step::Hang]) } else { quick.clone() };
        mock.key("sk-slow", (0..3000).map(slow).collect::<Vec<_>>());
        let plan = format!(
            "messages: 1000000/month, tokens: 1000000000/month, models: [\"*\"], \
             on_disconnect: {on_disconnect}"
        );
        let config = Config::new(&mock)
            .plan("free", &plan)
            .provider("s", &mock, &["sk-slow"])
            .timeouts("s", "first_byte: 2s")
            .model("slow", "[s/m1]");
        Self { mock, config }
    }

    /// Ten thousand tries, dealt out to the gateways, of which each sees no less than before.
    pub async fn wins_nothing(&self, gateways: Vec<Gateway>) {
        let gateways: Vec<_> = gateways.into_iter().map(Arc::new).collect();
        let done = Arc::new(AtomicBool::new(false));
        let watching: Vec<_> = gateways
            .iter()
            .map(|gateway| {
                tokio::spawn(never_less(gateway.clone(), self.mock.clone(), done.clone()))
            })
            .collect();
        let mut farming = JoinSet::new();
        for (seed, gateway) in (1..=CONNECTIONS).zip(gateways.iter().cycle()) {
            farming.spawn(farm(gateway.clone(), seed));
        }
        farming.join_all().await;
        for gateway in &gateways {
            over(gateway).await;
        }
        done.store(true, Relaxed);
        for watching in watching {
            let looks = watching.await.unwrap();
            assert!(looks > 100, "only {looks} looks");
        }
        // Of the apps: a provider that times out that often is asked by the gateway, too.
        let reached = self.mock.count_of(CHAT) as u64;
        assert!(reached > 1500, "only {reached} reached the provider");
        for gateway in &gateways {
            assert_eq!(gateway.messages(LICENSE).await, reached);
            let tokens = gateway.tokens(LICENSE).await;
            assert!(tokens >= reached * 8, "{tokens} for {reached}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_hang_ups_and_broken_bodies_win_nothing() {
    for on_disconnect in ["cut", "drain"] {
        let farm = Farm::new(on_disconnect).await;
        farm.wins_nothing(vec![Gateway::start(farm.config.clone()).await]).await;
    }
}

/// Looks again and again at what is used; how often. Whatever reached the provider is used from then on;
/// what is given up on its way there is used for a moment.
async fn never_less(gateway: Arc<Gateway>, mock: Arc<Mock>, done: Arc<AtomicBool>) -> u64 {
    let (mut tokens, mut looks) = (0, 0);
    while !done.load(Relaxed) {
        let reached = mock.count_of(CHAT) as u64;
        let me = gateway.me(LICENSE).await;
        let used = |limit: &str| me["limits"][limit]["used"].as_u64().unwrap();
        let now = (used("messages"), used("tokens"));
        assert!(now.0 >= reached && now.1 >= tokens, "{now:?} after {reached}, {tokens}");
        tokens = now.1;
        looks += 1;
    }
    looks
}
