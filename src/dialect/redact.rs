//! A provider's error, fit for an app: the known fields, without what names the seller's account.

/// A provider's text of an error about the request itself. Empty if there was none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProviderMessage {
    pub message: String,
    pub kind: String,
    pub code: String,
    pub param: String,
    /// What a model wrote that was to be a tool call; it is the app's own answer.
    pub failed_generation: String,
}

/// Longest message relayed, in characters.
const LONGEST: usize = 1000;
/// Longest `failed_generation` relayed, in characters.
const LONGEST_GENERATION: usize = 16 * 1024;

/// The same with the account's identifiers taken out, and words where there were none.
pub fn scrubbed(said: &ProviderMessage) -> ProviderMessage {
    let or = |text: &str, default: &str| match clean(text) {
        empty if empty.is_empty() => default.to_owned(),
        text => text,
    };
    ProviderMessage {
        message: or(&said.message, "The AI service did not accept this request."),
        kind: or(&said.kind, "invalid_request_error"),
        code: or(&said.code, "invalid_request"),
        param: clean(&said.param),
        failed_generation: bounded(&said.failed_generation, LONGEST_GENERATION),
    }
}

/// Beginnings of words that name an organisation, a project, a key, a request, a payment account or a
/// fine-tuned model at a provider.
const MARKS: [&str; 16] = [
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
    "acct_",
    "xai-",
];

/// The words after which a name of something in the account follows.
const NAMED: [&str; 9] = [
    "organization",
    "organisation",
    "org",
    "project",
    "account",
    "deployment",
    "workspace",
    "team",
    "tenant",
];

const REDACTED: &str = "[…]";

/// Replaces everything that looks like an identifier or a name of the account.
fn clean(text: &str) -> String {
    let mut out = String::with_capacity(text.len().min(4 * LONGEST));
    let mut expects = Expects::Nothing;
    let mut rest = text;
    while !rest.is_empty() {
        let blank = rest.find(|c: char| !c.is_whitespace()).unwrap_or(rest.len());
        out.push_str(&rest[..blank]);
        rest = &rest[blank..];
        let quoted = quoted_name(rest).filter(|_| expects != Expects::Nothing);
        let end = match quoted {
            Some(end) => {
                out.push_str(REDACTED);
                expects = Expects::Nothing;
                end
            }
            None => {
                let end = rest.find(char::is_whitespace).unwrap_or(rest.len());
                expects = clean_chunk(&rest[..end], expects, &mut out);
                end
            }
        };
        rest = &rest[end..];
    }
    bounded(&out, LONGEST)
}

fn bounded(text: &str, longest: usize) -> String {
    match text.char_indices().nth(longest) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// What the words before make of the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expects {
    Nothing,
    /// A name, after "organization": capitalised, or with digits, hyphens or underscores.
    Name,
    /// A name whatever it looks like, after "organization:".
    AnyName,
    /// "ending" was there: "in" or "with" comes next.
    Ending,
    /// The last characters of a key, after "ending in".
    End,
}

/// Bytes of a quoted name that begins here, its quotes included.
fn quoted_name(text: &str) -> Option<usize> {
    let open = text.chars().next()?;
    let close = match open {
        '\'' | '"' | '`' => open,
        '“' => '”',
        '‘' => '’',
        _ => return None,
    };
    let inner = &text[open.len_utf8()..];
    let end = inner.find(close)?;
    Some(open.len_utf8() + end + close.len_utf8())
}

/// One piece between blanks.
fn clean_chunk(chunk: &str, expects: Expects, out: &mut String) -> Expects {
    let core = chunk.trim_matches(|c: char| !c.is_alphanumeric() && c != '*');
    let is_name = match expects {
        Expects::Name => looks_like_a_name(core),
        Expects::AnyName | Expects::End => !core.is_empty(),
        Expects::Nothing | Expects::Ending => false,
    };
    let is_address = core.split_once('@').is_some_and(|(_, host)| host.contains('.'));
    if is_name || is_address || core.starts_with("ft:") {
        let start = chunk.find(core).unwrap_or(0);
        out.push_str(&chunk[..start]);
        out.push_str(REDACTED);
        let tail = &chunk[start + core.len()..];
        out.push_str(tail);
        // "Acme Widgets GmbH": a name may have several words.
        let goes_on = is_name && expects == Expects::Name && tail.is_empty();
        return if goes_on { Expects::Name } else { Expects::Nothing };
    }
    clean_words(chunk, out);
    let word = core.to_ascii_lowercase();
    match (expects, word.as_str()) {
        (Expects::Ending, "in" | "with") => Expects::End,
        (_, "ending" | "ends") => Expects::Ending,
        // "organization ID: 7", "project named x": the name comes after that.
        (Expects::Name, "id" | "named" | "name" | "number" | "called") => Expects::AnyName,
        (_, named) if NAMED.contains(&named) => match chunk.ends_with([':', '=']) {
            true => Expects::AnyName,
            false if chunk.ends_with(core) => Expects::Name,
            false => Expects::Nothing,
        },
        _ => Expects::Nothing,
    }
}

fn looks_like_a_name(word: &str) -> bool {
    word.starts_with(char::is_uppercase) && !word.eq_ignore_ascii_case("id")
        || word.contains(|c: char| c.is_ascii_digit() || c == '-' || c == '_')
}

/// Words with a mark, masked ones, and long ones of letters and digits.
fn clean_words(chunk: &str, out: &mut String) {
    let mut rest = chunk;
    while let Some(start) = rest.find(is_word) {
        out.push_str(&rest[..start]);
        let end = rest[start..].find(|c| !is_word(c)).map_or(rest.len(), |end| start + end);
        let word = &rest[start..end];
        let named = MARKS.iter().any(|mark| word.contains(mark)) || is_token(word);
        out.push_str(if named { REDACTED } else { word });
        rest = &rest[end..];
    }
    out.push_str(rest);
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '-' | '_' | '/' | '*')
}

/// A key with its middle masked, or 20 characters and more with letters and digits mixed: a key or an id, not
/// language.
fn is_token(word: &str) -> bool {
    let has = |test: fn(&char) -> bool| word.chars().any(|c| test(&c));
    let is_masked = word.contains("***") && has(char::is_ascii_alphanumeric);
    let is_long = word.len() >= 20
        && !word.contains('/')
        && has(char::is_ascii_digit)
        && has(char::is_ascii_alphabetic)
        && !word.starts_with("gpt-")
        && !word.starts_with("llama-");
    is_masked || is_long
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_go_and_language_stays() {
        for (dirty, expected) in [
            ("Limit for org-Zx81qLmN0pT7vRw2 reached.", "Limit for […] reached."),
            ("Key sk-proj-****wXyZ is bad.", "Key […] is bad."),
            ("in organization `org_01kb8vqk2m` tier", "in organization […] tier"),
            (
                "This model's maximum context length is 128000 tokens.",
                "This model's maximum context length is 128000 tokens.",
            ),
            ("id 9a8b7c6d5e4f30211203344556677889 ok", "id […] ok"),
            ("Größe — 128 zu groß", "Größe — 128 zu groß"),
            ("Incorrect API key provided: xa***01.", "Incorrect API key provided: […]."),
        ] {
            assert_eq!(clean(dirty), expected);
        }
    }

    #[test]
    fn names_of_the_account_go() {
        for (dirty, expected) in [
            (
                "Your organization Acme Widgets GmbH (billing@acme-widgets.example, acct_1Fx9) must be \
                 verified. Project 'inkwell-prod' deployment eu-7; key ending in 9xQz",
                "Your organization […] […] […] ([…], […]) must be verified. Project […] deployment […]; \
                 key ending in […]",
            ),
            ("Model ft:gpt-4o:acme::Ab1 is gone.", "Model […] is gone."),
            ("organization: acme, tier 1", "organization: […], tier 1"),
            ("Project ID: my project", "Project ID: […] project"),
            ("project named inkwell is full", "project named […] is full"),
            ("team “Ink well” is full", "team […] is full"),
            ("key ends with `9xQz`.", "key ends with […]."),
        ] {
            assert_eq!(clean(dirty), expected, "{dirty}");
        }
    }

    #[test]
    fn sentences_about_accounts_stay_readable() {
        for text in [
            "Your organization must be verified to use the model `gpt-5`.",
            "The account is not active, please check your billing details.",
            "'messages' must contain the word 'json' in some form.",
            "Invalid value: 'tool'. Supported values are: 'system', 'assistant' and 'user'.",
            "max_tokens: 9000 > 8192, which is the maximum for claude-3-5-haiku",
            "You are ending the conversation too early.",
        ] {
            assert_eq!(clean(text), text);
        }
    }
}
