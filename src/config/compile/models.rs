//! Public model names and what they stand for.

use std::{collections::HashMap, sync::Arc};

use gatekeeper_filters::kernel::{Counting, Dialect, Model, Models, Price, Target};

use super::{field_reader::FieldReader, model_options, providers::Providers, smart_models};
use crate::config::{
    diagnostics::{Diagnostics, did_you_mean},
    field_type::{FieldType, TextFormat},
    scalars,
    yaml::{MapEntry, Node, NodeKind},
};

/// What targets cost.
pub struct Costs<'a> {
    /// By `provider/model`.
    pub prices: HashMap<&'a str, Price>,
    /// Of all providers together.
    pub budget: Option<u64>,
}

pub fn compile(
    root: &FieldReader<'_>,
    providers: &Providers,
    costs: &Costs<'_>,
    report: &mut Diagnostics,
) -> Models {
    let entries = root.node("models").map(Node::entries).unwrap_or_default();
    let record = match root.items_of("models") {
        FieldType::Either(shapes) => {
            shapes.iter().find(|shape| matches!(shape, FieldType::Record(_)))
        }
        _ => None,
    };
    let mut models = Models::new();
    for entry in entries {
        let path = format!("models.{}", entry.key);
        // A short form, or the one model that an alias stands for.
        let (meant, path) = match alias_of(entry, entries, &path, providers, report) {
            Some(meant) => (meant, format!("models.{}", meant.key)),
            None => (entry, path),
        };
        let mut own = Diagnostics::default();
        let targets = targets(&meant.value, &path, (providers, costs), &mut own);
        if std::ptr::eq(meant, entry) {
            report.problems.append(&mut own.problems);
            report.warnings.append(&mut own.warnings);
        }
        if targets.is_empty() {
            continue;
        }
        let name: Arc<str> = entry.key.as_str().into();
        let mut model = Model { name: name.clone(), targets, ..Model::default() };
        if let (NodeKind::Map(_), Some(shape)) = (&meant.value.kind, record) {
            // An alias repeats no warnings of what it stands for.
            let mut own = Diagnostics::default();
            model_options::compile(
                &FieldReader::item(&meant.value, shape, path),
                &mut model,
                &mut own,
            );
            if std::ptr::eq(meant, entry) {
                report.problems.append(&mut own.problems);
            }
        }
        models.insert(name, Arc::new(model));
    }
    smart_models::compile(entries, record, &mut models, report);
    models
}

/// The model that `gpt-4o: fast` stands for. An alias of an alias is refused: one step is enough,
/// and a circle can't happen.
fn alias_of<'a>(
    entry: &MapEntry,
    entries: &'a [MapEntry],
    path: &str,
    providers: &Providers,
    report: &mut Diagnostics,
) -> Option<&'a MapEntry> {
    let text = entry.value.text().filter(|_| !entry.value.is_nothing())?;
    let meant = entries.iter().find(|other| other.key == text);
    let target = text.split_once('/').is_some_and(|(name, _)| providers.unknown(name).is_none());
    match meant {
        Some(meant) if meant.value.text().is_none() => return Some(meant),
        Some(_) => report.problem(entry.value.at, path, "an alias of an alias"),
        None if target || text.contains('/') => {}
        None => {
            let near = did_you_mean(text, entries.iter().map(|other| other.key.as_str()));
            report.problem(entry.value.at, path, format!("unknown model `{text}`{near}"));
        }
    }
    None
}

fn targets(
    node: &Node,
    path: &str,
    known: (&Providers, &Costs<'_>),
    report: &mut Diagnostics,
) -> Vec<Arc<Target>> {
    let (items, path) = match &node.kind {
        NodeKind::List(items) => (items.as_slice(), path.to_owned()),
        NodeKind::Scalar { .. } if node.text().is_some_and(|text| text.contains('/')) => {
            let target = target(node, path, known, report);
            return target.into_iter().collect();
        }
        NodeKind::Scalar { .. } => return Vec::new(),
        NodeKind::Map(_) => match node.get("targets") {
            Some(list) => (list.items(), format!("{path}.targets")),
            // It has those of its tiers.
            None if smart_models::is_smart(node) => return Vec::new(),
            None => {
                report.problem(node.at, path, "missing `targets`: a list of `provider/model`");
                return Vec::new();
            }
        },
    };
    let at = |index| format!("{path}[{index}]");
    let target = |(index, item)| target(item, &at(index), known, report);
    items.iter().enumerate().filter_map(target).collect()
}

fn target(
    node: &Node,
    path: &str,
    (providers, costs): (&Providers, &Costs<'_>),
    report: &mut Diagnostics,
) -> Option<Arc<Target>> {
    // A malformed one has been reported.
    let text = node.text().filter(|text| TextFormat::Target.check(text).is_ok())?;
    let (name, model) = text.split_once('/')?;
    if let Some(message) = providers.unknown(name) {
        report.problem(node.at, path, message);
        return None;
    }
    let index = providers.position(name)?;
    let provider = &providers.list[index];
    let price = costs.prices.get(text).copied();
    if price.is_none() && (costs.budget.is_some() || provider.budget.is_some()) {
        let message = "has no price under `prices`: what it costs counts against no budget";
        report.warn(node.at, path, message);
    }
    let by_name = Counting::of(provider.dialect, model);
    Some(Arc::new(Target {
        provider: index,
        provider_name: provider.name.clone(),
        model: model.into(),
        label: text.into(),
        dialect: provider.dialect,
        counting: Counting {
            images: provider.image_tokens.map_or(by_name.images, |setting| setting.of(model)),
            ..by_name
        },
        price,
    }))
}

/// What the targets cost, by `provider/model`.
pub fn prices<'a>(
    root: &FieldReader<'a>,
    providers: &Providers,
    report: &mut Diagnostics,
) -> HashMap<&'a str, Price> {
    let shape = root.items_of("prices");
    let mut prices = HashMap::new();
    for entry in root.node("prices").map(Node::entries).unwrap_or_default() {
        let path = format!("prices.{}", entry.key);
        let Some((name, _)) = entry.key.split_once('/') else { continue };
        if let Some(message) = providers.unknown(name) {
            report.problem(entry.key_at, &path, message);
        }
        let view = FieldReader::item(&entry.value, shape, path);
        let of = |field| view.text(field).and_then(|text| scalars::token_price(text).ok());
        if let (Some(input), Some(output)) = (of("input"), of("output")) {
            let cached = of("cached").unwrap_or(input);
            let provider = providers.position(name).map(|index| &providers.list[index]);
            let (written, hour) = match provider.map(|provider| provider.dialect) {
                Some(Dialect::Anthropic) => {
                    (input.saturating_mul(5).div_ceil(4), input.saturating_mul(2))
                }
                _ => (input, input),
            };
            let cache_write = of("cache_write").unwrap_or(written);
            let cache_write_1h = of("cache_write_1h").unwrap_or(hour);
            let price = Price { input, output, cached, cache_write, cache_write_1h };
            prices.insert(entry.key.as_str(), price);
        }
    }
    prices
}
