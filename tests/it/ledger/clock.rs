//! A wall clock that is set by an hour or a day, forwards and back, while the gateway runs: nobody is
//! locked out, nothing is handed out twice in one window, nothing rests for ever.
//!
//! The gateway is the built program; Debian's `libfaketime` stands between it and the clock. What can't
//! be set, the monotonic clock, it leaves alone, as the kernel does.

use std::{
    fs,
    path::PathBuf,
    process::Command,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde_json::json;
use tempfile::TempDir;

use crate::support::{
    Answer, Config, Gate, Gateway, LICENSE, Mock, Reply, Says, Shop, Step, client, eventually,
    shop::{BOUGHT, license_key},
    soon, sse,
};

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;
/// From midnight to where a clock begins.
const MORNING: i64 = 12 * HOUR + 600;
const SOON: Duration = Duration::from_secs(10);

/// A clock that begins at 12:10 UTC of the 12th of some month, so that an hour more or less is the same
/// day, and a day more or less the same month.
struct Clock {
    dir: TempDir,
    /// Seconds that the real clock is behind it.
    ahead: i64,
}

impl Clock {
    fn at_noon() -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
        let today =
            jiff::Timestamp::from_second(now).unwrap().to_zoned_datetime(jiff::tz::TimeZone::UTC);
        let noon = today.date().with().day(12).build().unwrap().at(12, 10, 0, 0);
        let noon = noon.to_zoned_datetime(jiff::tz::TimeZone::UTC).unwrap().timestamp().as_second();
        let clock = Self { dir: TempDir::new().unwrap(), ahead: noon - now };
        clock.set(0);
        clock
    }

    /// So many seconds from where it began.
    fn set(&self, step: i64) {
        let (new, file) = (self.dir.path().join("new"), self.dir.path().join("clock"));
        fs::write(&new, format!("{:+}", self.ahead + step)).unwrap();
        fs::rename(new, file).unwrap();
    }

    fn over(&self, config: Config) -> Config {
        config
            .env("LD_PRELOAD", library().to_str().unwrap())
            .env("FAKETIME_TIMESTAMP_FILE", self.dir.path().join("clock").to_str().unwrap())
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .env("NO_FAKE_STAT", "1")
    }

    /// As the gateway has it: the date and the time of the last answer's record.
    async fn told(&self, gateway: &Gateway) -> String {
        gateway.status().await["requests"][0]["time"].as_str().unwrap().to_owned()
    }
}

fn library() -> PathBuf {
    let listed = Command::new("dpkg").args(["-L", "libfaketime"]).output().expect("dpkg runs");
    let listed = String::from_utf8(listed.stdout).unwrap();
    let found = listed.lines().find(|path| path.ends_with("/libfaketimeMT.so.1"));
    found.expect("Debian's package `libfaketime` is installed").into()
}

/// How many of five requests are served; the rest is refused with this.
async fn served(gateway: &Gateway, status: u16, code: &str) -> usize {
    let mut served = 0;
    for _ in 0..5 {
        let answer = gateway.app().chat().await;
        match answer.status {
            200 => served += 1,
            _ => {
                answer.is(status, code);
            }
        }
    }
    served
}

#[tokio::test]
async fn each_window_is_handed_out_once_whatever_the_clock_does() {
    let mock = Mock::start(Reply::chat()).await;
    for (limit, per) in [(DAY, "day"), (HOUR, "hour")] {
        let clock = Clock::at_noon();
        let config = Config::new(&mock).plan("free", &format!("messages: 3/{per}, models: [fast]"));
        let gateway = Gateway::start(clock.over(config)).await;
        assert_eq!(served(&gateway, 402, "quota_exceeded").await, 3);
        assert!(clock.told(&gateway).await.contains("-12T12:1"), "libfaketime does not work");
        let mut had = vec![MORNING.div_euclid(limit)];
        for step in [HOUR, 0, -HOUR, 0, DAY, 0, -DAY, HOUR, 0, DAY, -HOUR, -DAY, 0] {
            clock.set(step);
            let window = (MORNING + step).div_euclid(limit);
            let expected = if had.contains(&window) { 0 } else { 3 };
            let got = served(&gateway, 402, "quota_exceeded").await;
            assert_eq!(got, expected, "a limit of the {per}, {step} s from noon");
            had.push(window);
        }
    }
}

/// A body may take two minutes: its message is one of the minute in which it is whole.
#[tokio::test]
async fn slow_bodies_get_no_minute_that_is_over() {
    let mock = Mock::start(Reply::chat()).await;
    let clock = Clock::at_noon();
    let config = Config::new(&mock).plan("free", "messages: 2/minute, models: [fast]");
    let gateway = Gateway::start(clock.over(config)).await;
    let whole = client::post("/v1/chat/completions", &client::chat(&json!({})));
    let (begun, rest) = whole.split_at(whole.len() - 10);
    let mut slow = Vec::new();
    for minute in 0..2 {
        clock.set(60 * minute);
        for _ in 0..4 {
            let mut raw = gateway.raw().await;
            assert!(raw.send(begun).await);
            slow.push(raw);
        }
        eventually("their heads are read", SOON, || async {
            gateway.metrics().await.sum("gatekeeper_in_flight", &[]) == slow.len() as f64
        })
        .await;
    }
    clock.set(120);
    let mut served = 0;
    for mut raw in slow {
        assert!(raw.send(rest).await);
        served += usize::from(soon("an answer", raw.answer()).await.unwrap().status == 200);
        served += usize::from(gateway.app().chat().await.status == 200);
    }
    // Two, unless a minute ends meanwhile.
    assert!((2..=4).contains(&served), "{served} of 2 a minute");
}

#[tokio::test]
async fn a_rate_of_the_day_and_a_budget_are_not_forgotten_by_a_step_of_a_day() {
    let mock = Mock::start(Reply::chat()).await;
    let clock = Clock::at_noon();
    let config = Config::new(&mock).plan("free", "rate: 3/day, models: [fast]");
    let gateway = Gateway::start(clock.over(config)).await;
    let rated = async || served(&gateway, 429, "rate_limited").await;
    assert_eq!(rated().await, 3);
    for (step, expected) in [(DAY, 3), (0, 0), (DAY, 0), (0, 0)] {
        clock.set(step);
        assert_eq!(rated().await, expected, "{step} s from noon");
    }
    let more = "prices: { p/m1: { input: 10000, output: 10000 } }\nbudget: { day: $0.5 }";
    let clock = Clock::at_noon();
    let gateway = Gateway::start(clock.over(Config::new(&mock).more(more))).await;
    let spent = async || served(&gateway, 503, "upstream_exhausted").await;
    // 18 tokens are 18 cents.
    assert_eq!(spent().await, 3);
    for (step, expected) in [(HOUR, 0), (0, 0), (DAY, 3), (0, 0), (-HOUR, 0), (DAY, 0)] {
        clock.set(step);
        assert_eq!(spent().await, expected, "{step} s from noon");
    }
}

#[tokio::test]
async fn an_open_request_is_charged_once_in_the_window_in_which_it_was_taken() {
    let clock = Clock::at_noon();
    let gate = Gate::new();
    let reply = Reply::sse(&[sse::ROLE.to_owned(), sse::text("Hel")])
        .then(Step::Gate(gate.clone()))
        .write(sse::FINISH)
        .write(sse::DONE);
    let mock = Mock::sequence([reply, Reply::chat()]).await;
    let config = Config::new(&mock).plan("free", "messages: 3/day, models: [fast]");
    let gateway = Gateway::start(clock.over(config)).await;
    let mut open = gateway.app().open(&client::chat(&json!({ "stream": true }))).await;
    assert!(open.chunk().await.unwrap().is_some());
    clock.set(DAY);
    assert_eq!(served(&gateway, 402, "quota_exceeded").await, 3);
    gate.open();
    soon("the stream", Answer::read(open)).await.ok();
    assert_eq!(gateway.messages(LICENSE).await, 3);
    clock.set(0);
    assert_eq!(gateway.messages(LICENSE).await, 1);
    assert_eq!(served(&gateway, 402, "quota_exceeded").await, 2);
    assert_eq!(gateway.metrics().await.sum("gatekeeper_reservations_open", &[]), 0.0);
}

#[tokio::test]
async fn a_key_rests_as_long_as_it_was_told_by_a_clock_that_cannot_be_set() {
    let clock = Clock::at_noon();
    let limited = || Reply::error(429).header("retry-after", "6");
    let mock = Mock::sequence([limited(), Reply::chat()]).await;
    let config = Config::new(&mock).keys("p", &["sk-one"]);
    let gateway = Gateway::start(clock.over(config)).await;
    gateway.app().chat().await.is(503, "upstream_exhausted");
    clock.set(DAY);
    gateway.app().chat().await.is(503, "upstream_exhausted");
    clock.set(-DAY);
    eventually("it is ready after its six seconds", SOON, || async {
        gateway.app().chat().await.status == 200
    })
    .await;
    assert_eq!(mock.count(), 2);
}

/// A clock that was a year ahead once: cached answers and refusals of that time are not valid for a year, and
/// known licences are served with the shop down, over a restart, too.
#[tokio::test]
async fn a_clock_that_was_a_year_ahead_once_locks_no_licence_out() {
    let (mock, shop, clock) =
        (Mock::start(Reply::chat()).await, Shop::open().await, Clock::at_noon());
    let dir = std::sync::Arc::new(TempDir::new().unwrap());
    let config = clock.over(Config::new(&mock).lemonsqueezy(&shop));
    let (refused, unknown) = (license_key(1), license_key(2));
    shop.sells(BOUGHT, Says::license()).sells(&refused, Says::refused("disabled"));
    clock.set(365 * DAY);
    let mut gateway = Gateway::start_in(dir, config).await;
    let ask = async |gateway: &Gateway, key: &str| gateway.app().chat_as(key).await;
    ask(&gateway, BOUGHT).await.ok();
    ask(&gateway, &refused).await.is(403, "license_disabled");
    ask(&gateway, &unknown).await.is(403, "license_invalid");
    clock.set(0);
    shop.sells(&refused, Says::license()).sells(&unknown, Says::license());
    shop.sells(BOUGHT, Says::refused("disabled"));
    for key in [&refused, &unknown] {
        eventually("it is served", SOON, || async { ask(&gateway, key).await.status == 200 }).await;
    }
    // What was cached in that year is checked again, too.
    eventually("it is refused", SOON, || async { ask(&gateway, BOUGHT).await.status == 403 }).await;
    shop.close().await;
    gateway.restart().await;
    for key in [&refused, &unknown] {
        ask(&gateway, key).await.ok();
    }
}

/// What a shop answered under a clock that was a day ahead does not hold for that day when it is set right.
#[tokio::test]
async fn no_licence_is_locked_out_by_a_clock_that_was_wrong() {
    let (mock, shop, clock) =
        (Mock::start(Reply::chat()).await, Shop::open().await, Clock::at_noon());
    let dir = std::sync::Arc::new(TempDir::new().unwrap());
    let config = clock.over(Config::new(&mock).lemonsqueezy(&shop));
    let (good, new, refunded) = (license_key(1), license_key(2), license_key(3));
    for key in [BOUGHT, &good, &refunded] {
        shop.sells(key, Says::license());
    }
    let mut gateway = Gateway::start_in(dir, config).await;
    let ask = async |gateway: &Gateway, key: &str| gateway.app().chat_as(key).await;
    for key in [&good, BOUGHT, &refunded] {
        ask(&gateway, key).await.ok();
    }
    clock.set(DAY);
    shop.sells(BOUGHT, Says::refused("disabled"));
    eventually("the shop is asked again the next day", SOON, || async {
        ask(&gateway, BOUGHT).await.status == 403
    })
    .await;
    ask(&gateway, &new).await.is(403, "license_invalid");
    ask(&gateway, &refunded).await.ok();
    ask(&gateway, &good).await.ok();
    // The shop accepts both, and the clock is set right.
    shop.sells(BOUGHT, Says::license()).sells(&new, Says::license());
    clock.set(0);
    for key in [BOUGHT, &new] {
        eventually("it is served", SOON, || async { ask(&gateway, key).await.status == 200 }).await;
    }
    // A refund acts at once, too.
    shop.sells(&refunded, Says::refused("disabled"));
    eventually("it is refused", SOON, || async { ask(&gateway, &refunded).await.status == 403 })
        .await;
    // Known licences are served with the shop down, whatever the clock does, over a restart, too.
    clock.set(DAY);
    for key in [BOUGHT, &good] {
        ask(&gateway, key).await.ok();
    }
    shop.close().await;
    for step in [0, -DAY, HOUR, DAY] {
        clock.set(step);
        for key in [BOUGHT, &good, BOUGHT] {
            ask(&gateway, key).await.ok();
        }
    }
    clock.set(0);
    gateway.restart().await;
    for key in [BOUGHT, &good] {
        ask(&gateway, key).await.ok();
    }
}
