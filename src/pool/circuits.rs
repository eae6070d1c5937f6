//! The circuits of one provider. Faults count against the account that met them; the provider itself is
//! passed over when most of its accounts fail.

use std::{sync::Arc, time::Instant};

use super::breaker::{Breaker, BreakerDecision, Circuit, Fault, OutcomeWindow};

/// One for the provider, and one for each of its accounts. The breakers outlive a reload.
pub struct Circuits {
    pub provider: Arc<Breaker>,
    accounts: Vec<Account>,
}

struct Account {
    breaker: Arc<Breaker>,
    /// Some key of it is not switched off: only such accounts count.
    in_use: bool,
}

/// What an attempt finds out for others, and has to end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CircuitProbes {
    /// It is the one request that a half-open provider is tried by.
    pub provider: bool,
    /// The same of its account.
    pub account: bool,
    /// It passes an open circuit because nothing else is left.
    pub through: bool,
}

impl CircuitProbes {
    pub fn is_any(self) -> bool {
        self.provider || self.account || self.through
    }
}

/// What became known just now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CircuitsOpened {
    pub provider: Option<Fault>,
    pub account: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CircuitsClosed {
    pub provider: bool,
    pub account: bool,
}

impl Circuits {
    /// Accounts in the order in which keys name them, each with whether it is in use.
    pub fn new(
        provider: Arc<Breaker>,
        accounts: impl IntoIterator<Item = (Arc<Breaker>, bool)>,
    ) -> Self {
        let account = |(breaker, in_use)| Account { breaker, in_use };
        Self { provider, accounts: accounts.into_iter().map(account).collect() }
    }

    pub fn accounts(&self) -> impl Iterator<Item = &Breaker> {
        self.accounts.iter().map(|account| &*account.breaker)
    }

    pub fn account(&self, place: usize) -> &Breaker {
        &self.accounts[place].breaker
    }

    /// Whether an account may be asked; a trial that is granted has to be ended.
    pub fn pass(&self, account: usize, now: Instant) -> BreakerDecision {
        self.account(account).pass(now)
    }

    /// Whether a request that has nothing else left may pass to this account.
    pub fn lets_through(&self, account: usize) -> bool {
        self.provider.lets_through() && self.account(account).lets_through()
    }

    /// Whether neither the provider's circuit nor the account's is open.
    pub fn is_closed(&self, account: usize) -> bool {
        let is_closed = |breaker: &Breaker| breaker.circuit() == Circuit::Closed;
        is_closed(&self.provider) && is_closed(self.account(account))
    }

    /// An answer, or a refusal that only a healthy provider gives.
    pub fn answered(&self, account: usize, trials: CircuitProbes, now: Instant) -> CircuitsClosed {
        let account = self.account(account).answered(trials.is_any(), now);
        let provider = (trials.provider || trials.through) && self.provider.close();
        CircuitsClosed { provider, account }
    }

    pub fn failed(
        &self,
        account: usize,
        fault: Fault,
        trials: CircuitProbes,
        now: Instant,
    ) -> CircuitsOpened {
        let is_trial = trials.account || trials.provider;
        let account = self.account(account).failed(fault, is_trial, now);
        if self.provider.circuit() != Circuit::Closed {
            if trials.provider {
                self.provider.open(fault, now);
            }
            return CircuitsOpened { provider: None, account };
        }
        let provider = self.common_fault(now);
        if let Some(fault) = provider {
            self.provider.open(fault, now);
        }
        CircuitsOpened { provider, account }
    }

    /// What most of the accounts suffer from, if most of them do and it was seen often enough.
    fn common_fault(&self, now: Instant) -> Option<Fault> {
        let (mut sum, mut failing, mut count) = (OutcomeWindow::default(), 0, 0);
        for account in self.accounts.iter().filter(|account| account.in_use) {
            let tally = account.breaker.tally(now);
            count += 1;
            // A single fault of a single attempt is not conclusive.
            let fails = tally.failed > 1 && tally.is_failing();
            if fails || account.breaker.circuit() != Circuit::Closed {
                sum.add(tally);
                failing += 1;
            }
        }
        (failing * 2 > count && sum.is_enough()).then(|| sum.fault())
    }

    /// The probes were inconclusive.
    pub fn end(&self, account: usize, trials: CircuitProbes) {
        if trials.account {
            self.account(account).end_trial();
        }
        if trials.provider {
            self.provider.end_trial();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn circuits(accounts: &[bool]) -> Circuits {
        super::super::backoff::start_clock();
        let account = |in_use: &bool| (Arc::new(Breaker::default()), *in_use);
        Circuits::new(Arc::default(), accounts.iter().map(account))
    }

    fn fail(circuits: &Circuits, account: usize, fault: Fault) -> CircuitsOpened {
        circuits.failed(account, fault, CircuitProbes::default(), Instant::now())
    }

    #[test]
    fn one_failing_account_of_two_is_left_alone_and_the_provider_serves() {
        let (circuits, now) = (circuits(&[true, true]), Instant::now());
        let opened: Vec<bool> = (0..4).map(|_| fail(&circuits, 0, Fault::Quick).account).collect();
        assert_eq!(opened, [false, false, false, true]);
        circuits.answered(1, CircuitProbes::default(), now);
        for _ in 0..20 {
            assert_eq!(fail(&circuits, 0, Fault::Quick), CircuitsOpened::default());
        }
        assert_eq!(
            (circuits.provider.pass(now), circuits.pass(1, now)),
            (BreakerDecision::Free, BreakerDecision::Free)
        );
        assert_eq!(circuits.pass(0, now), BreakerDecision::No);
        assert!(circuits.is_closed(1) && !circuits.is_closed(0));
    }

    #[test]
    fn a_provider_is_out_when_most_of_its_accounts_are() {
        for (accounts, failing, is_out) in
            [(1, 1, true), (2, 1, false), (2, 2, true), (3, 1, false), (3, 2, true), (5, 3, true)]
        {
            let circuits = circuits(&vec![true; accounts]);
            for account in (0..accounts).cycle().take(accounts * 6) {
                if account < failing {
                    fail(&circuits, account, Fault::Silent);
                } else {
                    circuits.answered(account, CircuitProbes::default(), Instant::now());
                }
            }
            let circuit = circuits.provider.circuit();
            assert_eq!(circuit == Circuit::Open, is_out, "{failing} of {accounts}");
            assert!(!is_out || !circuits.provider.lets_through());
        }
    }

    #[test]
    fn four_faults_over_all_accounts_are_enough_and_switched_off_ones_do_not_count() {
        let all = circuits(&[true, true]);
        let opened = [0, 1, 0, 1].map(|account| fail(&all, account, Fault::Quick).provider);
        assert_eq!(opened, [None, None, None, Some(Fault::Quick)]);
        let one = circuits(&[true, false, false]);
        let opened: Vec<_> = (0..4).map(|_| fail(&one, 0, Fault::Quick).provider).collect();
        assert_eq!(opened[3], Some(Fault::Quick));
    }

    #[test]
    fn an_answer_through_an_open_circuit_closes_it_and_a_failed_trial_opens_it_again() {
        let (circuits, now) = (circuits(&[true]), Instant::now());
        for _ in 0..4 {
            fail(&circuits, 0, Fault::Quick);
        }
        assert!(circuits.lets_through(0) && !circuits.is_closed(0));
        let through = CircuitProbes { through: true, ..CircuitProbes::default() };
        assert_eq!(circuits.failed(0, Fault::Quick, through, now), CircuitsOpened::default());
        let closed = circuits.answered(0, through, now);
        assert_eq!(closed, CircuitsClosed { provider: true, account: true });
        assert!(circuits.is_closed(0));
        for _ in 0..4 {
            fail(&circuits, 0, Fault::Quick);
        }
        circuits.provider.half_open();
        assert_eq!(circuits.provider.pass(now), BreakerDecision::Trial);
        let trial = CircuitProbes { provider: true, ..CircuitProbes::default() };
        circuits.failed(0, Fault::Silent, trial, now + Duration::from_secs(1));
        assert_eq!(circuits.provider.circuit(), Circuit::Open);
        assert!(!circuits.lets_through(0), "the trial was silent");
    }
}
