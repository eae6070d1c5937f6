//! What is valid and probably not meant: names that nothing leads to, limits of zero, an address with an endpoint
//! in it.

use gatekeeper_filters::kernel::{Models, near::nearest};

use super::{field_reader::FieldReader, providers::Providers};
use crate::config::{
    diagnostics::Diagnostics,
    yaml::{MapEntry, Node, NodeKind},
};

/// Sources whose licences name their plan themselves.
const WITH_OWN_PLANS: [&str; 4] = ["signed", "http", "issued", "keygen"];

pub fn warn(
    root: &FieldReader<'_>,
    providers: &Providers,
    models: &Models,
    report: &mut Diagnostics,
) {
    // Where something is wrong, what leads to what is not known.
    if report.problems.is_empty() {
        prices(root, models, report);
        plans(root, report);
        unused_providers(root, providers, models, report);
    }
    limits(root, report);
    endpoints(root, report);
}

fn entries<'a>(root: &FieldReader<'a>, name: &str) -> &'a [MapEntry] {
    root.node(name).map(Node::entries).unwrap_or_default()
}

fn prices(root: &FieldReader<'_>, models: &Models, report: &mut Diagnostics) {
    let labels = || models.values().flat_map(|model| &model.targets).map(|target| &*target.label);
    for entry in entries(root, "prices") {
        if labels().any(|label| label == entry.key) {
            continue;
        }
        let near = nearest(&entry.key, labels());
        let near = near.map_or(String::new(), |near| format!("; did you mean `{near}`?"));
        let message = format!("no model has this target, so this price is of nothing{near}");
        report.warn(entry.key_at, format!("prices.{}", entry.key), message);
    }
}

fn plans(root: &FieldReader<'_>, report: &mut Diagnostics) {
    let sources = root.sub("licenses");
    let list = sources.node("sources").map(Node::items).unwrap_or_default();
    let has_own = |source: &Node| WITH_OWN_PLANS.iter().any(|kind| source.get(kind).is_some());
    if list.is_empty() || list.iter().any(has_own) {
        return;
    }
    let mut named = Vec::new();
    list.iter().for_each(|source| words(source, &mut named));
    for entry in entries(root, "plans") {
        if !named.contains(&&*entry.key) {
            let message = "no source of licences gives this plan";
            report.warn(entry.key_at, format!("plans.{}", entry.key), message);
        }
    }
}

/// All texts of a tree.
fn words<'a>(node: &'a Node, into: &mut Vec<&'a str>) {
    match &node.kind {
        NodeKind::Scalar { text, .. } => into.push(text),
        NodeKind::List(items) => items.iter().for_each(|item| words(item, into)),
        NodeKind::Map(entries) => entries.iter().for_each(|entry| words(&entry.value, into)),
    }
}

fn unused_providers(
    root: &FieldReader<'_>,
    providers: &Providers,
    models: &Models,
    report: &mut Diagnostics,
) {
    for entry in entries(root, "providers") {
        let Some(place) = providers.position(&entry.key) else { continue };
        let is_used =
            models.values().flat_map(|model| &model.targets).any(|target| target.provider == place);
        if !is_used {
            let message = "no model has a target at this provider: it is never asked";
            report.warn(entry.key_at, format!("providers.{}", entry.key), message);
        }
    }
}

fn limits(root: &FieldReader<'_>, report: &mut Diagnostics) {
    for plan in entries(root, "plans") {
        for name in ["messages", "tokens", "rate"] {
            let Some(limit) = plan.value.get(name) else { continue };
            let count =
                limit.text().and_then(|text| text.split('/').next()?.trim().parse::<u64>().ok());
            if count == Some(0) {
                let path = format!("plans.{}.{name}", plan.key);
                report.warn(
                    limit.at,
                    path,
                    "a limit of zero: licences of this plan are never served",
                );
            }
        }
    }
}

/// Paths that are appended to `base_url`.
const ENDPOINTS: [&str; 6] =
    ["/chat/completions", "/completions", "/embeddings", "/responses", "/messages", "/models"];

fn endpoints(root: &FieldReader<'_>, report: &mut Diagnostics) {
    for provider in entries(root, "providers") {
        let Some(base) = provider.value.get("base_url") else { continue };
        let Some(text) = base.text().map(|text| text.trim_end_matches('/')) else { continue };
        let Some(endpoint) = ENDPOINTS.iter().find(|endpoint| text.ends_with(**endpoint)) else {
            continue;
        };
        let meant = text.strip_suffix(endpoint).unwrap_or(text);
        let message = format!(
            "ends with an endpoint, and the endpoint's path is appended to it ({endpoint}{endpoint}); write `{meant}`"
        );
        report.warn(base.at, format!("providers.{}.base_url", provider.key), message);
    }
}
