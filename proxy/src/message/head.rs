//! The head of a message: start line and fields, ordered, spelling kept.
//!
//! A [`Head`] owns one slice of the read buffer (`buf`, the received bytes) and one scratch buffer
//! (`extra`, what was added or changed). Every name and value is a [`Span`] into one of the two, so
//! reading a head copies nothing, editing copies only the edit, and the encoder can emit unchanged
//! runs as they came. A head is cleared and used again; its vectors keep their capacity.
//!
//! One type serves requests, responses and trailers, HTTP/1 and HTTP/2. Of a request, the authority
//! and the path held here are the only ones: the `Host` field, where there is one, always has the
//! authority's value, and the encoder writes nothing else.
//!
//! `field` (spans, fields, start-line types) → `Head` (accessors, edits) → `request` (target parts);
//! `pool` keeps heads for the next message.

mod field;
mod pool;
mod request;

use bytes::Bytes;

pub(crate) use self::field::Span;
pub use self::field::{Field, FieldRef, Method, TargetForm, Values, Version};
pub use self::pool::Heads;
pub use super::header_id::{HeaderId, IdSet};

/// Scratch capacity kept over [`Head::clear`], bytes.
const KEEP_EXTRA: usize = 16 * 1024;
/// Field capacity kept over [`Head::clear`].
const KEEP_FIELDS: usize = 256;

/// See the module.
#[derive(Clone, Debug, Default)]
pub struct Head {
    pub(crate) buf: Bytes,
    pub(crate) extra: Vec<u8>,
    pub(crate) fields: Vec<Field>,
    /// One bit per [`HeaderId`] that `fields` holds.
    pub(crate) present: u128,
    pub(crate) version: Version,
    pub(crate) method: Method,
    pub(crate) form: TargetForm,
    pub(crate) method_span: Span,
    pub(crate) scheme: Span,
    pub(crate) authority: Span,
    pub(crate) path: Span,
    pub(crate) status: u16,
    pub(crate) reason: Span,
}

impl Head {
    pub fn new() -> Self {
        Self::default()
    }

    /// Empties the head for the next message. Capacity is kept within bounds; the slice of the read
    /// buffer is given back.
    pub fn clear(&mut self) {
        let mut extra = std::mem::take(&mut self.extra);
        let mut fields = std::mem::take(&mut self.fields);
        extra.clear();
        extra.shrink_to(KEEP_EXTRA);
        fields.clear();
        fields.shrink_to(KEEP_FIELDS);
        *self = Self {
            extra,
            fields,
            ..Self::default()
        };
    }

    /// Copies `other` into this head; its capacity is reused.
    pub fn copy_from(&mut self, other: &Head) {
        let mut extra = std::mem::take(&mut self.extra);
        let mut fields = std::mem::take(&mut self.fields);
        extra.clone_from(&other.extra);
        fields.clone_from(&other.fields);
        *self = Self {
            buf: other.buf.clone(),
            extra,
            fields,
            ..*other
        };
    }

    /// Reserves capacity for this many more fields, and bytes of names and values.
    pub fn reserve(&mut self, fields: usize, bytes: usize) {
        self.fields.reserve(fields);
        self.extra.reserve(bytes);
    }

    // ---- start line -------------------------------------------------------------------------

    #[inline]
    pub fn version(&self) -> Version {
        self.version
    }

    pub fn set_version(&mut self, version: Version) {
        self.version = version;
    }

    /// Status of a response; 0 for requests and trailers.
    #[inline]
    pub fn status(&self) -> u16 {
        self.status
    }

    /// Changes the status; the reason phrase becomes the registered one.
    pub fn set_status(&mut self, status: u16) {
        self.status = status;
        self.reason = Span::EMPTY;
    }

    /// The reason phrase as received; empty when there was none.
    #[inline]
    pub fn reason(&self) -> &[u8] {
        self.slice(self.reason)
    }

    // ---- fields -----------------------------------------------------------------------------

    /// Number of fields.
    #[inline]
    pub fn len(&self) -> usize {
        self.fields.len()
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// All fields in order.
    #[inline]
    pub fn iter(&self) -> impl ExactSizeIterator<Item = FieldRef<'_>> + Clone {
        self.fields.iter().map(|f| self.field_ref(f))
    }

    /// Whether a field with this id is there; no search. `Host` also counts as there when only the
    /// authority is known.
    #[inline]
    pub fn has(&self, id: HeaderId) -> bool {
        self.present & id.bit() != 0 || self.line_value(id).is_some()
    }

    /// The first value. Pseudo-header ids give the start line's parts, `Host` the authority.
    #[inline]
    pub fn get(&self, id: HeaderId) -> Option<&[u8]> {
        if self.present & id.bit() == 0 {
            return self.line_value(id);
        }
        let field = self.fields.iter().find(|f| f.id == id)?;
        Some(self.slice(field.value))
    }

    /// Every value in order. Pseudo-header ids give the start line's parts, `Host` the authority.
    #[inline]
    pub fn get_all(&self, id: HeaderId) -> Values<'_, 'static> {
        self.get_all_named(id, b"")
    }

    /// As [`Head::get`], by name, whatever its case.
    pub fn get_by_name(&self, name: &[u8]) -> Option<&[u8]> {
        match HeaderId::of(name) {
            HeaderId::Other => self.get_all_named(HeaderId::Other, name).next(),
            id => self.get(id),
        }
    }

    /// As [`Head::get_all`], by name, whatever its case.
    pub fn get_all_by_name<'n>(&self, name: &'n [u8]) -> Values<'_, 'n> {
        self.get_all_named(HeaderId::of(name), name)
    }

    /// As [`Head::get_all`] for a name whose id is known; the name counts only when the id is
    /// [`HeaderId::Other`].
    #[inline]
    pub fn get_all_named<'n>(&self, id: HeaderId, name: &'n [u8]) -> Values<'_, 'n> {
        if self.present & id.bit() == 0 {
            return Values::once(self.line_value(id));
        }
        Values::all(self, id, name)
    }

    /// Adds a field at the end, spelled in lower case. [`HeaderId::Other`] and pseudo-headers are
    /// not fields and are ignored.
    pub fn append(&mut self, id: HeaderId, value: &[u8]) {
        if id != HeaderId::Other && !id.is_pseudo() {
            self.push(id, id.name().as_bytes(), value);
        }
    }

    /// Adds a field at the end, spelled as given. CR, LF and NUL in the value become spaces; the
    /// name has to be a token (configuration and both codecs check that).
    pub fn append_named(&mut self, name: &[u8], value: &[u8]) {
        self.push(HeaderId::of(name), name, value);
    }

    /// As [`Head::append_named`] for an id that is known, and a value that HTTP/2's codec found to
    /// hold nothing that would end a line.
    pub fn append_token(&mut self, id: HeaderId, name: &[u8], value: &[u8]) {
        let start = self.extra.len();
        self.extra.extend_from_slice(name);
        self.extra.extend_from_slice(value);
        self.push_copied(id, start, name.len(), value.len());
    }

    /// Gives the first such field this value (place and spelling kept) and removes the others; adds
    /// the field when there is none.
    pub fn set(&mut self, id: HeaderId, value: &[u8]) {
        if id != HeaderId::Other && !id.is_pseudo() {
            self.replace(id, id.name().as_bytes(), value);
        }
    }

    /// As [`Head::set`], by name, whatever its case.
    pub fn set_named(&mut self, name: &[u8], value: &[u8]) {
        self.replace(HeaderId::of(name), name, value);
    }

    /// Removes all fields with this id; returns whether there was one.
    pub fn remove(&mut self, id: HeaderId) -> bool {
        self.remove_matching(id, b"")
    }

    /// As [`Head::remove`], by name, whatever its case.
    pub fn remove_named(&mut self, name: &[u8]) -> bool {
        self.remove_matching(HeaderId::of(name), name)
    }

    /// Removes all fields with any of these ids.
    #[inline]
    pub fn remove_all(&mut self, ids: IdSet) {
        if self.present & ids.0 != 0 {
            self.fields.retain(|field| field.id.bit() & ids.0 == 0);
            self.present &= !ids.0;
        }
    }

    /// Keeps only the fields for which `keep` returns true.
    pub fn retain(&mut self, mut keep: impl FnMut(FieldRef<'_>) -> bool) {
        let (buf, extra) = (&self.buf, &self.extra);
        let mut present = 0;
        self.fields.retain(|field| {
            let kept = keep(FieldRef {
                id: field.id,
                name: field.name.of(buf, extra),
                value: field.value.of(buf, extra),
            });
            present |= if kept { field.id.bit() } else { 0 };
            kept
        });
        self.present = present;
    }

    /// The value of the field at `index` as shared bytes: a slice of the read buffer when it came
    /// from there, else a copy. For HTTP/2's conversion.
    pub fn value_bytes(&self, index: usize) -> Option<Bytes> {
        let span = self.fields.get(index)?.value;
        Some(self.shared(span))
    }

    // ---- private to the crate ------------------------------------------------------------------

    /// Bytes of a span as shared bytes.
    pub(crate) fn shared(&self, span: Span) -> Bytes {
        let range = span.range();
        if span.is_extra() || range.end > self.buf.len() {
            Bytes::copy_from_slice(self.slice(span))
        } else {
            self.buf.slice(range)
        }
    }

    #[inline]
    pub(crate) fn slice(&self, span: Span) -> &[u8] {
        span.of(&self.buf, &self.extra)
    }

    #[inline]
    pub(crate) fn field_ref(&self, field: &Field) -> FieldRef<'_> {
        FieldRef {
            id: field.id,
            name: self.slice(field.name),
            value: self.slice(field.value),
        }
    }

    /// Adds a field whose bytes already lie in `buf` or `extra`.
    #[inline]
    pub(crate) fn push_spans(&mut self, id: HeaderId, name: Span, value: Span) {
        self.present |= id.bit();
        self.fields.push(Field { id, name, value });
    }

    /// Copies bytes that go into a head, without what would end a line.
    pub(crate) fn scratch(&mut self, bytes: &[u8]) -> Span {
        let start = self.extra.len();
        self.extra.extend_from_slice(bytes);
        self.replace_line_breaks(start);
        Span::extra(start, bytes.len())
    }

    /// Replaces CR, LF and NUL by spaces, from `start` in the scratch buffer on.
    fn replace_line_breaks(&mut self, start: usize) {
        let added = self.extra.get_mut(start..).unwrap_or_default();
        if memchr::memchr3(b'\r', b'\n', 0, added).is_none() {
            return;
        }
        for byte in added {
            if matches!(*byte, b'\r' | b'\n' | 0) {
                *byte = b' ';
            }
        }
    }

    fn push(&mut self, id: HeaderId, name: &[u8], value: &[u8]) {
        let start = self.extra.len();
        self.extra.extend_from_slice(name);
        self.extra.extend_from_slice(value);
        self.replace_line_breaks(start);
        self.push_copied(id, start, name.len(), value.len());
    }

    /// Adds a field whose name and value lie in the scratch, one after the other.
    fn push_copied(&mut self, id: HeaderId, start: usize, name: usize, value: usize) {
        let value = Span::extra(start.saturating_add(name), value);
        self.push_spans(id, Span::extra(start, name), value);
        if id == HeaderId::Host && self.authority.is_empty() {
            self.authority = value;
        }
    }

    fn replace(&mut self, id: HeaderId, name: &[u8], value: &[u8]) {
        if id == HeaderId::Host {
            self.set_authority(value);
            return;
        }
        if self.position(id, name).is_none() {
            return self.push(id, name, value);
        }
        let value = self.scratch(value);
        let mut replaced = false;
        let (buf, extra) = (&self.buf, &self.extra);
        self.fields.retain_mut(|field| {
            if !field.is(id, name, buf, extra) {
                return true;
            }
            field.value = value;
            !std::mem::replace(&mut replaced, true)
        });
    }

    fn remove_matching(&mut self, id: HeaderId, name: &[u8]) -> bool {
        if self.present & id.bit() == 0 {
            return false;
        }
        let before = self.fields.len();
        let (buf, extra) = (&self.buf, &self.extra);
        self.fields.retain(|field| !field.is(id, name, buf, extra));
        if id != HeaderId::Other {
            self.present &= !id.bit();
        }
        before != self.fields.len()
    }

    fn position(&self, id: HeaderId, name: &[u8]) -> Option<usize> {
        if self.present & id.bit() == 0 {
            return None;
        }
        self.fields
            .iter()
            .position(|field| field.is(id, name, &self.buf, &self.extra))
    }
}

#[cfg(test)]
mod tests;
