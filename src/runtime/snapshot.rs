//! One configuration, ready to serve: settings, filter chain, providers. Immutable; a request keeps
//! the one it started with.

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc};

use gatekeeper_filters::kernel::{Chain, ChainProblem, Ledger, Registry, Services};

use crate::{
    budget::{Budgets, SpendTracker},
    config::settings::Settings,
    downstream::memory_budget::{self, MemoryBudget},
    licenses::{ConfiguredLicenses, LicenseValidator},
    os::memory_limit,
    pool::{
        HealthRegistry, ProviderPool, Unavailable,
        dns::{UpstreamHost, UpstreamHosts},
    },
    runtime::{
        drain_slots::DrainSlots, replays::Replays, session_affinity::SessionAffinity,
        target_order::PriceCeilings, webhook_slots::WebhookSlots,
    },
    telemetry::Telemetry,
    tls::CertificateResolver,
};

pub struct Snapshot {
    pub settings: Settings,
    pub chain: Chain,
    pub providers: Vec<ProviderPool>,
    pub licenses: Arc<ConfiguredLicenses>,
    pub ledger: Arc<dyn Ledger>,
    pub telemetry: Arc<Telemetry>,
    pub buffered: Arc<MemoryBudget>,
    pub drains: Arc<DrainSlots>,
    pub webhooks: Arc<WebhookSlots>,
    pub replays: Arc<Replays>,
    /// Requests that may be open at the same time.
    pub most_open: u64,
    pub budgets: Arc<Budgets>,
    pub bounds: PriceCeilings,
    pub conversations: Arc<SessionAffinity>,
    /// Request members that some provider lets through beside the listed ones.
    pub extra_fields: Vec<Arc<str>>,
}

#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error(transparent)]
    Provider(#[from] Unavailable),
    #[error("filters: {}", .0.iter().map(|problem| &*problem.message).collect::<Vec<_>>().join("; "))]
    Chain(Vec<ChainProblem>),
}

/// What outlives every snapshot.
#[derive(Clone)]
pub struct SharedState {
    pub ledger: Arc<dyn Ledger>,
    pub telemetry: Arc<Telemetry>,
    pub health: Arc<HealthRegistry>,
    pub endpoints: Arc<UpstreamHosts>,
    pub buffered: Arc<MemoryBudget>,
    pub drains: Arc<DrainSlots>,
    pub webhooks: Arc<WebhookSlots>,
    pub replays: Arc<Replays>,
    pub licenses: Arc<LicenseValidator>,
    pub spending: Arc<SpendTracker>,
    pub conversations: Arc<SessionAffinity>,
    /// The certificate that apps are shown.
    pub certificate: Arc<CertificateResolver>,
    /// The certificate that operators are shown.
    pub admin_certificate: Arc<CertificateResolver>,
    /// Where the stand-in provider listens, if some provider wants it.
    pub stand_in: Option<SocketAddr>,
}

impl Snapshot {
    /// # Errors
    /// A chain that does not fit together, or a secret no header can carry.
    pub fn build(
        mut settings: Settings,
        registry: &Registry,
        machine: &SharedState,
    ) -> Result<Self, SnapshotError> {
        let buffered = fit_body(&mut settings);
        let licenses = Arc::new(ConfiguredLicenses::new(&settings, machine.licenses.clone()));
        let budgets = Arc::new(Budgets::new(&settings, &machine.spending));
        let services = Services {
            licenses: licenses.clone(),
            ledger: machine.ledger.clone(),
            expenses: budgets.clone(),
            models: settings.models.clone(),
            buy_url: settings.licenses.buy_url.clone(),
        };
        let chain = registry.chain(&settings.filters, &services).map_err(SnapshotError::Chain)?;
        let providers = settings
            .providers
            .iter()
            .enumerate()
            .map(|(place, provider)| {
                let endpoint = match machine.stand_in {
                    Some(address) if provider.base.stand_in => {
                        Arc::new(UpstreamHost::fixed(address, provider.timeouts))
                    }
                    _ => machine.endpoints.of(&provider.base, provider.timeouts),
                };
                let models = models_of(place, &settings);
                ProviderPool::new(provider.clone(), models, endpoint, &machine.health)
            })
            .collect::<Result<Vec<_>, _>>()?;
        let extra: BTreeSet<Arc<str>> =
            settings.providers.iter().flat_map(|provider| provider.allow_fields.clone()).collect();
        let limits = &settings.server.limits;
        let most_open = limits.requests.unwrap_or_else(memory_limit::open_requests);
        machine.buffered.resize(buffered, limits.body);
        Ok(Self {
            chain,
            providers,
            licenses,
            ledger: machine.ledger.clone(),
            telemetry: machine.telemetry.clone(),
            buffered: machine.buffered.clone(),
            drains: machine.drains.clone(),
            webhooks: machine.webhooks.clone(),
            replays: machine.replays.clone(),
            most_open,
            budgets,
            bounds: PriceCeilings::of(&settings.plans, &settings.models),
            conversations: machine.conversations.clone(),
            extra_fields: extra.into_iter().collect(),
            settings,
        })
    }
}

/// What the keys of a provider serve, by the provider's own names.
fn models_of(provider: usize, settings: &Settings) -> Arc<[Arc<str>]> {
    let targets = settings.models.values().flat_map(|model| &model.targets);
    let own = targets.filter(|target| target.provider == provider);
    let names: BTreeSet<Arc<str>> = own.map(|target| target.model.clone()).collect();
    names.into_iter().collect()
}

/// How many bytes may be held; a body that would never fit is made smaller.
fn fit_body(settings: &mut Settings) -> u64 {
    let limits = &mut settings.server.limits;
    let buffered = limits.buffered.unwrap_or_else(memory_limit::buffered);
    if memory_budget::cost(limits.body) > buffered {
        let fits = memory_budget::body_within(buffered);
        log::warn!(
            "server.limits.body: {} bytes exceed what server.limits.buffered ({buffered} bytes) allows, so bodies are \
             limited to {fits} bytes. Raise server.limits.buffered or lower server.limits.body.",
            limits.body
        );
        limits.body = fits;
    }
    buffered
}
