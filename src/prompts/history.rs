//! What an app may send as messages: texts of the user and of the assistant, so many and so long.

use std::{borrow::Cow, fmt};

use gatekeeper_filters::kernel::{Rejection, json::Value};

use super::value;

/// Messages, unless the prompt sets a limit.
pub const TURNS: u64 = 50;
/// Characters of all of them together.
pub const MOST: u64 = 20_000;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    /// Its name in the file.
    pub name: String,
    pub turns: u64,
    pub max: u64,
    pub has_user: bool,
    pub has_assistant: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TurnRole {
    User,
    Assistant,
}

/// As it is shown to operators: `history (20 messages, 6000 characters)`.
impl fmt::Display for History {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = match (self.has_user, self.has_assistant) {
            (true, true) => "",
            (true, false) => " of the user",
            (false, _) => " of the assistant",
        };
        write!(f, "{} ({} messages{of}, {} characters)", self.name, self.turns, self.max)
    }
}

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn<'a> {
    pub role: TurnRole,
    pub text: Cow<'a, str>,
}

/// The turns that an app sent in the member `at`, from its element `first` on.
///
/// # Errors
/// 400 naming the member: too many, too long, another role, or anything but text.
pub fn turns<'a>(
    history: Option<&History>,
    sent: impl Iterator<Item = Value<'a>>,
    (at, first): (&str, usize),
) -> Result<Vec<Turn<'a>>, Rejection> {
    let mut turns = Vec::new();
    let mut length = 0;
    for (place, message) in sent.enumerate() {
        let at = || format!("{at}[{}]", first + place);
        let Some(history) = history else {
            return refuse(&at(), "this prompt takes variables only, no messages");
        };
        if place as u64 == history.turns {
            let message = format!("this prompt takes {} messages at most", history.turns);
            return refuse(&at(), &message);
        }
        let turn = turn(history, &message, &at)?;
        length += turn.text.chars().count() as u64;
        if length > history.max {
            let message =
                format!("this prompt takes {} characters of messages at most", history.max);
            return refuse(&at(), &message);
        }
        turns.push(turn);
    }
    Ok(turns)
}

fn turn<'a>(
    history: &History,
    message: &Value<'a>,
    at: &dyn Fn() -> String,
) -> Result<Turn<'a>, Rejection> {
    if let Some(text) = message.as_str() {
        // The input of `/v1/responses` may be one text.
        return match history.has_user {
            true => Ok(Turn { role: TurnRole::User, text }),
            false => refuse(&at(), "this prompt takes no messages of the user"),
        };
    }
    let role = message.get("role").filter(|role| !role.is_null());
    let role = match role.as_ref().and_then(Value::as_str).as_deref() {
        Some("user") if history.has_user => TurnRole::User,
        Some("assistant" | "model") if history.has_assistant => TurnRole::Assistant,
        // Gemini's contents have no role where there is but one speaker.
        None if role.is_none() && history.has_user && message.get("parts").is_some() => {
            TurnRole::User
        }
        _ => return refuse(&at(), history.roles()),
    };
    let mut text = None;
    for (name, value) in message.members() {
        match &*name.decoded() {
            "content" | "parts" => text = Some(value::text(&value).ok_or(())),
            "role" | "id" | "name" | "status" => {}
            "type" if value.as_str().is_some_and(|kind| kind == "message") => {}
            _ if value::is_nothing(&value) => {}
            name => {
                let name = Rejection::shown(name);
                return refuse(&format!("{}.{name}", at()), "a message is a role and a text");
            }
        }
    }
    match text {
        Some(Ok(text)) => Ok(Turn { role, text }),
        _ => refuse(&format!("{}.content", at()), "a message of a prompt is text only"),
    }
}

impl History {
    fn roles(&self) -> &'static str {
        match (self.has_user, self.has_assistant) {
            (true, true) => "this prompt takes messages of the user and the assistant only",
            (true, false) => "this prompt takes messages of the user only",
            (false, _) => "this prompt takes messages of the assistant only",
        }
    }
}

fn refuse<T>(at: &str, why: &str) -> Result<T, Rejection> {
    Err(Rejection::field(at, format!("\"{at}\": {why}.")))
}
