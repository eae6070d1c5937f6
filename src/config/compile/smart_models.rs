//! Smart models: a name that stands for two others of the file.

use std::sync::Arc;

use gatekeeper_filters::kernel::{Model, Models, Plan, Score, Smart, Tier};

use super::field_reader::FieldReader;
use crate::config::{
    diagnostics::{Diagnostics, did_you_mean},
    field_type::FieldType,
    scalars,
    yaml::{MapEntry, Node},
};

pub fn is_smart(node: &Node) -> bool {
    node.get("smart").is_some_and(|smart| !smart.is_nothing())
}

/// Adds the smart models to those that have targets. `shape` is that of a model's long form.
pub fn compile(
    entries: &[MapEntry],
    shape: Option<&FieldType>,
    models: &mut Models,
    report: &mut Diagnostics,
) {
    let Some(shape) = shape else { return };
    let mut found = Vec::new();
    for entry in entries.iter().filter(|entry| is_smart(&entry.value)) {
        let view = FieldReader::item(&entry.value, shape, format!("models.{}", entry.key));
        if let Some(smart) = smart(&view, entries, models, report) {
            found.push((&entry.key, smart));
        }
    }
    // Aliases of them, too.
    for entry in entries {
        let meant = entry.value.text().unwrap_or(&entry.key);
        if let Some((_, smart)) = found.iter().find(|(key, _)| *key == meant) {
            let name: Arc<str> = entry.key.as_str().into();
            let model =
                Model { name: name.clone(), smart: Some(smart.clone()), ..Model::default() };
            models.insert(name, Arc::new(model));
        }
    }
}

fn smart(
    view: &FieldReader<'_>,
    entries: &[MapEntry],
    models: &Models,
    report: &mut Diagnostics,
) -> Option<Smart> {
    for field in [
        "targets",
        "accepts",
        "delivery",
        "on_empty",
        "timeouts",
        "sticky",
        "vocabulary",
        "image_tokens",
        "file_tokens",
        "audio_tokens",
    ] {
        if view.node(field).is_some() {
            let message = "belongs to the two models of `smart`";
            report.problem(view.at(field), view.path(field), message);
        }
    }
    let smart = view.sub("smart");
    let mut tier = |tier: Tier| {
        let (field, name) = (tier.name(), smart.text(tier.name())?);
        let meant = entries.iter().find(|entry| entry.key == name);
        let trouble = match meant {
            Some(entry) if is_smart_or_alias(entry, entries) => {
                format!("`{name}` is a smart model itself")
            }
            Some(_) => return models.get(name).cloned(),
            None => {
                let plain = entries.iter().filter(|entry| !is_smart_or_alias(entry, entries));
                let near = did_you_mean(name, plain.map(|entry| entry.key.as_str()));
                format!("unknown model `{name}`{near}")
            }
        };
        report.problem(smart.at(field), smart.path(field), trouble);
        None
    };
    let (simple, complex) = (tier(Tier::Simple), tier(Tier::Complex));
    let (simple, complex) = (simple?, complex?);
    let same = simple.targets == complex.targets;
    if same {
        let message = "both tiers have the same targets: nothing is chosen";
        report.warn(smart.at("complex"), smart.path("complex"), message);
    }
    let threshold = scalars::fraction(smart.text("threshold")?).ok()?;
    Some(Smart { simple, complex, threshold: Score::from_hundredths(threshold) })
}

fn is_smart_or_alias(entry: &MapEntry, entries: &[MapEntry]) -> bool {
    let text = entry.value.text();
    let meant = text.and_then(|text| entries.iter().find(|other| other.key == text));
    is_smart(&meant.unwrap_or(entry).value)
}

/// Plans that allow a smart model but neither of its tiers, which makes it unusable.
pub fn check_plans(
    root: &FieldReader<'_>,
    plans: &[Arc<Plan>],
    models: &Models,
    report: &mut Diagnostics,
) {
    for plan in plans {
        for (name, model) in models.iter() {
            let Some(smart) = &model.smart else { continue };
            let allows = |name: &str| plan.models.allows(name);
            let tiers = [&smart.simple.name, &smart.complex.name];
            if allows(name) && !tiers.iter().any(|tier| allows(tier)) {
                let node = root.node("plans").and_then(|plans| plans.get(&plan.name));
                let at =
                    node.and_then(|node| node.get("models")).map_or(root.at("plans"), |n| n.at);
                let message = format!(
                    "`{name}` is refused: it needs `{}`, `{}` or both here, too",
                    tiers[0], tiers[1]
                );
                report.warn(at, format!("plans.{}.models", plan.name), message);
            }
        }
    }
}
