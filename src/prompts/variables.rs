//! What a prompt takes: variables by name, and whether a value fits.

use std::fmt;

use gatekeeper_filters::kernel::{
    Rejection,
    json::{JsonKind, Value},
};

/// Maximum characters of a value, unless its variable sets another.
pub const MOST: u64 = 4000;

#[derive(Debug)]
pub struct Variable {
    pub name: String,
    pub kind: VariableKind,
    pub is_required: bool,
}

#[derive(Debug)]
pub enum VariableKind {
    /// Anything, of so many characters: a reference in the system text, the value in the user's turn.
    Data { max: u64 },
    /// The same, put into the system text as it is.
    Trusted { max: u64 },
    /// One of a list, put into the system text as it is; the first where none is sent.
    OneOf(Vec<String>),
}

/// As it is shown to operators: `shop (required, 2000 characters)`.
impl fmt::Display for Variable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let required = if self.is_required { "required, " } else { "" };
        let name = &self.name;
        match &self.kind {
            VariableKind::Data { max } => write!(f, "{name} ({required}{max} characters)"),
            VariableKind::Trusted { max } => {
                write!(f, "{name} ({required}trusted, {max} characters)")
            }
            VariableKind::OneOf(words) => write!(f, "{name} ({required}{})", words.join(" | ")),
        }
    }
}

impl Variable {
    /// Whether the system text holds its value.
    pub fn is_literal(&self) -> bool {
        !matches!(self.kind, VariableKind::Data { .. })
    }

    fn check(&self, text: &str, field: &dyn Fn() -> String) -> Result<(), Rejection> {
        let most = match &self.kind {
            VariableKind::OneOf(words) => {
                if words.iter().any(|word| word == text) {
                    return Ok(());
                }
                let field = field();
                let message = format!("\"{field}\" must be one of {}.", words.join(", "));
                return Err(Rejection::field(&field, message));
            }
            VariableKind::Data { max } | VariableKind::Trusted { max } => *max,
        };
        // A character is a byte at least: most texts need no count.
        if text.len() as u64 > most {
            let length = text.chars().count() as u64;
            if length > most {
                let field = field();
                let message = format!("\"{field}\" has {length} characters; {most} are allowed.");
                return Err(Rejection::field(&field, message));
            }
        }
        Ok(())
    }

    fn absent(&self) -> Option<String> {
        match &self.kind {
            VariableKind::OneOf(words) => words.first().cloned(),
            VariableKind::Data { .. } | VariableKind::Trusted { .. } => None,
        }
    }
}

/// The values of a prompt's variables, in its order; `None` for those that were not sent. `at` is where the
/// app's variables stand, for refusals.
///
/// # Errors
/// 400 naming the variable.
pub fn values(
    (prompt, variables): (&str, &[Variable]),
    sent: Option<&Value<'_>>,
    at: &str,
) -> Result<Vec<Option<String>>, Rejection> {
    let mut values: Vec<Option<String>> = vec![None; variables.len()];
    let sent = sent.filter(|sent| !sent.is_null());
    if sent.is_some_and(|sent| sent.kind() != JsonKind::Object) {
        return Err(Rejection::field(at, format!("\"{at}\" must be an object of strings.")));
    }
    for (name, value) in sent.iter().flat_map(|sent| sent.members()) {
        let name = name.decoded();
        let field = || format!("{at}.{}", Rejection::shown(&name));
        let Some(place) = variables.iter().position(|known| known.name == *name) else {
            let field = field();
            return Err(Rejection::field(&field, unknown(prompt, variables, &field)));
        };
        if value.is_null() {
            continue;
        }
        let Some(text) = value.as_str() else {
            let field = field();
            return Err(Rejection::field(&field, format!("\"{field}\" must be a string.")));
        };
        variables[place].check(&text, &field)?;
        values[place] = Some(text.into_owned());
    }
    for (variable, value) in variables.iter().zip(&mut values) {
        if value.is_none() && variable.is_required {
            let field = format!("{at}.{}", variable.name);
            return Err(Rejection::field(&field, format!("\"{field}\" is missing.")));
        }
        if value.is_none() {
            *value = variable.absent();
        }
    }
    Ok(values)
}

fn unknown(prompt: &str, variables: &[Variable], field: &str) -> String {
    let known: Vec<&str> = variables.iter().map(|variable| &*variable.name).collect();
    let known = if known.is_empty() { "none".into() } else { known.join(", ") };
    format!("\"{field}\" is no variable of the prompt \"{prompt}\", which has {known}.")
}
