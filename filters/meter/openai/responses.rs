//! The Responses API: named events, each of which also carries its name as `type`.

use super::{
    Carries, StreamEnd,
    counts::{Output, counts, failed},
    is_empty, member_text, text,
};
use crate::{
    kernel::json::{JsonKind, Value},
    meter::{Reading, estimate::Estimate},
};

pub(super) fn event(name: Option<&str>, root: Value<'_>) -> Reading {
    let written = root.get("type").and_then(|kind| kind.as_str());
    let kind = written.as_deref().or(name).unwrap_or_default();
    let response = root.get("response");
    let mut reading = Reading {
        usage: response
            .and_then(|response| response.get("usage"))
            .and_then(|usage| counts(usage, Output::Counted)),
        failed: failed(root) || matches!(kind, "error" | "response.failed"),
        ..Reading::default()
    };
    match kind {
        "response.completed" | "response.incomplete" | "response.failed" => {
            reading.finished = true;
            reading.commits = true;
            reading.ending = ending(kind == "response.completed");
            // What no event brought before.
            let output = response.and_then(|response| response.get("output"));
            reading.output = carries(output.is_some_and(|output| !is_empty(output)));
        }
        // The call is shown, by name, before its arguments come.
        "response.output_item.added" => {
            if let Some(item) = root.get("item").filter(|item| is_call(*item)) {
                reading.commits = true;
                reading.output = Carries::Answer;
                reading.output_millitokens = member_text(item, "name");
            }
        }
        _ if kind.ends_with(".delta") => {
            if let Some(delta) = root.get("delta").filter(|delta| !is_empty(*delta)) {
                reading.commits = true;
                let thinks = kind.starts_with("response.reasoning");
                reading.output = if thinks { Carries::Reasoning } else { Carries::Answer };
                let sound = kind == "response.audio.delta";
                reading.output_millitokens = if sound { Estimate::default() } else { text(delta) };
            }
        }
        // `.done` events repeat what was sent in pieces before.
        _ => {}
    }
    reading.commits &= !reading.failed;
    reading
}

fn ending(completed: bool) -> StreamEnd {
    if completed { StreamEnd::Natural } else { StreamEnd::Other }
}

fn carries(said: bool) -> Carries {
    if said { Carries::Answer } else { Carries::None }
}

fn is_call(item: Value<'_>) -> bool {
    let kind = item.get("type").and_then(|kind| kind.as_str());
    kind.is_some_and(|kind| kind.ends_with("_call"))
}

pub(super) fn answer(root: Value<'_>) -> Reading {
    let status = root.get("status").and_then(|status| status.as_str());
    let status = status.as_deref().unwrap_or_default();
    let output = root.get("output").filter(|output| output.kind() == JsonKind::Array);
    let failed = failed(root) || status == "failed";
    let finished = matches!(status, "completed" | "incomplete" | "failed");
    let said = output.is_some_and(|output| !is_empty(output));
    Reading {
        usage: root.get("usage").and_then(|usage| counts(usage, Output::Counted)),
        output_millitokens: output
            .map_or(Estimate::default(), |output| output.items().map(item).sum()),
        commits: (said || finished) && !failed,
        output: carries(said),
        finished,
        ending: ending(status == "completed"),
        failed,
        ..Reading::default()
    }
}

/// A message, a reasoning summary, or a call.
fn item(item: Value<'_>) -> Estimate {
    let parts = |name: &str| item.get(name).into_iter().flat_map(|parts| parts.items());
    let said: Estimate = parts("content")
        .chain(parts("summary"))
        .map(|part| member_text(part, "text") + member_text(part, "refusal"))
        .sum();
    let called: Estimate =
        ["name", "arguments", "input"].iter().map(|name| member_text(item, name)).sum();
    if is_call(item) { said + called } else { said }
}
