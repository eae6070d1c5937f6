//! The kernel: what a filter is, what it sees, and what runs it. No I/O, no sockets.

pub mod ask;
pub mod chain;
pub mod exchange;
pub mod filter;
pub mod image;
pub mod input;
pub mod json;
pub mod license;
pub mod near;
pub mod period;
pub mod plan;
pub mod ports;
pub mod price;
pub mod reject;
pub mod route;
pub mod usage;
pub mod vocabulary;

pub use async_trait::async_trait;

pub use self::{
    ask::{Ask, Members},
    chain::{Chain, ChainProblem, FilterUse, Registry},
    exchange::{Delivery, Doubt, Endpoint, Exchange, MOST_OUTPUT, Outcome, Progress},
    filter::{Filter, Hooks, ResponseHead, Services, Spec, Verdict},
    image::{Detail, Image, ImageTokens},
    input::{Counting, Input},
    license::{Asking, Credential, License, LicenseId, Standing},
    period::{Period, UnixMs, Window},
    plan::{Limit, ModelSet, OnDisconnect, Plan},
    ports::{
        About, Balance, Charge, Cut, Demand, Denied, Expenses, Grant, Ledger, Licenses, Pace,
        Permit, Record, Reservation, Spent, StoreDown, TooFast, Unseen, Whole, text,
    },
    price::{DOLLAR, Price},
    reject::{Code, QuotaDetail, Reject},
    route::{
        AskedTier, By, Choice, Dialect, Diverted, Model, ModelTimeouts, Models, Route, Score,
        Smart, Target, Tier, Why,
    },
    usage::{Metered, Source, Usage},
    vocabulary::Vocabulary,
};
