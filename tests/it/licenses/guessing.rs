//! Guesses at keys, sessions and activations: nothing is found, Stripe hears little of it, buyers are served.
//! `GATEKEEPER_GUESSES` is how many.

use std::{collections::BTreeMap, time::Instant};

use futures_util::StreamExt;

use crate::{
    licenses::stripe::{claim, claim_from, key_on, selling, send},
    support::{Gateway, Mock, Reply, Stripe, repeat},
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
        let address = format!("10.{}.{}.1", number % 1000 / 250, number % 250);
        let key = format!("JSTAR-{:05}-ABCDE-FGHJK-{:05}", number % 100_000, number / 100_000);
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
                self.http.post(url("/license/claim")).json(&serde_json::json!({ "code": code }))
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
