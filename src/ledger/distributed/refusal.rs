//! Turns the store's replies into refusals and usage figures.

use gatekeeper_filters::kernel::{Demand, Denied, Limit, LimitUsage, RateRefused, UnixMs};

use super::script_reply::{LimitCount, ScriptReply};
use crate::ledger::windows::Windows;

pub fn spent(limit: Option<Limit>, count: LimitCount, windows: &Windows) -> LimitUsage {
    LimitUsage {
        used: count.used,
        limit: limit.map(|_| count.limit),
        left: limit.map(|_| count.left()),
        resets_at: limit.map(|limit| windows.of(limit.per).end),
    }
}

pub fn refusal(reply: ScriptReply, demand: &Demand, now: UnixMs, windows: &Windows) -> Denied {
    let with = |limit: Limit, count: LimitCount| Limit { count: count.limit, ..limit };
    let pace = demand.pace.as_ref();
    match reply {
        ScriptReply::Places => {
            let limit = pace.and_then(|pace| pace.concurrency).unwrap_or_default();
            Denied::TooFast(RateRefused::Concurrency { limit })
        }
        ScriptReply::Rate => match pace.and_then(|pace| pace.rate) {
            Some(limit) => {
                let retry_after = now.seconds_until(windows.of(limit.per).end);
                Denied::TooFast(RateRefused::Rate { limit, retry_after })
            }
            None => Denied::StoreDown,
        },
        ScriptReply::Messages(count) => match demand.messages {
            Some(limit) => Denied::Messages {
                limit: with(limit, count),
                used: count.used,
                resets_at: windows.of(limit.per).end,
            },
            None => Denied::StoreDown,
        },
        ScriptReply::Tokens { count, left, needed } => match demand.tokens {
            Some(limit) => Denied::Tokens {
                limit: with(limit, count),
                used: count.used,
                left,
                needed,
                resets_at: windows.of(limit.per).end,
            },
            None => Denied::StoreDown,
        },
        ScriptReply::Busy => Denied::Busy,
        ScriptReply::Conversation { limit, resets_at } => limit.refused(demand, resets_at),
        ScriptReply::Granted { .. } | ScriptReply::Clock(_) | ScriptReply::Lost => {
            Denied::StoreDown
        }
    }
}
