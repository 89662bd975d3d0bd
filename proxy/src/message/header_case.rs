//! Header spellings over an HTTP/2 hop between our sidecars.
//!
//! HTTP/2 has lower-case names only. One internal header, `x-anyam-header-case`, lists the
//! spellings that differ, in order and bounded; its value depends on names alone, so HPACK indexes
//! it. It is used only where both ends agreed on it by ALPN and stripped from all other input.
//!
//! The n-th entry for a name is the spelling of its n-th field; the last one is also that of the
//! fields after it, so that one entry does for a name that is always spelled alike. The order of
//! different names does not matter.

use smallvec::SmallVec;

use super::head::{Head, HeaderId, Span};

/// Longest list, bytes; spellings beyond it travel in lower case.
pub const MAX_LIST: usize = 1024;
/// Most spellings in a list.
pub const MAX_ENTRIES: usize = 128;

/// Writes the list for a head into `list` (cleared first). Empty: nothing to send.
pub fn encode(head: &Head, list: &mut Vec<u8>) {
    list.clear();
    let listed = listed(head);
    let listed = head.fields.iter().zip(listed).filter(|(_, listed)| *listed);
    for (entries, (field, _)) in listed.enumerate() {
        let name = head.slice(field.name);
        if entries == MAX_ENTRIES || list.len().saturating_add(name.len()) >= MAX_LIST {
            // A later entry would be taken for an earlier field: the list ends here.
            return;
        }
        if !list.is_empty() {
            list.push(b',');
        }
        list.extend_from_slice(name);
    }
}

/// Which fields have to be listed: spelled with capitals, and of several of one name the first, or
/// all when they differ.
fn listed(head: &Head) -> SmallVec<[bool; 64]> {
    let repeated = repeated(head);
    let name = |place: usize| {
        head.fields
            .get(place)
            .map_or(&[][..], |f| head.slice(f.name))
    };
    let names = head.fields.iter().map(|field| head.slice(field.name));
    let mut listed: SmallVec<[bool; 64]> = names
        .clone()
        .map(|name| name.iter().any(u8::is_ascii_uppercase))
        .collect();
    let several = |(place, _): &(usize, &[u8])| {
        let field = head.fields.get(*place);
        field.is_some_and(|field| field.id.bit() & repeated != 0)
    };
    let places = places(names.enumerate().filter(several));
    for run in places
        .chunk_by(|a, b| a.0 == b.0)
        .filter(|run| run.len() > 1)
    {
        let mut run: Run = run.iter().map(|(_, place)| *place).collect();
        while let Some(first) = run.first().map(|first| name(*first)) {
            let same = take(&mut run, |place| name(place).eq_ignore_ascii_case(first));
            let differ = same.iter().any(|place| name(*place) != first);
            for (n, place) in same.into_iter().enumerate() {
                if let Some(listed) = listed.get_mut(place) {
                    *listed = differ || n == 0 && *listed;
                }
            }
        }
    }
    listed
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

/// Names by hash, and their places in order: what is alike is found without comparing each with
/// each.
type HashedPlaces = SmallVec<[(u32, usize); 48]>;

/// Places of one hash.
type Run = SmallVec<[usize; 8]>;

fn places<'a>(names: impl Iterator<Item = (usize, &'a [u8])>) -> HashedPlaces {
    let mut places: HashedPlaces = names.map(|(place, name)| (hash(name), place)).collect();
    places.sort_unstable();
    places
}

/// FNV-1a of the name in lower case.
fn hash(name: &[u8]) -> u32 {
    name.iter().fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(byte.to_ascii_lowercase())).wrapping_mul(0x0100_0193)
    })
}

/// Takes out of `run` what `fits`.
fn take(run: &mut Run, fits: impl Fn(usize) -> bool) -> Run {
    let taken = run.iter().copied().filter(|place| fits(*place)).collect();
    run.retain(|place| !fits(*place));
    taken
}

/// Takes `x-anyam-header-case` out of a head that came from an agreed peer and respells the fields.
/// Entries beyond the bounds, and of names that are not there, are ignored.
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
    let mut entries: SmallVec<[Span; 32]> = SmallVec::new();
    let mut at = 0usize;
    while at < list.len() && entries.len() < MAX_ENTRIES {
        let rest = head.slice(list).get(at..).unwrap_or_default();
        let len = memchr::memchr(b',', rest).unwrap_or(rest.len());
        if len > 0 {
            entries.push(list.part(at..at.saturating_add(len)));
        }
        at = at.saturating_add(len).saturating_add(1);
    }
    for (place, spelling) in respelled(head, &entries) {
        if let Some(field) = head.fields.get_mut(place) {
            field.name = spelling;
        }
    }
}

/// Fields with the spelling that the entries have for them.
fn respelled(head: &Head, entries: &[Span]) -> SmallVec<[(usize, Span); 32]> {
    let spelling = |entry: usize| entries.get(entry).map_or(&[][..], |e| head.slice(*e));
    let name = |place: usize| {
        head.fields
            .get(place)
            .map_or(&[][..], |f| head.slice(f.name))
    };
    let names = head.fields.iter().map(|field| head.slice(field.name));
    let by_field = places(names.enumerate());
    let spellings = entries.iter().map(|entry| head.slice(*entry));
    let mut found = SmallVec::new();
    for run in places(spellings.enumerate()).chunk_by(|a, b| a.0 == b.0) {
        let Some((hash, _)) = run.first() else {
            continue;
        };
        let from = by_field.partition_point(|(other, _)| other < hash);
        let fields = by_field.iter().skip(from);
        let fields = fields.take_while(|(other, _)| other == hash);
        let mut fields: Run = fields.map(|(_, place)| *place).collect();
        let mut run: Run = run.iter().map(|(_, entry)| *entry).collect();
        while let Some(first) = run.first().map(|first| spelling(*first)) {
            let entries_of = take(&mut run, |e| spelling(e).eq_ignore_ascii_case(first));
            let fields_of = take(&mut fields, |f| name(f).eq_ignore_ascii_case(first));
            for (n, place) in fields_of.into_iter().enumerate() {
                let entry = entries_of.get(n).or(entries_of.last());
                if let Some(spelling) = entry.and_then(|entry| entries.get(*entry)) {
                    found.push((place, *spelling));
                }
            }
        }
    }
    found
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
        for name in ["X-Header-", "X"] {
            let long: Vec<String> = (0..200).map(|n| format!("{name}{n}")).collect();
            let long: Vec<&str> = long.iter().map(String::as_str).collect();
            let (list, over) = carry(&head(&long));
            let entries = list.split(',').count();
            assert!(list.len() <= MAX_LIST && entries <= MAX_ENTRIES);
            assert!(list.len() > MAX_LIST - 20 || entries == MAX_ENTRIES);
            let spelled = names(&over).iter().filter(|n| n.starts_with('X')).count();
            assert_eq!(spelled, entries);
        }

        for junk in ["", ",", ",,,", "Nothing,Like,This", "A\u{1}", "x,,a"] {
            let mut over = head(&["x-a", "x-b"]);
            over.append(HeaderId::XAnyamHeaderCase, junk.as_bytes());
            apply(&mut over);
            assert_eq!(names(&over), ["x-a", "x-b"]);
        }
    }

    #[test]
    fn what_a_list_costs_grows_with_its_length_only() {
        // One entry a byte: as many as fit, for a field that is there.
        let mut over = head(&["a"; 100]);
        over.append(
            HeaderId::XAnyamHeaderCase,
            "A,".repeat(MAX_LIST / 2).as_bytes(),
        );
        apply(&mut over);
        assert_eq!(names(&over), ["A"; 100]);
        let mut over = head(&["a"; 200]);
        over.append(
            HeaderId::XAnyamHeaderCase,
            &["A,", "a,"].concat().repeat(100).into_bytes(),
        );
        apply(&mut over);
        // Entries beyond the bound are not read: the last that was is that of the rest.
        let names = names(&over);
        assert!(
            names
                .iter()
                .take(MAX_ENTRIES)
                .step_by(2)
                .all(|name| name == "A")
        );
        assert!(names.iter().skip(MAX_ENTRIES).all(|name| name == "a"));
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
