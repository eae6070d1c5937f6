//! The line of a problem, with a caret below it, for the terminal. Values of secret fields are masked.

use std::fmt::{self, Write};

use super::{
    diagnostics::{Diagnostic, in_file},
    mask::mask,
};

/// Fields whose values are secrets.
const SECRETS: [&str; 12] = [
    "secret",
    "key",
    "token",
    "read_token",
    "webhook_secret",
    "kek",
    "previous",
    "pepper",
    "password",
    "api_key",
    "apikey",
    "api-key",
];

/// Longer lines are cut.
const WIDEST: usize = 160;

pub fn is_secret(name: &str) -> bool {
    SECRETS.contains(&name)
}

/// `FILE:LINE:COLUMN: message`, the line and the caret.
///
/// # Errors
/// When `out` can't be written.
pub fn write(
    out: &mut dyn Write,
    file: &str,
    problem: &Diagnostic,
    text: Option<&str>,
) -> fmt::Result {
    writeln!(out, "{}", in_file(&file, problem))?;
    let line = text.and_then(|text| text.lines().nth(problem.line.checked_sub(1)?));
    let Some(line) = line.filter(|line| !line.trim().is_empty() && problem.column <= WIDEST) else {
        return Ok(());
    };
    let (number, line) = (problem.line.to_string(), masked(line));
    let line: String = line.chars().map(|c| if c == '\t' { ' ' } else { c }).take(WIDEST).collect();
    let (gap, before) = (" ".repeat(number.len()), " ".repeat(problem.column - 1));
    writeln!(out, "{gap} |\n{number} | {}\n{gap} | {before}^", line.trim_end())
}

/// The line with each secret as stars, so that all else stays where it is.
fn masked(line: &str) -> String {
    let mut out: Vec<char> = line.chars().collect();
    for name in SECRETS {
        let letters: Vec<char> = name.chars().collect();
        for start in 0..out.len().saturating_sub(letters.len()) {
            let is_name = out[start..].starts_with(&letters)
                && (start == 0 || matches!(out[start - 1], ' ' | '{' | ',' | '"' | '\''));
            if !is_name {
                continue;
            }
            let after = start + letters.len();
            let colon = (after..out.len()).find(|at| !matches!(out[*at], ' ' | '"' | '\''));
            let Some(colon) = colon.filter(|colon| out[*colon] == ':') else { continue };
            cover(&mut out, colon + 1);
        }
    }
    let text: String = out.iter().collect();
    let cut = mask(&text);
    if cut == text { text } else { stars(&text) }
}

/// Masks the value that begins after a colon, unless it only names the place of a secret.
fn cover(out: &mut [char], from: usize) {
    let Some(start) = (from..out.len()).find(|at| !out[*at].is_whitespace()) else { return };
    let quote = Some(out[start]).filter(|letter| matches!(letter, '"' | '\''));
    let start = start + usize::from(quote.is_some());
    let is_end = |letter: char| match quote {
        Some(quote) => letter == quote,
        None => matches!(letter, ',' | '}' | ']' | '[' | '{') || letter.is_whitespace(),
    };
    let end = (start..out.len()).find(|at| is_end(out[*at])).unwrap_or(out.len());
    let value: String = out[start..end].iter().collect();
    let is_place =
        ["env:", "file:", "sealed:", "none", "$"].iter().any(|place| value.starts_with(place));
    if !is_place {
        out[start..end].fill('*');
    }
}

/// Each word that looks like a key, wherever it stands.
fn stars(text: &str) -> String {
    let words = text.split_inclusive(|c: char| !(c.is_ascii_alphanumeric() || "-_+=".contains(c)));
    words
        .map(|word| {
            let bare =
                word.trim_end_matches(|c: char| !(c.is_ascii_alphanumeric() || "-_+=".contains(c)));
            if mask(bare) == bare {
                word.to_owned()
            } else {
                "*".repeat(bare.chars().count()) + &word[bare.len()..]
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(line: &str, column: usize) -> String {
        let problem = Diagnostic { line: 1, column, path: "a".into(), message: "wrong".into() };
        let mut out = String::new();
        write(&mut out, "f.yaml", &problem, Some(line)).unwrap();
        out
    }

    #[test]
    fn the_line_stands_above_its_caret() {
        assert_eq!(
            shown("  messages: 5", 13),
            "f.yaml:1:13: a: wrong\n  |\n1 |   messages: 5\n  |             ^\n"
        );
        assert_eq!(shown("", 1), "f.yaml:1:1: a: wrong\n");
    }

    #[test]
    fn secrets_are_covered_where_they_stand() {
        for (line, covered) in [
            ("secret: hunter2, x", "secret: *******, x"),
            ("  - { key: 'A B', plan: free }", "  - { key: '***', plan: free }"),
            ("token: env:ADMIN", "token: env:ADMIN"),
            ("plan: gsk_abcdefgh1234", "plan: *****************".trim_end_matches('x')),
            ("monkey: business", "monkey: business"),
        ] {
            let covered = if line.starts_with("plan") {
                "plan: ****************".to_owned()
            } else {
                covered.to_owned()
            };
            assert_eq!(masked(line), covered, "{line}");
        }
    }
}
