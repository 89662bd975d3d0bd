//! The state machine, without sockets: every promise of `session` in both protocols.

mod delta;
mod limits;
mod property;
mod sotw;

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use proptest::prelude::*;
use xds_proto::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};
use xds_proto::google::rpc::Status;
use xds_proto::type_url::{CLUSTER, ENDPOINT, LISTENER, NAME, ROUTE, SECRET};

use crate::ads::resources::{Resources, Scope};
use crate::ads::session::{Push, RequestError, Session, SessionLimits};
use crate::ads::subscription::ProtocolVariant;
use crate::ads::testing::Memory;

pub(super) struct Client<'a> {
    mesh: &'a Memory,
    pub(super) session: Session,
    protocol: ProtocolVariant,
    /// What a real client would hold, by type and name.
    pub(super) has: BTreeMap<(String, String), String>,
}

impl<'a> Client<'a> {
    pub(super) fn new(mesh: &'a Memory, protocol: ProtocolVariant) -> Self {
        let view = mesh.view();
        Client {
            mesh,
            session: Session::new(protocol, Scope::default(), SessionLimits::default(), &*view),
            protocol,
            has: BTreeMap::new(),
        }
    }

    pub(super) fn delta(mesh: &'a Memory) -> Self {
        Client::new(mesh, ProtocolVariant::Delta)
    }

    pub(super) fn sotw(mesh: &'a Memory) -> Self {
        Client::new(mesh, ProtocolVariant::Sotw)
    }

    pub(super) fn ask_delta(&mut self, request: DeltaDiscoveryRequest) {
        let view = self.mesh.view();
        self.session
            .delta_request(&request, &*view, Instant::now())
            .unwrap();
    }

    pub(super) fn subscribe(&mut self, type_url: &str, names: &[&str]) {
        self.ask_delta(DeltaDiscoveryRequest {
            type_url: type_url.into(),
            resource_names_subscribe: strings(names),
            ..Default::default()
        });
    }

    pub(super) fn unsubscribe(&mut self, type_url: &str, names: &[&str]) {
        self.ask_delta(DeltaDiscoveryRequest {
            type_url: type_url.into(),
            resource_names_unsubscribe: strings(names),
            ..Default::default()
        });
    }

    pub(super) fn want(&mut self, type_url: &str, names: &[&str], nonce: &str) {
        let request = DiscoveryRequest {
            type_url: type_url.into(),
            resource_names: strings(names),
            response_nonce: nonce.into(),
            ..Default::default()
        };
        self.ask_sotw(&request);
    }

    pub(super) fn ask_sotw(&mut self, request: &DiscoveryRequest) {
        let view = self.mesh.view();
        self.session
            .sotw_request(request, &*view, Instant::now())
            .unwrap();
    }

    pub(super) fn next(&mut self) -> Option<Push> {
        let view = self.mesh.view();
        self.session.look(&*view);
        let push = self.session.next(&*view)?;
        for resource in &push.resources {
            let key = (push.type_url.to_string(), resource.name.to_string());
            self.has.insert(key, resource.version.to_string());
        }
        for name in &push.removed {
            self.has
                .remove(&(push.type_url.to_string(), name.to_string()));
        }
        Some(push)
    }

    pub(super) fn answer(&mut self, push: &Push, error: Option<&str>) {
        let status = |message: &str| Status {
            message: message.into(),
            ..Default::default()
        };
        match self.protocol {
            ProtocolVariant::Delta => self.ask_delta(DeltaDiscoveryRequest {
                type_url: push.type_url.to_string(),
                response_nonce: push.nonce.clone(),
                error_detail: error.map(status),
                ..Default::default()
            }),
            ProtocolVariant::Sotw => {
                let names = self.wanted_names(&push.type_url);
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                let request = DiscoveryRequest {
                    type_url: push.type_url.to_string(),
                    resource_names: strings(&names),
                    response_nonce: push.nonce.clone(),
                    error_detail: error.map(status),
                    ..Default::default()
                };
                self.ask_sotw(&request);
            }
        }
    }

    pub(super) fn wanted_names(&self, type_url: &str) -> Vec<String> {
        let kind = self
            .session
            .kinds
            .iter()
            .find(|kind| &*kind.type_url == type_url);
        let Some(kind) = kind else { return Vec::new() };
        let mut names: Vec<String> = kind.names.iter().map(ToString::to_string).collect();
        if kind.all && kind.named_once {
            names.push("*".into());
        }
        names
    }

    /// Takes and ACKs everything there is; returns what came, in order.
    pub(super) fn drain(&mut self) -> Vec<String> {
        let mut log = Vec::new();
        while let Some(push) = self.next() {
            log.push(describe(&push));
            self.answer(&push, None);
        }
        assert!(!self.session.has_work(), "drained, yet there is work");
        log
    }
}

pub(super) fn strings(names: &[&str]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

/// `clusters +a +b -c`.
pub(super) fn describe(push: &Push) -> String {
    let mut names: Vec<String> = push
        .resources
        .iter()
        .map(|one| format!("+{}", one.name))
        .collect();
    names.extend(push.removed.iter().map(|name| format!("-{name}")));
    names.sort();
    names.insert(0, super::subscription::label(&push.type_url).to_owned());
    names.join(" ")
}

pub(super) fn shop() -> Memory {
    let mesh = Memory::new();
    mesh.change(&[
        (CLUSTER, "a", Some("1")),
        (CLUSTER, "b", Some("1")),
        (ENDPOINT, "a", Some("1")),
        (ENDPOINT, "b", Some("1")),
        (LISTENER, "l", Some("1")),
        (ROUTE, "r", Some("1")),
    ]);
    mesh
}
