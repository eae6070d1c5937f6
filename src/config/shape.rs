//! What a configuration file may hold: the vocabulary of the description in `file.rs`.
//!
//! One description serves the check, the defaults and the JSON schema, so they can't disagree.

use super::values;

#[derive(Debug)]
pub enum Shape {
    Bool,
    Int {
        min: u64,
        max: u64,
    },
    /// Dollars per million tokens.
    TokenPrice,
    /// From 0 to 1.
    Fraction,
    Text(Text),
    /// One of these words.
    Choice(&'static [Variant]),
    Record(&'static [Field]),
    /// A mapping with exactly one of these fields.
    OneOf(fn() -> &'static [Field]),
    List {
        of: &'static Shape,
        min: usize,
    },
    Map {
        key: Text,
        of: &'static Shape,
        min: usize,
    },
    /// The alternative whose YAML kind (text, list, mapping) fits.
    Either(&'static [Shape]),
    Anything,
}

/// Kinds of text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Text {
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
    pub shape: &'static Shape,
    pub doc: &'static str,
    /// As it would stand in the file.
    pub default: Option<&'static str>,
    pub required: bool,
    /// Belongs to another field's variant only.
    pub with: Option<(&'static str, &'static str)>,
}

impl Variant {
    pub const fn new(name: &'static str) -> Self {
        Self { name }
    }
}

impl Field {
    pub const fn new(name: &'static str, shape: &'static Shape, doc: &'static str) -> Self {
        Self { name, shape, doc, default: None, required: false, with: None }
    }

    pub const fn or(mut self, default: &'static str) -> Self {
        self.default = Some(default);
        self
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

impl Shape {
    /// A list or a mapping.
    pub fn is_compound(&self) -> bool {
        matches!(self, Shape::List { .. } | Shape::Record(_) | Shape::OneOf(_) | Shape::Map { .. })
    }

    pub fn fields(&self) -> &'static [Field] {
        match self {
            Shape::Record(fields) => fields,
            Shape::OneOf(fields) => fields(),
            _ => &[],
        }
    }

    /// What stands there, in words: `expected ...`.
    pub fn expected(&self) -> String {
        match self {
            Shape::Bool => "true or false".into(),
            Shape::Int { .. } => "a whole number".into(),
            Shape::TokenPrice | Shape::Fraction => "a number".into(),
            Shape::Text(text) => text.expected().into(),
            Shape::Choice(variants) => match variants {
                [only] => format!("`{}`", only.name),
                _ => {
                    let names: Vec<_> = variants.iter().map(|v| v.name).collect();
                    format!("one of {}", names.join(", "))
                }
            },
            Shape::Record(_) | Shape::OneOf(_) | Shape::Map { .. } => "a mapping".into(),
            Shape::List { .. } => "a list".into(),
            Shape::Either(shapes) => {
                shapes.iter().map(Shape::expected).collect::<Vec<_>>().join(" or ")
            }
            Shape::Anything => "a value".into(),
        }
    }
}

impl Text {
    fn expected(self) -> &'static str {
        match self {
            Text::Duration => "a duration like `30s`",
            Text::Size => "a size like `10MiB`",
            Text::Limit => "a limit like `50/month`",
            Text::CallLimit => "a limit like `50/minute`",
            Text::Price => "a price like `$9/month`",
            Text::Dollars => "dollars like `$20`",
            Text::Percent => "a share like `10%`",
            Text::Address => "an address like `127.0.0.1:8080`",
            Text::Secret => "`sealed:v1:...`, `env:NAME` or `file:PATH`",
            Text::Source => "`env:NAME` or `file:PATH`",
            Text::Token => "`env:NAME`, `file:PATH` or `none`",
            Text::Target => "`provider/model`",
            Text::RedisUrl => "`redis://HOST:PORT`, `env:NAME` or `file:PATH`",
            Text::ImageTokens => "openai, anthropic, gemini or a number of tokens",
            _ => "text",
        }
    }

    /// # Errors
    /// What is wrong with `text`, without repeating it.
    pub fn check(self, text: &str) -> Result<(), String> {
        match self {
            Text::Name => values::name(text),
            Text::Model => values::model_name(text),
            Text::Target => target(text),
            Text::Duration => values::duration(text).map(drop),
            Text::Size => values::size(text).map(drop),
            Text::ImageTokens => values::image_tokens(text).map(drop),
            Text::Limit => values::limit(text).map(drop),
            Text::Address => text.parse::<std::net::SocketAddr>().map(drop).map_err(|_| {
                "expected an IP address and a port, like `127.0.0.1:8080` or `[::]:8080`".into()
            }),
            Text::Network => text
                .parse::<ipnet::IpNet>()
                .map(drop)
                .map_err(|_| "expected a network like `10.0.0.0/8` or `fd00::/8`".into()),
            Text::Link => values::link(text),
            Text::Price => values::price(text).map(drop),
            Text::Dollars => values::dollars(text).map(drop),
            Text::Percent => values::percent(text).map(drop),
            Text::CallLimit => values::call_limit(text).map(drop),
            Text::LicenseKey => license_key(text),
            Text::ShopId => shop_id(text),
            Text::ShopVariant if text == "*" => Ok(()),
            Text::ShopVariant => shop_id(text),
            Text::Path | Text::Any if text.trim().is_empty() => Err("must not be empty".into()),
            Text::Path
            | Text::Any
            | Text::BaseUrl
            | Text::Secret
            | Text::Source
            | Text::Token
            | Text::RedisUrl => Ok(()),
        }
    }
}

fn target(text: &str) -> Result<(), String> {
    let (provider, model) = text.split_once('/').ok_or(
        "expected `provider/model`, like `groq/llama-3.1-8b-instant`: a provider of this file and \
         its own name for the model",
    )?;
    values::name(provider)?;
    values::model_name(model)
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
