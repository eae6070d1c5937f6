//! The message protocol between the two processes of an upgrade.

use std::{
    io::{self, IoSlice, IoSliceMut, Read, Write},
    mem::MaybeUninit,
    os::{
        fd::{BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::PathBuf,
};

use gatekeeper_filters::kernel::{
    Balance, Charge, Demand, Denied, Grant, LicenseId, Limit, RateRefused, RateRequest, StoreDown,
    UnixMs,
};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{ledger::in_memory_state::InMemoryState, telemetry::daily_totals::DailyTotals};

/// Version of this protocol. Both sides need the same one.
pub const PROTOCOL: u32 = 4;
/// Bytes of one message: the state of some hundred thousand licences.
const MOST: u32 = 1 << 28;
/// Files that go along: the lock and the sockets.
const FILES: usize = 8;

/// How a conversation begins.
#[derive(Debug, Serialize, Deserialize)]
pub enum Hello {
    Successor(Compatibility),
    /// `gatekeeper upgrade`: start this program as successor.
    Upgrade {
        program: PathBuf,
    },
}

/// What two processes must have in common to own one store after the other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compatibility {
    pub protocol: u32,
    /// Of the database.
    pub schema: i64,
    pub store: PathBuf,
    /// A hash of the shared store's address, if there is one.
    pub shared: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
pub enum FromPredecessor {
    Welcome,
    Refused(String),
    State(Box<LedgerState>),
    Did { number: u64, what: LedgerCommand },
    Asked { call: u64, what: LedgerQuery },
}

#[derive(Debug, Serialize, Deserialize)]
pub struct LedgerState {
    /// Addresses of the sockets that come along, in their order.
    pub sockets: Vec<String>,
    pub volatile: InMemoryState,
}

/// What needs no answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum LedgerCommand {
    Leave(LicenseId),
    Settle(u64, Charge),
    /// A finished request, as an entry of the journal; with what it cost, where and when, and what it
    /// used of that day.
    Record {
        entry: Vec<u8>,
        provider: String,
        cost: u64,
        time: UnixMs,
        #[serde(default)]
        used: DailyTotals,
    },
    /// A licence's record changed.
    License(LicenseId, Value),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum LedgerQuery {
    Enter(RateRequest, UnixMs),
    Reserve(Box<Demand>),
    Balance(LicenseId, Option<Limit>, Option<Limit>, UnixMs),
}

#[derive(Debug, Serialize, Deserialize)]
pub enum LedgerReply {
    Entered(Result<(), RateRefused>),
    Reserved(Box<Result<Grant, Denied>>),
    Balanced(Result<Balance, StoreDown>),
}

#[derive(Debug, Serialize, Deserialize)]
pub enum FromSuccessor {
    /// The successor serves; requests that still arrive at the predecessor are accepted on this socket.
    Ready {
        apps: String,
    },
    /// It can't.
    Failed(String),
    /// It ends, and is not to be replaced.
    Leaving,
    /// Everything up to this number is done here, in this order: in the journal, as a rule. A settle that
    /// found no room there, or whose message the shared store decides, is still in memory; if this
    /// process is killed before it is written, its request is charged as after any crash.
    Has(u64),
    Answer {
        call: u64,
        answer: LedgerReply,
    },
}

/// What `gatekeeper upgrade` receives.
#[derive(Debug, Serialize, Deserialize)]
pub enum UpgradeProgress {
    Step(String),
    Done(String),
    Failed(String),
}

/// # Errors
/// The other side is gone, or takes nothing.
pub fn send(mut stream: &UnixStream, message: &impl Serialize) -> io::Result<()> {
    let mut bytes = vec![0; 4];
    serde_json::to_writer(&mut bytes, message)?;
    let length = u32::try_from(bytes.len() - 4).map_err(io::Error::other)?;
    bytes[..4].copy_from_slice(&length.to_le_bytes());
    stream.write_all(&bytes)
}

/// # Errors
/// The other side is gone, silent for too long, or uses another protocol version.
pub fn receive<T: DeserializeOwned>(mut stream: &UnixStream) -> io::Result<T> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length);
    if length > MOST {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut bytes = vec![0; length as usize];
    stream.read_exact(&mut bytes)?;
    Ok(serde_json::from_slice(&bytes)?)
}

/// # Errors
/// The other side is gone.
pub fn send_files(stream: &UnixStream, files: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FILES))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(files)) {
        return Err(io::Error::other("too many files"));
    }
    sendmsg(stream, &[IoSlice::new(b"F")], &mut control, SendFlags::empty())?;
    Ok(())
}

/// Waits for them as long as the stream does. `None` when the other side is gone.
///
/// # Errors
/// They can't be taken.
pub fn receive_files(stream: &UnixStream) -> io::Result<Option<Vec<OwnedFd>>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FILES))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let got = loop {
        let mut into = [IoSliceMut::new(&mut byte)];
        match recvmsg(stream, &mut into, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Err(rustix::io::Errno::INTR) => {}
            got => break got?,
        }
    };
    if got.bytes == 0 {
        return Ok(None);
    }
    let files = control.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(files) => Some(files),
        _ => None,
    });
    Ok(Some(files.flatten().collect()))
}
