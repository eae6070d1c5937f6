//! The lines of a text that hold something, and what is found in them.

use crate::config::diagnostics::Position;

pub(super) type Found = Option<(Position, String)>;

/// A line with something in it.
pub(super) struct Line<'a> {
    /// From 1.
    pub number: usize,
    /// Spaces before it.
    pub indent: usize,
    /// Without what surrounds it, and without a comment after it.
    pub content: &'a str,
}

/// Lines that hold something, up to `last`.
pub(super) fn lines(text: &str, last: usize) -> Vec<Line<'_>> {
    let numbered = text.lines().take(last).enumerate();
    let filled = numbered.filter_map(|(index, line)| {
        let indent = line.len() - line.trim_start_matches(' ').len();
        let content = line.find(" #").map_or(line, |comment| &line[..comment]).trim();
        let is_filled = !content.is_empty() && !content.starts_with('#');
        is_filled.then_some(Line { number: index + 1, indent, content })
    });
    filled.collect()
}

impl Line<'_> {
    pub(super) fn start(&self) -> Position {
        Position { line: self.number, column: self.indent + 1 }
    }

    /// The text of the item, where it is one of a list.
    pub(super) fn bare(&self) -> &str {
        self.content.trim_start_matches("- ").trim_start()
    }

    /// Where [`Line::bare`] begins.
    pub(super) fn bare_start(&self) -> Position {
        let marks = self.content.chars().count() - self.bare().chars().count();
        Position { line: self.number, column: self.indent + 1 + marks }
    }
}

pub(super) fn is_name(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && word
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.'))
}
