//! Browser sessions. A browser keeps a random number in a cookie; the gateway stores its hash, and the hash
//! of number and token together, so that neither can be derived from the file. Sessions survive a restart;
//! they end with the token that opened them.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    time::Duration,
};

use gatekeeper_filters::kernel::UnixMs;
use http::{HeaderMap, header};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::config::settings::Settings;

/// How the name of each cookie begins.
const COOKIE: &str = "gatekeeper_session";
/// Above this, the session that was used least lately ends.
const MOST: usize = 64;
/// Without a request.
const IDLE: Duration = Duration::from_secs(12 * 3600);
/// From the login on.
const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);
/// The file is written anew when the last use that it knows is older than this.
const NOTED_EVERY: Duration = Duration::from_secs(300);

/// What is kept of a secret: it can be compared, not read.
pub type TokenDigest = [u8; 32];

pub fn print(secret: &str) -> TokenDigest {
    Sha256::digest(secret).into()
}

/// The sessions, and the file that keeps them over a restart.
#[derive(Default)]
pub struct Sessions {
    by_print: Mutex<HashMap<TokenDigest, Session>>,
    file: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy)]
struct Session {
    begun: UnixMs,
    used: UnixMs,
    /// When `used` was last written to the file.
    noted: UnixMs,
    /// Of the cookie's secret and the token that opened the session.
    binding: TokenDigest,
    /// The print of that token, once a request has shown in this process that it is still the one.
    token: Option<TokenDigest>,
}

/// A session as it stands in the file.
#[derive(Serialize, Deserialize)]
struct SavedSession {
    id: String,
    binding: String,
    begun: UnixMs,
    used: UnixMs,
}

impl Session {
    fn lives(&self, now: UnixMs) -> bool {
        let since = |at: UnixMs| Duration::from_millis(now.0.saturating_sub(at.0));
        since(self.begun) < LONGEST && since(self.used) < IDLE
    }
}

/// Without the cookie's secret nothing that is stored can be turned back into a token.
fn bind(secret: &str, token: &TokenDigest) -> TokenDigest {
    let mut hash = Sha256::new();
    hash.update(secret);
    hash.update(token);
    hash.finalize().into()
}

impl Sessions {
    /// The sessions that are kept beside the store at `store`, for this gateway's processes one after the
    /// other. A file that can't be read is no session.
    pub fn beside(store: &Path) -> Self {
        let mut name = store.as_os_str().to_owned();
        name.push(".sessions");
        let file = PathBuf::from(name);
        let text = std::fs::read(&file).unwrap_or_default();
        let kept: Vec<SavedSession> = serde_json::from_slice(&text).unwrap_or_default();
        let sessions = kept.into_iter().filter_map(|kept| {
            let (begun, used) = (kept.begun, kept.used);
            let binding = from_hex(&kept.binding)?;
            let session = Session { begun, used, noted: used, binding, token: None };
            Some((from_hex(&kept.id)?, session))
        });
        Self { by_print: Mutex::new(sessions.take(MOST).collect()), file: Some(file) }
    }

    /// Begins one for a browser that has shown the token; what the browser keeps of it. `None` without
    /// random bytes.
    pub fn begin(&self, token: TokenDigest, now: UnixMs) -> Option<String> {
        let mut random = [0u8; 32];
        getrandom::fill(&mut random).ok()?;
        let secret = to_hex(&random);
        let mut sessions = self.by_print.lock();
        sessions.retain(|_, session| session.lives(now));
        if sessions.len() >= MOST {
            let oldest = sessions.iter().min_by_key(|(_, session)| session.used);
            if let Some(oldest) = oldest.map(|(of, _)| *of) {
                sessions.remove(&oldest);
            }
        }
        let binding = bind(&secret, &token);
        let session = Session { begun: now, used: now, noted: now, binding, token: Some(token) };
        sessions.insert(print(&secret), session);
        self.keep(&mut sessions);
        Some(secret)
    }

    /// The session of a request, and which of `tokens` opened it. Using a session keeps it alive.
    pub fn of(
        &self,
        headers: &HeaderMap,
        tokens: &[TokenDigest],
        now: UnixMs,
    ) -> Option<(TokenDigest, TokenDigest)> {
        let mut sessions = self.by_print.lock();
        let (id, token) = cookies(headers).find_map(|secret| {
            let id = print(secret);
            let session = sessions.get_mut(&id).filter(|session| session.lives(now))?;
            let token = *tokens.iter().find(|token| bind(secret, token) == session.binding)?;
            session.token = Some(token);
            session.used = session.used.max(now);
            Some((id, token))
        })?;
        let session = sessions.get(&id)?;
        if session.used.0.saturating_sub(session.noted.0) >= NOTED_EVERY.as_millis() as u64 {
            self.keep(&mut sessions);
        }
        Some((id, token))
    }

    /// Whether it goes on, under one of these tokens; asking does not use it.
    pub fn holds(&self, id: &TokenDigest, tokens: &[TokenDigest], now: UnixMs) -> bool {
        let sessions = self.by_print.lock();
        let token = sessions.get(id).filter(|session| session.lives(now)).and_then(|s| s.token);
        token.is_some_and(|token| tokens.contains(&token))
    }

    /// The browser logs out.
    pub fn end(&self, headers: &HeaderMap) {
        let mut sessions = self.by_print.lock();
        let before = sessions.len();
        for secret in cookies(headers) {
            sessions.remove(&print(secret));
        }
        if sessions.len() != before {
            self.keep(&mut sessions);
        }
    }

    /// Writes the file anew. A disk that takes nothing costs the sessions at a restart, nothing now.
    fn keep(&self, sessions: &mut HashMap<TokenDigest, Session>) {
        let Some(file) = &self.file else { return };
        for session in sessions.values_mut() {
            session.noted = session.used;
        }
        let kept: Vec<SavedSession> = sessions
            .iter()
            .map(|(id, session)| SavedSession {
                id: to_hex(id),
                binding: to_hex(&session.binding),
                begun: session.begun,
                used: session.used,
            })
            .collect();
        let text = serde_json::to_vec(&kept).unwrap_or_default();
        if let Err(error) = replace(file, &text) {
            log::warn!(
                "Sessions of the dashboard cannot be written to {}: {error}. They end with this process.",
                file.display()
            );
        }
    }
}

/// Readable by the gateway's user only, and replaced atomically.
fn replace(file: &Path, text: &[u8]) -> std::io::Result<()> {
    use std::{io::Write, os::unix::fs::OpenOptionsExt};
    let mut name = file.as_os_str().to_owned();
    name.push(".new");
    let new = PathBuf::from(name);
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(&new)?.write_all(text)?;
    std::fs::rename(new, file)
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Option<TokenDigest> {
    let mut print = TokenDigest::default();
    if text.len() != 2 * print.len() || !text.is_ascii() {
        return None;
    }
    for (index, byte) in print.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * index..2 * index + 2], 16).ok()?;
    }
    Some(print)
}

/// Cookies are not separated by port: each gateway on a host has a cookie name of its own, or a login at
/// one would end the session at another. The name stays the same over restarts and upgrades.
pub fn cookie_name(headers: &HeaderMap, settings: &Settings) -> String {
    // In containers, two may differ by the port alone at which the browser finds them.
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let own = format!("{host} {} {}", settings.admin.listen, settings.store.path.display());
    let [a, b, c, d, ..] = print(&own);
    format!("{COOKIE}_{:08x}", u32::from_be_bytes([a, b, c, d]))
}

/// What the browser keeps of sessions here, and of those at other gateways of this host: they are not in
/// our list.
fn cookies(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| Some(pair.trim().strip_prefix(COOKIE)?.split_once('=')?.1))
}

/// The header that has a browser keep the session, or forget it.
pub fn set_cookie(name: &str, secret: Option<&str>, is_tls: bool) -> String {
    let secure = if is_tls { "; Secure" } else { "" };
    let (value, seconds) = match secret {
        Some(secret) => (secret, LONGEST.as_secs()),
        None => ("", 0),
    };
    format!("{name}={value}; HttpOnly; SameSite=Strict; Path=/; Max-Age={seconds}{secure}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn carrying(cookies: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::COOKIE, cookies.parse().unwrap())])
    }

    fn with(secret: &str) -> HeaderMap {
        let another = "f".repeat(64);
        carrying(&format!("theme=dark; {COOKIE}_1={another}; {COOKIE}_2={secret}; a=b"))
    }

    fn later(at: UnixMs, by: Duration) -> UnixMs {
        UnixMs(at.0 + by.as_millis() as u64)
    }

    const START: UnixMs = UnixMs(1_790_000_000_000);

    #[test]
    fn a_session_ends_by_logout_idleness_age_and_another_token() {
        let sessions = Sessions::default();
        let (token, other) = (print("token"), print("other"));
        let secret = sessions.begin(token, START).unwrap();
        assert_eq!(secret.len(), 64);
        let of =
            |secret: &str, token: &TokenDigest, now| sessions.of(&with(secret), &[*token], now);
        assert!(of(&secret, &token, START).is_some());
        assert!(of(&secret, &other, START).is_none());
        assert!(of(&"0".repeat(64), &token, START).is_none());
        assert!(sessions.of(&carrying("x=y"), &[token], START).is_none());
        // Used each time, it lasts until it is a week old.
        let mut now = START;
        while later(now, IDLE / 2) < later(START, LONGEST) {
            now = later(now, IDLE / 2);
            assert!(of(&secret, &token, now).is_some());
        }
        assert!(of(&secret, &token, later(START, LONGEST)).is_none());
        let secret = sessions.begin(token, START).unwrap();
        assert!(of(&secret, &token, later(START, IDLE)).is_none());
        let (id, _) = of(&secret, &token, later(START, IDLE / 2)).unwrap();
        // Checking a session does not prolong it.
        assert!(sessions.holds(&id, &[token], later(START, IDLE)));
        assert!(!sessions.holds(&id, &[token], later(START, IDLE / 2 + IDLE)));
        sessions.end(&with(&secret));
        assert!(!sessions.holds(&id, &[token], START) && of(&secret, &token, START).is_none());
    }

    #[test]
    fn of_two_tokens_the_one_that_opened_a_session_is_known() {
        let sessions = Sessions::default();
        let tokens = [print("admin"), print("read")];
        let secret = sessions.begin(tokens[1], START).unwrap();
        let (id, token) = sessions.of(&with(&secret), &tokens, START).unwrap();
        assert_eq!(token, tokens[1]);
        assert!(sessions.holds(&id, &tokens, START) && !sessions.holds(&id, &tokens[..1], START));
    }

    #[test]
    fn sessions_are_bounded_and_no_two_are_alike() {
        let (sessions, token) = (Sessions::default(), print("token"));
        let secrets: Vec<String> = (0..2 * MOST)
            .map(|turn| sessions.begin(token, UnixMs(START.0 + turn as u64)).unwrap())
            .collect();
        assert_eq!(sessions.by_print.lock().len(), MOST);
        let now = later(START, Duration::from_secs(1));
        let lives = |secret: &String| sessions.of(&with(secret), &[token], now).is_some();
        assert!(!lives(&secrets[0]) && lives(&secrets[2 * MOST - 1]));
        let distinct: std::collections::HashSet<_> = secrets.iter().collect();
        assert_eq!(distinct.len(), secrets.len());
    }

    #[test]
    fn a_restart_keeps_sessions_and_their_file_tells_neither_cookie_nor_token() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().join("gk.db");
        let token = print("a-token-of-some-length");
        let sessions = Sessions::beside(&store);
        let secret = sessions.begin(token, START).unwrap();
        let ended = sessions.begin(token, START).unwrap();
        sessions.end(&with(&ended));
        let file = dir.path().join("gk.db.sessions");
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(!text.contains(&secret) && !text.contains(&to_hex(&token)), "{text}");
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let next = Sessions::beside(&store);
        let of = |secret: &str, token| next.of(&with(secret), &[token], later(START, IDLE / 2));
        assert!(of(&secret, print("another-token-of-it")).is_none());
        assert!(of(&ended, token).is_none());
        let (id, _) = of(&secret, token).unwrap();
        assert!(next.holds(&id, &[token], later(START, IDLE)));
        // That it was used is known to the process after that.
        let third = Sessions::beside(&store);
        assert!(third.of(&with(&secret), &[token], later(START, IDLE)).is_some());
        std::fs::write(&file, "{").unwrap();
        assert!(Sessions::beside(&store).of(&with(&secret), &[token], START).is_none());
    }

    #[test]
    fn the_cookie_is_kept_from_scripts_and_other_sites() {
        let set = set_cookie("gatekeeper_session_1", Some("ab"), true);
        assert_eq!(
            set,
            "gatekeeper_session_1=ab; HttpOnly; SameSite=Strict; Path=/; Max-Age=604800; Secure"
        );
        let forgotten = set_cookie("gatekeeper_session_1", None, false);
        assert!(forgotten.starts_with("gatekeeper_session_1=; "));
        assert!(forgotten.ends_with("Path=/; Max-Age=0"));
    }
}
