//! What a configuration file may hold: the vocabulary of the description in `file.rs`.
//!
//! One description serves the check, the defaults and the JSON schema, so they can't disagree.

use super::scalars;

#[derive(Debug)]
pub enum FieldType {
    Bool,
    Int {
        min: u64,
        max: u64,
    },
    /// Dollars per million tokens.
    TokenPrice,
    /// From 0 to 1.
    Fraction,
    /// From 0 to 2.
    Temperature,
    Text(TextFormat),
    /// One of these words.
    Choice(&'static [Variant]),
    Record(&'static [Field]),
    /// A mapping with exactly one of these fields.
    OneOf(fn() -> &'static [Field]),
    List {
        of: &'static FieldType,
        min: usize,
    },
    Map {
        key: TextFormat,
        of: &'static FieldType,
        min: usize,
    },
    /// The alternative whose YAML kind (text, list, mapping) fits.
    Either(&'static [FieldType]),
    Anything,
}

/// Kinds of text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextFormat {
    Name,
    Model,
    /// `provider/model`
    Target,
    Duration,
    Size,
    Limit,
    /// IP address and port.
    Address,
    /// `10.0.0.0/8`
    Network,
    Path,
    Link,
    /// `$9/month`
    Price,
    /// `$20`
    Dollars,
    /// `10%`
    Percent,
    BaseUrl,
    /// `sealed:v1:...`, `env:NAME`, `file:PATH`
    Secret,
    /// `env:NAME`, `file:PATH`
    Source,
    /// The same, or `none`.
    Token,
    LicenseKey,
    /// A number a shop gave to something of its own.
    ShopId,
    /// The same, or `*`.
    ShopVariant,
    /// `50/minute`
    CallLimit,
    /// `redis://HOST:PORT`, or where it is written: `env:NAME`, `file:PATH`
    RedisUrl,
    /// `openai`, `anthropic`, `gemini`, or a number of tokens.
    ImageTokens,
    Any,
}

#[derive(Debug)]
pub struct Variant {
    pub name: &'static str,
}

#[derive(Debug)]
pub struct Field {
    pub name: &'static str,
    pub shape: &'static FieldType,
    pub doc: &'static str,
    /// As it would stand in the file.
    pub default: Option<&'static str>,
    pub required: bool,
    /// Belongs to another field's variant only.
    pub with: Option<(&'static str, &'static str)>,
    /// It has no effect any more, and what to do instead: a warning for one release.
    pub removed: Option<&'static str>,
}

impl Variant {
    pub const fn new(name: &'static str) -> Self {
        Self { name }
    }
}

impl Field {
    pub const fn new(name: &'static str, shape: &'static FieldType, doc: &'static str) -> Self {
        Self { name, shape, doc, default: None, required: false, with: None, removed: None }
    }

    pub const fn or(mut self, default: &'static str) -> Self {
        self.default = Some(default);
        self
    }

    /// A field of an earlier release that is still accepted, with a warning.
    pub const fn removed(name: &'static str, instead: &'static str) -> Self {
        let mut field = Self::new(name, &FieldType::Anything, instead);
        field.removed = Some(instead);
        field
    }

    pub const fn required(mut self) -> Self {
        self.required = true;
        self
    }

    pub const fn with(mut self, field: &'static str, variant: &'static str) -> Self {
        self.with = Some((field, variant));
        self
    }
}

impl FieldType {
    /// A list or a mapping.
    pub fn is_compound(&self) -> bool {
        matches!(
            self,
            FieldType::List { .. }
                | FieldType::Record(_)
                | FieldType::OneOf(_)
                | FieldType::Map { .. }
        )
    }

    pub fn fields(&self) -> &'static [Field] {
        match self {
            FieldType::Record(fields) => fields,
            FieldType::OneOf(fields) => fields(),
            _ => &[],
        }
    }

    /// What stands there, in words: `expected ...`.
    pub fn expected(&self) -> String {
        match self {
            FieldType::Bool => "true or false".into(),
            FieldType::Int { .. } => "a whole number".into(),
            FieldType::TokenPrice | FieldType::Fraction | FieldType::Temperature => {
                "a number".into()
            }
            FieldType::Text(text) => text.expected().into(),
            FieldType::Choice(variants) => match variants {
                [only] => format!("`{}`", only.name),
                _ => {
                    let names: Vec<_> = variants.iter().map(|v| v.name).collect();
                    format!("one of {}", names.join(", "))
                }
            },
            FieldType::Record(_) | FieldType::OneOf(_) | FieldType::Map { .. } => {
                "a mapping".into()
            }
            FieldType::List { .. } => "a list".into(),
            FieldType::Either(shapes) => {
                shapes.iter().map(FieldType::expected).collect::<Vec<_>>().join(" or ")
            }
            FieldType::Anything => "a value".into(),
        }
    }
}

impl TextFormat {
    fn expected(self) -> &'static str {
        match self {
            TextFormat::Duration => "a duration like `30s`",
            TextFormat::Size => "a size like `10MiB`",
            TextFormat::Limit => "a limit like `50/month`",
            TextFormat::CallLimit => "a limit like `50/minute`",
            TextFormat::Price => "a price like `$9/month`",
            TextFormat::Dollars => "dollars like `$20`",
            TextFormat::Percent => "a share like `10%`",
            TextFormat::Address => "an address like `127.0.0.1:8080`",
            TextFormat::Secret => "`sealed:v1:...`, `env:NAME` or `file:PATH`",
            TextFormat::Source => "`env:NAME` or `file:PATH`",
            TextFormat::Token => "`env:NAME`, `file:PATH` or `none`",
            TextFormat::Target => "`provider/model`",
            TextFormat::RedisUrl => "`redis://HOST:PORT`, `env:NAME` or `file:PATH`",
            TextFormat::ImageTokens => "openai, anthropic, gemini or a number of tokens",
            _ => "text",
        }
    }

    /// # Errors
    /// What is wrong with `text`, without repeating it.
    pub fn check(self, text: &str) -> Result<(), String> {
        match self {
            TextFormat::Name => scalars::name(text),
            TextFormat::Model => scalars::model_name(text),
            TextFormat::Target => target(text),
            TextFormat::Duration => scalars::duration(text).map(drop),
            TextFormat::Size => scalars::size(text).map(drop),
            TextFormat::ImageTokens => scalars::image_tokens(text).map(drop),
            TextFormat::Limit => scalars::limit(text).map(drop),
            TextFormat::Address => text.parse::<std::net::SocketAddr>().map(drop).map_err(|_| {
                "expected an IP address and a port, like `127.0.0.1:8080` or `[::]:8080`".into()
            }),
            TextFormat::Network => text
                .parse::<ipnet::IpNet>()
                .map(drop)
                .map_err(|_| "expected a network like `10.0.0.0/8` or `fd00::/8`".into()),
            TextFormat::Link => scalars::link(text),
            TextFormat::Price => scalars::price(text).map(drop),
            TextFormat::Dollars => scalars::dollars(text).map(drop),
            TextFormat::Percent => scalars::percent(text).map(drop),
            TextFormat::CallLimit => scalars::call_limit(text).map(drop),
            TextFormat::LicenseKey => license_key(text),
            TextFormat::ShopId => shop_id(text),
            TextFormat::ShopVariant if text == "*" => Ok(()),
            TextFormat::ShopVariant => shop_id(text),
            TextFormat::Path | TextFormat::Any if text.trim().is_empty() => {
                Err("must not be empty".into())
            }
            TextFormat::Path
            | TextFormat::Any
            | TextFormat::BaseUrl
            | TextFormat::Secret
            | TextFormat::Source
            | TextFormat::Token
            | TextFormat::RedisUrl => Ok(()),
        }
    }
}

fn target(text: &str) -> Result<(), String> {
    let (provider, model) = text.split_once('/').ok_or(
        "expected `provider/model`, like `groq/llama-3.1-8b-instant`: a provider of this file and \
         its own name for the model",
    )?;
    scalars::name(provider)?;
    scalars::model_name(model)
}

fn shop_id(text: &str) -> Result<(), String> {
    match text.parse::<u64>() {
        Ok(1..) => Ok(()),
        _ => Err("expected the shop's number for it, like `588102`".into()),
    }
}

fn license_key(text: &str) -> Result<(), String> {
    let key = text.trim();
    if (8..=128).contains(&key.len()) && key.bytes().all(|b| b.is_ascii_graphic()) {
        return Ok(());
    }
    Err("a licence key is 8 to 128 printable ASCII characters, none of them a space".into())
}
