//! Where intervals are sorted, grouped and aggregated: by their length, so that a day and 24 hours are the same.

use std::collections::HashSet;
use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{Column, DFSchema, Result};
use datafusion::functions_aggregate::first_last::first_value_udaf;
use datafusion::logical_expr::expr::{
    AggregateFunction, AggregateFunctionParams, NullTreatment, Sort, WindowFunctionParams,
};
use datafusion::logical_expr::{
    Aggregate, Distinct, Expr, ExprSchemable, LogicalPlan, Projection, WindowFrame,
    WindowFrameBound, WindowFrameUnits, WindowFunctionDefinition,
};
use datafusion::optimizer::AnalyzerRule;

use super::interval::{is_interval, key};
use super::rules::rewrite;
use crate::sql::Error;
use crate::sql::types::sql_name;

/// See the module.
#[derive(Debug)]
pub(crate) struct IntervalOrder;

impl AnalyzerRule for IntervalOrder {
    fn name(&self) -> &str {
        "IntervalOrder"
    }

    fn analyze(&self, plan: LogicalPlan, _config: &ConfigOptions) -> Result<LogicalPlan> {
        rewrite(plan, &expression, &node)
    }
}

fn is_interval_expr(expr: &Expr, schema: &DFSchema) -> bool {
    use arrow::datatypes::DataType;
    let data_type = expr.get_type(schema);
    matches!(data_type, Ok(DataType::Interval(_))) && data_type.is_ok_and(|t| is_interval(&t))
}

fn sorted(sorts: &mut [Sort], schema: &DFSchema) -> bool {
    let mut changed = false;
    for sort in sorts {
        if is_interval_expr(&sort.expr, schema) {
            sort.expr = key(sort.expr.clone());
            changed = true;
        }
    }
    changed
}

fn expression(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    match expr {
        Expr::AggregateFunction(AggregateFunction { func, mut params }) => {
            let mut func = func;
            let of_interval = params.args.first().is_some_and(|a| is_interval_expr(a, schema));
            let mut changed = sorted(&mut params.order_by, schema);
            match func.name() {
                "min" | "max" if of_interval => {
                    params = smallest(params, func.name() == "min");
                    func = first_value_udaf();
                    changed = true;
                }
                "count" if of_interval && params.distinct => {
                    params.args[0] = key(params.args[0].clone());
                    changed = true;
                }
                name if of_interval && params.distinct => {
                    return Err(Error::unsupported(format!(
                        "{name} of DISTINCT intervals is not supported"
                    ))
                    .into());
                }
                _ => {}
            }
            let expr = Expr::AggregateFunction(AggregateFunction { func, params });
            Ok(if changed { Transformed::yes(expr) } else { Transformed::no(expr) })
        }
        Expr::WindowFunction(mut window) => {
            let params = &mut window.params;
            let mut changed = sorted(&mut params.order_by, schema);
            for part in &mut params.partition_by {
                if is_interval_expr(part, schema) {
                    *part = key(part.clone());
                    changed = true;
                }
            }
            let of_interval = params.args.first().is_some_and(|a| is_interval_expr(a, schema));
            if let WindowFunctionDefinition::AggregateUDF(func) = &window.fun
                && of_interval
                && matches!(func.name(), "min" | "max")
            {
                let message =
                    format!("{} of intervals over a window is not supported", func.name());
                return Err(Error::unsupported(message).into());
            }
            changed |= peers(params, schema)?;
            let expr = Expr::WindowFunction(window);
            Ok(if changed { Transformed::yes(expr) } else { Transformed::no(expr) })
        }
        other => Ok(Transformed::no(other)),
    }
}

/// A frame of a range without a distance ends with the peers of a row: as a frame of groups it needs no arithmetic, which DataFusion
/// has not for times of the day and binary values.
fn peers(params: &mut WindowFunctionParams, schema: &DFSchema) -> Result<bool> {
    use arrow::datatypes::DataType::*;
    let frame = &params.window_frame;
    let Some(first) = params.order_by.first() else { return Ok(false) };
    let data_type = first.expr.get_type(schema)?;
    let without_range = matches!(
        data_type,
        Time32(_) | Time64(_) | Binary | LargeBinary | BinaryView | FixedSizeBinary(_)
    );
    if frame.units != WindowFrameUnits::Range || !without_range {
        return Ok(false);
    }
    let (start, end) = (frame.start_bound.clone(), frame.end_bound.clone());
    if [&start, &end].iter().any(|b| !b.is_unbounded() && **b != WindowFrameBound::CurrentRow) {
        let message = format!(
            "a window of a RANGE with a distance over {} is not supported",
            sql_name(&data_type)
        );
        return Err(Error::unsupported(message).into());
    }
    params.window_frame = WindowFrame::new_bounds(WindowFrameUnits::Groups, start, end);
    Ok(true)
}

/// The first of the values in order.
fn smallest(params: AggregateFunctionParams, ascending: bool) -> AggregateFunctionParams {
    let by = Sort::new(key(params.args[0].clone()), ascending, false);
    AggregateFunctionParams {
        distinct: false,
        order_by: vec![by],
        null_treatment: Some(NullTreatment::IgnoreNulls),
        ..params
    }
}

fn node(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    match plan {
        LogicalPlan::Sort(mut sort) => {
            let schema = Arc::clone(sort.input.schema());
            sorted(&mut sort.expr, &schema);
            Ok(Transformed::yes(LogicalPlan::Sort(sort)))
        }
        LogicalPlan::Aggregate(aggregate) => grouped(aggregate),
        LogicalPlan::Distinct(Distinct::All(input)) => {
            let schema = Arc::clone(input.schema());
            let columns: Vec<Expr> =
                schema.iter().map(|(q, f)| Expr::Column(Column::from((q, f)))).collect();
            if !columns.iter().any(|c| is_interval_expr(c, &schema)) {
                return Ok(Transformed::no(LogicalPlan::Distinct(Distinct::All(input))));
            }
            grouped(Aggregate::try_new(input, columns, Vec::new())?)
        }
        LogicalPlan::Distinct(Distinct::On(mut on)) => {
            let schema = Arc::clone(on.input.schema());
            for expr in &mut on.on_expr {
                if is_interval_expr(expr, &schema) {
                    *expr = key(expr.clone());
                }
            }
            if let Some(sorts) = &mut on.sort_expr {
                sorted(sorts, &schema);
            }
            Ok(Transformed::yes(LogicalPlan::Distinct(Distinct::On(on))))
        }
        other => Ok(Transformed::no(other)),
    }
}

/// Groups by the lengths of intervals; each group shows the first of its intervals.
fn grouped(aggregate: Aggregate) -> Result<Transformed<LogicalPlan>> {
    let input = Arc::clone(aggregate.input.schema());
    let sets = aggregate.group_expr.iter().any(|e| match e {
        Expr::GroupingSet(set) => set.distinct_expr().iter().any(|e| is_interval_expr(e, &input)),
        _ => false,
    });
    if sets {
        return Err(Error::unsupported("GROUPING SETS of intervals are not supported").into());
    }
    let places: HashSet<usize> = aggregate
        .group_expr
        .iter()
        .enumerate()
        .filter(|(_, e)| is_interval_expr(e, &input))
        .map(|(i, _)| i)
        .collect();
    if places.is_empty() {
        return Ok(Transformed::no(LogicalPlan::Aggregate(aggregate)));
    }
    let Aggregate { input, group_expr, mut aggr_expr, schema, .. } = aggregate;
    let groups = group_expr.len();
    let keys = group_expr
        .iter()
        .enumerate()
        .map(|(i, e)| match places.contains(&i) {
            true => key(e.clone().unalias()).alias(format!("__length_{i}")),
            false => e.clone(),
        })
        .collect();
    for i in &places {
        let params = AggregateFunctionParams {
            args: vec![group_expr[*i].clone().unalias()],
            distinct: false,
            filter: None,
            order_by: Vec::new(),
            null_treatment: None,
        };
        let first = AggregateFunction { func: first_value_udaf(), params };
        aggr_expr.push(Expr::AggregateFunction(first).alias(format!("__shown_{i}")));
    }
    let inner = LogicalPlan::Aggregate(Aggregate::try_new(input, keys, aggr_expr)?);
    let columns = schema
        .iter()
        .enumerate()
        .map(|(i, (qualifier, field))| match i < groups && places.contains(&i) {
            true => Expr::Column(Column::from_name(format!("__shown_{i}")))
                .alias_qualified(qualifier.cloned(), field.name()),
            false => Expr::Column(Column::from((qualifier, field))),
        })
        .collect();
    let projection = Projection::try_new(columns, Arc::new(inner))?;
    Ok(Transformed::yes(LogicalPlan::Projection(projection)))
}
