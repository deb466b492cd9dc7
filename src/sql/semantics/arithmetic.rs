//! Arithmetic of integers and decimals: the exact value or an error. DataFusion's `+`, `-` and `*` wrap around
//! (apache/datafusion#3520) and let decimals grow past their precision; its operators have a switch against that which no plan can
//! set. Its quotient of decimals is cut, four digits after the point of the dividend.

mod division;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Datum};
use arrow::compute::kernels::numeric::{add, mul, sub};
use arrow::datatypes::{
    DECIMAL128_MAX_PRECISION, DECIMAL256_MAX_PRECISION, DataType, Decimal128Type, Decimal256Type,
    Field, FieldRef,
};
use arrow::error::ArrowError;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::type_coercion::binary::BinaryTypeCoercer;
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Expr, ExprSchemable, LogicalPlan, Operator, ReturnFieldArgs,
    ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::optimizer::AnalyzerRule;
use datafusion::physical_expr_common::datum::apply;

use super::numbers::cast;
use super::plans::{input_schema, rewrite_expressions};
use crate::sql::types::sql_name;
use crate::sql::{Code, Error};

/// Puts checked arithmetic where operators would wrap around. Runs when operands have their types.
#[derive(Debug)]
pub(crate) struct CheckedArithmetic;

impl AnalyzerRule for CheckedArithmetic {
    fn name(&self) -> &str {
        "CheckedArithmetic"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        let plan = plan.transform_up_with_subqueries(|node| {
            let schema = input_schema(&node)?;
            rewrite_expressions(node, &schema, |expr, schema| Ok(checked(expr, schema)))
        })?;
        Ok(plan.data)
    }
}

/// The checked function in the place of an operator that may overflow.
fn checked(expr: Expr, schema: &DFSchema) -> Transformed<Expr> {
    let Expr::BinaryExpr(BinaryExpr { left, op, right }) = expr else {
        return Transformed::no(expr);
    };
    let overflows = |e: &Expr| e.get_type(schema).is_ok_and(|t| t.is_integer() || t.is_decimal());
    let arithmetic = matches!(op, Operator::Plus | Operator::Minus | Operator::Multiply);
    if !arithmetic || !overflows(&left) || !overflows(&right) {
        return Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right }));
    }
    Transformed::yes(call(op, *left, *right))
}

fn call(op: Operator, left: Expr, right: Expr) -> Expr {
    let function = Arc::new(ScalarUDF::from(Checked::new(op)));
    Expr::ScalarFunction(ScalarFunction::new_udf(function, vec![left, right]))
}

/// What must be known before operands get common types: the quotient of decimals has another type, and a decimal beside a REAL
/// makes a double.
pub(super) fn before_coercion(binary: BinaryExpr, schema: &DFSchema) -> Expr {
    let BinaryExpr { left, op, right } = binary;
    let types = [&left, &right].map(|e| e.get_type(schema).unwrap_or(DataType::Null));
    let exact = |t: &DataType| t.is_integer() || t.is_decimal();
    let decimal = types.iter().any(DataType::is_decimal);
    if op == Operator::Divide && decimal && types.iter().all(exact) {
        return call(op, *left, *right);
    }
    let double = |e: Box<Expr>, t: &DataType| match t.is_decimal() {
        true => Box::new(cast(*e, t, &DataType::Float64)),
        false => e,
    };
    if op.is_numerical_operators() && decimal && types.iter().any(DataType::is_floating) {
        let (left, right) = (double(left, &types[0]), double(right, &types[1]));
        return Expr::BinaryExpr(BinaryExpr { left, op, right });
    }
    Expr::BinaryExpr(BinaryExpr { left, op, right })
}

/// One of the operators.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Checked {
    op: Operator,
    signature: Signature,
}

impl Checked {
    fn new(op: Operator) -> Self {
        let signature = match op {
            Operator::Divide => Signature::user_defined(Volatility::Immutable),
            _ => Signature::any(2, Volatility::Immutable),
        };
        Self { op, signature }
    }

    /// The expression as it was written: a result column is named by it.
    fn as_written(&self, args: &[Expr]) -> Result<Expr> {
        let mut operands = args.iter().cloned().map(|arg| {
            arg.transform_up(|e| match &e {
                Expr::ScalarFunction(f) => match f.func.inner().downcast_ref::<Self>() {
                    Some(inner) if f.args.len() == 2 => {
                        let [left, right] = [&f.args[0], &f.args[1]].map(|a| Box::new(a.clone()));
                        Ok(Transformed::yes(Expr::BinaryExpr(BinaryExpr {
                            left,
                            op: inner.op,
                            right,
                        })))
                    }
                    _ => Ok(Transformed::no(e)),
                },
                _ => Ok(Transformed::no(e)),
            })
            .map(|t| Box::new(t.data))
        });
        match (operands.next(), operands.next()) {
            (Some(left), Some(right)) => {
                Ok(Expr::BinaryExpr(BinaryExpr { left: left?, op: self.op, right: right? }))
            }
            _ => Err(Error::internal(format!("{} has two operands", self.op)).into()),
        }
    }
}

impl ScalarUDFImpl for Checked {
    fn name(&self) -> &str {
        match self.op {
            Operator::Plus => "checked_add",
            Operator::Minus => "checked_subtract",
            Operator::Divide => "checked_divide",
            _ => "checked_multiply",
        }
    }

    fn display_name(&self, args: &[Expr]) -> Result<String> {
        Ok(self.as_written(args)?.to_string())
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        Ok(self.as_written(args)?.schema_name().to_string())
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        match types {
            [left, right] if self.op == Operator::Divide => division::result_type(left, right),
            [left, right] => BinaryTypeCoercer::new(left, &self.op, right).get_result_type(),
            _ => Err(Error::internal(format!("{} has two operands", self.op)).into()),
        }
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let types: Vec<DataType> = args.arg_fields.iter().map(|f| f.data_type().clone()).collect();
        let nullable = args.arg_fields.iter().any(|f| f.is_nullable());
        Ok(Arc::new(Field::new(self.name(), self.return_type(&types)?, nullable)))
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        types.iter().map(division::operand_type).collect()
    }

    fn is_strict(&self) -> bool {
        true
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [left, right] = args.args.as_slice() else {
            return Err(Error::internal(format!("{} has two operands", self.op)).into());
        };
        let kernel = |l: &dyn Datum, r: &dyn Datum| {
            let result = match self.op {
                Operator::Plus => add(l, r),
                Operator::Minus => sub(l, r),
                Operator::Divide => division::divide(l, r),
                _ => mul(l, r),
            }?;
            within_precision(result)
        };
        apply(left, right, kernel).map_err(|e| match e.find_root() {
            datafusion::error::DataFusionError::ArrowError(inner, _) => {
                overflow(inner, args.return_field.data_type())
            }
            _ => e,
        })
    }

    fn output_ordering(&self, inputs: &[ExprProperties]) -> Result<SortProperties> {
        let [left, right] = inputs else { return Ok(SortProperties::Unordered) };
        let (left, right) = (left.sort_properties, right.sort_properties);
        // A product or quotient rises or falls with the sign of the other operand.
        Ok(match self.op {
            Operator::Plus => left.add(&right),
            Operator::Minus => left.sub(&right),
            _ if left == SortProperties::Singleton && right == SortProperties::Singleton => {
                SortProperties::Singleton
            }
            _ => SortProperties::Unordered,
        })
    }
}

/// Decimals of the largest precision are exact integers a little past it: those are errors too.
fn within_precision(result: ArrayRef) -> Result<ArrayRef, ArrowError> {
    match result.data_type() {
        DataType::Decimal128(p @ DECIMAL128_MAX_PRECISION, _) => {
            result.as_primitive::<Decimal128Type>().validate_decimal_precision(*p)?;
        }
        DataType::Decimal256(p @ DECIMAL256_MAX_PRECISION, _) => {
            result.as_primitive::<Decimal256Type>().validate_decimal_precision(*p)?;
        }
        _ => {}
    }
    Ok(result)
}

/// The error for a result that its type cannot hold.
fn overflow(error: &ArrowError, data_type: &DataType) -> datafusion::error::DataFusionError {
    let reason = match error {
        ArrowError::DivideByZero => {
            return Error::new(Code::DivisionByZero, "division by zero").into();
        }
        ArrowError::ArithmeticOverflow(reason) => {
            reason.strip_prefix("Overflow happened on: ").unwrap_or(reason).to_owned()
        }
        other => other.to_string(),
    };
    let message = format!("{} out of range: {reason}", sql_name(data_type));
    Error::new(Code::NumericValueOutOfRange, message).into()
}
