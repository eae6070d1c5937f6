//! What Grafana's board asks, asked of a real Prometheus that scrapes the gateway.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{Config, Gateway, Mock, Reply, Wire, client::Http, gateway::free_port};

/// Starting it, and a scrape that a busy machine delays.
const PATIENCE: Duration = Duration::from_secs(60);

/// Debian's package `prometheus` has it.
struct Prometheus {
    child: Child,
    http: Http,
    _dir: TempDir,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A moment of Prometheus's clock at which something was so. Asked about it again, it says the same.
type Moment = String;

impl Prometheus {
    async fn of(gateway: &Gateway) -> Self {
        let dir = TempDir::new().unwrap();
        let file = dir.path().join("prometheus.yml");
        let config = format!(
            "global: {{ scrape_interval: 300ms, scrape_timeout: 300ms }}\n\
             scrape_configs: [ {{ job_name: gatekeeper, static_configs: [ {{ targets: [ \"{}\" ] }} ] }} ]\n",
            gateway.admin
        );
        fs::write(&file, config).unwrap();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let log = dir.path().join("log");
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", dir.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .stdout(Stdio::null())
            .stderr(fs::File::create(&log).unwrap())
            .spawn()
            .expect("prometheus runs");
        let mut this = Self { child, http: Http::new(address, Wire::Plain), _dir: dir };
        let end = tokio::time::Instant::now() + PATIENCE;
        loop {
            let ready = this.http.get("/-/ready").send().await;
            if ready.as_ref().is_ok_and(|answer| answer.status() == 200) {
                return this;
            }
            let is_late = tokio::time::Instant::now() > end;
            if is_late || this.child.try_wait().unwrap().is_some() {
                panic!("Prometheus is not ready: {ready:?}\n{}", fs::read_to_string(&log).unwrap());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The series that a question has: now, or at a moment. Each with its labels, time and value.
    async fn ask(&self, question: &str, at: Option<&Moment>) -> Vec<(String, Moment, f64)> {
        let mut words = vec![("query", question)];
        words.extend(at.map(|at| ("time", at.as_str())));
        let url = reqwest::Url::parse_with_params("http://p/api/v1/query", words).unwrap();
        let path = format!("/api/v1/query?{}", url.query().unwrap());
        let answer = self.http.get(&path).send().await.unwrap();
        let answer: Value = answer.json().await.unwrap();
        assert_eq!(answer["status"], "success", "{question}: {answer}");
        let series = answer["data"]["result"].as_array().unwrap().iter();
        series
            .map(|series| {
                let [at, value] = [0, 1].map(|place| &series["value"][place]);
                let value = value.as_str().unwrap().parse().unwrap();
                (series["metric"].to_string(), at.to_string(), value)
            })
            .collect()
    }

    /// Waits until a question has an answer; when it had.
    async fn until(&self, question: &str) -> Moment {
        let end = tokio::time::Instant::now() + PATIENCE;
        loop {
            if let Some((_, at, _)) = self.ask(question, None).await.pop() {
                return at;
            }
            assert!(tokio::time::Instant::now() < end, "still not: {question}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// Title and question of all that the board shows, as Grafana fills them in.
fn questions(window: &str) -> Vec<(String, String)> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/grafana/gatekeeper.json");
    let board: Value = serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
    let panels = board["panels"].as_array().unwrap().iter();
    panels
        .flat_map(|panel| {
            let title = panel["title"].as_str().unwrap();
            let asked = panel["targets"].as_array().unwrap().iter();
            asked.map(move |target| {
                let asked = target["expr"].as_str().unwrap();
                let asked = asked.replace("$__rate_interval", window).replace("$instance", ".*");
                (title.to_owned(), asked)
            })
        })
        .collect()
}

/// Titles of the panels that have something to show at a moment: numbers all of them.
async fn shown(prometheus: &Prometheus, window: &str, at: &Moment) -> Vec<String> {
    let mut titles = Vec::new();
    for (title, question) in questions(window) {
        let series = prometheus.ask(&question, Some(at)).await;
        for (labels, _, value) in &series {
            assert!(value.is_finite(), "{title} shows {value} for {labels}: {question}");
        }
        if !series.is_empty() {
            titles.push(title);
        }
    }
    titles.dedup();
    titles
}

#[tokio::test]
async fn the_board_shows_numbers_before_during_and_after_traffic() {
    let (mock, idle) = (Mock::start(Reply::stream()).await, Mock::start(Reply::stream()).await);
    let config = Config::new(&mock)
        .plan("free", "messages: 100/month, models: [\"*\"]")
        .provider_at("idle", &idle.url(), "", &["sk-idle"])
        .model("never", "[idle/m]")
        .more("prices: { p/m1: { input: 1, output: 1 } }\nbudget: { day: $20 }\n");
    let gateway = Gateway::start(config).await;
    let prometheus = Prometheus::of(&gateway).await;
    let fresh = prometheus.until("count_over_time(gatekeeper_in_flight[1m]) >= 3").await;
    let titles = shown(&prometheus, "1m", &fresh).await;
    assert!(titles.iter().any(|title| title == "Open requests"), "{titles:?}");
    assert!(!titles.iter().any(|title| title == "Answers that came whole"), "{titles:?}");

    // A rate is of what was there before.
    const ALL: &str = "sum(gatekeeper_requests_total{endpoint=\"chat\"})";
    for (so_far, more) in [(1, 1), (4, 3)] {
        for _ in 0..more {
            gateway.app().stream().await.ok();
        }
        prometheus.until(&format!("{ALL} >= {so_far}")).await;
    }
    let busy =
        prometheus.until("sum(rate(gatekeeper_requests_total{endpoint=\"chat\"}[1m])) > 0").await;
    let titles = shown(&prometheus, "1m", &busy).await;
    for title in ["Answers that came whole", "Requests by status", "Time to first token"] {
        assert!(titles.iter().any(|shown| shown == title), "{title}: {titles:?}");
    }

    // Series are there, and nothing moves them.
    let after =
        prometheus.until("sum(rate(gatekeeper_requests_total{endpoint=\"chat\"}[3s])) == 0").await;
    let titles = shown(&prometheus, "3s", &after).await;
    assert!(titles.iter().any(|title| title == "Requests by status"), "{titles:?}");
}
