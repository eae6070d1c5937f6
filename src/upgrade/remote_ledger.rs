//! Client for a ledger that has moved to the successor process during an upgrade.

use std::{
    collections::{HashMap, VecDeque},
    os::unix::net::UnixStream,
};

use gatekeeper_filters::kernel::{Charge, LicenseId};
use parking_lot::Mutex;
use tokio::sync::{oneshot, watch};

use super::protocol::{self, FromPredecessor, LedgerCommand, LedgerQuery, LedgerReply};

/// The ledger is not there any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LedgerMoved;

pub struct RemoteLedger {
    line: Mutex<SuccessorLink>,
    /// Whether it went back where it came from.
    back: watch::Sender<bool>,
}

impl Default for RemoteLedger {
    fn default() -> Self {
        Self { line: Mutex::default(), back: watch::Sender::new(false) }
    }
}

#[derive(Default)]
struct SuccessorLink {
    /// `None` before the other process reads and after it stopped: commands are queued then.
    stream: Option<UnixStream>,
    is_closed: bool,
    next: u64,
    /// What the other process has not confirmed.
    commands: VecDeque<(u64, LedgerCommand)>,
    questions: HashMap<u64, (LedgerQuery, oneshot::Sender<LedgerReply>)>,
    held: OpenCalls,
}

/// What requests of this process have open there.
#[derive(Debug, Clone, Default)]
pub struct OpenCalls {
    /// Hold and the tokens it holds.
    pub open: HashMap<u64, u64>,
    pub places: HashMap<LicenseId, u32>,
}

impl OpenCalls {
    fn leave(&mut self, license: &LicenseId) {
        if let Some(places) = self.places.get_mut(license) {
            *places = places.saturating_sub(1);
        }
    }
}

impl SuccessorLink {
    fn write(&mut self, message: &FromPredecessor) {
        if let Some(stream) = &self.stream
            && protocol::send(stream, message).is_err()
        {
            // The reader sees the end of the connection and handles it.
            let _ = stream.shutdown(std::net::Shutdown::Both);
            self.stream = None;
        }
    }
}

impl RemoteLedger {
    /// What is open here already.
    pub fn hold(&self, held: OpenCalls) {
        let mut line = self.line.lock();
        line.held = held;
        // Places freed since the ledger stopped are still counted in it.
        let left: Vec<LicenseId> = line
            .commands
            .iter()
            .filter_map(|(_, command)| match command {
                LedgerCommand::Leave(license) => Some(*license),
                _ => None,
            })
            .collect();
        left.iter().for_each(|license| line.held.leave(license));
    }

    /// From now on the other process reads; queued commands are sent first.
    pub fn open(&self, stream: UnixStream) {
        let mut line = self.line.lock();
        line.stream = Some(stream);
        for (number, what) in line.commands.clone() {
            line.write(&FromPredecessor::Did { number, what });
        }
        let asked: Vec<_> =
            line.questions.iter().map(|(call, (what, _))| (*call, what.clone())).collect();
        for (call, what) in asked {
            line.write(&FromPredecessor::Asked { call, what });
        }
    }

    /// # Errors
    /// The ledger is back: the command belongs there.
    pub fn send(&self, what: LedgerCommand) -> Result<(), LedgerMoved> {
        let mut line = self.line.lock();
        if line.is_closed {
            return Err(LedgerMoved);
        }
        if let LedgerCommand::Leave(license) = &what {
            line.held.leave(license);
        }
        line.next += 1;
        let number = line.next;
        line.commands.push_back((number, what.clone()));
        line.write(&FromPredecessor::Did { number, what });
        Ok(())
    }

    /// `None` if the ledger was moved back before the reply.
    pub async fn ask(&self, what: LedgerQuery) -> Option<LedgerReply> {
        let (answered, answer) = oneshot::channel();
        {
            let mut line = self.line.lock();
            if line.is_closed {
                // No reply will come: reported at once, below.
                drop(answered);
            } else {
                line.next += 1;
                let call = line.next;
                line.questions.insert(call, (what.clone(), answered));
                line.write(&FromPredecessor::Asked { call, what });
            }
        }
        match answer.await {
            Ok(answer) => Some(answer),
            Err(_) => {
                let _ = self.back.subscribe().wait_for(|back| *back).await;
                None
            }
        }
    }

    /// The other process has everything up to this number.
    pub fn has(&self, number: u64) {
        let mut line = self.line.lock();
        while let Some((_, command)) = line.commands.pop_front_if(|(first, _)| *first <= number) {
            if let LedgerCommand::Settle(hold, _) = command {
                line.held.open.remove(&hold);
            }
        }
    }

    pub fn answer(&self, call: u64, answer: LedgerReply) {
        let mut line = self.line.lock();
        let Some((question, asked)) = line.questions.remove(&call) else { return };
        // The command that undoes a reply that is no longer awaited.
        let undo = match (&question, &answer) {
            (LedgerQuery::Enter(pace, _), LedgerReply::Entered(Ok(()))) => {
                *line.held.places.entry(pace.license).or_default() += 1;
                Some(LedgerCommand::Leave(pace.license))
            }
            (_, LedgerReply::Reserved(granted)) => granted.as_ref().as_ref().ok().map(|grant| {
                let tokens = grant.input.saturating_add(grant.output.unwrap_or(0));
                line.held.open.insert(grant.hold, tokens);
                LedgerCommand::Settle(grant.hold, Charge::NOTHING)
            }),
            _ => None,
        };
        drop(line);
        if let (Err(_), Some(command)) = (asked.send(answer), undo) {
            let _ = self.send(command);
        }
    }

    /// What requests of this process have open there; what was settled but not confirmed counts as open.
    pub fn held(&self) -> OpenCalls {
        self.line.lock().held.clone()
    }

    /// Ends sending; returns the commands that were not confirmed. `then` runs before any caller learns of
    /// it.
    pub fn close(&self, then: impl FnOnce()) -> Vec<LedgerCommand> {
        let mut line = self.line.lock();
        line.is_closed = true;
        line.stream = None;
        line.questions.clear();
        then();
        line.commands.drain(..).map(|(_, command)| command).collect()
    }

    /// The ledger can be asked where it came from.
    pub fn moved(&self) {
        self.back.send_replace(true);
    }

    /// The connection is lost; commands are queued.
    pub fn broken(&self) {
        self.line.lock().stream = None;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use gatekeeper_filters::kernel::UnixMs;

    use super::*;

    #[tokio::test]
    async fn what_is_asked_after_the_ledger_went_back_does_not_wait() {
        let remote = RemoteLedger::default();
        assert!(remote.close(|| {}).is_empty());
        remote.moved();
        let question = LedgerQuery::Balance(LicenseId([1; 32]), None, None, UnixMs(0));
        let asked = tokio::time::timeout(Duration::from_secs(5), remote.ask(question)).await;
        assert!(matches!(asked, Ok(None)));
        assert_eq!(remote.send(LedgerCommand::Leave(LicenseId([1; 32]))), Err(LedgerMoved));
    }
}
