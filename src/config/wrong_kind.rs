//! Hints for a value of the wrong type: what it looks like, and what was probably meant.

use super::{
    diagnostics::Position,
    excerpt,
    field_type::{Field, FieldType, TextFormat},
    mask::mask,
    yaml::{MapEntry, Node, ScalarType},
};

/// Longer values are not repeated.
const LONGEST: usize = 40;

/// The value in backticks, unless it is or could be a secret.
pub fn quoted(node: &Node, shape: &FieldType) -> Option<String> {
    let may_be_secret = matches!(
        shape,
        FieldType::Text(
            TextFormat::Secret
                | TextFormat::Source
                | TextFormat::Token
                | TextFormat::LicenseKey
                | TextFormat::RedisUrl
                | TextFormat::BaseUrl
                | TextFormat::Link
        )
    );
    let text = node.text().filter(|_| !may_be_secret)?;
    let plain = |c: char| !c.is_control() && c != '`';
    let fits = (1..=LONGEST).contains(&text.chars().count()) && text.chars().all(plain);
    (fits && mask(text) == text).then(|| format!("`{text}`"))
}

/// `text`, ``the number `20` ``.
pub fn found(node: &Node, shape: &FieldType) -> String {
    let kind = node.looks();
    match (kind, quoted(node, shape)) {
        (ScalarType::Int | ScalarType::Decimal, Some(value)) => format!("the number {value}"),
        (ScalarType::Bool | ScalarType::Text, Some(value)) => {
            format!("{} {value}", kind.name().replace("true or false", "the word"))
        }
        _ => kind.name().to_owned(),
    }
}

/// What was probably meant.
pub fn hint(node: &Node, shape: &FieldType, path: &str) -> String {
    let last = path.rsplit('.').next().unwrap_or_default();
    let wants_text = matches!(
        shape,
        FieldType::Text(
            TextFormat::Name
                | TextFormat::Model
                | TextFormat::LicenseKey
                | TextFormat::Path
                | TextFormat::Any
        )
    );
    match (shape, node.looks(), quoted(node, shape)) {
        (_, ScalarType::Int | ScalarType::Decimal | ScalarType::Bool, _) if wants_text => {
            " (text that looks like this needs quotes)".into()
        }
        (
            FieldType::TokenPrice | FieldType::Fraction | FieldType::Temperature,
            ScalarType::Text,
            Some(value),
        ) if is_decimal_comma(&value) => {
            format!("; write {}", value.replace(',', "."))
        }
        (FieldType::List { .. }, ScalarType::Text | ScalarType::Int, Some(value)) => {
            format!("; write `{last}: [{}]`", value.trim_matches('`'))
        }
        (FieldType::Map { .. }, ScalarType::Text, Some(plan)) if path.contains(".products.") => {
            let variant = if path.contains("gumroad") { "\"*\"" } else { "VARIANT" };
            format!("; write `{last}: {{ {variant}: {} }}`", plan.trim_matches('`'))
        }
        _ => String::new(),
    }
}

fn is_decimal_comma(value: &str) -> bool {
    let parts: Vec<&str> = value.trim_matches('`').split(',').collect();
    parts.len() == 2
        && parts.iter().all(|part| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit()))
}

/// `{ input: 0,05 }` reads as a zero and a field `05`.
pub fn decimal_comma<'a>(node: &'a Node, entry: &MapEntry) -> Option<(Position, &'a str, String)> {
    let is_number = !entry.key.is_empty() && entry.key.bytes().all(|byte| byte.is_ascii_digit());
    let place = node.entries().iter().position(|other| std::ptr::eq(other, entry))?;
    let before = node.entries().get(place.checked_sub(1)?)?;
    let whole = before.value.text().filter(|_| before.value.looks() == ScalarType::Int)?;
    (is_number && entry.value.is_nothing()).then(|| {
        let part = &entry.key;
        (before.value.at, &*before.key, format!("`{whole},{part}`: write `{whole}.{part}`"))
    })
}

/// A provider has a list of keys.
pub fn single_key(name: &str, fields: &[Field], path: &str) -> Option<String> {
    let has_keys = fields.iter().any(|field| field.name == "keys");
    let provider =
        path.strip_prefix("providers.").filter(|_| has_keys && excerpt::is_secret(name))?;
    Some(format!("keys stand in a list: `keys: [{{ id: {provider}-1, secret: env:... }}]`"))
}
