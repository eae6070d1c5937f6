//! Purchases at Stripe. An event, or a buyer at `/claim`, only names an object; its state at Stripe when it
//! is fetched decides, so events may come in any order, twice, late or never.

mod apply;
mod ask;
pub mod claim;
mod sweep;
mod webhook;

pub use self::{
    ask::{ReadPurchase, StripeTrouble, try_permissions},
    claim::{Claim, ClaimError, ClaimedKey},
    webhook::StripeWebhookError,
};
