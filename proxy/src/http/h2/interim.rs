//! Interim responses of one exchange: how many may come, and those that came before they could be
//! forwarded.
//!
//! Flow control does not cover them, so an upstream may send them faster than the client takes them.
//! Each is checked and converted as it is received, and what waits is bounded in number and bytes.

use std::collections::VecDeque;

use super::super::h1::MAX_INTERIM;
use super::convert::{self, HeadBounds};
use crate::message::fault::Fault;
use crate::message::head::Head;

/// Bytes of the heads that wait for the client, 32 a field on top, as HPACK counts. A single head
/// may have as many as its own bound allows.
const MAX_WAITING: usize = 64 * 1024;

/// See the module.
#[derive(Default)]
pub(super) struct InterimResponses {
    /// Received so far.
    count: u8,
    waiting: VecDeque<Head>,
    /// Bytes of those that wait.
    bytes: usize,
}

impl InterimResponses {
    /// Converts one that was received into `head`.
    ///
    /// # Errors
    /// When it is one too many, or not acceptable.
    pub(super) fn convert(
        &mut self,
        received: http::Response<()>,
        bounds: HeadBounds,
        spell: bool,
        head: &mut Head,
    ) -> Result<(), Fault> {
        self.count = self.count.saturating_add(1);
        if self.count > MAX_INTERIM {
            return Err(Fault::TooManyInterim);
        }
        let (parts, ()) = received.into_parts();
        convert::response_in(head, parts.status, &parts.headers, bounds, spell).map(drop)
    }

    /// Keeps one until it is asked for.
    ///
    /// # Errors
    /// When too many bytes wait already.
    pub(super) fn keep(&mut self, head: Head, bounds: HeadBounds) -> Result<(), Fault> {
        self.bytes = self.bytes.saturating_add(size(&head));
        if self.bytes > MAX_WAITING.max(bounds.bytes) {
            return Err(Fault::TooManyInterim);
        }
        self.waiting.push_back(head);
        Ok(())
    }

    /// The next of those that were kept.
    pub(super) fn pop(&mut self) -> Option<Head> {
        let head = self.waiting.pop_front()?;
        self.bytes = self.bytes.saturating_sub(size(&head));
        Some(head)
    }
}

fn size(head: &Head) -> usize {
    head.iter().fold(0, |sum, field| {
        [field.name.len(), field.value.len(), 32]
            .iter()
            .fold(sum, |sum, part| usize::saturating_add(sum, *part))
    })
}

#[cfg(test)]
mod tests {
    use http::header::{HeaderName, HeaderValue};

    use super::*;

    const BOUNDS: HeadBounds = HeadBounds {
        bytes: 16 * 1024,
        fields: 10,
    };

    fn hints(fields: usize, value: usize) -> http::Response<()> {
        let mut response = http::Response::new(());
        *response.status_mut() = http::StatusCode::EARLY_HINTS;
        for n in 0..fields {
            let name = HeaderName::from_bytes(format!("x-{n}").as_bytes()).unwrap();
            let value = HeaderValue::from_str(&"v".repeat(value)).unwrap();
            response.headers_mut().insert(name, value);
        }
        response
    }

    fn receive(interim: &mut InterimResponses, one: http::Response<()>) -> Result<(), Fault> {
        let mut head = Head::new();
        interim.convert(one, BOUNDS, false, &mut head)?;
        interim.keep(head, BOUNDS)
    }

    #[test]
    fn one_that_is_not_acceptable_does_not_wait() {
        let mut interim = InterimResponses::default();
        assert_eq!(receive(&mut interim, hints(10, 10)), Ok(()));
        assert_eq!(
            receive(&mut interim, hints(11, 10)),
            Err(Fault::TooManyFields)
        );
        assert_eq!(
            receive(&mut interim, hints(1, 17 << 10)),
            Err(Fault::HeadTooLarge)
        );
        assert_eq!(interim.pop().map(|head| head.len()), Some(10));
        assert!(interim.pop().is_none());
    }

    #[test]
    fn bytes_that_wait_are_bounded_and_those_that_went_on_do_not_count() {
        let mut interim = InterimResponses::default();
        for _ in 0..5 {
            assert_eq!(receive(&mut interim, hints(1, 12 << 10)), Ok(()));
        }
        let one_more = receive(&mut interim, hints(1, 12 << 10));
        assert_eq!(one_more, Err(Fault::TooManyInterim));
        let mut interim = InterimResponses::default();
        for _ in 0..MAX_INTERIM {
            assert_eq!(receive(&mut interim, hints(1, 12 << 10)), Ok(()));
            assert!(interim.pop().is_some());
        }
        assert_eq!(
            receive(&mut interim, hints(1, 1)),
            Err(Fault::TooManyInterim)
        );
    }
}
