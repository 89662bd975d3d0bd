//! The parts of a request's target.

use super::{Head, HeaderId, Method, Span, TargetForm};

impl Head {
    #[inline]
    pub fn method(&self) -> Method {
        self.method
    }

    /// The method's bytes, whichever it is.
    #[inline]
    pub fn method_name(&self) -> &[u8] {
        match self.method {
            Method::Other => self.slice(self.method_span),
            known => known.name().as_bytes(),
        }
    }

    pub fn set_method(&mut self, name: &[u8]) {
        self.method = Method::of(name);
        if self.method == Method::Other {
            self.method_span = self.scratch(name);
        }
    }

    #[inline]
    pub fn form(&self) -> TargetForm {
        self.form
    }

    pub fn set_form(&mut self, form: TargetForm) {
        self.form = form;
    }

    /// `http`, `https`, …; empty until the engine or an absolute target sets it.
    #[inline]
    pub fn scheme(&self) -> &[u8] {
        self.slice(self.scheme)
    }

    pub fn set_scheme(&mut self, scheme: &[u8]) {
        self.scheme = self.scratch(scheme);
    }

    /// Host and port as received; empty when HTTP/1.0 sent none.
    #[inline]
    pub fn authority(&self) -> &[u8] {
        self.slice(self.authority)
    }

    /// Changes the authority and, where there is one, the `Host` field, whose place and spelling are
    /// kept; further `Host` fields go.
    pub fn set_authority(&mut self, authority: &[u8]) {
        self.authority = self.scratch(authority);
        self.align_host();
    }

    /// Path and query, the one value that routing, policy, telemetry and upstream use.
    #[inline]
    pub fn path_and_query(&self) -> &[u8] {
        self.slice(self.path)
    }

    /// The path without its query.
    #[inline]
    pub fn path(&self) -> &[u8] {
        let all = self.path_and_query();
        match memchr::memchr(b'?', all) {
            Some(at) => all.split_at(at).0,
            None => all,
        }
    }

    /// What follows the first `?`, without it.
    #[inline]
    pub fn query(&self) -> Option<&[u8]> {
        let all = self.path_and_query();
        all.get(memchr::memchr(b'?', all)?.checked_add(1)?..)
    }

    /// Changes path and query.
    pub fn set_path_and_query(&mut self, path: &[u8]) {
        self.path = self.scratch(path);
    }

    /// Gives the `Host` field the authority's value and leaves only one.
    pub(crate) fn align_host(&mut self) {
        if self.present & HeaderId::Host.bit() == 0 {
            return;
        }
        let authority = self.authority;
        let mut seen = false;
        self.fields.retain_mut(|field| {
            if field.id != HeaderId::Host {
                return true;
            }
            field.value = authority;
            !std::mem::replace(&mut seen, true)
        });
    }

    /// The start line's part with a header's id.
    #[inline]
    pub(super) fn line_value(&self, id: HeaderId) -> Option<&[u8]> {
        let span = match id {
            HeaderId::Host | HeaderId::PseudoAuthority => self.authority,
            HeaderId::PseudoPath => self.path,
            HeaderId::PseudoScheme => self.scheme,
            HeaderId::PseudoMethod if self.status == 0 => return Some(self.method_name()),
            _ => Span::EMPTY,
        };
        (!span.is_empty()).then(|| self.slice(span))
    }
}
