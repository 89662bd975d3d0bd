//! The `Date` header, formatted once a second.

use std::cell::RefCell;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use httpdate::fmt_http_date;

/// The last second that was formatted, with its text.
#[derive(Default)]
pub struct DateCache(RefCell<(u64, String)>);

impl DateCache {
    /// Calls `with` the current time in the preferred form of RFC 9110 5.6.7.
    pub fn now<T>(&self, with: impl FnOnce(&[u8]) -> T) -> T {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let second = since.map_or(0, |since| since.as_secs());
        let mut cached = self.0.borrow_mut();
        if cached.0 != second || cached.1.is_empty() {
            let time = UNIX_EPOCH.checked_add(Duration::from_secs(second));
            *cached = (second, fmt_http_date(time.unwrap_or(UNIX_EPOCH)));
        }
        with(cached.1.as_bytes())
    }
}
