//! Who has logged in with the admin token: a browser keeps a random number in a cookie, the gateway its
//! hash, in memory. Sessions end with the process, and with the token they were opened by.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use http::{HeaderMap, header};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use crate::config::settings::Settings;

/// How the name of each cookie begins.
const COOKIE: &str = "gatekeeper_session";
/// More than this, and the one that was used least lately ends.
const MOST: usize = 64;
/// Without a request.
const IDLE: Duration = Duration::from_secs(12 * 3600);
/// From the login on.
const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);

/// What is kept of a secret: it can be compared, not read.
pub type Print = [u8; 32];

pub fn print(secret: &str) -> Print {
    Sha256::digest(secret).into()
}

#[derive(Default)]
pub struct Sessions(Mutex<HashMap<Print, Session>>);

struct Session {
    begun: Instant,
    used: Instant,
    /// Of the token that opened it.
    token: Print,
}

impl Session {
    fn holds(&self, token: &Print, now: Instant) -> bool {
        self.token == *token
            && now.saturating_duration_since(self.begun) < LONGEST
            && now.saturating_duration_since(self.used) < IDLE
    }
}

impl Sessions {
    /// Begins one for whoever has shown the token; what the browser keeps of it. `None` without random
    /// bytes.
    pub fn begin(&self, token: Print, now: Instant) -> Option<String> {
        let mut random = [0u8; 32];
        getrandom::fill(&mut random).ok()?;
        let secret = random.map(|byte| format!("{byte:02x}")).concat();
        let mut sessions = self.0.lock();
        sessions.retain(|_, session| session.holds(&token, now));
        if sessions.len() >= MOST {
            let oldest = sessions.iter().min_by_key(|(_, session)| session.used);
            if let Some(oldest) = oldest.map(|(of, _)| *of) {
                sessions.remove(&oldest);
            }
        }
        sessions.insert(print(&secret), Session { begun: now, used: now, token });
        Some(secret)
    }

    /// The session of a request, which uses it.
    pub fn of(&self, headers: &HeaderMap, token: &Print, now: Instant) -> Option<Print> {
        let mut sessions = self.0.lock();
        cookies(headers).map(print).find(|id| match sessions.get_mut(id) {
            Some(session) if session.holds(token, now) => {
                session.used = now;
                true
            }
            _ => false,
        })
    }

    /// Whether it goes on; asking does not use it.
    pub fn holds(&self, id: &Print, token: &Print, now: Instant) -> bool {
        self.0.lock().get(id).is_some_and(|session| session.holds(token, now))
    }

    /// The browser logs out.
    pub fn end(&self, headers: &HeaderMap) {
        let mut sessions = self.0.lock();
        for secret in cookies(headers) {
            sessions.remove(&print(secret));
        }
    }
}

/// Cookies don't tell ports of a host apart: of two gateways there, each has a name of its own, or one's
/// login would end the other's. It stays the same through restarts and upgrades.
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

    #[test]
    fn a_session_ends_by_logout_idleness_age_and_another_token() {
        let (sessions, start) = (Sessions::default(), Instant::now());
        let (token, other) = (print("token"), print("other"));
        let secret = sessions.begin(token, start).unwrap();
        assert_eq!(secret.len(), 64);
        let of = |secret: &str, token: &Print, now| sessions.of(&with(secret), token, now);
        assert!(of(&secret, &token, start).is_some());
        assert!(of(&secret, &other, start).is_none());
        assert!(of(&"0".repeat(64), &token, start).is_none());
        assert!(sessions.of(&carrying("x=y"), &token, start).is_none());
        // Used each time, it lasts until it is a week old.
        let mut now = start;
        while now + IDLE / 2 < start + LONGEST {
            now += IDLE / 2;
            assert!(of(&secret, &token, now).is_some());
        }
        assert!(of(&secret, &token, start + LONGEST).is_none());
        let secret = sessions.begin(token, start).unwrap();
        assert!(of(&secret, &token, start + IDLE).is_none());
        let id = of(&secret, &token, start + IDLE / 2).unwrap();
        // Who only looks whether it goes on does not keep it alive.
        assert!(sessions.holds(&id, &token, start + IDLE));
        assert!(!sessions.holds(&id, &token, start + IDLE / 2 + IDLE));
        sessions.end(&with(&secret));
        assert!(!sessions.holds(&id, &token, start) && of(&secret, &token, start).is_none());
    }

    #[test]
    fn sessions_are_bounded_and_no_two_are_alike() {
        let (sessions, start, token) = (Sessions::default(), Instant::now(), print("token"));
        let moment = |turn: usize| start + Duration::from_millis(turn as u64);
        let secrets: Vec<String> =
            (0..2 * MOST).map(|turn| sessions.begin(token, moment(turn)).unwrap()).collect();
        assert_eq!(sessions.0.lock().len(), MOST);
        let lives = |secret: &String| sessions.of(&with(secret), &token, start).is_some();
        assert!(!lives(&secrets[0]) && lives(&secrets[2 * MOST - 1]));
        let distinct: std::collections::HashSet<_> = secrets.iter().collect();
        assert_eq!(distinct.len(), secrets.len());
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
