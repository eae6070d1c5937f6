//! The chain as the file names it, tried out on ports that do nothing.

use gatekeeper_filters::{
    DEFAULT_CHAIN,
    kernel::{FilterUse, Registry, Services},
};
use serde_json::Value;

use super::field_reader::FieldReader;
use crate::config::{
    diagnostics::{Diagnostics, Position},
    yaml::{Node, NodeKind},
};

/// Filters in order, and their lines with the line of the list last.
pub fn compile(
    root: &FieldReader<'_>,
    registry: &Registry,
    services: &Services,
    report: &mut Diagnostics,
) -> (Vec<FilterUse>, Vec<usize>) {
    let list = root.node("filters");
    let (uses, places): (Vec<FilterUse>, Vec<Position>) = match list {
        Some(node) => node.items().iter().enumerate().filter_map(|i| used(i, report)).unzip(),
        None => {
            let plain = |name: &str| FilterUse { name: name.into(), options: empty() };
            let uses = DEFAULT_CHAIN.into_iter().map(plain).collect::<Vec<_>>();
            let places = vec![root.at("filters"); uses.len()];
            (uses, places)
        }
    };
    let whole = root.at("filters");
    for problem in registry.chain(&uses, services).err().unwrap_or_default() {
        let at = problem.index.and_then(|index| places.get(index)).copied().unwrap_or(whole);
        let path = match problem.index {
            Some(index) => format!("filters[{index}]"),
            None => "filters".into(),
        };
        report.problem(at, path, problem.message);
    }
    let lines = places.iter().chain([&whole]).map(|place| place.line).collect();
    (uses, lines)
}

fn empty() -> Value {
    Value::Object(serde_json::Map::new())
}

fn used((index, node): (usize, &Node), report: &mut Diagnostics) -> Option<(FilterUse, Position)> {
    match &node.kind {
        NodeKind::Scalar { text, .. } => {
            Some((FilterUse { name: text.clone(), options: empty() }, node.at))
        }
        NodeKind::Map(entries) => {
            let path = format!("filters[{index}]");
            let [only] = entries.as_slice() else {
                if !entries.is_empty() {
                    report.problem(node.at, path, "expected one filter: `name: {options}`");
                }
                return None;
            };
            let options = match only.value.kind {
                NodeKind::Map(_) => only.value.to_json(),
                _ if only.value.is_nothing() => empty(),
                _ => {
                    let message = "the options of a filter are a mapping";
                    report.problem(only.value.at, path, message);
                    return None;
                }
            };
            Some((FilterUse { name: only.key.clone(), options }, only.key_at))
        }
        NodeKind::List(_) => None,
    }
}
