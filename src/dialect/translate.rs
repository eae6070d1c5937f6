//! An app that uses OpenAI's chat API, served by a target with Anthropic's messages API.
//!
//! Three pure functions: [`request::request`], [`answer::answer`] and, event by event,
//! [`stream::StreamTranslator`]. What both APIs have is translated; JSON that both contain (schemas,
//! arguments) is copied as written, so that the order of its members stays.
//!
//! # What has no other word
//! - Left out, because an answer without it is still an answer: `seed`, `logit_bias`, the penalties,
//!   `reasoning_effort`, `verbosity`, `prompt_cache_key`, `service_tier`, `strict` of a tool, names of
//!   speakers, `top_p` beside a `temperature` (many models take one of the two only). How to ask for
//!   thinking differs from one of Anthropic's models to the next, so no word for an effort would be right
//!   for all; an operator may let `thinking` or `output_config` through by `allow_fields`.
//! - Refused, because the app relies on it: `logprobs`, `functions`, tools and calls of other types than
//!   `function`, a JSON answer without a schema, stop sequences of blanks only, media other than text and
//!   images. A target is skipped for such a request; the app gets the refusal if no other target is left.

pub mod answer;
mod conversation;
pub mod request;
pub mod stream;
#[cfg(test)]
mod tests;
mod write;

pub use self::request::leaves_out;
use gatekeeper_filters::kernel::{Dialect, ModelRequest, Rejection, RequestMembers, Target, Usage};

use self::write::JsonWriter;

/// A request translated for targets of another dialect than the app's; made when the first such target is
/// tried, for all attempts.
#[derive(Default)]
pub struct Translation {
    made: Option<Result<RequestMembers, Box<Rejection>>>,
}

impl Translation {
    /// `None` if the target uses `dialect`, the app's.
    ///
    /// # Errors
    /// The target's dialect has no words for it.
    pub fn of(
        &mut self,
        ask: &ModelRequest,
        dialect: Dialect,
        target: &Target,
    ) -> Result<Option<&RequestMembers>, &Rejection> {
        if dialect == target.dialect {
            return Ok(None);
        }
        let made = self.made.get_or_insert_with(|| request::request(ask).map_err(Box::new));
        made.as_ref().map(Some).map_err(|reject| &**reject)
    }
}

/// Why an answer ended, in OpenAI's words.
fn finish_reason(stop_reason: Option<&str>) -> &'static str {
    match stop_reason {
        Some("max_tokens" | "model_context_window_exceeded") => "length",
        Some("tool_use") => "tool_calls",
        Some("refusal") => "content_filter",
        _ => "stop",
    }
}

/// `usage` in OpenAI's words: its input counts what was cached, as ours does.
fn write_usage(json: &mut JsonWriter, usage: &Usage) {
    json.raw(format!(
        "{{\"prompt_tokens\":{},\"completion_tokens\":{},\"total_tokens\":{},\
         \"prompt_tokens_details\":{{\"cached_tokens\":{}}},\
         \"completion_tokens_details\":{{\"reasoning_tokens\":{}}}}}",
        usage.input,
        usage.output,
        usage.total(),
        usage.cached,
        usage.reasoning,
    ));
}
