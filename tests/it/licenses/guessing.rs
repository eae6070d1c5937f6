//! Guesses at keys, sessions and activations: nothing is found, Stripe hears little of it, buyers are served.
//! `GATEKEEPER_GUESSES` is how many.

use std::{collections::BTreeMap, time::Instant};

use futures_util::StreamExt;

use serde_json::json;

use crate::{
    licenses::{
        issued::{issue, issued},
        stripe::{claim, claim_from, key_on, selling, send},
    },
    support::{Gateway, Mock, Redis, Reply, Stripe, repeat},
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guessing_finds_nothing_and_asks_stripe_little_while_buyers_are_served() {
    let tries: usize = repeat::times("GATEKEEPER_GUESSES", 2_000);
    let (mock, stripe) = (Mock::start(Reply::chat()).await, Stripe::start().await);
    let config = selling(&mock, &stripe)
        .server("grace: 5s, trusted_proxies: [\"127.0.0.0/8\"]")
        .of_shop("issued", "lemonsqueezy_api", "{ store_id: 1, variants: { pro: 2 } }");
    let gateway = Gateway::start(config).await;
    let session = stripe.sell("buyer0001", "price_pro", "paid");
    send(
        &gateway,
        &stripe.event("checkout.session.completed", &format!("checkout/sessions/{session}")),
    )
    .await;
    let key = key_on(&claim(&gateway, &session).await.1).unwrap();
    let before = stripe.asked("/v1/checkout/sessions/");
    let (began, guesser) = (Instant::now(), Guesser::new(&gateway));
    let mut guesses = futures_util::stream::iter(0..tries)
        .map(|number| guesser.guess(number))
        .buffer_unordered(32)
        .enumerate();
    let mut statuses: BTreeMap<(usize, u16), usize> = BTreeMap::new();
    while let Some((nth, found)) = guesses.next().await {
        *statuses.entry(found).or_default() += 1;
        if nth % 500 == 0 {
            assert_eq!(gateway.me(&key).await["plan"], "pro");
        }
    }
    println!("{statuses:?} in {:?}", began.elapsed());
    assert!(statuses.keys().all(|(_, status)| matches!(status, 403 | 404 | 429)), "{statuses:?}");
    let asked = stripe.asked("/v1/checkout/sessions/") - before;
    let most = 30 * (began.elapsed().as_secs() as usize / 60 + 1) + 1;
    assert!(asked <= most, "{asked} questions to Stripe, {most} are allowed");
    assert_eq!(key_on(&claim_from(&gateway, &session, "10.9.9.9").await.1), Some(key));
}

/// A limit of what Stripe is asked, or a key is activated, is no limit when it is each gateway's own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gateways_share_their_questions_to_stripe_and_the_activations_of_a_key() {
    let (mock, stripe, redis) =
        (Mock::start(Reply::chat()).await, Stripe::start().await, Redis::start().await);
    let config = selling(&mock, &stripe)
        .redis(&redis.url())
        .server("grace: 5s, trusted_proxies: [\"127.0.0.0/8\"]")
        .of_shop("issued", "lemonsqueezy_api", "{ store_id: 1, variants: { pro: 2 } }");
    let gateways = [Gateway::start(config.clone()).await, Gateway::start(config).await];
    let key = issue(&gateways[0], &json!({ "max_devices": 50 })).await.remove(0);
    let (before, began) = (stripe.asked("/v1/checkout/sessions/"), Instant::now());
    // 25 at each: fewer than either would ask about alone.
    for number in 0..50 {
        let session = format!("cs_test_madeup{number:06}");
        claim_from(&gateways[number % 2], &session, &address(number)).await;
    }
    let minutes = began.elapsed().as_secs() as usize / 60 + 1;
    let asked = stripe.asked("/v1/checkout/sessions/") - before;
    assert!((30..=30 * minutes).contains(&asked), "{asked} questions in {:?}", began.elapsed());

    let began = Instant::now();
    let mut made = 0;
    for number in 0..8 {
        let form = [("license_key", key.clone()), ("instance_name", format!("D{number}"))];
        let gateway = &gateways[number % 2];
        let request = gateway.app().request("POST", "/v1/licenses/activate").form(&form);
        match request.send().await.unwrap().status().as_u16() {
            200 => made += 1,
            status => assert_eq!(status, 429),
        }
    }
    let minutes = began.elapsed().as_secs() as usize / 60 + 1;
    assert!((5..=5 * minutes).contains(&made), "{made} activations in {:?}", began.elapsed());
}

/// Tries of one address a minute, before it is told to wait.
const A_MINUTE: usize = 20;

/// Reads that the shared store has answered.
fn reads(redis: &Redis) -> usize {
    let stats = redis.ask(&["INFO", "commandstats"]).text();
    let line = stats.lines().find_map(|line| line.strip_prefix("cmdstat_get:calls="));
    let count = line.and_then(|line| line.split(',').next());
    count.map_or(0, |count| count.parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guesses_with_a_right_check_symbol_are_refused_before_the_shared_store_is_asked() {
    let tries: usize = repeat::times("GATEKEEPER_GUESSES", 2_000);
    let addresses = (tries / 100).clamp(10, 1_000);
    let (mock, redis) = (Mock::start(Reply::chat()).await, Redis::start().await);
    let config = issued(&mock)
        .redis(&redis.url())
        .server("grace: 5s, trusted_proxies: [\"127.0.0.0/8\"]")
        .of_shop("issued", "lemonsqueezy_api", "{ store_id: 1, variants: { pro: 2 } }");
    let gateway = Gateway::start(config).await;
    let key = issue(&gateway, &json!({})).await.remove(0);
    let symbols: String = key["JSTAR-".len()..].replace('-', "");
    assert_eq!(whole(&symbols[..19]), key, "the check symbol follows from the source code");
    gateway.app().chat_as(&key).await.ok();
    let guesser = Guesser::new(&gateway);
    let (before, began) = (reads(&redis), Instant::now());
    let guess = |number: usize| {
        let (guesser, key) = (&guesser, made_up(number));
        let address = address(number % addresses);
        async move {
            let request = match number / addresses % 2 {
                0 => guesser.http.get(format!("{}/v1/me", guesser.base)).bearer_auth(key),
                _ => {
                    let form = [("license_key", key.as_str()), ("instance_name", "x")];
                    guesser.http.post(format!("{}/v1/licenses/activate", guesser.base)).form(&form)
                }
            };
            let answer = request.header("x-forwarded-for", address).send().await.unwrap();
            answer.status().as_u16()
        }
    };
    let mut guesses = futures_util::stream::iter(0..tries).map(guess).buffer_unordered(32);
    let mut statuses: BTreeMap<u16, usize> = BTreeMap::new();
    while let Some(status) = guesses.next().await {
        *statuses.entry(status).or_default() += 1;
    }
    let minutes = began.elapsed().as_secs() as usize / 60 + 1;
    println!("{statuses:?}, {} reads in {:?}", reads(&redis) - before, began.elapsed());
    assert!(statuses.keys().all(|status| matches!(status, 403 | 404 | 429)), "{statuses:?}");
    // What gateways do by themselves is a few reads in a second.
    let most = addresses * A_MINUTE * (minutes + 1) + 100 * minutes;
    assert!(reads(&redis) - before <= most, "{} reads, {most}", reads(&redis) - before);
    // A buyer behind the same address goes on, and is charged.
    let me = guesser.http.get(format!("{}/v1/me", guesser.base)).bearer_auth(&key);
    let me = me.header("x-forwarded-for", address(0)).send().await.unwrap();
    assert_eq!(me.status(), 200);
    gateway.app().chat_as(&key).await.ok();
    assert_eq!(gateway.messages(&key).await, 2);
}

fn address(number: usize) -> String {
    format!("10.{}.{}.1", number / 250, number % 250)
}

const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// A key that was never issued, with its check symbol.
fn made_up(number: usize) -> String {
    let symbol = |place: usize| char::from(ALPHABET[number >> (5 * place) & 31]);
    let symbols: String = (0..6).map(symbol).chain("ABCDEFGHJKMNP".chars()).collect();
    whole(&symbols)
}

/// A key of these 19 symbols, with the check symbol that anyone can compute: their sum in GF(32), each weighted by
/// the power of two that its place is.
fn whole(symbols: &str) -> String {
    let value = |symbol: u8| ALPHABET.iter().position(|known| *known == symbol).unwrap() as u32;
    let mut check = 0;
    for (place, symbol) in symbols.bytes().enumerate() {
        let mut weighted = value(symbol);
        for _ in 0..=place {
            weighted <<= 1;
            if weighted > 31 {
                weighted ^= 0b10_0101;
            }
        }
        check ^= weighted;
    }
    let all = format!("{symbols}{}", char::from(ALPHABET[check as usize]));
    let groups: Vec<&str> = (0..4).map(|group| &all[5 * group..5 * group + 5]).collect();
    format!("JSTAR-{}", groups.join("-"))
}

/// Somebody with 1,000 addresses.
struct Guesser {
    http: reqwest::Client,
    base: String,
}

impl Guesser {
    fn new(gateway: &Gateway) -> Self {
        let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
        Self { http: http.build().unwrap(), base: format!("http://{}", gateway.public) }
    }

    /// What was guessed (a key, a session, a code of a link, a key to activate), and what was answered.
    async fn guess(&self, number: usize) -> (usize, u16) {
        let address = address(number % 1000);
        // Every other one with its check symbol.
        let key = match number / 4 % 2 {
            0 => format!("JSTAR-{:05}-ABCDE-FGHJK-{:05}", number % 100_000, number / 100_000),
            _ => made_up(number),
        };
        let kind = number % 4;
        let url = |path: &str| format!("{}{path}", self.base);
        let request = match kind {
            0 => self.http.get(url("/v1/me")).bearer_auth(&key),
            1 => match self.visit(&format!("cs_test_guess{number:07}"), &address).await {
                Ok(cookie) => self.http.get(url("/claim")).header("cookie", cookie),
                Err(status) => return (kind, status),
            },
            // As long as a code of the page is.
            2 => {
                let code = format!("{number:064}");
                self.http.post(url("/license/claim")).json(&json!({ "code": code }))
            }
            _ => {
                let form = [("license_key", key.as_str()), ("instance_name", "x")];
                self.http.post(url("/v1/licenses/activate")).form(&form)
            }
        };
        let answer = request.header("x-forwarded-for", &address).send().await.unwrap();
        (kind, answer.status().as_u16())
    }

    /// The cookie of a session.
    async fn visit(&self, session: &str, address: &str) -> Result<String, u16> {
        let url = format!("{}/claim?session_id={session}", self.base);
        let answer = self.http.get(url).header("x-forwarded-for", address).send().await.unwrap();
        if answer.status() != 303 {
            return Err(answer.status().as_u16());
        }
        let cookie = answer.headers()["set-cookie"].to_str().unwrap();
        Ok(cookie.split(';').next().unwrap().to_owned())
    }
}
