//! Header spellings over an HTTP/2 hop between our sidecars.
//!
//! HTTP/2 has lower-case names only. One internal header, `x-anyam-header-case`, lists the
//! spellings that differ, in order and bounded; its value depends on names alone, so HPACK indexes
//! it. It is used only where both ends agreed on it by ALPN and stripped from all other input.
//!
//! The n-th entry for a name is the spelling of its n-th field; the last one is also that of the
//! fields after it, so that one entry does for a name that is always spelled alike. The order of
//! different names does not matter.

use super::head::{Field, Head, HeaderId, Span};

/// Longest list, bytes; spellings beyond it travel in lower case.
pub const MAX_LIST: usize = 1024;

/// Writes the list for a head into `list` (cleared first). Empty: nothing to send.
pub fn encode(head: &Head, list: &mut Vec<u8>) {
    list.clear();
    let repeated = repeated(head);
    for (at, field) in head.fields.iter().enumerate() {
        let name = head.slice(field.name);
        let upper = name.iter().any(u8::is_ascii_uppercase);
        let listed = if field.id.bit() & repeated == 0 {
            upper
        } else {
            let mut others = same_name(head, field);
            let alike = others.clone().all(|(_, other)| other == name);
            let first = others.next().is_some_and(|(place, _)| place == at);
            !alike || first && upper
        };
        if !listed {
            continue;
        }
        if list.len() + name.len() + 1 > MAX_LIST {
            // A later entry would be taken for an earlier field: the list ends here.
            return;
        }
        if !list.is_empty() {
            list.push(b',');
        }
        list.extend_from_slice(name);
    }
}

/// Ids that more than one field has.
fn repeated(head: &Head) -> u128 {
    let mut seen = 0;
    let mut repeated = 0;
    for field in &head.fields {
        repeated |= seen & field.id.bit();
        seen |= field.id.bit();
    }
    repeated
}

/// Fields of the same name, itself included, with their places.
fn same_name<'a>(head: &'a Head, field: &Field) -> impl Iterator<Item = (usize, &'a [u8])> + Clone {
    let (id, name) = (field.id, head.slice(field.name));
    head.fields
        .iter()
        .enumerate()
        .filter(move |(_, other)| other.id == id && other.name.len() == name.len())
        .map(|(place, other)| (place, head.slice(other.name)))
        .filter(move |(_, other)| other.eq_ignore_ascii_case(name))
}

/// Takes `x-anyam-header-case` out of a head that came from an agreed peer and respells the fields.
/// What the list says beyond [`MAX_LIST`] bytes, or about names that are not there, is ignored.
pub fn apply(head: &mut Head) {
    let Some(list) = head
        .fields
        .iter()
        .find(|field| field.id == HeaderId::XAnyamHeaderCase)
        .map(|field| field.value)
    else {
        return;
    };
    head.remove(HeaderId::XAnyamHeaderCase);
    let list = list.part(0..list.len().min(MAX_LIST));
    let mut at = 0;
    while at < list.len() {
        let rest = &head.slice(list)[at..];
        let len = memchr::memchr(b',', rest).unwrap_or(rest.len());
        let spelling = list.part(at..at + len);
        let earlier = list.part(0..at);
        at += len + 1;
        if len > 0 {
            respell(head, earlier, spelling);
        }
    }
}

/// Gives the fields of this name their spelling, but for those that earlier entries are for.
fn respell(head: &mut Head, earlier: Span, spelling: Span) {
    let (buf, extra) = (&head.buf, &head.extra);
    let name = spelling.of(buf, extra);
    let before = earlier
        .of(buf, extra)
        .split(|&b| b == b',')
        .filter(|entry| entry.eq_ignore_ascii_case(name))
        .count();
    head.fields
        .iter_mut()
        .filter(|field| field.name.len() == name.len())
        .filter(|field| field.name.of(buf, extra).eq_ignore_ascii_case(name))
        .skip(before)
        .for_each(|field| field.name = spelling);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn head(names: &[&str]) -> Head {
        let mut head = Head::new();
        for (at, name) in names.iter().enumerate() {
            head.append_named(name.as_bytes(), at.to_string().as_bytes());
        }
        head
    }

    fn names(head: &Head) -> Vec<String> {
        head.iter()
            .map(|field| String::from_utf8_lossy(field.name).into_owned())
            .collect()
    }

    /// Over HTTP/2: names in lower case, the list beside them.
    fn carry(from: &Head) -> (String, Head) {
        let mut list = Vec::new();
        encode(from, &mut list);
        let mut over = Head::new();
        for field in from.iter() {
            over.append_named(&field.name.to_ascii_lowercase(), field.value);
        }
        if !list.is_empty() {
            over.append(HeaderId::XAnyamHeaderCase, &list);
        }
        apply(&mut over);
        (String::from_utf8_lossy(&list).into_owned(), over)
    }

    #[test]
    fn only_other_spellings_are_listed() {
        let (list, over) = carry(&head(&["host", "User-Agent", "accept", "X-CUSTOM"]));
        assert_eq!(list, "User-Agent,X-CUSTOM");
        assert_eq!(names(&over), ["host", "User-Agent", "accept", "X-CUSTOM"]);
        assert!(!over.has(HeaderId::XAnyamHeaderCase));
        assert_eq!(carry(&head(&["host", "accept"])).0, "");
    }

    #[test]
    fn repeated_names_may_differ() {
        let spelled = ["X-A", "x-a", "X-A", "b", "X-A", "B", "B"];
        let (list, over) = carry(&head(&spelled));
        assert_eq!(list, "X-A,x-a,X-A,b,X-A,B,B");
        assert_eq!(names(&over), spelled);
    }

    #[test]
    fn the_list_is_bounded_and_junk_is_harmless() {
        let long: Vec<String> = (0..200).map(|n| format!("X-Header-{n}")).collect();
        let long: Vec<&str> = long.iter().map(String::as_str).collect();
        let (list, over) = carry(&head(&long));
        assert!(list.len() <= MAX_LIST && list.len() > MAX_LIST - 20);
        let spelled = names(&over).iter().filter(|n| n.starts_with('X')).count();
        assert_eq!(spelled, list.split(',').count());

        for junk in ["", ",", ",,,", "Nothing,Like,This", "A\u{1}", "x,,a"] {
            let mut over = head(&["x-a", "x-b"]);
            over.append(HeaderId::XAnyamHeaderCase, junk.as_bytes());
            apply(&mut over);
            assert_eq!(names(&over), ["x-a", "x-b"]);
        }
    }

    proptest! {
        #[test]
        fn spellings_survive(spelled in prop::collection::vec("[aAbB]{1,2}|X-[cC]", 0..12)) {
            let spelled: Vec<&str> = spelled.iter().map(String::as_str).collect();
            let (_, over) = carry(&head(&spelled));
            prop_assert_eq!(names(&over), spelled);
        }
    }
}
