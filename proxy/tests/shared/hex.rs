//! Bytes as text, in files of the corpus that end in `.hex`: on each line hex, or text in quotes (`\r` and
//! `\n` are known); `#` begins a comment. Lengths are written out, so that a file may lie about them.

/// The bytes that a corpus file stands for.
pub fn from_text(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for line in text.lines() {
        if let Some(quoted) = line.strip_prefix('"') {
            let quoted = quoted.strip_suffix('"').unwrap();
            let text = quoted.replace("\\r", "\r").replace("\\n", "\n");
            bytes.extend_from_slice(text.as_bytes());
            continue;
        }
        let line = line.split('#').next().unwrap();
        let digits: Vec<u8> = line.bytes().filter(|byte| *byte != b' ').collect();
        for pair in digits.chunks(2) {
            let pair = std::str::from_utf8(pair).unwrap();
            bytes.push(u8::from_str_radix(pair, 16).unwrap());
        }
    }
    bytes
}
