//! Requests translated to Anthropic's API, and answers translated back.

mod answers;
mod request;
