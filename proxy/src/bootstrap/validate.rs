//! `--mode validate`: everything is compiled, nothing is opened.

use std::collections::HashSet;
use std::sync::Arc;

use super::Bootstrap;
use crate::config::Name;
use crate::config::compile::support::At;
use crate::config::compile::{CompileError, Compiled, Compiler, References, SecretStore};
use crate::log_sink::Sinks;
use crate::metrics::registry::{Registry, RegistryError};

/// Every mistake in the static resources, each with the path of its field. Only the first of each
/// resource is reported: further ones may be consequences of it.
///
/// # Errors
/// When metrics cannot be set up, which is no mistake of the configuration.
pub fn mistakes(bootstrap: &Bootstrap) -> Result<Vec<String>, RegistryError> {
    let registry = Registry::new()?;
    let dropped = registry.counter("anyam_access_log_dropped_total", "Not written anywhere.")?;
    let sinks = Arc::new(Sinks::new(dropped, 0));
    let compiler = Compiler::new(&registry, sinks, Arc::new(SecretStore::default()))?;
    let Bootstrap {
        listeners,
        clusters,
        secrets,
        ..
    } = bootstrap;
    let mut found = Vec::new();
    each(
        "secrets",
        secrets,
        |m| &m.name,
        &mut found,
        |m| compiler.secret(m).map(drop),
    );
    each(
        "clusters",
        clusters,
        |m| &m.name,
        &mut found,
        |m| {
            let cluster = Compiled::Cluster(Arc::new(compiler.cluster(m, None)?));
            can_come(bootstrap, &cluster)
        },
    );
    each(
        "listeners",
        listeners,
        |m| &m.name,
        &mut found,
        |m| {
            let listener = Compiled::Listener(Arc::new(compiler.listener(m, None)?));
            can_come(bootstrap, &listener)
        },
    );
    Ok(found)
}

/// Checks that there is an ADS stream for what a resource takes from ADS.
fn can_come(bootstrap: &Bootstrap, resource: &Compiled) -> Result<(), CompileError> {
    let References {
        routes,
        clusters: _,
        endpoints,
        secrets,
        initial_fetch_timeout: _,
    } = resource.references();
    let is_static = |name: &Name| bootstrap.secrets.iter().any(|m| *m.name == **name);
    let fetched = secrets.iter().filter(|name| !is_static(name));
    match routes.iter().chain(&endpoints).chain(fetched).next() {
        Some(name) if bootstrap.ads.is_none() => At::root("").fail(format_args!(
            "{name:?} comes over ads, and there is no dynamic_resources.ads_config"
        )),
        _ => Ok(()),
    }
}

fn each<M>(
    list: &str,
    messages: &[M],
    name: impl Fn(&M) -> &str,
    found: &mut Vec<String>,
    compile: impl Fn(&M) -> Result<(), CompileError>,
) {
    let mut names = HashSet::new();
    for (index, message) in messages.iter().enumerate() {
        let name = name(message);
        // A listener may go without a name.
        if !name.is_empty() && !names.insert(name) {
            found.push(format!(
                "static_resources.{list}[{index}].name: {name:?} is given twice"
            ));
        }
        if let Err(error) = compile(message) {
            let dot = if error.path.is_empty() { "" } else { "." };
            found.push(format!("static_resources.{list}[{index}]{dot}{error}"));
        }
    }
}
