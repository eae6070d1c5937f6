//! The events of one of Anthropic's streams as chunks of a chat completion.

use bytes::Bytes;
use gatekeeper_filters::{
    kernel::{
        Usage,
        json::{Reader, Value},
    },
    meter::Reading,
};

use super::{
    answer::{arguments, write_call},
    finish_reason,
    write::JsonWriter,
    write_usage,
};

/// One stream, event by event.
pub struct StreamTranslator {
    reader: Reader,
    chunks: ChunkWriter,
}

struct ChunkWriter {
    /// In Unix seconds.
    created: u64,
    /// The app asked for the usage chunk.
    wants_usage: bool,
    usage: Option<Usage>,
    /// What each chunk begins with; empty before the first.
    head: Bytes,
    /// Their order is their index in OpenAI's chunks.
    calls: Vec<ToolCall>,
    finished: bool,
}

/// A call that has begun.
struct ToolCall {
    /// The index of its block in Anthropic's events.
    block: Option<u64>,
    /// What it began with: all there is, if nothing follows.
    arguments: String,
    /// Some of its arguments went out.
    is_told: bool,
}

impl StreamTranslator {
    pub fn new(wants_usage: bool, created: u64) -> Self {
        let chunks = ChunkWriter {
            created,
            wants_usage,
            usage: None,
            head: Bytes::new(),
            calls: Vec::new(),
            finished: false,
        };
        Self { reader: Reader::lenient(), chunks }
    }

    /// The chunks that an event makes; none for one without words. `reading` is what the meter read in it.
    pub fn event(&mut self, name: Option<&str>, data: &[u8], reading: &Reading) -> Bytes {
        self.chunks.usage = reading.usage.or(self.chunks.usage);
        let mut json = JsonWriter::default();
        if let Ok(root) = self.reader.parse(data) {
            self.chunks.event(name, &root, &mut json);
        }
        json.finish()
    }
}

impl ChunkWriter {
    /// The type within the data wins over the event's name.
    fn event(&mut self, name: Option<&str>, root: &Value<'_>, json: &mut JsonWriter) {
        let written = root.get("type").and_then(|kind| kind.as_str());
        let block = root.get("index").and_then(|index| index.as_u64());
        match written.as_deref().or(name).unwrap_or_default() {
            "message_start" => self.begin(root.get("message"), json),
            "content_block_start" => {
                if let Some(started) = root.get("content_block") {
                    self.start(block, &started, json);
                }
            }
            "content_block_delta" => {
                if let Some(delta) = root.get("delta") {
                    self.delta(block, &delta, json);
                }
            }
            "content_block_stop" => self.tell_rest(|call| call.block == block, json),
            "message_delta" => {
                let delta = root.get("delta");
                let reason = delta.and_then(|delta| delta.get("stop_reason")?.as_str());
                if let Some(reason) = reason {
                    self.finish(Some(&reason), json);
                }
            }
            "message_stop" => self.end(json),
            _ => {}
        }
    }

    /// The first chunk, without content.
    fn begin(&mut self, message: Option<Value<'_>>, json: &mut JsonWriter) {
        if !self.head.is_empty() {
            return;
        }
        let told = |name: &str| {
            message.and_then(|message| message.get(name)?.as_str()).unwrap_or_default()
        };
        let mut head = JsonWriter::default();
        head.raw("data: {\"id\":").string(&told("id"));
        head.raw(format!(",\"object\":\"chat.completion.chunk\",\"created\":{}", self.created));
        head.raw(",\"model\":").string(&told("model")).raw(",\"choices\":[");
        self.head = head.finish();
        self.chunk(json, None, |json| {
            json.raw("{\"role\":\"assistant\",\"content\":\"\"}");
        });
    }

    fn chunk(
        &mut self,
        json: &mut JsonWriter,
        finish: Option<&str>,
        delta: impl FnOnce(&mut JsonWriter),
    ) {
        json.raw(&self.head).raw("{\"index\":0,\"delta\":");
        delta(json);
        json.raw(",\"finish_reason\":");
        match finish {
            Some(reason) => json.string(reason),
            None => json.raw("null"),
        };
        json.raw("}]}\n\n");
    }

    fn say(&mut self, name: &str, text: &str, json: &mut JsonWriter) {
        if text.is_empty() {
            return;
        }
        self.begin(None, json);
        self.chunk(json, None, |json| {
            json.raw("{").string(name).raw(":").string(text).raw("}");
        });
    }

    fn start(&mut self, block: Option<u64>, started: &Value<'_>, json: &mut JsonWriter) {
        let told = |name: &str| started.get(name).and_then(|value| value.as_str());
        match told("type").as_deref() {
            Some("text") => self.say("content", &told("text").unwrap_or_default(), json),
            Some("thinking") => {
                self.say("reasoning_content", &told("thinking").unwrap_or_default(), json);
            }
            Some("tool_use") => {
                let index = self.calls.len();
                self.calls.push(ToolCall { block, arguments: arguments(started), is_told: false });
                self.begin(None, json);
                self.chunk(json, None, |json| {
                    json.raw(format!("{{\"tool_calls\":[{{\"index\":{index},"));
                    write_call(json, started);
                    json.raw(",\"arguments\":\"\"}}]}");
                });
            }
            _ => {}
        }
    }

    fn delta(&mut self, block: Option<u64>, delta: &Value<'_>, json: &mut JsonWriter) {
        let told = |name: &str| delta.get(name).and_then(|value| value.as_str());
        self.say("content", &told("text").unwrap_or_default(), json);
        self.say("reasoning_content", &told("thinking").unwrap_or_default(), json);
        let part = told("partial_json").unwrap_or_default();
        if let Some(index) = self.calls.iter().rposition(|call| call.block == block) {
            self.tell(index, &part, json);
        }
    }

    /// Some more of a call's arguments.
    fn tell(&mut self, index: usize, part: &str, json: &mut JsonWriter) {
        if part.is_empty() {
            return;
        }
        self.calls[index].is_told = true;
        self.chunk(json, None, |json| {
            json.raw(format!("{{\"tool_calls\":[{{\"index\":{index},\"function\":"));
            json.raw("{\"arguments\":").string(part).raw("}}]}");
        });
    }

    /// Calls that end without a word have the arguments that they began with, mostly none: `{}`.
    fn tell_rest(&mut self, ended: impl Fn(&ToolCall) -> bool, json: &mut JsonWriter) {
        for index in 0..self.calls.len() {
            let call = &mut self.calls[index];
            if ended(call) && !call.is_told {
                let whole = std::mem::take(&mut call.arguments);
                self.tell(index, &whole, json);
            }
        }
    }

    fn finish(&mut self, reason: Option<&str>, json: &mut JsonWriter) {
        if self.finished {
            return;
        }
        self.finished = true;
        self.tell_rest(|_| true, json);
        // A server may leave the start of a message out.
        self.begin(None, json);
        self.chunk(json, Some(finish_reason(reason)), |json| {
            json.raw("{}");
        });
    }

    fn end(&mut self, json: &mut JsonWriter) {
        self.finish(None, json);
        if let (true, Some(usage)) = (self.wants_usage, &self.usage) {
            json.raw(&self.head).raw("],\"usage\":");
            write_usage(json, usage);
            json.raw("}\n\n");
        }
        json.raw("data: [DONE]\n\n");
    }
}
