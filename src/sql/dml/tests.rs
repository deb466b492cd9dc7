mod model;
mod statements;

use arrow::array::{Array, AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Decimal128Type, Field, Float64Type, Int64Type};
use datafusion::scalar::ScalarValue;
use datafusion::sql::sqlparser::ast;
use datafusion::sql::sqlparser::parser::Parser;

use super::values::{Cell, ColumnCells, plain_cells};
use crate::sql::cast::ColumnDefault;
use crate::sql::dialect::OmenDialect;
use crate::sql::semantics::time_zone::TimeZone;

fn cells(values: &str, types: &[DataType]) -> Option<Vec<Vec<Cell>>> {
    let query = Parser::new(&OmenDialect).try_with_sql(values).unwrap().parse_query().unwrap();
    let ast::SetExpr::Values(values) = *query.body else { panic!("not VALUES") };
    plain_cells(&values.rows, types)
}

#[test]
fn literals_and_parameters_are_plain_cells() {
    let types = [DataType::Int64, DataType::Date32];
    let rows = cells("VALUES (1, DATE '2024-01-01'), (-2, DEFAULT), ($2, NULL)", &types).unwrap();
    assert_eq!(rows[0], [Cell::Number("1".into()), Cell::Text("2024-01-01".into())]);
    assert_eq!(rows[1], [Cell::Number("-2".into()), Cell::Default]);
    assert_eq!(rows[2], [Cell::Parameter(1), Cell::Null]);
    for planned in ["VALUES (1 + 1, NULL)", "VALUES (x, NULL)", "VALUES (now(), NULL)"] {
        assert_eq!(cells(planned, &types), None, "{planned}");
    }
    // A typed literal of another type than the column's is cast first.
    assert_eq!(cells("VALUES (1, TIMESTAMP '2024-01-01')", &types), None);
}

fn column<'a>(field: &'a Field, default: &'a ColumnDefault) -> ColumnCells<'a> {
    ColumnCells { table: "t", field, default, parameters: None, zone: TimeZone::utc() }
}

#[test]
fn a_column_of_mixed_cells_keeps_their_order() {
    let field = Field::new("d", DataType::Float64, true);
    let default = ColumnDefault::Constant(ScalarValue::Float64(Some(9.0)));
    let rows =
        cells("VALUES (1), (NULL), (2.5), (DEFAULT), ('3'), (4)", &[DataType::Float64]).unwrap();
    let cells: Vec<&Cell> = rows.iter().map(|row| &row[0]).collect();
    let out = column(&field, &default).of_rows(&cells, 0).unwrap();
    let out: Vec<_> = out.as_primitive::<Float64Type>().iter().collect();
    assert_eq!(out, [Some(1.0), None, Some(2.5), Some(9.0), Some(3.0), Some(4.0)]);
}

#[test]
fn numbers_reach_decimals_digit_by_digit() {
    let field = Field::new("d", DataType::Decimal128(38, 10), true);
    let default = ColumnDefault::Constant(ScalarValue::Null);
    let cell = Cell::Number("1234567890123456789.0123456789".into());
    let out = column(&field, &default).of_rows(&[&cell], 0).unwrap();
    assert_eq!(out.as_primitive::<Decimal128Type>().value(0), 12345678901234567890123456789);
}

#[test]
fn an_error_names_the_row_of_the_statement() {
    let field = Field::new("s", DataType::Int16, true);
    let default = ColumnDefault::Constant(ScalarValue::Null);
    let rows = cells("VALUES ('1'), (2), (70000)", &[DataType::Int16]).unwrap();
    let cells: Vec<&Cell> = rows.iter().map(|row| &row[0]).collect();
    let e = column(&field, &default).of_rows(&cells, 0).unwrap_err();
    assert!(e.to_string().contains("row 3") && e.to_string().contains("70000"), "{e}");
}

#[test]
fn bindings_fill_a_column() {
    let bound = RecordBatch::try_from_iter([
        ("0", std::sync::Arc::new(StringArray::from(vec!["1", "2"])) as _),
        ("1", std::sync::Arc::new(Int64Array::from(vec![3, 4])) as _),
    ])
    .unwrap();
    let field = Field::new("i", DataType::Int64, true);
    let default = ColumnDefault::Constant(ScalarValue::Null);
    let column = ColumnCells { parameters: Some(&bound), ..column(&field, &default) };
    let out = column.of_bindings(&Cell::Parameter(0), 2).unwrap();
    assert_eq!(out.as_primitive::<Int64Type>().values(), &[1, 2]);
    let out = column.of_bindings(&Cell::Number("7".into()), 2).unwrap();
    assert_eq!(out.as_primitive::<Int64Type>().values(), &[7, 7]);
    let out = column.of_rows(&[&Cell::Parameter(1), &Cell::Null, &Cell::Parameter(1)], 1).unwrap();
    assert_eq!((out.as_primitive::<Int64Type>().value(2), out.null_count()), (4, 1));
    assert!(column.of_bindings(&Cell::Parameter(2), 2).is_err());
}
