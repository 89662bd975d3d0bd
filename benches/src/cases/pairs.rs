//! Contestants and work of the cases with two sidecars and mutual TLS between them.

use super::plans::{ANYAM, ENVOY, HAPROXY, NGINX, all};
use super::{Case, Plan, Work};
use crate::app;
use crate::hop::{Hop, Wire};
use crate::load::Load;
use crate::peers::Program;

impl Case {
    pub(super) fn pair_http(self) -> Plan {
        let pair = |between| Hop::pair(Wire::Http1, between, app::HTTP1);
        let small = Load::Wrk {
            connections: 16,
            path: "/",
        };
        let (title, contestants, load) = match self {
            Case::MtlsHttp1 => (
                "the pair, HTTP/1.1 between over mutual TLS, 100 B, 16 connections",
                all(&[ANYAM, ENVOY, HAPROXY, NGINX], &pair(Wire::Http1)),
                small,
            ),
            Case::MtlsPq => {
                let mut hops = pair(Wire::Http2);
                hops.iter_mut().for_each(|hop| hop.post_quantum = true);
                let mut contestants = all(&[("anyam-pq", Program::Anyam)], &hops);
                contestants.extend(all(&[ANYAM], &pair(Wire::Http2)));
                let title = "the pair, HTTP/2 between, X25519MLKEM768 beside X25519";
                (title, contestants, small)
            }
            Case::MtlsHttpBulk => (
                "the pair, HTTP/1.1 outside, 1 MiB answers, 8 connections",
                {
                    let mut contestants = all(&[("anyam", Program::Anyam)], &pair(Wire::Http2));
                    contestants.extend(all(&[("anyam-h1", Program::Anyam)], &pair(Wire::Http1)));
                    contestants.extend(all(&[ENVOY, HAPROXY], &pair(Wire::Http2)));
                    contestants.extend(all(&[("envoy-h1", Program::Envoy)], &pair(Wire::Http1)));
                    contestants
                },
                Load::Wrk {
                    connections: 8,
                    path: "/1m",
                },
            ),
            _ => (
                "the pair, HTTP/2 between over mutual TLS, 100 B, 16 connections",
                {
                    let mut contestants = all(&[ANYAM, ENVOY, HAPROXY], &pair(Wire::Http2));
                    contestants.extend(all(&[("anyam-h1", Program::Anyam)], &pair(Wire::Http1)));
                    contestants
                },
                small,
            ),
        };
        Plan {
            title,
            contestants,
            work: Work::Load(load),
        }
    }

    pub(super) fn pair_tcp(self) -> Plan {
        let pair = |between, to| Hop::pair(Wire::Tcp, between, to);
        let small = Load::Messages {
            connections: 16,
            answer: app::SMALL,
        };
        let three = [ANYAM, ENVOY, HAPROXY];
        let (title, contestants, load) = match self {
            Case::MtlsTunnel => (
                "the pair, TCP in CONNECT over HTTP/2, 100 B, 16 connections",
                {
                    let mut all_of = all(&[ANYAM, ENVOY], &pair(Wire::Tunnel, app::ECHO));
                    all_of.extend(all(
                        &[("anyam-direct", Program::Anyam)],
                        &pair(Wire::Tcp, app::ECHO),
                    ));
                    all_of
                },
                small,
            ),
            Case::MtlsTunnelBulk => (
                "the pair, TCP in CONNECT over HTTP/2, 1 MiB answers, 8 connections",
                {
                    let mut all_of = all(&[ANYAM, ENVOY], &pair(Wire::Tunnel, app::BULK));
                    all_of.extend(all(
                        &[("anyam-direct", Program::Anyam)],
                        &pair(Wire::Tcp, app::BULK),
                    ));
                    all_of
                },
                Load::Messages {
                    connections: 8,
                    answer: app::MEBIBYTE,
                },
            ),
            Case::MtlsTcpBulk => (
                "the pair, TCP over mutual TLS, 1 MiB answers, 8 connections",
                all(&three, &pair(Wire::Tcp, app::BULK)),
                Load::Messages {
                    connections: 8,
                    answer: app::MEBIBYTE,
                },
            ),
            Case::MtlsStreamUp => (
                "the pair, TCP over mutual TLS, one stream from the client",
                all(&three, &pair(Wire::Tcp, app::STREAM)),
                Load::Stream { up: true },
            ),
            Case::MtlsStreamDown => (
                "the pair, TCP over mutual TLS, one stream to the client",
                all(&three, &pair(Wire::Tcp, app::STREAM)),
                Load::Stream { up: false },
            ),
            _ => (
                "the pair, a TLS connection each, 100 B there and back, 16 connections",
                all(&three, &pair(Wire::Tcp, app::ECHO)),
                small,
            ),
        };
        Plan {
            title,
            contestants,
            work: Work::Load(load),
        }
    }
}
