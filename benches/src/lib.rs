//! The same work through Anyam and its peers, in turn, and the ratios.
//!
//! - `cases`: what is measured, `bars`: what has to come of it
//! - `hop`: what a proxy has to do; `bootstrap` (Anyam, Envoy) and `config` (HAProxy, nginx) write
//!   it in each program's words; `peers` starts them and reads their CPU and memory
//! - `churn`: a cluster of changing pods, by a program of its own (`anyam-churn`); `usage`: CPU and
//!   memory of a process
//! - `control`: a control plane in this process, and what a change costs it
//! - `load`: the work; `app`: what stands behind the proxies; `certs`
//! - `rounds`: the order of runs; `report`, `table`, `chart`: medians, ratios, JSON,
//!   Markdown, a picture
//!
//! Absolute times on a shared machine prove nothing: rounds are interleaved (A B A B …) and only
//! the ratio of medians counts. A failed or non-200 response voids the whole run.
//!
//! What does not depend on the load of the machine is counted by `tests/counters` against
//! `budgets.txt`: system calls, allocations, instructions.

pub mod app;
pub mod bars;
pub mod bootstrap;
pub mod cases;
pub mod certs;
pub mod chart;
pub mod churn;
pub mod config;
pub mod control;
pub mod hop;
pub mod load;
pub mod peers;
pub mod report;
pub mod rounds;
pub mod table;
pub mod usage;

use std::path::PathBuf;

/// Paths of the programs, and the folder for their files.
pub struct Programs {
    pub anyam: PathBuf,
    pub envoy: PathBuf,
    pub relay: PathBuf,
    pub scratch: PathBuf,
    /// Connections that a proxy can hold here.
    pub connections: usize,
}

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    #[error("{what}: {error}")]
    Io { what: String, error: std::io::Error },
    #[error("{0} did not listen; its last words:\n{1}")]
    NotReady(String, String),
    #[error("the round is void: {0}")]
    Void(String),
    #[error("{0} answered in an unknown way:\n{1}")]
    Unknown(&'static str, String),
    #[error("{case}, {contestant}: {error}")]
    At {
        case: String,
        contestant: &'static str,
        error: Box<BenchError>,
    },
    #[error("certificates: {0}")]
    Certificates(#[from] rcgen::Error),
}
