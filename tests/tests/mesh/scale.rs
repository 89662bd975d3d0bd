//! Thousands of services, of which a sidecar uses two: it holds those, and recompiles no more than
//! what changes of them.

use std::net::Ipv4Addr;

use anyam_cli::demo::netns::Namespace;

use crate::harness::Mesh;
use crate::manifests::{STRICT, service, workload};
use crate::traffic::get;

const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 77, 1, 2);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 2, 2);
/// 240.240.16.0.
const FIRST_VIP: u32 = 0xf0f0_1000;
/// An address without a workload.
const SPARE: Ipv4Addr = Ipv4Addr::new(10, 77, 3, 2);
const SERVICES: u32 = 5_000;
const ADMIN: &str = "127.0.0.1:15000";
const KINDS: [&str; 4] = ["listeners", "routes", "clusters", "endpoints"];

/// The sidecar's count of compiled resources of each of [`KINDS`].
fn compiled(host: &Namespace) -> [u64; 4] {
    let (status, text) = get(host, ADMIN, "/stats/prometheus").unwrap();
    assert_eq!(status, 200, "{text}");
    KINDS.map(|kind| {
        let series = format!("anyam_config_compiled_total{{kind=\"{kind}\"}} ");
        let value = text.lines().find_map(|line| line.strip_prefix(&series));
        value
            .unwrap_or_else(|| panic!("no {series}in {text}"))
            .parse()
            .unwrap()
    })
}

/// The sidecar's configuration, as text.
fn config_dump(host: &Namespace) -> String {
    get(host, ADMIN, "/config_dump?include_eds").unwrap().1
}

#[test]
fn of_five_thousand_services_a_sidecar_holds_the_two_it_uses() {
    let mut manifests = STRICT.to_owned();
    manifests += &workload("client", "client", CLIENT);
    manifests += &workload("server", "app-7, role: second", SERVER);
    for number in 0..SERVICES {
        let (name, app) = (format!("svc-{number}"), format!("app-{number}"));
        let vip = Ipv4Addr::from(FIRST_VIP + number).to_string();
        // The other one that is used has an answer too, by another label.
        manifests += &service(&name, &app, &vip).replace("app: app-4242 ", "role: second ");
    }
    let vip = |number: u32| format!("{}:8080", Ipv4Addr::from(FIRST_VIP + number));
    let mut mesh = Mesh::start(&manifests);
    let client = mesh.host("client", CLIENT);
    let server = mesh.host("server", SERVER);
    let _sidecars = [
        mesh.sidecar("client", CLIENT, &client),
        mesh.sidecar("server", SERVER, &server),
    ];
    let _cart = mesh.cart("v1", SERVER, &server);
    for number in [7, 4_242] {
        mesh.wait("an answer", || {
            get(&client, &vip(number), "/").is_ok_and(|answer| answer == (200, "v1".into()))
        });
    }

    let [listeners, routes, clusters, endpoints] = compiled(&client);
    // Its own inbound and outbound ones, and two for each destination at most.
    assert!(
        listeners <= 8 && routes <= 4 && clusters <= 8 && endpoints <= 4,
        "listeners {listeners}, routes {routes}, clusters {clusters}, endpoints {endpoints}"
    );
    let dump = config_dump(&client);
    for number in [7, 4_242] {
        assert!(dump.contains(&format!("svc-{number}.shop")), "{dump}");
    }
    let others = (0..SERVICES).filter(|number| ![7, 4_242].contains(number));
    let held: Vec<_> = others
        .filter(|number| dump.contains(&format!("svc-{number}.shop")))
        .collect();
    assert_eq!(held, Vec::<u32>::new());

    // One more endpoint of one of the two: of that, one assignment, and nothing else.
    let spare = workload("spare", "app-7", SPARE);
    mesh.configure(
        "spare.yaml",
        &spare.replace("Account: spare", "Account: server"),
    );
    mesh.wait("the new endpoint", || {
        config_dump(&client).contains(&SPARE.to_string())
    });
    mesh.wait_synced("client");
    assert_eq!(
        compiled(&client),
        [listeners, routes, clusters, endpoints + 1]
    );
}
