//! What of a request is scored, in whatever dialect it came: the turns of its user, and what it asks
//! of the answer. One reader does for all dialects, because their names for the same thing differ and
//! none of them means something else in another.

use std::borrow::Cow;

use super::last_turn;
use crate::kernel::{
    ModelRequest, RequestMembers, Vocabulary,
    json::{JsonKind, Reader, Value},
};

/// Turns are read from a text of up to so many bytes; of a longer one only the end is looked at.
const PARSED: usize = 32 * 1024;
/// Turns looked at.
const TURNS: usize = 16;

#[derive(Debug, Default, PartialEq)]
pub struct PromptText<'a> {
    /// What the user wrote: the last turn, the first one, then those between, later ones first.
    pub turns: Vec<Cow<'a, str>>,
    pub tools: bool,
    /// Results of tools are among the turns.
    pub tool_results: bool,
    pub images: bool,
    /// The answer must fit a schema.
    pub schema: bool,
    pub effort: Option<Effort>,
    pub output_cap: Option<u64>,
    pub text_tokens: u64,
}

/// How much the app wants the model to think.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effort {
    Low,
    High,
}

/// OpenAI chat and Anthropic; OpenAI responses; Gemini.
const TURNS_OF: [&str; 3] = ["messages", "input", "contents"];

impl<'a> PromptText<'a> {
    pub fn read(ask: &'a ModelRequest) -> Self {
        let members = &ask.members;
        let mut prompt = Self {
            tools: ["tools", "functions"].iter().any(|name| is_filled(members, name)),
            images: !ask.input.images.is_empty(),
            schema: has_schema(members),
            effort: ask.thinking_budget.map(|_| Effort::High).or_else(|| effort(members)),
            output_cap: ask.output_cap,
            text_tokens: ask.input.text.tokens(Vocabulary::O200k),
            ..Self::default()
        };
        if let Some(raw) = TURNS_OF.iter().find_map(|name| members.get(name)) {
            prompt.read_turns(raw);
        }
        prompt
    }

    fn read_turns(&mut self, raw: &'a [u8]) {
        if raw.len() > PARSED {
            self.turns.extend(last_turn::last_turn(raw).map(Cow::Owned));
            return;
        }
        let mut reader = Reader::strict();
        let Ok(turns) = reader.parse(raw) else { return };
        if let Some(text) = turns.as_str() {
            self.turns.push(Cow::Owned(text.into_owned()));
        }
        for turn in turns.items() {
            self.read_turn(&turn);
        }
        self.turns.reverse();
        if self.turns.len() > 2
            && let Some(first) = self.turns.pop()
        {
            self.turns.insert(1, first);
        }
        self.turns.truncate(TURNS);
    }

    fn read_turn(&mut self, turn: &Value<'_>) {
        let text_of = |name| turn.get(name).and_then(|value| value.as_str());
        let (role, kind) = (text_of("role"), text_of("type"));
        if role.as_deref() == Some("tool") || kind.as_deref().is_some_and(is_tool_result) {
            self.tool_results = true;
            return;
        }
        // Gemini lets the role of a single turn out.
        if role.as_deref().is_some_and(|role| role != "user") {
            return;
        }
        let Some(content) = turn.get("content").or_else(|| turn.get("parts")) else { return };
        let mut text = content.as_str().map(Cow::into_owned).unwrap_or_default();
        for part in content.items() {
            self.read_part(&part, &mut text);
        }
        if !text.is_empty() {
            self.turns.push(Cow::Owned(text));
        }
    }

    fn read_part(&mut self, part: &Value<'_>, into: &mut String) {
        let kind = part.get("type").and_then(|kind| kind.as_str());
        self.tool_results |= kind.as_deref().is_some_and(is_tool_result);
        self.tool_results |= part.get("functionResponse").is_some();
        self.images |= part.get("inlineData").is_some() || kind.as_deref() == Some("image");
        if let Some(text) = part.get("text").and_then(|text| text.as_str()) {
            if !into.is_empty() {
                into.push('\n');
            }
            into.push_str(&text);
        }
    }
}

fn is_tool_result(kind: &str) -> bool {
    matches!(kind, "tool_result" | "function_call_output")
}

fn is_filled(members: &RequestMembers, name: &str) -> bool {
    members.get(name).is_some_and(|list| list.len() > 2 && list.starts_with(b"["))
}

/// A member that is an object of modest size.
fn with<T>(
    members: &RequestMembers,
    name: &str,
    read: impl FnOnce(Value<'_>) -> Option<T>,
) -> Option<T> {
    let raw = members.get(name).filter(|raw| raw.len() <= PARSED)?;
    read(Reader::strict().parse(raw).ok()?)
}

fn has_schema(members: &RequestMembers) -> bool {
    let is = |format: Value<'_>| format.get("type")?.as_str().map(|kind| kind == "json_schema");
    with(members, "response_format", is)
        .or_else(|| with(members, "text", |text| is(text.get("format")?)))
        .or_else(|| {
            let names = ["responseSchema", "responseJsonSchema"];
            with(members, "generationConfig", |config| {
                Some(names.iter().any(|name| config.get(name).is_some()))
            })
        })
        .unwrap_or(false)
}

fn effort(members: &RequestMembers) -> Option<Effort> {
    let of = |value: Value<'_>| match &*value.as_str()? {
        "high" | "xhigh" => Some(Effort::High),
        "none" | "minimal" | "low" => Some(Effort::Low),
        _ => None,
    };
    with(members, "reasoning_effort", of).or_else(|| {
        let object = |value: Value<'_>| {
            if value.kind() == JsonKind::Object { of(value.get("effort")?) } else { None }
        };
        with(members, "reasoning", object)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::smart::testing::ask;

    #[track_caller]
    fn turns(body: &str) -> Vec<String> {
        PromptText::read(&ask(body)).turns.iter().map(|turn| turn.to_string()).collect()
    }

    #[test]
    fn the_user_s_turns_are_found_in_every_dialect() {
        let chat = r#"{"messages":[{"role":"system","content":"Why?"},{"role":"user","content":"one"},
            {"role":"assistant","content":"Why?"},{"role":"user","content":[{"type":"text","text":"two"},
            {"type":"image_url","image_url":{"url":"u"}},{"type":"text","text":"three"}]}]}"#;
        assert_eq!(turns(chat), ["two\nthree", "one"]);
        assert_eq!(turns(r#"{"input":"one"}"#), ["one"]);
        let input = r#"{"input":[{"role":"user","content":[{"type":"input_text","text":"one"}]},
            {"type":"function_call_output","call_id":"c","output":"Why?"}]}"#;
        assert_eq!(turns(input), ["one"]);
        assert!(PromptText::read(&ask(input)).tool_results);
        let contents = r#"{"contents":[{"parts":[{"text":"one"},{"inlineData":{"data":"x"}}]},
            {"role":"model","parts":[{"text":"Why?"}]},{"role":"user","parts":[{"text":"two"}]}]}"#;
        assert_eq!(turns(contents), ["two", "one"]);
        assert!(PromptText::read(&ask(contents)).images);
        for odd in ["{}", r#"{"messages":null}"#, r#"{"messages":[1,"a",{"role":"user"},[]]}"#] {
            assert!(turns(odd).is_empty(), "{odd}");
        }
    }

    #[test]
    fn what_the_app_wants_of_the_answer_is_found() {
        let read = |body: &str| {
            let ask = ask(body);
            let prompt = PromptText::read(&ask);
            (prompt.tools, prompt.schema, prompt.effort)
        };
        let schema = r#"{"response_format":{"type":"json_schema","json_schema":{}},"tools":[]}"#;
        assert_eq!(read(schema), (false, true, None));
        let text = r#"{"text":{"format":{"type":"json_schema"}},"reasoning":{"effort":"high"}}"#;
        assert_eq!(read(text), (false, true, Some(Effort::High)));
        let gemini = r#"{"generationConfig":{"responseSchema":{}},"tools":[{"a":1}]}"#;
        assert_eq!(read(gemini), (true, true, None));
        assert_eq!(read(r#"{"reasoning_effort":"low"}"#), (false, false, Some(Effort::Low)));
    }

    #[test]
    fn of_a_long_conversation_the_last_turn_is_read() {
        let padding = "x".repeat(PARSED);
        let body = format!(
            r#"{{"messages":[{{"role":"user","content":"{padding}"}},{{"role":"user","content":[
                {{"type":"text","text":"a \"b\""}},
                {{"type":"image_url","image_url":{{"url":"data:{padding}"}}}}]}}]}}"#
        );
        assert_eq!(turns(&body), [r#"a "b""#]);
    }
}
