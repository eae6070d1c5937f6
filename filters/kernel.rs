//! The kernel: what a filter is, what it sees, and what runs it. No I/O, no sockets.

pub mod chain;
pub mod dialect;
pub mod estimate;
pub mod exchange;
pub mod filter;
pub mod image;
pub mod input;
pub mod json;
pub mod license;
pub mod model_request;
pub mod near;
pub mod period;
pub mod plan;
pub mod ports;
pub mod price;
pub mod reading;
pub mod reject;
pub mod route;
pub mod totals;
pub mod usage;
pub mod usage_figures;
pub mod vocabulary;

pub use async_trait::async_trait;

pub use self::{
    chain::{Chain, ChainProblem, FilterUse, Registry},
    estimate::Estimate,
    exchange::{Delivery, Doubt, Endpoint, Exchange, MOST_OUTPUT, Outcome, RequestProgress},
    filter::{Filter, Hooks, ResponseHead, Services, Spec, Verdict},
    image::{Detail, Image, ImageTokens},
    input::{Counting, Input},
    license::{Credential, License, LicenseId, LicenseQuery, LicenseStatus},
    model_request::{ModelRequest, RequestMembers},
    period::{Period, UnixMs, Window},
    plan::{ConversationLimits, Limit, ModelSet, OnDisconnect, Plan},
    ports::{
        About, Balance, Charge, ConversationDemand, ConversationRefused, CostSink, Cut, Demand,
        Denied, Grant, Ledger, Licenses, LimitUsage, Permit, RateRefused, RateRequest, Record,
        Reservation, StoreDown, UnseenEstimate, Whole, text,
    },
    price::{DOLLAR, Price},
    reading::{Output, Reading, StreamEnd},
    reject::{Code, QuotaDetail, Rejection},
    route::{
        AskedTier, Choice, Dialect, DivertReason, Model, ModelTimeouts, Models, Route, RouteReason,
        Score, Smart, Target, Tier, TierSource,
    },
    totals::ModelTotals,
    usage::{Metered, Usage, UsageSource},
    usage_figures::UsageFigures,
    vocabulary::Vocabulary,
};
