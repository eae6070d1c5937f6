//! The records of our own licences, and how they are changed: each by one at a time, of all gateways.

use std::sync::Arc;

use gatekeeper_filters::kernel::{LicenseId, UnixMs};
use tokio::sync::MutexGuard;

use super::{
    record::{IssuedKind, IssuedLicense, IssuedRecord},
    state::LockKind,
};
use crate::{
    config::settings::IssuedAccount,
    licenses::{
        cache_entry::CachedLicense, memory_cache::CacheSlot, redis_cache::DistributedLock,
        validator::LicenseValidator,
    },
    shops::issued::IssuedSource,
    vault::{SealError, VaultKeys},
};

/// Our own licences under one configuration.
pub struct IssuedBook {
    pub validator: Arc<LicenseValidator>,
    pub source: Arc<IssuedSource>,
    pub account: Arc<IssuedAccount>,
    pub vault: VaultKeys,
}

/// While this lives no other task changes the record.
pub(super) struct Alone<'a> {
    _here: MutexGuard<'a, ()>,
    _everywhere: Option<DistributedLock>,
}

/// Why nothing was issued or changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IssueError {
    #[error("the shared store does not answer, and it has the licences of all gateways")]
    StoreAway,
    #[error("the database cannot be written now (its disk may be full)")]
    NotKept,
    #[error("the operating system gives no random numbers")]
    NoRandom,
    #[error("the key can't be sealed: {0}")]
    Seal(#[from] SealError),
    #[error("this licence was not issued here")]
    NotIssued,
    #[error("the order was carried out before in another way")]
    OtherOrder,
}

impl IssuedBook {
    pub fn new(
        validator: Arc<LicenseValidator>,
        account: &Arc<IssuedAccount>,
        vault: VaultKeys,
    ) -> Self {
        validator.follow_issued();
        Self { validator, source: account.source.clone(), account: account.clone(), vault }
    }

    /// Where it is kept what an order made; `order` is hashed.
    pub(super) fn order_record(&self, order: &str) -> LicenseId {
        self.validator.hasher.signed("issued order", order)
    }

    /// The right to change a record.
    ///
    /// # Errors
    /// The shared store does not answer.
    pub(super) async fn alone(&self, id: &LicenseId) -> Result<Alone<'_>, IssueError> {
        self.alone_of(LockKind::License, id).await
    }

    /// The right to carry an order out.
    ///
    /// # Errors
    /// The shared store does not answer.
    pub(super) async fn alone_order(&self, id: &LicenseId) -> Result<Alone<'_>, IssueError> {
        self.alone_of(LockKind::Order, id).await
    }

    /// The right to look for lost events, which carries orders out; `None` while another gateway looks.
    ///
    /// # Errors
    /// The shared store does not answer.
    pub(super) async fn alone_sweep(
        &self,
        id: &LicenseId,
    ) -> Result<Option<Alone<'_>>, IssueError> {
        let here = self.validator.issued.locks.of(LockKind::Sweep, id).lock().await;
        let everywhere = match &self.validator.redis_cache {
            Some(shared) => match shared.lock(id).await {
                Ok(None) => return Ok(None),
                Ok(lock) => lock,
                Err(_) => return Err(IssueError::StoreAway),
            },
            None => None,
        };
        Ok(Some(Alone { _here: here, _everywhere: everywhere }))
    }

    async fn alone_of(&self, kind: LockKind, id: &LicenseId) -> Result<Alone<'_>, IssueError> {
        let here = self.validator.issued.locks.of(kind, id).lock().await;
        let everywhere = self.validator.only_here(id).await.map_err(|_| IssueError::StoreAway)?;
        Ok(Alone { _here: here, _everywhere: everywhere })
    }

    /// The record as it is at all gateways now.
    pub(super) async fn latest(
        &self,
        id: &LicenseId,
    ) -> Result<Option<Arc<CacheSlot>>, IssueError> {
        self.validator.latest(id).await.map_err(|_| IssueError::StoreAway)
    }

    /// The licence as it is at all gateways now.
    pub(super) async fn latest_license(&self, id: &LicenseId) -> Result<IssuedLicense, IssueError> {
        let slot = self.latest(id).await?;
        let issued = slot.as_ref().and_then(|slot| slot.record.issued.as_ref());
        issued.and_then(|issued| issued.license()).cloned().ok_or(IssueError::NotIssued)
    }

    /// Writes records, all or none of them, and notifies the other gateways. Their locks are held, or they
    /// are new.
    pub(super) async fn write(
        &self,
        records: Vec<(LicenseId, IssuedKind)>,
        now: UnixMs,
    ) -> Result<(), IssueError> {
        let ids: Vec<LicenseId> = records.iter().map(|(id, _)| *id).collect();
        for (id, is) in records {
            let change = |there: Option<&CachedLicense>| {
                let mut before = there.cloned().unwrap_or_default();
                let issued = IssuedRecord::next(before.issued.as_deref(), is, now);
                if issued.is_forgotten() {
                    let revocation = before.revocation;
                    before = CachedLicense { revocation, ..CachedLicense::default() };
                }
                Some(CachedLicense { issued: Some(Box::new(issued)), ..before })
            };
            self.validator.memory_cache.update(id, change);
        }
        if !self.validator.disk_cache.put_all_now(&ids).await {
            return Err(IssueError::NotKept);
        }
        for id in ids {
            self.validator.share(id).await;
        }
        Ok(())
    }

    /// What is known here of a record, compared with the shared store where messages may have been lost.
    pub(super) async fn known(&self, id: &LicenseId) -> Option<Arc<CacheSlot>> {
        self.validator.known(id).await
    }
}
