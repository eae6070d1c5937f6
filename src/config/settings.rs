//! The compiled configuration: plain values, names resolved, defaults filled in, secrets opened.
//!
//! Built by `compile`, never changed after. What runs on top of it (chain, key pools) is made in
//! `snapshot`.

use std::{fmt, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use gatekeeper_filters::kernel::{
    Dialect, Endpoint, FilterUse, ImageTokens, ModelTimeouts, Models, Plan,
};
use ipnet::IpNet;
use secrecy::SecretString;

use super::source_files::SourceFiles;
use crate::{
    logging::Levels,
    prompts::Prompts,
    shops::{ShopSource, issued::IssuedSource, signed::SignedSource},
    tls::Certificate,
    vault::VaultKeys,
};

#[derive(Debug, Clone)]
pub struct Settings {
    pub server: ServerSettings,
    pub admin: AdminSettings,
    pub vault: Option<VaultKeys>,
    pub store: StoreSettings,
    pub licenses: LicenseSettings,
    pub plans: Vec<Arc<Plan>>,
    /// In YAML order; `Target::provider` is an index into this list.
    pub providers: Vec<ProviderSettings>,
    pub models: Arc<Models>,
    pub prompts: Arc<Prompts>,
    /// Picodollars a day for all providers together.
    pub budget: Option<u64>,
    /// Hundredths of a percent of a day's budget that one licence may waste.
    pub waste_per_licence: u64,
    /// Prices of the plans that state one.
    pub plan_prices: Vec<PlanPrice>,
    pub filters: Vec<FilterUse>,
    /// Line of each filter in the file, and of the `filters` list itself; for problems.
    pub filter_lines: Vec<usize>,
    pub log: LogSettings,
    /// What all this was read from.
    pub files: SourceFiles,
}

/// A plan's `price`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlanPrice {
    pub plan: Arc<str>,
    /// Picodollars; of a yearly price, a twelfth.
    pub month: u64,
}

#[derive(Debug, Clone)]
pub struct ServerSettings {
    pub listen: SocketAddr,
    pub threads: usize,
    /// How long streams may go on after SIGTERM.
    pub grace: Duration,
    pub tls: Option<Tls>,
    pub behind_tls: bool,
    pub trusted_proxies: Vec<IpNet>,
    pub limits: ServerLimits,
}

impl ServerSettings {
    /// Whether clients can be distinguished by address.
    pub fn limits_by_address(&self) -> bool {
        !self.behind_tls || !self.trusted_proxies.is_empty()
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    pub cert: PathBuf,
    pub key: PathBuf,
    /// What they hold; `None` where they need not be on this machine and are not.
    pub pair: Option<Certificate>,
}

#[derive(Debug, Clone, Copy)]
pub struct ServerLimits {
    /// Bytes of one request body; exactly this many pass. Default 10 MiB.
    pub body: u64,
    /// From the first byte of a request to the end of its headers. Default 10 s.
    pub header_timeout: Duration,
    /// Bytes of memory that requests and answers may hold in total; default: an eighth of the memory, 256
    /// MiB at most.
    pub buffered: Option<u64>,
    /// Requests to providers open at the same time; default: what half of the memory carries.
    pub requests: Option<u64>,
    /// Of one address, while less than half of the room is free; default: a quarter of the room.
    pub connections_per_address: Option<usize>,
}

#[derive(Debug, Clone)]
pub struct AdminSettings {
    pub listen: SocketAddr,
    /// Required off loopback.
    pub token: Option<SecretString>,
    /// Opens what GET shows and nothing else.
    pub read_token: Option<SecretString>,
    pub tls: Option<Tls>,
    /// A proxy in front of the listener terminates TLS, or the network is private.
    pub behind_tls: bool,
    /// `token: none`: that there is none is meant.
    pub no_token: bool,
    /// Host names, beside loopback and the listen address, that `Host` may carry.
    pub hosts: Vec<String>,
}

#[derive(Debug, Clone)]
pub struct StoreSettings {
    /// This gateway's own database file.
    pub path: PathBuf,
    /// The store that gateways share, if there is one.
    pub redis: Option<RedisSettings>,
    /// How long usage records are kept. Default 90 days.
    pub keep: Duration,
}

#[derive(Debug, Clone)]
pub struct RedisSettings {
    /// It may hold a password.
    pub url: SecretString,
    pub on_store_down: OnStoreDown,
    /// Accept a server that evicts keys or does not persist them.
    pub unsafe_eviction: bool,
}

/// What happens to requests while the shared store is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnStoreDown {
    /// A licence that was seen lately may spend a little, once a period.
    Lease,
    /// None is served.
    Closed,
}

#[derive(Debug, Clone)]
pub struct LicenseSettings {
    pub cache: LicenseCacheSettings,
    pub buy_url: Option<Arc<str>>,
    /// Sources in YAML order.
    pub sources: Vec<LicenseSource>,
}

/// How long a shop's word is good.
#[derive(Debug, Clone, Copy)]
pub struct LicenseCacheSettings {
    /// Taken as it is. Default 24 h.
    pub fresh: Duration,
    /// After that, served while the shop is asked again. Default 72 h.
    pub stale: Duration,
    /// How long a refusal is cached the first time. Default 60 s.
    pub negative: Duration,
}

#[derive(Debug, Clone)]
pub enum LicenseSource {
    Static(Vec<StaticKey>),
    Shop(Arc<ShopAccount>),
    Signed(Arc<SignedSource>),
    Issued(Arc<IssuedAccount>),
}

/// Licences of our own.
#[derive(Debug, Clone)]
pub struct IssuedAccount {
    pub source: Arc<IssuedSource>,
    /// Where Stripe is, if it takes the money.
    pub stripe_base: Option<BaseUrl>,
}

/// One account at a shop.
#[derive(Debug, Clone)]
pub struct ShopAccount {
    pub base: BaseUrl,
    /// Maximum number of calls in this many milliseconds, if configured.
    pub budget: Option<(usize, u64)>,
    pub source: ShopSource,
}

#[derive(Debug, Clone)]
pub struct StaticKey {
    pub key: SecretString,
    pub plan: Arc<Plan>,
}

#[derive(Debug, Clone)]
pub struct ProviderSettings {
    pub name: Arc<str>,
    pub base: BaseUrl,
    pub dialect: Dialect,
    pub strategy: Strategy,
    pub timeouts: Timeouts,
    /// Request members let through beside the listed ones.
    pub allow_fields: Vec<Arc<str>>,
    /// The member that carries an injected output cap; default `max_completion_tokens`.
    pub output_cap_field: Arc<str>,
    /// Each request carries the licence's hash in the provider's field for its users.
    pub identify: bool,
    /// How images count; default: the dialect's rule.
    pub image_tokens: Option<ImageSetting>,
    /// Picodollars a day.
    pub budget: Option<u64>,
    pub keys: Vec<KeySettings>,
}

/// Hosts that refuse a request with a member `user`, which OpenAI's API has had from the beginning.
const WITHOUT_USER: [&str; 2] = ["api.mistral.ai", "generativelanguage.googleapis.com"];

impl ProviderSettings {
    /// The field of a request that identifies the end user: at OpenAI `safety_identifier` has replaced
    /// `user` (<https://platform.openai.com/docs/api-reference/chat/create>), other providers of its
    /// dialect have `user`, Anthropic has `metadata.user_id`, Gemini has none.
    pub fn identity_field(&self, endpoint: Endpoint) -> Option<&'static str> {
        match (endpoint, &*self.base.host) {
            (Endpoint::Messages, _) => Some("metadata"),
            (Endpoint::Generate, _) => None,
            (_, host) if WITHOUT_USER.contains(&host) => None,
            (Endpoint::Chat | Endpoint::Responses, "api.openai.com") => Some("safety_identifier"),
            _ => Some("user"),
        }
    }
}

/// How images are counted, as configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageSetting {
    /// The rule of a dialect; what it makes of a model depends on its name.
    Rule(Dialect),
    /// Tokens of any image.
    Fixed(u64),
}

impl ImageSetting {
    pub fn of(self, model: &str) -> ImageTokens {
        match self {
            ImageSetting::Rule(dialect) => ImageTokens::of(dialect, model),
            ImageSetting::Fixed(tokens) => ImageTokens::Fixed(tokens),
        }
    }
}

impl fmt::Display for ImageSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ImageSetting::Rule(dialect) => f.write_str(dialect.name()),
            ImageSetting::Fixed(tokens) => write!(f, "{tokens}"),
        }
    }
}

/// Which key is next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Strategy {
    /// In turn, by weight.
    #[default]
    RoundRobin,
    /// The one with the fewest open requests for its weight.
    LeastBusy,
    /// The one whose first output comes soonest.
    Fastest,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseUrl {
    pub tls: bool,
    /// Lower case, without brackets for IPv6.
    pub host: String,
    pub port: u16,
    /// Begins with `/` or is empty; no trailing slash. The endpoint's path is appended.
    pub path: String,
    /// Private and link-local addresses may be connected to.
    pub allow_private: bool,
    /// The stand-in provider that runs inside this process (`base_url: stand-in`).
    pub stand_in: bool,
}

impl BaseUrl {
    /// The address of something below it; `path` begins with `/`.
    pub fn at(&self, path: &str) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        let host = &self.host;
        let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        format!("{scheme}://{host}:{}{}{path}", self.port, self.path)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    pub connect: Duration,
    pub first_byte: Duration,
    pub first_token: Duration,
    pub idle: Duration,
    pub total: Duration,
}

impl Timeouts {
    /// With the overrides of a model.
    pub fn of(self, model: &ModelTimeouts) -> Self {
        Self {
            connect: self.connect,
            first_byte: model.first_byte.unwrap_or(self.first_byte),
            first_token: model.first_token.unwrap_or(self.first_token),
            idle: model.idle.unwrap_or(self.idle),
            total: model.total.unwrap_or(self.total),
        }
    }
}

#[derive(Debug, Clone)]
pub struct KeySettings {
    pub id: Arc<str>,
    pub secret: SecretString,
    /// Keys of one account share limits; default: a group of its own, named after the key.
    pub group: Arc<str>,
    /// ≥ 1.
    pub weight: u32,
    /// `state: off`
    pub off: bool,
}

#[derive(Debug, Clone)]
pub struct LogSettings {
    pub access: AccessLogSettings,
    pub levels: Levels,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AccessLogSettings {
    Off,
    Stdout,
    File(PathBuf),
}
