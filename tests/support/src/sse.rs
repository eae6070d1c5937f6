//! Answers a provider gives, and what they mean.

use serde_json::{Value, json};

/// A chat answer with odd spacing, so that re-serialising would show. 11 + 7 tokens.
pub const CHAT: &str = "{\"id\":\"chatcmpl-1\", \"object\":\"chat.completion\",\"created\":1795485600,\n\
 \"model\":\"m1\",\"choices\":[ {\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":\"Hel\\u006co\"},\
\"logprobs\":null,\"finish_reason\":\"stop\"}],\n\"usage\":{\"prompt_tokens\":11,\"completion_tokens\":7,\"total_tokens\":18}}\n";
/// What [`CHAT`] and [`USAGE`] report.
pub const TOKENS: u64 = 18;

pub const EMBEDDINGS: &str = "{\"object\":\"list\",\"data\":[{\"object\":\"embedding\",\"index\":0,\
\"embedding\":[0.25,-1e-3]}],\"model\":\"m1\", \"usage\":{\"prompt_tokens\":8,\"total_tokens\":8}}";

pub const RESPONSE: &str = "{\"id\":\"resp_1\",\"object\":\"response\",\"status\":\"completed\",\"model\":\"m1\",\
 \"output\":[{\"type\":\"message\",\"id\":\"msg_1\",\"status\":\"completed\",\"role\":\"assistant\",\
\"content\":[{\"type\":\"output_text\",\"text\":\"Hello\",\"annotations\":[]}]}],\
\"usage\":{\"input_tokens\":11,\"input_tokens_details\":{\"cached_tokens\":0},\"output_tokens\":7,\
\"output_tokens_details\":{\"reasoning_tokens\":0},\"total_tokens\":18}}";

/// The first chunk of a stream: no output yet.
pub const ROLE: &str = "data: {\"id\":\"c1\",\"object\":\"chat.completion.chunk\",\"model\":\"m1\",\
\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"finish_reason\":null}]}\n\n";
pub const FINISH: &str = "data: {\"id\":\"c1\",\"object\":\"chat.completion.chunk\",\"model\":\"m1\",\
\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
/// The extra chunk of `include_usage`. 11 + 7 tokens.
pub const USAGE: &str = "data: {\"id\":\"c1\",\"object\":\"chat.completion.chunk\",\"model\":\"m1\",\
\"choices\":[],\"usage\":{\"prompt_tokens\":11,\"completion_tokens\":7,\"total_tokens\":18}}\n\n";
pub const DONE: &str = "data: [DONE]\n\n";
/// A provider's error inside a stream, with its account in it.
pub const ERROR: &str = "data: {\"error\":{\"message\":\"The server had an error (organization org-SECRETorg1234567890)\",\
\"type\":\"server_error\",\"param\":null,\"code\":null}}\n\n";

/// One chunk with text.
pub fn text(content: &str) -> String {
    format!(
        "data: {{\"id\":\"c1\",\"object\":\"chat.completion.chunk\",\"model\":\"m1\",\
         \"choices\":[{{\"index\":0,\"delta\":{{\"content\":{}}},\"finish_reason\":null}}]}}\n\n",
        json!(content)
    )
}

/// A whole stream without the usage chunk.
pub fn plain(words: &[&str]) -> Vec<String> {
    let mut events = vec![ROLE.to_owned()];
    events.extend(words.iter().map(|word| text(word)));
    events.push(FINISH.into());
    events.push(DONE.into());
    events
}

/// A whole stream as a provider sends it when asked for usage.
pub fn with_usage(words: &[&str]) -> Vec<String> {
    let mut events = plain(words);
    events.insert(events.len() - 1, USAGE.into());
    events
}

/// The data of each event of a stream: JSON, except for `[DONE]`, which is a string.
pub fn events(body: &[u8]) -> Vec<Value> {
    let text = String::from_utf8(body.to_vec()).unwrap().replace("\r\n", "\n");
    text.split("\n\n")
        .filter_map(|event| {
            let lines: Vec<&str> = event
                .lines()
                .filter_map(|line| line.strip_prefix("data:"))
                .map(str::trim)
                .collect();
            (!lines.is_empty()).then(|| lines.join("\n"))
        })
        .map(|data| match data.as_str() {
            "[DONE]" => json!("[DONE]"),
            data => serde_json::from_str(data).unwrap_or_else(|_| panic!("not JSON: {data}")),
        })
        .collect()
}

/// The text of a chat stream.
pub fn content(body: &[u8]) -> String {
    events(body)
        .iter()
        .filter_map(|event| event.pointer("/choices/0/delta/content")?.as_str().map(str::to_owned))
        .collect()
}

/// The error a broken stream ends in: its last event, and no end marker anywhere.
pub fn closing_error(body: &[u8]) -> Value {
    let all = events(body);
    assert!(!all.contains(&json!("[DONE]")), "a broken stream must not end in [DONE]");
    let last = all.last().expect("an event");
    assert!(last["error"]["message"].is_string(), "the last event is no error: {last}");
    last["error"].clone()
}
