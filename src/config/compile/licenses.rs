//! Plans, and the licences that stand for them.

use std::{collections::HashMap, sync::Arc, time::Duration};

use gatekeeper_filters::kernel::{
    ConversationLimits, ModelSet, OnDisconnect, Period, Plan, plan::DEFAULT_CONCURRENCY,
};
use secrecy::SecretString;

mod guessable;
mod issued;
mod named_plan;
mod shops;
mod signed;

pub use self::guessable::warn_of_guessable_keys;
use self::named_plan::named_plan;
use super::{field_reader::FieldReader, prompts};
use crate::config::{
    diagnostics::{Diagnostics, did_you_mean},
    scalars,
    secrets::SecretLoader,
    settings::{LicenseCacheSettings, LicenseSettings, LicenseSource, PlanPrice, StaticKey},
    yaml::{MapEntry, Node},
};

pub fn plans(
    root: &FieldReader<'_>,
    buy_url: Option<&Arc<str>>,
    report: &mut Diagnostics,
) -> Vec<Arc<Plan>> {
    let known: Vec<&str> = root
        .node("models")
        .map(Node::entries)
        .unwrap_or_default()
        .iter()
        .map(|entry| entry.key.as_str())
        .collect();
    let shape = root.items_of("plans");
    let mut plans = Vec::new();
    for entry in root.node("plans").map(Node::entries).unwrap_or_default() {
        let view = FieldReader::item(&entry.value, shape, format!("plans.{}", entry.key));
        let plan = plan(&entry.key, &view, &known, buy_url, report);
        // If set but unreadable, it was reported before.
        let is_bounded =
            ["tokens", "max_input_tokens"].iter().any(|name| view.node(name).is_some());
        if plan.messages.is_some() && !is_bounded {
            let message = "limits messages but not their size: one message may cost any number of \
                           tokens; set `tokens` or `max_input_tokens`";
            report.warn(entry.key_at, format!("plans.{}", entry.key), message);
        }
        plans.push(Arc::new(plan));
    }
    plans
}

/// What plans cost their buyers.
pub fn plan_prices(root: &FieldReader<'_>) -> Vec<PlanPrice> {
    let shape = root.items_of("plans");
    let price = |entry: &MapEntry| {
        let view = FieldReader::item(&entry.value, shape, String::new());
        let month = scalars::price(view.text("price")?).ok()?;
        Some(PlanPrice { plan: entry.key.as_str().into(), month })
    };
    root.node("plans").map(Node::entries).unwrap_or_default().iter().filter_map(price).collect()
}

fn plan(
    name: &str,
    view: &FieldReader<'_>,
    known: &[&str],
    buy_url: Option<&Arc<str>>,
    report: &mut Diagnostics,
) -> Plan {
    let models = models(view, known, report);
    let prompts = prompts::opened(view, report);
    let min_output_tokens = view.int("min_output_tokens").unwrap_or_default();
    let max_output_tokens = view.int("max_output_tokens");
    if max_output_tokens.is_some_and(|max| max < min_output_tokens)
        && view.node("min_output_tokens").is_some()
    {
        let message = "more than max_output_tokens";
        report.problem(view.at("min_output_tokens"), view.path("min_output_tokens"), message);
    }
    let concurrency = match view.text("concurrency") {
        None => Some(DEFAULT_CONCURRENCY),
        Some("unlimited") => None,
        Some(number) => number.parse().ok(),
    };
    Plan {
        name: name.into(),
        messages: view.limit("messages"),
        tokens: view.limit("tokens"),
        rate: view.limit("rate"),
        concurrency,
        concurrency_is_default: view.node("concurrency").is_none(),
        models,
        prompts,
        prompts_only: view.bool("prompts_only"),
        conversation: conversation(view, report),
        idempotency: idempotency(view, report),
        max_output_tokens,
        min_output_tokens,
        max_input_tokens: view.int("max_input_tokens"),
        devices_required: view.text("devices") == Some("required"),
        max_devices: view.int("max_devices"),
        on_disconnect: match view.text("on_disconnect") {
            Some("drain") => OnDisconnect::Drain,
            _ => OnDisconnect::Cut,
        },
        upgrade_url: view.text("upgrade_url").map(Arc::from).or_else(|| buy_url.cloned()),
    }
}

/// Answers are kept in memory, and apps retry within minutes.
const LONGEST_REPLAY: Duration = Duration::from_secs(24 * 3600);

fn idempotency(view: &FieldReader<'_>, report: &mut Diagnostics) -> Option<Duration> {
    view.node("idempotency")?;
    view.positive(&["idempotency"], report);
    let life = view.duration("idempotency");
    if life > LONGEST_REPLAY {
        report.problem(view.at("idempotency"), view.path("idempotency"), "too long: at most 24h");
    }
    Some(life).filter(|life| !life.is_zero())
}

fn conversation(view: &FieldReader<'_>, report: &mut Diagnostics) -> Option<ConversationLimits> {
    view.node("conversation")?;
    let view = view.sub("conversation");
    let limits = ConversationLimits {
        rate: view.limit("rate"),
        messages: view.limit("messages"),
        repeats: view.int("repeats").map(|times| times as u32),
    };
    // What is counted is kept for two days.
    let too_long = [
        ("rate", limits.rate, [Period::Minute, Period::Hour], "a minute or an hour"),
        ("messages", limits.messages, [Period::Hour, Period::Day], "an hour or a day"),
    ];
    for (name, limit, periods, expected) in too_long {
        if limit.is_some_and(|limit| !periods.contains(&limit.per)) {
            let message = format!("expected a limit of {expected}");
            report.problem(view.at(name), view.path(name), message);
        }
    }
    let is_any = ["rate", "messages", "repeats"].iter().any(|name| view.node(name).is_some());
    if !is_any {
        let message = "limits nothing: set `rate`, `messages` or `repeats`";
        report.problem(view.at("rate"), view.path("rate").replace(".rate", ""), message);
    }
    is_any.then_some(limits)
}

fn models(view: &FieldReader<'_>, known: &[&str], report: &mut Diagnostics) -> ModelSet {
    let path = view.path("models");
    let mut names = Vec::new();
    let mut all = false;
    for (index, node) in view.node("models").map(Node::items).unwrap_or_default().iter().enumerate()
    {
        match node.text() {
            Some("*") => all = true,
            Some(name) if known.contains(&name) => names.push(Arc::from(name)),
            Some(name) => {
                let near = did_you_mean(name, known.iter().copied());
                let message = format!("unknown model `{name}`{near}");
                report.problem(node.at, format!("{path}[{index}]"), message);
            }
            None => {}
        }
    }
    if all { ModelSet::All } else { ModelSet::Only(names) }
}

pub fn licenses(
    view: &FieldReader<'_>,
    plans: &[Arc<Plan>],
    buy_url: Option<Arc<str>>,
    opener: &SecretLoader<'_>,
    report: &mut Diagnostics,
) -> LicenseSettings {
    let cache = view.sub("cache");
    cache.positive(&["fresh", "negative"], report);
    let shape = view.items_of("sources");
    let list = view.node("sources").map(Node::items).unwrap_or_default();
    let mut sources = Vec::new();
    let mut lines = HashMap::new();
    for (index, node) in list.iter().enumerate() {
        let source = FieldReader::item(node, shape, format!("{}[{index}]", view.path("sources")));
        if source.node("static").is_some() {
            let view = source.sub("static");
            sources.push(LicenseSource::Static(static_keys(&view, plans, &mut lines, report)));
        }
        if source.node("signed").is_some() {
            let signed = signed::source(&source.sub("signed"), plans, report);
            sources.extend(signed.map(|signed| LicenseSource::Signed(Arc::new(signed))));
        }
        if source.node("issued").is_some() {
            let issued = issued::source(&source.sub("issued"), plans, opener, report);
            sources.extend(issued.map(|issued| LicenseSource::Issued(Arc::new(issued))));
            if sources.iter().filter(|known| matches!(known, LicenseSource::Issued(_))).count() > 1
            {
                let message = "a second source `issued`: one has all licences of yours, so put what stands here into the first";
                report.problem(source.at("issued"), source.path("issued"), message);
            }
        }
        let named = crate::shops::ALL.iter().find(|shop| source.node(shop.name()).is_some());
        if let Some(shop) = named {
            let account = shops::account(*shop, &source.sub(shop.name()), plans, opener, report);
            sources.extend(account.map(|account| LicenseSource::Shop(Arc::new(account))));
        }
    }
    // Shops could still accept keys; an empty list alone is a mistake that refuses every licence.
    let all_static = list.iter().all(|source| source.get("static").is_some());
    if all_static && !list.is_empty() && lines.is_empty() {
        let message = "no licence key in any source: every request would be refused";
        report.problem(view.at("sources"), view.path("sources"), message);
    }
    let closed = view.text("sources") == Some("none");
    if closed {
        let message = "every licence is refused";
        report.warn(view.at("sources"), view.path("sources"), message);
    }
    let cache = LicenseCacheSettings {
        fresh: cache.duration("fresh"),
        stale: cache.duration("stale"),
        negative: cache.duration("negative"),
    };
    LicenseSettings { cache, buy_url, sources }
}

fn static_keys(
    view: &FieldReader<'_>,
    plans: &[Arc<Plan>],
    lines: &mut HashMap<String, usize>,
    report: &mut Diagnostics,
) -> Vec<StaticKey> {
    let shape = view.items_of("keys");
    let mut keys = Vec::new();
    for (index, node) in view.node("keys").map(Node::items).unwrap_or_default().iter().enumerate() {
        let view = FieldReader::item(node, shape, format!("{}[{index}]", view.path("keys")));
        let key = view.text("key").map(str::trim);
        // 100 spellings are one licence, so they can't have two plans. Broken ones count as there.
        let spelling = key.map_or_else(|| format!("\n{}", lines.len()), str::to_uppercase);
        if let Some(line) = lines.insert(spelling, node.at.line) {
            let message = format!("the same licence key (case does not count) as on line {line}");
            report.problem(view.at("key"), view.path("key"), message);
        }
        let plan = plan_of(&view, plans, report);
        if let (Some(key), Some(plan)) = (key, plan) {
            keys.push(StaticKey { key: SecretString::from(key), plan });
        }
    }
    keys
}

fn plan_of(
    view: &FieldReader<'_>,
    plans: &[Arc<Plan>],
    report: &mut Diagnostics,
) -> Option<Arc<Plan>> {
    named_plan(view.text("plan")?, plans, (view.at("plan"), view.path("plan")), report)
}
