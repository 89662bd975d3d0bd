//! What a scalar without quotes means: YAML 1.2's core schema (section 10.3.2), with `0b` beside
//! `0o` and `0x`. YAML 1.1's `yes`, `on` and `012` are texts.

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Meaning {
    Null,
    Bool(bool),
    Unsigned(u64),
    /// Below zero.
    Signed(i64),
    Float(f64),
    Text,
}

pub fn meaning(text: &str) -> Meaning {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Meaning::Null,
        "true" | "True" | "TRUE" => return Meaning::Bool(true),
        "false" | "False" | "FALSE" => return Meaning::Bool(false),
        ".nan" | ".NaN" | ".NAN" => return Meaning::Float(f64::NAN),
        _ => {}
    }
    let (negative, rest) = match text.as_bytes()[0] {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if let ".inf" | ".Inf" | ".INF" = rest {
        let signs = [f64::INFINITY, f64::NEG_INFINITY];
        return Meaning::Float(signs[usize::from(negative)]);
    }
    integer(rest, negative)
        .or_else(|| float(text, rest))
        .unwrap_or(Meaning::Text)
}

/// The meaning of an unquoted scalar to readers of YAML 1.1, such as go-yaml 2, which kubectl uses:
/// `yes` and `on` are booleans, `012` is octal, and `_` may separate digits.
pub fn meaning_in_yaml_1_1(text: &str) -> Meaning {
    match text {
        "y" | "Y" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => return Meaning::Bool(true),
        "n" | "N" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => return Meaning::Bool(false),
        _ => {}
    }
    // `_` may be between digits and after a sign; a scalar that begins with it is a string.
    if text.starts_with('_') {
        return Meaning::Text;
    }
    let negative = text.starts_with('-');
    let unsigned = text
        .strip_prefix(['+', '-'])
        .unwrap_or(text)
        .replace('_', "");
    if !unsigned.starts_with(|first: char| first.is_ascii_digit()) {
        return meaning(text);
    }
    let sign = if negative { "-" } else { "" };
    let octal = unsigned.strip_prefix('0').filter(|rest| !rest.is_empty());
    let octal = octal.map(|digits| meaning(&format!("{sign}0o{digits}")));
    if let Some(number @ (Meaning::Unsigned(_) | Meaning::Signed(_))) = octal {
        return number;
    }
    // Decimal, because `09` and `00.5` are no octal numbers.
    let decimal = unsigned.trim_start_matches('0');
    let decimal = match decimal.starts_with(|first: char| first.is_ascii_digit()) {
        true => meaning(&format!("{sign}{decimal}")),
        false => meaning(&format!("{sign}0{decimal}")),
    };
    match (meaning(&format!("{sign}{unsigned}")), decimal) {
        (Meaning::Text, Meaning::Text) => Meaning::Text,
        (Meaning::Text, decimal) => decimal,
        (same, _) => same,
    }
}

/// Whether readers of YAML 1.1 take an unquoted text for another type.
pub fn is_other_in_yaml_1_1(text: &str) -> bool {
    meaning_in_yaml_1_1(text) != Meaning::Text
}

fn integer(digits: &str, negative: bool) -> Option<Meaning> {
    let prefixes = [("0x", 16), ("0o", 8), ("0b", 2)];
    let prefixed = prefixes
        .into_iter()
        .find_map(|(prefix, radix)| Some((digits.strip_prefix(prefix)?, radix)));
    let (digits, radix) = prefixed.unwrap_or((digits, 10));
    // `parse` would take a second sign.
    if !digits.bytes().all(|byte| byte.is_ascii_alphanumeric()) || padded(digits, radix) {
        return None;
    }
    let size = u64::from_str_radix(digits, radix).ok()?;
    match negative && size != 0 {
        false => Some(Meaning::Unsigned(size)),
        true => Some(Meaning::Signed(0i64.checked_sub_unsigned(size)?)),
    }
}

/// `012` is octal to some readers and twelve to others: a text.
fn padded(digits: &str, radix: u32) -> bool {
    radix == 10 && digits.len() > 1 && digits.starts_with('0')
}

fn float(text: &str, unsigned: &str) -> Option<Meaning> {
    let whole = unsigned.split(['.', 'e', 'E']).next().unwrap_or_default();
    // Without this `inf`, `nan` and `infinity` would be numbers, as they are to `parse`.
    let begins = unsigned
        .strip_prefix('.')
        .unwrap_or(unsigned)
        .starts_with(|first: char| first.is_ascii_digit());
    if !begins || padded(whole, 10) {
        return None;
    }
    let value: f64 = text.parse().ok()?;
    value.is_finite().then_some(Meaning::Float(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalars_as_kubectl_reads_them() {
        for (text, expected) in [
            ("yes", Meaning::Bool(true)),
            ("Off", Meaning::Bool(false)),
            ("oFf", Meaning::Text),
            ("0644", Meaning::Unsigned(0o644)),
            ("-0644", Meaning::Signed(-0o644)),
            ("0o644", Meaning::Unsigned(0o644)),
            ("1_000", Meaning::Unsigned(1000)),
            ("09", Meaning::Unsigned(9)),
            ("00.5", Meaning::Float(0.5)),
            ("00", Meaning::Unsigned(0)),
            ("0", Meaning::Unsigned(0)),
            ("12", Meaning::Unsigned(12)),
            ("1.10", Meaning::Float(1.1)),
            ("1m30s", Meaning::Text),
            ("10.0.0.1", Meaning::Text),
            ("0a", Meaning::Text),
            ("2026-01-02", Meaning::Text),
            ("-", Meaning::Text),
            ("_1", Meaning::Text),
            ("-_1", Meaning::Signed(-1)),
            ("", Meaning::Null),
            ("true", Meaning::Bool(true)),
        ] {
            assert_eq!(meaning_in_yaml_1_1(text), expected, "{text:?}");
        }
    }

    #[test]
    fn the_core_schema() {
        for (text, expected) in [
            ("", Meaning::Null),
            ("~", Meaning::Null),
            ("nUll", Meaning::Text),
            ("True", Meaning::Bool(true)),
            ("yes", Meaning::Text),
            ("0", Meaning::Unsigned(0)),
            ("-0", Meaning::Unsigned(0)),
            ("+12", Meaning::Unsigned(12)),
            ("-12", Meaning::Signed(-12)),
            ("--12", Meaning::Text),
            ("+-12", Meaning::Text),
            ("012", Meaning::Text),
            ("0x1F", Meaning::Unsigned(31)),
            ("0x", Meaning::Text),
            ("0x-1", Meaning::Text),
            ("0o17", Meaning::Unsigned(15)),
            ("0b11", Meaning::Unsigned(3)),
            ("1_000", Meaning::Text),
            ("18446744073709551615", Meaning::Unsigned(u64::MAX)),
            (
                "18446744073709551616",
                Meaning::Float(18_446_744_073_709_551_616.0),
            ),
            ("-9223372036854775808", Meaning::Signed(i64::MIN)),
            (
                "-9223372036854775809",
                Meaning::Float(-9_223_372_036_854_775_809.0),
            ),
            ("1.5", Meaning::Float(1.5)),
            (".5", Meaning::Float(0.5)),
            ("-.5e3", Meaning::Float(-500.0)),
            ("1.", Meaning::Float(1.0)),
            ("00.5", Meaning::Text),
            ("1e999", Meaning::Text),
            ("inf", Meaning::Text),
            ("nan", Meaning::Text),
            ("-.inf", Meaning::Float(f64::NEG_INFINITY)),
            ("10.0.0.1", Meaning::Text),
            ("1m30s", Meaning::Text),
            ("-", Meaning::Text),
            (".", Meaning::Text),
        ] {
            assert_eq!(meaning(text), expected, "{text:?}");
        }
    }
}
