//! Contexts, as kubectl's: the control planes this user's `anyam` can reach, and the current one.
//!
//! A context is a file of its own, 0600, in `<folder>/contexts/<name>.json`, so that a control plane
//! writes and removes its own without touching others. `<folder>/current` lists names, the preferred
//! one first; the first that still has a file is current. A name after `kubernetes:` is one of the
//! user's kubeconfig. The folder is `$ANYAM_CONFIG_DIR`, else `anyam` in `$XDG_CONFIG_HOME` or in
//! `~/.config`.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::ca::{CaError, private};

/// Names remembered in `current`.
const MAX_PREFERRED: usize = 16;
/// Before the name of a kubeconfig's context; ours have no such character.
const KUBERNETES: &str = "kubernetes:";
/// The longest of these names: some have an ARN in them.
const MAX_KUBERNETES: usize = 1024;

/// How one control plane is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Context {
    /// Its API.
    pub api: SocketAddr,
    pub token: Token,
}

/// The API's token, or where it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Token {
    Value(String),
    File(PathBuf),
}

/// The mesh that is current, by the context of one of two kinds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CurrentContext {
    /// One of [`Contexts`].
    Own(String),
    /// A context of the user's kubeconfig.
    Kubernetes(String),
}

/// Why contexts can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ContextError {
    #[error("no folder for contexts: set HOME, or ANYAM_CONFIG_DIR")]
    Homeless,
    #[error(transparent)]
    File(#[from] CaError),
    #[error("{path}: {error}", path = path.display())]
    Io { path: PathBuf, error: io::Error },
    #[error("{path} is no context: {error}; remove it, or write it anew with `anyam context add`", path = path.display())]
    Damaged {
        path: PathBuf,
        error: serde_json::Error,
    },
    #[error("`{0}` can't be the name of a context: letters, digits, `-`, `_` and `.`, 63 at most")]
    Name(String),
    #[error("there is no context `{name}`; there are: {known}")]
    Unknown { name: String, known: String },
}

/// A user's contexts.
#[derive(Clone, Debug)]
pub struct Contexts {
    folder: PathBuf,
}

impl Contexts {
    /// # Errors
    /// When the environment names no folder.
    pub fn of_user() -> Result<Self, ContextError> {
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let folder = variable("ANYAM_CONFIG_DIR").map(PathBuf::from).or_else(|| {
            let configuration = variable("XDG_CONFIG_HOME").map(PathBuf::from);
            let home = || variable("HOME").map(|home| Path::new(&home).join(".config"));
            configuration.or_else(home).map(|path| path.join("anyam"))
        });
        folder.map(Self::at).ok_or(ContextError::Homeless)
    }

    pub fn at(folder: impl Into<PathBuf>) -> Self {
        Contexts {
            folder: folder.into(),
        }
    }

    /// In the order of names.
    ///
    /// # Errors
    /// When the folder can't be read.
    pub fn names(&self) -> Result<Vec<String>, ContextError> {
        let folder = self.folder.join("contexts");
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => {
                return Err(ContextError::Io {
                    path: folder,
                    error,
                });
            }
        };
        let name = |entry: io::Result<fs::DirEntry>| {
            let name = entry.ok()?.file_name().into_string().ok()?;
            let name = name.strip_suffix(".json")?;
            is_name(name).then(|| name.to_owned())
        };
        let mut names: Vec<String> = entries.filter_map(name).collect();
        names.sort();
        Ok(names)
    }

    /// # Errors
    /// When there is none of that name, or its file is damaged or open to others.
    pub fn get(&self, name: &str) -> Result<Context, ContextError> {
        let path = self.path(name)?;
        let Some(text) = private::read(&path)? else {
            let known = self.names()?;
            return Err(ContextError::Unknown {
                name: name.to_owned(),
                known: match known.is_empty() {
                    true => "none".to_owned(),
                    false => known.join(", "),
                },
            });
        };
        serde_json::from_slice(&text).map_err(|error| ContextError::Damaged { path, error })
    }

    /// The default where no flag names one: the preferred one, else the only one.
    ///
    /// # Errors
    /// When the folder can't be read.
    pub fn current(&self) -> Result<Option<String>, ContextError> {
        let names = self.names()?;
        let preferred = self
            .preferred()
            .into_iter()
            .find(|name| names.contains(name));
        Ok(preferred.or_else(|| match names.as_slice() {
            [only] => Some(only.clone()),
            _ => None,
        }))
    }

    /// As [`Self::current`], among the kubeconfig's contexts too, of which `exists` knows.
    ///
    /// # Errors
    /// When the folder can't be read.
    pub fn chosen(
        &self,
        exists: impl Fn(&str) -> bool,
    ) -> Result<Option<CurrentContext>, ContextError> {
        let names = self.names()?;
        let preferred =
            self.preferred()
                .into_iter()
                .find_map(|line| match line.strip_prefix(KUBERNETES) {
                    Some(name) => exists(name).then(|| CurrentContext::Kubernetes(name.to_owned())),
                    None => names.contains(&line).then_some(CurrentContext::Own(line)),
                });
        Ok(preferred.or_else(|| match names.as_slice() {
            [only] => Some(CurrentContext::Own(only.clone())),
            _ => None,
        }))
    }

    /// Writes a context. `prefer`: it is current from now on; else only where none was.
    ///
    /// # Errors
    /// When the name is none, or the file can't be written.
    pub fn add(&self, name: &str, context: &Context, prefer: bool) -> Result<(), ContextError> {
        let path = self.path(name)?;
        private::directory(&self.folder.join("contexts"))?;
        let mut text =
            serde_json::to_vec_pretty(context).map_err(|error| ContextError::Damaged {
                path: path.clone(),
                error,
            })?;
        text.push(b'\n');
        private::write(&path, &text)?;
        let mut preferred = self.preferred();
        match prefer {
            true => preferred.insert(0, name.to_owned()),
            false => preferred.push(name.to_owned()),
        }
        self.prefer(preferred)
    }

    /// Makes a context the current one.
    ///
    /// # Errors
    /// When there is none of that name.
    pub fn select(&self, name: &str) -> Result<(), ContextError> {
        self.get(name)?;
        let mut preferred = self.preferred();
        preferred.insert(0, name.to_owned());
        self.prefer(preferred)
    }

    /// Makes a context of the kubeconfig the current one; kubectl's stays as it is.
    ///
    /// # Errors
    /// When the name can't be kept.
    pub fn select_kubernetes(&self, name: &str) -> Result<(), ContextError> {
        let line = format!("{KUBERNETES}{name}");
        if !is_preference(&line) {
            return Err(ContextError::Name(name.to_owned()));
        }
        private::directory(&self.folder.join("contexts"))?;
        let mut preferred = self.preferred();
        preferred.insert(0, line);
        self.prefer(preferred)
    }

    /// Removes a context; the one that was current before it is so again.
    ///
    /// # Errors
    /// When the file can't be removed. That there is none is no error.
    pub fn remove(&self, name: &str) -> Result<(), ContextError> {
        let path = self.path(name)?;
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(ContextError::Io { path, error })
            }
            _ => {
                let preferred = self.preferred();
                self.prefer(
                    preferred
                        .into_iter()
                        .filter(|other| other != name)
                        .collect(),
                )
            }
        }
    }

    fn path(&self, name: &str) -> Result<PathBuf, ContextError> {
        match is_name(name) {
            true => Ok(self.folder.join("contexts").join(format!("{name}.json"))),
            false => Err(ContextError::Name(name.to_owned())),
        }
    }

    fn preferred(&self) -> Vec<String> {
        let text = fs::read_to_string(self.folder.join("current")).unwrap_or_default();
        text.lines()
            .take(MAX_PREFERRED)
            .map(str::to_owned)
            .collect()
    }

    fn prefer(&self, names: Vec<String>) -> Result<(), ContextError> {
        let mut lines: Vec<String> = Vec::new();
        for name in names.into_iter().filter(|name| is_preference(name)) {
            if !lines.contains(&name) && lines.len() < MAX_PREFERRED {
                lines.push(name);
            }
        }
        let path = self.folder.join("current");
        if lines.is_empty() && !path.exists() {
            return Ok(());
        }
        Ok(private::write(
            &path,
            format!("{}\n", lines.join("\n")).as_bytes(),
        )?)
    }
}

fn is_name(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    !name.is_empty() && name.len() <= 63 && !name.starts_with('.') && name.bytes().all(fits)
}

/// A line of `current`.
fn is_preference(line: &str) -> bool {
    match line.strip_prefix(KUBERNETES) {
        Some(name) => {
            !name.is_empty() && name.len() <= MAX_KUBERNETES && !name.contains(char::is_control)
        }
        None => is_name(line),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn context(port: u16) -> Context {
        Context {
            api: SocketAddr::from(([127, 0, 0, 1], port)),
            token: Token::Value("secret".to_owned()),
        }
    }

    #[test]
    fn contexts_come_and_go_and_one_is_current() {
        let home = tempfile::tempdir().unwrap();
        let contexts = Contexts::at(home.path().join("anyam"));
        let current = || contexts.current().unwrap();
        assert_eq!((current(), contexts.names().unwrap()), (None, vec![]));
        contexts.remove("nothing").unwrap();
        contexts.add("a", &context(1), false).unwrap();
        contexts.add("b", &context(2), false).unwrap();
        assert_eq!(
            current().as_deref(),
            Some("a"),
            "what is there stays current"
        );
        contexts.add("demo", &context(3), true).unwrap();
        assert_eq!(current().as_deref(), Some("demo"));
        assert_eq!(contexts.get("demo").unwrap(), context(3));
        contexts.select("b").unwrap();
        contexts.select("demo").unwrap();
        contexts.remove("demo").unwrap();
        assert_eq!(current().as_deref(), Some("b"), "the one before it");
        // Its file was removed by other means.
        fs::remove_file(home.path().join("anyam/contexts/b.json")).unwrap();
        assert_eq!(current().as_deref(), Some("a"));
        let unknown = contexts.select("b").unwrap_err().to_string();
        assert_eq!(unknown, "there is no context `b`; there are: a");
        for bad in ["", "../a", ".a", "a/b", &"a".repeat(64)] {
            assert!(matches!(
                contexts.add(bad, &context(1), true),
                Err(ContextError::Name(_))
            ));
        }
        let many = |index: u16| contexts.add(&format!("m{index}"), &context(index), true);
        (0..40).for_each(|index| many(index).unwrap());
        assert_eq!(contexts.preferred().len(), MAX_PREFERRED);
    }

    #[test]
    fn a_kubeconfigs_context_can_be_current_too() {
        let home = tempfile::tempdir().unwrap();
        let contexts = Contexts::at(home.path().join("anyam"));
        let choice = |exists: bool| contexts.chosen(|_| exists).unwrap();
        assert_eq!(choice(true), None);
        let arn = "arn:aws:eks:eu-central-1:1:cluster/prod";
        contexts.select_kubernetes(arn).unwrap();
        assert_eq!(
            choice(true),
            Some(CurrentContext::Kubernetes(arn.to_owned()))
        );
        assert_eq!(choice(false), None, "it is in the kubeconfig no more");
        contexts.add("a", &context(1), false).unwrap();
        assert_eq!(
            choice(true),
            Some(CurrentContext::Kubernetes(arn.to_owned()))
        );
        assert_eq!(choice(false), Some(CurrentContext::Own("a".to_owned())));
        assert_eq!(contexts.current().unwrap().as_deref(), Some("a"));
        // A demo is current while it runs.
        contexts.add("demo", &context(2), true).unwrap();
        assert_eq!(choice(true), Some(CurrentContext::Own("demo".to_owned())));
        contexts.remove("demo").unwrap();
        assert_eq!(
            choice(true),
            Some(CurrentContext::Kubernetes(arn.to_owned()))
        );
        for bad in ["", "a\nb", &"a".repeat(1025)] {
            assert!(contexts.select_kubernetes(bad).is_err());
        }
    }

    #[test]
    fn only_its_user_can_read_one() {
        let home = tempfile::tempdir().unwrap();
        let contexts = Contexts::at(home.path().join("anyam"));
        contexts.add("a", &context(1), false).unwrap();
        let file = home.path().join("anyam/contexts/a.json");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode(&file), 0o600);
        assert_eq!(mode(file.parent().unwrap()), 0o700);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(matches!(
            contexts.get("a"),
            Err(ContextError::File(CaError::Loose { .. }))
        ));
        fs::write(&file, "{}").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        let error = contexts.get("a").unwrap_err().to_string();
        assert!(error.contains("is no context"), "{error}");
    }
}
