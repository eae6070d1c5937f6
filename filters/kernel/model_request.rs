//! What the app asks for: the few members the gateway reads, and all members it may send on.
//!
//! The body was checked as strict JSON before a `ModelRequest` exists. Unchanged members are sent on as the
//! bytes that were checked; nothing is re-serialised.

use std::{borrow::Cow, ops::Range, sync::Arc};

use bytes::{BufMut, Bytes, BytesMut};

use super::input::Input;

#[derive(Debug, Clone)]
pub struct ModelRequest {
    /// The public model name, as the app wrote it.
    pub model: Arc<str>,
    pub stream: bool,
    /// The app itself asked for a usage chunk (`stream_options.include_usage`).
    pub wants_usage: bool,
    /// What all members that are sent on weigh together.
    pub input: Input,
    /// Content part types beside text and images, each once: the model must accept them.
    pub media: Vec<Arc<str>>,
    /// The app's own output cap and the field it used.
    pub output_cap: Option<u64>,
    pub cap_field: Option<&'static str>,
    /// Output tokens that the model may spend on thinking; an output cap must be above it.
    pub thinking_budget: Option<u64>,
    /// Names of members that no provider gets, separated by commas; empty where all are sent on.
    pub dropped: String,
    pub members: RequestMembers,
}

impl ModelRequest {
    /// An answer in one piece, before anything else was read.
    pub fn new(model: Arc<str>, members: RequestMembers) -> Self {
        Self {
            model,
            stream: false,
            wants_usage: false,
            input: Input::default(),
            media: Vec::new(),
            output_cap: None,
            cap_field: None,
            thinking_budget: None,
            dropped: String::new(),
            members,
        }
    }
}

/// The top-level members of a JSON object, in the app's order.
#[derive(Debug, Clone, Default)]
pub struct RequestMembers {
    source: Bytes,
    list: Vec<RequestMember>,
}

#[derive(Debug, Clone)]
struct RequestMember {
    name: Name,
    value: Value,
}

/// A name is almost always a span of the body; only ours are not.
#[derive(Debug, Clone)]
enum Name {
    Source(Range<usize>),
    Own(Cow<'static, str>),
}

#[derive(Debug, Clone)]
enum Value {
    Source(Range<usize>),
    Own(Bytes),
}

/// Bodies up to this size are copied into one buffer; in larger ones the app's bytes are shared.
const ONE_PIECE: usize = 64 * 1024;

impl RequestMembers {
    pub fn new(source: Bytes) -> Self {
        Self { source, list: Vec::with_capacity(8) }
    }

    /// Adds a member by its spans in the source: the name without quotes (and without escapes),
    /// the value whole.
    pub fn push_source(&mut self, name: Range<usize>, value: Range<usize>) {
        self.list.push(RequestMember { name: Name::Source(name), value: Value::Source(value) });
    }

    /// The same spans in this text, which was not whole before they were known.
    #[must_use]
    pub fn in_source(mut self, source: Bytes) -> Self {
        self.source = source;
        self
    }

    /// The whole text that the spans are of.
    pub fn source(&self) -> &Bytes {
        &self.source
    }

    fn name_of<'a>(&'a self, member: &'a RequestMember) -> &'a [u8] {
        match &member.name {
            Name::Source(span) => &self.source[span.clone()],
            Name::Own(name) => name.as_bytes(),
        }
    }

    fn position(&self, name: &str) -> Option<usize> {
        self.list.iter().position(|member| self.name_of(member) == name.as_bytes())
    }

    /// The raw JSON of a member.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.position(name).map(|at| match &self.list[at].value {
            Value::Source(span) => &self.source[span.clone()],
            Value::Own(bytes) => &bytes[..],
        })
    }

    pub fn contains(&self, name: &str) -> bool {
        self.position(name).is_some()
    }

    /// Replaces a member's value where it stands, or adds it at the end. `json` must be valid JSON.
    pub fn set(&mut self, name: impl Into<Cow<'static, str>>, json: impl Into<Bytes>) {
        let (name, value) = (name.into(), Value::Own(json.into()));
        match self.position(&name) {
            Some(at) => self.list[at].value = value,
            None => self.list.push(RequestMember { name: Name::Own(name), value }),
        }
    }

    pub fn remove(&mut self, name: &str) {
        self.retain(|member| member != name.as_bytes());
    }

    pub fn retain(&mut self, mut keep: impl FnMut(&[u8]) -> bool) {
        let source = &self.source;
        self.list.retain(|member| match &member.name {
            Name::Source(span) => keep(&source[span.clone()]),
            Name::Own(own) => keep(own.as_bytes()),
        });
    }

    pub fn names(&self) -> impl Iterator<Item = &[u8]> {
        self.list.iter().map(|member| self.name_of(member))
    }

    /// The object as it goes out, in pieces: one for ordinary bodies; for large ones the app's
    /// bytes are shared, not copied, so that each attempt costs no copy.
    pub fn to_pieces(&self) -> Vec<Bytes> {
        let size: usize = self.list.iter().map(|member| self.size_of(member)).sum();
        let mut pieces = Vec::new();
        let mut buffer = BytesMut::with_capacity(if size < ONE_PIECE { size + 2 } else { 4096 });
        for (index, member) in self.list.iter().enumerate() {
            buffer.put_slice(if index == 0 { b"{\"" } else { b",\"" });
            buffer.put_slice(self.name_of(member));
            buffer.put_slice(b"\":");
            match &member.value {
                Value::Source(span) if span.len() >= ONE_PIECE => {
                    pieces.push(buffer.split().freeze());
                    pieces.push(self.source.slice(span.clone()));
                }
                Value::Own(bytes) if bytes.len() >= ONE_PIECE => {
                    pieces.push(buffer.split().freeze());
                    pieces.push(bytes.clone());
                }
                Value::Source(span) => buffer.put_slice(&self.source[span.clone()]),
                Value::Own(bytes) => buffer.put_slice(bytes),
            }
        }
        buffer.put_slice(if self.list.is_empty() { b"{}" } else { b"}" });
        pieces.push(buffer.freeze());
        pieces
    }

    fn size_of(&self, member: &RequestMember) -> usize {
        let value = match &member.value {
            Value::Source(span) => span.len(),
            Value::Own(bytes) => bytes.len(),
        };
        self.name_of(member).len() + value + 4
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(json: &'static str, spans: &[(&str, &str)]) -> RequestMembers {
        let mut members = RequestMembers::new(Bytes::from_static(json.as_bytes()));
        for (name, value) in spans {
            let at = json.find(&format!("\"{name}\"")).unwrap() + 1;
            let from = at + json[at..].find(value).unwrap();
            members.push_source(at..at + name.len(), from..from + value.len());
        }
        members
    }

    fn joined(members: &RequestMembers) -> String {
        String::from_utf8(members.to_pieces().concat()).unwrap()
    }

    #[test]
    fn what_nobody_changed_keeps_its_bytes_and_place() {
        let mut members =
            members(r#"{"model" : "fast", "n" : 1.0 }"#, &[("model", "\"fast\""), ("n", "1.0")]);
        members.set("model", "\"llama\"");
        members.set("max_tokens", "12");
        assert_eq!(joined(&members), r#"{"model":"llama","n":1.0,"max_tokens":12}"#);
        members.remove("model");
        members.remove("n");
        members.remove("max_tokens");
        assert_eq!(joined(&members), "{}");
    }

    #[test]
    fn long_values_are_shared_whoever_made_them() {
        let long = Bytes::from(format!("\"{}\"", "a".repeat(ONE_PIECE)));
        let mut members = RequestMembers::default();
        members.set("short", "1");
        members.set("long", long.clone());
        members.set("last", "2");
        let pieces = members.to_pieces();
        assert!(pieces.iter().any(|piece| piece.as_ptr() == long.as_ptr()));
        let whole = [b"{\"short\":1,\"long\":", &long[..], b",\"last\":2}"].concat();
        assert_eq!(pieces.concat(), whole);
    }
}
