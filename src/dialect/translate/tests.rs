//! What an app says comes to Anthropic, and what Anthropic says to the app.

mod answers;
mod request;
