//! Answers that are given again (`idempotency` of a plan): of a request that comes twice, the second gets the answer
//! of the first, whether that is whole or still on its way. In memory alone.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use gatekeeper_filters::kernel::ResponseHead;
use http::{HeaderName, HeaderValue};
use moka::sync::Cache;
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use tokio::sync::Notify;

/// Bytes of one answer that is kept. A longer one is given only to the requests that wait for it already.
const LONGEST: usize = 64 * 1024;
/// Of one that requests wait for.
const LONGEST_AWAITED: usize = 8 << 20;
/// Bytes of all whole answers. Those on their way have the rest of 64 MiB.
const WHOLE: u64 = 48 << 20;
const OPEN: usize = 16 << 20;
/// No plan keeps answers longer.
pub const LONGEST_LIFE: Duration = Duration::from_secs(24 * 3600);
/// What an entry takes beside its bytes.
const OVERHEAD: usize = 512;

/// Licence, message, address and body of a request, as a keyed hash.
pub type ReplayKey = [u8; 16];

pub struct Replays {
    open: Mutex<FxHashMap<ReplayKey, Arc<Recording>>>,
    whole: Cache<ReplayKey, (Arc<Recording>, Instant)>,
    /// Bytes of answers on their way.
    bytes: AtomicUsize,
}

impl Default for Replays {
    fn default() -> Self {
        let weight = |_: &ReplayKey, (recording, _): &(Arc<Recording>, Instant)| {
            (recording.state.lock().bytes + OVERHEAD) as u32
        };
        let whole = Cache::builder().max_capacity(WHOLE).weigher(weight);
        let whole = whole.time_to_live(LONGEST_LIFE).build();
        Self { open: Mutex::default(), whole, bytes: AtomicUsize::new(0) }
    }
}

/// How a request with a replay key proceeds.
pub enum Replay {
    /// It is the first: its answer is recorded.
    First(Recorder),
    /// It came before.
    Again(ReplayReader),
}

/// One answer, as far as it has come.
#[derive(Default)]
struct Recording {
    state: Mutex<Recorded>,
    moved: Notify,
    followers: AtomicUsize,
    is_stream: AtomicBool,
    /// The last follower has left.
    deserted: Notify,
}

#[derive(Default)]
struct Recorded {
    headers: Option<Vec<(HeaderName, HeaderValue)>>,
    chunks: Vec<Bytes>,
    bytes: usize,
    end: Option<End>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Whole,
    /// It broke, or was none.
    Failed,
}

impl Replays {
    /// Whether a request like this came within `life`.
    pub fn begin(self: &Arc<Self>, key: ReplayKey, life: Duration) -> Replay {
        let mut open = self.open.lock();
        if let Some(recording) = open.get(&key) {
            return Replay::Again(ReplayReader::of(recording.clone()));
        }
        if let Some((recording, at)) = self.whole.get(&key)
            && at.elapsed() < life
        {
            return Replay::Again(ReplayReader::of(recording));
        }
        let recording = Arc::<Recording>::default();
        open.insert(key, recording.clone());
        Replay::First(Recorder { replays: self.clone(), key, recording, held: 0, is_listed: true })
    }
}

/// Writes down an answer while it goes to the app. Dropped before it is whole, it has failed.
pub struct Recorder {
    replays: Arc<Replays>,
    key: ReplayKey,
    recording: Arc<Recording>,
    /// Of [`Replays::bytes`].
    held: usize,
    /// Later requests find it.
    is_listed: bool,
}

impl Recorder {
    /// Whether the answer comes event by event.
    pub fn is_for(&self, is_stream: bool) {
        self.recording.is_stream.store(is_stream, SeqCst);
    }

    /// Whether another request waits for the same answer.
    pub fn has_followers(&self) -> bool {
        self.recording.followers.load(SeqCst) > 0
    }

    /// Resolves when no other request waits any more. Cancel-safe.
    pub async fn deserted(&self) {
        loop {
            let deserted = self.recording.deserted.notified();
            if !self.has_followers() {
                return;
            }
            deserted.await;
        }
    }

    /// Takes down a part of the answer; the head comes with the first one.
    pub fn record(&mut self, head: Option<&ResponseHead>, bytes: &Bytes, is_whole: bool) {
        let recording = self.recording.clone();
        let mut state = recording.state.lock();
        if state.end.is_some() {
            return;
        }
        if let Some(head) = head {
            // The lifetime was computed earlier and may have changed.
            let stays =
                |(name, _): &&(HeaderName, HeaderValue)| !name.as_str().starts_with("x-quota-");
            state.headers = Some(head.headers.iter().filter(stays).cloned().collect());
        }
        let length = state.bytes + bytes.len();
        let all = self.replays.bytes.fetch_add(bytes.len(), SeqCst) + bytes.len();
        self.held += bytes.len();
        if length > LONGEST || all > OPEN {
            self.unlist();
            if !self.has_followers() || length > LONGEST_AWAITED {
                state.end = Some(End::Failed);
                state.chunks.clear();
                drop(state);
                recording.moved.notify_waiters();
                return;
            }
        }
        state.bytes = length;
        if !bytes.is_empty() {
            state.chunks.push(bytes.clone());
        }
        state.end = is_whole.then_some(End::Whole);
        drop(state);
        if is_whole && self.is_listed {
            let kept = (recording.clone(), Instant::now());
            // In this order: a request that found it in neither map would go to the provider again.
            self.replays.whole.insert(self.key, kept);
            self.unlist();
        }
        recording.moved.notify_waiters();
    }

    fn unlist(&mut self) {
        if std::mem::replace(&mut self.is_listed, false) {
            self.replays.open.lock().remove(&self.key);
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.replays.bytes.fetch_sub(self.held, SeqCst);
        self.unlist();
        let mut state = self.recording.state.lock();
        state.end.get_or_insert(End::Failed);
        drop(state);
        self.recording.moved.notify_waiters();
    }
}

/// Reads an answer from its beginning on.
pub struct ReplayReader {
    recording: Arc<Recording>,
    read: usize,
    has_head: bool,
}

/// Whether an answer comes event by event.
pub struct AnswerKind(Arc<Recording>);

impl AnswerKind {
    pub fn is_stream(&self) -> bool {
        self.0.is_stream.load(SeqCst)
    }
}

/// What has come since the last look.
pub struct ReplayPart {
    pub head: Option<ResponseHead>,
    pub bytes: Bytes,
    pub is_over: bool,
    /// It broke: what came is not all of it.
    pub has_failed: bool,
}

impl ReplayReader {
    fn of(recording: Arc<Recording>) -> Self {
        recording.followers.fetch_add(1, SeqCst);
        Self { recording, read: 0, has_head: false }
    }

    /// Whether the answer comes event by event, as soon as that is known.
    pub fn kind(&self) -> AnswerKind {
        AnswerKind(self.recording.clone())
    }

    /// Waits for more. Cancel-safe.
    pub async fn more(&mut self) -> ReplayPart {
        loop {
            let recording = self.recording.clone();
            let moved = recording.moved.notified();
            if let Some(part) = self.look() {
                return part;
            }
            moved.await;
        }
    }

    fn look(&mut self) -> Option<ReplayPart> {
        let state = self.recording.state.lock();
        let fresh = state.chunks.get(self.read..).unwrap_or_default();
        if fresh.is_empty() && state.end.is_none() {
            return None;
        }
        let head = state
            .headers
            .as_ref()
            .filter(|_| !self.has_head)
            .map(|headers| ResponseHead { status: 200, headers: headers.clone() });
        self.has_head |= head.is_some();
        let bytes = match fresh {
            [only] => only.clone(),
            several => Bytes::from(several.concat()),
        };
        self.read = state.chunks.len();
        let has_failed = state.end == Some(End::Failed);
        Some(ReplayPart { head, bytes, is_over: state.end.is_some(), has_failed })
    }
}

impl Drop for ReplayReader {
    fn drop(&mut self) {
        if self.recording.followers.fetch_sub(1, SeqCst) == 1 {
            self.recording.deserted.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFE: Duration = Duration::from_secs(600);

    fn first(replays: &Arc<Replays>, key: u8) -> Recorder {
        match replays.begin([key; 16], LIFE) {
            Replay::First(recorder) => recorder,
            Replay::Again(_) => panic!("it came before"),
        }
    }

    fn again(replays: &Arc<Replays>, key: u8) -> ReplayReader {
        match replays.begin([key; 16], LIFE) {
            Replay::Again(follower) => follower,
            Replay::First(_) => panic!("it is the first"),
        }
    }

    fn head() -> ResponseHead {
        let mut head = ResponseHead { status: 200, headers: Vec::new() };
        head.insert(HeaderName::from_static("x-gatekeeper-model"), HeaderValue::from_static("p/m"));
        head.insert(HeaderName::from_static("x-quota-reset"), HeaderValue::from_static("x"));
        head
    }

    #[tokio::test]
    async fn who_comes_later_reads_from_the_beginning_and_after_the_end() {
        let replays = Arc::<Replays>::default();
        let mut recorder = first(&replays, 1);
        recorder.record(Some(&head()), &Bytes::from_static(b"ab"), false);
        let mut follower = again(&replays, 1);
        let part = follower.more().await;
        assert_eq!((&part.bytes[..], part.is_over), (&b"ab"[..], false));
        assert_eq!(part.head.unwrap().headers.len(), 1, "no balance of then");
        recorder.record(None, &Bytes::from_static(b"cd"), false);
        recorder.record(None, &Bytes::from_static(b"ef"), true);
        let part = follower.more().await;
        assert_eq!((&part.bytes[..], part.is_over, part.has_failed), (&b"cdef"[..], true, false));
        drop(recorder);
        assert_eq!(&again(&replays, 1).more().await.bytes[..], b"abcdef");
        assert_eq!(replays.bytes.load(SeqCst), 0);
        assert!(matches!(replays.begin([1; 16], Duration::ZERO), Replay::First(_)), "too old");
    }

    #[tokio::test]
    async fn what_fails_is_told_and_not_kept() {
        let replays = Arc::<Replays>::default();
        let recorder = first(&replays, 1);
        let mut follower = again(&replays, 1);
        drop(recorder);
        let part = follower.more().await;
        assert!(part.is_over && part.has_failed && part.bytes.is_empty());
        first(&replays, 1);
    }

    #[tokio::test]
    async fn long_answers_are_for_those_who_wait_alone() {
        let replays = Arc::<Replays>::default();
        let mut recorder = first(&replays, 1);
        let mut follower = again(&replays, 1);
        let long = Bytes::from(vec![b'x'; LONGEST + 1]);
        recorder.record(Some(&head()), &long, true);
        let part = follower.more().await;
        assert_eq!((part.bytes.len(), part.has_failed), (LONGEST + 1, false));
        first(&replays, 1).record(Some(&head()), &long, true);
        first(&replays, 1);
    }

    #[tokio::test]
    async fn the_last_follower_who_leaves_is_noticed() {
        let replays = Arc::<Replays>::default();
        let recorder = first(&replays, 1);
        let (one, two) = (again(&replays, 1), again(&replays, 1));
        assert!(recorder.has_followers());
        drop((one, two));
        recorder.deserted().await;
        assert!(!recorder.has_followers());
    }

    #[test]
    fn all_of_it_has_its_bound() {
        let replays = Arc::<Replays>::default();
        let answer = Bytes::from(vec![b'x'; LONGEST]);
        for key in 0..2000_u32 {
            let mut name = [0; 16];
            name[..4].copy_from_slice(&key.to_le_bytes());
            let Replay::First(mut recorder) = replays.begin(name, LIFE) else { panic!() };
            recorder.record(Some(&head()), &answer, true);
        }
        replays.whole.run_pending_tasks();
        assert!(replays.whole.weighted_size() <= WHOLE);
        assert!(replays.open.lock().is_empty());
    }
}
