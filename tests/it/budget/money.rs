//! Money: what answers cost is known to the picodollar, budgets hold it, and operators can read it.

use std::{collections::BTreeMap, process::Output, time::Duration};

use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::{
    Config, Gate, Gateway, LICENSE, Mock, Reply, Step, client, eventually, gateway, run, sse,
};

const OTHER: &str = "JSTAR-OTHER-0001";
/// Two of these answers (11 + 7 tokens) cost 3.6 cents.
const DEAR: &str = "{ input: 1000, output: 1000 }";

/// `usage` in the gateway's directory.
fn usage(gateway: &Gateway, args: &[&str]) -> Output {
    let file = gateway.dir.path().join("gatekeeper.yaml");
    let args = [&["usage", "-c", file.to_str().unwrap()], args].concat();
    run(&args, gateway.dir.path())
}

/// The cells of each line of `usage --csv` by the line's name, by the names of the head.
fn csv(gateway: &Gateway, by: &str) -> BTreeMap<String, BTreeMap<String, String>> {
    let output = usage(gateway, &["--by", by, "--csv"]);
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8(output.stdout).unwrap();
    let mut lines = text.split_terminator("\r\n").map(|line| line.split(','));
    let head: Vec<&str> = lines.next().unwrap().collect();
    let named = lines.map(|cells| {
        let cells: BTreeMap<String, String> =
            head.iter().map(|name| (*name).to_owned()).zip(cells.map(str::to_owned)).collect();
        (cells[head[0]].clone(), cells)
    });
    named.collect()
}

async fn counted(gateway: &Gateway, messages: u64) {
    eventually("the store has all messages", Duration::from_secs(10), || async {
        csv(gateway, "day")["total"]["messages"] == messages.to_string()
    })
    .await;
}

fn reported(input: u64, cached: u64, output: u64) -> Reply {
    let mut answer: Value = serde_json::from_str(sse::CHAT).unwrap();
    answer["usage"] = json!({
        "prompt_tokens": input, "completion_tokens": output, "total_tokens": input + output,
        "prompt_tokens_details": { "cached_tokens": cached },
    });
    Reply::json(200, answer.to_string())
}

fn dollars(picodollars: u64) -> String {
    let text =
        format!("{}.{:012}", picodollars / 1_000_000_000_000, picodollars % 1_000_000_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[tokio::test]
async fn every_answer_costs_its_tokens_to_the_picodollar() {
    let (mock, second) = (Mock::start(Reply::chat()).await, Mock::start(Reply::chat()).await);
    let config = Config::new(&mock)
        .plan("free", "messages: 1000/month, models: [\"*\"], price: $9/month")
        .plan("pro", "messages: 1000/month, models: [\"*\"]")
        .license(OTHER, "pro")
        .provider("q", &second, &["sk-three"])
        .model("strong", "[q/m2]")
        .model("unpriced", "[q/m3]")
        .more("prices:\n  p/m1: { input: 0.05, output: 0.08, cached: 0.025 }")
        .more("  q/m2: { input: 3, output: 15.000001 }");
    let gateway = Gateway::start(config).await;
    let app = gateway.app();
    let on_p = |input: u64, cached: u64, output: u64| {
        (input - cached) * 50_000 + cached * 25_000 + output * 80_000
    };
    let on_q = |input: u64, output: u64| input * 3_000_000 + output * 15_000_001;

    app.chat().await.ok();
    mock.answer([reported(1_003, 1_000, 77)]);
    app.chat().await.ok();
    mock.answer([Reply::stream()]);
    app.stream().await.ok();
    second.answer([reported(500, 100, 9)]);
    app.ask_as(OTHER, &client::chat(&json!({ "model": "strong" }))).await.ok();
    app.ask(&client::chat(&json!({ "model": "unpriced" }))).await.ok();
    app.ask(&client::chat(&json!({ "model": "nothing" }))).await.is(404, "model_not_found");
    counted(&gateway, 5).await;

    let p = on_p(11, 0, 7) + on_p(1_003, 1_000, 77) + on_p(11, 0, 7);
    let q = on_q(500, 9);
    let metrics = gateway.metrics().await;
    for (provider, model, cost) in [("p", "m1", p), ("q", "m2", q), ("q", "m3", 0)] {
        let labels = [("provider", provider), ("model", model)];
        let seen = metrics.sum("gatekeeper_cost_dollars_total", &labels);
        assert_eq!((seen * 1e12).round() as u64, cost, "{provider}/{model}");
    }
    for window in ["1d", "7d", "30d"] {
        assert_eq!(metrics.sum("gatekeeper_active_licenses", &[("window", window)]), 2.0);
    }

    let (models, plans) = (csv(&gateway, "model"), csv(&gateway, "plan"));
    assert_eq!(models["fast"]["cost"], dollars(p));
    assert_eq!(models["fast"]["cached"], "1000");
    assert_eq!(models["strong"]["cost"], dollars(q));
    assert_eq!(models["unpriced"]["cost"], "0");
    assert_eq!((&*plans["pro"]["cost"], &*plans["pro"]["revenue"]), (&*dollars(q), ""));
    assert_eq!((&*plans["free"]["licences"], &*plans["free"]["revenue"]), ("1", "9"));
    assert_eq!(plans["free"]["margin"], dollars(9_000_000_000_000 - p));
    assert_eq!(plans["total"]["margin"], dollars(9_000_000_000_000 - p - q));
    for by in ["licence", "license", "plan", "model", "day"] {
        let total = &csv(&gateway, by)["total"];
        assert_eq!((&*total["cost"], &*total["licences"]), (&*dollars(p + q), "2"), "{by}");
        assert_eq!((&*total["input"], &*total["output"]), ("2025", "109"), "{by}");
    }
    let licences = csv(&gateway, "licence");
    let ids = licences.keys().filter(|name| *name != "total");
    let is_hex = |id: &String| id.bytes().all(|byte| byte.is_ascii_hexdigit());
    assert!(ids.clone().all(|id| id.len() > 16 && is_hex(id)), "whole ids: {licences:?}");
    assert_eq!(ids.count(), 2);
}

/// [`LICENSE`] may ask `fast` of p, then q, and `only` of p alone; p has this budget.
fn with_budget(mock: &Mock, second: &Mock, budget: &str) -> Config {
    Config::new(mock)
        .provider_at("p", &mock.url(), &format!(", budget: {{ day: {budget} }}"), &["sk-one"])
        .provider("q", second, &["sk-two"])
        .model("fast", "[p/m1, q/m1]")
        .model("only", "[p/m1]")
        .more(&format!("prices: {{ p/m1: {DEAR}, q/m1: {DEAR} }}"))
}

#[tokio::test]
async fn a_provider_whose_budget_is_spent_is_passed_over_until_the_budget_is_raised() {
    let (mock, second) = (Mock::start(Reply::chat()).await, Mock::start(Reply::chat()).await);
    let mut gateway = Gateway::start(with_budget(&mock, &second, "$0.03")).await;
    let app = gateway.app();
    let only = client::chat(&json!({ "model": "only" }));
    app.ask(&only).await.ok();
    app.ask(&only).await.ok();
    let used = gateway.messages(LICENSE).await;
    for stream in [false, true] {
        let body = client::chat(&json!({ "model": "only", "stream": stream }));
        let answer = app.ask(&body).await;
        answer.is(503, "upstream_exhausted");
        assert_eq!(answer.header("retry-after"), None);
        assert_eq!(answer.header("x-should-retry"), Some("false"));
        let words = answer.text().to_lowercase();
        for word in ["budget", "$", "dollar", "cost", "money", "\"p\""] {
            assert!(!words.contains(word), "{word} in {words}");
        }
    }
    assert_eq!(gateway.messages(LICENSE).await, used, "what was refused was given back");
    assert_eq!((mock.count(), second.count()), (2, 0));
    let served = app.chat().await;
    assert_eq!(served.ok().header("x-gatekeeper-model"), Some("q/m1"));

    let alarms = |gateway: &Gateway| gateway.logs().matches("The budget of p is spent").count();
    assert_eq!(alarms(&gateway), 1, "{}", gateway.logs());
    let ratio = gateway.metrics().await.sum("gatekeeper_budget_used_ratio", &[("provider", "p")]);
    assert!((ratio - 1.2).abs() < 1e-9, "{ratio}");
    let status = gateway.status().await;
    let of = |name: &str| {
        let mut providers = status["providers"].as_array().unwrap().iter();
        providers.find(|provider| provider["name"] == name).unwrap().clone()
    };
    assert_eq!((&of("p")["spent_today"], &of("p")["budget"]), (&json!(0.036), &json!(0.03)));
    assert_eq!((&of("q")["spent_today"], &of("q")["budget"]), (&json!(0.018), &Value::Null));
    assert_eq!(status["spent_today"], 0.054);

    assert!(gateway.reload(with_budget(&mock, &second, "$0.04")).await, "{}", gateway.logs());
    app.ask(&only).await.ok();
    app.ask(&only).await.is(503, "upstream_exhausted");
    assert!(gateway.reload(with_budget(&mock, &second, "$100")).await, "{}", gateway.logs());
    app.ask(&only).await.ok();
    assert_eq!(alarms(&gateway), 1, "once a day: {}", gateway.logs());
    assert!(gateway.reload(Config::new(&mock)).await, "{}", gateway.logs());
    let metrics = gateway.metrics().await;
    assert!(!metrics.0.contains("gatekeeper_budget_used_ratio{"), "no budget, no ratio");
}

#[tokio::test]
async fn the_budget_of_all_holds_over_restarts_and_deaths() {
    let (mock, second) = (Mock::start(Reply::chat()).await, Mock::start(Reply::chat()).await);
    let config = with_budget(&mock, &second, "$100").more("budget: { day: $0.05 }");
    let mut gateway = Gateway::start(config).await;
    gateway.app().chat().await.ok();
    gateway.signal(Signal::TERM);
    gateway.exited(Duration::from_secs(5)).await;
    gateway.restart().await;
    assert_eq!(gateway.status().await["spent_today"], 0.018);
    let metrics = gateway.metrics().await;
    let ratio = metrics.sum("gatekeeper_budget_used_ratio", &[("provider", "all")]);
    assert!((ratio - 0.36).abs() < 1e-9, "{ratio}");
    gateway.app().chat().await.ok();
    counted(&gateway, 2).await;
    gateway.kill();
    gateway.restart().await;
    assert_eq!(gateway.status().await["spent_today"], 0.036);
    gateway.app().chat().await.ok();
    for _ in 0..3 {
        let refused = gateway.app().chat().await;
        refused.is(503, "upstream_exhausted");
        assert_eq!(refused.header("x-should-retry"), Some("false"));
    }
    assert_eq!((mock.count(), second.count()), (3, 0));
    let alarms = gateway.logs().matches("The budget of all providers is spent").count();
    assert_eq!(alarms, 1, "{}", gateway.logs());
}

#[tokio::test]
async fn a_budget_is_passed_by_what_is_in_flight_and_by_no_more() {
    let gate = Gate::new();
    let mock = Mock::start(Reply::chat().before_head(Step::Gate(gate.clone()))).await;
    let second = Mock::start(Reply::chat()).await;
    let gateway = Gateway::start(with_budget(&mock, &second, "$0.01")).await;
    let only = client::chat(&json!({ "model": "only" }));
    let mut asking = JoinSet::new();
    for _ in 0..5 {
        let (app, only) = (gateway.app(), only.clone());
        asking.spawn(async move { app.ask(&only).await.status });
    }
    mock.saw(5).await;
    gate.open();
    assert_eq!(asking.join_all().await, [200; 5]);
    gateway.app().ask(&only).await.is(503, "upstream_exhausted");
    assert_eq!(mock.count(), 5);
    assert_eq!(gateway.status().await["spent_today"], 0.09);
}

#[tokio::test]
async fn a_key_that_cools_is_a_wait_even_beside_a_budget_that_is_spent() {
    let (mock, second) = (Mock::start(Reply::chat()).await, Mock::start(Reply::error(429)).await);
    let gateway = Gateway::start(with_budget(&mock, &second, "$0.01")).await;
    gateway.app().chat().await.ok();
    let answer = gateway.app().chat().await;
    answer.is(503, "upstream_exhausted");
    assert!(answer.header("retry-after").is_some(), "{answer:?}");
    assert_eq!((mock.count(), second.count()), (1, 1));
}

#[tokio::test]
async fn usage_reads_a_running_store_and_says_what_it_can_not_read() {
    let mock = Mock::start(Reply::chat()).await;
    let config = Config::new(&mock).more(&format!("prices: {{ p/m1: {DEAR} }}"));
    let gateway = Gateway::start(config.clone()).await;
    gateway.app().chat().await.ok();
    counted(&gateway, 1).await;
    let table = String::from_utf8(usage(&gateway, &["--by", "model"]).stdout).unwrap();
    let lines: Vec<Vec<&str>> =
        table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[1], ["fast", "1", "1", "1", "11", "7", "0", "0", "0", "$0.0180"]);
    assert_eq!(lines[2], ["total", "1", "1", "1", "11", "7", "0", "0", "0", "$0.0180"]);
    let widths: Vec<usize> = table.lines().map(str::len).collect();
    assert!(widths.iter().all(|width| *width == widths[0]), "{table}");
    let before = usage(&gateway, &["--csv", "--month", "2020-02"]);
    let text = String::from_utf8(before.stdout).unwrap();
    assert!(text.ends_with("margin\r\ntotal,0,0,0,0,0,0,0,0,0,,\r\n"), "{text}");
    assert!(!usage(&gateway, &["--month", "2020-13"]).status.success());

    let empty = tempfile::tempdir().unwrap();
    let file = config.file(empty.path());
    let output = run(&["usage", "-c", file.to_str().unwrap()], empty.path());
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success() && said.contains("no gateway has run"), "{said}");
    assert!(!config.store_in(empty.path()).exists(), "looking makes no store");
}

#[test]
fn a_target_without_a_price_is_worth_a_warning_where_a_budget_would_not_see_it() {
    let directory = tempfile::tempdir().unwrap();
    let check = |yaml: &str| {
        let file = directory.path().join("gatekeeper.yaml");
        std::fs::write(&file, yaml).unwrap();
        let output = gateway::run(&["check", "-c", file.to_str().unwrap()], directory.path());
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let base = "licenses: { sources: [ { static: { keys: [ { key: JSTAR-DEMO-0001, plan: free } ] } } ] }\n\
        plans: { free: { tokens: 5/day, models: [\"*\"] } }\n\
        providers: { stand-in: { base_url: stand-in } }\n\
        models: { fast: [ stand-in/small, stand-in/large ] }\n\
        prices: { stand-in/small: { input: 1, output: 2 } }\n";
    assert!(!check(base).contains("price"));
    let found = check(&format!("{base}budget: {{ day: $20 }}\n"));
    let warnings: Vec<_> = found.lines().filter(|line| line.contains("price")).collect();
    assert!(
        warnings.len() == 1 && warnings[0].contains(":4:35: models.fast[1]: has no price"),
        "{found}"
    );
}
