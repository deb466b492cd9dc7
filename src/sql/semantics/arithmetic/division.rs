//! The quotient of decimals: 16 digits after the point, or as many as an operand has, rounded half away from zero. PostgreSQL gives at
//! least 16 significant digits, by the values; here the type alone decides.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Datum, PrimitiveArray};
use arrow::compute::kernels::arity::try_binary;
use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType, Decimal128Type, DecimalType, i256};
use arrow::error::ArrowError;
use datafusion::common::Result;

use crate::sql::Error;
use crate::sql::types::sql_name;

/// Digits after the point of a quotient, at least.
const SCALE: i8 = 16;

/// The type that an operand is divided in.
pub(super) fn operand_type(given: &DataType) -> Result<DataType> {
    Ok(match given {
        DataType::Decimal128(..) => given.clone(),
        DataType::Null => DataType::Decimal128(1, 0),
        DataType::Int64 | DataType::UInt64 => DataType::Decimal128(20, 0),
        integer if integer.is_integer() => DataType::Decimal128(10, 0),
        DataType::Decimal32(p, s) | DataType::Decimal64(p, s) => DataType::Decimal128(*p, *s),
        other => {
            let name = sql_name(other);
            let message =
                format!("division of {name}: a decimal of more than 38 digits is not divided");
            return Err(Error::unsupported(message).into());
        }
    })
}

fn scale(data_type: &DataType) -> i8 {
    match data_type {
        DataType::Decimal128(_, scale) => *scale,
        _ => 0,
    }
}

/// The type of a quotient.
pub(super) fn result_type(left: &DataType, right: &DataType) -> Result<DataType> {
    let scale = scale(left).max(scale(right)).max(SCALE);
    Ok(DataType::Decimal128(DECIMAL128_MAX_PRECISION, scale))
}

/// The quotients.
pub(super) fn divide(left: &dyn Datum, right: &dyn Datum) -> Result<ArrayRef, ArrowError> {
    let ((left, left_one), (right, right_one)) = (left.get(), right.get());
    let (from, by) = (scale(left.data_type()), scale(right.data_type()));
    let to = from.max(by).max(SCALE);
    // left / 10^from / (right / 10^by) in units of 10^-to
    let shift = i256::from_i128(10).checked_pow(u32::from((to - from + by).unsigned_abs()));
    let shift = shift.ok_or_else(|| ArrowError::ComputeError("a scale is out of range".into()))?;
    let left = left.as_primitive::<Decimal128Type>();
    let right = right.as_primitive::<Decimal128Type>();
    let divide = |l: i128, r: i128| quotient(l, r, shift);
    let result: PrimitiveArray<Decimal128Type> = match (left_one, right_one) {
        (false, true) if right.is_valid(0) => {
            let by = right.value(0);
            left.try_unary(|value| divide(value, by))?
        }
        (true, false) if left.is_valid(0) => {
            let value = left.value(0);
            right.try_unary(|by| divide(value, by))?
        }
        (true, true) | (false, false) => try_binary(left, right, divide)?,
        (true, false) => PrimitiveArray::new_null(right.len()),
        (false, true) => PrimitiveArray::new_null(left.len()),
    };
    Ok(Arc::new(result.with_precision_and_scale(DECIMAL128_MAX_PRECISION, to)?))
}

/// `left * shift / right`, rounded half away from zero.
fn quotient(left: i128, right: i128, shift: i256) -> Result<i128, ArrowError> {
    if right == 0 {
        return Err(ArrowError::DivideByZero);
    }
    let overflow = || ArrowError::ArithmeticOverflow(format!("{left} / {right}"));
    let narrow = shift.to_i128().and_then(|shift| left.checked_mul(shift));
    let (quotient, rest) = match narrow {
        Some(dividend) => {
            (dividend.checked_div(right).ok_or_else(overflow)?, dividend.wrapping_rem(right))
        }
        None => {
            let dividend = i256::from_i128(left).checked_mul(shift).ok_or_else(overflow)?;
            let divisor = i256::from_i128(right);
            let quotient = dividend.checked_div(divisor).ok_or_else(overflow)?;
            let rest = dividend.checked_rem(divisor).ok_or_else(overflow)?;
            (quotient.to_i128().ok_or_else(overflow)?, rest.to_i128().ok_or_else(overflow)?)
        }
    };
    let rest = rest.unsigned_abs();
    let up = rest >= right.unsigned_abs() - rest;
    let sign = if (left < 0) == (right < 0) { 1 } else { -1 };
    let quotient = if up { quotient.checked_add(sign).ok_or_else(overflow)? } else { quotient };
    match Decimal128Type::is_valid_decimal_precision(quotient, DECIMAL128_MAX_PRECISION) {
        true => Ok(quotient),
        false => Err(overflow()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotients_are_rounded() {
        let shift = i256::from_i128(10);
        assert_eq!(quotient(2, 3, shift).unwrap(), 7);
        assert_eq!(quotient(-2, 3, shift).unwrap(), -7);
        assert_eq!(quotient(1, 3, shift).unwrap(), 3);
        assert_eq!(quotient(1, -20, shift).unwrap(), -1);
        assert_eq!(quotient(i128::MAX / 5, i128::MAX / 5, shift).unwrap(), 10);
        assert!(quotient(1, 0, shift).is_err());
        let shift = i256::from_i128(10).checked_pow(38).unwrap();
        assert!(quotient(10_i128.pow(30), 1, shift).is_err());
        assert_eq!(quotient(10_i128.pow(30), 10_i128.pow(31), shift).unwrap(), 10_i128.pow(37));
    }
}
