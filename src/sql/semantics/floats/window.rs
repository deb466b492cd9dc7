//! Sums and means of floats over windows that move. DataFusion subtracts what leaves a window from one sum: a NaN or an infinity never
//! leaves it, and a large value takes the digits of small ones along. Here those are counted apart, and the sum keeps what its
//! last digit has lost (Neumaier's summation).

use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::Float64Type;
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::Accumulator;

use crate::sql::Error;

/// The sum, or the mean, of a window.
#[derive(Debug, Default)]
pub(super) struct Window {
    mean: bool,
    /// Of the finite values.
    sum: f64,
    /// What the sum lacks.
    lost: f64,
    /// Values: finite ones, NaN, infinite ones of either sign.
    finite: u64,
    nan: u64,
    positive: u64,
    negative: u64,
}

impl Window {
    pub(super) fn boxed(mean: bool) -> Box<dyn Accumulator> {
        Box::new(Self { mean, ..Self::default() })
    }

    /// The counter of values that are not finite; `None` for those that are.
    fn apart(&mut self, value: f64) -> Option<&mut u64> {
        match value {
            v if v.is_finite() => None,
            f64::INFINITY => Some(&mut self.positive),
            f64::NEG_INFINITY => Some(&mut self.negative),
            _ => Some(&mut self.nan),
        }
    }

    fn add(&mut self, value: f64) {
        let sum = self.sum + value;
        self.lost += match self.sum.abs() >= value.abs() {
            true => (self.sum - sum) + value,
            false => (value - sum) + self.sum,
        };
        self.sum = sum;
    }

    fn value(&self) -> Option<f64> {
        let count = self.finite + self.nan + self.positive + self.negative;
        if count == 0 {
            return None;
        }
        let sum = match (self.nan, self.positive, self.negative) {
            (0, 0, 0) if self.sum.is_finite() => self.sum + self.lost,
            (0, 0, 0) => self.sum,
            (0, _, 0) => f64::INFINITY,
            (0, 0, _) => f64::NEG_INFINITY,
            _ => f64::NAN,
        };
        Some(if self.mean { sum / count as f64 } else { sum })
    }
}

impl Accumulator for Window {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        for value in values[0].as_primitive::<Float64Type>().iter().flatten() {
            match self.apart(value) {
                Some(count) => *count += 1,
                None => {
                    self.finite += 1;
                    self.add(value);
                }
            }
        }
        Ok(())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        for value in values[0].as_primitive::<Float64Type>().iter().flatten() {
            match self.apart(value) {
                Some(count) => *count -= 1,
                None => {
                    self.finite -= 1;
                    self.add(-value);
                }
            }
        }
        if self.finite == 0 {
            (self.sum, self.lost) = (0.0, 0.0);
        }
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        Ok(ScalarValue::Float64(self.value()))
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Err(Error::internal("a window has no partial sums").into())
    }

    fn merge_batch(&mut self, _states: &[ArrayRef]) -> Result<()> {
        Err(Error::internal("a window has no partial sums").into())
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use arrow::array::Float64Array;

    #[test]
    fn what_leaves_a_window_leaves_no_trace() {
        let of = |v: f64| -> Vec<ArrayRef> { vec![Arc::new(Float64Array::from(vec![v]))] };
        let mut window = Window::boxed(false);
        for odd in [1e20, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            window.update_batch(&of(odd)).unwrap();
            window.update_batch(&of(1.5)).unwrap();
            window.retract_batch(&of(odd)).unwrap();
            assert_eq!(window.evaluate().unwrap(), ScalarValue::Float64(Some(1.5)), "{odd}");
            window.retract_batch(&of(1.5)).unwrap();
            assert_eq!(window.evaluate().unwrap(), ScalarValue::Float64(None));
        }
    }
}
