//! What the meter reads in an answer; every filter sees it.

use super::{Estimate, Usage};

/// What one event of a stream, or one whole JSON answer, contains.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reading {
    /// The provider's count, where this event carries one.
    pub usage: Option<Usage>,
    /// The provider's count of the input alone: its output is not counted yet.
    pub input: Option<Usage>,
    /// The provider's count of input and output together, where it reports nothing else.
    pub total: Option<u64>,
    /// Output text in this event, by estimate. A whole answer's need not be
    /// weighed beside a count of the provider's.
    pub output_millitokens: Estimate,
    /// Carries output: text, a tool call, reasoning, a refusal or a finish. The commit point.
    pub commits: bool,
    /// What it carries, finishes aside.
    pub output: Output,
    /// The answer is marked as complete (a finish reason, `response.completed`, or the like).
    pub finished: bool,
    /// How, where it is finished.
    pub ending: StreamEnd,
    /// The end marker (`[DONE]`).
    pub done: bool,
    /// Carries nothing but usage: taken out again for an app that did not ask for it.
    pub usage_only: bool,
    /// The provider reports an error inside a 200.
    pub failed: bool,
    /// An event whose data no JSON parser takes: every SDK would stumble over it.
    pub malformed: bool,
}

/// What an event carries for a reader of the answer; the greater outweighs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Output {
    #[default]
    None,
    /// Reasoning: the answer itself is still to come.
    Reasoning,
    /// Text, a tool call, a refusal, a picture, a vector.
    Answer,
}

/// How an answer marks its end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum StreamEnd {
    /// Cut short, refused, blocked, for a tool, or with a reason that is not known.
    #[default]
    Other,
    /// The model had finished.
    Natural,
    /// The model tried to call a tool, and its call could not be read (Gemini's `MALFORMED_FUNCTION_CALL`).
    MalformedCall,
}

impl StreamEnd {
    /// By the word for it, of any dialect.
    pub fn of(reason: &[u8]) -> Self {
        const MALFORMED: &[u8] = b"MALFORMED_FUNCTION_CALL";
        match reason {
            b"stop" | b"STOP" | b"end_turn" => StreamEnd::Natural,
            // Gemini's compatible endpoint has words before it.
            _ if reason.to_ascii_uppercase().ends_with(MALFORMED) => StreamEnd::MalformedCall,
            _ => StreamEnd::Other,
        }
    }

    /// Whether an answer that ends so without any output, and for which the provider counted `output` tokens,
    /// is none: to ask once more costs the app nothing, and mostly helps.
    pub fn is_hollow(self, output: Option<u64>) -> bool {
        match self {
            StreamEnd::Natural => output == Some(0),
            StreamEnd::MalformedCall => true,
            StreamEnd::Other => false,
        }
    }
}

impl Reading {
    /// Whether a whole answer holds none.
    pub fn is_hollow(&self) -> bool {
        let counted = self.usage.map(|usage| usage.output);
        self.finished && self.output == Output::None && self.ending.is_hollow(counted)
    }

    /// Something of an answer: what a provider counted, or output.
    pub fn counts(&self) -> bool {
        let counted = self.usage.is_some() || self.input.is_some() || self.total.is_some();
        counted || self.output != Output::None
    }
}
