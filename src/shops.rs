//! Shops as sources of licences. A shop is one file that implements [`Shop`], and one line of [`ALL`].
//!
//! Nothing here opens a connection: a shop defines its requests and the meaning of its answers, as pure
//! functions of bytes. `licenses` sends them, with its cache, its call budget and its outage rules, the
//! same for all.

mod creem;
mod dodo;
mod freemius;
mod gumroad;
mod http;
pub mod issued;
mod keygen;
mod lemonsqueezy;
pub mod license;
mod payhip;
mod polar;
pub mod signature;
pub mod signed;
pub mod source;
pub mod stripe;
pub mod wire;

use std::{fmt, sync::Arc};

use gatekeeper_filters::kernel::{LicenseId, UnixMs};
use serde_json::Value;

pub use self::{
    license::{LicenseVerdict, ShopError, ShopLicense, ShopReply, Status},
    source::{Asked, Role, ShopSource, Variants, YamlField},
    wire::{Body, ShopRequest, ShopResponse},
};
use crate::vault::KeyedHash;

/// Every shop that a source can be, in the order in which the description of the configuration lists them.
pub static ALL: &[&dyn Shop] = &[
    &lemonsqueezy::LemonSqueezy,
    &gumroad::Gumroad,
    &polar::Polar,
    &creem::Creem,
    &dodo::Dodo,
    &keygen::Keygen,
    &freemius::Freemius,
    &payhip::Payhip,
    &http::Http,
];

/// The shop of a name, as it stands in the configuration and in stored records.
pub fn by_name(name: &str) -> Option<&'static dyn Shop> {
    ALL.iter().copied().find(|shop| shop.name() == name)
}

/// Longest key that is asked about, in bytes.
const LONGEST_KEY: usize = 256;

/// What of a shop never changes. The default is a server without a test mode, below `/v1`.
#[derive(Debug)]
pub struct ShopConstants {
    /// Metric label, field of the YAML, last part of the webhook's address.
    pub name: &'static str,
    /// The label of its webhooks in metrics and logs.
    pub endpoint: &'static str,
    /// What buyers know it by.
    pub title: &'static str,
    /// One line for the description of the configuration.
    pub doc: &'static str,
    /// Base URL of its API. `None`: set in the configuration (`url`).
    pub base: Option<&'static str>,
    /// Where its test mode is, for shops that keep that at another address.
    pub sandbox: Option<&'static str>,
    /// The path its API begins with: it belongs to the requests here, so a `base_url` that ends in it is
    /// taken without.
    pub version: &'static str,
    /// Its own members in the YAML; those that all shops have come beside them.
    pub fields: &'static [YamlField],
    /// The shape of its keys in words, for `explain`.
    pub shape: &'static str,
    /// Whether a made-up key shows, at the start, that the source is configured wrongly.
    pub is_probed: bool,
    /// Whether a question by the id of a licence shows if our own credential is right, and one by key does not.
    pub checks_by_id: bool,
    /// Whether its answers name the licence by an id of the shop's own, kept among the references.
    pub names_licenses: bool,
}

/// One line of a shop's file: its name, and what comes of it.
macro_rules! named {
    ($name:literal) => {
        $crate::shops::ShopConstants {
            name: $name,
            endpoint: concat!("webhook_", $name),
            title: "the seller",
            doc: "",
            base: None,
            sandbox: None,
            version: "/v1",
            fields: &[],
            shape: "",
            is_probed: false,
            checks_by_id: false,
            names_licenses: false,
        }
    };
}
pub(crate) use named;

/// What one shop is: the shape of its keys, what to ask, and what its answers and webhooks mean.
pub trait Shop: Sync {
    fn constants(&self) -> &'static ShopConstants;

    fn name(&self) -> &'static str {
        self.constants().name
    }

    fn fields(&self) -> &'static [YamlField] {
        self.constants().fields
    }

    /// Whether a key could be one of this shop's.
    fn has_shape(&self, key: &str) -> bool;

    /// What must be asked about one by one, such as products; most shops are asked once.
    fn subjects(&self, _source: &ShopSource) -> Vec<Arc<str>> {
        vec!["".into()]
    }

    /// One call about a key. `None`: it can be asked about only together with a device that was activated.
    fn request(&self, source: &ShopSource, asked: &Asked<'_>) -> Option<ShopRequest>;

    /// Reads the answer to that call.
    fn read(
        &self,
        source: &ShopSource,
        asked: &Asked<'_>,
        response: &ShopResponse,
        hash: &KeyedHash,
    ) -> ShopReply;

    /// What a licence means for a source of the configuration at `now`.
    fn judge(&self, license: &ShopLicense, source: &ShopSource, now: UnixMs) -> LicenseVerdict {
        license::judge(license, source, now)
    }

    /// How its list of devices is asked, where it has one.
    fn instances(&self) -> Option<&dyn Instances> {
        None
    }

    /// How its webhooks are signed and read.
    fn webhook(&self) -> Option<&dyn Webhook> {
        None
    }

    /// How many calls a minute it is asked at most, a sixth below what it documents. Where a shop documents no limit,
    /// what Lemon Squeezy's is: 60 a minute for one address.
    fn calls_per_minute(&self, _source: &ShopSource) -> usize {
        50
    }

    /// Most calls in so many milliseconds, where the shop documents a limit shorter than a minute.
    fn burst(&self, _source: &ShopSource) -> Option<(usize, u64)> {
        None
    }

    /// How a licence is stored. Must stay readable for newer versions.
    fn store(&self, license: &ShopLicense) -> Option<Value> {
        license::to_common(license)
    }

    /// What [`Shop::store`] wrote, by this version or an older one.
    fn restore(&self, stored: Value) -> Option<ShopLicense> {
        license::from_common(self.name(), stored)
    }
}

impl fmt::Debug for dyn Shop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl PartialEq for dyn Shop {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Eq for dyn Shop {}

/// What is asked about a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InstanceCall<'a> {
    /// Whether the instance of this id belongs to the licence.
    Validate(&'a str),
    /// A place for a device of this name.
    Activate(&'a str),
    /// The place of the instance of this id is free again.
    Deactivate(&'a str),
}

/// What a device call brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstanceReply {
    /// What it means for the licence.
    pub reply: ShopReply,
    pub instance: Instance,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Instance {
    /// The new instance's id, or the one asked about: it belongs to the licence.
    Is(String),
    /// The licence is known, the device is not.
    IsNot,
    /// As many devices as the licence allows are active.
    Full,
    /// It gave its place back.
    Released,
    Unsaid,
}

/// A shop's own list of devices.
pub trait Instances: Sync {
    /// `None`: the shop has no such call; where it should answer yes, so does the gateway.
    fn request(
        &self,
        source: &ShopSource,
        asked: &Asked<'_>,
        call: InstanceCall<'_>,
    ) -> Option<ShopRequest>;

    fn read(
        &self,
        source: &ShopSource,
        asked: &Asked<'_>,
        call: InstanceCall<'_>,
        response: &ShopResponse,
        hash: &KeyedHash,
    ) -> InstanceReply;

    /// Nothing can be asked about a key before a device was activated: plans must require devices.
    fn comes_first(&self, _source: &ShopSource) -> bool {
        false
    }
}

/// How a webhook proves that it comes from the shop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// Hex HMAC-SHA256 of the body, in this header.
    Hex(&'static str),
    /// Standard Webhooks: `webhook-id`, `webhook-timestamp`, `webhook-signature`.
    Standard,
    /// An HTTP signature with an Ed25519 key, in this header; the secret is the public key, in hex.
    Ed25519(&'static str),
    /// Not at all: the last part of the address is the secret.
    Path,
}

/// What an event is about.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WebhookEvent {
    pub subjects: Vec<WebhookSubject>,
    /// Of the licence key, where the event names one: its refusal may be out of date.
    pub spelling: Option<LicenseId>,
    /// The full price was refunded, which the shop's licence answers do not show.
    pub refund: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WebhookSubject {
    License(LicenseId),
    /// An order, a customer or the shop's own id of a licence, hashed.
    Reference(String),
}

/// A shop's webhooks.
pub trait Webhook: Sync {
    fn scheme(&self) -> Scheme;

    /// `None` for what is not about this source.
    fn read(
        &self,
        body: &[u8],
        source: &ShopSource,
        hash: &KeyedHash,
    ) -> Result<Option<WebhookEvent>, Unreadable>;
}

/// Signed, and not what the shop documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unreadable;

/// Groups of hex digits of these lengths, with hyphens between them.
fn is_hex_groups(key: &str, groups: &[usize]) -> bool {
    let mut found = key.split('-');
    let fits = groups.iter().all(|length| {
        found.next().is_some_and(|group| {
            group.len() == *length && group.bytes().all(|byte| byte.is_ascii_hexdigit())
        })
    });
    fits && found.next().is_none()
}

/// A UUID, as Lemon Squeezy and Polar make keys.
fn is_uuid(key: &str) -> bool {
    is_hex_groups(key, &[8, 4, 4, 4, 12])
}

/// What any shop without a shape of its own could have made.
fn is_plain(key: &str) -> bool {
    (8..=LONGEST_KEY).contains(&key.len()) && key.bytes().all(|byte| byte.is_ascii_graphic())
}

#[cfg(test)]
pub(crate) mod tests;
