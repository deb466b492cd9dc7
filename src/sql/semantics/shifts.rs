//! `<<` and `>>`. PostgreSQL: the result has the type of the left operand, and bits that leave it are gone; of the right operand those bits
//! count that say a place in it. DataFusion takes both operands to their common type, BIGINT beside a literal.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, ArrowPrimitiveType, AsArray, PrimitiveArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int16Type, Int32Type, Int64Type};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{Expr, ExprSchemable, ScalarUDF};
use datafusion::sql::sqlparser::ast::BinaryOperator;

use super::time::function::Function;
use crate::sql::Error;

/// Plans shifts of integers.
#[derive(Debug)]
pub(crate) struct Shifts;

impl ExprPlanner for Shifts {
    fn plan_binary_op(
        &self,
        expr: RawBinaryExpr,
        schema: &DFSchema,
    ) -> Result<PlannerResult<RawBinaryExpr>> {
        let function = match expr.op {
            BinaryOperator::PGBitwiseShiftLeft => left(),
            BinaryOperator::PGBitwiseShiftRight => right(),
            _ => return Ok(PlannerResult::Original(expr)),
        };
        let signed = |e: &Expr| {
            e.get_type(schema).is_ok_and(|t| t.is_signed_integer() && t != DataType::Int8)
        };
        if !signed(&expr.left) || !expr.right.get_type(schema).is_ok_and(|t| t.is_integer()) {
            return Ok(PlannerResult::Original(expr));
        }
        let value = match expr.left {
            // A literal is an INTEGER where it fits.
            Expr::Literal(ScalarValue::Int64(Some(v)), metadata) => match i32::try_from(v) {
                Ok(v) => Expr::Literal(ScalarValue::Int32(Some(v)), metadata),
                Err(_) => Expr::Literal(ScalarValue::Int64(Some(v)), metadata),
            },
            other => other,
        };
        Ok(PlannerResult::Planned(function.call(vec![value, expr.right])))
    }
}

fn operands(types: &[DataType]) -> Result<Vec<DataType>> {
    match types {
        [value, _] => Ok(vec![value.clone(), DataType::Int64]),
        _ => Err(Error::internal("a shift has two operands").into()),
    }
}

fn left() -> ScalarUDF {
    Function::udf(
        "shift_left",
        operands,
        |types| Ok(types[0].clone()),
        |arrays, _| {
            match arrays[0].data_type() {
                // Computed in 32 bits, of which the lower 16 stay.
                DataType::Int16 => {
                    each::<Int16Type>(arrays, |v, by| i32::from(v).wrapping_shl(by) as i16)
                }
                DataType::Int32 => each::<Int32Type>(arrays, i32::wrapping_shl),
                _ => each::<Int64Type>(arrays, i64::wrapping_shl),
            }
        },
    )
}

fn right() -> ScalarUDF {
    Function::udf(
        "shift_right",
        operands,
        |types| Ok(types[0].clone()),
        |arrays, _| match arrays[0].data_type() {
            DataType::Int16 => {
                each::<Int16Type>(arrays, |v, by| i32::from(v).wrapping_shr(by) as i16)
            }
            DataType::Int32 => each::<Int32Type>(arrays, i32::wrapping_shr),
            _ => each::<Int64Type>(arrays, i64::wrapping_shr),
        },
    )
}

fn each<T: ArrowPrimitiveType>(
    arrays: &[ArrayRef],
    shift: fn(T::Native, u32) -> T::Native,
) -> Result<ArrayRef> {
    // Optimizers ask what comes of NULLs without a type.
    let (values, counts) = (cast(&arrays[0], &T::DATA_TYPE)?, cast(&arrays[1], &DataType::Int64)?);
    let values = values.as_primitive::<T>().iter();
    // The lower bits of the count, which is all that a shift looks at.
    let counts = counts.as_primitive::<Int64Type>().iter();
    let shifted: PrimitiveArray<T> =
        values.zip(counts).map(|(v, by)| Some(shift(v?, by? as u32))).collect();
    Ok(Arc::new(shifted))
}
