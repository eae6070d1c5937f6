//! What Prometheus and Grafana are given: files that their own tools take, about metrics that exist.

use std::{collections::BTreeSet, path::Path, process::Command, time::Duration};

use gatekeeper_filters::kernel::Endpoint;
use serde_json::{Value, json};

use crate::support::{Config, Gateway, Mock, Reply, Step, client, eventually, sse};

fn conf(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("conf").join(name)
}

/// Debian's package `prometheus` has it.
fn promtool(words: &[&str]) -> Command {
    let mut promtool = Command::new("promtool");
    promtool.args(words);
    promtool
}

fn passes(mut command: Command) {
    let output = command.output().expect("promtool runs");
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}

/// Every `gatekeeper_...` in a text, without the endings that a histogram's series have.
fn names(text: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (at, _) in text.match_indices("gatekeeper_") {
        let rest = &text[at..];
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let name = &rest[..end.unwrap_or(rest.len())];
        names.insert(name.strip_suffix("_bucket").unwrap_or(name).to_owned());
    }
    names
}

/// After a request of every kind that leaves a trace in some metric.
async fn scrape() -> String {
    let mock = Mock::start(Reply::chat()).await;
    let config = Config::new(&mock)
        .plan("free", "messages: 1/month, models: [fast]")
        .more("prices: { p/m1: { input: 1, output: 1 } }\nbudget: { day: $20 }");
    let gateway = Gateway::start(config).await;
    gateway.app().chat().await.ok();
    gateway.app().chat().await.is(402, "quota_exceeded");
    gateway
        .app()
        .ask_as("NO-SUCH-LICENCE", &client::chat(&json!({})))
        .await
        .is(403, "license_invalid");
    gateway.metrics().await.0
}

#[test]
fn prometheus_takes_the_configuration_and_every_alert_speaks_when_it_should() {
    let at = |name: &str| conf(name).display().to_string();
    passes(promtool(&["check", "config", &at("prometheus/prometheus.yml")]));
    passes(promtool(&["test", "rules", &at("prometheus/alerts.test.yml")]));
    let rules = std::fs::read_to_string(conf("prometheus/alerts.yml")).unwrap();
    let stories = std::fs::read_to_string(conf("prometheus/alerts.test.yml")).unwrap();
    for rule in rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        assert!(
            stories.contains(&format!("alertname: {rule}\n")),
            "no story in which {rule} speaks"
        );
    }
}

#[tokio::test]
async fn alerts_and_the_board_ask_for_metrics_that_exist() {
    let scraped = scrape().await;
    let known: BTreeSet<String> = scraped
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next().map(str::to_owned))
        .collect();
    // Families that have no series before a shop is asked.
    let later = ["gatekeeper_license_source_state"].map(str::to_owned);
    for file in ["prometheus/alerts.yml", "grafana/gatekeeper.json"] {
        let text = std::fs::read_to_string(conf(file)).unwrap();
        let asked = names(&text.replace("\"uid\": \"gatekeeper\"", ""));
        assert!(asked.len() > 5, "{asked:?}");
        for name in asked.iter().filter(|name| !later.contains(name)) {
            assert!(known.contains(name), "{file} asks for {name}, which /metrics has not");
        }
    }
}

/// Health checks and the like would thin out the share of answers that fail.
#[test]
fn shares_of_failures_are_of_every_models_endpoint_and_of_no_other() {
    let models = format!("endpoint=~\"{}\"", Endpoint::ALL.map(Endpoint::name).join("|"));
    let rules = std::fs::read_to_string(conf("prometheus/alerts.yml")).unwrap();
    let board = std::fs::read_to_string(conf("grafana/gatekeeper.json")).unwrap();
    for text in [rules, board.replace("\\\"", "\"")] {
        assert!(text.contains(&models), "{models}");
        assert_eq!(text.matches("endpoint=~").count(), text.matches(&models).count());
    }
}

/// Its status is 200: what `/status` counts as failed, metrics have to tell as well.
#[tokio::test]
async fn a_stream_that_breaks_off_is_counted_beside_its_status() {
    let broken = Reply::sse(&[sse::text("Hel")])
        .then(Step::Wait(Duration::from_millis(100)))
        .then(Step::Close);
    let mock = Mock::sequence([Reply::stream(), broken]).await;
    let gateway = Gateway::start(Config::new(&mock)).await;
    let labels = [("endpoint", "chat")];
    for (turn, wanted) in [0.0, 1.0].into_iter().enumerate() {
        assert_eq!(gateway.app().stream().await.status, 200);
        eventually("it is counted", Duration::from_secs(3), || async {
            let requests = gateway.metrics().await.sum("gatekeeper_requests_total", &labels);
            requests == (turn + 1) as f64
        })
        .await;
        let metrics = gateway.metrics().await;
        let name = "gatekeeper_responses_broken_total";
        // The series is there before it moves.
        assert!(metrics.0.contains(&format!("{name}{{endpoint=\"chat\",plan=")), "{}", metrics.0);
        assert_eq!(metrics.sum(name, &labels), wanted);
        assert_eq!(gateway.status().await["failed"], wanted as u64);
    }
}

#[tokio::test]
async fn the_exposition_passes_promtools_lint() {
    let mut check = promtool(&["check", "metrics"]);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("metrics");
    std::fs::write(&file, scrape().await).unwrap();
    check.stdin(std::fs::File::open(&file).unwrap());
    passes(check);
}

#[test]
fn the_board_is_whole() {
    let text = std::fs::read_to_string(conf("grafana/gatekeeper.json")).unwrap();
    let board: Value = serde_json::from_str(&text).unwrap();
    let panels = board["panels"].as_array().unwrap();
    let mut places = BTreeSet::new();
    for panel in panels {
        let (title, place) = (&panel["title"], &panel["gridPos"]);
        let number = |name: &str| place[name].as_u64().unwrap();
        assert!(number("x") + number("w") <= 24, "{title} is wider than the board");
        for x in number("x")..number("x") + number("w") {
            for y in number("y")..number("y") + number("h") {
                assert!(places.insert((x, y)), "{title} lies over another panel");
            }
        }
        for target in panel["targets"].as_array().unwrap() {
            let asked = target["expr"].as_str().unwrap();
            // As Grafana fills it in.
            let asked = asked.replace("$__rate_interval", "1m").replace("$instance", ".*");
            assert!(asked.contains("gatekeeper_"), "{title}");
            let rule = format!(
                "groups: [{{ name: g, rules: [{{ record: r, expr: {} }}] }}]",
                json!(asked)
            );
            let dir = tempfile::tempdir().unwrap();
            let file = dir.path().join("rule.yml");
            std::fs::write(&file, rule).unwrap();
            passes(promtool(&["check", "rules", &file.display().to_string()]));
        }
    }
}
