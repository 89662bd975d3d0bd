//! The control plane is killed: configured traffic continues, unknown destinations stay refused.
//! And how it is authenticated.

use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;

use anyam_cli::demo::capture::Capture;

use crate::harness::{CONTROL, Mesh, PROXY_UID};
use crate::manifests::{STRICT, service, workload};
use crate::traffic::{Load, get};

const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 77, 1, 2);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 2, 2);
const KNOWN: &str = "240.240.9.1:8080";
const NEW: &str = "240.240.9.2:8080";
/// Requests that show that traffic goes on.
const ENOUGH: u64 = 50;

#[test]
fn without_its_control_plane_a_mesh_continues_and_policies_hold() {
    let manifests = [
        STRICT,
        &service("cart", "cart", "240.240.9.1"),
        &service("other", "cart", "240.240.9.2"),
        &workload("client", "client", CLIENT),
        &workload("server", "cart", SERVER),
    ]
    .concat();
    let mut mesh = Mesh::start(&manifests);
    let client = mesh.host("client", CLIENT);
    let server = mesh.host("server", SERVER);
    let capture = Capture::start(mesh.network.bridge(), CONTROL).unwrap();
    let _sidecars = [
        mesh.sidecar("client", CLIENT, &client),
        mesh.sidecar("server", SERVER, &server),
    ];
    let _cart = mesh.cart("v1", SERVER, &server);
    let answers = |to: &str| get(&client, to, "/").is_ok_and(|answer| answer == (200, "v1".into()));
    mesh.wait("the first answer", || answers(KNOWN));

    let load = Load::start(&client, KNOWN);
    mesh.wait("load", || load.answered() >= ENOUGH);
    mesh.control.kill();
    let before = load.answered();
    mesh.wait("load without a control plane", || {
        load.answered() >= before + ENOUGH
    });

    let error = get(&client, NEW, "/").unwrap_err();
    let closed = [
        ErrorKind::ConnectionRefused,
        ErrorKind::ConnectionReset,
        ErrorKind::UnexpectedEof,
    ];
    assert!(closed.contains(&error.kind()), "{error:?}");

    mesh.restart_control();
    mesh.wait("the new destination", || answers(NEW));
    mesh.wait_synced("client");
    mesh.wait_synced("server");
    let before = load.answered();
    mesh.wait("load after the restart", || {
        load.answered() >= before + ENOUGH
    });
    assert_eq!(load.failures(), Vec::<String>::new(), "{}", mesh.logs());
    let seen = capture.seen();
    assert_eq!((seen.plain_connections, seen.readable_segments), (0, 0));
    assert!(seen.tls_connections > 0, "{seen:?}");
}

/// A token with a file of roots, as for a pod's service-account token: the control plane is
/// verified by the file, and the token is presented as it is.
#[test]
fn a_file_of_roots_authenticates_the_control_plane() {
    let manifests = [
        &workload("client", "client", CLIENT)[..],
        &workload("server", "cart", SERVER),
    ]
    .concat();
    let mut mesh = Mesh::start(&manifests);
    let client = mesh.host("client", CLIENT);
    let server = mesh.host("server", SERVER);
    let roots = mesh.folder.join("ca.crt");
    let shown = |path: &std::path::Path| path.display().to_string();
    std::fs::copy(mesh.folder.join("control/ca/root.crt"), &roots).unwrap();
    std::fs::set_permissions(&roots, PermissionsExt::from_mode(0o644)).unwrap();
    // Waits until the sidecar is in sync.
    let _joined = mesh.sidecar_with(
        "client",
        CLIENT.into(),
        &client,
        &["--ca-file", &shown(&roots)],
    );

    let other = rcgen::generate_simple_self_signed(["other".to_owned()]).unwrap();
    let others = mesh.folder.join("other.crt");
    std::fs::write(&others, other.cert.pem()).unwrap();
    let state = mesh.private("server");
    let token = mesh.folder.join("server.token");
    let minted = mesh.control_command(&["token", "--workload", "shop/server"]);
    std::fs::write(&token, minted).unwrap();
    let control = format!("{CONTROL}:15012");
    let address = SERVER.to_string();
    let (state, token, others) = (shown(&state), shown(&token), shown(&others));
    let arguments = [
        &["sidecar", "--workload", "server", "--namespace", "shop"][..],
        &["--service-account", "server", "--address", &address],
        &["--control-plane", &control, "--state-dir", &state],
        &["--token-file", &token, "--ca-file", &others],
    ]
    .concat();
    let program = mesh.folder.join("anyam-proxy");
    let _refusing = mesh.spawn("refusing", &server, &program, &arguments, PROXY_UID);
    mesh.wait("the control plane is not trusted", || {
        std::fs::read_to_string(mesh.folder.join("logs/refusing.err"))
            .is_ok_and(|log| log.contains("no new certificate") && log.contains("UnknownIssuer"))
    });
}
