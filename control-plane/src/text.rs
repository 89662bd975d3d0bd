//! Text that peers send, fit to be logged and shown; bytes in hexadecimal.

/// A peer's text for logs and the API: bounded, on one line, without control characters.
pub(crate) fn bounded(message: &str) -> String {
    const MAX: usize = 2048;
    let printable = |c: char| if c.is_control() { ' ' } else { c };
    message.chars().take(MAX).map(printable).collect()
}

pub fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String can't fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
