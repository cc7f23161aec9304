//! A number of bytes as people read it.

use std::fmt;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

impl fmt::Display for Size {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
        if self.0 < 1 << 10 {
            return write!(formatter, "{} bytes", self.0);
        }
        // One decimal, cut off: what has 1.99 GiB mustn't seem to have reached a limit of 2.
        let reached = UNITS.iter().zip(1..).take_while(|(_, power)| self.0 >> (10 * power) > 0).last();
        let (unit, power) = reached.unwrap_or((&UNITS[0], 1));
        let tenths = (u128::from(self.0) * 10) >> (10 * power);
        write!(formatter, "{}.{} {unit}", tenths / 10, tenths % 10)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_shown_with_one_decimal() {
        for (bytes, text) in [
            (0, "0 bytes"),
            (1023, "1023 bytes"),
            (1024, "1.0 KiB"),
            ((2 << 20) - 1, "1.9 MiB"),
            (5 << 30, "5.0 GiB"),
            (u64::MAX, "16777215.9 TiB"),
        ] {
            assert_eq!(Size(bytes).to_string(), text);
        }
    }
}
