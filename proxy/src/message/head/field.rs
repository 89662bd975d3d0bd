//! What a head is made of: spans, fields and the small types of the start line.

use std::ops::Range;

use super::{Head, HeaderId};
use crate::bug;

/// A range of the received bytes, or of the scratch bytes when the top bit of `at` is set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Span {
    at: u32,
    len: u32,
}

const EXTRA: u32 = 1 << 31;

impl Span {
    pub const EMPTY: Self = Self { at: 0, len: 0 };

    /// A range of the received bytes. Heads are limited far below 2 GiB.
    #[inline]
    pub fn received(start: usize, len: usize) -> Self {
        Self {
            at: start as u32 & !EXTRA,
            len: len as u32,
        }
    }

    #[inline]
    pub fn extra(start: usize, len: usize) -> Self {
        Self {
            at: start as u32 | EXTRA,
            len: len as u32,
        }
    }

    #[inline]
    pub fn is_extra(self) -> bool {
        self.at & EXTRA != 0
    }

    #[inline]
    pub fn is_empty(self) -> bool {
        self.len == 0
    }

    #[inline]
    pub fn len(self) -> usize {
        self.len as usize
    }

    #[inline]
    pub fn start(self) -> usize {
        (self.at & !EXTRA) as usize
    }

    #[inline]
    pub fn range(self) -> Range<usize> {
        self.start()..self.start().saturating_add(self.len())
    }

    /// The same buffer, a part of the range.
    #[inline]
    pub fn part(self, range: Range<usize>) -> Self {
        Self {
            at: self.at.saturating_add(range.start as u32),
            len: range.end.saturating_sub(range.start) as u32,
        }
    }

    /// Its bytes. One that lies outside of them, which no decoder may leave behind, reads as empty
    /// and is counted.
    #[inline]
    pub fn of<'a>(self, buf: &'a [u8], extra: &'a [u8]) -> &'a [u8] {
        let from = if self.is_extra() { extra } else { buf };
        from.get(self.range()).unwrap_or_else(|| {
            bug::failed("a part of a head lies outside of its bytes");
            &[]
        })
    }
}

/// One field of a head.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    pub(crate) id: HeaderId,
    pub(crate) name: Span,
    pub(crate) value: Span,
}

impl Field {
    #[inline]
    pub(super) fn is(&self, id: HeaderId, name: &[u8], buf: &[u8], extra: &[u8]) -> bool {
        self.id == id
            && (id != HeaderId::Other
                || self.name.len() == name.len()
                    && self.name.of(buf, extra).eq_ignore_ascii_case(name))
    }
}

/// A field to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FieldRef<'a> {
    pub id: HeaderId,
    /// As spelled.
    pub name: &'a [u8],
    /// Without surrounding white space.
    pub value: &'a [u8],
}

/// The values of one name, in order.
#[derive(Clone, Debug)]
pub struct Values<'a, 'n> {
    line: Option<&'a [u8]>,
    fields: Option<(&'a Head, usize)>,
    id: HeaderId,
    name: &'n [u8],
}

impl<'a, 'n> Values<'a, 'n> {
    pub(super) fn once(line: Option<&'a [u8]>) -> Self {
        Self {
            line,
            fields: None,
            id: HeaderId::Other,
            name: b"",
        }
    }

    pub(super) fn all(head: &'a Head, id: HeaderId, name: &'n [u8]) -> Self {
        Self {
            line: None,
            fields: Some((head, 0)),
            id,
            name,
        }
    }
}

impl<'a> Iterator for Values<'a, '_> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        let Some((head, at)) = &mut self.fields else {
            return self.line.take();
        };
        while let Some(field) = head.fields.get(*at) {
            *at = at.saturating_add(1);
            if field.is(self.id, self.name, &head.buf, &head.extra) {
                return Some(head.slice(field.value));
            }
        }
        None
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    Http10,
    #[default]
    Http11,
    Http2,
}

impl Version {
    /// As in logs and `%PROTOCOL%`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Http10 => "HTTP/1.0",
            Self::Http11 => "HTTP/1.1",
            Self::Http2 => "HTTP/2",
        }
    }
}

/// A request method; [`Head::method_name`] has the bytes of the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Method {
    #[default]
    Get,
    Head,
    Post,
    Put,
    Delete,
    Connect,
    Options,
    Trace,
    Patch,
    Other,
}

impl Method {
    /// Methods are case-sensitive: `get` is some other method.
    #[inline]
    pub fn of(name: &[u8]) -> Self {
        match name {
            b"GET" => Self::Get,
            b"HEAD" => Self::Head,
            b"POST" => Self::Post,
            b"PUT" => Self::Put,
            b"DELETE" => Self::Delete,
            b"CONNECT" => Self::Connect,
            b"OPTIONS" => Self::Options,
            b"TRACE" => Self::Trace,
            b"PATCH" => Self::Patch,
            _ => Self::Other,
        }
    }

    /// Empty for [`Method::Other`].
    #[inline]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
            Self::Options => "OPTIONS",
            Self::Trace => "TRACE",
            Self::Patch => "PATCH",
            Self::Other => "",
        }
    }

    /// Whether it is a safe method (RFC 9110 9.2.1), which requests no change of the server's
    /// state.
    pub const fn is_safe(self) -> bool {
        matches!(self, Self::Get | Self::Head | Self::Options | Self::Trace)
    }
}

/// How the target of a request was written (RFC 9112 3.2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TargetForm {
    /// `/path?query`.
    #[default]
    Origin,
    /// `http://host/path`; scheme, authority and path are in their places.
    Absolute,
    /// `host:port` of CONNECT; the path is empty.
    Authority,
    /// `*` of OPTIONS; the path is `*`.
    Asterisk,
}
