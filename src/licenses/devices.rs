//! Devices of a licence. Shops that have a list of their own (of instances, activations, machines) are asked;
//! for other licences the list is here, in their record. Ids are hashed; names are kept only for apps that read
//! them from the licence API of another shop.

use std::{sync::Arc, time::Duration};

use gatekeeper_filters::{
    kernel::{Code, Credential, License, LicenseId, LicenseQuery, Plan, Rejection, UnixMs},
    license,
};
use parking_lot::Mutex;

use super::{
    cache_entry::CachedLicense,
    call_budget::CallPriority,
    clock::passed,
    device_throttle::DeviceThrottle,
    redis_cache::DistributedLock,
    sources::{ConfiguredShops, ShopQuery},
    validator::LicenseValidator,
};
use crate::shops::{Asked, Instance, InstanceCall, InstanceReply, ShopLicense, ShopReply};

/// Unknown device ids, and activations, of one licence an hour.
const ATTEMPTS_PER_HOUR: usize = 5;
const HOUR: Duration = Duration::from_secs(3600);
/// Where a plan sets no limit and the gateway keeps the list.
const MOST_DEVICES: u64 = 100;
/// How often is looked whether another gateway is done with the licence.
const LOOK: Duration = Duration::from_millis(50);
/// How long a request waits for a word about a device.
const WAIT: Duration = Duration::from_secs(8);
/// Between two attempts to ask about a device that is served meanwhile.
const PAUSE: Duration = Duration::from_secs(30);

/// Devices in use, and how many may be; `None` for any number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Devices {
    pub used: u64,
    pub max: Option<u64>,
}

/// Whose device it is about.
#[derive(Clone)]
struct DeviceRequest {
    sources: Arc<ConfiguredShops>,
    license: License,
    credential: Credential,
}

impl LicenseValidator {
    /// Lets a device of the licence pass.
    ///
    /// # Errors
    /// 403 for any other, 503 when neither cache nor shop can decide.
    pub async fn check_device(
        self: &Arc<Self>,
        sources: &Arc<ConfiguredShops>,
        license: &License,
        asking: &LicenseQuery<'_>,
    ) -> Result<(), Code> {
        let Some(instance) = asking.instance else { return Err(Code::DeviceLimit) };
        let device = self.hasher.device(&license.id, instance);
        let kept = self.known(&license.key).await;
        let owner = || DeviceRequest {
            sources: sources.clone(),
            license: license.clone(),
            credential: asking.credential.clone(),
        };
        let record = kept.as_ref().map(|kept| &kept.record);
        let cache = &sources.cache;
        match record.and_then(|record| age(record, &device, asking.now)) {
            Some(DeviceFreshness::Fresh) => return Ok(()),
            Some(DeviceFreshness::Past(age)) if age < cache.fresh => return Ok(()),
            Some(DeviceFreshness::Past(age)) if age < cache.fresh + cache.stale => {
                self.ask_behind_about(owner(), instance, asking.now);
                return Ok(());
            }
            _ => {}
        }
        let owner = owner();
        let asked = tokio::time::timeout(WAIT, self.ask_about(&owner, instance, &device));
        match asked.await.unwrap_or(Err(Code::LicenseCheckUnavailable)) {
            // Unknown now; an earlier answer may still serve.
            Err(Code::LicenseCheckUnavailable)
                if record.and_then(|record| record.device(&device)).is_some_and(|found| {
                    passed(found.checked, asking.now) < cache.fresh + cache.stale
                }) =>
            {
                Ok(())
            }
            said => said,
        }
    }

    /// Finds out about a device that is not known, or not any longer.
    async fn ask_about(
        self: &Arc<Self>,
        owner: &DeviceRequest,
        instance: &str,
        device: &str,
    ) -> Result<(), Code> {
        let id = &owner.license.key;
        let alone = self.throttle_of(id).lock().asking.clone();
        let _alone = alone.lock().await;
        // Another request may have asked since, here or at another gateway.
        let latest = self.latest(id).await;
        let is_latest = latest.is_ok();
        let kept = latest.unwrap_or_else(|_| self.memory_cache.get(id));
        let record = kept.map(|kept| kept.record.clone()).unwrap_or_default();
        let now = UnixMs::now();
        match age(&record, device, now) {
            Some(DeviceFreshness::Fresh) => return Ok(()),
            Some(DeviceFreshness::Past(age)) if age < owner.sources.cache.fresh => return Ok(()),
            _ => {}
        }
        if listed_at(&owner.sources, &record).is_none() {
            // Where the list may be longer elsewhere, this is no decision.
            return Err(match is_latest {
                true => Code::DeviceLimit,
                false => Code::LicenseCheckUnavailable,
            });
        }
        if record.device(device).is_none() && !self.record_unknown(id, device, now) {
            return Err(Code::DeviceLimit);
        }
        self.validate(owner, instance, device).await
    }

    /// Asks the shop about a device and writes down what it says.
    async fn validate(
        self: &Arc<Self>,
        owner: &DeviceRequest,
        instance: &str,
        device: &str,
    ) -> Result<(), Code> {
        let id = &owner.license.key;
        let asked = self.moment(id);
        match self.device_call(owner, InstanceCall::Validate(instance)).await {
            Some(Instance::Is(_)) => {
                self.forgive(id, device);
                self.set_device(id, device, false, asked).await;
                Ok(())
            }
            Some(Instance::IsNot | Instance::Released) => {
                self.set_device(id, device, true, asked).await;
                Err(Code::DeviceLimit)
            }
            // Nothing was learned, so nothing counts.
            _ => {
                self.forgive(id, device);
                Err(Code::LicenseCheckUnavailable)
            }
        }
    }

    /// Asks about a device that is served meanwhile, now and then.
    fn ask_behind_about(self: &Arc<Self>, owner: DeviceRequest, instance: &str, now: UnixMs) {
        let throttle = self.throttle_of(&owner.license.key);
        {
            let mut throttle = throttle.lock();
            if passed(throttle.tried, now) < PAUSE {
                return;
            }
            throttle.tried = now;
        }
        let (validator, instance) = (self.clone(), instance.to_owned());
        self.spawn(async move {
            let device = validator.hasher.device(&owner.license.id, &instance);
            let _ = validator.validate(&owner, &instance, &device).await;
        });
    }

    /// A new device: its id, which the app keeps, and the count with it.
    ///
    /// # Errors
    /// 403 when all places are taken, 429 for too many tries, 503 when the shop cannot decide.
    pub async fn activate(
        self: &Arc<Self>,
        sources: &Arc<ConfiguredShops>,
        license: &License,
        credential: &Credential,
        name: &str,
    ) -> Result<(String, Devices), Rejection> {
        let (id, now) = (&license.key, UnixMs::now());
        if !self.may_activate(id, now) {
            return Err(too_many_activations());
        }
        let owner = DeviceRequest {
            sources: sources.clone(),
            license: license.clone(),
            credential: credential.clone(),
        };
        let activated = self.activate_as(&owner, name).await;
        if activated.as_ref().is_err_and(|reject| reject.code.status() >= 500) {
            // Not decided, so the attempt does not count.
            self.throttle_of(id).lock().activations.retain(|at| *at != now);
        }
        activated
    }

    async fn activate_as(
        self: &Arc<Self>,
        owner: &DeviceRequest,
        name: &str,
    ) -> Result<(String, Devices), Rejection> {
        let license = &owner.license;
        let kept = self.known(&license.key).await;
        let record = kept.map(|kept| kept.record.clone()).unwrap_or_default();
        if listed_at(&owner.sources, &record).is_none() {
            return self.activate_here(license).await;
        }
        if let Some(most) = full_with_carried(&record) {
            return Err(all_taken(Some(most)));
        }
        match self.device_call(owner, InstanceCall::Activate(name)).await {
            Some(Instance::Is(instance)) => {
                let device = self.hasher.device(&license.id, &instance);
                self.set_device(&license.key, &device, false, UnixMs::now()).await;
                Ok((instance, self.devices_of(license).await.unwrap_or(NOT_COUNTED)))
            }
            Some(Instance::Full) => {
                Err(all_taken(self.devices_of(license).await.and_then(|devices| devices.max)))
            }
            _ => Err(unanswered()),
        }
    }

    /// A device of a licence of our own, whose app counts activations by itself; the id is a UUID, and the name is
    /// kept.
    ///
    /// # Errors
    /// As [`LicenseValidator::activate`].
    pub(super) async fn activate_for_app(
        &self,
        license: &License,
        name: &str,
    ) -> Result<(String, Devices), Rejection> {
        self.activate_in_list(license, Some(name)).await
    }

    /// A place in the list that the gateways keep themselves.
    async fn activate_here(&self, license: &License) -> Result<(String, Devices), Rejection> {
        self.activate_in_list(license, None).await
    }

    async fn activate_in_list(
        &self,
        license: &License,
        name: Option<&str>,
    ) -> Result<(String, Devices), Rejection> {
        let _lock = self.only_here(&license.key).await?;
        let latest = self.latest(&license.key).await.map_err(|_| store_is_away())?;
        let limit = latest.as_ref().and_then(|kept| kept.record.device_limit());
        let most = limit.or(license.plan.max_devices).unwrap_or(MOST_DEVICES);
        let mut random = [0; 16];
        getrandom::fill(&mut random)
            .map_err(|error| license::check_unavailable(&format!("no random bytes: {error}")))?;
        let mut instance: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        if name.is_some() {
            [8, 13, 18, 23].into_iter().for_each(|place| instance.insert(place, '-'));
        }
        let device = self.hasher.device(&license.id, &instance);
        let now = UnixMs::now();
        let place = |there: Option<&CachedLicense>| {
            let record = there.cloned().unwrap_or_default();
            let is_full = record.active().count() as u64 >= most;
            let activated = (!is_full).then(|| record.with_device(&device, false, now))?;
            Some(match name {
                Some(name) => activated.with_device_name(&device, name),
                None => activated,
            })
        };
        if self.memory_cache.update(license.key, place).is_none() {
            return Err(all_taken(Some(most)));
        }
        // The app keeps the id for good, so it must be on the disk.
        if !self.keep_now(license.key).await {
            self.set_device(&license.key, &device, true, now).await;
            return Err(license::check_unavailable("the database takes no device"));
        }
        Ok((instance, self.devices_of(license).await.unwrap_or(NOT_COUNTED)))
    }

    /// A device gives its place back.
    ///
    /// # Errors
    /// 404 for one that has none, 429 for too many of those, 503 when the shop can't be asked.
    pub async fn deactivate(
        self: &Arc<Self>,
        sources: &Arc<ConfiguredShops>,
        license: &License,
        credential: &Credential,
        instance: &str,
    ) -> Result<Devices, Rejection> {
        let (id, now) = (&license.key, UnixMs::now());
        let device = self.hasher.device(&license.id, instance);
        let kept = self.known(id).await;
        let is_known = kept.as_ref().is_some_and(|kept| kept.record.device(&device).is_some());
        if !is_known && !self.record_unknown(id, &device, now) {
            let message = "Too many unknown devices in the last hour. Please try again in an hour.";
            return Err(Rejection::new(Code::RateLimited, message).retry_after(60));
        }
        let record = kept.map(|kept| kept.record.clone()).unwrap_or_default();
        let is_carried = record.device(&device).is_some_and(|known| known.carried);
        let released = if !is_carried && listed_at(sources, &record).is_some() {
            let owner = DeviceRequest {
                sources: sources.clone(),
                license: license.clone(),
                credential: credential.clone(),
            };
            match self.device_call(&owner, InstanceCall::Deactivate(instance)).await {
                Some(Instance::Released) => true,
                // The device was removed at the shop already; the place is free.
                Some(Instance::IsNot) => is_known,
                _ => {
                    self.forgive(id, &device);
                    return Err(unanswered());
                }
            }
        } else {
            let _lock = self.only_here(id).await?;
            let latest = self.latest(id).await.map_err(|_| store_is_away())?;
            latest.is_some_and(|kept| kept.record.device(&device).is_some())
        };
        if !released {
            let message = "This device is not activated for this licence.";
            return Err(Rejection::new(Code::NotFound, message));
        }
        self.forgive(id, &device);
        self.set_device(id, &device, true, now).await;
        Ok(self.devices_of(license).await.unwrap_or(NOT_COUNTED))
    }

    /// The devices of a licence, if they are counted.
    pub fn devices(&self, license: &License, record: &CachedLicense) -> Option<Devices> {
        self.devices_by(&license.plan, record)
    }

    pub(super) fn devices_by(&self, plan: &Plan, record: &CachedLicense) -> Option<Devices> {
        let here = record.active().count() as u64;
        let facts = record.facts.as_ref();
        let limit = record.device_limit();
        let listed = facts.filter(|_| record.issued.is_none());
        match listed.and_then(|facts| facts.activations) {
            Some(activations) => {
                let used = (activations + record.carried().count() as u64).max(here);
                Some(Devices { used, max: limit })
            }
            None if plan.devices_required
                || plan.max_devices.is_some()
                || limit.is_some()
                || here > 0 =>
            {
                Some(Devices { used: here, max: limit.or(plan.max_devices) })
            }
            None => None,
        }
    }

    /// As [`LicenseValidator::devices`], of what is known of the licence.
    pub async fn devices_of(&self, license: &License) -> Option<Devices> {
        let kept = self.known(&license.key).await;
        let none = CachedLicense::default();
        self.devices(license, kept.as_ref().map_or(&none, |kept| &kept.record))
    }

    /// One call about a device, with a turn of its own. `None` when the shop said nothing.
    async fn device_call(
        self: &Arc<Self>,
        owner: &DeviceRequest,
        call: InstanceCall<'_>,
    ) -> Option<Instance> {
        let DeviceRequest { sources, license, credential } = owner;
        let kept = self.memory_cache.get(&license.key)?;
        let question = listed_at(sources, &kept.record)?;
        let asked = Asked {
            known: kept.record.facts.as_ref(),
            subject: &question.subject,
            ..Asked::about(credential.expose())
        };
        let (instance, reply, moment) =
            self.ask_instance(&license.key, &question, &asked, call, CallPriority::Known).await?;
        match (&reply, &instance) {
            (ShopReply::Unknown(_), Instance::Unsaid) | (ShopReply::License(_), _) => {
                let verdict = sources.verdict_name(&reply, moment);
                self.record_reply(question.shop(), question.name(), &reply, verdict);
            }
            // A word about the device alone says nothing of the licence.
            _ => {}
        }
        if let ShopReply::License(facts) = &reply {
            let reply = kept_facts(facts, kept.record.facts.as_ref());
            self.note(sources, license.key, &reply, moment).await;
        }
        (instance != Instance::Unsaid).then_some(instance)
    }

    /// One call about an instance, and the moment of its question.
    pub(super) async fn ask_instance(
        &self,
        id: &LicenseId,
        question: &ShopQuery,
        asked: &Asked<'_>,
        call: InstanceCall<'_>,
        class: CallPriority,
    ) -> Option<(Instance, ShopReply, UnixMs)> {
        let (shop, source) = (question.shop(), &question.account.source);
        let instances = shop.instances()?;
        let request = instances.request(source, asked, call)?;
        if self.health(shop).is_paused(std::time::Instant::now()) {
            return None;
        }
        let _permit = self.permit(question, class, None).await?;
        let moment = self.moment(id);
        let told = match self.send(question, &request).await {
            Ok(response) => instances.read(source, asked, call, &response, &self.hasher),
            Err(trouble) => {
                InstanceReply { reply: ShopReply::Unknown(trouble), instance: Instance::Unsaid }
            }
        };
        Some((told.instance, told.reply, moment))
    }

    /// Writes down that a device has its place, or has none.
    pub(super) async fn set_device(&self, id: &LicenseId, device: &str, gone: bool, now: UnixMs) {
        let change = |record: Option<&CachedLicense>| {
            let record = record?;
            // A device that never had a place is not recorded: ids are free to invent.
            (!gone || record.device(device).is_some())
                .then(|| record.with_device(device, gone, now))
        };
        if self.memory_cache.update(*id, change).is_some() {
            self.keep(*id).await;
        }
    }

    /// Of all gateways, only this one changes the licence's devices while the lock lives.
    pub(super) async fn only_here(
        &self,
        id: &LicenseId,
    ) -> Result<Option<DistributedLock>, Rejection> {
        let Some(redis) = &self.redis_cache else { return Ok(None) };
        let deadline = tokio::time::Instant::now() + WAIT;
        while tokio::time::Instant::now() < deadline {
            match redis.lock(id).await {
                Ok(Some(lock)) => return Ok(Some(lock)),
                Ok(None) => tokio::time::sleep(LOOK).await,
                Err(_) => break,
            }
        }
        Err(store_is_away())
    }

    fn throttle_of(&self, id: &LicenseId) -> Arc<Mutex<DeviceThrottle>> {
        self.device_throttles.get_with(*id, Arc::default)
    }

    /// Counts an unknown device before the shop is asked about it; false above the limit, and for a device
    /// that was refused already.
    fn record_unknown(&self, id: &LicenseId, device: &str, now: UnixMs) -> bool {
        let throttle = self.throttle_of(id);
        let mut throttle = throttle.lock();
        throttle.unknown.retain(|(_, at)| passed(*at, now) < HOUR);
        let is_new = !throttle.unknown.iter().any(|(known, _)| known == device);
        let may = is_new && throttle.unknown.len() < ATTEMPTS_PER_HOUR;
        if may {
            throttle.unknown.push((device.to_owned(), now));
        }
        may
    }

    /// The device turned out to be valid: it does not count.
    fn forgive(&self, id: &LicenseId, device: &str) {
        self.throttle_of(id).lock().unknown.retain(|(known, _)| known != device);
    }

    pub(super) fn may_activate(&self, id: &LicenseId, now: UnixMs) -> bool {
        let throttle = self.throttle_of(id);
        let mut throttle = throttle.lock();
        throttle.activations.retain(|at| passed(*at, now) < HOUR);
        let may = throttle.activations.len() < ATTEMPTS_PER_HOUR;
        if may {
            throttle.activations.push(now);
        }
        may
    }
}

const NOT_COUNTED: Devices = Devices { used: 0, max: None };

/// Where to ask about devices, for a licence whose shop has a list of them.
fn listed_at(sources: &ConfiguredShops, record: &CachedLicense) -> Option<ShopQuery> {
    let facts = record.facts.as_ref().filter(|_| record.issued.is_none())?;
    facts.activations?;
    facts.shop.instances()?;
    sources.question_about(facts)
}

/// Where devices of the key before take places: how many there are, if that is all of them. The shop does not
/// know of those.
fn full_with_carried(record: &CachedLicense) -> Option<u64> {
    let facts = record.facts.as_ref()?;
    let (limit, carried) = (facts.activation_limit?, record.carried().count() as u64);
    (carried > 0 && facts.activations.unwrap_or(0) + carried >= limit).then_some(limit)
}

/// What a device call says of the licence, with what only other calls tell.
fn kept_facts(facts: &ShopLicense, before: Option<&ShopLicense>) -> ShopReply {
    let mut facts = facts.clone();
    if let Some(before) = before.filter(|before| before.shop == facts.shop) {
        if facts.labels.is_empty() && !before.labels.is_empty() {
            facts.labels.clone_from(&before.labels);
            facts.product.clone_from(&before.product);
        }
        if facts.until.is_none() && facts.handle.is_some() && facts.handle == before.handle {
            facts.until = before.until;
        }
    }
    facts.into()
}

/// How long ago the shop knew a device; one in our own list is as good as on its first day.
enum DeviceFreshness {
    Fresh,
    Past(Duration),
}

/// `None` for a device that has no place.
fn age(record: &CachedLicense, device: &str, now: UnixMs) -> Option<DeviceFreshness> {
    let found = record.device(device)?;
    let is_listed = record.issued.is_none()
        && record.facts.as_ref().is_some_and(|facts| facts.activations.is_some());
    Some(match is_listed && !found.carried {
        // What changed at the shop since may be this device.
        true if found.checked <= record.marked => DeviceFreshness::Past(Duration::MAX),
        true => DeviceFreshness::Past(passed(found.checked, now)),
        false => DeviceFreshness::Fresh,
    })
}

pub(super) fn all_taken(most: Option<u64>) -> Rejection {
    let message = match most {
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
    Rejection::new(Code::DeviceLimit, message)
}

pub(super) fn too_many_activations() -> Rejection {
    let message =
        "This licence was activated too often in the last hour. Please try again in an hour.";
    Rejection::new(Code::RateLimited, message).retry_after(60)
}

fn store_is_away() -> Rejection {
    license::check_unavailable("the shared store does not answer, and it has the list of devices")
}

fn unanswered() -> Rejection {
    license::check_unavailable("the shop did not answer about a device")
}
