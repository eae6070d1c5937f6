//! Licences that go on under a new key, as after their seller moved to another shop.

use std::{
    process::{Command, Output},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use serde_json::{Value, json};

use super::devices::{activate, chat_on, deactivate};
use crate::{
    ledger::shared_ledger,
    license_admin::operator::{done, show},
    support::{
        Answer, Config, Gate, Gateway, Mock, Redis, Reply, Step, Vendor, eventually,
        gateway::{feed, program},
        vendor::VendorAnswer,
    },
};

const OLD: &str = "OLD-SHOP-KEY-0001";
const NEW: &str = "NEW-SHOP-KEY-0001";
const POLAR: &str = "JSTAR-3F2A9C1E-7B4D-4E8A-9D60-5C1B8E7F2A34";
const PLAN: &str =
    "messages: 1000/month, tokens: 9000000/month, concurrency: unlimited, models: [\"*\"]";
const REQUIRED: &str = "messages: 1000/month, models: [\"*\"], devices: required";
const SOON: Duration = Duration::from_secs(10);

/// Runs `licenses move` with these lines.
fn moving(gateway: &Gateway, words: &[&str], lines: &str) -> Output {
    let mut command = Command::new(program());
    let file = gateway.dir.path().join("gatekeeper.yaml");
    command.args(["licenses", "move", "-c"]).arg(file).args(words);
    command.current_dir(gateway.dir.path()).envs(gateway.config.env.iter().cloned());
    feed(command, lines)
}

#[track_caller]
fn says(output: &Output, code: i32) -> String {
    let text = [&output.stdout[..], &output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    assert_eq!(output.status.code(), Some(code), "{text}");
    for key in [OLD, NEW, POLAR] {
        assert!(!text.contains(key), "{text}");
    }
    text
}

#[track_caller]
fn is_refused_with(answer: &Answer, words: &str) {
    answer.is(403, "license_disabled");
    let told = answer.error("message").to_string();
    assert!(told.contains(words), "{told}");
}

fn both(mock: &Mock, plan: &str) -> Config {
    Config::new(mock).plan("pro", plan).license(OLD, "pro").license(NEW, "pro")
}

fn lines(pairs: &[(&str, &str)]) -> String {
    pairs.iter().map(|(old, new)| format!("{old},{new}\n")).collect()
}

/// Apps that know both keys, and go on with the new one when the old one is refused.
struct Buyers {
    served: Arc<AtomicU64>,
    with_new: Arc<AtomicU64>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Buyers {
    /// Each sends so many requests, to the gateways in turn.
    fn start(gateways: &[Gateway], each: usize) -> Self {
        let (served, with_new) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let tasks = (0..8).map(|place| {
            let apps: Vec<_> = gateways.iter().map(Gateway::app).collect();
            let (served, with_new) = (served.clone(), with_new.clone());
            tokio::spawn(async move {
                let mut key = OLD;
                for turn in 0..each {
                    let app = &apps[(place + turn) % apps.len()];
                    let answer = app.chat_as(key).await;
                    if answer.status == 200 {
                        served.fetch_add(1, Relaxed);
                        with_new.fetch_add(u64::from(key == NEW), Relaxed);
                    } else {
                        is_refused_with(&answer, "new key");
                        key = NEW;
                    }
                }
            })
        });
        let tasks = tasks.collect();
        Self { served, with_new, tasks }
    }

    async fn end(self) -> (u64, u64) {
        for task in self.tasks {
            task.await.unwrap();
        }
        (self.served.load(Relaxed), self.with_new.load(Relaxed))
    }
}

async fn move_while_requests_run(mock: &Mock, gateways: &[Gateway]) {
    let buyers = Buyers::start(gateways, 40);
    let served = buyers.served.clone();
    eventually("some are served", SOON, || async { served.load(Relaxed) >= 40 }).await;
    let told = tokio::task::block_in_place(|| moving(&gateways[0], &[], &lines(&[(OLD, NEW)])));
    assert!(says(&told, 0).contains("1 moved, 0 moved before, 0 refused"));
    let (served, with_new) = buyers.end().await;
    assert!(with_new > 0, "none of {served} came with the new key");
    assert_eq!(mock.count() as u64, served);
    for gateway in gateways {
        eventually("all are counted, each once", SOON, || async {
            gateway.messages(NEW).await == served
        })
        .await;
    }
    let tokens = gateways[0].tokens(NEW).await;
    assert_eq!(tokens % served, 0, "{tokens} tokens of {served} equal requests");
    assert_eq!(show(&gateways[0], OLD).await["license"], show(&gateways[0], NEW).await["license"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_key_moved_while_requests_run_loses_none_and_counts_none_twice() {
    let mock = Mock::start(Reply::chat()).await;
    let mut gateways = [Gateway::start(both(&mock, PLAN)).await];
    move_while_requests_run(&mock, &gateways).await;
    let used = gateways[0].messages(NEW).await;
    gateways[0].kill();
    gateways[0].restart().await;
    assert_eq!(gateways[0].messages(NEW).await, used);
    is_refused_with(&gateways[0].app().chat_as(OLD).await, "new key");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_where_gateways_share_a_store() {
    let (mock, redis) = (Mock::start(Reply::chat()).await, Redis::start().await);
    let config = both(&mock, PLAN).redis(&redis.url());
    let gateways = shared_ledger::start(2, config.clone()).await;
    move_while_requests_run(&mock, &gateways).await;
    // One that comes later, with an empty disk, hears of it, too.
    let late = shared_ledger::start(1, config).await;
    eventually("the old key is refused there", SOON, || async {
        late[0].app().chat_as(OLD).await.status == 403
    })
    .await;
    assert_eq!(late[0].messages(NEW).await, gateways[0].messages(NEW).await);
}

/// The order's answer says to give it again: then it counts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_of_the_new_key_that_outlasts_the_move_is_carried_by_the_next() {
    let (mock, gate) = (Mock::start(Reply::chat()).await, Gate::new());
    let gateway = Gateway::start(both(&mock, PLAN)).await;
    gateway.app().chat_as(OLD).await.ok();
    mock.answer([Reply::chat().before_head(Step::Gate(gate.clone()))]);
    let app = gateway.app();
    let long = tokio::spawn(async move { app.chat_as(NEW).await });
    mock.saw(2).await;
    let pairs = lines(&[(OLD, NEW)]);
    let order = || tokio::task::block_in_place(|| moving(&gateway, &[], &pairs));
    assert!(says(&order(), 1).contains("run this again"));
    gate.open();
    long.await.unwrap().ok();
    for _ in 0..2 {
        assert!(says(&order(), 0).contains("0 moved, 1 moved before"));
        assert_eq!(gateway.messages(NEW).await, 2, "once, however often it is ordered");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grants_and_revocations_follow_and_a_dry_run_changes_nothing() {
    let mock = Mock::start(Reply::chat()).await;
    let gateway = Gateway::start(both(&mock, "messages: 2/month, models: [\"*\"]")).await;
    for _ in 0..2 {
        gateway.app().chat_as(OLD).await.ok();
    }
    done(&gateway, "grant", OLD, &json!({ "messages": 5 })).await;
    let pairs = lines(&[(OLD, NEW)]);
    let dry = says(&moving(&gateway, &["--dry-run"], &pairs), 0);
    assert!(dry.contains("1 would move"), "{dry}");
    gateway.app().chat_as(OLD).await.ok();
    assert_eq!(gateway.messages(NEW).await, 0);
    let words = ["--say", "Look into the mail of 2 March.", "--note", "left the old shop"];
    says(&moving(&gateway, &words, &pairs), 0);
    is_refused_with(&gateway.app().chat_as(OLD).await, "Look into the mail of 2 March.");
    let me = gateway.me(NEW).await;
    assert_eq!(me["limits"]["messages"]["limit"], 7, "{me}");
    assert_eq!(me["limits"]["messages"]["used"], 3, "{me}");
    let again = says(&moving(&gateway, &words, &pairs), 0);
    assert!(again.contains("0 moved, 1 moved before"), "{again}");
    let shown = show(&gateway, OLD).await;
    assert_eq!((&shown["moved"]["replaced"], &shown["status"]), (&json!(true), &json!("valid")));
    assert_eq!(shown["actions"][0]["note"], "left the old shop", "{shown}");
    // Revoked by either name, it is refused by both.
    for name in [OLD, NEW] {
        done(&gateway, "revoke", name, &json!({})).await;
        gateway.app().chat_as(NEW).await.is(403, "license_disabled");
        done(&gateway, "restore", name, &json!({})).await;
        gateway.app().chat_as(NEW).await.ok();
    }
    // No key is kept in the clear.
    for item in std::fs::read_dir(gateway.store().parent().unwrap()).unwrap() {
        let path = item.unwrap().path();
        let bytes = if path.is_file() { std::fs::read(&path).unwrap() } else { Vec::new() };
        for key in [OLD, NEW] {
            let found = memchr::memmem::find(&bytes, key.as_bytes()).is_some();
            assert!(!found, "{} has a key", path.display());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_key_is_taken_until_its_day() {
    let mock = Mock::start(Reply::chat()).await;
    let gateway = Gateway::start(both(&mock, PLAN)).await;
    let pairs = lines(&[(OLD, NEW)]);
    says(&moving(&gateway, &["--accept-until", "2099-01-01"], &pairs), 0);
    gateway.app().chat_as(OLD).await.ok();
    gateway.app().chat_as(NEW).await.ok();
    assert_eq!((gateway.messages(OLD).await, gateway.messages(NEW).await), (2, 2));
    // The day was changed, to one that is over.
    says(&moving(&gateway, &["--accept-until", "2020-01-01"], &pairs), 0);
    is_refused_with(&gateway.app().chat_as(OLD).await, "new key");
    gateway.app().chat_as(NEW).await.ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_new_key_had_used_by_itself_counts_on_once() {
    let mock = Mock::start(Reply::chat()).await;
    let gateway = Gateway::start(both(&mock, PLAN)).await;
    for key in [OLD, OLD, NEW] {
        gateway.app().chat_as(key).await.ok();
    }
    let tokens = gateway.tokens(NEW).await;
    for told in ["1 messages", "0 moved, 1 moved before"] {
        let said = says(&moving(&gateway, &[], &lines(&[(OLD, NEW)])), 0);
        assert!(said.contains(told), "{said}");
        assert_eq!((gateway.messages(NEW).await, gateway.tokens(NEW).await), (3, 3 * tokens));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_can_t_be_moved_is_told_line_by_line_and_the_rest_is_moved() {
    let mock = Mock::start(Reply::chat()).await;
    let third = "THIRD-SHOP-KEY-0001";
    let config = both(&mock, PLAN).license(third, "pro");
    let gateway = Gateway::start(config).await;
    let text = lines(&[(OLD, OLD), ("OTHER-KEY-1", "NO-SUCH-KEY"), ("OTHER-KEY-2", "polar:lk-1")]);
    let said = says(&moving(&gateway, &[], &(text + &format!("{OLD}\t{NEW}\n"))), 1);
    // The same old key twice is told before anything is asked.
    assert!(said.contains("line 4: this old key stands in an earlier line"), "{said}");
    let text = lines(&[("OTHER-KEY-1", "NO-SUCH-KEY"), ("OTHER-KEY-2", "polar:lk-1"), (OLD, NEW)]);
    let said = says(&moving(&gateway, &[], &text), 1);
    for line in [
        "line 1: no source of this configuration has keys of the new key's shape",
        "line 2: there is no source `polar` in licenses.sources",
        "1 moved, 0 moved before, 2 refused",
    ] {
        assert!(said.contains(line), "{said}");
    }
    let said = says(&moving(&gateway, &[], &lines(&[(OLD, third), (third, NEW)])), 1);
    assert!(said.contains("line 1: the old key was moved to another key before"), "{said}");
    assert!(said.contains("line 2: the new key continues another licence already"), "{said}");
    // A row of moves, and the way back.
    gateway.app().chat_as(NEW).await.ok();
    says(&moving(&gateway, &[], &lines(&[(NEW, third)])), 0);
    is_refused_with(&gateway.app().chat_as(NEW).await, "new key");
    assert_eq!(gateway.messages(third).await, 1);
    says(&moving(&gateway, &[], &lines(&[(third, NEW)])), 0);
    is_refused_with(&gateway.app().chat_as(third).await, "new key");
    assert_eq!(gateway.messages(NEW).await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_gateway_the_store_itself_is_changed() {
    let mock = Mock::start(Reply::chat()).await;
    let mut gateway = Gateway::start(both(&mock, PLAN)).await;
    gateway.app().chat_as(OLD).await.ok();
    gateway.kill();
    says(&moving(&gateway, &[], &lines(&[(OLD, NEW)])), 0);
    gateway.restart().await;
    assert_eq!(gateway.messages(NEW).await, 1);
    is_refused_with(&gateway.app().chat_as(OLD).await, "new key");
}

fn polar(mock: &Mock, vendor: &Vendor, plan: &str) -> Config {
    let config = Config::new(mock).plan("pro", plan).license(OLD, "pro");
    [
        ("base_url", &*format!("\"{}\"", vendor.url())),
        ("organization_id", "org-1"),
        ("token", "\"env:OUR_KEY\""),
        ("benefits", "{ ben-1: pro }"),
    ]
    .iter()
    .fold(config.env("OUR_KEY", "our-own-key"), |config, (name, value)| {
        config.of_shop("polar", name, value)
    })
}

fn at_polar(limit: Value) -> VendorAnswer {
    let license = json!({
        "id": "lk-1", "organization_id": "org-1", "customer_id": "cus-1", "benefit_id": "ben-1",
        "key": POLAR, "status": "granted", "limit_activations": limit, "usage": 0,
        "limit_usage": null, "expires_at": null, "activation": null,
    });
    (200, license.to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_licence_named_by_its_new_shops_id_goes_on_when_its_key_comes() {
    let (mock, vendor) =
        (Mock::start(Reply::chat()).await, Vendor::open(|_| at_polar(Value::Null)).await);
    let gateway = Gateway::start(polar(&mock, &vendor, PLAN)).await;
    gateway.app().chat_as(OLD).await.ok();
    let pairs = lines(&[(OLD, "polar:lk-1")]);
    says(&moving(&gateway, &[], &pairs), 0);
    assert_eq!(vendor.calls().len(), 0, "no shop is asked");
    is_refused_with(&gateway.app().chat_as(OLD).await, "e-mail from Polar");
    gateway.app().chat_as(POLAR).await.ok();
    assert_eq!(gateway.messages(POLAR).await, 2);
    let again = says(&moving(&gateway, &[], &pairs), 0);
    assert!(again.contains("0 moved, 1 moved before"), "{again}");
    let shown = show(&gateway, OLD).await;
    assert_eq!((&shown["source"], &shown["plan"]), (&json!("polar"), &json!("pro")), "{shown}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn devices_go_on_at_a_shop_that_does_not_know_them() {
    let (mock, vendor) =
        (Mock::start(Reply::chat()).await, Vendor::open(|_| at_polar(json!(2))).await);
    let gateway =
        Gateway::start(polar(&mock, &vendor, REQUIRED).cache("fresh: 1s, stale: 1h")).await;
    let mut ids = Vec::new();
    for name in ["desk", "laptop"] {
        let activated = activate(&gateway, OLD, name).await;
        ids.push(activated.ok().json()["instance_id"].as_str().unwrap().to_owned());
    }
    says(&moving(&gateway, &[], &lines(&[(OLD, POLAR)])), 0);
    for id in &ids {
        chat_on(&gateway, POLAR, Some(id)).await.ok();
    }
    chat_on(&gateway, POLAR, Some("another")).await.is(403, "device_limit");
    assert_eq!(show(&gateway, POLAR).await["devices"], json!({ "used": 2, "max": 2 }));
    // Both places are taken; the shop, which knows of none, is not asked for a third.
    activate(&gateway, POLAR, "phone").await.is(403, "device_limit");
    deactivate(&gateway, POLAR, &ids[0]).await.ok();
    chat_on(&gateway, POLAR, Some(&ids[0])).await.is(403, "device_limit");
    // Long after the licence was last asked about.
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    chat_on(&gateway, POLAR, Some(&ids[1])).await.ok();
    chat_on(&gateway, POLAR, Some(&ids[1])).await.ok();
}

/// Polar lets a buyer replace a key: the record keeps its id, and what was used stays used.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_its_shop_replaced_continues_the_licence_by_itself() {
    let (mock, vendor) =
        (Mock::start(Reply::chat()).await, Vendor::open(|_| at_polar(Value::Null)).await);
    let gateway = Gateway::start(polar(&mock, &vendor, PLAN)).await;
    for _ in 0..3 {
        gateway.app().chat_as(POLAR).await.ok();
    }
    let next = "JSTAR-0B1C2D3E-7B4D-4E8A-9D60-5C1B8E7F2A34";
    vendor.says(move |_| {
        let (status, body) = at_polar(Value::Null);
        (status, body.replace(POLAR, next))
    });
    gateway.app().chat_as(next).await.ok();
    assert_eq!(gateway.messages(next).await, 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_killed_while_licences_move_goes_on_where_it_ended() {
    const LICENSES: usize = 60;
    let mock = Mock::start(Reply::chat()).await;
    let key = |kind: &str, place: usize| format!("{kind}-MANY-KEY-{place:04}");
    let pairs: Vec<_> = (0..LICENSES).map(|place| (key("OLD", place), key("NEW", place))).collect();
    let config = pairs.iter().fold(Config::new(&mock).plan("pro", PLAN), |config, (old, new)| {
        config.license(old, "pro").license(new, "pro")
    });
    let mut gateway = Gateway::start(config).await;
    for (old, _) in &pairs {
        gateway.app().chat_as(old).await.ok();
    }
    let text: String = pairs.iter().map(|(old, new)| format!("{old},{new}\n")).collect();
    for pause in [15, 40] {
        let file = gateway.dir.path().join("gatekeeper.yaml");
        let mut command = Command::new(program());
        command.args(["licenses", "move", "-c"]).arg(file).current_dir(gateway.dir.path());
        let lines = text.clone();
        let moving = tokio::task::spawn_blocking(move || feed(command, &lines));
        tokio::time::sleep(Duration::from_millis(pause)).await;
        gateway.kill();
        // It may have ended before, or have gone on without a gateway.
        drop(moving.await.unwrap());
        gateway.restart().await;
    }
    assert!(says(&moving(&gateway, &[], &text), 0).contains("0 refused"));
    assert!(says(&moving(&gateway, &[], &text), 0).contains("0 moved, 60 moved before"));
    for (old, new) in &pairs {
        is_refused_with(&gateway.app().chat_as(old).await, "new key");
        assert_eq!(gateway.messages(new).await, 1, "each is counted once");
    }
}
