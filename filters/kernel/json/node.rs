//! A node of the list that a parsed text leaves, the bounds of that list, and why a text is refused.

use std::fmt;

/// Arrays and objects inside each other.
pub const MAX_DEPTH: usize = 64;

/// Values and member names in one text. Ten mebibytes of the shortest sensible chat messages are
/// 400,000.
pub const MAX_NODES: usize = 1_000_000;

/// A text beyond this is refused: positions are kept in 32 bits.
pub(super) const MAX_BYTES: usize = u32::MAX as usize;

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
pub(super) struct Node {
    pub(super) start: u32,
    /// Exclusive. A string's span has its quotes, a name's has none.
    end: u32,
    /// The kind in the upper four bits; below, the index of the node after this whole value.
    link: u32,
}

/// What a node stands for. `Numbers` is an array whose items are found in the text, not in the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Tag {
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
    pub(super) fn new(tag: Tag, start: usize, end: usize, next: usize) -> Self {
        // Positions and indices were bounded by MAX_BYTES and MAX_NODES.
        Self {
            start: start as u32,
            end: end as u32,
            link: ((tag as u32) << NEXT_BITS) | next as u32,
        }
    }

    pub(super) fn tag(self) -> Tag {
        TAGS.get((self.link >> NEXT_BITS) as usize).copied().unwrap_or(Tag::Null)
    }

    pub(super) fn next(self) -> usize {
        (self.link & ((1 << NEXT_BITS) - 1)) as usize
    }

    pub(super) fn span(self) -> std::ops::Range<usize> {
        self.start as usize..self.end as usize
    }
}
