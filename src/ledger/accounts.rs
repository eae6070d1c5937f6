//! All accounts and open reservations, in shards: licences that do not share one never meet.

use std::collections::HashSet;

use rustc_hash::FxHashMap;

use gatekeeper_filters::kernel::{
    About, Balance, Charge, Demand, Denied, Grant, LicenseId, Limit, Period, RateRefused,
    RateRequest, UnixMs,
};
use parking_lot::Mutex;

use super::{
    account::{Account, LocalShare, OpenRequest, Rate, ReservationPlan},
    adjustment::GivenAllowance,
    conversations::CountedMessage,
    in_memory_state::InMemoryState,
    journal::{
        Journal, JournalFull,
        entry::{EntryExpectation, EntryFrame, EntryNames, ReservedEntry, SettledEntry},
    },
    message_ids::MessageEffect,
    operator_action::OperatorAction,
    orphan::OrphanedReservation,
    windows::{MissingWindows, Windows},
};

const SHARD_BITS: u32 = 6;
const SHARDS: usize = 1 << SHARD_BITS;

/// Which accounts are in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Residency {
    /// All that something was counted for in a window that may still matter.
    Complete,
    /// Those that were used lately. Another one has to be read from SQLite before it is used.
    OnDemand,
}

/// The sweeps there had been when an account was missed.
#[derive(Debug, Clone, Copy)]
pub struct MissingSince(u64);

pub struct Accounts {
    shards: Box<[Mutex<Shard>]>,
    residency: Residency,
}

#[derive(Default)]
struct Shard {
    accounts: FxHashMap<LicenseId, Account>,
    /// By hold.
    open: FxHashMap<u64, (LicenseId, OpenRequest, About)>,
    /// Reservations so far.
    made: u64,
    windows: Windows,
    /// How often unused accounts were dropped.
    sweeps: u64,
    /// Number of contributions exported so far.
    told: u64,
    /// Licences whose rates of an hour, day or month changed since they were last kept.
    paced: HashSet<LicenseId>,
    /// What operators did, oldest first.
    actions: FxHashMap<LicenseId, Vec<OperatorAction<'static>>>,
}

impl Accounts {
    pub fn new(residency: Residency) -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect(), residency }
    }

    pub fn residency(&self) -> Residency {
        self.residency
    }

    /// Whether an account has to be read from SQLite before it is used, and since when. One that has not
    /// stays in memory until two sweeps have passed without its use.
    pub fn missing(&self, license: &LicenseId) -> Option<MissingSince> {
        if self.residency == Residency::Complete {
            return None;
        }
        let shard = &mut *self.shards[index(license)].lock();
        match shard.accounts.get_mut(license) {
            Some(account) => {
                account.touch();
                None
            }
            None => Some(MissingSince(shard.sweeps)),
        }
    }

    /// Takes in an account that was read from SQLite, unless a concurrent request has done so. False when it
    /// has to be read again: it may have been used and dropped meanwhile.
    pub fn admit(&self, license: LicenseId, account: Account, since: MissingSince) -> bool {
        let mut shard = self.shards[index(&license)].lock();
        let is_current = shard.sweeps == since.0;
        if is_current {
            shard.accounts.entry(license).or_insert(account).touch();
        }
        is_current
    }

    /// Changes an account, made when missing.
    pub fn change(&self, license: &LicenseId, change: &dyn Fn(&mut Account)) {
        let mut shard = self.shards[index(license)].lock();
        change(shard.accounts.entry(*license).or_default());
    }

    /// Decides, writes to the journal and applies, in that order, under one lock: there is nothing
    /// to undo on a refusal.
    pub fn reserve(&self, demand: &Demand, journal: &Journal) -> Result<Grant, Denied> {
        self.take(demand, journal, Account::fit)
    }

    /// [`Accounts::reserve`] of a request whose message is paid elsewhere, and that is within its limits.
    pub fn reserve_covered(&self, demand: &Demand, journal: &Journal) -> Result<Grant, Denied> {
        self.take(demand, journal, |_, demand, _| Ok(ReservationPlan::covered(demand.output)))
    }

    fn take(
        &self,
        demand: &Demand,
        journal: &Journal,
        fit: impl FnOnce(&Account, &Demand, &Windows) -> Result<ReservationPlan, Denied>,
    ) -> Result<Grant, Denied> {
        let index = index(&demand.license);
        let mut shard = self.shards[index].lock();
        let shard = &mut *shard;
        let windows = *shard.windows.turn(demand.now);
        let Some(account) = use_account(&mut shard.accounts, demand.license, self.residency) else {
            return Err(Denied::StoreDown);
        };
        let fit = fit(account, demand, &windows)?;
        let hold = ((shard.made + 1) << SHARD_BITS) | index as u64;
        let (group, message) = fit.standing(hold, demand.now);
        let entry = ReservedEntry {
            hold,
            license: demand.license,
            time: demand.now,
            input: demand.input,
            group,
            message,
        };
        let expected = EntryExpectation {
            names: EntryNames::of(&demand.about),
            cost: demand.input_cost,
            conversation: fit.conversation.as_ref().and_then(|counted| {
                let start = windows.of(counted.limits.messages?.per).start;
                Some((counted.id, start))
            }),
        };
        journal.append(EntryFrame::reserved(&entry, &expected)).map_err(|_| Denied::StoreDown)?;
        shard.made += 1;
        let open = account.hold(demand, fit, &windows, hold);
        shard.open.insert(hold, (demand.license, open, demand.about.clone()));
        let balance = account.balance(demand.messages, demand.tokens, &windows);
        Ok(Grant { hold, output: fit.output, input: demand.input, balance })
    }

    /// Charges once: the second call finds nothing open.
    pub fn settle(&self, hold: u64, charge: Charge, journal: &Journal) {
        let mut shard = self.shards[hold as usize % SHARDS].lock();
        let shard = &mut *shard;
        let Some((license, open, expected)) = shard.open.remove(&hold) else { return };
        // An account with something open is never dropped.
        let account = shard.accounts.entry(license).or_default();
        account.touch();
        let (taken, returned) = match account.settle(&open, charge.message, charge.tokens) {
            MessageEffect::Charged(taken) => (Some(taken), None),
            MessageEffect::Released(taken) => (None, taken.counted),
            MessageEffect::Untouched => (None, None),
        };
        let entry = SettledEntry {
            hold,
            license,
            time: open.taken.at,
            tokens: charge.tokens,
            group: open.group,
            message: taken.map(|taken| taken.at),
            returned: returned.and_then(|counted| Some((counted.id, counted.window()?))),
        };
        let about = charge.about.as_ref().unwrap_or(&expected);
        journal.append_or_keep(EntryFrame::settled(&entry, &EntryNames::of(about)));
    }

    pub fn enter(&self, pace: &RateRequest, now: UnixMs) -> Result<(), RateRefused> {
        let mut shard = self.shards[index(&pace.license)].lock();
        let shard = &mut *shard;
        let windows = *shard.windows.turn(now);
        let Some(account) = use_account(&mut shard.accounts, pace.license, self.residency) else {
            return Err(RateRefused::StoreDown);
        };
        account.enter(pace, now, &windows)?;
        if pace.rate.is_some_and(|rate| rate.per != Period::Minute) {
            shard.paced.insert(pace.license);
        }
        Ok(())
    }

    pub fn leave(&self, license: &LicenseId) {
        if let Some(account) = self.shards[index(license)].lock().accounts.get_mut(license) {
            account.leave();
        }
    }

    pub fn balance(
        &self,
        license: &LicenseId,
        messages: Option<Limit>,
        tokens: Option<Limit>,
        now: UnixMs,
    ) -> Balance {
        let mut shard = self.shards[index(license)].lock();
        let windows = *shard.windows.turn(now);
        match shard.accounts.get(license) {
            Some(account) => account.balance(messages, tokens, &windows),
            None => Account::default().balance(messages, tokens, &windows),
        }
    }

    /// The windows of `now` that an account has no counters of.
    pub fn lost(&self, license: &LicenseId, now: UnixMs) -> MissingWindows {
        let mut shard = self.shards[index(license)].lock();
        let windows = *shard.windows.turn(now);
        let account = shard.accounts.get(license);
        let starts = Period::ALL.into_iter().zip(windows.starts());
        starts.filter(|(period, start)| !account.is_some_and(|a| a.has(*period, *start))).collect()
    }

    /// Restores a missing window, unless a concurrent request has done so.
    pub fn remember(
        &self,
        license: LicenseId,
        period: Period,
        start: UnixMs,
        messages: u64,
        tokens: u64,
    ) {
        let mut shard = self.shards[index(&license)].lock();
        let shard = &mut *shard;
        let account = shard.accounts.entry(license).or_default();
        if !account.has(period, start) {
            account.restore(period, start, messages, tokens);
            let open = shard.open.values().filter(|(of, ..)| *of == license);
            open.for_each(|(_, open, _)| account.reopen(period, start, open));
        }
    }

    /// Rates that changed since the last call.
    pub fn take_rates(&self) -> Vec<(LicenseId, [Rate; 4])> {
        let mut rates = Vec::new();
        for shard in &self.shards {
            let mut shard = shard.lock();
            let paced = std::mem::take(&mut shard.paced);
            let accounts =
                paced.iter().filter_map(|id| Some((*id, shard.accounts.get(id)?.rates())));
            rates.extend(accounts);
        }
        rates
    }

    /// Has the rates of these licences kept again.
    pub fn keep_rates_again(&self, rates: &[(LicenseId, [Rate; 4])]) {
        for (license, _) in rates {
            self.shards[index(license)].lock().paced.insert(*license);
        }
    }

    /// Forgets accounts that cost memory for nothing. Where all of them are in memory: those without a count
    /// in a window that still matters (what a clock set back by a day would find again is kept). Where they
    /// are read on demand: those that were not used since the sweep before; everything that was counted
    /// before that one has to be in SQLite.
    pub fn sweep(&self, now: UnixMs) {
        let since = Windows::at(UnixMs(now.0.saturating_sub(86_400_000))).starts();
        let minute = Windows::at(now).of(Period::Minute).start;
        for shard in &self.shards {
            let Shard { accounts, sweeps, .. } = &mut *shard.lock();
            *sweeps += 1;
            accounts.retain(|_, account| {
                let is_idle = account.is_idle(now, &since);
                match self.residency {
                    Residency::Complete => !is_idle,
                    Residency::OnDemand => account.is_held(minute) || account.take_touch(),
                }
            });
        }
    }

    pub fn contribution(&self, license: &LicenseId) -> LocalShare {
        let mut shard = self.shards[index(license)].lock();
        shard.told += 1;
        let account = shard.accounts.get(license);
        let counters = account.map(Account::newest).unwrap_or_default();
        let given = account.and_then(Account::newest_given);
        LocalShare { counters, given, sequence: shard.told }
    }

    /// Applies an operator's action once: writes it to the journal, then applies it. `complete` fills in
    /// its effect. False if it was applied before.
    pub fn act(
        &self,
        mut action: OperatorAction<'static>,
        complete: impl FnOnce(&Account, &Windows, &mut OperatorAction<'static>),
        journal: &Journal,
    ) -> Result<bool, JournalFull> {
        let mut shard = self.shards[index(&action.license)].lock();
        let shard = &mut *shard;
        let done = shard.actions.entry(action.license).or_default();
        if done.iter().any(|known| known.is_same(action.kind, &action.id)) {
            return Ok(false);
        }
        let windows = *shard.windows.turn(action.time);
        let account = use_account(&mut shard.accounts, action.license, self.residency);
        let account = account.ok_or(JournalFull)?;
        complete(account, &windows, &mut action);
        journal.append(EntryFrame::action(&action))?;
        for (period, given) in action.given(&windows) {
            account.give(period, &given);
        }
        if let Some((messages, tokens)) = action.used() {
            account.count(&windows, messages, tokens);
        }
        done.push(action);
        Ok(true)
    }

    /// What operators did about a licence, oldest first.
    pub fn actions(&self, license: &LicenseId) -> Vec<OperatorAction<'static>> {
        self.shards[index(license)].lock().actions.get(license).cloned().unwrap_or_default()
    }

    pub fn restore_action(&self, action: OperatorAction<'static>) {
        let mut shard = self.shards[index(&action.license)].lock();
        shard.actions.entry(action.license).or_default().push(action);
    }

    /// What the operator gave a licence in the current windows of these periods, and how many of its
    /// requests are open.
    pub fn standing(
        &self,
        license: &LicenseId,
        periods: [Period; 2],
        now: UnixMs,
    ) -> ([GivenAllowance; 2], u64) {
        let mut shard = self.shards[index(license)].lock();
        let windows = *shard.windows.turn(now);
        let none = Account::default();
        let account = shard.accounts.get(license).unwrap_or(&none);
        let open = shard.open.values().filter(|(of, ..)| of == license).count() as u64;
        (periods.map(|period| account.given(period, &windows)), open)
    }

    /// The last reservation of a licence since the start, if its account is still kept.
    pub fn last_use(&self, license: &LicenseId) -> Option<UnixMs> {
        let shard = self.shards[index(license)].lock();
        shard.accounts.get(license).map(|account| account.seen).filter(|seen| seen.0 > 0)
    }

    /// Licences that have something settled, open or given here.
    pub fn licenses(&self) -> Vec<LicenseId> {
        let mut licenses = Vec::new();
        for shard in &self.shards {
            licenses.extend(shard.lock().accounts.keys());
        }
        licenses
    }

    /// What is nowhere but here.
    pub fn volatile(&self, now: UnixMs) -> InMemoryState {
        let mut all = InMemoryState::default();
        let minute = Windows::at(now).of(Period::Minute).start;
        for shard in &self.shards {
            let shard = shard.lock();
            all.open.extend(shard.open.iter().map(|(hold, (_, open, _))| (*hold, open.tokens)));
            all.counted.extend(shard.open.iter().filter_map(|(hold, (license, open, _))| {
                Some((*hold, shard.accounts.get(license)?.counted(open)?))
            }));
            all.made.push(shard.made);
            for (license, account) in &shard.accounts {
                if account.places() > 0 {
                    all.places.push((*license, account.places()));
                }
                if account.rates()[Period::Minute as usize].start == minute {
                    all.rates.push((*license, account.rates()));
                }
                let conversations = account.known_conversations();
                if !conversations.is_empty() {
                    all.conversations.push((*license, conversations));
                }
                let further = account.known_further_turns();
                if !further.is_empty() {
                    all.further_turns.push((*license, further));
                }
                let known = account.known_ids(now);
                if !known.is_empty() {
                    all.ids.push((*license, known));
                }
            }
        }
        all
    }

    pub fn clear(&self) {
        for shard in &self.shards {
            *shard.lock() = Shard::default();
        }
    }

    /// Takes in what another process had in memory alone; `rows` are the open reservations by SQLite.
    /// All accounts concerned have to be in memory.
    pub fn adopt(&self, volatile: &InMemoryState, rows: &[OrphanedReservation]) {
        for (shard, made) in self.shards.iter().zip(&volatile.made) {
            let mut shard = shard.lock();
            shard.made = shard.made.max(*made);
        }
        for (license, places) in &volatile.places {
            self.change(license, &|account| account.open_places(*places));
        }
        for (license, rates) in &volatile.rates {
            self.change(license, &|account| {
                Period::ALL.iter().zip(rates).for_each(|(p, rate)| account.restore_rate(*p, *rate));
            });
        }
        for (license, known) in &volatile.ids {
            self.change(license, &|account| account.remember_ids(known));
        }
        for (license, known) in &volatile.conversations {
            self.change(license, &|account| {
                known.iter().for_each(|(id, known)| account.conversations().adopt(*id, known));
            });
        }
        for (license, known) in &volatile.further_turns {
            self.change(license, &|account| {
                let table = account.conversations();
                known.iter().for_each(|(id, known)| table.adopt_further(*id, known));
            });
        }
        let tokens: FxHashMap<u64, u64> = volatile.open.iter().copied().collect();
        let counted: FxHashMap<u64, CountedMessage> = volatile.counted.iter().copied().collect();
        for OrphanedReservation { reserved: row, about, .. } in rows {
            let Some(tokens) = tokens.get(&row.hold) else { continue };
            let mut shard = self.shards[index(&row.license)].lock();
            let counted = counted.get(&row.hold).copied();
            let account = shard.accounts.entry(row.license).or_default();
            let open = account.adopt(row, *tokens, counted);
            shard.open.insert(row.hold, (row.license, open, about.clone()));
            shard.made = shard.made.max(row.hold >> SHARD_BITS);
        }
    }

    #[cfg(test)]
    pub fn count(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().accounts.len()).sum()
    }

    pub fn open(&self) -> u64 {
        self.shards.iter().map(|shard| shard.lock().open.len() as u64).sum()
    }
}

/// An account that is about to be used: made where it can't be in SQLite, else `None` when it was not read.
fn use_account(
    accounts: &mut FxHashMap<LicenseId, Account>,
    license: LicenseId,
    residency: Residency,
) -> Option<&mut Account> {
    let account = match residency {
        Residency::Complete => accounts.entry(license).or_default(),
        Residency::OnDemand => accounts.get_mut(&license)?,
    };
    account.touch();
    Some(account)
}

/// A licence's id is an HMAC: any of its bits spread evenly.
fn index(license: &LicenseId) -> usize {
    usize::from(license.0[0]) % SHARDS
}
