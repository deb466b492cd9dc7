//! The rules that give expressions of dates, times and timestamps their types, in the session's zone. DataFusion takes timestamps
//! beside text or dates to nanoseconds, which end in 2262 (apache/datafusion#1360, #8336), takes a wall clock beside an instant
//! for UTC (apache/datafusion#13212, #25095), and has no rule for texts of booleans (apache/datafusion#15161).

use std::sync::Arc;

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, Result, ScalarValue};
use datafusion::logical_expr::expr::{Alias, Case, Cast, InSubquery, ScalarFunction, TryCast};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    BinaryExpr, Expr, ExprSchemable, LogicalPlan, Operator, Projection, Union, when,
};
use datafusion::optimizer::AnalyzerRule;

use super::cast::{Unfit, is_time_cast};
use super::cast_function::{TimeCast, cast_literal};
use super::common_type::{Item, common_type, is_temporal, is_text};
use super::compare::read_binary;
use crate::sql::Error;
use crate::sql::modifier::Modifier;
use crate::sql::semantics::plans::keeping_name;
use crate::sql::semantics::time_zone::TimeZone;
use crate::sql::types::UTC;

/// Gives expressions of dates, times and timestamps their types before DataFusion does.
#[derive(Debug)]
pub(crate) struct TimeTypes;

/// Puts our casts in the place of those that DataFusion has added.
#[derive(Debug)]
pub(crate) struct TimeCasts;

impl AnalyzerRule for TimeTypes {
    fn name(&self) -> &str {
        "TimeTypes"
    }

    fn analyze(&self, plan: LogicalPlan, config: &ConfigOptions) -> Result<LogicalPlan> {
        let types = Types::new(config);
        rewrite(plan, &|expr, schema| types.expression(expr, schema), &|plan| types.plan(plan))
    }
}

impl AnalyzerRule for TimeCasts {
    fn name(&self) -> &str {
        "TimeCasts"
    }

    fn analyze(&self, plan: LogicalPlan, config: &ConfigOptions) -> Result<LogicalPlan> {
        let types = Types::new(config);
        rewrite(plan, &|expr, schema| types.cast(expr, schema), &|plan| Ok(Transformed::no(plan)))
    }
}

/// Rewrites every expression of a plan from its leaves up, and then the plan; names of columns stay.
pub(crate) fn rewrite(
    plan: LogicalPlan,
    expression: &dyn Fn(Expr, &DFSchema) -> Result<Transformed<Expr>>,
    node: &dyn Fn(LogicalPlan) -> Result<Transformed<LogicalPlan>>,
) -> Result<LogicalPlan> {
    let plan = plan.transform_up_with_subqueries(|plan| {
        let schema = schema_of(&plan)?;
        let names = NamePreserver::new(&plan);
        let plan = plan.map_expressions(|expr| {
            keeping_name(expr, &names, &mut |expr| {
                expr.transform_up(|expr| expression(expr, &schema))
            })
        })?;
        let plan = plan.transform_data(node)?;
        // What is below may have other types now.
        plan.map_data(|plan| plan.recompute_schema())
    })?;
    Ok(plan.data)
}

/// The columns that the expressions of a node can name.
fn schema_of(plan: &LogicalPlan) -> Result<DFSchema> {
    match plan {
        LogicalPlan::TableScan(scan) => {
            DFSchema::try_from_qualified_schema(scan.table_name.clone(), &scan.source.schema())
        }
        plan => Ok(merge_schema(&plan.inputs())),
    }
}

/// An expression with its type.
#[derive(Debug, Clone)]
pub(super) struct Typed {
    pub(super) expr: Expr,
    pub(super) data_type: DataType,
}

impl Typed {
    /// `None` where the type is not known, as of a parameter.
    pub(super) fn new(expr: &Expr, schema: &DFSchema) -> Option<Self> {
        if matches!(expr, Expr::Placeholder(_)) {
            return None;
        }
        let data_type = expr.get_type(schema).ok()?;
        Some(Self { expr: expr.clone(), data_type })
    }

    pub(super) fn literal(&self) -> Option<&ScalarValue> {
        literal(&self.expr)
    }

    pub(super) fn item(&self) -> Item<'_> {
        Item { data_type: &self.data_type, literal: self.literal() }
    }
}

/// A literal, under whatever name.
fn literal(expr: &Expr) -> Option<&ScalarValue> {
    match expr {
        Expr::Literal(value, _) => Some(value),
        Expr::Alias(Alias { expr, .. }) => literal(expr),
        _ => None,
    }
}

/// A cast of bytes to a text that is written: PostgreSQL's hexadecimal form, where Arrow takes the bytes for characters.
fn binary_text(cast: &Expr, schema: &DFSchema) -> Option<Expr> {
    use DataType::*;
    let (inner, field, unfit) = match cast {
        Expr::Cast(Cast { expr, field }) => (expr, field, Unfit::Fails),
        Expr::TryCast(TryCast { expr, field }) => (expr, field, Unfit::IsNull),
        _ => return None,
    };
    let from = inner.get_type(schema).ok()?;
    let bytes = matches!(from, Binary | LargeBinary | BinaryView | FixedSizeBinary(_));
    (bytes && is_text(field.data_type())).then(|| {
        let modifier = Modifier::of_field(field);
        TimeCast::expr(inner.as_ref().clone(), field.data_type(), modifier, unfit)
    })
}

/// Functions whose answer is one of their arguments: they have one type.
const CHOICES: [&str; 5] = ["coalesce", "greatest", "least", "nvl", "ifnull"];

/// Functions that look at the clock or calendar of an instant.
const CLOCKS: [&str; 11] = [
    "age",
    "date_diff",
    "date_format",
    "date_part",
    "date_trunc",
    "datetrunc",
    "datepart",
    "last_day",
    "strftime",
    "to_char",
    "to_local_time",
];

/// The rules of a session.
pub(super) struct Types {
    pub(super) zone: TimeZone,
}

impl Types {
    fn new(config: &ConfigOptions) -> Self {
        let zone = config.execution.time_zone.as_deref().unwrap_or(UTC);
        Self { zone: TimeZone::new(&Arc::from(zone)) }
    }

    /// The type of instants that carry the session's zone.
    pub(super) fn here(&self, unit: TimeUnit) -> DataType {
        self.zone.in_cast(DataType::Timestamp(unit, Some(Arc::from(UTC))))
    }

    /// `typed` as `to`: our cast, made at once where it is of a literal.
    pub(super) fn as_type(&self, typed: Typed, to: &DataType) -> Result<Expr> {
        let Typed { expr, data_type: from } = typed;
        if &from == to {
            return Ok(expr);
        }
        if let Some(unit) = self.over_here(&from, to) {
            // A wall clock is one of the session's zone.
            let here = self.here(unit);
            let expr = self.as_type(Typed { expr, data_type: from }, &here)?;
            return self.as_type(Typed { expr, data_type: here }, to);
        }
        if let Some(value) = literal(&expr)
            && (from.is_null() || is_time_cast(&from, to))
        {
            return cast_literal(value, to);
        }
        Ok(match is_time_cast(&from, to) && !is_plain(&from, to) {
            true => TimeCast::expr(expr, to, None, Unfit::Fails),
            false => Expr::Cast(Cast::new(Box::new(expr), to.clone())),
        })
    }

    /// The unit of an instant in the session's zone that a cast passes through.
    fn over_here(&self, from: &DataType, to: &DataType) -> Option<TimeUnit> {
        if self.zone.is_utc() || from.is_null() {
            return None;
        }
        let utc = |data_type: &DataType| match data_type {
            DataType::Timestamp(unit, Some(label)) if **label == *UTC => Some(*unit),
            _ => None,
        };
        let is_instant = |t: &DataType| matches!(t, DataType::Timestamp(_, Some(_)));
        match (is_instant(from), is_instant(to)) {
            (true, false) if is_time_cast(from, to) => utc(from),
            (false, true) if is_time_cast(from, to) => utc(to),
            _ => None,
        }
    }

    /// One expression, whose operands are done.
    fn expression(&self, expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
        let changed = match &expr {
            Expr::Cast(_) | Expr::TryCast(_) => {
                return match binary_text(&expr, schema) {
                    Some(text) => Ok(Transformed::yes(text)),
                    None => self.cast(expr, schema),
                };
            }
            Expr::BinaryExpr(binary) => self.binary(binary, schema)?,
            Expr::Between(between) => self.between(between, schema)?,
            Expr::InList(list) => self.in_list(list, schema)?,
            Expr::Case(case) => self.case(case, schema)?,
            Expr::InSubquery(inside) => self.in_subquery(inside, schema)?,
            Expr::ScalarFunction(function) => self.function(function, schema)?,
            _ => None,
        };
        Ok(match changed {
            Some(changed) => Transformed::yes(changed),
            None => Transformed::no(expr),
        })
    }

    /// A cast, ours where Arrow makes another.
    fn cast(&self, expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
        let (inner, field, unfit) = match &expr {
            Expr::Cast(Cast { expr, field }) => (expr, field, Unfit::Fails),
            Expr::TryCast(TryCast { expr, field }) => (expr, field, Unfit::IsNull),
            _ => return Ok(Transformed::no(expr)),
        };
        let Some(typed) = Typed::new(inner, schema) else { return Ok(Transformed::no(expr)) };
        let (from, to) = (typed.data_type.clone(), field.data_type());
        if is_text(&from)
            && matches!(to, DataType::List(_) | DataType::LargeList(_))
            && !typed.literal().is_some_and(ScalarValue::is_null)
        {
            // DataFusion makes an array of one element, the whole text.
            let message = "a text as an array is not supported: write ARRAY[...]";
            return Err(Error::unsupported(message).into());
        }
        let modifier = Modifier::of_field(field);
        if let Some(Modifier::Varchar(_) | Modifier::Char(_) | Modifier::Binary(_)) = modifier
            && from != *to
        {
            // Made a text first, and cut then.
            let whole = match unfit {
                Unfit::Fails => self.as_type(typed, to)?,
                Unfit::IsNull => Expr::TryCast(TryCast::new(Box::new(typed.expr), to.clone())),
            };
            return Ok(Transformed::yes(TimeCast::expr(whole, to, modifier, unfit)));
        }
        if *to == DataType::Binary
            && is_text(&from)
            && let Some(value) = typed.literal()
            && !value.is_null()
        {
            return Ok(Transformed::yes(read_binary(value, to)?));
        }
        if from.is_null()
            || !(is_time_cast(&from, to) || (from == *to && modifier.is_some()))
            || (is_plain(&from, to) && modifier.is_none())
        {
            return Ok(Transformed::no(expr));
        }
        if modifier.is_none() && unfit == Unfit::Fails && typed.literal().is_none() {
            return self.as_type(typed, to).map(Transformed::yes);
        }
        let inner = match self.over_here(&from, to) {
            // What is cast to an instant has its label from the session already.
            Some(unit) if matches!(from, DataType::Timestamp(_, Some(_))) => {
                self.as_type(typed, &self.here(unit))?
            }
            _ => typed.expr,
        };
        Ok(Transformed::yes(TimeCast::expr(inner, to, modifier, unfit)))
    }

    fn case(&self, case: &Case, schema: &DFSchema) -> Result<Option<Expr>> {
        let Case { mut expr, mut when_then_expr, mut else_expr } = case.clone();
        let mut changed = false;
        if let Some(base) = &expr
            && let Some(base) = Typed::new(base, schema)
            && is_temporal(&base.data_type)
        {
            for (condition, _) in &mut when_then_expr {
                let equal =
                    BinaryExpr::new(Box::new(base.expr.clone()), Operator::Eq, condition.clone());
                let compared = self.binary(&equal, schema)?;
                **condition = compared.unwrap_or(Expr::BinaryExpr(equal));
            }
            expr = None;
            changed = true;
        }
        let results = when_then_expr.iter().map(|(_, then)| then).chain(&else_expr);
        let Some(results) = results.map(|e| Typed::new(e, schema)).collect::<Option<Vec<_>>>()
        else {
            return Ok(None);
        };
        if let Some(to) = common_type(results.iter().map(Typed::item)) {
            let mut results = results.into_iter();
            for result in when_then_expr.iter_mut().map(|(_, then)| then).chain(&mut else_expr) {
                if let Some(typed) = results.next() {
                    **result = self.as_type(typed, &to)?;
                }
            }
            changed = true;
        }
        Ok(changed.then(|| Expr::Case(Case { expr, when_then_expr, else_expr })))
    }

    fn in_subquery(&self, inside: &InSubquery, schema: &DFSchema) -> Result<Option<Expr>> {
        let Some(value) = Typed::new(&inside.expr, schema) else { return Ok(None) };
        let mut subquery = inside.subquery.clone();
        let field = subquery.subquery.schema().field(0);
        let item = Item { data_type: field.data_type(), literal: None };
        let Some(to) = common_type([value.item(), item].into_iter()) else { return Ok(None) };
        let plan = Arc::unwrap_or_clone(Arc::clone(&subquery.subquery));
        subquery.subquery = Arc::new(self.project(plan, &[Some(to.clone())])?);
        let expr = Box::new(self.as_type(value, &to)?);
        Ok(Some(Expr::InSubquery(InSubquery { expr, subquery, negated: inside.negated })))
    }

    fn function(&self, function: &ScalarFunction, schema: &DFSchema) -> Result<Option<Expr>> {
        let name = function.func.name();
        let Some(args) =
            function.args.iter().map(|e| Typed::new(e, schema)).collect::<Option<Vec<_>>>()
        else {
            return Ok(None);
        };
        let types: Vec<DataType> = if CHOICES.contains(&name) {
            let Some(to) = common_type(args.iter().map(Typed::item)) else { return Ok(None) };
            args.iter().map(|_| to.clone()).collect()
        } else if name == "nullif" {
            return self.null_if(&args, schema);
        } else if CLOCKS.contains(&name) && !self.zone.is_utc() {
            let is_instant = |t: &DataType| matches!(t, DataType::Timestamp(_, Some(_)));
            let instants = args.iter().any(|a| is_instant(&a.data_type));
            args.iter()
                .map(|arg| match &arg.data_type {
                    DataType::Timestamp(unit, Some(label)) if **label == *UTC => self.here(*unit),
                    // Beside an instant a wall clock is one, too.
                    DataType::Timestamp(unit, None) if instants => self.here(*unit),
                    other => other.clone(),
                })
                .collect()
        } else if name == "timezone" && args.len() == 2 {
            // A text or date is an instant by the session's clocks.
            let to = match &args[1].data_type {
                DataType::Timestamp(..) => return Ok(None),
                _ => DataType::Timestamp(TimeUnit::Microsecond, Some(Arc::from(UTC))),
            };
            vec![args[0].data_type.clone(), to]
        } else if name == "now" {
            // Nanoseconds would meet the microseconds of columns.
            let micros = self.here(TimeUnit::Microsecond);
            let now = Expr::ScalarFunction(function.clone());
            return Ok(Some(Expr::Cast(Cast::new(Box::new(now), micros))));
        } else if matches!(name, "date_bin" | "time_bucket") && args.len() == 3 {
            let mut types: Vec<_> = args.iter().map(|a| a.data_type.clone()).collect();
            let Some(to) = common_type(args[1..].iter().map(Typed::item)) else { return Ok(None) };
            types[1] = to.clone();
            types[2] = to;
            types
        } else {
            return Ok(None);
        };
        if args.iter().zip(&types).all(|(arg, to)| arg.data_type == *to) {
            return Ok(None);
        }
        let args = args.into_iter().zip(&types).map(|(arg, to)| self.as_type(arg, to));
        let args = args.collect::<Result<Vec<_>>>()?;
        Ok(Some(Expr::ScalarFunction(ScalarFunction { func: Arc::clone(&function.func), args })))
    }

    /// `nullif` has the type of its first argument, whatever it is compared with.
    fn null_if(&self, args: &[Typed], schema: &DFSchema) -> Result<Option<Expr>> {
        let [value, other] = args else { return Ok(None) };
        let equal = BinaryExpr::new(
            Box::new(value.expr.clone()),
            Operator::Eq,
            Box::new(other.expr.clone()),
        );
        let Some(equal) = self.binary(&equal, schema)? else { return Ok(None) };
        let null = Expr::Literal(ScalarValue::try_from(&value.data_type)?, None);
        Ok(Some(when(equal, null).otherwise(value.expr.clone())?))
    }

    /// Joins and set operations.
    fn plan(&self, plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
        match plan {
            LogicalPlan::Join(mut join) => {
                for (left, right) in &mut join.on {
                    let typed = (
                        Typed::new(left, join.left.schema()),
                        Typed::new(right, join.right.schema()),
                    );
                    if let (Some(l), Some(r)) = typed
                        && let Some((l, r)) = self.join_keys(l, r)?
                    {
                        (*left, *right) = (l, r);
                    }
                }
                Ok(Transformed::yes(LogicalPlan::Join(join)))
            }
            LogicalPlan::Union(union) => self.union(union),
            other => Ok(Transformed::no(other)),
        }
    }

    fn union(&self, union: Union) -> Result<Transformed<LogicalPlan>> {
        let width = union.schema.fields().len();
        let schemas: Vec<_> = union.inputs.iter().map(|input| Arc::clone(input.schema())).collect();
        if schemas.iter().any(|s| s.fields().len() != width) {
            return Ok(Transformed::no(LogicalPlan::Union(union)));
        }
        let types: Vec<Option<DataType>> = (0..width)
            .map(|i| {
                let item = |s: &Arc<DFSchema>| s.field(i).data_type().clone();
                let types: Vec<DataType> = schemas.iter().map(item).collect();
                common_type(types.iter().map(|data_type| Item { data_type, literal: None }))
            })
            .collect();
        if types.iter().all(Option::is_none) {
            return Ok(Transformed::no(LogicalPlan::Union(union)));
        }
        let inputs = union
            .inputs
            .into_iter()
            .map(|input| self.project(Arc::unwrap_or_clone(input), &types).map(Arc::new))
            .collect::<Result<Vec<_>>>()?;
        Ok(Transformed::yes(LogicalPlan::Union(Union::try_new_with_loose_types(inputs)?)))
    }

    /// The same rows with some columns cast.
    fn project(&self, plan: LogicalPlan, types: &[Option<DataType>]) -> Result<LogicalPlan> {
        let schema = Arc::clone(plan.schema());
        let expressions = schema
            .iter()
            .zip(types)
            .map(|((qualifier, field), to)| {
                let column = Expr::Column(Column::from((qualifier, field)));
                match to {
                    Some(to) if to != field.data_type() => {
                        let typed = Typed { expr: column, data_type: field.data_type().clone() };
                        let cast = self.as_type(typed, to)?;
                        Ok(cast.alias_qualified(qualifier.cloned(), field.name()))
                    }
                    _ => Ok(column),
                }
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(LogicalPlan::Projection(Projection::try_new(expressions, Arc::new(plan))?))
    }
}

/// Whether Arrow's cast is as good, and one that optimizers know: to another label, a finer unit, from a wall clock to its date.
fn is_plain(from: &DataType, to: &DataType) -> bool {
    match (from, to) {
        // From a coarser unit DataFusion would take its cast away, and cut a constant beside it to that unit.
        (DataType::Timestamp(from, from_zone), DataType::Timestamp(to, zone)) => {
            from_zone.is_some() == zone.is_some() && from == to
        }
        (DataType::Timestamp(_, None), DataType::Date32) => true,
        _ => false,
    }
}
