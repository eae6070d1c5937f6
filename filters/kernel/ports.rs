//! The ports: what filters may ask of the machine. `src/` implements them.

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{
    license::{LicenseId, LicenseQuery, LicenseStatus},
    period::UnixMs,
    plan::{ConversationLimits, Limit},
    route::Target,
    usage::{Usage, UsageSource},
};

#[async_trait]
pub trait Licenses: Send + Sync {
    /// The licence behind the key. May wait some seconds for a shop; never longer than an app would.
    async fn check(&self, asking: &LicenseQuery<'_>) -> LicenseStatus;
}

/// Pace of one licence: requests a period and open requests, either may be absent.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct RateRequest {
    pub license: LicenseId,
    pub rate: Option<Limit>,
    pub concurrency: Option<u32>,
}

/// Why a request may not start now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RateRefused {
    /// Requests a period; `retry_after` seconds until the window ends.
    Rate {
        limit: Limit,
        retry_after: u64,
    },
    Concurrency {
        limit: u32,
    },
    StoreDown,
}

/// What one request may cost at worst, before a provider has seen it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Demand {
    pub license: LicenseId,
    pub now: UnixMs,
    pub about: About,
    pub messages: Option<Limit>,
    pub tokens: Option<Limit>,
    /// Estimate of the input.
    pub input: u64,
    /// Picodollars of that input at the first target that has a price.
    pub input_cost: u64,
    /// Output cap of the answer; `None` when nothing caps it (only where tokens are unlimited).
    pub output: Option<u64>,
    /// The cap may shrink down to this, never below.
    pub min_output: u64,
    /// What the request was let in with, where `rate_limit` is in the chain: gateways that share a
    /// store count it there.
    pub pace: Option<RateRequest>,
    /// `x-message-id`: requests that share one count as one message for 10 minutes and 10 requests.
    #[serde(with = "text")]
    pub message_id: Option<Arc<str>>,
    /// Where the plan limits conversations.
    #[serde(default)]
    pub conversation: Option<ConversationDemand>,
}

/// The conversation that a request belongs to. Requests that share a message count in it once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConversationDemand {
    /// Its number within its licence: a keyed hash of what the app calls it.
    pub id: u64,
    /// A keyed hash of the user's last turn; `None` without one.
    pub turn: Option<u32>,
    pub limits: ConversationLimits,
}

/// Which limit of a conversation is reached, and when it is not any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ConversationRefused {
    Rate { limit: Limit, resets_at: UnixMs },
    Messages { limit: Limit, resets_at: UnixMs },
    Repeats { limit: u32, resets_at: UnixMs },
}

/// The usage row that a request counts in, beside its licence and its day.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct About {
    pub plan: Arc<str>,
    /// The public name that the app asked for.
    pub model: Arc<str>,
    /// The provider that served it, before that the one that is asked first.
    pub provider: Arc<str>,
}

impl Serialize for About {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        (&*self.plan, &*self.model, &*self.provider).serialize(to)
    }
}

impl<'de> Deserialize<'de> for About {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let (plan, model, provider) = <(String, String, String)>::deserialize(from)?;
        Ok(Self { plan: plan.into(), model: model.into(), provider: provider.into() })
    }
}

/// Shared text on its way to another process.
pub mod text {
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    /// # Errors
    /// Those of `to`.
    pub fn serialize<S: Serializer>(text: &Option<Arc<str>>, to: S) -> Result<S::Ok, S::Error> {
        text.as_deref().serialize(to)
    }

    /// # Errors
    /// Those of `from`.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Arc<str>>, D::Error> {
        Ok(Option::<String>::deserialize(from)?.map(Arc::from))
    }
}

/// A granted demand: the ledger's own handle, plus what was granted.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Grant {
    /// Unique per process and boot; the ledger's key of this reservation.
    pub hold: u64,
    /// The cap that fits; smaller than the demand's when it was shrunk.
    pub output: Option<u64>,
    pub input: u64,
    /// Balances right after the grant, for the `x-quota-*` headers.
    pub balance: Balance,
}

/// Why nothing was granted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Denied {
    Messages {
        limit: Limit,
        used: u64,
        resets_at: UnixMs,
    },
    /// Settled use alone leaves fewer than `needed` tokens.
    Tokens {
        limit: Limit,
        used: u64,
        left: u64,
        needed: u64,
        resets_at: UnixMs,
    },
    /// Only open reservations stand in the way: try again in a few seconds.
    Busy,
    Conversation(ConversationRefused),
    /// All gateways together let in enough.
    TooFast(RateRefused),
    StoreDown,
}

/// What a settled reservation costs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Charge {
    /// Whether the message counts; `false` gives it back.
    pub message: bool,
    /// 0 gives all tokens back.
    pub tokens: u64,
    pub source: UsageSource,
    /// `None` leaves it where the reservation stands.
    pub about: Option<About>,
}

impl Charge {
    /// Everything comes back.
    pub const NOTHING: Self =
        Self { message: false, tokens: 0, source: UsageSource::Estimated, about: None };

    /// What a request costs that vanished without an outcome: one message and its input.
    pub const fn vanished(input: u64) -> Self {
        Self { message: true, tokens: input, source: UsageSource::Estimated, about: None }
    }
}

/// One side of a balance. All but `used` is `None` where the plan has no such limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LimitUsage {
    pub used: u64,
    /// What the operator gave in this window included.
    pub limit: Option<u64>,
    pub left: Option<u64>,
    pub resets_at: Option<UnixMs>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Balance {
    pub messages: LimitUsage,
    pub tokens: LimitUsage,
}

/// One finished request, as an operator can query it. No prompt, no key, no address.
#[derive(Debug, Clone)]
pub struct Record {
    /// When the request arrived.
    pub time: UnixMs,
    pub license: Option<LicenseId>,
    pub endpoint: &'static str,
    pub plan: Arc<str>,
    /// Public name asked for; only names that are configured, else empty.
    pub model: Arc<str>,
    /// `provider/model` that served, empty if none.
    pub served: Arc<str>,
    pub provider: Arc<str>,
    pub key: Arc<str>,
    pub usage: Usage,
    pub source: UsageSource,
    /// What was charged against the token limit.
    pub charged: u64,
    /// Tokens of attempts whose answers the app did not get, beside those in `usage`.
    pub wasted: u64,
    /// What the provider asks for it, in picodollars, waste included; 0 without a price.
    pub cost: u64,
    /// Part of `cost`: what the app did not get.
    pub wasted_cost: u64,
    /// Whether a provider was asked.
    pub sent: bool,
    /// 499 when the app left first.
    pub status: u16,
    pub ms: u64,
    pub attempts: u32,
}

/// Counts what licences use. Implementations are exact under concurrency.
#[async_trait]
pub trait Ledger: Send + Sync + 'static {
    /// Counts one request and opens one place; the place is closed by [`Ledger::leave`].
    async fn enter(&self, pace: &RateRequest, now: UnixMs) -> Result<(), RateRefused>;
    fn leave(&self, license: &LicenseId);

    /// Grants or denies; a grant is durable (survives kill -9) when this returns.
    async fn reserve(&self, demand: &Demand) -> Result<Grant, Denied>;
    /// Charges a grant, once; further calls with the same `hold` do nothing. Durable like
    /// [`Ledger::reserve`] when it returns. Never blocks on I/O that can stall.
    fn settle(&self, hold: u64, charge: Charge);

    async fn balance(
        &self,
        license: &LicenseId,
        messages: Option<Limit>,
        tokens: Option<Limit>,
        now: UnixMs,
    ) -> Result<Balance, StoreDown>;

    /// Keeps a finished request for the operator. Never blocks.
    fn record(&self, record: Record);
}

/// Records what answers cost the operator, and estimates the cost of answers that were cut off.
pub trait CostSink: Send + Sync + 'static {
    /// An answer of this target cost so many picodollars; it counts in the day of `now`, when it was
    /// asked for.
    fn spend(&self, target: &Target, picodollars: u64, now: UnixMs);

    /// A licence made a target work for this many picodollars without a delivered answer; they are part of
    /// the spend already.
    fn waste(&self, _license: &LicenseId, _target: &Target, _picodollars: u64, _now: UnixMs) {}

    /// A target has answered a request.
    fn answered(&self, _target: &Target) {}

    /// It did so with an answer that came whole, and counted it.
    fn learn(&self, _target: &Target, _answer: &Whole) {}

    /// Estimate of the undelivered tokens of an answer that was cut off.
    fn unseen(&self, _target: &Target, _cut: &Cut) -> UnseenEstimate {
        UnseenEstimate::default()
    }

    /// A request of a licence has timed out after it was sent completely. Number of such timeouts within
    /// the last hour, this one included.
    fn timed_out(&self, _license: &LicenseId, _now: UnixMs) -> u32 {
        1
    }
}

/// An answer whose end was seen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Whole {
    /// It came event by event.
    pub streamed: bool,
    /// From its head to its end; of one that came in one piece from the request on.
    pub took: Duration,
    /// Tokens, as reported.
    pub output: u64,
    /// Those of reasoning among them.
    pub reasoning: u64,
    /// The estimate of what was read, in tokens.
    pub seen: u64,
}

/// An answer that was cut off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    pub streamed: bool,
    /// When the request had been written.
    pub sent: Instant,
    /// When the head of the answer came.
    pub head: Option<Instant>,
    pub at: Instant,
}

/// Output tokens that a provider may have made of an answer that was cut off.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UnseenEstimate {
    pub tokens: u64,
    /// The answer never began, and the target answered no request at the time: counted if it answers one
    /// within a minute.
    pub doubtful: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("the store does not answer")]
pub struct StoreDown;

/// One open place of a licence; dropping it closes the place.
pub struct Permit {
    ledger: Arc<dyn Ledger>,
    pub pace: RateRequest,
}

impl Permit {
    /// To be called after [`Ledger::enter`] succeeded.
    pub fn new(ledger: Arc<dyn Ledger>, pace: RateRequest) -> Self {
        Self { ledger, pace }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.ledger.leave(&self.pace.license);
    }
}

/// Money on hold for one request. It is settled exactly once: by [`Reservation::settle`], or when
/// dropped, which charges as if the app had left.
#[must_use = "dropping a reservation charges it"]
pub struct Reservation {
    ledger: Arc<dyn Ledger>,
    pub grant: Grant,
    open: bool,
}

impl Reservation {
    pub fn new(ledger: Arc<dyn Ledger>, grant: Grant) -> Self {
        Self { ledger, grant, open: true }
    }

    pub fn settle(mut self, charge: Charge) {
        self.open = false;
        self.ledger.settle(self.grant.hold, charge);
    }
}

impl Drop for Reservation {
    /// A request that vanished without an outcome costs one message and its input estimate.
    fn drop(&mut self) {
        if self.open {
            self.ledger.settle(self.grant.hold, Charge::vanished(self.grant.input));
        }
    }
}

impl fmt::Debug for Reservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reservation").field("grant", &self.grant).finish_non_exhaustive()
    }
}
