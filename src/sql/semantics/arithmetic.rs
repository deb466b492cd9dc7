//! Arithmetic of integers and decimals, and texts that are joined: the exact value or an error. DataFusion's `+`, `-` and `*` wrap around
//! (apache/datafusion#3520) and let decimals grow past their precision; its operators have a switch against that which no plan can
//! set. Its quotient of decimals is cut, four digits after the point of the dividend.

mod concatenation;
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

use self::concatenation::concatenated;
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
    let types = || Some((left.get_type(schema).ok()?, right.get_type(schema).ok()?));
    let exact = |t: &DataType| t.is_integer() || t.is_decimal();
    let is_checked = match op {
        Operator::Plus | Operator::Minus | Operator::Multiply => {
            types().is_some_and(|(left, right)| exact(&left) && exact(&right))
        }
        Operator::StringConcat => types() == Some((DataType::Utf8, DataType::Utf8)),
        _ => false,
    };
    if !is_checked {
        return Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right }));
    }
    Transformed::yes(call(op, *left, *right))
}

/// `left op right`. A chain, `a + b - c`, is one function of all its operands: a call is named by all that is in it, and in nested calls
/// DataFusion would make each name anew for each level.
fn call(op: Operator, left: Expr, right: Expr) -> Expr {
    let (mut ops, mut args) = match left {
        Expr::ScalarFunction(function) => match Checked::of(&function) {
            Some(chain) if chain.kind() == Kind::of(op) => (chain.ops.clone(), function.args),
            _ => (Vec::new(), vec![Expr::ScalarFunction(function)]),
        },
        other => (Vec::new(), vec![other]),
    };
    ops.push(op);
    args.push(right);
    let function = Arc::new(ScalarUDF::from(Checked::new(ops)));
    Expr::ScalarFunction(ScalarFunction::new_udf(function, args))
}

/// What must be known before operands get common types: the quotient of decimals has another type, and a decimal or an integer
/// beside a REAL makes a double.
pub(super) fn before_coercion(binary: BinaryExpr, schema: &DFSchema) -> Expr {
    let BinaryExpr { left, op, right } = binary;
    let types = [&left, &right].map(|e| e.get_type(schema).unwrap_or(DataType::Null));
    let exact = |t: &DataType| t.is_integer() || t.is_decimal();
    let decimal = types.iter().any(DataType::is_decimal);
    if op == Operator::Divide && decimal && types.iter().all(exact) {
        return call(op, *left, *right);
    }
    // PostgreSQL computes a REAL beside an INTEGER in double precision, too.
    let real = types.contains(&DataType::Float32) && types.iter().any(DataType::is_integer);
    if op.is_numerical_operators() && (real || decimal && types.iter().any(DataType::is_floating)) {
        let [left, right] = [(left, &types[0]), (right, &types[1])]
            .map(|(e, t)| Box::new(cast(*e, t, &DataType::Float64)));
        return Expr::BinaryExpr(BinaryExpr { left, op, right });
    }
    Expr::BinaryExpr(BinaryExpr { left, op, right })
}

/// What is done to the operands of a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// `+`, `-` and `*`.
    Arithmetic,
    /// `/`, whose operands have types of their own.
    Division,
    /// `||` of texts.
    Concatenation,
}

impl Kind {
    fn of(op: Operator) -> Self {
        match op {
            Operator::Divide => Self::Division,
            Operator::StringConcat => Self::Concatenation,
            _ => Self::Arithmetic,
        }
    }
}

/// Operators of one [`Kind`] between operands, from the left.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Checked {
    ops: Vec<Operator>,
    name: String,
    signature: Signature,
}

impl Checked {
    fn new(ops: Vec<Operator>) -> Self {
        let signature = match ops.first().copied().map(Kind::of) {
            Some(Kind::Division) => Signature::user_defined(Volatility::Immutable),
            _ => Signature::any(ops.len() + 1, Volatility::Immutable),
        };
        Self { name: chain_name(&ops), ops, signature }
    }

    fn of(function: &ScalarFunction) -> Option<&Self> {
        let chain = function.func.inner().downcast_ref::<Self>()?;
        (function.args.len() == chain.ops.len() + 1).then_some(chain)
    }

    fn kind(&self) -> Kind {
        self.ops.first().copied().map_or(Kind::Arithmetic, Kind::of)
    }

    /// Works through a chain: `combine` takes what came out so far and the next operand.
    fn fold<T: Clone>(
        &self,
        operands: &[T],
        mut combine: impl FnMut(&Operator, T, &T) -> Result<T>,
    ) -> Result<T> {
        let [first, rest @ ..] = operands else { return Err(self.lacks_operands()) };
        if rest.len() != self.ops.len() {
            return Err(self.lacks_operands());
        }
        let mut chain = self.ops.iter().zip(rest);
        chain.try_fold(first.clone(), |done, (op, next)| combine(op, done, next))
    }

    fn lacks_operands(&self) -> datafusion::error::DataFusionError {
        Error::internal(format!("{} operators have one operand more", self.ops.len())).into()
    }

    /// The expression as it was written: a result column is named by it.
    fn as_written(&self, args: &[Expr]) -> Result<Expr> {
        let written = |arg: &Expr| {
            let written = arg.clone().transform_up(|e| match &e {
                Expr::ScalarFunction(function) => match Self::of(function) {
                    Some(chain) => Ok(Transformed::yes(chain.binary(&function.args)?)),
                    None => Ok(Transformed::no(e)),
                },
                _ => Ok(Transformed::no(e)),
            });
            written.map(|t| t.data)
        };
        self.binary(&args.iter().map(written).collect::<Result<Vec<_>>>()?)
    }

    fn binary(&self, operands: &[Expr]) -> Result<Expr> {
        self.fold(operands, |op, left, right| {
            Ok(Expr::BinaryExpr(BinaryExpr::new(Box::new(left), *op, Box::new(right.clone()))))
        })
    }

    fn result_type(op: &Operator, left: &DataType, right: &DataType) -> Result<DataType> {
        match op {
            Operator::Divide => division::result_type(left, right),
            _ => BinaryTypeCoercer::new(left, op, right).get_result_type(),
        }
    }
}

impl ScalarUDFImpl for Checked {
    fn name(&self) -> &str {
        &self.name
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
        self.fold(types, |op, left, right| Self::result_type(op, &left, right))
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
        if self.kind() == Kind::Concatenation {
            return concatenated(&args);
        }
        self.fold(&args.args, |op, left, right| {
            let kernel = |l: &dyn Datum, r: &dyn Datum| {
                let result = match op {
                    Operator::Plus => add(l, r),
                    Operator::Minus => sub(l, r),
                    Operator::Divide => division::divide(l, r),
                    _ => mul(l, r),
                }?;
                within_precision(result)
            };
            apply(&left, right, kernel).map_err(|e| match e.find_root() {
                datafusion::error::DataFusionError::ArrowError(inner, _) => {
                    match Self::result_type(op, &left.data_type(), &right.data_type()) {
                        Ok(data_type) => overflow(inner, &data_type),
                        Err(error) => error,
                    }
                }
                _ => e,
            })
        })
    }

    fn output_ordering(&self, inputs: &[ExprProperties]) -> Result<SortProperties> {
        let orders: Vec<SortProperties> = inputs.iter().map(|i| i.sort_properties).collect();
        self.fold(&orders, |op, left, right| {
            // A product or quotient rises or falls with the sign of the other operand.
            Ok(match op {
                Operator::Plus => left.add(right),
                Operator::Minus => left.sub(right),
                _ if left == SortProperties::Singleton && *right == SortProperties::Singleton => {
                    SortProperties::Singleton
                }
                _ => SortProperties::Unordered,
            })
        })
    }
}

/// What plans show: the first operators of a chain.
fn chain_name(ops: &[Operator]) -> String {
    let mut name = "checked".to_owned();
    for (i, op) in ops.iter().enumerate() {
        name.push_str(match op {
            _ if i == 4 => "_and_more",
            Operator::Plus => "_add",
            Operator::Minus => "_subtract",
            Operator::Divide => "_divide",
            Operator::StringConcat => "_concat",
            _ => "_multiply",
        });
        if i == 4 {
            break;
        }
    }
    name
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
