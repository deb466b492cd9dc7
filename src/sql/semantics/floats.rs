//! One NaN and one zero. Arrow tells NaNs by their sign, and -0 from +0, wherever values are compared, grouped or joined; SQL does not.
//! So floats are made canonical where they are made: as results of arithmetic, casts, functions and aggregates here, bound
//! values and stored ones where they are read.

mod aggregates;
mod window;

use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray, RecordBatch};
use arrow::datatypes::{DataType, Field, FieldRef, Float32Type, Float64Type};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Expr, ExprSchemable, LogicalPlan, ReturnFieldArgs,
    ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::optimizer::AnalyzerRule;

use super::plans::{input_schema, rewrite_expressions};
use crate::sql::Error;

pub(crate) use aggregates::wrap as wrap_aggregates;

/// Functions that return what they are given.
const PASSING: [&str; 9] =
    ["coalesce", "nvl", "ifnull", "nvl2", "nullif", "greatest", "least", "abs", "canonical_float"];

/// Makes floats canonical where they are computed.
#[derive(Debug)]
pub(crate) struct CanonicalFloats;

impl AnalyzerRule for CanonicalFloats {
    fn name(&self) -> &str {
        "CanonicalFloats"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        let plan = plan.transform_up_with_subqueries(|node| {
            let schema = input_schema(&node)?;
            rewrite_expressions(node, &schema, |expr, schema| Ok(canonical(expr, schema)))
        })?;
        Ok(plan.data)
    }
}

/// The expression with its value canonical, where it may make another. What is computed of it again needs no such care.
fn canonical(expr: Expr, schema: &DFSchema) -> Transformed<Expr> {
    let makes = match &expr {
        Expr::BinaryExpr(binary) => binary.op.is_numerical_operators(),
        Expr::Negative(_) => true,
        Expr::Cast(cast) => narrows(&cast.expr, cast.field.data_type(), schema),
        Expr::TryCast(cast) => narrows(&cast.expr, cast.field.data_type(), schema),
        Expr::ScalarFunction(function) => !PASSING.contains(&function.func.name()),
        Expr::Literal(value, metadata) => {
            return match canonical_scalar(value) {
                Some(value) => Transformed::yes(Expr::Literal(value, metadata.clone())),
                None => Transformed::no(expr),
            };
        }
        _ => false,
    };
    if !makes || !expr.get_type(schema).is_ok_and(|t| is_float(&t)) {
        return Transformed::no(expr);
    }
    let args = vec![without_inner(expr)];
    Transformed::yes(Expr::ScalarFunction(ScalarFunction::new_udf(Arc::clone(&CANONICAL), args)))
}

/// Whether a cast to a float may make NaN or -0.
fn narrows(from: &Expr, to: &DataType, schema: &DFSchema) -> bool {
    match from.get_type(schema) {
        Ok(DataType::Float32) => *to != DataType::Float64,
        Ok(from) => !from.is_integer() && !from.is_decimal() && from != *to,
        Err(_) => true,
    }
}

/// Arithmetic whose operands are not made canonical one by one.
fn without_inner(expr: Expr) -> Expr {
    let bare = |e: Box<Expr>| match *e {
        Expr::ScalarFunction(mut f) if f.func.name() == CANONICAL.name() && f.args.len() == 1 => {
            Box::new(f.args.remove(0))
        }
        other => Box::new(other),
    };
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            Expr::BinaryExpr(BinaryExpr { left: bare(left), op, right: bare(right) })
        }
        Expr::Negative(inner) => Expr::Negative(bare(inner)),
        other => other,
    }
}

fn is_float(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Float32 | DataType::Float64)
}

static CANONICAL: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| {
    let signature = Signature::any(1, Volatility::Immutable);
    Arc::new(ScalarUDF::from(Canonical { signature }))
});

#[derive(Debug, PartialEq, Eq, Hash)]
struct Canonical {
    signature: Signature,
}

impl ScalarUDFImpl for Canonical {
    fn name(&self) -> &str {
        "canonical_float"
    }

    /// As if it were not there.
    fn display_name(&self, args: &[Expr]) -> Result<String> {
        Ok(args.first().map(ToString::to_string).unwrap_or_default())
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        Ok(args.first().map(|e| e.schema_name().to_string()).unwrap_or_default())
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(types.first().cloned().unwrap_or(DataType::Null))
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let given = args.arg_fields.first().ok_or_else(|| Error::internal("a float is missing"))?;
        Ok(Arc::new(Field::new(self.name(), given.data_type().clone(), given.is_nullable())))
    }

    fn is_strict(&self) -> bool {
        true
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Ok(match args.args.into_iter().next() {
            Some(ColumnarValue::Array(array)) => ColumnarValue::Array(canonical_array(&array)),
            Some(ColumnarValue::Scalar(value)) => {
                ColumnarValue::Scalar(canonical_scalar(&value).unwrap_or(value))
            }
            None => return Err(Error::internal("a float is missing").into()),
        })
    }

    fn output_ordering(&self, inputs: &[ExprProperties]) -> Result<SortProperties> {
        Ok(inputs.first().map_or(SortProperties::Unordered, |input| input.sort_properties))
    }
}

/// Whether the bits are those of a NaN or zero with another sign or content than the one that stands for all.
fn is_odd_64(value: f64) -> bool {
    const CANONICAL: u64 = f64::NAN.to_bits();
    const SIGN: u64 = 1 << 63;
    let bits = value.to_bits();
    (bits == SIGN) | ((bits & !SIGN > f64::INFINITY.to_bits()) & (bits != CANONICAL))
}

fn is_odd_32(value: f32) -> bool {
    const CANONICAL: u32 = f32::NAN.to_bits();
    const SIGN: u32 = 1 << 31;
    let bits = value.to_bits();
    (bits == SIGN) | ((bits & !SIGN > f32::INFINITY.to_bits()) & (bits != CANONICAL))
}

fn canonical_64(value: f64) -> f64 {
    if value.is_nan() { f64::NAN } else { value + 0.0 }
}

fn canonical_32(value: f32) -> f32 {
    if value.is_nan() { f32::NAN } else { value + 0.0 }
}

/// The array with all NaN and all zeros alike. Most arrays need only the look.
pub(crate) fn canonical_array(array: &ArrayRef) -> ArrayRef {
    match array.data_type() {
        DataType::Float64 => {
            let values: &PrimitiveArray<Float64Type> = array.as_primitive();
            match values.values().iter().fold(false, |odd, v| odd | is_odd_64(*v)) {
                true => Arc::new(values.unary::<_, Float64Type>(canonical_64)),
                false => Arc::clone(array),
            }
        }
        DataType::Float32 => {
            let values: &PrimitiveArray<Float32Type> = array.as_primitive();
            match values.values().iter().fold(false, |odd, v| odd | is_odd_32(*v)) {
                true => Arc::new(values.unary::<_, Float32Type>(canonical_32)),
                false => Arc::clone(array),
            }
        }
        _ => Arc::clone(array),
    }
}

/// The canonical value, where `value` is not.
pub(crate) fn canonical_scalar(value: &ScalarValue) -> Option<ScalarValue> {
    match value {
        ScalarValue::Float64(Some(v)) if is_odd_64(*v) => {
            Some(ScalarValue::Float64(Some(canonical_64(*v))))
        }
        ScalarValue::Float32(Some(v)) if is_odd_32(*v) => {
            Some(ScalarValue::Float32(Some(canonical_32(*v))))
        }
        _ => None,
    }
}

/// The batch with its float columns canonical: what was stored may not be.
pub(crate) fn canonical_batch(batch: RecordBatch) -> Result<RecordBatch> {
    if !batch.schema_ref().fields().iter().any(|f| is_float(f.data_type())) {
        return Ok(batch);
    }
    let changed = batch
        .columns()
        .iter()
        .any(|c| is_float(c.data_type()) && !Arc::ptr_eq(&canonical_array(c), c));
    if !changed {
        return Ok(batch);
    }
    let columns = batch.columns().iter().map(canonical_array).collect();
    Ok(RecordBatch::try_new(batch.schema(), columns)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::Float64Array;

    #[test]
    fn there_is_one_nan_and_one_zero() {
        let odd = [-f64::NAN, f64::from_bits(0x7ff0_0000_0000_0001), -0.0];
        assert!(odd.iter().all(|v| is_odd_64(*v) && !is_odd_64(canonical_64(*v))));
        let plain = [f64::NAN, 0.0, 1.5, -1.5, f64::INFINITY, f64::NEG_INFINITY, f64::MIN_POSITIVE];
        assert!(plain.iter().all(|v| !is_odd_64(*v)));
        assert!(is_odd_32(-0.0) && is_odd_32(-f32::NAN) && !is_odd_32(f32::NEG_INFINITY));
        let array: ArrayRef = Arc::new(Float64Array::from(vec![Some(-0.0), None, Some(2.0)]));
        let canonical = canonical_array(&array);
        assert_eq!(canonical.as_primitive::<Float64Type>().value(0).to_bits(), 0);
        assert!(canonical.is_null(1));
        assert!(Arc::ptr_eq(&canonical_array(&canonical), &canonical));
    }
}
