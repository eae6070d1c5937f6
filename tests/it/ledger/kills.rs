//! kill -9 under load: what was delivered whole is charged, and nobody is locked out.
//!
//! Each app has a licence of its own and asks one question at a time. So after a kill its charge
//! must be what it got, or that and the one question that was under way: exact, not on average.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{Config, Gateway, Http, Mock, Noise, Reply, client, repeat, sse};

const APPS: usize = 8;
/// What an answer reports: far more than the estimate of a question that was cut off.
pub const TOKENS: u64 = 10_000;

fn dear(answer: &str) -> String {
    answer.replace(
        "\"completion_tokens\":7,\"total_tokens\":18",
        "\"completion_tokens\":9989,\"total_tokens\":10000",
    )
}

pub struct App {
    pub license: String,
    body: String,
    /// How a whole answer ends.
    end: &'static str,
    pub delivered: u64,
}

impl App {
    pub fn new(place: usize) -> Self {
        let stream = place % 2 == 1;
        let model = if stream { "stream" } else { "fast" };
        let body = json!({ "model": model, "stream": stream, "max_tokens": 10_000 });
        Self {
            license: format!("JSTAR-KILL-{place:04}"),
            body: client::chat(&body).to_string(),
            end: if stream { sse::DONE } else { "}}\n" },
            delivered: 0,
        }
    }

    /// Asks once; whether the answer came whole.
    pub async fn ask(&mut self, http: &Http) -> bool {
        let status = self.try_ask(http).await;
        assert!(matches!(status, None | Some(200)), "{status:?}");
        status.is_some()
    }

    /// Asks once; the status of an answer that came whole.
    pub async fn try_ask(&mut self, http: &Http) -> Option<u16> {
        let request = http.request("POST", "/v1/chat/completions");
        let request = request.bearer_auth(&self.license).body(self.body.clone());
        let response = request.send().await.ok()?;
        let status = response.status().as_u16();
        let bytes = response.bytes().await.ok()?;
        let whole = status == 200 && bytes.ends_with(self.end.as_bytes());
        self.delivered += u64::from(whole);
        (whole || status != 200).then_some(status)
    }

    /// Asks until the gateway is gone.
    async fn work(mut self, http: Http) -> Self {
        while self.ask(&http).await {}
        self
    }
}

/// A provider of dear answers, and a plan that counts them; one question at a time.
pub async fn exact(apps: &[App]) -> (Mock, Config) {
    let mock = Mock::start(Reply::json(200, dear(sse::CHAT))).await;
    let events: Vec<String> =
        sse::with_usage(&["Hel", "lo"]).iter().map(|event| dear(event)).collect();
    mock.key("sk-stream", [Reply::sse(&events)]);
    let plan =
        "messages: 100000000/month, tokens: 100000000000/month, concurrency: 1, models: [\"*\"]";
    let mut config = Config::new(&mock)
        .plan("free", plan)
        .provider("s", &mock, &["sk-stream"])
        .model("stream", "[s/m1]");
    for app in apps {
        config = config.license(&app.license, "free");
    }
    (mock, config)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_delivered_is_lost_and_nobody_is_locked_out() {
    let kills: u64 = repeat::times("GATEKEEPER_KILLS", 6);
    let mut apps: Vec<App> = (0..APPS).map(App::new).collect();
    let (_mock, config) = exact(&apps).await;
    let mut gateway = Gateway::start(config).await;
    let mut noise = Noise::new(9);
    // What was charged beyond the deliveries, by app: questions that were cut off.
    let mut cut = [0; APPS];
    let mut worst = Duration::ZERO;
    for kill in 0..kills {
        let http = gateway.app();
        let working: Vec<_> =
            apps.drain(..).map(|app| tokio::spawn(app.work(http.clone()))).collect();
        tokio::time::sleep(Duration::from_millis(40 + noise.below(260))).await;
        gateway.kill();
        for app in working {
            apps.push(app.await.unwrap());
        }
        let began = Instant::now();
        gateway.restart().await;
        for (app, cut) in apps.iter().zip(&mut cut) {
            let messages = gateway.messages(&app.license).await;
            let known = app.delivered + *cut;
            assert!(
                messages == known || messages == known + 1,
                "kill {kill}, {}: {messages} charged for {} delivered and {cut} cut off",
                app.license,
                app.delivered,
            );
            *cut = messages - app.delivered;
            let tokens = gateway.tokens(&app.license).await;
            let least = app.delivered * TOKENS;
            assert!(tokens >= least, "kill {kill}, {}: {tokens} of {least}", app.license);
        }
        // One at a time is what the plan allows: the question that was cut off is not in the way.
        let http = gateway.app();
        for app in &mut apps {
            assert!(app.ask(&http).await, "kill {kill}: {} is locked out", app.license);
        }
        worst = worst.max(began.elapsed());
    }
    let delivered: u64 = apps.iter().map(|app| app.delivered).sum();
    assert!(delivered > kills * APPS as u64, "there was no load: {delivered} answers");
    println!(
        "{kills} kills -9 under load: {delivered} answers delivered whole, all of them charged; {} \
         questions cut off and charged too; every licence served again within {} ms",
        cut.iter().sum::<u64>(),
        worst.as_millis(),
    );
}
