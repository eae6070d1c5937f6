//! What an operator does about one buyer at one of several gateways holds at all of them.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::{
    ledger::shared_ledger::{Fleet, are_counting},
    license_admin::operator::{done, order, show},
    support::{
        Answer, Config, Gateway, LICENSE, Mock, Redis, Reply, Says, Shop, eventually,
        shop::{BOUGHT, license_key},
    },
};

const PLAN: &str = "messages: 4/month, tokens: 100000/month, models: [fast]";

fn messages(shown: &Value) -> [u64; 2] {
    ["limit", "used"].map(|name| shown["limits"]["messages"][name].as_u64().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grant_at_one_gateway_counts_at_all_and_is_not_lost_with_the_store() {
    let mut fleet = Fleet::start(2, PLAN, Reply::chat(), "").await;
    for _ in 0..2 {
        fleet.gateways[0].app().chat().await.ok();
        fleet.gateways[1].app().chat().await.ok();
    }
    fleet.gateways[1].app().chat().await.is(402, "quota_exceeded");
    let more = json!({ "messages": 2, "id": "one" });
    let granted = done(&fleet.gateways[0], "grant", LICENSE, &more).await;
    assert_eq!((messages(&granted), &granted["done"]["told"]), ([6, 4], &json!(true)));
    // At once.
    assert_eq!(messages(&show(&fleet.gateways[1], LICENSE).await), [6, 4]);
    let answer = fleet.gateways[1].app().chat().await;
    assert_eq!(answer.ok().number("x-quota-messages-remaining"), 1);
    done(&fleet.gateways[0], "grant", LICENSE, &more).await;
    done(&fleet.gateways[1], "grant", LICENSE, &json!({ "messages": 1, "id": "two" })).await;
    // The store forgets everything; the gateways do not.
    fleet.redis.flush();
    fleet.is_counting().await;
    fleet.used_is(5, 5 * crate::support::sse::TOKENS).await;
    for gateway in &fleet.gateways {
        assert_eq!(messages(&show(gateway, LICENSE).await), [7, 5]);
    }
    fleet.gateways[0].restart().await;
    fleet.is_counting().await;
    assert_eq!(messages(&show(&fleet.gateways[0], LICENSE).await), [7, 5]);
    fleet.gateways[0].app().chat().await.ok();
    fleet.gateways[1].app().chat().await.ok();
    for gateway in &fleet.gateways {
        let refused = gateway.app().chat().await;
        refused.is(402, "quota_exceeded");
        assert!(refused.text().contains("all 7 messages"), "{}", refused.text());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn grants_and_resets_at_once_at_several_gateways_are_exact() {
    let plan = "messages: 1000/month, models: [fast]";
    let fleet = Fleet::start(3, plan, Reply::chat(), "").await;
    for answer in fleet.ask(30, &crate::support::client::chat(&json!({}))).await {
        answer.ok();
    }
    fleet.used_is(30, 0).await;
    let gateways = Arc::new(fleet.gateways);
    let mut asking = JoinSet::new();
    for nth in 0..20 {
        let gateways = gateways.clone();
        asking.spawn(async move {
            let more = json!({ "messages": 5, "id": format!("id-{nth}") });
            done(&gateways[nth % 3], "grant", LICENSE, &more).await;
            if nth < 6 {
                done(&gateways[nth % 3], "reset", LICENSE, &json!({})).await;
            }
        });
    }
    asking.join_all().await;
    for gateway in gateways.iter() {
        assert_eq!(messages(&show(gateway, LICENSE).await), [1100, 0]);
    }
    // Forgiven once, not six times: what comes now counts.
    for gateway in gateways.iter() {
        gateway.app().chat().await.ok();
    }
    eventually("all three count", Duration::from_secs(5), || async {
        messages(&show(&gateways[0], LICENSE).await) == [1100, 3]
    })
    .await;
}

#[tokio::test]
async fn without_the_store_a_grant_is_told_later_and_a_reset_is_refused() {
    let mut fleet = Fleet::start(2, PLAN, Reply::chat(), "").await;
    fleet.gateways[0].app().chat().await.ok();
    fleet.used_is(1, crate::support::sse::TOKENS).await;
    fleet.redis.kill();
    let more = json!({ "key": LICENSE, "messages": 3, "id": "dark" });
    let granted = order(&fleet.gateways[0], "grant", &more).await;
    assert_eq!(granted.status, 202, "{}", granted.text());
    assert_eq!(granted.json()["done"]["told"], false);
    let again = order(&fleet.gateways[0], "grant", &more).await;
    assert_eq!(again.json()["done"]["repeated"], true, "{}", again.text());
    let reset = order(&fleet.gateways[0], "reset", &json!({ "key": LICENSE })).await;
    assert_eq!((reset.status, reset.error("code")), (503, json!("store_unavailable")));
    let shown = order(&fleet.gateways[0], "show", &json!({ "key": LICENSE })).await.json();
    assert_eq!((&shown["store"], &shown["limits"]), (&json!("down"), &Value::Null));
    fleet.redis.restart().await;
    eventually("the other gateway sees it", Duration::from_secs(20), || async {
        let shown = show(&fleet.gateways[1], LICENSE).await;
        shown["store"] == "up" && messages(&shown) == [7, 1]
    })
    .await;
}

/// Whether it is refused everywhere, or nowhere, within a second.
async fn soon_everywhere(gateways: &[Gateway], key: &str, status: u16) {
    let began = Instant::now();
    for gateway in gateways {
        eventually("every gateway says the same", Duration::from_secs(1), || async {
            gateway.app().chat_as(key).await.status == status
        })
        .await;
    }
    assert!(began.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn a_revoked_licence_is_refused_at_every_gateway() {
    let (mock, shop, redis) =
        (Mock::start(Reply::chat()).await, Shop::open().await, Redis::start().await);
    shop.sells(BOUGHT, Says::license());
    let config = Config::new(&mock).lemonsqueezy(&shop).redis(&redis.url());
    let mut gateways = crate::ledger::shared_ledger::start(2, config.clone()).await;
    for key in [LICENSE, BOUGHT] {
        soon_everywhere(&gateways, key, 200).await;
        done(&gateways[0], "revoke", key, &json!({})).await;
        soon_everywhere(&gateways, key, 403).await;
        assert_eq!(show(&gateways[1], key).await["status"], "revoked");
    }
    // One that lost its disk, and the store its memory: each has it from the other.
    let third = Gateway::start(config.clone()).await;
    gateways.push(third);
    soon_everywhere(&gateways, LICENSE, 403).await;
    redis.flush();
    are_counting(&gateways).await;
    gateways.push(Gateway::start(config).await);
    for key in [LICENSE, BOUGHT] {
        soon_everywhere(&gateways, key, 403).await;
    }
    gateways[1].restart().await;
    soon_everywhere(&gateways, LICENSE, 403).await;
    // Another gateway takes it back.
    for key in [LICENSE, BOUGHT] {
        done(&gateways[1], "restore", key, &json!({})).await;
        soon_everywhere(&gateways, key, 200).await;
    }
    gateways[0].restart().await;
    gateways[0].app().chat().await.ok();
    assert_eq!(status_of(&gateways[2], &license_key(5)).await, 404);
}

async fn status_of(gateway: &Gateway, key: &str) -> u16 {
    let answer: Answer = order(gateway, "show", &json!({ "key": key })).await;
    answer.status
}
