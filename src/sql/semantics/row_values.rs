//! Comparisons of rows, `(a, b) < (c, d)`: of their values from the left, where NULL leaves open what the others do not settle. DataFusion
//! compares structures, in which NULL is a value, and plans rows of columns and literals only.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{self, BinaryOperator, Expr, VisitMut, VisitorMut};

use crate::sql::code::Code;
use crate::sql::error::{Error, Result};

/// Rows of an IN list, where the row that is looked for is more than columns and literals: it is copied for each of them.
const MAX_COPIES: usize = 100;

/// Puts comparisons of values in the place of comparisons of rows.
pub(super) fn compare_values<T: VisitMut>(tree: &mut T) -> Result<()> {
    match tree.visit(&mut Rows::default()) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(*error),
    }
}

/// Values of rows are copied, so that a comparison within a comparison would cost twice as much for each level.
#[derive(Default)]
struct Rows {
    depth: usize,
}

impl VisitorMut for Rows {
    type Break = Box<Error>;

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Box<Error>> {
        if is_comparison(expr) {
            self.depth += 1;
        }
        if self.depth > 1 && is_comparison(expr) {
            let message = "comparing rows within a comparison of rows is not supported";
            return ControlFlow::Break(Box::new(Error::unsupported(message)));
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Box<Error>> {
        if !is_comparison(expr) {
            return ControlFlow::Continue(());
        }
        self.depth -= 1;
        match compared(expr) {
            Ok(Some(values)) => *expr = nested(values),
            Ok(None) => {}
            Err(error) => return ControlFlow::Break(Box::new(error)),
        }
        ControlFlow::Continue(())
    }
}

/// Whether an expression asks something of a row.
fn is_comparison(expr: &Expr) -> bool {
    match expr {
        Expr::BinaryOp { left, right, .. }
        | Expr::IsDistinctFrom(left, right)
        | Expr::IsNotDistinctFrom(left, right) => values(left).is_some() && values(right).is_some(),
        Expr::IsNull(row) | Expr::IsNotNull(row) => values(row).is_some(),
        Expr::InList { expr: row, .. } | Expr::Between { expr: row, .. } => values(row).is_some(),
        _ => false,
    }
}

fn compared(expr: &Expr) -> Result<Option<Expr>> {
    Ok(match expr {
        Expr::BinaryOp { left, op, right } => match (values(left), values(right)) {
            (Some(left), Some(right)) => comparison(&left, op, &right)?,
            _ => None,
        },
        Expr::IsDistinctFrom(left, right) | Expr::IsNotDistinctFrom(left, right) => {
            let (Some(left), Some(right)) = (values(left), values(right)) else { return Ok(None) };
            let distinct = matches!(expr, Expr::IsDistinctFrom(..));
            let pairs = pairs(&left, &right)?.map(|(l, r)| match distinct {
                true => Expr::IsDistinctFrom(l.into(), r.into()),
                false => Expr::IsNotDistinctFrom(l.into(), r.into()),
            });
            let op = if distinct { BinaryOperator::Or } else { BinaryOperator::And };
            Some(chained(pairs.collect(), &op))
        }
        Expr::IsNull(row) | Expr::IsNotNull(row) => {
            let Some(row) = values(row) else { return Ok(None) };
            let null = matches!(expr, Expr::IsNull(_));
            let tests = row.into_iter().map(|value| match null {
                true => Expr::IsNull(value.clone().into()),
                false => Expr::IsNotNull(value.clone().into()),
            });
            Some(chained(tests.collect(), &BinaryOperator::And))
        }
        Expr::InList { expr: row, list, negated } => {
            let Some(row) = values(row) else { return Ok(None) };
            let plain = |e: &&Expr| {
                matches!(e, Expr::Identifier(_) | Expr::CompoundIdentifier(_) | Expr::Value(_))
            };
            if list.len() > MAX_COPIES && !row.iter().all(plain) {
                let message = format!("a computed row is IN a list of at most {MAX_COPIES} rows");
                return Err(Error::new(Code::StatementTooComplex, message));
            }
            let mut tests = Vec::with_capacity(list.len());
            for item in list {
                let Some(item) = values(item) else {
                    return Err(Error::syntax("a row is IN a list of rows: ((1, 2), (3, 4))"));
                };
                tests.push(equal(&row, &item)?);
            }
            let any = chained(tests, &BinaryOperator::Or);
            Some(if *negated { not(any) } else { any })
        }
        Expr::Between { expr: row, negated, low, high } => {
            let (Some(row), Some(low), Some(high)) = (values(row), values(low), values(high))
            else {
                return Ok(None);
            };
            let least = comparison(&row, &BinaryOperator::GtEq, &low)?;
            let most = comparison(&row, &BinaryOperator::LtEq, &high)?;
            let both = [least, most].into_iter().flatten().collect();
            let both = chained(both, &BinaryOperator::And);
            Some(if *negated { not(both) } else { both })
        }
        _ => None,
    })
}

/// The values of a row, `(a, b)` or `ROW(a, b)`.
fn values(expr: &Expr) -> Option<Vec<&Expr>> {
    match expr {
        Expr::Tuple(values) if !values.is_empty() => Some(values.iter().collect()),
        Expr::Nested(inner) => values(inner),
        Expr::Function(function) if function.name.to_string().eq_ignore_ascii_case("row") => {
            let ast::FunctionArguments::List(list) = &function.args else { return None };
            let value = |argument| match argument {
                &ast::FunctionArg::Unnamed(ast::FunctionArgExpr::Expr(ref value)) => Some(value),
                _ => None,
            };
            list.args.iter().map(value).collect::<Option<Vec<_>>>().filter(|all| !all.is_empty())
        }
        _ => None,
    }
}

fn pairs<'a>(
    left: &'a [&Expr],
    right: &'a [&Expr],
) -> Result<impl DoubleEndedIterator<Item = (Expr, Expr)> + 'a> {
    if left.len() != right.len() {
        return Err(Error::syntax(format!(
            "rows that are compared have as many values: {} and {}",
            left.len(),
            right.len()
        )));
    }
    if left.iter().chain(right).any(|value| values(value).is_some()) {
        return Err(Error::unsupported("comparing rows with rows in them is not supported"));
    }
    let owned = |value: &&Expr| (*value).clone();
    Ok(left.iter().map(owned).zip(right.iter().map(owned)))
}

fn comparison(left: &[&Expr], op: &BinaryOperator, right: &[&Expr]) -> Result<Option<Expr>> {
    use BinaryOperator as Op;
    let strict = match op {
        Op::Eq => return equal(left, right).map(Some),
        Op::NotEq => {
            let differ = pairs(left, right)?.map(|(l, r)| binary(l, Op::NotEq, r));
            return Ok(Some(chained(differ.collect(), &Op::Or)));
        }
        Op::Lt | Op::LtEq => Op::Lt,
        Op::Gt | Op::GtEq => Op::Gt,
        _ => return Ok(None),
    };
    // The last values decide where all before are equal.
    let mut rest: Option<Expr> = None;
    for (l, r) in pairs(left, right)?.rev() {
        rest = Some(match rest {
            None => binary(l, op.clone(), r),
            Some(rest) => {
                let decided = binary(l.clone(), strict.clone(), r.clone());
                let open = nested(binary(binary(l, Op::Eq, r), Op::And, nested(rest)));
                binary(decided, Op::Or, open)
            }
        });
    }
    Ok(rest)
}

fn equal(left: &[&Expr], right: &[&Expr]) -> Result<Expr> {
    let equal = pairs(left, right)?.map(|(l, r)| binary(l, BinaryOperator::Eq, r));
    Ok(chained(equal.collect(), &BinaryOperator::And))
}

/// Conditions joined by AND or OR, as a tree that is not deep.
pub(super) fn chained(mut conditions: Vec<Expr>, op: &BinaryOperator) -> Expr {
    match conditions.len() {
        0 => Expr::value(ast::Value::Boolean(*op == BinaryOperator::And)),
        1 => conditions.remove(0),
        n => {
            let right = conditions.split_off(n / 2);
            nested(binary(chained(conditions, op), op.clone(), chained(right, op)))
        }
    }
}

fn binary(left: Expr, op: BinaryOperator, right: Expr) -> Expr {
    Expr::BinaryOp { left: left.into(), op, right: right.into() }
}

fn nested(expr: Expr) -> Expr {
    match expr {
        Expr::Nested(_) => expr,
        expr => Expr::Nested(expr.into()),
    }
}

fn not(expr: Expr) -> Expr {
    Expr::UnaryOp { op: ast::UnaryOperator::Not, expr: nested(expr).into() }
}
