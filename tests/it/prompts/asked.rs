//! Prompts from outside: what the provider gets, what an app may choose, what stands in the books.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::{
    Answer, Config, Gateway, LICENSE, Mock, Reply, eventually, run, run_with_input,
};

const PROMPTS: &str = r#"prompts:
  reply:
    model: strong
    system: "You answer for {{shop}} in {{language}}."
    input:
      shop: { max: 2000, required: true }
      language: { one_of: [en, de, es] }
      history: { turns: 20, roles: [user, assistant], max: 6000 }
    temperature: 0.4
    max_output_tokens: 400
  secret: { model: strong, system: "Only for others." }
"#;

fn config(mock: &Mock) -> Config {
    Config::new(mock)
        .plan("free", "prompts: [reply], prompts_only: true, tokens: 100000/month")
        .plan("open", "prompts: [reply], models: [fast]")
        .license("JSTAR-OPEN-0001", "open")
        .model("strong", "[p/m2]")
        .more(PROMPTS)
}

async fn post(gateway: &Gateway, path: &str, body: &Value) -> Answer {
    Answer::of(gateway.app().post(path, body.to_string())).await
}

fn variables() -> Value {
    json!({ "shop": "Ann's shop", "language": "de" })
}

#[tokio::test]
async fn a_prompt_is_asked_in_three_ways_and_the_provider_gets_the_same() {
    let mock = Mock::start(Reply::chat()).await;
    let gateway = Gateway::start(config(&mock)).await;
    let turn = json!({ "role": "user", "content": "Where is it?" });
    let own = json!({ "variables": variables(), "messages": [turn] });
    let answer = post(&gateway, "/v1/prompts/reply", &own).await;
    assert_eq!(answer.ok().header("x-gatekeeper-model"), Some("p/m2"));
    let sent = mock.last().json();
    assert_eq!((&sent["model"], &sent["max_completion_tokens"]), (&json!("m2"), &json!(400)));
    assert_eq!(sent["temperature"], 0.4);
    let system = sent["messages"][0].clone();
    assert!(system["content"].as_str().unwrap().starts_with("You answer for [[shop]] in de."));
    let said = sent["messages"][1]["content"].as_str().unwrap();
    assert!(said.contains("\nAnn's shop\n") && said.ends_with("\n\nWhere is it?"), "{said}");

    let developer = json!({ "role": "developer", "content": variables().to_string() });
    let chat = json!({ "model": "prompt/reply", "messages": [developer, turn], "seed": 4 });
    let answer = post(&gateway, "/v1/chat/completions", &chat).await;
    assert_eq!(answer.ok().header("x-gatekeeper-dropped"), Some("seed"));
    assert_eq!(mock.last().json()["messages"][0], system);

    mock.path("/v1/responses", Reply::json(200, RESPONSE));
    let responses = json!({ "prompt": { "id": "reply", "variables": variables() }, "input": "Hi" });
    post(&gateway, "/v1/responses", &responses).await.ok();
    let sent = mock.last().json();
    assert_eq!(sent["instructions"], system["content"]);
    assert_eq!((&sent["max_output_tokens"], &sent["store"]), (&json!(400), &json!(false)));
    assert!(sent["prompt"].is_null());

    mock.answer([Reply::stream()]);
    let stream = json!({ "variables": variables(), "stream": true, "max_tokens": 50 });
    let answer = post(&gateway, "/v1/prompts/reply", &stream).await;
    assert!(answer.ok().text().ends_with("data: [DONE]\n\n"));
    assert_eq!(mock.last().json()["max_completion_tokens"], 50);
}

pub const RESPONSE: &str = r#"{"id":"r","object":"response","status":"completed","model":"m2","output":[{"type":"message",
    "role":"assistant","content":[{"type":"output_text","text":"Hello"}]}],
    "usage":{"input_tokens":9,"output_tokens":1,"total_tokens":10}}"#;

#[tokio::test]
async fn prompts_only_takes_nothing_else_and_a_plan_its_own_prompts() {
    let mock = Mock::start(Reply::chat()).await;
    let gateway = Gateway::start(config(&mock)).await;
    let hi = json!([{ "role": "user", "content": "Hi" }]);
    for (path, body) in [
        ("/v1/chat/completions", json!({ "model": "fast", "messages": hi })),
        ("/chat", json!({ "model": "fast", "messages": hi })),
        ("/v1/chat/completions", json!({ "model": "pr\u{6f}mpts", "messages": hi })),
        ("/v1/responses", json!({ "model": "fast", "input": "Hi" })),
        ("/v1/embeddings", json!({ "model": "fast", "input": "Hi" })),
        ("/v1/messages", json!({ "model": "fast", "max_tokens": 9, "messages": hi })),
        ("/v1beta/models/fast:generateContent", json!({ "contents": [] })),
        ("/v1/messages/count_tokens", json!({ "model": "fast", "messages": hi })),
    ] {
        let mut request = gateway.app().request("POST", path).body(body.to_string());
        request = match path {
            "/v1beta/models/fast:generateContent" => request.header("x-goog-api-key", LICENSE),
            _ => request.bearer_auth(LICENSE),
        };
        let answer = Answer::of(request.header("content-type", "application/json")).await;
        assert_eq!(answer.status, 403, "{path} {}", answer.text());
        let said = answer.text().to_lowercase();
        assert!(said.contains("prompt_required"), "{path} {said}");
        assert_eq!(answer.header("x-should-retry"), Some("false"));
    }
    // An escaped name is no way around it.
    let body = r#"{"model":"\u0070rompt/reply","messages":[]}"#;
    Answer::of(gateway.app().post("/chat", body)).await.is(403, "prompt_required");
    for (path, body) in [
        ("/v1/prompts/secret", json!({})),
        ("/chat", json!({ "model": "prompt/secret", "messages": [] })),
    ] {
        post(&gateway, path, &body).await.is(403, "model_not_allowed");
    }
    post(&gateway, "/v1/prompts/replay", &json!({})).await.is(404, "not_found");
    let unknown =
        post(&gateway, "/chat", &json!({ "model": "prompt/replay", "messages": [] })).await;
    assert!(unknown.is(404, "model_not_found").text().contains("Did you mean \\\"reply\\\"?"));
    let missing = post(&gateway, "/v1/prompts/reply", &json!({ "variables": {} })).await;
    assert_eq!(missing.is(400, "invalid_request").error("param"), "variables.shop");
    assert_eq!(mock.count(), 0);
    let listed = Answer::of(gateway.app().get("/v1/models").bearer_auth(LICENSE)).await.json();
    assert_eq!(listed["data"][0]["id"], "prompt/reply");
    assert_eq!(listed["data"].as_array().unwrap().len(), 1);
    // The model of a prompt is not the app's to ask for; its own models still are.
    let app = gateway.app();
    let ask = |model: &str| json!({ "model": model, "messages": hi });
    app.ask_as("JSTAR-OPEN-0001", &ask("fast")).await.ok();
    app.ask_as("JSTAR-OPEN-0001", &ask("strong")).await.is(403, "model_not_allowed");
    let prompt = json!({ "model": "prompt/reply", "messages": [
        { "role": "developer", "content": variables().to_string() }] });
    app.ask_as("JSTAR-OPEN-0001", &prompt).await.ok();
}

#[tokio::test]
async fn without_prompts_there_is_no_such_address() {
    let mock = Mock::start(Reply::chat()).await;
    let gateway = Gateway::start(Config::new(&mock)).await;
    post(&gateway, "/v1/prompts/reply", &json!({})).await.is(404, "not_found");
    let body = json!({ "model": "prompt/reply", "messages": [] });
    post(&gateway, "/chat", &body).await.is(404, "model_not_found");
    let body = json!({ "prompt": { "id": "reply" }, "model": "fast", "input": "Hi" });
    let refused = post(&gateway, "/v1/responses", &body).await;
    assert_eq!(refused.is(400, "invalid_request").error("param"), "prompt");
}

#[tokio::test]
async fn a_saved_text_is_live_and_no_request_mixes_two() {
    let mock = Mock::start(Reply::chat()).await;
    let dir = std::sync::Arc::new(tempfile::TempDir::new().unwrap());
    let file = dir.path().join("reply.md");
    let text = |version: usize| format!("Version {version} for {{{{shop}}}}, {version}.\n");
    std::fs::write(&file, text(0)).unwrap();
    let prompts = format!(
        "prompts: {{ reply: {{ model: fast, system: \"file:{}\", input: {{ shop: {{}} }} }} }}",
        file.display()
    );
    let config = Config::new(&mock).plan("free", "prompts: [reply]").more(&prompts);
    let gateway = Gateway::start_in(dir.clone(), config).await;
    let ask = || post(&gateway, "/v1/prompts/reply", &Value::Null);
    ask().await.is(400, "invalid_request");
    let body = json!({ "variables": { "shop": "Ann" } });
    for version in 1..=10 {
        let saved = async {
            std::fs::write(&file, text(version)).unwrap();
            assert!(gateway.read_again().await, "{}", gateway.logs());
        };
        let load = async {
            for _ in 0..10 {
                post(&gateway, "/v1/prompts/reply", &body).await.ok();
            }
        };
        tokio::join!(saved, load);
    }
    let newest = post(&gateway, "/v1/prompts/reply", &body).await;
    newest.ok();
    let mut versions = std::collections::BTreeSet::new();
    for seen in mock.seen() {
        let sent = seen.json();
        let system = sent["messages"][0]["content"].as_str().unwrap().to_owned();
        let version = system.split(' ').nth(1).unwrap().to_owned();
        let whole = format!("Version {version} for [[shop]], {version}.\n\n[[NAME]]");
        assert!(system.starts_with(&whole), "{system}");
        versions.insert(version);
    }
    assert!(versions.contains("10") && versions.len() > 2, "{versions:?}");
    let log = gateway.logs();
    assert!(log.contains("prompt reply: system changed"), "{log}");
    assert!(!log.contains("Version 1") && !log.contains("Ann"), "a text of a prompt is in the log");
}

#[tokio::test]
async fn the_books_know_prompts_by_name() {
    let mock = Mock::start(Reply::chat()).await;
    let mut gateway = Gateway::start(config(&mock)).await;
    for _ in 0..3 {
        post(&gateway, "/v1/prompts/reply", &json!({ "variables": variables() })).await.ok();
    }
    let body = json!({ "model": "fast", "messages": [{ "role": "user", "content": "Hi" }] });
    gateway.app().ask_as("JSTAR-OPEN-0001", &body).await.ok();
    let status = gateway.status().await;
    assert_eq!(status["config"]["live"]["prompts"][0]["name"], "reply");
    let usage = |by: &str| {
        let out = run(&["usage", "-c", "gatekeeper.yaml", "--by", by, "--csv"], gateway.dir.path());
        String::from_utf8(out.stdout).unwrap()
    };
    eventually("the books have all of it", Duration::from_secs(10), || async {
        usage("model").contains("\nfast,1,1,1,") && usage("prompt").contains("\nreply,1,3,3,")
    })
    .await;
    let by_prompt = usage("prompt");
    assert!(by_prompt.starts_with("prompt,licences,requests,messages,"), "{by_prompt}");
    // Requests for models are in no line, the total included.
    assert!(by_prompt.contains("\ntotal,1,3,3,"), "{by_prompt}");
    assert!(usage("model").contains("\nprompt/reply,1,3,3,"));
    gateway.restart().await;
    post(&gateway, "/v1/prompts/reply", &json!({ "variables": variables() })).await.ok();
    let usage = || {
        let words = ["usage", "-c", "gatekeeper.yaml", "--by", "prompt", "--csv"];
        String::from_utf8(run(&words, gateway.dir.path()).stdout).unwrap()
    };
    eventually("they add up over a restart", Duration::from_secs(10), || async {
        usage().contains("\nreply,1,4,4,")
    })
    .await;
}

#[tokio::test]
async fn a_prompt_is_tried_out_on_the_command_line() {
    let mock = Mock::start(Reply::chat()).await;
    let gateway = Gateway::start(config(&mock)).await;
    // Beside the provider, which answers on this thread.
    let test = async |words: &[&str], input: &'static str| {
        let dir = gateway.dir.clone();
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        let work = move || {
            let words: Vec<&str> = words.iter().map(String::as_str).collect();
            let all = [&["prompts", "test", "-c", "gatekeeper.yaml"], &words[..]].concat();
            run_with_input(&all, dir.path(), input)
        };
        let out = tokio::task::spawn_blocking(work).await.unwrap();
        let text = String::from_utf8([out.stdout, out.stderr].concat()).unwrap();
        (out.status.success(), text)
    };
    let (fine, text) = test(&["reply", "shop=Ann's", "language=es", "--message", "Hola"], "").await;
    assert!(fine, "{text}");
    for part in ["model        strong", "output cap   400", "[[shop]] in es.", "\nAnn's\n", "Hola"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(mock.count(), 0);
    let (fine, text) = test(&["reply", "language=fr"], "").await;
    assert!(!fine && text.contains("\"variables.language\" must be one of en, de, es."), "{text}");
    let (fine, text) = test(&["reply", "shop=Ann", "--run"], LICENSE).await;
    assert!(fine && mock.count() == 1, "{text}");
    let (fine, text) = test(&["reply", "shop=Ann", "--run"], "JSTAR-WRONG-0001").await;
    assert!(!fine && text.contains("403"), "{text}");
}
