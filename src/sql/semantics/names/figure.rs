//! The names that PostgreSQL gives to columns without one: `FigureColname` of its `parse_target.c`.

use datafusion::sql::sqlparser::ast::{self, Expr};

use crate::sql::context::fold;

/// How sure a name is: a type's name gives way to one that is inside of the cast.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Strength {
    Weak,
    Strong,
}

/// The name of a column that an expression makes.
pub(crate) fn name_of(expression: &Expr) -> String {
    figure(expression).map_or_else(|| "?column?".to_owned(), |(name, _)| name)
}

/// An identifier that stands for a name as it is.
pub(crate) fn folded(name: &str) -> ast::Ident {
    ast::Ident::with_quote('"', name)
}

fn figure(expression: &Expr) -> Option<(String, Strength)> {
    let strong = |name: &str| Some((name.to_owned(), Strength::Strong));
    match expression {
        Expr::Identifier(ident) => strong(&fold(ident)),
        Expr::CompoundIdentifier(parts) => strong(&fold(parts.last()?)),
        Expr::CompoundFieldAccess { root, access_chain } => {
            let fields = access_chain.iter().rev().find_map(|access| match access {
                ast::AccessExpr::Dot(Expr::Identifier(ident)) => Some(fold(ident)),
                _ => None,
            });
            fields.map(|name| (name, Strength::Strong)).or_else(|| figure(root))
        }
        Expr::Nested(inner) | Expr::Collate { expr: inner, .. } => figure(inner),
        Expr::Function(function) => {
            let name = function.name.0.last()?;
            strong(&name.as_ident().map_or_else(|| name.to_string(), fold))
        }
        Expr::Cast { expr, data_type, .. } => match figure(expr) {
            Some((name, Strength::Strong)) => Some((name, Strength::Strong)),
            _ => Some((type_name(data_type), Strength::Weak)),
        },
        Expr::TypedString(typed) => Some((type_name(&typed.data_type), Strength::Weak)),
        Expr::Interval(_) => Some(("interval".to_owned(), Strength::Weak)),
        Expr::Case { else_result, .. } => match else_result.as_deref().and_then(figure) {
            Some((name, Strength::Strong)) => Some((name, Strength::Strong)),
            _ => Some(("case".to_owned(), Strength::Weak)),
        },
        Expr::Exists { negated: false, .. } => strong("exists"),
        // Its column's name, whatever that was made of.
        Expr::Subquery(query) => {
            let column = of_query(&query.body).map(|(name, _)| name);
            Some((column.unwrap_or_else(|| "?column?".to_owned()), Strength::Strong))
        }
        Expr::Array(_) => strong("array"),
        Expr::Tuple(_) => strong("row"),
        Expr::Extract { .. } => strong("extract"),
        Expr::Ceil { .. } => strong("ceil"),
        Expr::Floor { .. } => strong("floor"),
        Expr::Position { .. } => strong("position"),
        Expr::Substring { .. } => strong("substring"),
        Expr::Overlay { .. } => strong("overlay"),
        Expr::AtTimeZone { .. } => strong("timezone"),
        Expr::Trim { trim_where, .. } => strong(match trim_where {
            Some(ast::TrimWhereField::Leading) => "ltrim",
            Some(ast::TrimWhereField::Trailing) => "rtrim",
            _ => "btrim",
        }),
        _ => None,
    }
}

/// A scalar subquery's name is that of its column.
fn of_query(body: &ast::SetExpr) -> Option<(String, Strength)> {
    match body {
        ast::SetExpr::Select(select) => match select.projection.first()? {
            ast::SelectItem::ExprWithAlias { alias, .. } => Some((fold(alias), Strength::Strong)),
            ast::SelectItem::UnnamedExpr(expression) => figure(expression),
            _ => None,
        },
        ast::SetExpr::Query(query) => of_query(&query.body),
        ast::SetExpr::SetOperation { left, .. } => of_query(left),
        ast::SetExpr::Values(_) => Some(("column1".to_owned(), Strength::Strong)),
        _ => None,
    }
}

/// PostgreSQL's own name of a type.
fn type_name(data_type: &ast::DataType) -> String {
    use ast::DataType as T;
    let name = match data_type {
        T::SmallInt(_) | T::Int2(_) => "int2",
        T::Int(_) | T::Integer(_) | T::Int4(_) => "int4",
        T::BigInt(_) | T::Int8(_) => "int8",
        T::Real | T::Float4 => "float4",
        T::Double(_) | T::DoublePrecision | T::Float8 | T::Float(_) => "float8",
        T::Numeric(_) | T::Decimal(_) | T::Dec(_) => "numeric",
        T::Boolean | T::Bool => "bool",
        T::Varchar(_) | T::CharacterVarying(_) | T::CharVarying(_) => "varchar",
        T::Char(_) | T::Character(_) => "bpchar",
        T::Timestamp(_, ast::TimezoneInfo::Tz | ast::TimezoneInfo::WithTimeZone) => "timestamptz",
        T::Timestamp(..) => "timestamp",
        T::Time(_, ast::TimezoneInfo::Tz | ast::TimezoneInfo::WithTimeZone) => "timetz",
        T::Time(..) => "time",
        T::Interval { .. } => "interval",
        other => {
            let text = other.to_string().to_lowercase();
            return text.split(['(', ' ', '[']).next().unwrap_or_default().to_owned();
        }
    };
    name.to_owned()
}
