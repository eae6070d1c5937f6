//! What the wire formats of OpenAI, Anthropic and Gemini mean: reading a request body, estimating its input,
//! translating it, and wording errors. One folder, so that a change of a format is made in one place.

pub mod allowed_fields;
pub mod dropped;
pub mod error_body;
pub mod input_estimate;
pub mod parse_body;
pub mod redact;
pub mod translate;
