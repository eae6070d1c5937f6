//! What a provider says of one model's limits, for accounts and models: which of them rest, and who is
//! asked then. One gateway and one mock; a cell is a provider of its own.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::{Answer, Config, Gateway, Http, Mock, Reply, client};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Rests {
    /// This model at this account, until then.
    Model,
    /// The account, until then.
    Account,
}

/// What is said of model `a`: a name, the answer, what rests, and as what.
struct Said {
    name: &'static str,
    reply: Reply,
    rests: Rests,
    state: &'static str,
}

fn said(name: &'static str, status: u16, body: &Value, rests: Rests, state: &'static str) -> Said {
    Said { name, reply: Reply::json(status, body.to_string()), rests, state }
}

fn all() -> Vec<Said> {
    let words = |kind: &str, code: &str, message: &str| json!({ "error": { "message": message, "type": kind, "param": null, "code": code } });
    let limit = |message: &str| words("tokens", "rate_limit_exceeded", message);
    let quota = |id: &str, dimensions: Value| {
        json!({ "error": { "code": 429, "message": "You exceeded your current quota.",
            "status": "RESOURCE_EXHAUSTED", "details": [
                { "@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [
                    { "quotaId": id, "quotaValue": "20", "quotaDimensions": dimensions }] },
                { "@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "20s" }] } })
    };
    let (cooling, aside) = ("cooling", "quarantined");
    let groq = "Rate limit reached for model `a` in organization `org_1` service tier `on_demand` on tokens per";
    vec![
        said(
            "Groq, a minute",
            429,
            &limit(&format!("{groq} minute (TPM): Limit 6000. Please try again in 20s.")),
            Rests::Model,
            cooling,
        ),
        said(
            "Groq, a day",
            429,
            &limit(&format!("{groq} day (TPD): Limit 100000. Please try again in 11m31s.")),
            Rests::Model,
            aside,
        ),
        said(
            "OpenAI",
            429,
            &limit(
                "Rate limit reached for a in organization org-1 on requests per min. Please try again in 20s.",
            ),
            Rests::Model,
            cooling,
        ),
        said(
            "Gemini, a day of a model",
            429,
            &quota("GenerateRequestsPerDayPerProjectPerModel-FreeTier", json!({ "model": "a" })),
            Rests::Model,
            aside,
        ),
        said(
            "Gemini, a minute by dimensions",
            429,
            &quota("GenerateRequestsPerMinutePerProject", json!({ "model": "a" })),
            Rests::Model,
            cooling,
        ),
        said(
            "Gemini, the project's minute",
            429,
            &quota("GenerateRequestsPerMinutePerProject", json!({ "location": "global" })),
            Rests::Account,
            cooling,
        ),
        said(
            "the organization's limit",
            429,
            &limit("You exceeded the rate limit of your organization. Please try again in 20s."),
            Rests::Account,
            cooling,
        ),
        said(
            "money",
            429,
            &words("insufficient_quota", "insufficient_quota", "You exceeded your current quota."),
            Rests::Account,
            aside,
        ),
    ]
}

struct Cell {
    number: usize,
    said: Said,
    accounts: usize,
}

impl Cell {
    fn name(&self) -> String {
        format!("l{}", self.number)
    }

    fn configure(&self, config: Config, mock: &Mock) -> Config {
        let name = self.name();
        let base = format!("http://127.77.{}.1:{}/v1", self.number + 1, mock.addr.port());
        let keys: Vec<String> = (1..=self.accounts).map(|key| format!("{name}.{key}")).collect();
        let secrets: Vec<&str> = keys.iter().map(String::as_str).collect();
        config
            .provider_at(&name, &base, "", &secrets)
            .model(&format!("{name}-a"), &format!("[{name}/a]"))
            .model(&format!("{name}-b"), &format!("[{name}/b]"))
            .model(&format!("{name}-ab"), &format!("[{name}/a, {name}/b]"))
    }

    async fn ask(&self, app: &Http, model: &str) -> Answer {
        app.ask(&client::chat(&json!({ "model": format!("{}-{model}", self.name()) }))).await
    }

    /// Every account is told so of model `a`; what the app and the operator see then.
    async fn run(&self, gateway: &Gateway, mock: &Mock) {
        let (app, name, title) = (gateway.app(), self.name(), self.said.name);
        let what = format!("{title}, {} accounts", self.accounts);
        let mut replies = vec![self.said.reply.clone(); self.accounts];
        replies.push(Reply::chat());
        mock.key(&name, replies);
        let refusal = if self.said.state == "cooling" { 503 } else { 502 };
        // The fallback is another model at the same accounts.
        let first = self.ask(&app, "ab").await;
        match self.said.rests {
            Rests::Model => {
                assert_eq!(first.status, 200, "{what}: {}", first.text());
                assert_eq!(first.header("x-gatekeeper-model"), Some(&*format!("{name}/b")));
                assert_eq!(self.ask(&app, "b").await.status, 200, "{what}");
            }
            Rests::Account => {
                assert_eq!(first.status, refusal, "{what}: {}", first.text());
                assert_eq!(self.ask(&app, "b").await.status, refusal, "{what}");
            }
        }
        let before = mock.keys_of(&name).len();
        assert_eq!(self.ask(&app, "a").await.status, refusal, "{what}");
        assert_eq!(mock.keys_of(&name).len(), before, "{what}: a resting model is left alone");
    }

    fn check_status(&self, keys: &[Value]) {
        let what = format!("{}, {} accounts", self.said.name, self.accounts);
        let own: Vec<&Value> = keys.iter().filter(|key| key["provider"] == *self.name()).collect();
        assert_eq!(own.len(), self.accounts);
        for key in own {
            let models = key["models"].as_array().expect("a list");
            match self.said.rests {
                Rests::Account => {
                    assert_eq!(
                        (&key["state"], models.len()),
                        (&json!(self.said.state), 0),
                        "{what}"
                    );
                }
                Rests::Model => {
                    assert_eq!(key["state"], "cooling", "{what}: its other model serves");
                    assert_eq!(models.len(), 1, "{what}: {key}");
                    let (model, state) = (&models[0]["model"], &models[0]["state"]);
                    assert_eq!((model, state), (&json!("a"), &json!(self.said.state)), "{what}");
                    assert!(models[0]["left_ms"].as_u64().is_some_and(|left| left > 15_000));
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_of_one_model_rests_that_model_alone() {
    let mock = Mock::everywhere(Reply::status(418)).await;
    let mut config = Config::empty()
        .plan("free", "messages: 100000/month, models: [\"*\"]")
        .license(crate::support::LICENSE, "free");
    let mut cells = Vec::new();
    for accounts in [1, 2] {
        for said in all() {
            cells.push(Arc::new(Cell { number: cells.len(), said, accounts }));
        }
    }
    for cell in &cells {
        config = cell.configure(config, &mock);
    }
    let (gateway, mock) = (Arc::new(Gateway::start(config).await), Arc::new(mock));
    let mut running = JoinSet::new();
    for cell in &cells {
        let (cell, gateway, mock) = (cell.clone(), gateway.clone(), mock.clone());
        running.spawn(async move { cell.run(&gateway, &mock).await });
    }
    running.join_all().await;
    let status = gateway.status().await;
    let keys = status["keys"].as_array().expect("keys");
    let metrics = gateway.metrics().await;
    for cell in &cells {
        cell.check_status(keys);
        let name = cell.name();
        let left = |model: &str| {
            let labels = [("provider", name.as_str()), ("model", model)];
            metrics.sum("gatekeeper_key_model_cooling", &labels)
        };
        let (a, b) = (left("a"), left("b"));
        assert_eq!(a > 0.0, cell.said.rests == Rests::Model, "{}: {a}", cell.said.name);
        assert!(b == 0.0 && !metrics.0.contains(&format!("provider=\"{name}\",key=\"b")));
    }
    println!("{} cells: what is said of one model, at one and two accounts", cells.len());
}
