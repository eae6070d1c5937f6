//! A random walk beside a model that is too simple to be wrong.

use std::collections::{HashMap, HashSet};

use proptest::prelude::*;

use super::{on_demand::sweep, *};

#[derive(Debug, Clone)]
enum Step {
    Reserve { id: Option<u8>, input: u64, output: u64, later: u64 },
    Settle { nth: usize, message: bool, tokens: u64 },
    Grant { messages: u64, tokens: u64 },
    Reset,
    Restart,
    Sweep,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (prop::option::of(0..3_u8), 0..40_u64, 0..60_u64, 0..40_000_u64)
            .prop_map(|(id, input, output, later)| Step::Reserve { id, input, output, later }),
        6 => (any::<usize>(), any::<bool>(), 0..60_u64)
            .prop_map(|(nth, message, tokens)| Step::Settle { nth, message, tokens }),
        1 => (0..3_u64, 0..80_u64).prop_map(|(messages, tokens)| Step::Grant { messages, tokens }),
        1 => Just(Step::Reset),
        1 => Just(Step::Restart),
        1 => Just(Step::Sweep),
    ]
}

/// A request of the model: its message is that of its group.
struct Asked {
    hold: u64,
    group: usize,
    input: u64,
    output: u64,
}

#[derive(Default)]
struct Model {
    now: u64,
    open: Vec<Asked>,
    charged: HashSet<usize>,
    tokens: u64,
    /// Messages and tokens that the operator gave.
    extra: [u64; 2],
    /// Charged messages and tokens at the last reset.
    forgiven: [u64; 2],
    actions: u64,
    groups: usize,
    /// Group, time of its first request, number of requests.
    ids: HashMap<u8, (usize, u64, u32)>,
}

impl Model {
    fn used(&self) -> u64 {
        let open = self.open.iter().map(|asked| asked.group);
        let used = self.charged.iter().copied().chain(open).collect::<HashSet<_>>().len() as u64;
        used - self.forgiven[0]
    }

    fn used_tokens(&self) -> u64 {
        self.tokens - self.forgiven[1]
    }

    fn allowed(&self) -> [u64; 2] {
        [MESSAGES + self.extra[0], TOKENS + self.extra[1]]
    }

    fn held(&self) -> u64 {
        self.open.iter().map(|asked| asked.input + asked.output).sum()
    }

    fn group(&self, id: Option<u8>) -> usize {
        match id.and_then(|id| self.ids.get(&id)) {
            Some((group, first, requests)) if self.now - first < 600_000 && *requests < 10 => {
                *group
            }
            _ => self.groups,
        }
    }

    fn costs_a_message(&self, group: usize) -> bool {
        !self.charged.contains(&group) && !self.open.iter().any(|asked| asked.group == group)
    }

    fn grant(&mut self, id: Option<u8>, asked: Asked) {
        if let Some(id) = id {
            let begun = (asked.group, self.now, 0);
            let entry = self.ids.entry(id).or_insert(begun);
            if entry.0 != asked.group {
                *entry = begun;
            }
            entry.2 += 1;
        }
        self.groups = self.groups.max(asked.group + 1);
        self.open.push(asked);
    }

    fn settle(&mut self, asked: &Asked, message: bool, tokens: u64) {
        self.tokens += tokens;
        if message {
            self.charged.insert(asked.group);
        }
    }
}

const MESSAGES: u64 = 6;
const TOKENS: u64 = 300;

fn walk(steps: Vec<Step>) {
    let store = Store::new();
    let mut ledger = store.open();
    let mut model = Model { now: NOW.0, ..Model::default() };
    for step in steps {
        match step {
            Step::Reserve { id, input, output, later } => {
                model.now += later;
                check_reserve(&ledger, &mut model, id, input, output);
            }
            Step::Settle { nth, message, tokens } if !model.open.is_empty() => {
                let asked = model.open.swap_remove(nth % model.open.len());
                model.settle(&asked, message, tokens);
                ledger.settle(asked.hold, Charge { message, ..charge(tokens) });
                ledger.settle(asked.hold, charge(1_000));
            }
            Step::Settle { .. } => {}
            Step::Grant { messages, tokens } => {
                model.actions += 1;
                let (id, now) = (model.actions.to_string(), UnixMs(model.now));
                let give = || ledger.grant(&order(ANNA, &id), [messages, tokens], now).unwrap();
                assert!(give() && !give());
                model.extra = [model.extra[0] + messages, model.extra[1] + tokens];
            }
            Step::Reset => {
                model.actions += 1;
                let (id, now) = (model.actions.to_string(), UnixMs(model.now));
                let forgive = || ledger.reset(&order(ANNA, &id), now).unwrap();
                assert!(forgive() && !forgive());
                model.forgiven = [model.charged.len() as u64, model.tokens];
            }
            Step::Sweep => sweep(&ledger, UnixMs(model.now)),
            Step::Restart => {
                drop(ledger);
                ledger = store.open();
                for asked in std::mem::take(&mut model.open) {
                    model.settle(&asked, true, asked.input);
                }
                model.ids.clear();
            }
        }
        assert_eq!(used(&ledger, ANNA), (model.used(), model.used_tokens()));
        assert!(model.used() <= model.allowed()[0]);
        check_balance(&ledger, &model);
        assert_eq!(ledger.open_reservations(), model.open.len() as u64);
    }
}

fn check_balance(ledger: &EmbeddedLedger, model: &Model) {
    let limits = (month(MESSAGES), month(TOKENS));
    let seen = ledger.overview(&ANNA, limits.0, limits.1, UnixMs(model.now)).unwrap();
    let [messages, tokens] = model.allowed();
    assert_eq!(
        (seen.balance.messages.limit, seen.balance.tokens.limit),
        (Some(messages), Some(tokens))
    );
    assert_eq!(seen.balance.messages.left, Some(messages - model.used()));
    assert_eq!(seen.messages, Adjustment { extra: model.extra[0], forgiven: model.forgiven[0] });
    assert_eq!(seen.tokens, Adjustment { extra: model.extra[1], forgiven: model.forgiven[1] });
    assert_eq!(seen.open, model.open.len() as u64);
}

fn check_reserve(
    ledger: &EmbeddedLedger,
    model: &mut Model,
    id: Option<u8>,
    input: u64,
    output: u64,
) {
    let group = model.group(id);
    let demand = Demand {
        now: UnixMs(model.now),
        messages: month(MESSAGES),
        tokens: month(TOKENS),
        input,
        output: Some(output),
        message_id: id.map(|id| format!("m{id}").into()),
        ..ask(ANNA)
    };
    let floor = output.min(20);
    let [messages, tokens] = model.allowed();
    let unsettled = tokens.saturating_sub(model.used_tokens());
    let left = unsettled.saturating_sub(model.held());
    match reserve(ledger, &demand) {
        Ok(grant) => {
            assert!(!model.costs_a_message(group) || model.used() < messages);
            let output = grant.output.unwrap();
            assert!(input + output <= left && output <= demand.output.unwrap());
            assert!(output == demand.output.unwrap() || input + output == left);
            assert!(output >= floor);
            model.grant(id, Asked { hold: grant.hold, group, input, output });
        }
        Err(Denied::Messages { limit, .. }) => {
            assert_eq!(limit.count, messages);
            assert!(model.costs_a_message(group) && model.used() >= messages);
        }
        Err(Denied::Busy) => assert!(input + floor > left && input + floor <= unsettled),
        Err(Denied::Tokens { .. }) => assert!(input + floor > unsettled),
        Err(Denied::StoreDown | Denied::TooFast(_) | Denied::Conversation(_)) => {
            panic!("the store is up")
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..<_>::default() })]

    #[test]
    fn the_ledger_does_what_the_model_does(steps in prop::collection::vec(step(), 1..60)) {
        walk(steps);
    }
}
