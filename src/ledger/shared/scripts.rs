//! The scripts on the store, their keys and arguments. Keys of one licence share a hash slot.

use std::fmt::Write as _;

use gatekeeper_filters::kernel::{Demand, LicenseId, Limit, Period};
use redis::{Script, ScriptInvocation};

use super::holds::Listed;
use crate::ledger::{book::Contribution, windows::Windows};

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
#[derive(Debug, Clone)]
pub struct Speaker {
    pub gateway: String,
    pub boot: u64,
}

impl Speaker {
    /// The name of a request on the store.
    pub fn name(&self, hold: u64) -> String {
        format!("{}:{}:{hold}", self.gateway, self.boot)
    }
}

impl Scripts {
    pub fn new() -> Self {
        let script = |own: &str| Script::new(&[include_str!("account.lua"), own].concat());
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
    ) -> ScriptInvocation<'_> {
        let mut call = self.of(&self.reserve, &demand.license);
        if let Some(id) = &demand.message_id {
            call.key(message_key(&demand.license, id));
        }
        call.arg(&speaker.gateway).arg(speaker.boot).arg(speaker.name(hold)).arg(LIFETIME_MS);
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
    pub fn message(&self, license: &LicenseId, id: &str, charge: bool) -> ScriptInvocation<'_> {
        let mut call = self.of(&self.message, license);
        call.key(message_key(license, id)).arg(u8::from(charge));
        call
    }

    pub fn settle(
        &self,
        speaker: &Speaker,
        license: &LicenseId,
        contribution: &Contribution,
        ended: &[u64],
    ) -> ScriptInvocation<'_> {
        let mut call = self.of(&self.settle, license);
        contributed(&mut call, speaker, contribution);
        for hold in ended {
            call.arg(speaker.name(*hold));
        }
        call
    }

    pub fn sync(
        &self,
        speaker: &Speaker,
        license: &LicenseId,
        contribution: &Contribution,
        listed: &Listed,
    ) -> ScriptInvocation<'_> {
        let mut call = self.of(&self.sync, license);
        contributed(&mut call, speaker, contribution);
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
    ) -> ScriptInvocation<'_> {
        let mut call = self.of(&self.balance, license);
        call.arg(place(messages)).arg(place(tokens));
        self::windows(&mut call, windows);
        call
    }

    fn of<'a>(&self, script: &'a Script, license: &LicenseId) -> ScriptInvocation<'a> {
        let id = license.to_hex();
        let mut call = script.prepare_invoke();
        call.key(format!("gk:{{{id}}}:used")).key(format!("gk:{{{id}}}:open"));
        call
    }
}

fn message_key(license: &LicenseId, id: &str) -> String {
    format!("gk:{{{}}}:message:{id}", license.to_hex())
}

fn number(of: Option<u64>) -> i64 {
    of.map_or(-1, |number| number.min(1 << 52) as i64)
}

/// Lists on the store begin with 1.
fn place(period: Period) -> usize {
    period as usize + 1
}

/// A limit and its period; without one the month counts.
fn limit(call: &mut ScriptInvocation<'_>, limit: Option<Limit>) {
    let period = limit.map_or(Period::Month, |limit| limit.per);
    call.arg(number(limit.map(|limit| limit.count))).arg(place(period));
}

fn windows(call: &mut ScriptInvocation<'_>, windows: &Windows) {
    for period in Period::ALL {
        let window = windows.of(period);
        call.arg(window.start.0).arg(window.end.0);
    }
}

fn contributed(call: &mut ScriptInvocation<'_>, speaker: &Speaker, contribution: &Contribution) {
    call.arg(&speaker.gateway).arg(speaker.boot).arg(contribution.sequence);
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
