//! What Anyam has to reach. A ratio counts against a contestant of the same case and run; a limit
//! is absolute.

use crate::cases::Case;
use crate::report::Metric;

#[derive(Clone, Copy, Debug)]
pub struct Bar {
    pub metric: Metric,
    /// Contestants of ours; the best value of these is compared.
    pub own: &'static [&'static str],
    pub against: Option<&'static str>,
    pub most: f64,
}

const OURS: &[&str] = &["anyam"];

/// All bars of a case.
pub fn of(case: Case) -> Vec<Bar> {
    use Metric::{AddedP99, Change, Cpu, PerConnection, Resident, Start};
    let ratio = |metric, against, most| Bar {
        metric,
        own: OURS,
        against: Some(against),
        most,
    };
    let limit = |metric, most| Bar {
        metric,
        own: OURS,
        against: None,
        most,
    };
    let either = |metric, against, most| Bar {
        own: &["anyam", "anyam-h1"],
        ..ratio(metric, against, most)
    };
    // The default protocol between sidecars, for all bars of a case.
    let by_default = |metric, against, most| Bar {
        own: &["anyam-h1"],
        ..ratio(metric, against, most)
    };
    match case {
        Case::L4 => vec![ratio(Cpu, "c-read-write", 1.08), ratio(Cpu, "nginx", 1.0)],
        Case::L4Bulk => vec![ratio(Cpu, "c-splice", 1.15), ratio(Cpu, "envoy", 0.35)],
        Case::L4StreamUp | Case::L4StreamDown => vec![ratio(Cpu, "c-splice", 1.1)],
        Case::Http1 => vec![ratio(Cpu, "envoy", 0.45), ratio(Cpu, "haproxy", 1.0)],
        Case::Http1Bulk => vec![ratio(Cpu, "envoy", 0.55), ratio(Cpu, "haproxy-64k", 0.8)],
        Case::H2c => vec![ratio(Cpu, "envoy", 0.6), ratio(Cpu, "haproxy", 1.1)],
        Case::Mtls => vec![either(Cpu, "envoy", 0.33), either(Cpu, "haproxy", 1.0)],
        Case::MtlsTcp => vec![ratio(Cpu, "envoy", 0.75), ratio(Cpu, "haproxy", 0.75)],
        Case::MtlsTunnel => vec![ratio(Cpu, "envoy", 0.95)],
        Case::MtlsTcpBulk => vec![ratio(Cpu, "envoy", 0.85), ratio(Cpu, "haproxy", 0.5)],
        Case::MtlsHttpBulk => vec![either(Cpu, "envoy", 0.85), either(Cpu, "haproxy", 0.5)],
        Case::MtlsStreamUp | Case::MtlsStreamDown => vec![ratio(Cpu, "envoy", 0.95)],
        Case::MtlsSteady => vec![
            by_default(Cpu, "envoy", 0.35),
            by_default(Cpu, "haproxy-h1", 0.75),
            by_default(AddedP99, "envoy", 0.55),
        ],
        Case::Sidecar => vec![ratio(Cpu, "envoy", 0.35), ratio(Cpu, "anyam-bare", 1.25)],
        Case::Handshake => vec![ratio(Cpu, "envoy", 0.65)],
        Case::Connect => vec![ratio(Cpu, "haproxy", 1.1)],
        Case::IdleL4 => vec![limit(Resident, 9.0), limit(PerConnection, 1.5), after()],
        Case::IdleHttp1 => vec![limit(Resident, 9.0), limit(PerConnection, 3.0), after()],
        Case::IdleMtls => vec![limit(Resident, 9.0), limit(PerConnection, 8.0), after()],
        Case::IdleSidecar => vec![limit(Resident, 12.0), after()],
        Case::IdleHttp2 => vec![after()],
        Case::Start => vec![limit(Start, 8.0)],
        Case::StartMtls => vec![limit(Start, 20.0)],
        Case::Workers | Case::WorkersMtls => vec![Bar {
            own: &["anyam-2"],
            ..ratio(Cpu, "anyam", 1.12)
        }],
        Case::ScaleControl => {
            let sizes: [&[&str]; 2] = [&["1000-services"], &["10000-services"]];
            let bars = sizes.map(|own| {
                [
                    Bar {
                        own,
                        ..limit(Change, 2000.0)
                    },
                    Bar {
                        own,
                        ..ratio(Change, "100-services", 1.5)
                    },
                ]
            });
            bars.concat()
        }
        Case::Http1Medium
        | Case::GrpcUnary
        | Case::GrpcStream
        | Case::MtlsHttp1
        | Case::MtlsPq
        | Case::MtlsTunnelBulk
        | Case::HandshakeResumed => Vec::new(),
    }
}

fn after() -> Bar {
    Bar {
        metric: Metric::AfterClose,
        own: OURS,
        against: None,
        most: 1.3,
    }
}
