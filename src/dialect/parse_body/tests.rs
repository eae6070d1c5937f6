use gatekeeper_filters::kernel::Vocabulary;

use super::*;

fn chat(body: &str) -> Result<ModelRequest, Rejection> {
    parse(Endpoint::Chat, Bytes::from(body.to_owned()), None, &[])
}

fn sent(ask: &ModelRequest) -> String {
    String::from_utf8(ask.members.to_pieces().concat()).unwrap()
}

#[test]
fn listed_members_keep_their_bytes_and_the_rest_is_removed() {
    let ask = chat(
        r#"{"model":"fast","x":1,"messages":[ {"role":"user","content":"hi"} ],"store":true,"metadata":{},"temperature":0.50}"#,
    )
    .unwrap();
    assert_eq!(
        sent(&ask),
        r#"{"model":"fast","messages":[ {"role":"user","content":"hi"} ],"temperature":0.50}"#
    );
}

#[test]
fn what_is_taken_out_is_named_unless_nothing_is_lost_by_it() {
    let ask = chat(
        r#"{"model":"m","messages":[],"top_k":5,"min_p":null,"store":false,"logprobs":true,
            "stream_options":{"include_usage":true},"ext\u0072a":1}"#,
    )
    .unwrap();
    assert_eq!(ask.dropped, "top_k, extra");
    let generate = GeminiMethod { model: "m".into(), stream: false };
    let body = r#"{"contents":[],"labels":{"a":"b"},"generationConfig":{"topK":1,"mediaResolution":"HIGH"}}"#;
    let ask = parse(Endpoint::Generate, body.into(), Some(generate), &[]).unwrap();
    assert_eq!(ask.dropped, "labels, generationConfig.mediaResolution");
    for (endpoint, name) in [
        (Endpoint::Responses, "previous_response_id"),
        (Endpoint::Responses, "conversation"),
        (Endpoint::Responses, "prompt"),
        (Endpoint::Chat, "previous_response_id"),
    ] {
        let body = format!(r#"{{"model":"m","messages":[],"input":"hi","{name}":"x"}}"#);
        let refused = parse(endpoint, body.into(), None, &[]).unwrap_err();
        assert_eq!(refused.param.as_deref(), Some(name));
        let body = format!(r#"{{"model":"m","messages":[],"input":"hi","{name}":null}}"#);
        assert!(parse(endpoint, body.into(), None, &[]).is_ok(), "{name}");
    }
}

#[test]
fn a_member_that_a_provider_lets_through_stays() {
    let body = Bytes::from_static(br#"{"model":"m","messages":[],"top_k":5,"min_p":0.1}"#);
    let ask = parse(Endpoint::Chat, body, None, &["top_k".into()]).unwrap();
    assert_eq!(sent(&ask), r#"{"model":"m","messages":[],"top_k":5}"#);
}

#[test]
fn a_name_spelled_with_escapes_is_not_the_listed_one() {
    let ask = chat(r#"{"model":"m","messages":[],"stre\u0061m":true}"#).unwrap();
    assert!(!ask.stream);
    assert_eq!(sent(&ask), r#"{"model":"m","messages":[]}"#);
    assert!(chat(r#"{"model":"m","mod\u0065l":"n","messages":[]}"#).is_err());
    assert_eq!(chat(r#"{"\u006e":2,"model":"m"}"#).unwrap_err().param.as_deref(), Some("n"));
}

#[test]
fn what_would_cost_more_than_a_message_is_refused_by_name() {
    for (member, param) in [
        (r#""n":2"#, "n"),
        (r#""n":0"#, "n"),
        (r#""n":"1""#, "n"),
        (r#""best_of":3"#, "best_of"),
        (r#""service_tier":"priority""#, "service_tier"),
        (r#""web_search_options":{}"#, "web_search_options"),
        (r#""modalities":["text","audio"]"#, "modalities"),
        (r#""audio":{"voice":"x"}"#, "audio"),
        (r#""tools":[{"type":"web_search"}]"#, "tools"),
        (r#""tools":[{}]"#, "tools"),
        (r#""background":true"#, "background"),
        (r#""max_tokens":0"#, "max_tokens"),
        (r#""max_tokens":1.5"#, "max_tokens"),
        (r#""stream":"yes""#, "stream"),
    ] {
        let reject = chat(&format!(r#"{{"model":"m","messages":[],{member}}}"#)).unwrap_err();
        assert_eq!(reject.param.as_deref(), Some(param), "{member}");
        assert_eq!(reject.code, Code::InvalidRequest);
    }
    for fine in [r#""n":1"#, r#""n":null"#, r#""tools":[{"type":"function"}]"#, r#""tools":null"#] {
        chat(&format!(r#"{{"model":"m","messages":[],{fine}}}"#)).unwrap();
    }
}

#[test]
fn the_lower_of_two_caps_counts() {
    let ask =
        chat(r#"{"model":"m","messages":[],"max_tokens":9,"max_completion_tokens":7}"#).unwrap();
    assert_eq!(ask.output_cap, Some(7));
}

#[test]
fn a_thinking_budget_is_found_where_it_would_be_sent() {
    let budget = |member: &str, extra: &[&str]| {
        let extra: Vec<Arc<str>> = extra.iter().map(|name| Arc::from(*name)).collect();
        let body = format!(r#"{{"model":"m","messages":[],{member}}}"#);
        parse(Endpoint::Chat, body.into(), None, &extra).unwrap().thinking_budget
    };
    let google = r#""extra_body":{"google":{"thinking_config":{"thinking_budget":900}}}"#;
    let gemini = r#""generationConfig":{"thinkingConfig":{"thinkingBudget":901}}"#;
    let claude = r#""thinking":{"type":"enabled","budget_tokens":902}"#;
    for (member, field, expected) in [
        (google, "extra_body", 900),
        (gemini, "generationConfig", 901),
        (claude, "thinking", 902),
        (r#""extra_body":{"thinking":{"budget_tokens":903}}"#, "extra_body", 903),
    ] {
        assert_eq!(budget(member, &[field]), Some(expected), "{member}");
        assert_eq!(budget(member, &[]), None, "it is not sent");
    }
    assert_eq!(budget(&format!("{claude},{gemini}"), &["thinking", "generationConfig"]), Some(902));
    for odd in ["-1", "1.5", "1e3", "\"900\"", "null", "[900]", "true", "99999999999999999999"] {
        let member = format!(r#""thinking":{{"budget_tokens":{odd}}}"#);
        assert_eq!(budget(&member, &["thinking"]), None, "{odd}");
    }
    for odd in ["900", "[]", "null", "\"x\""] {
        assert_eq!(budget(&format!(r#""thinking":{odd}"#), &["thinking"]), None, "{odd}");
    }
}

#[test]
fn images_and_other_media_are_counted_apart_from_text() {
    let ask = chat(
        r#"{"model":"m","messages":[{"role":"user","content":[
            {"type":"text","text":"What is this?"},
            {"type":"image_url","image_url":{"url":"data:image/png;base64,AAAAAAAAAAAAAAAAAAAAAAAAAA"}},
            {"type":"input_audio","input_audio":{"data":"AAAA"}}]}]}"#,
    )
    .unwrap();
    assert_eq!((ask.input.images.len(), ask.media.len()), (1, 1));
    assert!(text_tokens(&ask) < 20, "{}", text_tokens(&ask));
}

#[test]
fn responses_are_never_kept_at_the_provider() {
    let body = r#"{"model":"m","input":"hi","store":true,"metadata":{}}"#;
    let ask = parse(Endpoint::Responses, body.into(), None, &[]).unwrap();
    assert_eq!(sent(&ask), r#"{"model":"m","input":"hi","store":false}"#);
}

#[test]
fn a_body_that_is_no_object_or_has_no_model_is_refused() {
    for body in
        ["", "[]", "null", r#"{"messages":[]}"#, r#"{"model":1}"#, r#"{"model":"m","messages":{}}"#]
    {
        assert_eq!(chat(body).unwrap_err().code, Code::InvalidRequest, "{body}");
    }
}

fn text_tokens(ask: &ModelRequest) -> u64 {
    ask.input.text.tokens(Vocabulary::O200k)
}

fn messages(body: &str) -> Result<ModelRequest, Rejection> {
    parse(Endpoint::Messages, Bytes::from(body.to_owned()), None, &[])
}

fn generate(body: &str) -> Result<ModelRequest, Rejection> {
    let path = GeminiMethod { model: "fast".into(), stream: true };
    parse(Endpoint::Generate, Bytes::from(body.to_owned()), Some(path), &[])
}

#[test]
fn anthropics_blocks_are_weighed_and_hosted_tools_refused() {
    let body = r#"{"model":"claude","max_tokens":300,"stream":true,"service_tier":"auto",
        "system":[{"type":"text","text":"Be kind."}],"metadata":{"user_id":"me"},
        "messages":[{"role":"user","content":[{"type":"text","text":"What is it?"},
            {"type":"image","source":{"type":"base64","media_type":"image/png","data":"AAAA"}}]},
          {"role":"assistant","content":[{"type":"tool_use","id":"t","name":"look","input":{"a":1}}]},
          {"role":"user","content":[{"type":"tool_result","tool_use_id":"t","content":[{"type":"text","text":"A cat"}]}]}]}"#;
    let ask = messages(body).unwrap();
    assert_eq!(
        (&*ask.model, ask.stream, ask.output_cap, ask.input.images.len()),
        ("claude", true, Some(300), 1)
    );
    assert!(ask.media.is_empty() && (20..60).contains(&text_tokens(&ask)), "{}", text_tokens(&ask));
    assert!(!ask.members.contains("service_tier") && !ask.members.contains("metadata"));
    for (more, param) in [
        (r#""tools":[{"type":"web_search_20250305","name":"web_search"}]"#, "tools"),
        (r#""mcp_servers":[{"url":"https://example.com"}]"#, "mcp_servers"),
        (r#""container":"c_1""#, "container"),
        (r#""max_tokens":0"#, "max_tokens"),
        (r#""messages":"Hi""#, "messages"),
    ] {
        let reject = messages(&format!(r#"{{"model":"claude",{more}}}"#)).unwrap_err();
        assert_eq!(reject.param.as_deref(), Some(param));
    }
    let kinds = |content: &str| {
        let body =
            format!(r#"{{"model":"c","messages":[{{"role":"user","content":[{content}]}}]}}"#);
        messages(&body).unwrap().media.iter().map(|kind| kind.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(kinds(r#"{"type":"document","source":{"type":"base64","data":"AA"}}"#), ["file"]);
    assert_eq!(kinds(r#"{"type":"image","source":{"type":"file","file_id":"f"}}"#), ["file_id"]);
    assert_eq!(kinds(r#"{"type":"server_tool_use","name":"x"}"#), ["server_tool_use"]);
    let own = r#"{"model":"c","messages":[],"tools":[{"name":"look","input_schema":{}},{"type":"custom","name":"a"}]}"#;
    assert!(messages(own).is_ok());
}

#[test]
fn geminis_contents_are_weighed_and_what_is_dear_is_refused() {
    let body = r#"{"contents":[{"role":"user","parts":[{"text":"What is it?"},
        {"inlineData":{"mimeType":"image/png","data":"AAAA"}}]}],
        "systemInstruction":{"parts":[{"text":"Be kind."}]},"labels":{"a":"b"},
        "generationConfig":{"maxOutputTokens":300,"temperature":0.5,"mediaResolution":"HIGH"}}"#;
    let ask = generate(body).unwrap();
    assert_eq!(
        (&*ask.model, ask.stream, ask.output_cap, ask.input.images.len()),
        ("fast", true, Some(300), 1)
    );
    assert!(ask.media.is_empty() && (10..40).contains(&text_tokens(&ask)), "{}", text_tokens(&ask));
    assert!(!ask.members.contains("labels"));
    let config = ask.members.get("generationConfig").unwrap();
    assert_eq!(config, br#"{"maxOutputTokens":300,"temperature":0.5}"#);
    for (more, param) in [
        (r#""tools":[{"googleSearch":{}}]"#, "tools"),
        (r#""tools":{"codeExecution":{}}"#, "tools"),
        (r#""cachedContent":"c/1""#, "cachedContent"),
        (r#""generation_config":{}"#, "generation_config"),
        (r#""generationConfig":{"candidateCount":4}"#, "generationConfig.candidateCount"),
        (
            r#""generationConfig":{"thinkingConfig":{"thinking_budget":99}}"#,
            "generationConfig.thinkingConfig",
        ),
        (r#""generationConfig":{"candidate_count":4}"#, "generationConfig"),
        (
            r#""generationConfig":{"responseModalities":["IMAGE"]}"#,
            "generationConfig.responseModalities",
        ),
        (r#""generationConfig":{"maxOutputTokens":-1}"#, "generationConfig.maxOutputTokens"),
        (r#""contents":{}"#, "contents"),
    ] {
        let reject = generate(&format!("{{{more}}}")).unwrap_err();
        assert_eq!(reject.param.as_deref(), Some(param));
    }
    let kinds = |part: &str| {
        let ask = generate(&format!(r#"{{"contents":[{{"parts":[{part}]}}]}}"#)).unwrap();
        ask.media.iter().map(|kind| kind.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(kinds(r#"{"inlineData":{"mimeType":"application/pdf","data":""}}"#), ["file"]);
    assert_eq!(kinds(r#"{"inline_data":{"mimeType":"image/png"}}"#), ["inline_data"]);
    assert_eq!(kinds(r#"{"fileData":{"fileUri":"x"}}"#), ["file_id"]);
    assert_eq!(kinds(r#"{"inlineData":{"mimeType":"audio/wav","data":""}}"#), ["input_audio"]);
}

#[test]
fn what_the_seller_account_keeps_is_not_read_by_its_id() {
    let input = |item: &str| {
        let body = format!(r#"{{"model":"m","input":[{item}]}}"#);
        parse(Endpoint::Responses, body.into(), None, &[])
    };
    for item in [
        r#"{"type":"item_reference","id":"msg_1"}"#,
        r#"{"id":"msg_1"}"#,
        r#"{"id":"msg_1","type":null}"#,
        r#"{"type":"reasoning","id":"rs_1"}"#,
        r#"{"type":"reasoning","id":"rs_1","summary":[],"encrypted_content":null}"#,
    ] {
        let reject = input(item).unwrap_err();
        assert_eq!(reject.param.as_deref(), Some("input"), "{item}");
        assert!(reject.message.contains("store: false"), "{}", reject.message);
    }
    let image = r#"{"type":"input_image","file_id":"file_1"}"#;
    for item in [
        format!(r#"{{"role":"user","content":[{image}]}}"#),
        format!(r#"{{"type":"function_call_output","call_id":"c","output":[{image}]}}"#),
        r#"{"type":"computer_call_output","output":{"type":"computer_screenshot","file_id":"f"}}"#
            .into(),
    ] {
        let media = input(&item).unwrap().media;
        assert!(media.iter().any(|kind| &**kind == "file_id"), "{item}: {media:?}");
    }
    let fine = r#"{"role":"user","content":"hi"},{"type":"function_call_output","call_id":"c","output":"ok"},
        {"type":"reasoning","id":"rs_1","encrypted_content":"gAAA","summary":[]},
        {"type":"reasoning","id":"rs_2","summary":[{"type":"summary_text","text":"It is late."}]}"#;
    assert!(input(fine).unwrap().media.is_empty());
    // Elsewhere a message without a role is the provider's matter.
    assert!(chat(r#"{"model":"m","messages":[{"content":"hi"}]}"#).unwrap().media.is_empty());
}

#[test]
fn one_part_for_a_list_of_one_is_looked_at_all_the_same() {
    let kinds = |body: &str| {
        let media = generate(body).unwrap().media;
        media.iter().map(|kind| kind.to_string()).collect::<Vec<_>>()
    };
    let file = r#"{"fileData":{"fileUri":"files/1"}}"#;
    assert_eq!(kinds(&format!(r#"{{"contents":[{{"parts":{file}}}]}}"#)), ["file_id"]);
    assert_eq!(kinds(&format!(r#"{{"systemInstruction":{{"parts":{file}}}}}"#)), ["file_id"]);
    let nested =
        format!(r#"{{"functionResponse":{{"name":"f","response":{{}},"parts":[{file}]}}}}"#);
    assert_eq!(kinds(&format!(r#"{{"contents":[{{"parts":[{nested}]}}]}}"#)), ["file_id"]);
    let long = "word ".repeat(400);
    for body in [
        format!(r#"{{"contents":[{{"parts":{{"text":"{long}"}}}}]}}"#),
        format!(r#"{{"contents":[{{"parts":"{long}"}}]}}"#),
        format!(r#"{{"contents":["{long}"]}}"#),
        format!(r#"{{"contents":[],"systemInstruction":"{long}"}}"#),
        format!(r#"{{"contents":[],"tools":[{{"functionDeclarations":[{{"name":"{long}"}}]}}]}}"#),
    ] {
        assert!(text_tokens(&generate(&body).unwrap()) > 300, "{}", &body[..40]);
    }
    for (odd, param) in [
        (r#""tools":[[{"googleSearch":{}}]]"#, "tools"),
        (r#""tools":["googleSearch"]"#, "tools"),
        (r#""generationConfig":[{"candidateCount":8}]"#, "generationConfig"),
        (r#""serviceTier":"priority""#, "serviceTier"),
        (r#""service_tier":"priority""#, "service_tier"),
    ] {
        let reject = generate(&format!(r#"{{"contents":[],{odd}}}"#)).unwrap_err();
        assert_eq!(reject.param.as_deref(), Some(param));
    }
}

#[test]
fn content_that_is_no_list_is_looked_at_all_the_same() {
    let kinds = |endpoint, body: String| {
        let ask = parse(endpoint, body.clone().into(), None, &[]).expect(&body);
        ask.media.iter().map(|kind| kind.to_string()).collect::<Vec<_>>()
    };
    let file = r#"{"type":"document","source":{"type":"file","file_id":"file_1"}}"#;
    let user = |content: &str| format!(r#"{{"role":"user","content":{content}}}"#);
    let message = |content: &str| format!(r#"{{"model":"c","messages":[{}]}}"#, user(content));
    for body in [
        message(file),
        message(&format!("[[{file}]]")),
        message(&format!(r#"[{{"type":"tool_result","tool_use_id":"t","content":{file}}}]"#)),
        message(&format!(r#"[{{"type":"search_result","content":[{file}]}}]"#)),
        format!(r#"{{"model":"c","messages":[],"system":{file}}}"#),
    ] {
        let media = kinds(Endpoint::Messages, body.clone());
        assert!(media.iter().any(|kind| kind == "file_id"), "{body}: {media:?}");
    }
    let part = r#"{"type":"file","file":{"file_id":"f"}}"#;
    assert_eq!(kinds(Endpoint::Chat, message(part)), ["file"]);
    let input = user(r#"{"type":"input_file","file_id":"f"}"#);
    let media = kinds(Endpoint::Responses, format!(r#"{{"model":"m","input":[{input}]}}"#));
    assert!(media.contains(&"file_id".to_owned()));
    // Words weigh the same in every form.
    let words = "word ".repeat(400);
    let text = format!(r#"{{"type":"text","text":"{words}"}}"#);
    let weighed = |content: &str| text_tokens(&messages(&message(content)).unwrap());
    let plain = weighed(&format!("\"{words}\""));
    for content in [
        text.clone(),
        format!("[{text}]"),
        format!(r#"[{{"type":"tool_result","tool_use_id":"t","content":"{words}"}}]"#),
        format!(r#"[{{"type":"tool_result","tool_use_id":"t","content":[{text}]}}]"#),
    ] {
        // An id is a token.
        assert!((plain..plain + 4).contains(&weighed(&content)), "{}", &content[..40]);
    }
    let found = format!(r#"[{{"type":"search_result","title":"t","content":[{text}]}}]"#);
    assert!(weighed(&found) >= plain);
}

#[test]
fn only_items_of_the_apps_own_tools_are_taken() {
    let input = |input: &str| {
        let body = format!(r#"{{"model":"m","input":{input}}}"#);
        parse(Endpoint::Responses, body.into(), None, &[])
    };
    for kind in ["image_generation_call", "code_interpreter_call", "mcp_approval_response"] {
        let item = format!(r#"[{{"type":"{kind}","id":"x_1","container_id":"cntr_1"}}]"#);
        let media = input(&item).unwrap().media;
        assert_eq!(media.iter().map(|kind| &**kind).collect::<Vec<_>>(), [kind]);
    }
    let alone = input(r#"{"type":"item_reference","id":"x"}"#).unwrap_err();
    assert_eq!(alone.param.as_deref(), Some("input"));
    let own = r#"[{"type":"message","role":"user","content":"hi"},
        {"type":"function_call","call_id":"c","name":"f","arguments":"{}"},
        {"type":"function_call_output","call_id":"c","output":"ok"},
        {"type":"custom_tool_call","call_id":"d","name":"g","input":"x"},
        {"type":"custom_tool_call_output","call_id":"d","output":[{"type":"input_text","text":"y"}]}]"#;
    assert!(input(own).unwrap().media.is_empty());
}

#[test]
fn a_body_of_nothing_but_kinds_is_refused_before_they_are_compared() {
    let of = |kinds: usize| {
        let parts: Vec<_> = (0..kinds).map(|kind| format!(r#"{{"type":"kind{kind}"}}"#)).collect();
        let parts = parts.join(",");
        chat(&format!(r#"{{"model":"m","messages":[{{"role":"user","content":[{parts}]}}]}}"#))
    };
    assert_eq!(of(input_estimate::MOST_KINDS).unwrap().media.len(), input_estimate::MOST_KINDS);
    // Compared with each other they would take minutes.
    for kinds in [input_estimate::MOST_KINDS + 1, 200_000] {
        let reject = of(kinds).unwrap_err();
        let message = "There are too many kinds of content: at most 16 are served.";
        assert_eq!(reject.message, message);
    }
}
