//! Medians, and how far the single values are from them.

use std::fmt;

use serde_json::{Value, json};

/// Values of one kind, from smallest to largest; never empty.
#[derive(Clone, Debug, PartialEq)]
pub struct Values(Vec<f64>);

impl Values {
    /// Sorts them; `None` for no values.
    pub fn new(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values
            .into_iter()
            .filter(|value| value.is_finite())
            .collect();
        values.sort_by(f64::total_cmp);
        (!values.is_empty()).then_some(Self(values))
    }

    /// Half are below, half above.
    pub fn median(&self) -> f64 {
        self.quantile(0.5)
    }

    /// A quarter is below.
    pub fn low(&self) -> f64 {
        self.quantile(0.25)
    }

    /// A quarter is above.
    pub fn high(&self) -> f64 {
        self.quantile(0.75)
    }

    /// All of it, for machines.
    pub fn to_json(&self) -> Value {
        json!({
            "median": self.median(),
            "low": self.low(),
            "high": self.high(),
            "values": self.0,
        })
    }

    /// Between two values, in proportion.
    fn quantile(&self, share: f64) -> f64 {
        let last = self.0.len() - 1;
        let at = share * last as f64;
        let below = at.floor() as usize;
        let above = (below + 1).min(last);
        self.0[below] + (self.0[above] - self.0[below]) * (at - at.floor())
    }
}

/// The median, and half the distance between the quartiles.
impl fmt::Display for Values {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let spread = (self.high() - self.low()) / 2.0;
        let digits = if self.median() < 10.0 { 2 } else { 1 };
        write!(f, "{:.digits$} ±{spread:.digits$}", self.median())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_lie_between_values_in_proportion() {
        let values = Values::new([4.0, 1.0, 3.0, 2.0]).unwrap();
        assert_eq!(
            [values.low(), values.median(), values.high()],
            [1.75, 2.5, 3.25]
        );
        let one = Values::new([7.0]).unwrap();
        assert_eq!([one.low(), one.median(), one.high()], [7.0; 3]);
    }

    #[test]
    fn shown_is_the_median_with_its_spread() {
        let show = |values: &[f64]| Values::new(values.iter().copied()).unwrap().to_string();
        assert_eq!(show(&[1.0, 1.1, 1.2, 1.3, 1.4]), "1.20 ±0.10");
        assert_eq!(show(&[36.04]), "36.0 ±0.0");
    }

    #[test]
    fn what_is_no_number_does_not_count() {
        assert_eq!(Values::new([]), None);
        assert_eq!(Values::new([f64::NAN, f64::INFINITY]), None);
        assert_eq!(Values::new([f64::NAN, 1.0]).unwrap().median(), 1.0);
    }
}
