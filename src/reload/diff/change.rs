//! A difference between two configurations.

/// A part of the configuration file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConfigPart {
    Server,
    Admin,
    Vault,
    Store,
    /// Shops and the cache; without the keys listed in the file.
    Licenses,
    /// The keys of `static` sources.
    ListedKeys,
    Plans,
    Providers,
    Models,
    Prompts,
    Prices,
    Budget,
    Filters,
    Log,
}

/// One item that differs, with its line for the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigChange {
    pub part: ConfigPart,
    pub line: String,
}
