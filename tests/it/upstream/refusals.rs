//! What a provider refuses, and whose fault it is: a key's, an account's, one prompt's, a firewall's.

use std::time::Duration;

use serde_json::{Value, json};

use crate::{
    pool::healing::key,
    support::{Answer, Config, Gateway, LICENSE, Mock, Reply, client, eventually},
};

const SOON: Duration = Duration::from_secs(10);
const BUYERS: [&str; 4] = [LICENSE, "JSTAR-BUYER-0002", "JSTAR-BUYER-0003", "JSTAR-BUYER-0004"];

pub const XAI_CONTENT: &str = r#"{"code":"The caller does not have permission to execute the specified operation",
    "error":"Content violates usage guidelines. Team: 7f0e4c2a-SECRET, API key ID: 91d2-SECRET, Model: grok-4, Failed check: SAFETY_CHECK_TYPE_BIO"}"#;
pub const NOT_PERMITTED: &str = r#"{"error":{"code":403,"status":"PERMISSION_DENIED","message":"Permission denied for project SECRET."}}"#;
pub const TOO_LARGE: &str = r#"{"error":{"message":"Request too large for gpt-4o in organization org-SECRET on tokens per min (TPM): Limit 30000, Requested 36278. The input or output tokens must be reduced in order to run successfully.","type":"tokens","param":null,"code":"rate_limit_exceeded"}}"#;
pub const CANT_AFFORD: &str = r#"{"error":{"code":402,"message":"This request requires more credits, or fewer max_tokens. You requested up to 65536 tokens, but can only afford 4012. To increase, visit https://openrouter.ai/SECRET"}}"#;

/// A page of Cloudflare's.
pub fn firewall() -> Reply {
    Reply::status(403).header("content-type", "text/html; charset=UTF-8").write(
        "<!DOCTYPE html><html><title>Attention Required! | Cloudflare</title>\
         <h1>Sorry, you have been blocked</h1>Ray ID: SECRET</html>",
    )
}

fn one_key(mock: &Mock) -> Config {
    buyers(Config::new(mock).keys("p", &["sk-one"]))
}

fn buyers(config: Config) -> Config {
    BUYERS.iter().fold(config, |config, key| config.license(key, "free"))
}

fn with_fallback(mock: &Mock, spare: &Mock) -> Config {
    buyers(Config::new(mock)).provider("q", spare, &["sk-q"]).model("fast", "[p/m1, q/m2]")
}

async fn states(gateway: &Gateway) -> Vec<String> {
    let status = gateway.status().await;
    let keys = status["keys"].as_array().unwrap().iter();
    keys.map(|key| key["state"].as_str().unwrap().to_owned()).collect()
}

fn own_words(answer: &Answer, status: u16) {
    assert_eq!(answer.status, status, "{}", answer.text());
    for leak in ["SECRET", "Team", "API key", "Cloudflare", "org-", "openrouter"] {
        assert!(!answer.text().contains(leak), "{}", answer.text());
    }
}

#[tokio::test]
async fn a_403_of_the_provider_s_own_puts_a_key_in_doubt_and_a_probe_clears_it() {
    let mock = Mock::start(Reply::chat()).await;
    mock.key("sk-one", [Reply::json(403, NOT_PERMITTED), Reply::chat()]);
    mock.key("GET", [Reply::json(200, r#"{"data":[]}"#)]);
    let gateway = Gateway::start(Config::new(&mock)).await;
    let first = gateway.app().chat().await;
    assert_eq!(first.ok().number("x-gatekeeper-attempts"), 2, "the next key serves");
    eventually("a probe beside it", SOON, || async {
        mock.seen().iter().any(|seen| seen.method == "GET" && seen.key == "sk-one")
    })
    .await;
    eventually("it is ready again", SOON, || async { key(&gateway, 0).await["state"] == "ready" })
        .await;
    mock.forget();
    for _ in 0..4 {
        gateway.app().chat().await.ok();
    }
    assert!(mock.keys().contains(&"sk-one".to_owned()), "{:?}", mock.keys());
}

/// Until the probe has decided, and for as long as it can't, others come first; where there are none, it serves.
#[tokio::test]
async fn a_key_in_doubt_comes_last_and_serves_where_no_other_can() {
    let mock = Mock::start(Reply::chat()).await;
    let refused = Reply::json(403, NOT_PERMITTED);
    mock.key("sk-one", [refused, Reply::chat()]).key("GET", [Reply::error(500)]);
    let gateway = Gateway::start(Config::new(&mock)).await;
    for _ in 0..6 {
        gateway.app().chat().await.ok();
    }
    // Beside its probe, which comes when it is due.
    assert_eq!(mock.asked_of("sk-one").len(), 1, "{:?}", mock.keys());
    let doubted = key(&gateway, 0).await;
    assert_eq!((&doubted["state"], &doubted["why"]), (&json!("doubtful"), &json!("no_permission")));
    mock.key("sk-two", [Reply::error(429).header("retry-after", "30")]);
    gateway.app().chat().await.ok();
    gateway.app().chat().await.ok();
    assert_eq!(key(&gateway, 0).await["state"], "ready", "it was answered");
}

#[tokio::test]
async fn a_list_that_was_shown_once_and_is_refused_now_sets_a_key_aside() {
    let mock = Mock::start(Reply::chat()).await;
    let refused = Reply::json(403, NOT_PERMITTED);
    mock.key("sk-one", [refused.clone()]);
    mock.key("GET sk-one", [Reply::json(200, r#"{"data":[]}"#), refused]);
    let gateway = Gateway::start(Config::new(&mock)).await;
    gateway.app().chat().await.ok();
    gateway.app().chat().await.ok();
    eventually("it is cleared", SOON, || async { key(&gateway, 0).await["state"] == "ready" })
        .await;
    eventually("it is set aside", Duration::from_secs(15), || async {
        gateway.app().chat().await.ok();
        key(&gateway, 0).await["state"] == "quarantined"
    })
    .await;
    assert_eq!(key(&gateway, 0).await["why"], "no_permission");
    assert_eq!(key(&gateway, 1).await["state"], "ready");
}

#[tokio::test]
async fn without_a_list_three_licences_in_a_row_decide() {
    let mock = Mock::start(Reply::json(403, NOT_PERMITTED)).await;
    mock.key("GET", [Reply::status(404)]);
    let gateway = Gateway::start(one_key(&mock)).await;
    let ask = async |buyer: usize| gateway.app().chat_as(BUYERS[buyer]).await;
    for buyer in [0, 0, 0, 1, 1] {
        let answer = ask(buyer).await;
        answer.is(502, "upstream_error");
        own_words(&answer, 502);
    }
    eventually("the list was asked for", SOON, || async {
        mock.seen().iter().any(|seen| seen.method == "GET")
    })
    .await;
    assert_eq!(states(&gateway).await, ["doubtful"], "two licences are two prompts");
    mock.answer([Reply::chat(), Reply::json(403, NOT_PERMITTED)]);
    ask(3).await.ok();
    for buyer in [2, 0] {
        ask(buyer).await.is(502, "upstream_error");
    }
    assert_eq!(states(&gateway).await, ["doubtful"], "there was an answer between");
    ask(1).await.is(502, "upstream_error");
    eventually("it is set aside", SOON, || async { states(&gateway).await == ["quarantined"] })
        .await;
}

#[tokio::test]
async fn a_refusal_of_the_content_ends_the_request_and_touches_no_key() {
    let flagged = r#"{"error":{"code":403,"message":"SECRET requires moderation","metadata":{"reasons":["violence"],"flagged_input":"x"}}}"#;
    for body in [XAI_CONTENT, flagged] {
        let (mock, spare) =
            (Mock::start(Reply::json(403, body)).await, Mock::start(Reply::chat()).await);
        let gateway = Gateway::start(with_fallback(&mock, &spare)).await;
        for buyer in BUYERS {
            let answer = gateway.app().chat_as(buyer).await;
            own_words(&answer, 400);
            assert_eq!(answer.error("code"), "invalid_request");
        }
        assert_eq!((mock.count(), spare.count()), (BUYERS.len(), 0), "one attempt a request");
        assert_eq!(states(&gateway).await, ["ready", "ready", "ready"]);
        assert_eq!(gateway.messages(LICENSE).await, 0);
    }
}

#[tokio::test]
async fn a_firewall_s_page_for_one_prompt_is_that_prompt_s() {
    let (mock, spare) = (Mock::start(Reply::chat()).await, Mock::start(Reply::chat()).await);
    mock.text("etc-passwd", firewall());
    let hostile =
        client::chat(&json!({ "messages": [{ "role": "user", "content": "etc-passwd" }] }));
    let alone = Gateway::start(buyers(Config::new(&mock))).await;
    for _ in 0..5 {
        let answer = alone.app().ask(&hostile).await;
        own_words(&answer, 400);
        alone.app().chat_as(BUYERS[1]).await.ok();
    }
    assert_eq!(
        mock.seen().iter().filter(|seen| seen.body.windows(10).any(|w| w == b"etc-passwd")).count(),
        5
    );
    assert_eq!(states(&alone).await, ["ready", "ready"]);
    assert_eq!(alone.status().await["providers"][0]["state"], "serving");
    assert_eq!(alone.messages(LICENSE).await, 0);
    alone.logged("probably a firewall").await;
    let backed = Gateway::start(with_fallback(&mock, &spare)).await;
    let answer = backed.app().ask(&hostile).await;
    assert_eq!(answer.ok().header("x-gatekeeper-model"), Some("q/m2"));
    assert_eq!(answer.number("x-gatekeeper-attempts"), 2);
}

#[tokio::test]
async fn a_firewall_s_page_for_everybody_is_the_provider_s_fault() {
    let mock = Mock::start(firewall()).await;
    let gateway = Gateway::start(buyers(Config::new(&mock))).await;
    own_words(&gateway.app().chat_as(BUYERS[0]).await, 400);
    own_words(&gateway.app().chat_as(BUYERS[1]).await, 400);
    gateway.app().chat_as(BUYERS[2]).await.is(502, "upstream_error");
    gateway.app().chat_as(BUYERS[0]).await.is(502, "upstream_error");
    let provider = gateway.status().await["providers"][0].clone();
    assert_eq!((&provider["state"], &provider["why"]), (&json!("sick"), &json!("firewall")));
    assert_eq!(states(&gateway).await, ["ready", "ready"], "no key is at fault");
    let words = "The provider's firewall refuses this server";
    assert_eq!(gateway.logs().matches(words).count(), 1, "{}", gateway.logs());
    mock.answer([Reply::chat()]);
    eventually("it serves again", SOON, || async { gateway.app().chat().await.status == 200 })
        .await;
    eventually("and is well", SOON, || async {
        gateway.app().chat().await.ok();
        gateway.status().await["providers"][0]["why"] == Value::Null
    })
    .await;
}

#[tokio::test]
async fn with_a_fallback_nobody_notices_the_firewall() {
    let (mock, spare) = (Mock::start(firewall()).await, Mock::start(Reply::chat()).await);
    let gateway = Gateway::start(with_fallback(&mock, &spare)).await;
    for turn in 0..8 {
        let answer = gateway.app().chat_as(BUYERS[turn % 4]).await;
        assert_eq!(answer.ok().header("x-gatekeeper-model"), Some("q/m2"), "{turn}");
    }
    assert_eq!(mock.count(), 3, "then it is left alone");
}

/// Each is one account's, or one key's: the other serves, and no word of it comes out.
#[tokio::test]
async fn what_is_wrong_with_a_key_or_its_account_is_never_told() {
    let xai = r#"{"code":"Client specified an invalid argument","error":"Incorrect API key provided: xa***01. You can obtain an API key from https://console.x.ai."}"#;
    let credits = r#"{"code":"The caller does not have permission to execute the specified operation","error":"Your team 7f0e-SECRET has either used all available credits or reached its monthly spending limit."}"#;
    let disabled = r#"{"type":"error","error":{"type":"invalid_request_error","message":"This organization has been disabled."}}"#;
    for (status, body, why) in [
        (400, xai, "bad_credential"),
        (403, credits, "no_money"),
        (429, credits, "no_money"),
        (400, disabled, "no_money"),
    ] {
        let mock = Mock::start(Reply::chat()).await;
        mock.key("sk-one", [Reply::json(status, body)]);
        let gateway = Gateway::start(Config::new(&mock)).await;
        for _ in 0..4 {
            gateway.app().chat().await.ok();
        }
        assert_eq!(mock.keys().iter().filter(|key| *key == "sk-one").count(), 1, "{body}");
        let told = key(&gateway, 0).await;
        assert_eq!((&told["state"], &told["why"]), (&json!("quarantined"), &json!(why)), "{body}");
        let mock = Mock::start(Reply::json(status, body)).await;
        let gateway = Gateway::start(Config::new(&mock)).await;
        let answer = gateway.app().chat().await;
        answer.is(502, "upstream_error");
        for leak in ["xa***01", "x.ai", "Incorrect", "SECRET", "disabled"] {
            assert!(!answer.text().contains(leak), "{}", answer.text());
        }
    }
}

#[tokio::test]
async fn a_request_that_is_too_dear_for_an_account_leaves_it_as_it_is() {
    let mock = Mock::start(Reply::chat()).await;
    mock.key("sk-one", [Reply::json(402, CANT_AFFORD), Reply::chat()]);
    let gateway = Gateway::start(Config::new(&mock)).await;
    assert_eq!(gateway.app().chat().await.ok().number("x-gatekeeper-attempts"), 2);
    assert_eq!(states(&gateway).await, ["ready", "ready"]);
    gateway.logged("can't afford").await;
    let mock = Mock::start(Reply::json(402, CANT_AFFORD)).await;
    let gateway = Gateway::start(Config::new(&mock)).await;
    let answer = gateway.app().chat().await;
    answer.is(502, "upstream_error");
    own_words(&answer, 502);
    assert_eq!(states(&gateway).await, ["ready", "ready"]);
}

/// What no small request of three buyers can have is money; a large one, or one buyer's, tells nothing of it.
#[tokio::test]
async fn an_account_that_can_not_afford_small_requests_of_three_buyers_is_out_of_money() {
    let mock = Mock::start(Reply::chat()).await;
    let licenses = ["JSTAR-CREDIT-0001", "JSTAR-CREDIT-0002", "JSTAR-CREDIT-0003"];
    let mut config = Config::new(&mock).keys("p", &["sk-one"]);
    for license in licenses {
        config = config.license(license, "free");
    }
    let gateway = Gateway::start(config).await;
    let ask = async |license: &str, cap: u64| {
        let body = client::chat(&json!({ "max_tokens": cap }));
        gateway.app().ask_as(license, &body).await
    };
    mock.answer([Reply::json(402, CANT_AFFORD)]);
    for license in licenses {
        ask(license, 4096).await.is(502, "upstream_error");
        ask(licenses[0], 100).await.is(502, "upstream_error");
    }
    ask(licenses[1], 100).await.is(502, "upstream_error");
    assert_eq!(states(&gateway).await, ["ready"], "large ones of three, small ones of two");
    mock.answer([Reply::chat()]);
    ask(licenses[0], 100).await.ok();
    mock.answer([Reply::json(402, CANT_AFFORD)]);
    for license in &licenses[1..] {
        ask(license, 100).await.is(502, "upstream_error");
        assert_eq!(states(&gateway).await, ["ready"], "there was an answer between");
    }
    ask(licenses[0], 100).await.is(502, "upstream_error");
    let told = key(&gateway, 0).await;
    assert_eq!((&told["state"], &told["why"]), (&json!("quarantined"), &json!("no_money")));
}

/// A request that is too large for one target may not be for the next.
#[tokio::test]
async fn too_large_a_request_goes_to_the_next_target() {
    let context = |message: &str, code: &str| {
        json!({ "error": { "message": message, "type": "invalid_request_error", "param": "messages", "code": code } })
            .to_string()
    };
    let long = "This model's maximum context length is 8192 tokens. However, your messages resulted in 9000 tokens.";
    let html = Reply::status(413)
        .header("content-type", "text/html")
        .write("<html><h1>413 Request Entity Too Large</h1><hr>nginx/SECRET</html>");
    let llama = json!({ "error": { "code": 400, "message": "the request exceeds the available context size",
        "type": "exceed_context_size_error", "n_prompt_tokens": 9000, "n_ctx": 8192 } });
    for (what, reply, alone, words) in [
        (
            "by its code",
            Reply::json(400, context("Too long.", "context_length_exceeded")),
            400,
            "Too long.",
        ),
        (
            "in words",
            Reply::json(400, context(long, "invalid_value")),
            400,
            "maximum context length",
        ),
        (
            "Anthropic's words",
            Reply::json(400, context("prompt is too long: 213462 tokens > 200000 maximum", "x")),
            400,
            "213462",
        ),
        ("llama.cpp's", Reply::json(400, llama.to_string()), 400, "available context size"),
        (
            "Gemini's",
            Reply::json(400, context("The input token count (1200000) exceeds the maximum", "400")),
            400,
            "1200000",
        ),
        ("OpenAI's tokens a minute", Reply::json(429, TOO_LARGE), 413, "too large"),
        ("a proxy's page", html, 413, "too large"),
    ] {
        let (mock, spare) = (Mock::start(reply).await, Mock::start(Reply::chat()).await);
        let gateway = Gateway::start(with_fallback(&mock, &spare)).await;
        let answer = gateway.app().chat().await;
        assert_eq!(answer.ok().header("x-gatekeeper-model"), Some("q/m2"), "{what}");
        assert_eq!(answer.number("x-gatekeeper-attempts"), 2, "{what}");
        assert_eq!(states(&gateway).await, ["ready", "ready", "ready"], "{what}");
        let gateway = Gateway::start(Config::new(&mock)).await;
        let answer = gateway.app().chat().await;
        own_words(&answer, alone);
        assert!(answer.text().contains(words), "{what}: {}", answer.text());
        assert_eq!(states(&gateway).await, ["ready", "ready"], "{what}");
        assert_eq!(gateway.messages(LICENSE).await, 0, "{what}");
    }
}

#[tokio::test]
async fn a_tool_call_that_cannot_be_read_is_asked_for_once_more() {
    let body = json!({ "error": { "message": "Failed to call a function. See 'failed_generation' for more details.",
        "type": "invalid_request_error", "code": "tool_use_failed",
        "failed_generation": "<function=weather>{\"city\": Oslo}</function>" } });
    let failed = Reply::json(400, body.to_string());
    for keys in [&["sk-one"][..], &["sk-one", "sk-two"]] {
        let mock = Mock::sequence([failed.clone(), Reply::chat()]).await;
        let gateway = Gateway::start(Config::new(&mock).keys("p", keys)).await;
        assert_eq!(gateway.app().chat().await.ok().number("x-gatekeeper-attempts"), 2);
        let mock = Mock::start(failed.clone()).await;
        let gateway = Gateway::start(Config::new(&mock).keys("p", keys)).await;
        let answer = gateway.app().chat().await;
        assert_eq!((answer.status, mock.count()), (400, 2), "{}", answer.text());
        assert_eq!(answer.error("code"), "tool_use_failed");
        assert_eq!(answer.error("failed_generation"), body["error"]["failed_generation"]);
        assert!(states(&gateway).await.iter().all(|state| state == "ready"));
        assert_eq!(gateway.messages(LICENSE).await, 0);
    }
}
