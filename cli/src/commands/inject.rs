//! Adds sidecars to the workloads in manifests, with the webhook's own code.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyam_control::inject::hook_token::HookTokens;
use anyam_control::inject::manifest::{ManifestError, ObjectChange, ObjectOutcome, inject_object};
use anyam_control::inject::settings::{MeshSettings, SettingsError};

use super::CommandError;
use crate::table::printable;

/// As much of a key counts, bytes.
const MAX_HOOK_KEY: u64 = 4 << 10;
/// Largest input, bytes.
const MAX_INPUT: u64 = 64 << 20;

/// Add sidecars to the workloads in manifests
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Prints the manifests with sidecars on standard output, and the outcome of each workload on
standard error. Workloads are injected as in a namespace with the label mesh.anyam.dev/inject:
enabled; what else is in the manifests passes unchanged, but for comments. Injecting what was injected
changes nothing. A lifecycle hook (httpGet) gets a random token, another in each run, unless --hook-key
is given.

Examples:
  anyam inject -f web.yaml | kubectl apply -f -
  kubectl get deploy -o yaml | anyam inject -f - --settings injection.yaml"
)]
pub struct InjectArguments {
    /// Manifests (YAML or JSON); - is standard input; may be repeated
    #[arg(short, long, value_name = "FILE", required = true)]
    filename: Vec<PathBuf>,
    /// The namespace of workloads that name none
    #[arg(short, long, value_name = "NAME", default_value = "default")]
    namespace: String,
    /// Settings of injection, the same file as for anyam-control's --injection-settings
    #[arg(long, value_name = "FILE")]
    settings: Option<PathBuf>,
    /// A secret, 16 bytes or more, from which the tokens of lifecycle hooks are derived: the same
    /// manifests then become the same in each run
    #[arg(long, value_name = "FILE")]
    hook_key: Option<PathBuf>,
}

/// Why manifests are not injected.
#[derive(Debug, thiserror::Error)]
pub enum InjectFilesError {
    #[error("{path} can't be read: {source}")]
    Read { path: String, source: io::Error },
    #[error("{path}: {error}")]
    Yaml {
        path: String,
        error: xds_proto::yaml::Error,
    },
    #[error("{path}: {error}")]
    Manifest {
        path: String,
        error: Box<ManifestError>,
    },
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error("--hook-key {path}: {why}")]
    HookKey { path: String, why: String },
}

pub fn inject(arguments: InjectArguments) -> Result<ExitCode, CommandError> {
    let settings = match &arguments.settings {
        Some(path) => MeshSettings::read(path).map_err(InjectFilesError::from)?,
        None => MeshSettings::default(),
    };
    let tokens = match &arguments.hook_key {
        Some(path) => derived(path)?,
        None => HookTokens::Random,
    };
    let context = (arguments.namespace.as_str(), &settings, &tokens);
    let mut outcomes = Vec::new();
    let mut documents = Vec::new();
    for path in &arguments.filename {
        let injected = file(path, context, &mut outcomes)?;
        documents.extend(injected);
    }
    for outcome in &outcomes {
        report(outcome);
    }
    // Printed only now, so that nothing is applied when one workload is refused.
    let mut out = io::stdout().lock();
    for (index, document) in documents.iter().enumerate() {
        let separator = if index == 0 { "" } else { "---\n" };
        write!(out, "{separator}{document}")?;
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

fn file(
    path: &Path,
    (namespace, settings, tokens): (&str, &MeshSettings, &HookTokens),
    outcomes: &mut Vec<ObjectOutcome>,
) -> Result<Vec<String>, InjectFilesError> {
    let (name, text) = match path.as_os_str() == "-" {
        true => ("standard input".to_owned(), bounded(io::stdin().lock())),
        false => {
            let opened = std::fs::File::open(path);
            (path.display().to_string(), opened.and_then(bounded))
        }
    };
    let text = text.map_err(|source| InjectFilesError::Read {
        path: name.clone(),
        source,
    })?;
    let mut written = Vec::new();
    for document in xds_proto::yaml::documents(&text) {
        let document = document.map_err(|error| InjectFilesError::Yaml {
            path: name.clone(),
            error,
        })?;
        if document.is_null() {
            continue;
        }
        let object = document.to_json_as_kubectl();
        let object = inject_object(object, namespace, settings, tokens, outcomes);
        let object = object.map_err(|error| InjectFilesError::Manifest {
            path: name.clone(),
            error: Box::new(error),
        })?;
        written.push(xds_proto::yaml::write(&object));
    }
    Ok(written)
}

fn derived(path: &Path) -> Result<HookTokens, InjectFilesError> {
    let wrong = |why: String| InjectFilesError::HookKey {
        path: path.display().to_string(),
        why,
    };
    let mut secret = Vec::new();
    let opened = std::fs::File::open(path);
    let read = opened.and_then(|file| file.take(MAX_HOOK_KEY).read_to_end(&mut secret));
    read.map_err(|error| wrong(format!("it can't be read: {error}")))?;
    let short = || {
        let least = HookTokens::SECRET;
        wrong(format!(
            "it is shorter than {least} bytes; `openssl rand -hex 32` makes a good one"
        ))
    };
    HookTokens::derived(&secret).ok_or_else(short)
}

fn bounded(from: impl Read) -> io::Result<String> {
    let mut text = String::new();
    let read = from.take(MAX_INPUT + 1).read_to_string(&mut text)?;
    if read as u64 > MAX_INPUT {
        let why = format!("it is larger than {MAX_INPUT} bytes");
        return Err(io::Error::other(why));
    }
    Ok(text)
}

fn report(outcome: &ObjectOutcome) {
    let object = printable(&outcome.object);
    match &outcome.what {
        ObjectChange::Injected { warnings } => {
            eprintln!("{object}: injected");
            for warning in warnings {
                eprintln!("  warning: {}", printable(warning));
            }
        }
        ObjectChange::Skipped(skip) => {
            eprintln!("{object}: no sidecar: {}", printable(&skip.to_string()))
        }
        ObjectChange::Unchanged => {}
    }
}
