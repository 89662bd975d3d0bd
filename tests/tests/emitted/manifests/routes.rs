//! HTTPRoutes, GRPCRoutes and the grants they need.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Value, json};

use super::{
    Made, NAMESPACES, PORTS, flag, header_name, list, name, namespace, number, one_of, some, span,
    with,
};

fn value_match() -> BoxedStrategy<Value> {
    let kind = select(&[("Exact", "a b"), ("RegularExpression", "b.*|c")][..]);
    (header_name(), kind)
        .prop_map(|(name, (kind, value))| json!({"name": name, "type": kind, "value": value}))
        .boxed()
}

fn http_match(by_prefix: bool) -> BoxedStrategy<Value> {
    let kinds: &[(&str, &str)] = match by_prefix {
        true => &[
            ("PathPrefix", "/"),
            ("PathPrefix", "/shop/"),
            ("PathPrefix", "/a%20b"),
        ],
        false => &[
            ("PathPrefix", "/shop"),
            ("Exact", "/login"),
            ("RegularExpression", "/v[0-9]+/.*"),
        ],
    };
    let path = select(kinds).prop_map(|(kind, value)| json!({"type": kind, "value": value}));
    with(vec![
        ("path", path.boxed()),
        ("method", one_of(&["GET", "POST", "CONNECT"])),
        ("headers", list(value_match(), 2)),
        ("queryParams", list(value_match(), 2)),
    ])
}

fn grpc_match() -> BoxedStrategy<Value> {
    let method = prop_oneof![
        Just(json!({"service": "shop.Cart", "method": "Get"})),
        Just(json!({"service": "shop.Cart"})),
        Just(json!({"method": "Get"})),
        Just(json!({"type": "RegularExpression", "service": "shop[.].*", "method": "G.+"})),
    ];
    with(vec![
        ("method", method.boxed()),
        ("headers", list(value_match(), 2)),
    ])
}

fn header_edits() -> BoxedStrategy<Value> {
    let pair = || {
        (header_name(), one_of(&["100%", "", "a\tb"]))
            .prop_map(|(name, value)| json!({"name": name, "value": value}))
            .boxed()
    };
    with(vec![
        ("set", list(pair(), 2)),
        ("add", list(pair(), 2)),
        ("remove", list(header_name(), 2)),
    ])
}

fn backend_ref() -> BoxedStrategy<Value> {
    // No Service has port 81 or the name `missing`; a Bucket is no Service.
    let port = select(&[80, 9000, 5432, 81][..]);
    let name = select(&["front", "cart", "audit", "rpc", "missing"][..]);
    (
        name,
        option::of(namespace()),
        port,
        prop::bool::weighted(0.1),
    )
        .prop_map(|(name, namespace, port, odd)| {
            let mut backend = json!({"name": name, "port": port});
            if let Some(namespace) = namespace {
                backend["namespace"] = namespace.into();
            }
            if odd {
                backend["group"] = "example.dev".into();
                backend["kind"] = "Bucket".into();
            }
            backend
        })
        .boxed()
}

fn backend() -> BoxedStrategy<Value> {
    let modifiers = subsequence(&["Request", "Response"][..], 0..=2);
    (
        backend_ref(),
        option::of(0..100u32),
        modifiers,
        header_edits(),
    )
        .prop_map(|(mut backend, weight, modifiers, edits)| {
            if let Some(weight) = weight {
                backend["weight"] = weight.into();
            }
            let filters = modifiers.iter().map(|which| {
                let field = format!("{}HeaderModifier", which.to_lowercase());
                json!({"type": format!("{which}HeaderModifier"), field: edits.clone()})
            });
            backend["filters"] = filters.collect();
            backend
        })
        .boxed()
}

fn mirror() -> BoxedStrategy<Value> {
    let share = prop_oneof![
        Just(json!({})),
        Just(json!({"percent": 42})),
        Just(json!({"fraction": {"numerator": 1, "denominator": 3}})),
    ];
    (backend_ref(), share)
        .prop_map(|(backend, mut mirror)| {
            mirror["backendRef"] = backend;
            json!({"type": "RequestMirror", "requestMirror": mirror})
        })
        .boxed()
}

fn cors() -> BoxedStrategy<Value> {
    let origins = one_of(&[
        "*",
        "https://a.example",
        "https://*.a.example:8443",
        "http://*",
    ]);
    with(vec![
        ("allowOrigins", some(origins, 1)),
        ("allowMethods", list(one_of(&["GET", "PUT"]), 2)),
        ("allowHeaders", list(header_name(), 2)),
        ("exposeHeaders", list(header_name(), 2)),
        ("allowCredentials", flag()),
        ("maxAge", number(1..100)),
    ])
}

fn path_edit() -> BoxedStrategy<Value> {
    prop_oneof![
        Just(json!({"type": "ReplaceFullPath", "replaceFullPath": "/in"})),
        Just(json!({"type": "ReplacePrefixMatch", "replacePrefixMatch": "/"})),
        Just(json!({"type": "ReplacePrefixMatch", "replacePrefixMatch": "/new\\path/"})),
        Just(json!({"type": "ReplacePrefixMatch", "replacePrefixMatch": ""})),
    ]
    .boxed()
}

/// Edits of request and response headers, as filters.
fn modifiers() -> impl Strategy<Value = Vec<Value>> {
    vec(option::of(header_edits()), 2).prop_map(|edits| {
        let named = edits.into_iter().zip(["Request", "Response"]);
        let filters = named.filter_map(|(edits, which)| {
            let field = format!("{}HeaderModifier", which.to_lowercase());
            Some(json!({"type": format!("{which}HeaderModifier"), field: edits?}))
        });
        filters.collect::<Vec<_>>()
    })
}

fn redirect() -> BoxedStrategy<Value> {
    let redirect = with(vec![
        ("scheme", one_of(&["http", "https"])),
        ("hostname", one_of(&["login.example"])),
        ("path", path_edit()),
        ("port", number(1..65_535)),
        (
            "statusCode",
            select(&[301, 302, 303, 307, 308][..])
                .prop_map(Value::from)
                .boxed(),
        ),
    ]);
    (list(http_match(true), 2), modifiers(), redirect)
        .prop_map(|(matches, mut filters, redirect)| {
            filters.push(json!({"type": "RequestRedirect", "requestRedirect": redirect}));
            json!({"matches": matches, "filters": filters})
        })
        .boxed()
}

/// A rule forwards, perhaps rewritten and mirrored, or redirects.
fn rule(grpc: bool) -> BoxedStrategy<Value> {
    let matches = match grpc {
        true => list(grpc_match(), 3),
        false => list(http_match(true), 3),
    };
    let rewrite = with(vec![
        ("hostname", one_of(&["new.example"])),
        ("path", path_edit()),
    ]);
    let retry = with(vec![
        ("codes", list(number(400..600), 3)),
        ("attempts", number(0..11)),
        ("backoff", span()),
    ]);
    let timeouts = Just(json!({"request": "10s", "backendRequest": "2s"})).boxed();
    let more = match grpc {
        true => Just(json!({})).boxed(),
        false => with(vec![
            ("retry", retry),
            ("timeouts", timeouts),
            ("name", one_of(&["n"])),
        ]),
    };
    let session = select(vec![
        json!(null),
        json!({}),
        json!({"type": "Header", "sessionName": "X-Session"}),
        json!({
            "sessionName": "s",
            "absoluteTimeout": "1h",
            "cookieConfig": {"lifetimeType": "Permanent"},
        }),
    ]);
    let forward = (
        matches,
        modifiers(),
        option::of(rewrite),
        vec(mirror(), 0..3),
        vec(backend(), 1..4),
        (option::of(cors()), session),
        more,
    )
        .prop_map(
            move |(matches, mut filters, rewrite, mirrors, backends, (cors, session), mut rule)| {
                if let Some(rewrite) = rewrite.filter(|_| !grpc) {
                    filters.push(json!({"type": "URLRewrite", "urlRewrite": rewrite}));
                }
                if let Some(cors) = cors.filter(|_| !grpc) {
                    filters.push(json!({"type": "CORS", "cors": cors}));
                }
                filters.extend(mirrors);
                rule["matches"] = matches;
                rule["filters"] = filters.into();
                // Not beside shares: each request is assigned anew.
                if backends.len() == 1 && session != json!(null) {
                    rule["sessionPersistence"] = session;
                }
                rule["backendRefs"] = backends.into();
                rule
            },
        )
        .boxed();
    if grpc {
        return forward;
    }
    let other = (some(http_match(false), 3), vec(backend(), 0..3))
        .prop_map(|(matches, backends)| json!({"matches": matches, "backendRefs": backends}));
    prop_oneof![3 => forward, 1 => redirect(), 1 => other].boxed()
}

pub fn route(grpc: bool) -> BoxedStrategy<Made> {
    let parent = (name(), namespace(), option::of(select(&PORTS[..]))).prop_map(
        |(name, namespace, port)| {
            let mut parent =
                json!({"group": "", "kind": "Service", "name": name, "namespace": namespace});
            if let Some(port) = port {
                parent["port"] = port.into();
            }
            parent
        },
    );
    let kind = if grpc { "GRPCRoute" } else { "HTTPRoute" };
    (namespace(), some(parent.boxed(), 2), some(rule(grpc), 3))
        .prop_map(move |(namespace, parents, rules)| {
            let mut spec = json!({"parentRefs": parents, "rules": rules});
            for (index, rule) in spec["rules"]
                .as_array_mut()
                .into_iter()
                .flatten()
                .enumerate()
            {
                if rule.get("name").is_some() {
                    rule["name"] = format!("n{index}").into();
                }
            }
            ("gateway.networking.k8s.io/v1", kind, namespace, spec)
        })
        .boxed()
}

/// A TCPRoute, or a TLSRoute.
pub fn connection_route(tls: bool) -> BoxedStrategy<Made> {
    let backend = (backend_ref(), option::of(0..100u32)).prop_map(|(mut backend, weight)| {
        if let Some(weight) = weight {
            backend["weight"] = weight.into();
        }
        backend
    });
    let parent = (name(), namespace(), select(&PORTS[..])).prop_map(|(name, namespace, port)| {
        json!({"group": "", "kind": "Service", "name": name, "namespace": namespace, "port": port})
    });
    let hostnames = list(one_of(&["a.example", "*.a.example", "b.example"]), 3);
    let kind = if tls { "TLSRoute" } else { "TCPRoute" };
    (
        namespace(),
        some(parent.boxed(), 2),
        list(backend.boxed(), 3),
        hostnames,
    )
        .prop_map(move |(namespace, parents, backends, hostnames)| {
            let mut spec = json!({"parentRefs": parents, "rules": [{"backendRefs": backends}]});
            if tls {
                spec["hostnames"] = hostnames;
            }
            ("gateway.networking.k8s.io/v1", kind, namespace, spec)
        })
        .boxed()
}

pub fn grant() -> impl Strategy<Value = Made> {
    let kinds = ["HTTPRoute", "GRPCRoute", "TCPRoute", "TLSRoute"];
    (namespace(), select(kinds.to_vec())).prop_map(|(to, kind)| {
        let from = NAMESPACES.map(|namespace| {
            json!({"group": "gateway.networking.k8s.io", "kind": kind, "namespace": namespace})
        });
        let spec = json!({"from": from, "to": [{"group": "", "kind": "Service"}]});
        (
            "gateway.networking.k8s.io/v1beta1",
            "ReferenceGrant",
            to,
            spec,
        )
    })
}
