//! Aggregates over windows that rows leave. DataFusion's `bool_and`, `bool_or`, `bit_and`, `bit_or` and `string_agg` cannot forget a
//! row, and refuse every frame that does not begin at the first one. Here they count what is in the window, or keep it.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, FieldRef, Int64Type, UInt64Type};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::expr::AggregateFunctionParams;
use datafusion::logical_expr::function::{
    AccumulatorArgs, AggregateFunctionSimplification, StateFieldsArgs,
};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, GroupsAccumulator, ReversedUDAF, SetMonotonicity,
    Signature,
};

use super::bounded::MAX_VALUE_BYTES;
use crate::sql::{Code, Error};

/// The functions, those of this module in a wrapping.
pub(super) fn wrap(functions: Vec<Arc<AggregateUDF>>) -> Vec<Arc<AggregateUDF>> {
    functions
        .into_iter()
        .map(|inner| match kind(inner.name()) {
            Some(kind) => Arc::new(AggregateUDF::from(Sliding { inner, kind })),
            None => inner,
        })
        .collect()
}

/// What is known of the rows of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    /// How often a boolean is true and false; whether all must be true.
    Booleans { all: bool },
    /// How often each bit is set; whether it must be in all.
    Bits { all: bool },
    /// The texts themselves.
    Texts,
}

fn kind(name: &str) -> Option<Kind> {
    Some(match name {
        "bool_and" => Kind::Booleans { all: true },
        "bool_or" => Kind::Booleans { all: false },
        "bit_and" => Kind::Bits { all: true },
        "bit_or" => Kind::Bits { all: false },
        "string_agg" => Kind::Texts,
        _ => return None,
    })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Sliding {
    inner: Arc<AggregateUDF>,
    kind: Kind,
}

impl AggregateUDFImpl for Sliding {
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
        self.inner.accumulator(args)
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        if args.is_distinct {
            return self.inner.create_sliding_accumulator(args);
        }
        let to = args.return_field.data_type().clone();
        Ok(match self.kind {
            Kind::Booleans { all } => window(Booleans { all, counts: [0; 2] }),
            Kind::Bits { all } => window(Bits { all, to, rows: 0, counts: [0; 64] }),
            Kind::Texts => window(Texts { to, rows: VecDeque::new(), made: AtomicUsize::new(0) }),
        })
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        self.inner.groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(
        &self,
        args: AccumulatorArgs,
    ) -> Result<Box<dyn GroupsAccumulator>> {
        self.inner.create_groups_accumulator(args)
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        self.inner.order_sensitivity()
    }

    fn simplify(&self) -> Option<AggregateFunctionSimplification> {
        self.inner.simplify()
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        match self.inner.reverse_udf() {
            ReversedUDAF::Reversed(inner) => {
                let reversed = Self { inner, kind: self.kind };
                ReversedUDAF::Reversed(Arc::new(AggregateUDF::from(reversed)))
            }
            other => other,
        }
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.coerce_types(types)
    }

    fn default_value(&self, data_type: &DataType) -> Result<ScalarValue> {
        self.inner.default_value(data_type)
    }

    fn set_monotonicity(&self, data_type: &DataType) -> SetMonotonicity {
        self.inner.inner().set_monotonicity(data_type)
    }
}

/// The rows of a window, which come at its end and leave at its beginning.
trait Rows: Debug + Send + Sync {
    fn enter(&mut self, values: &[ArrayRef]) -> Result<()>;
    fn leave(&mut self, values: &[ArrayRef]) -> Result<()>;
    fn value(&self) -> Result<ScalarValue>;
    fn size(&self) -> usize;
}

fn window(rows: impl Rows + 'static) -> Box<dyn Accumulator> {
    Box::new(Window(rows))
}

#[derive(Debug)]
struct Window<R>(R);

impl<R: Rows + 'static> Accumulator for Window<R> {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.0.enter(values)
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.0.leave(values)
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        self.0.value()
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        Err(Error::internal("a window has no partial results").into())
    }

    fn merge_batch(&mut self, _states: &[ArrayRef]) -> Result<()> {
        Err(Error::internal("a window has no partial results").into())
    }

    fn size(&self) -> usize {
        self.0.size()
    }
}

#[derive(Debug)]
struct Booleans {
    all: bool,
    /// How many are false, and how many true.
    counts: [u64; 2],
}

impl Rows for Booleans {
    fn enter(&mut self, values: &[ArrayRef]) -> Result<()> {
        for value in values[0].as_boolean().iter().flatten() {
            self.counts[usize::from(value)] += 1;
        }
        Ok(())
    }

    fn leave(&mut self, values: &[ArrayRef]) -> Result<()> {
        for value in values[0].as_boolean().iter().flatten() {
            self.counts[usize::from(value)] -= 1;
        }
        Ok(())
    }

    fn value(&self) -> Result<ScalarValue> {
        let [no, yes] = self.counts;
        let value = if self.all { no == 0 } else { yes > 0 };
        Ok(ScalarValue::Boolean((no + yes > 0).then_some(value)))
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }
}

#[derive(Debug)]
struct Bits {
    all: bool,
    to: DataType,
    rows: u64,
    /// How many numbers have each bit.
    counts: [u64; 64],
}

impl Bits {
    /// The bits of the numbers that are there; those of negative ones reach to the top.
    fn each(values: &[ArrayRef], mut f: impl FnMut(u64)) -> Result<()> {
        match values[0].data_type() {
            DataType::UInt64 => {
                values[0].as_primitive::<UInt64Type>().iter().flatten().for_each(f);
            }
            _ => {
                let wide = cast(&values[0], &DataType::Int64)?;
                wide.as_primitive::<Int64Type>()
                    .iter()
                    .flatten()
                    .for_each(|value| f(value.cast_unsigned()));
            }
        }
        Ok(())
    }
}

impl Rows for Bits {
    fn enter(&mut self, values: &[ArrayRef]) -> Result<()> {
        Self::each(values, |value| {
            self.rows += 1;
            for (bit, count) in self.counts.iter_mut().enumerate() {
                *count += (value >> bit) & 1;
            }
        })
    }

    fn leave(&mut self, values: &[ArrayRef]) -> Result<()> {
        Self::each(values, |value| {
            self.rows -= 1;
            for (bit, count) in self.counts.iter_mut().enumerate() {
                *count -= (value >> bit) & 1;
            }
        })
    }

    fn value(&self) -> Result<ScalarValue> {
        if self.rows == 0 {
            return ScalarValue::try_from(&self.to);
        }
        let least = if self.all { self.rows } else { 1 };
        let set = self.counts.iter().enumerate().filter(|(_, count)| **count >= least);
        let bits = set.fold(0_u64, |bits, (bit, _)| bits | (1 << bit));
        match self.to {
            DataType::UInt64 => Ok(ScalarValue::UInt64(Some(bits))),
            _ => ScalarValue::Int64(Some(bits.cast_signed())).cast_to(&self.to),
        }
    }

    fn size(&self) -> usize {
        size_of_val(self)
    }
}

/// A window has a text for each row, which may be as long as all rows before it: they are all held until the partition is done.
const MAX_MADE_BYTES: usize = 4 * MAX_VALUE_BYTES;

#[derive(Debug)]
struct Texts {
    to: DataType,
    /// Each text with what stands before it where it is not the first.
    rows: VecDeque<Option<(String, String)>>,
    /// Bytes of the texts that were made so far.
    made: AtomicUsize,
}

impl Rows for Texts {
    fn enter(&mut self, values: &[ArrayRef]) -> Result<()> {
        let texts = cast(&values[0], &DataType::Utf8)?;
        let between = match values.get(1) {
            Some(between) => cast(between, &DataType::Utf8)?,
            None => return Err(Error::internal("string_agg lacks its delimiter").into()),
        };
        let pairs = texts.as_string::<i32>().iter().zip(between.as_string::<i32>());
        self.rows.extend(pairs.map(|(text, between)| {
            text.map(|text| (between.unwrap_or_default().to_owned(), text.to_owned()))
        }));
        Ok(())
    }

    fn leave(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.rows.drain(..values[0].len().min(self.rows.len()));
        Ok(())
    }

    fn value(&self) -> Result<ScalarValue> {
        let bytes: usize = self.rows.iter().flatten().map(|(b, t)| b.len() + t.len()).sum();
        let made = self.made.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        if made > MAX_MADE_BYTES {
            let message = format!(
                "string_agg over a window would make more than {MAX_MADE_BYTES} bytes of texts in a partition"
            );
            return Err(Error::new(Code::ProgramLimitExceeded, message).into());
        }
        let mut all: Option<String> = None;
        for (between, text) in self.rows.iter().flatten() {
            match &mut all {
                None => all = Some(text.clone()),
                Some(all) => {
                    all.push_str(between);
                    all.push_str(text);
                }
            }
        }
        ScalarValue::Utf8(all).cast_to(&self.to)
    }

    fn size(&self) -> usize {
        let texts: usize = self.rows.iter().flatten().map(|(b, t)| b.len() + t.len()).sum();
        size_of_val(self) + self.rows.capacity() * size_of::<Option<(String, String)>>() + texts
    }
}
