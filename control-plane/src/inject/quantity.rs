//! Kubernetes' quantities: `250m`, `1.5`, `64Mi`, `1e3`.

use serde::{Deserialize, Serialize};

/// Digits before and after the point; 20 suffice for any amount of memory in bytes.
const MOST_DIGITS: usize = 20;

/// An amount of CPU or memory, as it was written.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Quantity {
    text: String,
    /// In billionths.
    nano: u128,
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Quantity {}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is no quantity such as 250m, 2, 64Mi or 1Gi")]
pub struct NoQuantity;

impl Quantity {
    /// # Errors
    /// It is no quantity, below zero, or beyond what the API server takes.
    pub fn parse(text: &str) -> Result<Self, NoQuantity> {
        let nano = nano(text).ok_or(NoQuantity)?;
        Ok(Quantity {
            text: text.to_owned(),
            nano,
        })
    }

    pub fn is_above(&self, other: &Quantity) -> bool {
        self.nano > other.nano
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl TryFrom<String> for Quantity {
    type Error = NoQuantity;

    fn try_from(text: String) -> Result<Self, NoQuantity> {
        Quantity::parse(&text)
    }
}

impl From<Quantity> for String {
    fn from(quantity: Quantity) -> String {
        quantity.text
    }
}

fn nano(text: &str) -> Option<u128> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.');
    let (number, suffix) = text.split_at(end.unwrap_or(text.len()));
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = whole.len().saturating_add(fraction.len());
    if digits == 0 || digits > MOST_DIGITS || fraction.contains('.') {
        return None;
    }
    let value: u128 = format!("{whole}{fraction}").parse().ok()?;
    // Billionths of a unit, divided by ten for each digit after the point.
    let scaled = value.checked_mul(unit(suffix)?)?;
    let divisor = 10u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    // Rounded up, as Kubernetes does.
    Some(scaled.div_ceil(divisor))
}

/// One unit of a suffix, in billionths.
fn unit(suffix: &str) -> Option<u128> {
    const ONE: u128 = 1_000_000_000;
    let binary = |power: u32| ONE.checked_mul(1024u128.checked_pow(power)?);
    let decimal = |power: u32| ONE.checked_mul(10u128.checked_pow(power)?);
    match suffix {
        "n" => Some(1),
        "u" => Some(1_000),
        "m" => Some(1_000_000),
        "" => Some(ONE),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        "Ki" => binary(1),
        "Mi" => binary(2),
        "Gi" => binary(3),
        "Ti" => binary(4),
        "Pi" => binary(5),
        "Ei" => binary(6),
        _ => exponent(suffix.strip_prefix(['e', 'E'])?),
    }
}

fn exponent(text: &str) -> Option<u128> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let power: i32 = text.parse().ok()?;
    // An amount below a billionth rounds to nothing, and no memory has 10^18 units: both are
    // refused.
    let power = u32::try_from(power.checked_add(9)?).ok()?;
    (power <= 27).then(|| 10u128.pow(power))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_and_compared() {
        for (text, nano) in [
            ("0", 0),
            ("2", 2_000_000_000),
            ("250m", 250_000_000),
            ("1.5", 1_500_000_000),
            (".5", 500_000_000),
            ("5.", 5_000_000_000),
            ("1Ki", 1_024_000_000_000),
            ("1k", 1_000_000_000_000),
            ("1e3", 1_000_000_000_000),
            ("1E", 1_000_000_000_000_000_000_000_000_000),
            ("1E3", 1_000_000_000_000),
            ("1e-3", 1_000_000),
            ("1n", 1),
            ("0.5n", 1),
        ] {
            assert_eq!(Quantity::parse(text).map(|q| q.nano), Ok(nano), "{text}");
        }
        let of = |text| Quantity::parse(text).unwrap();
        assert!(of("1Gi").is_above(&of("1G")));
        assert!(!of("1000m").is_above(&of("1")));
    }

    #[test]
    fn what_is_no_quantity_is_refused() {
        for text in [
            "",
            "-1",
            "+1",
            "1 Gi",
            "1mi",
            "1MB",
            "1e",
            "1e+",
            "1e99",
            ".",
            "1.2.3",
            "Mi",
            "1ee3",
            "123456789012345678901",
        ] {
            assert!(Quantity::parse(text).is_err(), "{text}");
        }
    }
}
