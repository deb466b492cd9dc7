//! `percentile_cont` and `median`, interpolated in full precision, of numbers, dates and times. DataFusion's cut weights to six digits
//! (apache/datafusion#25266) and take numbers only.

mod accumulator;

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, RecordBatch};
use arrow::datatypes::{
    DECIMAL128_MAX_PRECISION, DataType, Decimal128Type, DecimalType, Field, FieldRef, Float64Type,
    Int64Type, Schema, TimeUnit,
};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::format_state_name;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, ColumnarValue, GroupsAccumulator, Signature,
    Volatility,
};

use crate::sql::types::sql_name;
use crate::sql::{Code, Error};
use accumulator::{Groups, Values};

/// The functions.
pub(crate) fn functions() -> [Arc<AggregateUDF>; 2] {
    let signature = Signature::user_defined(Volatility::Immutable);
    let cont = Percentile { kind: Kind::Cont, signature: signature.clone() };
    let median = Percentile { kind: Kind::Median, signature };
    [cont, median].map(|function| Arc::new(AggregateUDF::from(function)))
}

/// Where a share of `count` rows in order lies: between which two of them, counted from 0, and how far from the first to the second.
/// As PostgreSQL reckons it.
pub(crate) fn place(share: f64, count: u64) -> (u64, u64, f64) {
    let last = count.saturating_sub(1);
    let index = share * last as f64;
    let (low, high) = (index.floor() as u64, index.ceil() as u64);
    (low.min(last), high.min(last), index - index.floor())
}

/// The value between the two of `values`, or the only one.
pub(crate) fn interpolate(
    values: &ArrayRef,
    weight: f64,
    data_type: &DataType,
) -> Result<ScalarValue> {
    let raw = raw_type(values.data_type());
    let plain = arrow::compute::cast(values, &raw)?;
    let ends = |row: usize| ScalarValue::try_from_array(&plain, row.min(plain.len() - 1));
    let between = match (ends(0)?, ends(1)?) {
        (ScalarValue::Float64(Some(low)), ScalarValue::Float64(Some(high))) => {
            ScalarValue::Float64(Float64Type::between(low, high, weight))
        }
        (ScalarValue::Int64(Some(low)), ScalarValue::Int64(Some(high))) => {
            ScalarValue::Int64(Int64Type::between(low, high, weight))
        }
        (other, _) => {
            return Err(Error::internal(format!("there is nothing between two of {other}")).into());
        }
    };
    between.cast_to(data_type)
}

/// The type that values of a type are kept in.
fn raw_type(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Timestamp(..) | DataType::Duration(_) | DataType::Time64(_) => DataType::Int64,
        DataType::Decimal128(..) => data_type.clone(),
        _ => DataType::Float64,
    }
}

/// A type with values between its values.
trait Between: ArrowPrimitiveType + std::fmt::Debug {
    fn order(a: &Self::Native, b: &Self::Native) -> Ordering;

    /// So far from one value to the other; `None` where no value is.
    fn between(low: Self::Native, high: Self::Native, weight: f64) -> Option<Self::Native>;

    /// A value as it is returned.
    fn result(value: Self::Native, data_type: &DataType) -> Option<Self::Native> {
        let _ = data_type;
        Some(value)
    }
}

impl Between for Float64Type {
    fn order(a: &f64, b: &f64) -> Ordering {
        // NaN is the largest value, whatever its sign.
        a.partial_cmp(b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
    }

    fn between(low: f64, high: f64, weight: f64) -> Option<f64> {
        if low == high {
            return Some(low);
        }
        let distance = high - low;
        Some(match distance.is_infinite() && low.is_finite() && high.is_finite() {
            true => low * (1.0 - weight) + high * weight,
            false => low + weight * distance,
        })
    }
}

/// Parts of the distance between two integers: a product with a distance fits 128 bits.
const STEPS: f64 = (1_u64 << 62) as f64;

impl Between for Int64Type {
    fn order(a: &i64, b: &i64) -> Ordering {
        a.cmp(b)
    }

    fn between(low: i64, high: i64, weight: f64) -> Option<i64> {
        let distance = i128::from(high) - i128::from(low);
        let steps = distance * (weight * STEPS) as i128;
        let half = (STEPS / 2.0) as i128;
        i64::try_from(i128::from(low) + ((steps + half) >> 62)).ok()
    }
}

/// For the median only: values are kept without the digit that a half takes.
impl Between for Decimal128Type {
    fn order(a: &i128, b: &i128) -> Ordering {
        a.cmp(b)
    }

    fn between(low: i128, high: i128, _weight: f64) -> Option<i128> {
        low.checked_add(high)?.checked_mul(5)
    }

    fn result(value: i128, data_type: &DataType) -> Option<i128> {
        let DataType::Decimal128(precision, _) = data_type else { return None };
        Self::is_valid_decimal_precision(value, *precision).then_some(value)
    }
}

/// What is asked of the values.
#[derive(Debug, Clone)]
struct Wanted {
    share: f64,
    descending: bool,
    distinct: bool,
    /// The type of the result.
    data_type: DataType,
}

impl Wanted {
    fn new(kind: Kind, args: &AccumulatorArgs) -> Result<Self> {
        Ok(Self {
            share: if kind == Kind::Median { 0.5 } else { share(kind, args)? },
            descending: args.order_bys.first().is_some_and(|sort| sort.options.descending),
            distinct: args.is_distinct,
            data_type: args.return_field.data_type().clone(),
        })
    }

    /// The result of values in any order, which they lose.
    fn of<T: Between>(&self, values: &mut Vec<T::Native>) -> Result<Option<T::Native>> {
        if self.distinct {
            values.sort_unstable_by(T::order);
            values.dedup_by(|a, b| T::order(a, b).is_eq());
        }
        if values.is_empty() {
            return Ok(None);
        }
        let order = |a: &T::Native, b: &T::Native| match self.descending {
            true => T::order(b, a),
            false => T::order(a, b),
        };
        let (low, high, weight) = place(self.share, values.len() as u64);
        let (_, first, rest) = values.select_nth_unstable_by(low as usize, order);
        let first = *first;
        let value = match rest.iter().min_by(|a, b| order(a, b)) {
            Some(second) if high > low => T::between(first, *second, weight),
            // A median of decimals has one more digit.
            _ if matches!(self.data_type, DataType::Decimal128(..)) => {
                T::between(first, first, 0.0)
            }
            _ => Some(first),
        };
        let value = value.and_then(|value| T::result(value, &self.data_type));
        value.map(Some).ok_or_else(|| {
            let name = sql_name(&self.data_type);
            let message = format!("{name} out of range: the value between two does not fit");
            Error::new(Code::NumericValueOutOfRange, message).into()
        })
    }
}

/// The share that is asked for.
fn share(kind: Kind, args: &AccumulatorArgs) -> Result<f64> {
    let name = kind.name();
    let batch = RecordBatch::new_empty(Arc::new(Schema::empty()));
    let value = args.exprs.get(1).and_then(|e| e.evaluate(&batch).ok());
    let share = match value {
        Some(ColumnarValue::Scalar(value)) => value.cast_to(&DataType::Float64)?,
        _ => ScalarValue::Null,
    };
    match share {
        ScalarValue::Float64(Some(share)) if (0.0..=1.0).contains(&share) => Ok(share),
        ScalarValue::Float64(Some(share)) => {
            Err(Error::data(format!("{name} takes a share between 0 and 1, not {share}")).into())
        }
        _ => {
            let message =
                format!("the share that {name} takes must be a number, not an expression");
            Err(Error::syntax(message).into())
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    Cont,
    Median,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Cont => "percentile_cont",
            Self::Median => "median",
        }
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Percentile {
    kind: Kind,
    signature: Signature,
}

impl Percentile {
    /// The type that values are given in: what is of no such type stays, and is refused where the result's type is asked for.
    fn value_type(&self, given: &DataType) -> DataType {
        match given {
            DataType::Decimal128(..) if self.kind == Kind::Median => given.clone(),
            DataType::Null => DataType::Float64,
            numeric if numeric.is_numeric() => DataType::Float64,
            DataType::Date32 | DataType::Date64 => DataType::Timestamp(TimeUnit::Microsecond, None),
            DataType::Time32(_) => DataType::Time64(TimeUnit::Microsecond),
            DataType::Timestamp(..) | DataType::Duration(_) | DataType::Time64(_) => given.clone(),
            other => other.clone(),
        }
    }
}

/// Calls a generic function for the type that values are kept in.
macro_rules! of_kept {
    ($data_type:expr, $make:ident, $wanted:expr) => {
        match raw_type($data_type) {
            DataType::Int64 => $make::<Int64Type>::boxed($data_type, $wanted),
            DataType::Decimal128(..) => $make::<Decimal128Type>::boxed($data_type, $wanted),
            _ => $make::<Float64Type>::boxed($data_type, $wanted),
        }
    };
}

impl AggregateUDFImpl for Percentile {
    fn name(&self) -> &str {
        self.kind.name()
    }

    fn aliases(&self) -> &[String] {
        static ALIASES: std::sync::LazyLock<[String; 1]> =
            std::sync::LazyLock::new(|| ["quantile_cont".to_owned()]);
        match self.kind {
            Kind::Cont => ALIASES.as_slice(),
            Kind::Median => &[],
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        match (self.kind, types) {
            (Kind::Median, [value]) => Ok(vec![self.value_type(value)]),
            (Kind::Cont, [value, share]) if share.is_numeric() || share.is_null() => {
                Ok(vec![self.value_type(value), DataType::Float64])
            }
            (Kind::Cont, _) => {
                Err(Error::syntax("percentile_cont takes values and a share between 0 and 1")
                    .into())
            }
            (Kind::Median, _) => Err(Error::syntax("median takes one argument").into()),
        }
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        let data_type = self.value_type(types.first().unwrap_or(&DataType::Null));
        let raw = raw_type(&data_type);
        if raw == DataType::Float64 && data_type != DataType::Float64 {
            let message = format!(
                "{} takes numbers, dates and times, not {}",
                self.name(),
                sql_name(&data_type)
            );
            return Err(Error::syntax(message).into());
        }
        Ok(match data_type {
            DataType::Decimal128(p, s) if p < DECIMAL128_MAX_PRECISION => {
                DataType::Decimal128(p + 1, s + 1)
            }
            DataType::Decimal128(p, s) => DataType::Decimal128(p, s.saturating_add(1).min(p as i8)),
            other => other,
        })
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let raw = raw_type(args.input_fields[0].data_type());
        let item = Arc::new(Field::new_list_field(raw, true));
        let name = format_state_name(args.name, "values");
        Ok(vec![Arc::new(Field::new(name, DataType::List(item), true))])
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let wanted = Wanted::new(self.kind, &args)?;
        Ok(of_kept!(args.expr_fields[0].data_type(), Values, wanted))
    }

    fn groups_accumulator_supported(&self, _args: AccumulatorArgs) -> bool {
        true
    }

    fn create_groups_accumulator(
        &self,
        args: AccumulatorArgs,
    ) -> Result<Box<dyn GroupsAccumulator>> {
        let wanted = Wanted::new(self.kind, &args)?;
        Ok(of_kept!(args.expr_fields[0].data_type(), Groups, wanted))
    }

    fn supports_within_group_clause(&self) -> bool {
        self.kind == Kind::Cont
    }
}

/// Values of the type they are kept in.
fn plain<T: Between>(values: &ArrayRef) -> Result<ArrayRef> {
    if values.as_primitive_opt::<T>().is_some() {
        return Ok(Arc::clone(values));
    }
    Ok(arrow::compute::cast(values, &T::DATA_TYPE)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_exact() {
        assert_eq!(place(0.5, 2), (0, 1, 0.5));
        assert_eq!(place(0.5, 3), (1, 1, 0.0));
        assert_eq!(place(1.0, 4), (3, 3, 0.0));
        assert_eq!(Float64Type::between(0.0, 1e12, 0.1234567), Some(123_456_700_000.0));
        assert_eq!(Float64Type::between(-1.5e308, 1.5e308, 0.5), Some(0.0));
        // Nanoseconds of a thousand years are not counted in doubles.
        assert_eq!(Int64Type::between(i64::MIN, i64::MAX, 0.5), Some(0));
        assert_eq!(Int64Type::between(1, 2, 0.5), Some(2));
        assert_eq!(Int64Type::between(2, 1, 0.5), Some(2));
        assert_eq!(Decimal128Type::between(11, 12, 0.5), Some(115));
    }

    #[test]
    fn every_nan_is_the_largest() {
        let wanted =
            Wanted { share: 1.0, descending: false, distinct: true, data_type: DataType::Float64 };
        let mut values = vec![-f64::NAN, 1.0, f64::NAN, f64::INFINITY];
        assert!(wanted.of::<Float64Type>(&mut values).unwrap().unwrap().is_nan());
        assert_eq!(values.len(), 3);
    }
}
