use std::io::Write;

use clap::Parser;

use super::*;
use crate::args::{Args, Command};

fn serve(arguments: &[&str]) -> Serve {
    let line = ["anyam-proxy"].iter().chain(arguments);
    Args::try_parse_from(line).unwrap().serve
}

fn yaml(yaml: &str) -> Result<Bootstrap, BootstrapError> {
    load(&serve(&["--config-yaml", yaml]))
}

/// The text of the error that `text` is refused with.
fn refused(text: &str) -> String {
    match yaml(text) {
        Ok(_) => panic!("taken: {text}"),
        Err(error) => error.to_string(),
    }
}

fn sidecar(more: &[&str]) -> Sidecar {
    let line = "anyam-proxy sidecar --workload web-1 --namespace shop --service-account web \
                --trust-domain mesh.local --address 10.0.0.1 --address fd00::1 --label app=web \
                --control-plane control.mesh:15012 --token-file /run/token --state-dir /run/state \
                --dns-upstream 10.0.0.53";
    let line = line.split_whitespace().chain(more.iter().copied());
    match Args::try_parse_from(line).unwrap().command {
        Some(Command::Sidecar(sidecar)) => *sidecar,
        other => panic!("{other:?}"),
    }
}

const ADS: &str = "
node: {id: a, cluster: b}
static_resources:
  clusters: [{name: xds, type: STATIC}]
dynamic_resources:
  ads_config:
    api_type: GRPC
    transport_api_version: V3
    grpc_services: [{envoy_grpc: {cluster_name: xds}}]
  cds_config: {resource_api_version: V3, ads: {}}
  lds_config: {resource_api_version: V3, ads: {}, initial_fetch_timeout: 3s}
";

#[test]
fn a_file_is_merged_with_the_flag_as_envoy_does() {
    let mut file = tempfile::Builder::new().suffix(".yaml").tempfile().unwrap();
    file.write_all(b"node: {id: a, cluster: b}\nstatic_resources: {clusters: [{name: x}]}")
        .unwrap();
    let path = file.path().to_str().unwrap();
    let more = "{node: {id: c}, static_resources: {clusters: [{name: y}]}}";
    let flags = [
        "-c",
        path,
        "--config-yaml",
        more,
        "--service-cluster",
        "d",
        "--service-zone",
        "z",
    ];
    let bootstrap = load(&serve(&flags)).unwrap();
    assert_eq!(bootstrap.node.id, "c");
    assert_eq!(bootstrap.node.cluster, "d");
    assert_eq!(bootstrap.node.locality.unwrap().zone, "z");
    let names: Vec<_> = bootstrap
        .clusters
        .iter()
        .map(|cluster| cluster.name.as_str())
        .collect();
    assert_eq!(names, ["x", "y"]);
    assert!(bootstrap.ads.is_none());
}

#[test]
fn every_format_is_read() {
    for (suffix, content) in [
        (".json", b"{\"node\": {\"id\": \"a\"}}".to_vec()),
        (".yaml", b"node: &n\n  id: a\n".to_vec()),
        (".pb", vec![0x0a, 3, 0x0a, 1, b'a']),
    ] {
        let mut file = tempfile::Builder::new().suffix(suffix).tempfile().unwrap();
        file.write_all(&content).unwrap();
        let bootstrap = load(&serve(&["-c", file.path().to_str().unwrap()])).unwrap();
        assert_eq!(bootstrap.node.id, "a", "{suffix}");
        assert_eq!(bootstrap.node.user_agent_name, "anyam-proxy");
    }
    assert!(yaml("").is_ok(), "an empty file is an empty message");
}

#[test]
fn errors_name_file_and_field() {
    let error = load(&serve(&[])).err().unwrap().to_string();
    assert!(error.contains("-c <file>"), "{error}");
    let error = load(&serve(&["-c", "/no/such/file.yaml"]))
        .err()
        .unwrap()
        .to_string();
    assert!(error.contains("cannot read /no/such/file.yaml"), "{error}");
    assert!(refused("a: [").starts_with("--config-yaml is not valid YAML:"));
    assert!(refused("node: !x {}").contains("tag"));
    assert_eq!(
        refused("static_resources: {listenerz: []}"),
        "--config-yaml: static_resources.listenerz: \
         envoy.config.bootstrap.v3.Bootstrap.StaticResources has no such field; did you mean `listeners`?"
    );
    let mut file = tempfile::Builder::new().suffix(".pb").tempfile().unwrap();
    file.write_all(&[0xc0, 0x3e, 1]).unwrap();
    let error = load(&serve(&["-c", file.path().to_str().unwrap()]))
        .err()
        .unwrap();
    assert!(
        error.to_string().ends_with("1000: unknown field"),
        "{error}"
    );
    // Ten times ten times ten…
    let bomb = "a: &a [x,x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: &f [*e,*e,*e,*e,*e,*e,*e,*e,*e,*e]\ng: [*f,*f,*f,*f,*f,*f,*f,*f,*f,*f]";
    assert!(refused(bomb).contains("anchors and aliases repeat"));
}

#[test]
fn the_aggregated_stream_is_read() {
    let bootstrap = yaml(ADS).unwrap();
    let ads = Ads {
        cluster: "xds".to_owned(),
        protocol: ProtocolVariant::Sotw,
        listeners: true,
        clusters: true,
        init_timeout: Some(Duration::from_secs(15)),
    };
    assert_eq!(bootstrap.ads, Some(ads));
    let delta = yaml(&ADS.replace("GRPC", "DELTA_GRPC")).unwrap();
    assert_eq!(delta.ads.unwrap().protocol, ProtocolVariant::Delta);
}

#[test]
fn what_cannot_be_done_is_refused_with_its_path() {
    let cases = [
        (ADS.replace("cluster_name: xds", "cluster_name: no"), "dynamic_resources.ads_config: no cluster \"no\""),
        (ADS.replace("id: a, ", ""), "node.id: is required"),
        (ADS.replace("GRPC", "REST"), "dynamic_resources.ads_config.api_type: REST"),
        (ADS.replace("transport_api_version: V3", ""), "dynamic_resources.ads_config.transport_api_version: has to be V3"),
        (ADS.replace("ads: {}}", "path: /x}"), "dynamic_resources.cds_config.path: is not supported"),
        ("stats_sinks: [{name: x}]".to_owned(), "stats_sinks: is not supported"),
        ("admin: {address: {pipe: {path: /x}}}".to_owned(), "admin.address.pipe: is not supported"),
        ("admin: {address: {socket_address: {address: here, port_value: 1}}}".to_owned(), "admin.address.socket_address.address: \"here\" is not an IP address"),
        ("layered_runtime: {layers: [{name: a, static_layer: {upstream: {x: 1}}}]}".to_owned(), "layered_runtime.layers[0].static_layer.upstream.x: runtime keys"),
        ("layered_runtime: {layers: [{name: a, rtds_layer: {name: x}}]}".to_owned(), "layered_runtime.layers[0].rtds_layer: is not supported"),
        ("overload_manager: {resource_monitors: [{name: x, typed_config: {\"@type\": type.googleapis.com/envoy.extensions.resource_monitors.fixed_heap.v3.FixedHeapConfig}}]}".to_owned(), "overload_manager.resource_monitors[0].typed_config: extension envoy.extensions.resource_monitors.fixed_heap"),
        ("bootstrap_extensions: [{name: x, typed_config: {\"@type\": type.googleapis.com/google.protobuf.Struct, value: {}}}]".to_owned(), "bootstrap_extensions[0].typed_config: the bootstrap extension google.protobuf.Struct"),
        ("cluster_manager: {local_cluster_name: x}".to_owned(), "cluster_manager.local_cluster_name: no cluster \"x\""),
    ];
    for (text, start) in cases {
        let error = refused(&text);
        let error = error.strip_prefix("bootstrap: ").unwrap_or(&error);
        assert!(error.starts_with(start), "{error}");
    }
}

#[test]
fn what_has_no_effect_here_is_taken() {
    let bootstrap = yaml(
        "
admin:
  profile_path: /tmp/x
  address: {socket_address: {address: 127.0.0.1, port_value: 9901}}
stats_config: {use_all_default_tags: false}
layered_runtime:
  layers:
    - name: static
      static_layer:
        envoy.reloadable_features.x: true
        re2: {max_program_size: {error_level: 32768}}
    - {name: admin, admin_layer: {}}
default_regex_engine:
  name: envoy.regex_engines.google_re2
  typed_config: {\"@type\": type.googleapis.com/envoy.extensions.regex_engines.v3.GoogleRE2}
",
    )
    .unwrap();
    assert_eq!(bootstrap.admin, Some("127.0.0.1:9901".parse().unwrap()));
}

#[test]
fn a_sidecar_is_nothing_but_a_bootstrap() {
    let sidecar = sidecar(&[]);
    let bootstrap = of_sidecar(&sidecar).unwrap();
    assert_eq!(bootstrap.node.id, "sidecar~10.0.0.1~web-1.shop~mesh.local");
    assert_eq!(bootstrap.node.cluster, "web.shop");
    assert!(bootstrap.listeners.is_empty());
    let ads = bootstrap.ads.as_ref().unwrap();
    assert_eq!(ads.protocol, ProtocolVariant::Delta);
    let Extensions {
        identity,
        dns,
        inspect,
        on_demand,
        probes,
        connections,
        status,
    } = &bootstrap.extensions;
    // Injection configures the status port, not the sidecar's own arguments.
    assert!(status.is_none());
    let connections = connections.as_ref().unwrap();
    assert_eq!(
        (&*connections.listener, connections.most),
        ("inbound", None)
    );
    let identity = identity.as_ref().unwrap();
    assert_eq!(
        identity.settings.spiffe_id.to_string(),
        "spiffe://mesh.local/ns/shop/sa/web"
    );
    assert_eq!(identity.settings.token_file, Some("/run/token".into()));
    assert_eq!(identity.settings.ttl, None);
    assert_eq!(
        dns.as_ref().unwrap().upstream,
        ["10.0.0.53:53".parse().unwrap()]
    );
    assert_eq!(inspect.as_ref().unwrap().cluster, "anyam-control");
    let on_demand = on_demand.as_ref().unwrap();
    assert_eq!(on_demand.wait, Duration::from_secs(5));
    assert!(on_demand.mesh[0].contains("240.240.3.4".parse().unwrap()));
    assert!(!on_demand.mesh[0].contains("240.241.3.4".parse().unwrap()));
    assert_eq!(probes.unwrap().health, Some("[::]:15021".parse().unwrap()));

    // What is printed is the same bootstrap again.
    let printed = sidecar::print(&sidecar).unwrap();
    let again = yaml(&printed).unwrap();
    assert_eq!(again.message, bootstrap.message);
    assert_eq!(
        validate::mistakes(&bootstrap).unwrap(),
        Vec::<String>::new()
    );
}

#[test]
fn ports_that_are_zero_are_left_out() {
    let off = [
        "--admin-port=0",
        "--dns-port=0",
        "--metrics-port=0",
        "--health-port=0",
    ];
    let bootstrap = of_sidecar(&sidecar(&off)).unwrap();
    assert_eq!(bootstrap.admin, None);
    assert!(bootstrap.extensions.dns.is_none());
    assert!(bootstrap.extensions.probes.is_none());
    let bad = of_sidecar(&sidecar(&["--mesh-cidr", "10.0.0.0"]))
        .err()
        .unwrap()
        .to_string();
    assert!(
        bad.contains("mesh_cidrs[0]: \"10.0.0.0\" is no address range"),
        "{bad}"
    );
}

#[test]
fn validation_finds_every_mistake() {
    let bootstrap = yaml(
        "
static_resources:
  listeners:
    - name: a
      address: {socket_address: {address: 127.0.0.1, port_value: 1}}
      filter_chains: [{filters: [{name: x, typed_config: {\"@type\": type.googleapis.com/google.protobuf.Empty}}]}]
  clusters:
    - {name: b, type: STATIC, lb_policy: CLUSTER_PROVIDED}
    - {name: c, type: STATIC}
    - {name: c, type: STATIC}
",
    )
    .unwrap();
    let mistakes = validate::mistakes(&bootstrap).unwrap();
    let begin = |start: &str| mistakes.iter().any(|mistake| mistake.starts_with(start));
    assert!(
        begin("static_resources.listeners[0].filter_chains[0].filters[0]"),
        "{mistakes:?}"
    );
    assert!(
        begin("static_resources.clusters[2].name: \"c\" is given twice"),
        "{mistakes:?}"
    );
}

#[test]
fn bounds_on_connections_come_from_runtime_keys_and_the_overload_manager() {
    let monitor = |most: i64| {
        format!(
            "overload_manager: {{resource_monitors: [{{name: x, typed_config: {{'@type': \
             type.googleapis.com/envoy.extensions.resource_monitors.downstream_connections.v3\
             .DownstreamConnectionsConfig, max_active_downstream_connections: {most}}}}}]}}"
        )
    };
    let keys = "layered_runtime: {layers: [{name: a, static_layer: {\
                overload.global_downstream_max_connections: 500, envoy: {resource_limits: \
                {listener: {web: {connection_limit: 7}}}}}}]}";
    let limits = |text: &str| yaml(text).unwrap().limits;
    assert_eq!(limits("node: {id: a}"), ConnectionLimits::default());
    assert_eq!(limits(&monitor(20)).global, Some(20));
    let of_keys = limits(keys);
    assert_eq!(of_keys.global, Some(500));
    assert_eq!(of_keys.listeners["web"], 7);
    assert_eq!(limits(&format!("{keys}\n{}", monitor(20))).global, Some(20));
    assert!(refused(&monitor(0)).contains("max_active_downstream_connections"));
    let text = "layered_runtime: {layers: [{name: a, static_layer: \
                {overload.global_downstream_max_connections: many}}]}";
    assert!(refused(text).contains("is not a number of connections"));
    let heap = "overload_manager: {resource_monitors: [{name: x, typed_config: {'@type': \
                type.googleapis.com/envoy.extensions.resource_monitors.fixed_heap.v3\
                .FixedHeapConfig, max_heap_size_bytes: 5}}]}";
    assert!(refused(heap).contains("FixedHeapConfig"));
}

#[test]
fn what_comes_over_ads_needs_a_stream_to_come_by() {
    let cluster = "{name: up, type: EDS, eds_cluster_config: {eds_config: \
                   {resource_api_version: V3, ads: {}}}}";
    let alone = yaml(&format!("static_resources: {{clusters: [{cluster}]}}")).unwrap();
    let mistakes = validate::mistakes(&alone).unwrap();
    assert_eq!(mistakes.len(), 1);
    assert!(
        mistakes[0].starts_with("static_resources.clusters[0]"),
        "{mistakes:?}"
    );
    assert!(
        mistakes[0].contains("\"up\" comes over ads"),
        "{mistakes:?}"
    );
    let xds = "{name: xds, type: STATIC, load_assignment: {cluster_name: xds}}";
    let with = ADS.replace("{name: xds, type: STATIC}", &format!("{xds}, {cluster}"));
    assert_eq!(validate::mistakes(&yaml(&with).unwrap()).unwrap(), [""; 0]);
}
