//! Probes: whether a key whose credential was refused is accepted again, whether a doubtful one is, and
//! whether a provider or an account with an open circuit answers at all. Each is a `HealthCheck` of the
//! load balancer's kind that asks for the list of models, which is free; the check's threshold of equal
//! results in a row decides. A key that is ready or cooling is never probed for itself, nor is any at the
//! start.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use pingora_core::{
    Error, ErrorType, server::ShutdownWatch, services::background::BackgroundService,
};
use pingora_load_balancing::{Backend, health_check::HealthCheck};
use tokio::task::JoinSet;

use super::{
    classify::{self, Classification},
    connector::{Connector, ProviderConnection},
    provider_session::ProviderSession,
    request,
};
use crate::{
    pool::{
        KeyState, ProviderPool,
        breaker::Circuit,
        health::Streak,
        key::{AttemptFeedback, MasterKey},
        selection,
    },
    runtime::snapshot::Snapshot,
};

/// How often it is looked whether a probe is due.
const LOOK: Duration = Duration::from_millis(250);
/// A probe's whole time, the connect included. Shorter than the pause between two of a circuit
/// (`pool::breaker`), so that a provider that hung is found again soon after it serves.
const PATIENCE: Duration = Duration::from_secs(2);
/// Bytes of an answer that are read; a refusal is shorter.
const ENOUGH: usize = 64 * 1024;

/// What a probe found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeResult {
    /// The credential is taken.
    Taken,
    /// It is not.
    Refused,
    /// There is no list of models: only a request is conclusive.
    NoList,
    /// The provider answers with a fault.
    Unwell,
    /// No answer in time.
    Silent,
}

impl ProbeResult {
    pub fn name(self) -> &'static str {
        match self {
            ProbeResult::Taken => "taken",
            ProbeResult::Refused => "refused",
            ProbeResult::NoList => "no_list",
            ProbeResult::Unwell => "unwell",
            ProbeResult::Silent => "silent",
        }
    }

    /// For the log.
    fn in_words(self) -> &'static str {
        match self {
            ProbeResult::Taken => "the provider accepts it",
            ProbeResult::Refused => "the provider refuses it",
            ProbeResult::NoList => "the provider has no list of models, so only a request can tell",
            ProbeResult::Unwell => "the provider answered with an error",
            ProbeResult::Silent => "no answer in time",
        }
    }

    const ALL: [ProbeResult; 5] = [
        ProbeResult::Taken,
        ProbeResult::Refused,
        ProbeResult::NoList,
        ProbeResult::Unwell,
        ProbeResult::Silent,
    ];

    /// The meaning of a check's result.
    fn of_check(result: &pingora_core::Result<()>) -> Self {
        match result.as_ref().map_err(|error| error.etype()) {
            Ok(()) => ProbeResult::Taken,
            Err(ErrorType::Custom(name)) => Self::ALL
                .into_iter()
                .find(|found| found.name() == *name)
                .unwrap_or(ProbeResult::Silent),
            Err(_) => ProbeResult::Silent,
        }
    }

    fn of(status: u16, headers: &HeaderMap, body: &[u8], provider: &ProviderPool) -> Self {
        match status {
            200..=299 => return ProbeResult::Taken,
            404 | 405 | 501 => return ProbeResult::NoList,
            _ => {}
        }
        match classify::judge(provider.settings.dialect, status, headers, body) {
            Classification::Failed(failure) => match failure.news {
                AttemptFeedback::Refused(_) | AttemptFeedback::Doubtful => ProbeResult::Refused,
                // A rate limit or a lack of credit shows that the key was accepted.
                AttemptFeedback::Limited(..) | AttemptFeedback::Spent(..) => ProbeResult::Taken,
                _ => ProbeResult::Unwell,
            },
            Classification::Relay(_) => ProbeResult::NoList,
        }
    }
}

/// The list of models as a health check of the load balancer's kind.
pub struct ModelList<'a> {
    pub connector: &'a Connector,
    pub provider: &'a ProviderPool,
}

impl ModelList<'_> {
    /// Asks with one key.
    pub async fn ask(&self, key: &MasterKey) -> ProbeResult {
        let asked = tokio::time::timeout(PATIENCE, self.answer(key));
        match asked.await {
            Ok(Ok((status, headers, body))) => {
                ProbeResult::of(status, &headers, &body, self.provider)
            }
            Ok(Err(_)) | Err(_) => ProbeResult::Silent,
        }
    }

    async fn answer(&self, key: &MasterKey) -> pingora_core::Result<(u16, HeaderMap, Bytes)> {
        let mut connection = self.connect().await?;
        let answered = Self::exchange(&mut connection, self.provider, key).await;
        self.connector.release(connection).await;
        answered
    }

    async fn connect(&self) -> pingora_core::Result<Box<ProviderConnection>> {
        let mut last = Error::explain(ErrorType::ConnectError, "no address");
        for (_, peer) in self.provider.endpoint.peers().await {
            match self.connector.connect(&peer, true).await {
                Ok(connection) => return Ok(connection),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn exchange(
        connection: &mut ProviderConnection,
        provider: &ProviderPool,
        key: &MasterKey,
    ) -> pingora_core::Result<(u16, HeaderMap, Bytes)> {
        let session = &mut connection.session;
        let head = request::model_list(provider, key, session.is_http2())?;
        connection.sent_whole = session.write(head, &[]).await?;
        session.read_head().await?;
        let Some(status) = session.status() else {
            return Error::e_explain(ErrorType::ReadError, "no answer");
        };
        Ok((status, session.headers(), read_some(session).await?))
    }
}

/// Enough to read an error.
async fn read_some(session: &mut ProviderSession) -> pingora_core::Result<Bytes> {
    let mut body = BytesMut::new();
    while body.len() < ENOUGH {
        let Some(chunk) = session.read_body().await? else { break };
        body.extend_from_slice(&chunk);
        if session.ended()? {
            break;
        }
    }
    Ok(body.freeze())
}

#[async_trait]
impl HealthCheck for ModelList<'_> {
    async fn check(&self, target: &Backend) -> pingora_core::Result<()> {
        let key = selection::index(target).and_then(|index| self.provider.keys().get(index));
        let Some(key) = key else {
            return Error::e_explain(ErrorType::InternalError, "no such key");
        };
        match self.ask(key).await {
            ProbeResult::Taken => Ok(()),
            other => Error::e_explain(ErrorType::Custom(other.name()), "the list of models"),
        }
    }

    /// A list that was shown, or refused, once is so.
    fn health_threshold(&self, _success: bool) -> usize {
        1
    }
}

/// The result of a probe, and whether the threshold of equal results in a row is reached.
async fn probed(
    check: &(impl HealthCheck + Sync),
    key: &Backend,
    streak: &Streak,
) -> (ProbeResult, bool) {
    let found = ProbeResult::of_check(&check.check(key).await);
    let passed = found == ProbeResult::Taken;
    let in_a_row = streak.note(passed);
    (found, in_a_row >= check.health_threshold(passed))
}

/// Probes what is due, in the background.
pub struct Prober {
    pub snapshot: Arc<ArcSwap<Snapshot>>,
    pub connector: Arc<Connector>,
}

#[async_trait]
impl BackgroundService for Prober {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let mut probes = JoinSet::new();
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = looks.tick() => self.begin(&mut probes),
                Some(_) = probes.join_next() => {}
                _ = shutdown.changed() => return,
            }
        }
    }
}

impl Prober {
    fn begin(&self, probes: &mut JoinSet<()>) {
        let (snapshot, now) = (self.snapshot.load(), Instant::now());
        for (index, provider) in snapshot.providers.iter().enumerate() {
            for account in due_circuits(provider, now) {
                let (snapshot, connector) = (snapshot.clone(), self.connector.clone());
                probes.spawn(async move {
                    probe_circuit(&connector, &snapshot.providers[index], account).await;
                });
            }
            for (place, key) in provider.keys().iter().enumerate() {
                if key.is_due_for_probe(now) || key.is_doubt_due(now) {
                    let (snapshot, connector) = (snapshot.clone(), self.connector.clone());
                    probes.spawn(async move {
                        let provider = &snapshot.providers[index];
                        probe_key(&connector, provider, &provider.keys()[place]).await;
                    });
                }
            }
        }
    }
}

/// The provider itself (`None`) where its circuit is open, else the accounts whose is.
fn due_circuits(provider: &ProviderPool, now: Instant) -> Vec<Option<usize>> {
    if provider.breaker().circuit() != Circuit::Closed {
        return if provider.breaker().try_probe(now) { vec![None] } else { Vec::new() };
    }
    let accounts = provider.circuits().accounts().enumerate();
    accounts.filter(|(_, breaker)| breaker.try_probe(now)).map(|(place, _)| Some(place)).collect()
}

/// Whether the provider behind an open circuit answers one of the better keys; the content of the answer
/// does not matter.
async fn probe_circuit(connector: &Connector, provider: &ProviderPool, account: Option<usize>) {
    let now = Instant::now();
    let rank = |key: &MasterKey| match key.state(now) {
        KeyState::Ready => Some(0),
        KeyState::Doubtful => Some(1),
        KeyState::Cooling { .. } => Some(2),
        KeyState::Quarantined { .. } => Some(3),
        KeyState::Off => None,
    };
    let own = provider.keys().iter().enumerate();
    let own = own.filter(|(_, key)| account.is_none_or(|place| key.account == place));
    let best = own.filter_map(|(place, key)| Some((rank(key)?, place, key))).min_by_key(|it| it.0);
    let breaker =
        account.map_or(provider.breaker(), |account| provider.circuits().account(account));
    let Some((_, place, key)) = best else {
        breaker.end_trial();
        return;
    };
    let list = ModelList { connector, provider };
    let (found, is_believed) =
        probed(&list, &selection::backend(place, key), &breaker.probes).await;
    let (name, group) = (provider.name(), account.map_or("all", |_| &key.group_name));
    log::debug!("An open circuit was probed: {}. provider={name} group={group}", found.in_words());
    if found == ProbeResult::Taken {
        key.list_shown(Instant::now());
    }
    match found {
        ProbeResult::Taken if !is_believed => breaker.end_trial(),
        ProbeResult::Taken | ProbeResult::Refused | ProbeResult::NoList => breaker.half_open(),
        ProbeResult::Unwell | ProbeResult::Silent => breaker.end_trial(),
    }
}

/// Asks whether a key is taken, and takes note of it.
pub async fn probe_key(
    connector: &Connector,
    provider: &ProviderPool,
    key: &Arc<MasterKey>,
) -> ProbeResult {
    let list = ModelList { connector, provider };
    let place = provider.keys().iter().position(|known| Arc::ptr_eq(known, key)).unwrap_or(0);
    let (found, is_believed) =
        probed(&list, &selection::backend(place, key), &key.health.probes).await;
    let (provider, id) = (provider.name(), &key.id);
    log::info!("A key was probed: {}. provider={provider} key={id}", found.in_words());
    let now = Instant::now();
    match found {
        ProbeResult::NoList => {
            key.health.quarantine.cannot_be_probed();
            key.list_refused(now);
        }
        // The next look probes again.
        _ if !is_believed => {
            key.health.quarantine.end_trial();
            key.health.doubt.put_off(now);
        }
        ProbeResult::Taken => {
            key.list_shown(now);
            key.sound();
        }
        ProbeResult::Refused => {
            key.health.quarantine.put_off(now);
            key.list_refused(now);
        }
        ProbeResult::Unwell | ProbeResult::Silent => {
            key.health.quarantine.put_off(now);
            key.health.doubt.put_off(now);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use parking_lot::Mutex;

    use super::*;

    /// Returns the given results; a threshold of two successes and three failures.
    struct Told(Mutex<VecDeque<ProbeResult>>);

    #[async_trait]
    impl HealthCheck for Told {
        async fn check(&self, _target: &Backend) -> pingora_core::Result<()> {
            match self.0.lock().pop_front() {
                Some(ProbeResult::Taken) => Ok(()),
                Some(other) => Error::e_explain(ErrorType::Custom(other.name()), "told"),
                None => Error::e_explain(ErrorType::ConnectTimedout, "told"),
            }
        }

        fn health_threshold(&self, success: bool) -> usize {
            if success { 2 } else { 3 }
        }
    }

    #[tokio::test]
    async fn as_many_in_a_row_as_the_check_says_are_believed() {
        use ProbeResult::{NoList, Refused, Silent, Taken};
        let told = [Taken, Refused, Taken, Taken, Refused, NoList, Refused];
        let check = Told(Mutex::new(told.into()));
        let streak = Streak::default();
        let backend = Backend::new("127.0.0.1:1").unwrap();
        let mut found = Vec::new();
        for _ in 0..told.len() + 1 {
            found.push(probed(&check, &backend, &streak).await);
        }
        let expected = [
            (Taken, false),
            (Refused, false),
            (Taken, false),
            (Taken, true),
            (Refused, false),
            (NoList, false),
            (Refused, true),
            (Silent, true),
        ];
        assert_eq!(found, expected);
    }
}
