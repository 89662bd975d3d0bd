//! Installing twice, removing, comparing, conflicts, refusals.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use super::pod::{APP, Caller, NODE, Pod, Transport, fails, ip, nft, succeeds};

const OF_APP: Caller = Caller::Pod { uid: APP, gid: APP };

fn node(port: u16) -> SocketAddr {
    SocketAddr::new(NODE[0].parse().unwrap(), port)
}

fn loopback_addresses() -> String {
    let output = Command::new("ip")
        .args(["-6", "-o", "address", "show", "dev", "lo"])
        .output();
    String::from_utf8(output.unwrap().stdout).unwrap()
}

fn tables() -> String {
    nft("list tables")
}

/// `--check` with these options reports a difference.
fn difference(options: &str, what: &str) {
    let said = fails(&format!("{options} --check"));
    assert!(said.contains(what), "{said}");
}

fn changed_by_others() {
    nft("insert rule inet anyam output ip daddr 10.9.0.1 accept");
    difference(
        "--exclude-outbound-ports 443",
        "chain output: rule 1 is not",
    );
    succeeds("--exclude-outbound-ports 443");
    nft("add rule inet anyam output accept");
    difference(
        "--exclude-outbound-ports 443",
        "chain output has more rules than 11",
    );
    succeeds("--exclude-outbound-ports 443");
    nft("add chain inet anyam more");
    difference(
        "--exclude-outbound-ports 443",
        "chain more does not belong there",
    );
    succeeds("--exclude-outbound-ports 443");
    nft("add element inet anyam exclude_outbound_ports { 80 }");
    difference("--exclude-outbound-ports 443", "other elements");
    succeeds("--exclude-outbound-ports 443");
    ip("-6 address delete ::6/128 dev lo");
    difference("--exclude-outbound-ports 443", "no address ::6");
}

#[test]
#[ignore = "run by rules_are_replaced_compared_and_removed"]
fn replaced_compared_removed() {
    let pod = Pod::new();
    assert!(fails("--check").contains("there is no table inet anyam"));
    // Removing without rules is no error, and leaves no empty table.
    succeeds("--remove");
    assert_eq!(tables(), "");

    succeeds("--exclude-outbound-ports 443");
    assert!(loopback_addresses().contains("inet6 ::6/128"));
    let first = nft("list table inet anyam");
    let mut open = TcpStream::connect(node(80)).unwrap();
    let mut asked = || {
        let mut name = [0; 8];
        open.write_all(b"?").unwrap();
        open.read_exact(&mut name).unwrap();
        assert_eq!(&name, b"outbound");
    };
    asked();

    // Installed again: the rules are the same, none occurs twice, and open connections stay open.
    succeeds("--exclude-outbound-ports 443");
    assert_eq!(nft("list table inet anyam"), first);
    asked();
    succeeds("--exclude-outbound-ports 443 --check");

    // Compared with other options, each difference is reported.
    difference("", "set exclude_outbound_ports does not belong there");
    difference(
        "--exclude-outbound-ports 444",
        "exclude_outbound_ports has other elements",
    );
    let other = "--exclude-outbound-ports 443 --outbound-port 15002";
    difference(
        other,
        "rule 11 is not `meta l4proto tcp redirect to :15002`",
    );
    difference(
        "--exclude-outbound-cidrs fd00::/8",
        "exclude_outbound_ipv6 is missing",
    );

    changed_by_others();

    // Other options replace the rules: none of the earlier ones is left.
    succeeds("--exclude-outbound-ports 80");
    assert_eq!(pod.ask(OF_APP, Transport::Tcp, node(80)), "node");
    assert_eq!(pod.ask(OF_APP, Transport::Tcp, node(443)), "outbound");
    asked();

    succeeds("--remove");
    succeeds("--remove");
    assert_eq!(tables(), "");
    assert!(!loopback_addresses().contains("::6"));
    assert_eq!(pod.ask(OF_APP, Transport::Tcp, node(443)), "node");
    assert_eq!(pod.ask(OF_APP, Transport::Udp, node(53)), "node");

    // When IPv6 is not redirected, or disabled, the address is not needed.
    succeeds("--ipv6 false");
    assert!(!loopback_addresses().contains("::6"));
    std::fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1").unwrap();
    succeeds("");
    succeeds("--check");
    assert_eq!(pod.ask(OF_APP, Transport::Tcp, node(80)), "outbound");
    succeeds("--remove");
}

#[test]
#[ignore = "run by other_tables_stay_as_they_are"]
fn beside_other_tables() {
    let pod = Pod::new();
    // One translates the same connections at the usual priority; one has our name in another
    // family.
    nft("table ip other {
           chain out {
             type nat hook output priority -100
             tcp dport { 80, 8000 } redirect to :9000
           }
         }
         table ip anyam {
           chain mine { }
         }
");
    let theirs = || nft("list table ip other") + &nft("list table ip anyam");
    let before = theirs();
    assert_eq!(pod.ask(OF_APP, Transport::Tcp, node(80)), "app");

    succeeds("--exclude-outbound-ports 8000");
    assert_eq!(pod.ask(OF_APP, Transport::Tcp, node(80)), "outbound");
    // Connections that our rules exclude are still translated by theirs.
    assert_eq!(pod.ask(OF_APP, Transport::Tcp, node(8000)), "app");
    assert_eq!(theirs(), before);
    succeeds("--exclude-outbound-ports 8000 --check");

    succeeds("--remove");
    assert_eq!(theirs(), before);
    assert_eq!(pod.ask(OF_APP, Transport::Tcp, node(80)), "app");
}

#[test]
#[ignore = "run by a_refused_installation_changes_nothing"]
fn refused() {
    let pod = Pod::new();

    // Without NET_ADMIN.
    let output = Command::new(env!("CARGO_BIN_EXE_anyam-proxy"))
        .arg("redirect")
        .uid(APP)
        .gid(APP)
        .output()
        .unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success());
    assert!(
        said.contains("capability NET_ADMIN") && said.contains("runAsUser: 0"),
        "{said}"
    );
    assert_eq!(tables(), "");

    // Values that contradict each other or are impossible are reported with the flag's name.
    let said = fails("--inbound-port 15001");
    assert!(
        said.contains("--outbound-port and --inbound-port are both 15001"),
        "{said}"
    );
    let said = fails("--exclude-outbound-ports 70000");
    assert!(
        said.contains("--exclude-outbound-ports") && said.contains("70000"),
        "{said}"
    );
    assert!(fails("--check --remove").contains("cannot be used with"));
    assert_eq!(tables(), "");

    // A table of our name that another process owns: it stays, and nothing else changes.
    let mut holder = Command::new("nft")
        .arg("-i")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = holder.stdin.take().unwrap();
    writeln!(
        input,
        "add table inet anyam {{ flags owner; }}\nlist tables"
    )
    .unwrap();
    let mut lines = BufReader::new(holder.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("anyam")));
    let held = nft("list ruleset");
    for options in ["", "--remove"] {
        let said = fails(options);
        assert!(said.contains("belongs to another process"), "{said}");
    }
    assert_eq!(nft("list ruleset"), held);
    assert!(!loopback_addresses().contains("::6"), "half installed");
    assert_eq!(pod.ask(OF_APP, Transport::Tcp, node(80)), "node");
    drop(input);
    holder.wait().unwrap();
    succeeds("");
    assert_eq!(pod.ask(OF_APP, Transport::Tcp, node(80)), "outbound");
}
