use super::*;
use crate::sql::parse::parse_script;
use crate::sql::workers::on_large_stack;
use crate::sql::{ErrorKind, SqlOptions};

fn code(sql: String) -> Option<Code> {
    let parse = move || parse_script(&sql, &SqlOptions::default()).map(|_| ());
    on_large_stack(parse).unwrap().err().map(|e| e.code())
}

fn repeated(first: &str, part: &str, n: usize) -> String {
    format!("{first}{}", part.repeat(n))
}

#[test]
fn no_text_comes_to_the_end_of_a_stack() {
    let parts = [
        ("SELECT 1", " UNION ALL SELECT 1"),
        ("SELECT 1", " UNION SELECT 1, 2"),
        ("SELECT 1", " EXCEPT SELECT 1"),
        ("SELECT 1", " UNION SELECT 1 EXCEPT SELECT 1"),
        ("SELECT 1", " NOTNULL"),
        ("SELECT 1", " IS NULL"),
        ("SELECT 'a'", " LIKE 'a'"),
        ("SELECT 1", " + 1"),
        ("SELECT 1", " = 1"),
        ("SELECT 1", "::INT"),
        ("SELECT 1", " AND 1 = 1"),
        ("SELECT 1", " COLLATE x"),
        ("SELECT 1", " AT TIME ZONE 'UTC'"),
        ("SELECT a", "[1]"),
        ("SELECT a", ".a"),
        ("SELECT 1 BETWEEN 0", " AND 1 BETWEEN 0"),
        ("SELECT a FROM t", " JOIN t ON true"),
        ("SELECT a FROM t", ", t"),
        ("SELECT ", "NOT "),
        ("SELECT ", "- "),
        ("SELECT ", "~"),
        ("SELECT ", "("),
        ("SELECT ", "["),
        ("SELECT ", "f("),
        ("SELECT ", "CASE WHEN "),
        ("SELECT ", "INTERVAL "),
        ("SELECT ", "CAST("),
        ("SELECT ", "ARRAY["),
        ("SELECT ", "EXISTS (SELECT "),
        ("SELECT ", "a -> "),
        ("SELECT * FROM ", "("),
        ("SELECT * FROM ", "t JOIN "),
        ("SELECT 1::", "ARRAY<"),
        ("SELECT 1::", "STRUCT<a "),
        ("SELECT 1::", "MAP("),
        ("SELECT 1::INT", "[]"),
        ("", "EXPLAIN "),
        ("", "WITH a AS ("),
        ("", "("),
        ("", "BEGIN "),
        ("", "CREATE TABLE a AS "),
        ("CREATE TABLE a (b ", "ARRAY<"),
        ("SELECT sum(a) OVER ", "(ORDER BY sum(a) OVER "),
    ];
    for (first, part) in parts {
        for n in [10, 100, 1_000, 10_000, 30_000] {
            let sql = repeated(first, part, n);
            if sql.len() > 1 << 20 {
                continue;
            }
            // Answered or refused: that it comes back at all is what counts.
            if let Some(code) = code(sql) {
                assert_ne!(code.kind(), ErrorKind::Refused, "{part} {n}");
                assert_ne!(code, Code::InternalError, "{part} {n}");
            }
        }
    }
}

#[test]
fn long_chains_are_taken_and_longer_ones_refused() {
    for (first, part, many) in [
        ("SELECT 1 WHERE a = 1", " OR a = 1", 2_900),
        ("SELECT 1", " UNION ALL SELECT 1", 5_000),
        ("SELECT 1", " UNION SELECT 1", 5_000),
    ] {
        assert_eq!(code(repeated(first, part, many)), None, "{part}");
        assert_eq!(code(repeated(first, part, 30_000)), Some(Code::StatementTooComplex), "{part}");
    }
    for (first, part, most) in [
        ("SELECT 1", " + 1", 2_400),
        ("SELECT 1", " EXCEPT SELECT 1", 90),
        ("SELECT 1 FROM a", " JOIN a ON true", 350),
    ] {
        assert_eq!(code(repeated(first, part, most)), None, "{part}");
        let longer = code(repeated(first, part, 2 * most));
        assert_eq!(longer, Some(Code::StatementTooComplex), "{part}");
    }
    // Lists are no deep trees.
    assert_eq!(code(format!("VALUES {}", vec!["(1, -2)"; 50_000].join(", "))), None);
    assert_eq!(code(format!("SELECT 1 WHERE 1 IN ({})", vec!["-1"; 50_000].join(", "))), None);
}

#[test]
fn what_multiplies_is_refused() {
    let mut ctes = vec!["c0 AS (SELECT 1 AS x)".to_owned()];
    for i in 1..40 {
        let before = i - 1;
        ctes.push(format!("c{i} AS (SELECT a.x FROM c{before} a JOIN c{before} b ON a.x = b.x)"));
    }
    let sql = format!("WITH {} SELECT count(*) FROM c39", ctes.join(", "));
    assert_eq!(code(sql), Some(Code::StatementTooComplex));
    let columns: Vec<String> = (0..25).map(|i| format!("c{i}")).collect();
    let cube = |n: usize| format!("SELECT 1 FROM t GROUP BY CUBE ({})", columns[..n].join(", "));
    assert_eq!(code(cube(25)), Some(Code::StatementTooComplex));
    assert_eq!(code(cube(12)), None);
    let lists = "List(".repeat(1_640);
    let sql = format!("SELECT arrow_cast(1, '{lists}Int64{}')", ")".repeat(1_640));
    assert_eq!(code(sql), Some(Code::StatementTooComplex));
}
