//! Access to the API: the holder of the token file, or a browser that showed the token once, or a
//! login that the aggregated API gave to a user.
//!
//! The `Host` header must be a name of ours, so that a web page whose name was made to point at
//! loopback (DNS rebinding) reaches nothing; a cookie counts only without a foreign `Origin`.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use http::HeaderMap;
use http::header::{AUTHORIZATION, COOKIE, HOST, ORIGIN};

use super::access::ApiAccess;
use crate::ca::{CaError, private};
use crate::text::hex;

const COOKIE_NAME: &str = "anyam_session";
const SESSION: Duration = Duration::from_secs(12 * 3600);
/// Of a session that began with a login.
const USER_SESSION: Duration = Duration::from_secs(3600);
/// How long a login can be exchanged for a session.
pub const LOGIN: Duration = Duration::from_secs(15 * 60);
/// Sessions, and logins, that may be open.
const MAX_OPEN: usize = 64;
/// Those of one user.
const MAX_OF_USER: usize = 8;

pub struct Auth {
    token: String,
    /// Names that `Host` may have, without port.
    hosts: Vec<String>,
    sessions: Mutex<OpenSecrets>,
    logins: Mutex<OpenSecrets>,
}

/// Secrets that stand for an access, until they end.
#[derive(Default)]
struct OpenSecrets(HashMap<String, OpenSecret>);

struct OpenSecret {
    end: Instant,
    access: ApiAccess,
}

impl OpenSecrets {
    /// Makes room by removing those that have ended; then the oldest of a user who has many; then
    /// the oldest of the user, or the namespace with its service accounts, that has most: who opens
    /// many ends those of no other.
    fn add(
        &mut self,
        access: ApiAccess,
        now: Instant,
        lifetime: Duration,
    ) -> Result<String, CaError> {
        let secret = random()?;
        let open = &mut self.0;
        open.retain(|_, one| one.end > now);
        let of_user = |one: &OpenSecret| one.access.holder() == access.holder();
        let many = open.values().filter(|one| of_user(one)).count() >= MAX_OF_USER;
        if many && access.holder().is_some() {
            self.remove_oldest(of_user);
        } else if open.len() >= MAX_OPEN {
            let mut counts: HashMap<Option<String>, usize> = HashMap::new();
            for one in open.values() {
                let count = counts.entry(one.access.group()).or_default();
                *count = count.saturating_add(1);
            }
            let most = counts.values().max().copied();
            self.remove_oldest(|one| counts.get(&one.access.group()).copied() == most);
        }
        let open = &mut self.0;
        if let Some(end) = now.checked_add(lifetime) {
            open.insert(secret.clone(), OpenSecret { end, access });
        }
        Ok(secret)
    }

    /// Of those that match.
    fn remove_oldest(&mut self, of: impl Fn(&OpenSecret) -> bool) {
        let candidates = self.0.iter().filter(|(_, one)| of(one));
        let oldest = candidates.min_by_key(|(_, one)| one.end);
        if let Some(oldest) = oldest.map(|(secret, _)| secret.clone()) {
            self.0.remove(&oldest);
        }
    }

    fn find(&self, secret: &str, now: Instant) -> Option<(&String, &ApiAccess)> {
        let mut open = self.0.iter();
        let found = open.find(|(id, one)| same(id, secret) && one.end > now);
        found.map(|(id, one)| (id, &one.access))
    }

    fn take(&mut self, secret: &str, now: Instant) -> Option<ApiAccess> {
        let id = self.find(secret, now)?.0.clone();
        self.0.remove(&id).map(|one| one.access)
    }
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
            logins: Mutex::default(),
        })
    }

    pub fn token(&self) -> &str {
        &self.token
    }

    fn sessions(&self) -> MutexGuard<'_, OpenSecrets> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn logins(&self) -> MutexGuard<'_, OpenSecrets> {
        self.logins.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// What the request may see, by the token, or by a cookie given in exchange for it or for a login.
    ///
    /// # Errors
    /// When it has neither.
    pub fn check(&self, headers: &HeaderMap, now: Instant) -> Result<ApiAccess, Refusal> {
        if self.has_token(headers) {
            return Ok(ApiAccess::everything());
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
        let access = self.sessions().find(session, now).map(|it| it.1.clone());
        let access = access.ok_or(Refusal::Unknown)?;
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
            _ => Ok(access),
        }
    }

    fn has_token(&self, headers: &HeaderMap) -> bool {
        bearer(headers).is_some_and(|token| same(token, &self.token))
    }

    /// A token that starts one session of this access.
    ///
    /// # Errors
    /// When there are no random bytes.
    pub fn login(&self, access: ApiAccess, now: Instant) -> Result<String, CaError> {
        self.logins().add(access, now, LOGIN)
    }

    /// Starts a session for who shows the token or a login, which is good once: the value of
    /// `Set-Cookie`. `None`: neither.
    ///
    /// # Errors
    /// When there are no random bytes.
    pub fn start_session(
        &self,
        headers: &HeaderMap,
        now: Instant,
    ) -> Result<Option<String>, CaError> {
        let (access, lifetime) = match bearer(headers) {
            Some(token) if same(token, &self.token) => (ApiAccess::everything(), SESSION),
            Some(token) => match self.logins().take(token, now) {
                Some(access) => (access, USER_SESSION),
                None => return Ok(None),
            },
            None => return Ok(None),
        };
        let id = self.sessions().add(access, now, lifetime)?;
        let seconds = lifetime.as_secs();
        Ok(Some(format!(
            "{COOKIE_NAME}={id}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict"
        )))
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    value.strip_prefix("Bearer ").map(str::trim)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http::HeaderValue;

    use super::*;
    use crate::api::access::tests::EveryRight;

    fn seen(auth: &Auth, pairs: &[(http::HeaderName, &str)], now: Instant) -> Result<(), Refusal> {
        auth.check(&headers(pairs), now).map(|_| ())
    }

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
        let check = |pairs: &[(http::HeaderName, &str)]| seen(&auth, pairs, now);
        let bearer = format!("Bearer {}", auth.token());
        assert_eq!(check(&[(AUTHORIZATION, &bearer)]), Ok(()));
        assert_eq!(check(&[(AUTHORIZATION, "Bearer x")]), Err(Refusal::Unknown));
        assert_eq!(check(&[(AUTHORIZATION, "Bearer ")]), Err(Refusal::Unknown));
        assert_eq!(check(&[]), Err(Refusal::Unknown));
        let start = |now| {
            let shown = headers(&[(AUTHORIZATION, &*bearer)]);
            auth.start_session(&shown, now).unwrap().unwrap()
        };
        let cookie = start(now);
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
            seen(&auth, &[(COOKIE, &cookie), host], later),
            Err(Refusal::Unknown)
        );
        for _ in 0..MAX_OPEN {
            start(now + Duration::from_secs(1));
        }
        assert_eq!(auth.sessions().0.len(), MAX_OPEN);
    }

    #[test]
    fn a_login_starts_one_session_of_its_access() {
        let auth = auth();
        let now = Instant::now();
        let of = |user: &str| ApiAccess::of_user(user, "shop", Arc::new(EveryRight));
        let start = |token: &str, now| {
            let bearer = format!("Bearer {token}");
            let shown = headers(&[(AUTHORIZATION, &*bearer)]);
            auth.start_session(&shown, now).unwrap()
        };
        let token = auth.login(of("jane"), now).unwrap();
        // It is no bearer token of other calls.
        let bearer = format!("Bearer {token}");
        let unknown = Err(Refusal::Unknown);
        assert_eq!(seen(&auth, &[(AUTHORIZATION, &bearer)], now), unknown);
        let cookie = start(&token, now).unwrap();
        assert_eq!(start(&token, now), None, "it is good once");
        let cookie = cookie.split(';').next().unwrap();
        let shown = headers(&[(COOKIE, cookie), (HOST, "localhost:1")]);
        let access = auth.check(&shown, now).unwrap();
        assert!(access.sees("shop") && !access.sees("bank"));
        assert!(auth.check(&shown, now + USER_SESSION).is_err());

        let late = auth.login(of("jane"), now).unwrap();
        assert_eq!(start(&late, now + LOGIN), None);
        let other = auth.login(of("joe"), now).unwrap();
        for _ in 0..MAX_OPEN {
            auth.login(of("jane"), now).unwrap();
        }
        assert_eq!(auth.logins().0.len(), MAX_OF_USER + 1);
        assert!(start(&other, now).is_some(), "another user's stays");
    }

    #[test]
    fn who_opens_many_ends_no_session_of_another() {
        let auth = auth();
        let now = Instant::now();
        let of = |user: &str| ApiAccess::of_user(user, "shop", Arc::new(EveryRight));
        let login = |user: &str, after: u64| {
            let at = now + Duration::from_secs(after);
            auth.login(of(user), at).unwrap()
        };
        let start = |token: &str| {
            let bearer = format!("Bearer {token}");
            let shown = headers(&[(AUTHORIZATION, &*bearer)]);
            auth.start_session(&shown, now).unwrap()
        };
        let jane = [login("jane", 0), login("jane", 0)];
        let robot = login("system:serviceaccount:ci:robot", 0);
        // As many service accounts as it takes, each with a few.
        for account in 0..MAX_OPEN {
            for _ in 0..2 {
                let user = format!("system:serviceaccount:shop:sa-{account}");
                login(&user, 1);
            }
        }
        assert_eq!(auth.logins().0.len(), MAX_OPEN);
        for token in jane.iter().chain([&robot]) {
            assert!(start(token).is_some());
        }
    }
}
