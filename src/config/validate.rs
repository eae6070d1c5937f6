//! Holds the tree against the description: unknown fields, wrong types, unknown words, what is
//! missing. Everything is reported; a wrong value does not hide what stands below or beside it.

use super::{
    diagnostics::{Diagnostics, did_you_mean},
    field_type::{Field, FieldType, TextFormat, Variant},
    scalars, wrong_kind,
    yaml::{Node, NodeKind, ScalarType},
};

pub fn check(node: &Node, shape: &FieldType, path: &str, report: &mut Diagnostics) {
    let wrong = |report: &mut Diagnostics| {
        let expected = expected(shape, path);
        let hint = wrong_kind::hint(node, shape, path);
        let message =
            format!("expected {expected}, found {}{hint}", wrong_kind::found(node, shape));
        report.problem(node.at, path, message);
    };
    match shape {
        FieldType::Anything => {}
        // `server:` with nothing below it is a mapping with nothing in it.
        FieldType::Record(fields) if node.is_nothing() => record(node, fields, path, report),
        FieldType::Record(fields) if node.looks() == ScalarType::Map => {
            record(node, fields, path, report)
        }
        FieldType::OneOf(fields) if node.looks() == ScalarType::Map => {
            one_of(node, fields(), path, report)
        }
        FieldType::List { of, min } => match &node.kind {
            NodeKind::List(items) => list(node, items, of, *min, path, report),
            _ => wrong(report),
        },
        FieldType::Map { key, of, min } if node.looks() == ScalarType::Map => {
            map(node, *key, of, *min, path, report);
        }
        FieldType::Either(shapes) => match alternative(node, shapes) {
            Some(shape) => check(node, shape, path, report),
            None => wrong(report),
        },
        _ => match scalar(node, shape) {
            Some(Ok(())) => {}
            Some(Err(message)) => {
                let message = match wrong_kind::quoted(node, shape) {
                    Some(value) => format!("{value}: {message}"),
                    None => message,
                };
                report.problem(node.at, path, message);
            }
            None => wrong(report),
        },
    }
}

/// What stands there, in words; a pace is most often one of a minute.
fn expected(shape: &FieldType, path: &str) -> String {
    match shape {
        FieldType::Text(TextFormat::Limit) if path.ends_with(".rate") => {
            "a limit like `20/minute`".into()
        }
        _ => shape.expected(),
    }
}

/// The type that a value fits, or the one with the most useful error message.
fn alternative<'a>(node: &Node, shapes: &'a [FieldType]) -> Option<&'a FieldType> {
    let kin: Vec<&FieldType> = shapes.iter().filter(|shape| same_kind(node, shape)).collect();
    if kin.len() == 1 {
        return kin.first().copied();
    }
    let fits = |shape: &&&FieldType| matches!(scalar(node, shape), Some(Ok(())));
    let is_out_of_range = |shape: &&&FieldType| {
        matches!((shape, scalar(node, shape)), (FieldType::Int { .. }, Some(Err(_))))
    };
    kin.iter().find(fits).or_else(|| kin.iter().find(is_out_of_range)).copied()
}

fn same_kind(node: &Node, shape: &FieldType) -> bool {
    match node.kind {
        NodeKind::List(_) => matches!(shape, FieldType::List { .. }),
        NodeKind::Map(_) => {
            matches!(shape, FieldType::Record(_) | FieldType::OneOf(_) | FieldType::Map { .. })
        }
        NodeKind::Scalar { .. } => !shape.is_compound(),
    }
}

/// `None` when the value is of another type altogether.
fn scalar(node: &Node, shape: &FieldType) -> Option<Result<(), String>> {
    let text = node.text()?;
    match (shape, node.looks()) {
        (FieldType::Bool, ScalarType::Bool) => Some(Ok(())),
        (FieldType::Int { min, max }, ScalarType::Int) => Some(match text.parse::<u64>() {
            Ok(number) if (*min..=*max).contains(&number) => Ok(()),
            _ if *max >= i64::MAX as u64 => Err(format!("must be at least {min}")),
            _ => Err(format!("must be {min} to {max}")),
        }),
        (FieldType::TokenPrice, ScalarType::Int | ScalarType::Decimal) => {
            Some(scalars::token_price(text).map(drop))
        }
        (FieldType::Fraction, ScalarType::Int | ScalarType::Decimal) => {
            Some(scalars::fraction(text).map(drop))
        }
        (FieldType::Temperature, ScalarType::Int | ScalarType::Decimal) => {
            Some(scalars::temperature(text).map(drop))
        }
        // A size in bytes needs no unit.
        (FieldType::Text(TextFormat::Size), ScalarType::Int) => Some(TextFormat::Size.check(text)),
        (FieldType::Text(TextFormat::ImageTokens), ScalarType::Int) => {
            Some(TextFormat::ImageTokens.check(text))
        }
        (FieldType::Text(kind), ScalarType::Text) => Some(kind.check(text)),
        (FieldType::Choice(variants), ScalarType::Text) => Some(choice(text, variants, shape)),
        _ => None,
    }
}

fn choice(text: &str, variants: &[Variant], shape: &FieldType) -> Result<(), String> {
    match variants.iter().find(|variant| variant.name == text) {
        Some(_) => Ok(()),
        None => {
            let near = did_you_mean(text, variants.iter().map(|v| v.name));
            Err(format!("unknown value; expected {}{near}", shape.expected()))
        }
    }
}

fn record(node: &Node, fields: &[Field], path: &str, report: &mut Diagnostics) {
    for entry in node.entries() {
        let at = entry.key_at;
        let below = join(path, &entry.key);
        let Some(field) = fields.iter().find(|field| field.name == entry.key) else {
            match wrong_kind::decimal_comma(node, entry) {
                Some((at, field, message)) => report.problem(at, join(path, field), message),
                None => report.problem(at, below, unknown_field(&entry.key, fields, path)),
            }
            continue;
        };
        if let Some(instead) = field.removed {
            report.warn(
                at,
                below,
                format!("has no effect any more: {}", instead.trim_end_matches('.')),
            );
            continue;
        }
        match foreign(node, field, fields) {
            Some((variant, other)) => {
                report.problem(at, below, format!("goes with `{other}: {variant}` only"));
            }
            None if entry.value.is_nothing() && !matches!(field.shape, FieldType::Record(_)) => {
                report.problem(at, below, "has no value");
            }
            None => check(&entry.value, field.shape, &below, report),
        }
    }
    for field in fields.iter().filter(|field| field.required) {
        if node.entry(field.name).is_none() {
            let message = format!("missing: {}", field.doc);
            report.problem(node.at, join(path, field.name), message);
        }
    }
}

/// The variant, and its field, that a field belongs to, if another one was chosen. One that is none at all
/// is reported already.
fn foreign(node: &Node, field: &Field, fields: &[Field]) -> Option<(&'static str, &'static str)> {
    let (other, variant) = field.with?;
    let by = fields.iter().find(|field| field.name == other)?;
    let chosen = node.get(other).and_then(Node::text).or(by.default)?;
    let FieldType::Choice(variants) = by.shape else { return None };
    let known = variants.iter().any(|known| known.name == chosen);
    (known && chosen != variant).then_some((variant, other))
}

fn unknown_field(name: &str, fields: &[Field], path: &str) -> String {
    if let Some(hint) = wrong_kind::single_key(name, fields, path) {
        return format!("unknown field; {hint}");
    }
    if let Some((name, _)) =
        name.split_once(':').filter(|(name, _)| fields.iter().any(|field| field.name == *name))
    {
        return format!("a space is missing after `{name}:`");
    }
    if name == "<<" {
        return "merge keys are not understood; write the fields out".into();
    }
    let known = fields.iter().filter(|field| field.removed.is_none()).map(|field| field.name);
    format!("unknown field{}", did_you_mean(name, known))
}

fn one_of(node: &Node, fields: &[Field], path: &str, report: &mut Diagnostics) {
    record(node, fields, path, report);
    if node.entries().len() != 1 {
        let known: Vec<_> = fields.iter().map(|f| f.name).collect();
        let message = format!("expected exactly one of {}", known.join(", "));
        report.problem(node.at, path, message);
    }
}

fn list(
    node: &Node,
    items: &[Node],
    of: &FieldType,
    min: usize,
    path: &str,
    report: &mut Diagnostics,
) {
    if items.len() < min {
        report.problem(node.at, path, "must not be empty");
    }
    for (index, item) in items.iter().enumerate() {
        check(item, of, &format!("{path}[{index}]"), report);
    }
}

fn map(
    node: &Node,
    key: TextFormat,
    of: &FieldType,
    min: usize,
    path: &str,
    report: &mut Diagnostics,
) {
    if node.entries().len() < min {
        report.problem(node.at, path, "must not be empty");
    }
    for entry in node.entries() {
        let below = join(path, &entry.key);
        if let Err(message) = key.check(&entry.key) {
            report.problem(entry.key_at, &below, message);
        }
        check(&entry.value, of, &below, report);
    }
}

pub fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}
