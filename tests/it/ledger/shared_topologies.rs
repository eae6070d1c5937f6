//! The store of several gateways behind Sentinel, as a cluster, with a password, over TLS.

use std::{fs, sync::Arc, time::Duration};

use crate::{
    ledger::shared_ledger::{agree, are_counting, start},
    ledger::shared_trouble::Load,
    support::{
        Config, LICENSE, Mock, Redis, Reply, ca, eventually, repeat, sse,
        topology::{Cluster, Watched},
    },
};

const PLAN: &str = "messages: 10000000/month, models: [fast]";

/// What the copy did not have yet, the gateways put back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_costs_no_answer_and_no_count() {
    let (mock, mut watched) = (Mock::start(Reply::chat()).await, Watched::start().await);
    let gateways = start(2, Config::new(&mock).plan("free", PLAN).redis(&watched.url())).await;
    for gateway in &gateways {
        gateway.app().chat().await.ok();
    }
    let load = Load::on(&gateways, 4, &[200]);
    let failovers: usize = repeat::times("GATEKEEPER_FAILOVERS", 2);
    for turn in 0..failovers {
        if turn > 0 {
            watched.knows_a_copy().await;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        watched.fail_over().await;
        are_counting(&gateways).await;
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    let served = load.end().await + 2;
    assert_eq!(mock.count() as u64, served);
    agree(&gateways, LICENSE, served, served * sse::TOKENS).await;
    println!("{failovers} failovers under load: {served} answers, all of them counted once");
}

/// Licences lie on all three servers. When one dies, those of the others are served as ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_counts_like_one_server_and_loses_a_third_at_most() {
    let (mock, mut cluster) = (Mock::start(Reply::chat()).await, Cluster::start().await);
    let keys: Vec<String> = (0..12).map(|nth| format!("CLUSTER-TEST-{nth:04}")).collect();
    let mut config = Config::new(&mock)
        .plan("free", "messages: 1000/month, models: [fast]")
        .redis(&cluster.url())
        .store_with("on_store_down: closed");
    for key in &keys {
        config = config.license(key, "free");
    }
    let gateways = start(2, config).await;
    for key in &keys {
        for turn in 0..4 {
            gateways[turn % 2].app().chat_as(key).await.ok();
        }
        agree(&gateways, key, 4, 4 * sse::TOKENS).await;
    }
    for server in &cluster.servers {
        let kept = server.ask(&["KEYS", "gk:*:used"]).list().len();
        assert!(kept > 0, "a server without a licence");
    }
    cluster.servers[0].kill();
    eventually("the others serve on", Duration::from_secs(20), || async {
        let mut decided = 0;
        for key in &keys {
            let answer = gateways[0].app().chat_as(key).await;
            match answer.status {
                200 => decided += 1,
                _ => drop(answer.is(503, "store_unavailable")),
            }
        }
        (1..12).contains(&decided)
    })
    .await;
    cluster.servers[0].restart().await;
    eventually("all are decided again", Duration::from_secs(30), || async {
        let mut decided = 0;
        for key in &keys {
            decided += usize::from(gateways[0].app().chat_as(key).await.status == 200);
        }
        decided == 12
    })
    .await;
}

/// A plain URL that leads to a node of a cluster leads to the cluster.
#[tokio::test]
async fn a_node_of_a_cluster_is_recognized() {
    let (mock, cluster) = (Mock::start(Reply::chat()).await, Cluster::start().await);
    let url = format!("redis://127.0.0.1:{}", cluster.servers[0].port());
    let mut config = Config::new(&mock).redis(&url);
    for nth in 0..9 {
        config = config.license(&format!("CLUSTER-NODE-{nth:04}"), "free");
    }
    let gateways = start(1, config).await;
    for nth in 0..9 {
        gateways[0].app().chat_as(&format!("CLUSTER-NODE-{nth:04}")).await.ok();
    }
}

#[tokio::test]
async fn a_password_stands_outside_the_file_and_is_needed() {
    let mock = Mock::start(Reply::chat()).await;
    let redis = Redis::start().await;
    redis.ask(&["CONFIG", "SET", "requirepass", "hunter2-hunter2"]);
    let url = format!("redis://:hunter2-hunter2@127.0.0.1:{}", redis.port());
    let config = Config::new(&mock).redis("env:TEST_REDIS_URL").env("TEST_REDIS_URL", &url);
    let gateways = start(1, config).await;
    gateways[0].app().chat().await.ok();
    assert!(!gateways[0].logs().contains("hunter2"), "{}", gateways[0].logs());
    assert!(!gateways[0].status().await.to_string().contains("hunter2"));
}

#[tokio::test]
async fn the_store_is_reached_over_tls() {
    let mock = Mock::start(Reply::chat()).await;
    let dir = Arc::new(tempfile::TempDir::new().unwrap());
    let pair = ca::issue(&["localhost"]);
    let path = |name: &str| dir.path().join(name).display().to_string();
    fs::write(path("redis.pem"), &pair.cert).unwrap();
    fs::write(path("redis.key"), &pair.key).unwrap();
    fs::write(path("ca.pem"), ca::root()).unwrap();
    let tls = crate::support::gateway::free_port().to_string();
    let redis = Redis::start_with(&[
        "--tls-port",
        &tls,
        "--tls-cert-file",
        &path("redis.pem"),
        "--tls-key-file",
        &path("redis.key"),
        "--tls-ca-cert-file",
        &path("ca.pem"),
        "--tls-auth-clients",
        "no",
    ])
    .await;
    let config = Config::new(&mock)
        .redis(&format!("rediss://localhost:{tls}"))
        .env("SSL_CERT_FILE", &path("ca.pem"));
    let gateways = start(1, config).await;
    gateways[0].app().chat().await.ok();
    assert_eq!(redis.ask(&["KEYS", "gk:*:used"]).list().len(), 1);
    // And nobody else's certificate is taken.
    let stranger = Config::new(&mock).redis(&format!("rediss://localhost:{tls}"));
    let stranger = crate::support::Gateway::start(stranger).await;
    stranger.app().chat().await.is(503, "store_unavailable");
}
