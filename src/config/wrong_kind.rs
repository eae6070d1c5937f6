//! What is said of a value of the wrong kind: what it looks like, and what was probably meant.

use super::{
    excerpt,
    mask::mask,
    problem::Place,
    raw::{Entry, Looks, Node},
    shape::{Field, Shape, Text},
};

/// Longer values are not repeated.
const LONGEST: usize = 40;

/// The value in backticks, unless it is or could be a secret.
pub fn quoted(node: &Node, shape: &Shape) -> Option<String> {
    let may_be_secret = matches!(
        shape,
        Shape::Text(
            Text::Secret
                | Text::Source
                | Text::Token
                | Text::LicenseKey
                | Text::RedisUrl
                | Text::BaseUrl
                | Text::Link
        )
    );
    let text = node.text().filter(|_| !may_be_secret)?;
    let plain = |c: char| !c.is_control() && c != '`';
    let fits = (1..=LONGEST).contains(&text.chars().count()) && text.chars().all(plain);
    (fits && mask(text) == text).then(|| format!("`{text}`"))
}

/// `text`, ``the number `20` ``.
pub fn found(node: &Node, shape: &Shape) -> String {
    let kind = node.looks();
    match (kind, quoted(node, shape)) {
        (Looks::Int | Looks::Decimal, Some(value)) => format!("the number {value}"),
        (Looks::Bool | Looks::Text, Some(value)) => {
            format!("{} {value}", kind.name().replace("true or false", "the word"))
        }
        _ => kind.name().to_owned(),
    }
}

/// What was probably meant.
pub fn hint(node: &Node, shape: &Shape, path: &str) -> String {
    let last = path.rsplit('.').next().unwrap_or_default();
    let wants_text = matches!(
        shape,
        Shape::Text(Text::Name | Text::Model | Text::LicenseKey | Text::Path | Text::Any)
    );
    match (shape, node.looks(), quoted(node, shape)) {
        (_, Looks::Int | Looks::Decimal | Looks::Bool, _) if wants_text => {
            " (text that looks like this needs quotes)".into()
        }
        (Shape::TokenPrice | Shape::Fraction, Looks::Text, Some(value))
            if is_decimal_comma(&value) =>
        {
            format!("; write {}", value.replace(',', "."))
        }
        (Shape::List { .. }, Looks::Text | Looks::Int, Some(value)) => {
            format!("; write `{last}: [{}]`", value.trim_matches('`'))
        }
        (Shape::Map { .. }, Looks::Text, Some(plan)) if path.contains(".products.") => {
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
pub fn decimal_comma<'a>(node: &'a Node, entry: &Entry) -> Option<(Place, &'a str, String)> {
    let is_number = !entry.key.is_empty() && entry.key.bytes().all(|byte| byte.is_ascii_digit());
    let place = node.entries().iter().position(|other| std::ptr::eq(other, entry))?;
    let before = node.entries().get(place.checked_sub(1)?)?;
    let whole = before.value.text().filter(|_| before.value.looks() == Looks::Int)?;
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
