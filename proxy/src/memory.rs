//! Memory that closed connections held goes back to the system.
//!
//! The allocator gives free pages back as it goes, but only while it is asked for memory: after a
//! crowd has left, nobody asks. So a worker looks now and then whether one has.
#![allow(unsafe_code)]

use std::rc::Rc;

/// Where segments are cut, on every platform that Anyam runs on: 64 KiB, the largest page of
/// theirs.
const PAGE: u64 = 64 * 1024;

/// Fewer connections than this leave nothing behind that is worth the trouble.
const CROWD: usize = 256;

/// Counts a worker's connections: each holds a clone.
#[derive(Clone, Default)]
pub struct Presence(Rc<()>);

impl Presence {
    fn count(&self) -> usize {
        Rc::strong_count(&self.0) - 1
    }
}

/// What a worker remembers from one look to the next.
#[derive(Default)]
pub struct Keeper {
    most: usize,
}

impl Keeper {
    /// Whether most of the connections since the last time have gone. To be asked about once a
    /// second.
    pub fn crowd_has_left(&mut self, present: &Presence) -> bool {
        let now = present.count();
        self.most = self.most.max(now);
        let left = self.most - now >= CROWD.max(self.most / 2);
        if left {
            self.most = now;
        }
        left
    }
}

/// Gives the free memory of this thread, and of the C library that TLS's ciphers use, back to the
/// system.
pub fn give_back() {
    // SAFETY: no precondition; it only touches what the allocator holds as free.
    unsafe { libmimalloc_sys::mi_collect(true) };
    #[cfg(target_env = "gnu")]
    // SAFETY: as above.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Lets go of the program's own pages that only its start has touched: reading a configuration
/// takes far more code than serving it. What is needed again comes back from the page cache.
pub fn forget_start() {
    // SAFETY: `forget` fits the signature, and is given no data.
    unsafe { libc::dl_iterate_phdr(Some(forget), std::ptr::null_mut()) };
}

/// Drops the pages of a loaded object's segments that nobody can have written to.
unsafe extern "C" fn forget(
    object: *mut libc::dl_phdr_info,
    _size: libc::size_t,
    _data: *mut libc::c_void,
) -> libc::c_int {
    // SAFETY: `dl_iterate_phdr` gives a valid object whose headers are `dlpi_phnum` in number.
    let (base, headers) = unsafe {
        let object = &*object;
        let count = usize::from(object.dlpi_phnum);
        let headers = std::slice::from_raw_parts(object.dlpi_phdr, count);
        (object.dlpi_addr, headers)
    };
    for header in headers {
        // What is relocated lies in a writable segment, even where it is read-only by now.
        if header.p_type != libc::PT_LOAD || header.p_flags & libc::PF_W != 0 {
            continue;
        }
        let from = (base + header.p_vaddr).next_multiple_of(PAGE);
        let to = (base + header.p_vaddr + header.p_memsz) & !(PAGE - 1);
        if from < to {
            // SAFETY: whole pages of a private file mapping that was never written to: they are
            // read again from the same file. A failure leaves them where they are.
            unsafe {
                libc::madvise(from as *mut _, (to - from) as usize, libc::MADV_DONTNEED);
            }
        }
    }
    0
}
