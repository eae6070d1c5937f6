//! Prompts: an app names one and sends its variables; what is asked of which model stands here.
//!
//! [`render::render`] turns such a request into an ordinary one of the same endpoint, before anything else
//! reads it. Nothing of the app's body is carried over: the new one is written from the prompt, the values of its
//! variables and the texts of its turns.
//!
//! # Where values stand
//! The system text is a [`Template`]. A variable that may hold anything is a fixed reference in it, and its
//! value stands in a block of the user's turn whose marker is random per request: a value can neither end its
//! block nor be part of the system text, and the system text is the same bytes in each request, so that the
//! provider's prompt cache hits. Values of a closed list, and those the operator trusts, are put in as they are.

mod fixed;
pub mod history;
pub mod kept;
mod marker;
pub mod read;
pub mod render;
pub mod template;
mod value;
pub mod variables;
mod weight;
mod write;

use std::{collections::BTreeMap, sync::Arc};

use self::{history::History, kept::Kept, template::Template, variables::Variable};

/// Begins the public name of a prompt, where a model's name would stand.
pub const PREFIX: &str = "prompt/";

/// All prompts of a configuration, by name.
pub type Prompts = BTreeMap<Arc<str>, Arc<Prompt>>;

#[derive(Debug)]
pub struct Prompt {
    pub name: Arc<str>,
    /// With [`PREFIX`]: as apps may name it, and as it stands in records.
    pub public_name: Arc<str>,
    /// The public name of the model that answers.
    pub model: Arc<str>,
    pub system: Template,
    /// In the order of the file.
    pub variables: Vec<Variable>,
    /// What apps may send as messages; nothing, where there is none.
    pub history: Option<History>,
    /// A JSON number, as it is written.
    pub temperature: Option<Box<str>>,
    pub max_output_tokens: Option<u64>,
    /// The JSON schema that an answer must fit.
    pub schema: Option<AnswerSchema>,
    pub tools: Vec<PromptTool>,
    /// Made when an endpoint first needs it.
    pub kept: Kept,
}

#[derive(Debug)]
pub struct AnswerSchema {
    pub json: Box<str>,
    /// The provider holds the model to it. OpenAI takes that only for schemas without members that are not listed.
    pub is_strict: bool,
}

/// A function that the app runs when the model calls it.
#[derive(Debug)]
pub struct PromptTool {
    pub name: String,
    pub description: String,
    /// A JSON schema.
    pub parameters: Box<str>,
}

/// The name of a prompt in the place of a model's name.
pub fn named(model: &str) -> Option<&str> {
    model.strip_prefix(PREFIX)
}

#[cfg(test)]
mod tests;
