//! A pod's network namespace (the test process's own) and its node's, joined by two interfaces.
//!
//! Each listener answers a connection, or a datagram, with its name.

use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;
use std::time::Duration;

use rustix::thread::{
    Gid, LinkNameSpaceType, Uid, move_into_link_name_space, set_thread_gid, set_thread_groups,
    set_thread_uid,
};
use socket2::{Domain, Socket, Type};

/// The user ids of the app and of the proxy.
pub const APP: u32 = 1000;
pub const PROXY: u32 = 1337;
/// After this long there is no listener.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Addresses of the pod and of the node on `eth0`, where the node has two; then those on `net1`.
pub const POD: [&str; 2] = ["10.9.0.2", "fd09::2"];
pub const NODE: [&str; 2] = ["10.9.0.1", "fd09::1"];
pub const NODE_TOO: [&str; 2] = ["10.9.0.3", "fd09::3"];
pub const POD_NET1: [&str; 2] = ["10.10.0.2", "fd10::2"];
pub const NODE_NET1: [&str; 2] = ["10.10.0.1", "fd10::1"];
pub const LOOPBACK: [&str; 2] = ["127.0.0.1", "::1"];
/// The source address of the proxy's deliveries to the app.
pub const DELIVERY: [&str; 2] = ["127.0.0.6", "::6"];

/// Listeners of the pod by port and name.
const LISTENERS: [(u16, &str); 8] = [
    (15001, "outbound"),
    (15006, "inbound"),
    (15053, "dns"),
    (15021, "health"),
    (15090, "metrics"),
    (8080, "app"),
    (8081, "app"),
    (9000, "app"),
];
/// Ports of the node, TCP and UDP.
const NODE_PORTS: [u16; 6] = [53, 80, 443, 8000, 8001, 8002];

/// The source of a connection.
#[derive(Clone, Copy, Debug)]
pub enum Caller {
    Pod {
        uid: u32,
        gid: u32,
    },
    /// From the pod, with the source address of deliveries.
    Delivery {
        uid: u32,
    },
    /// From the node: as the kubelet, or a pod in the host's network.
    Node,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    Tcp,
    Udp,
}

/// The two namespaces; the node's exists as long as its process.
pub struct Pod {
    node: Child,
}

impl Pod {
    pub fn new() -> Self {
        ip("link set lo up");
        let node = Command::new("unshare")
            .args(["-n", "sleep", "infinity"])
            .spawn()
            .unwrap();
        let pod = Self { node };
        // The process has its namespace once it differs from this one.
        let own = std::fs::read_link("/proc/self/ns/net").unwrap();
        let path = pod.namespace();
        while std::fs::read_link(&path).is_ok_and(|theirs| theirs == own) {
            thread::yield_now();
        }
        let pid = pod.node.id();
        let interfaces = [("eth0", POD, NODE), ("net1", POD_NET1, NODE_NET1)];
        for (name, ours, theirs) in interfaces {
            ip(&format!(
                "link add {name} type veth peer name {name} netns {pid}"
            ));
            add_addresses(name, ours);
            pod.on_node(|| add_addresses(name, theirs));
        }
        pod.on_node(|| {
            ip("link set lo up");
            add_addresses("eth0", NODE_TOO);
            for port in NODE_PORTS {
                answer(port, "node");
                for address in [NODE, NODE_NET1].concat() {
                    answer_datagrams(address, port, "node");
                }
            }
        });
        for (port, name) in LISTENERS {
            answer(port, name);
        }
        for address in LOOPBACK {
            answer_datagrams(address, 15053, "dns");
        }
        pod
    }

    fn namespace(&self) -> String {
        format!("/proc/{}/ns/net", self.node.id())
    }

    /// Runs `work` on a thread in the node's namespace.
    fn on_node<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let namespace = File::open(self.namespace()).unwrap();
        on_a_thread(|| {
            enter(&namespace);
            work()
        })
    }

    /// Connects; returns the name of the listener that answered.
    pub fn ask(&self, from: Caller, transport: Transport, to: SocketAddr) -> String {
        let namespace = File::open(self.namespace()).unwrap();
        on_a_thread(|| {
            let mut source = None;
            match from {
                Caller::Node => enter(&namespace),
                Caller::Pod { uid, gid } => become_user(uid, gid),
                Caller::Delivery { uid } => {
                    become_user(uid, uid);
                    let [v4, v6] = DELIVERY;
                    source = Some(if to.is_ipv4() { v4 } else { v6 });
                }
            }
            ask(source.map(|source| source.parse().unwrap()), transport, to)
        })
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        let _ = self.node.kill();
        let _ = self.node.wait();
    }
}

fn on_a_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| scope.spawn(work).join().unwrap())
}

fn enter(namespace: &File) {
    use std::os::fd::AsFd;
    let kind = Some(LinkNameSpaceType::Network);
    move_into_link_name_space(namespace.as_fd(), kind).unwrap();
}

/// Only for this thread: the kernel has user ids per thread.
fn become_user(uid: u32, gid: u32) {
    set_thread_groups(&[]).unwrap();
    set_thread_gid(Gid::from_raw(gid)).unwrap();
    set_thread_uid(Uid::from_raw(uid)).unwrap();
}

fn ask(source: Option<IpAddr>, transport: Transport, to: SocketAddr) -> String {
    let socket_type = match transport {
        Transport::Tcp => Type::STREAM,
        Transport::Udp => Type::DGRAM,
    };
    let socket = Socket::new(Domain::for_address(to), socket_type, None).unwrap();
    socket.set_read_timeout(Some(TIMEOUT)).unwrap();
    let any = match to {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let port = match transport {
        Transport::Tcp => 0,
        Transport::Udp => unused_port(),
    };
    let source = SocketAddr::new(source.unwrap_or(any), port);
    socket.bind(&source.into()).unwrap();
    if let Err(error) = socket.connect_timeout(&to.into(), TIMEOUT) {
        return error.to_string();
    }
    socket.send(b"?").unwrap();
    let mut name = [0; 16];
    match (&socket).read(&mut name) {
        Ok(length) => String::from_utf8_lossy(&name[..length]).into_owned(),
        Err(error) => error.to_string(),
    }
}

/// A port that no datagram came from before: by its flow the kernel would still apply the rules that
/// were there at its first datagram. Below the ports that the kernel chooses from.
fn unused_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(20_000);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Answers each byte on connections to a port, of both families, with `name`.
fn answer(port: u16, name: &'static str) {
    let every = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    let tcp = TcpListener::bind(every).unwrap();
    thread::spawn(move || {
        for stream in tcp.incoming().flatten() {
            thread::spawn(move || answer_stream(stream, name));
        }
    });
}

/// Answers datagrams with `name`, from the address that they were sent to.
fn answer_datagrams(address: &str, port: u16, name: &'static str) {
    let address: IpAddr = address.parse().unwrap();
    let udp = UdpSocket::bind(SocketAddr::new(address, port)).unwrap();
    thread::spawn(move || {
        let mut byte = [0; 1];
        while let Ok((_, from)) = udp.recv_from(&mut byte) {
            let _ = udp.send_to(name.as_bytes(), from);
        }
    });
}

fn answer_stream(mut stream: TcpStream, name: &str) {
    let mut byte = [0; 1];
    while stream.read_exact(&mut byte).is_ok() {
        if stream.write_all(name.as_bytes()).is_err() {
            return;
        }
    }
}

/// Both families, without the wait for duplicates of IPv6 addresses.
fn add_addresses(interface: &str, [v4, v6]: [&str; 2]) {
    ip(&format!("address add {v4}/24 dev {interface}"));
    ip(&format!("address add {v6}/64 dev {interface} nodad"));
    ip(&format!("link set {interface} up"));
}

pub fn ip(line: &str) {
    let status = Command::new("ip").args(line.split(' ')).status().unwrap();
    assert!(status.success(), "ip {line}");
}

/// Runs `nft` with a program and returns what it prints.
pub fn nft(program: &str) -> String {
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(program.as_bytes()).unwrap();
    drop(input);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "nft: {program}");
    String::from_utf8(output.stdout).unwrap()
}

/// `anyam-proxy redirect` in the pod.
pub fn redirect(options: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_anyam-proxy"));
    command.arg("redirect").args(options.split_whitespace());
    // Without environment, so that only the options determine the rules.
    command.env_clear().output().unwrap()
}

pub fn succeeds(options: &str) -> String {
    let output = redirect(options);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "redirect {options}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

pub fn fails(options: &str) -> String {
    let output = redirect(options);
    assert!(!output.status.success(), "redirect {options}");
    String::from_utf8(output.stderr).unwrap()
}
