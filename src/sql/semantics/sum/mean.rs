//! The mean of integers (a double, of the exact sum) and of decimals (16 digits after the point, or as many as they have, rounded).

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, PrimitiveArray};
use arrow::datatypes::{
    DECIMAL128_MAX_PRECISION, DataType, Decimal128Type, DecimalType, Field, FieldRef, Float64Type,
    Int64Type, UInt64Type, i256,
};
use datafusion::common::{Result, ScalarValue};
use datafusion::functions_aggregate::average::Avg;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::{AggregateOrderSensitivity, format_state_name};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, EmitTo, GroupsAccumulator, ReversedUDAF,
    Signature, Volatility,
};

use super::accumulator::{Distinct, Groups, Total};
use super::{Summand, TotalOf, valid};
use crate::sql::types::sql_name;
use crate::sql::{Code, Error};

/// Digits after the point of the mean of decimals, at least.
const SCALE: i8 = 16;

/// The function.
pub(crate) fn function() -> Arc<AggregateUDF> {
    let signature = Signature::user_defined(Volatility::Immutable);
    Arc::new(AggregateUDF::from(ExactAvg { inner: Avg::new(), signature }))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct ExactAvg {
    /// For means of other types.
    inner: Avg,
    signature: Signature,
}

/// Calls a generic function for the type of values whose mean is exact.
macro_rules! exactly {
    ($args:expr, $make:ident, $other:expr) => {{
        let out = $args.return_field.data_type();
        match $args.expr_fields[0].data_type() {
            given @ DataType::Int64 => Ok($make::<Int64Type>::boxed(given, out)),
            given @ DataType::UInt64 => Ok($make::<UInt64Type>::boxed(given, out)),
            given @ DataType::Decimal128(..) => Ok($make::<Decimal128Type>::boxed(given, out)),
            _ => $other,
        }
    }};
}

/// The type of the sum of values of a type; `None` where DataFusion takes the mean.
fn total_type(given: &DataType) -> Option<DataType> {
    match given {
        DataType::Int64 | DataType::UInt64 => Some(Int64Type::total_type(given)),
        DataType::Decimal128(..) => Some(Decimal128Type::total_type(given)),
        _ => None,
    }
}

impl AggregateUDFImpl for ExactAvg {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let [given] = types else {
            return Err(Error::syntax("avg takes one argument").into());
        };
        Ok(vec![match given {
            DataType::Decimal32(p, s) | DataType::Decimal64(p, s) => DataType::Decimal128(*p, *s),
            decimal if decimal.is_decimal() => given.clone(),
            unsigned if unsigned.is_unsigned_integer() => DataType::UInt64,
            integer if integer.is_integer() => DataType::Int64,
            number if number.is_numeric() || number.is_null() => DataType::Float64,
            // Refused where the result's type is asked for.
            other => other.clone(),
        }])
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match &types[0] {
            DataType::Int64 | DataType::UInt64 | DataType::Float64 => Ok(DataType::Float64),
            DataType::Decimal128(_, s) => {
                Ok(DataType::Decimal128(DECIMAL128_MAX_PRECISION, SCALE.max(*s)))
            }
            DataType::Decimal256(..) | DataType::Duration(_) => self.inner.return_type(types),
            other => {
                let message = format!("avg takes numbers and durations, not {}", sql_name(other));
                Err(Error::syntax(message).into())
            }
        }
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let given = args.input_fields[0].data_type();
        let Some(total) = total_type(given) else { return self.inner.state_fields(args) };
        let field = |name: &str, data_type| {
            Arc::new(Field::new(format_state_name(args.name, name), data_type, true))
        };
        Ok(match args.is_distinct {
            true => {
                let item = Arc::new(Field::new_list_field(given.clone(), true));
                vec![field("values", DataType::List(item))]
            }
            false => vec![field("sum", total), field("count", DataType::UInt64)],
        })
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        match args.is_distinct {
            true => exactly!(args, DistinctMean, self.inner.accumulator(args)),
            false => exactly!(args, Mean, self.inner.accumulator(args)),
        }
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        match args.is_distinct {
            true => exactly!(args, DistinctMean, self.inner.create_sliding_accumulator(args)),
            false => exactly!(args, Mean, self.inner.create_sliding_accumulator(args)),
        }
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        match total_type(args.expr_fields[0].data_type()) {
            Some(_) => !args.is_distinct,
            None => self.inner.groups_accumulator_supported(args),
        }
    }

    fn create_groups_accumulator(
        &self,
        args: AccumulatorArgs,
    ) -> Result<Box<dyn GroupsAccumulator>> {
        exactly!(args, MeanGroups, self.inner.create_groups_accumulator(args))
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        ReversedUDAF::Identical
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }
}

/// A type of which the mean is exact, or the double nearest to it.
trait Averaged: Summand {
    type Mean: ArrowPrimitiveType;

    /// `digits` is what the scale of the mean has more than that of the values.
    fn mean(total: TotalOf<Self>, count: u64, digits: u32) -> Option<MeanOf<Self>>;
}

type MeanOf<T> = <<T as Averaged>::Mean as ArrowPrimitiveType>::Native;

fn double_mean(total: i128, count: u64) -> Option<f64> {
    let count = i128::from(count);
    Some(total.checked_div(count)? as f64 + total.checked_rem(count)? as f64 / count as f64)
}

impl Averaged for Int64Type {
    type Mean = Float64Type;

    fn mean(total: i128, count: u64, _digits: u32) -> Option<f64> {
        double_mean(total, count)
    }
}

impl Averaged for UInt64Type {
    type Mean = Float64Type;

    fn mean(total: i128, count: u64, _digits: u32) -> Option<f64> {
        double_mean(total, count)
    }
}

impl Averaged for Decimal128Type {
    type Mean = Decimal128Type;

    fn mean(total: i256, count: u64, digits: u32) -> Option<i128> {
        let count = i256::from_i128(i128::from(count));
        let total = total.checked_mul(i256::from_i128(10).checked_pow(digits)?)?;
        let quotient = total.checked_div(count)?;
        let rest = total.checked_rem(count)?.wrapping_abs();
        // Half away from zero.
        let up = rest >= count.wrapping_sub(rest);
        let sign = i256::from_i128(if total < i256::ZERO { -1 } else { 1 });
        let quotient = if up { quotient.checked_add(sign)? } else { quotient };
        let mean = quotient.to_i128()?;
        Self::is_valid_decimal_precision(mean, DECIMAL128_MAX_PRECISION).then_some(mean)
    }
}

/// The type of a mean, and how it comes of a sum.
#[derive(Debug, Clone)]
struct Out {
    data_type: DataType,
    digits: u32,
}

impl Out {
    fn new(given: &DataType, out: &DataType) -> Self {
        let digits = match (given, out) {
            (DataType::Decimal128(_, from), DataType::Decimal128(_, to)) => {
                (to - from).unsigned_abs()
            }
            _ => 0,
        };
        Self { data_type: out.clone(), digits: u32::from(digits) }
    }

    fn mean<T: Averaged>(&self, total: TotalOf<T>, count: u64) -> Result<Option<MeanOf<T>>> {
        if count == 0 {
            return Ok(None);
        }
        T::mean(total, count, self.digits).map(Some).ok_or_else(|| {
            let name = sql_name(&self.data_type);
            let message = format!("{name} out of range: the mean does not fit");
            Error::new(Code::NumericValueOutOfRange, message).into()
        })
    }

    fn scalar<T: Averaged>(&self, total: TotalOf<T>, count: u64) -> Result<ScalarValue> {
        ScalarValue::new_primitive::<T::Mean>(self.mean::<T>(total, count)?, &self.data_type)
    }
}

/// The mean of all rows, or of a window's.
#[derive(Debug)]
struct Mean<T: Averaged> {
    sum: Total<T>,
    out: Out,
}

impl<T: Averaged> Mean<T> {
    fn boxed(given: &DataType, out: &DataType) -> Box<dyn Accumulator> {
        Box::new(Self { sum: Total::new(given), out: Out::new(given, out) })
    }
}

impl<T: Averaged> Accumulator for Mean<T> {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.sum.update_batch(values)
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.sum.retract_batch(values)
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let before = self.sum.count;
        self.sum.merge_batch(&states[..1])?;
        let counts = states[1].as_primitive::<UInt64Type>().iter().flatten();
        self.sum.count = before + counts.map(|count| count as usize).sum::<usize>();
        Ok(())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let mut state = self.sum.state()?;
        state.push(ScalarValue::UInt64(Some(self.sum.count as u64)));
        Ok(state)
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        self.out.scalar::<T>(self.sum.total, self.sum.count as u64)
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }
}

/// The mean of values that differ.
#[derive(Debug)]
struct DistinctMean<T: Averaged> {
    sum: Distinct<T>,
    out: Out,
}

impl<T: Averaged> DistinctMean<T> {
    fn boxed(given: &DataType, out: &DataType) -> Box<dyn Accumulator> {
        Box::new(Self { sum: Distinct::new(given), out: Out::new(given, out) })
    }
}

impl<T: Averaged> Accumulator for DistinctMean<T> {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.sum.update_batch(values)
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.sum.retract_batch(values)
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.sum.merge_batch(states)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.sum.state()
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        self.out.scalar::<T>(self.sum.total, self.sum.counts.len() as u64)
    }

    fn size(&self) -> usize {
        self.sum.size()
    }
}

/// The means of groups.
#[derive(Debug)]
struct MeanGroups<T: Averaged> {
    sums: Groups<T>,
    counts: Vec<u64>,
    out: Out,
}

impl<T: Averaged> MeanGroups<T> {
    fn boxed(given: &DataType, out: &DataType) -> Box<dyn GroupsAccumulator> {
        let sums = Groups::new(given);
        Box::new(Self { sums, counts: Vec::new(), out: Out::new(given, out) })
    }
}

impl<T: Averaged> GroupsAccumulator for MeanGroups<T> {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        group_count: usize,
    ) -> Result<()> {
        self.counts.resize(group_count, 0);
        match valid(values[0].nulls(), filter) {
            None => groups.iter().for_each(|group| self.counts[*group] += 1),
            Some(valid) => valid.valid_indices().for_each(|row| self.counts[groups[row]] += 1),
        }
        self.sums.update_batch(values, groups, filter, group_count)
    }

    fn merge_batch(
        &mut self,
        states: &[ArrayRef],
        groups: &[usize],
        group_count: usize,
    ) -> Result<()> {
        self.counts.resize(group_count, 0);
        for (group, count) in groups.iter().zip(states[1].as_primitive::<UInt64Type>()) {
            self.counts[*group] += count.unwrap_or(0);
        }
        self.sums.merge_batch(&states[..1], groups, group_count)
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let (totals, _) = self.sums.take(emit_to);
        let counts = emit_to.take_needed(&mut self.counts);
        let means = totals.into_iter().zip(counts);
        let means: PrimitiveArray<T::Mean> = means
            .map(|(total, count)| self.out.mean::<T>(total, count))
            .collect::<Result<Vec<_>>>()?
            .into_iter()
            .collect();
        Ok(Arc::new(means.with_data_type(self.out.data_type.clone())))
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        let mut state = self.sums.state(emit_to)?;
        let counts = emit_to.take_needed(&mut self.counts);
        state.push(Arc::new(PrimitiveArray::<UInt64Type>::from(counts)));
        Ok(state)
    }

    fn convert_to_state(
        &self,
        values: &[ArrayRef],
        filter: Option<&BooleanArray>,
    ) -> Result<Vec<ArrayRef>> {
        let mut state = self.sums.convert_to_state(values, filter)?;
        let valid = valid(values[0].nulls(), filter);
        let ones = match valid {
            Some(valid) => valid.iter().map(u64::from).collect::<Vec<_>>(),
            None => vec![1; values[0].len()],
        };
        state.push(Arc::new(PrimitiveArray::<UInt64Type>::from(ones)));
        Ok(state)
    }

    fn size(&self) -> usize {
        self.sums.size() + self.counts.capacity() * size_of::<u64>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_are_rounded_once() {
        let mean =
            |total, count, digits| Decimal128Type::mean(i256::from_i128(total), count, digits);
        assert_eq!(mean(5, 3, 2), Some(167));
        assert_eq!(mean(-5, 3, 2), Some(-167));
        assert_eq!(mean(1, 3, 0), Some(0));
        assert_eq!(mean(1, 2, 0), Some(1));
        assert_eq!(mean(-1, 2, 0), Some(-1));
        let max = i128::from(i64::MAX);
        assert_eq!(Int64Type::mean(2 * max, 2, 0), Some(i64::MAX as f64));
        assert_eq!(Int64Type::mean((1 << 53) + 1, 2, 0), Some((1_i64 << 52) as f64 + 0.5));
    }
}
