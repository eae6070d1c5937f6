//! Public model names and what they stand for.

use std::sync::Arc;

use gatekeeper_filters::kernel::{Model, Models, Target};

use super::{providers::Providers, view::View};
use crate::config::{
    problem::{Report, did_you_mean},
    raw::{Entry, Kind, Node},
    shape::{Shape, Text},
};

pub fn compile(root: &View<'_>, providers: &Providers, report: &mut Report) -> Models {
    let entries = root.node("models").map(Node::entries).unwrap_or_default();
    let record = match root.items_of("models") {
        Shape::Either(shapes) => shapes.iter().find(|shape| matches!(shape, Shape::Record(_))),
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
        let mut own = Report::default();
        let targets = targets(&meant.value, &path, providers, &mut own);
        if std::ptr::eq(meant, entry) {
            report.problems.append(&mut own.problems);
        }
        if targets.is_empty() {
            continue;
        }
        let name: Arc<str> = entry.key.as_str().into();
        let accepts = match (&meant.value.kind, record) {
            (Kind::Map(_), Some(shape)) => View::item(&meant.value, shape, path).texts("accepts"),
            _ => Vec::new(),
        };
        let accepts = accepts.into_iter().map(Arc::from).collect();
        models.insert(name.clone(), Arc::new(Model { name, targets, accepts }));
    }
    models
}

/// The model that `gpt-4o: fast` stands for. An alias of an alias is refused: one step is enough,
/// and a circle can't happen.
fn alias_of<'a>(
    entry: &Entry,
    entries: &'a [Entry],
    path: &str,
    providers: &Providers,
    report: &mut Report,
) -> Option<&'a Entry> {
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
    providers: &Providers,
    report: &mut Report,
) -> Vec<Arc<Target>> {
    let (items, path) = match &node.kind {
        Kind::List(items) => (items.as_slice(), path.to_owned()),
        Kind::Scalar { .. } if node.text().is_some_and(|text| text.contains('/')) => {
            let target = target(node, path, providers, report);
            return target.into_iter().collect();
        }
        Kind::Scalar { .. } => return Vec::new(),
        Kind::Map(_) => match node.get("targets") {
            Some(list) => (list.items(), format!("{path}.targets")),
            // Reported as not available.
            None if node.get("smart").is_some() => return Vec::new(),
            None => {
                report.problem(node.at, path, "missing `targets`: a list of `provider/model`");
                return Vec::new();
            }
        },
    };
    let at = |index| format!("{path}[{index}]");
    let target = |(index, item)| target(item, &at(index), providers, report);
    items.iter().enumerate().filter_map(target).collect()
}

fn target(
    node: &Node,
    path: &str,
    providers: &Providers,
    report: &mut Report,
) -> Option<Arc<Target>> {
    // A malformed one has been reported.
    let text = node.text().filter(|text| Text::Target.check(text).is_ok())?;
    let (name, model) = text.split_once('/')?;
    if let Some(message) = providers.unknown(name) {
        report.problem(node.at, path, message);
        return None;
    }
    let index = providers.position(name)?;
    let provider = &providers.list[index];
    Some(Arc::new(Target {
        provider: index,
        provider_name: provider.name.clone(),
        model: model.into(),
        label: text.into(),
        dialect: provider.dialect,
        image_tokens: provider.image_tokens,
    }))
}

/// Prices are for later versions, but a typo in one should not wait until then.
pub fn check_prices(root: &View<'_>, providers: &Providers, report: &mut Report) {
    for entry in root.node("prices").map(Node::entries).unwrap_or_default() {
        let Some((name, _)) = entry.key.split_once('/') else { continue };
        if let Some(message) = providers.unknown(name) {
            report.problem(entry.key_at, format!("prices.{}", entry.key), message);
        }
    }
}
