//! `x op ANY (array)`, `x op ALL (array)`. DataFusion's ANY is false where it is unknown, because an element is NULL, and gives the
//! elements no common type with `x`. Where the elements are written they are compared one by one; elsewhere ANY becomes the ALL
//! of the opposite operator, which knows NULLs.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    BinaryOperator as Op, Expr, UnaryOperator, Value, VisitMut, visit_expressions_mut,
};

use super::row_values::chained;

/// Elements that are compared one by one at most. This runs when the tree has been measured, and must not make it much larger.
const MAX_COMPARED: usize = 100;

/// Parts of an expression that is written for each element.
const MAX_COPIED: usize = 8;

/// Rewrites the comparisons of a statement.
pub(crate) fn rewrite<T: VisitMut>(tree: &mut T) {
    let _: ControlFlow<()> = visit_expressions_mut(tree, |expr| {
        let (left, op, right, any) = match expr {
            Expr::AnyOp { left, compare_op, right, .. } => (left, compare_op, right, true),
            Expr::AllOp { left, compare_op, right } => (left, compare_op, right, false),
            _ => return ControlFlow::Continue(()),
        };
        let Some(opposite) = opposite(op) else { return ControlFlow::Continue(()) };
        let list = matches!((any, &op), (true, Op::Eq) | (false, Op::NotEq));
        if (list || may_be_copied(left))
            && let Some(elements) = elements(right, list)
        {
            *expr = match list {
                true => Expr::InList { expr: Box::new(take(left)), list: elements, negated: !any },
                false => compared(left, op, elements, any),
            };
        } else if any && !matches!(right.as_ref(), Expr::Subquery(_)) {
            let all = Expr::AllOp {
                left: Box::new(take(left)),
                compare_op: opposite,
                right: Box::new(take(right)),
            };
            *expr = nested(Expr::UnaryOp { op: UnaryOperator::Not, expr: Box::new(all) });
        }
        ControlFlow::Continue(())
    });
}

/// The elements of an array that is written, where there are any; not too many to compare each, unless a list will do.
fn elements(expr: &mut Expr, list: bool) -> Option<Vec<Expr>> {
    match expr {
        Expr::Nested(inner) => elements(inner, list),
        Expr::Array(array)
            if !array.elem.is_empty() && (list || array.elem.len() <= MAX_COMPARED) =>
        {
            // An array of arrays has no comparison of its own.
            let plain = !array.elem.iter().any(|e| matches!(e, Expr::Array(_)));
            plain.then(|| std::mem::take(&mut array.elem))
        }
        _ => None,
    }
}

/// Each element compared, the comparisons joined.
fn compared(left: &Expr, op: &Op, elements: Vec<Expr>, any: bool) -> Expr {
    let join = if any { Op::Or } else { Op::And };
    let binary =
        |left, op, right| Expr::BinaryOp { left: Box::new(left), op, right: Box::new(right) };
    let each = elements
        .into_iter()
        .map(|element| nested(binary(nested(left.clone()), op.clone(), nested(element))));
    chained(each.collect(), &join)
}

/// Whether an expression is small and calls nothing: it is written for each element. What was rewritten before is not small, so that
/// comparisons within comparisons do not multiply.
fn may_be_copied(expr: &mut Expr) -> bool {
    let mut nodes = 0;
    let found = visit_expressions_mut(expr, |e| {
        nodes += 1;
        match e {
            Expr::Function(_) | Expr::Subquery(_) => ControlFlow::Break(()),
            _ if nodes > MAX_COPIED => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        }
    });
    found.is_continue()
}

fn opposite(op: &Op) -> Option<Op> {
    Some(match op {
        Op::Eq => Op::NotEq,
        Op::NotEq => Op::Eq,
        Op::Lt => Op::GtEq,
        Op::LtEq => Op::Gt,
        Op::Gt => Op::LtEq,
        Op::GtEq => Op::Lt,
        _ => return None,
    })
}

fn take(expr: &mut Expr) -> Expr {
    std::mem::replace(expr, null())
}

fn null() -> Expr {
    Expr::value(Value::Null)
}

fn nested(expr: Expr) -> Expr {
    Expr::Nested(Box::new(expr))
}
