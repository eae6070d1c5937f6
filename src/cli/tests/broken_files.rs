//! Ninety-two files with a common mistake each, and the output of `check` for each of them on the terminal:
//! the texts are in `broken_files.txt` beside this file. `SNAPSHOT_WRITE=1` rewrites it, to be reviewed
//! before it is committed.

use std::{env, fmt::Write as _, os::unix::fs::PermissionsExt};

use super::*;

const SNAPSHOT: &str = "src/cli/tests/broken_files.txt";

/// Valid; the mistakes are made in it.
const FILE: &str = "\
server: { listen: \"127.0.0.1:8080\" }
admin: { listen: \"127.0.0.1:9090\" }
licenses:
  sources:
    - static:
        keys:
          - { key: JSTAR-DEMO-0001, plan: pro }
providers:
  groq:
    base_url: \"https://api.groq.com/openai/v1\"
    keys:
      - { id: groq-1, secret: env:CARGO_PKG_NAME }
models:
  fast: [groq/llama]
plans:
  pro:
    messages: 1000/month
    tokens: 2000000/month
    models: [\"*\"]
";

const STATIC: &str = "    - static:
        keys:
          - { key: JSTAR-DEMO-0001, plan: pro }
";

/// What is replaced, and by what.
const EDITS: &[(&str, &str)] = &[
    // How YAML is written.
    ("    messages:", "   messages:"),
    ("    tokens:", "   tokens:"),
    ("    tokens:", "      tokens:"),
    ("    models:", "     models:"),
    ("    messages:", "\t  messages:"),
    ("messages: 1000", "messages:1000"),
    ("messages: 1000", "messages 1000"),
    ("messages: 1000", "messages:\u{a0}1000"),
    ("messages: 1000/month", "messages: 1000/month tokens: 5/month"),
    ("plan: pro }", "plan: pro"),
    ("plan: pro }", "plan: pro ]"),
    ("plan: pro }", "plan: pro }}"),
    ("[groq/llama]", "[groq/llama"),
    ("\"127.0.0.1:9090\" }", "\"127.0.0.1:9090\""),
    ("openai/v1\"", "openai/v1"),
    ("\"https://api.groq.com/openai/v1\"", "'https://api.groq.com/openai/v1"),
    ("\"https://api.groq.com/openai/v1\"", "\u{201c}https://api.groq.com/openai/v1\u{201d}"),
    ("[\"*\"]", "[*]"),
    ("[\"*\"]", "*"),
    ("env:CARGO_PKG_NAME", "${GROQ_API_KEY}"),
    ("env:CARGO_PKG_NAME", "$GROQ_API_KEY"),
    ("[groq/llama]", "@groq/llama"),
    ("plans:\n", "plans\n"),
    ("  pro:\n", "  pro\n"),
    ("plan: pro }", "plan: pro }\n          { key: JSTAR-DEMO-0002, plan: pro }"),
    ("providers:\n", "---\nproviders:\n"),
    ("  pro:\n", "  pro: &pro\n"),
    ("    messages: 1000/month\n", "    <<: { rate: 5/minute }\n    messages: 1000/month\n"),
    // Fields.
    ("messages:", "mesages:"),
    ("server:", "sever:"),
    ("base_url:", "baseUrl:"),
    (
        "    keys:\n      - { id: groq-1, secret: env:CARGO_PKG_NAME }\n",
        "    api_key: env:CARGO_PKG_NAME\n",
    ),
    ("    keys:\n      - { id: groq-1, secret: env:CARGO_PKG_NAME }\n", ""),
    ("    base_url: \"https://api.groq.com/openai/v1\"\n", ""),
    ("    models: [\"*\"]\n", ""),
    ("models:\n  fast: [groq/llama]\n", ""),
    ("plans:\n  pro:\n", "plans:\n  pro:\n    messages: 5/day\n"),
    ("models:\n", "admin: { listen: \"127.0.0.1:9091\" }\nmodels:\n"),
    ("    messages: 1000/month\n", "    messages:\n"),
    ("server: { listen: \"127.0.0.1:8080\" }", "server:"),
    ("server: { listen: \"127.0.0.1:8080\" }", "server: [8080]"),
    // Values.
    ("1000/month", "1000"),
    ("1000/month", "1000/mo"),
    ("1000/month", "1000 per month"),
    ("1000/month", "1,000/month"),
    ("1000/month", "-5/month"),
    ("2000000/month", "2M/month"),
    ("    models: [\"*\"]", "    rate: 20\n    models: [\"*\"]"),
    ("    models: [\"*\"]", "    price: 9.99\n    models: [\"*\"]"),
    ("    models: [\"*\"]", "    price: $9\n    models: [\"*\"]"),
    ("[\"*\"]", "fast"),
    ("[\"*\"]", "[fats]"),
    ("models:\n", "prices: { groq/llama: { input: 0,05, output: 1 } }\nmodels:\n"),
    ("models:\n", "prices:\n  groq/llama:\n    input: 0,05\n    output: 1\nmodels:\n"),
    ("models:\n", "prices: { groq/llama: { input: cheap, output: 1 } }\nmodels:\n"),
    ("models:\n", "budget: { day: 20 }\nmodels:\n"),
    ("\"127.0.0.1:8080\"", "8080"),
    ("\"127.0.0.1:8080\"", "\"127.0.0.1:0\""),
    ("\"127.0.0.1:8080\"", "\"0.0.0.0:8080\""),
    ("\"127.0.0.1:9090\"", "\"127.0.0.1:8080\""),
    ("\"127.0.0.1:9090\"", "\"0.0.0.0:9090\""),
    ("\"127.0.0.1:8080\" }", "\"127.0.0.1:8080\", grace: 5 minutes }"),
    ("\"127.0.0.1:8080\" }", "\"127.0.0.1:8080\", limits: { body: 10MB } }"),
    ("\"127.0.0.1:8080\" }", "\"127.0.0.1:8080\", behind_tls: yes }"),
    ("models:\n", "store: { kind: embeded, path: data/gatekeeper.db }\nmodels:\n"),
    ("models:\n", "filters: [license, rate_limit, route, qouta, meter]\nmodels:\n"),
    ("models:\n", "filters: [rate_limit, license, route, quota, meter]\nmodels:\n"),
    // Names.
    ("plan: pro }", "plan: por }"),
    ("[groq/llama]", "[grok/llama]"),
    ("[groq/llama]", "[llama]"),
    ("[groq/llama]", "llama"),
    ("[groq/llama]", "[]"),
    ("id: groq-1", "id: groq 1"),
    // Keys and secrets.
    ("env:CARGO_PKG_NAME", "gsk_0123456789abcdefghij"),
    ("env:CARGO_PKG_NAME", "file:not/there"),
    ("env:CARGO_PKG_NAME", "env:GATEKEEPER_NOT_SET"),
    ("env:CARGO_PKG_NAME", "sealed:v1:0123456789abcdef:AAAA"),
    ("JSTAR-DEMO-0001", "SHORT"),
    ("JSTAR-DEMO-0001", "12345678"),
    ("plan: pro }", "plan: pro }\n          - { key: jstar-demo-0001, plan: pro }"),
    // Shops.
    (STATIC, "    - lemonsqueezy: { store_id: 58213, products: { 588102: pro } }\n"),
    (STATIC, "    - lemonsqueezy: { products: { 588102: { 912744: pro } } }\n"),
    (STATIC, "    - gumroad: { products: { \"abc==\": pro } }\n"),
    (
        STATIC,
        "    - gumroad: { products: { \"abc==\": { \"*\": pro } }, webhook_secret: hunter2hunter2hunter2 }\n",
    ),
    (STATIC, "    - lemon: { store_id: 58213 }\n"),
];

/// Files that are no edit of a text.
fn others() -> Vec<(&'static str, Vec<u8>)> {
    let latin = [b"# M\xfcller\n".as_slice(), FILE.as_bytes()].concat();
    let utf16: Vec<u8> =
        [0xff, 0xfe].into_iter().chain(FILE.encode_utf16().flat_map(u16::to_le_bytes)).collect();
    vec![
        ("an empty file", Vec::new()),
        ("comments alone", b"# nothing here yet\n\n".to_vec()),
        ("saved as Latin-1", latin),
        ("saved as UTF-16", utf16),
        ("cut off in the middle", FILE.as_bytes()[..250].to_vec()),
        ("words", b"please serve my app\n".to_vec()),
        ("JSON, cut off", b"{ \"server\": { \"listen\": \"127.0.0.1:8080\" }, ".to_vec()),
    ]
}

/// Exit status and words of `check`, with the file's name in place of its path.
fn told(directory: &Path, bytes: &[u8]) -> String {
    let file = directory.join("gateway.yaml");
    fs::write(&file, bytes).unwrap();
    // It holds licence keys.
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let (result, out, err) = call(&["check", &file.display().to_string()]);
    let status = if result.unwrap() == ExitCode::SUCCESS { "good\n" } else { "" };
    let said = format!("{status}{err}{}", if status.is_empty() { out } else { String::new() });
    said.replace(&file.display().to_string(), "gateway.yaml")
}

#[test]
fn each_of_ninety_two_broken_files_is_told_as_the_snapshot_has_it() {
    let directory = tempfile::tempdir().unwrap();
    let edits = EDITS.iter().map(|(from, to)| {
        assert!(FILE.contains(from), "nothing to edit: {from}");
        let name = format!("{from:?} → {to:?}");
        (name, FILE.replacen(from, to, 1).into_bytes())
    });
    let others = others().into_iter().map(|(name, bytes)| (name.to_owned(), bytes));
    let mut found = String::new();
    let mut count = 0;
    for (name, bytes) in edits.chain(others) {
        count += 1;
        write!(found, "== {name}\n{}\n", told(directory.path(), &bytes)).unwrap();
    }
    assert_eq!(told(directory.path(), FILE.as_bytes()), "good\n");
    let snapshot = root().join(SNAPSHOT);
    if env::var_os("SNAPSHOT_WRITE").is_some() {
        fs::write(&snapshot, &found).unwrap();
    }
    let wanted = fs::read_to_string(&snapshot).unwrap();
    let differ = |(one, other): &(&str, &str)| one != other;
    let first = found.split("\n== ").zip(wanted.split("\n== ")).find(differ);
    assert!(found == wanted, "the first that differs (found, wanted): {first:#?}");
    assert_eq!(count, 92);
}
