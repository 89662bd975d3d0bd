//! `x-anyam-header-case`: whatever the list says, only the case of names changes; a list of our own
//! restores it.

use anyam_proxy::bug;
use anyam_proxy::message::head::{Head, HeaderId};
use anyam_proxy::message::header_case::{MAX_ENTRIES, MAX_LIST, apply, encode};

use crate::rounds::Rounds;

const ROUNDS: usize = 20_000;

const NAMES: [&str; 12] = [
    "host",
    "Host",
    "X-Own",
    "x-own",
    "X-OWN",
    "accept",
    "traceparent",
    "Cookie",
    "x-b3-TraceId",
    "X",
    "x-anyam-header-case",
    "X-Long-Enough-To-Fill-A-List-Before-Its-Entries-Are-Many",
];
/// What may come between the names of a list.
const BETWEEN: [&[u8]; 8] = [b",", b",,", b"", b" ", b"\0", b"\r\n", b"\xff", b":"];

fn head(rng: &mut fastrand::Rng) -> Head {
    let mut head = Head::new();
    let fields = [4, 40, 200][rng.usize(..3)];
    for place in 0..rng.usize(..fields) {
        let name = NAMES[rng.usize(..NAMES.len())];
        if !name.eq_ignore_ascii_case("x-anyam-header-case") {
            head.append_named(name.as_bytes(), place.to_string().as_bytes());
        }
    }
    head
}

/// As it is over HTTP/2.
fn in_lower_case(head: &Head) -> Head {
    let mut lower = Head::new();
    for field in head.iter() {
        lower.append_named(&field.name.to_ascii_lowercase(), field.value);
    }
    lower
}

/// Names and values in order; `lower`: names in lower case.
fn fields(head: &Head, lower: bool) -> Vec<(Vec<u8>, Vec<u8>)> {
    let name = |name: &[u8]| match lower {
        true => name.to_ascii_lowercase(),
        false => name.to_vec(),
    };
    let fields = head.iter();
    let fields = fields.map(|field| (name(field.name), field.value.to_vec()));
    fields.collect()
}

#[test]
fn a_list_changes_nothing_but_the_case_of_names() {
    let mut rounds = Rounds::new(ROUNDS);
    while let Some(mut rng) = rounds.next() {
        let sent = head(&mut rng);
        let mut list = Vec::new();
        encode(&sent, &mut list);
        let entries = list.split(|byte| *byte == b',').count();
        assert!(list.len() <= MAX_LIST && entries <= MAX_ENTRIES);
        let mut carried = in_lower_case(&sent);
        if !list.is_empty() {
            carried.append(HeaderId::XAnyamHeaderCase, &list);
        }
        apply(&mut carried);
        assert_eq!(fields(&carried, true), fields(&sent, true));
        if list.len() < MAX_LIST / 2 && entries < MAX_ENTRIES / 2 {
            assert_eq!(fields(&carried, false), fields(&sent, false));
        }
        // A list that another wrote.
        let mut junk = Vec::new();
        for _ in 0..rng.usize(..300) {
            junk.extend_from_slice(NAMES[rng.usize(..NAMES.len())].as_bytes());
            junk.extend_from_slice(BETWEEN[rng.usize(..BETWEEN.len())]);
        }
        let mut respelled = in_lower_case(&sent);
        respelled.append(HeaderId::XAnyamHeaderCase, &junk);
        let before = bug::failures();
        apply(&mut respelled);
        let got = fields(&respelled, true);
        assert_eq!(got, fields(&sent, true), "{}", junk.escape_ascii());
        assert!(!respelled.has(HeaderId::XAnyamHeaderCase));
        assert_eq!(bug::failures(), before, "spans outside of their bytes");
    }
}
