//! What the docs show first, one key and no fallback, on a provider's bad day: exactly that file, but for the provider's
//! address and the ports.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::json;
use tempfile::TempDir;

use crate::support::{
    Config, Gateway, Mock, Reply, Step, client, gateway::free_port, yaml::write_private,
};

const GROQ: &str = "https://api.groq.com/openai/v1";

fn repository(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// The first file that the README shows.
fn of_the_readme() -> String {
    let readme = repository("README.md");
    let (_, example) = readme.split_once("```yaml\n").unwrap();
    example.split_once("```").unwrap().0.to_owned()
}

async fn start(example: &str, mock: &Mock) -> Gateway {
    assert_eq!(example.matches("secret:").count(), 1, "one key");
    assert_eq!(example.matches(GROQ).count(), 1, "one provider");
    let address = || SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let (public, admin) = (address(), address());
    let base = format!("http://{}/v1", mock.addr);
    let yaml = format!(
        "server: {{ listen: \"{public}\" }}\nadmin: {{ listen: \"{admin}\" }}\n{}",
        example.replace(GROQ, &base)
    );
    let dir = Arc::new(TempDir::new().unwrap());
    let file = dir.path().join("gateway.yaml");
    write_private(&file, &yaml);
    let config = Config::empty().env("GROQ_API_KEY", "sk-one");
    let mut gateway = Gateway::spawn_file(dir, config, public, admin, &file);
    assert!(gateway.ready().await, "{}", gateway.logs());
    gateway
}

/// One 500, one reset, one short 429: the app gets its answer each time.
#[tokio::test]
async fn it_rescues_a_500_a_reset_and_a_short_429() {
    for (example, license, stream) in [
        (of_the_readme(), "BUYER-0001-ABCD", false),
        (repository("conf/examples/groq.yaml"), "JSTAR-DEMO-0001", true),
    ] {
        // A connection each: that one which was kept is closed meanwhile is no fault at all.
        let good = || if stream { Reply::stream() } else { Reply::chat() };
        let good = || good().header("connection", "close");
        let mock = Mock::start(good()).await;
        let gateway = start(&example, &mock).await;
        let pause = Reply::error(429).header("retry-after", "1");
        for (what, fault, least, most) in [
            ("a 500", Reply::error(500).header("connection", "close"), 300, 5000),
            ("a reset", Reply::instead([Step::Reset]), 300, 5000),
            ("a short 429", pause, 1000, 6000),
        ] {
            mock.answer([fault, good()]);
            let (before, began) = (mock.count(), Instant::now());
            let answer =
                gateway.app().ask_as(license, &client::chat(&json!({ "stream": stream }))).await;
            let took = began.elapsed();
            answer.ok();
            assert_eq!(answer.number("x-gatekeeper-attempts"), 2, "{what}");
            assert_eq!(mock.count() - before, 2, "{what}");
            let bounds = Duration::from_millis(least)..Duration::from_millis(most);
            assert!(bounds.contains(&took), "{what}: after {took:?}");
            println!("{what}, stream {stream}: answered after {took:?}");
        }
        assert_eq!(gateway.messages(license).await, 3, "each was one message");
    }
}
