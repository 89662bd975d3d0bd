//! Access to the API: the holder of the token file, or a browser that showed the token once.
//!
//! The `Host` header must be a name of ours, so that a web page whose name was made to point at
//! loopback (DNS rebinding) reaches nothing; a cookie counts only without a foreign `Origin`.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use http::HeaderMap;
use http::header::{AUTHORIZATION, COOKIE, HOST, ORIGIN};

use crate::ca::{CaError, private};
use crate::text::hex;

const COOKIE_NAME: &str = "anyam_session";
const SESSION: Duration = Duration::from_secs(12 * 3600);
const MAX_SESSIONS: usize = 64;

pub struct Auth {
    token: String,
    /// Names that `Host` may have, without port.
    hosts: Vec<String>,
    /// Session → when it ends.
    sessions: Mutex<HashMap<String, Instant>>,
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// `Host` is no name of ours.
    Host,
    /// Neither a good token nor a session.
    Unknown,
    /// A session's cookie, sent by a page of another origin.
    Origin,
}

fn random() -> Result<String, CaError> {
    let mut bytes = [0u8; 32];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| CaError::Signing("no random bytes".into()))?;
    Ok(hex(&bytes))
}

fn same(a: &str, b: &str) -> bool {
    verify_slices_are_equal(a.as_bytes(), b.as_bytes()).is_ok()
}

impl Auth {
    /// Reads the token file, or makes it.
    ///
    /// # Errors
    /// When it can't be read or made, or is open to others.
    pub fn open(path: &Path, listen: SocketAddr, more_hosts: &[String]) -> Result<Self, CaError> {
        let fresh = random()?;
        let token = private::secret(path, || format!("{fresh}\n").into_bytes())?;
        let token = String::from_utf8_lossy(&token).trim().to_owned();
        if token.len() < 32 {
            return Err(CaError::Damaged {
                path: path.to_owned(),
                why: "the token is shorter than 32 characters".into(),
            });
        }
        let mut hosts: Vec<String> = ["localhost", "127.0.0.1", "[::1]"]
            .map(str::to_owned)
            .into();
        hosts.push(match listen.ip() {
            std::net::IpAddr::V4(address) => address.to_string(),
            std::net::IpAddr::V6(address) => format!("[{address}]"),
        });
        hosts.extend(more_hosts.iter().map(|host| host.to_ascii_lowercase()));
        Ok(Auth {
            token,
            hosts,
            sessions: Mutex::default(),
        })
    }

    pub fn token(&self) -> &str {
        &self.token
    }

    fn sessions(&self) -> MutexGuard<'_, HashMap<String, Instant>> {
        self.sessions
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Whether the `Host` header names us.
    ///
    /// # Errors
    /// When it does not.
    pub fn check_host(&self, headers: &HeaderMap) -> Result<(), Refusal> {
        let mut values = headers.get_all(HOST).iter();
        let (Some(host), None) = (values.next(), values.next()) else {
            return Err(Refusal::Host);
        };
        let host = host
            .to_str()
            .map_err(|_| Refusal::Host)?
            .to_ascii_lowercase();
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
            _ => &host,
        };
        match self.hosts.iter().any(|ours| ours == name) {
            true => Ok(()),
            false => Err(Refusal::Host),
        }
    }

    /// Whether the request carries the token, or a cookie given in exchange for it.
    ///
    /// # Errors
    /// When it does not.
    pub fn check(&self, headers: &HeaderMap, now: Instant) -> Result<(), Refusal> {
        if self.has_token(headers) {
            return Ok(());
        }
        let cookies = headers
            .get_all(COOKIE)
            .iter()
            .filter_map(|value| value.to_str().ok());
        let session = cookies
            .flat_map(|line| line.split(';'))
            .filter_map(|pair| pair.trim().split_once('='))
            .find_map(|(name, value)| (name == COOKIE_NAME).then_some(value));
        let Some(session) = session else {
            return Err(Refusal::Unknown);
        };
        let known = self
            .sessions()
            .iter()
            .any(|(id, end)| same(id, session) && *end > now);
        if !known {
            return Err(Refusal::Unknown);
        }
        // Cookies do not distinguish ports: a page served by another program of this machine
        // would be sent along with ours.
        let host = headers
            .get(HOST)
            .and_then(|host| host.to_str().ok())
            .unwrap_or_default();
        match headers.get(ORIGIN) {
            Some(origin) if origin.as_bytes() != format!("http://{host}").as_bytes() => {
                Err(Refusal::Origin)
            }
            _ => Ok(()),
        }
    }

    pub fn has_token(&self, headers: &HeaderMap) -> bool {
        let value = headers
            .get(AUTHORIZATION)
            .and_then(|value| value.to_str().ok());
        value
            .and_then(|value| value.strip_prefix("Bearer "))
            .is_some_and(|token| same(token.trim(), &self.token))
    }

    /// Starts a session: the value of `Set-Cookie`.
    ///
    /// # Errors
    /// When there are no random bytes.
    pub fn start_session(&self, now: Instant) -> Result<String, CaError> {
        let id = random()?;
        let mut sessions = self.sessions();
        sessions.retain(|_, end| *end > now);
        if sessions.len() >= MAX_SESSIONS {
            let oldest = sessions.iter().min_by_key(|(_, end)| **end);
            if let Some(oldest) = oldest.map(|(id, _)| id.clone()) {
                sessions.remove(&oldest);
            }
        }
        if let Some(end) = now.checked_add(SESSION) {
            sessions.insert(id.clone(), end);
        }
        let seconds = SESSION.as_secs();
        Ok(format!(
            "{COOKIE_NAME}={id}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict"
        ))
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn auth() -> Auth {
        let state = tempfile::tempdir().unwrap();
        let listen = "127.0.0.1:15080".parse().unwrap();
        Auth::open(
            &state.path().join("api-token"),
            listen,
            &["mesh.example".into()],
        )
        .unwrap()
    }

    fn headers(pairs: &[(http::HeaderName, &str)]) -> HeaderMap {
        let value = |(name, value): &(http::HeaderName, &str)| {
            (name.clone(), HeaderValue::from_str(value).unwrap())
        };
        pairs.iter().map(value).collect()
    }

    #[test]
    fn only_our_own_names_are_hosts() {
        let auth = auth();
        for good in [
            "127.0.0.1:15080",
            "localhost:9",
            "LOCALHOST",
            "[::1]:15080",
            "mesh.example",
        ] {
            assert_eq!(auth.check_host(&headers(&[(HOST, good)])), Ok(()), "{good}");
        }
        for bad in [
            "evil.example:15080",
            "127.0.0.1.evil.example",
            "",
            "localhost:x",
        ] {
            assert_eq!(
                auth.check_host(&headers(&[(HOST, bad)])),
                Err(Refusal::Host),
                "{bad}"
            );
        }
        assert_eq!(auth.check_host(&HeaderMap::new()), Err(Refusal::Host));
        let mut twice = headers(&[(HOST, "localhost")]);
        twice.append(HOST, HeaderValue::from_static("evil.example"));
        assert_eq!(auth.check_host(&twice), Err(Refusal::Host));
    }

    #[test]
    fn a_token_or_a_session_without_a_foreign_origin() {
        let auth = auth();
        let now = Instant::now();
        let check = |pairs: &[(http::HeaderName, &str)]| auth.check(&headers(pairs), now);
        let bearer = format!("Bearer {}", auth.token());
        assert_eq!(check(&[(AUTHORIZATION, &bearer)]), Ok(()));
        assert_eq!(check(&[(AUTHORIZATION, "Bearer x")]), Err(Refusal::Unknown));
        assert_eq!(check(&[(AUTHORIZATION, "Bearer ")]), Err(Refusal::Unknown));
        assert_eq!(check(&[]), Err(Refusal::Unknown));
        let cookie = auth.start_session(now).unwrap();
        let cookie = format!("a=b; {}", cookie.split(';').next().unwrap());
        let host = (HOST, "localhost:1");
        assert_eq!(check(&[(COOKIE, &cookie), host.clone()]), Ok(()));
        let same_origin = (ORIGIN, "http://localhost:1");
        assert_eq!(
            check(&[(COOKIE, &cookie), host.clone(), same_origin]),
            Ok(())
        );
        for foreign in ["http://localhost:2", "null", "https://localhost:1"] {
            let refused = check(&[(COOKIE, &cookie), host.clone(), (ORIGIN, foreign)]);
            assert_eq!(refused, Err(Refusal::Origin));
        }
        let later = now + SESSION;
        assert_eq!(
            auth.check(&headers(&[(COOKIE, &cookie), host]), later),
            Err(Refusal::Unknown)
        );
        for _ in 0..MAX_SESSIONS {
            auth.start_session(now + Duration::from_secs(1)).unwrap();
        }
        assert_eq!(auth.sessions().len(), MAX_SESSIONS);
    }
}
