//! Everything a provider may do wrong on one way, and of which class each is.

use std::time::Duration;

use serde_json::{Value, json};

use super::{
    rules::Class,
    ways::{Api, Way},
};
use crate::support::{Gate, Reply, Step};

/// What the request's own faults say.
pub const OWN_FAULT: &str = "temperature must be at most 2";

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Position {
    BeforeHead,
    /// Or as the head itself.
    Head,
    AfterHead,
    FirstEvent,
    Middle,
    End,
}

#[derive(Clone)]
pub struct Fault {
    pub at: Position,
    pub name: String,
    pub class: Class,
    /// Some attempt reports usage before it fails.
    pub counted: bool,
    /// `None`: nobody listens.
    pub reply: Option<Reply>,
    /// Found out by a clock.
    pub quick: bool,
}

fn fault(at: Position, name: impl Into<String>, class: Class, reply: Reply) -> Fault {
    let quick = matches!(class, Class::Silent | Class::Stalled);
    Fault { at, name: name.into(), class, counted: false, reply: Some(reply), quick }
}

/// `gate` is opened when the app has seen the first output.
pub fn faults(way: &Way, gate: &Gate) -> Vec<Fault> {
    let mut faults = before_the_head();
    faults.extend(heads(way.provider));
    faults.extend(after_the_head(way));
    match way.stream {
        true => {
            faults.extend(first_events(way.provider));
            faults.extend(middles(way.provider, gate));
            faults.extend(ends(way.provider, gate));
        }
        false => faults.extend(json_answers(way.provider)),
    }
    faults
}

fn before_the_head() -> Vec<Fault> {
    use Position::BeforeHead as At;
    let half = Step::Write("HTTP/1.1 200 OK\r\ncontent-".into());
    let refused = Fault {
        reply: None,
        ..fault(At, "connection refused", Class::Provider, Reply::status(200))
    };
    vec![
        refused,
        fault(At, "reset", Class::Passing, Reply::instead([Step::Reset])),
        fault(At, "closed", Class::Passing, Reply::instead([Step::Close])),
        fault(At, "half a head", Class::Passing, Reply::instead([half, Step::Close])),
        fault(At, "silent", Class::Silent, Reply::instead([Step::Hang])),
    ]
}

/// Answers that are errors by their status.
fn heads(api: Api) -> Vec<Fault> {
    let said = |status: u16, kind: &str, code: &str, words: &str, class: Class| {
        let body = api.error_body(status, kind, code, words);
        (status, format!("{status} {kind} {code}"), body, class)
    };
    let mut list = match api.dialect() {
        "openai" => vec![
            said(401, "invalid_request_error", "invalid_api_key", "Incorrect key", Class::Key),
            said(402, "billing", "payment_required", "Out of credits", Class::Account),
            said(403, "permission_error", "forbidden", "Not for you", Class::Key),
            said(404, "invalid_request_error", "model_not_found", "No such model", Class::Model),
            said(400, "invalid_request_error", "invalid_value", OWN_FAULT, Class::Request(400)),
            said(422, "invalid_request_error", "invalid_value", OWN_FAULT, Class::Request(422)),
            said(400, "invalid_request_error", "context_length_exceeded", OWN_FAULT, {
                Class::Request(400)
            }),
            said(400, "invalid_request_error", "tool_use_failed", OWN_FAULT, {
                Class::Unreadable(400)
            }),
            said(400, "", "", "Incorrect API key provided: xa***01", Class::Key),
            said(402, "", "402", "You requested up to 9 tokens, but can only afford 8", {
                Class::Account
            }),
            said(403, "", "", "Content violates usage guidelines. Team: SECRET", Class::Disliked),
            said(403, "", "", "Your team SECRET has used all available credits", Class::Account),
            said(413, "invalid_request_error", "too_large", OWN_FAULT, Class::Request(413)),
            said(413, "tokens", "rate_limit_exceeded", "Limit 6000 (TPM)", Class::TooLarge),
            said(429, "tokens", "rate_limit_exceeded", "Request too large for m1", Class::TooLarge),
            said(429, "insufficient_quota", "insufficient_quota", "Quota", Class::Account),
            said(429, "tokens", "rate_limit_exceeded", "tokens per day (TPD)", Class::Account),
        ],
        "anthropic" => vec![
            said(401, "authentication_error", "", "invalid x-api-key", Class::Key),
            said(402, "billing_error", "", "Payment failed", Class::Account),
            said(403, "permission_error", "", "Not for you", Class::Key),
            said(404, "not_found_error", "", "model: m1", Class::Model),
            said(400, "invalid_request_error", "", OWN_FAULT, Class::Request(400)),
            said(413, "request_too_large", "", OWN_FAULT, Class::Request(413)),
            said(400, "invalid_request_error", "", "This organization has been disabled.", {
                Class::Account
            }),
            said(
                400,
                "invalid_request_error",
                "",
                "You have reached your specified API usage limits.",
                Class::Account,
            ),
        ],
        _ => vec![
            said(402, "RESOURCE_EXHAUSTED", "", "Credits are gone", Class::Account),
            said(403, "PERMISSION_DENIED", "", "Not for you", Class::Key),
            said(404, "NOT_FOUND", "", "models/m1 is not found", Class::Model),
            said(400, "INVALID_ARGUMENT", "", OWN_FAULT, Class::Request(400)),
        ],
    };
    for status in [500, 503, 529] {
        list.push(said(status, "server_error", "", "Overloaded", Class::Passing));
    }
    list.extend(detailed(api));
    let mut faults: Vec<Fault> = list
        .into_iter()
        .map(|(status, name, body, class)| {
            fault(Position::Head, name, class, Reply::json(status, body.to_string()))
        })
        .collect();
    let busy = api.error_body(429, "rate_limit_error", "rate_limit_exceeded", "Too fast");
    let busy = Reply::json(429, busy.to_string()).header("retry-after", "30");
    faults.push(fault(Position::Head, "429 with retry-after", Class::Limited, busy));
    let page = |status: u16| {
        let page = "<html><h1>No</h1>SECRET</html>";
        Reply::status(status).header("content-type", "text/html").write(page)
    };
    faults.push(fault(Position::Head, "403 of a firewall", Class::Disliked, page(403)));
    faults.push(fault(Position::Head, "413 of a proxy", Class::TooLong, page(413)));
    faults
}

/// Errors whose meaning stands in their details.
fn detailed(api: Api) -> Vec<(u16, String, Value, Class)> {
    let google = |kind: &str| format!("type.googleapis.com/google.rpc.{kind}");
    let with = |status: u16, kind: &str, details: Value, class: Class| {
        let mut body = api.error_body(status, kind, "", "See the details");
        let name = format!("{status} {kind} {details}");
        body["error"]["details"] = details;
        (status, name.replace("type.googleapis.com/google.rpc.", ""), body, class)
    };
    let quota = |id: &str, value: &str| {
        json!([
            { "@type": google("QuotaFailure"),
              "violations": [{ "quotaId": id, "quotaValue": value }] },
            { "@type": google("RetryInfo"), "retryDelay": "20s" },
        ])
    };
    match api {
        Api::Messages => {
            let spent = json!({ "error_code": "enforced_spend_limit_reached" });
            vec![with(429, "rate_limit_error", spent, Class::Account)]
        }
        Api::Generate => {
            let key = json!([{ "@type": google("ErrorInfo"), "reason": "API_KEY_INVALID" }]);
            let minute = quota("GenerateRequestsPerMinutePerProject", "10");
            let day = quota("GenerateRequestsPerDayPerProject", "250");
            let none = quota("GenerateRequestsPerMinutePerProject-FreeTier", "0");
            vec![
                with(400, "INVALID_ARGUMENT", key, Class::Key),
                with(429, "RESOURCE_EXHAUSTED", minute, Class::Limited),
                with(429, "RESOURCE_EXHAUSTED", day, Class::Account),
                with(429, "RESOURCE_EXHAUSTED", none, Class::Tier),
            ]
        }
        _ => Vec::new(),
    }
}

fn head(way: &Way) -> Reply {
    let kind = if way.stream { "text/event-stream" } else { "application/json" };
    Reply::status(200).header("content-type", kind)
}

fn after_the_head(way: &Way) -> Vec<Fault> {
    use Position::AfterHead as At;
    let error = way.provider.error_body(500, "server_error", "", "Overloaded").to_string();
    let mut faults = vec![
        fault(At, "reset", Class::Passing, head(way).chunked().then(Step::Reset)),
        fault(At, "closed", Class::Passing, head(way).chunked().then(Step::Close)),
        fault(At, "closed, a length said", Class::Passing, head(way).lying_length(500)),
        fault(At, "silent", Class::Stalled, head(way).chunked().then(Step::Hang)),
        fault(At, "nothing at all", Class::Provider, head(way)),
        fault(At, "HTML", Class::Provider, {
            Reply::status(200).header("content-type", "text/html").write("<h1>Hi</h1>")
        }),
        fault(At, "an error as JSON", Class::Passing, Reply::json(200, error)),
    ];
    if way.stream {
        let whole = Reply::json(200, way.provider.json());
        faults.push(fault(At, "JSON for a stream", Class::Provider, whole));
    }
    faults
}

fn json_answers(api: Api) -> Vec<Fault> {
    let whole = api.json();
    let half = &whole[..whole.len() / 2];
    let json = |body: &str| Reply::json(200, body.to_owned());
    let said = |kind: &str, code: &str| {
        Reply::json(200, api.error_body(500, kind, code, "No").to_string())
    };
    let (limit, money) = match api.dialect() {
        "openai" => (said("tokens", "rate_limit_exceeded"), said("insufficient_quota", "")),
        "anthropic" => (said("rate_limit_error", ""), said("billing_error", "")),
        _ => {
            let coded = |status: u16| {
                let body = api.error_body(status, "RESOURCE_EXHAUSTED", "", "No");
                Reply::json(200, body.to_string())
            };
            (coded(429), coded(402))
        }
    };
    let mut trickle = Reply::status(200).header("content-type", "application/json").chunked();
    for piece in whole.as_bytes().chunks(whole.len() / 8) {
        trickle = trickle.write(piece.to_vec()).then(Step::Wait(Duration::from_millis(60)));
    }
    use Position::{End, FirstEvent, Middle};
    vec![
        fault(FirstEvent, "a rate limit inside", Class::Limited, limit),
        fault(FirstEvent, "a lack of money inside", Class::Account, money),
        fault(FirstEvent, "no answer inside", Class::Provider, json("{}")),
        fault(Middle, "truncated", Class::Provider, json(half)),
        fault(Middle, "shorter than said", Class::Passing, json(half).lying_length(whole.len())),
        fault(Middle, "reset", Class::Passing, json(half).chunked().then(Step::Reset)),
        fault(Middle, "closed", Class::Passing, json(half).chunked().then(Step::Close)),
        fault(Middle, "stalled", Class::Stalled, json(half).chunked().then(Step::Hang)),
        fault(Middle, "longer than said", Class::Provider, {
            json(&whole).lying_length(whole.len() / 2)
        }),
        fault(Middle, "a slow trickle", Class::Fine, trickle),
        fault(
            End,
            "one brace short",
            Class::Provider,
            json(whole.trim_end().trim_end_matches('}')),
        ),
        fault(End, "a length said too long", Class::Passing, {
            json(&whole).lying_length(whole.len() + 100)
        }),
        fault(End, "no last chunk", Class::Passing, json(&whole).chunked().then(Step::Close)),
        fault(End, "ends with its connection", Class::Fine, json(&whole).until_close()),
        fault(End, "one byte a write", Class::Fine, json(&whole).bytewise()),
    ]
}

/// Before any output.
fn first_events(api: Api) -> Vec<Fault> {
    use Position::FirstEvent as At;
    let begun = || Reply::sse(&api.script().preamble);
    let error = |kind: &str| api.error_event(kind);
    let (limit, money) = match api {
        Api::Chat | Api::Embeddings => ("tokens", "insufficient_quota"),
        Api::Responses => ("rate_limit_exceeded", "insufficient_quota"),
        Api::Messages => ("rate_limit_error", "billing_error"),
        Api::Generate => ("RESOURCE_EXHAUSTED", "RESOURCE_EXHAUSTED"),
    };
    let mut faults = vec![
        fault(At, "an error event", Class::Passing, Reply::sse(&[error("server_error")])),
        fault(At, "a beginning, then an error event", Class::Passing, {
            begun().write(error("server_error"))
        }),
        fault(At, "a beginning, then the end", Class::Provider, begun()),
        fault(At, "a beginning, then closed", Class::Passing, begun().then(Step::Close)),
        fault(At, "a beginning, then reset", Class::Passing, begun().then(Step::Reset)),
        fault(At, "a beginning, then silence", Class::Stalled, begun().then(Step::Hang)),
        fault(At, "a beginning, then a malformed event", Class::Provider, {
            begun().write(TORN).write(api.script().rest())
        }),
        fault(At, "half an event", Class::Passing, begun().write(&TORN[..20]).then(Step::Close)),
        fault(At, "a comment alone", Class::Provider, Reply::sse(&[": processing\n\n"])),
    ];
    if let Some(end) = api.script().end.filter(|_| api != Api::Responses) {
        let marker = Reply::sse(&[end]);
        faults.push(fault(At, "the end marker alone", Class::Provider, marker));
    }
    // Anthropic's first event counts the input.
    for fault in &mut faults {
        fault.counted = api == Api::Messages && fault.name.starts_with("a beginning");
    }
    if api != Api::Generate {
        let limited = begun().write(error(limit));
        let spent = begun().write(error(money));
        let counted = api == Api::Messages;
        let limited = fault(At, "a rate limit as an event", Class::Limited, limited);
        let spent = fault(At, "a lack of money as an event", Class::Account, spent);
        faults.extend([limited, spent].map(|fault| Fault { counted, ..fault }));
    }
    faults
}

/// An event whose JSON is cut off.
const TORN: &str = "data: {\"id\":\"c1\",\"choices\":[{\"del\n\n";

/// After the first word, which the app has seen.
fn middles(api: Api, gate: &Gate) -> Vec<Fault> {
    use Position::Middle as At;
    let script = api.script();
    let begun = || Reply::sse(&[script.committed()]).then(Step::Gate(gate.clone()));
    let torn = || begun().write(TORN).write(script.rest());
    let stalled = fault(At, "stalled", Class::Broken, begun().then(Step::Hang));
    let mut trickle = Reply::sse::<&str>(&[]);
    for event in script.whole().split_inclusive("\n\n") {
        trickle = trickle.write(event.to_owned()).then(Step::Wait(Duration::from_millis(120)));
    }
    let short = Reply::status(200)
        .header("content-type", "text/event-stream")
        .write(script.committed())
        .then(Step::Gate(gate.clone()))
        .write(script.rest())
        .lying_length(script.committed().len() + 10);
    vec![
        fault(At, "an error event", Class::Broken, begun().write(api.error_event("server_error"))),
        fault(At, "the end", Class::Broken, begun()),
        fault(At, "closed", Class::Broken, begun().then(Step::Close)),
        fault(At, "reset", Class::Broken, begun().then(Step::Reset)),
        fault(At, "half an event", Class::Broken, begun().write(&TORN[..20]).then(Step::Close)),
        fault(At, "a malformed event", Class::Broken, torn()),
        fault(At, "longer than said", Class::Broken, short),
        Fault { quick: true, ..stalled },
        fault(At, "a slow trickle", Class::Fine, trickle),
        fault(At, "one byte a write", Class::Fine, Reply::sse(&[script.whole()]).bytewise()),
    ]
}

/// After the last word.
fn ends(api: Api, gate: &Gate) -> Vec<Fault> {
    use Position::End as At;
    let script = api.script();
    let begun = || Reply::sse(&[script.committed()]).then(Step::Gate(gate.clone()));
    let said = || begun().write(script.words[1].clone());
    let finished = || begun().write(script.rest());
    // A finish reason says it, and the gateway adds the end marker. The responses' last event is the one that says it.
    let class = if api == Api::Responses { Class::Broken } else { Class::Fine };
    let mut faults = vec![
        fault(At, "no finish", Class::Broken, said()),
        fault(At, "finished, then reset", class, {
            finished().then(Step::Wait(Duration::from_millis(50))).then(Step::Reset)
        }),
        fault(At, "finished, then an error event", class, {
            finished().write(api.error_event("server_error"))
        }),
        Fault {
            quick: true,
            ..fault(At, "finished, then silence", class, finished().then(Step::Hang))
        },
        fault(At, "no end marker", class, finished()),
    ];
    if let Some(end) = &script.end {
        let whole = || finished().write(end.clone());
        faults.extend([
            fault(At, "the end marker, then closed", Class::Fine, whole().then(Step::Close)),
            fault(At, "the end marker, then silence", Class::Fine, whole().then(Step::Hang)),
        ]);
    }
    faults
}
