//! Aggregates whose result is a float: canonical, and `min` and `max` of groups with NaN as the largest value. DataFusion's compare
//! with `<` there, of which NaN is no part (apache/datafusion#24432).

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanArray, PrimitiveArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{DataType, FieldRef, Float32Type, Float64Type};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::expr::AggregateFunctionParams;
use datafusion::logical_expr::function::{
    AccumulatorArgs, AggregateFunctionSimplification, StateFieldsArgs,
};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, EmitTo, GroupsAccumulator, ReversedUDAF,
    SetMonotonicity, Signature, StatisticsArgs,
};

use super::window::Window;
use super::{canonical_array, canonical_scalar};
use crate::sql::semantics::sum::valid;

/// Functions that compute floats, or choose among them.
const NAMES: [&str; 16] = [
    "min",
    "max",
    "sum",
    "avg",
    "stddev",
    "stddev_pop",
    "var",
    "var_pop",
    "corr",
    "covar_samp",
    "covar_pop",
    "regr_slope",
    "regr_intercept",
    "regr_r2",
    "regr_avgx",
    "regr_avgy",
];

/// The functions, those of floats in a wrapping.
pub(crate) fn wrap(functions: Vec<Arc<AggregateUDF>>) -> Vec<Arc<AggregateUDF>> {
    functions
        .into_iter()
        .map(|inner| match NAMES.contains(&inner.name()) {
            true => Arc::new(AggregateUDF::from(OfFloats { inner })),
            false => inner,
        })
        .collect()
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct OfFloats {
    inner: Arc<AggregateUDF>,
}

fn is_float(args: &AccumulatorArgs) -> bool {
    super::is_float(args.return_field.data_type())
}

impl AggregateUDFImpl for OfFloats {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn schema_name(&self, params: &AggregateFunctionParams) -> Result<String> {
        self.inner.schema_name(params)
    }

    fn human_display(&self, params: &AggregateFunctionParams) -> Result<String> {
        self.inner.human_display(params)
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(types)
    }

    fn return_field(&self, fields: &[FieldRef]) -> Result<FieldRef> {
        self.inner.return_field(fields)
    }

    fn is_nullable(&self) -> bool {
        self.inner.is_nullable()
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        self.inner.state_fields(args)
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let float = is_float(&args);
        let inner = self.inner.accumulator(args)?;
        Ok(if float { Box::new(Canonical(inner)) } else { inner })
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let float = is_float(&args);
        let double = *args.return_field.data_type() == DataType::Float64
            && *args.expr_fields[0].data_type() == DataType::Float64;
        if double && !args.is_distinct && matches!(self.name(), "sum" | "avg") {
            return Ok(Window::boxed(self.name() == "avg"));
        }
        let inner = self.inner.create_sliding_accumulator(args)?;
        Ok(if float { Box::new(Canonical(inner)) } else { inner })
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        self.inner.groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(
        &self,
        args: AccumulatorArgs,
    ) -> Result<Box<dyn GroupsAccumulator>> {
        let end = match self.name() {
            "max" => Some(Ordering::Greater),
            "min" => Some(Ordering::Less),
            _ => None,
        };
        match (args.return_field.data_type(), end) {
            (DataType::Float64, Some(end)) => Ok(Ends::<Float64Type>::boxed(end)),
            (DataType::Float32, Some(end)) => Ok(Ends::<Float32Type>::boxed(end)),
            (DataType::Float64 | DataType::Float32, None) => {
                Ok(Box::new(CanonicalGroups(self.inner.create_groups_accumulator(args)?)))
            }
            _ => self.inner.create_groups_accumulator(args),
        }
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        self.inner.order_sensitivity()
    }

    fn simplify(&self) -> Option<AggregateFunctionSimplification> {
        self.inner.simplify()
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        match self.inner.reverse_udf() {
            ReversedUDAF::Identical => ReversedUDAF::Identical,
            // None of these differ by order.
            _ => ReversedUDAF::NotSupported,
        }
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.coerce_types(types)
    }

    fn is_descending(&self) -> Option<bool> {
        self.inner.is_descending()
    }

    fn value_from_stats(&self, args: &StatisticsArgs) -> Option<ScalarValue> {
        self.inner.value_from_stats(args)
    }

    fn default_value(&self, data_type: &DataType) -> Result<ScalarValue> {
        self.inner.default_value(data_type)
    }

    fn set_monotonicity(&self, data_type: &DataType) -> SetMonotonicity {
        self.inner.inner().set_monotonicity(data_type)
    }
}

/// One value, made canonical when it is asked for.
#[derive(Debug)]
struct Canonical(Box<dyn Accumulator>);

impl Accumulator for Canonical {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.0.update_batch(values)
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.0.merge_batch(states)
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.0.retract_batch(values)
    }

    fn supports_retract_batch(&self) -> bool {
        self.0.supports_retract_batch()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.0.state()
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let value = self.0.evaluate()?;
        Ok(canonical_scalar(&value).unwrap_or(value))
    }

    fn size(&self) -> usize {
        self.0.size()
    }
}

/// The values of groups, made canonical when they are asked for.
struct CanonicalGroups(Box<dyn GroupsAccumulator>);

impl GroupsAccumulator for CanonicalGroups {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        group_count: usize,
    ) -> Result<()> {
        self.0.update_batch(values, groups, filter, group_count)
    }

    fn merge_batch(
        &mut self,
        states: &[ArrayRef],
        groups: &[usize],
        group_count: usize,
    ) -> Result<()> {
        self.0.merge_batch(states, groups, group_count)
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        Ok(canonical_array(&self.0.evaluate(emit_to)?))
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        self.0.state(emit_to)
    }

    fn convert_to_state(
        &self,
        values: &[ArrayRef],
        filter: Option<&BooleanArray>,
    ) -> Result<Vec<ArrayRef>> {
        self.0.convert_to_state(values, filter)
    }

    fn size(&self) -> usize {
        self.0.size()
    }
}

/// The order of floats with NaN as the largest.
trait Float: ArrowPrimitiveType {
    fn order(a: Self::Native, b: Self::Native) -> Ordering;
}

macro_rules! float {
    ($t:ty) => {
        impl Float for $t {
            fn order(a: Self::Native, b: Self::Native) -> Ordering {
                a.partial_cmp(&b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
            }
        }
    };
}

float!(Float32Type);
float!(Float64Type);

/// The least or the largest float of each group.
struct Ends<T: Float> {
    ends: Vec<T::Native>,
    seen: Vec<bool>,
    /// How a better value compares with the one that is kept.
    better: Ordering,
}

impl<T: Float> fmt::Debug for Ends<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ends({:?} of {} groups)", self.better, self.ends.len())
    }
}

impl<T: Float> Ends<T> {
    fn boxed(better: Ordering) -> Box<dyn GroupsAccumulator> {
        Box::new(Self { ends: Vec::new(), seen: Vec::new(), better })
    }
}

impl<T: Float> GroupsAccumulator for Ends<T> {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        groups: &[usize],
        filter: Option<&BooleanArray>,
        group_count: usize,
    ) -> Result<()> {
        self.ends.resize(group_count, T::Native::default());
        self.seen.resize(group_count, false);
        let (ends, seen, better) = (&mut self.ends, &mut self.seen, self.better);
        let mut put = |group: usize, value: T::Native| {
            if !seen[group] || T::order(value, ends[group]) == better {
                ends[group] = value;
                seen[group] = true;
            }
        };
        let values = values[0].as_primitive::<T>();
        match valid(values.nulls(), filter) {
            None => groups.iter().zip(values.values()).for_each(|(g, v)| put(*g, *v)),
            Some(valid) => valid.valid_indices().for_each(|i| put(groups[i], values.value(i))),
        }
        Ok(())
    }

    fn merge_batch(
        &mut self,
        states: &[ArrayRef],
        groups: &[usize],
        group_count: usize,
    ) -> Result<()> {
        self.update_batch(states, groups, None, group_count)
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> Result<ArrayRef> {
        let ends = emit_to.take_needed(&mut self.ends);
        let nulls = NullBuffer::from(emit_to.take_needed(&mut self.seen));
        Ok(Arc::new(PrimitiveArray::<T>::new(ends.into(), Some(nulls))))
    }

    fn state(&mut self, emit_to: EmitTo) -> Result<Vec<ArrayRef>> {
        Ok(vec![self.evaluate(emit_to)?])
    }

    fn convert_to_state(
        &self,
        values: &[ArrayRef],
        filter: Option<&BooleanArray>,
    ) -> Result<Vec<ArrayRef>> {
        let values = values[0].as_primitive::<T>();
        let nulls = valid(values.nulls(), filter);
        Ok(vec![Arc::new(PrimitiveArray::<T>::new(values.values().clone(), nulls))])
    }

    fn size(&self) -> usize {
        self.ends.capacity() * size_of::<T::Native>() + self.seen.capacity()
    }
}
