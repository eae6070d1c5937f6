use gatekeeper_filters::{
    kernel::Usage,
    meter::{self, StreamReader},
};

use super::*;

const CHAT: &str = "/v1/chat/completions";
const RESPONSES: &str = "/v1/responses";
const MESSAGES: &str = "/v1/messages";
const GENERATE: &str = "/v1/models/m:streamGenerateContent?alt=sse";

const ALL: [(Endpoint, &str); 4] = [
    (Endpoint::Chat, CHAT),
    (Endpoint::Responses, RESPONSES),
    (Endpoint::Messages, MESSAGES),
    (Endpoint::Generate, GENERATE),
];

/// A question in the words of an endpoint, and more members.
fn question(endpoint: Endpoint, more: Value) -> Value {
    let mut body = match endpoint {
        Endpoint::Generate => {
            json!({ "contents": [{ "role": "user", "parts": [{ "text": "Hello" }] }] })
        }
        Endpoint::Responses => json!({ "model": "m", "input": "Hello" }),
        _ => json!({ "model": "m", "messages": [{ "role": "user", "content": "Hello" }] }),
    };
    if let (Some(body), Value::Object(more)) = (body.as_object_mut(), more) {
        body.extend(more);
    }
    body
}

/// What the gateway's own reader counts in a stream that ends as it should.
fn streamed(endpoint: Endpoint, asked: &StandInRequest) -> Usage {
    let mut stream = StreamReader::of(endpoint);
    let events = asked.events().concat();
    let data = events.lines().filter_map(|line| line.strip_prefix("data: "));
    let readings: Vec<_> = data.map(|data| stream.read(None, data.as_bytes())).collect();
    assert!(readings.iter().any(|reading| reading.finished), "{endpoint:?}: {events}");
    readings.iter().filter_map(|reading| reading.usage).next_back().expect("a count")
}

#[test]
fn each_dialect_is_an_answer_with_a_count() {
    for (endpoint, target) in ALL {
        let asked = StandInRequest::of(target, question(endpoint, json!({})));
        let Reply::Words(words) = &asked.reply else { panic!("{target}: a call") };
        assert!(words.concat().contains("You said: \"Hello\"."));
        let whole = meter::answer(endpoint, asked.whole().as_bytes()).unwrap();
        assert!(whole.commits && whole.finished, "{target}");
        let usage = streamed(endpoint, &asked);
        assert_eq!(Some(usage), whole.usage, "{target}");
        assert!(usage.input > 0 && usage.output > 0, "{target}");
    }
}

#[test]
fn a_tool_is_called_once_with_what_fits_its_schema() {
    let schema = json!({ "type": "object", "properties": { "city": { "type": "string" } }, "required": ["city"] });
    let function = json!({ "name": "weather", "parameters": schema });
    let openai = json!({ "tools": [{ "type": "function", "function": function }] });
    let tools = [
        openai.clone(),
        json!({ "tools": [{ "type": "function", "name": "weather", "parameters": schema }] }),
        json!({ "tools": [{ "name": "weather", "input_schema": schema }] }),
        json!({ "tools": [{ "functionDeclarations": [{ "name": "weather", "parametersJsonSchema": schema }] }] }),
    ];
    let results = [
        json!({ "messages": [{ "role": "tool", "tool_call_id": "call_stand_in", "content": "sun" }] }),
        json!({ "input": [{ "type": "function_call_output", "call_id": "call_stand_in", "output": "sun" }] }),
        json!({ "messages": [{ "role": "user", "content": [{ "type": "tool_result", "tool_use_id": "t", "content": "sun" }] }] }),
        json!({ "contents": [{ "role": "user", "parts": [{ "functionResponse": { "name": "weather", "response": { "it": "sun" } } }] }] }),
    ];
    for (((endpoint, target), tools), result) in ALL.into_iter().zip(tools).zip(results) {
        let asked = StandInRequest::of(target, question(endpoint, tools.clone()));
        let call = Reply::Call { name: "weather".into(), arguments: json!({ "city": "city" }) };
        assert_eq!(asked.reply, call, "{target}");
        assert!(asked.whole().contains("weather") && asked.events().concat().contains("city"));
        streamed(endpoint, &asked);
        let mut again = tools;
        again.as_object_mut().unwrap().extend(result.as_object().unwrap().clone());
        let asked = StandInRequest::of(target, again);
        assert!(
            asked.whole().contains("The tool said: ") && asked.whole().contains("sun"),
            "{target}"
        );
    }
    let mut none = openai;
    none["tool_choice"] = json!("none");
    assert!(matches!(
        StandInRequest::of(CHAT, question(Endpoint::Chat, none)).reply,
        Reply::Words(_)
    ));
}

#[test]
fn an_answer_keeps_to_the_schema_the_cap_and_the_stops() {
    let schema =
        json!({ "type": "object", "properties": { "n": { "type": "integer", "minimum": 3 } } });
    for ((endpoint, target), more) in ALL.into_iter().zip([
        json!({ "response_format": { "type": "json_schema", "json_schema": { "name": "x", "schema": schema } } }),
        json!({ "text": { "format": { "type": "json_schema", "name": "x", "schema": schema } } }),
        json!({ "output_config": { "format": { "type": "json_schema", "schema": schema } } }),
        json!({ "generationConfig": { "responseMimeType": "application/json", "responseJsonSchema": schema } }),
    ]) {
        let asked = StandInRequest::of(target, question(endpoint, more));
        let Reply::Words(words) = &asked.reply else { panic!("{target}: a call") };
        assert_eq!(words.concat(), r#"{"n":3}"#, "{target}");
    }
    let asked = StandInRequest::of(CHAT, question(Endpoint::Chat, json!({ "max_tokens": 2 })));
    assert!(asked.cut && asked.whole().contains("\"finish_reason\":\"length\""));
    let asked = StandInRequest::of(CHAT, question(Endpoint::Chat, json!({ "stop": "provider" })));
    assert_eq!(
        asked.reply,
        Reply::Words(vec!["This ".into(), "is ".into(), "the ".into(), "stand-in ".into()])
    );
    let more = json!({ "stop_sequences": ["no such", "provider"] });
    let asked = StandInRequest::of(MESSAGES, question(Endpoint::Messages, more));
    for answer in [asked.whole(), asked.events().concat()] {
        assert!(answer.contains("\"stop_reason\":\"stop_sequence\""), "{answer}");
        assert!(answer.contains("\"stop_sequence\":\"provider\""), "{answer}");
    }
    let asked = StandInRequest::of(
        RESPONSES,
        question(Endpoint::Responses, json!({ "max_output_tokens": 2 })),
    );
    assert!(asked.events().concat().contains("event: response.incomplete"));
}

/// An answer that is counted above its cap would be an answer that no provider gives.
#[test]
fn no_answer_counts_for_more_than_its_cap_and_says_so() {
    let tools = json!({ "type": "object", "properties": { "city": { "type": "string" } }, "required": ["city"] });
    let members = [
        ("max_completion_tokens", "\"finish_reason\":\"length\""),
        ("max_output_tokens", "\"reason\":\"max_output_tokens\""),
        ("max_tokens", "\"stop_reason\":\"max_tokens\""),
        ("maxOutputTokens", "\"finishReason\":\"MAX_TOKENS\""),
    ];
    for ((endpoint, target), (member, reason)) in ALL.into_iter().zip(members) {
        for cap in [1, 2, 3, 10, 19, 500] {
            for calls in [false, true] {
                let mut more = match endpoint {
                    Endpoint::Generate => json!({ "generationConfig": { member: cap } }),
                    _ => json!({ member: cap }),
                };
                if calls {
                    more["tools"] = match endpoint {
                        Endpoint::Generate => {
                            json!([{ "functionDeclarations": [{ "name": "weather", "parametersJsonSchema": tools }] }])
                        }
                        Endpoint::Messages => json!([{ "name": "weather", "input_schema": tools }]),
                        _ => {
                            json!([{ "type": "function", "name": "weather", "function": { "name": "weather", "parameters": tools } }])
                        }
                    };
                }
                let asked = StandInRequest::of(target, question(endpoint, more));
                let usage = streamed(endpoint, &asked);
                let whole = meter::answer(endpoint, asked.whole().as_bytes()).unwrap();
                assert_eq!(whole.usage, Some(usage), "{target} {cap}");
                assert!((1..=cap).contains(&usage.output), "{target} {cap}: {}", usage.output);
                let is_cut = cap < 500 && matches!(asked.reply, Reply::Words(_));
                for said in [asked.whole(), asked.events().concat()] {
                    assert_eq!(said.contains(reason), is_cut, "{target} {cap}: {said}");
                }
            }
        }
    }
}

#[test]
fn images_are_taken_and_weigh_little() {
    let long = format!("data:image/png;base64,{}", "A".repeat(100_000));
    let parts = json!([{ "type": "text", "text": "Look" }, { "type": "image_url", "image_url": { "url": long } }]);
    let body = json!({ "model": "m", "messages": [{ "role": "user", "content": parts }] });
    let asked = StandInRequest::of(CHAT, body);
    assert!(asked.input < 200, "{}", asked.input);
    assert!(asked.whole().contains("One image came along."));
}

#[test]
fn embeddings_are_one_for_each_input_in_numbers_or_base64() {
    let ask = |more: Value| -> Value {
        let asked = StandInRequest::of("/v1/embeddings", question(Endpoint::Embeddings, more));
        serde_json::from_str(&asked.whole()).unwrap()
    };
    let two = ask(json!({ "input": ["a", "b"], "dimensions": 8 }));
    let data = two["data"].as_array().unwrap();
    assert_eq!((data.len(), data[0]["embedding"].as_array().unwrap().len()), (2, 8));
    assert_ne!(data[0]["embedding"], data[1]["embedding"]);
    assert_eq!(ask(json!({ "input": [1, 2, 3] }))["data"].as_array().unwrap().len(), 1);
    assert_eq!(ask(json!({ "input": [[1], [2]] }))["data"].as_array().unwrap().len(), 2);
    let coded = ask(json!({ "input": "a", "dimensions": 8, "encoding_format": "base64" }));
    // 32 bytes.
    assert_eq!(coded["data"][0]["embedding"].as_str().unwrap().len(), 44);
}
