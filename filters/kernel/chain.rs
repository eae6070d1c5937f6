//! The filters in the order YAML gives them: built once per configuration, run for each request.

use std::{sync::Arc, time::Instant};

use serde_json::Value;

use super::{
    exchange::{Delivery, Doubt, Endpoint, Exchange, MOST_OUTPUT, Outcome},
    filter::{Filter, Hooks, ResponseHead, Services, Spec, Verdict},
    model_request::ModelRequest,
    ports::{CostSink, UnseenEstimate, Whole},
    reading::Reading,
    route::Route,
    usage::{Metered, Usage},
};

/// A filter as the configuration names it.
#[derive(Debug, Clone, PartialEq)]
pub struct FilterUse {
    pub name: String,
    /// An object; empty when YAML gives just the name.
    pub options: Value,
}

/// What is wrong with the filter at `index` of the list; `None` is about the list as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainProblem {
    pub index: Option<usize>,
    pub message: String,
}

type Build = fn(Value, &Services) -> Result<(Arc<dyn Filter>, Value), String>;

struct Entry {
    name: &'static str,
    summary: &'static str,
    after: &'static [&'static str],
    build: Build,
}

/// All filters that YAML can name. An explicit list: greppable, and a double name panics at start.
#[derive(Default)]
pub struct Registry {
    entries: Vec<Entry>,
}

fn build<S: Spec>(options: Value, services: &Services) -> Result<(Arc<dyn Filter>, Value), String> {
    let spec: S = serde_json::from_value(options).map_err(|error| error.to_string())?;
    let effective = serde_json::to_value(&spec).map_err(|error| error.to_string())?;
    Ok((spec.build(services)?, effective))
}

impl Registry {
    /// Adds a filter.
    ///
    /// # Panics
    /// When the name is taken: two filters under one name are a programming error.
    #[must_use]
    pub fn with<S: Spec>(mut self) -> Self {
        assert!(self.find(S::NAME).is_none(), "two filters are named {}", S::NAME);
        self.entries.push(Entry {
            name: S::NAME,
            summary: S::SUMMARY,
            after: S::AFTER,
            build: build::<S>,
        });
        self
    }

    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.entries.iter().map(|entry| entry.name)
    }

    fn find(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.name == name)
    }

    /// Builds the chain, or reports everything that is wrong with it.
    ///
    /// # Errors
    /// Unknown and doubled filters, options that do not fit, broken order, no `license`.
    pub fn chain(
        &self,
        uses: &[FilterUse],
        services: &Services,
    ) -> Result<Chain, Vec<ChainProblem>> {
        let mut problems = self.check_order(uses);
        let mut steps = Vec::with_capacity(uses.len());
        for (index, used) in uses.iter().enumerate() {
            let Some(entry) = self.find(&used.name) else { continue };
            match (entry.build)(used.options.clone(), services) {
                Ok((filter, options)) => {
                    steps.push(ChainStep {
                        name: entry.name,
                        hooks: filter.hooks(),
                        summary: entry.summary,
                        options,
                        filter,
                    });
                }
                Err(message) => {
                    let message = format!("filter `{}`: {message}", used.name);
                    problems.push(ChainProblem { index: Some(index), message });
                }
            }
        }
        let expenses = services.expenses.clone();
        if problems.is_empty() { Ok(Chain { steps, expenses }) } else { Err(problems) }
    }

    fn check_order(&self, uses: &[FilterUse]) -> Vec<ChainProblem> {
        let place = |name: &str| uses.iter().position(|used| used.name == name);
        let mut problems = Vec::new();
        let mut report = |index, message| problems.push(ChainProblem { index, message });
        for (index, used) in uses.iter().enumerate() {
            let Some(entry) = self.find(&used.name) else {
                report(Some(index), self.unknown(&used.name));
                continue;
            };
            if place(&used.name) != Some(index) {
                report(Some(index), format!("filter `{}` stands twice in the chain", used.name));
            }
            for before in entry.after {
                if place(before).is_some_and(|at| at > index) {
                    report(Some(index), format!("`{}` must stand after `{before}`", used.name));
                }
            }
        }
        if place("license").is_none() {
            report(
                None,
                "the chain has no `license` filter: requests would need no licence".into(),
            );
        }
        problems
    }

    fn unknown(&self, name: &str) -> String {
        let near = self
            .names()
            .map(|known| (strsim::damerau_levenshtein(known, name), known))
            .min()
            .filter(|(distance, _)| *distance <= 3);
        match near {
            Some((_, known)) => format!("unknown filter `{name}`; did you mean `{known}`?"),
            None => {
                let known: Vec<_> = self.names().collect();
                format!("unknown filter `{name}`; there are {}", known.join(", "))
            }
        }
    }
}

/// One filter in its place.
pub struct ChainStep {
    pub name: &'static str,
    pub summary: &'static str,
    /// Effective options, defaults filled in.
    pub options: Value,
    hooks: Hooks,
    filter: Arc<dyn Filter>,
}

/// An ordered, immutable list of filters.
pub struct Chain {
    steps: Vec<ChainStep>,
    expenses: Arc<dyn CostSink>,
}

impl Chain {
    pub fn steps(&self) -> &[ChainStep] {
        &self.steps
    }

    fn with(&self, hook: Hooks) -> impl DoubleEndedIterator<Item = &ChainStep> {
        self.steps.iter().filter(move |step| step.hooks.has(hook))
    }

    /// # Errors
    /// The first refusal; filters below it are not entered.
    pub async fn admit(&self, exchange: &mut Exchange) -> Verdict {
        for (index, step) in self.steps.iter().enumerate() {
            exchange.entered = index + 1;
            if step.hooks.has(Hooks::ADMIT) {
                step.filter.admit(exchange).await?;
            }
        }
        Ok(())
    }

    /// # Errors
    /// The first refusal.
    pub async fn request(&self, exchange: &mut Exchange, ask: &mut ModelRequest) -> Verdict {
        for step in self.with(Hooks::REQUEST) {
            step.filter.request(exchange, ask).await?;
        }
        Ok(())
    }

    pub fn response(&self, exchange: &mut Exchange, head: &mut ResponseHead) {
        for step in self.with(Hooks::RESPONSE).rev() {
            step.filter.response(exchange, head);
        }
    }

    pub fn chunk(&self, exchange: &mut Exchange, reading: &Reading) {
        for step in self.with(Hooks::CHUNK) {
            step.filter.chunk(exchange, reading);
        }
    }

    /// Settles every filter that was entered, and what the answer cost, once; later calls do nothing.
    pub fn settle(&self, exchange: &mut Exchange, outcome: &Outcome) {
        if std::mem::replace(&mut exchange.closed, true) {
            return;
        }
        self.look_back(exchange, outcome);
        for step in self.steps[..exchange.entered].iter().rev() {
            if step.hooks.has(Hooks::SETTLE) {
                step.filter.settle(exchange, outcome);
            }
        }
        // Last: a filter may have corrected what the provider reported.
        exchange.cost = exchange.wasted_cost;
        let Some(target) = &exchange.served else { return };
        let usage = exchange.usage().0;
        let Some(price) = target.price else { return };
        let cost = price.cost(&usage);
        if cost > 0 {
            self.expenses.spend(target, cost, exchange.now);
        }
        exchange.cost = exchange.cost.saturating_add(cost);
        let complex = exchange.route.as_ref().and_then(Route::would_cost);
        let complex = complex.map_or(0, |price| price.cost(&usage));
        exchange.saved = complex.saturating_sub(cost);
    }

    /// Learns from a complete answer; estimates the undelivered rest of one that is not.
    fn look_back(&self, exchange: &mut Exchange, outcome: &Outcome) {
        let Some(target) = exchange.served.clone() else { return };
        let now = Instant::now();
        let Some(cut) = exchange.cut(now).filter(|_| exchange.endpoint != Endpoint::Embeddings)
        else {
            return;
        };
        match outcome.delivery {
            Delivery::Whole if exchange.metered.is_counted_whole() => {
                let Some(usage) = exchange.metered.reported else { return };
                let from = exchange.headed.filter(|_| cut.streamed).unwrap_or(cut.sent);
                let answer = Whole {
                    streamed: cut.streamed,
                    took: now.saturating_duration_since(from),
                    output: usage.output,
                    reasoning: usage.reasoning,
                    seen: exchange.metered.seen_millitokens.tokens(exchange.metered.vocabulary),
                };
                self.expenses.learn(&target, &answer);
            }
            Delivery::Whole => self.expenses.answered(&target),
            Delivery::Abandoned | Delivery::Broken => {
                exchange.metered.unseen = self.expenses.unseen(&target, &cut).tokens;
                // The provider works on it, whether it has begun to answer or not.
                exchange.progress.answered = true;
                if exchange.progress.delivered {
                    self.expenses.answered(&target);
                }
            }
            _ => {}
        }
    }

    /// An attempt has failed on which its provider had worked: its cost is recorded, though no app received
    /// anything.
    pub fn waste(&self, exchange: &mut Exchange) {
        let Some(target) = exchange.served.clone() else { return };
        let Some(cut) = exchange.cut(Instant::now()) else { return };
        let (input, most) = (exchange.input_estimate(), exchange.input.most());
        let metered = &mut exchange.metered;
        if metered.counted().is_some() || !metered.seen_millitokens.is_zero() {
            exchange.spoilt = metered.usage(input).0.within(most, MOST_OUTPUT).total();
        }
        let unseen = match exchange.endpoint {
            Endpoint::Embeddings => UnseenEstimate::default(),
            _ => self.expenses.unseen(&target, &cut),
        };
        metered.unseen = unseen.tokens;
        let usage = metered.usage(input).0.within(most, MOST_OUTPUT);
        exchange.wasted.add(&usage);
        exchange.last_wasted = usage.output;
        let output = Usage { output: unseen.doubtful, ..Usage::default() };
        let price = |usage: &Usage| target.price.map_or(0, |price| price.cost(usage));
        let (cost, doubtful) = (price(&usage), price(&output));
        if cost > 0 {
            exchange.wasted_cost = exchange.wasted_cost.saturating_add(cost);
            self.expenses.spend(&target, cost, exchange.now);
            if let Some(license) = &exchange.license {
                self.expenses.waste(&license.id, &target, cost, exchange.now);
            }
        }
        if unseen.doubtful > 0 {
            exchange.doubtful.push(Doubt { target, tokens: unseen.doubtful, cost: doubtful });
        }
        exchange.metered = Metered::default();
        (exchange.written, exchange.headed) = (None, None);
        exchange.progress.answered = false;
    }
}
