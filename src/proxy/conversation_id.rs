//! Which conversation a request belongs to: as the app says, or by its first messages.

use std::hash::Hasher;

use gatekeeper_filters::kernel::{
    ConversationDemand, Exchange, ModelRequest, Rejection,
    json::{JsonKind, Reader, Value},
};
use rustc_hash::FxHasher;

use crate::vault::KeyedHash;

/// A number for it within its licence; `None` where no filter or target uses it.
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

/// The conversation that counts a request of a plan that limits them. `said` is what the user said last, where a
/// prompt was made of it.
///
/// # Errors
/// 400 where the app does not name it.
pub fn counted(
    named: Option<&str>,
    exchange: &Exchange,
    hasher: &KeyedHash,
    (ask, said): (&ModelRequest, Option<Vec<u8>>),
) -> Result<Option<ConversationDemand>, Rejection> {
    let Some(license) = &exchange.license else { return Ok(None) };
    let Some(limits) = license.plan.conversation else { return Ok(None) };
    let Some(named) = named else { return Err(nameless()) };
    let said = limits.repeats.and_then(|_| said.or_else(|| last_of_user(ask)));
    Ok(Some(ConversationDemand {
        id: hasher.conversation(&license.id, named),
        turn: said.map(|said| hasher.turn(&license.id, &said)),
        limits,
    }))
}

pub fn nameless() -> Rejection {
    let message = "This plan has limits for each conversation, so requests must name theirs: send x-conversation-id.";
    Rejection::field("x-conversation-id", message)
}

/// The user's last turn, as it stands in the body.
fn last_of_user(ask: &ModelRequest) -> Option<Vec<u8>> {
    for name in ["messages", "input", "contents"] {
        let Some(json) = ask.members.get(name) else { continue };
        let mut reader = Reader::lenient();
        let Ok(list) = reader.parse(json) else { return Some(json.to_vec()) };
        if list.kind() != JsonKind::Array {
            return Some(json.to_vec());
        }
        let last = list.items().filter(is_user).last()?;
        let said = last.get("content").or_else(|| last.get("parts")).unwrap_or(last);
        return Some(words(&said));
    }
    None
}

/// The text of a turn, however it is written; what is no text stands as it is in the body.
fn words(said: &Value<'_>) -> Vec<u8> {
    if let Some(text) = said.as_str() {
        return text.as_bytes().to_vec();
    }
    if said.kind() != JsonKind::Array {
        return said.raw().to_vec();
    }
    let mut words = Vec::new();
    for part in said.items() {
        match part.get("text").as_ref().and_then(Value::as_str) {
            Some(text) => words.extend_from_slice(text.as_bytes()),
            None => words.extend_from_slice(part.raw()),
        }
    }
    words
}

/// Gemini's contents have no role where there is but one speaker.
fn is_user(message: &Value<'_>) -> bool {
    message.get("role").is_none_or(|role| role.as_str().is_some_and(|role| role == "user"))
}
