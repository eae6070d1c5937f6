//! The scripts on the store, their keys and arguments. Keys of one licence share a hash slot.

use std::{
    fmt::Write as _,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use gatekeeper_filters::kernel::{ConversationDemand, Demand, LicenseId, Limit, Period, UnixMs};

use super::{
    conversation_day::ConversationDay,
    open_reservations::{EndedReservation, FullState, OpenMessage, UnsyncedSettlements},
};
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
    /// Of a request that a conversation counts.
    reserve_counted: Script,
    cancel: Script,
    settle: Script,
    /// Where conversations are to have messages back.
    settle_returned: Script,
    sync: Script,
    balance: Script,
}

/// A gateway, and which of its boots.
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
        const ACCOUNT: &str = include_str!("account.lua");
        const ENDING: &str = include_str!("ending.lua");
        const CONVERSATIONS: &str = include_str!("conversations.lua");
        const RESERVE: &str = include_str!("reserve.lua");
        const SETTLE: &str = include_str!("settle.lua");
        // A function costs each call of its script some hundred instructions, used or not.
        let asks = |name, own: &str| Script::new(name, [ACCOUNT, own].concat());
        let ends = |name, own: &str| Script::new(name, [ACCOUNT, ENDING, own].concat());
        let returns =
            |name, own: &str| Script::new(name, [CONVERSATIONS, ACCOUNT, ENDING, own].concat());
        Self {
            naming,
            reserve: asks("reserve", RESERVE),
            reserve_counted: Script::new("reserve", [CONVERSATIONS, ACCOUNT, RESERVE].concat()),
            cancel: returns("cancel", include_str!("cancel.lua")),
            settle: ends("settle", SETTLE),
            settle_returned: returns("settle", SETTLE),
            sync: returns("sync", include_str!("sync.lua")),
            balance: asks("balance", include_str!("balance.lua")),
        }
    }

    /// The group of a message id.
    pub fn group(&self, license: &LicenseId, id: &str) -> OpenMessage {
        (self.naming)(license, id).into()
    }

    pub fn reserve(
        &self,
        gateway_id: &GatewayId,
        request: &ReserveArgs<'_>,
        windows: &Windows,
        reported_before: bool,
    ) -> ScriptCall<'_> {
        let ReserveArgs { demand, group, hold, asked } = request;
        let conversation_day = demand.conversation.map(|_| ConversationDay::of(windows));
        // Turns of the last ten minutes count, those before midnight too.
        let before = conversation_day.and_then(|day| day.before(windows));
        let has_day_before = before.is_some();
        let counts_turn = demand.conversation.is_some_and(|counted| turn(&counted).is_some());
        let keys = group.iter().map(Key::Group).chain(counts_turn.then_some(Key::FurtherTurns));
        let keys = keys
            .chain(before.map(Key::Conversations))
            .chain(conversation_day.map(Key::Conversations));
        let script = if conversation_day.is_some() { &self.reserve_counted } else { &self.reserve };
        let mut call = of(script, &demand.license, keys);
        let pace = demand.pace.as_ref();
        let [messages, messages_per] = limit(demand.messages);
        let [tokens, tokens_per] = limit(demand.tokens);
        let [rate, rate_per] = limit(pace.and_then(|pace| pace.rate));
        let places = number(pace.and_then(|pace| pace.concurrency).map(u64::from));
        let [output, least] = [number(demand.output), demand.min_output as f64];
        let [boot, lifetime, input] =
            [gateway_id.boot(), LIFETIME_MS, demand.input].map(|n| n as f64);
        let [[minute, minute_end], [hour, hour_end], [day, day_end], [month, month_end]] =
            Period::ALL.map(|period| {
                let window = windows.of(period);
                [window.start.0 as f64, window.end.0 as f64]
            });
        let [reported_before, again] = [reported_before, *asked].map(|is| f64::from(u8::from(is)));
        let numbers = packed(&[
            boot,
            lifetime,
            input,
            output,
            least,
            messages,
            messages_per,
            tokens,
            tokens_per,
            rate,
            rate_per,
            places,
            minute,
            minute_end,
            hour,
            hour_end,
            day,
            day_end,
            month,
            month_end,
            reported_before,
            again,
        ]);
        call.arg(&gateway_id.gateway).arg(gateway_id.name(*hold)).arg(numbers);
        if let Some(counted) = &demand.conversation {
            conversation(&mut call, counted, has_day_before);
        }
        call
    }

    /// Ends a request that was given up.
    pub fn cancel(&self, gateway_id: &GatewayId, given_up: &CancelArgs) -> ScriptCall<'_> {
        let CancelArgs { license, group, conversation_day, .. } = given_up;
        let keys = group.iter().map(Key::Group).chain(conversation_day.map(Key::Conversations));
        let keys = keys.chain(conversation_day.map(|_| Key::FurtherTurns));
        let mut call = of(&self.cancel, license, keys);
        call.arg(&gateway_id.gateway).arg(gateway_id.boot()).arg(gateway_id.name(given_up.hold));
        call
    }

    pub fn settle(
        &self,
        gateway_id: &GatewayId,
        license: &LicenseId,
        news: &UnsyncedSettlements,
    ) -> ScriptCall<'_> {
        let returns = returned(&news.ended).next().is_some();
        let script = if returns { &self.settle_returned } else { &self.settle };
        let mut call = of(script, license, keys(&news.ended));
        contributed(&mut call, gateway_id, &news.contribution);
        call.arg(u8::from(news.reported_before));
        ended(&mut call, gateway_id, &news.ended);
        call
    }

    pub fn sync(
        &self,
        gateway_id: &GatewayId,
        license: &LicenseId,
        listed: &FullState,
    ) -> ScriptCall<'_> {
        let mut call = of(&self.sync, license, keys(&listed.ended));
        contributed(&mut call, gateway_id, &listed.contribution);
        call.arg(u8::from(listed.reported_before));
        call.arg(LIFETIME_MS).arg(listed.horizon).arg(listed.pending.len());
        for hold in &listed.pending {
            call.arg(gateway_id.name(*hold));
        }
        call.arg(listed.open.len());
        for (hold, open) in &listed.open {
            let pays = u8::from(open.pays || open.message.is_some());
            call.arg(gateway_id.name(*hold)).arg(pays).arg(open.input).arg(open.tokens);
            for start in Windows::at(open.taken).starts() {
                call.arg(start.0);
            }
        }
        ended(&mut call, gateway_id, &listed.ended);
        call
    }

    pub fn balance(
        &self,
        license: &LicenseId,
        messages: Period,
        tokens: Period,
        windows: &Windows,
    ) -> ScriptCall<'_> {
        let mut call = of(&self.balance, license, std::iter::empty());
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
    /// The day whose conversations may have counted it.
    pub conversation_day: Option<ConversationDay>,
    /// When it was asked about.
    pub taken: UnixMs,
}

/// A key of a licence, beside its account and its open requests.
enum Key<'a> {
    Group(&'a OpenMessage),
    Conversations(ConversationDay),
    FurtherTurns,
}

/// Place of the first key that [`of`] is given, as Lua counts.
const FIRST_GROUP: usize = 3;

fn conversation(call: &mut ScriptCall<'_>, counted: &ConversationDemand, has_day_before: bool) {
    let ConversationDemand { id, limits, .. } = counted;
    let [rate, rate_per] = limit(limits.rate);
    let [messages, messages_per] = limit(limits.messages);
    let repeats = number(limits.repeats.map(u64::from));
    let turn = number(turn(counted).map(u64::from));
    let has_day_before = f64::from(u8::from(has_day_before));
    let numbers = packed(&[rate, rate_per, messages, messages_per, repeats, turn, has_day_before]);
    call.arg(format!("{id:016x}")).arg(numbers);
}

/// The turn that counts.
fn turn(counted: &ConversationDemand) -> Option<u32> {
    counted.turn.filter(|_| counted.limits.repeats.is_some())
}

/// A call about a licence.
fn of<'a, 'b>(
    script: &'a Script,
    license: &LicenseId,
    more: impl Iterator<Item = Key<'b>>,
) -> ScriptCall<'a> {
    let id = license.to_hex();
    let own = [format!("gk:{{{id}}}:used"), format!("gk:{{{id}}}:open")];
    let mut more = more
        .map(|key| match key {
            Key::Group(group) => format!("gk:{{{id}}}:message:{group}"),
            // Earlier versions have other bytes in `talks:`.
            Key::Conversations(day) => format!("gk:{{{id}}}:conversations:{}", day.0),
            Key::FurtherTurns => format!("gk:{{{id}}}:turns"),
        })
        .peekable();
    if more.peek().is_none() {
        return script.call(&own);
    }
    let keys: Vec<String> = own.into_iter().chain(more).collect();
    script.call(&keys)
}

/// Groups that requests leave, then conversations that they give a message back to, in the order that [`ended`]
/// counts on, and last the further turns of those.
fn keys(ended: &[EndedReservation]) -> impl Iterator<Item = Key<'_>> {
    let groups = ended.iter().filter_map(|ended| ended.group.as_ref().map(|(group, _)| group));
    let days = returned(ended).map(|(_, day)| Key::Conversations(day));
    let turns = returned(ended).next().map(|_| Key::FurtherTurns);
    groups.map(Key::Group).chain(days).chain(turns)
}

/// Requests whose message conversations are to have back.
fn returned(ended: &[EndedReservation]) -> impl Iterator<Item = (u64, ConversationDay)> {
    ended.iter().filter_map(|ended| Some((ended.hold, ended.returned?)))
}

/// Requests that ended: those without a group, those that give a message back, and those with a group.
fn ended(call: &mut ScriptCall<'_>, gateway_id: &GatewayId, ended: &[EndedReservation]) {
    let alone = ended.iter().filter(|ended| ended.group.is_none());
    call.arg(alone.clone().count());
    for ended in alone {
        call.arg(gateway_id.name(ended.hold));
    }
    let grouped = ended.iter().filter_map(|ended| Some((ended.hold, ended.group.as_ref()?.1)));
    let first = FIRST_GROUP + grouped.clone().count();
    call.arg(returned(ended).count());
    for (place, (hold, _)) in returned(ended).enumerate() {
        call.arg(gateway_id.name(hold)).arg(first + place);
    }
    for (place, (hold, left)) in grouped.enumerate() {
        call.arg(gateway_id.name(hold)).arg(FIRST_GROUP + place).arg(left as u8);
    }
}

fn number(of: Option<u64>) -> f64 {
    of.map_or(-1.0, |number| number.min(1 << 52) as f64)
}

/// Lists on the store begin with 1.
fn place(period: Period) -> usize {
    period as usize + 1
}

/// A limit and its period; without one the month counts.
fn limit(limit: Option<Limit>) -> [f64; 2] {
    let period = limit.map_or(Period::Month, |limit| limit.per);
    [number(limit.map(|limit| limit.count)), place(period) as f64]
}

/// Numbers in one argument, eight bytes each as Lua has them, little-endian. Whole ones up to 2^53 are exact.
fn packed(numbers: &[f64]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

fn windows(call: &mut ScriptCall<'_>, windows: &Windows) {
    for period in Period::ALL {
        let window = windows.of(period);
        call.arg(window.start.0).arg(window.end.0);
    }
}

fn contributed(call: &mut ScriptCall<'_>, gateway_id: &GatewayId, contribution: &LocalShare) {
    let mut numbers = vec![gateway_id.boot() as f64, contribution.sequence as f64];
    for counter in contribution.counters {
        numbers.extend([counter.start.0, counter.messages, counter.tokens].map(|n| n as f64));
    }
    call.arg(&gateway_id.gateway).arg(packed(&numbers));
    let mut text = String::new();
    for given in contribution.given.iter().flatten() {
        let extra = (number(Some(given.extra_messages)), number(Some(given.extra_tokens)));
        let forgiven = (number(Some(given.forgiven_messages)), number(Some(given.forgiven_tokens)));
        let start = given.start.0;
        let _ = write!(text, "{start} {} {} {} {} ", extra.0, extra.1, forgiven.0, forgiven.1);
    }
    call.arg(text);
}
