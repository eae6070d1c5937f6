//! The definition as a JSON schema (draft 2020-12), for editors. It accepts what `check` accepts, as far as
//! a schema can express it; removed fields are left out.

use serde_json::{Map, Value, json};

use super::{
    definition::FILE,
    field_type::{Field, FieldType, TextFormat},
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

fn of(shape: &FieldType) -> Value {
    match shape {
        FieldType::Bool => json!({ "type": "boolean" }),
        FieldType::Int { min, max } if *max >= i64::MAX as u64 => {
            json!({ "type": "integer", "minimum": min })
        }
        FieldType::Int { min, max } => json!({ "type": "integer", "minimum": min, "maximum": max }),
        FieldType::TokenPrice => json!({ "type": "number", "minimum": 0 }),
        FieldType::Fraction => json!({ "type": "number", "minimum": 0, "maximum": 1 }),
        FieldType::Temperature => json!({ "type": "number", "minimum": 0, "maximum": 2 }),
        FieldType::Text(text) => of_text(*text),
        FieldType::Choice(variants) => {
            let names: Vec<_> = variants.iter().map(|v| v.name).collect();
            json!({ "enum": names })
        }
        FieldType::Record(fields) => record(fields),
        FieldType::OneOf(fields) => {
            let mut schema = record(fields());
            schema["minProperties"] = json!(1);
            schema["maxProperties"] = json!(1);
            schema
        }
        FieldType::List { of: item, min } => {
            json!({ "type": "array", "items": of(item), "minItems": min })
        }
        FieldType::Map { key, of: item, min } => json!({
            "type": "object",
            "propertyNames": of_text(*key),
            "additionalProperties": of(item),
            "minProperties": min,
        }),
        FieldType::Either(shapes) => {
            json!({ "anyOf": shapes.iter().map(of).collect::<Vec<_>>() })
        }
        FieldType::Anything => json!(true),
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
        if field.removed.is_some() {
            schema.insert("deprecated".into(), json!(true));
        }
        if let Some(default) = field.default {
            schema.insert("default".into(), default_of(field.shape, default));
        }
    }
    schema
}

fn default_of(shape: &FieldType, text: &str) -> Value {
    match shape {
        FieldType::Bool | FieldType::Int { .. } => {
            serde_json::from_str(text).unwrap_or_else(|_| json!(text))
        }
        _ => json!(text),
    }
}

fn of_text(text: TextFormat) -> Value {
    let pattern = match text {
        TextFormat::Name => "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$",
        TextFormat::Model => "^[!-~]{1,128}$",
        TextFormat::Target => "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}/[!-~]{1,128}$",
        TextFormat::Duration => "^[0-9]+(ms|s|m|h|d)$",
        TextFormat::Size => {
            return json!({ "type": ["string", "integer"], "pattern": "^[0-9]+(B|KiB|MiB|GiB)?$" });
        }
        TextFormat::ImageTokens => {
            return json!({ "anyOf": [
                { "enum": ["openai", "anthropic", "gemini"] },
                { "type": "integer", "minimum": 1 },
            ] });
        }
        TextFormat::Limit => "^[0-9]+ */ *(minute|hour|day|month)$",
        TextFormat::CallLimit => "^[0-9]+ */ *(minute|hour)$",
        TextFormat::Link => "^https?://",
        TextFormat::Price => "^\\$[0-9]+(\\.[0-9]{1,2})?/(month|year)$",
        TextFormat::Dollars => "^\\$[0-9]+(\\.[0-9]{1,2})?$",
        TextFormat::Percent => "^[0-9]+(\\.[0-9]{1,2})?%$",
        TextFormat::BaseUrl => "^(https?://|stand-in$)",
        TextFormat::Secret => "^(sealed:|env:|file:)",
        TextFormat::Source => "^(env:|file:)",
        TextFormat::Token => "^(env:|file:|none$)",
        TextFormat::LicenseKey => "^[ -~]{8,}$",
        TextFormat::ShopId => "^[0-9]+$",
        TextFormat::ShopVariant => "^([0-9]+|\\*)$",
        TextFormat::RedisUrl => "^(rediss?(\\+sentinel|\\+cluster)?://|env:|file:)",
        TextFormat::Address | TextFormat::Network | TextFormat::Path | TextFormat::Any => {
            return json!({ "type": "string", "minLength": 1 });
        }
    };
    json!({ "type": "string", "pattern": pattern })
}
