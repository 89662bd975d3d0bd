use super::*;

fn head() -> Head {
    let mut head = Head::new();
    head.set_method(b"GET");
    head.append_named(b"Host", b"a");
    head.append_named(b"X-One", b"1");
    head.append_named(b"Cookie", b"c");
    head.append_named(b"x-one", b"2");
    head.append_named(b"X-Two", b"3");
    head
}

fn lines(head: &Head) -> Vec<String> {
    head.iter()
        .map(|f| format!("{}: {}", f.name.escape_ascii(), f.value.escape_ascii()))
        .collect()
}

#[test]
fn look_ups() {
    let head = head();
    assert_eq!(head.get(HeaderId::Cookie), Some(&b"c"[..]));
    assert_eq!(head.get(HeaderId::Via), None);
    assert_eq!(head.get_by_name(b"X-ONE"), Some(&b"1"[..]));
    assert_eq!(head.get_by_name(b"x-three"), None);
    assert_eq!(head.get_by_name(b"COOKIE"), Some(&b"c"[..]));
    let all: Vec<_> = head.get_all_by_name(b"x-one").collect();
    assert_eq!(all, [b"1", b"2"]);
    assert!(head.has(HeaderId::Cookie) && !head.has(HeaderId::Via));
    assert_eq!(head.get_all(HeaderId::Via).next(), None);
}

#[test]
fn pseudo_headers_are_the_start_line() {
    let mut head = Head::new();
    head.set_method(b"BREW");
    head.set_authority(b"a:1");
    head.set_path_and_query(b"/x?y");
    head.set_scheme(b"https");
    for (name, value) in [
        (&b":method"[..], &b"BREW"[..]),
        (b":authority", b"a:1"),
        (b"host", b"a:1"),
        (b":path", b"/x?y"),
        (b":scheme", b"https"),
    ] {
        assert_eq!(head.get_by_name(name), Some(value));
        assert_eq!(head.get_all_by_name(name).collect::<Vec<_>>(), [value]);
        assert!(head.has(HeaderId::of(name)));
    }
    assert_eq!(head.get_by_name(b":protocol"), None);
    head.append(HeaderId::PseudoPath, b"/y");
    head.set(HeaderId::Other, b"z");
    assert!(head.is_empty());
}

#[test]
fn edits() {
    let mut head = head();
    head.set_named(b"X-ONE", b"9");
    head.set(HeaderId::Cookie, b"d");
    head.set(HeaderId::Via, b"v");
    assert_eq!(
        lines(&head),
        ["Host: a", "X-One: 9", "Cookie: d", "X-Two: 3", "via: v"]
    );
    assert!(head.remove_named(b"x-two") && !head.remove_named(b"x-two"));
    assert!(head.remove(HeaderId::Cookie) && !head.remove(HeaderId::Cookie));
    assert!(!head.has(HeaderId::Cookie));
    head.retain(|field| field.id != HeaderId::Via);
    assert!(!head.has(HeaderId::Via));
    head.append(HeaderId::Via, b"a\r\nb\0c");
    assert_eq!(lines(&head), ["Host: a", "X-One: 9", "via: a  b c"]);
    assert_eq!(head.value_bytes(1).as_deref(), Some(&b"9"[..]));
    assert_eq!(head.value_bytes(9), None);
}

#[test]
fn the_host_is_the_authority() {
    let mut head = head();
    assert_eq!(head.authority(), b"a");
    head.append(HeaderId::Host, b"other");
    head.set(HeaderId::Host, b"b");
    assert_eq!(head.authority(), b"b");
    assert_eq!(head.get_all(HeaderId::Host).collect::<Vec<_>>(), [b"b"]);
    head.set_authority(b"c");
    assert_eq!(head.get(HeaderId::Host), Some(&b"c"[..]));
    assert_eq!(lines(&head)[0], "Host: c");
}

#[test]
fn a_cleared_head_is_new_but_keeps_its_room() {
    let mut head = head();
    head.set_status(200);
    let room = (head.fields.capacity(), head.extra.capacity());
    head.clear();
    assert_eq!((head.fields.capacity(), head.extra.capacity()), room);
    assert!(head.is_empty() && head.status() == 0 && head.authority().is_empty());
    assert!(!head.has(HeaderId::Cookie) && !head.has(HeaderId::Host));
    head.append_named(b"x", &vec![b'y'; 1 << 20]);
    head.clear();
    assert!(head.extra.capacity() <= KEEP_EXTRA);
}
