//! Heap allocations: the proxies run inside this process, whose allocator counts. The client and
//! the test make none while it counts, and the app is another process.

use std::alloc::{GlobalAlloc, Layout, System};
use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyam_benches::bootstrap::bootstrap;
use anyam_benches::hop::{FRONT, MIDDLE};
use anyam_proxy::args::Args;
use anyam_proxy::{app, bootstrap as proxy};
use clap::Parser;

use crate::Sheet;
use crate::fixture::{Client, Fixture, Passage, paths};

const REQUESTS: u32 = 1000;
const CONNECTIONS: u32 = 200;

struct Counting;

static COUNT: AtomicU64 = AtomicU64::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: everything is passed to the system's allocator as it comes.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.fetch_add(1, Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        COUNT.fetch_add(1, Relaxed);
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[test]
fn a_request_and_a_connection_allocate_little() {
    let fixture = Fixture::take();
    let mut sheet = Sheet::of("allocations");
    let quiet = Args::parse_from(["anyam-proxy", "-l", "error"]).serve;
    let logs = app::init_logging(&quiet.process).unwrap();
    for (number, mut path) in (0u16..).zip(paths()) {
        let front = own_ports(&mut path, 2000 + 10 * number);
        for (admin, hop) in (front + 5..).zip(&path.hops) {
            let text = bootstrap(hop, fixture.folder(), admin);
            let args = ["anyam-proxy", "--concurrency", "1", "--config-yaml", &text];
            let serve = Args::parse_from(args).serve;
            let bootstrap = proxy::load(&serve).unwrap();
            let logs = logs.clone();
            // Runs until this process ends: it ends by signals only, and signals go to the process.
            std::thread::spawn(move || app::run(bootstrap, &serve.process, logs).unwrap());
            listening(hop.listen);
        }
        let mut client = Client::to(front, path.http);
        client.ask(200);
        let before = COUNT.load(Relaxed);
        client.ask(REQUESTS);
        let made = COUNT.load(Relaxed) - before;
        sheet.measured(path.name, made as f64 / f64::from(REQUESTS));

        let mut clients = Vec::with_capacity(CONNECTIONS as usize);
        let before = COUNT.load(Relaxed);
        for _ in 0..CONNECTIONS {
            let mut client = Client::to(front, path.http);
            client.ask(1);
            clients.push(client);
        }
        let made = COUNT.load(Relaxed) - before;
        let name = format!("{}/connection", path.name);
        sheet.measured(&name, made as f64 / f64::from(CONNECTIONS));
    }
    sheet.close();
}

/// Moves the hops away from the ports of the other tests; returns the front's.
fn own_ports(path: &mut Passage, by: u16) -> u16 {
    for hop in &mut path.hops {
        hop.listen += by;
        if hop.to == MIDDLE {
            hop.to += by;
        }
    }
    FRONT + by
}

fn listening(port: u16) {
    let began = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(
            began.elapsed() < Duration::from_secs(20),
            "no listener on {port}"
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}
