//! `mode()`: the most frequent value; of several, the first in order, as PostgreSQL has it.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array};
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type};
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::format_state_name;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility,
};

/// The function.
pub(crate) fn function() -> Arc<AggregateUDF> {
    Arc::new(AggregateUDF::from(Mode { signature: Signature::any(1, Volatility::Immutable) }))
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Mode {
    signature: Signature,
}

fn value_type(data_type: &DataType) -> DataType {
    match data_type {
        DataType::Dictionary(_, value) => value.as_ref().clone(),
        other => other.clone(),
    }
}

impl AggregateUDFImpl for Mode {
    fn name(&self) -> &str {
        "mode"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(types.first().map_or(DataType::Null, value_type))
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let list = |name, item: DataType| {
            let item = Arc::new(Field::new_list_field(item, true));
            Arc::new(Field::new(format_state_name(args.name, name), DataType::List(item), true))
        };
        Ok(vec![
            list("values", value_type(args.input_fields[0].data_type())),
            list("counts", DataType::Int64),
        ])
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let descending = args.order_bys.first().is_some_and(|sort| sort.options.descending);
        let data_type = value_type(args.expr_fields[0].data_type());
        Ok(Box::new(Counts { counts: HashMap::new(), descending, data_type }))
    }

    fn supports_within_group_clause(&self) -> bool {
        true
    }
}

/// How often each value has come.
#[derive(Debug)]
struct Counts {
    counts: HashMap<ScalarValue, i64>,
    descending: bool,
    data_type: DataType,
}

impl Counts {
    fn add(&mut self, values: &ArrayRef, counts: Option<&Int64Array>) -> Result<()> {
        for row in (0..values.len()).filter(|row| values.is_valid(*row)) {
            let value = ScalarValue::try_from_array(values, row)?;
            *self.counts.entry(value).or_default() += counts.map_or(1, |c| c.value(row));
        }
        Ok(())
    }
}

impl Accumulator for Counts {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.add(&values[0], None)
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let (values, counts) = (states[0].as_list::<i32>(), states[1].as_list::<i32>());
        for (values, counts) in values.iter().zip(counts.iter()) {
            if let (Some(values), Some(counts)) = (values, counts) {
                self.add(&values, Some(counts.as_primitive::<Int64Type>()))?;
            }
        }
        Ok(())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let (values, counts): (Vec<_>, Vec<_>) =
            self.counts.iter().map(|(v, c)| (v.clone(), ScalarValue::from(*c))).unzip();
        Ok(vec![
            ScalarValue::List(ScalarValue::new_list(&values, &self.data_type, true)),
            ScalarValue::List(ScalarValue::new_list(&counts, &DataType::Int64, true)),
        ])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let best = self.counts.iter().reduce(|a, b| {
            let order = a.0.partial_cmp(b.0);
            let order = if self.descending { order.map(|o| o.reverse()) } else { order };
            let first = order != Some(std::cmp::Ordering::Greater);
            if a.1 > b.1 || (a.1 == b.1 && first) { a } else { b }
        });
        match best {
            Some((value, _)) => Ok(value.clone()),
            None => ScalarValue::try_from(&self.data_type),
        }
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.counts.keys().map(|v| v.size() + 16).sum::<usize>()
    }
}
