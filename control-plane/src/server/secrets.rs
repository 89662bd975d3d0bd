//! What is opened before anything is served: the CA, and our own certificate.

use std::fs::File;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;

use super::{Options, StartError};
use crate::ca::service::{FirstCredential, unix_now};
use crate::ca::serving::{self, Serving};
use crate::ca::token::Tokens;
use crate::ca::used::Used;
use crate::ca::{Authority, CaError, private};

/// Join tokens whose use is remembered.
const USED_TOKENS: usize = 100_000;

/// What certificates are issued with, and against what.
pub struct Issuing {
    pub authority: Arc<Authority>,
    pub first: FirstCredential,
}

impl Issuing {
    /// The root, and join tokens, of the state directory.
    fn of_state_dir(options: &Options) -> Result<Self, CaError> {
        let (state, domain) = (&options.state_dir, &options.trust_domain);
        let authority = Authority::open(&state.join("ca"), domain, options.lifetimes)?;
        let tokens = Tokens::open(state, domain, &authority.root_hash())?;
        let used = Used::open(state, unix_now(), USED_TOKENS)?;
        Ok(Issuing {
            authority: Arc::new(authority),
            first: FirstCredential::join_token(tokens, used),
        })
    }
}

/// The CA, and our own certificate.
pub(super) struct Secrets {
    pub issuing: Issuing,
    pub serving: Arc<Serving>,
    pub renew_in: Duration,
    pub tls: Arc<ServerConfig>,
    /// Held while we run.
    pub lock: File,
}

impl Secrets {
    /// `issuing`: `None` for that of the state directory.
    pub fn open(options: &Options, issuing: Option<Issuing>) -> Result<Self, StartError> {
        let state = &options.state_dir;
        private::directory(state)?;
        let lock = lock(state)?;
        let issuing = match issuing {
            Some(issuing) => issuing,
            None => Issuing::of_state_dir(options)?,
        };
        let authority = &issuing.authority;
        let mut names = options.names.clone();
        if !options.xds_listen.ip().is_unspecified() {
            names.push(options.xds_listen.ip().to_string());
        }
        let (serving, renew_in) = Serving::new(authority, &names)?;
        let serving = Arc::new(serving);
        let tls = Arc::new(serving::server_config(authority, Arc::clone(&serving))?);
        Ok(Secrets {
            issuing,
            serving,
            renew_in,
            tls,
            lock,
        })
    }
}

/// Only one control plane may write to a state directory.
fn lock(state: &Path) -> Result<File, StartError> {
    let file = private::append(&state.join("lock"))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(_) => Err(StartError::InUse(state.to_owned())),
    }
}
