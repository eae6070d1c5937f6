//! What is due from time to time.

use std::sync::atomic::Ordering::Relaxed;

use gatekeeper_filters::kernel::UnixMs;

use super::{
    book::IssuedBook,
    record::{IssuedKind, IssuedLicense},
    seal,
};

/// Between two looks for keys that were shown long enough ago.
const TIDY_EVERY: u64 = 10 * 60_000;

impl IssuedBook {
    /// Does what is due; to be called again and again, by one.
    pub async fn tend(&self) {
        let (tended, now) = (&self.validator.issued.tended, UnixMs::now());
        if now.0.saturating_sub(tended.tidied.load(Relaxed)) >= TIDY_EVERY {
            tended.tidied.store(now.0, Relaxed);
            self.tidy(now).await;
            self.drop_forgotten(now).await;
        }
        self.sweep_if_due(now).await;
    }

    /// Drops what is left of licences that were forgotten long ago: here, on the disk, at the shared store.
    async fn drop_forgotten(&self, now: UnixMs) {
        let all = self.validator.memory_cache.all();
        let over: Vec<_> =
            all.filter(|(_, slot)| slot.record.is_over(now)).map(|(id, _)| id).collect();
        for id in over {
            if let Some(redis) = &self.validator.redis_cache
                && redis.drop_forgotten(&id).await.is_err()
            {
                // Looked for again next time.
                return;
            }
            if self.validator.memory_cache.remove_if(&id, |record| record.is_over(now)) {
                self.validator.disk_cache.put(id);
            }
        }
    }

    /// Removes sealed keys that were shown or not claimed in time, and expired codes.
    async fn tidy(&self, now: UnixMs) {
        let has_some =
            |license: &IssuedLicense| license.sealed.is_some() || !license.codes.is_empty();
        let all = self.validator.memory_cache.all().filter_map(|(id, slot)| {
            let license = slot.record.issued.as_ref()?.license()?;
            has_some(license).then(|| seal::tidy(&self.vault, &id, license, now))??;
            Some(id)
        });
        let due: Vec<_> = all.collect();
        for id in due {
            let Ok(_alone) = self.alone(&id).await else { return };
            let Ok(license) = self.latest_license(&id).await else { continue };
            if let Some(next) = seal::tidy(&self.vault, &id, &license, now)
                && let Err(why) = self.write(vec![(id, IssuedKind::License(next))], now).await
            {
                log::warn!("licences: a key that was shown stays sealed for now: {why}");
                return;
            }
        }
    }
}
