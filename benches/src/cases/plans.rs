//! Contestants and work of each case; `pairs` has those of two sidecars.

use super::{Case, Contestant, Plan, Work};
use crate::app;
use crate::control;
use crate::hop::{Hop, Wire};
use crate::load::Load;
use crate::load::held::Kind;
use crate::peers::Program;

pub(super) const ANYAM: (&str, Program) = ("anyam", Program::Anyam);
pub(super) const ENVOY: (&str, Program) = ("envoy", Program::Envoy);
pub(super) const HAPROXY: (&str, Program) = ("haproxy", Program::Haproxy);
pub(super) const NGINX: (&str, Program) = ("nginx", Program::Nginx);
const FLOOR: (&str, Program) = ("c-read-write", Program::ReadWrite);
const SPLICE: (&str, Program) = ("c-splice", Program::Splice);

impl Case {
    pub fn plan(self) -> Plan {
        let alone = Hop::alone;
        match self {
            Case::L4 | Case::L4Bulk | Case::L4StreamUp | Case::L4StreamDown => self.tcp(),
            Case::Http1 | Case::Http1Medium | Case::Http1Bulk => self.http1(),
            Case::H2c | Case::GrpcUnary | Case::GrpcStream => self.http2(),
            Case::Mtls | Case::MtlsHttp1 | Case::MtlsPq | Case::MtlsHttpBulk => self.pair_http(),
            Case::MtlsTcp
            | Case::MtlsTunnel
            | Case::MtlsTcpBulk
            | Case::MtlsTunnelBulk
            | Case::MtlsStreamUp
            | Case::MtlsStreamDown => self.pair_tcp(),
            Case::MtlsSteady => steady(),
            Case::Sidecar => sidecar(),
            Case::Handshake | Case::HandshakeResumed => {
                let resume = self == Case::HandshakeResumed;
                Plan {
                    title: match resume {
                        false => "a full mutual TLS handshake and one request",
                        true => "a resumed mutual TLS handshake and one request",
                    },
                    contestants: all(&[ANYAM, ENVOY, HAPROXY, NGINX], &[server()]),
                    work: Work::Load(Load::Handshakes { at_once: 8, resume }),
                }
            }
            Case::Connect => Plan {
                title: "a new plaintext connection and one HTTP/1.1 request",
                contestants: all(
                    &[ANYAM, ENVOY, HAPROXY, NGINX],
                    &[alone(Wire::Http1, Wire::Http1, app::HTTP1)],
                ),
                work: Work::Load(Load::Connections { at_once: 16 }),
            },
            Case::IdleL4 => idle("TCP", Kind::Tcp, alone(Wire::Tcp, Wire::Tcp, app::ECHO)),
            Case::IdleHttp1 => idle(
                "HTTP/1.1",
                Kind::Http1,
                alone(Wire::Http1, Wire::Http1, app::HTTP1),
            ),
            Case::IdleHttp2 => idle(
                "HTTP/2",
                Kind::Http2,
                alone(Wire::Http2, Wire::Http2, app::HTTP2),
            ),
            Case::IdleMtls => idle("HTTP/1.1 over mutual TLS", Kind::Tls, server()),
            Case::IdleSidecar => idle(
                "as a sidecar",
                Kind::Tls,
                Hop {
                    full: true,
                    ..server()
                },
            ),
            Case::ScaleControl => scale_control(),
            Case::Start => Plan {
                title: "start to the first answer, plain",
                contestants: all(
                    &[ANYAM, ENVOY, HAPROXY, NGINX],
                    &[alone(Wire::Http1, Wire::Http1, app::HTTP1)],
                ),
                work: Work::Start { tls: false },
            },
            Case::StartMtls => Plan {
                title: "start to the first answer over mutual TLS",
                contestants: all(&[ANYAM, ENVOY, HAPROXY, NGINX], &[server()]),
                work: Work::Start { tls: true },
            },
            Case::Workers => workers(
                "HTTP/1.1, 100 B, one and two workers",
                &[alone(Wire::Http1, Wire::Http1, app::HTTP1)],
            ),
            Case::WorkersMtls => workers(
                "the pair with HTTP/2 between, one and two workers each",
                &Hop::pair(Wire::Http1, Wire::Http2, app::HTTP1),
            ),
        }
    }

    fn tcp(self) -> Plan {
        let to = |port| vec![Hop::alone(Wire::Tcp, Wire::Tcp, port)];
        match self {
            Case::L4Bulk => {
                let hops = to(app::BULK);
                let mut contestants = all(&[ANYAM, SPLICE, FLOOR, ENVOY], &hops);
                contestants.extend(large(&[("haproxy-64k", Program::Haproxy)], &hops));
                contestants.extend(large(&[("nginx-64k", Program::Nginx)], &hops));
                Plan {
                    title: "TCP relay, 1 MiB answers, 8 connections",
                    contestants,
                    work: Work::Load(Load::Messages {
                        connections: 8,
                        answer: app::MEBIBYTE,
                    }),
                }
            }
            Case::L4StreamUp | Case::L4StreamDown => {
                let up = self == Case::L4StreamUp;
                Plan {
                    title: match up {
                        true => "TCP relay, one stream from the client",
                        false => "TCP relay, one stream to the client",
                    },
                    contestants: all(&[ANYAM, SPLICE, ENVOY], &to(app::STREAM)),
                    work: Work::Load(Load::Stream { up }),
                }
            }
            _ => Plan {
                title: "TCP relay, 100 B there and back, 64 connections",
                contestants: all(
                    &[ANYAM, FLOOR, SPLICE, ENVOY, HAPROXY, NGINX],
                    &to(app::ECHO),
                ),
                work: Work::Load(Load::Messages {
                    connections: 64,
                    answer: app::SMALL,
                }),
            },
        }
    }

    fn http1(self) -> Plan {
        let hops = [Hop::alone(Wire::Http1, Wire::Http1, app::HTTP1)];
        let (title, connections, path) = match self {
            Case::Http1Medium => ("HTTP/1.1, 64 KiB answers, 32 connections", 32, "/64k"),
            Case::Http1Bulk => ("HTTP/1.1, 1 MiB answers, 8 connections", 8, "/1m"),
            _ => ("HTTP/1.1, 100 B answers, 64 connections", 64, "/"),
        };
        let contestants = match self {
            Case::Http1 => all(&[ANYAM, ENVOY, HAPROXY, NGINX], &hops),
            _ => {
                let mut contestants = all(&[ANYAM, ENVOY], &hops);
                contestants.extend(large(&[("haproxy-64k", Program::Haproxy)], &hops));
                contestants.extend(large(&[("nginx-64k", Program::Nginx)], &hops));
                contestants
            }
        };
        Plan {
            title,
            contestants,
            work: Work::Load(Load::Wrk { connections, path }),
        }
    }

    fn http2(self) -> Plan {
        let (title, path, grpc) = match self {
            Case::GrpcUnary => (
                "gRPC, one small message each way, 8 x 32 streams",
                "/grpc",
                true,
            ),
            Case::GrpcStream => (
                "gRPC, streams of 100 messages, 8 x 4 streams",
                "/stream",
                true,
            ),
            _ => ("HTTP/2 in the clear, 100 B, 8 x 32 streams", "/", false),
        };
        Plan {
            title,
            contestants: all(
                &[ANYAM, ENVOY, HAPROXY],
                &[Hop::alone(Wire::Http2, Wire::Http2, app::HTTP2)],
            ),
            work: Work::Load(Load::H2load {
                clients: 8,
                streams: if self == Case::GrpcStream { 4 } else { 32 },
                path,
                grpc,
            }),
        }
    }
}

pub(super) fn all(programs: &[(&'static str, Program)], hops: &[Hop]) -> Vec<Contestant> {
    let contestant = |(name, program): &(&'static str, Program)| Contestant {
        name,
        program: *program,
        hops: hops.to_vec(),
        workers: 1,
        port: None,
    };
    programs.iter().map(contestant).collect()
}

fn large(programs: &[(&'static str, Program)], hops: &[Hop]) -> Vec<Contestant> {
    let mut hops = hops.to_vec();
    hops.iter_mut().for_each(|hop| hop.large_buffers = true);
    all(programs, &hops)
}

/// A called sidecar alone: HTTP/1.1 over mutual TLS in, HTTP/1.1 out.
fn server() -> Hop {
    Hop {
        tls_down: true,
        ..Hop::alone(Wire::Http1, Wire::Http1, app::HTTP1)
    }
}

fn idle(what: &'static str, kind: Kind, hop: Hop) -> Plan {
    let programs = match kind {
        Kind::Http2 => vec![ANYAM, ENVOY, HAPROXY],
        _ if hop.full => vec![ANYAM, ENVOY],
        _ => vec![ANYAM, ENVOY, HAPROXY, NGINX],
    };
    Plan {
        title: match what {
            "TCP" => "memory of idle connections: TCP",
            "HTTP/1.1" => "memory of idle connections: HTTP/1.1",
            "HTTP/2" => "memory of idle connections: HTTP/2",
            "as a sidecar" => "memory as a called sidecar: all of `sidecar`, mutual TLS",
            _ => "memory of idle connections: HTTP/1.1 over mutual TLS",
        },
        contestants: all(&programs, &[hop]),
        work: Work::Idle(kind),
    }
}

fn workers(title: &'static str, hops: &[Hop]) -> Plan {
    let mut contestants = all(&[ANYAM, ("anyam-2", Program::Anyam)], hops);
    contestants.extend(all(&[ENVOY, ("envoy-2", Program::Envoy)], hops));
    for contestant in &mut contestants {
        contestant.workers = if contestant.name.ends_with("-2") {
            2
        } else {
            1
        };
    }
    Plan {
        title,
        contestants,
        work: Work::Load(Load::Wrk {
            connections: if hops.len() > 1 { 16 } else { 64 },
            path: "/",
        }),
    }
}

fn scale_control() -> Plan {
    let sizes = control::SIZES.iter();
    Plan {
        title: "one endpoint changed: from the source's delta to the bytes of four sidecars",
        contestants: sizes
            .flat_map(|(name, _)| all(&[(*name, Program::Direct)], &[]))
            .collect(),
        work: Work::Change,
    }
}

fn steady() -> Plan {
    let pair = |between| Hop::pair(Wire::Http1, between, app::HTTP1);
    let mut contestants = all(&[ANYAM, ENVOY], &pair(Wire::Http2));
    contestants.extend(all(&[("anyam-h1", Program::Anyam)], &pair(Wire::Http1)));
    contestants.extend(all(&[("haproxy-h1", Program::Haproxy)], &pair(Wire::Http1)));
    contestants.extend(all(&[("direct", Program::Direct)], &[]));
    for contestant in &mut contestants {
        if contestant.program == Program::Direct {
            contestant.port = Some(app::HTTP1);
        }
    }
    Plan {
        title: "the pair at 1,000 requests a second, open loop, 16 connections",
        contestants,
        work: Work::Load(Load::Open {
            rate: 1000,
            connections: 16,
        }),
    }
}

fn sidecar() -> Plan {
    let bare = Hop::pair(Wire::Http1, Wire::Http2, app::HTTP1);
    let mut full = bare.clone();
    full.iter_mut().for_each(|hop| hop.full = true);
    let mut contestants = all(&[ANYAM, ENVOY], &full);
    contestants.extend(all(&[("anyam-bare", Program::Anyam)], &bare));
    Plan {
        title: "the pair as sidecars: ten rules, JSON log, outlier detection, retries, request ids",
        contestants,
        work: Work::Load(Load::Wrk {
            connections: 16,
            path: "/",
        }),
    }
}
