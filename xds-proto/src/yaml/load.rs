//! The parser's events into nodes.

use std::collections::{HashMap, HashSet};

use granit_parser::{Event, Parser, ScalarStyle, ScanError, StrInput, Tag};

use super::{Error, Node, Place, Value};

/// Collections inside collections, aliases followed.
const MAX_DEPTH: usize = 128;
/// Nodes of one text. One has some 60 bytes.
const MAX_NODES: usize = 8_000_000;
/// Nodes that anchors, aliases and merge keys may copy: a few lines can expand to billions.
const MAX_COPIES: usize = 1_000_000;

/// The documents of a text, in order. The first error is the last item: what follows cannot be
/// split into documents.
pub fn documents(text: &str) -> Documents<'_> {
    let options = granit_parser::options! {
        flow_nesting_limit: MAX_DEPTH,
        block_nesting_limit: MAX_DEPTH,
    };
    Documents {
        events: Some(Parser::new_from_str_with_options(text, options)),
        open: Vec::new(),
        anchors: HashMap::new(),
        nodes: 0,
        copies: 0,
    }
}

/// See [`documents`].
pub struct Documents<'t> {
    /// `None` once it has ended.
    events: Option<Parser<'t, StrInput<'t>>>,
    open: Vec<Open<'t>>,
    /// Of the present document.
    anchors: HashMap<usize, Built<'t>>,
    nodes: usize,
    copies: usize,
}

/// A collection whose end is still to come.
struct Open<'t> {
    node: Node<'t>,
    anchor: usize,
    /// A mapping's key that waits for its value.
    key: Option<Node<'t>>,
    nodes: usize,
    height: usize,
}

/// A whole node with what it takes to copy it.
#[derive(Clone)]
struct Built<'t> {
    node: Node<'t>,
    nodes: usize,
    height: usize,
}

impl<'t> Iterator for Documents<'t> {
    type Item = Result<Node<'t>, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let read = self.events.as_mut()?.next();
            let step = match read {
                None => Ok(None),
                Some(Ok((Event::StreamEnd, _))) => {
                    self.events = None;
                    return None;
                }
                Some(Ok((event, span))) => {
                    let place = Place {
                        line: span.start.line(),
                        column: span.start.col() + 1,
                    };
                    self.event(event, place)
                }
                Some(Err(error)) => Err(syntax(&error)),
            };
            match step {
                Ok(Some(document)) => return Some(Ok(document)),
                Ok(None) => {}
                Err(error) => {
                    self.events = None;
                    return Some(Err(error));
                }
            }
        }
    }
}

fn syntax(error: &ScanError) -> Error {
    let marker = error.marker();
    let place = Place {
        line: marker.line(),
        column: marker.col() + 1,
    };
    Error::new(place, error.info())
}

impl<'t> Documents<'t> {
    /// The document that this event completes.
    fn event(&mut self, event: Event<'t>, place: Place) -> Result<Option<Node<'t>>, Error> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let plain = match core_tag(tag.as_deref(), place)? {
                    None => style == ScalarStyle::Plain,
                    Some(Core::Text) => false,
                    Some(Core::Other) => true,
                };
                let value = Value::Scalar { text, plain };
                self.complete(
                    Built {
                        node: Node { place, value },
                        nodes: 1,
                        height: 0,
                    },
                    anchor,
                )
            }
            Event::SequenceStart(_, anchor, tag) => {
                core_tag(tag.as_deref(), place)?;
                self.begin(place, Value::Sequence(Vec::new()), anchor)
            }
            Event::MappingStart(_, anchor, tag) => {
                core_tag(tag.as_deref(), place)?;
                self.begin(place, Value::Mapping(Vec::new()), anchor)
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(),
            Event::Alias(anchor) => {
                let Some(built) = self.anchors.get(&anchor).cloned() else {
                    return Err(Error::new(place, "an alias stands inside of what it names"));
                };
                if self.open.len() + built.height > MAX_DEPTH {
                    return Err(too_deep(place));
                }
                self.copied(built.nodes, place)?;
                self.complete(built, 0)
            }
            Event::DocumentEnd => {
                self.anchors.clear();
                Ok(None)
            }
            _ => Ok(None),
        }
    }

    fn begin(
        &mut self,
        place: Place,
        value: Value<'t>,
        anchor: usize,
    ) -> Result<Option<Node<'t>>, Error> {
        if self.open.len() == MAX_DEPTH {
            return Err(too_deep(place));
        }
        self.open.push(Open {
            node: Node { place, value },
            anchor,
            key: None,
            nodes: 1,
            height: 1,
        });
        Ok(None)
    }

    fn end(&mut self) -> Result<Option<Node<'t>>, Error> {
        let Some(mut open) = self.open.pop() else {
            return Ok(None);
        };
        if let Value::Mapping(entries) = &mut open.node.value {
            unique(entries)?;
            if let Some(merged) = merge(entries)? {
                open.nodes += merged;
                self.copied(merged, open.node.place)?;
            }
        }
        let built = Built {
            node: open.node,
            nodes: open.nodes,
            height: open.height,
        };
        self.complete(built, open.anchor)
    }

    /// Puts a whole node where it belongs.
    fn complete(&mut self, built: Built<'t>, anchor: usize) -> Result<Option<Node<'t>>, Error> {
        let place = built.node.place;
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            let message = format!("more than {MAX_NODES} values; split the file");
            return Err(Error::new(place, message));
        }
        if anchor != 0 {
            self.copied(built.nodes, place)?;
            self.anchors.insert(anchor, built.clone());
        }
        let Some(open) = self.open.last_mut() else {
            return Ok(Some(built.node));
        };
        open.nodes += built.nodes;
        open.height = open.height.max(built.height + 1);
        match (&mut open.node.value, open.key.take()) {
            (Value::Sequence(elements), _) => elements.push(built.node),
            (Value::Mapping(entries), Some(key)) => entries.push((key, built.node)),
            (Value::Mapping(_), None) if matches!(built.node.value, Value::Scalar { .. }) => {
                open.key = Some(built.node);
            }
            _ => return Err(Error::new(place, "a key must be a scalar")),
        }
        Ok(None)
    }

    fn copied(&mut self, nodes: usize, place: Place) -> Result<(), Error> {
        self.copies += nodes;
        match self.copies > MAX_COPIES {
            false => Ok(()),
            true => {
                let message = format!(
                    "anchors and aliases repeat more than {MAX_COPIES} values; write them out"
                );
                Err(Error::new(place, message))
            }
        }
    }
}

fn too_deep(place: Place) -> Error {
    Error::new(place, format!("nested deeper than {MAX_DEPTH} levels"))
}

/// A tag of the core schema.
enum Core {
    Text,
    Other,
}

fn core_tag(tag: Option<&Tag>, place: Place) -> Result<Option<Core>, Error> {
    match tag {
        None => Ok(None),
        Some(tag) if tag.is_yaml_core_schema_tag("str") => Ok(Some(Core::Text)),
        Some(tag) if tag.is_yaml_core_schema() => Ok(Some(Core::Other)),
        // The non-specific tag: not to be guessed at.
        Some(tag) if tag.parts() == ("", "!") => Ok(Some(Core::Text)),
        Some(tag) => {
            let message = format!("the tag {} is not supported", tag.original());
            Err(Error::new(place, message))
        }
    }
}

fn unique(entries: &[(Node<'_>, Node<'_>)]) -> Result<(), Error> {
    let mut seen = HashSet::with_capacity(entries.len());
    let twice = entries.iter().find(|(key, _)| !seen.insert(key.text()));
    twice.map_or(Ok(()), |(key, _)| {
        let name = key.text();
        Err(Error::new(key.place, format!("the key `{name}` is there twice")).in_field(name))
    })
}

/// `<<: *base` and `<<: [*base, *other]` (YAML 1.1's merge key, which kubectl's and Envoy's readers
/// know): what is not there yet is taken over. How many nodes, if it is used.
fn merge<'t>(entries: &mut Vec<(Node<'t>, Node<'t>)>) -> Result<Option<usize>, Error> {
    let is_merge = |(key, _): &(Node<'_>, Node<'_>)| matches!(&key.value, Value::Scalar { text, plain: true } if text == "<<");
    let Some(at) = entries.iter().position(is_merge) else {
        return Ok(None);
    };
    let (_, merged) = entries.remove(at);
    let wrong = |place| Error::new(place, "`<<` takes a mapping or a list of mappings");
    let sources = match merged.value {
        Value::Mapping(_) => vec![merged],
        Value::Sequence(elements) => elements,
        Value::Scalar { .. } => return Err(wrong(merged.place)),
    };
    let mut seen: HashSet<String> = entries
        .iter()
        .map(|(key, _)| key.text().to_owned())
        .collect();
    let mut nodes = 0;
    for source in sources {
        let Value::Mapping(more) = source.value else {
            return Err(wrong(source.place));
        };
        for (key, value) in more {
            if seen.insert(key.text().to_owned()) {
                nodes += 2;
                entries.push((key, value));
            }
        }
    }
    Ok(Some(nodes))
}
