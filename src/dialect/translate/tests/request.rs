//! Requests.

use bytes::Bytes;
use gatekeeper_filters::kernel::{Endpoint, Rejection};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::{
    dialect::{parse_body, translate::request::request},
    fuzz_targets::holds_the_rules,
};

/// `None` where the gateway refuses the body itself.
fn translated(body: &Value) -> Option<Result<Value, Rejection>> {
    let extra = [std::sync::Arc::from("thinking")];
    let body = Bytes::from(body.to_string());
    let ask = parse_body::parse(Endpoint::Chat, body, None, &extra).ok()?;
    Some(request(&ask).map(|members| {
        let written = members.to_pieces().concat();
        serde_json::from_slice(&written).unwrap()
    }))
}

fn of(more: Value) -> Result<Value, Rejection> {
    let mut body = json!({ "model": "fast", "messages": [{ "role": "user", "content": "Hello" }] });
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    translated(&body).expect("a body that the gateway takes")
}

fn turns(messages: Value) -> Value {
    of(json!({ "messages": messages })).unwrap()["messages"].take()
}

fn text(text: &str) -> Value {
    json!({ "type": "text", "text": text })
}

#[test]
fn system_prompts_stand_by_themselves_and_turns_of_one_side_are_one() {
    let body = of(json!({ "messages": [
        { "role": "system", "content": "Be brief." },
        { "role": "user", "content": "One.", "name": "ann" },
        { "role": "developer", "content": [{ "type": "text", "text": "In French." }] },
        { "role": "user", "content": [{ "type": "text", "text": "Two." }, { "type": "text", "text": " " }] },
        { "role": "assistant", "content": "Oui.", "refusal": null },
        { "role": "assistant", "content": "" },
        { "role": "user", "content": "Three \"é\"\n" },
    ]}))
    .unwrap();
    assert_eq!(body["system"], "Be brief.\n\nIn French.");
    assert_eq!(
        body["messages"],
        json!([
            { "role": "user", "content": [text("One."), text("Two.")] },
            { "role": "assistant", "content": [text("Oui.")] },
            { "role": "user", "content": [text("Three \"é\"\n")] },
        ])
    );
    let named = |body: &Value| body.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(named(&body), ["messages", "system"]);
}

#[test]
fn the_user_speaks_first_and_last() {
    assert_eq!(
        turns(json!([{ "role": "assistant", "content": "Hi. " }])),
        json!([
            { "role": "user", "content": [text(".")] },
            { "role": "assistant", "content": [text("Hi. ")] },
            { "role": "user", "content": [text("Go on.")] },
        ])
    );
    let body =
        of(json!({ "messages": [{ "role": "system", "content": "Tell a joke." }] })).unwrap();
    assert_eq!(body["messages"], json!([{ "role": "user", "content": [text("Tell a joke.")] }]));
    assert!(body.get("system").is_none());
    for nothing in
        [json!([]), json!([{ "role": "user", "content": " \n" }]), json!([{ "role": "system" }])]
    {
        let refused = of(json!({ "messages": nothing })).unwrap_err();
        assert_eq!(refused.param.as_deref(), Some("messages"));
    }
}

#[test]
fn calls_and_their_results_are_blocks_and_results_come_first() {
    let call = |id: &str| json!({ "id": id, "type": "function", "function": { "name": "find", "arguments": "{}" } });
    let turns = turns(json!([
        { "role": "user", "content": "Where?" },
        { "role": "assistant", "content": "Let me see.", "tool_calls": [call("call_1"), call("call.2"), call("")] },
        { "role": "user", "content": "Hurry." },
        { "role": "tool", "tool_call_id": "call_1", "content": "{\"city\":\"Oslo\"}" },
        { "role": "tool", "tool_call_id": "call.2", "content": [
            { "type": "text", "text": "no" },
            { "type": "image_url", "image_url": { "url": "https://example.com/a.png" } },
        ]},
        { "role": "tool", "tool_call_id": "", "content": "" },
    ]));
    let asked = |id: &str| json!({ "type": "tool_use", "id": id, "name": "find", "input": {} });
    let source = json!({ "type": "url", "url": "https://example.com/a.png" });
    assert_eq!(
        turns,
        json!([
            { "role": "user", "content": [text("Where?")] },
            { "role": "assistant", "content": [
                text("Let me see."), asked("call_1"), asked("call_2"), asked("_"),
            ]},
            { "role": "user", "content": [
                { "type": "tool_result", "tool_use_id": "call_1", "content": [text("{\"city\":\"Oslo\"}")] },
                { "type": "tool_result", "tool_use_id": "call_2", "content": [
                    text("no"), { "type": "image", "source": source },
                ]},
                { "type": "tool_result", "tool_use_id": "_" },
                text("Hurry."),
            ]},
        ])
    );
}

#[test]
fn arguments_are_objects_and_keep_their_order() {
    for (arguments, input) in [
        (
            json!("{ \"b\": 1, \"a\": 12345678901234567890123 }"),
            "{ \"b\": 1, \"a\": 12345678901234567890123 }",
        ),
        (json!(""), "{}"),
        (json!("null"), "{}"),
        (json!(null), "{}"),
        (json!({ "a": 1 }), "{\"a\":1}"),
        (json!("[1]"), "{\"arguments\":\"[1]\"}"),
        (json!("{\"a\":"), "{\"arguments\":\"{\\\"a\\\":\"}"),
        (json!("{\"a\":1,\"a\":2}"), "{\"arguments\":\"{\\\"a\\\":1,\\\"a\\\":2}\"}"),
    ] {
        let body = json!({ "model": "fast", "messages": [
            { "role": "assistant", "tool_calls": [{ "id": "a", "function": { "name": "f", "arguments": arguments } }] },
            { "role": "tool", "tool_call_id": "a", "content": "x" },
        ]});
        let body = Bytes::from(body.to_string());
        let ask = parse_body::parse(Endpoint::Chat, body, None, &[]).unwrap();
        let written = request(&ask).unwrap().to_pieces().concat();
        let written = String::from_utf8(written).unwrap();
        assert!(
            written.contains(&format!("\"name\":\"f\",\"input\":{input}}}")),
            "{arguments}: {written}"
        );
    }
}

#[test]
fn images_are_sources() {
    let image = |url: Value| {
        turns(json!([{ "role": "user", "content": [{ "type": "image_url", "image_url": url }] }]))
    };
    let source = |url: Value| image(url)[0]["content"][0]["source"].clone();
    assert_eq!(
        source(json!({ "url": "data:image/jpg;base64,aGk=", "detail": "low" })),
        json!({ "type": "base64", "media_type": "image/jpeg", "data": "aGk=" })
    );
    assert_eq!(
        source(json!("DATA:image/png;name=a;BASE64,aGk=")),
        json!({ "type": "base64", "media_type": "image/png", "data": "aGk=" })
    );
    for url in [
        "http://example.com/a.png",
        "file:///etc/passwd",
        "data:image/svg+xml,<svg/>",
        "data:image/svg+xml;base64,aGk=",
        "data:application/pdf;base64,aGk=",
        "",
        "é",
    ] {
        let content = json!([{ "type": "image_url", "image_url": { "url": url } }]);
        let refused = of(json!({ "messages": [{ "role": "user", "content": content }] }));
        assert_eq!(refused.unwrap_err().param.as_deref(), Some("messages"), "{url}");
    }
}

#[test]
fn tools_and_their_choice() {
    let tools = json!([
        { "type": "function", "function": {
            "name": "find", "description": "Finds.", "strict": true,
            "parameters": { "type": "object", "properties": { "z": {}, "a": {} } } } },
        { "type": "function", "function": { "name": "now", "description": "" } },
        { "type": "function", "function": { "name": "any", "parameters": { "properties": {} } } },
    ]);
    let body = of(json!({ "tools": tools })).unwrap();
    assert_eq!(
        body["tools"],
        json!([
            { "name": "find", "description": "Finds.",
              "input_schema": { "type": "object", "properties": { "z": {}, "a": {} } } },
            { "name": "now", "input_schema": { "type": "object" } },
            { "name": "any", "input_schema": { "type": "object", "properties": {} } },
        ])
    );
    assert!(body.get("tool_choice").is_none());
    let one = json!({ "type": "function", "function": { "name": "find" } });
    for (choice, parallel, expected) in [
        (json!("auto"), json!(true), json!({ "type": "auto" })),
        (json!("required"), json!(null), json!({ "type": "any" })),
        (json!("none"), json!(false), json!({ "type": "none" })),
        (json!(null), json!(false), json!({ "type": "auto", "disable_parallel_tool_use": true })),
        (
            one,
            json!(false),
            json!({ "type": "tool", "name": "find", "disable_parallel_tool_use": true }),
        ),
    ] {
        let asked =
            json!({ "tools": tools, "tool_choice": choice, "parallel_tool_calls": parallel });
        assert_eq!(of(asked).unwrap()["tool_choice"], expected);
    }
    let asked = json!({ "tools": tools, "tool_choice": { "type": "allowed_tools" } });
    assert_eq!(of(asked).unwrap_err().param.as_deref(), Some("tool_choice"));
    assert!(
        of(json!({ "tools": [], "tool_choice": "auto" })).unwrap().get("tool_choice").is_none()
    );
}

#[test]
fn bounds_and_sampling() {
    let body = of(json!({
        "temperature": 1.7, "top_p": 0.5, "stop": "END", "max_tokens": 900, "max_completion_tokens": 700,
        "stream": true, "user": "ann", "seed": 7, "reasoning_effort": "high", "presence_penalty": 1,
        "response_format": { "type": "text" }, "thinking": { "type": "adaptive" }, "logprobs": false,
    }))
    .unwrap();
    let expected = json!({
        "messages": [{ "role": "user", "content": [text("Hello")] }],
        "temperature": 1, "stop_sequences": ["END"], "max_tokens": 700, "stream": true,
        "metadata": { "user_id": "ann" }, "thinking": { "type": "adaptive" },
    });
    assert_eq!(body, expected);
    let body = of(json!({ "temperature": null, "top_p": 0.5, "stop": ["a", "b"] })).unwrap();
    assert_eq!((&body["top_p"], &body["stop_sequences"]), (&json!(0.5), &json!(["a", "b"])));
    assert_eq!(of(json!({ "temperature": 0.30 })).unwrap()["temperature"], json!(0.3));
}

#[test]
fn a_schema_is_kept_as_it_is() {
    let schema = json!({ "type": "object", "properties": { "b": {}, "a": {} } });
    let format = json!({ "type": "json_schema", "json_schema": { "name": "x", "strict": true, "schema": schema } });
    let body = of(json!({ "response_format": format })).unwrap();
    assert_eq!(
        body["output_config"],
        json!({ "format": { "type": "json_schema", "schema": schema } })
    );
}

#[test]
fn what_an_app_relies_on_and_has_no_word_is_refused_by_name() {
    for (field, value) in [
        ("logprobs", json!(true)),
        ("functions", json!([{ "name": "f" }])),
        ("function_call", json!("auto")),
        ("response_format", json!({ "type": "json_object" })),
        ("stop", json!(["END", "\n"])),
        ("tools", json!([{ "type": "custom", "custom": { "name": "f" } }])),
        ("messages", json!([{ "role": "function", "name": "f", "content": "1" }])),
        ("messages", json!([{ "role": "user", "content": [{ "type": "input_audio" }] }])),
        ("messages", json!([{ "role": "assistant", "function_call": { "name": "f" } }])),
        (
            "messages",
            json!([{ "role": "assistant", "tool_calls": [{ "type": "custom", "custom": {} }] }]),
        ),
        ("messages", json!([1])),
    ] {
        let refused = of(json!({ field: value })).unwrap_err();
        assert_eq!(
            (refused.param.as_deref(), refused.code.status()),
            (Some(field), 400),
            "{value}"
        );
        assert!(refused.message.starts_with(&format!("\"{field}\": ")), "{}", refused.message);
    }
}

fn content() -> impl Strategy<Value = Value> {
    let words = prop_oneof![Just(String::new()), Just(" \n".into()), any::<String>()];
    let part = prop_oneof![
        6 => words.clone().prop_map(|text| json!({ "type": "text", "text": text })),
        1 => Just(json!({ "type": "image_url", "image_url": { "url": "data:image/png;base64,aGk=" } })),
        1 => any::<String>().prop_map(|url| json!({ "type": "image_url", "image_url": { "url": url } })),
    ];
    prop_oneof![
        1 => Just(Value::Null),
        4 => words.prop_map(Value::from),
        2 => prop::collection::vec(part, 0..4).prop_map(Value::from),
        1 => Just(json!(7)),
    ]
}

fn message() -> impl Strategy<Value = Value> {
    let role = prop::sample::select(vec![
        "system",
        "developer",
        "user",
        "assistant",
        "tool",
        "user",
        "assistant",
    ]);
    let call = (any::<String>(), any::<String>()).prop_map(
        |(id, arguments)| json!({ "id": id, "function": { "name": "f", "arguments": arguments } }),
    );
    (role, content(), prop::collection::vec(call, 0..3), any::<String>()).prop_map(
        |(role, content, calls, id)| match role {
            "assistant" => json!({ "role": role, "content": content, "tool_calls": calls }),
            "tool" => json!({ "role": role, "content": content, "tool_call_id": id }),
            _ => json!({ "role": role, "content": content }),
        },
    )
}

/// Any JSON, in any place.
fn anything() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        prop::sample::select(vec!["user", "text", "function", "tool", "assistant", "auto", ""])
            .prop_map(Value::from),
    ];
    let name = prop::sample::select(vec![
        "role",
        "content",
        "type",
        "text",
        "image_url",
        "url",
        "tool_calls",
        "function",
        "name",
        "arguments",
        "parameters",
        "json_schema",
        "schema",
        "id",
    ]);
    leaf.prop_recursive(4, 24, 4, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map(name.clone(), inner, 0..4).prop_map(|map| Value::Object(
                map.into_iter().map(|(name, it)| (name.into(), it)).collect()
            )),
        ]
    })
}

proptest! {
    #[test]
    fn any_conversation_becomes_turns_or_is_refused_by_name(messages in prop::collection::vec(message(), 0..8)) {
        match translated(&json!({ "model": "fast", "messages": messages })).unwrap() {
            Ok(body) => holds_the_rules(&body),
            Err(refused) => prop_assert_eq!(refused.param.as_deref(), Some("messages")),
        }
    }

    #[test]
    fn whatever_the_gateway_takes_is_translated_or_refused_by_name(
        members in prop::collection::hash_map(
            prop::sample::select(vec!["messages", "tools", "tool_choice", "stop", "response_format", "temperature",
                "top_p", "user", "thinking", "parallel_tool_calls", "logprobs"]), anything(), 0..6),
        messages in prop::option::of(prop::collection::vec(message(), 1..4)),
    ) {
        let mut body = json!({ "model": "fast" });
        members.into_iter().for_each(|(name, value)| body[name] = value);
        if let Some(messages) = messages {
            body["messages"] = messages.into();
        }
        match translated(&body) {
            Some(Ok(body)) => holds_the_rules(&body),
            Some(Err(refused)) => prop_assert!(refused.param.is_some()),
            None => {}
        }
    }
}
