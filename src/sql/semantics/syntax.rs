//! Forms of PostgreSQL that DataFusion does not plan, written in others: FETCH FIRST, LIKE ... ESCAPE, AT TIME ZONE, the words
//! that are functions without parentheses, named arguments, `arg_max`. The parser's last step.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{self, Expr, VisitMut, VisitorMut};
use datafusion::sql::sqlparser::tokenizer::Span;

use super::time::interval_text;
use crate::sql::{Error, Result};

/// Rewrites a statement.
pub(crate) fn rewrite(statement: &mut ast::Statement) -> Result<()> {
    if let ast::Statement::Explain { options: Some(options), analyze, verbose, .. } = statement {
        let asked = std::mem::take(options);
        explain_options(&asked, analyze, verbose)?;
    }
    if let ast::Statement::Explain { options, .. } = statement {
        *options = None;
    }
    match statement.visit(&mut Forms) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(*error),
    }
}

/// `EXPLAIN (ANALYZE, VERBOSE)`; what else is asked for is refused.
fn explain_options(
    asked: &[ast::UtilityOption],
    analyze: &mut bool,
    verbose: &mut bool,
) -> Result<()> {
    for option in asked {
        let name = option.name.value.to_ascii_uppercase();
        let value = option.arg.as_ref().map(ToString::to_string);
        let value = value.as_deref().unwrap_or("true").trim_matches('\'').to_ascii_lowercase();
        let on = match value.as_str() {
            "true" | "on" | "1" => true,
            "false" | "off" | "0" => false,
            "text" if name == "FORMAT" => continue,
            _ => return Err(Error::unsupported(format!("EXPLAIN ({option}) is not supported"))),
        };
        match name.as_str() {
            "ANALYZE" => *analyze = on,
            "VERBOSE" => *verbose = on,
            _ if !on => {}
            _ => return Err(Error::unsupported(format!("EXPLAIN ({option}) is not supported"))),
        }
    }
    Ok(())
}

struct Forms;

type Flow = ControlFlow<Box<Error>>;

fn done(result: Result<()>) -> Flow {
    match result {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => ControlFlow::Break(Box::new(error)),
    }
}

impl VisitorMut for Forms {
    type Break = Box<Error>;

    fn pre_visit_query(&mut self, query: &mut ast::Query) -> Flow {
        done(fetch(query))
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> Flow {
        done(expression(expr))
    }
}

/// FETCH FIRST n ROWS ONLY is LIMIT n.
fn fetch(query: &mut ast::Query) -> Result<()> {
    let Some(fetch) = query.fetch.take() else { return Ok(()) };
    if fetch.with_ties {
        return Err(Error::unsupported("FETCH ... WITH TIES is not supported"));
    }
    if fetch.percent {
        return Err(Error::unsupported("FETCH ... PERCENT is not supported"));
    }
    let quantity =
        fetch.quantity.unwrap_or_else(|| Expr::value(ast::Value::Number("1".into(), false)));
    match &mut query.limit_clause {
        None => {
            query.limit_clause = Some(ast::LimitClause::LimitOffset {
                limit: Some(quantity),
                offset: None,
                limit_by: Vec::new(),
            });
            Ok(())
        }
        Some(ast::LimitClause::LimitOffset { limit: limit @ None, .. }) => {
            *limit = Some(quantity);
            Ok(())
        }
        Some(_) => Err(Error::syntax("LIMIT and FETCH stand in one query")),
    }
}

fn expression(expr: &mut Expr) -> Result<()> {
    match expr {
        Expr::Interval(interval) => {
            if let Some(text) = plain_text(interval)
                && let Some(read) = interval_text::read(text)
            {
                *text = words(read.months.into(), read.days.into(), read.nanoseconds.into());
            }
        }
        // DataFusion would put the sign before the first word only.
        Expr::UnaryOp { op: ast::UnaryOperator::Minus, expr: inner } => {
            if let Expr::Interval(interval) = inner.as_mut()
                && let Some(text) = plain_text(interval)
                && let Some(read) = interval_text::read(text)
            {
                let (months, days) = (i64::from(read.months), i64::from(read.days));
                *text = words(-months, -days, -i128::from(read.nanoseconds));
                let negated = take(inner);
                *expr = negated;
            }
        }
        // A power, as in PostgreSQL; `#` is the exclusive or.
        Expr::BinaryOp { left, op: ast::BinaryOperator::BitwiseXor, right } => {
            *expr = call("power", vec![take(left), take(right)]);
        }
        Expr::AtTimeZone { timestamp, time_zone } => {
            let arguments = vec![take(time_zone), take(timestamp)];
            *expr = call("timezone", arguments);
        }
        Expr::Like { pattern, escape_char, .. } | Expr::ILike { pattern, escape_char, .. } => {
            if let Some(escape) = escape_char.take() {
                let arguments = vec![take(pattern), Expr::Value(escape)];
                **pattern = call("like_escape", arguments);
            }
        }
        Expr::Identifier(ident) if ident.quote_style.is_none() => {
            let name = ident.value.to_ascii_lowercase();
            if matches!(name.as_str(), "current_role" | "current_schema") {
                *expr = call(&name, Vec::new());
            }
        }
        Expr::Function(function) => {
            if let Some(other) = self::function(function)? {
                *expr = other;
            }
        }
        _ => {}
    }
    Ok(())
}

/// The text of an interval without fields such as DAY TO HOUR.
fn plain_text(interval: &mut ast::Interval) -> Option<&mut String> {
    let ast::Interval {
        value,
        leading_field: None,
        leading_precision: None,
        last_field: None,
        fractional_seconds_precision: None,
    } = interval
    else {
        return None;
    };
    match value.as_mut() {
        Expr::Value(literal) => match &mut literal.value {
            ast::Value::SingleQuotedString(text) => Some(text),
            _ => None,
        },
        _ => None,
    }
}

/// An interval in words that DataFusion knows, too.
fn words(months: i64, days: i64, nanoseconds: i128) -> String {
    format!("{months} months {days} days {nanoseconds} nanoseconds")
}

fn take(expr: &mut Expr) -> Expr {
    std::mem::replace(expr, Expr::value(ast::Value::Null))
}

fn call(name: &str, arguments: Vec<Expr>) -> Expr {
    Expr::Function(ast::Function {
        name: ast::ObjectName::from(vec![ast::Ident::new(name)]),
        uses_odbc_syntax: false,
        parameters: ast::FunctionArguments::None,
        args: ast::FunctionArguments::List(list(arguments)),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
}

fn list(arguments: Vec<Expr>) -> ast::FunctionArgumentList {
    let args = arguments
        .into_iter()
        .map(|e| ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(e)))
        .collect();
    ast::FunctionArgumentList { duplicate_treatment: None, args, clauses: Vec::new() }
}

/// Another expression for a call, where there is one.
fn function(function: &mut ast::Function) -> Result<Option<Expr>> {
    let [ast::ObjectNamePart::Identifier(ident)] = function.name.0.as_slice() else {
        return Ok(None);
    };
    let name = ident.value.to_ascii_lowercase();
    match name.as_str() {
        "current_catalog" | "current_user" | "session_user" | "user" | "current_role"
            if function.args == ast::FunctionArguments::None =>
        {
            Ok(Some(call(&name, Vec::new())))
        }
        "localtimestamp" | "localtime" => {
            let precision = precision(&name, &function.args)?;
            let zone = ast::TimezoneInfo::None;
            let data_type = match name.as_str() {
                "localtime" => ast::DataType::Time(precision, zone),
                _ => ast::DataType::Timestamp(precision, zone),
            };
            Ok(Some(cast(call("now", Vec::new()), data_type)))
        }
        "age" => {
            if let Some(arguments) = unnamed(&function.args)
                && let [moment] = arguments.as_slice()
            {
                let today = cast(
                    call("current_date", Vec::new()),
                    ast::DataType::Timestamp(None, ast::TimezoneInfo::None),
                );
                return Ok(Some(call("age", vec![today, moment.clone()])));
            }
            Ok(None)
        }
        // Of microseconds, as other instants are: nanoseconds end in 2262, and cannot be subtracted from those.
        "to_timestamp" => match unnamed(&function.args) {
            Some(arguments) if arguments.len() == 1 => {
                let zoned = ast::DataType::Timestamp(None, ast::TimezoneInfo::WithTimeZone);
                Ok(Some(cast(call("to_timestamp", arguments), zoned)))
            }
            _ => Ok(None),
        },
        "make_interval" => named_arguments(
            function,
            &["years", "months", "weeks", "days", "hours", "mins", "secs"],
        ),
        "arg_max" | "max_by" | "argmax" => arg_most(function, &name, false),
        "arg_min" | "min_by" | "argmin" => arg_most(function, &name, true),
        _ => Ok(None),
    }
}

fn cast(expr: Expr, data_type: ast::DataType) -> Expr {
    Expr::Cast {
        kind: ast::CastKind::Cast,
        expr: Box::new(expr),
        data_type,
        array: false,
        format: None,
    }
}

/// The number in LOCALTIMESTAMP(3).
fn precision(name: &str, arguments: &ast::FunctionArguments) -> Result<Option<u64>> {
    let wrong = || Error::syntax(format!("{name} takes a precision from 0 to 9"));
    match arguments {
        ast::FunctionArguments::None => Ok(None),
        arguments => match unnamed(arguments).ok_or_else(wrong)?.as_slice() {
            [] => Ok(None),
            [Expr::Value(value)] => match &value.value {
                ast::Value::Number(digits, _) => {
                    Ok(Some(digits.to_string().parse().map_err(|_| wrong())?))
                }
                _ => Err(wrong()),
            },
            _ => Err(wrong()),
        },
    }
}

/// Arguments without names.
fn unnamed(arguments: &ast::FunctionArguments) -> Option<Vec<Expr>> {
    let ast::FunctionArguments::List(list) = arguments else { return None };
    list.args
        .iter()
        .map(|arg| match arg {
            ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(expr)) => Some(expr.clone()),
            _ => None,
        })
        .collect()
}

/// Arguments by their names, zero where none is given.
fn named_arguments(function: &ast::Function, names: &[&str]) -> Result<Option<Expr>> {
    let ast::FunctionArguments::List(list) = &function.args else { return Ok(None) };
    let zero = || Expr::value(ast::Value::Number("0".into(), false));
    let mut arguments: Vec<Expr> = names.iter().map(|_| zero()).collect();
    for (i, argument) in list.args.iter().enumerate() {
        let (place, expr) = match argument {
            ast::FunctionArg::Named { name, arg: ast::FunctionArgExpr::Expr(expr), .. } => {
                let name = name.value.to_ascii_lowercase();
                (names.iter().position(|n| *n == name), expr)
            }
            ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(expr)) => (Some(i), expr),
            _ => (None, &arguments[0]),
        };
        match place.filter(|p| *p < names.len()) {
            Some(place) => arguments[place] = expr.clone(),
            None => {
                return Err(Error::syntax(format!(
                    "{} takes the arguments {}",
                    function.name,
                    names.join(", ")
                )));
            }
        }
    }
    Ok(Some(call(&function.name.to_string(), arguments)))
}

/// `arg_max(x, y)` is the x of the row with the largest y.
fn arg_most(function: &mut ast::Function, name: &str, ascending: bool) -> Result<Option<Expr>> {
    let Some(arguments) = unnamed(&function.args) else { return Ok(None) };
    let [value, by] = arguments.as_slice() else {
        return Err(Error::syntax(format!("{name} takes two arguments")));
    };
    if function.over.is_some() {
        return Err(Error::unsupported(format!("{name} over a window is not supported")));
    }
    let there = |expr: &Expr| Expr::IsNotNull(Box::new(Expr::Nested(Box::new(expr.clone()))));
    let and = |left: Expr, right: Expr| Expr::BinaryOp {
        left: Box::new(left),
        op: ast::BinaryOperator::And,
        right: Box::new(right),
    };
    let mut filter = and(there(value), there(by));
    if let Some(given) = function.filter.take() {
        filter = and(filter, Expr::Nested(given));
    }
    let order = ast::OrderByExpr {
        expr: by.clone(),
        options: ast::OrderByOptions { asc: Some(ascending), nulls_first: Some(false) },
        with_fill: None,
    };
    let mut arguments = list(vec![value.clone()]);
    arguments.clauses = vec![ast::FunctionArgumentClause::OrderBy(vec![order])];
    function.name =
        ast::ObjectName::from(vec![ast::Ident::with_span(Span::empty(), "first_value")]);
    function.args = ast::FunctionArguments::List(arguments);
    function.filter = Some(Box::new(filter));
    Ok(None)
}
