//! A gateway that shares its core with a busy program: its own standing still is no outage of Redis.

use std::{
    process::{Child, Command, Stdio},
    sync::Arc,
};

use tokio::task::JoinSet;

use crate::support::{Config, Gateway, Mock, Redis, Reply, eventually};

/// Ends with the test.
struct Busy(Child);

impl Busy {
    fn on(core: &str) -> Self {
        let script = "while :; do :; done";
        let mut child = Command::new("taskset");
        child.args(["-c", core, "sh", "-c", script]).stdin(Stdio::null());
        Self(child.spawn().expect("taskset is installed"))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Every request is of a licence that the gateway has not seen yet, so none has a lease to fall back on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_is_refused_because_the_gateway_shares_its_core() {
    let asked = std::env::var("GATEKEEPER_BUSY_REQUESTS").ok().and_then(|all| all.parse().ok());
    let requests: usize = asked.unwrap_or(300);
    let (mock, redis) = (Mock::start(Reply::chat()).await, Redis::start().await);
    let mut config = Config::new(&mock).redis(&redis.url()).under(&["taskset", "-c", "0"]);
    let key = |nth: usize| format!("JSTAR-BUSY-{nth:05}");
    for nth in 0..requests {
        config = config.license(&key(nth), "free");
    }
    let gateway = Arc::new(Gateway::start(config).await);
    eventually("the store is up", std::time::Duration::from_secs(20), || async {
        gateway.metrics().await.sum("gatekeeper_store_up", &[]) == 1.0
    })
    .await;
    let _busy = [Busy::on("0"), Busy::on("0")];
    let mut apps = JoinSet::new();
    for first in 0..8 {
        let gateway = gateway.clone();
        apps.spawn(async move {
            for nth in (first..requests).step_by(8) {
                gateway.app().chat_as(&key(nth)).await.ok();
            }
        });
    }
    while let Some(done) = apps.join_next().await {
        done.unwrap();
    }
    assert_eq!(mock.count(), requests);
}
