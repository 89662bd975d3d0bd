//! Header edits of routes and their shares.

use xds_proto::envoy::config::core::v3 as core;

use crate::model::manifest::route::HeaderEdits;

/// As Envoy has them: what is to be removed, and what is set or added after that.
#[derive(Debug, Default, PartialEq)]
pub struct EnvoyEdits {
    pub add: Vec<core::HeaderValueOption>,
    pub remove: Vec<String>,
}

impl EnvoyEdits {
    pub fn of(edits: &HeaderEdits) -> Self {
        use core::header_value_option::HeaderAppendAction as Action;
        let set = edits
            .set
            .iter()
            .map(|pair| option(pair, Action::OverwriteIfExistsOrAdd));
        let add = edits
            .add
            .iter()
            .map(|pair| option(pair, Action::AppendIfExistsOrAdd));
        EnvoyEdits {
            add: set.chain(add).collect(),
            remove: edits.remove.clone(),
        }
    }
}

fn option(
    (name, value): &(String, String),
    action: core::header_value_option::HeaderAppendAction,
) -> core::HeaderValueOption {
    core::HeaderValueOption {
        header: Some(core::HeaderValue {
            key: name.clone(),
            // A percent sign begins a command in this place.
            value: value.replace('%', "%%"),
            ..core::HeaderValue::default()
        }),
        append_action: action as i32,
        keep_empty_value: true,
        ..core::HeaderValueOption::default()
    }
}

/// Those of a rule, and then those of one of its backends. Envoy applies a share's own edits first,
/// so the rule's are made part of them.
pub fn in_sequence(rule: &HeaderEdits, backend: &HeaderEdits) -> HeaderEdits {
    let same = |a: &str, b: &str| a.eq_ignore_ascii_case(b);
    let mut all = rule.clone();
    for name in &backend.remove {
        all.set.retain(|(other, _)| !same(other, name));
        all.add.retain(|(other, _)| !same(other, name));
        if !all.remove.iter().any(|other| same(other, name)) {
            all.remove.push(name.clone());
        }
    }
    for (name, value) in &backend.set {
        all.set.retain(|(other, _)| !same(other, name));
        all.add.retain(|(other, _)| !same(other, name));
        all.set.push((name.clone(), value.clone()));
    }
    all.add.extend(backend.add.iter().cloned());
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edits(set: &[(&str, &str)], add: &[(&str, &str)], remove: &[&str]) -> HeaderEdits {
        let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        HeaderEdits {
            set: set.iter().map(pair).collect(),
            add: add.iter().map(pair).collect(),
            remove: remove.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    #[test]
    fn a_backend_s_edits_come_after_the_rule_s() {
        let rule = edits(&[("A", "1"), ("b", "1")], &[("c", "1"), ("d", "1")], &["e"]);
        let backend = edits(&[("a", "2"), ("C", "2")], &[("d", "2"), ("e", "2")], &["B"]);
        let both = edits(
            &[("a", "2"), ("C", "2")],
            &[("d", "1"), ("d", "2"), ("e", "2")],
            &["e", "B"],
        );
        assert_eq!(in_sequence(&rule, &backend), both);
        assert_eq!(in_sequence(&rule, &HeaderEdits::default()), rule);
    }
}
