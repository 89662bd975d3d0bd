//! The answer to one request for 100 bytes over HTTP/1.1.

use std::io::{Error, Result};

use crate::app;

/// Whether `got` has all of it.
///
/// # Errors
/// When it is answered otherwise than by 200.
pub fn is_whole(got: &[u8]) -> Result<bool> {
    let Some(end) = got.windows(4).position(|bytes| bytes == b"\r\n\r\n") else {
        return Ok(false);
    };
    if !got.starts_with(b"HTTP/1.1 200") {
        let head = String::from_utf8_lossy(&got[..end]).into_owned();
        return Err(Error::other(format!("answered otherwise than 200: {head}")));
    }
    Ok(got.len() >= end + 4 + app::SMALL)
}
