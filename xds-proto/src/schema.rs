//! The schema of every message that can be read from or written as JSON.
//!
//! [`message`] finds a message by its full name; [`Message`] and [`Field`] walk it. The tables are
//! made at build time (`build/tables.rs`) for what `build/roots.rs` names and what that refers to.

/// A string: offset and length in the one text.
#[derive(Clone, Copy)]
struct Text(u32, u16);

impl Text {
    fn get(self) -> &'static str {
        let start = self.0 as usize;
        &TEXT[start..start + usize::from(self.1)]
    }
}

struct MessageRow {
    name: Text,
    start: u16,
    count: u16,
}

struct FieldRow {
    name: Text,
    json: Text,
    number: u32,
    kind: Kind,
    repeated: bool,
    map: bool,
    presence: bool,
    oneof: u8,
    target: u16,
}

struct EnumRow {
    name: Text,
    start: u16,
    count: u16,
}

struct ValueRow {
    name: Text,
    number: i32,
}

static TEXT: &str = include_str!(concat!(env!("OUT_DIR"), "/schema_text.txt"));
include!(concat!(env!("OUT_DIR"), "/schema_tables.rs"));

/// A field's type, as `google.protobuf.FieldDescriptorProto` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Double,
    Float,
    Int64,
    Uint64,
    Int32,
    Fixed64,
    Fixed32,
    Bool,
    String,
    Message,
    Bytes,
    Uint32,
    Enum,
    Sfixed32,
    Sfixed64,
    Sint32,
    Sint64,
}

/// A message type.
#[derive(Clone, Copy)]
pub struct Message(&'static MessageRow);

/// One field of a message type.
#[derive(Clone, Copy)]
pub struct Field(&'static FieldRow);

/// An enum type.
#[derive(Clone, Copy)]
pub struct Enum(&'static EnumRow);

/// The message type of that full name, such as `envoy.config.listener.v3.Listener`.
pub fn message(name: &str) -> Option<Message> {
    let index = MESSAGES
        .binary_search_by(|row| row.name.get().cmp(name))
        .ok()?;
    Some(Message(&MESSAGES[index]))
}

/// All message types, by name.
pub fn messages() -> impl Iterator<Item = Message> {
    MESSAGES.iter().map(Message)
}

impl Message {
    pub fn name(self) -> &'static str {
        self.0.name.get()
    }

    /// By number, ascending.
    pub fn fields(self) -> impl Iterator<Item = Field> {
        self.rows().iter().map(Field)
    }

    pub fn field_by_number(self, number: u32) -> Option<Field> {
        let rows = self.rows();
        let index = rows.binary_search_by(|row| row.number.cmp(&number)).ok()?;
        Some(Field(&rows[index]))
    }

    /// By its name in the proto or by its name in JSON.
    pub fn field_by_name(self, name: &str) -> Option<Field> {
        self.fields()
            .find(|field| field.name() == name || field.json_name() == name)
    }

    fn rows(self) -> &'static [FieldRow] {
        let start = usize::from(self.0.start);
        &FIELDS[start..start + usize::from(self.0.count)]
    }
}

impl Field {
    /// As the proto spells it.
    pub fn name(self) -> &'static str {
        self.0.name.get()
    }

    /// As JSON spells it (lowerCamelCase).
    pub fn json_name(self) -> &'static str {
        self.0.json.get()
    }

    pub fn number(self) -> u32 {
        self.0.number
    }

    pub fn kind(self) -> Kind {
        self.0.kind
    }

    /// A list; maps are not lists here.
    pub fn is_list(self) -> bool {
        self.0.repeated && !self.0.map
    }

    pub fn is_map(self) -> bool {
        self.0.map
    }

    /// Whether absent differs from the type's default value.
    pub fn has_presence(self) -> bool {
        self.0.presence || (self.0.kind == Kind::Message && !self.0.repeated)
    }

    /// Which of the message's oneofs it is a case of.
    pub fn oneof(self) -> Option<u8> {
        (self.0.oneof != 0).then_some(self.0.oneof)
    }

    /// Its message type; of a map: the entry with its `key` and `value`.
    pub fn message(self) -> Option<Message> {
        (self.0.kind == Kind::Message).then(|| Message(&MESSAGES[usize::from(self.0.target)]))
    }

    /// Its enum type.
    pub fn enumeration(self) -> Option<Enum> {
        (self.0.kind == Kind::Enum).then(|| Enum(&ENUMS[usize::from(self.0.target)]))
    }
}

impl Enum {
    pub fn name(self) -> &'static str {
        self.0.name.get()
    }

    /// Names and numbers, as declared.
    pub fn values(self) -> impl Iterator<Item = (&'static str, i32)> {
        let start = usize::from(self.0.start);
        VALUES[start..start + usize::from(self.0.count)]
            .iter()
            .map(|row| (row.name.get(), row.number))
    }

    /// The number of the value of that name.
    pub fn number(self, name: &str) -> Option<i32> {
        self.values()
            .find(|(known, _)| *known == name)
            .map(|(_, number)| number)
    }

    /// The first name of that number.
    pub fn name_of(self, number: i32) -> Option<&'static str> {
        self.values()
            .find(|(_, known)| *known == number)
            .map(|(name, _)| name)
    }
}

/// The candidate that `wrong` was most likely meant to be: at most two or a third of its letters
/// away.
pub fn nearest<'a>(wrong: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = (wrong.len() / 3).min(2);
    candidates
        .filter(|candidate| candidate.len().abs_diff(wrong.len()) <= allowed)
        .map(|candidate| (distance(wrong.as_bytes(), candidate.as_bytes()), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Edit distance, one row at a time.
fn distance(a: &[u8], b: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_found_by_name_and_fields_by_either_name_or_number() {
        assert!(
            MESSAGES.is_sorted_by(|a, b| a.name.get() < b.name.get()),
            "binary search needs sorted names"
        );
        let listener = message("envoy.config.listener.v3.Listener").unwrap();
        let chains = listener.field_by_name("filterChains").unwrap();
        assert_eq!(chains.name(), "filter_chains");
        assert!(chains.is_list());
        assert_eq!(
            chains.message().unwrap().name(),
            "envoy.config.listener.v3.FilterChain"
        );
        assert_eq!(
            listener.field_by_number(chains.number()).unwrap().name(),
            "filter_chains"
        );
        assert!(message("envoy.config.listener.v3.Nothing").is_none());
        let node = message("envoy.config.core.v3.Node").unwrap();
        let params = node.field_by_name("dynamic_parameters").unwrap();
        assert!(params.is_map());
        assert_eq!(params.message().unwrap().fields().count(), 2);
    }

    #[test]
    fn a_slip_of_the_pen_is_recognised() {
        let names = ["filter_chains", "listener_filters"];
        assert_eq!(
            nearest("filter_chain", names.into_iter()),
            Some("filter_chains")
        );
        assert_eq!(nearest("chains", names.into_iter()), None);
    }
}
