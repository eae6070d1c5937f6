//! Strict JSON (RFC 8259): one pass checks everything and leaves a flat list of nodes, so that
//! whoever reads the text afterwards walks the list and parses nothing again.
//!
//! Text from an app is read strictly. JSON parsers differ in what they make of doubled names, lone
//! surrogates or broken UTF-8; whatever two readers could understand in two ways is refused, so that
//! the provider can't act on anything the gateway did not see. Answers of providers are read
//! leniently (see [`Reader::lenient`]): the gateway only watches those.
//!
//! # Memory
//! A node is 12 bytes, and each value and each member name is one node, except that an array of
//! nothing but numbers is a single node however long it is (a vector, or the token arrays of an
//! embeddings request). With at most [`MAX_NODES`] nodes the worst text costs 12 MB while it is
//! held, and 21 MB for moments while it is read (the list growing, or the names of one huge object
//! compared); a chat message costs 60 bytes beside its text.

mod duplicate_names;
mod escapes;
mod parse;
#[cfg(test)]
mod tests;
mod value;

use std::fmt;

use bytes::Bytes;

pub use value::{Items, JsonKind, Members, Name, Value};

/// Arrays and objects inside each other.
pub const MAX_DEPTH: usize = 64;

/// Values and member names in one text. Ten mebibytes of the shortest sensible chat messages are
/// 400,000.
pub const MAX_NODES: usize = 1_000_000;

/// A text beyond this is refused: positions are kept in 32 bits.
const MAX_BYTES: usize = u32::MAX as usize;

/// Why a text was refused, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ParseError {
    /// In bytes from the start of the text.
    pub offset: usize,
    pub why: ParseErrorKind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParseErrorKind {
    Empty,
    ByteOrderMark,
    Unexpected,
    EndsEarly,
    TrailingBytes,
    DuplicateKey,
    TooDeep,
    TooManyValues,
    TooLong,
    ControlCharacter,
    Escape,
    LoneSurrogate,
    Utf8,
    Number,
}

impl ParseErrorKind {
    /// For the developer of an app, followed by the position.
    fn words(self) -> &'static str {
        match self {
            ParseErrorKind::Empty => "no JSON value",
            ParseErrorKind::ByteOrderMark => "byte order mark before the JSON value",
            ParseErrorKind::Unexpected => "unexpected character",
            ParseErrorKind::EndsEarly => "the JSON value is cut off",
            ParseErrorKind::TrailingBytes => "something follows the JSON value",
            ParseErrorKind::DuplicateKey => "duplicate key",
            ParseErrorKind::TooDeep => "arrays and objects are nested deeper than 64",
            ParseErrorKind::TooManyValues => "more than 1,000,000 values",
            ParseErrorKind::TooLong => "the JSON value is too long",
            ParseErrorKind::ControlCharacter => "unescaped control character in a string",
            ParseErrorKind::Escape => "unknown escape in a string",
            ParseErrorKind::LoneSurrogate => "half of a surrogate pair in a string",
            ParseErrorKind::Utf8 => "a string is not UTF-8",
            ParseErrorKind::Number => "malformed number",
        }
    }
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at byte {}", self.why.words(), self.offset)
    }
}

impl std::error::Error for ParseError {}

/// A value, or the name of a member; a name's value is the node after it.
#[derive(Debug, Clone, Copy)]
struct Node {
    start: u32,
    /// Exclusive. A string's span has its quotes, a name's has none.
    end: u32,
    /// The kind in the upper four bits; below, the index of the node after this whole value.
    link: u32,
}

/// What a node stands for. `Numbers` is an array whose items are found in the text, not in the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
enum Tag {
    Null,
    False,
    True,
    Number,
    Plain,
    Escaped,
    Numbers,
    Array,
    Object,
}

const TAGS: [Tag; 9] = [
    Tag::Null,
    Tag::False,
    Tag::True,
    Tag::Number,
    Tag::Plain,
    Tag::Escaped,
    Tag::Numbers,
    Tag::Array,
    Tag::Object,
];

const NEXT_BITS: u32 = 28;

impl Node {
    fn new(tag: Tag, start: usize, end: usize, next: usize) -> Self {
        // Positions and indices were bounded by MAX_BYTES and MAX_NODES.
        Self {
            start: start as u32,
            end: end as u32,
            link: ((tag as u32) << NEXT_BITS) | next as u32,
        }
    }

    fn tag(self) -> Tag {
        TAGS.get((self.link >> NEXT_BITS) as usize).copied().unwrap_or(Tag::Null)
    }

    fn next(self) -> usize {
        (self.link & ((1 << NEXT_BITS) - 1)) as usize
    }

    fn span(self) -> std::ops::Range<usize> {
        self.start as usize..self.end as usize
    }
}

/// A checked text and its nodes.
#[derive(Debug, Clone)]
pub struct Document {
    source: Bytes,
    nodes: Vec<Node>,
}

impl Document {
    /// # Errors
    /// The first thing that is wrong with the text.
    pub fn parse(source: Bytes) -> Result<Self, ParseError> {
        let mut nodes = Vec::with_capacity((source.len() / 16 + 8).min(4096));
        parse::parse(&source, &mut nodes, &mut Vec::new(), true)?;
        Ok(Self { source, nodes })
    }

    pub fn source(&self) -> &Bytes {
        &self.source
    }

    pub fn root(&self) -> Value<'_> {
        Value::root(&self.source, &self.nodes)
    }
}

/// Parses one text after the other into the same memory.
#[derive(Debug, Default)]
pub struct Reader {
    nodes: Vec<Node>,
    /// Hashes of names, only for objects with many.
    names: Vec<(u64, u32)>,
    lenient: bool,
}

/// Nodes kept for the next text (48 KiB); what a huge text needed is given back by then.
const KEPT_NODES: usize = 4096;

impl Reader {
    /// Refuses what [`Document::parse`] refuses.
    pub fn strict() -> Self {
        Self::default()
    }

    /// Takes what `JSON.parse` takes after a lossy UTF-8 decoder: of doubled names the last one
    /// counts, half surrogates and broken UTF-8 read as U+FFFD. Some servers cut a character in two
    /// between two events; the apps show such answers, so the meter has to count them.
    pub const fn lenient() -> Self {
        Self { nodes: Vec::new(), names: Vec::new(), lenient: true }
    }

    /// # Errors
    /// The first thing that is wrong with the text.
    pub fn parse<'a>(&'a mut self, source: &'a [u8]) -> Result<Value<'a>, ParseError> {
        self.nodes.clear();
        self.nodes.shrink_to(KEPT_NODES);
        self.names.clear();
        self.names.shrink_to(KEPT_NODES);
        parse::parse(source, &mut self.nodes, &mut self.names, !self.lenient)?;
        Ok(Value::root(source, &self.nodes))
    }
}
