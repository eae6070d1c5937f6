use super::{section::LONGEST, *};
use crate::config;

const FILE: &str = r#"server: { listen: "127.0.0.1:8080", threads: 2 }
admin: { listen: "127.0.0.1:9090", hosts: [a.example] }
licenses:
  buy_url: "https://example.com/buy"
  sources:
    - static:
        keys:
          - { key: JSTAR-LISTED-0001, plan: free }
          - { key: JSTAR-LISTED-0002, plan: free }
          - { key: JSTAR-LISTED-0003, plan: pro }
    - lemonsqueezy: { store_id: 58213, products: { 588102: { 912744: pro, "*": free } } }
plans:
  free: { messages: 50/month, tokens: 1000/day, models: [fast] }
  pro: { messages: 1000/month, models: ["*"], max_input_tokens: 8000 }
providers:
  p:
    base_url: "http://127.0.0.1:1"
    keys: [ { id: p-1, secret: "env:PATH", group: one }, { id: p-2, secret: "env:PATH" } ]
  q: { base_url: "http://127.0.0.1:2", keys: [ { id: q-1, secret: "env:PATH" } ] }
models:
  fast: [ p/m1, q/m1 ]
  strong: [ q/m2 ]
prices: { p/m1: { input: 0.05, output: 0.08 } }
budget: { day: $20 }
"#;

fn settings(text: &str) -> Settings {
    config::tests::settings(text).0
}

/// What changes when each `from` of the file becomes its `to`.
#[track_caller]
fn told(edits: &[(&str, &str)]) -> Vec<String> {
    let mut text = FILE.to_owned();
    for (from, to) in edits {
        assert!(text.contains(from), "{from}");
        text = text.replacen(from, to, 1);
    }
    changes(&settings(FILE), &settings(&text)).into_iter().map(|change| change.line).collect()
}

#[test]
fn the_same_file_changes_nothing() {
    assert_eq!(told(&[]), Vec::<String>::new());
    assert_eq!(told(&[("budget:", "# a comment\nbudget:")]), Vec::<String>::new());
    // Another order is no change where order means nothing.
    assert_eq!(
        told(&[("  strong: [ q/m2 ]\n", ""), ("  fast:", "  strong: [ q/m2 ]\n  fast:")]).len(),
        0
    );
}

#[test]
fn each_kind_of_thing_is_told_on_one_line() {
    for (from, to, line) in [
        ("1000/month", "2000/month", "plan pro: messages 1000/month → 2000/month"),
        (", tokens: 1000/day", "", "plan free: tokens 1000/day → unlimited"),
        ("models: [fast]", "models: [fast, strong]", "plan free: models fast → fast, strong"),
        (
            "  pro: {",
            "  team: { messages: 9/day, tokens: 9/day, models: [fast] }\n  pro: {",
            "plan team added (messages 9/day, tokens 9/day, models fast)",
        ),
        (
            ", { id: p-2, secret: \"env:PATH\" }",
            ", { id: p-2, secret: \"env:PATH\" }, { id: p-3, secret: \"env:PATH\", group: org-b, weight: 2 }",
            "provider p: key p-3 added (group org-b, weight 2)",
        ),
        (", { id: p-2, secret: \"env:PATH\" }", "", "provider p: key p-2 removed"),
        (
            "id: p-1, secret: \"env:PATH\"",
            "id: p-1, secret: \"env:HOME\"",
            "provider p: key p-1: secret changed",
        ),
        ("group: one }", "group: two }", "provider p: key p-1: group one → two"),
        ("group: one }", "group: one, state: off }", "provider p: key p-1: state on → off"),
        (
            "base_url: \"http://127.0.0.1:2\"",
            "base_url: \"http://127.0.0.1:3\", timeouts: { idle: 5s }",
            "provider q: base_url http://127.0.0.1:2 → http://127.0.0.1:3",
        ),
        ("[ p/m1, q/m1 ]", "[ q/m1, p/m1 ]", "model fast: targets p/m1, q/m1 → q/m1, p/m1"),
        (
            "strong: [ q/m2 ]",
            "strong: [ q/m2 ]\n  third: [ q/m3 ]",
            "model third added (targets q/m3)",
        ),
        (
            "strong: [ q/m2 ]",
            "strong: { targets: [ q/m2 ], delivery: whole }",
            "model strong: delivery stream → whole",
        ),
        (
            "output: 0.08",
            "output: 0.09",
            "price of p/m1: is input 0.05, output 0.08, cached 0.05 → input 0.05, output 0.09, cached 0.05",
        ),
        ("day: $20", "day: $30", "budget: day $20 → $30"),
        (
            "store_id: 58213",
            "store_id: 58213, test_mode: true",
            "licence source lemonsqueezy 58213: test_mode false → true",
        ),
        (
            "912744: pro, ",
            "",
            "licence source lemonsqueezy 58213: products 588102/912744 pro, 588102/* free → 588102/* free",
        ),
        ("[a.example]", "[]", "admin: hosts a.example → none"),
        ("threads: 2", "threads: 2, grace: 60s", "server: grace 300s → 60s"),
        (
            "threads: 2",
            "threads: 2, limits: { requests: 9 }",
            "server: limits.requests by memory → 9",
        ),
        ("budget:", "log: { level: debug }\nbudget:", "log: level info → debug"),
        (
            "budget:",
            "filters: [license, route, rate_limit, quota, meter]\nbudget:",
            "chain: filters license, rate_limit, route, quota, meter → license, route, rate_limit, quota, meter",
        ),
        (
            "{ key: JSTAR-LISTED-0002, plan: free }",
            "{ key: JSTAR-LISTED-0002, plan: pro }",
            "1 listed licence moved from plan free to pro",
        ),
        ("JSTAR-LISTED-0001", "jstar-listed-0009", "1 listed licence added (plan free)"),
    ] {
        let lines = told(&[(from, to)]);
        assert!(lines.iter().any(|told| told == line), "{line}: {lines:#?}");
        let most = if to.contains("timeouts") || to.contains("0009") { 2 } else { 1 };
        assert!(lines.len() <= most, "{lines:#?}");
    }
}

#[test]
fn a_provider_comes_and_goes_with_its_keys() {
    let gone = told(&[
        (
            "  q: { base_url: \"http://127.0.0.1:2\", keys: [ { id: q-1, secret: \"env:PATH\" } ] }\n",
            "",
        ),
        ("[ p/m1, q/m1 ]", "[ p/m1 ]"),
        ("[ q/m2 ]", "[ p/m2 ]"),
    ]);
    let expected = [
        "provider q removed",
        "model fast: targets p/m1, q/m1 → p/m1",
        "model strong: targets q/m2 → p/m2",
    ];
    assert_eq!(gone, expected);
}

#[test]
fn neither_secrets_nor_licences_are_ever_shown() {
    let lines = told(&[
        ("JSTAR-LISTED-0001", "JSTAR-LISTED-0008"),
        ("JSTAR-LISTED-0003", "JSTAR-LISTED-0007"),
        ("id: p-1, secret: \"env:PATH\"", "id: p-1, secret: \"env:HOME\""),
        ("hosts: [a.example]", "token: env:PATH"),
        ("day: $20", "day: $30"),
    ])
    .join("\n");
    let secrets = [std::env::var("PATH").unwrap(), std::env::var("HOME").unwrap()];
    for secret in secrets.iter().map(String::as_str).chain(["JSTAR"]) {
        assert!(!lines.contains(secret), "{lines}");
    }
    assert!(lines.contains("admin: token added"), "{lines}");
    assert!(lines.contains("1 listed licence removed (plan pro)"), "{lines}");
}

#[test]
fn long_values_are_cut() {
    let hosts: Vec<String> = (0..500).map(|n| format!("host-{n}.example")).collect();
    let lines = told(&[("[a.example]", &format!("[{}]", hosts.join(", ")))]);
    assert_eq!(lines.len(), 1);
    assert!(lines[0].chars().count() < 2 * LONGEST + 50 && lines[0].ends_with('…'), "{lines:?}");
}
