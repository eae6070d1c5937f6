//! What is probably wrong with a text that is no YAML, and where.
//!
//! A parser reports where it could not continue, which is often a line too late, and in terms of its
//! grammar. Here the text is searched for the usual mistakes: a character that only looks like a space, a
//! quote or bracket that is not closed, `*` and `${X}` in plain text, a missing colon or space, an odd
//! indentation.

use super::{
    diagnostics::{Diagnostic, Position},
    mask::mask,
};

mod indentation;
mod lexer;
mod lines;

use self::{
    lexer::Lexer,
    lines::{Found, Line, is_name, lines},
};

/// `at` is where the parser gave up.
pub fn diagnose(text: &str, at: Position) -> Diagnostic {
    let lines = lines(text, at.line);
    let (place, message) = blank(text, at.line)
        .or_else(|| Lexer::run(text, at.line))
        .or_else(|| lines.iter().rev().take(3).find_map(|line| joined(line)))
        .or_else(|| lines.iter().rev().take(3).find_map(|line| no_colon(line)))
        .or_else(|| no_dash(&lines))
        .or_else(|| indentation::odd(text, at.line))
        .or_else(|| lines.last().and_then(|line| second_colon(line)))
        .unwrap_or_else(|| {
            let message = "this can't be read: look for a missing quote, bracket, colon or space here and on the \
                           line above";
            (at, message.into())
        });
    Diagnostic::new(place, "", message)
}

/// Characters that look like a space and are none, and tabs that indent.
fn blank(text: &str, last: usize) -> Found {
    for (index, line) in text.lines().take(last).enumerate() {
        let code = line.find('#').map_or(line, |comment| &line[..comment]);
        for (column, letter) in code.chars().enumerate() {
            let place = Position { line: index + 1, column: column + 1 };
            let name = match letter {
                '\u{a0}' => "a no-break space",
                '\u{2002}'..='\u{200a}' | '\u{202f}' | '\u{3000}' => "an unusual space",
                '\u{200b}'..='\u{200d}' | '\u{feff}' if place.line > 1 || column > 0 => {
                    "an invisible character"
                }
                '\u{201c}' | '\u{201d}' | '\u{2018}' | '\u{2019}' => {
                    let message = format!("a typographic quote (`{letter}`); use `\"`");
                    return Some((place, message));
                }
                '\t' if code[..].chars().take(column).all(|before| before == ' ') => {
                    return Some((place, "a tab; YAML is indented with spaces".into()));
                }
                _ => continue,
            };
            let message = format!("{name} (U+{:04X}); use a plain one", u32::from(letter));
            return Some((place, message));
        }
    }
    None
}

/// A word that may be repeated: a value in the wrong place may be a secret.
fn is_plain(text: &str) -> bool {
    mask(text) == text
}

/// `messages:1000/month`
fn joined(line: &Line<'_>) -> Found {
    let text = line.bare();
    let (name, value) = text.split_once(':')?;
    let is_value = !value.is_empty() && !value.starts_with([' ', '/']);
    let is_source = ["env", "file", "sealed", "http", "https", "redis"].contains(&name);
    if !is_name(name) || !is_value || is_source || text.contains(": ") {
        return None;
    }
    let what = if is_plain(text) && !super::excerpt::is_secret(name) {
        format!("`{text}`: a space is missing after `:`")
    } else {
        format!("a space is missing after `{name}:`")
    };
    Some((line.bare_start(), what))
}

/// `messages 1000/month`, `plans`
fn no_colon(line: &Line<'_>) -> Found {
    let text = line.bare();
    let name = text.split_whitespace().next()?;
    let has_colon =
        text.contains(": ") || text.ends_with(':') || text.starts_with(['"', '\'', '[', '{']);
    let is_item = line.content.starts_with("- ") && name == text;
    if has_colon || is_item || !is_name(name) || !is_plain(name) {
        return None;
    }
    Some((line.bare_start(), format!("`:` is missing after `{name}`")))
}

/// An item in brackets below one that has its `- `.
fn no_dash(lines: &[Line<'_>]) -> Found {
    lines.windows(2).rev().take(3).find_map(|pair| {
        let [item, line] = pair else { return None };
        let is_beside = item.content.starts_with("- ") && item.indent == line.indent;
        (is_beside && line.content.starts_with(['{', '[']))
            .then(|| (line.start(), "`- ` is missing before this item of the list".to_owned()))
    })
}

/// `note: one: two`
fn second_colon(line: &Line<'_>) -> Found {
    let text = line.bare();
    let first = text.find(": ")?;
    let second = first + 2 + text[first + 2..].find(": ")?;
    if text[..second].contains(['"', '\'', '{', '[']) {
        return None;
    }
    let start = line.bare_start();
    let column = start.column + text[..second].chars().count();
    let message =
        "a second `: ` in one line: put the value in quotes, or what follows on a line of its own";
    Some((Position { line: start.line, column }, message.into()))
}

#[cfg(test)]
mod tests;
