//! Path normalisation: one value for routing, policy, telemetry and upstream; and [`Readings`], the
//! further forms in which an app may read it.

use std::borrow::Cow;

use super::head::Head;
use crate::message::fault::Fault;

/// How paths are normalised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathOptions {
    /// Envoy's normalize_path: percent-encoded unreserved characters decoded (RFC 3986 6.2.2.2), dot
    /// segments removed (5.2.4; `..;x` is one, as in Envoy), `\` taken as a slash. `%00` is refused.
    pub normalize: bool,
    pub merge_slashes: bool,
    pub escaped_slashes: EscapedSlashes,
    pub fragment: Fragment,
}

/// Envoy's path_with_escaped_slashes_action: `%2F`, `%5C`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EscapedSlashes {
    #[default]
    Keep,
    Reject,
    UnescapeAndRedirect,
    UnescapeAndForward,
}

/// What is done with `#…` in a request target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fragment {
    #[default]
    Reject,
    Strip,
}

/// What to do with the request now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathOutcome {
    /// Go on with the head's path.
    Forward,
    /// Answer 307 with `Location:` the head's path (slashes were unescaped).
    Redirect,
}

/// Normalises the head's path in place. CONNECT's empty path and `*` stay as they are; the query is
/// never touched.
pub fn normalise(head: &mut Head, options: &PathOptions) -> Result<PathOutcome, Fault> {
    if !head.path_and_query().starts_with(b"/") {
        return Ok(PathOutcome::Forward);
    }
    encode_non_ascii(head);
    let target = head.path_and_query();
    let clean = match memchr::memchr(b'#', target) {
        None => target,
        Some(_) if options.fragment == Fragment::Reject => return Err(Fault::PathFragment),
        Some(at) => target.split_at(at).0,
    };
    let (received, query) = clean.split_at(memchr::memchr(b'?', clean).unwrap_or(clean.len()));
    if clean.len() == target.len() && is_normal(received, options) {
        return Ok(PathOutcome::Forward);
    }

    let (unescaped, slashes) = unescape_slashes(received, options)?;
    let path = slashes.as_deref().unwrap_or(received);
    let mut normal = Vec::with_capacity(clean.len());
    if options.normalize {
        if has_escaped_nul(path) {
            return Err(Fault::PathNormalization);
        }
        let decoded = decode(path, |byte, before| {
            is_unreserved(byte) && !ends_in_half_an_escape(before)
        });
        remove_dot_segments(&decoded, Params::Dropped, &mut normal);
    } else {
        normal.extend_from_slice(path);
    }
    if options.merge_slashes {
        merge_slashes(&mut normal);
    }
    normal.extend_from_slice(query);
    let changed = normal != target;
    if changed {
        head.set_path_and_query(&normal);
    }
    if unescaped && options.escaped_slashes == EscapedSlashes::UnescapeAndRedirect {
        return Ok(PathOutcome::Redirect);
    }
    Ok(PathOutcome::Forward)
}

/// What clients send as it is typed, most often UTF-8, becomes a URI (RFC 3987 3.1): one spelling for
/// policy and app.
fn encode_non_ascii(head: &mut Head) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let target = head.path_and_query();
    if target.is_ascii() {
        return;
    }
    let mut encoded = Vec::with_capacity(target.len().saturating_mul(2));
    for &byte in target {
        if byte.is_ascii() {
            encoded.push(byte);
        } else {
            let digit = |value: u8| HEX.get(usize::from(value & 15)).copied();
            encoded.push(b'%');
            encoded.extend([digit(byte >> 4), digit(byte)].into_iter().flatten());
        }
    }
    head.set_path_and_query(&encoded);
}

/// Whether the path needs no normalisation. Dots count only behind a slash, escapes always.
fn is_normal(path: &[u8], options: &PathOptions) -> bool {
    if !options.normalize
        && !options.merge_slashes
        && options.escaped_slashes == EscapedSlashes::Keep
    {
        return true;
    }
    let mut behind_slash = false;
    for &byte in path {
        match byte {
            b'%' | b'\\' => return false,
            b'/' | b'.' if behind_slash => return false,
            _ => {}
        }
        behind_slash = byte == b'/';
    }
    true
}

/// Whether there was an escaped slash, and the path with them decoded where that is asked for.
fn unescape_slashes(path: &[u8], options: &PathOptions) -> Result<(bool, Option<Vec<u8>>), Fault> {
    if options.escaped_slashes == EscapedSlashes::Keep {
        return Ok((false, None));
    }
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some(at) = memchr::memchr(b'%', rest) {
        let (before, escape) = rest.split_at(at);
        decoded.extend_from_slice(before);
        let (byte, behind) = match escape {
            [b'%', b'2', b'f' | b'F', behind @ ..] => (b'/', behind),
            [b'%', b'5', b'c' | b'C', behind @ ..] => (b'\\', behind),
            _ => {
                decoded.push(b'%');
                rest = escape.strip_prefix(b"%").unwrap_or_default();
                continue;
            }
        };
        if options.escaped_slashes == EscapedSlashes::Reject {
            return Err(Fault::EscapedSlash);
        }
        decoded.push(byte);
        rest = behind;
    }
    decoded.extend_from_slice(rest);
    let any = decoded.len() != path.len();
    Ok((any, any.then_some(decoded)))
}

fn has_escaped_nul(path: &[u8]) -> bool {
    memchr::memmem::find(path, b"%00").is_some()
}

/// RFC 3986 2.3.
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// Whether a byte at the end of `decoded` would complete what looks like an escape (`%%361`, `%6%31`):
/// decoding must not make new ones.
fn ends_in_half_an_escape(decoded: &[u8]) -> bool {
    match decoded {
        [.., b'%'] => true,
        [.., b'%', digit] => hex(*digit).is_some(),
        _ => false,
    }
}

/// Decodes, once, the escapes that `wanted` names by their byte and what was decoded before it.
fn decode(path: &[u8], wanted: impl Fn(u8, &[u8]) -> bool) -> Cow<'_, [u8]> {
    if memchr::memchr(b'%', path).is_none() {
        return Cow::Borrowed(path);
    }
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path;
    while let [first, behind @ ..] = rest {
        let escape = match rest {
            [b'%', high, low, behind @ ..] => hex(*high)
                .zip(hex(*low))
                .map(|(high, low)| (high << 4 | low, behind)),
            _ => None,
        };
        let escape = escape.filter(|(byte, _)| wanted(*byte, &decoded));
        let (byte, behind) = escape.unwrap_or((*first, behind));
        decoded.push(byte);
        rest = behind;
    }
    Cow::Owned(decoded)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit)
        .to_digit(16)
        .and_then(|value| u8::try_from(value).ok())
}

/// RFC 3986 5.2.4 over segments split at `/` and `\`. `..` at the root stays at the root. With
/// [`Params::Dropped`] `..;x` is a dot segment too.
fn remove_dot_segments(path: &[u8], params: Params, out: &mut Vec<u8>) {
    let path = path.strip_prefix(b"/").unwrap_or(path);
    let mut segments = path.split(|&b| b == b'/' || b == b'\\').peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        let name = match params {
            Params::Dropped => without_params(segment),
            Params::Kept => segment,
        };
        match name {
            b"." => {}
            b".." => {
                let parent = out.iter().rposition(|&b| b == b'/').unwrap_or(0);
                out.truncate(parent);
            }
            _ => {
                out.push(b'/');
                out.extend_from_slice(segment);
                continue;
            }
        }
        // `/a/.` and `/a/b/..` are directories.
        if last {
            out.push(b'/');
        }
    }
}

/// A segment up to its first `;`.
fn without_params(segment: &[u8]) -> &[u8] {
    let end = memchr::memchr(b';', segment).unwrap_or(segment.len());
    segment.split_at(end).0
}

/// The forms in which an app may understand a path. Policy matches against them all: apps differ in
/// whether they drop `;params` and in how much they decode.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Readings<'a> {
    /// As the app receives it.
    pub received: &'a [u8],
    /// Without the `;params` of its segments, where there are any.
    pub without_params: Option<Vec<u8>>,
    /// With every escape decoded, where there is one: with and without `;params`, slashes merged after
    /// and before dot segments are removed (`/a%2f%2f..%2fb` is `/a/b` or `/b`).
    pub decoded: Vec<Vec<u8>>,
}

impl<'a> Readings<'a> {
    /// `path`: normalised, without its query.
    pub fn of(path: &'a [u8]) -> Self {
        let has_params = memchr::memchr(b';', path).is_some();
        let mut decoded = Vec::new();
        if memchr::memchr(b'%', path).is_some() {
            let path = decode(path, |_, _| true);
            for params in [Params::Dropped, Params::Kept] {
                for merged in [false, true] {
                    let form = plain(&path, params, merged);
                    if !decoded.contains(&form) {
                        decoded.push(form);
                    }
                }
            }
        }
        Self {
            received: path,
            without_params: has_params.then(|| plain(path, Params::Dropped, false)),
            decoded,
        }
    }
}

/// What an app makes of `;params`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Params {
    Dropped,
    Kept,
}

/// Without dot segments and repeated slashes; `merged`: without the latter first.
fn plain(path: &[u8], params: Params, merged: bool) -> Vec<u8> {
    let name = |segment| match params {
        Params::Dropped => without_params(segment),
        Params::Kept => segment,
    };
    let mut bare = Vec::with_capacity(path.len());
    for (index, segment) in path.split(|&b| b == b'/' || b == b'\\').enumerate() {
        if index > 0 {
            bare.push(b'/');
        }
        bare.extend_from_slice(name(segment));
    }
    if merged {
        merge_slashes(&mut bare);
    }
    let mut plain = Vec::with_capacity(bare.len());
    remove_dot_segments(&bare, params, &mut plain);
    merge_slashes(&mut plain);
    plain
}

fn merge_slashes(path: &mut Vec<u8>) {
    path.dedup_by(|b, a| *a == b'/' && *b == b'/');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BOTH: PathOptions = PathOptions {
        normalize: true,
        merge_slashes: true,
        escaped_slashes: EscapedSlashes::Keep,
        fragment: Fragment::Reject,
    };
    const DOTS: PathOptions = PathOptions {
        merge_slashes: false,
        ..BOTH
    };

    fn run(path: &str, options: &PathOptions) -> Result<(String, PathOutcome), Fault> {
        let mut head = Head::new();
        head.set_path_and_query(path.as_bytes());
        let outcome = normalise(&mut head, options)?;
        let path = String::from_utf8_lossy(head.path_and_query()).into_owned();
        Ok((path, outcome))
    }

    fn forward(path: &str, options: &PathOptions) -> String {
        let (path, outcome) = run(path, options).unwrap();
        assert_eq!(outcome, PathOutcome::Forward);
        path
    }

    #[test]
    fn dot_segments_and_slashes() {
        for (path, dots, both) in [
            ("/", "/", "/"),
            ("/a/b", "/a/b", "/a/b"),
            ("/a/./b", "/a/b", "/a/b"),
            ("/a/../b", "/b", "/b"),
            ("/a/b/..", "/a/", "/a/"),
            ("/a/b/.", "/a/b/", "/a/b/"),
            ("/..", "/", "/"),
            ("/../../etc/passwd", "/etc/passwd", "/etc/passwd"),
            ("/a/%2e%2e/b", "/b", "/b"),
            ("/a/.%2E/b", "/b", "/b"),
            ("/a/%2E/b", "/a/b", "/a/b"),
            ("/a/..\\..\\b", "/b", "/b"),
            ("/a\\b", "/a/b", "/a/b"),
            ("//a//b", "//a//b", "/a/b"),
            ("/a//../b", "/a/b", "/a/b"),
            ("/a/...", "/a/...", "/a/..."),
            ("/a/.hidden/..b", "/a/.hidden/..b", "/a/.hidden/..b"),
            ("/a;x=1/../b", "/b", "/b"),
            ("/a/..;/b", "/b", "/b"),
            ("/a/..;x=1/b", "/b", "/b"),
            ("/a/%2e.;x=1/b", "/b", "/b"),
            ("/a/.;/b", "/a/b", "/a/b"),
            ("/a/b/..;x", "/a/", "/a/"),
            ("/a/...;/b", "/a/...;/b", "/a/...;/b"),
            ("/a;x/b", "/a;x/b", "/a;x/b"),
            ("/%61dmin", "/admin", "/admin"),
            ("/%41%5F%2d%7E%30", "/A_-~0", "/A_-~0"),
            ("/%2561", "/%2561", "/%2561"),
            ("/%%361", "/%%361", "/%%361"),
            ("/%6%31", "/%6%31", "/%6%31"),
            ("/a/..;%/%61dmin", "/admin", "/admin"),
            ("/%z%61", "/%za", "/%za"),
            ("/%3b%20%2B", "/%3b%20%2B", "/%3b%20%2B"),
            ("/a%2fb", "/a%2fb", "/a%2fb"),
            ("/a/..%2fb", "/a/..%2fb", "/a/..%2fb"),
            ("/a/%252e%252e/b", "/a/%252e%252e/b", "/a/%252e%252e/b"),
            ("/%c0%ae%c0%ae/b", "/%c0%ae%c0%ae/b", "/%c0%ae%c0%ae/b"),
            ("/a%zz%", "/a%zz%", "/a%zz%"),
            ("/a/../b?x=/../y//z", "/b?x=/../y//z", "/b?x=/../y//z"),
            ("/a?//..", "/a?//..", "/a?//.."),
        ] {
            assert_eq!(forward(path, &DOTS), dots, "{path}");
            assert_eq!(forward(path, &BOTH), both, "{path}");
            assert_eq!(
                forward(path, &PathOptions::default()),
                path,
                "nothing asked for"
            );
        }
    }

    #[test]
    fn escaped_slashes() {
        let with = |escaped_slashes| PathOptions {
            escaped_slashes,
            ..BOTH
        };
        let forwarding = with(EscapedSlashes::UnescapeAndForward);
        let redirecting = with(EscapedSlashes::UnescapeAndRedirect);
        let rejecting = with(EscapedSlashes::Reject);
        for (path, normal) in [
            ("/a%2fb", "/a/b"),
            ("/a%5Cb", "/a/b"),
            ("/a/..%2F..%2fb", "/b"),
            ("/a%2F%2Fb", "/a/b"),
        ] {
            assert_eq!(run(path, &rejecting), Err(Fault::EscapedSlash), "{path}");
            assert_eq!(
                run(path, &forwarding),
                Ok((normal.into(), PathOutcome::Forward))
            );
            assert_eq!(
                run(path, &redirecting),
                Ok((normal.into(), PathOutcome::Redirect))
            );
        }
        assert_eq!(forward("/a%20b?x=%2f", &rejecting), "/a%20b?x=%2f");
        assert_eq!(forward("/%252f", &redirecting), "/%252f");
    }

    #[test]
    fn fragments_and_nul() {
        assert_eq!(run("/a#b", &BOTH), Err(Fault::PathFragment));
        assert_eq!(
            run("/a?x#b", &PathOptions::default()),
            Err(Fault::PathFragment)
        );
        let strip = PathOptions {
            fragment: Fragment::Strip,
            ..BOTH
        };
        assert_eq!(forward("/a/../b#/../c?d", &strip), "/b");
        assert_eq!(forward("/a?b#c", &strip), "/a?b");
        assert_eq!(run("/a%00b", &BOTH), Err(Fault::PathNormalization));
        assert_eq!(forward("/a?%00", &BOTH), "/a?%00");
        for options in [BOTH, PathOptions::default()] {
            assert_eq!(forward("/h\u{e9}?\u{fc}", &options), "/h%C3%A9?%C3%BC");
        }
    }

    #[test]
    fn what_an_app_may_read() {
        let table: [(&str, Option<&str>, &[&str]); 17] = [
            ("/admin", None, &[]),
            ("/admin;a", Some("/admin"), &[]),
            ("/admin;/x", Some("/admin/x"), &[]),
            ("/a;x/..;y/b", Some("/b"), &[]),
            (";a", Some("/"), &[]),
            ("/admin%2fx", None, &["/admin/x"]),
            ("/x%2f..%2Fadmin", None, &["/admin"]),
            ("/x%5c..%5Cadmin", None, &["/admin"]),
            ("/x%2f%2f..%2fadmin", None, &["/x/admin", "/admin"]),
            ("/admin%3bx", None, &["/admin", "/admin;x"]),
            ("/admin%2f..;", Some("/admin%2f.."), &["/", "/admin/..;"]),
            (
                "/x%2f..;%2fadmin",
                Some("/x%2f.."),
                &["/admin", "/x/..;/admin"],
            ),
            ("/a%2fb;c", Some("/a%2fb"), &["/a/b", "/a/b;c"]),
            ("/%24metadata", None, &["/$metadata"]),
            ("/%zz%", None, &["/%zz%"]),
            ("*", None, &[]),
            ("", None, &[]),
        ];
        for (path, without, decoded) in table {
            let want = Readings {
                received: path.as_bytes(),
                without_params: without.map(|text: &str| text.into()),
                decoded: decoded
                    .iter()
                    .map(|text| text.as_bytes().to_vec())
                    .collect(),
            };
            assert_eq!(Readings::of(path.as_bytes()), want, "{path}");
        }
    }

    #[test]
    fn other_forms_stay() {
        assert_eq!(forward("*", &BOTH), "*");
        assert_eq!(forward("", &BOTH), "");
    }

    proptest! {
        #[test]
        fn normal_paths_stay_normal(path in "/([a./\\\\%2356eEfF#?;]|%2e|%2f|%3[0-9]|%6|/\\.\\.){0,24}") {
            for options in [BOTH, DOTS] {
                if let Ok((once, _)) = run(&path, &options) {
                    let twice = run(&once, &options).map(|(path, _)| path);
                    prop_assert_eq!(twice.as_ref(), Ok(&once));
                    let path = once.split('?').next().unwrap_or_default();
                    prop_assert!(path.starts_with('/'));
                    let is_dots = |segment: &str| matches!(without_params(segment.as_bytes()), b"." | b"..");
                    prop_assert!(!path.split('/').any(is_dots), "{}", once);
                }
            }
        }
    }
}
