//! Which vocabulary a model cuts text with: the same text is up to six times as many tokens in one as in
//! another.

/// A family of vocabularies that the estimate has weights for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Vocabulary {
    /// OpenAI's since gpt-4o.
    O200k,
    /// OpenAI's before it. Llama 3 counts alike.
    Cl100k,
    /// Not known: the larger of the two counts holds.
    #[default]
    Unknown,
}

/// Beginnings of model names, after the part of a provider like `openai/`. The first that fits holds.
///
/// Source: the tables of the tiktoken and gpt-tokenizer packages; for Llama the model card of Llama 3,
/// whose vocabulary is cl100k's 100,000 entries and 28,000 more.
const NAMES: &[(&str, Vocabulary)] = &[
    ("gpt-4o", Vocabulary::O200k),
    ("gpt-4.1", Vocabulary::O200k),
    ("gpt-4.5", Vocabulary::O200k),
    ("gpt-4", Vocabulary::Cl100k),
    ("gpt-3.5", Vocabulary::Cl100k),
    ("gpt-35", Vocabulary::Cl100k),
    ("text-embedding-", Vocabulary::Cl100k),
    ("gpt-oss", Vocabulary::O200k),
    ("gpt-", Vocabulary::O200k),
    ("chatgpt-", Vocabulary::O200k),
    ("codex-", Vocabulary::O200k),
    ("computer-use-preview", Vocabulary::O200k),
    ("o1", Vocabulary::O200k),
    ("o3", Vocabulary::O200k),
    ("o4", Vocabulary::O200k),
    ("llama-3", Vocabulary::Cl100k),
    ("llama3", Vocabulary::Cl100k),
    ("meta-llama-3", Vocabulary::Cl100k),
];

impl Vocabulary {
    /// By the provider's name of a model.
    pub fn of_model(model: &str) -> Self {
        let name = bare(model);
        let fits = |beginning: &&(&str, Vocabulary)| starts_with(name, beginning.0);
        NAMES.iter().find(fits).map_or(Vocabulary::Unknown, |(_, vocabulary)| *vocabulary)
    }

    pub fn name(self) -> &'static str {
        match self {
            Vocabulary::O200k => "o200k",
            Vocabulary::Cl100k => "cl100k",
            Vocabulary::Unknown => "unknown",
        }
    }
}

/// A model's name without what stands before it: `openai/gpt-4o`, `ft:gpt-4o-mini:shop`.
pub(super) fn bare(model: &str) -> &str {
    let name = model.rsplit('/').next().unwrap_or(model);
    name.strip_prefix("ft:").unwrap_or(name)
}

/// Whatever the case of its letters.
pub(super) fn starts_with(name: &str, beginning: &str) -> bool {
    name.get(..beginning.len()).is_some_and(|start| start.eq_ignore_ascii_case(beginning))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_known_by_its_name() {
        for (model, vocabulary) in [
            ("gpt-4o-mini", Vocabulary::O200k),
            ("gpt-4", Vocabulary::Cl100k),
            ("gpt-4-turbo-2024-04-09", Vocabulary::Cl100k),
            ("gpt-4.1-nano", Vocabulary::O200k),
            ("gpt-5-mini", Vocabulary::O200k),
            ("openai/gpt-oss-120b", Vocabulary::O200k),
            ("ft:gpt-3.5-turbo:shop::1", Vocabulary::Cl100k),
            ("text-embedding-3-small", Vocabulary::Cl100k),
            ("o3", Vocabulary::O200k),
            ("llama-3.3-70b-versatile", Vocabulary::Cl100k),
            ("meta-llama/Meta-Llama-3-8B", Vocabulary::Cl100k),
            ("llama3:8b", Vocabulary::Cl100k),
            ("meta-llama/llama-4-scout", Vocabulary::Unknown),
            ("claude-sonnet-4-5", Vocabulary::Unknown),
            ("gemini-2.5-flash", Vocabulary::Unknown),
            ("", Vocabulary::Unknown),
        ] {
            assert_eq!(Vocabulary::of_model(model), vocabulary, "{model}");
        }
    }
}
