//! YAML as a tree of values that know where they stand.
//!
//! Built from the parser's events, not by its loader: that one stops at the first duplicate key
//! and recurses as deep as the file nests. Only a syntax error stops here; a duplicate key or a
//! key that is not text is reported and the rest of the file is read on.

use std::{collections::HashMap, ops::Range};

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

use super::{
    diagnostics::{Diagnostic, Position, START},
    syntax,
};

/// Deeper files are refused.
const MAX_DEPTH: usize = 32;
/// Values that aliases (`*name`) may add, so that a small file can't become a huge one.
const MAX_ALIASED: usize = 10_000;
/// Bytes of text that aliases may add: as much as a file may have itself.
const MAX_ALIASED_BYTES: usize = 1 << 20;

#[derive(Debug, Clone)]
pub struct Node {
    pub at: Position,
    /// Bytes of the file, quotes included.
    pub span: Range<usize>,
    pub kind: NodeKind,
}

#[derive(Debug, Clone)]
pub enum NodeKind {
    /// `plain` means without quotes: only then `5` is a number and `true` a truth value.
    Scalar {
        text: String,
        plain: bool,
    },
    List(Vec<Node>),
    Map(Vec<MapEntry>),
}

#[derive(Debug, Clone)]
pub struct MapEntry {
    pub key: String,
    pub key_at: Position,
    pub key_span: Range<usize>,
    pub value: Node,
}

/// What a value looks like from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScalarType {
    Nothing,
    Bool,
    Int,
    Decimal,
    Text,
    List,
    Map,
}

impl ScalarType {
    pub fn name(self) -> &'static str {
        match self {
            ScalarType::Nothing => "nothing",
            ScalarType::Bool => "true or false",
            ScalarType::Int | ScalarType::Decimal => "a number",
            ScalarType::Text => "text",
            ScalarType::List => "a list",
            ScalarType::Map => "a mapping",
        }
    }
}

impl Node {
    pub(super) fn empty() -> Self {
        Self { at: START, span: 0..0, kind: NodeKind::Map(Vec::new()) }
    }

    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entry(key).map(|entry| &entry.value)
    }

    pub fn entry(&self, key: &str) -> Option<&MapEntry> {
        self.entries().iter().find(|entry| entry.key == key)
    }

    /// Empty unless this is a mapping.
    pub fn entries(&self) -> &[MapEntry] {
        match &self.kind {
            NodeKind::Map(entries) => entries,
            _ => &[],
        }
    }

    /// Empty unless this is a list.
    pub fn items(&self) -> &[Node] {
        match &self.kind {
            NodeKind::List(items) => items,
            _ => &[],
        }
    }

    pub fn text(&self) -> Option<&str> {
        match &self.kind {
            NodeKind::Scalar { text, .. } => Some(text),
            _ => None,
        }
    }

    pub fn looks(&self) -> ScalarType {
        match &self.kind {
            NodeKind::List(_) => ScalarType::List,
            NodeKind::Map(_) => ScalarType::Map,
            NodeKind::Scalar { plain: false, .. } => ScalarType::Text,
            NodeKind::Scalar { text, .. } => plain_looks(text),
        }
    }

    pub fn is_nothing(&self) -> bool {
        self.looks() == ScalarType::Nothing
    }

    /// The same value in JSON, for the options of filters.
    pub fn to_json(&self) -> serde_json::Value {
        use serde_json::Value;
        match &self.kind {
            NodeKind::List(items) => items.iter().map(Node::to_json).collect(),
            NodeKind::Map(entries) => {
                let members = entries.iter().map(|e| (e.key.clone(), e.value.to_json()));
                Value::Object(members.collect())
            }
            NodeKind::Scalar { text, .. } => match self.looks() {
                ScalarType::Nothing => Value::Null,
                ScalarType::Bool => Value::Bool(text.eq_ignore_ascii_case("true")),
                ScalarType::Int | ScalarType::Decimal => {
                    serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.clone()))
                }
                _ => Value::String(text.clone()),
            },
        }
    }

    /// Of the texts.
    fn bytes(&self) -> usize {
        match &self.kind {
            NodeKind::Scalar { text, .. } => text.len(),
            NodeKind::List(items) => items.iter().map(Node::bytes).sum(),
            NodeKind::Map(entries) => entries.iter().map(|e| e.key.len() + e.value.bytes()).sum(),
        }
    }

    fn count(&self) -> usize {
        match &self.kind {
            NodeKind::Scalar { .. } => 1,
            NodeKind::List(items) => 1 + items.iter().map(Node::count).sum::<usize>(),
            NodeKind::Map(entries) => {
                1 + entries.iter().map(|e| 1 + e.value.count()).sum::<usize>()
            }
        }
    }
}

/// The YAML 1.2 core schema; hexadecimal and octal numbers are text to us.
fn plain_looks(text: &str) -> ScalarType {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => ScalarType::Nothing,
        "true" | "True" | "TRUE" | "false" | "False" | "FALSE" => ScalarType::Bool,
        _ if text.parse::<i128>().is_ok() => ScalarType::Int,
        _ if !text.contains(|c: char| !matches!(c, '0'..='9' | '.' | 'e' | 'E' | '+' | '-'))
            && text.parse::<f64>().is_ok() =>
        {
            ScalarType::Decimal
        }
        _ => ScalarType::Text,
    }
}

/// Reads the one document of a file.
///
/// # Errors
/// A syntax error, nesting or aliases beyond bounds, a second document. What does not stop is
/// added to `problems`.
pub fn parse(text: &str, problems: &mut Vec<Diagnostic>) -> Result<Node, Diagnostic> {
    let mut reader = Reader {
        offsets: text.char_indices().map(|(at, _)| at).chain([text.len()]).collect(),
        open: Vec::new(),
        anchors: HashMap::new(),
        aliased: 0,
        aliased_bytes: 0,
        root: None,
        problems,
    };
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        match event {
            Ok((event, span)) => reader.event(event, span)?,
            Err(error) => {
                let at = Position { line: error.marker().line(), column: error.marker().col() + 1 };
                return Err(syntax::diagnose(text, at));
            }
        }
    }
    Ok(reader.root.take().unwrap_or_else(Node::empty))
}

struct Reader<'a> {
    /// Byte offset of each character.
    offsets: Vec<usize>,
    open: Vec<OpenContainer>,
    anchors: HashMap<usize, Node>,
    aliased: usize,
    aliased_bytes: usize,
    root: Option<Node>,
    problems: &'a mut Vec<Diagnostic>,
}

/// A list or mapping whose end was not seen yet.
struct OpenContainer {
    node: Node,
    anchor: usize,
    /// The key that waits for its value; `None` inside is a key that is not text.
    key: Option<Option<(String, Position, Range<usize>)>>,
    lines: HashMap<String, usize>,
}

impl Reader<'_> {
    fn event(&mut self, event: Event<'_>, span: Span) -> Result<(), Diagnostic> {
        let at = Position { line: span.start.line(), column: span.start.col() + 1 };
        let bytes = self.offset(span.start.index())..self.offset(span.end.index());
        let node = |kind| Node { at, span: bytes.clone(), kind };
        match event {
            Event::DocumentStart(_) if self.root.is_some() => {
                return Err(Diagnostic::new(at, "", "a second document (`---`) in the file"));
            }
            Event::Scalar(text, style, anchor, _) => {
                let plain = style == ScalarStyle::Plain;
                self.close(node(NodeKind::Scalar { text: text.into_owned(), plain }), anchor);
            }
            Event::SequenceStart(anchor, _) => self.start(node(NodeKind::List(vec![])), anchor)?,
            Event::MappingStart(anchor, _) => self.start(node(NodeKind::Map(vec![])), anchor)?,
            Event::SequenceEnd | Event::MappingEnd => {
                if let Some(mut open) = self.open.pop() {
                    open.node.span.end = bytes.end;
                    self.close(open.node, open.anchor);
                }
            }
            Event::Alias(id) => {
                let node = self.alias(id, at)?;
                self.close(node, 0);
            }
            _ => {}
        }
        Ok(())
    }

    fn offset(&self, index: usize) -> usize {
        self.offsets.get(index).or(self.offsets.last()).copied().unwrap_or(0)
    }

    fn start(&mut self, node: Node, anchor: usize) -> Result<(), Diagnostic> {
        if self.open.len() >= MAX_DEPTH {
            let message = format!("nested more than {MAX_DEPTH} deep");
            return Err(Diagnostic::new(node.at, "", message));
        }
        self.open.push(OpenContainer { node, anchor, key: None, lines: HashMap::new() });
        Ok(())
    }

    fn alias(&mut self, id: usize, at: Position) -> Result<Node, Diagnostic> {
        let Some(node) = self.anchors.get(&id) else {
            return Err(Diagnostic::new(at, "", "an alias inside of what it stands for"));
        };
        self.aliased_bytes += node.bytes();
        if self.aliased_bytes > MAX_ALIASED_BYTES {
            let message = format!("aliases add more than {} MiB", MAX_ALIASED_BYTES >> 20);
            return Err(Diagnostic::new(at, "", message));
        }
        self.aliased += node.count();
        if self.aliased > MAX_ALIASED {
            let message = format!("aliases add more than {MAX_ALIASED} values");
            return Err(Diagnostic::new(at, "", message));
        }
        Ok(node.clone())
    }

    /// A node is complete: it goes into the list or mapping that is open, as key or value.
    fn close(&mut self, node: Node, anchor: usize) {
        if anchor > 0 {
            self.anchors.insert(anchor, node.clone());
        }
        let Some(open) = self.open.last_mut() else {
            self.root = Some(node);
            return;
        };
        match &mut open.node.kind {
            NodeKind::List(items) => items.push(node),
            NodeKind::Map(entries) => match open.key.take() {
                None => open.key = Some(key(node, &mut open.lines, self.problems)),
                Some(Some((key, key_at, key_span))) => {
                    entries.push(MapEntry { key, key_at, key_span, value: node });
                }
                Some(None) => {}
            },
            NodeKind::Scalar { .. } => {}
        }
    }
}

/// The text of a key; a duplicate or a key that is not text is a problem, its value is left out.
fn key(
    node: Node,
    lines: &mut HashMap<String, usize>,
    problems: &mut Vec<Diagnostic>,
) -> Option<(String, Position, Range<usize>)> {
    let Node { at, span, kind: NodeKind::Scalar { text, .. } } = node else {
        problems.push(Diagnostic::new(node.at, "", "a key must be text"));
        return None;
    };
    if let Some(line) = lines.get(&text) {
        let message = format!("duplicate key `{text}`; it stands on line {line} already");
        problems.push(Diagnostic::new(at, "", message));
        return None;
    }
    lines.insert(text.clone(), at.line);
    Some((text, at, span))
}
