//! Types of numbers that meet, before DataFusion unites them. It makes DECIMAL(30, 15) of a decimal and a double, which cuts
//! both (apache/datafusion#14612); PostgreSQL makes a double of them. And a double written beside an integer is compared exactly here.

use std::sync::Arc;

use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DECIMAL256_MAX_PRECISION, DataType};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::expr::{Case, InList, InSubquery, ScalarFunction, WindowFunction};
use datafusion::logical_expr::expr_rewriter::coerce_plan_expr_for_schema;
use datafusion::logical_expr::type_coercion::binary::{BinaryTypeCoercer, type_union_resolution};
use datafusion::logical_expr::{
    Between, BinaryExpr, Cast, Expr, ExprSchemable, Join, LogicalPlan, Operator, Union, Values,
};
use datafusion::optimizer::AnalyzerRule;

use super::arguments::literal_as;
use super::arithmetic;
use super::literals::fraction;
use super::plans::{input_schema, rewrite_expressions};

/// Functions that return one of their arguments.
pub(super) const CHOOSING: [&str; 8] =
    ["coalesce", "nvl", "ifnull", "nvl2", "nullif", "greatest", "least", "make_array"];

/// Gives numbers of different types that meet a common type that holds them.
#[derive(Debug)]
pub(crate) struct CommonNumbers;

impl AnalyzerRule for CommonNumbers {
    fn name(&self) -> &str {
        "CommonNumbers"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        let plan = plan.transform_up_with_subqueries(|node| {
            let node = match node {
                LogicalPlan::Values(values) => LogicalPlan::Values(unmixed(values)?),
                LogicalPlan::Union(union) => LogicalPlan::Union(union_of(union)?),
                LogicalPlan::Join(join) => LogicalPlan::Join(join_on(join)?),
                other => other,
            };
            let schema = input_schema(&node)?;
            let node = match rewrite_expressions(node, &schema, common)?.data {
                LogicalPlan::Values(values) => LogicalPlan::Values(retyped(values)?),
                other => other,
            };
            Ok(Transformed::yes(node.recompute_schema()?))
        })?;
        Ok(plan.data)
    }
}

fn common(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    Ok(Transformed::yes(match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if op.supports_propagation() => {
            let [left, right] = boxes(compared(vec![*left, *right], schema));
            Expr::BinaryExpr(BinaryExpr { left, op, right })
        }
        Expr::BinaryExpr(binary) => arithmetic::before_coercion(binary, schema),
        Expr::Between(Between { expr, negated, low, high }) => {
            let [expr, low, high] = boxes(compared(vec![*expr, *low, *high], schema));
            // Values that cannot be compared are the statement's fault, which DataFusion's own check of BETWEEN takes for its own.
            for bound in [&low, &high] {
                let (value, bound) = (type_of(&expr, schema), type_of(bound, schema));
                BinaryTypeCoercer::new(&value, &Operator::GtEq, &bound).get_input_types()?;
            }
            Expr::Between(Between { expr, negated, low, high })
        }
        Expr::InList(InList { expr, list, negated }) => {
            let mut all = compared(std::iter::once(*expr).chain(list).collect(), schema);
            let list = all.split_off(1);
            let [expr] = boxes(all);
            Expr::InList(InList { expr, list, negated })
        }
        Expr::InSubquery(subquery) => Expr::InSubquery(in_subquery(subquery, schema)?),
        Expr::Case(case) => Expr::Case(case_of(case, schema)),
        Expr::ScalarFunction(ScalarFunction { func, args }) if CHOOSING.contains(&func.name()) => {
            Expr::ScalarFunction(ScalarFunction { func, args: united(args, schema) })
        }
        Expr::WindowFunction(window) => Expr::WindowFunction(shifted(window, schema)),
        other => return Ok(Transformed::no(other)),
    }))
}

/// As many boxes as there were expressions.
fn boxes<const N: usize>(exprs: Vec<Expr>) -> [Box<Expr>; N] {
    let mut exprs = exprs.into_iter();
    std::array::from_fn(|_| Box::new(exprs.next().unwrap_or_default()))
}

fn type_of(expr: &Expr, schema: &DFSchema) -> DataType {
    expr.get_type(schema).unwrap_or(DataType::Null)
}

/// The expression as a value of another type.
pub(super) fn cast(expr: Expr, from: &DataType, to: &DataType) -> Expr {
    match expr {
        expr if from == to => expr,
        Expr::Literal(value, metadata) => match literal_as(&value, to) {
            Some(value) => Expr::Literal(value, metadata),
            None => Expr::Cast(Cast::new(Box::new(Expr::Literal(value, metadata)), to.clone())),
        },
        expr => Expr::Cast(Cast::new(Box::new(expr), to.clone())),
    }
}

/// Expressions of which one is returned, with a common type where doubles and decimals are among them.
fn united(exprs: Vec<Expr>, schema: &DFSchema) -> Vec<Expr> {
    let types: Vec<DataType> = exprs.iter().map(|e| type_of(e, schema)).collect();
    if !mixed(&types) {
        return exprs;
    }
    let double = |(expr, data_type): (Expr, &DataType)| match data_type.is_numeric() {
        true => cast(expr, data_type, &DataType::Float64),
        false => expr,
    };
    exprs.into_iter().zip(&types).map(double).collect()
}

/// Whether there are doubles (or reals) and decimals.
fn mixed(types: &[DataType]) -> bool {
    types.iter().any(DataType::is_floating) && types.iter().any(DataType::is_decimal)
}

/// Expressions that are compared with each other.
fn compared(mut exprs: Vec<Expr>, schema: &DFSchema) -> Vec<Expr> {
    read_beside_decimals(&mut exprs, schema);
    let types: Vec<DataType> = exprs.iter().map(|e| type_of(e, schema)).collect();
    if mixed(&types) {
        return united(exprs, schema);
    }
    if types.contains(&DataType::Float32)
        && types.iter().any(DataType::is_integer)
        && !types.contains(&DataType::Float64)
    {
        return beside_reals(exprs, &types);
    }
    let decimal = types.iter().any(DataType::is_decimal);
    let integer = |i: usize| types[i].is_integer() && !matches!(exprs[i], Expr::Literal(..));
    let doubles_written =
        (0..exprs.len()).all(|i| !types[i].is_floating() || matches!(exprs[i], Expr::Literal(..)));
    if decimal || ((0..exprs.len()).any(integer) && doubles_written) {
        for expr in &mut exprs {
            if let Expr::Literal(value, _) = expr
                && let Some(exact) = exact_literal(value, decimal)
            {
                *value = exact;
            }
        }
    }
    match wide_decimal(&exprs, schema) {
        Some(wide) => exprs
            .into_iter()
            .map(|e| match type_of(&e, schema) {
                from if from.is_numeric() => cast(e, &from, &wide),
                _ => e,
            })
            .collect(),
        None => exprs,
    }
}

/// Texts of numbers beside decimals, as decimals of the digits that they have: in the type of a column they would be rounded.
fn read_beside_decimals(exprs: &mut [Expr], schema: &DFSchema) {
    if !exprs.iter().any(|e| type_of(e, schema).is_decimal()) {
        return;
    }
    for expr in exprs {
        if let Expr::Literal(value, _) = expr
            && let Some(Some(text)) = value.try_as_str()
            && let Some(read @ ScalarValue::Decimal128(..)) = fraction(text.trim())
        {
            *value = read;
        }
    }
}

/// Reals beside integers, as doubles: 32 bits do not hold all integers. A literal that they hold is a real.
fn beside_reals(exprs: Vec<Expr>, types: &[DataType]) -> Vec<Expr> {
    let exact = |e: &Expr, t: &DataType| match e {
        Expr::Literal(value, _) if t.is_integer() => {
            let value = value.cast_to(&DataType::Int64);
            matches!(value, Ok(ScalarValue::Int64(Some(v))) if v.unsigned_abs() <= 1 << 24)
        }
        _ => !t.is_integer(),
    };
    let to = match exprs.iter().zip(types).all(|(e, t)| exact(e, t)) {
        true => DataType::Float32,
        false => DataType::Float64,
    };
    let real = |(e, t): (Expr, &DataType)| if t.is_numeric() { cast(e, t, &to) } else { e };
    exprs.into_iter().zip(types).map(real).collect()
}

/// A literal that compares with integers just as `value` does: a double as an exact number, an integer beside decimals as a decimal
/// of its digits.
fn exact_literal(value: &ScalarValue, beside_decimals: bool) -> Option<ScalarValue> {
    let integer = |v: i128| {
        let digits = v.unsigned_abs().max(1).ilog10() + 1;
        (digits <= u32::from(DECIMAL128_MAX_PRECISION)).then_some(ScalarValue::Decimal128(
            Some(v),
            digits as u8,
            0,
        ))
    };
    let double = match value {
        ScalarValue::Float64(Some(v)) => *v,
        ScalarValue::Float32(Some(v)) => f64::from(*v),
        ScalarValue::Int64(Some(v)) if beside_decimals => return integer(i128::from(*v)),
        ScalarValue::UInt64(Some(v)) if beside_decimals => return integer(i128::from(*v)),
        _ => return None,
    };
    if !double.is_finite() || double.abs() >= 1e37 {
        return None;
    }
    let floor = double.floor() as i128;
    if double.fract() == 0.0 {
        return match i64::try_from(floor) {
            Ok(v) => Some(ScalarValue::Int64(Some(v))),
            Err(_) => integer(floor),
        };
    }
    // No integer lies between it and the middle of its neighbours.
    match integer(floor * 10 + 5)? {
        ScalarValue::Decimal128(value, precision, _) => {
            Some(ScalarValue::Decimal128(value, precision.max(2), 1))
        }
        _ => None,
    }
}

/// The decimal type of more than 38 digits that is needed to compare decimals and integers.
fn wide_decimal(exprs: &[Expr], schema: &DFSchema) -> Option<DataType> {
    let (mut whole, mut scale, mut decimals) = (0, 0, false);
    for expr in exprs {
        let (p, s) = match type_of(expr, schema) {
            DataType::Decimal128(p, s) | DataType::Decimal256(p, s) => {
                decimals = true;
                (i32::from(p), i32::from(s))
            }
            DataType::Int64 | DataType::UInt64 => (20, 0),
            other if other.is_integer() => (10, 0),
            DataType::Null => continue,
            _ => return None,
        };
        whole = whole.max(p - s);
        scale = scale.max(s);
    }
    let precision = u8::try_from(whole + scale).ok()?;
    (decimals && precision > DECIMAL128_MAX_PRECISION)
        .then(|| DataType::Decimal256(precision.min(DECIMAL256_MAX_PRECISION), scale as i8))
}

fn case_of(case: Case, schema: &DFSchema) -> Case {
    let Case { expr, when_then_expr, else_expr } = case;
    let count = when_then_expr.len();
    let (whens, thens): (Vec<Expr>, Vec<Expr>) =
        when_then_expr.into_iter().map(|(when, then)| (*when, *then)).unzip();
    let (expr, whens) = match expr {
        Some(expr) => {
            let mut all = compared(std::iter::once(*expr).chain(whens).collect(), schema);
            let whens = all.split_off(1);
            (all.pop().map(Box::new), whens)
        }
        None => (None, whens),
    };
    let mut results = united(thens.into_iter().chain(else_expr.map(|e| *e)).collect(), schema);
    let else_expr = results.split_off(count).pop().map(Box::new);
    let branches = whens.into_iter().zip(results);
    Case {
        expr,
        when_then_expr: branches.map(|(w, t)| (Box::new(w), Box::new(t))).collect(),
        else_expr,
    }
}

/// The default of `lead` and `lag` beside their values.
fn shifted(mut window: Box<WindowFunction>, schema: &DFSchema) -> Box<WindowFunction> {
    if matches!(window.fun.name(), "lead" | "lag")
        && let [value, offset, default] = window.params.args.as_slice()
    {
        let both = united(vec![value.clone(), default.clone()], schema);
        if let Ok([value, default]) = <[Expr; 2]>::try_from(both) {
            window.params.args = vec![value, offset.clone(), default];
        }
    }
    window
}

fn in_subquery(subquery: InSubquery, schema: &DFSchema) -> Result<InSubquery> {
    let InSubquery { expr, mut subquery, negated } = subquery;
    let from = type_of(&expr, schema);
    let column = subquery.subquery.schema().field(0).data_type().clone();
    if !mixed(&[from.clone(), column]) {
        return Ok(InSubquery { expr, subquery, negated });
    }
    let plan = Arc::unwrap_or_clone(subquery.subquery);
    subquery.subquery = Arc::new(with_doubles(plan, &[true])?);
    let expr = Box::new(cast(*expr, &from, &DataType::Float64));
    Ok(InSubquery { expr, subquery, negated })
}

fn join_on(mut join: Join) -> Result<Join> {
    for (left, right) in &mut join.on {
        let types = [type_of(left, join.left.schema()), type_of(right, join.right.schema())];
        if mixed(&types) {
            *left = cast(std::mem::take(left), &types[0], &DataType::Float64);
            *right = cast(std::mem::take(right), &types[1], &DataType::Float64);
        }
    }
    Ok(join)
}

/// The plan with some of its columns as doubles.
fn with_doubles(plan: LogicalPlan, double: &[bool]) -> Result<LogicalPlan> {
    let schema = doubled(plan.schema(), double)?;
    coerce_plan_expr_for_schema(plan, &schema)
}

/// The schema with some of its numbers as doubles.
fn doubled(schema: &DFSchema, double: &[bool]) -> Result<DFSchema> {
    let fields = schema.iter().zip(double).map(|((qualifier, field), double)| {
        let field = match *double && field.data_type().is_numeric() {
            true => Arc::new(field.as_ref().clone().with_data_type(DataType::Float64)),
            false => Arc::clone(field),
        };
        (qualifier.cloned(), field)
    });
    DFSchema::new_with_metadata(fields.collect(), schema.metadata().clone())
}

/// The union with doubles where doubles and decimals meet. Its schema has the types of its first input, which may be a union itself.
fn union_of(union: Union) -> Result<Union> {
    let double: Vec<bool> = (0..union.schema.fields().len())
        .map(|i| {
            let types = union.inputs.iter().filter_map(|p| p.schema().fields().get(i));
            mixed(&types.map(|f| f.data_type().clone()).collect::<Vec<_>>())
        })
        .collect();
    let Union { inputs, schema } = union;
    let inputs: Vec<_> = match double.contains(&true) {
        false => inputs,
        true => inputs
            .into_iter()
            .map(|input| with_doubles(Arc::unwrap_or_clone(input), &double).map(Arc::new))
            .collect::<Result<_>>()?,
    };
    let Some(first) = inputs.first() else { return Ok(Union { inputs, schema }) };
    let fields = schema.iter().zip(first.schema().fields()).map(|((qualifier, field), first)| {
        let data_type = first.data_type().clone();
        (qualifier.cloned(), Arc::new(field.as_ref().clone().with_data_type(data_type)))
    });
    let metadata = schema.metadata().clone();
    let schema = Arc::new(DFSchema::new_with_metadata(fields.collect(), metadata)?);
    Ok(Union { inputs, schema })
}

/// Whether a type is what DataFusion makes of decimals and doubles: (30, 15), or more for large integers among them.
fn is_mixed(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Decimal128(30.., 15))
}

/// The rows with columns as doubles that the planner has mixed of doubles and decimals.
fn unmixed(values: Values) -> Result<Values> {
    let Values { schema, values } = values;
    let empty = DFSchema::empty();
    let inner = |expr: &Expr| match expr {
        Expr::Cast(cast) if is_mixed(cast.field.data_type()) => Some(type_of(&cast.expr, &empty)),
        _ => None,
    };
    let double: Vec<bool> = (0..schema.fields().len())
        .map(|i| {
            let cast: Vec<DataType> = values.iter().filter_map(|row| inner(&row[i])).collect();
            is_mixed(schema.field(i).data_type()) && cast.iter().any(DataType::is_floating)
        })
        .collect();
    if !double.contains(&true) {
        return Ok(Values { schema, values });
    }
    let restored = |(expr, double): (Expr, &bool)| match expr {
        Expr::Cast(cast) if *double && is_mixed(cast.field.data_type()) => {
            let from = type_of(&cast.expr, &empty);
            self::cast(*cast.expr, &from, &DataType::Float64)
        }
        other if *double => {
            let from = type_of(&other, &empty);
            self::cast(other, &from, &DataType::Float64)
        }
        other => other,
    };
    let values = values
        .into_iter()
        .map(|row| row.into_iter().zip(&double).map(restored).collect())
        .collect();
    Ok(Values { schema: Arc::new(doubled(&schema, &double)?), values })
}

/// The rows with the types that their expressions have after the rules: the planner has reckoned others, of sums of a date and an
/// interval and of quotients.
fn retyped(values: Values) -> Result<Values> {
    let Values { schema, mut values } = values;
    let empty = DFSchema::empty();
    let mut fields = Vec::with_capacity(schema.fields().len());
    for (i, (qualifier, field)) in schema.iter().enumerate() {
        let types: Vec<DataType> = values.iter().map(|row| type_of(&row[i], &empty)).collect();
        if types.iter().all(|t| t == field.data_type()) {
            fields.push((qualifier.cloned(), Arc::clone(field)));
            continue;
        }
        let known: Vec<DataType> = types.iter().filter(|t| !t.is_null()).cloned().collect();
        let to = type_union_resolution(&known).unwrap_or_else(|| field.data_type().clone());
        for (row, from) in values.iter_mut().zip(&types) {
            row[i] = cast(std::mem::take(&mut row[i]), from, &to);
        }
        let field = field.as_ref().clone().with_data_type(to);
        fields.push((qualifier.cloned(), Arc::new(field)));
    }
    let metadata = schema.metadata().clone();
    let schema = Arc::new(DFSchema::new_with_metadata(fields, metadata)?);
    Ok(Values { schema, values })
}
