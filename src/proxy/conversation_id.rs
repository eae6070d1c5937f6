//! Which conversation a request belongs to: as the app says, or by its first messages.

use std::hash::Hasher;

use gatekeeper_filters::kernel::{
    Exchange, ModelRequest,
    json::{JsonKind, Reader, Value},
};
use rustc_hash::FxHasher;

/// A number for it within its licence; `None` where nobody cares.
pub fn of(named: Option<&str>, exchange: &Exchange, ask: &ModelRequest) -> Option<u64> {
    let license = exchange.license.as_ref()?;
    let sticky = exchange.route.as_ref().is_some_and(|route| route.model.sticky);
    if named.is_none() && !sticky {
        return None;
    }
    let mut hasher = FxHasher::default();
    hasher.write(license.id.to_hex().as_bytes());
    match named {
        Some(name) => hasher.write(name.as_bytes()),
        None => first_messages(ask, &mut hasher),
    }
    Some(hasher.finish())
}

/// What the following turns of a conversation repeat: all up to the first word of the user.
fn first_messages(ask: &ModelRequest, hasher: &mut FxHasher) {
    for name in ["instructions", "system", "systemInstruction"] {
        hasher.write(ask.members.get(name).unwrap_or_default());
    }
    for name in ["messages", "input", "contents"] {
        let Some(json) = ask.members.get(name) else { continue };
        let mut reader = Reader::lenient();
        match reader.parse(json) {
            Ok(list) if list.kind() == JsonKind::Array => {
                for message in list.items() {
                    hasher.write(message.raw());
                    if is_user(&message) {
                        break;
                    }
                }
            }
            _ => hasher.write(json),
        }
    }
}

/// Gemini's contents have no role where there is but one speaker.
fn is_user(message: &Value<'_>) -> bool {
    message.get("role").is_none_or(|role| role.as_str().is_some_and(|role| role == "user"))
}
