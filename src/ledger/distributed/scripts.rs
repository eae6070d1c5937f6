//! The scripts on the store, their keys and arguments. Keys of one licence share a hash slot.

use std::{
    fmt::Write as _,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use gatekeeper_filters::kernel::{ConversationDemand, Demand, LicenseId, Limit, Period, UnixMs};

use super::open_reservations::{EndedReservation, FullState, OpenMessage, UnsyncedSettlements};
use crate::{
    ledger::{account::LocalShare, windows::Windows},
    redis_store::script::{Script, ScriptCall},
};

/// An open request that is not renewed ends after this, in milliseconds.
pub const LIFETIME_MS: u64 = 60_000;

/// Names the group of a licence's message id: what apps choose does not lie on the store.
pub type KeyNaming = Box<dyn Fn(&LicenseId, &str) -> String + Send + Sync>;

pub struct Scripts {
    naming: KeyNaming,
    reserve: Script,
    cancel: Script,
    settle: Script,
    sync: Script,
    balance: Script,
}

/// Who speaks: a gateway, and which of its boots.
#[derive(Debug)]
pub struct GatewayId {
    pub gateway: String,
    pub boot: AtomicU64,
}

impl GatewayId {
    pub fn boot(&self) -> u64 {
        self.boot.load(Relaxed)
    }

    /// The name of a request on the store.
    pub fn name(&self, hold: u64) -> String {
        format!("{}:{}:{hold}", self.gateway, self.boot())
    }

    /// The request with this name.
    pub fn hold(name: &str) -> Option<u64> {
        name.rsplit(':').next()?.parse().ok()
    }
}

impl Scripts {
    pub fn new(naming: KeyNaming) -> Self {
        let script = |own: &str| Script::new([include_str!("account.lua"), own].concat());
        Self {
            naming,
            reserve: script(include_str!("reserve.lua")),
            cancel: script(include_str!("cancel.lua")),
            settle: script(include_str!("settle.lua")),
            sync: script(include_str!("sync.lua")),
            balance: script(include_str!("balance.lua")),
        }
    }

    /// The group of a message id.
    pub fn group(&self, license: &LicenseId, id: &str) -> OpenMessage {
        (self.naming)(license, id).into()
    }

    pub fn reserve(
        &self,
        speaker: &GatewayId,
        question: &ReserveArgs<'_>,
        windows: &Windows,
        has_spoken: bool,
    ) -> ScriptCall<'_> {
        let ReserveArgs { demand, group, hold, asked } = question;
        let counted = demand.conversation.map(|_| talks(windows));
        let mut call = match &counted {
            None => of(&self.reserve, &demand.license, group.iter()),
            Some(talks) => with_talks(&self.reserve, &demand.license, group.as_ref(), talks),
        };
        call.arg(&speaker.gateway).arg(speaker.boot()).arg(speaker.name(*hold)).arg(LIFETIME_MS);
        call.arg(demand.input).arg(number(demand.output)).arg(demand.min_output);
        let pace = demand.pace.as_ref();
        limit(&mut call, demand.messages);
        limit(&mut call, demand.tokens);
        limit(&mut call, pace.and_then(|pace| pace.rate));
        call.arg(number(pace.and_then(|pace| pace.concurrency).map(u64::from)));
        self::windows(&mut call, windows);
        call.arg(u8::from(has_spoken)).arg(u8::from(*asked));
        if let Some(counted) = &demand.conversation {
            conversation(&mut call, counted);
        }
        call
    }

    /// Ends a request that was given up.
    pub fn cancel(&self, speaker: &GatewayId, given_up: &CancelArgs) -> ScriptCall<'_> {
        let mut call = of(&self.cancel, &given_up.license, given_up.group.iter());
        call.arg(&speaker.gateway).arg(speaker.boot()).arg(speaker.name(given_up.hold));
        call
    }

    pub fn settle(
        &self,
        speaker: &GatewayId,
        license: &LicenseId,
        news: &UnsyncedSettlements,
    ) -> ScriptCall<'_> {
        let mut call = of(&self.settle, license, groups(&news.ended));
        contributed(&mut call, speaker, &news.contribution);
        call.arg(u8::from(news.has_spoken));
        ended(&mut call, speaker, &news.ended);
        call
    }

    pub fn sync(
        &self,
        speaker: &GatewayId,
        license: &LicenseId,
        listed: &FullState,
    ) -> ScriptCall<'_> {
        let mut call = of(&self.sync, license, groups(&listed.ended));
        contributed(&mut call, speaker, &listed.contribution);
        call.arg(u8::from(listed.has_spoken));
        call.arg(LIFETIME_MS).arg(listed.horizon).arg(listed.pending.len());
        for hold in &listed.pending {
            call.arg(speaker.name(*hold));
        }
        call.arg(listed.open.len());
        for (hold, open) in &listed.open {
            let pays = u8::from(open.pays || open.message.is_some());
            call.arg(speaker.name(*hold)).arg(pays).arg(open.input).arg(open.tokens);
            for start in Windows::at(open.taken).starts() {
                call.arg(start.0);
            }
        }
        ended(&mut call, speaker, &listed.ended);
        call
    }

    pub fn balance(
        &self,
        license: &LicenseId,
        messages: Period,
        tokens: Period,
        windows: &Windows,
    ) -> ScriptCall<'_> {
        let mut call = of(&self.balance, license, None.into_iter());
        call.arg(place(messages)).arg(place(tokens));
        self::windows(&mut call, windows);
        call
    }
}

/// A request that the store is asked about.
pub struct ReserveArgs<'a> {
    pub demand: &'a Demand,
    pub group: Option<OpenMessage>,
    pub hold: u64,
    /// It was asked about before, and the answer did not come.
    pub asked: bool,
}

/// A request that was given up before its answer came.
#[derive(Debug)]
pub struct CancelArgs {
    pub license: LicenseId,
    pub hold: u64,
    pub group: Option<OpenMessage>,
    /// When it was asked about.
    pub taken: UnixMs,
}

/// The end of the key of a licence's conversations, one of a day.
fn talks(windows: &Windows) -> String {
    format!("talks:{}", windows.of(Period::Day).start.0 / 1000)
}

/// The reservation of a request that counts in a conversation: the key of those is the last.
fn with_talks<'a>(
    script: &'a Script,
    license: &LicenseId,
    group: Option<&OpenMessage>,
    talks: &str,
) -> ScriptCall<'a> {
    let id = license.to_hex();
    let mut keys = vec![format!("gk:{{{id}}}:used"), format!("gk:{{{id}}}:open")];
    keys.extend(group.map(|group| format!("gk:{{{id}}}:message:{group}")));
    keys.push(format!("gk:{{{id}}}:{talks}"));
    script.call(&keys)
}

fn conversation(call: &mut ScriptCall<'_>, counted: &ConversationDemand) {
    let ConversationDemand { id, turn, limits } = counted;
    call.arg(format!("{id:016x}"));
    limit(call, limits.rate);
    limit(call, limits.messages);
    call.arg(number(limits.repeats.map(u64::from)));
    call.arg(number(turn.filter(|_| limits.repeats.is_some()).map(u64::from)));
}

/// A call about a licence, and groups of its message ids.
fn of<'a, 'b>(
    script: &'a Script,
    license: &LicenseId,
    groups: impl Iterator<Item = &'b OpenMessage>,
) -> ScriptCall<'a> {
    let id = license.to_hex();
    let own = [format!("gk:{{{id}}}:used"), format!("gk:{{{id}}}:open")];
    let mut groups = groups.map(|group| format!("gk:{{{id}}}:message:{group}")).peekable();
    if groups.peek().is_none() {
        return script.call(&own);
    }
    let keys: Vec<String> = own.into_iter().chain(groups).collect();
    script.call(&keys)
}

/// What requests leave, in the order in which [`ended`] counts on.
fn groups(ended: &[EndedReservation]) -> impl Iterator<Item = &OpenMessage> {
    ended.iter().filter_map(|ended| ended.group.as_ref().map(|(group, _)| group))
}

/// Requests that ended: those without a group, and those with one.
fn ended(call: &mut ScriptCall<'_>, speaker: &GatewayId, ended: &[EndedReservation]) {
    const FIRST_GROUP: usize = 3;
    let alone = ended.iter().filter(|ended| ended.group.is_none());
    call.arg(alone.clone().count());
    for ended in alone {
        call.arg(speaker.name(ended.hold));
    }
    let grouped = ended.iter().filter_map(|ended| Some((ended.hold, ended.group.as_ref()?.1)));
    for (place, (hold, left)) in grouped.enumerate() {
        call.arg(speaker.name(hold)).arg(FIRST_GROUP + place).arg(left as u8);
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
fn limit(call: &mut ScriptCall<'_>, limit: Option<Limit>) {
    let period = limit.map_or(Period::Month, |limit| limit.per);
    call.arg(number(limit.map(|limit| limit.count))).arg(place(period));
}

fn windows(call: &mut ScriptCall<'_>, windows: &Windows) {
    for period in Period::ALL {
        let window = windows.of(period);
        call.arg(window.start.0).arg(window.end.0);
    }
}

fn contributed(call: &mut ScriptCall<'_>, speaker: &GatewayId, contribution: &LocalShare) {
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
