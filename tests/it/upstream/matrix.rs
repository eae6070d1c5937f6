//! Every fault of a provider at every position, with one to three keys, in every dialect: what the app
//! sees, which keys were asked, and what is charged.
//!
//! One gateway and one mock. A cell is a provider of its own, with an address, a model and a licence
//! of its own, so that no cell can be seen in another.

#[path = "matrix/faults.rs"]
mod faults;
#[path = "matrix/limits.rs"]
mod limits;
#[path = "matrix/rules.rs"]
mod rules;
#[path = "matrix/ways.rs"]
mod ways;

use std::{sync::Arc, time::Duration};

use serde_json::Value;
use tokio::{sync::Semaphore, task::JoinSet};

use self::{
    faults::{Fault, OWN_FAULT, faults},
    rules::{Class, Mends, Sees, Tokens, charge, rule},
    ways::{WAYS, Way},
};
use crate::{
    downstream::disconnect::over,
    support::{Answer, Config, Gate, Gateway, Http, Mock, Reply, mock::nobody, within},
};

/// Cells under way at one time.
const AT_ONCE: usize = 48;
/// Faults that a clock finds out, and the others, which no clock must touch.
const QUICK: &str = "first_byte: 1500ms, first_token: 1500ms, idle: 1500ms, total: 5s";
const PATIENT: &str = "first_byte: 30s, first_token: 30s, idle: 30s";
/// Between these, the trickle that works.
const TRICKLE: &str = "first_byte: 30s, first_token: 30s, idle: 2s";

struct Cell {
    number: usize,
    way: &'static Way,
    fault: Fault,
    gate: Gate,
    keys: usize,
    /// The first key alone meets the fault.
    once: bool,
}

/// What a cell came to.
struct Outcome {
    sees: Sees,
    requests: usize,
}

impl Cell {
    fn name(&self) -> String {
        format!("c{}", self.number)
    }

    fn license(&self) -> String {
        format!("JSTAR-CELL-{:04}", self.number)
    }

    fn title(&self) -> String {
        let (way, fault) = (self.way.name, &self.fault);
        let keys = if self.once { "the first" } else { "all" };
        format!("{way}, {:?}: {}, {keys} of {} keys", fault.at, fault.name, self.keys)
    }

    fn keys(&self) -> Vec<String> {
        (1..=self.keys).map(|key| format!("{}.{key}", self.name())).collect()
    }

    /// Of three keys the first two are one account's.
    fn account(&self, key: &str) -> usize {
        let place = self.keys().iter().position(|known| known == key).expect("one of its keys");
        if self.keys == 3 { place / 2 } else { place }
    }

    fn configure(&self, config: Config, mock: &Mock, dead: &str) -> Config {
        let (name, keys) = (self.name(), self.keys());
        let base = match self.fault.reply {
            Some(_) => {
                let (high, low) = (1 + self.number / 250, 1 + self.number % 250);
                format!("http://127.{high}.{low}.1:{}/v1", mock.addr.port())
            }
            None => dead.to_owned(),
        };
        let timeouts = match self.fault.class {
            _ if self.fault.quick => QUICK,
            Class::Fine => TRICKLE,
            _ => PATIENT,
        };
        let dialect = self.way.provider.dialect();
        let more = format!(", dialect: {dialect}, timeouts: {{ connect: 3s, {timeouts} }}");
        let secrets: Vec<&str> = keys.iter().map(String::as_str).collect();
        let mut config = config
            .provider_at(&name, &base, &more, &secrets)
            .model(&name, &format!("[{name}/m1]"))
            .license(&self.license(), "free");
        for (place, key) in keys.iter().enumerate() {
            config = config.member(&name, place, &format!("group: account-{}", self.account(key)));
        }
        config
    }

    fn script(&self, mock: &Mock) {
        let Some(bad) = self.fault.reply.clone() else { return };
        let replies = if self.once { vec![bad, self.way.good()] } else { vec![bad] };
        mock.key(&self.name(), replies);
    }

    fn expected(&self) -> Outcome {
        let rule = rule(self.fault.class);
        let is_mended = self.once && rule.mends != Mends::Nobody && self.fault.reply.is_some();
        match is_mended {
            true => Outcome { sees: Sees::Whole, requests: 2 },
            false => Outcome { sees: rule.sees, requests: rule.requests[self.keys - 1] },
        }
    }

    async fn run(&self, app: &Http, mock: &Mock) {
        let answer = self.ask(app).await;
        let expected = self.expected();
        match expected.sees {
            Sees::Whole => {
                self.way.is_whole(&answer);
                assert_eq!(answer.number("x-gatekeeper-attempts"), expected.requests as u64);
            }
            Sees::Broken => self.way.is_broken(&answer),
            Sees::Relayed(status) => self.way.is_relayed(&answer, status, OWN_FAULT),
            Sees::Told(status) => self.way.is_told(&answer, status),
            Sees::Refused(status, code) => self.way.is_refused(&answer, status, code),
        }
        if self.fault.reply.is_some() {
            self.check_keys(&mock.asked_of(&self.name()), expected.requests);
        }
    }

    /// Every request on a key of its own as long as there are some, and of an account of its own where the account
    /// was at fault.
    fn check_keys(&self, seen: &[String], requests: usize) {
        assert_eq!(seen.len(), requests, "requests: {seen:?}");
        let mends = rule(self.fault.class).mends;
        if mends == Mends::Again {
            return;
        }
        let mut distinct = seen.to_vec();
        distinct.sort();
        distinct.dedup();
        let most = requests.min(self.keys);
        assert_eq!(distinct.len(), most, "a key was asked twice: {seen:?}");
        if mends == Mends::AnotherAccount {
            let mut accounts: Vec<usize> = seen.iter().map(|key| self.account(key)).collect();
            accounts.sort_unstable();
            accounts.dedup();
            assert_eq!(accounts.len(), requests, "an account was asked twice: {seen:?}");
        }
    }

    async fn ask(&self, app: &Http) -> Answer {
        let model = self.name();
        let request = app
            .request("POST", &self.way.path(&model))
            .bearer_auth(self.license())
            .header("content-type", "application/json")
            .body(self.way.body(&model).to_string());
        let asked = within(Duration::from_secs(40), "an answer", request.send()).await;
        let mut response = asked.expect("an answer");
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let mut body = Vec::new();
        let whole = loop {
            let read = within(Duration::from_secs(40), "the answer's end", response.chunk()).await;
            match read {
                Ok(Some(bytes)) => body.extend_from_slice(&bytes),
                Ok(None) => break true,
                Err(_) => break false,
            }
            self.gate.open();
        };
        Answer { status, headers, body: body.into(), whole }
    }

    fn check_charge(&self, limits: &Value) {
        let used = |kind: &str| limits[kind]["used"].as_u64().expect("a limit");
        let sees = self.expected().sees;
        let (messages, tokens) = charge(sees, self.fault.counted);
        assert_eq!(used("messages"), messages, "messages");
        let (charged, reported) = (used("tokens"), self.way.provider.tokens());
        match tokens {
            Tokens::None => assert_eq!(charged, 0, "tokens"),
            Tokens::Some => {
                assert!((1..=reported + 20).contains(&charged), "tokens: {charged}");
            }
            Tokens::AtMost => assert!(charged <= reported + 20, "tokens: {charged}"),
            Tokens::Reported => assert_eq!(charged, reported, "tokens"),
        }
    }
}

fn cells() -> Vec<Cell> {
    let mut cells = Vec::new();
    for way in &WAYS {
        let count = faults(way, &Gate::new()).len();
        for (keys, once) in [(1, false), (2, false), (2, true), (3, false), (3, true)] {
            for place in 0..count {
                let gate = Gate::new();
                let fault = faults(way, &gate).swap_remove(place);
                cells.push(Cell { number: cells.len(), way, fault, gate, keys, once });
            }
        }
    }
    cells
}

/// What went wrong, cell by cell.
#[derive(Default)]
struct Wrong(Vec<String>);

/// Of one gateway.
const CELLS: usize = 1500;

impl Wrong {
    /// With what the gateway said of that provider.
    fn note(&mut self, cell: &Cell, why: tokio::task::JoinError, gateway: &Gateway) {
        let panic = why.into_panic();
        let words = panic.downcast_ref::<String>().cloned();
        let words = words.or_else(|| panic.downcast_ref::<&str>().map(|it| (*it).to_owned()));
        let (logs, target) = (gateway.logs(), format!("={}/", cell.name()));
        let provider = format!("\"{}\"", cell.name());
        let said = |line: &&str| line.contains(&target) || line.contains(&provider);
        let said: Vec<&str> = logs.lines().filter(said).collect();
        let words = words.unwrap_or_default();
        self.0.push(format!("{}: {words}\n{}", cell.title(), said.join("\n")));
    }
}

async fn run_all(cells: &[Arc<Cell>], mock: &Arc<Mock>, config: Config, wrong: &mut Wrong) {
    let gateway = Gateway::start(config).await;
    let (app, places) = (gateway.app(), Arc::new(Semaphore::new(AT_ONCE)));
    let mut running = JoinSet::new();
    for cell in cells {
        let (cell, app, mock) = (cell.clone(), app.clone(), mock.clone());
        let place = places.clone().acquire_owned().await.unwrap();
        running.spawn(async move {
            let task = {
                let cell = cell.clone();
                tokio::spawn(async move { cell.run(&app, &mock).await })
            };
            let result = task.await;
            drop(place);
            (cell, result)
        });
    }
    while let Some(done) = running.join_next().await {
        if let (cell, Err(why)) = done.unwrap() {
            wrong.note(&cell, why, &gateway);
        }
    }
    // Nothing is open any more: what is charged now stays.
    over(&gateway).await;
    for cell in cells {
        let me = gateway.me(&cell.license()).await;
        let checked = cell.clone();
        let check = tokio::spawn(async move { checked.check_charge(&me["limits"]) });
        if let Err(why) = check.await {
            wrong.note(cell, why, &gateway);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_fault_at_every_position_comes_to_what_was_promised() {
    let mock = Arc::new(Mock::everywhere(Reply::status(418)).await);
    let cells: Vec<Arc<Cell>> = cells().into_iter().map(Arc::new).collect();
    let plan = "messages: 100/month, tokens: 1000000/month, models: [\"*\"]";
    let dead = nobody();
    let mut wrong = Wrong::default();
    // A configuration may have 1 MiB.
    for some in cells.chunks(CELLS) {
        let mut config = Config::empty().plan("free", plan);
        for cell in some {
            config = cell.configure(config, &mock, &dead);
            cell.script(&mock);
        }
        run_all(some, &mock, config, &mut wrong).await;
    }
    wrong.0.sort();
    let count = cells.len();
    println!("{count} cells: {} ways", WAYS.len());
    assert!(wrong.0.is_empty(), "{} of {count}:\n{}", wrong.0.len(), wrong.0.join("\n"));
}
