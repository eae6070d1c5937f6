mod doubtful;
mod issued;
mod mistakes;

use std::{fs, path::PathBuf};

use gatekeeper_filters::kernel::{
    Counting, DOLLAR, Dialect, Filter, ImageTokens, ModelSet, OnDisconnect, Period, Price,
    Services, Spec, Vocabulary,
};
use proptest::prelude::*;
use secrecy::ExposeSecret;

use super::*;
use crate::{
    config::settings::{LicenseSource, PlanPrice},
    vault,
};

/// A filter that does nothing, for names that the registry under test may not have.
struct Idle;

impl Filter for Idle {}

macro_rules! stub {
    ($registry:ident, $kind:ident, $name:literal, $after:expr) => {
        #[derive(serde::Serialize, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct $kind {}

        impl Spec for $kind {
            const NAME: &'static str = $name;
            const SUMMARY: &'static str = "Stands in for the real one.";
            const AFTER: &'static [&'static str] = $after;

            fn build(self, _: &Services) -> Result<std::sync::Arc<dyn Filter>, String> {
                Ok(std::sync::Arc::new(Idle))
            }
        }
        if !$registry.names().any(|name| name == $name) {
            $registry = $registry.with::<$kind>();
        }
    };
}

/// The built-in filters, with stand-ins for those of the default chain that are not among them.
pub(crate) fn registry() -> Registry {
    let mut registry = gatekeeper_filters::builtin();
    stub!(registry, License, "license", &[]);
    stub!(registry, RateLimit, "rate_limit", &["license"]);
    stub!(registry, Route, "route", &["license"]);
    stub!(registry, Quota, "quota", &["license", "route"]);
    registry
}

pub(crate) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

const SMALL: &str = r#"licenses:
  sources:
    - static: { keys: [{ key: JSTAR-DEMO-0001, plan: free }] }
plans:
  free: { messages: 50/month, tokens: 1000/day, models: [fast] }
providers:
  groq:
    base_url: https://api.groq.com/openai/v1
    keys:
      - { id: groq-1, secret: env:CARGO_PKG_NAME }
models:
  fast: [groq/llama-3.1-8b-instant]
"#;

fn problems(text: &str) -> Vec<String> {
    match parse(text, &registry(), Secrets::Required) {
        Ok(_) => Vec::new(),
        Err(report) => report.problems.iter().map(ToString::to_string).collect(),
    }
}

pub fn settings(text: &str) -> (Settings, Vec<String>) {
    let (settings, warnings) = parse(text, &registry(), Secrets::Required)
        .unwrap_or_else(|report| panic!("{:#?}", report.problems));
    (settings, warnings.iter().map(ToString::to_string).collect())
}

fn edited(from: &str, to: &str) -> String {
    assert!(SMALL.contains(from), "nothing to edit: {from}");
    SMALL.replacen(from, to, 1)
}

fn with(lines: &str) -> String {
    format!("{SMALL}{lines}\n")
}

#[test]
fn a_small_file_gets_the_defaults() {
    let (settings, warnings) = settings(SMALL);
    assert_eq!(warnings, Vec::<String>::new());
    assert_eq!(settings.server.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(settings.server.grace.as_secs(), 300);
    assert_eq!(settings.server.limits.body, 10 << 20);
    assert_eq!(settings.server.limits.buffered, None);
    assert_eq!(settings.admin.listen.to_string(), "127.0.0.1:9090");
    assert_eq!(settings.store.path, PathBuf::from("data/gatekeeper.db"));
    assert_eq!(settings.store.keep.as_secs(), 90 * 86_400);
    let plan = &settings.plans[0];
    assert_eq!(plan.on_disconnect, OnDisconnect::Cut);
    assert_eq!(plan.messages.map(|l| (l.count, l.per)), Some((50, Period::Month)));
    assert_eq!((plan.rate, plan.min_output_tokens), (None, 256));
    assert!(matches!(&plan.models, ModelSet::Only(names) if names.len() == 1));
    let provider = &settings.providers[0];
    assert_eq!((provider.base.host.as_str(), provider.base.port), ("api.groq.com", 443));
    assert_eq!(provider.base.path, "/openai/v1");
    assert_eq!(provider.timeouts.first_token.as_secs(), 120);
    assert_eq!(&*provider.output_cap_field, "max_completion_tokens");
    assert_eq!((provider.image_tokens, provider.keys[0].weight), (None, 1));
    assert_eq!(provider.keys[0].secret.expose_secret(), env!("CARGO_PKG_NAME"));
    assert_eq!(&*provider.keys[0].group, "groq-1");
    assert_eq!(&*settings.models["fast"].targets[0].label, "groq/llama-3.1-8b-instant");
    assert_eq!(settings.filters.len(), 5);
    assert_eq!(settings.filter_lines.len(), 6);
    let LicenseSource::Static(keys) = &settings.licenses.sources[0] else { panic!() };
    assert_eq!(keys[0].key.expose_secret(), "JSTAR-DEMO-0001");
}

#[test]
fn all_problems_come_at_once_in_file_order() {
    let text = "server: { listen: x }\nplans: { free: { messages: y } }\nmodel: {}\n";
    let found = problems(text);
    let lines: Vec<_> = found.iter().map(|p| p.split(':').next().unwrap().to_owned()).collect();
    assert!(lines.is_sorted(), "{found:#?}");
    for part in [
        "server.listen",
        "plans.free.messages",
        "plans.free.models",
        "model:",
        "licenses",
        "providers",
    ] {
        assert!(found.iter().any(|problem| problem.contains(part)), "{part}: {found:#?}");
    }
}

#[test]
fn the_list_ends_with_a_count() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("bad.yaml");
    fs::write(&file, edited("messages:", "mesages:")).unwrap();
    let text = load(&file, &registry()).unwrap_err().to_string();
    let expected = "5:11: plans.free.mesages: unknown field; did you mean `messages`?\n1 problem";
    assert_eq!(text, format!("{}:{expected}", file.display()));
}

#[test]
fn files_that_are_no_configuration_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("gatekeeper.yaml");
    let refused = || load(&path, &registry()).unwrap_err().to_string();
    assert!(refused().contains("can't be read"));
    fs::write(&path, vec![b'#'; MAX_FILE as usize + 1]).unwrap();
    assert!(refused().contains("larger than 1 MiB"));
    fs::write(&path, [0xff, 0xfe]).unwrap();
    assert!(refused().contains("save the file as UTF-8"));
    fs::write(&path, format!("{SMALL}---\n{SMALL}")).unwrap();
    assert!(refused().contains("a second document"));
    for text in ["", "5", "[]", "a: [", "\t- x", "%YAML 9"] {
        fs::write(&path, text).unwrap();
        assert!(refused().contains("problem"), "{text}");
    }
}

#[test]
fn nesting_and_aliases_are_bounded() {
    assert!(problems(&"- ".repeat(200_000))[0].contains("nested more than"));
    assert!(problems(&"[".repeat(200_000)).len() == 1);
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for level in 1..9 {
        let list = vec![format!("*a{}", level - 1); 10].join(", ");
        bomb += &format!("a{level}: &a{level} [{list}]\n");
    }
    assert!(problems(&bomb)[0].contains("aliases add more than"));
    let (settings, _) = settings(&with("  again: &x [groq/a]\n  more: *x"));
    assert_eq!(settings.models.len(), 3);
}

#[test]
fn prices_and_budgets_become_whole_picodollars() {
    let text = with(
        "  other: [groq/b, groq/c]\nprices:\n  groq/b: { input: 0.05, output: 8, cached: 0 }\n  \
         groq/c: { input: 0.000001, output: 12.340000 }\nbudget: { day: $20.5 }",
    );
    let text = text
        .replace("    base_url", "    budget: { day: $0.01 }\n    base_url")
        .replace("models: [fast] }", "models: [fast], price: $90/year }");
    let (settings, warnings) = settings(&text);
    let prices: Vec<_> =
        settings.models["other"].targets.iter().map(|target| target.price.unwrap()).collect();
    let price = |input, output, cached| Price {
        input,
        output,
        cached,
        cache_write: input,
        cache_write_1h: input,
    };
    assert_eq!(prices, [price(50_000, 8_000_000, 0), price(1, 12_340_000, 1)]);
    assert_eq!(settings.budget, Some(DOLLAR * 41 / 2));
    assert_eq!(settings.waste_per_licence, 1_000);
    assert_eq!(settings.providers[0].budget, Some(DOLLAR / 100));
    assert_eq!(settings.plan_prices, [PlanPrice { plan: "free".into(), month: DOLLAR * 15 / 2 }]);
    let fast = settings.models["fast"].targets.iter().filter(|t| t.price.is_none()).count();
    let unpriced = warnings.iter().filter(|w| w.contains("has no price under `prices`")).count();
    assert!(fast > 0 && fast == unpriced, "{warnings:?}");
}

#[test]
fn writes_to_a_cache_cost_what_the_file_or_the_dialect_says() {
    let of = |dialect: &str, more: &str| {
        let text = with(&format!(
            "  other: [groq/b]\nprices: {{ groq/b: {{ input: 3, output: 8{more} }} }}"
        ));
        let text = text.replace("    base_url", &format!("    dialect: {dialect}\n    base_url"));
        let price = settings(&text).0.models["other"].targets[0].price.unwrap();
        (price.cache_write, price.cache_write_1h)
    };
    assert_eq!(of("anthropic", ""), (3_750_000, 6_000_000));
    assert_eq!(of("openai", ""), (3_000_000, 3_000_000));
    assert_eq!(of("anthropic", ", cache_write: 4, cache_write_1h: 5"), (4_000_000, 5_000_000));
    assert_eq!(of("openai", ", cache_write: 3.75"), (3_750_000, 3_000_000));
}

#[test]
fn how_a_target_counts_comes_from_its_name_the_provider_and_the_model() {
    let counting = |provider: &str, model: &str| {
        let text = with(&format!("  other: {model}"));
        let text = text.replace("    base_url", &format!("{provider}    base_url"));
        settings(&text).0.models["other"].targets[0].counting
    };
    let plain = counting("", "[groq/gpt-4o]");
    assert_eq!(plain, Counting::of(Dialect::OpenAi, "gpt-4o"));
    assert_eq!((plain.file_tokens, plain.audio_tokens), (64, 4));
    let flat = counting("    image_tokens: 500\n", "[groq/gpt-4o]");
    assert_eq!(flat.images, ImageTokens::Fixed(500));
    let ruled = counting("    image_tokens: gemini\n", "[groq/gemini-2.5-flash]");
    assert_eq!(ruled.images, ImageTokens::Gemini);
    let own = counting(
        "    image_tokens: 500\n",
        "{ targets: [groq/x], vocabulary: cl100k, image_tokens: anthropic, file_tokens: 9, audio_tokens: 8 }",
    );
    assert_eq!(own.vocabulary, Vocabulary::Cl100k);
    assert_eq!(own.images, ImageTokens::of(Dialect::Anthropic, "x"));
    assert_eq!((own.file_tokens, own.audio_tokens), (9, 8));
    for odd in ["0", "mistral", "-1", "1.5", "[1]"] {
        let text =
            with("").replace("    base_url", &format!("    image_tokens: {odd}\n    base_url"));
        assert_eq!(problems(&text).len(), 1, "{odd}");
    }
}

#[test]
fn what_later_versions_use_is_checked_already() {
    let text = with("prices: { groq/x: { input: 0.05, output: 8, cached: 0 } }");
    let text =
        text.replace("models: [fast] }", "models: [fast], price: $9/month, max_devices: 3 }");
    settings(
        &text.replace("licenses:", "licenses:\n  cache: { fresh: 24h, stale: 72h, negative: 60s }"),
    );
    let found = problems(&text.replace("$9/month", "9 a month"));
    assert!(found[0].contains("expected a price"), "{found:?}");
}

#[test]
fn an_answer_whose_app_left_is_cut_or_drained() {
    for (word, meant) in [("cut", OnDisconnect::Cut), ("drain", OnDisconnect::Drain)] {
        let text = with("").replace("[fast] }", &format!("[fast], on_disconnect: {word} }}"));
        assert_eq!(settings(&text).0.plans[0].on_disconnect, meant);
    }
    let found = problems(&with("").replace("[fast] }", "[fast], on_disconnect: drop }"));
    assert!(found[0].contains("one of cut, drain"), "{found:?}");
}

#[test]
fn messages_without_a_size_are_worth_a_warning() {
    let (_, warnings) = settings(&edited(", tokens: 1000/day", ""));
    assert!(warnings[0].starts_with("5:3: plans.free: limits messages but not their size"));
}

#[test]
fn an_alias_has_the_targets_of_its_model() {
    let (settings, _) = settings(&with("  gpt-4o: fast\n  one: groq/b"));
    assert_eq!(settings.models["gpt-4o"].targets, settings.models["fast"].targets);
    assert_eq!(&*settings.models["gpt-4o"].name, "gpt-4o");
    assert_eq!(&*settings.models["one"].targets[0].model, "b");
}

#[test]
fn absent_secrets_are_a_warning_where_nothing_is_started() {
    for secret in ["env:GATEKEEPER_NOT_SET", "file:not/there"] {
        let text = edited("env:CARGO_PKG_NAME", secret);
        let (_, warnings) = parse(&text, &registry(), Secrets::MayBeAbsent).unwrap();
        assert_eq!(warnings.len(), 1, "{warnings:?}");
    }
    let sealed = format!("\"sealed:v1:0123456789abcdef:{}\"", "A".repeat(60));
    let text = edited("env:CARGO_PKG_NAME", &sealed) + "vault: { kek: file:not/there }\n";
    let (_, warnings) = parse(&text, &registry(), Secrets::MayBeAbsent).unwrap();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert_eq!(parse(&text, &registry(), Secrets::Required).unwrap_err().problems.len(), 1);
}

/// The whole way of a sealed key: from `seal` through the file to the settings, under the key
/// before last as well; and nowhere else.
#[test]
fn sealed_secrets_open() {
    let directory = tempfile::tempdir().unwrap();
    let [old, new] = ["old", "new"].map(|name| directory.path().join(name));
    let kek = vault::Kek::generate_file(&old).unwrap();
    vault::Kek::generate_file(&new).unwrap();
    let sealed = vault::seal(&kek, "groq", "groq-1", &"gsk_abc".into()).unwrap();
    let text = edited("env:CARGO_PKG_NAME", &sealed);
    let at = |name: &PathBuf| format!("file:{}", name.display());
    let one = format!("{text}vault: {{ kek: \"{}\" }}\n", at(&old));
    let two = format!("{text}vault: {{ kek: \"{}\", previous: \"{}\" }}\n", at(&new), at(&old));
    for text in [&one, &two] {
        let (settings, _) = settings(text);
        assert_eq!(settings.providers[0].keys[0].secret.expose_secret(), "gsk_abc");
        assert!(problems(&text.replace("id: groq-1", "id: groq-2"))[0].contains("does not open"));
    }
    // The same pepper before and during the change of KEKs.
    let pepper = |text| *vault::pepper(&settings(text).0.vault.unwrap()).unwrap().expose();
    assert_eq!(pepper(&one), pepper(&two));
    let other = text + &format!("vault: {{ kek: \"{}\" }}\n", at(&new));
    assert!(problems(&other)[0].contains("sealed under KEK"));
    fs::remove_file(&old).unwrap();
    let (_, warnings) = parse(&two, &registry(), Secrets::MayBeAbsent).unwrap();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
}

#[test]
fn a_pepper_is_checked_and_never_shown() {
    let directory = tempfile::tempdir().unwrap();
    let (kek, pepper) = (directory.path().join("kek"), directory.path().join("pepper"));
    vault::Kek::generate_file(&kek).unwrap();
    let at = |path: &PathBuf| format!("\"file:{}\"", path.display());
    let text = with(&format!("vault: {{ kek: {}, pepper: {} }}", at(&kek), at(&pepper)));
    fs::write(&pepper, "too-short\n").unwrap();
    let found = problems(&text);
    assert!(found[0].contains("vault.pepper: the pepper is not 32 bytes"), "{found:?}");
    fs::copy(&kek, &pepper).unwrap();
    assert!(settings(&text).0.vault.unwrap().pepper.is_some());
}

#[test]
fn no_message_shows_a_secret() {
    for place in ["env:CARGO_PKG_NAME", "https://api.groq.com/openai/v1", "groq-1"] {
        for form in ["gsk_hidden", "https://user:gsk_hidden@x", "sealed:gsk_hidden", "[gsk_hidden]"]
        {
            let found = problems(&edited(place, form)).join("\n");
            assert!(!found.contains("hidden"), "{found}");
        }
    }
}

#[test]
fn base_urls() {
    let good = [
        ("https://api.groq.com/openai/v1/", "api.groq.com", 443, "/openai/v1"),
        ("http://127.0.0.1:1234/v1", "127.0.0.1", 1234, "/v1"),
        ("http://localhost:11434", "localhost", 11434, ""),
        ("http://[::1]:80/v1", "::1", 80, "/v1"),
        ("https://EXAMPLE.com", "example.com", 443, ""),
    ];
    for (text, host, port, path) in good {
        let base = base_url::parse(text, false).unwrap();
        assert_eq!((base.host.as_str(), base.port, base.path.as_str()), (host, port, path));
        assert_eq!(base.tls, text.starts_with("https"));
    }
    assert!(base_url::parse("stand-in", false).unwrap().stand_in);
    let private = [
        "http://ollama:11434",
        "http://example.com",
        "https://10.0.0.1",
        "https://192.168.1.1/v1",
        "https://169.254.169.254",
        "https://[fe80::1]",
        "https://[fd00::1]",
        "https://172.16.0.1",
        "https://[::ffff:10.0.0.1]",
        "https://0x0a000001",
        "https://167772161",
        "https://0.0.0.0",
        "https://100.64.0.1",
        "https://[64:ff9b::a00:1]",
        "https://[::10.0.0.1]",
        "https://[fec0::1]",
    ];
    for text in private {
        assert!(base_url::parse(text, false).unwrap_err().contains("allow_private"), "{text}");
        assert!(base_url::parse(text, true).unwrap().allow_private, "{text}");
    }
    let never = [
        "",
        "groq",
        "ftp://x",
        "https://u:p@x",
        "https://u@x",
        "https://x/?a",
        "https://x/#a",
        "https://",
        "http://x:0",
        "file:///etc/passwd",
        "unix:/run/x",
        "standin",
    ];
    for text in never {
        assert!(base_url::parse(text, true).is_err(), "{text}");
    }
}

#[test]
fn small_values() {
    assert_eq!(scalars::duration("500ms").unwrap().as_millis(), 500);
    assert_eq!(scalars::duration("90d").unwrap().as_secs(), 90 * 86_400);
    for text in ["", "s", "5", "5 s", "-5s", "1.5h", "5S", "99999999999999999999s", "99999999999d"]
    {
        assert!(scalars::duration(text).is_err(), "{text}");
    }
    assert_eq!(scalars::size("64KiB"), Ok(65_536));
    assert_eq!(scalars::size("1024"), Ok(1024));
    for text in ["", "KiB", "1KB", "1 KiB", "-1", "99999999999GiB"] {
        assert!(scalars::size(text).is_err(), "{text}");
    }
    for text in ["", "5", "/day", "5/week", "-5/day", "5.5/day", "99999999999999999999/day"] {
        assert!(scalars::limit(text).is_err(), "{text}");
    }
    assert_eq!(scalars::limit("0/minute").unwrap().count, 0);
}

/// The example of the reference page, less what it leaves out (a real seal, gemini's provider).
const CONTRACT: &str = r#"
server:   { listen: "127.0.0.1:8080", threads: 2, grace: 300s }
admin:    { listen: "127.0.0.1:9090" }
store:    { kind: redis, url: "redis://localhost", keep: 90d, on_store_down: lease }
licenses:
  cache:   { fresh: 24h, stale: 72h, negative: 60s }
  buy_url: "https://example.com/buy"
  sources:
    - static:       { keys: [ { key: JSTAR-DEMO-0001, plan: free } ] }
    - lemonsqueezy: { store_id: 58213, products: { 588102: { 912744: pro } }, webhook_secret: env:CARGO_MANIFEST_PATH }
    - gumroad:      { products: { "abc==": { "(Pro)": pro, "*": free } }, webhook_secret: env:CARGO_MANIFEST_PATH }
plans:
  free: { messages: 50/month, tokens: 100000/month, rate: 20/minute, concurrency: 4, models: [fast], max_output_tokens: 1024,
          min_output_tokens: 256, max_input_tokens: 8000, upgrade_url: "https://example.com/upgrade" }
  pro:  { messages: 1000/month, models: ["*"], devices: required, max_devices: 3, price: $9/month, on_disconnect: drain }
providers:
  groq:
    base_url: https://api.groq.com/openai/v1
    dialect: openai
    strategy: least_busy
    timeouts: { connect: 3s, first_byte: 120s, first_token: 120s, idle: 60s, total: 600s }
    keys:
      - { id: groq-1, secret: env:CARGO_PKG_NAME, group: org-a, weight: 1 }
  gemini: { base_url: https://generativelanguage.googleapis.com/v1beta/openai, keys: [{ id: g, secret: env:CARGO_PKG_NAME, state: off }] }
models:
  fast:   [ groq/llama-3.1-8b-instant, gemini/gemini-2.5-flash ]
  strong: [ groq/llama-3.3-70b-versatile ]
  auto:   { smart: { simple: fast, complex: strong } }
  reply:  { targets: [ groq/llama-3.3-70b-versatile ], delivery: whole, timeouts: { idle: 5s }, sticky: true }
prices:  { groq/llama-3.1-8b-instant: { input: 0.05, output: 0.08, cached: 0.025 } }
budget:  { day: $20 }
filters: [ license, rate_limit, route, quota, meter ]
log:     { access: stdout, level: info }
"#;

#[test]
fn the_reference_example_is_complete() {
    assert_eq!(problems(CONTRACT), Vec::<String>::new());
}

fn files_below(directory: PathBuf, extension: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(files_below(path, extension));
        } else if path.extension().is_some_and(|found| found == extension) {
            files.push(path);
        }
    }
    files
}

#[test]
fn every_file_in_conf_passes_check() {
    // Files for other programs lie in folders of their own.
    let mut files = files_below(root().join("conf/examples"), "yaml");
    assert!(files.len() >= 8);
    files.push(root().join("conf/gatekeeper.yaml"));
    let index = fs::read_to_string(root().join("conf/README.md")).unwrap();
    for file in files {
        if let Err(problems) = load_with(&file, &registry(), Secrets::MayBeAbsent) {
            panic!("{problems}");
        }
        let name = file.file_name().unwrap().to_string_lossy();
        assert!(index.contains(&*name), "conf/README.md does not name {name}");
    }
}

#[test]
fn the_default_file_starts_without_a_secret_and_without_a_warning() {
    let path = root().join("conf/gatekeeper.yaml");
    let (settings, warnings) = load(&path, &registry()).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(warnings, Vec::new());
    assert!(settings.providers[0].base.stand_in && settings.vault.is_none());
    assert!(inert_chain(&settings, &registry()).is_ok());
}

#[test]
fn the_schema_is_fresh() {
    let path = root().join("conf/schema.json");
    if std::env::var_os("UPDATE_SCHEMA").is_some() {
        fs::write(&path, format!("{:#}\n", schema())).unwrap();
    }
    let committed = fs::read_to_string(path).unwrap_or_default();
    // Compared as values: the order of members depends on how JSON maps are built.
    let committed: serde_json::Value = serde_json::from_str(&committed).unwrap_or_default();
    assert!(committed == schema(), "run: gatekeeper schema > conf/schema.json");
}

#[test]
fn every_field_is_described() {
    fn walk(shape: &field_type::FieldType, path: &str) {
        use crate::config::field_type::FieldType;
        for field in shape.fields() {
            let path = format!("{path}.{}", field.name);
            assert!(field.doc.ends_with('.'), "{path}");
            assert!(!(field.required && field.default.is_some()), "{path}");
            if let (Some(default), FieldType::Text(kind)) = (field.default, field.shape) {
                assert_eq!(kind.check(default), Ok(()), "{path}");
            }
            walk(field.shape, &path);
        }
        match shape {
            FieldType::List { of, .. } | FieldType::Map { of, .. } => walk(of, path),
            FieldType::Either(shapes) => shapes.iter().for_each(|shape| walk(shape, path)),
            _ => {}
        }
    }
    walk(&definition::FILE, "");
}

/// Breaks the value or the key at each place of the full example in turn.
#[test]
fn two_hundred_broken_files_are_all_refused() {
    let text = fs::read_to_string(root().join("conf/gatekeeper.yaml")).unwrap();
    let tree = yaml::parse(&text, &mut Vec::new()).unwrap();
    let mut broken = Vec::new();
    mutate(&tree, &text, &mut broken);
    assert!(broken.len() >= 200, "{}", broken.len());
    for text in broken {
        assert!(!problems(&text).is_empty(), "passed:\n{text}");
    }
}

fn mutate(node: &yaml::Node, text: &str, broken: &mut Vec<String>) {
    let put = |span: &std::ops::Range<usize>, new: &str| {
        let mut text = text.to_owned();
        text.replace_range(span.clone(), new);
        text
    };
    for entry in node.entries() {
        // A misspelt field; in a map of names it becomes an undefined name.
        broken.push(put(&entry.key_span, &format!("{} x", entry.key)));
        broken.push(put(&entry.key_span, "\"\""));
        broken.push(put(&entry.key_span, &format!("{k}: 1, {k}", k = entry.key)));
        for wrong in ["[[]]", "{ never: heard }", "true", "\"\""] {
            if entry.value.text().is_some() {
                broken.push(put(&entry.value.span, wrong));
            }
        }
        mutate(&entry.value, text, broken);
    }
    for item in node.items() {
        for wrong in ["[[]]", "{ never: heard }", "3", "\"\""] {
            if item.text().is_some() {
                broken.push(put(&item.span, wrong));
            }
        }
        mutate(item, text, broken);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_price_is_read_as_it_is_written(price in 0..=1_000_000_000_000_u64) {
        let text = format!("{}.{:06}", price / 1_000_000, price % 1_000_000);
        prop_assert_eq!(scalars::token_price(&text), Ok(price));
        let short = text.trim_end_matches('0').trim_end_matches('.');
        prop_assert_eq!(scalars::token_price(short), Ok(price));
        let longer = text.clone() + "1";
        prop_assert!(scalars::token_price(&longer).is_err());
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        if let Ok(text) = String::from_utf8(bytes) {
            let _ = parse(&text, &registry(), Secrets::MayBeAbsent);
        }
    }

    #[test]
    fn no_yaml_like_text_makes_it_panic(text in "[a-c\\[\\]{}:,&*!|>'\"#%@?\\- \n\t\u{e9}\\\\]{0,80}") {
        let _ = parse(&text, &registry(), Secrets::MayBeAbsent);
    }

    #[test]
    fn no_cut_or_splice_makes_it_panic(at in 0..2500usize, length in 0..40usize, new in ".{0,6}") {
        let mut text: Vec<char> = CONTRACT.chars().collect();
        let at = at.min(text.len());
        let end = (at + length).min(text.len());
        text.splice(at..end, new.chars());
        let _ = parse(&text.into_iter().collect::<String>(), &registry(), Secrets::MayBeAbsent);
    }
}
