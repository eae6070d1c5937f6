//! What the stand-in says: the same words in each dialect.

use gatekeeper_filters::{
    kernel::{Endpoint, Vocabulary, json::Value},
    meter::estimate,
};
use serde_json::json;

/// One request.
pub struct Asked {
    endpoint: Endpoint,
    model: String,
    pub stream: bool,
    /// In tokens.
    input: u64,
    /// The answer, in pieces of about a token.
    pub words: Vec<String>,
}

impl Asked {
    /// `target` is the path with its query.
    pub fn of(target: &str, ask: &Value<'_>) -> Self {
        let path = target.split('?').next().unwrap_or_default();
        let method = path.rsplit(':').next().unwrap_or_default();
        let endpoint = match path.rsplit('/').next().unwrap_or_default() {
            "embeddings" => Endpoint::Embeddings,
            "messages" => Endpoint::Messages,
            _ if method.ends_with("enerateContent") => Endpoint::Generate,
            _ => Endpoint::Chat,
        };
        let named = ask.get("model").and_then(|model| model.as_str());
        let flag = ask.get("stream").and_then(|stream| stream.as_bool());
        Self {
            endpoint,
            model: named.unwrap_or_default().into_owned(),
            stream: flag == Some(true) || method == "streamGenerateContent",
            input: estimate::text(&String::from_utf8_lossy(ask.raw())).tokens(Vocabulary::O200k),
            words: reply(&question(ask)),
        }
    }

    fn output(&self) -> u64 {
        estimate::text(&self.words.concat()).tokens(Vocabulary::O200k)
    }

    /// The answer as one JSON.
    pub fn whole(&self) -> String {
        let (model, text) = (&self.model, self.words.concat());
        match self.endpoint {
            Endpoint::Embeddings => json!({
                "object": "list", "model": model,
                "data": [{ "object": "embedding", "index": 0, "embedding": [0.1, -0.2, 0.3, 0.4] }],
                "usage": { "prompt_tokens": self.input, "total_tokens": self.input },
            }),
            Endpoint::Messages => json!({
                "id": "msg_stand_in", "type": "message", "role": "assistant", "model": model,
                "content": [{ "type": "text", "text": text }],
                "stop_reason": "end_turn", "stop_sequence": null,
                "usage": { "input_tokens": self.input, "output_tokens": self.output() },
            }),
            Endpoint::Generate => self.candidate(&text, Some("STOP")),
            Endpoint::Chat | Endpoint::Responses => json!({
                "id": "chatcmpl-stand-in", "object": "chat.completion", "created": 0, "model": model,
                "choices": [{
                    "index": 0, "message": { "role": "assistant", "content": text },
                    "finish_reason": "stop",
                }],
                "usage": self.usage(),
            }),
        }
        .to_string()
    }

    /// What a stream begins with, before any word.
    pub fn opening(&self) -> Option<String> {
        match self.endpoint {
            Endpoint::Messages => {
                let message = json!({
                    "id": "msg_stand_in", "type": "message", "role": "assistant",
                    "model": self.model, "content": [], "stop_reason": null, "stop_sequence": null,
                    "usage": { "input_tokens": self.input, "output_tokens": 1 },
                });
                let block = json!({ "type": "text", "text": "" });
                Some(
                    named("message_start", json!({ "message": message }))
                        + &named(
                            "content_block_start",
                            json!({ "index": 0, "content_block": block }),
                        ),
                )
            }
            Endpoint::Generate => None,
            _ => Some(self.chunk(json!({ "role": "assistant" }), None)),
        }
    }

    pub fn word(&self, word: &str) -> String {
        match self.endpoint {
            Endpoint::Messages => {
                let delta = json!({ "type": "text_delta", "text": word });
                named("content_block_delta", json!({ "index": 0, "delta": delta }))
            }
            Endpoint::Generate => event(&self.candidate(word, None)),
            _ => self.chunk(json!({ "content": word }), None),
        }
    }

    /// What a stream ends with, after all words.
    pub fn closing(&self) -> String {
        match self.endpoint {
            Endpoint::Messages => {
                let delta = json!({ "stop_reason": "end_turn", "stop_sequence": null });
                let usage = json!({ "output_tokens": self.output() });
                named("content_block_stop", json!({ "index": 0 }))
                    + &named("message_delta", json!({ "delta": delta, "usage": usage }))
                    + &named("message_stop", json!({}))
            }
            Endpoint::Generate => event(&self.candidate("", Some("STOP"))),
            _ => {
                let last = json!({
                    "id": "chatcmpl-stand-in", "object": "chat.completion.chunk", "created": 0,
                    "model": self.model, "choices": [], "usage": self.usage(),
                });
                self.chunk(json!({}), Some("stop")) + &event(&last) + "data: [DONE]\n\n"
            }
        }
    }

    fn chunk(&self, delta: serde_json::Value, finish: Option<&str>) -> String {
        event(&json!({
            "id": "chatcmpl-stand-in", "object": "chat.completion.chunk", "created": 0,
            "model": self.model,
            "choices": [{ "index": 0, "delta": delta, "finish_reason": finish }],
        }))
    }

    fn usage(&self) -> serde_json::Value {
        let (input, output) = (self.input, self.output());
        json!({
            "prompt_tokens": input, "completion_tokens": output, "total_tokens": input + output,
        })
    }

    /// Gemini's answer, or a chunk of one: counted at the end.
    fn candidate(&self, text: &str, finish: Option<&str>) -> serde_json::Value {
        let content = json!({ "role": "model", "parts": [{ "text": text }] });
        let mut candidate = json!({ "index": 0, "content": content });
        let mut usage = json!({ "promptTokenCount": self.input, "totalTokenCount": self.input });
        if let Some(reason) = finish {
            candidate["finishReason"] = reason.into();
            usage["candidatesTokenCount"] = self.output().into();
            usage["totalTokenCount"] = (self.input + self.output()).into();
        }
        json!({ "candidates": [candidate], "usageMetadata": usage, "modelVersion": "stand-in" })
    }
}

fn event(data: &serde_json::Value) -> String {
    format!("data: {data}\n\n")
}

/// One of Anthropic's events, which carries its name twice.
fn named(name: &str, mut data: serde_json::Value) -> String {
    data["type"] = name.into();
    format!("event: {name}\n{}", event(&data))
}

/// The last thing that was said.
fn question(ask: &Value<'_>) -> String {
    let list = ask.get("messages").or_else(|| ask.get("contents"));
    let last = list.and_then(|list| list.items().last());
    let said = last.and_then(|last| last.get("content").or_else(|| last.get("parts")));
    let text = said.and_then(|said| {
        let first = said.items().next().and_then(|part| part.get("text"));
        said.as_str().or(first.and_then(|text| text.as_str())).map(|text| text.into_owned())
    });
    text.unwrap_or_default()
}

fn reply(question: &str) -> Vec<String> {
    let heard: String = question.chars().take(60).collect();
    let text = format!("This is the stand-in provider. You said: \"{heard}\". All is well.");
    text.split_inclusive(' ').map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use gatekeeper_filters::{
        kernel::json::Document,
        meter::{self, Stream},
    };

    use super::*;

    /// What the gateway's own readers make of it.
    #[test]
    fn each_dialect_is_an_answer_with_a_count() {
        let chat = r#"{"model":"m","messages":[{"role":"user","content":"Hello"}]}"#;
        let contents = r#"{"contents":[{"parts":[{"text":"Hello"}]}]}"#;
        for (endpoint, target, body) in [
            (Endpoint::Chat, "/v1/chat/completions", chat),
            (Endpoint::Messages, "/v1/messages", chat),
            (Endpoint::Generate, "/v1/models/m:streamGenerateContent?alt=sse", contents),
        ] {
            let document = Document::parse(Bytes::from(body)).unwrap();
            let asked = Asked::of(target, &document.root());
            assert!(asked.words.concat().contains("\"Hello\""));
            let whole = meter::answer(endpoint, asked.whole().as_bytes()).unwrap();
            assert!(whole.commits && whole.finished, "{target}");
            let mut stream = Stream::of(endpoint);
            let events = asked.opening().unwrap_or_default()
                + &asked.words.iter().map(|word| asked.word(word)).collect::<String>()
                + &asked.closing();
            let data = events.lines().filter_map(|line| line.strip_prefix("data: "));
            let readings: Vec<_> = data.map(|data| stream.read(None, data.as_bytes())).collect();
            let usage = readings.iter().filter_map(|reading| reading.usage).next_back();
            assert_eq!(usage, whole.usage, "{target}");
            assert!(readings.iter().any(|reading| reading.finished), "{target}");
            assert!(usage.unwrap().input > 0 && usage.unwrap().output > 0, "{target}");
        }
    }
}
