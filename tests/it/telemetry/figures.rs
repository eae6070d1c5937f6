//! The dashboard's figures against what the metrics say and what the provider saw.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::ledger::shared_ledger::start;
use crate::support::{
    Answer, Config, Gateway, LICENSE, Mock, Raw, Reply, Step, client, eventually, gateway::Metrics,
    repeat, sse,
};

const PRICES: &str = "prices: { p/m1: { input: 1000, output: 1000 } }";

async fn history(gateway: &Gateway, query: &str) -> Value {
    let answer = Answer::of(gateway.operator().get(&format!("/api/history{query}"))).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

async fn status_of(gateway: &Gateway, query: &str) -> Value {
    let request = gateway.operator().get(&format!("/status{query}"));
    Answer::of(request).await.json()
}

fn sum(series: &Value) -> f64 {
    series.as_array().unwrap().iter().map(|point| point.as_f64().unwrap()).sum()
}

/// One of each way a request may end.
async fn all_sorts(mock: &Mock, gateway: &Gateway) {
    let app = gateway.app();
    for _ in 0..3 {
        app.chat().await.ok();
    }
    mock.answer([Reply::stream()]);
    app.stream().await.ok();
    let pause = Step::Wait(Duration::from_millis(200));
    mock.answer([Reply::sse(&[sse::text("Hel")]).then(pause).then(Step::Close)]);
    app.stream().await;
    mock.answer([Reply::json(400, "{\"error\":{\"message\":\"no\",\"code\":\"bad\"}}")]);
    assert_eq!(app.chat().await.status, 400);
    app.ask_as("NO-SUCH-LICENCE", &client::chat(&json!({}))).await.is(403, "license_invalid");
    for _ in 0..2 {
        let unknown = client::chat(&json!({ "model": "unknown" }));
        app.ask(&unknown).await.is(404, "model_not_found");
    }
    mock.answer([Reply::error(500)]);
    app.chat().await.is(502, "upstream_error");
    mock.answer([Reply::sse(&[sse::text("Hel")]).then(Step::Hang)]);
    drop(app.open(&client::chat(&json!({ "stream": true }))).await);
    eventually("who left is counted", Duration::from_secs(5), || async {
        gateway.status().await["total"] == 11
    })
    .await;
    mock.answer([Reply::chat()]);
}

#[tokio::test]
async fn figures_are_those_of_the_metrics_and_of_the_provider() {
    let mock = Mock::start(Reply::chat()).await;
    let gateway = Gateway::start(Config::new(&mock).more(PRICES)).await;
    all_sorts(&mock, &gateway).await;
    let (status, metrics) = (gateway.status().await, gateway.metrics().await);
    let of = |name: &str| status[name].as_u64().unwrap();
    assert_eq!((of("success"), of("failed"), of("refused"), of("total")), (4, 2, 4, 11));
    assert_eq!(status["success_rate"], json!(4.0 / 6.0));
    let counted = |labels: &[(&str, &str)]| metrics.sum("gatekeeper_requests_total", labels) as u64;
    assert_eq!(counted(&[("endpoint", "chat")]), 11);
    let figures = &status["figures"];
    let codes: Vec<(&str, u64, u64)> = figures["codes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|of| {
            let number = |name: &str| of[name].as_u64().unwrap();
            (of["code"].as_str().unwrap(), number("status"), number("count"))
        })
        .collect();
    assert_eq!(
        codes,
        [("model_not_found", 404, 2), ("license_invalid", 403, 1), ("upstream_error", 502, 1)]
    );
    for (_, status, count) in codes {
        assert_eq!(counted(&[("status", &status.to_string())]), count);
    }
    // What the provider said it used, in tokens and money.
    let today = &figures["tokens_today"];
    let tokens = |direction: &str| {
        metrics.sum("gatekeeper_tokens_total", &[("direction", direction)]) as u64
    };
    assert_eq!(today["input"].as_u64(), Some(tokens("input")));
    assert_eq!(today["output"].as_u64(), Some(tokens("output")));
    assert!(tokens("input") + tokens("output") >= 4 * sse::TOKENS);
    let cost = metrics.sum("gatekeeper_cost_dollars_total", &[]);
    assert!((figures["cost_today"].as_f64().unwrap() - cost).abs() < 1e-9 && cost > 0.0);
    let model = &figures["models_today"][0];
    assert_eq!((&model["model"], &model["requests"]), (&json!("fast"), &json!(8)));
    assert_eq!(model["input"], today["input"]);
    assert_eq!(figures["requests_per_minute"], 11);
    assert_eq!(figures["active"], json!({ "1d": 1, "7d": 1, "30d": 1 }));
    let latency = figures["latency"].as_object().unwrap();
    assert!(latency.values().all(|value| value.as_f64().is_some_and(|v| v >= 0.0)), "{latency:?}");
    assert_eq!(mock.count() as u64, metrics.sum("gatekeeper_upstream_attempts_total", &[]) as u64);
    // The same in time.
    let history = history(&gateway, "").await;
    for (name, steps) in [("minutes", 60), ("day", 288)] {
        let series = &history[name]["series"];
        assert_eq!(series["success"].as_array().unwrap().len(), steps);
        for (of, count) in [("success", 4), ("failed", 2), ("refused", 4)] {
            assert_eq!(sum(&series[of]), f64::from(count), "{of}");
        }
        assert_eq!(sum(&series["input"]) as u64, tokens("input"));
        assert!((sum(&series["cost"]) - cost).abs() < 1e-9);
        assert!(series["p95_ms"].as_array().unwrap().iter().any(Value::is_number));
        assert_eq!(series["ttft_p50_ms"][0], Value::Null);
    }
    assert_eq!(history["minutes"]["step_s"], 60);
    assert!(history["minutes"]["from"].as_str().unwrap().ends_with('Z'));
    // What was there before is there still.
    for name in ["since", "requests", "keys", "providers", "config", "sources", "in_flight"] {
        assert!(!status[name].is_null(), "{name}");
    }
    for name in ["boot", "version", "now"] {
        assert!(status[name].is_string(), "{name}");
    }
    assert_eq!(status["phase"], "serving");
    assert_eq!(status["listen"], format!("http://{}", gateway.public));
    assert_eq!(status["store"], json!({ "kind": "embedded", "up": true }));
    let steps = status["config"]["steps"].as_array().unwrap();
    assert_eq!((steps.len(), &steps[0]["name"]), (5, &json!("license")));
    assert!(steps[0]["summary"].is_string() && steps[0]["options"].is_object());
}

#[tokio::test]
async fn today_is_the_same_after_a_restart_and_what_was_live_is_gone() {
    let mock = Mock::start(Reply::chat()).await;
    let config = Config::new(&mock).more(PRICES).model("other", "[p/m1]");
    let mut gateway = Gateway::start(config).await;
    gateway.app().chat().await.ok();
    gateway.app().ask(&client::chat(&json!({ "model": "other" }))).await.ok();
    gateway.app().chat().await.ok();
    let before = gateway.status().await["figures"].clone();
    // Killed: the journal has what SQLite has not.
    gateway.restart().await;
    let after = gateway.status().await["figures"].clone();
    for name in ["models_today", "tokens_today", "cost_today"] {
        assert_eq!(after[name], before[name], "{name}");
        assert_ne!(after[name], json!([]));
    }
    assert_eq!((&after["codes"], &after["requests_per_minute"]), (&json!([]), &json!(0)));
    assert_eq!(after["latency"]["p50_ms"], Value::Null);
    gateway.app().chat().await.ok();
    let later = gateway.status().await["figures"].clone();
    assert_eq!(later["models_today"][0]["requests"], 3);
}

/// A smart model's savings, and why a key rests since when.
#[tokio::test]
async fn savings_and_resting_keys_are_told() {
    let mock = Mock::start(Reply::chat()).await;
    let config = Config::new(&mock)
        .model("dear", "[p/m2]")
        .model("auto", "{ smart: { simple: fast, complex: dear } }")
        .more("prices: { p/m1: { input: 1, output: 1 }, p/m2: { input: 100, output: 100 } }");
    let gateway = Gateway::start(config).await;
    gateway.app().ask(&client::chat(&json!({ "model": "auto" }))).await.ok();
    let status = gateway.status().await;
    let saved = gateway.metrics().await.sum("gatekeeper_saved_dollars_total", &[]);
    assert!((status["figures"]["saved_today"].as_f64().unwrap() - saved).abs() < 1e-12);
    assert!(saved > 0.0);
    assert!(status["requests"][0]["route"].as_str().unwrap().starts_with("simple;score="));
    assert!(status["keys"].as_array().unwrap().iter().all(|key| key["since"].is_null()));
    mock.key("sk-one", [Reply::status(429).header("retry-after", "60")]);
    mock.key("sk-two", [Reply::error(401)]);
    assert_eq!(gateway.app().chat().await.status, 503);
    let status = gateway.status().await;
    let now = status["now"].as_str().unwrap();
    for key in status["keys"].as_array().unwrap() {
        let since = key["since"].as_str().unwrap_or_else(|| panic!("{key}"));
        assert!(since <= now && since.len() == now.len(), "{since} {now}");
        assert!(["cooling", "quarantined"].contains(&key["state"].as_str().unwrap()));
    }
}

/// What is told of its own share leaves out slow providers, slow apps and slow bodies.
#[tokio::test]
async fn overhead_is_the_gateways_own_share() {
    let slow = Duration::from_millis(300);
    let mock = Mock::start(Reply::chat().before_head(Step::Wait(slow))).await;
    let gateway = Gateway::start(Config::new(&mock)).await;
    gateway.app().chat().await.ok();
    mock.answer([Reply::sse(&[sse::text("a")])
        .then(Step::Wait(slow))
        .write(sse::text("b"))
        .then(Step::Wait(slow))
        .write(sse::FINISH)
        .write(sse::USAGE)
        .write(sse::DONE)]);
    gateway.app().stream().await.ok();
    // An app that is slow to send.
    mock.answer([Reply::chat()]);
    let whole = client::post("/v1/chat/completions", &client::chat(&json!({})));
    let mut raw = gateway.raw().await;
    raw.send(&whole[..whole.len() - 5]).await;
    tokio::time::sleep(slow).await;
    raw.send(&whole[whole.len() - 5..]).await;
    assert_eq!(raw.answer().await.unwrap().status, 200);
    // One that is slow to read: more than the sockets between hold.
    let long = "x".repeat(5 << 20);
    let answer = sse::CHAT.replace("Hel\\u006co", &long);
    assert!(answer.len() > 5 << 20);
    mock.answer([Reply::json(200, answer)]);
    let mut raw = gateway.raw().await;
    raw.send(&whole).await;
    mock.saw(4).await;
    tokio::time::sleep(slow * 2).await;
    assert_eq!(raw.answer().await.unwrap().status, 200);
    let metrics = gateway.metrics().await;
    assert_eq!(metrics.sum("gatekeeper_overhead_seconds_count", &[]), 4.0);
    let own = metrics.sum("gatekeeper_overhead_seconds_sum", &[]);
    let all = metrics.sum("gatekeeper_request_duration_seconds_sum", &[("endpoint", "chat")]);
    // Six waits, each known to be at least so long, are in the one and none is in the other. A busy machine makes
    // both longer: this holds on any.
    let waited = 6.0 * slow.as_secs_f64();
    assert!(all > waited * 0.98, "{all} s in all, {waited} s of them waited for others");
    assert!(own <= all - waited * 0.98, "{own} s of its own of {all} s in four requests");
}

/// Everything that contract and documents name is there from the start, and explained.
#[tokio::test]
async fn every_metric_is_there_and_explained() {
    let mock = Mock::start(Reply::chat()).await;
    let gateway = Gateway::start(Config::new(&mock)).await;
    let text = gateway.metrics().await.0;
    for (name, kind) in [
        ("requests_total", "counter"),
        ("request_duration_seconds", "histogram"),
        ("overhead_seconds", "histogram"),
        ("time_to_first_token_seconds", "histogram"),
        ("tokens_total", "counter"),
        ("upstream_attempts_total", "counter"),
        ("key_state", "gauge"),
        ("key_model_cooling", "gauge"),
        ("provider_state", "gauge"),
        ("license_checks_total", "counter"),
        ("license_cache_total", "counter"),
        ("license_source_state", "gauge"),
        ("quota_rejections_total", "counter"),
        ("reservations_open", "gauge"),
        ("reservation_overruns_total", "counter"),
        ("active_licenses", "gauge"),
        ("in_flight", "gauge"),
        ("store_up", "gauge"),
        ("config_reload_total", "counter"),
        ("config_last_success_timestamp_seconds", "gauge"),
        ("cost_dollars_total", "counter"),
        ("saved_dollars_total", "counter"),
        ("budget_used_ratio", "gauge"),
    ] {
        let help = format!("# HELP gatekeeper_{name} ");
        let kind = format!("# TYPE gatekeeper_{name} {kind}\n");
        assert_eq!(text.matches(&help).count(), 1, "{help}");
        assert_eq!(text.matches(&kind).count(), 1, "{kind}");
    }
}

fn series(metrics: &Metrics) -> usize {
    metrics.0.lines().filter(|line| !line.starts_with('#')).count()
}

/// So many models that nobody has, licences that nobody bought and paths that lead nowhere: not one series
/// more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn made_up_names_are_no_labels() {
    const CONNECTIONS: usize = 4;
    let names: usize = repeat::times("GATEKEEPER_NAMES", 10_000);
    let mock = Mock::start(Reply::chat()).await;
    let gateway = Gateway::start(Config::new(&mock)).await;
    let mut raw = gateway.raw().await;
    // One of each kind first: their statuses are series.
    // An address that tries many keys is told to wait: a series, too.
    for turn in 0..90 {
        raw.send(made_up(turn, usize::MAX - turn)).await;
        raw.answer().await.unwrap();
    }
    let before = gateway.metrics().await;
    let memory = gateway.memory("VmRSS");
    let mut asking = JoinSet::new();
    for connection in 0..CONNECTIONS {
        let mut raw: Raw = gateway.raw().await;
        asking.spawn(async move {
            for turn in (connection..names).step_by(CONNECTIONS) {
                raw.send(made_up(turn, turn)).await;
                let answer = raw.answer().await.expect("an answer");
                assert!([403, 404, 429].contains(&answer.status), "{}", answer.head);
            }
        });
    }
    asking.join_all().await;
    let after = gateway.metrics().await;
    let total = |metrics: &Metrics| metrics.sum("gatekeeper_requests_total", &[]) as usize;
    assert!(total(&after) - total(&before) >= names);
    assert_eq!(series(&after), series(&before), "{}", after.0);
    let grown = gateway.memory("VmRSS").saturating_sub(memory);
    assert!(grown < 24 * 1024, "{grown} KiB more");
}

fn made_up(turn: usize, name: usize) -> String {
    let (license, model, path) = match turn % 3 {
        0 => (LICENSE.to_owned(), format!("model-{name}"), "/v1/chat/completions".into()),
        1 => (format!("MADE-UP-{name:09}"), "fast".into(), "/v1/chat/completions".into()),
        _ => (LICENSE.to_owned(), "fast".into(), format!("/made/up/{name}")),
    };
    let body = client::chat(&json!({ "model": model })).to_string();
    format!(
        "POST {path} HTTP/1.1\r\nhost: gateway.test\r\nauthorization: Bearer {license}\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}

/// Where gateways share a store: each one's figures, and those of all, at every one of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn figures_of_all_gateways_and_of_each() {
    let (mock, redis) = (Mock::start(Reply::chat()).await, crate::support::Redis::start().await);
    let config = Config::new(&mock).more(PRICES).redis(&redis.url());
    let gateways = start(2, config).await;
    for gateway in &gateways {
        eventually("the store is there", Duration::from_secs(20), || async {
            gateway.app().get("/v1/me").bearer_auth(LICENSE).send().await.unwrap().status() == 200
        })
        .await;
    }
    let soon = Duration::from_secs(30);
    for (gateway, count) in gateways.iter().zip([1, 2]) {
        for _ in 0..count {
            gateway.app().chat().await.ok();
        }
    }
    gateways[1].app().ask(&client::chat(&json!({ "model": "unknown" }))).await;
    let here = &gateways[0];
    // Whatever was refused before the store was there is in all of them.
    let (mine, theirs) = (here.status().await, gateways[1].status().await);
    let sum_of = |name: &str| mine[name].as_u64().unwrap() + theirs[name].as_u64().unwrap();
    eventually("the other is heard", soon, || async {
        status_of(here, "?gateway=all").await["total"] == sum_of("total")
    })
    .await;
    let all = status_of(here, "?gateway=all").await;
    for name in ["total", "success", "failed", "refused"] {
        assert_eq!(all[name], sum_of(name), "{name}");
    }
    assert_eq!((&all["success"], &all["refused"]), (&json!(3), &json!(1)));
    assert_eq!(all["figures"]["models_today"][0]["requests"], 3);
    let codes = all["figures"]["codes"].to_string();
    assert!(codes.contains("model_not_found"), "{codes}");
    assert_eq!(all["requests"].as_array().unwrap().len() as u64, sum_of("total"));
    assert_eq!(all["store"], json!({ "kind": "redis", "up": true }));
    // As ever: this one's totals, and each one's beside them.
    let own = status_of(here, "").await;
    let listed = own["gateways"].as_array().unwrap();
    assert_eq!((&own["total"], listed.len()), (&mine["total"], 2));
    let name = |place: usize| listed[place]["gateway"].as_str().unwrap();
    let alone = status_of(here, &format!("?gateway={}", name(0))).await;
    assert_eq!(alone["total"], mine["total"]);
    assert_eq!(alone["requests"].as_array().unwrap().len() as u64, mine["total"]);
    let other = status_of(here, &format!("?gateway={}", name(1))).await;
    assert_eq!((&other["total"], &other["boot"]), (&theirs["total"], &theirs["boot"]));
    assert_eq!(other["requests"].as_array().unwrap().len() as u64, theirs["total"]);
    assert_eq!(other["figures"]["models_today"][0]["requests"], 2);
    assert_eq!(other["in_flight"], 0);
    let nobody = Answer::of(here.operator().get("/status?gateway=nobody")).await;
    assert_eq!((nobody.status, nobody.error("code")), (404, json!("not_found")));
    // History is told less often.
    eventually("the other's history is heard", soon, || async {
        sum(&history(here, "?gateway=all").await["minutes"]["series"]["success"]) == 3.0
    })
    .await;
    let theirs = history(here, &format!("?gateway={}", name(1))).await;
    assert_eq!(sum(&theirs["day"]["series"]["success"]), 2.0);
    assert_eq!(sum(&theirs["day"]["series"]["refused"]), 1.0);
    assert_eq!(sum(&history(here, "").await["day"]["series"]["success"]), 1.0);
}
