//! One mistake in each file, and its message.

use super::{edited, problems, with};

/// What is replaced in the small file, by what, and the problem.
const EDITS: &[(&str, &str, &str)] = &[
    ("messages:", "mesages:", "5:11: plans.free.mesages: unknown field; did you mean `messages`?"),
    (
        "50/month",
        "50/moth",
        "5:21: plans.free.messages: `50/moth`: expected a limit like `50/month`; per minute, hour, day or month",
    ),
    (
        "50/month",
        "50",
        "5:21: plans.free.messages: expected a limit like `50/month`, found the number `50`",
    ),
    (
        "50/month",
        "[50]",
        "5:21: plans.free.messages: expected a limit like `50/month`, found a list",
    ),
    ("50/month", "", "5:11: plans.free.messages: has no value"),
    (
        "models: [fast]",
        "models: [fats]",
        "5:58: plans.free.models[0]: unknown model `fats`; did you mean `fast`?",
    ),
    (
        ", models: [fast]",
        "",
        "5:9: plans.free.models: missing: Public model names, or `*` for all.",
    ),
    (
        "plan: free",
        "plan: fre",
        "3:54: licenses.sources[0].static.keys[0].plan: unknown plan `fre`; did you mean `free`?",
    ),
    (
        "JSTAR-DEMO-0001",
        "SHORT",
        "3:31: licenses.sources[0].static.keys[0].key: a licence key is 8 to 128 printable ASCII characters, none of them a space",
    ),
    (
        "JSTAR-DEMO-0001",
        "12345678",
        "3:31: licenses.sources[0].static.keys[0].key: expected text, found a number (text that looks like this needs quotes)",
    ),
    (
        "{ key: JSTAR-DEMO-0001, plan: free }",
        "",
        "3:5: licenses.sources: no licence key in any source: every request would be refused",
    ),
    (
        "plan: free }]",
        "plan: free }, { key: ' jstar-demo-0001', plan: free }]",
        "3:69: licenses.sources[0].static.keys[1].key: the same licence key (case does not count) as on line 3",
    ),
    (
        "static: { keys: [{ key: JSTAR-DEMO-0001, plan: free }] }",
        "lemonsqueezy: { products: { 1: { 2: free } } }",
        "3:21: licenses.sources[0].lemonsqueezy.store_id: missing: Settings > Stores. Keys of every other store are refused.",
    ),
    (
        "static: { keys: [{ key: JSTAR-DEMO-0001, plan: free }] }",
        "lemonsqueezy: { store_id: 1, products: { x: { 2: free } } }",
        "3:48: licenses.sources[0].lemonsqueezy.products.x: expected the shop's number for it, like `588102`",
    ),
    (
        "static: { keys: [{ key: JSTAR-DEMO-0001, plan: free }] }",
        "lemonsqueezy: { store_id: 1, products: { 1: { 2: fre } } }",
        "3:56: licenses.sources[0].lemonsqueezy.products.1.2: unknown plan `fre`; did you mean `free`?",
    ),
    (
        "static: { keys: [{ key: JSTAR-DEMO-0001, plan: free }] }",
        "lemonsqueezy: { store_id: 1, products: {} }",
        "3:46: licenses.sources[0].lemonsqueezy.products: must not be empty",
    ),
    (
        "static: { keys: [{ key: JSTAR-DEMO-0001, plan: free }] }",
        "gumroad: { products: { \"a==\": { \"*\": free } }, webhook_secret: hunter2hunter2hunter2 }",
        "3:70: licenses.sources[0].gumroad.webhook_secret: expected `env:NAME` or `file:PATH`",
    ),
    (
        "static: { keys: [{ key: JSTAR-DEMO-0001, plan: free }] }",
        "gumroad: { products: { \"a==\": { \"*\": free } }, webhook_secret: env:CARGO_PKG_NAME }",
        "3:70: licenses.sources[0].gumroad.webhook_secret: shorter than 16 characters",
    ),
    (
        "static: { keys: [{ key: JSTAR-DEMO-0001, plan: free }] }",
        "gumroad: { products: { \"a==\": { \"*\": free } }, base_url: \"http://shop.test\" }",
        "3:64: licenses.sources[0].gumroad.base_url: plain http would show keys and prompts on the way; use https, or add `allow_private: true` if the way is your own",
    ),
    ("static", "statik", "3:7: licenses.sources[0].statik: unknown field; did you mean `static`?"),
    ("[groq/", "[groqq/", "12:10: models.fast[0]: unknown provider `groqq`; did you mean `groq`?"),
    (
        "[groq/llama-3.1-8b-instant]",
        "[llama]",
        "12:10: models.fast[0]: `llama`: expected `provider/model`, like `groq/llama-3.1-8b-instant`: a provider of this file and its own name for the model",
    ),
    (
        "[groq/llama-3.1-8b-instant]",
        "fastt",
        "12:9: models.fast: unknown model `fastt`; did you mean `fast`?",
    ),
    (
        "[groq/llama-3.1-8b-instant]",
        "{ accepts: [file] }",
        "12:9: models.fast: missing `targets`: a list of `provider/model`",
    ),
    (
        "env:CARGO_PKG_NAME",
        "gsk_do_not_show",
        "10:31: providers.groq.keys[0].secret: a secret must not stand here in clear: seal it with `gatekeeper seal`, or use `env:NAME` or `file:PATH`",
    ),
    (
        "env:CARGO_PKG_NAME",
        "env:GATEKEEPER_NOT_SET",
        "10:31: providers.groq.keys[0].secret: environment variable GATEKEEPER_NOT_SET is not set",
    ),
    (
        "env:CARGO_PKG_NAME",
        "file:not/there",
        "10:31: providers.groq.keys[0].secret: not/there: No such file or directory (os error 2)",
    ),
    (
        "env:CARGO_PKG_NAME",
        "\"sealed:v1:0123456789abcdef:AAAA\"",
        "10:31: providers.groq.keys[0].secret: sealed, but there is no vault; add `vault: { kek: file:conf/secrets/kek }`",
    ),
    (
        "id: groq-1",
        "id: groq 1",
        "10:15: providers.groq.keys[0].id: `groq 1`: a name is 1 to 64 of letters, digits, `.`, `_`, `-`, and begins with a letter or digit",
    ),
    ("NAME }", "NAME, weight: 0 }", "10:59: providers.groq.keys[0].weight: `0`: must be 1 to 1000"),
    (
        "NAME }",
        "NAME, state: of }",
        "10:58: providers.groq.keys[0].state: `of`: unknown value; expected one of on, off; did you mean `off`?",
    ),
    (
        "NAME }",
        "NAME }\n      - { id: groq-1, secret: env:CARGO_PKG_NAME }",
        "11:15: providers.groq.keys[1].id: duplicate key id `groq-1`; it stands on line 10 already",
    ),
    (
        "    keys:\n      - { id: groq-1, secret: env:CARGO_PKG_NAME }\n",
        "",
        "8:5: providers.groq.keys: missing: this provider requires at least one API key",
    ),
    (
        "    base_url",
        "    strategy: fastst\n    base_url",
        "8:15: providers.groq.strategy: `fastst`: unknown value; expected one of round_robin, least_busy, fastest; did you mean `fastest`?",
    ),
    (
        "    base_url",
        "    budget: { day: 20 }\n    base_url",
        "8:20: providers.groq.budget.day: expected dollars like `$20`, found the number `20`",
    ),
    (
        "    base_url",
        "    timeouts: { idle: 0s }\n    base_url",
        "8:23: providers.groq.timeouts.idle: must be more than zero",
    ),
    (
        "    base_url",
        "    dialect: openia\n    base_url",
        "8:14: providers.groq.dialect: `openia`: unknown value; expected one of openai, anthropic, gemini; did you mean `openai`?",
    ),
    (
        "  groq:\n",
        "  groq:\n    base_url: https://example.com\n",
        "9:5: duplicate key `base_url`; it stands on line 8 already",
    ),
    (
        "  groq:\n",
        "  vault: { base_url: stand-in }\n  groq:\n",
        "7:3: providers.vault: this name is taken by the vault itself",
    ),
];

/// Lines added to the small file, from line 13 on, and the problem.
const LINES: &[(&str, &str)] = &[
    ("sever: {}", "13:1: sever: unknown field; did you mean `server`?"),
    (
        "server: { listen: \"0.0.0.0:80\" }",
        "13:19: server.listen: licence keys would cross the network in clear: set `tls`, or `behind_tls: true` where something in front of the gateway speaks TLS",
    ),
    (
        "server: { listen: localhost }",
        "13:19: server.listen: `localhost`: expected an IP address and a port, like `127.0.0.1:8080` or `[::]:8080`",
    ),
    ("server: { listen: \"127.0.0.1:9090\" }", "1:1: admin.listen: the same as server.listen"),
    (
        "server: { threads: two }",
        "13:20: server.threads: expected a whole number, found text `two`",
    ),
    ("server: { threads: 0 }", "13:20: server.threads: `0`: must be 1 to 1024"),
    (
        "server: { behind_tls: yes }",
        "13:23: server.behind_tls: expected true or false, found text `yes`",
    ),
    (
        "server: { grace: 5 }",
        "13:18: server.grace: expected a duration like `30s`, found the number `5`",
    ),
    (
        "server: { grace: 5 minutes }",
        "13:18: server.grace: `5 minutes`: expected a duration like `500ms`, `30s`, `5m`, `24h` or `90d`",
    ),
    (
        "server: { trusted_proxies: [10.0.0.0/33] }",
        "13:29: server.trusted_proxies[0]: `10.0.0.0/33`: expected a network like `10.0.0.0/8` or `fd00::/8`",
    ),
    (
        "server: { limits: { body: 10MB } }",
        "13:27: server.limits.body: `10MB`: expected a size like `64KiB`, `10MiB` or `1GiB`",
    ),
    (
        "server: { tls: { cert: a.pem } }",
        "13:16: server.tls.key: missing: PEM file: the private key.",
    ),
    ("server: [1]", "13:9: server: expected a mapping, found a list"),
    (
        "admin: { listen: \"0.0.0.0:9090\" }",
        "13:18: admin.listen: off loopback the admin listener needs a `token` (`env:NAME` or `file:PATH`)",
    ),
    (
        "store: { kind: redis, url: redis://localhost, on_store_down: opn }",
        "13:62: store.on_store_down: `opn`: unknown value; expected one of lease, closed",
    ),
    (
        "store: { kind: redis }",
        "13:16: store.url: missing: where Redis is, like `redis://10.0.0.5:6379`",
    ),
    (
        "store: { kind: redis, url: \"redis://:hunter2@10.0.0.5\" }",
        "13:28: store.url: a password must not stand here in clear: use `env:NAME` or `file:PATH`",
    ),
    (
        "store: { kind: redis, url: redis+sentinel://10.0.0.5 }",
        "13:28: store.url: after the sentinels comes `/` and the name of the service",
    ),
    ("store: { url: redis://localhost }", "13:10: store.url: goes with `kind: redis` only"),
    (
        "budget: { day: $20.125 }",
        "13:16: budget.day: `$20.125`: expected dollars like `$20` or `$0.50`",
    ),
    ("budget: { day: $0 }", "13:16: budget.day: `$0`: must be more than zero"),
    (
        "budget: { day: $20, waste_per_licence: 0.1 }",
        "13:40: budget.waste_per_licence: expected a share like `10%`, found the number `0.1`",
    ),
    (
        "budget: { day: $20, waste_per_licence: 101% }",
        "13:40: budget.waste_per_licence: `101%`: expected a share like `10%` or `2.5%`, at most `100%`",
    ),
    ("budget: { month: $20 }", "13:11: budget.month: unknown field"),
    ("budget:", "13:7: budget.day: missing: Dollars a day (UTC), like `$20`."),
    (
        "prices: { groq/x: { input: 0.0000001, output: 2 } }",
        "13:28: prices.groq/x.input: `0.0000001`: expected dollars per million tokens with at most 6 decimals, like `0.05`",
    ),
    (
        "prices: { groq/x: { input: 1, output: 2, cached: 1000001 } }",
        "13:50: prices.groq/x.cached: `1000001`: too much: at most 1000000 dollars per million tokens",
    ),
    (
        "prices: { grok/x: { input: 1, output: 2 } }",
        "13:11: prices.grok/x: unknown provider `grok`; did you mean `groq`?",
    ),
    (
        "prices: { groq/x: { input: -1, output: 2 } }",
        "13:28: prices.groq/x.input: `-1`: must be 0 or more",
    ),
    ("log: { access: stdour }", "13:16: log.access: expected `stdout`, `off` or `file:PATH`"),
    (
        "log: { level: inf }",
        "13:15: log.level: `inf`: unknown value; expected one of off, error, warn, info, debug, trace; did you mean `info`?",
    ),
    ("admin: { token: sealed:v1:x }", "13:17: admin.token: expected `env:NAME` or `file:PATH`"),
    ("vault: { kek: 5ecret }", "13:15: vault.kek: expected `env:NAME` or `file:PATH`"),
    (
        "vault: { kek: file:not/there }",
        "13:15: vault.kek: not/there does not exist; `gatekeeper seal` makes it",
    ),
    (
        "filters: [rate_limit, license, route, quota, meter]",
        "13:11: filters[0]: `rate_limit` must stand after `license`",
    ),
    (
        "filters:\n  - license\n  - qouta",
        "15:5: filters[1]: unknown filter `qouta`; did you mean `quota`?",
    ),
    (
        "filters: [meter]",
        "13:10: filters: the chain has no `license` filter: requests would need no licence",
    ),
    ("filters: []", "13:10: filters: must not be empty"),
    (
        "filters: [license, license]",
        "13:20: filters[1]: filter `license` stands twice in the chain",
    ),
    (
        "filters: [license: { a: 1, a: 2 }]",
        "13:28: duplicate key `a`; it stands on line 13 already",
    ),
    (
        "  smart1: { smart: { simple: fast } }",
        "13:20: models.smart1.smart.complex: missing: The model for hard requests.",
    ),
    (
        "  auto: { smart: { simple: fats, complex: fast } }",
        "13:28: models.auto.smart.simple: unknown model `fats`; did you mean `fast`?",
    ),
    (
        "  auto: { smart: { simple: fast, complex: best } }\n  best: auto",
        "13:43: models.auto.smart.complex: `best` is a smart model itself",
    ),
    (
        "  auto: { smart: { simple: fast, complex: fast, threshold: 1.5 } }",
        "13:60: models.auto.smart.threshold: `1.5`: expected a number from 0 to 1, with at most two decimals",
    ),
    (
        "  auto: { smart: { simple: fast, complex: fast }, targets: [groq/a] }",
        "13:60: models.auto.targets: belongs to the two models of `smart`",
    ),
    (
        "  reply: { targets: [groq/a], delivery: hole }",
        "13:41: models.reply.delivery: `hole`: unknown value; expected one of stream, whole; did you mean `whole`?",
    ),
    (
        "  other: { targets: [groq/a], accepts: [sound] }",
        "13:41: models.other.accepts[0]: `sound`: unknown value; expected one of input_audio, file, video_url",
    ),
    ("  one: fast\n  two: one", "14:8: models.two: an alias of an alias"),
    ("? [a]\n: b", "13:3: a key must be text"),
];

#[test]
fn each_mistake_is_told_with_its_place() {
    let edits = EDITS.iter().map(|(from, to, problem)| (edited(from, to), *problem));
    let lines = LINES.iter().map(|(lines, problem)| (with(lines), *problem));
    let mut wrong = Vec::new();
    for (text, expected) in edits.chain(lines) {
        let found = problems(&text);
        if !found.iter().any(|problem| problem == expected) || found.len() > 2 {
            wrong.push(format!("expected {expected}\nfound    {found:#?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
