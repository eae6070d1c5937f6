//! More than one redis-server: watched by Sentinel, or a cluster.

use std::{
    fs,
    process::{Child, Command, Stdio},
    time::Duration,
};

use tempfile::TempDir;

use super::{Redis, eventually, gateway::free_port, redis::Said};

/// A server that takes writes, a copy of it, and a sentinel that puts the copy in its place.
pub struct Watched {
    pub servers: Vec<Redis>,
    sentinel: Child,
    port: u16,
    _dir: TempDir,
}

impl Drop for Watched {
    fn drop(&mut self) {
        let _ = self.sentinel.kill();
        let _ = self.sentinel.wait();
    }
}

const SERVICE: &str = "orders";

impl Watched {
    pub async fn start() -> Self {
        let first = Redis::start().await;
        let copy = copy_of(first.port()).await;
        let (dir, port) = (TempDir::new().unwrap(), free_port());
        let conf = dir.path().join("sentinel.conf");
        let text = format!(
            "port {port}\nbind 127.0.0.1\ndir {}\nsentinel monitor {SERVICE} 127.0.0.1 {} 1\n\
             sentinel down-after-milliseconds {SERVICE} 400\nsentinel failover-timeout {SERVICE} 2000\n",
            dir.path().display(),
            first.port()
        );
        fs::write(&conf, text).unwrap();
        let sentinel = Command::new("redis-server")
            .arg(&conf)
            .arg("--sentinel")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-server is installed");
        let watched = Self { servers: vec![first, copy], sentinel, port, _dir: dir };
        watched.knows_a_copy().await;
        watched
    }

    pub fn url(&self) -> String {
        format!("redis+sentinel://127.0.0.1:{}/{SERVICE}", self.port)
    }

    /// Kills the server that takes writes and waits until its copy does; then gives that a new copy.
    pub async fn fail_over(&mut self) {
        self.servers.remove(0).kill();
        let next = self.servers[0].port().to_string();
        eventually("the copy is in its place", Duration::from_secs(20), || async {
            let asked = super::redis::ask_port(
                self.port,
                &["SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE],
            );
            let address = asked.map(Said::list).unwrap_or_default();
            address.get(1).is_some_and(|port| port.text() == next)
        })
        .await;
        self.servers.push(copy_of(self.servers[0].port()).await);
    }

    /// Sentinels look for copies every ten seconds.
    pub async fn knows_a_copy(&self) {
        let copy = format!("127.0.0.1:{}", self.servers[1].port());
        eventually("the sentinel knows the copy", Duration::from_secs(30), || async {
            let replicas = super::redis::ask_port(self.port, &["SENTINEL", "REPLICAS", SERVICE]);
            let replicas = replicas.map(Said::list).unwrap_or_default();
            replicas.into_iter().any(|replica| {
                let words: Vec<String> = replica.list().iter().map(Said::text).collect();
                let of = |name: &str| {
                    words.chunks(2).find(|pair| pair[0] == name).map(|pair| pair[1].clone())
                };
                of("name").as_deref() == Some(&*copy)
                    && of("master-link-status").as_deref() == Some("ok")
            })
        })
        .await;
    }
}

async fn copy_of(port: u16) -> Redis {
    Redis::start_with(&["--replicaof", &format!("127.0.0.1 {port}")]).await
}

/// Three servers, each with a third of the keys.
pub struct Cluster {
    pub servers: Vec<Redis>,
}

impl Cluster {
    pub async fn start() -> Self {
        let mut servers: Vec<Redis> = Vec::new();
        let thirds = [(0, 5460), (5461, 10922), (10923, 16383)];
        for (first, last) in thirds {
            let bus = free_port().to_string();
            let server = Redis::start_with(&[
                "--cluster-enabled",
                "yes",
                "--cluster-port",
                &bus,
                "--cluster-node-timeout",
                "2000",
                "--cluster-require-full-coverage",
                "no",
            ])
            .await;
            server.ask(&["CLUSTER", "ADDSLOTSRANGE", &first.to_string(), &last.to_string()]);
            if let Some(known) = servers.first() {
                let port = known.port().to_string();
                let info = known.ask(&["CONFIG", "GET", "cluster-port"]).list();
                server.ask(&["CLUSTER", "MEET", "127.0.0.1", &port, &info[1].text()]);
            }
            servers.push(server);
        }
        for server in &servers {
            eventually("the cluster is whole", Duration::from_secs(20), || async {
                let info = server.ask(&["CLUSTER", "INFO"]).text();
                info.contains("cluster_state:ok") && info.contains("cluster_slots_ok:16384")
            })
            .await;
        }
        Self { servers }
    }

    pub fn url(&self) -> String {
        let hosts: Vec<String> =
            self.servers.iter().map(|server| format!("127.0.0.1:{}", server.port())).collect();
        format!("redis+cluster://{}", hosts.join(","))
    }
}
