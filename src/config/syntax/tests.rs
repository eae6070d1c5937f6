//! Typing errors and the messages for them: each file begins with the error and contains it.

use crate::config::yaml;

/// A good file, from line 1; `edit` replaces a piece of it.
const FILE: &str = "\
server: { listen: \"127.0.0.1:8080\" }
admin: { listen: \"127.0.0.1:9090\" }
licenses:
  sources:
    - static:
        keys:
          - { key: JSTAR-DEMO-0001, plan: pro }
providers:
  groq:
    base_url: \"https://api.groq.com/openai/v1\"
    keys:
      - { id: groq-1, secret: env:GROQ_API_KEY }
models:
  fast: [groq/llama]
plans:
  pro:
    messages: 1000/month
    tokens: 2000000/month
    models: [\"*\"]
";

fn said(from: &str, to: &str) -> String {
    assert!(FILE.contains(from), "{from}");
    let text = FILE.replacen(from, to, 1);
    let problem = yaml::parse(&text, &mut Vec::new()).expect_err(&text);
    problem.to_string()
}

/// What is replaced, by what, and what is to be said.
const WANTED: &[(&str, &str, &str)] = &[
    ("    messages:", "   messages:", "17:4: indented by 3, the other fields of `pro` by 4"),
    ("    tokens:", "   tokens:", "18:4: indented by 3, the other fields of `pro` by 4"),
    ("    tokens:", "      tokens:", "18:7: indented by 6, the other fields of `pro` by 4"),
    (
        "    models: [\"*\"]",
        "     models: [\"*\"]",
        "19:6: indented by 5, the other fields of `pro` by 4",
    ),
    (
        "messages: 1000/month",
        "messages:1000/month",
        "17:5: `messages:1000/month`: a space is missing after `:`",
    ),
    ("messages: 1000/month", "messages 1000/month", "17:5: `:` is missing after `messages`"),
    ("messages: 1000", "messages:\u{a0}1000", "17:14: a no-break space (U+00A0); use a plain one"),
    ("    messages", "\t  messages", "17:1: a tab; YAML is indented with spaces"),
    ("plan: pro }", "plan: pro", "7:13: this `{` is never closed"),
    ("[groq/llama]", "[groq/llama", "14:9: this `[` is never closed"),
    (
        "{ listen: \"127.0.0.1:9090\" }",
        "{ listen: \"127.0.0.1:9090\"",
        "2:8: this `{` is never closed",
    ),
    ("openai/v1\"", "openai/v1", "10:15: this quote is never closed"),
    (
        "\"https://api.groq.com/openai/v1\"",
        "'https://api.groq.com/openai/v1",
        "10:15: this quote is never closed",
    ),
    ("[\"*\"]", "[*]", "19:14: `*` needs quotes: `[\"*\"]`"),
    ("[\"*\"]", "*", "19:13: `*` needs quotes: `[\"*\"]`"),
    (
        "[\"*\"]",
        "[*all]",
        "19:14: `*all` stands for what `&all` names; text that begins with `*` needs quotes",
    ),
    ("env:GROQ_API_KEY", "${GROQ_API_KEY}", "12:31: variables are written `env:GROQ_API_KEY`"),
    ("plan: pro }", "plan: pro ]", "7:47: `]` where the `{` of column 13 needs `}`"),
    ("plan: pro }", "plan: pro }}", "7:48: this `}` closes nothing"),
    ("plans:\n", "plans\n", "15:1: `:` is missing after `plans`"),
    ("  pro:\n", "  pro\n", "16:3: `:` is missing after `pro`"),
    (
        "messages: 1000/month",
        "messages: 1000/month tokens: 5/month",
        "17:32: a second `: ` in one line: put the value in quotes, or what follows on a line of its own",
    ),
    ("[groq/llama]", "@groq/llama", "14:9: text that begins with `@` needs quotes"),
    (
        "\"https://api.groq.com/openai/v1\"",
        "\u{201c}https://api.groq.com/openai/v1\u{201d} x: y",
        "10:15: a typographic quote (`\u{201c}`); use `\"`",
    ),
];

#[test]
fn each_typing_error_is_told_where_it_is_in_plain_words() {
    let mut wrong = Vec::new();
    for (from, to, wanted) in WANTED {
        let found = said(from, to);
        if found != *wanted {
            wrong.push(format!("{to}\n  wanted {wanted}\n  found  {found}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_secret_with_a_typing_error_is_not_repeated() {
    for to in ["secret:gsk_live0123456789abcdef", "secret gsk_live0123456789abcdef"] {
        let text = FILE.replace(
            "- { id: groq-1, secret: env:GROQ_API_KEY }",
            &format!("- id: groq-1\n        {to}\n        weight: 1"),
        );
        let Err(problem) = yaml::parse(&text, &mut Vec::new()) else { continue };
        assert!(!problem.to_string().contains("live0123"), "{problem}");
    }
}

#[test]
fn whatever_is_cut_off_is_told_without_the_parsers_words() {
    const JARGON: [&str; 9] = [
        "mapping values",
        "block",
        "flow",
        "scalar",
        "anchor",
        "while scanning",
        "while parsing",
        "did not find",
        "simple key",
    ];
    let mut told = 0;
    for end in 1..FILE.len() {
        for more in
            ["", "\"", "{", "]", "  - x", ": :", "\n\ta: 1", "*", "%a", "? b", "&", "!!x y: z"]
        {
            let text = format!("{}{more}\n{}", &FILE[..end], &FILE[end..]);
            let Err(problem) = yaml::parse(&text, &mut Vec::new()) else { continue };
            told += 1;
            let words = problem.to_string();
            assert!(!JARGON.iter().any(|word| words.contains(word)), "{words}\n{text}");
            assert!(problem.line <= text.lines().count() + 1);
        }
    }
    assert!(told > 1000, "{told}");
}
