//! The description as a JSON schema (draft 2020-12), for editors. It takes what `check` takes, as
//! far as a schema can tell; what this version does not have is left out.

use serde_json::{Map, Value, json};

use super::{
    file::FILE,
    shape::{Field, Shape, Text},
};

/// The schema of the whole file.
pub fn schema() -> Value {
    let mut schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Gatekeeper configuration",
    });
    if let (Value::Object(into), Value::Object(from)) = (&mut schema, of(&FILE)) {
        into.extend(from);
    }
    schema
}

fn of(shape: &Shape) -> Value {
    match shape {
        Shape::Bool => json!({ "type": "boolean" }),
        Shape::Int { min, max } if *max >= i64::MAX as u64 => {
            json!({ "type": "integer", "minimum": min })
        }
        Shape::Int { min, max } => json!({ "type": "integer", "minimum": min, "maximum": max }),
        Shape::TokenPrice => json!({ "type": "number", "minimum": 0 }),
        Shape::Fraction => json!({ "type": "number", "minimum": 0, "maximum": 1 }),
        Shape::Text(text) => of_text(*text),
        Shape::Choice(variants) => {
            let names: Vec<_> = variants.iter().map(|v| v.name).collect();
            json!({ "enum": names })
        }
        Shape::Record(fields) => record(fields),
        Shape::OneOf(fields) => {
            let mut schema = record(fields());
            schema["minProperties"] = json!(1);
            schema["maxProperties"] = json!(1);
            schema
        }
        Shape::List { of: item, min } => {
            json!({ "type": "array", "items": of(item), "minItems": min })
        }
        Shape::Map { key, of: item, min } => json!({
            "type": "object",
            "propertyNames": of_text(*key),
            "additionalProperties": of(item),
            "minProperties": min,
        }),
        Shape::Either(shapes) => {
            json!({ "anyOf": shapes.iter().map(of).collect::<Vec<_>>() })
        }
        Shape::Anything => json!(true),
    }
}

fn record(fields: &[Field]) -> Value {
    let property = |field: &Field| (field.name.into(), property(field));
    let properties: Map<_, _> = fields.iter().map(property).collect();
    let required: Vec<_> = fields.iter().filter(|field| field.required).map(|f| f.name).collect();
    let mut schema = json!({
        // A name with nothing below it stands for a record without fields.
        "type": if required.is_empty() { json!(["object", "null"]) } else { json!("object") },
        "properties": properties,
        "additionalProperties": false,
    });
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    schema
}

fn property(field: &Field) -> Value {
    let mut schema = of(field.shape);
    if let Value::Object(schema) = &mut schema {
        schema.insert("description".into(), json!(field.doc));
        if let Some(default) = field.default {
            schema.insert("default".into(), default_of(field.shape, default));
        }
    }
    schema
}

fn default_of(shape: &Shape, text: &str) -> Value {
    match shape {
        Shape::Bool | Shape::Int { .. } => {
            serde_json::from_str(text).unwrap_or_else(|_| json!(text))
        }
        _ => json!(text),
    }
}

fn of_text(text: Text) -> Value {
    let pattern = match text {
        Text::Name => "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$",
        Text::Model => "^[!-~]{1,128}$",
        Text::Target => "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}/[!-~]{1,128}$",
        Text::Duration => "^[0-9]+(ms|s|m|h|d)$",
        Text::Size => {
            return json!({ "type": ["string", "integer"], "pattern": "^[0-9]+(B|KiB|MiB|GiB)?$" });
        }
        Text::ImageTokens => {
            return json!({ "anyOf": [
                { "enum": ["openai", "anthropic", "gemini"] },
                { "type": "integer", "minimum": 1 },
            ] });
        }
        Text::Limit => "^[0-9]+ */ *(minute|hour|day|month)$",
        Text::CallLimit => "^[0-9]+ */ *(minute|hour)$",
        Text::Link => "^https?://",
        Text::Price => "^\\$[0-9]+(\\.[0-9]{1,2})?/(month|year)$",
        Text::Dollars => "^\\$[0-9]+(\\.[0-9]{1,2})?$",
        Text::Percent => "^[0-9]+(\\.[0-9]{1,2})?%$",
        Text::BaseUrl => "^(https?://|stand-in$)",
        Text::Secret => "^(sealed:|env:|file:)",
        Text::Source => "^(env:|file:)",
        Text::Token => "^(env:|file:|none$)",
        Text::LicenseKey => "^[ -~]{8,}$",
        Text::ShopId => "^[0-9]+$",
        Text::ShopVariant => "^([0-9]+|\\*)$",
        Text::RedisUrl => "^(rediss?(\\+sentinel|\\+cluster)?://|env:|file:)",
        Text::Address | Text::Network | Text::Path | Text::Any => {
            return json!({ "type": "string", "minLength": 1 });
        }
    };
    json!({ "type": "string", "pattern": pattern })
}
