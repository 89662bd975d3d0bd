//! Chooses among several declarations of one object, independently of the files' names: the oldest
//! (`creationTimestamp`); without ages, the one that is already in service.

use super::{About, FileError, Sourced};
use crate::model::ObjectId;

/// Of all declarations of an object, the one in service, and errors for the others.
/// `served`: the file whose declaration is in service now.
pub fn choose<'a>(
    id: &ObjectId,
    places: impl Iterator<Item = &'a Sourced> + Clone,
    served: Option<&str>,
) -> Option<(&'a Sourced, Vec<FileError>)> {
    let used = places.clone().min_by_key(|it| precedence(it, served))?;
    let others = places.filter(|it| it.file != used.file);
    let unused = others.map(|it| unused_error(id, used, it));
    Some((used, unused.collect()))
}

/// The smaller one is in service; equal ones are ordered by their files.
fn precedence<'a>(object: &'a Sourced, served: Option<&str>) -> (bool, &'a str, bool) {
    let created = object.object.meta().created.as_deref();
    (
        created.is_none(),
        created.unwrap_or_default(),
        served != Some(&object.file),
    )
}

fn unused_error(id: &ObjectId, used: &Sourced, unused: &Sourced) -> FileError {
    FileError {
        file: unused.file.clone(),
        line: unused.line,
        column: 1,
        field: "metadata.name".to_owned(),
        message: format!(
            "{id} is in {}:{} too, which is in service; this one is not used. Remove one of them",
            used.file, used.line
        ),
        about: Some(About::Duplicate(id.clone())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::yaml;

    fn at(file: &str, created: Option<&str>) -> Sourced {
        let created = created.map_or(String::new(), |at| format!(", creationTimestamp: '{at}'"));
        let text = format!(
            "apiVersion: v1\nkind: Service\nmetadata: {{ name: a{created} }}\nspec: {{ ports: [{{ port: 80 }}] }}\n"
        );
        yaml::parse(file, &text).unwrap().remove(0)
    }

    /// The file that is used, and those that are not.
    fn used(served: &mut Option<String>, all: &[Sourced]) -> (String, Vec<String>) {
        let id = all[0].object.id();
        let (used, errors) = choose(&id, all.iter(), served.as_deref()).unwrap();
        *served = Some(used.file.clone());
        let places = errors.iter().map(|error| error.file.clone()).collect();
        (used.file.clone(), places)
    }

    #[test]
    fn the_older_one_serves_and_without_ages_the_one_that_did() {
        let both = |first, second| (first, vec![second]);
        let (old, new) = ("2020-01-01T00:00:00Z", "2021-01-01T00:00:00Z");
        let pair = |a, b| [at("1.yaml", a), at("2.yaml", b)];
        let mut state = None;
        let (one, two) = ("1.yaml".to_owned(), "2.yaml".to_owned());
        assert_eq!(
            used(&mut state, &[at("2.yaml", None)]),
            (two.clone(), vec![])
        );
        // A file of a smaller name comes later, and takes nothing over.
        assert_eq!(
            used(&mut state, &pair(None, None)),
            both(two.clone(), one.clone())
        );
        assert_eq!(
            used(&mut state, &pair(Some(new), Some(old))),
            both(two.clone(), one.clone())
        );
        assert_eq!(
            used(&mut state, &pair(Some(old), Some(new))),
            both(one.clone(), two.clone())
        );
        assert_eq!(
            used(&mut state, &pair(None, Some(new))),
            both(two.clone(), one.clone())
        );
        // The declaration in service is removed, and the other one is used.
        assert_eq!(
            used(&mut state, &pair(None, None)[..1]),
            (one.clone(), vec![])
        );
        assert_eq!(used(&mut state, &pair(None, None)), both(one.clone(), two));
        let mut fresh = None;
        assert_eq!(
            used(&mut fresh, &pair(None, None)).0,
            one,
            "at the start, in the order of files"
        );
    }
}
