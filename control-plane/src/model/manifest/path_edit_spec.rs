//! What a rewrite or a redirect makes of a path (HTTPPathModifier), as Gateway API v1 writes it.

use serde::Deserialize;

use super::object::FieldError;
use super::route::PathEdit;
use super::values::PathText;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PathEditSpec {
    #[serde(rename = "type")]
    kind: PathEditKind,
    #[serde(default)]
    replace_full_path: Option<String>,
    #[serde(default)]
    replace_prefix_match: Option<String>,
}

#[derive(Clone, Copy, Deserialize)]
enum PathEditKind {
    ReplaceFullPath,
    ReplacePrefixMatch,
}

/// # Errors
/// The field below `at` that is wrong.
pub fn rewrite(spec: Option<PathEditSpec>, at: &str) -> Result<Option<PathEdit>, FieldError> {
    spec.map(|spec| spec.read(&format!("{at}.path"), false))
        .transpose()
}

/// As [`rewrite`]; the whole path may have a query, in place of the request's.
///
/// # Errors
/// The field below `at` that is wrong.
pub fn redirect(spec: Option<PathEditSpec>, at: &str) -> Result<Option<PathEdit>, FieldError> {
    spec.map(|spec| spec.read(&format!("{at}.path"), true))
        .transpose()
}

impl PathEditSpec {
    fn read(self, at: &str, query: bool) -> Result<PathEdit, FieldError> {
        let checked = |field: &str, path: &str| -> Result<(), FieldError> {
            let checked = path.parse::<PathText>();
            let wrong = |message| FieldError::new(format!("{at}.{field}"), message);
            checked.map(drop).map_err(wrong)
        };
        match (self.kind, self.replace_full_path, self.replace_prefix_match) {
            (PathEditKind::ReplaceFullPath, Some(path), None) => {
                let split = path.split_once('?').filter(|_| query);
                let (bare, query) = split.unwrap_or((&path, ""));
                checked("replaceFullPath", bare)?;
                // A query has the characters of a path, and more question marks.
                checked(
                    "replaceFullPath",
                    &format!("/{}", query.replace(['?', '/', '.'], "")),
                )?;
                Ok(PathEdit::Full(path))
            }
            (PathEditKind::ReplacePrefixMatch, None, Some(path)) => {
                if !path.is_empty() {
                    checked("replacePrefixMatch", &path)?;
                }
                Ok(PathEdit::Prefix(path.trim_end_matches('/').to_owned()))
            }
            (PathEditKind::ReplaceFullPath, ..) => Err(FieldError::new(
                at,
                "must have `replaceFullPath` and no other settings",
            )),
            (PathEditKind::ReplacePrefixMatch, ..) => Err(FieldError::new(
                at,
                "must have `replacePrefixMatch` and no other settings",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_redirect_may_have_a_query() {
        let spec = |path: &str| PathEditSpec {
            kind: PathEditKind::ReplaceFullPath,
            replace_full_path: Some(path.to_owned()),
            replace_prefix_match: None,
        };
        for path in ["/in", "/in?next=/a/../b?c", "/?"] {
            let full = Ok(Some(PathEdit::Full(path.to_owned())));
            assert_eq!(redirect(Some(spec(path)), "r"), full);
            assert_eq!(rewrite(Some(spec(path)), "r").is_ok(), path == "/in");
        }
        for wrong in ["in", "?a", "/a b", "/a?b c", "/a?b#c", "/a#b"] {
            let error = redirect(Some(spec(wrong)), "r").unwrap_err();
            assert_eq!(error.path, "r.path.replaceFullPath", "{wrong}");
        }
    }
}
