//! What apps ask and what the stand-in provider answers, every byte made beforehand.
//!
//! What is answered is asked for by the model's name, the one thing that every proxy passes on:
//! `json`, or `stream-<chunks>-<milliseconds between them>`, with `lean-` before it for an answer with
//! four headers.

use std::net::SocketAddr;
use std::time::Duration;

use memchr::memmem;

/// As a chat completion of a few sentences: 700 bytes with its usage.
pub const ANSWER: &str = r#"{"id":"chatcmpl-7b1d0c5e9f3a4b6d8e2f","object":"chat.completion","created":1764000000,"model":"stand-in","system_fingerprint":"fp_5d1c9a","choices":[{"index":0,"message":{"role":"assistant","content":"Thanks for your message! The parcel left our warehouse this morning and should be with you in two or three working days. The tracking link is on its way to your inbox. If anything looks wrong with the order, reply here and we will put it right at once."},"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":83,"completion_tokens":57,"total_tokens":140,"prompt_tokens_details":{"cached_tokens":0},"completion_tokens_details":{"reasoning_tokens":0}}}"#;
const EVENT: &str = r#"data: {"id":"chatcmpl-7b1d0c5e9f3a4b6d8e2f","object":"chat.completion.chunk","created":1764000000,"model":"stand-in","system_fingerprint":"fp_5d1c9a","choices":[{"index":0,"delta":{"content":" parcel"},"logprobs":null,"finish_reason":null}]}"#;
const FINISH: &str = r#"data: {"id":"chatcmpl-7b1d0c5e9f3a4b6d8e2f","object":"chat.completion.chunk","created":1764000000,"model":"stand-in","system_fingerprint":"fp_5d1c9a","choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"stop"}]}"#;
const USAGE: &str = r#"data: {"id":"chatcmpl-7b1d0c5e9f3a4b6d8e2f","object":"chat.completion.chunk","created":1764000000,"model":"stand-in","system_fingerprint":"fp_5d1c9a","choices":[],"usage":{"prompt_tokens":83,"completion_tokens":100,"total_tokens":183}}"#;
/// What a shop says of a licence that is good.
const LICENSE: &str = r#"{"valid":true,"error":null,"license_key":{"status":"active","activation_limit":5,"activation_usage":0,"expires_at":null,"test_mode":false},"instance":null,"meta":{"store_id":1,"order_id":1,"product_id":1,"variant_id":1}}"#;
const DONE: &str = "data: [DONE]";
/// What the app of a shop says first, or the prompt of that shop.
pub const SYSTEM: &str = "You answer the customers of a small shop: friendly, short, never making promises about refunds. Opening hours are nine to five, Monday to Friday. Parcels take two or three working days.";
/// The values of the prompt, as JSON in JSON.
const VARIABLES: &str = r#"{\"order\":\"20391\"}"#;

/// What OpenAI sends beside `content-type` and the framing, with made-up values.
const PROVIDER_HEADERS: &str = "Date: Mon, 30 Nov 2026 08:00:00 GMT\r\n\
Connection: keep-alive\r\n\
access-control-expose-headers: X-Request-ID\r\n\
openai-organization: user-0123456789abcdefghijklmn\r\n\
openai-processing-ms: 412\r\n\
openai-project: proj_0123456789abcdefghijklmn\r\n\
openai-version: 2020-10-01\r\n\
x-envoy-upstream-service-time: 430\r\n\
x-ratelimit-limit-requests: 10000\r\n\
x-ratelimit-limit-tokens: 200000\r\n\
x-ratelimit-remaining-requests: 9999\r\n\
x-ratelimit-remaining-tokens: 199868\r\n\
x-ratelimit-reset-requests: 8.64s\r\n\
x-ratelimit-reset-tokens: 39ms\r\n\
x-request-id: req_0123456789abcdef0123456789abcdef\r\n\
x-openai-proxy-wasm: v0.1\r\n\
cf-cache-status: DYNAMIC\r\n\
set-cookie: __cf_bm=0123456789abcdefghijklmnopqrstuvwxyz-1764489600-1.0.1.1-0123456789abcdefghijklmnopqrstuvwxyz; path=/; expires=Mon, 30-Nov-26 08:30:00 GMT; domain=.api.openai.com; HttpOnly; Secure; SameSite=None\r\n\
set-cookie: _cfuvid=0123456789abcdefghijklmnopqrstuvwxyz-1764489600000-0.0.1.1-604800000; path=/; domain=.api.openai.com; HttpOnly; Secure; SameSite=None\r\n\
strict-transport-security: max-age=31536000; includeSubDomains; preload\r\n\
x-content-type-options: nosniff\r\n\
Server: cloudflare\r\n\
CF-RAY: 0123456789abcdef-FRA\r\n\
alt-svc: h3=\":443\"; ma=86400\r\n";
/// With `content-type` and the framing they are four.
const LEAN_HEADERS: &str = "date: Mon, 30 Nov 2026 08:00:00 GMT\r\nx-request-id: req_1\r\n";

/// Events that a stream of `chunks` chunks ends with beside them, for an app that asked for no
/// usage: the finish and `[DONE]`.
pub const LAST_EVENTS: usize = 2;

/// Which headers app and provider send.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, clap::ValueEnum)]
pub enum Headers {
    /// What the OpenAI SDK for JavaScript sends, and what OpenAI sends.
    Sdk,
    /// Four each way.
    Lean,
}

impl Headers {
    pub fn name(self) -> &'static str {
        match self {
            Self::Sdk => "sdk",
            Self::Lean => "lean",
        }
    }
}

#[derive(Clone, Copy)]
pub enum Kind {
    Json,
    /// The same, of a prompt that has the system text, with one value.
    Prompt,
    Stream {
        chunks: u32,
        gap_ms: u32,
    },
}

/// What an app asks for.
#[derive(Clone, Copy)]
pub struct Ask {
    pub headers: Headers,
    pub kind: Kind,
}

impl Ask {
    pub const JSON: Self = Self { headers: Headers::Sdk, kind: Kind::Json };
    pub const PROMPT: Self = Self { headers: Headers::Sdk, kind: Kind::Prompt };

    pub const fn stream(chunks: u32, gap_ms: u32) -> Self {
        Self { headers: Headers::Sdk, kind: Kind::Stream { chunks, gap_ms } }
    }

    #[must_use]
    pub fn with(self, headers: Headers) -> Self {
        Self { headers, ..self }
    }

    pub fn model(self) -> String {
        let lean = if self.headers == Headers::Lean { "lean-" } else { "" };
        match self.kind {
            Kind::Json => format!("{lean}json"),
            Kind::Prompt => format!("prompt/{lean}json"),
            Kind::Stream { chunks, gap_ms } => format!("{lean}stream-{chunks}-{gap_ms}"),
        }
    }

    /// The request as it is sent; without a credential where `key` is empty.
    pub fn request(self, to: SocketAddr, key: &str) -> Vec<u8> {
        let stream = matches!(self.kind, Kind::Stream { .. });
        // What the prompt says, too: the model gets the same.
        let (role, first, options) = match self.kind {
            Kind::Prompt => ("developer", VARIABLES, ""),
            _ => ("system", SYSTEM, r#""temperature":0.4,"max_tokens":512,"#),
        };
        let body = format!(
            r#"{{"model":"{}","messages":[{{"role":"{role}","content":"{first}"}},{{"role":"user","content":"Hello, I ordered a blue mug last week (order 20391) and it has not come yet. Could you tell me where it is?"}}],{options}"stream":{stream}}}"#,
            self.model()
        );
        let sdk = match self.headers {
            Headers::Sdk => {
                "Connection: keep-alive\r\nAccept: application/json\r\nUser-Agent: OpenAI/JS 6.49.0\r\n\
                 X-Stainless-Lang: js\r\nX-Stainless-Package-Version: 6.49.0\r\nX-Stainless-OS: Windows\r\n\
                 X-Stainless-Arch: x64\r\nX-Stainless-Runtime: node\r\n\
                 X-Stainless-Runtime-Version: v22.20.0\r\nX-Stainless-Retry-Count: 0\r\n"
            }
            Headers::Lean => "",
        };
        let credential = match key {
            "" => String::new(),
            key => format!("Authorization: Bearer {key}\r\n"),
        };
        format!(
            "POST /v1/chat/completions HTTP/1.1\r\nHost: {to}\r\n{credential}\
             Content-Type: application/json\r\n{sdk}Content-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .into_bytes()
    }

    /// How long one answer takes at least.
    pub fn paced(self) -> Duration {
        match self.kind {
            Kind::Json | Kind::Prompt => Duration::ZERO,
            Kind::Stream { chunks, gap_ms } => Duration::from_millis((chunks * gap_ms).into()),
        }
    }
}

/// A head's announced length of its body.
pub fn content_length(head: &[u8]) -> Option<usize> {
    head.split(|b| *b == b'\n')
        .filter_map(|line| std::str::from_utf8(line).ok()?.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.trim().parse().ok())
}

/// What reached the provider.
#[derive(Clone, Copy)]
pub enum Asked {
    Chat {
        ask: Ask,
        /// The stream is to end with its usage.
        usage: bool,
    },
    /// The shop is asked about a licence.
    License,
    Unknown,
}

impl Asked {
    /// Takes the first request off `buf`, if all of it is there.
    pub fn take(buf: &mut Vec<u8>) -> Option<Self> {
        let head = memmem::find(buf, b"\r\n\r\n")?;
        let end = head + 4 + content_length(&buf[..head]).unwrap_or(0);
        if buf.len() < end {
            return None;
        }
        let asked = match buf.starts_with(b"POST /v1/licenses/validate ") {
            true => Self::License,
            false => Self::of(&buf[head + 4..end]),
        };
        buf.drain(..end);
        Some(asked)
    }

    /// What a body asks for.
    pub fn of(body: &[u8]) -> Self {
        let model = memmem::find(body, b"\"model\"").and_then(|at| {
            let mut quoted = body[at + 7..].split(|b| *b == b'"');
            quoted.next(); // the colon
            std::str::from_utf8(quoted.next()?).ok()
        });
        let Some(model) = model else { return Self::Unknown };
        let (headers, model) = match model.strip_prefix("lean-") {
            Some(model) => (Headers::Lean, model),
            None => (Headers::Sdk, model),
        };
        let usage = memmem::find(body, b"\"include_usage\"").is_some();
        if model == "json" {
            return Self::Chat { ask: Ask { headers, kind: Kind::Json }, usage };
        }
        let numbers = model.strip_prefix("stream-").and_then(|rest| rest.split_once('-'));
        match numbers.map(|(chunks, gap)| (chunks.parse(), gap.parse())) {
            Some((Ok(chunks), Ok(gap))) => {
                Self::Chat { ask: Ask::stream(chunks, gap).with(headers), usage }
            }
            _ => Self::Unknown,
        }
    }
}

/// What is answered.
pub struct Replies {
    json: [Vec<u8>; 2],
    first: [Vec<u8>; 2],
    pub license: Vec<u8>,
    pub chunk: Vec<u8>,
    last: [Vec<u8>; 2],
}

/// The answer to what the provider does not know.
pub const UNKNOWN: &[u8] = b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n";

/// One event in one chunk of the framing.
fn chunk(event: &str) -> String {
    format!("{:x}\r\n{event}\n\n\r\n", event.len() + 2)
}

impl Default for Replies {
    fn default() -> Self {
        let json = |headers: &str| {
            format!(
                "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n{headers}content-length: {}\r\n\r\n{ANSWER}",
                ANSWER.len()
            )
        };
        let first = |headers: &str| {
            format!(
                "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n{headers}transfer-encoding: chunked\r\n\r\n{}",
                chunk(EVENT)
            )
        };
        let end = "0\r\n\r\n";
        let license = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{LICENSE}",
            LICENSE.len()
        );
        let last = chunk(FINISH) + &chunk(DONE) + end;
        let last_with_usage = chunk(FINISH) + &chunk(USAGE) + &chunk(DONE) + end;
        Self {
            json: [json(PROVIDER_HEADERS).into(), json(LEAN_HEADERS).into()],
            first: [first(PROVIDER_HEADERS).into(), first(LEAN_HEADERS).into()],
            license: license.into(),
            chunk: chunk(EVENT).into(),
            last: [last.into(), last_with_usage.into()],
        }
    }
}

impl Replies {
    pub fn json(&self, headers: Headers) -> &[u8] {
        &self.json[headers as usize]
    }

    /// A stream's head and its first chunk.
    pub fn first(&self, headers: Headers) -> &[u8] {
        &self.first[headers as usize]
    }

    /// A stream's last events and its end.
    pub fn last(&self, usage: bool) -> &[u8] {
        &self.last[usize::from(usage)]
    }
}

/// Headers of the provider as pairs, for HTTP/2, which has neither `connection` nor framing.
pub fn provider_headers(headers: Headers) -> impl Iterator<Item = (String, &'static str)> {
    let lines = match headers {
        Headers::Sdk => PROVIDER_HEADERS,
        Headers::Lean => LEAN_HEADERS,
    };
    let pairs = lines.split("\r\n").filter_map(|line| line.split_once(": "));
    pairs
        .map(|(name, value)| (name.to_ascii_lowercase(), value))
        .filter(|(name, _)| name != "connection")
}
