//! One hypothetical request, evaluated by the proxies at both its ends.

use std::net::{IpAddr, SocketAddr};

use http::StatusCode;
use prost::Message;
use xds_proto::anyam::dns::v1::Name;
use xds_proto::anyam::inspect::v1::decision::Outcome;
use xds_proto::anyam::inspect::v1::{Decision, Explain, Header};
use xds_proto::type_url::NAME;

use super::Api;
use super::access::{ApiAccess, MeshVerb};
use super::declared::Declared;
use super::reply::Problem;
use crate::ads::{Scope, View};
use crate::types::{ExplainRequest, ExplainResponse, ExplainStep, Proxy};

const DEFAULT_PORT: u16 = 80;

/// What is decided in another namespace than the source's is shown to those who may see it there.
///
/// # Errors
/// When the request is malformed, not permitted, its destination unknown, or its source's proxy can't
/// be reached.
pub async fn explain(
    api: &Api,
    access: &ApiAccess,
    request: ExplainRequest,
) -> Result<ExplainResponse, Problem> {
    let view = api.resources.view();
    let (view, declared) = (&*view, &*api.declared);
    let domain = api.authority.trust_domain();
    let (namespace, workload) = super::workload(&request.source, access, "source")?;
    access
        .require(MeshVerb::Explain, namespace, workload)
        .await?;
    let (host, port) = host_and_port(&request.destination)?;
    let account = view.service_account(namespace, workload);
    let account = account.ok_or_else(|| {
        Problem::new(
            StatusCode::NOT_FOUND,
            format!("there is no Workload {namespace}/{workload}"),
            "source",
            "give namespace/name of a declared Workload; `anyam proxies` lists those that are connected",
        )
    })?;
    let scope = Scope {
        namespace: namespace.to_owned(),
        workload: workload.to_owned(),
        service_account: account,
        trust_domain: domain.to_owned(),
        anyam: true,
        ..Scope::default()
    };
    let address = resolve(view, &scope, (host, &declared.cluster_domain()))?;
    if let Some(refused) = no_such_port(declared, &request, SocketAddr::new(address, port)) {
        return Ok(refused);
    }
    let identity = format!(
        "spiffe://{domain}/ns/{namespace}/sa/{}",
        scope.service_account
    );
    let outbound = question(&request, host, address, port);
    let asked = api.ask_to_explain((namespace, workload), outbound).await?;
    let mut response = ExplainResponse::default();
    add(&mut response, &request.source, "outbound", &asked.decisions);
    let failed = asked
        .decisions
        .iter()
        .any(|one| is(one, &[Outcome::Denied, Outcome::Failed]));
    if !failed {
        let endpoint = endpoint(&asked.decisions).unwrap_or(SocketAddr::new(address, port));
        let destination = endpoint.ip().to_string();
        let ends = api.proxies_at_ends((namespace, workload), &destination);
        let (all, unreachable) = ends.await;
        let mut of_source = all
            .iter()
            .filter(|it| it.namespace == namespace && it.workload == workload);
        let inbound = Explain {
            inbound: true,
            peer_identity: identity,
            peer_address: of_source
                .find(|it| it.inspectable)
                .map(|it| it.address.clone())
                .unwrap_or_default(),
            ..question(&request, host, endpoint.ip(), endpoint.port())
        };
        let from = (access, namespace);
        let to = (&all[..], endpoint, &unreachable[..]);
        ask_destination(api, to, from, inbound, &mut response).await;
        open_ports(declared, endpoint, &mut response);
    }
    conclude(&mut response, &request);
    Ok(response)
}

/// A service's address has no other ports than the service lists: known without a proxy.
fn no_such_port(
    declared: &dyn Declared,
    request: &ExplainRequest,
    at: SocketAddr,
) -> Option<ExplainResponse> {
    let known = declared.ports_at(at.ip())?;
    if known.others || known.ports.contains(&at.port()) {
        return None;
    }
    let listed: Vec<String> = known.ports.iter().map(u16::to_string).collect();
    let reason = match listed.len() {
        0 => format!("{} has no ports", known.name),
        _ => format!("{} has ports {}", known.name, listed.join(", ")),
    };
    Some(ExplainResponse {
        verdict: "failed".to_owned(),
        summary: format!("{reason}, and not {}", at.port()),
        steps: vec![ExplainStep {
            proxy: request.source.clone(),
            direction: "outbound".to_owned(),
            stage: "listener".to_owned(),
            outcome: "failed".to_owned(),
            subject: at.to_string(),
            reason,
        }],
        gaps: Vec::new(),
    })
}

/// Names the policies that apply to the destination and not to this port.
fn open_ports(declared: &dyn Declared, endpoint: SocketAddr, response: &mut ExplainResponse) {
    let proxy = response
        .steps
        .iter()
        .rfind(|step| step.direction == "inbound");
    let Some(proxy) = proxy.map(|step| step.proxy.clone()) else {
        return;
    };
    let step = |reason: String| ExplainStep {
        proxy: proxy.clone(),
        direction: "inbound".to_owned(),
        stage: "policy".to_owned(),
        outcome: "info".to_owned(),
        subject: format!("port {}", endpoint.port()),
        reason,
    };
    response
        .steps
        .extend(declared.uncovered(endpoint).into_iter().map(step));
}

async fn ask_destination(
    api: &Api,
    (all, endpoint, unreachable): (&[Proxy], SocketAddr, &[String]),
    (access, from): (&ApiAccess, &str),
    inbound: Explain,
    response: &mut ExplainResponse,
) {
    let address = endpoint.ip().to_string();
    let at_address = |proxy: &&Proxy| proxy.inspectable && proxy.address == address;
    // Of several the one that connected last.
    let found = all
        .iter()
        .filter(at_address)
        .min_by_key(|proxy| proxy.connected_seconds);
    let Some(proxy) = found else {
        let mut gap =
            format!("no proxy at {address} is connected: what is decided there is not known");
        if !unreachable.is_empty() {
            let these = unreachable.join(", ");
            gap = format!("{gap} (replicas that did not answer: {these})");
        }
        response.gaps.push(gap);
        return;
    };
    let (namespace, workload) = (&proxy.namespace, &proxy.workload);
    let name = format!("{namespace}/{workload}");
    let seen = access.require_anywhere(MeshVerb::Explain, namespace, workload);
    if namespace != from && seen.await.is_err() {
        let gap = format!(
            "what the proxy of {name} decides is not shown: it takes the right to `explain` workloads.inspect.mesh.anyam.dev in namespace {namespace}"
        );
        response.gaps.push(gap);
        return;
    }
    match api.ask_to_explain((namespace, workload), inbound).await {
        Ok(explanation) => add(response, &name, "inbound", &explanation.decisions),
        Err(problem) => {
            let why = &problem.error().what;
            response.gaps.push(format!("{name}: {why}"));
        }
    }
}

fn question(request: &ExplainRequest, host: &str, address: IpAddr, port: u16) -> Explain {
    let http = !request.method.is_empty();
    let or = |given: &str, default: &str| match given {
        "" if http => default.to_owned(),
        given => given.to_owned(),
    };
    let bracketed = match host.parse() {
        Ok(IpAddr::V6(address)) => format!("[{address}]"),
        Ok(IpAddr::V4(_)) | Err(_) => host.to_owned(),
    };
    let header = |(name, value): &(String, String)| Header {
        name: name.clone(),
        value: value.clone(),
    };
    Explain {
        address: address.to_string(),
        port: port.into(),
        method: request.method.clone(),
        authority: or(&request.authority, &bracketed),
        path: or(&request.path, "/"),
        headers: request.headers.iter().map(header).collect(),
        ..Explain::default()
    }
}

fn host_and_port(destination: &str) -> Result<(&str, u16), Problem> {
    let bad = |what: &str| {
        Problem::bad(
            format!("`{destination}` {what}"),
            "destination",
            "give host, host:port, ip:port or [ipv6]:port",
        )
    };
    if let Some(rest) = destination.strip_prefix('[') {
        let (host, rest) = rest
            .split_once(']')
            .ok_or_else(|| bad("has no closing bracket"))?;
        let port = rest.strip_prefix(':').map_or(Ok(DEFAULT_PORT), str::parse);
        return Ok((host, port.map_err(|_| bad("has no valid port"))?));
    }
    match destination.rsplit_once(':') {
        Some((host, _)) if host.contains(':') => Ok((destination, DEFAULT_PORT)),
        Some((host, port)) if !host.is_empty() => {
            Ok((host, port.parse().map_err(|_| bad("has no valid port"))?))
        }
        None if !destination.is_empty() => Ok((destination, DEFAULT_PORT)),
        _ => Err(bad("names no host")),
    }
}

/// As the source's own resolver would: the name, then its search path.
fn resolve(
    view: &dyn View,
    scope: &Scope,
    (host, domain): (&str, &str),
) -> Result<IpAddr, Problem> {
    if let Ok(address) = host.parse() {
        return Ok(address);
    }
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let namespace = &scope.namespace;
    let tried = [
        host.clone(),
        format!("{host}.{namespace}.svc.{domain}"),
        format!("{host}.svc.{domain}"),
        format!("{host}.{domain}"),
    ];
    let found = tried.iter().find_map(|name| {
        let resource = view.get(NAME, name, scope)?;
        let name = Name::decode(resource.body).ok()?;
        name.addresses
            .iter()
            .find_map(|address| address.parse().ok())
    });
    found.ok_or_else(|| {
        Problem::new(
            StatusCode::NOT_FOUND,
            format!("the mesh knows no name `{host}`"),
            "destination",
            "give the name of a Service (name, name.namespace or in full), or an address",
        )
    })
}

fn is(decision: &Decision, outcomes: &[Outcome]) -> bool {
    outcomes.contains(&decision.outcome())
}

/// The endpoint that the source's proxy chose: its decision's subject begins with ip:port.
fn endpoint(decisions: &[Decision]) -> Option<SocketAddr> {
    let chosen = |one: &&Decision| one.stage == "endpoint" && is(one, &[Outcome::Chosen]);
    let subjects = decisions.iter().filter(chosen).map(|one| &one.subject);
    subjects
        .flat_map(|subject| subject.split([' ', ',']))
        .find_map(|word| word.parse().ok())
}

fn add(response: &mut ExplainResponse, proxy: &str, direction: &str, decisions: &[Decision]) {
    let step = |decision: &Decision| ExplainStep {
        proxy: proxy.to_owned(),
        direction: direction.to_owned(),
        stage: decision.stage.clone(),
        outcome: decision.outcome().as_str_name().to_ascii_lowercase(),
        subject: decision.subject.clone(),
        reason: decision.reason.clone(),
    };
    response.steps.extend(decisions.iter().map(step));
}

fn conclude(response: &mut ExplainResponse, request: &ExplainRequest) {
    let worst = |outcome: &str| response.steps.iter().rfind(|step| step.outcome == outcome);
    let ExplainRequest {
        source,
        destination,
        ..
    } = request;
    let (verdict, summary) = if let Some(step) = worst("denied") {
        let ExplainStep {
            proxy,
            subject,
            reason,
            ..
        } = step;
        (
            "denied",
            format!("{proxy} denies it by {subject}: {reason}"),
        )
    } else if let Some(step) = worst("failed") {
        let ExplainStep {
            proxy,
            stage,
            reason,
            ..
        } = step;
        ("failed", format!("it fails at {proxy} ({stage}): {reason}"))
    } else if !response.gaps.is_empty() {
        (
            "unknown",
            format!("{source} would send it, but {}", response.gaps.join("; ")),
        )
    } else {
        ("allowed", format!("{source} reaches {destination}"))
    };
    response.verdict = verdict.into();
    response.summary = summary;
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::super::declared::{DeclaredByTest, DeclaredPorts};
    use super::*;

    fn cart() -> DeclaredByTest {
        let ports = |others| DeclaredPorts {
            name: "cart.shop".to_owned(),
            ports: vec![8080, 8081],
            others,
        };
        let at = |ip: &str| ip.parse::<IpAddr>().unwrap();
        DeclaredByTest {
            ports: HashMap::from([
                (at("240.240.0.1"), ports(false)),
                (at("10.0.0.1"), ports(true)),
            ]),
            uncovered: vec!["open".to_owned()],
            ..DeclaredByTest::default()
        }
    }

    #[test]
    fn a_port_that_a_service_lacks_is_answered_with_those_it_has() {
        let request = ExplainRequest {
            source: "shop/web".to_owned(),
            ..ExplainRequest::default()
        };
        let asked = |at: &str| no_such_port(&cart(), &request, at.parse().unwrap());
        let refused = asked("240.240.0.1:80").unwrap();
        assert_eq!(refused.verdict, "failed");
        assert_eq!(
            refused.summary,
            "cart.shop has ports 8080, 8081, and not 80"
        );
        assert_eq!(refused.steps[0].reason, "cart.shop has ports 8080, 8081");
        // A listed port; a workload's port, which may be undeclared; an unknown address.
        for fine in ["240.240.0.1:8080", "10.0.0.1:80", "10.9.9.9:80"] {
            assert_eq!(asked(fine), None);
        }
    }

    #[test]
    fn what_policies_leave_open_is_a_step_of_the_destination_alone() {
        let at = "10.0.0.1:80".parse().unwrap();
        let mut response = ExplainResponse::default();
        open_ports(&cart(), at, &mut response);
        assert!(response.steps.is_empty());
        add(
            &mut response,
            "shop/cart",
            "inbound",
            &[Decision::default()],
        );
        open_ports(&cart(), at, &mut response);
        let last = response.steps.last().unwrap();
        let step = [
            &last.proxy,
            &last.stage,
            &last.outcome,
            &last.subject,
            &last.reason,
        ];
        assert_eq!(step, ["shop/cart", "policy", "info", "port 80", "open"]);
    }
}
