//! Devices of a licence. Lemon Squeezy keeps its own list (it calls them instances) and is asked;
//! for other licences the list is here, in their record. Ids are hashed, names are not kept.

use std::{sync::Arc, time::Duration};

use gatekeeper_filters::{
    kernel::{Asking, Code, Credential, License, LicenseId, Reject, UnixMs},
    license,
};
use moka::sync::Cache;
use parking_lot::Mutex;

use super::{
    budget::Class,
    desk::Desk,
    facts::{Facts, Reply, Shop},
    lemonsqueezy::{self, DeviceReply},
    record::{Device, Record, passed},
    records::Kept,
    shared::Lock,
    sources::{Question, Sources},
};
use crate::config::settings::BaseUrl;

/// Unknown device ids, and activations, of one licence an hour.
const STRIKES: usize = 5;
const HOUR: Duration = Duration::from_secs(3600);
/// Licences whose strikes are remembered.
const REMEMBERED: u64 = 65_536;
/// Where a plan sets no limit and the gateway keeps the list.
const MOST_DEVICES: u64 = 100;
/// How often is looked whether another gateway is done with the licence, and how long.
const LOOK: Duration = Duration::from_millis(50);
const PATIENCE: Duration = Duration::from_secs(5);

/// What one licence did in the last hour.
#[derive(Default)]
pub struct Strikes {
    /// Held by whoever asks the shop about a device of this licence: the others wait for the answer
    /// instead of asking, too.
    asking: Arc<tokio::sync::Mutex<()>>,
    unknown: Vec<(String, UnixMs)>,
    activations: Vec<UnixMs>,
}

pub fn strikes() -> Cache<LicenseId, Arc<Mutex<Strikes>>> {
    Cache::builder().max_capacity(REMEMBERED).time_to_idle(HOUR).build()
}

/// Devices in use, and how many may be; `None` for any number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Devices {
    pub used: u64,
    pub max: Option<u64>,
}

impl Desk {
    /// Lets a device of the licence pass.
    ///
    /// # Errors
    /// 403 for any other, 503 when the shop can't be asked about it.
    pub async fn check_device(
        self: &Arc<Self>,
        sources: &Arc<Sources>,
        license: &License,
        asking: &Asking<'_>,
    ) -> Result<(), Code> {
        let Some(instance) = asking.instance else { return Err(Code::DeviceLimit) };
        let (id, now) = (&license.id, asking.now);
        let device = self.hasher.device(id, instance);
        let age_of = |kept: &Kept| {
            let found = kept.record.devices.iter().find(|found| found.id == device);
            found.map(|found| passed(found.checked, now))
        };
        let age = self.known(id).await.and_then(|kept| age_of(&kept));
        if age.is_some_and(|age| age < sources.cache.fresh) {
            return Ok(());
        }
        let asking_now = self.strikes_of(id).lock().asking.clone();
        let _alone = match asking_now.try_lock() {
            Ok(alone) => alone,
            // Somebody asks; what was known holds meanwhile.
            Err(_) if age.is_some_and(|age| age < sources.cache.fresh + sources.cache.stale) => {
                return Ok(());
            }
            Err(_) => match tokio::time::timeout(PATIENCE, asking_now.lock()).await {
                Ok(alone) => alone,
                Err(_) => return Err(Code::LicenseCheckUnavailable),
            },
        };
        let kept = self.known(id).await;
        let record = kept.as_ref().map(|kept| &kept.record);
        let found = record.and_then(|record| record.devices.iter().find(|d| d.id == device));
        let Some(base) = record.and_then(|record| lemon_squeezy(sources, record)) else {
            return found.map(drop).ok_or(Code::DeviceLimit);
        };
        let age = found.map(|found| passed(found.checked, now));
        if age.is_some_and(|age| age < sources.cache.fresh) {
            return Ok(());
        }
        if found.is_none() && !self.may_be_new(id, &device, now) {
            return Err(Code::DeviceLimit);
        }
        let known = age.is_some_and(|age| age < sources.cache.fresh + sources.cache.stale);
        let asked = async {
            if self.health(Shop::LemonSqueezy).is_paused(std::time::Instant::now()) {
                return None;
            }
            let turn = self.turnstile.pass(Class::Known, None).await?;
            let pair = (asking.credential.expose(), instance);
            let reply =
                lemonsqueezy::validate_device(&self.client, &base, pair, &self.hasher).await;
            drop(turn);
            self.device_heard(sources, license, &reply, now).await;
            Some(reply.device)
        };
        match asked.await {
            Some(lemonsqueezy::Device::Is(_)) => {
                self.set_devices(id, |devices| add(devices, &device, now)).await;
                Ok(())
            }
            Some(lemonsqueezy::Device::IsNot | lemonsqueezy::Device::Released) => {
                self.strike(id, device.clone(), now);
                self.set_devices(id, |devices| devices.retain(|d| d.id != device)).await;
                Err(Code::DeviceLimit)
            }
            // The shop is away: a device it knew goes on.
            _ if known => Ok(()),
            _ => Err(Code::LicenseCheckUnavailable),
        }
    }

    /// A new device: its id, which the app keeps, and the count with it.
    ///
    /// # Errors
    /// 403 when all places are taken, 429 for too many tries, 503 when nobody can decide.
    pub async fn activate(
        self: &Arc<Self>,
        sources: &Arc<Sources>,
        license: &License,
        credential: &Credential,
        name: &str,
    ) -> Result<(String, Devices), Reject> {
        let (id, now) = (&license.id, UnixMs::now());
        if !self.may_activate(id, now) {
            let message = "This licence was activated too often in the last hour. Please wait.";
            return Err(Reject::new(Code::RateLimited, message).retry_after(60));
        }
        let _lock = self.only_here(id).await?;
        let kept = self.known(id).await;
        let record = kept.as_ref().map(|kept| kept.record.clone()).unwrap_or_default();
        let Some(base) = lemon_squeezy(sources, &record) else {
            return self.activate_here(license, record, now).await;
        };
        let _turn = self.turn().await?;
        let pair = (credential.expose(), name);
        let reply = lemonsqueezy::activate(&self.client, &base, pair, &self.hasher).await;
        self.device_heard(sources, license, &reply, now).await;
        match reply.device {
            lemonsqueezy::Device::Is(instance) => {
                let device = self.hasher.device(id, &instance);
                let kept = self.set_devices(id, |devices| add(devices, &device, now)).await;
                let record = kept.map(|kept| kept.record.clone()).unwrap_or(record);
                Ok((instance, self.devices(license, &record).unwrap_or(NOT_COUNTED)))
            }
            lemonsqueezy::Device::Full => Err(all_taken(self.devices(license, &record))),
            _ => Err(unanswered()),
        }
    }

    /// A device gives its place back.
    ///
    /// # Errors
    /// 404 for one that has none, 429 for too many of those, 503 when the shop can't be asked.
    pub async fn deactivate(
        self: &Arc<Self>,
        sources: &Arc<Sources>,
        license: &License,
        credential: &Credential,
        instance: &str,
    ) -> Result<Devices, Reject> {
        let (id, now) = (&license.id, UnixMs::now());
        let _lock = self.only_here(id).await?;
        let device = self.hasher.device(id, instance);
        let kept = self.known(id).await;
        let record = kept.as_ref().map(|kept| kept.record.clone()).unwrap_or_default();
        let mut is_known = record.devices.iter().any(|known| known.id == device);
        if !is_known && !self.may_be_new(id, &device, now) {
            let message = "Too many unknown devices in the last hour. Please wait.";
            return Err(Reject::new(Code::RateLimited, message).retry_after(60));
        }
        if let Some(base) = lemon_squeezy(sources, &record) {
            let _turn = self.turn().await?;
            let pair = (credential.expose(), instance);
            let reply = lemonsqueezy::deactivate(&self.client, &base, pair, &self.hasher).await;
            self.device_heard(sources, license, &reply, now).await;
            match reply.device {
                lemonsqueezy::Device::Unsaid => return Err(unanswered()),
                lemonsqueezy::Device::Released => is_known = true,
                _ => {}
            }
        }
        if !is_known {
            self.strike(id, device, now);
            let message = "This device is not activated for this licence.";
            return Err(Reject::new(Code::NotFound, message));
        }
        let kept = self.set_devices(id, |devices| devices.retain(|d| d.id != device)).await;
        let record = kept.map(|kept| kept.record.clone()).unwrap_or(record);
        Ok(self.devices(license, &record).unwrap_or(NOT_COUNTED))
    }

    /// The devices of a licence, where somebody counts them.
    pub fn devices(&self, license: &License, record: &Record) -> Option<Devices> {
        let here = record.devices.len() as u64;
        match &record.facts {
            Some(Facts::LemonSqueezy(facts)) => {
                Some(Devices { used: facts.activations.max(here), max: facts.activation_limit })
            }
            _ if license.plan.devices_required
                || license.plan.max_devices.is_some()
                || here > 0 =>
            {
                Some(Devices { used: here, max: license.plan.max_devices })
            }
            _ => None,
        }
    }

    /// As [`Desk::devices`], of what is known of the licence.
    pub async fn devices_of(&self, license: &License) -> Option<Devices> {
        let kept = self.known(&license.id).await;
        let none = Record::default();
        self.devices(license, kept.as_ref().map_or(&none, |kept| &kept.record))
    }

    async fn activate_here(
        self: &Arc<Self>,
        license: &License,
        record: Record,
        now: UnixMs,
    ) -> Result<(String, Devices), Reject> {
        let most = license.plan.max_devices.unwrap_or(MOST_DEVICES);
        let mut random = [0; 16];
        getrandom::fill(&mut random).map_err(|error| {
            license::check_unavailable("no random bytes").internal(error.to_string())
        })?;
        let instance: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        let device = self.hasher.device(&license.id, &instance);
        let mut is_full = false;
        let kept = self.records.update(license.id, |there| {
            let mut record = there.cloned().unwrap_or(record);
            is_full = record.devices.len() as u64 >= most;
            if is_full {
                return None;
            }
            add(&mut record.devices, &device, now);
            record.version += 1;
            Some(record)
        });
        let Some(kept) = kept else {
            return Err(all_taken(Some(Devices { used: most, max: Some(most) })));
        };
        // The app keeps the id for good, so it must be on the disk.
        if !self.keep_now(license.id, &kept).await {
            return Err(license::check_unavailable("the store takes no device"));
        }
        Ok((instance, self.devices(license, &kept.record).unwrap_or(NOT_COUNTED)))
    }

    /// Takes in what a device call tells of licence and shop.
    async fn device_heard(
        self: &Arc<Self>,
        sources: &Arc<Sources>,
        license: &License,
        reply: &DeviceReply,
        asked: UnixMs,
    ) {
        let said_nothing = reply.device != lemonsqueezy::Device::Unsaid
            && matches!(reply.reply, Reply::Unknown(_));
        if said_nothing {
            return;
        }
        let verdict = sources.verdict_name(&reply.reply, asked);
        self.heard(Shop::LemonSqueezy, "", &reply.reply, verdict);
        let nobody = Credential::new("");
        let inquiry = self.inquiry(sources, license.id, &nobody, Class::Known);
        if matches!(reply.reply, Reply::Facts(_)) {
            self.note(&inquiry, &reply.reply, asked).await;
        }
    }

    async fn set_devices(
        &self,
        id: &LicenseId,
        change: impl FnOnce(&mut Vec<Device>),
    ) -> Option<Arc<Kept>> {
        let kept = self.records.update(*id, |record| {
            let mut record = record?.clone();
            let before = record.devices.clone();
            change(&mut record.devices);
            record.version += 1;
            (record.devices != before).then_some(record)
        });
        match kept {
            Some(kept) => {
                self.keep_now(*id, &kept).await;
                Some(kept)
            }
            None => self.records.get(id),
        }
    }

    /// Of all gateways, only this one changes the licence's devices while the lock lives.
    async fn only_here(&self, id: &LicenseId) -> Result<Option<Lock>, Reject> {
        let Some(shared) = &self.shared else { return Ok(None) };
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while tokio::time::Instant::now() < deadline {
            match shared.lock(id).await {
                Ok(Some(lock)) => return Ok(Some(lock)),
                Ok(None) => tokio::time::sleep(LOOK).await,
                Err(_) => break,
            }
        }
        Err(license::check_unavailable("the shared store gives no lock for a device"))
    }

    async fn turn(&self) -> Result<super::turnstile::Turn, Reject> {
        let turn = self.turnstile.pass(Class::Known, None).await;
        turn.ok_or_else(|| license::check_unavailable("no call to a shop was left in time"))
    }

    fn strikes_of(&self, id: &LicenseId) -> Arc<Mutex<Strikes>> {
        self.strikes.get_with(*id, Arc::default)
    }

    /// Whether an unknown device may be asked about: not one that was just refused, and not too many.
    fn may_be_new(&self, id: &LicenseId, device: &str, now: UnixMs) -> bool {
        let strikes = self.strikes_of(id);
        let mut strikes = strikes.lock();
        strikes.unknown.retain(|(_, at)| passed(*at, now) < HOUR);
        strikes.unknown.len() < STRIKES && !strikes.unknown.iter().any(|(known, _)| known == device)
    }

    fn strike(&self, id: &LicenseId, device: String, now: UnixMs) {
        self.strikes_of(id).lock().unknown.push((device, now));
    }

    fn may_activate(&self, id: &LicenseId, now: UnixMs) -> bool {
        let strikes = self.strikes_of(id);
        let mut strikes = strikes.lock();
        strikes.activations.retain(|at| passed(*at, now) < HOUR);
        let may = strikes.activations.len() < STRIKES;
        if may {
            strikes.activations.push(now);
        }
        may
    }
}

const NOT_COUNTED: Devices = Devices { used: 0, max: None };

/// Where to ask about devices, for a licence of Lemon Squeezy.
fn lemon_squeezy(sources: &Sources, record: &Record) -> Option<BaseUrl> {
    match sources.question_about(record.facts.as_ref()?)? {
        Question::LemonSqueezy { base } => Some(base),
        Question::Gumroad { .. } => None,
    }
}

fn add(devices: &mut Vec<Device>, device: &str, now: UnixMs) {
    devices.retain(|known| known.id != device);
    devices.push(Device { id: device.to_owned(), checked: now });
}

fn all_taken(devices: Option<Devices>) -> Reject {
    let message = match devices.and_then(|devices| devices.max) {
        Some(most) => format!(
            "This licence is in use on {most} devices, as many as it allows. Deactivate another \
             device first."
        ),
        None => {
            "This licence is in use on as many devices as it allows. Deactivate another device \
                 first."
                .into()
        }
    };
    Reject::new(Code::DeviceLimit, message)
}

fn unanswered() -> Reject {
    license::check_unavailable("the shop did not answer about a device")
}
