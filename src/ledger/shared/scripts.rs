//! The scripts on the store, their keys and arguments. Keys of one licence share a hash slot.

use std::{
    fmt::Write as _,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use gatekeeper_filters::kernel::{Demand, LicenseId, Limit, Period};

use super::holds::{Listed, News};
use crate::{
    ledger::{book::Contribution, windows::Windows},
    store::script::{Call, Script},
};

/// An open request that is not renewed ends after this, in milliseconds.
pub const LIFETIME_MS: u64 = 60_000;

pub struct Scripts {
    reserve: Script,
    message: Script,
    settle: Script,
    sync: Script,
    balance: Script,
}

/// Who speaks: a gateway, and which of its boots.
#[derive(Debug)]
pub struct Speaker {
    pub gateway: String,
    pub boot: AtomicU64,
}

impl Speaker {
    pub fn boot(&self) -> u64 {
        self.boot.load(Relaxed)
    }

    /// The name of a request on the store.
    pub fn name(&self, hold: u64) -> String {
        format!("{}:{}:{hold}", self.gateway, self.boot())
    }
}

impl Scripts {
    pub fn new() -> Self {
        let script = |own: &str| Script::new([include_str!("account.lua"), own].concat());
        Self {
            reserve: script(include_str!("reserve.lua")),
            message: script(include_str!("message.lua")),
            settle: script(include_str!("settle.lua")),
            sync: script(include_str!("sync.lua")),
            balance: script(include_str!("balance.lua")),
        }
    }

    pub fn reserve(
        &self,
        speaker: &Speaker,
        hold: u64,
        demand: &Demand,
        windows: &Windows,
        has_spoken: bool,
    ) -> Call<'_> {
        let mut call = of(&self.reserve, &demand.license, demand.message_id.as_deref());
        call.arg(&speaker.gateway).arg(speaker.boot()).arg(speaker.name(hold)).arg(LIFETIME_MS);
        call.arg(demand.input).arg(number(demand.output)).arg(demand.min_output);
        let pace = demand.pace.as_ref();
        limit(&mut call, demand.messages);
        limit(&mut call, demand.tokens);
        limit(&mut call, pace.and_then(|pace| pace.rate));
        call.arg(number(pace.and_then(|pace| pace.concurrency).map(u64::from)));
        self::windows(&mut call, windows);
        call.arg(u8::from(has_spoken));
        call
    }

    /// Whether the request of a message id is charged its message.
    pub fn message(&self, license: &LicenseId, id: &str, charge: bool) -> Call<'_> {
        let mut call = of(&self.message, license, Some(id));
        call.arg(u8::from(charge));
        call
    }

    pub fn settle(&self, speaker: &Speaker, license: &LicenseId, news: &News) -> Call<'_> {
        let mut call = of(&self.settle, license, None);
        contributed(&mut call, speaker, &news.contribution);
        call.arg(u8::from(news.has_spoken));
        for hold in &news.ended {
            call.arg(speaker.name(*hold));
        }
        call
    }

    pub fn sync(&self, speaker: &Speaker, license: &LicenseId, listed: &Listed) -> Call<'_> {
        let mut call = of(&self.sync, license, None);
        contributed(&mut call, speaker, &listed.contribution);
        call.arg(u8::from(listed.has_spoken));
        call.arg(LIFETIME_MS).arg(listed.horizon).arg(listed.pending.len());
        for hold in &listed.pending {
            call.arg(speaker.name(*hold));
        }
        for (hold, open) in &listed.open {
            let alone = u8::from(open.message_id.is_none());
            call.arg(speaker.name(*hold)).arg(alone).arg(open.input).arg(open.tokens);
            for start in Windows::at(open.taken).starts() {
                call.arg(start.0);
            }
        }
        call
    }

    pub fn balance(
        &self,
        license: &LicenseId,
        messages: Period,
        tokens: Period,
        windows: &Windows,
    ) -> Call<'_> {
        let mut call = of(&self.balance, license, None);
        call.arg(place(messages)).arg(place(tokens));
        self::windows(&mut call, windows);
        call
    }
}

/// A call about a licence, and the group of a message id.
fn of<'a>(script: &'a Script, license: &LicenseId, message: Option<&str>) -> Call<'a> {
    let id = license.to_hex();
    let keys = [format!("gk:{{{id}}}:used"), format!("gk:{{{id}}}:open")];
    match message {
        None => script.call(&keys),
        Some(message) => {
            let [used, open] = keys;
            script.call(&[used, open, format!("gk:{{{id}}}:message:{message}")])
        }
    }
}

fn number(of: Option<u64>) -> i64 {
    of.map_or(-1, |number| number.min(1 << 52) as i64)
}

/// Lists on the store begin with 1.
fn place(period: Period) -> usize {
    period as usize + 1
}

/// A limit and its period; without one the month counts.
fn limit(call: &mut Call<'_>, limit: Option<Limit>) {
    let period = limit.map_or(Period::Month, |limit| limit.per);
    call.arg(number(limit.map(|limit| limit.count))).arg(place(period));
}

fn windows(call: &mut Call<'_>, windows: &Windows) {
    for period in Period::ALL {
        let window = windows.of(period);
        call.arg(window.start.0).arg(window.end.0);
    }
}

fn contributed(call: &mut Call<'_>, speaker: &Speaker, contribution: &Contribution) {
    call.arg(&speaker.gateway).arg(speaker.boot()).arg(contribution.sequence);
    for counter in contribution.counters {
        call.arg(counter.start.0).arg(counter.messages).arg(counter.tokens);
    }
    let mut text = String::new();
    for given in contribution.given.iter().flatten() {
        let extra = (number(Some(given.extra_messages)), number(Some(given.extra_tokens)));
        let forgiven = (number(Some(given.forgiven_messages)), number(Some(given.forgiven_tokens)));
        let start = given.start.0;
        let _ = write!(text, "{start} {} {} {} {} ", extra.0, extra.1, forgiven.0, forgiven.1);
    }
    call.arg(text);
}
