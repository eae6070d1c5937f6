//! The trait every filter implements, and how YAML becomes one.

use std::sync::Arc;

use async_trait::async_trait;
use http::{HeaderName, HeaderValue};
use serde::{Serialize, de::DeserializeOwned};

use super::{
    exchange::{Exchange, Outcome},
    model_request::ModelRequest,
    ports::{CostSink, Ledger, Licenses},
    reading::Reading,
    reject::Rejection,
    route::Models,
};

/// `Ok` goes on, `Err` refuses. There is no third way: a filter that fails to decide refuses.
pub type Verdict = Result<(), Rejection>;

/// A set of hooks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hooks(u8);

impl Hooks {
    pub const ADMIT: Self = Self(1);
    pub const REQUEST: Self = Self(2);
    pub const RESPONSE: Self = Self(4);
    pub const CHUNK: Self = Self(8);
    pub const SETTLE: Self = Self(16);
    pub const ALL: Self = Self(31);

    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub const fn has(self, hook: Self) -> bool {
        self.0 & hook.0 != 0
    }
}

/// One policy, shared by all requests: what belongs to a request lives in its [`Exchange`], what
/// must outlive a reload lives behind [`Services`].
#[async_trait]
pub trait Filter: Send + Sync + 'static {
    /// The hooks this filter implements; the others are not called. By default all are called, which costs
    /// a little and changes nothing.
    fn hooks(&self) -> Hooks {
        Hooks::ALL
    }

    /// Headers only, top to bottom, before one byte of the body is read.
    async fn admit(&self, _exchange: &mut Exchange) -> Verdict {
        Ok(())
    }

    /// The body is known, top to bottom, once per request (not again on failover).
    async fn request(&self, _exchange: &mut Exchange, _ask: &mut ModelRequest) -> Verdict {
        Ok(())
    }

    /// The head the app will see, bottom to top, once, when the answer is committed.
    fn response(&self, _exchange: &mut Exchange, _head: &mut ResponseHead) {}

    /// Each event of a stream, or the whole JSON answer. It can't fail: watching must never break
    /// an answer. Events of an attempt that failed before its commit are seen too.
    fn chunk(&self, _exchange: &mut Exchange, _reading: &Reading) {}

    /// Exactly once, bottom to top, on every path, for each filter that was entered. For a whole
    /// answer it runs before the last bytes are written.
    fn settle(&self, _exchange: &mut Exchange, _outcome: &Outcome) {}
}

/// What a filter may add to the head of an answer.
#[derive(Debug, Default)]
pub struct ResponseHead {
    pub status: u16,
    pub headers: Vec<(HeaderName, HeaderValue)>,
}

impl ResponseHead {
    pub fn insert(&mut self, name: HeaderName, value: impl Into<HeaderValue>) {
        self.headers.retain(|(existing, _)| *existing != name);
        self.headers.push((name, value.into()));
    }
}

/// The options of one filter in YAML; building it makes the filter.
///
/// Use `#[serde(deny_unknown_fields)]`: a typo must be a config error, never a silent default.
pub trait Spec: DeserializeOwned + Serialize {
    /// Its name in YAML.
    const NAME: &'static str;
    /// One line for `gatekeeper explain`.
    const SUMMARY: &'static str;
    /// Filters that must stand before this one when they are in the chain.
    const AFTER: &'static [&'static str] = &[];

    /// # Errors
    /// What is wrong with the options, in the operator's words.
    fn build(self, services: &Services) -> Result<Arc<dyn Filter>, String>;
}

/// What filters are built from. The same ledger over all reloads; licences and models are those
/// of the configuration being compiled.
#[derive(Clone)]
pub struct Services {
    pub licenses: Arc<dyn Licenses>,
    pub ledger: Arc<dyn Ledger>,
    pub expenses: Arc<dyn CostSink>,
    pub models: Arc<Models>,
    /// Where a buyer can get a licence: `licenses.buy_url`.
    pub buy_url: Option<Arc<str>>,
}
