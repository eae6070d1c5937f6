//! Conversations keep their account and their target, so that a provider's prompt cache stays warm.

use std::{collections::HashSet, time::Duration};

use serde_json::{Value, json};

use crate::support::{Answer, Config, Gateway, Http, LICENSE, Mock, Reply, client, eventually};

const KEYS: [&str; 6] = ["sk-1", "sk-2", "sk-3", "sk-4", "sk-5", "sk-6"];

fn plenty(config: Config) -> Config {
    config.plan("free", "messages: 100000/month, models: [\"*\"]")
}

async fn ask(app: &Http, conversation: Option<&str>, body: &Value) -> Answer {
    ask_as(LICENSE, app, conversation, body).await
}

async fn ask_as(key: &str, app: &Http, conversation: Option<&str>, body: &Value) -> Answer {
    let mut request = app
        .request("POST", "/v1/chat/completions")
        .bearer_auth(key)
        .header("content-type", "application/json")
        .body(body.to_string());
    if let Some(conversation) = conversation {
        request = request.header("x-conversation-id", conversation);
    }
    Answer::of(request).await
}

/// The messages of a chat whose user has said so much.
fn turns(said: &[&str]) -> Value {
    let mut messages = vec![json!({ "role": "system", "content": "Be kind." })];
    for words in said {
        messages.push(json!({ "role": "user", "content": words }));
        messages.push(json!({ "role": "assistant", "content": "I see." }));
    }
    messages.pop();
    client::chat(&json!({ "messages": messages }))
}

#[tokio::test]
async fn a_named_conversation_keeps_its_account_and_they_spread() {
    let mock = Mock::start(Reply::chat()).await;
    let gateway = Gateway::start(plenty(Config::new(&mock).provider("p", &mock, &KEYS))).await;
    let mut used = HashSet::new();
    for conversation in 0..24 {
        mock.forget();
        for _ in 0..3 {
            ask(&gateway.app(), Some(&format!("c-{conversation}")), &turns(&["Hi"])).await.ok();
        }
        let keys: HashSet<String> = mock.keys().into_iter().collect();
        assert_eq!(keys.len(), 1, "{keys:?}");
        used.extend(keys);
    }
    assert!(used.len() >= 4, "24 conversations on {} of 6 keys", used.len());
    for bad in ["", "a b", "ü", &"x".repeat(65)] {
        let answer = ask(&gateway.app(), Some(bad), &turns(&["Hi"])).await;
        answer.is(400, "invalid_request");
        assert!(answer.text().contains("x-conversation-id"));
    }
    let twice = gateway.app().post("/v1/chat/completions", turns(&["Hi"]).to_string());
    let twice = twice.header("x-conversation-id", "one").header("x-conversation-id", "two");
    Answer::of(twice).await.is(400, "invalid_request");
}

#[tokio::test]
async fn a_sticky_model_knows_a_conversation_by_its_first_messages() {
    let mock = Mock::start(Reply::chat()).await;
    let config = Config::new(&mock).provider("p", &mock, &KEYS);
    let config = plenty(config).model("fast", "{ targets: [p/m1], sticky: true }");
    let gateway = Gateway::start(config).await;
    let mut used = HashSet::new();
    for conversation in 0..12 {
        mock.forget();
        let first = format!("I am customer {conversation}");
        for said in [&[&*first][..], &[&first, "Where is it?"], &[&first, "Where is it?", "Ah."]] {
            ask(&gateway.app(), None, &turns(said)).await.ok();
        }
        let keys: HashSet<String> = mock.keys().into_iter().collect();
        assert_eq!(keys.len(), 1, "{keys:?}");
        used.extend(keys);
    }
    assert!(used.len() >= 3, "{used:?}");
    // Without it, keys take turns.
    let config = plenty(Config::new(&mock).provider("p", &mock, &KEYS));
    let gateway = Gateway::start(config).await;
    mock.forget();
    for _ in 0..6 {
        ask(&gateway.app(), None, &turns(&["I am the same customer"])).await.ok();
    }
    assert_eq!(mock.keys().into_iter().collect::<HashSet<_>>().len(), 6);
}

#[tokio::test]
async fn a_conversation_stays_on_its_fallback_while_that_serves() {
    let (first, other) = (Mock::start(Reply::chat()).await, Mock::start(Reply::chat()).await);
    let config = plenty(Config::new(&first))
        .provider("p", &first, &["sk-one"])
        .provider("q", &other, &["sk-two"])
        .model("fast", "[p/m1, q/m2]");
    let gateway = Gateway::start(config).await;
    let app = gateway.app();
    let served = async |conversation: Option<&str>| {
        let answer = ask(&app, conversation, &turns(&["Hi"])).await;
        answer.ok().header("x-gatekeeper-model").unwrap().to_owned()
    };
    first.answer([Reply::status(429).header("retry-after-ms", "300"), Reply::chat()]);
    assert_eq!(served(Some("moved")).await, "q/m2");
    eventually("the first target is back", Duration::from_secs(5), || async {
        served(None).await == "p/m1"
    })
    .await;
    assert_eq!(served(Some("moved")).await, "q/m2", "its prompt is cached there");
    assert_eq!(served(Some("new")).await, "p/m1");
    other.answer([Reply::status(429).header("retry-after", "60")]);
    assert_eq!(served(Some("moved")).await, "p/m1", "and back, if it must");
}

#[tokio::test]
async fn a_conversation_is_its_licences_own_and_moves_only_where_it_was_answered() {
    let (first, other) = (Mock::start(Reply::chat()).await, Mock::start(Reply::chat()).await);
    let config = plenty(Config::new(&first))
        .license("JSTAR-OTHER-0002", "free")
        .provider("p", &first, &["sk-one"])
        .provider("q", &other, &["sk-two"])
        .model("fast", "[p/m1, q/m2]");
    let gateway = Gateway::start(config).await;
    let app = gateway.app();
    let served = async |key: &str, conversation: &str| {
        let answer = ask_as(key, &app, Some(conversation), &turns(&["Hi"])).await;
        answer.header("x-gatekeeper-model").map(str::to_owned)
    };
    let rests = || Reply::status(429).header("retry-after-ms", "300");
    let back = async || {
        eventually("the first target is back", Duration::from_secs(5), || async {
            let answer = ask(&app, None, &turns(&["Hi"])).await;
            answer.header("x-gatekeeper-model") == Some("p/m1")
        })
        .await;
    };
    first.answer([rests(), Reply::chat()]);
    assert_eq!(served(LICENSE, "same").await.as_deref(), Some("q/m2"));
    back().await;
    assert_eq!(served(LICENSE, "same").await.as_deref(), Some("q/m2"));
    assert_eq!(served("JSTAR-OTHER-0002", "same").await.as_deref(), Some("p/m1"));
    // The fallback refused the request itself: nothing of it is in its cache.
    first.answer([rests(), Reply::chat()]);
    other.answer([Reply::error(400), Reply::chat()]);
    let refused = ask(&app, Some("refused"), &turns(&["Hi"])).await;
    assert_eq!((refused.status, other.count() > 0), (400, true));
    back().await;
    assert_eq!(served(LICENSE, "refused").await.as_deref(), Some("p/m1"));
}
