//! Request targets: paths and authorities.

use anyam_proxy::message::authority::{self, Authority, AuthorityOptions, PortRule};
use anyam_proxy::message::head::Head;
use anyam_proxy::message::path::{self, EscapedSlashes, Fragment, PathOptions, Readings};

use crate::peers::reaches_admin;
use crate::rounds::Rounds;

const ROUNDS: usize = 20_000;

const PIECES: [&str; 40] = [
    "/", "//", "\\", ".", "..", "%2e", "%2E", "%2f", "%2F", "%5c", "%5C", "%25", "%00", "%", "%6",
    "%61", "%41", "%3b", "%3F", "%23", ";", ";a=b", "?", "#", "admin", "Admin", "%61dmin",
    "adm%69n", "a", "b", "/admin", "/admin/", "..;", "/..;/", "/./", "\u{e9}", "~", "%7e",
    "%C0%AE", "%2561",
];

fn path(rng: &mut fastrand::Rng) -> String {
    let mut path = String::from("/");
    for _ in 0..rng.usize(..10) {
        path.push_str(PIECES[rng.usize(..PIECES.len())]);
    }
    path
}

fn options(rng: &mut fastrand::Rng) -> PathOptions {
    PathOptions {
        normalize: true,
        merge_slashes: rng.bool(),
        escaped_slashes: [
            EscapedSlashes::Keep,
            EscapedSlashes::Reject,
            EscapedSlashes::UnescapeAndForward,
            EscapedSlashes::UnescapeAndRedirect,
        ][rng.usize(..4)],
        fragment: [Fragment::Reject, Fragment::Strip][rng.usize(..2)],
    }
}

/// Whether a policy on `/admin` and all below it matches one of the path's readings.
fn is_admin(readings: &Readings<'_>) -> bool {
    let matches = |path: &[u8]| path == b"/admin" || path.starts_with(b"/admin/");
    let Readings {
        received,
        without_params,
        decoded,
    } = readings;
    let mut others = without_params.iter().chain(decoded);
    matches(received) || others.any(|path| matches(path))
}

#[test]
fn what_policy_judges_is_what_an_app_reads() {
    let mut rounds = Rounds::new(ROUNDS);
    while let Some(mut rng) = rounds.next() {
        let (text, options) = (path(&mut rng), options(&mut rng));
        let mut head = Head::new();
        head.set_path_and_query(text.as_bytes());
        if path::normalise(&mut head, &options).is_err() {
            continue;
        }
        let once = head.path_and_query().to_vec();
        assert!(once.starts_with(b"/") && once.is_ascii(), "{text}");
        let again = path::normalise(&mut head, &options);
        assert!(again.is_ok(), "{text}");
        assert_eq!(head.path_and_query(), once, "{text}: not normal");
        // Repeated slashes stay where they are not merged: a policy on `/admin` then says nothing
        // of `//admin`.
        let readings = Readings::of(head.path());
        if options.merge_slashes && reaches_admin(head.path()) {
            assert!(is_admin(&readings), "{text} with {options:?}");
        }
    }
}

const HOST_PIECES: [&str; 26] = [
    "a",
    "shop",
    "SHOP",
    ".",
    "..",
    "-",
    "_",
    "~",
    "1",
    "127.0.0.1",
    "[::1]",
    "[",
    "]",
    "::",
    ":",
    ":80",
    ":080",
    ":65536",
    ":0",
    "@",
    "%2e",
    ",",
    " ",
    "\\",
    "\u{e9}",
    "svc.cluster.local.",
];

#[test]
fn an_authority_is_what_others_take_it_for() {
    let rules = [PortRule::Keep, PortRule::Any, PortRule::Matching(80)];
    let mut rounds = Rounds::new(ROUNDS);
    while let Some(mut rng) = rounds.next() {
        let mut text = String::new();
        for _ in 0..rng.usize(1..5) {
            text.push_str(HOST_PIECES[rng.usize(..HOST_PIECES.len())]);
        }
        let options = AuthorityOptions {
            strip_port: rules[rng.usize(..3)],
            strip_trailing_dot: rng.bool(),
        };
        let canonical = authority::canonical(text.as_bytes(), &options);
        let Ok(parsed) = Authority::parse(text.as_bytes()) else {
            assert!(canonical.is_err(), "{text}");
            continue;
        };
        let canonical = canonical.unwrap();
        let twice = authority::canonical(canonical.as_bytes(), &options);
        assert_eq!(twice.as_deref(), Ok(&*canonical), "{text}");
        let theirs: http::uri::Authority = text.parse().unwrap();
        assert_eq!(parsed.host, theirs.host().as_bytes(), "{text}");
        assert_eq!(parsed.port, theirs.port_u16(), "{text}");
        // What is forwarded is the same host.
        if let Some(stripped) = authority::stripped(text.as_bytes(), options) {
            let same = authority::canonical(&stripped, &options);
            assert_eq!(same.as_deref(), Ok(&*canonical), "{text}");
        }
    }
}
