//! A call of the API, before it is known which way it goes.

use std::fmt;

/// The namespaces that an answer is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    All,
    Namespace(String),
}

impl Scope {
    pub fn has(&self, namespace: &str) -> bool {
        match self {
            Scope::All => true,
            Scope::Namespace(one) => one == namespace,
        }
    }
}

/// ` in namespace shop`, or nothing, to end a sentence with.
impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Scope::All => Ok(()),
            Scope::Namespace(name) => write!(f, " in namespace {name}"),
        }
    }
}

/// A workload, which is a pod in a cluster.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WorkloadName {
    pub namespace: String,
    pub name: String,
}

impl fmt::Display for WorkloadName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub enum Subject<'a> {
    /// Of all workloads of a scope: `proxies`, `edges`, …
    All(&'a Scope, &'static str),
    Tap(&'a WorkloadName),
    /// Of the workload that calls.
    Explain(&'a WorkloadName),
    /// A page of a proxy.
    Dump(&'a WorkloadName, &'a str),
}

#[derive(Clone, Debug)]
pub struct Call<'a> {
    pub subject: Subject<'a>,
    /// Encoded; may be empty.
    pub query: String,
    /// JSON, with which it is a POST.
    pub body: Option<Vec<u8>>,
}

impl<'a> Call<'a> {
    pub fn get(subject: Subject<'a>) -> Self {
        Call {
            subject,
            query: String::new(),
            body: None,
        }
    }
}
