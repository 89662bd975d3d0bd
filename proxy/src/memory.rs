//! Returns memory of closed connections, and pages that only the start needed, to the system.
//!
//! The allocator purges only on allocation; after a burst of connections each worker calls it to
//! return free pages.
#![allow(unsafe_code)]

use std::io::{BufRead, BufReader};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Fewer connections than this leave too little memory behind.
const BURST: usize = 256;

/// Bytes of smaps that are read at a time: what the program's own mappings take.
const MAPS_READ: usize = 4096;

/// A worker's open connections.
#[derive(Clone, Default)]
pub struct ConnectionCount(Arc<AtomicUsize>);

/// One open connection; counted until it is dropped.
pub struct Counted(Arc<AtomicUsize>);

impl ConnectionCount {
    pub fn count_one(&self) -> Counted {
        self.0.fetch_add(1, Relaxed);
        Counted(self.0.clone())
    }

    pub fn open(&self) -> usize {
        self.0.load(Relaxed)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// A worker's state between two checks.
#[derive(Default)]
pub struct TrimPolicy {
    most: usize,
}

impl TrimPolicy {
    /// Whether most of the connections since the last burst are closed. Call about once a second.
    pub fn burst_is_over(&mut self, open: usize) -> bool {
        self.most = self.most.max(open);
        let over = self.most - open >= BURST.max(self.most / 2);
        if over {
            self.most = open;
        }
        over
    }
}

/// Gives the free memory of this thread, and of the C library that TLS's ciphers use, back to the
/// system.
pub fn trim() {
    // SAFETY: no precondition; it only touches what the allocator holds as free.
    unsafe { libmimalloc_sys::mi_collect(true) };
    #[cfg(target_env = "gnu")]
    // SAFETY: as above.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Drops pages of the program's code and constants: reading a configuration touches far more of
/// them than serving it. What is needed again comes from the page cache.
///
/// Only mappings without a single page of the process's own are dropped: relocations, a
/// debugger's breakpoints and uprobes live in such pages and would be lost.
pub fn drop_startup_pages() {
    let program = std::fs::read_link("/proc/self/exe");
    let maps = std::fs::File::open("/proc/self/smaps");
    // Without /proc, or without smaps in it, the pages stay: it costs memory, nothing else.
    let (Ok(program), Ok(maps)) = (program, maps) else {
        return;
    };
    let maps = BufReader::with_capacity(MAPS_READ, maps);
    for pages in unwritten(maps, &program.to_string_lossy()) {
        // SAFETY: whole pages of a read-only mapping of the running program's file, which is
        // never unmapped, and of which the process has no copies: they are read from it again.
        unsafe {
            libc::madvise(
                pages.start as *mut _,
                pages.end - pages.start,
                libc::MADV_DONTNEED,
            );
        }
    }
}

/// Of the mappings in `maps` (proc_pid_smaps(5)): those of `file` that cannot be written to, and of
/// whose pages the process has no copies, in memory or swapped out.
///
/// The segments of a file are mapped one after the other, so it reads no further than to their
/// end: the kernel walks all pages of a mapping to describe it.
fn unwritten(mut maps: impl BufRead, file: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let (mut candidate, mut anonymous) = (None, None);
    let (mut text, mut is_seen) = (String::new(), false);
    while matches!(maps.read_line(&mut text), Ok(1..)) {
        let line = text.trim_end();
        if let Some(mapping) = Mapping::parse(line) {
            let is_of_file = mapping.path == file;
            if is_seen && !is_of_file {
                break;
            }
            is_seen |= is_of_file;
            candidate = (is_of_file && mapping.is_read_only()).then_some(mapping.pages);
            anonymous = None;
        } else if let Some(kilobytes) = line.strip_prefix("Anonymous:") {
            anonymous = Some(kilobytes.trim() == "0 kB");
        } else if let Some(kilobytes) = line.strip_prefix("Swap:")
            && anonymous == Some(true)
            && kilobytes.trim() == "0 kB"
        {
            found.extend(candidate.take());
        }
        text.clear();
    }
    found
}

/// The first line of a mapping.
struct Mapping<'a> {
    pages: Range<usize>,
    access: &'a str,
    /// Of what is mapped; empty for anonymous memory.
    path: &'a str,
}

impl<'a> Mapping<'a> {
    /// `None`: a line that describes the mapping above it.
    fn parse(line: &'a str) -> Option<Self> {
        // Addresses, access, offset, device and inode stand before the path, which may have spaces.
        let mut words = line.splitn(6, ' ');
        let (from, to) = words.next()?.split_once('-')?;
        let address = |text| usize::from_str_radix(text, 16).ok();
        Some(Self {
            pages: address(from)?..address(to)?,
            access: words.next()?,
            path: words.nth(3).unwrap_or_default().trim_start(),
        })
    }

    fn is_read_only(&self) -> bool {
        matches!(self.access, "r--p" | "r-xp")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    const PAGES: usize = 2 * 4096;

    /// A private mapping of `file` that is read-only after `touch`.
    fn map(file: &std::fs::File, touch: impl FnOnce(*mut u8)) -> usize {
        // SAFETY: a new mapping at an address that the kernel chooses; it stays for good.
        unsafe {
            let access = libc::PROT_READ | libc::PROT_WRITE;
            let descriptor = file.as_raw_fd();
            let at = libc::mmap(
                std::ptr::null_mut(),
                PAGES,
                access,
                libc::MAP_PRIVATE,
                descriptor,
                0,
            );
            assert_ne!(at, libc::MAP_FAILED);
            touch(at.cast());
            assert_eq!(libc::mprotect(at, PAGES, libc::PROT_READ), 0);
            at as usize
        }
    }

    #[test]
    fn pages_that_were_patched_are_kept_and_those_of_the_file_alone_are_not() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), [7; PAGES]).unwrap();
        let clean = map(file.as_file(), |at| {
            // SAFETY: the first byte of the mapping.
            assert_eq!(unsafe { at.read_volatile() }, 7);
        });
        let other = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(other.path(), [7; PAGES]).unwrap();
        let patched = map(other.as_file(), |at| {
            // SAFETY: as above.
            unsafe { at.write_volatile(9) };
        });
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let name = |file: &tempfile::NamedTempFile| file.path().to_str().unwrap().to_owned();
        let only = clean..clean + PAGES;
        assert_eq!(unwritten(maps.as_bytes(), &name(&file)), [only]);
        assert!(unwritten(maps.as_bytes(), &name(&other)).is_empty());
        // SAFETY: the first byte of the mapping.
        assert_eq!(unsafe { (patched as *const u8).read_volatile() }, 9);
    }

    #[test]
    fn a_mapping_is_dropped_only_where_everything_about_it_is_known() {
        let maps = "\
            1000-3000 r-xp 00000000 08:01 42 /opt/my proxy\nRss: 8 kB\nAnonymous: 0 kB\nSwap: 0 kB\n\
            3000-4000 r--p 00000000 08:01 42 /opt/my proxy\nAnonymous: 4 kB\nSwap: 0 kB\n\
            4000-5000 r--p 00000000 08:01 42 /opt/my proxy\nAnonymous: 0 kB\nSwap: 4 kB\n\
            5000-6000 rw-p 00000000 08:01 42 /opt/my proxy\nAnonymous: 0 kB\nSwap: 0 kB\n\
            6000-7000 r-xp 00000000 08:01 43 /lib/libc.so\nAnonymous: 0 kB\nSwap: 0 kB\n\
            7000-8000 r--p 00000000 00:00 0 \nAnonymous: 0 kB\nSwap: 0 kB\n\
            8000-9000 r--p 00000000 08:01 42 /opt/my proxy\nRss: 8 kB\n";
        let first = 0x1000..0x3000;
        assert_eq!(unwritten(maps.as_bytes(), "/opt/my proxy"), [first]);
        assert!(unwritten(&b""[..], "/opt/my proxy").is_empty());
    }

    #[test]
    fn the_program_still_runs_after_its_start_was_forgotten() {
        drop_startup_pages();
        assert_eq!(format!("{:?}", [1, 2]), "[1, 2]");
    }

    #[test]
    fn a_burst_is_over_once_most_of_it_has_gone() {
        let (count, mut policy) = (ConnectionCount::default(), TrimPolicy::default());
        let burst: Vec<_> = (0..1000).map(|_| count.count_one()).collect();
        assert!(!policy.burst_is_over(count.open()));
        drop(burst);
        assert!(policy.burst_is_over(count.open()));
        assert!(!policy.burst_is_over(count.open()));
    }
}
