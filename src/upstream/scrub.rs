//! A provider's error, fit for an app: the known fields, without what names the seller's account.

/// What a provider said of an error about the request itself. Empty where nothing was said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Said {
    pub message: String,
    pub kind: String,
    pub code: String,
    pub param: String,
}

/// Longest message relayed, in characters.
const LONGEST: usize = 1000;

/// The same with the account's identifiers taken out, and words where there were none.
pub fn scrubbed(said: &Said) -> Said {
    let or = |text: &str, default: &str| match clean(text) {
        empty if empty.is_empty() => default.to_owned(),
        text => text,
    };
    Said {
        message: or(&said.message, "The AI service did not accept this request."),
        kind: or(&said.kind, "invalid_request_error"),
        code: or(&said.code, "invalid_request"),
        param: clean(&said.param),
    }
}

/// Beginnings of words that name an organisation, a project, a key or a request at a provider.
const MARKS: [&str; 14] = [
    "org-",
    "org_",
    "proj-",
    "proj_",
    "sk-",
    "sk_",
    "gsk_",
    "gsk-",
    "AIza",
    "req_",
    "req-",
    "user-",
    "projects/",
    "sess-",
];

/// Replaces every word that looks like an identifier of an account.
fn clean(text: &str) -> String {
    let mut out = String::with_capacity(text.len().min(LONGEST));
    let mut rest = text;
    while let Some(start) = rest.find(is_word) {
        out.push_str(&rest[..start]);
        let end = rest[start..].find(|c| !is_word(c)).map_or(rest.len(), |end| start + end);
        let word = &rest[start..end];
        let named = MARKS.iter().any(|mark| word.contains(mark)) || is_long_token(word);
        out.push_str(if named { "[…]" } else { word });
        rest = &rest[end..];
    }
    out.push_str(rest);
    match out.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &out[..end]),
        None => out,
    }
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '-' | '_' | '/' | '*')
}

/// 20 characters or more with letters and digits mixed: a key or an id, not language.
fn is_long_token(word: &str) -> bool {
    let has = |test: fn(&char) -> bool| word.chars().any(|c| test(&c));
    word.len() >= 20
        && !word.contains('/')
        && (word.contains("***") || (has(char::is_ascii_digit) && has(char::is_ascii_alphabetic)))
        && !word.starts_with("gpt-")
        && !word.starts_with("llama-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_go_and_language_stays() {
        for (dirty, expected) in [
            ("Limit for org-Zx81qLmN0pT7vRw2 reached.", "Limit for […] reached."),
            ("Key sk-proj-****wXyZ is bad.", "Key […] is bad."),
            ("in organization `org_01kb8vqk2m` tier", "in organization `[…]` tier"),
            (
                "This model's maximum context length is 128000 tokens.",
                "This model's maximum context length is 128000 tokens.",
            ),
            ("id 9a8b7c6d5e4f30211203344556677889 ok", "id […] ok"),
            ("Größe — 128 zu groß", "Größe — 128 zu groß"),
        ] {
            assert_eq!(clean(dirty), expected);
        }
    }
}
