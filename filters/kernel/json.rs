//! Strict JSON (RFC 8259): one pass checks everything and leaves a flat list of nodes, so that
//! later readers walk the list and parse nothing again.
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
mod node;
mod parse;
#[cfg(test)]
mod tests;
mod value;

use bytes::Bytes;

use self::node::Node;
pub use node::{MAX_DEPTH, MAX_NODES, ParseError, ParseErrorKind};
pub use value::{Items, JsonKind, Members, Name, Value};

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
