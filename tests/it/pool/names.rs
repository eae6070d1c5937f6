//! A provider's name that nobody knows, that moves, and whose name server goes away.
//!
//! The gateway runs with files of its own for the look-up of names. Where it may not have them, the test
//! says so and ends.

use std::{fs, net::Ipv4Addr, path::PathBuf, process::Command, time::Duration};

use tempfile::TempDir;

use crate::support::{Config, Gateway, Mock, Reply, eventually};

const NAME: &str = "provider.test";
const HERE: &str = "127.0.0.1";
const MOVED: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
/// Between two look-ups of a name that is known; of one that is not, it is a second.
const REFRESH: Duration = Duration::from_secs(30);

/// What names lead to, for programs that run under this.
struct Names(TempDir);

impl Names {
    fn new() -> Option<Self> {
        let names = Self(TempDir::new().unwrap());
        names.lead_to(&[]);
        // Nobody answers there.
        let servers = "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n";
        fs::write(names.file("resolv.conf"), servers).unwrap();
        let words = names.under();
        let mut tried = Command::new(&words[0]);
        let works =
            tried.args(&words[1..]).arg("true").output().is_ok_and(|it| it.status.success());
        if !works {
            println!("SKIPPED: no program can have its own files here");
        }
        works.then_some(names)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// From now on the name leads there.
    fn lead_to(&self, addresses: &[&str]) {
        let lines = addresses.iter().map(|address| format!("{address} {NAME}\n"));
        fs::write(self.file("hosts"), lines.collect::<String>()).unwrap();
    }

    fn under(&self) -> Vec<String> {
        let mounts = ["hosts", "resolv.conf"].map(|name| {
            let file = self.file(name);
            format!("mount --bind {} /etc/{name}", file.display())
        });
        let script = format!("{} && exec \"$@\"", mounts.join(" && "));
        ["unshare", "--map-root-user", "--mount", "sh", "-c", &script, "gateway"]
            .map(str::to_owned)
            .into()
    }
}

#[tokio::test]
async fn a_name_may_be_unknown_move_and_lose_its_server() {
    let Some(names) = Names::new() else { return };
    let first = Mock::start(Reply::chat()).await;
    let second = first.beside(MOVED, Reply::chat()).await;
    let url = format!("http://{NAME}:{}/v1", first.addr.port());
    let under = names.under();
    let under: Vec<&str> = under.iter().map(String::as_str).collect();
    let config = Config::new(&first)
        .provider_at("p", &url, ", allow_private: true", &["sk-one"])
        .under(&under);
    let gateway = Gateway::start(config).await;
    // Nobody knows it: the app is told so, and no key is at fault.
    gateway.app().chat().await.is(502, "upstream_error");
    assert_eq!(gateway.status().await["keys"][0]["state"], "ready");
    let log = |words: &str| gateway.logs().matches(words).count();
    assert_eq!(log("provider.test can't be looked up"), 1);
    names.lead_to(&[HERE]);
    eventually("the name is known", Duration::from_secs(10), async || {
        log("provider.test can be looked up again") == 1
    })
    .await;
    gateway.app().chat().await.ok();
    assert_eq!((first.count(), second.count()), (1, 0));
    // Without a name server the last good address serves on.
    names.lead_to(&[]);
    eventually("the server is missed", REFRESH + Duration::from_secs(10), async || {
        log("provider.test can't be looked up") == 2
    })
    .await;
    gateway.app().chat().await.ok();
    assert_eq!((first.count(), second.count()), (2, 0));
    // It is back, and the name has moved.
    names.lead_to(&["127.0.0.2"]);
    eventually("the name is known again", Duration::from_secs(10), async || {
        log("provider.test can be looked up again") == 2
    })
    .await;
    for _ in 0..3 {
        gateway.app().chat().await.ok();
    }
    assert_eq!((first.count(), second.count()), (2, 3));
}
