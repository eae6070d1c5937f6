//! Generates a value that is valid by a JSON Schema, as a model does that has to follow one.
//!
//! Followed are types, `enum`, `const`, references into the schema itself, `anyOf`, `oneOf`, `allOf`, bounds and
//! the common formats; a `pattern` is not. Gemini's own spelling (`"type": "OBJECT"`, `nullable`) is understood.

use serde_json::{Map, Value, json};

/// From here on what may be left out is left out: a schema may refer to itself.
const DEEP: usize = 5;
const DEEPEST: usize = 24;
/// Items and characters that a bound may ask for.
const MOST: u64 = 1000;

pub fn sample(schema: &Value) -> Value {
    Sampler { root: schema }.value(schema, "", 0)
}

struct Sampler<'a> {
    root: &'a Value,
}

impl<'a> Sampler<'a> {
    /// `name` is the member's that the value is for: it makes the words.
    fn value(&self, schema: &'a Value, name: &str, depth: usize) -> Value {
        if depth > DEEPEST {
            return Value::Null;
        }
        if let Some(at) = schema["$ref"].as_str() {
            let found = at.strip_prefix('#').and_then(|pointer| self.root.pointer(pointer));
            return found.map_or(Value::Null, |found| self.value(found, name, depth + 1));
        }
        if let Some(value) = schema.get("const") {
            return value.clone();
        }
        if let Some(first) = schema["enum"].as_array().and_then(|values| values.first()) {
            return first.clone();
        }
        for several in ["anyOf", "oneOf"] {
            if let Some(options) = schema[several].as_array() {
                let is_null = |option: &&Value| option["type"] != "null";
                // Deep down whatever ends soonest.
                let option = if depth > DEEP { None } else { options.iter().find(is_null) };
                let option =
                    option.or_else(|| options.iter().find(|option| option["type"] == "null"));
                return option
                    .or(options.first())
                    .map_or(Value::Null, |option| self.value(option, name, depth + 1));
            }
        }
        match type_of(schema).as_str() {
            "object" => self.object(schema, depth),
            "array" => self.array(schema, name, depth),
            "string" => Value::String(text(schema, name)),
            "integer" => json!(number(schema, 1.0) as i64),
            "number" => json!(number(schema, 0.5)),
            "boolean" => Value::Bool(true),
            _ => Value::Null,
        }
    }

    fn object(&self, schema: &'a Value, depth: usize) -> Value {
        let mut object = Map::new();
        let parts = schema["allOf"].as_array().map_or(&[][..], Vec::as_slice);
        for part in parts {
            if let Value::Object(members) = self.value(part, "", depth + 1) {
                object.extend(members);
            }
        }
        let required = schema["required"].as_array().map_or(&[][..], Vec::as_slice);
        for (name, member) in schema["properties"].as_object().into_iter().flatten() {
            let is_required = required.iter().any(|known| known == name);
            if is_required || depth <= DEEP {
                object.insert(name.clone(), self.value(member, name, depth + 1));
            }
        }
        for name in required.iter().filter_map(Value::as_str) {
            object.entry(name).or_insert_with(|| json!(name));
        }
        Value::Object(object)
    }

    fn array(&self, schema: &'a Value, name: &str, depth: usize) -> Value {
        let least = bound(schema, "minItems").unwrap_or(0);
        let most = bound(schema, "maxItems").unwrap_or(MOST);
        let wanted = if depth > DEEP { least } else { least.max(1) }.min(most).min(MOST);
        let first = schema["prefixItems"].as_array().map_or(&[][..], Vec::as_slice);
        let items = (0..wanted.max(first.len() as u64)).map(|at| {
            let item = first.get(at as usize).unwrap_or(&schema["items"]);
            let values = item["enum"].as_array();
            let own = values.and_then(|values| values.get(at as usize)).cloned();
            own.unwrap_or_else(|| self.value(item, name, depth + 1))
        });
        Value::Array(items.collect())
    }
}

/// `["string", "null"]` is a string here, and what has members is an object.
fn type_of(schema: &Value) -> String {
    let kind = match &schema["type"] {
        Value::Array(kinds) => kinds.iter().find(|kind| **kind != "null").unwrap_or(&Value::Null),
        kind => kind,
    };
    match kind.as_str() {
        Some(kind) => kind.to_ascii_lowercase(),
        None if schema.get("properties").is_some() || schema.get("allOf").is_some() => {
            "object".into()
        }
        None if schema.get("items").is_some() => "array".into(),
        None => "null".into(),
    }
}

/// A count; Gemini writes it as text.
fn bound(schema: &Value, name: &str) -> Option<u64> {
    schema[name].as_u64().or_else(|| schema[name].as_str()?.parse().ok())
}

fn text(schema: &Value, name: &str) -> String {
    let plain = if name.is_empty() { "stand-in" } else { name };
    let mut text = match schema["format"].as_str().unwrap_or_default() {
        "date-time" => "2026-01-02T03:04:05Z",
        "date" => "2026-01-02",
        "time" => "03:04:05Z",
        "duration" => "PT5M",
        "email" => "buyer@example.com",
        "hostname" => "example.com",
        "ipv4" => "192.0.2.1",
        "ipv6" => "2001:db8::1",
        "uri" | "url" => "https://example.com/",
        "uuid" => "123e4567-e89b-42d3-a456-426614174000",
        _ => plain,
    }
    .to_owned();
    let least = bound(schema, "minLength").unwrap_or(0).min(MOST) as usize;
    while text.chars().count() < least {
        text.push('.');
    }
    match bound(schema, "maxLength") {
        Some(most) => text.chars().take(most as usize).collect(),
        None => text,
    }
}

/// `step` keeps away from a bound that is not included.
fn number(schema: &Value, step: f64) -> f64 {
    let of = |name: &str| schema[name].as_f64();
    let least = of("minimum").or(of("exclusiveMinimum").map(|bound| bound + step));
    let most = of("maximum").or(of("exclusiveMaximum").map(|bound| bound - step));
    let number = 1.0_f64.max(least.unwrap_or(1.0)).min(most.unwrap_or(f64::MAX));
    match of("multipleOf").filter(|unit| *unit > 0.0) {
        Some(unit) if most.is_some_and(|most| (number / unit).ceil() * unit > most) => {
            (number / unit).floor() * unit
        }
        Some(unit) => (number / unit).ceil() * unit,
        None => number,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_keeps_to_the_schema() {
        let schema = json!({
            "type": "object", "required": ["city", "days", "kind", "at", "tree", "pair", "some"],
            "properties": {
                "city": { "type": "string", "minLength": 6, "maxLength": 6 },
                "days": { "type": "array", "minItems": 2, "items": { "type": "integer", "minimum": 3, "multipleOf": 5 } },
                "kind": { "enum": ["warm", "cold"] },
                "at": { "type": "string", "format": "date-time" },
                "maybe": { "anyOf": [{ "type": "null" }, { "type": "number", "exclusiveMinimum": 7, "maximum": 8 }] },
                "tree": { "$ref": "#/$defs/node" },
                "pair": { "prefixItems": [{ "const": 1 }, { "type": ["null", "boolean"] }], "type": "array" },
                "some": { "allOf": [{ "type": "object", "properties": { "a": { "type": "string" } } }] },
            },
            "$defs": { "node": { "type": "object", "required": ["name", "next"], "properties": {
                "name": { "type": "string" },
                "next": { "anyOf": [{ "$ref": "#/$defs/node" }, { "type": "null" }] },
            } } },
        });
        let value = sample(&schema);
        assert_eq!(value["city"], "city..");
        assert_eq!(value["days"], json!([5, 5]));
        assert_eq!((&value["kind"], &value["pair"]), (&json!("warm"), &json!([1, true])));
        assert_eq!(value["maybe"], 7.5);
        assert_eq!(value["some"], json!({ "a": "a" }));
        let mut node = &value["tree"];
        while !node.is_null() {
            assert_eq!(node["name"], "name");
            node = &node["next"];
        }
        let endless = json!({ "$ref": "#" });
        assert_eq!(sample(&endless), Value::Null);
        let gemini = json!({ "type": "OBJECT", "properties": { "n": { "type": "ARRAY", "minItems": "2", "items": { "type": "STRING" } } } });
        assert_eq!(sample(&gemini), json!({ "n": ["n", "n"] }));
    }
}
