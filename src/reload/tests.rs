use super::*;

const FILE: &str = r#"server: { listen: "127.0.0.1:8080", threads: 2 }
admin: { listen: "127.0.0.1:9090" }
store: { kind: redis, url: "redis://localhost", on_store_down: lease }
licenses:
  sources:
    - static:
        keys:
          - { key: JSTAR-LISTED-0001, plan: free }
plans:
  free: { messages: 50/month, tokens: 1000/day, models: [fast] }
providers:
  p: { base_url: "http://127.0.0.1:1", keys: [ { id: p-1, secret: "env:PATH" } ] }
models:
  fast: [ p/m1 ]
"#;

fn settings(text: &str) -> Settings {
    config::tests::settings(text).0
}

/// The fields whose change waits when `from` becomes `to`, and the changes reported as live.
#[track_caller]
fn waits(from: &str, to: &str) -> (Vec<&'static str>, Vec<String>) {
    assert!(FILE.contains(from), "{from}");
    let (running, mut next) = (settings(FILE), settings(&FILE.replacen(from, to, 1)));
    let kept = keep_fixed(&mut next, &running);
    (kept, lines(changes(&running, &next)))
}

#[test]
fn everything_of_the_store_waits_for_a_start() {
    let none = Vec::<String>::new();
    for (from, to) in [
        ("redis://localhost", "redis://localhost:6380"),
        ("on_store_down: lease", "on_store_down: closed"),
        ("on_store_down: lease", "on_store_down: lease, unsafe_eviction: true"),
        ("on_store_down: lease", "keep: 9d"),
        ("on_store_down: lease", "path: elsewhere.db"),
    ] {
        assert_eq!(waits(from, to), (vec!["store"], none.clone()), "{to}");
    }
    // The default, written or not.
    assert_eq!(waits(", on_store_down: lease", ""), (Vec::new(), none));
}

#[test]
fn limits_of_requests_are_live() {
    let (kept, changes) = waits("threads: 2", "threads: 2, limits: { requests: 100 }");
    assert_eq!(kept, Vec::<&str>::new());
    assert_eq!(changes, ["server: limits.requests by memory → 100"]);
}

#[test]
fn a_listener_off_loopback_keeps_a_token_until_it_moves() {
    let (mut running, mut next) = (settings(FILE), settings(FILE));
    running.admin.listen = "0.0.0.0:9090".parse().unwrap();
    next.admin.no_token = true;
    assert!(check_closed(&next.admin).is_ok());
    assert!(keep_fixed(&mut next, &running).contains(&"admin.listen"));
    assert!(matches!(check_closed(&next.admin), Err(ReloadRefused::Opened(_))));
    next.admin.token = Some("a-token-of-some-length".into());
    assert!(check_closed(&next.admin).is_ok());
}
