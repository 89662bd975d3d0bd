//! Heads, looked at.

use std::hint::black_box;

use anyam_proxy::bug;
use anyam_proxy::message::head::{Head, HeaderId};

use super::Item;

/// Reads all fields of a head, as logs and taps do. What lies outside of its bytes reads as
/// empty and is counted, so that a decoder which leaves such a head is found here.
pub fn read_in_full(head: &Head) {
    let before = bug::failures();
    black_box((request_item(head), response_item(head)));
    black_box((head.scheme(), head.path(), head.query()));
    for id in [HeaderId::Host, HeaderId::ContentType, HeaderId::GrpcStatus] {
        black_box((head.get(id), head.get_all(id).count()));
    }
    for (index, field) in head.iter().enumerate() {
        assert_eq!(
            head.get_all_named(field.id, field.name).count() > 0,
            !field.name.is_empty()
        );
        assert_eq!(head.value_bytes(index).as_deref(), Some(field.value));
    }
    let failures = bug::failures() - before;
    assert_eq!(failures, 0, "spans outside of their bytes");
}

pub fn fields(head: &Head) -> Vec<(String, Vec<u8>)> {
    head.iter()
        .map(|f| {
            (
                String::from_utf8_lossy(f.name).into_owned(),
                f.value.to_vec(),
            )
        })
        .collect()
}

pub fn request_item(head: &Head) -> Item {
    let line = format!(
        "{} {} {} {:?}",
        head.method_name().escape_ascii(),
        head.authority().escape_ascii(),
        head.path_and_query().escape_ascii(),
        head.version(),
    );
    Item::Head(line, fields(head))
}

pub fn response_item(head: &Head) -> Item {
    let reason = head.reason().escape_ascii();
    Item::Head(format!("{} {reason}", head.status()), fields(head))
}
