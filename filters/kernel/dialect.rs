//! The wire formats.

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dialect {
    OpenAi,
    Anthropic,
    Gemini,
}

impl Dialect {
    pub fn name(self) -> &'static str {
        match self {
            Dialect::OpenAi => "openai",
            Dialect::Anthropic => "anthropic",
            Dialect::Gemini => "gemini",
        }
    }

    /// The output cap that stands in a request where nothing else asks for one: Anthropic answers nothing
    /// without a cap.
    pub fn required_cap(self) -> Option<u64> {
        (self == Dialect::Anthropic).then_some(4096)
    }
}
