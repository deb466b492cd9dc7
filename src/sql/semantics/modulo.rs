//! `mod` and `div`, which DataFusion has as the operators `%` and `/` of integers only.

use std::sync::Arc;

use arrow::array::{ArrayRef, Datum};
use arrow::compute::kernels::numeric::{div, rem, sub};
use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType};
use arrow::error::ArrowError;
use datafusion::common::Result;
use datafusion::logical_expr::type_coercion::binary::BinaryTypeCoercer;
use datafusion::logical_expr::{
    ColumnarValue, Operator, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::physical_expr_common::datum::apply;

use crate::sql::Error;

/// The functions.
pub(crate) fn functions() -> [Arc<ScalarUDF>; 2] {
    [Operator::Modulo, Operator::Divide].map(|op| {
        let signature = Signature::user_defined(Volatility::Immutable);
        Arc::new(ScalarUDF::from(OfDivision { op, signature }))
    })
}

/// The rest of a division, or its whole part.
#[derive(Debug, PartialEq, Eq, Hash)]
struct OfDivision {
    op: Operator,
    signature: Signature,
}

impl ScalarUDFImpl for OfDivision {
    fn name(&self) -> &str {
        match self.op {
            Operator::Modulo => "mod",
            _ => "div",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let [left, right] = types else {
            return Err(Error::syntax(format!("{} takes two numbers", self.name())).into());
        };
        let number = |t: &DataType| t.is_null() || t.is_integer() || t.is_decimal();
        if !types.iter().all(number) {
            let message =
                format!("{} takes integers and decimals, not {left} and {right}", self.name());
            return Err(Error::unsupported(message).into());
        }
        if types.iter().all(DataType::is_null) {
            return Ok(vec![DataType::Int64; 2]);
        }
        let (left, right) =
            BinaryTypeCoercer::new(left, &Operator::Modulo, right).get_input_types()?;
        Ok(vec![left, right])
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        let [left, right] = types else {
            return Err(Error::internal(format!("{} has two operands", self.name())).into());
        };
        match (self.op, left) {
            (Operator::Divide, DataType::Decimal128(..)) => {
                Ok(DataType::Decimal128(DECIMAL128_MAX_PRECISION, 0))
            }
            (Operator::Divide, DataType::Decimal256(..)) => {
                Err(Error::unsupported("div of decimals of more than 38 digits").into())
            }
            _ => BinaryTypeCoercer::new(left, &Operator::Modulo, right).get_result_type(),
        }
    }

    fn is_strict(&self) -> bool {
        true
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [left, right] = args.args.as_slice() else {
            return Err(Error::internal(format!("{} has two operands", self.name())).into());
        };
        match (self.op, args.return_field.data_type()) {
            (Operator::Modulo, _) => apply(left, right, rem),
            (_, DataType::Decimal128(..)) => apply(left, right, whole_part),
            _ => apply(left, right, div),
        }
    }
}

/// The quotient of decimals without its fraction: what is left without the rest divides evenly.
fn whole_part(left: &dyn Datum, right: &dyn Datum) -> Result<ArrayRef, ArrowError> {
    let rest = rem(left, right)?;
    let quotient = div(&sub(left, &rest)?, right)?;
    let to = DataType::Decimal128(DECIMAL128_MAX_PRECISION, 0);
    arrow::compute::cast(&quotient, &to)
}
