//! One thing of the configuration with its facts, as they are shown.

use sha2::{Digest, Sha256};

/// Characters of one value that are shown.
pub(super) const LONGEST: usize = 200;

/// One thing of the configuration.
pub(super) struct Section {
    /// `plan pro`, `provider groq: key groq-1`
    pub(super) name: String,
    /// The thing it is a part of: it comes and goes with it.
    pub(super) part_of: Option<String>,
    /// That it comes or goes is told elsewhere.
    pub(super) quiet: bool,
    pub(super) facts: Vec<Setting>,
}

pub(super) struct Setting {
    pub(super) name: &'static str,
    pub(super) value: Value,
    /// It is what it would be if nothing were written.
    pub(super) plain: bool,
}

#[derive(PartialEq)]
pub(super) enum Value {
    Said(String),
    /// Known by its hash alone.
    Hidden(Option<[u8; 32]>),
}

impl Section {
    pub(super) fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), part_of: None, quiet: false, facts: Vec::new() }
    }

    pub(super) fn part_of(mut self, whole: String) -> Self {
        self.part_of = Some(whole);
        self
    }

    pub(super) fn quiet(mut self) -> Self {
        self.quiet = true;
        self
    }

    /// `plain` is what is said where nothing is written; empty where something always is.
    pub(super) fn says(mut self, name: &'static str, said: impl Into<String>, plain: &str) -> Self {
        let said = said.into();
        let plain = said == plain;
        self.facts.push(Setting { name, value: Value::Said(said), plain });
        self
    }

    pub(super) fn hides(mut self, name: &'static str, bytes: Option<&[u8]>) -> Self {
        let value = Value::Hidden(bytes.map(|bytes| Sha256::digest(bytes).into()));
        self.facts.push(Setting { name, value, plain: true });
        self
    }

    /// What is worth telling of a thing that is new.
    pub(super) fn summary(&self) -> String {
        let told = self.facts.iter().filter(|fact| !fact.plain);
        let told: Vec<String> = told
            .filter_map(|fact| match &fact.value {
                Value::Said(said) => Some(format!("{} {}", fact.name, short(said))),
                Value::Hidden(_) => None,
            })
            .collect();
        if told.is_empty() { String::new() } else { format!(" ({})", told.join(", ")) }
    }
}

pub(super) fn short(text: &str) -> String {
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
