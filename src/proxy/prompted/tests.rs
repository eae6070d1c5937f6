//! What is made of a prompt is what a reader finds in the body that the provider gets.

use std::sync::{Arc, LazyLock};

use gatekeeper_filters::builtin;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{
    config::{self, Secrets},
    prompts::Prompts,
};

const CONFIG: &str = r#"
licenses: { sources: none }
plans: { pro: { prompts: ["*"] } }
providers: { p: { base_url: "http://127.0.0.1:1/v1", allow_private: true } }
models: { fast: [p/m1] }
prompts:
  data:
    model: fast
    system: "Help \"{{shop}}\".\n\tBe kind: ñ 漢."
    input: { shop: { max: 5000 }, other: { max: 5000 }, history: { turns: 9 } }
  literal:
    model: fast
    system: "{{tone}}{{language}} for {{shop}}, {{language}}"
    input:
      shop: {}
      language: { one_of: [en, de, es] }
      tone: { trusted: true }
      history: { turns: 9 }
    temperature: 0.4
    max_output_tokens: 400
    response_format: SCHEMA
    tools:
      - { name: lookup, description: "Finds \"an\" order.", parameters: { type: object, properties: { id: { type: string } } } }
      - { name: end }
  words:
    model: fast
    system: "{{language}}, {{formality}}. {{language}}!"
    input: { language: { one_of: [en, de] }, formality: { one_of: [du, Sie, "a \"quote\""] } }
    tools: [ { name: end } ]
  bare: { model: fast, system: "Say hello.", temperature: 1 }
"#;

const ENDPOINTS: [Endpoint; 4] =
    [Endpoint::Chat, Endpoint::Responses, Endpoint::Messages, Endpoint::Generate];

static PROMPTS: LazyLock<Arc<Prompts>> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let schema = folder.path().join("schema.json");
    std::fs::write(&schema, r#" {"type":"object","description":"an \"a\" ñ"} "#).unwrap();
    let text = CONFIG.replace("SCHEMA", &format!("\"file:{}\"", schema.display()));
    let parsed = config::parse(&text, &builtin(), Secrets::MayBeAbsent);
    parsed.map_err(|report| report.problems).unwrap().0.prompts
});

#[derive(Debug, Clone)]
struct Sent {
    name: &'static str,
    variables: Value,
    /// Who says what.
    turns: Vec<(bool, String)>,
    streams: bool,
    wants_usage: bool,
}

impl Sent {
    fn turns(&self, assistant: &str, write: impl Fn(&str, &str) -> Value) -> Vec<Value> {
        let role = |is_user| if is_user { "user" } else { assistant };
        self.turns.iter().map(|(is_user, text)| write(role(*is_user), text)).collect()
    }

    fn body(&self, endpoint: Endpoint) -> Bytes {
        let (streams, usage) = (self.streams, json!({ "include_usage": self.wants_usage }));
        let (model, text) = (format!("prompt/{}", self.name), self.variables.to_string());
        let said = |role: &str, text: &str| json!({ "role": role, "content": text });
        let mut turns = self.turns("assistant", said);
        let body = match endpoint {
            Endpoint::Responses => json!({ "stream": streams, "input": turns,
                "prompt": { "id": self.name, "variables": self.variables } }),
            Endpoint::Messages => json!({ "model": model, "stream": streams, "messages": turns,
                "system": text, "max_tokens": 9, "metadata": { "a": "b" } }),
            Endpoint::Generate => {
                let said =
                    |role: &str, text: &str| json!({ "role": role, "parts": [{ "text": text }] });
                json!({ "systemInstruction": { "parts": [{ "text": text }] },
                    "contents": self.turns("model", said) })
            }
            _ => {
                turns.insert(0, said("developer", &text));
                json!({ "model": model, "messages": turns, "stream": streams, "seed": 5,
                    "stream_options": usage })
            }
        };
        Bytes::from(body.to_string())
    }

    /// What is made of it, and what a reader finds in its body.
    fn both_ways(&self, endpoint: Endpoint) -> [ModelRequest; 2] {
        let model = format!("prompt/{}", self.name);
        let gemini = (endpoint == Endpoint::Generate).then_some(&*model);
        let way = Way::Body(endpoint, gemini);
        let rendered = render::render(&PROMPTS, None, way, &self.body(endpoint)).unwrap().unwrap();
        let (body, output_cap) = (rendered.body().clone(), rendered.output_cap);
        let method = gemini.map(|_| GeminiMethod { model: "fast".into(), stream: self.streams });
        let mut read = parse_body::parse(endpoint, body, method.clone(), &[]).unwrap();
        read.output_cap = output_cap;
        rendered.dropped.iter().for_each(|name| dropped::name(&mut read.dropped, name));
        [request(endpoint, rendered, method.map(|method| method.stream)).0, read]
    }
}

/// Any text, and such as would rather be something else.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "[ -~]{0,40}",
        r#"(["\\{}\[\],:]|\\n|\\u0022|\{\{shop\}\}|\[\[/shop|\u{202e}|\u{0}|\u{10ffff}){0,20}"#,
    ]
}

fn sent() -> impl Strategy<Value = Sent> {
    let name = prop::sample::select(vec!["data", "literal", "words", "bare"]);
    let turns = prop::collection::vec((any::<bool>(), text()), 0..5);
    let texts = (text(), text(), prop::sample::select(vec!["en", "de"]));
    (name, texts, turns, any::<[bool; 4]>()).prop_map(|(name, texts, mut turns, flags)| {
        let (one, other, language) = texts;
        let variables = match name {
            "data" => json!({ "shop": one, "other": other }),
            "literal" => json!({ "shop": one, "tone": other, "language": language }),
            "words" if flags[0] => json!({ "language": language, "formality": "a \"quote\"" }),
            _ => json!({}),
        };
        if flags[1] {
            turns.push((true, "Hi".into()));
        }
        if matches!(name, "words" | "bare") {
            turns.clear();
        }
        Sent { name, variables, turns, streams: flags[2], wants_usage: flags[3] }
    })
}

proptest! {
    #[test]
    fn what_is_made_is_what_would_be_read(sent in sent()) {
        for endpoint in ENDPOINTS {
            let [made, read] = sent.both_ways(endpoint);
            prop_assert_eq!(format!("{made:?}"), format!("{read:?}"), "{:?}", endpoint);
            // A second time from what is kept.
            let [again, read] = sent.both_ways(endpoint);
            prop_assert_eq!(&again.input, &read.input);
        }
    }
}
