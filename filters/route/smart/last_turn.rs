//! The last turn of a conversation that is too long to be read as a whole.
//!
//! The text is JSON that was checked before. From its end backwards it is clear what is inside a
//! string: a quote that no backslash hides begins or ends one. So the work is that of finding quotes,
//! and an image in base64 is passed over at the speed of memory.

use memchr::memrchr;

use super::features::READ;
use crate::kernel::json::Reader;

/// Strings looked at.
const STRINGS: usize = 256;
/// A string longer than this is cut before its escapes are resolved.
const ESCAPED: usize = 4 * READ;

/// Joined texts of the last turn; `None` when its end holds none.
pub fn last_turn(raw: &[u8]) -> Option<String> {
    let mut texts: Vec<String> = Vec::new();
    let mut length = 0;
    let mut strings = Strings { raw, end: raw.len(), quotes: 0 };
    let mut value = None;
    for string in strings.by_ref().take(STRINGS) {
        let content = &raw[string.clone()];
        if !is_name(&raw[string.end + 1..]) {
            value = Some(content);
            continue;
        }
        match (content, value.take()) {
            (b"text" | b"content", Some(text)) => {
                let text = decode(text);
                length += text.len();
                texts.push(text);
            }
            (b"role", _) if !texts.is_empty() => break,
            _ => {}
        }
        if length >= READ {
            break;
        }
    }
    // The whole may be one string.
    texts.extend(value.filter(|_| raw.starts_with(b"\"")).map(decode));
    texts.reverse();
    (!texts.is_empty()).then(|| texts.join("\n"))
}

/// Whether a string is a member's name, by what follows it.
fn is_name(after: &[u8]) -> bool {
    after.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b':')
}

/// Both ends of a string, without escapes.
fn decode(string: &[u8]) -> String {
    if string.len() <= ESCAPED {
        let quoted = [b"\"", string, b"\""].concat();
        let text = Reader::lenient().parse(&quoted).ok().and_then(|v| v.as_str().map(Into::into));
        return text.unwrap_or_default();
    }
    let ends = [&string[..READ], &string[string.len() - READ..]].map(String::from_utf8_lossy);
    ends.join(" ").replace("\\n", "\n").replace('\\', "")
}

/// Strings of a JSON text, the last one first, without their quotes.
struct Strings<'a> {
    raw: &'a [u8],
    /// What is before this is still to be looked at.
    end: usize,
    quotes: usize,
}

/// Quotes looked at, hidden ones included.
const QUOTES: usize = 4096;

impl Strings<'_> {
    /// The last quote before `end` that is not hidden.
    fn quote(&mut self) -> Option<usize> {
        while self.quotes < QUOTES {
            self.quotes += 1;
            let at = memrchr(b'"', &self.raw[..self.end])?;
            let hiding = self.raw[..at].iter().rev().take_while(|byte| **byte == b'\\').count();
            self.end = at;
            if hiding % 2 == 0 {
                return Some(at);
            }
        }
        None
    }
}

impl Iterator for Strings<'_> {
    type Item = std::ops::Range<usize>;

    fn next(&mut self) -> Option<Self::Item> {
        let end = self.quote()?;
        let begin = self.quote()?;
        Some(begin + 1..end)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn last(json: &str) -> Option<String> {
        last_turn(json.as_bytes())
    }

    #[test]
    fn the_last_turn_is_what_the_last_role_said() {
        let turns = r#"[{"role":"user","content":"no"},{"role":"user","content":"a \\\"b\" \\"}]"#;
        assert_eq!(last(turns).as_deref(), Some("a \\\"b\" \\"));
        assert_eq!(last(r#"[{"parts":[{"text" : "one"},{"text":"two"}]}]"#).unwrap(), "one\ntwo");
        assert_eq!(last(r#""a\nb""#).as_deref(), Some("a\nb"));
        assert_eq!(last("[]"), None);
        assert_eq!(last(r#"[{"role":"user"}]"#), None);
    }

    #[test]
    fn the_work_is_bounded() {
        let quotes = "\\\"".repeat(1 << 20);
        assert_eq!(last(&format!(r#"[{{"role":"user","content":"{quotes}"}}]"#)), None);
        let long = "wort ".repeat(1 << 18);
        let text = last(&format!(r#"[{{"role":"user","content":"{long}"}}]"#)).unwrap();
        assert_eq!(text.len(), 2 * READ + 1);
    }

    proptest! {
        #[test]
        fn whatever_a_text_holds_it_is_found_again(text in "[\\PC\"\\\\\n]{1,60}", pad in "[\"\\\\ä]{0,9}") {
            let json = serde_json::json!([
                { "role": "user", "content": pad },
                { "role": "user", "content": [{ "type": "text", "text": text }] },
            ]);
            prop_assert_eq!(last(&json.to_string()), Some(text));
        }

        #[test]
        fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            last_turn(&bytes);
            last_turn(&[b"\"", &bytes[..], b"\":\""].concat());
        }
    }
}
