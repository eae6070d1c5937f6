//! A channel of the store, and what is done with its messages.

pub(super) const BEATS: &str = "gk:beats";

/// What is done with a message: of which boot, and what it says.
type MessageHandler = dyn Fn(&str, &str) + Send + Sync;

/// What is done with the messages of a channel; those of this gateway are not among them.
pub struct Subscriber {
    pub channel: &'static str,
    pub heard: Box<MessageHandler>,
}
