//! Whether other processes in the network namespace listen: in a pod, whether the app still runs.
//!
//! /proc/net/tcp and tcp6 list the namespace's sockets by inode, listening ones first; the inodes
//! of this process's own sockets are in /proc/self/fd.

use std::collections::HashSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader};

const TABLES: [&str; 2] = ["/proc/self/net/tcp", "/proc/self/net/tcp6"];
/// The state `LISTEN` in the tables.
const LISTEN: &str = "0A";

/// Whether another process has a listening TCP socket. False when that cannot be read, so that the
/// process is able to end.
pub fn others_listen() -> bool {
    let looked = own_sockets().and_then(|own| {
        for table in TABLES {
            // The kernel has no table for a family that it does not support.
            let Ok(table) = File::open(table) else {
                continue;
            };
            if others(BufReader::new(table), &own)? {
                return Ok(true);
            }
        }
        Ok(false)
    });
    looked.unwrap_or_else(|error| {
        tracing::warn!(%error, "cannot see whether the app listens");
        false
    })
}

/// Inodes of the sockets that this process has open.
fn own_sockets() -> io::Result<HashSet<u64>> {
    let mut own = HashSet::new();
    for descriptor in std::fs::read_dir("/proc/self/fd")? {
        // A descriptor that was closed meanwhile.
        let Ok(target) = std::fs::read_link(descriptor?.path()) else {
            continue;
        };
        let name = target
            .to_str()
            .and_then(|name| name.strip_prefix("socket:["));
        let inode = name.and_then(|name| name.strip_suffix(']'));
        own.extend(inode.and_then(|inode| inode.parse::<u64>().ok()));
    }
    Ok(own)
}

/// Reads the table up to its last listening socket, because there may be many connections after it.
fn others(table: impl BufRead, own: &HashSet<u64>) -> io::Result<bool> {
    for line in table.lines().skip(1) {
        let line = line?;
        let mut fields = line.split_whitespace();
        if fields.nth(3) != Some(LISTEN) {
            break;
        }
        let inode = fields.nth(5).and_then(|inode| inode.parse::<u64>().ok());
        if inode.is_some_and(|inode| !own.contains(&inode)) {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4711 1 0000000000000000 100 0 0 10 0
   1: 00000000:3A99 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1337        0 815 1 0000000000000000 100 0 0 10 0
   2: 0100007F:1F90 0100007F:D431 01 00000000:00000000 00:00000000 00000000  1000        0 999 1 0000000000000000 20 4 30 10 -1
";

    #[test]
    fn own_sockets_are_recognised_by_inode() {
        let others = |own: &[u64]| others(TABLE.as_bytes(), &own.iter().copied().collect());
        assert!(others(&[815]).unwrap());
        assert!(others(&[]).unwrap());
        // Sockets of connections do not count.
        assert!(!others(&[815, 4711]).unwrap());
    }

    #[test]
    fn a_listener_of_this_process_is_its_own() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = format!(":{:04X} ", listener.local_addr().unwrap().port());
        let table = std::fs::read_to_string(TABLES[0]).unwrap();
        let lines = table.lines().enumerate();
        let lines = lines.filter(|(number, line)| *number == 0 || line.contains(&port));
        let of_ours: Vec<_> = lines.map(|(_, line)| line).collect();
        assert_eq!(of_ours.len(), 2, "{table}");
        let table = of_ours.join("\n");
        assert!(!others(table.as_bytes(), &own_sockets().unwrap()).unwrap());
        assert!(others(table.as_bytes(), &HashSet::new()).unwrap());
    }
}
