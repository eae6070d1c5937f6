//! OpenAI's embeddings: vectors of length one, the same for the same input.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::answer::StandInRequest;

const DIMENSIONS: u64 = 256;
const MOST_DIMENSIONS: u64 = 4096;

pub fn whole(asked: &StandInRequest, body: &Value) -> Value {
    let dimensions = body["dimensions"].as_u64().unwrap_or(DIMENSIONS).clamp(1, MOST_DIMENSIONS);
    let in_base64 = body["encoding_format"] == "base64";
    let data: Vec<Value> = inputs(&body["input"])
        .iter()
        .enumerate()
        .map(|(index, input)| {
            let vector = vector(&input.to_string(), dimensions as usize);
            let embedding = if in_base64 {
                let bytes: Vec<u8> = vector.iter().flat_map(|part| part.to_le_bytes()).collect();
                json!(STANDARD.encode(bytes))
            } else {
                json!(vector)
            };
            json!({ "object": "embedding", "index": index, "embedding": embedding })
        })
        .collect();
    json!({
        "object": "list", "model": asked.model, "data": data,
        "usage": { "prompt_tokens": asked.input, "total_tokens": asked.input },
    })
}

/// One text, several, one list of token numbers, or several.
fn inputs(input: &Value) -> &[Value] {
    match input.as_array() {
        Some(items) if !items.iter().all(Value::is_number) => items,
        _ => std::slice::from_ref(input),
    }
}

/// FNV-1a, stirred for each part.
fn vector(text: &str, dimensions: usize) -> Vec<f32> {
    let mut state = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let parts: Vec<f32> = (0..dimensions)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 40) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect();
    let length = parts.iter().map(|part| part * part).sum::<f32>().sqrt().max(f32::MIN_POSITIVE);
    parts.iter().map(|part| part / length).collect()
}
