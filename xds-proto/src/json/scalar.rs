//! Scalars and enums between JSON and the wire.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde_json::{Value, json};

use super::error::JsonError;
use crate::schema::{Field, Kind};
use crate::wire::{self, WireValue};

const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_padding_mode(DecodePaddingMode::Indifferent)
    .with_decode_allow_trailing_bits(true);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

/// A scalar ready for the wire.
pub enum Scalar {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    Bytes(Vec<u8>),
}

impl Scalar {
    /// Whether it is what an absent field without presence means.
    pub fn is_default(&self) -> bool {
        match self {
            Self::Varint(value) | Self::Fixed64(value) => *value == 0,
            Self::Fixed32(value) => *value == 0,
            Self::Bytes(bytes) => bytes.is_empty(),
        }
    }

    /// Appends it as field `number`.
    pub fn put(&self, out: &mut Vec<u8>, number: u32) {
        match self {
            Self::Bytes(bytes) => wire::put_bytes(out, number, bytes),
            Self::Varint(_) => wire::put_key(out, number, 0),
            Self::Fixed64(_) => wire::put_key(out, number, 1),
            Self::Fixed32(_) => wire::put_key(out, number, 5),
        }
        self.put_packed(out);
    }

    /// Appends it as an element of a packed list, which strings and bytes never are.
    pub fn put_packed(&self, out: &mut Vec<u8>) {
        match self {
            Self::Bytes(_) => {}
            Self::Varint(value) => wire::put_varint(out, *value),
            Self::Fixed64(value) => out.extend_from_slice(&value.to_le_bytes()),
            Self::Fixed32(value) => out.extend_from_slice(&value.to_le_bytes()),
        }
    }
}

/// Reads a scalar of `field`'s type.
pub fn read(field: Field, value: &Value) -> Result<Scalar, JsonError> {
    Ok(match field.kind() {
        Kind::Double => Scalar::Fixed64(double(value)?.to_bits()),
        Kind::Float => Scalar::Fixed32(float(value)?.to_bits()),
        Kind::Int64 => Scalar::Varint(integer::<i64>(value)? as u64),
        Kind::Uint64 => Scalar::Varint(integer(value)?),
        // Negative numbers are sign-extended to ten bytes.
        Kind::Int32 => Scalar::Varint(i64::from(integer::<i32>(value)?) as u64),
        Kind::Uint32 => Scalar::Varint(integer::<u32>(value)?.into()),
        Kind::Fixed64 => Scalar::Fixed64(integer(value)?),
        Kind::Sfixed64 => Scalar::Fixed64(integer::<i64>(value)? as u64),
        Kind::Fixed32 => Scalar::Fixed32(integer(value)?),
        Kind::Sfixed32 => Scalar::Fixed32(integer::<i32>(value)? as u32),
        Kind::Sint64 => {
            let value: i64 = integer(value)?;
            Scalar::Varint((value << 1 ^ value >> 63) as u64)
        }
        Kind::Sint32 => {
            let value: i32 = integer(value)?;
            Scalar::Varint(((value << 1 ^ value >> 31) as u32).into())
        }
        Kind::Bool => match value {
            Value::Bool(value) => Scalar::Varint((*value).into()),
            other => return Err(JsonError::expected("true or false", other)),
        },
        Kind::String => Scalar::Bytes(string(value)?.as_bytes().to_vec()),
        Kind::Bytes => Scalar::Bytes(bytes(string(value)?)?),
        Kind::Enum => Scalar::Varint(i64::from(enumeration(field, value)?) as u64),
        Kind::Message => return Err(JsonError::expected("a scalar", value)),
    })
}

/// Reads a map's key: JSON keys are strings whatever they mean.
pub fn read_key(field: Field, key: &str) -> Result<Scalar, JsonError> {
    let value = match (field.kind(), key) {
        (Kind::Bool, "true") => Value::Bool(true),
        (Kind::Bool, "false") => Value::Bool(false),
        _ => Value::String(key.to_owned()),
    };
    read(field, &value)
}

fn string(value: &Value) -> Result<&str, JsonError> {
    value
        .as_str()
        .ok_or_else(|| JsonError::expected("a string", value))
}

/// Base64 of either alphabet, padded or not.
fn bytes(text: &str) -> Result<Vec<u8>, JsonError> {
    let engine = if text.contains(['-', '_']) {
        &URL_SAFE
    } else {
        &STANDARD
    };
    engine
        .decode(text)
        .map_err(|error| JsonError::new(format!("expected bytes as base64: {error}")))
}

/// A whole number, as a number or as a string.
fn integer<T: TryFrom<i128>>(value: &Value) -> Result<T, JsonError> {
    let whole = match value {
        Value::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(value), _) => Some(value.into()),
            (None, Some(value)) => Some(value.into()),
            (None, None) => number.as_f64().and_then(whole),
        },
        Value::String(text) if !text.starts_with('+') => match text.parse::<i128>() {
            Ok(value) => Some(value),
            Err(_) => number_in(text).and_then(whole),
        },
        _ => None,
    }
    .ok_or_else(|| JsonError::expected("a whole number", value))?;
    T::try_from(whole).map_err(|_| {
        let kind = std::any::type_name::<T>();
        JsonError::new(format!("{whole} is out of range for {kind}"))
    })
}

/// A double that is a whole number.
fn whole(value: f64) -> Option<i128> {
    (value.fract() == 0.0 && value.abs() < 1e20).then_some(value as i128)
}

/// A JSON number in a string: Rust's parser takes more (`inf`, `+1`, ` 1`), JSON doesn't.
fn number_in(text: &str) -> Option<f64> {
    let digits = text
        .bytes()
        .all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte));
    let value: f64 = (digits && !text.starts_with('+')).then(|| text.parse().ok())??;
    value.is_finite().then_some(value)
}

fn double(value: &Value) -> Result<f64, JsonError> {
    let number = match value {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => match text.as_str() {
            "NaN" => Some(f64::NAN),
            "Infinity" => Some(f64::INFINITY),
            "-Infinity" => Some(f64::NEG_INFINITY),
            text => number_in(text),
        },
        _ => None,
    };
    number.ok_or_else(|| JsonError::expected("a number", value))
}

fn float(value: &Value) -> Result<f32, JsonError> {
    let wide = double(value)?;
    let narrow = wide as f32;
    if wide.is_finite() && narrow.is_infinite() {
        return Err(JsonError::new(format!(
            "{wide} is out of range for a float"
        )));
    }
    Ok(narrow)
}

fn enumeration(field: Field, value: &Value) -> Result<i32, JsonError> {
    let Some(kind) = field.enumeration() else {
        return Err(JsonError::expected("an enum", value));
    };
    match value {
        // JSON null is the one value of NullValue.
        Value::Null => Ok(0),
        Value::String(name) => kind.number(name).ok_or_else(|| {
            let known: Vec<&str> = kind.values().map(|(name, _)| name).take(24).collect();
            let error = JsonError::expected(kind.name(), value);
            JsonError::new(format!(
                "{}; it is one of {}",
                error.message,
                known.join(", ")
            ))
        }),
        other => integer(other),
    }
}

/// Writes a scalar of `field`'s type as JSON.
pub fn write(field: Field, value: WireValue<'_>) -> Result<Value, JsonError> {
    Ok(match (field.kind(), value) {
        (Kind::Double, WireValue::Fixed64(bits)) => real(f64::from_bits(bits)),
        (Kind::Float, WireValue::Fixed32(bits)) => real_short(f32::from_bits(bits)),
        (Kind::Int64, WireValue::Varint(value)) => (value as i64).to_string().into(),
        (Kind::Uint64, WireValue::Varint(value)) => value.to_string().into(),
        (Kind::Int32, WireValue::Varint(value)) => (value as i32).into(),
        (Kind::Uint32, WireValue::Varint(value)) => (value as u32).into(),
        (Kind::Fixed64, WireValue::Fixed64(value)) => value.to_string().into(),
        (Kind::Sfixed64, WireValue::Fixed64(value)) => (value as i64).to_string().into(),
        (Kind::Fixed32, WireValue::Fixed32(value)) => value.into(),
        (Kind::Sfixed32, WireValue::Fixed32(value)) => (value as i32).into(),
        (Kind::Sint64, WireValue::Varint(value)) => ((value >> 1) as i64
            ^ ((value & 1) as i64).wrapping_neg())
        .to_string()
        .into(),
        (Kind::Sint32, WireValue::Varint(value)) => {
            let value = value as u32;
            ((value >> 1) as i32 ^ ((value & 1) as i32).wrapping_neg()).into()
        }
        (Kind::Bool, WireValue::Varint(value)) => (value != 0).into(),
        (Kind::Enum, WireValue::Varint(value)) => enum_name(field, value as i32),
        (Kind::Bytes, WireValue::Bytes(bytes)) => STANDARD.encode(bytes).into(),
        (Kind::String, WireValue::Bytes(bytes)) => std::str::from_utf8(bytes)
            .map_err(|_| JsonError::new("a string that is not UTF-8"))?
            .into(),
        (kind, found) => {
            return Err(JsonError::new(format!(
                "no {kind:?} on the wire but {found:?}"
            )));
        }
    })
}

fn enum_name(field: Field, number: i32) -> Value {
    match field.enumeration() {
        Some(kind) if kind.name() == "google.protobuf.NullValue" => Value::Null,
        Some(kind) => kind
            .name_of(number)
            .map_or_else(|| number.into(), Into::into),
        None => number.into(),
    }
}

/// What an absent field means.
pub fn default(field: Field) -> WireValue<'static> {
    match wire::wire_type(field.kind()) {
        1 => WireValue::Fixed64(0),
        2 => WireValue::Bytes(&[]),
        5 => WireValue::Fixed32(0),
        _ => WireValue::Varint(0),
    }
}

pub fn real(value: f64) -> Value {
    if value.is_nan() {
        "NaN".into()
    } else if value.is_infinite() {
        if value > 0.0 {
            "Infinity".into()
        } else {
            "-Infinity".into()
        }
    } else if value.fract() == 0.0
        && value.abs() < 1e15
        && (value != 0.0 || value.is_sign_positive())
    {
        // As whole numbers are written by hand: 5, not 5.0.
        json!(value as i64)
    } else {
        json!(value)
    }
}

/// The shortest digits that are this float again, not the double's.
fn real_short(value: f32) -> Value {
    match value.to_string().parse::<f64>() {
        Ok(short) => real(short),
        Err(_) => real(value.into()),
    }
}
