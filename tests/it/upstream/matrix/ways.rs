//! The ways on which an app is answered: what it sends, what a healthy provider says, and how the app
//! sees that an answer is whole, broken or refused.

use serde_json::{Value, json};

use crate::support::{Answer, Reply, sse};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Api {
    Chat,
    Responses,
    Embeddings,
    Messages,
    Generate,
}

#[derive(Clone, Copy, Debug)]
pub struct Way {
    pub name: &'static str,
    pub app: Api,
    pub provider: Api,
    pub stream: bool,
}

const fn way(name: &'static str, app: Api, provider: Api, stream: bool) -> Way {
    Way { name, app, provider, stream }
}

pub const WAYS: [Way; 11] = [
    way("chat", Api::Chat, Api::Chat, false),
    way("chat stream", Api::Chat, Api::Chat, true),
    way("messages", Api::Messages, Api::Messages, false),
    way("messages stream", Api::Messages, Api::Messages, true),
    way("generate", Api::Generate, Api::Generate, false),
    way("generate stream", Api::Generate, Api::Generate, true),
    way("responses", Api::Responses, Api::Responses, false),
    way("responses stream", Api::Responses, Api::Responses, true),
    way("embeddings", Api::Embeddings, Api::Embeddings, false),
    way("chat by messages", Api::Chat, Api::Messages, false),
    way("chat stream by messages", Api::Chat, Api::Messages, true),
];

/// A provider's events of one stream.
pub struct Script {
    /// What comes before any output.
    pub preamble: Vec<String>,
    pub words: [String; 2],
    /// From the last word to the end marker, both left out.
    pub finish: Vec<String>,
    /// Without it the answer is not whole; none where a dialect has none.
    pub end: Option<String>,
}

impl Script {
    /// Up to the first word, which commits the stream.
    pub fn committed(&self) -> String {
        self.preamble.concat() + &self.words[0]
    }

    /// From there to the end marker, which is left out.
    pub fn rest(&self) -> String {
        self.words[1].clone() + &self.finish.concat()
    }

    pub fn whole(&self) -> String {
        self.committed() + &self.rest() + self.end.as_deref().unwrap_or_default()
    }
}

impl Api {
    /// Its provider's `dialect`.
    pub fn dialect(self) -> &'static str {
        match self {
            Api::Chat | Api::Responses | Api::Embeddings => "openai",
            Api::Messages => "anthropic",
            Api::Generate => "gemini",
        }
    }

    /// A whole JSON answer. The text is "Hello"; [`Api::tokens`] are reported.
    pub fn json(self) -> String {
        match self {
            Api::Chat => sse::CHAT.into(),
            Api::Responses => sse::RESPONSE.into(),
            Api::Embeddings => sse::EMBEDDINGS.into(),
            Api::Messages => json!({
                "id": "msg_1", "type": "message", "role": "assistant", "model": "m1",
                "content": [{ "type": "text", "text": "Hello" }],
                "stop_reason": "end_turn", "stop_sequence": null,
                "usage": { "input_tokens": 11, "output_tokens": 7 },
            })
            .to_string(),
            Api::Generate => json!({
                "candidates": [{
                    "content": { "parts": [{ "text": "Hello" }], "role": "model" },
                    "finishReason": "STOP", "index": 0,
                }],
                "usageMetadata": counted(), "modelVersion": "m1",
            })
            .to_string(),
        }
    }

    /// What a whole answer reports.
    pub fn tokens(self) -> u64 {
        if self == Api::Embeddings { 8 } else { sse::TOKENS }
    }

    /// The same answer as a stream.
    pub fn script(self) -> Script {
        let list = |events: &[&str]| events.iter().map(|event| (*event).to_owned()).collect();
        match self {
            Api::Chat | Api::Embeddings => Script {
                preamble: list(&[sse::ROLE]),
                words: ["Hel", "lo"].map(sse::text),
                finish: list(&[sse::FINISH, sse::USAGE]),
                end: Some(sse::DONE.into()),
            },
            Api::Messages => messages_script(),
            Api::Responses => responses_script(),
            Api::Generate => generate_script(),
        }
    }

    /// A failure as an event of a stream, with the seller's account in it.
    pub fn error_event(self, kind: &str) -> String {
        let message = "Something went wrong in organization org-SECRETorg1234567890";
        let data = match self {
            Api::Chat | Api::Embeddings => {
                json!({ "error": { "message": message, "type": kind, "param": null, "code": null } })
            }
            Api::Responses => {
                let event = json!({ "type": "error", "code": kind, "message": message,
                    "param": null, "sequence_number": 9 });
                return named("error", &event);
            }
            Api::Messages => {
                let event =
                    json!({ "type": "error", "error": { "type": kind, "message": message } });
                return named("error", &event);
            }
            Api::Generate => {
                json!({ "error": { "code": 500, "message": message, "status": kind } })
            }
        };
        format!("data: {data}\n\n")
    }

    /// An error's body, with the seller's account in it.
    pub fn error_body(self, status: u16, kind: &str, code: &str, message: &str) -> Value {
        let message = format!("{message} (organization org-SECRETorg1234567890)");
        match self.dialect() {
            "openai" => {
                json!({ "error": { "message": message, "type": kind, "param": null, "code": code } })
            }
            "anthropic" => json!({ "type": "error", "request_id": "req_SECRET1234567890",
                "error": { "type": kind, "message": message } }),
            _ => json!({ "error": { "code": status, "message": message, "status": kind } }),
        }
    }
}

fn counted() -> Value {
    json!({ "promptTokenCount": 11, "candidatesTokenCount": 7, "totalTokenCount": 18 })
}

fn named(name: &str, data: &Value) -> String {
    format!("event: {name}\ndata: {data}\n\n")
}

fn messages_script() -> Script {
    let event = |data: Value| named(data["type"].as_str().unwrap(), &data);
    let word = |text: &str| {
        event(json!({ "type": "content_block_delta", "index": 0,
            "delta": { "type": "text_delta", "text": text } }))
    };
    Script {
        preamble: vec![
            event(json!({ "type": "message_start", "message": {
                "id": "msg_1", "type": "message", "role": "assistant", "model": "m1", "content": [],
                "stop_reason": null, "usage": { "input_tokens": 11, "output_tokens": 1 } } })),
            event(json!({ "type": "content_block_start", "index": 0,
                "content_block": { "type": "text", "text": "" } })),
            event(json!({ "type": "ping" })),
        ],
        words: ["Hel", "lo"].map(word),
        finish: vec![
            event(json!({ "type": "content_block_stop", "index": 0 })),
            event(json!({ "type": "message_delta", "delta": { "stop_reason": "end_turn" },
                "usage": { "output_tokens": 7 } })),
        ],
        end: Some(event(json!({ "type": "message_stop" }))),
    }
}

fn responses_script() -> Script {
    let event = |data: Value| named(data["type"].as_str().unwrap(), &data);
    let word = |text: &str| {
        event(json!({ "type": "response.output_text.delta", "sequence_number": 2,
            "item_id": "msg_1", "output_index": 0, "content_index": 0, "delta": text }))
    };
    let whole: Value = serde_json::from_str(sse::RESPONSE).unwrap();
    Script {
        preamble: vec![event(json!({ "type": "response.created", "sequence_number": 0,
            "response": { "id": "resp_1", "object": "response", "status": "in_progress",
                "model": "m1", "output": [], "error": null, "usage": null } }))],
        words: ["Hel", "lo"].map(word),
        finish: vec![event(json!({ "type": "response.output_text.done", "sequence_number": 4,
            "item_id": "msg_1", "output_index": 0, "content_index": 0, "text": "Hello" }))],
        end: Some(event(json!({ "type": "response.completed", "sequence_number": 5,
            "response": whole }))),
    }
}

fn generate_script() -> Script {
    let chunk = |text: &str, more: Value| {
        let mut chunk = json!({
            "candidates": [{ "content": { "parts": [{ "text": text }], "role": "model" }, "index": 0 }],
            "modelVersion": "m1",
        });
        if !more.is_null() {
            chunk["candidates"][0]["finishReason"] = json!("STOP");
            chunk["usageMetadata"] = more;
        }
        format!("data: {chunk}\n\n")
    };
    Script {
        preamble: vec![chunk("", Value::Null)],
        words: ["Hel", "lo"].map(|word| chunk(word, Value::Null)),
        finish: vec![chunk("", counted())],
        end: None,
    }
}

impl Way {
    pub fn path(&self, model: &str) -> String {
        match (self.app, self.stream) {
            (Api::Chat, _) => "/v1/chat/completions".into(),
            (Api::Responses, _) => "/v1/responses".into(),
            (Api::Embeddings, _) => "/v1/embeddings".into(),
            (Api::Messages, _) => "/v1/messages".into(),
            (Api::Generate, false) => format!("/v1beta/models/{model}:generateContent"),
            (Api::Generate, true) => {
                format!("/v1beta/models/{model}:streamGenerateContent?alt=sse")
            }
        }
    }

    pub fn body(&self, model: &str) -> Value {
        let text = "What is the capital of Iceland?";
        let turn = json!([{ "role": "user", "content": text }]);
        match self.app {
            Api::Chat => json!({ "model": model, "messages": turn, "stream": self.stream }),
            Api::Responses => json!({ "model": model, "input": text, "stream": self.stream }),
            Api::Embeddings => json!({ "model": model, "input": text }),
            Api::Messages => {
                json!({ "model": model, "messages": turn, "max_tokens": 100, "stream": self.stream })
            }
            Api::Generate => json!({ "contents": [{ "parts": [{ "text": text }] }] }),
        }
    }

    /// What a healthy provider answers.
    pub fn good(&self) -> Reply {
        match self.stream {
            true => Reply::sse(&[self.provider.script().whole()]),
            false => Reply::json(200, self.provider.json()),
        }
    }

    /// The app has all that the provider said, and the end marker whether or not the provider sent it.
    pub fn is_whole(&self, answer: &Answer) {
        let text = answer.ok().text();
        let translated = self.app != self.provider;
        match (self.stream, translated) {
            (false, false) => assert_eq!(text, self.provider.json()),
            (false, true) => {
                let choice = &answer.json()["choices"][0];
                assert_eq!(choice["message"]["content"], "Hello", "{text}");
                assert_eq!(choice["finish_reason"], "stop", "{text}");
            }
            (true, false) => {
                let script = self.provider.script();
                // The app did not ask for the usage chunk.
                assert_eq!(text, script.whole().replace(sse::USAGE, ""));
            }
            (true, true) => {
                assert_eq!(sse::content(&answer.body), "Hello", "{text}");
                assert!(text.ends_with(sse::DONE), "{text}");
            }
        }
    }

    /// The app has the first words, then an error its SDK shows, and no end marker.
    pub fn is_broken(&self, answer: &Answer) {
        let text = answer.ok().text();
        if self.app == self.provider {
            let begun = self.provider.script().committed();
            assert!(text.starts_with(&begun), "{text}");
        } else {
            assert!(sse::content(&answer.body).starts_with("Hel"), "{text}");
        }
        for marker in ["[DONE]", "message_stop", "response.completed"] {
            assert!(!text.contains(marker), "a broken stream has an end marker: {text}");
        }
        let last = sse::events(&answer.body).pop().expect("an event");
        self.is_error(&last, 502, "upstream_error");
        assert!(!text.contains("SECRET"), "{text}");
        if self.app == Api::Messages {
            assert!(text.contains("event: error\ndata: "), "{text}");
        }
    }

    /// In the app's own envelope.
    pub fn is_refused(&self, answer: &Answer, status: u16, code: &str) {
        let text = answer.text();
        assert_eq!(answer.status, status, "{text}");
        self.is_error(&answer.json(), status, code);
        assert!(!text.contains("SECRET"), "{text}");
        assert!(answer.header("x-request-id").is_some());
        let retry = answer.header("retry-after").map(|after| after.parse::<u64>().unwrap());
        let wait = code == "upstream_exhausted";
        assert_eq!(retry.is_some_and(|seconds| (1..=60).contains(&seconds)), wait, "{retry:?}");
    }

    fn is_error(&self, body: &Value, status: u16, code: &str) {
        let error = &body["error"];
        assert!(error["message"].as_str().is_some_and(|words| words.len() > 10), "{body}");
        if self.app == Api::Generate {
            assert_eq!(error["code"], status, "{body}");
            assert_eq!(error["details"][0]["reason"], code.to_uppercase(), "{body}");
            assert!(error["status"].is_string(), "{body}");
            return;
        }
        assert_eq!(error["code"], code, "{body}");
        assert!(error["type"].is_string(), "{body}");
        if self.app == Api::Messages {
            assert_eq!(body["type"], "error", "{body}");
        }
    }

    /// The gateway's own words about the request, in the app's envelope.
    pub fn is_told(&self, answer: &Answer, status: u16) {
        assert_eq!(answer.status, status, "{}", answer.text());
        let body = answer.json();
        let words = body["error"]["message"].as_str().unwrap_or_default();
        assert!(words.ends_with('.') && !answer.text().contains("SECRET"), "{body}");
        assert!(answer.header("retry-after").is_none());
    }

    /// The provider's own words, without its account, in the app's envelope.
    pub fn is_relayed(&self, answer: &Answer, status: u16, words: &str) {
        let text = answer.text();
        assert_eq!(answer.status, status, "{text}");
        let body = answer.json();
        let message = body["error"]["message"].as_str().unwrap_or_default();
        assert!(message.contains(words) && !text.contains("SECRET"), "{text}");
        match self.app {
            Api::Generate => assert_eq!(body["error"]["code"], status, "{body}"),
            Api::Messages => assert_eq!(body["type"], "error", "{body}"),
            _ => assert!(body["error"]["type"].is_string(), "{body}"),
        }
    }
}
