//! `sum` and `avg` of integers and decimals: the exact value or an error. DataFusion's sums wrap around (apache/datafusion#12140) and its
//! means are cut; here sums grow in twice the width, and only a result that its type cannot hold is an error, whatever the
//! order of the rows. Sums and means of other types are DataFusion's.

mod accumulator;
mod mean;

use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

use arrow::array::{Array, ArrowPrimitiveType, BooleanArray, PrimitiveArray};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{
    DECIMAL128_MAX_PRECISION, DECIMAL256_MAX_PRECISION, DataType, Decimal128Type, Decimal256Type,
    DecimalType, Field, FieldRef, Int64Type, UInt64Type, i256,
};
use datafusion::common::Result;
use datafusion::functions_aggregate::sum::Sum;
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::{AggregateOrderSensitivity, format_state_name};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, GroupsAccumulator, ReversedUDAF, SetMonotonicity,
    Signature,
};

use self::accumulator::{Distinct, Groups, Total};
use crate::sql::types::sql_name;
use crate::sql::{Code, Error};

/// The functions.
pub(crate) fn functions() -> [Arc<AggregateUDF>; 2] {
    [Arc::new(AggregateUDF::from(ExactSum { inner: Sum::new() })), mean::function()]
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct ExactSum {
    /// For types, and for sums of other types.
    inner: Sum,
}

/// Calls a generic function for the type of a result that is summed exactly.
macro_rules! exactly {
    ($data_type:expr, $make:ident, $other:expr) => {
        match $data_type {
            DataType::Int64 => Ok($make::<Int64Type>::boxed($data_type)),
            DataType::UInt64 => Ok($make::<UInt64Type>::boxed($data_type)),
            DataType::Decimal128(..) => Ok($make::<Decimal128Type>::boxed($data_type)),
            _ => $other,
        }
    };
}

impl AggregateUDFImpl for ExactSum {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(types)
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let data_type = match args.return_type() {
            DataType::Int64 | DataType::UInt64 if !args.is_distinct => {
                Int64Type::total_type(args.return_type())
            }
            DataType::Decimal128(..) if !args.is_distinct => {
                Decimal128Type::total_type(args.return_type())
            }
            _ => return self.inner.state_fields(args),
        };
        Ok(vec![Arc::new(Field::new(format_state_name(args.name, "sum"), data_type, true))])
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let data_type = args.return_field.data_type();
        match args.is_distinct {
            true => exactly!(data_type, Distinct, self.inner.accumulator(args)),
            false => exactly!(data_type, Total, self.inner.accumulator(args)),
        }
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let data_type = args.return_field.data_type();
        match args.is_distinct {
            true => exactly!(data_type, Distinct, self.inner.create_sliding_accumulator(args)),
            false => exactly!(data_type, Total, self.inner.create_sliding_accumulator(args)),
        }
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool {
        self.inner.groups_accumulator_supported(args)
    }

    fn create_groups_accumulator(
        &self,
        args: AccumulatorArgs,
    ) -> Result<Box<dyn GroupsAccumulator>> {
        exactly!(args.return_field.data_type(), Groups, self.inner.create_groups_accumulator(args))
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        self.inner.reverse_expr()
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        self.inner.order_sensitivity()
    }

    fn set_monotonicity(&self, data_type: &DataType) -> SetMonotonicity {
        self.inner.set_monotonicity(data_type)
    }
}

/// A type whose values are summed in a wider one.
trait Summand: ArrowPrimitiveType<Native: Hash + Eq> + fmt::Debug {
    /// What the total is kept as: a decimal, so that partial totals travel between operators.
    type Total: DecimalType;

    /// The type of a total of results of `data_type`.
    fn total_type(data_type: &DataType) -> DataType;

    /// The total and a value more.
    fn add(total: TotalOf<Self>, value: Self::Native) -> TotalOf<Self>;

    /// The total without a value.
    fn subtract(total: TotalOf<Self>, value: Self::Native) -> TotalOf<Self>;

    /// The sum of totals.
    fn merge(total: TotalOf<Self>, other: TotalOf<Self>) -> TotalOf<Self>;

    /// The sum of values.
    fn sum(values: &[Self::Native]) -> TotalOf<Self>;

    /// The total as a value of `data_type`, if that can hold it.
    fn result(total: TotalOf<Self>, data_type: &DataType) -> Option<Self::Native>;
}

type TotalOf<T> = <<T as Summand>::Total as ArrowPrimitiveType>::Native;

/// Values that are added in 64 bits at once: their halves do not overflow those.
const CHUNK: usize = 1 << 20;

macro_rules! integer_summand {
    ($t:ty) => {
        impl Summand for $t {
            type Total = Decimal128Type;

            fn total_type(_data_type: &DataType) -> DataType {
                DataType::Decimal128(DECIMAL128_MAX_PRECISION, 0)
            }

            fn add(total: i128, value: Self::Native) -> i128 {
                total + i128::from(value)
            }

            fn subtract(total: i128, value: Self::Native) -> i128 {
                total - i128::from(value)
            }

            fn merge(total: i128, other: i128) -> i128 {
                total + other
            }

            fn sum(values: &[Self::Native]) -> i128 {
                // Halves add up without a carry, many at once.
                let halves = values.chunks(CHUNK).map(|chunk| {
                    let low: Self::Native = chunk.iter().map(|v| v & 0xffff_ffff).sum();
                    let high: Self::Native = chunk.iter().map(|v| v >> 32).sum();
                    (i128::from(high) << 32) + i128::from(low)
                });
                halves.sum()
            }

            fn result(total: i128, _data_type: &DataType) -> Option<Self::Native> {
                total.try_into().ok()
            }
        }
    };
}

integer_summand!(Int64Type);
integer_summand!(UInt64Type);

impl Summand for Decimal128Type {
    type Total = Decimal256Type;

    fn total_type(data_type: &DataType) -> DataType {
        let scale = match data_type {
            DataType::Decimal128(_, scale) => *scale,
            _ => 0,
        };
        DataType::Decimal256(DECIMAL256_MAX_PRECISION, scale)
    }

    fn add(total: i256, value: i128) -> i256 {
        total.wrapping_add(i256::from_i128(value))
    }

    fn subtract(total: i256, value: i128) -> i256 {
        total.wrapping_sub(i256::from_i128(value))
    }

    fn merge(total: i256, other: i256) -> i256 {
        total.wrapping_add(other)
    }

    fn sum(values: &[i128]) -> i256 {
        let (mut total, mut part) = (i256::ZERO, 0_i128);
        for value in values {
            match part.checked_add(*value) {
                Some(sum) => part = sum,
                None => {
                    total = Self::add(total, part);
                    part = *value;
                }
            }
        }
        Self::add(total, part)
    }

    fn result(total: i256, data_type: &DataType) -> Option<i128> {
        let DataType::Decimal128(precision, _) = data_type else { return None };
        let total = total.to_i128()?;
        Self::is_valid_decimal_precision(total, *precision).then_some(total)
    }
}

/// The total as a result.
fn result<T: Summand>(total: TotalOf<T>, data_type: &DataType) -> Result<T::Native> {
    T::result(total, data_type).ok_or_else(|| {
        let hint = match data_type {
            DataType::Decimal128(..) => "",
            _ => "; sum(CAST(... AS NUMERIC(38, 0))) has more room",
        };
        let name = sql_name(data_type);
        let message = format!("{name} out of range: the sum does not fit{hint}");
        Error::new(Code::NumericValueOutOfRange, message).into()
    })
}

/// The sum of values that are not NULL.
fn sum_of<T: Summand>(values: &PrimitiveArray<T>) -> TotalOf<T> {
    match values.nulls() {
        None => T::sum(values.values()),
        Some(nulls) => nulls.valid_slices().fold(TotalOf::<T>::default(), |total, (from, to)| {
            T::merge(total, T::sum(&values.values()[from..to]))
        }),
    }
}

/// Rows that count; `None` where all do.
pub(super) fn valid(
    nulls: Option<&NullBuffer>,
    filter: Option<&BooleanArray>,
) -> Option<NullBuffer> {
    let filter = filter.map(|filter| {
        let passed = NullBuffer::new(filter.values().clone());
        NullBuffer::union(Some(&passed), filter.nulls()).unwrap_or(passed)
    });
    NullBuffer::union(nulls, filter.as_ref())
}
