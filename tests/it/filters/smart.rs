//! Smart models: each request goes to the tier that fits it, the plan and the app have their say, and
//! what that saves is counted.

use std::{fs, time::Duration};

use serde_json::{Value, json};

use crate::support::{
    Answer, Config, Gate, Gateway, LICENSE, Mock, Reply, Step, client, eventually, run, sse,
};

const EASY: &str = "Hi, are you open tomorrow?";
const HARD: &str = "Why does this query deadlock? Explain step by step and compare two fixes.";
/// Dollars that 11 + 7 tokens cost less on `p/m1` than on `q/strong`: 18 at 0.99 per thousand.
const SAVED: f64 = 18.0 * 0.00099;

/// `fast` is served by the first mock, `strong` by the second; licences by what their plans open.
fn config(fast: &Mock, strong: &Mock) -> Config {
    let plan = |models: &str| format!("messages: 1000/month, models: [{models}]");
    Config::new(fast)
        .provider("q", strong, &["sk-strong"])
        .model("strong", "[q/unpriced, q/strong]")
        .model("auto", "{ smart: { simple: fast, complex: strong } }")
        .model("same", "auto")
        .plan("cheap", &plan("auto, fast"))
        .plan("dear", &plan("auto, strong"))
        .plan("none", &plan("auto"))
        .license("JSTAR-CHEAP-001", "cheap")
        .license("JSTAR-DEAR-0001", "dear")
        .license("JSTAR-NONE-0001", "none")
        .more("prices:\n  p/m1: { input: 10, output: 10 }")
        .more("  q/strong: { input: 1000, output: 1000 }")
}

struct Scene {
    fast: Mock,
    strong: Mock,
    gateway: Gateway,
}

impl Scene {
    async fn start() -> Self {
        let (fast, strong) = (Mock::start(Reply::chat()).await, Mock::start(Reply::chat()).await);
        let gateway = Gateway::start(config(&fast, &strong)).await;
        Self { fast, strong, gateway }
    }

    async fn ask(&self, text: &str) -> Answer {
        self.gateway.app().ask(&question(text)).await
    }

    async fn ask_with(&self, key: &str, tiers: &[&str], body: &Value) -> Answer {
        let app = self.gateway.app();
        let mut request = app
            .request("POST", "/v1/chat/completions")
            .bearer_auth(key)
            .header("content-type", "application/json");
        for tier in tiers {
            request = request.header("x-gatekeeper-tier", *tier);
        }
        Answer::of(request.body(body.to_string())).await
    }

    /// How many requests either provider has seen.
    fn seen(&self) -> (usize, usize) {
        (self.fast.count(), self.strong.count())
    }

    /// Waits until so much is saved, in dollars.
    async fn saved(&self, dollars: f64) {
        eventually("what was saved is counted", Duration::from_secs(5), || async {
            (saved(&self.gateway).await - dollars).abs() < 1e-9
        })
        .await;
    }
}

async fn saved(gateway: &Gateway) -> f64 {
    gateway.metrics().await.sum("gatekeeper_saved_dollars_total", &[])
}

fn question(text: &str) -> Value {
    of("auto", text)
}

fn of(model: &str, text: &str) -> Value {
    client::chat(&json!({ "model": model, "messages": [{ "role": "user", "content": text }] }))
}

#[track_caller]
fn route(answer: &Answer) -> String {
    answer.ok().header("x-gatekeeper-route").unwrap().to_owned()
}

#[tokio::test]
async fn each_request_goes_to_the_tier_that_fits_it() {
    let scene = Scene::start().await;
    let easy = scene.ask(EASY).await;
    assert!(route(&easy).starts_with("simple;score=0."), "{}", route(&easy));
    assert_eq!(easy.header("x-gatekeeper-model"), Some("p/m1"));
    assert_eq!(scene.seen(), (1, 0));
    let hard = scene.ask(HARD).await;
    assert!(route(&hard).starts_with("complex;score="), "{}", route(&hard));
    assert_eq!(scene.seen(), (1, 1));
    assert_eq!(scene.strong.last().json()["model"], "unpriced");

    let plain = scene.gateway.app().ask(&of("fast", HARD)).await;
    assert_eq!(route(&plain), "model");
    let alias = scene.gateway.app().ask(&of("same", HARD)).await;
    assert!(route(&alias).starts_with("complex;score="));
    assert_eq!(scene.seen(), (2, 2));

    let status = scene.gateway.status().await;
    let models: Vec<_> =
        status["requests"].as_array().unwrap().iter().map(|r| &r["model"]).collect();
    assert_eq!(models, ["same", "fast", "auto", "auto"]);
}

#[tokio::test]
async fn responses_and_streams_are_routed_like_chats() {
    let scene = Scene::start().await;
    for (text, seen) in [(EASY, (1, 0)), (HARD, (1, 1))] {
        for mock in [&scene.fast, &scene.strong] {
            mock.answer([Reply::stream(), Reply::json(200, sse::RESPONSE)]);
        }
        let mut body = question(text);
        body["stream"] = json!(true);
        let answer = scene.gateway.app().ask(&body).await;
        assert_eq!(answer.ok().text(), sse::plain(&["Hel", "lo"]).concat());
        let twice = |count: usize| 2 * count;
        let body = json!({ "model": "auto", "input": text });
        let request = scene.gateway.app().post("/v1/responses", body.to_string());
        Answer::of(request).await.ok();
        assert_eq!(scene.seen(), (twice(seen.0), twice(seen.1)));
    }
}

/// The tiers that speak an app's own dialect.
#[tokio::test]
async fn other_dialects_are_scored_by_what_their_users_wrote() {
    let claude = json!({
        "id": "msg_1", "type": "message", "role": "assistant", "model": "m", "stop_reason": "end_turn",
        "content": [{ "type": "text", "text": "Hello" }],
        "usage": { "input_tokens": 11, "output_tokens": 7 },
    });
    let gemini = json!({
        "candidates": [{ "content": { "parts": [{ "text": "Hello" }] }, "finishReason": "STOP" }],
        "usageMetadata": { "promptTokenCount": 11, "candidatesTokenCount": 7, "totalTokenCount": 18 },
    });
    let ask = |dialect: &str, text: &str| match dialect {
        "anthropic" => {
            let turn = json!({ "role": "user", "content": [{ "type": "text", "text": text }] });
            let body = json!({ "model": "auto", "max_tokens": 500, "messages": [turn] });
            ("/v1/messages", body)
        }
        _ => {
            let body = json!({ "contents": [{ "parts": [{ "text": text }] }] });
            ("/v1beta/models/auto:generateContent", body)
        }
    };
    for (dialect, answer) in [("anthropic", claude), ("gemini", gemini)] {
        let answer = || Mock::start(Reply::json(200, answer.to_string()));
        let (fast, strong) = (answer().await, answer().await);
        let more = format!(", dialect: {dialect}");
        let config = config(&fast, &strong)
            .provider_at("p", &fast.url(), &more, &["sk-one"])
            .provider_at("q", &strong.url(), &more, &["sk-two"]);
        let gateway = Gateway::start(config).await;
        for (text, tier) in [(EASY, "simple;"), (HARD, "complex;")] {
            let (path, body) = ask(dialect, text);
            let answer = Answer::of(gateway.app().post(path, body.to_string())).await;
            assert!(route(&answer).starts_with(tier), "{dialect}: {}", route(&answer));
        }
        assert_eq!((fast.count(), strong.count()), (1, 1), "{dialect}");
    }
}

#[tokio::test]
async fn the_app_may_choose_the_tier_itself() {
    let scene = Scene::start().await;
    let ask = async |tiers: &[&str], body: &Value| scene.ask_with(LICENSE, tiers, body).await;
    assert_eq!(route(&ask(&["complex"], &question(EASY)).await), "complex;tier=header");
    assert_eq!(route(&ask(&["simple"], &question(HARD)).await), "simple;tier=header");
    assert_eq!(scene.seen(), (1, 1));
    for wrong in [&["medium"][..], &["Simple"], &[""], &["simple", "simple"]] {
        let answer = ask(wrong, &question(EASY)).await;
        answer.is(400, "invalid_request");
        assert_eq!(answer.error("param"), "x-gatekeeper-tier", "{wrong:?}");
        assert!(answer.error("message").as_str().unwrap().contains("x-gatekeeper-tier"));
    }
    assert_eq!(scene.seen(), (1, 1), "a refusal reaches nobody");
    for any in ["complex", "medium"] {
        assert_eq!(route(&ask(&[any], &of("fast", EASY)).await), "model");
    }
    assert_eq!(scene.seen(), (3, 1), "other models know no tiers");
}

#[tokio::test]
async fn a_tier_that_the_plan_lacks_is_served_by_the_other() {
    let scene = Scene::start().await;
    let ask =
        async |key, tiers: &[&str], text| route(&scene.ask_with(key, tiers, &question(text)).await);
    let cheap = ask("JSTAR-CHEAP-001", &[], HARD).await;
    assert!(cheap.starts_with("simple;score=") && cheap.ends_with(";plan"), "{cheap}");
    assert!(!ask("JSTAR-CHEAP-001", &[], EASY).await.ends_with(";plan"));
    assert_eq!(ask("JSTAR-CHEAP-001", &["complex"], EASY).await, "simple;tier=header;plan");
    let dear = ask("JSTAR-DEAR-0001", &[], EASY).await;
    assert!(dear.starts_with("complex;score=") && dear.ends_with(";plan"), "{dear}");
    assert_eq!(scene.seen(), (3, 1));

    for tiers in [&[][..], &["simple"], &["complex"]] {
        let answer = scene.ask_with("JSTAR-NONE-0001", tiers, &question(EASY)).await;
        answer.is(403, "model_not_allowed");
    }
    let answer = scene.ask_with("JSTAR-CHEAP-001", &[], &of("strong", EASY)).await;
    answer.is(403, "model_not_allowed");
    assert_eq!(scene.seen(), (3, 1));
}

#[tokio::test]
async fn a_tier_that_can_not_take_the_request_is_passed_over() {
    let (fast, strong) = (Mock::start(Reply::chat()).await, Mock::start(Reply::chat()).await);
    let config =
        config(&fast, &strong).model("strong", "{ targets: [q/strong], accepts: [input_audio] }");
    let gateway = Gateway::start(config).await;
    let audio = json!([
        { "type": "text", "text": EASY },
        { "type": "input_audio", "input_audio": { "data": "AAAA", "format": "wav" } },
    ]);
    let mut body = question("");
    body["messages"][0]["content"] = audio;
    let answer = gateway.app().ask(&body).await;
    assert!(route(&answer).ends_with(";model"), "{}", route(&answer));
    assert_eq!((fast.count(), strong.count()), (0, 1));
    body["messages"][0]["content"][1]["type"] = json!("video_url");
    gateway.app().ask(&body).await.is(400, "invalid_request");
}

#[tokio::test]
async fn what_the_simple_tier_saves_is_counted_once() {
    let scene = Scene::start().await;
    scene.ask(EASY).await.ok();
    scene.saved(SAVED).await;
    scene.ask(HARD).await.ok();
    scene.gateway.app().ask(&of("fast", EASY)).await.ok();
    scene.saved(SAVED).await;
    scene.fast.answer([Reply::stream()]);
    let mut body = question(EASY);
    body["stream"] = json!(true);
    scene.gateway.app().ask(&body).await.ok();
    scene.saved(2.0 * SAVED).await;
    scene.fast.answer([Reply::error(400)]);
    assert_eq!(scene.ask(EASY).await.status, 400);
    scene.saved(2.0 * SAVED).await;
}

#[tokio::test]
async fn hanging_up_saves_what_it_would_have_cost_more() {
    let scene = Scene::start().await;
    let gate = Gate::new();
    let words = [sse::ROLE.to_owned(), sse::text("one "), sse::text("two ")];
    scene.fast.answer([Reply::sse(&words).then(Step::Gate(gate.clone()))]);
    let mut body = question(EASY);
    body["stream"] = json!(true);
    let mut app = scene.gateway.raw().await;
    app.send(client::post("/v1/chat/completions", &body)).await;
    app.until("two ").await;
    app.leave().await;
    let cost = async || {
        scene.gateway.metrics().await.sum("gatekeeper_cost_dollars_total", &[("model", "m1")])
    };
    eventually("it is settled", Duration::from_secs(5), || async { cost().await > 0.0 }).await;
    // The complex tier is a hundred times as dear.
    scene.saved(99.0 * cost().await).await;
    gate.open();
}

#[tokio::test]
async fn a_dearer_simple_tier_saves_nothing() {
    let (fast, strong) = (Mock::start(Reply::chat()).await, Mock::start(Reply::chat()).await);
    let config = config(&fast, &strong)
        .model("auto", "{ smart: { simple: strong, complex: fast, threshold: 1 } }")
        .model("strong", "[q/strong]");
    let gateway = Gateway::start(config).await;
    let answer = gateway.app().ask(&question(EASY)).await;
    assert!(route(&answer).starts_with("simple;"));
    eventually("its cost is counted", Duration::from_secs(5), || async {
        gateway.metrics().await.sum("gatekeeper_cost_dollars_total", &[]) > 0.0
    })
    .await;
    assert!(saved(&gateway).await.abs() < 1e-12);
}

/// What an answer without a price cost is not known, so neither is what it saved.
#[tokio::test]
async fn an_unpriced_simple_tier_saves_nothing() {
    let (fast, strong) = (Mock::start(Reply::chat()).await, Mock::start(Reply::chat()).await);
    let config = config(&fast, &strong)
        .model("free", "[p/free]")
        .model("auto", "{ smart: { simple: free, complex: strong } }")
        .model("known", "{ smart: { simple: fast, complex: strong } }");
    let gateway = Gateway::start(config).await;
    assert!(route(&gateway.app().ask(&question(EASY)).await).starts_with("simple;"));
    gateway.app().ask(&of("known", EASY)).await.ok();
    eventually("the priced one is counted alone", Duration::from_secs(5), || async {
        (saved(&gateway).await - SAVED).abs() < 1e-9
    })
    .await;
}

#[tokio::test]
async fn check_and_explain_know_smart_models() {
    let (fast, strong) = (Mock::start(Reply::chat()).await, Mock::start(Reply::chat()).await);
    let dir = tempfile::tempdir().unwrap();
    let file = config(&fast, &strong).file(dir.path());
    let output = |args: &[&str]| {
        let output = run(&[args, &["-c", file.to_str().unwrap()]].concat(), dir.path());
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(text).unwrap())
    };
    let (code, explained) = output(&["explain"]);
    assert_eq!(code, Some(0), "{explained}");
    assert!(explained.contains("fast, or strong from score 0.50 on"), "{explained}");
    let (code, checked) = output(&["check"]);
    assert_eq!(code, Some(0), "{checked}");
    assert!(checked.contains("plans.none.models: `auto` is refused"), "{checked}");

    let yaml = fs::read_to_string(&file).unwrap();
    fs::write(&file, yaml.replace("simple: fast", "simple: fats")).unwrap();
    let (code, checked) = output(&["check"]);
    assert_eq!(code, Some(1));
    assert!(checked.contains("unknown model `fats`; did you mean `fast`?"), "{checked}");
}
