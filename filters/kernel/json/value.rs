//! Walking a parsed text.

use std::{borrow::Cow, ops::Range};

use super::{
    node::{Node, Tag},
    parse::{hex, low_surrogate},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JsonKind {
    Null,
    Bool,
    Number,
    String,
    Array,
    Object,
}

/// A value in its text. Copying it copies no text.
#[derive(Debug, Clone, Copy)]
pub struct Value<'a> {
    source: &'a [u8],
    nodes: &'a [Node],
    node: Node,
    /// The node after this one: the first inside an array or object.
    inside: usize,
}

impl<'a> Value<'a> {
    pub(super) fn root(source: &'a [u8], nodes: &'a [Node]) -> Self {
        let nothing = Node::new(Tag::Null, 0, 0, 1);
        Self { source, nodes, node: nodes.first().copied().unwrap_or(nothing), inside: 1 }
    }

    fn at(&self, index: usize) -> Option<Self> {
        let node = *self.nodes.get(index)?;
        Some(Self { node, inside: index + 1, ..*self })
    }

    pub fn kind(&self) -> JsonKind {
        match self.node.tag() {
            Tag::Null => JsonKind::Null,
            Tag::False | Tag::True => JsonKind::Bool,
            Tag::Number => JsonKind::Number,
            Tag::Plain | Tag::Escaped => JsonKind::String,
            Tag::Numbers | Tag::Array => JsonKind::Array,
            Tag::Object => JsonKind::Object,
        }
    }

    /// Where it stands in the text; a string with its quotes.
    pub fn span(&self) -> Range<usize> {
        self.node.span()
    }

    /// Its JSON as it was written.
    pub fn raw(&self) -> &'a [u8] {
        &self.source[self.node.span()]
    }

    /// The members of an object, in order; nothing for any other value.
    pub fn members(&self) -> Members<'a> {
        Members {
            at: if self.node.tag() == Tag::Object { self.inside } else { usize::MAX },
            of: *self,
        }
    }

    /// The items of an array, in order; nothing for any other value.
    pub fn items(&self) -> Items<'a> {
        match self.node.tag() {
            Tag::Array => Items { of: *self, at: self.inside },
            Tag::Numbers => Items { of: *self, at: self.node.span().start + 1 },
            _ => Items { of: *self, at: usize::MAX },
        }
    }

    /// The member of that name; the last one if a lenient reader let several through.
    pub fn get(&self, name: &str) -> Option<Value<'a>> {
        self.members().filter(|(member, _)| *member == *name).last().map(|(_, value)| value)
    }

    /// The text of a string, copied only if it holds escapes.
    pub fn as_str(&self) -> Option<Cow<'a, str>> {
        let escaped = match self.node.tag() {
            Tag::Plain => false,
            Tag::Escaped => true,
            _ => return None,
        };
        let span = self.node.span();
        Some(decode(&self.source[span.start + 1..span.end - 1], escaped))
    }

    /// A number written as a plain integer: neither `1.0` nor `1e3` is one.
    pub fn as_u64(&self) -> Option<u64> {
        self.number()?.parse().ok()
    }

    /// A number within the range of a double.
    pub fn as_f64(&self) -> Option<f64> {
        self.number()?.parse().ok().filter(|number: &f64| number.is_finite())
    }

    fn number(&self) -> Option<&'a str> {
        let raw = (self.node.tag() == Tag::Number).then(|| self.raw())?;
        std::str::from_utf8(raw).ok()
    }

    pub fn as_bool(&self) -> Option<bool> {
        match self.node.tag() {
            Tag::True => Some(true),
            Tag::False => Some(false),
            _ => None,
        }
    }

    pub fn is_null(&self) -> bool {
        self.node.tag() == Tag::Null
    }
}

/// See [`Value::members`].
#[derive(Debug, Clone)]
pub struct Members<'a> {
    of: Value<'a>,
    at: usize,
}

impl<'a> Iterator for Members<'a> {
    type Item = (Name<'a>, Value<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.of.node.next() {
            return None;
        }
        let name = Name::new(self.of.source, *self.of.nodes.get(self.at)?);
        let value = self.of.at(self.at + 1)?;
        self.at = value.node.next();
        Some((name, value))
    }
}

/// See [`Value::items`].
#[derive(Debug, Clone)]
pub struct Items<'a> {
    of: Value<'a>,
    /// An index into the nodes; for an array of numbers, a position in the text.
    at: usize,
}

impl<'a> Items<'a> {
    fn number(&mut self) -> Option<Value<'a>> {
        let end = self.of.node.span().end - 1;
        let text = self.of.source.get(..end)?;
        let separator = |byte: u8| matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | b',');
        let start = self.at + text.get(self.at..)?.iter().position(|byte| !separator(*byte))?;
        let length = text[start..].iter().position(|byte| separator(*byte));
        self.at = length.map_or(end, |length| start + length);
        let node = Node::new(Tag::Number, start, self.at, 0);
        Some(Value { node, inside: usize::MAX, ..self.of })
    }
}

impl<'a> Iterator for Items<'a> {
    type Item = Value<'a>;

    fn next(&mut self) -> Option<Value<'a>> {
        if self.of.node.tag() == Tag::Numbers {
            return self.number();
        }
        if self.at >= self.of.node.next() {
            return None;
        }
        let value = self.of.at(self.at)?;
        self.at = value.node.next();
        Some(value)
    }
}

/// The name of a member. Compares equal to the text it stands for, however it was written.
#[derive(Debug, Clone, Copy)]
pub struct Name<'a> {
    source: &'a [u8],
    node: Node,
}

impl<'a> Name<'a> {
    pub(super) fn new(source: &'a [u8], node: Node) -> Self {
        Self { source, node }
    }

    /// Where it stands in the text, without its quotes.
    pub fn raw_span(&self) -> Range<usize> {
        self.node.span()
    }

    /// As it was written, without its quotes.
    pub fn raw(&self) -> &'a [u8] {
        &self.source[self.node.span()]
    }

    /// Whether it was written with escapes, so that [`Name::raw`] is not its text.
    pub fn is_escaped(&self) -> bool {
        self.node.tag() == Tag::Escaped
    }

    pub fn decoded(&self) -> Cow<'a, str> {
        decode(self.raw(), self.is_escaped())
    }

    /// Its text as bytes: what a `match` over several names wants.
    #[inline]
    pub fn bytes(&self) -> Cow<'a, [u8]> {
        if self.is_escaped() {
            Cow::Owned(self.decoded().into_owned().into_bytes())
        } else {
            Cow::Borrowed(self.raw())
        }
    }

    pub(super) fn same(&self, other: &Name<'_>) -> bool {
        if self.is_escaped() || other.is_escaped() {
            return self.characters().eq(other.characters());
        }
        self.raw() == other.raw()
    }

    fn characters(&self) -> Characters<'a> {
        Characters { rest: self.raw() }
    }
}

impl PartialEq<str> for Name<'_> {
    fn eq(&self, other: &str) -> bool {
        if self.is_escaped() {
            self.characters().eq(other.chars())
        } else {
            self.raw() == other.as_bytes()
        }
    }
}

impl PartialEq<&str> for Name<'_> {
    fn eq(&self, other: &&str) -> bool {
        *self == **other
    }
}

fn decode(raw: &[u8], escaped: bool) -> Cow<'_, str> {
    // Checking whole text is many times faster than finding where it breaks.
    let text = simdutf8::basic::from_utf8(raw)
        .map_or_else(|_| String::from_utf8_lossy(raw), Cow::Borrowed);
    if escaped { Cow::Owned(unescaped(&text)) } else { text }
}

fn unescaped(text: &str) -> String {
    let mut decoded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(plain) = memchr::memchr(b'\\', rest.as_bytes()) {
        decoded.push_str(&rest[..plain]);
        let (character, length) = unescape(&rest.as_bytes()[plain..]);
        decoded.push(character);
        rest = rest.get(plain + length..).unwrap_or_default();
    }
    decoded.push_str(rest);
    decoded
}

/// The character that a valid escape at the start of `raw` stands for, and the escape's length.
fn unescape(raw: &[u8]) -> (char, usize) {
    let short = match raw.get(1) {
        Some(b'u') => return unescape_unicode(raw),
        Some(b'b') => '\u{8}',
        Some(b'f') => '\u{c}',
        Some(b'n') => '\n',
        Some(b'r') => '\r',
        Some(b't') => '\t',
        Some(other) => char::from(*other),
        None => return (char::REPLACEMENT_CHARACTER, raw.len()),
    };
    (short, 2)
}

fn unescape_unicode(raw: &[u8]) -> (char, usize) {
    let unit = hex(raw, 2).unwrap_or(0xFFFD);
    let low = if (0xD800..0xDC00).contains(&unit) { low_surrogate(raw, 6) } else { None };
    let (code, length) = match low {
        Some(low) => (0x10000 + ((unit - 0xD800) << 10) + (low - 0xDC00), 12),
        None => (unit, 6),
    };
    (char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER), length.min(raw.len()))
}

/// The text of a strictly checked string, character by character, without a copy of it.
struct Characters<'a> {
    rest: &'a [u8],
}

impl Iterator for Characters<'_> {
    type Item = char;

    fn next(&mut self) -> Option<char> {
        let first = *self.rest.first()?;
        let (character, length) = match first {
            b'\\' => unescape(self.rest),
            0..0x80 => (char::from(first), 1),
            _ => {
                let length = match first {
                    0xF0.. => 4,
                    0xE0.. => 3,
                    _ => 2,
                };
                let bytes = self.rest.get(..length).unwrap_or(self.rest);
                let text = std::str::from_utf8(bytes).unwrap_or("\u{FFFD}");
                (text.chars().next().unwrap_or(char::REPLACEMENT_CHARACTER), bytes.len())
            }
        };
        self.rest = self.rest.get(length..).unwrap_or(&[]);
        Some(character)
    }
}
