//! Secrets that stand where a name is expected.
//!
//! A key pasted into the wrong field is quoted by the problem that it makes ("unknown plan `gsk_...`"). On the
//! operator's terminal that helps; in the log and in `/status` it would stay.

/// How keys of providers, shops and payment services begin.
const PREFIXES: [&str; 16] = [
    "sk-",
    "sk_",
    "gsk_",
    "xai-",
    "AIza",
    "pk_",
    "rk_",
    "whsec_",
    "polar_",
    "creem_",
    "hf_",
    "r8_",
    "ghp_",
    "github_pat_",
    "pplx-",
    "csk-",
];

/// Characters of a word that could be a key.
const LONG: usize = 20;
/// Characters that stay, to recognise it by.
const SHOWN: usize = 4;

/// The text with each word that looks like a key cut to its first four characters.
pub fn mask(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(is_word) {
        out.push_str(&rest[..start]);
        let end = rest[start..].find(|c| !is_word(c)).map_or(rest.len(), |end| start + end);
        let word = &rest[start..end];
        if looks_secret(word) {
            out.extend(word.chars().take(SHOWN));
            out.push('…');
        } else {
            out.push_str(word);
        }
        rest = &rest[end..];
    }
    out.push_str(rest);
    out
}

fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '+' | '=')
}

fn looks_secret(word: &str) -> bool {
    let has_prefix = PREFIXES.iter().any(|prefix| {
        word.len() > prefix.len() + SHOWN && word.get(..prefix.len()) == Some(*prefix)
    });
    has_prefix || (word.len() >= LONG && word.bytes().any(|byte| byte.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::mask;

    #[test]
    fn keys_are_cut_and_names_stay() {
        for (text, masked) in [
            ("unknown plan `gsk_live51x`", "unknown plan `gsk_…`"),
            (
                "environment variable gsk_abcdefgh is not set",
                "environment variable gsk_… is not set",
            ),
            (
                "8:3: providers.AIzaSyA1b2c3d4.keys: unknown field",
                "8:3: providers.AIza….keys: unknown field",
            ),
            ("unknown field `Zm9vYmFyYmF6cXV4MDEyMzQ1Njc4OQ==`", "unknown field `Zm9v…`"),
            ("unknown model `llama-3.3-70b-versatile`", "unknown model `llama-3.3-70b-versatile`"),
            (
                "unknown plan `professional`; did you mean `pro`?",
                "unknown plan `professional`; did you mean `pro`?",
            ),
            (
                "sources[0].lemonsqueezy.webhook_secret: missing",
                "sources[0].lemonsqueezy.webhook_secret: missing",
            ),
        ] {
            assert_eq!(mask(text), masked);
        }
    }
}
