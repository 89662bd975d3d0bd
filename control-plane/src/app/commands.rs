//! The commands that print or write, beside a control plane that may run or not.

use std::path::Path;
use std::time::{Duration, Instant};

use super::AppError;
use crate::args::{CertificateArgs, TokenArgs, WorkloadArgs};
use crate::ca::authority::Lifetimes;
use crate::ca::service::unix_now;
use crate::ca::token::Tokens;
use crate::ca::{Authority, CaError, private};
use crate::declared;
use crate::identity::Identity;
use crate::model::{self, Key};
use crate::source::Sourced;

/// A workload of the command line, with the identity that it runs as.
fn named(of: &WorkloadArgs) -> Result<(String, Identity), AppError> {
    let split = of.workload.split_once('/');
    let (namespace, name) = split.ok_or_else(|| AppError::Workload(of.workload.clone()))?;
    let account = match (&of.service_account, &of.config_dir) {
        (Some(account), _) => account.clone(),
        (None, Some(folder)) => declared_account((folder, &of.state_dir), namespace, name)?,
        (None, None) => return Err(AppError::Missing("--config-dir")),
    };
    let identity = Identity {
        trust_domain: of.mesh.trust_domain.clone(),
        namespace: namespace.to_owned(),
        service_account: account,
    };
    if name.is_empty() || !identity.is_valid() {
        return Err(AppError::Identity(identity.to_string()));
    }
    Ok((name.to_owned(), identity))
}

/// As the control plane of the state folder finds it.
fn declared_account(
    (folder, state): (&Path, &Path),
    namespace: &str,
    name: &str,
) -> Result<String, AppError> {
    std::fs::read_dir(folder).map_err(|source| AppError::Folder {
        path: folder.to_owned(),
        source,
    })?;
    let key = Key::new(namespace, name);
    let account = |sourced: Sourced| match sourced.object {
        model::Object::Workload(workload) if workload.meta.key() == key => {
            Some(workload.service_account.clone())
        }
        _ => None,
    };
    let found = declared::folder(folder, state)?
        .scan(Instant::now())
        .objects
        .into_iter()
        .find_map(account);
    found.ok_or_else(|| AppError::Undeclared {
        folder: folder.to_owned(),
        workload: key.to_string(),
    })
}

fn open(of: &WorkloadArgs, lifetime: Duration) -> Result<Authority, CaError> {
    private::directory(&of.state_dir)?;
    let lifetimes = Lifetimes {
        default: lifetime,
        max: lifetime,
    };
    Authority::open(&of.state_dir.join("ca"), &of.mesh.trust_domain, lifetimes)
}

/// A join token.
///
/// # Errors
/// When the workload is not declared, or the state directory is not as it must be.
pub fn token(args: &TokenArgs) -> Result<String, AppError> {
    let (name, identity) = named(&args.of)?;
    let authority = open(&args.of, args.ttl)?;
    let domain = &args.of.mesh.trust_domain;
    let tokens = Tokens::open(&args.of.state_dir, domain, &authority.root_hash())?;
    let workload = (&*identity.namespace, &*name);
    Ok(tokens.mint(workload, &identity.service_account, unix_now(), args.ttl)?)
}

/// Writes `cert.pem` (leaf and root), `key.pem` and `root.pem`.
///
/// # Errors
/// When the workload is not declared, or a folder is not as it must be.
pub fn certificate(args: &CertificateArgs) -> Result<(), AppError> {
    let (name, identity) = named(&args.of)?;
    let authority = open(&args.of, args.ttl)?;
    let (key, issued) = authority.issue_pair(&identity, &name, args.ttl)?;
    private::directory(&args.out)?;
    private::write(&args.out.join("key.pem"), key.serialize_pem().as_bytes())?;
    private::write(&args.out.join("cert.pem"), issued.chain.concat().as_bytes())?;
    private::write(&args.out.join("root.pem"), authority.root_pem().as_bytes())?;
    Ok(())
}
