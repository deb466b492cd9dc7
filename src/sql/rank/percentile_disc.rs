//! `percentile_disc`: the first value in order with at least a share of the rows up to it, as PostgreSQL has it. Of any type
//! that sorts; DataFusion has none.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray, UInt64Array};
use arrow::buffer::{OffsetBuffer, ScalarBuffer};
use arrow::compute::{SortOptions, concat, is_not_null, sort_to_indices, take};
use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::ScalarValue;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::format_state_name;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility,
};
use datafusion::physical_expr::expressions::Literal;

/// The rank, counted from 0, of the first of `count` rows that has at least `share` of them up to it.
pub(super) fn rank(share: f64, count: u64) -> u64 {
    let rows = (share * count as f64).ceil() as u64;
    rows.clamp(1, count.max(1)) - 1
}

/// The function.
pub(crate) fn function() -> Arc<AggregateUDF> {
    Arc::new(AggregateUDF::from(PercentileDisc {
        signature: Signature::any(2, Volatility::Immutable),
    }))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct PercentileDisc {
    signature: Signature,
}

impl AggregateUDFImpl for PercentileDisc {
    fn name(&self) -> &str {
        "percentile_disc"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        let data_type = types.first().cloned().unwrap_or(DataType::Null);
        if data_type.is_nested() {
            let message =
                format!("percentile_disc of {data_type} is not supported: it does not sort");
            return Err(DataFusionError::Plan(message));
        }
        Ok(data_type)
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let item = Field::new_list_field(args.input_fields[0].data_type().clone(), true);
        let name = format_state_name(args.name, "values");
        Ok(vec![Arc::new(Field::new(name, DataType::List(Arc::new(item)), true))])
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let share = args.exprs.get(1).and_then(|e| Some(e.downcast_ref::<Literal>()?.value()));
        let share = share.and_then(|s| s.cast_to(&DataType::Float64).ok());
        let Some(ScalarValue::Float64(Some(share))) = share else {
            let message =
                "the share that percentile_disc takes must be a number, not an expression";
            return Err(DataFusionError::Plan(message.to_owned()));
        };
        if !(0.0..=1.0).contains(&share) {
            let message = format!("percentile_disc takes a share between 0 and 1, not {share}");
            return Err(DataFusionError::Plan(message));
        }
        if args.is_distinct {
            let message = "percentile_disc of DISTINCT values is not supported";
            return Err(DataFusionError::Plan(message.to_owned()));
        }
        let descending = args.order_bys.first().is_some_and(|sort| sort.options.descending);
        let data_type = args.expr_fields[0].data_type().clone();
        Ok(Box::new(Values { share, descending, data_type, parts: Vec::new(), bytes: 0 }))
    }

    fn supports_within_group_clause(&self) -> bool {
        true
    }
}

/// All values that are not NULL.
#[derive(Debug)]
struct Values {
    share: f64,
    descending: bool,
    data_type: DataType,
    parts: Vec<ArrayRef>,
    bytes: usize,
}

impl Values {
    fn all(&self) -> Result<ArrayRef> {
        if self.parts.is_empty() {
            return Ok(arrow::array::new_empty_array(&self.data_type));
        }
        let parts: Vec<&dyn Array> = self.parts.iter().map(AsRef::as_ref).collect();
        Ok(concat(&parts)?)
    }
}

impl Accumulator for Values {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        let kept = arrow::compute::filter(&values[0], &is_not_null(&values[0])?)?;
        if !kept.is_empty() {
            self.bytes += kept.get_array_memory_size();
            self.parts.push(kept);
        }
        Ok(())
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        for part in states[0].as_list::<i32>().iter().flatten() {
            self.update_batch(&[part])?;
        }
        Ok(())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let all = self.all()?;
        let length = i32::try_from(all.len()).map_err(|_| {
            DataFusionError::ResourcesExhausted("percentile_disc of 2^31 rows or more".to_owned())
        })?;
        let item = Arc::new(Field::new_list_field(self.data_type.clone(), true));
        let offsets = OffsetBuffer::new(ScalarBuffer::from(vec![0, length]));
        let list = ListArray::try_new(item, offsets, all, None)?;
        Ok(vec![ScalarValue::List(Arc::new(list))])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let all = self.all()?;
        if all.is_empty() {
            return ScalarValue::try_from(&self.data_type);
        }
        let at = rank(self.share, all.len() as u64);
        let options = SortOptions { descending: self.descending, nulls_first: false };
        let order = sort_to_indices(&all, Some(options), Some(at as usize + 1))?;
        let at = UInt64Array::from(vec![u64::from(order.value(at as usize))]);
        ScalarValue::try_from_array(&take(&all, &at, None)?, 0)
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.bytes
    }
}
