//! One record of the file with its description: a field is what stands there, else its default.

use std::time::Duration;

use gatekeeper_filters::kernel::Limit;

use crate::config::{
    diagnostics::{Diagnostics, Position, START},
    field_type::{Field, FieldType, TextFormat},
    scalars,
    validate::join,
    yaml::{Node, ScalarType},
};

pub struct FieldReader<'a> {
    node: Option<&'a Node>,
    fields: &'static [Field],
    path: String,
    at: Position,
}

impl<'a> FieldReader<'a> {
    pub fn root(node: &'a Node, fields: &'static [Field]) -> Self {
        Self { node: Some(node), fields, path: String::new(), at: START }
    }

    /// A record below this one, there or not.
    pub fn sub(&self, name: &str) -> FieldReader<'a> {
        let fields = self.field(name).map(|field| field.shape.fields()).unwrap_or_default();
        FieldReader { node: self.node(name), fields, path: self.path(name), at: self.at(name) }
    }

    /// A record at `node` that is an item of a list or map.
    pub fn item(node: &'a Node, shape: &FieldType, path: String) -> FieldReader<'a> {
        FieldReader { node: Some(node), fields: shape.fields(), path, at: node.at }
    }

    /// The shape of the items of a list or map field.
    pub fn items_of(&self, name: &str) -> &'static FieldType {
        match self.field(name).map(|field| field.shape) {
            Some(FieldType::List { of, .. } | FieldType::Map { of, .. }) => of,
            Some(FieldType::Either(shapes)) => {
                let items = shapes.iter().find_map(|shape| match shape {
                    FieldType::List { of, .. } | FieldType::Map { of, .. } => Some(*of),
                    _ => None,
                });
                items.unwrap_or(&FieldType::Anything)
            }
            _ => &FieldType::Anything,
        }
    }

    fn field(&self, name: &str) -> Option<&'static Field> {
        let field = self.fields.iter().find(|field| field.name == name);
        debug_assert!(field.is_some(), "{} has no field {name}", self.path);
        field
    }

    /// What stands in the file; `None` for nothing.
    pub fn node(&self, name: &str) -> Option<&'a Node> {
        self.node?.get(name).filter(|node| !node.is_nothing())
    }

    /// Where the value stands, else where the record does.
    pub fn at(&self, name: &str) -> Position {
        self.node(name).map_or(self.at, |node| node.at)
    }

    pub fn path(&self, name: &str) -> String {
        join(&self.path, name)
    }

    /// The text of a field that fits its description, or its default.
    pub fn text(&self, name: &str) -> Option<&'a str> {
        let field = self.field(name)?;
        let node = self.node(name);
        let text = node.and_then(Node::text).filter(|text| {
            let looks = node.map_or(ScalarType::Nothing, Node::looks);
            match field.shape {
                FieldType::Text(kind @ (TextFormat::Size | TextFormat::ImageTokens)) => {
                    kind.check(text).is_ok()
                }
                FieldType::Text(kind) => looks == ScalarType::Text && kind.check(text).is_ok(),
                FieldType::Int { min, max } => {
                    text.parse::<u64>().is_ok_and(|number| (*min..=*max).contains(&number))
                }
                FieldType::Choice(variants) => variants.iter().any(|v| v.name == *text),
                _ => true,
            }
        });
        text.or(field.default)
    }

    pub fn bool(&self, name: &str) -> bool {
        self.text(name).is_some_and(|text| text.eq_ignore_ascii_case("true"))
    }

    pub fn int(&self, name: &str) -> Option<u64> {
        self.text(name)?.parse().ok()
    }

    /// Zero when there is neither a value nor a default.
    pub fn duration(&self, name: &str) -> Duration {
        self.text(name).and_then(|text| scalars::duration(text).ok()).unwrap_or_default()
    }

    pub fn size(&self, name: &str) -> u64 {
        self.text(name).and_then(|text| scalars::size(text).ok()).unwrap_or_default()
    }

    pub fn limit(&self, name: &str) -> Option<Limit> {
        scalars::limit(self.text(name)?).ok()
    }

    /// Picodollars of `budget.day`.
    pub fn budget(&self) -> Option<u64> {
        scalars::dollars(self.sub("budget").text("day")?).ok()
    }

    /// Hundredths of a percent of `budget.waste_per_licence`.
    pub fn waste_per_licence(&self) -> u64 {
        let text = self.sub("budget").text("waste_per_licence");
        text.and_then(|text| scalars::percent(text).ok()).unwrap_or(1_000)
    }

    /// The texts of a list.
    pub fn texts(&self, name: &str) -> Vec<&'a str> {
        let items = self.node(name).map(Node::items).unwrap_or_default();
        items.iter().filter_map(Node::text).collect()
    }

    /// Durations and sizes that make no sense as zero.
    pub fn positive(&self, names: &[&str], report: &mut Diagnostics) {
        for name in names {
            let Some(text) = self.node(name).and_then(|node| node.text()) else { continue };
            let zero = scalars::duration(text).is_ok_and(|duration| duration.is_zero());
            if zero || scalars::size(text) == Ok(0) {
                report.problem(self.at(name), self.path(name), "must be more than zero");
            }
        }
    }
}
