//! One entry of the journal, as bytes.
//!
//! ```text
//! 0   u32  length of the whole entry, a multiple of 8
//! 4   u32  CRC-32 of everything behind it
//! 8   u64  sequence, one more than that of the entry before
//! 16  u8   kind: 5 reserve, 6 settle, 7 request, 10 action; read only, as former versions wrote
//!          them: 1 reserve and 2 settle without names, 3 request without its cost, 4 without waste
//! 17  ...  fields, little endian; text is a u8 length and UTF-8 (of a note a u16)
//! ```
//! A length of zero ends a segment. An entry whose CRC is wrong was cut off by a crash.

use gatekeeper_filters::kernel::{About, LicenseId, Period, Record, UnixMs};

use crate::ledger::{
    adjustment::{LimitChange, LimitChanges},
    operator_action::{OperatorAction, OperatorActionKind},
};

const HEADER: usize = 16;
/// As former versions wrote them.
const NAMELESS_RESERVE: u8 = 1;
const NAMELESS_SETTLE: u8 = 2;
const COSTLESS: u8 = 3;
const WASTELESS: u8 = 4;
const RESERVE: u8 = 5;
const SETTLE: u8 = 6;
const REQUEST: u8 = 7;
const ACTION: u8 = 10;

/// [`About`] as it stands in the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EntryNames<'a> {
    pub plan: &'a str,
    /// The public name.
    pub model: &'a str,
    pub provider: &'a str,
}

impl<'a> EntryNames<'a> {
    pub fn of(about: &'a About) -> Self {
        Self { plan: &about.plan, model: &about.model, provider: &about.provider }
    }
}

/// The row that a request gets if it is never settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EntryExpectation<'a> {
    pub names: EntryNames<'a>,
    /// Picodollars of its input.
    pub cost: u64,
    /// The conversation that counts it, and the beginning of the window in which it does.
    pub conversation: Option<(u64, UnixMs)>,
}

/// Opened: what the next start has to charge if no [`SettledEntry`] follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReservedEntry {
    pub hold: u64,
    pub license: LicenseId,
    pub time: UnixMs,
    /// Estimate of the input, in tokens.
    pub input: u64,
    /// Requests with one message id share a group; 0 for none.
    pub group: u64,
    /// The time in whose windows the message counts; `None` when it has been charged already.
    pub message: Option<UnixMs>,
}

/// Closed: what it cost. Complete in itself, so that applying it needs no lookup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SettledEntry {
    pub hold: u64,
    pub license: LicenseId,
    /// When it was reserved: the windows the tokens count in.
    pub time: UnixMs,
    pub tokens: u64,
    pub group: u64,
    /// The windows the message counts in; `None` when none was charged.
    pub message: Option<UnixMs>,
    /// The conversation that had counted a message that was given back, and the beginning of its window.
    pub returned: Option<(u64, UnixMs)>,
}

/// [`Record`] as it stands in the journal.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UsageEntry<'a> {
    pub time: UnixMs,
    pub license: Option<LicenseId>,
    /// Endpoint, plan, model, served, provider, key, source.
    pub texts: [&'a str; 7],
    /// Input, output, cached, reasoning, charged, status, ms, attempts.
    pub numbers: [u64; 8],
    pub cache_write: u64,
    /// Tokens that the app did not get, beside those in `numbers`.
    pub wasted: u64,
    /// Picodollars, waste included.
    pub cost: u64,
    /// Part of `cost`.
    pub wasted_cost: u64,
    /// It is a message, and no entry of its settlement says so: written by an earlier version, which
    /// counted requests that reached a provider as messages.
    pub message: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::large_enum_variant, reason = "read one by one, and most are requests")]
pub enum JournalEntry<'a> {
    Reserved(ReservedEntry, EntryExpectation<'a>),
    /// Without names it counts in no row of `daily`: a former version counted it with its request.
    Settled(SettledEntry, Option<EntryNames<'a>>),
    Request(UsageEntry<'a>),
    Action(OperatorAction<'a>),
}

/// Encoded, but without sequence and CRC: those are known only when its place in the journal is.
#[derive(Debug, Clone)]
pub struct EntryFrame(Vec<u8>);

impl EntryFrame {
    pub fn reserved(entry: &ReservedEntry, expected: &EntryExpectation<'_>) -> Self {
        let mut frame = Self::begin(RESERVE, 160);
        frame.number(entry.hold);
        frame.bytes(&entry.license.0);
        frame.number(entry.time.0);
        frame.number(entry.input);
        frame.number(entry.group);
        frame.time(entry.message);
        frame.number(expected.cost);
        frame.names(&expected.names);
        frame.conversation(expected.conversation);
        frame.end()
    }

    pub fn settled(entry: &SettledEntry, names: &EntryNames<'_>) -> Self {
        let mut frame = Self::begin(SETTLE, 160);
        frame.number(entry.hold);
        frame.bytes(&entry.license.0);
        frame.number(entry.time.0);
        frame.number(entry.tokens);
        frame.number(entry.group);
        frame.time(entry.message);
        frame.names(names);
        frame.conversation(entry.returned);
        frame.end()
    }

    /// Behind all that former versions read: they pass over it, and zeros stand there otherwise.
    fn conversation(&mut self, conversation: Option<(u64, UnixMs)>) {
        if let Some((conversation, start)) = conversation {
            self.bytes(&[1]);
            self.number(conversation);
            self.number(start.0);
        }
    }

    fn names(&mut self, names: &EntryNames<'_>) {
        [names.plan, names.model, names.provider].iter().for_each(|name| self.text(name));
    }

    pub fn request(record: &Record) -> Self {
        let mut frame = Self::begin(REQUEST, 320);
        frame.record(record);
        let Record { usage, wasted, cost, wasted_cost, .. } = record;
        [usage.cache_write, *wasted, *cost, *wasted_cost].iter().for_each(|n| frame.number(*n));
        frame.end()
    }

    /// What [`EntryFrame::into_bytes`] gave.
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// As a former version wrote it.
    #[cfg(test)]
    pub fn costless(record: &Record) -> Self {
        let mut frame = Self::begin(COSTLESS, 320);
        frame.record(record);
        frame.end()
    }

    /// The same of a later one.
    #[cfg(test)]
    pub fn wasteless(record: &Record) -> Self {
        let mut frame = Self::begin(WASTELESS, 320);
        frame.record(record);
        frame.number(record.cost);
        frame.bytes(&[u8::from(record.sent)]);
        frame.end()
    }

    /// The same of a settling.
    #[cfg(test)]
    pub fn nameless(entry: &SettledEntry) -> Self {
        let mut frame = Self::begin(NAMELESS_SETTLE, 96);
        frame.number(entry.hold);
        frame.bytes(&entry.license.0);
        frame.number(entry.time.0);
        frame.number(entry.tokens);
        frame.number(entry.group);
        frame.time(entry.message);
        frame.end()
    }

    fn record(&mut self, record: &Record) {
        self.number(record.time.0);
        self.bytes(&[u8::from(record.license.is_some())]);
        self.bytes(&record.license.map_or([0; 32], |license| license.0));
        let texts = [
            record.endpoint,
            &record.plan,
            &record.model,
            &record.served,
            &record.provider,
            &record.key,
            record.source.name(),
        ];
        texts.iter().for_each(|text| self.text(text));
        let usage = &record.usage;
        let numbers = [
            usage.input,
            usage.output,
            usage.cached,
            usage.reasoning,
            record.charged,
            u64::from(record.status),
            record.ms,
            u64::from(record.attempts),
        ];
        numbers.iter().for_each(|number| self.number(*number));
    }

    pub fn action(action: &OperatorAction<'_>) -> Self {
        let mut frame = Self::begin(ACTION, 320);
        frame.number(action.time.0);
        frame.bytes(&[action.kind as u8]);
        frame.bytes(&action.license.0);
        frame.text(&action.id);
        frame.text(&action.detail);
        frame.long_text(&action.note);
        frame.bytes(&[u8::from(action.changes.is_some())]);
        for change in action.changes.iter().flat_map(|changes| [changes.messages, changes.tokens]) {
            frame.bytes(&[change.period as u8]);
            frame.number(change.extra);
            frame.number(change.forgiven);
        }
        frame.end()
    }

    /// Fills in the sequence and the CRC; the bytes as they go into the journal.
    pub fn stamp(&mut self, sequence: u64) -> &[u8] {
        self.0[8..HEADER].copy_from_slice(&sequence.to_le_bytes());
        let crc = crc32fast::hash(&self.0[8..]);
        self.0[4..8].copy_from_slice(&crc.to_le_bytes());
        &self.0
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    fn begin(kind: u8, size: usize) -> Self {
        let mut bytes = Vec::with_capacity(size);
        bytes.resize(HEADER, 0);
        bytes.push(kind);
        Self(bytes)
    }

    fn end(mut self) -> Self {
        self.0.resize(self.0.len().next_multiple_of(8), 0);
        let length = self.0.len() as u32;
        self.0[..4].copy_from_slice(&length.to_le_bytes());
        self
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    fn number(&mut self, number: u64) {
        self.bytes(&number.to_le_bytes());
    }

    fn time(&mut self, time: Option<UnixMs>) {
        self.bytes(&[u8::from(time.is_some())]);
        self.number(time.map_or(0, |time| time.0));
    }

    /// Cut at 255 bytes, on a character.
    fn text(&mut self, text: &str) {
        let text = &text[..text.floor_char_boundary(255)];
        self.bytes(&[text.len() as u8]);
        self.bytes(text.as_bytes());
    }

    /// Cut at 1 KiB, on a character.
    fn long_text(&mut self, text: &str) {
        let text = &text[..text.floor_char_boundary(1024)];
        self.bytes(&(text.len() as u16).to_le_bytes());
        self.bytes(text.as_bytes());
    }
}

/// Reads entries one after the other, until the end or the first that is not whole.
pub struct EntryScan<'a> {
    bytes: &'a [u8],
    /// Bytes of whole entries so far.
    pub consumed: usize,
}

impl<'a> EntryScan<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, consumed: 0 }
    }

    /// Whether the scan ended at something that is no entry, rather than at the end.
    pub fn is_torn(&self) -> bool {
        self.bytes[self.consumed..].iter().take(HEADER).any(|byte| *byte != 0)
    }
}

impl<'a> Iterator for EntryScan<'a> {
    /// Sequence and entry.
    type Item = (u64, JournalEntry<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.bytes.get(self.consumed..)?;
        let length = u32::from_le_bytes(rest.get(..4)?.try_into().ok()?) as usize;
        let bytes = rest.get(..length).filter(|bytes| bytes.len() > HEADER)?;
        let crc = u32::from_le_bytes(bytes[4..8].try_into().ok()?);
        if crc32fast::hash(&bytes[8..]) != crc {
            return None;
        }
        let sequence = u64::from_le_bytes(bytes[8..HEADER].try_into().ok()?);
        let entry = EntryFields(&bytes[HEADER..]).entry()?;
        self.consumed += length;
        Some((sequence, entry))
    }
}

struct EntryFields<'a>(&'a [u8]);

impl<'a> EntryFields<'a> {
    fn entry(&mut self) -> Option<JournalEntry<'a>> {
        match self.byte()? {
            NAMELESS_RESERVE => {
                Some(JournalEntry::Reserved(self.reserved()?, EntryExpectation::default()))
            }
            NAMELESS_SETTLE => Some(JournalEntry::Settled(self.settled()?, None)),
            RESERVE => {
                let reserved = self.reserved()?;
                let cost = self.number()?;
                let names = self.names()?;
                let conversation = self.conversation();
                Some(JournalEntry::Reserved(
                    reserved,
                    EntryExpectation { cost, names, conversation },
                ))
            }
            SETTLE => {
                let (settled, names) = (self.settled()?, self.names()?);
                let settled = SettledEntry { returned: self.conversation(), ..settled };
                Some(JournalEntry::Settled(settled, Some(names)))
            }
            COSTLESS => {
                let request = self.request()?;
                let [.., attempts] = request.numbers;
                Some(JournalEntry::Request(UsageEntry { message: attempts > 0, ..request }))
            }
            WASTELESS => {
                let request = self.request()?;
                let (cost, message) = (self.number()?, self.byte()? == 1);
                Some(JournalEntry::Request(UsageEntry { cost, message, ..request }))
            }
            REQUEST => {
                let request = self.request()?;
                Some(JournalEntry::Request(UsageEntry {
                    cache_write: self.number()?,
                    wasted: self.number()?,
                    cost: self.number()?,
                    wasted_cost: self.number()?,
                    ..request
                }))
            }
            ACTION => self.action().map(JournalEntry::Action),
            _ => None,
        }
    }

    fn reserved(&mut self) -> Option<ReservedEntry> {
        Some(ReservedEntry {
            hold: self.number()?,
            license: LicenseId(self.array()?),
            time: UnixMs(self.number()?),
            input: self.number()?,
            group: self.number()?,
            message: self.time()?,
        })
    }

    fn settled(&mut self) -> Option<SettledEntry> {
        Some(SettledEntry {
            hold: self.number()?,
            license: LicenseId(self.array()?),
            time: UnixMs(self.number()?),
            tokens: self.number()?,
            group: self.number()?,
            message: self.time()?,
            returned: None,
        })
    }

    fn conversation(&mut self) -> Option<(u64, UnixMs)> {
        if self.byte()? != 1 {
            return None;
        }
        Some((self.number()?, UnixMs(self.number()?)))
    }

    fn names(&mut self) -> Option<EntryNames<'a>> {
        Some(EntryNames { plan: self.text()?, model: self.text()?, provider: self.text()? })
    }

    fn request(&mut self) -> Option<UsageEntry<'a>> {
        let time = UnixMs(self.number()?);
        let known = self.byte()? == 1;
        let license = LicenseId(self.array()?);
        let mut request =
            UsageEntry { time, license: known.then_some(license), ..UsageEntry::default() };
        for text in &mut request.texts {
            *text = self.text()?;
        }
        for number in &mut request.numbers {
            *number = self.number()?;
        }
        Some(request)
    }

    fn action(&mut self) -> Option<OperatorAction<'a>> {
        let time = UnixMs(self.number()?);
        let kind = *OperatorActionKind::ALL.get(usize::from(self.byte()?))?;
        let license = LicenseId(self.array()?);
        let (id, detail) = (self.text()?.into(), self.text()?.into());
        let length = usize::from(self.array().map(u16::from_le_bytes)?);
        let note = self.text_of(length)?.into();
        let changes = match self.byte()? {
            0 => None,
            _ => Some(LimitChanges { messages: self.change()?, tokens: self.change()? }),
        };
        Some(OperatorAction { time, kind, license, id, detail, note, changes })
    }

    fn change(&mut self) -> Option<LimitChange> {
        let period = *Period::ALL.get(usize::from(self.byte()?))?;
        Some(LimitChange { period, extra: self.number()?, forgiven: self.number()? })
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, tail) = self.0.split_first_chunk::<N>()?;
        self.0 = tail;
        Some(*head)
    }

    fn byte(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn number(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn time(&mut self) -> Option<Option<UnixMs>> {
        let known = self.byte()? == 1;
        let time = UnixMs(self.number()?);
        Some(known.then_some(time))
    }

    fn text(&mut self) -> Option<&'a str> {
        let length = usize::from(self.byte()?);
        self.text_of(length)
    }

    fn text_of(&mut self, length: usize) -> Option<&'a str> {
        let (head, tail) = self.0.split_at_checked(length)?;
        self.0 = tail;
        std::str::from_utf8(head).ok()
    }
}
