//! One buyer's prompts are nobody else's trouble: hostile ones, one a second, beside eight good buyers.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::{
    support::{Config, Gateway, LICENSE, Mock, Reply, Step, client},
    upstream::refusals::{CANT_AFFORD, TOO_LARGE, XAI_CONTENT, firewall},
};

const BUYERS: usize = 8;
const POISONER: &str = "JSTAR-POISON-0001";

/// Seconds of each kind.
fn seconds() -> u64 {
    std::env::var("GATEKEEPER_POISON_SECONDS").ok().and_then(|it| it.parse().ok()).unwrap_or(3)
}

/// Good answers of eight buyers beside prompts that are refused so; and what the poisoner was told.
async fn beside(refusal: Reply) -> (usize, Vec<u16>) {
    let mock = Mock::start(Reply::chat()).await;
    mock.text("POISON", refusal).key("GET", [Reply::json(200, r#"{"data":[]}"#)]);
    let mut config = Config::new(&mock).license(POISONER, "free");
    for buyer in 0..BUYERS {
        config = config.license(&license(buyer), "free");
    }
    let gateway = Gateway::start(config).await;
    let until = Instant::now() + Duration::from_secs(seconds());
    let buyers = (0..BUYERS).map(|buyer| {
        let app = gateway.app();
        async move {
            let mut served = 0_usize;
            while Instant::now() < until {
                app.chat_as(&license(buyer)).await.ok();
                served += 1;
                tokio::time::sleep(Duration::from_millis(40)).await;
            }
            served
        }
    });
    let poison = json!({ "messages": [{ "role": "user", "content": "POISON" }] });
    let poisoner = async {
        let mut told = Vec::new();
        while Instant::now() < until {
            told.push(gateway.app().ask_as(POISONER, &client::chat(&poison)).await.status);
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        told
    };
    let (served, told) = tokio::join!(futures_util::future::join_all(buyers), poisoner);
    let status = gateway.status().await;
    let ready = |key: &Value| key["state"] == "ready";
    assert!(status["keys"].as_array().unwrap().iter().all(ready), "{status}");
    assert_eq!(
        status["failed"].as_u64().unwrap(),
        told.iter().filter(|it| **it >= 500).count() as u64
    );
    (served.iter().sum(), told)
}

fn license(buyer: usize) -> String {
    format!("JSTAR-GOOD-{buyer:04}")
}

#[tokio::test]
async fn a_poisoner_hurts_no_other_buyer() {
    let kinds = [
        ("content", Reply::json(403, XAI_CONTENT), 400),
        ("firewall", firewall(), 400),
        ("too large", Reply::json(429, TOO_LARGE), 413),
        ("too dear", Reply::json(402, CANT_AFFORD), 502),
    ];
    let runs = kinds.map(|(kind, refusal, expected)| async move {
        let (served, told) = beside(refusal).await;
        assert!(told.iter().all(|status| *status == expected), "{kind}: {told:?}");
        println!("{kind}: {served} answers of {BUYERS} good buyers, all whole, beside {} hostile prompts", told.len());
        // One a second of each at the least, however busy the machine is.
        assert!(served >= BUYERS * seconds() as usize, "{kind}: {served}");
    });
    futures_util::future::join_all(runs).await;
}

/// Answers that take longer than the provider is waited for, of one licence alone: its own trouble, while others are
/// answered. Where another one waits in vain, too, it is the provider's.
#[tokio::test]
async fn the_slow_answers_of_one_licence_take_no_provider_from_others() {
    let mock = Mock::start(Reply::chat()).await;
    mock.text("POISON", Reply::instead([Step::Hang]));
    mock.key("GET", [Reply::instead([Step::Hang])]);
    let config = Config::new(&mock).timeouts("p", "first_byte: 600ms").license(POISONER, "free");
    let gateway = Gateway::start(config.license(&license(0), "free")).await;
    let poison = client::chat(&json!({ "messages": [{ "role": "user", "content": "POISON" }] }));
    let slow = async |key: &str| gateway.app().ask_as(key, &poison).await.status;
    gateway.app().chat_as(&license(0)).await.ok();
    for _ in 0..3 {
        let burst: [_; 6] = std::array::from_fn(|_| slow(POISONER));
        assert_eq!(futures_util::future::join_all(burst).await, [504; 6]);
        gateway.app().chat_as(&license(0)).await.ok();
    }
    let provider = async || gateway.status().await["providers"][0]["state"].clone();
    assert_ne!(provider().await, "sick");
    let both = (0..12).map(|nth| slow(if nth % 2 == 0 { POISONER } else { LICENSE }));
    futures_util::future::join_all(both).await;
    assert_eq!(provider().await, "sick");
}
