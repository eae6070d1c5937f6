//! One item of the configuration (a plan, a provider, a key, ...) with its settings, as they are shown.

use sha2::{Digest, Sha256};

/// Maximum number of characters shown of one value.
pub(super) const LONGEST: usize = 200;

pub(super) struct Section {
    /// `plan pro`, `provider groq: key groq-1`
    pub(super) name: String,
    /// The item it belongs to: added and removed with it.
    pub(super) part_of: Option<String>,
    /// Another line reports that it was added or removed.
    pub(super) quiet: bool,
    pub(super) settings: Vec<Setting>,
}

pub(super) struct Setting {
    pub(super) name: &'static str,
    pub(super) value: Value,
    /// It has its default.
    pub(super) is_default: bool,
}

#[derive(PartialEq)]
pub(super) enum Value {
    Shown(String),
    /// Compared by hash; never shown.
    Hidden(Option<[u8; 32]>),
}

impl Section {
    pub(super) fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), part_of: None, quiet: false, settings: Vec::new() }
    }

    pub(super) fn part_of(mut self, parent: String) -> Self {
        self.part_of = Some(parent);
        self
    }

    pub(super) fn quiet(mut self) -> Self {
        self.quiet = true;
        self
    }

    /// `default` is the value if the field is not set; empty where the file always sets it.
    pub(super) fn shows(
        mut self,
        name: &'static str,
        value: impl Into<String>,
        default: &str,
    ) -> Self {
        let value = value.into();
        let is_default = value == default;
        self.settings.push(Setting { name, value: Value::Shown(value), is_default });
        self
    }

    pub(super) fn hides(mut self, name: &'static str, bytes: Option<&[u8]>) -> Self {
        let value = Value::Hidden(bytes.map(|bytes| Sha256::digest(bytes).into()));
        self.settings.push(Setting { name, value, is_default: true });
        self
    }

    /// The settings of a new item that differ from their defaults.
    pub(super) fn summary(&self) -> String {
        let set = self.settings.iter().filter(|setting| !setting.is_default);
        let shown: Vec<String> = set
            .filter_map(|setting| match &setting.value {
                Value::Shown(value) => Some(format!("{} {}", setting.name, short(value))),
                Value::Hidden(_) => None,
            })
            .collect();
        if shown.is_empty() { String::new() } else { format!(" ({})", shown.join(", ")) }
    }
}

pub(super) fn short(text: &str) -> String {
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
