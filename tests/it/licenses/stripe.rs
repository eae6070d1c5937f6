//! Purchases at Stripe: events in any order, doubled, late or lost; the page on which the buyer finds the key.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value, json};

use crate::{
    license_admin::operator::{done, order},
    licenses::issued::issued,
    support::{
        Config, Gateway, Mock, Noise, Redis, Reply, Stripe, eventually, repeat,
        stripe::{SECRET, seconds, signed},
    },
};

const DAY: u64 = 86_400;

pub fn selling(mock: &Mock, stripe: &Stripe) -> Config {
    let url = stripe.url();
    issued(mock)
        .plan("max", "messages: 5000/month, tokens: 5000000/month, models: [\"*\"]")
        .of_shop(
            "issued",
            "stripe",
            &format!(
                "{{ api_key: \"env:STRIPE_RK\", webhook_secret: \"env:STRIPE_SECRET\", base_url: \"{url}\", \
                 sweep: 1s, prices: {{ price_pro: pro, price_max: max }}, deep_link: \"jstar://license\" }}"
            ),
        )
        .env("STRIPE_RK", "rk_test_0123456789")
        .env("STRIPE_SECRET", SECRET)
}

async fn started() -> (Mock, Stripe, Gateway) {
    let (mock, stripe) = (Mock::start(Reply::chat()).await, Stripe::start().await);
    let gateway = Gateway::start(selling(&mock, &stripe)).await;
    (mock, stripe, gateway)
}

pub async fn send(gateway: &Gateway, event: &Value) -> u16 {
    let body = event.to_string();
    let signature = signed(SECRET, seconds(), &body);
    let request = gateway.app().request("POST", "/webhooks/stripe");
    let request = request.header("stripe-signature", signature).body(body);
    request.send().await.map_or(0, |answer| answer.status().as_u16())
}

/// The page for a session: its status and its text.
pub async fn claim(gateway: &Gateway, session: &str) -> (u16, String) {
    claim_from(gateway, session, "127.0.0.1").await
}

pub async fn claim_from(gateway: &Gateway, session: &str, address: &str) -> (u16, String) {
    let client =
        reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().unwrap();
    let url = |path: &str| format!("http://{}{path}", gateway.public);
    let first = client.get(url(&format!("/claim?session_id={session}")));
    let first = first.header("x-forwarded-for", address).send().await.unwrap();
    if first.status() != 303 {
        return (first.status().as_u16(), first.text().await.unwrap());
    }
    let headers = first.headers();
    assert_eq!(headers["location"], "/claim");
    let cookie = headers["set-cookie"].to_str().unwrap().to_owned();
    assert!(cookie.starts_with("__Host-claim=") && !cookie.contains(session), "{cookie}");
    for needed in ["; Path=/", "; Secure", "; HttpOnly", "; SameSite=Lax"] {
        assert!(cookie.contains(needed), "{cookie}");
    }
    let cookie = cookie.split(';').next().unwrap();
    let page =
        client.get(url("/claim")).header("cookie", cookie).header("x-forwarded-for", address);
    let page = page.send().await.unwrap();
    assert_eq!(page.headers()["cache-control"], "no-store");
    assert_eq!(page.headers()["referrer-policy"], "no-referrer");
    assert!(
        page.headers()["content-security-policy"].to_str().unwrap().contains("default-src 'none'")
    );
    (page.status().as_u16(), page.text().await.unwrap())
}

pub fn key_on(page: &str) -> Option<String> {
    let place = page.find("JSTAR-")?;
    page.get(place..place + 29).map(str::to_owned)
}

fn code_on(page: &str) -> String {
    let link = page.split("jstar://license?code=").nth(1).unwrap();
    link.split('"').next().unwrap().to_owned()
}

async fn exchange(gateway: &Gateway, code: &str) -> (u16, Value) {
    let request =
        gateway.app().request("POST", "/license/claim").body(json!({ "code": code }).to_string());
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

#[tokio::test]
async fn a_buyer_finds_the_key_and_the_app_takes_it_once_by_a_link() {
    let (_mock, stripe, gateway) = started().await;
    let session = stripe.sell("a1B2c3D4e5", "price_pro", "paid");
    let event = stripe.event("checkout.session.completed", &format!("checkout/sessions/{session}"));
    assert_eq!(send(&gateway, &event).await, 200);
    assert_eq!(send(&gateway, &event).await, 200, "doubled");
    eventually("the webhook shows in /status", Duration::from_secs(5), || async {
        let status = gateway.status().await;
        let sources = status["sources"].as_array().unwrap();
        let issued = sources.iter().find(|one| one["name"] == "issued").unwrap();
        issued["webhook"]["taken"].is_string() && issued["last_event"].is_string()
    })
    .await;
    let (status, page) = claim(&gateway, &session).await;
    assert_eq!(status, 200, "{page}");
    let key = key_on(&page).expect("the key is on the page");
    assert!(page.contains("1,000 messages a month") && !page.contains("<script"), "{page}");
    gateway.app().chat_as(&key).await.ok();
    assert_eq!(key_on(&claim(&gateway, &session).await.1), Some(key.clone()), "the same key again");
    let code = code_on(&page);
    let (status, taken) = exchange(&gateway, &code).await;
    assert_eq!(
        (status, &taken["key"], &taken["plan"]),
        (200, &json!(key), &json!("pro")),
        "{taken}"
    );
    let (status, again) = exchange(&gateway, &code).await;
    assert_eq!((status, &again["error"]["code"]), (403, &json!("license_invalid")), "{again}");
    assert_eq!(order(&gateway, "list", &json!({})).await.json()["total"], 1);
    let logs = gateway.logs();
    for secret in [&session, &key, &code] {
        assert!(!logs.contains(secret.as_str()), "{secret} stands in a log");
    }
}

#[tokio::test]
async fn without_a_webhook_the_page_asks_and_a_payment_on_its_way_makes_nothing() {
    let (_mock, stripe, gateway) = started().await;
    let session = stripe.sell("slow0001", "price_pro", "unpaid");
    let (status, page) = claim(&gateway, &session).await;
    assert!(
        status == 200 && page.contains("on its way") && page.contains("http-equiv=\"refresh\""),
        "{page}"
    );
    assert_eq!(order(&gateway, "list", &json!({})).await.json()["total"], 0);
    let path = format!("checkout/sessions/{session}");
    stripe.change(&path, "payment_status", json!("paid"));
    assert_eq!(
        send(&gateway, &stripe.event("checkout.session.async_payment_succeeded", &path)).await,
        200
    );
    assert!(key_on(&claim(&gateway, &session).await.1).is_some());
    let failed = stripe.sell("slow0002", "price_pro", "unpaid");
    let path = format!("checkout/sessions/{failed}");
    send(&gateway, &stripe.event("checkout.session.async_payment_failed", &path)).await;
    assert!(key_on(&claim(&gateway, &failed).await.1).is_none());
    for (name, price, change) in [
        ("other001", "price_other", None),
        ("open0001", "price_pro", Some(("status", json!("open")))),
        ("live0001", "price_pro", Some(("livemode", json!(true)))),
    ] {
        let session = stripe.sell(name, price, "paid");
        if let Some((member, value)) = change {
            stripe.change(&format!("checkout/sessions/{session}"), member, value);
        }
        let (_, page) = claim(&gateway, &session).await;
        assert!(key_on(&page).is_none(), "{name}: {page}");
    }
    assert_eq!(order(&gateway, "list", &json!({})).await.json()["total"], 1);
    for wrong in ["x", "cs_test_", "cs_test_a/../b12345678", "pi_test_a1B2c3D4e5"] {
        assert_eq!(claim(&gateway, wrong).await.0, 400, "{wrong}");
    }
    assert_eq!(claim(&gateway, "cs_test_neverheard1").await.0, 404);
}

#[tokio::test]
async fn refunds_and_disputes_end_a_licence_and_a_won_dispute_brings_it_back() {
    let (_mock, stripe, gateway) = started().await;
    let session = stripe.sell("money0001", "price_pro", "paid");
    let key = key_on(&claim(&gateway, &session).await.1).unwrap();
    stripe.change("charges/ch_money0001", "disputed", json!(true));
    stripe.put("disputes/dp_1", json!({ "id": "dp_1", "charge": "ch_money0001", "status": "needs_response", "livemode": false }));
    send(&gateway, &stripe.event("charge.dispute.created", "disputes/dp_1")).await;
    gateway.app().chat_as(&key).await.is(403, "license_refunded");
    assert!(claim(&gateway, &session).await.1.contains("refunded"));
    stripe.change("disputes/dp_1", "status", json!("won"));
    send(&gateway, &stripe.event("charge.dispute.closed", "disputes/dp_1")).await;
    gateway.app().chat_as(&key).await.ok();
    stripe.change("charges/ch_money0001", "refunded", json!(true));
    send(&gateway, &stripe.event("charge.refunded", "charges/ch_money0001")).await;
    gateway.app().chat_as(&key).await.is(403, "license_refunded");
    // Refunded before anybody asked: no key is made.
    let early = stripe.sell("money0002", "price_pro", "paid");
    stripe.change("charges/ch_money0002", "refunded", json!(true));
    send(&gateway, &stripe.event("charge.refunded", "charges/ch_money0002")).await;
    assert!(claim(&gateway, &early).await.1.contains("refunded"));
    assert_eq!(order(&gateway, "list", &json!({})).await.json()["total"], 1);
}

#[tokio::test]
async fn a_subscription_runs_to_its_end_with_grace_and_changes_its_plan() {
    let (_mock, stripe, gateway) = started().await;
    let end = seconds() + 20 * DAY;
    let session = stripe.subscribe("sub00001", "price_pro", end);
    let key = key_on(&claim(&gateway, &session).await.1).unwrap();
    let until = |me: &Value| me["until"].as_str().unwrap().to_owned();
    assert_eq!(until(&gateway.me(&key).await), rfc3339(end + 3 * DAY));
    let path = "subscriptions/sub_sub00001";
    let updated = async || {
        assert_eq!(send(&gateway, &stripe.event("customer.subscription.updated", path)).await, 200);
    };
    stripe.change(path, "items", json!({ "data": [{ "price": { "id": "price_max" } }] }));
    stripe.change(path, "current_period_end", json!(end + 30 * DAY));
    updated().await;
    let me = gateway.me(&key).await;
    assert_eq!((until(&me), &me["plan"]), (rfc3339(end + 33 * DAY), &json!("max")));
    // The new period is not paid.
    stripe.change(path, "status", json!("past_due"));
    stripe.change(path, "current_period_start", json!(seconds() - 4 * DAY));
    updated().await;
    gateway.app().chat_as(&key).await.is(403, "license_expired");
    stripe.change(path, "status", json!("active"));
    send(&gateway, &stripe.event("invoice.paid", "invoices/in_sub00001")).await;
    gateway.app().chat_as(&key).await.ok();
    stripe.change(path, "status", json!("paused"));
    send(&gateway, &stripe.event("customer.subscription.paused", path)).await;
    gateway.app().chat_as(&key).await.is(403, "license_disabled");
    stripe.change(path, "status", json!("active"));
    send(&gateway, &stripe.event("customer.subscription.resumed", path)).await;
    gateway.app().chat_as(&key).await.ok();
    // What an operator did holds until Stripe says something new.
    done(&gateway, "extend", &key, &json!({ "until": "2100-01-31" })).await;
    updated().await;
    assert_eq!(until(&gateway.me(&key).await), "2100-01-31T23:59:59Z");
    stripe.change(path, "status", json!("canceled"));
    send(&gateway, &stripe.event("customer.subscription.deleted", path)).await;
    gateway.app().chat_as(&key).await.is(403, "license_expired");
}

/// Seconds since 1970 as RFC 3339.
fn rfc3339(at: u64) -> String {
    let days = at / DAY;
    let (hour, minute, second) = (at % DAY / 3600, at % 3600 / 60, at % 60);
    // Howard Hinnant's `civil_from_days`.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_place = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_place + 2) / 5 + 1;
    let month = if month_place < 10 { month_place + 3 } else { month_place - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[tokio::test]
async fn only_signed_and_recent_events_of_our_mode_count() {
    let (_mock, stripe, gateway) = started().await;
    let session = stripe.sell("sign0001", "price_pro", "paid");
    let path = format!("checkout/sessions/{session}");
    stripe.change(&path, "livemode", json!(true));
    let live = stripe.event("checkout.session.completed", &path);
    assert_eq!(send(&gateway, &live).await, 200, "taken, and nothing is done");
    let body = live.to_string();
    for signature in [
        signed("whsec_another-secret", seconds(), &body),
        signed(SECRET, seconds() - 400, &body),
        signed(SECRET, seconds(), &body.replace("true", "false")),
        "t=1".into(),
    ] {
        let request = gateway
            .app()
            .request("POST", "/webhooks/stripe")
            .header("stripe-signature", &signature);
        assert_eq!(request.body(body.clone()).send().await.unwrap().status(), 401, "{signature}");
    }
    let request = gateway.app().request("POST", "/webhooks/stripe").body(body);
    assert_eq!(request.send().await.unwrap().status(), 401);
    assert_eq!(order(&gateway, "list", &json!({})).await.json()["total"], 0);
}

#[tokio::test]
async fn while_stripe_is_away_events_come_again_and_buyers_wait() {
    let (_mock, stripe, gateway) = started().await;
    let session = stripe.sell("away0001", "price_pro", "paid");
    let event = stripe.event("checkout.session.completed", &format!("checkout/sessions/{session}"));
    stripe.down(true);
    assert_eq!(send(&gateway, &event).await, 503);
    let (status, page) = claim(&gateway, &session).await;
    assert!(status == 503 && page.contains("again by itself"), "{page}");
    stripe.down(false);
    assert_eq!(send(&gateway, &event).await, 200);
    assert!(key_on(&claim(&gateway, &session).await.1).is_some());
}

/// More of them than there are locks of orders, so that some share the one of the sweep's own record.
#[tokio::test]
async fn purchases_of_which_no_webhook_came_are_found_by_the_sweep() {
    const PURCHASES: u64 = 250;
    let (_mock, stripe, gateway) = started().await;
    for number in 0..PURCHASES {
        let session = stripe.sell(&format!("lost{number:05}"), "price_pro", "paid");
        stripe.event("checkout.session.completed", &format!("checkout/sessions/{session}"));
    }
    eventually("all of them are licences", Duration::from_secs(60), || async {
        order(&gateway, "list", &json!({ "limit": 1 })).await.json()["total"] == PURCHASES
    })
    .await;
    let last = claim(&gateway, "cs_test_lost00249").await.1;
    assert!(key_on(&last).is_some(), "{last}");
}

/// What is left of a purchase in the end.
struct Fate {
    is_good: bool,
    /// The paid end of a subscription.
    end: Option<u64>,
}

/// Something that becomes of a purchase at Stripe, with the events that tell of it.
fn befall(
    stripe: &Stripe,
    name: &str,
    fate: &mut Fate,
    noise: &mut Noise,
    events: &mut Vec<Value>,
) {
    let is_subscription = fate.end.is_some();
    let subscription = format!("subscriptions/sub_{name}");
    let charge = format!("charges/ch_{name}");
    match noise.below(4) {
        0 if is_subscription => {
            stripe.change(&subscription, "status", json!("canceled"));
            events.push(stripe.event("customer.subscription.deleted", &subscription));
            fate.is_good = false;
        }
        1 => {
            stripe.change(&charge, "refunded", json!(true));
            events.push(stripe.event("charge.refunded", &charge));
            fate.is_good = false;
        }
        2 => {
            let dispute = format!("disputes/dp_{name}");
            stripe.change(&charge, "disputed", json!(true));
            let (id, of) = (format!("dp_{name}"), format!("ch_{name}"));
            stripe.put(
                &dispute,
                json!({ "id": id, "charge": of, "status": "needs_response", "livemode": false }),
            );
            events.push(stripe.event("charge.dispute.created", &dispute));
            let is_won = noise.below(2) == 0;
            let status = if is_won { "won" } else { "lost" };
            stripe.change(&dispute, "status", json!(status));
            events.push(stripe.event("charge.dispute.closed", &dispute));
            fate.is_good = is_won;
        }
        3 if is_subscription => {
            let end = fate.end.unwrap() + 30 * DAY;
            stripe.change(&subscription, "current_period_end", json!(end));
            events.push(stripe.event("customer.subscription.updated", &subscription));
            events.push(stripe.event("invoice.paid", &format!("invoices/in_{name}")));
            fate.end = Some(end);
        }
        _ => {}
    }
}

/// Sends each event up to twice, in any order, to any gateway; a third of all is lost.
async fn deliver(gateways: &[Gateway; 2], noise: &mut Noise, events: &[Value]) {
    let mut sent: Vec<&Value> = events.iter().chain(events).collect();
    for place in (1..sent.len()).rev() {
        sent.swap(place, noise.below(place as u64 + 1) as usize);
    }
    for event in sent {
        if noise.below(3) > 0 {
            send(noise.pick(gateways), event).await;
        }
    }
}

/// The key of a session, or that it has none, once its gateway has heard of it.
async fn keeps(
    gateway: &Gateway,
    (session, address): (&str, &str),
    is_good: bool,
) -> Option<String> {
    for _ in 0..1_000 {
        let key = key_on(&claim_from(gateway, session, address).await.1);
        if key.is_some() == is_good {
            return key;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{session}: expected a good licence: {is_good}");
}

/// Each licence is in the end what Stripe says, whatever became of its events.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shuffled_doubled_and_lost_events_at_two_gateways_end_in_what_stripe_says() {
    let purchases: usize = repeat::times("GATEKEEPER_PURCHASES", 60);
    let (mock, stripe, redis) =
        (Mock::start(Reply::chat()).await, Stripe::start().await, Redis::start().await);
    let config = selling(&mock, &stripe)
        .redis(&redis.url())
        .server("grace: 5s, trusted_proxies: [\"127.0.0.0/8\"]");
    let gateways = [Gateway::start(config.clone()).await, Gateway::start(config).await];
    let mut noise = Noise::new(7);
    let mut events = Vec::new();
    let mut expected: BTreeMap<String, Fate> = BTreeMap::new();
    for number in 0..purchases {
        let name = format!("p{number:07}");
        let end = (noise.below(2) == 0).then(|| seconds() + 20 * DAY);
        let session = match end {
            Some(end) => stripe.subscribe(&name, "price_pro", end),
            None => stripe.sell(&name, "price_pro", "paid"),
        };
        let path = format!("checkout/sessions/{session}");
        events.push(stripe.event("checkout.session.completed", &path));
        let mut fate = Fate { is_good: true, end };
        match number % 5 {
            // Never paid.
            0 => {
                stripe.change(&path, "payment_status", json!("unpaid"));
                events.push(stripe.event("checkout.session.async_payment_failed", &path));
                fate.is_good = false;
            }
            1 | 2 => befall(&stripe, &name, &mut fate, &mut noise, &mut events),
            _ => {}
        }
        expected.insert(session, fate);
    }
    deliver(&gateways, &mut noise, &events).await;
    // What becomes of licences that are there already; and what was sent before comes late.
    for (session, fate) in expected.iter_mut().filter(|(_, fate)| fate.is_good) {
        let name = session.trim_start_matches("cs_test_");
        let number: usize = name[1..].parse().unwrap();
        if number % 5 > 2 {
            befall(&stripe, name, fate, &mut noise, &mut events);
        }
    }
    deliver(&gateways, &mut noise, &events).await;
    let good = expected.values().filter(|fate| fate.is_good).count() as u64;
    let active = async |gateway: &Gateway| {
        order(gateway, "list", &json!({ "state": "active" })).await.json()["total"]
            .as_u64()
            .unwrap()
    };
    eventually("both gateways have what Stripe says", Duration::from_secs(60), || async {
        active(&gateways[0]).await == good && active(&gateways[1]).await == good
    })
    .await;
    let total = order(&gateways[0], "list", &json!({})).await.json()["total"].as_u64().unwrap();
    assert!(total <= expected.len() as u64, "no session made two licences");
    let mut keys = BTreeMap::new();
    for (number, (session, fate)) in expected.iter().enumerate() {
        // One address has twenty tries a minute.
        let address = format!("10.1.{}.{}", number / 250, number % 250);
        let key = keeps(&gateways[number % 2], (session, &address), fate.is_good).await;
        let Some(key) = key else { continue };
        let until = fate.end.map_or(Value::Null, |end| json!(rfc3339(end + 3 * DAY)));
        for gateway in &gateways {
            eventually(session, Duration::from_secs(30), || async {
                let me = gateway.me(&key).await;
                (&me["plan"], &me["until"]) == (&json!("pro"), &until)
            })
            .await;
        }
        assert!(keys.insert(key, session).is_none(), "no two sessions share a key");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_raced_by_webhooks_makes_one_key_and_none_for_an_unpaid_one() {
    let times: usize = repeat::times("GATEKEEPER_CLAIM_RACES", 40);
    let (mock, stripe) = (Mock::start(Reply::chat()).await, Stripe::start().await);
    let config = selling(&mock, &stripe).server("grace: 5s, trusted_proxies: [\"127.0.0.0/8\"]");
    let gateway = Gateway::start(config).await;
    let mut paid = 0;
    for number in 0..times {
        let fails = number % 2 == 1;
        let status = if fails { "unpaid" } else { "paid" };
        let session = stripe.sell(&format!("race{number:05}"), "price_pro", status);
        let path = format!("checkout/sessions/{session}");
        let kind = if fails {
            "checkout.session.async_payment_failed"
        } else {
            "checkout.session.completed"
        };
        let event = stripe.event(kind, &path);
        // Announced first where it is to be looked at more often than strangers are.
        let address = format!("10.1.{}.{}", number / 250, number % 250);
        let (_, one, other) = tokio::join!(
            send(&gateway, &event),
            claim_from(&gateway, &session, &address),
            claim_from(&gateway, &session, &address)
        );
        let keys: Vec<String> =
            [&one.1, &other.1].into_iter().filter_map(|page| key_on(page)).collect();
        match fails {
            true => assert!(keys.is_empty(), "{keys:?}"),
            false => {
                paid += 1;
                let last = key_on(&claim_from(&gateway, &session, &address).await.1).unwrap();
                assert!(keys.iter().all(|key| *key == last), "{keys:?} {last}");
            }
        }
    }
    assert_eq!(order(&gateway, "list", &json!({})).await.json()["total"], paid);
}
