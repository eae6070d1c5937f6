//! Gemini's `generateContent`.

use serde_json::{Value, json};

use super::answer::{Reply, StandInRequest, event};

pub fn whole(asked: &StandInRequest) -> Value {
    match &asked.reply {
        Reply::Words(words) => candidate(asked, json!({ "text": words.concat() }), true),
        Reply::Call { name, arguments } => candidate(asked, call(name, arguments), true),
    }
}

pub fn events(asked: &StandInRequest) -> Vec<String> {
    match &asked.reply {
        Reply::Words(words) => {
            let said =
                words.iter().map(|word| event(&candidate(asked, json!({ "text": word }), false)));
            let last = event(&candidate(asked, json!({ "text": "" }), true));
            said.chain([last]).collect()
        }
        Reply::Call { name, arguments } => {
            vec![event(&candidate(asked, call(name, arguments), true))]
        }
    }
}

fn call(name: &str, arguments: &Value) -> Value {
    json!({ "functionCall": { "id": "call_stand_in", "name": name, "args": arguments } })
}

/// An answer, or a chunk of one: counted at the end.
fn candidate(asked: &StandInRequest, part: Value, is_last: bool) -> Value {
    let content = json!({ "role": "model", "parts": [part] });
    let mut candidate = json!({ "index": 0, "content": content });
    let mut usage = json!({ "promptTokenCount": asked.input, "totalTokenCount": asked.input });
    if is_last {
        candidate["finishReason"] = if asked.cut { "MAX_TOKENS" } else { "STOP" }.into();
        usage["candidatesTokenCount"] = asked.output().into();
        usage["totalTokenCount"] = (asked.input + asked.output()).into();
    }
    json!({
        "candidates": [candidate], "usageMetadata": usage, "modelVersion": "stand-in",
        "responseId": "response-stand-in",
    })
}
