//! `Accept-Encoding` (RFC 9110 12.5.3), and the choice that Envoy makes by it.

use smallvec::SmallVec;

use crate::config::filter::ContentCoding;
use crate::message::head::{Head, HeaderId};

/// Entries that are read; each coding that is known may be named once.
const MAX_ENTRIES: usize = 16;

/// The codings that a client accepts, with their weights, in its order. Unknown ones are left out.
#[derive(Debug)]
pub struct AcceptEncoding(SmallVec<[(Coding, f32); 4]>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coding {
    Known(ContentCoding),
    Identity,
    /// `*`
    Any,
}

/// A coding that a response may be given.
#[derive(Clone, Copy, Debug)]
pub struct Offer {
    pub coding: ContentCoding,
    /// Chosen before others of the same weight.
    pub first: bool,
}

/// The choice, and why.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EncodingChoice {
    Named(ContentCoding),
    /// The first of those that are offered.
    Wildcard(ContentCoding),
    /// The client prefers the response as it is.
    Identity,
    /// It accepts none of those that are offered.
    None,
}

impl AcceptEncoding {
    /// `None`: the request has no such header.
    pub fn of(request: &Head) -> Option<Self> {
        if !request.has(HeaderId::AcceptEncoding) {
            return None;
        }
        let values = request.get_all(HeaderId::AcceptEncoding);
        let entries = values.flat_map(|value| value.split(|byte| *byte == b','));
        Some(Self(entries.filter_map(entry).take(MAX_ENTRIES).collect()))
    }

    /// `offers`: in the order of the filters, each coding once.
    pub fn choose(&self, offers: &[Offer]) -> EncodingChoice {
        let is_refused = |offer: &Offer| {
            let refusal = (Coding::Known(offer.coding), 0.0);
            self.0.contains(&refusal)
        };
        let find = |coding| offers.iter().find(|offer| offer.coding == coding);
        let mut chosen = (Coding::Identity, 0.0);
        for &(coding, weight) in &self.0 {
            let is_first = match coding {
                Coding::Known(coding) => match find(coding) {
                    Some(offer) if !is_refused(offer) => offer.first,
                    _ => continue,
                },
                Coding::Identity | Coding::Any => false,
            };
            if weight > chosen.1 || weight == chosen.1 && is_first {
                chosen = (coding, weight);
            }
        }
        let mut left = offers.iter().filter(|offer| !is_refused(offer));
        match (chosen, left.next()) {
            (_, None) => EncodingChoice::None,
            ((_, weight), _) if weight <= 0.0 => EncodingChoice::None,
            ((Coding::Known(coding), _), _) => EncodingChoice::Named(coding),
            ((Coding::Identity, _), _) => EncodingChoice::Identity,
            ((Coding::Any, _), Some(first)) => EncodingChoice::Wildcard(first.coding),
        }
    }
}

/// One entry; `None`: of an unknown coding, or its weight is no number.
fn entry(text: &[u8]) -> Option<(Coding, f32)> {
    let mut parts = text.splitn(2, |byte| *byte == b';');
    let name = parts.next()?.trim_ascii();
    let named = |coding: &ContentCoding| name.eq_ignore_ascii_case(coding.name().as_bytes());
    let coding = match name {
        b"*" => Coding::Any,
        name if name.eq_ignore_ascii_case(b"identity") => Coding::Identity,
        _ => Coding::Known(ContentCoding::ALL.into_iter().find(named)?),
    };
    let weight = match parts.next() {
        Some(parameter) => weight(parameter)?,
        None => 1.0,
    };
    Some((coding, weight))
}

/// The weight in what follows the first semicolon; 1 if it is another parameter.
fn weight(parameter: &[u8]) -> Option<f32> {
    let mut parts = parameter.splitn(2, |byte| *byte == b'=');
    let (name, value) = (parts.next()?, parts.next());
    match value {
        Some(value) if name.trim_ascii().eq_ignore_ascii_case(b"q") => {
            let text = std::str::from_utf8(value.trim_ascii()).ok()?;
            text.parse().ok().filter(|weight: &f32| weight.is_finite())
        }
        _ => Some(1.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GZIP: Offer = Offer {
        coding: ContentCoding::Gzip,
        first: false,
    };
    const BROTLI: Offer = Offer {
        coding: ContentCoding::Brotli,
        first: false,
    };
    const ZSTD_FIRST: Offer = Offer {
        coding: ContentCoding::Zstd,
        first: true,
    };

    fn choose(header: &str, offers: &[Offer]) -> EncodingChoice {
        let mut head = Head::new();
        head.append(HeaderId::AcceptEncoding, header.as_bytes());
        AcceptEncoding::of(&head).unwrap().choose(offers)
    }

    #[test]
    fn the_client_weighs_and_the_filters_break_ties() {
        use ContentCoding::{Brotli, Gzip, Zstd};
        use EncodingChoice::{Identity, Named, None, Wildcard};
        let both = [GZIP, BROTLI];
        let all = [GZIP, BROTLI, ZSTD_FIRST];
        for (header, offers, wanted) in [
            ("gzip", &both[..], Named(Gzip)),
            ("GZIP", &both, Named(Gzip)),
            ("br, gzip", &both, Named(Brotli)),
            ("br;q=0.5, gzip", &both, Named(Gzip)),
            ("gzip;q=0.5,br;q=0.6 , identity", &both, Identity),
            ("gzip, br, zstd", &all, Named(Zstd)),
            ("gzip;q=0.9, br;q=0.8, zstd;q=0.8", &all, Named(Gzip)),
            ("identity", &both, Identity),
            ("identity;q=0.5, gzip;q=0.4", &both, Identity),
            ("identity;q=0, gzip;q=0.4", &both, Named(Gzip)),
            ("*", &both, Wildcard(Gzip)),
            ("gzip;q=0, *", &both, Wildcard(Brotli)),
            ("gzip;q=0, *", &[GZIP], None),
            ("*;q=0", &both, None),
            ("gzip;q=0", &both, None),
            ("deflate", &both, None),
            ("", &both, None),
            ("gzip;q=x", &both, None),
            ("gzip; q = 0.7, br;q=0.6", &both, Named(Gzip)),
            ("gzip;level=1", &both, Named(Gzip)),
            ("gzip;q=-1", &both, None),
            ("gzip;q=nan, br;q=inf", &both, None),
            ("zstd", &both, None),
        ] {
            assert_eq!(choose(header, offers), wanted, "{header}");
        }
        assert!(AcceptEncoding::of(&Head::new()).is_none());
        assert_eq!(choose("gzip", &[]), None);
    }

    proptest::proptest! {
        /// Whatever a client sends, it gets what is offered and what it does not refuse.
        #[test]
        fn only_what_is_offered_and_named_is_chosen(header in "(gzip|br|\\*|identity|[ ,;=q.0-9-]){0,20}") {
            match choose(&header, &[GZIP, BROTLI]) {
                EncodingChoice::Named(coding) => assert!(header.contains(coding.name()), "{header}"),
                EncodingChoice::Wildcard(_) => assert!(header.contains('*'), "{header}"),
                EncodingChoice::Identity => assert!(header.contains("identity"), "{header}"),
                EncodingChoice::None => {}
            }
            let refusing = format!("{header},gzip;q=0,br;q=0");
            if header.matches(',').count() < MAX_ENTRIES - 2 {
                let choice = choose(&refusing, &[GZIP, BROTLI]);
                let is_coded = matches!(choice, EncodingChoice::Named(_) | EncodingChoice::Wildcard(_));
                assert!(!is_coded, "{refusing}: {choice:?}");
            }
        }
    }

    #[test]
    fn the_list_is_bounded() {
        let mut head = Head::new();
        head.append(HeaderId::AcceptEncoding, "gzip,".repeat(10_000).as_bytes());
        let accepted = AcceptEncoding::of(&head).unwrap();
        assert_eq!(accepted.0.len(), MAX_ENTRIES);
    }
}
