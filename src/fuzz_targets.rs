//! What holds of any bytes that come from an app or a provider, where this crate reads them. Each function takes an
//! input of a fuzzer and panics where something does not hold; `tests/fuzz` has the fuzzers, and their corpora
//! are tests here.

use bytes::Bytes;
use gatekeeper_filters::{
    kernel::{Dialect, Endpoint},
    meter,
};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;

use crate::{
    config::{self, Secrets},
    dialect::{parse_body, translate},
    pool::key::AttemptFeedback,
    proxy::routes::{self, RouteEntry},
    shops::{self, ShopSource},
    upstream::{
        classify::{Classification, judge, judge_inside},
        stream_events::StreamEvents,
    },
    vault::KeyedHash,
};

const DIALECTS: [Dialect; 3] = [Dialect::OpenAi, Dialect::Anthropic, Dialect::Gemini];

/// A dialect, a status and headers, a line each (`0 429`, `retry-after: 5`), a blank line, and a body.
pub fn classify(input: &[u8]) {
    let at = memchr::memmem::find(input, b"\n\n");
    let (head, body) = at.map_or((input, &[][..]), |at| (&input[..at], &input[at + 2..]));
    let head = String::from_utf8_lossy(head);
    let mut lines = head.lines();
    let mut first = lines.next().unwrap_or_default().split(' ');
    let mut number =
        || first.next().and_then(|word| word.parse::<usize>().ok()).unwrap_or_default();
    let dialect = DIALECTS[number() % DIALECTS.len()];
    let status = 100 + (number() % 500) as u16;
    let mut headers = HeaderMap::new();
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        let name = HeaderName::try_from(name.trim());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::try_from(value.trim())) {
            headers.append(name, value);
        }
    }
    let relayed = match judge(dialect, status, &headers, body) {
        Classification::Failed(failure) => {
            assert!(
                failure.detail.len() < 400,
                "a provider's novel in the log: {}",
                failure.detail
            );
            assert!(failure.detail.chars().all(|c| !c.is_control()), "lines in a line of the log");
            let is_refused =
                matches!(failure.news, AttemptFeedback::Refused(_) | AttemptFeedback::Spent(..));
            assert!(!is_refused || failure.instead.is_none(), "what is wrong with a key is told");
            failure.instead.map(|relayed| *relayed)
        }
        Classification::Relay(relayed) => Some(relayed),
    };
    match relayed {
        None => {}
        Some(relayed) => {
            assert!([400, 413, 422].contains(&relayed.status), "{} is relayed", relayed.status);
            let own_words = [403, 429].contains(&status);
            assert!(own_words || relayed.status == status, "another status than the provider's");
            let said = &relayed.said;
            for words in [&said.message, &said.kind, &said.code, &said.param] {
                let names = ["org-", "org_", "sk-", "proj_", "AIza"];
                assert!(
                    !names.iter().any(|name| words.contains(name)),
                    "an account is named: {words}"
                );
                assert!(words.chars().count() <= 1001, "a provider's novel for the app");
            }
        }
    }
    let inside = judge_inside(dialect, body);
    assert!(matches!(inside, Classification::Failed(_)), "an error inside a 200 is relayed");
}

/// The first byte chooses the endpoint; the rest is a body. What passes the strict reader is JSON that every other
/// reader takes for the same: no name twice, nothing deeper than the limit, UTF-8.
pub fn gate(input: &[u8]) {
    let Some((first, body)) = input.split_first() else { return };
    let endpoint = Endpoint::ALL[usize::from(*first) % Endpoint::ALL.len()];
    let path = (endpoint == Endpoint::Generate)
        .then(|| parse_body::GeminiMethod { model: "m".into(), stream: false });
    let body = Bytes::copy_from_slice(body);
    let Ok(asked) = parse_body::parse(endpoint, body.clone(), path, &[]) else { return };
    assert!(std::str::from_utf8(&body).is_ok(), "a body that is not UTF-8 passes");
    match serde_json::from_slice::<Once>(&body) {
        Err(error) if error.to_string().contains("out of range") => return,
        read => drop(read.unwrap_or_else(|error| panic!("what passes is no JSON: {error}"))),
    }
    let written = asked.members.to_pieces().concat();
    let sent: Value = serde_json::from_slice::<Once>(&written)
        .unwrap_or_else(|error| panic!("what is sent is no JSON: {error}"))
        .0;
    let one = |name: &str| sent[name].is_null() || sent[name].as_u64() == Some(1);
    assert!(one("n") && one("best_of"), "more than one answer: {sent}");
    assert!(sent["generationConfig"]["candidateCount"].as_u64().is_none_or(|count| count == 1));
    assert!(sent["store"] != true, "kept at the provider: {sent}");
}

/// JSON in which no object has a name twice.
struct Once(Value);

impl<'de> serde::Deserialize<'de> for Once {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OnceVisitor).map(Self)
    }
}

struct OnceVisitor;

impl<'de> serde::de::Visitor<'de> for OnceVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JSON without a name that stands twice in one object")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Once(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(list.into())
    }

    fn visit_map<A: serde::de::MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = serde_json::Map::new();
        while let Some((name, Once(value))) = entries.next_entry::<String, Once>()? {
            if map.insert(name.clone(), value).is_some() {
                return Err(serde::de::Error::custom(format!("{name} stands twice")));
            }
        }
        Ok(map.into())
    }
}

/// A request target, as a method and what stands behind it. Only what the table names gets in.
pub fn path(input: &[u8]) {
    let (method, target) = match memchr::memchr(b' ', input) {
        Some(at) => (&input[..at], &input[at + 1..]),
        None => (&b"POST"[..], input),
    };
    let Ok(method) = http::Method::from_bytes(method) else { return };
    let dialect = routes::dialect(target);
    let entered = routes::enter(&method, target);
    let generate = routes::generate(target);
    if let Ok(Some(asked)) = &generate {
        assert!(dialect == Dialect::Gemini && !asked.model.is_empty());
        let plain = |c: char| c.is_ascii_alphanumeric() || ".-_:".contains(c);
        assert!(asked.model.chars().all(plain), "a model that is a path: {}", asked.model);
    }
    match entered {
        Err(refused) => assert!([404, 405].contains(&refused.code.status())),
        Ok(RouteEntry::Provider(endpoint)) => {
            assert_eq!(method, http::Method::POST);
            assert_eq!(endpoint.dialect(), dialect, "{}", target.escape_ascii());
        }
        Ok(_) => {
            let path = target.split(|byte| *byte == b'?').next().unwrap_or_default();
            assert!(!path.windows(2).any(|two| two == b".."), "{}", target.escape_ascii());
        }
    }
}

/// A signed webhook of Lemon Squeezy. What is not of this store, or of its test mode, marks nothing.
pub fn webhook(input: &[u8]) {
    let Ok(event) = serde_json::from_slice::<Value>(input) else { return };
    let Some(shop) = shops::by_name("lemonsqueezy") else { return };
    let source = ShopSource { seller: Some("58213".into()), ..ShopSource::new(shop) };
    let hash = KeyedHash::new(&[7; 32]);
    let read = shop.webhook().and_then(|webhook| webhook.read(input, &source, &hash).ok()?);
    let Some(read) = read else { return };
    let store = &event["data"]["attributes"]["store_id"];
    assert!(store == 58_213 || store == "58213", "another store's: {event}");
    for told in [&event["meta"], &event["data"]["attributes"]] {
        assert!(told["test_mode"].is_null() || told["test_mode"] == false, "a test: {event}");
    }
    assert!(!read.refund || event["meta"]["event_name"] == "order_refunded", "{event}");
}

/// The text of a configuration file: every problem has a place in it, and none ends the process.
pub fn configuration(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let registry = gatekeeper_filters::builtin();
    let found = match config::parse(&text, &registry, Secrets::MayBeAbsent) {
        Ok((settings, warnings)) => {
            assert!(!settings.plans.is_empty() && !settings.providers.is_empty());
            warnings
        }
        Err(report) => {
            assert!(!report.problems.is_empty(), "refused without a problem");
            [report.problems, report.warnings].concat()
        }
    };
    // YAML takes a carriage return for a line break, too.
    let lines = text.matches(['\n', '\r']).count() + 1;
    for problem in found {
        let message = &problem.message;
        assert!((1..=lines + 1).contains(&problem.line), "line {}: {message}", problem.line);
        assert!(problem.column >= 1 && !message.is_empty());
        assert!(message.len() < 4096, "a novel: {message}");
    }
}

/// A body of OpenAI's chat.
pub fn translate_request(input: &[u8]) {
    let body = Bytes::copy_from_slice(input);
    let Ok(asked) = parse_body::parse(Endpoint::Chat, body, None, &[]) else { return };
    match translate::request::request(&asked) {
        Ok(members) => {
            let written = members.to_pieces().concat();
            // Numbers that no machine holds are the provider's to refuse.
            let body = match serde_json::from_slice(&written) {
                Err(error) if error.to_string().contains("out of range") => return,
                body => body.unwrap_or_else(|error| panic!("no JSON: {error}")),
            };
            holds_the_rules(&body);
        }
        Err(refused) => {
            assert!(refused.param.is_some(), "refused without a name: {}", refused.message)
        }
    }
}

/// The rules of Anthropic's reference for what a translated request holds.
pub fn holds_the_rules(body: &Value) {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let turns = list(&body["messages"]);
    assert!(turns.len() % 2 == 1, "the user first and last, by turns: {body}");
    for (index, turn) in turns.iter().enumerate() {
        assert_eq!(turn["role"], ["user", "assistant"][index % 2], "{body}");
        let blocks = list(&turn["content"]);
        assert!(!blocks.is_empty(), "a turn that says nothing: {body}");
        let is_result = |block: &Value| block["type"] == "tool_result";
        let results = blocks.iter().rev().skip_while(|block| !is_result(block));
        assert!(results.into_iter().all(is_result), "results come first: {body}");
        blocks.iter().for_each(block_holds);
    }
    let system = body.get("system").map(|system| system.as_str().unwrap_or_default());
    assert!(system.is_none_or(|system| !system.trim().is_empty()), "a blank system prompt: {body}");
}

fn block_holds(block: &Value) {
    let is_told = |name: &str| block[name].as_str().is_some_and(|text| !text.trim().is_empty());
    match block["type"].as_str().unwrap_or_default() {
        "text" => assert!(is_told("text"), "blank text: {block}"),
        "tool_use" => assert!(block["input"].is_object(), "arguments that are no object: {block}"),
        "tool_result" => assert!(is_told("tool_use_id"), "a result of no call: {block}"),
        kind => assert_eq!(kind, "image"),
    }
}

/// A byte that gives the position at which a stream of Anthropic's is split, and the stream; it is read as
/// a whole answer, too.
pub fn translate_answer(input: &[u8]) {
    let Some((&first, stream)) = input.split_first() else { return };
    let pieces: Vec<&[u8]> = stream.chunks(usize::from(first).max(1)).collect();
    let (out, whole) = streamed(&[stream]);
    assert_eq!(
        (&out, whole),
        (&streamed(&pieces).0, streamed(&pieces).1),
        "a cut changes the answer"
    );
    let mut done = 0;
    for event in out.split("\n\n").filter(|event| !event.is_empty() && !event.starts_with(':')) {
        let data = event.strip_prefix("data: ");
        let data = data.unwrap_or_else(|| panic!("no event of OpenAI's: {event}"));
        assert_eq!(done, 0, "an event after the end");
        if data == "[DONE]" {
            done += 1;
            continue;
        }
        let chunk: Value =
            serde_json::from_str(data).unwrap_or_else(|error| panic!("{error}: {data}"));
        assert!(chunk["choices"].is_array(), "a chunk without choices: {chunk}");
    }
    assert!(done == 1 || !whole, "a whole answer ends once: {out}");
    assert!(done == 0 || whole, "a broken answer has no end");
    let usage = meter::answer(Endpoint::Messages, stream).ok().and_then(|reading| reading.usage);
    if let Ok(answer) = translate::answer::answer(stream, usage.as_ref(), 7) {
        let answer: Value =
            serde_json::from_slice(&answer).unwrap_or_else(|error| panic!("{error}"));
        assert!(answer["choices"][0]["message"].is_object(), "no message: {answer}");
    }
}

/// What goes to an app of OpenAI's chat, and whether it is whole. Nothing goes before the answer has begun.
fn streamed(pieces: &[&[u8]]) -> (String, bool) {
    let mut events = StreamEvents::new(Endpoint::Messages, true).translated(7);
    for piece in pieces {
        events.take(Bytes::copy_from_slice(piece), |_| {});
    }
    if !events.is_over() {
        events.end(|_| {});
    }
    let broken = events.broken().is_some();
    let out = if events.commits { events.out.take() } else { Bytes::new() };
    (String::from_utf8_lossy(&out).into_owned(), !broken)
}

#[cfg(test)]
#[path = "../tests/fuzz/replay.rs"]
mod replay;

#[cfg(test)]
mod tests {
    use super::{replay::replay, *};

    #[test]
    fn the_corpus_of_bodies_holds() {
        replay("gate", gate);
    }

    #[test]
    fn the_corpus_of_paths_holds() {
        replay("path", path);
    }

    #[test]
    fn the_corpus_of_webhooks_holds() {
        replay("webhook", webhook);
    }

    #[test]
    fn the_corpus_of_configurations_holds() {
        replay("configuration", configuration);
    }

    #[test]
    fn the_corpus_of_refusals_and_errors_holds() {
        replay("classify", classify);
    }

    #[test]
    fn the_corpus_of_requests_to_translate_holds() {
        replay("translate_request", translate_request);
    }

    #[test]
    fn the_corpus_of_answers_to_translate_holds() {
        replay("translate_answer", translate_answer);
    }
}
