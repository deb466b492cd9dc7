//! Casts of numbers to integers round, as in PostgreSQL: doubles to the nearest, halves to even, decimals halves away from zero.
//! DataFusion cuts the fraction off. `round` of a double rounds halves to even too, and a double that REAL cannot hold is an error.

use std::sync::{Arc, LazyLock};

use arrow::array::{Array, ArrayRef, AsArray, Float32Array};
use arrow::datatypes::{DataType, Float32Type, Float64Type};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, LogicalPlan, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
    Signature, Volatility,
};
use datafusion::optimizer::AnalyzerRule;

use super::plans::{input_schema, rewrite_expressions};
use crate::sql::{Code, Error};

/// Rounds before what cuts.
#[derive(Debug)]
pub(crate) struct RoundingCasts;

impl AnalyzerRule for RoundingCasts {
    fn name(&self) -> &str {
        "RoundingCasts"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        let plan = plan.transform_up_with_subqueries(|node| {
            let schema = input_schema(&node)?;
            rewrite_expressions(node, &schema, rounded)
        })?;
        Ok(plan.data)
    }
}

fn rounded(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    Ok(match expr {
        Expr::Cast(mut cast) => {
            let function = before(&cast.expr.get_type(schema)?, cast.field.data_type());
            match function {
                Some(function) if !is_call(&cast.expr, function) => {
                    cast.expr = Box::new(function.call(vec![*cast.expr]));
                    Transformed::yes(Expr::Cast(cast))
                }
                _ => Transformed::no(Expr::Cast(cast)),
            }
        }
        Expr::TryCast(mut cast) => {
            let function = before(&cast.expr.get_type(schema)?, cast.field.data_type());
            match function {
                Some(function) if function.name() == NEAREST && !is_call(&cast.expr, function) => {
                    cast.expr = Box::new(function.call(vec![*cast.expr]));
                    Transformed::yes(Expr::TryCast(cast))
                }
                _ => Transformed::no(Expr::TryCast(cast)),
            }
        }
        Expr::ScalarFunction(mut call) if call.name() == "round" && call.args.len() == 1 => {
            if call.args[0].get_type(schema)?.is_floating() {
                call.func = Arc::clone(&NEAREST_FUNCTION);
                Transformed::yes(Expr::ScalarFunction(call))
            } else {
                Transformed::no(Expr::ScalarFunction(call))
            }
        }
        other => Transformed::no(other),
    })
}

/// What a value passes through before it is cast.
fn before(from: &DataType, to: &DataType) -> Option<&'static Arc<ScalarUDF>> {
    let fraction = match from {
        DataType::Decimal128(_, scale) | DataType::Decimal256(_, scale) => *scale > 0,
        other => other.is_floating(),
    };
    if fraction && to.is_integer() {
        Some(&NEAREST_FUNCTION)
    } else if (from, to) == (&DataType::Float64, &DataType::Float32) {
        Some(&REAL_FUNCTION)
    } else {
        None
    }
}

fn is_call(expr: &Expr, function: &ScalarUDF) -> bool {
    matches!(expr, Expr::ScalarFunction(call) if call.name() == function.name())
}

const NEAREST: &str = "nearest";

static NEAREST_FUNCTION: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| of(Step::Nearest));
static REAL_FUNCTION: LazyLock<Arc<ScalarUDF>> = LazyLock::new(|| of(Step::FitsReal));

fn of(step: Step) -> Arc<ScalarUDF> {
    let signature = Signature::any(1, Volatility::Immutable);
    Arc::new(ScalarUDF::from(BeforeCast { step, signature }))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Step {
    /// The nearest whole number.
    Nearest,
    /// The same double, if it fits REAL.
    FitsReal,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct BeforeCast {
    step: Step,
    signature: Signature,
}

impl ScalarUDFImpl for BeforeCast {
    fn name(&self) -> &str {
        match self.step {
            Step::Nearest => NEAREST,
            Step::FitsReal => "fits_real",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        Ok(match types {
            // Rounding 9.9 to a whole number takes a digit more than the type may have.
            [DataType::Decimal128(precision, _)] => {
                DataType::Decimal128((precision + 1).min(38), 0)
            }
            [DataType::Decimal256(precision, _)] => {
                DataType::Decimal256((precision + 1).min(76), 0)
            }
            [other] => other.clone(),
            _ => return Err(Error::internal("what comes before a cast has one argument").into()),
        })
    }

    fn is_strict(&self) -> bool {
        true
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let constant = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let [values] = arrays.as_slice() else {
            return Err(Error::internal("what comes before a cast has one argument").into());
        };
        let made = match self.step {
            Step::Nearest => nearest(values, args.return_field.data_type())?,
            Step::FitsReal => fits_real(values)?,
        };
        if constant {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&made, 0)?));
        }
        Ok(ColumnarValue::Array(made))
    }
}

fn nearest(values: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    Ok(match values.data_type() {
        DataType::Float32 => Arc::new(
            values.as_primitive::<Float32Type>().unary::<_, Float32Type>(f32::round_ties_even),
        ),
        DataType::Float64 => Arc::new(
            values.as_primitive::<Float64Type>().unary::<_, Float64Type>(f64::round_ties_even),
        ),
        // Arrow rounds halves of decimals away from zero.
        _ => arrow::compute::cast(values, to)?,
    })
}

fn fits_real(values: &ArrayRef) -> Result<ArrayRef> {
    let narrow: Float32Array =
        values.as_primitive::<Float64Type>().unary::<_, Float32Type>(|x| x as f32);
    let wide = values.as_primitive::<Float64Type>();
    let beyond = wide.iter().zip(narrow.iter()).flat_map(|(wide, narrow)| wide.zip(narrow)).any(
        |(wide, narrow)| {
            (narrow.is_infinite() && wide.is_finite()) || (narrow == 0.0 && wide != 0.0)
        },
    );
    if beyond {
        let message = "a value is out of range for type REAL";
        return Err(Error::new(Code::NumericValueOutOfRange, message).into());
    }
    Ok(Arc::clone(values))
}
