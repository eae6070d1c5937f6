//! The buyer gets the key: at `/claim` with the id of the checkout session, and in the app with a one-time code.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use gatekeeper_filters::kernel::{Code, LicenseId, Plan, UnixMs};
use secrecy::SecretString;

use crate::{
    licenses::{
        address_throttle::{ClientPrefix, ThrottleDecision},
        issued::{
            book::{IssueError, IssuedBook},
            record::{ClaimCode, IssuedKind, IssuedLicense},
            seal,
            state::{MISS, PurchaseOutcome},
        },
    },
    shops::LicenseVerdict,
};

/// Questions to Stripe a minute about sessions that no webhook announced, of all gateways.
const STRANGERS: usize = 30;
const MINUTE: Duration = Duration::from_secs(60);
/// The same of one that a webhook announced, or that is not paid yet: its page reloads itself.
const SOON: Duration = Duration::from_secs(3);
/// A code for the app.
const CODE: Duration = Duration::from_secs(600);
const CODES: usize = 4;

/// What the buyer is shown.
#[derive(Debug)]
pub enum Claim {
    Ready(ClaimedKey),
    /// The key was shown too long ago, or was replaced.
    Gone,
    /// The payment is on its way.
    Unpaid,
    Refunded,
    /// The licence ended in another way.
    Ended(Code),
    /// Nothing was sold here under this id.
    Unknown,
}

#[derive(Debug)]
pub struct ClaimedKey {
    pub key: SecretString,
    pub plan: std::sync::Arc<Plan>,
    pub until: Option<UnixMs>,
    /// For the app.
    pub link: Option<String>,
}

/// Why there is no answer now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClaimError {
    /// Too many tries; seconds.
    TooMany(u64),
    /// Stripe or the store does not answer.
    Away,
}

impl IssuedBook {
    /// A webhook named this session.
    pub(super) fn announce(&self, session: &str) {
        let order = self.order_of_session(session);
        self.validator.issued.claims.misses.invalidate(&order);
        self.validator.issued.claims.announced.insert(order, ());
    }

    /// What became of a checkout session.
    ///
    /// # Errors
    /// There is no answer now.
    pub async fn claim(&self, session: &str, address: Option<IpAddr>) -> Result<Claim, ClaimError> {
        let order = self.order_of_session(session);
        let order_id = self.order_record(&order);
        let state = &self.validator.issued.claims;
        let address = address.map(ClientPrefix::from);
        if let Some(address) = address
            && let ThrottleDecision::TooMany { retry_after } =
                state.addresses.admit(address, &order_id, UnixMs::now())
        {
            return Err(ClaimError::TooMany(retry_after));
        }
        let known = self.known(&order_id).await;
        let known = known.as_ref().and_then(|slot| slot.record.issued.as_ref());
        let outcome = match known.map(|issued| &issued.is) {
            Some(IssuedKind::Order { licenses }) => match licenses.first() {
                Some(license) => PurchaseOutcome::Licensed(*license),
                None => PurchaseOutcome::Foreign,
            },
            Some(_) => PurchaseOutcome::Foreign,
            None => self.ask_about(session, &order).await?,
        };
        match outcome {
            PurchaseOutcome::Licensed(license) => {
                if let Some(address) = address {
                    state.addresses.record_success(address, &order_id);
                }
                self.show_key(&license, &order).await.map_err(|_| ClaimError::Away)
            }
            PurchaseOutcome::Unpaid => Ok(Claim::Unpaid),
            PurchaseOutcome::Refunded => Ok(Claim::Refunded),
            PurchaseOutcome::Foreign => Ok(Claim::Unknown),
        }
    }

    /// Asks Stripe about a session without a licence; unknown ids are limited in number.
    async fn ask_about(&self, session: &str, order: &str) -> Result<PurchaseOutcome, ClaimError> {
        let state = &self.validator.issued.claims;
        let is_announced = state.announced.contains_key(order);
        if let Some((outcome, until)) = state.misses.get(order)
            && Instant::now() < until
        {
            return Ok(outcome);
        }
        if !is_announced {
            self.count_stranger().await?;
        }
        let outcome = self.look_at_session(session).await.map_err(|why| {
            log::warn!("Stripe: a purchase can't be looked at: {why}.");
            ClaimError::Away
        })?;
        let is_soon = is_announced || outcome == PurchaseOutcome::Unpaid;
        let keep = if is_soon { SOON } else { MISS };
        if !matches!(outcome, PurchaseOutcome::Licensed(_)) {
            state.misses.insert(order.to_owned(), (outcome, Instant::now() + keep));
        }
        Ok(outcome)
    }

    /// Counts a question to Stripe about a session that no webhook announced. The limit is that of all gateways together;
    /// while the shared store is away, each has one of its own.
    async fn count_stranger(&self) -> Result<(), ClaimError> {
        let too_many = |wait: Duration| ClaimError::TooMany(wait.as_secs().clamp(1, 60));
        self.count_stranger_here().map_err(too_many)?;
        if let Some(shared) = &self.validator.redis_cache
            && let Ok(counted) = shared.count_in_minute("claims", STRANGERS).await
        {
            counted.map_err(too_many)?;
        }
        Ok(())
    }

    /// How long it takes until the next one where there were too many.
    fn count_stranger_here(&self) -> Result<(), Duration> {
        let mut asked = self.validator.issued.claims.asked.lock();
        let now = Instant::now();
        while asked.front().is_some_and(|at| now.duration_since(*at) >= MINUTE) {
            asked.pop_front();
        }
        if asked.len() >= STRANGERS {
            let oldest = asked.front().copied().unwrap_or(now);
            return Err(MINUTE.saturating_sub(now.duration_since(oldest)));
        }
        asked.push_back(now);
        Ok(())
    }

    /// The key of a licence, for the session that paid it.
    async fn show_key(&self, id: &LicenseId, order: &str) -> Result<Claim, IssueError> {
        let _alone = self.alone(id).await?;
        let before = match self.latest_license(id).await {
            Err(IssueError::NotIssued) => return Ok(Claim::Unknown),
            license => license?,
        };
        let now = UnixMs::now();
        let (plan, until) = match self.verdict(&before, now) {
            _ if self.validator.is_revoked(id) => return Ok(Claim::Ended(Code::LicenseDisabled)),
            LicenseVerdict::Valid { plan, until } => (plan, until),
            LicenseVerdict::Invalid(Code::LicenseRefunded) => return Ok(Claim::Refunded),
            LicenseVerdict::Invalid(code) => return Ok(Claim::Ended(code)),
        };
        let sealed = before.sealed.as_ref();
        let key = sealed.and_then(|sealed| seal::open(&self.vault, id, sealed, order, now));
        let Some(key) = key else { return Ok(Claim::Gone) };
        let mut license = before.clone();
        if let Some(sealed) = &mut license.sealed {
            sealed.shown.get_or_insert(now);
        }
        let link = self.new_link(id, &mut license, now)?;
        if license != before {
            self.write(vec![(*id, IssuedKind::License(license))], now).await?;
        }
        Ok(Claim::Ready(ClaimedKey { key, plan, until, link }))
    }

    /// A link that opens the app, with a code that stands for the key once.
    fn new_link(
        &self,
        id: &LicenseId,
        license: &mut IssuedLicense,
        now: UnixMs,
    ) -> Result<Option<String>, IssueError> {
        let stripe = self.source.stripe.as_ref();
        let Some(link) = stripe.and_then(|stripe| stripe.deep_link.as_ref()) else {
            return Ok(None);
        };
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(|_| IssueError::NoRandom)?;
        let code = URL_SAFE_NO_PAD.encode([&id.0[..], &random].concat());
        license.codes.retain(|code| code.until > now);
        if license.codes.len() >= CODES {
            license.codes.remove(0);
        }
        license.codes.push(ClaimCode { code: self.code_hash(&code), until: now.plus(CODE) });
        let joined = if link.contains('?') { '&' } else { '?' };
        Ok(Some(format!("{link}{joined}code={code}")))
    }

    fn code_hash(&self, code: &str) -> String {
        self.validator.hasher.order("claim code", code)
    }

    /// The key that a code stands for; the code is spent.
    ///
    /// # Errors
    /// `Ok(None)` for a code that is unknown, used or expired; an error if that can't be decided.
    pub async fn exchange(
        &self,
        code: &str,
        address: Option<IpAddr>,
    ) -> Result<Option<ClaimedKey>, ClaimError> {
        let decoded = URL_SAFE_NO_PAD.decode(code).ok().filter(|bytes| bytes.len() == 48);
        let id = decoded.as_ref().and_then(|bytes| bytes.first_chunk::<32>());
        // What is no code at all counts as one and the same.
        let id = LicenseId(id.copied().unwrap_or_default());
        let hash = self.code_hash(code);
        let tried = self.order_record(&hash);
        if let Some(address) = address.map(ClientPrefix::from)
            && let ThrottleDecision::TooMany { retry_after } =
                self.validator.issued.claims.addresses.admit(address, &tried, UnixMs::now())
        {
            return Err(ClaimError::TooMany(retry_after));
        }
        // A guess must not take a lock at the shared store.
        let is_known =
            self.validator.memory_cache.get(&id).is_some() || self.known(&id).await.is_some();
        if decoded.is_none() || !is_known {
            return Ok(None);
        }
        self.spend(&id, &hash).await.map_err(|_| ClaimError::Away)
    }

    async fn spend(&self, id: &LicenseId, hash: &str) -> Result<Option<ClaimedKey>, IssueError> {
        let _alone = self.alone(id).await?;
        let Ok(mut license) = self.latest_license(id).await else { return Ok(None) };
        let now = UnixMs::now();
        let place = license.codes.iter().position(|code| code.code == hash && code.until > now);
        let (Some(place), LicenseVerdict::Valid { plan, until }) =
            (place, self.verdict(&license, now))
        else {
            return Ok(None);
        };
        let order = license.order.clone();
        let sealed = license.sealed.as_ref();
        let key = sealed.and_then(|sealed| seal::open(&self.vault, id, sealed, &order, now));
        license.codes.remove(place);
        self.write(vec![(*id, IssuedKind::License(license))], now).await?;
        Ok(key.map(|key| ClaimedKey { key, plan, until, link: None }))
    }
}
