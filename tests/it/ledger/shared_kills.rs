//! kill -9 of gateways and of Redis under requests of which some have a message id of their own: what
//! reached the provider is counted, once, and nothing else but what was open at a kill.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use serde_json::json;

use crate::{
    ledger::shared_ledger::{self, Fleet},
    support::{Answer, Config, Gateway, Http, LICENSE, Mock, Noise, Reply, client, sse},
};

const PLAN: &str = "messages: 10000000/month, tokens: 10000000000/month, models: [fast]";
const APPS: u64 = 6;
const PAUSE: Duration = Duration::from_millis(150);

/// A tenth of the kills that `make soak` has.
fn kills(name: &str, tenth: usize) -> usize {
    std::env::var(name).ok().and_then(|kills| kills.parse().ok()).unwrap_or(tenth)
}

/// What became of what the apps asked, by the words of each request.
#[derive(Default)]
struct Told {
    delivered: HashSet<String>,
    /// The connection broke: it may have reached the provider.
    broken: HashSet<String>,
}

/// Asks on and on, each time with words of its own, and with an id of its own three times in ten.
async fn app(http: Http, stop: Arc<AtomicBool>, name: String) -> Told {
    let (mut told, mut noise) = (Told::default(), Noise::new(name.len() as u64 + 5));
    for nth in 0.. {
        if stop.load(Relaxed) {
            break;
        }
        let words = format!("{name}-{nth}");
        let body = client::chat(&json!({ "messages": [{ "role": "user", "content": words }] }));
        let mut request = http.post("/v1/chat/completions", body.to_string());
        if noise.below(10) < 3 {
            request = request.header("x-message-id", &words);
        }
        let answer = match request.send().await {
            Ok(response) => Answer::read(response).await,
            Err(problem) => {
                // One that was not even sent has reached nobody.
                if !problem.is_connect() {
                    told.broken.insert(words);
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            }
        };
        match (answer.whole, answer.status) {
            (false, _) => drop(told.broken.insert(words)),
            (true, 200) => drop(told.delivered.insert(words)),
            _ => drop(answer.is(503, "store_unavailable")),
        }
    }
    told
}

fn load(
    gateways: &[Gateway],
    stop: &Arc<AtomicBool>,
    turn: usize,
) -> Vec<tokio::task::JoinHandle<Told>> {
    let apps = (0..APPS as usize).map(|nth| {
        let http = gateways[nth % gateways.len()].app();
        tokio::spawn(app(http, stop.clone(), format!("words-{turn}-{nth}")))
    });
    apps.collect()
}

/// What the provider was asked, by the words.
fn reached(mock: &Mock) -> HashSet<String> {
    let words =
        |body: serde_json::Value| body["messages"][0]["content"].as_str().unwrap().to_owned();
    mock.seen().iter().map(|seen| words(seen.json())).collect()
}

/// All gateways agree on as many messages as reached the provider, and those at most that broke before.
async fn is_exact(gateways: &[Gateway], mock: &Mock, told: &Told) -> u64 {
    let reached = reached(mock);
    let lost = told.delivered.difference(&reached).count();
    assert_eq!(lost, 0, "delivered without the provider");
    let least = reached.len() as u64;
    let most = least + told.broken.difference(&reached).count() as u64;
    let began = Instant::now();
    loop {
        let (mut messages, mut tokens) = (Vec::new(), Vec::new());
        for gateway in gateways {
            messages.push(gateway.messages(LICENSE).await);
            tokens.push(gateway.tokens(LICENSE).await);
        }
        let agree =
            messages.iter().all(|known| *known == messages[0] && (least..=most).contains(known));
        if agree && tokens.iter().all(|known| *known >= told.delivered.len() as u64 * sse::TOKENS) {
            return messages[0];
        }
        assert!(
            began.elapsed() < Duration::from_secs(20),
            "{messages:?} messages, {tokens:?} tokens; {least} to {most} reached the provider, {} \
             were delivered",
            told.delivered.len()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

impl Told {
    async fn add(&mut self, apps: Vec<tokio::task::JoinHandle<Told>>) {
        for app in apps {
            let told = app.await.unwrap();
            self.delivered.extend(told.delivered);
            self.broken.extend(told.broken);
        }
    }
}

/// Kills one gateway after the other under load, and starts it again.
async fn killed(gateways: &mut [Gateway], told: &mut Told, kills: usize) {
    for kill in 0..kills {
        let stop = Arc::new(AtomicBool::new(false));
        let apps = load(gateways, &stop, kill);
        tokio::time::sleep(PAUSE).await;
        let place = kill % gateways.len();
        gateways[place].kill();
        stop.store(true, Relaxed);
        told.add(apps).await;
        gateways[place].restart().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_of_gateways_on_redis_count_every_message_once() {
    let mut fleet = Fleet::start(2, PLAN, Reply::chat(), "").await;
    let (mut told, kills) = (Told::default(), kills("GATEKEEPER_ID_KILLS", 4));
    killed(&mut fleet.gateways, &mut told, kills).await;
    fleet.is_counting().await;
    let charged = is_exact(&fleet.gateways, &fleet.mock, &told).await;
    println!("{kills} kills -9 of gateways: {charged} charged, {} delivered", told.delivered.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_of_a_gateway_alone_count_every_message_once() {
    let mock = Mock::start(Reply::chat()).await;
    let mut gateways = [Gateway::start(Config::new(&mock).plan("free", PLAN)).await];
    let (mut told, kills) = (Told::default(), kills("GATEKEEPER_ID_KILLS", 4));
    killed(&mut gateways, &mut told, kills).await;
    let charged = is_exact(&gateways, &mock, &told).await;
    println!("{kills} kills -9, embedded: {charged} charged, {} delivered", told.delivered.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_of_redis_count_every_message_once() {
    let mut fleet = Fleet::start(2, PLAN, Reply::chat(), "").await;
    let (mut told, kills) = (Told::default(), kills("GATEKEEPER_ID_REDIS_KILLS", 2));
    let stop = Arc::new(AtomicBool::new(false));
    let apps = load(&fleet.gateways, &stop, 0);
    for _ in 0..kills {
        tokio::time::sleep(2 * PAUSE).await;
        fleet.redis.kill();
        tokio::time::sleep(PAUSE).await;
        fleet.redis.restart().await;
        shared_ledger::are_counting(&fleet.gateways).await;
    }
    tokio::time::sleep(PAUSE).await;
    stop.store(true, Relaxed);
    told.add(apps).await;
    assert!(told.broken.is_empty());
    let charged = is_exact(&fleet.gateways, &fleet.mock, &told).await;
    println!("{kills} kills -9 of Redis: {charged} charged, {} delivered", told.delivered.len());
}
