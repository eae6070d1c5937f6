//! Quotes and brackets of a text, and words that can't begin a plain value.

use super::{Position, lines::Found};

/// What a value begins after.
#[derive(Clone, Copy, PartialEq, Eq)]
enum At {
    /// A key or value may begin here.
    Start,
    /// Inside of a plain text.
    Inside,
}

pub(super) struct Lexer {
    /// Brackets that are open, with the indentation of their lines.
    open: Vec<(char, Position, usize)>,
}

impl Lexer {
    /// The first mistake up to a line; a bracket that is open there counts as one.
    pub fn run(text: &str, last: usize) -> Found {
        let mut lexer = Self { open: Vec::new() };
        let mut skipped: Option<usize> = None;
        let all: Vec<&str> = text.lines().collect();
        for (index, line) in all.iter().enumerate() {
            let indent = line.len() - line.trim_start_matches(' ').len();
            let content = line.trim();
            if content.is_empty() {
                continue;
            }
            // The lines of a block text (`|`, `>`) are as they are.
            if skipped.is_some_and(|block| indent > block) {
                continue;
            }
            skipped = None;
            if let Some((mark, place, opened)) = lexer.open.last()
                && is_field(content)
                && indent <= *opened
            {
                return Some((*place, format!("this `{mark}` is never closed")));
            }
            if index >= last && lexer.open.is_empty() {
                return None;
            }
            if let Some(found) = lexer.line(line, index + 1, indent) {
                return Some(found);
            }
            if lexer.open.is_empty() && is_block(content) {
                skipped = Some(indent);
            }
        }
        let (mark, place, _) = lexer.open.last()?;
        Some((*place, format!("this `{mark}` is never closed")))
    }

    fn line(&mut self, line: &str, number: usize, indent: usize) -> Found {
        let letters: Vec<char> = line.chars().collect();
        let place = |index: usize| Position { line: number, column: index + 1 };
        let (mut at, mut index, mut closed) = (At::Start, indent, false);
        while let Some(&letter) = letters.get(index) {
            let next = letters.get(index + 1).copied();
            let is_blank_next = next.is_none_or(char::is_whitespace);
            match letter {
                '#' if index == 0 || letters[index - 1].is_whitespace() => return None,
                ' ' | '\t' => {}
                '"' | '\'' if at == At::Start => {
                    let Some(end) = closing(&letters, index) else {
                        return Some((place(index), "this quote is never closed".into()));
                    };
                    index = end;
                    at = At::Inside;
                }
                '{' | '[' if at == At::Start => self.open.push((letter, place(index), indent)),
                '}' | ']' if !self.open.is_empty() => {
                    if let Some(found) = self.close(letter, place(index)) {
                        return Some(found);
                    }
                    (at, closed) = (At::Inside, true);
                }
                '}' | ']' if at == At::Start || closed => {
                    return Some((place(index), format!("this `{letter}` closes nothing")));
                }
                ',' if !self.open.is_empty() => at = At::Start,
                ':' if is_blank_next || (!self.open.is_empty() && next == Some(',')) => {
                    at = At::Start
                }
                '-' if at == At::Start && is_blank_next && self.open.is_empty() => {}
                _ if letters[index..].starts_with(&['$', '{']) => {
                    let in_braces = self.open.is_empty() && at == At::Inside;
                    if !in_braces {
                        return Some((place(index), variable(&letters[index + 2..])));
                    }
                }
                '*' if at == At::Start => return Some((place(index), star(&letters[index..]))),
                '@' | '`' | '%' if at == At::Start => {
                    return Some((
                        place(index),
                        format!("text that begins with `{letter}` needs quotes"),
                    ));
                }
                _ => at = At::Inside,
            }
            index += 1;
        }
        None
    }

    fn close(&mut self, letter: char, place: Position) -> Found {
        let (mark, opened, _) = self.open.pop()?;
        let wanted = if mark == '{' { '}' } else { ']' };
        (letter != wanted).then(|| {
            (
                place,
                format!(
                    "`{letter}` where the `{mark}` of column {} needs `{wanted}`",
                    opened.column
                ),
            )
        })
    }
}

/// `key:` or `key: value` of a block, or an item of a list.
fn is_field(content: &str) -> bool {
    let name = content.trim_start_matches("- ");
    let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    let end = name.find(|c: char| !word(c)).unwrap_or(name.len());
    let rest = &name[end..];
    end > 0 && (rest == ":" || rest.starts_with(": ")) && !content.ends_with([',', '}', ']'])
        || content.starts_with("- ")
        || (end > 0 && rest.starts_with(": {") || rest.starts_with(": ["))
}

fn is_block(content: &str) -> bool {
    let end = content.rsplit(' ').next().unwrap_or_default();
    matches!(end, "|" | ">" | "|-" | ">-" | "|+" | ">+")
}

/// Where a quote ends on its line.
fn closing(letters: &[char], from: usize) -> Option<usize> {
    let quote = letters[from];
    let mut index = from + 1;
    while let Some(&letter) = letters.get(index) {
        match letter {
            '\\' if quote == '"' => index += 1,
            _ if letter == quote => {
                let doubled = quote == '\'' && letters.get(index + 1) == Some(&'\'');
                if !doubled {
                    return Some(index);
                }
                index += 1;
            }
            _ => {}
        }
        index += 1;
    }
    None
}

fn variable(rest: &[char]) -> String {
    let name: String =
        rest.iter().take_while(|c| c.is_ascii_alphanumeric() || **c == '_').take(64).collect();
    format!("variables are written `env:{}`", if name.is_empty() { "NAME" } else { &name })
}

fn star(rest: &[char]) -> String {
    let name: String =
        rest.iter().skip(1).take_while(|c| c.is_ascii_alphanumeric()).take(32).collect();
    match name.is_empty() {
        true => "`*` needs quotes: `[\"*\"]`".into(),
        false => format!(
            "`*{name}` stands for what `&{name}` names; text that begins with `*` needs quotes"
        ),
    }
}
