//! What is measured; `plans` and `pairs` have the contestants and the work of each case.

mod pairs;
mod plans;

use clap::ValueEnum;

use crate::hop::Hop;
use crate::load::Load;
use crate::load::held::Kind;
use crate::peers::Program;

/// See [`Case::plan`] for what each is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Case {
    L4,
    L4Bulk,
    L4StreamUp,
    L4StreamDown,
    Http1,
    #[value(name = "http1-64k")]
    Http1Medium,
    #[value(name = "http1-1m")]
    Http1Bulk,
    H2c,
    GrpcUnary,
    GrpcStream,
    Mtls,
    MtlsHttp1,
    MtlsPq,
    MtlsTcp,
    MtlsTunnel,
    MtlsTcpBulk,
    MtlsTunnelBulk,
    MtlsHttpBulk,
    MtlsStreamUp,
    MtlsStreamDown,
    #[value(name = "mtls-1000")]
    MtlsSteady,
    Sidecar,
    Handshake,
    HandshakeResumed,
    Connect,
    IdleL4,
    IdleHttp1,
    IdleHttp2,
    IdleMtls,
    IdleSidecar,
    Start,
    StartMtls,
    Workers,
    WorkersMtls,
    ScaleControl,
}

/// One contestant of a case.
#[derive(Clone, Debug)]
pub struct Contestant {
    pub name: &'static str,
    pub program: Program,
    pub hops: Vec<Hop>,
    pub workers: usize,
    /// In place of the front.
    pub port: Option<u16>,
}

/// What is done to each contestant in each round.
#[derive(Clone, Copy, Debug)]
pub enum Work {
    /// CPU while the load runs.
    Load(Load),
    /// Memory before, while and after connections are held.
    Idle(Kind),
    /// CPU of a change in the control plane.
    Change,
    /// Time from start to the first answer.
    Start { tls: bool },
}

pub struct Plan {
    pub title: &'static str,
    pub contestants: Vec<Contestant>,
    pub work: Work,
}

impl Case {
    pub fn all() -> Vec<Self> {
        Self::value_variants().to_vec()
    }

    /// Where a peer cannot be configured to do the same work, the difference.
    pub fn differences(self) -> &'static [&'static str] {
        match self {
            Self::Sidecar | Self::IdleSidecar => &[
                "anyam counts Istio's standard metrics by workload; a stock envoy has none of them and \
                 keeps its own statistics",
            ],
            _ => &[],
        }
    }

    /// As on the command line.
    pub fn name(self) -> String {
        let value = self.to_possible_value();
        value
            .map(|value| value.get_name().to_owned())
            .unwrap_or_default()
    }
}
