//! `omendb sql`: statements from the command line, from standard input, or typed.

use std::io::{IsTerminal, Read};
use std::path::PathBuf;
use std::time::Instant;

use arrow::array::RecordBatch;
use arrow::util::pretty::pretty_format_batches;
use rustyline::DefaultEditor;
use rustyline::error::ReadlineError;
use tokio::runtime::Runtime;

use super::client::{Answer, Client};
use super::{Failure, Target};

/// Rows that are drawn at most; the rest is counted.
const MAX_ROWS: usize = 1000;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(flatten)]
    target: Target,
    /// Statements to run, separated by semicolons
    #[arg(short, long, value_name = "SQL")]
    command: Option<String>,
}

pub(super) fn run(runtime: &Runtime, args: &Args) -> Result<(), Failure> {
    let mut client = runtime.block_on(Client::connect(&args.target.url))?;
    if let Some(text) = &args.command {
        return run_all(runtime, &mut client, text);
    }
    if !std::io::stdin().is_terminal() {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text)?;
        return run_all(runtime, &mut client, &text);
    }
    interactive(runtime, &mut client, &args.target.url)
}

fn run_all(runtime: &Runtime, client: &mut Client, text: &str) -> Result<(), Failure> {
    let (mut statements, rest) = split(text);
    statements.push(rest);
    for statement in statements.iter().filter(|s| !is_blank(s)) {
        show(runtime, client, statement)?;
    }
    Ok(())
}

/// What the shell itself understands.
const COMMANDS: &str = "\\d lists tables, \\d NAME describes one, \\q leaves";

fn interactive(runtime: &Runtime, client: &mut Client, url: &str) -> Result<(), Failure> {
    println!("Connected to {url}. Statements end with \";\"; {COMMANDS}.");
    let mut editor = DefaultEditor::new()?;
    let history = history_file();
    if let Some(path) = &history {
        // There is none at the first start.
        let _ = editor.load_history(path);
    }
    let mut pending = String::new();
    loop {
        let prompt = if is_blank(&pending) { "omendb> " } else { "   ...> " };
        match editor.readline(prompt) {
            Ok(line) if is_blank(&pending) && matches!(line.trim(), "\\q" | "quit" | "exit") => {
                break;
            }
            Ok(line) if is_blank(&pending) && line.trim().starts_with('\\') => {
                editor.add_history_entry(line.trim())?;
                match shortcut(line.trim()) {
                    Some(statement) => report(show(runtime, client, &statement)),
                    None => eprintln!("error: no such command; {COMMANDS}"),
                }
            }
            Ok(line) => {
                pending.push_str(&line);
                pending.push('\n');
                let (statements, rest) = split(&pending);
                for statement in statements.iter().filter(|s| !is_blank(s)) {
                    editor.add_history_entry(format!("{};", statement.trim()))?;
                    report(show(runtime, client, statement));
                }
                pending = rest;
            }
            Err(ReadlineError::Interrupted) => pending.clear(),
            Err(ReadlineError::Eof) => break,
            Err(e) => return Err(e.into()),
        }
    }
    if let Some(path) = &history
        && let Err(e) = editor.save_history(path)
    {
        eprintln!("the history is not saved in {}: {e}", path.display());
    }
    Ok(())
}

/// The statement that a command stands for.
fn shortcut(command: &str) -> Option<String> {
    match command.split_once(char::is_whitespace) {
        None if command == "\\d" => Some("SHOW TABLES".to_owned()),
        Some(("\\d", table)) => Some(format!("DESCRIBE {}", table.trim())),
        _ => None,
    }
}

fn report(result: Result<(), Failure>) {
    if let Err(e) = result {
        eprintln!("error: {e}");
    }
}

fn history_file() -> Option<PathBuf> {
    let home = std::env::home_dir()?;
    Some(home.join(".omendb_history"))
}

fn show(runtime: &Runtime, client: &mut Client, sql: &str) -> Result<(), Failure> {
    let begun = Instant::now();
    let answer = runtime.block_on(client.run(sql.trim()))?;
    let elapsed = begun.elapsed();
    println!("{}", draw(&answer)?);
    println!("Time: {:.3} ms", elapsed.as_secs_f64() * 1e3);
    Ok(())
}

fn draw(answer: &Answer) -> Result<String, Failure> {
    if answer.schema.fields().is_empty() {
        return Ok(match answer.affected {
            Some(n) => format!("{n} row{} affected", plural(n)),
            None => "done".to_owned(),
        });
    }
    let rows: usize = answer.batches.iter().map(RecordBatch::num_rows).sum();
    let mut left = MAX_ROWS;
    let mut shown = Vec::new();
    for batch in &answer.batches {
        let count = batch.num_rows().min(left);
        shown.push(batch.slice(0, count));
        left -= count;
    }
    if shown.is_empty() {
        shown.push(RecordBatch::new_empty(answer.schema.clone()));
    }
    let table = pretty_format_batches(&shown)?;
    let more =
        if rows > MAX_ROWS { format!(", the first {MAX_ROWS} shown") } else { String::new() };
    Ok(format!("{table}\n({rows} row{}{more})", plural(rows as u64)))
}

fn plural(n: u64) -> &'static str {
    if n == 1 { "" } else { "s" }
}

fn is_blank(sql: &str) -> bool {
    // Comments alone are no statement: the server would refuse them.
    sql.lines().all(|l| l.trim().is_empty() || l.trim().starts_with("--"))
}

/// Cuts a text at the semicolons that end statements: not those in strings, names, or comments. Returns what is behind the
/// last one separately.
fn split(text: &str) -> (Vec<String>, String) {
    let mut statements = Vec::new();
    let mut start = 0;
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        match c {
            '\'' | '"' => {
                // A doubled quote ends one text and begins the next, which comes to the same.
                for (_, inner) in chars.by_ref() {
                    if inner == c {
                        break;
                    }
                }
            }
            '-' if chars.peek().is_some_and(|(_, next)| *next == '-') => {
                for (_, inner) in chars.by_ref() {
                    if inner == '\n' {
                        break;
                    }
                }
            }
            '/' if chars.peek().is_some_and(|(_, next)| *next == '*') => {
                let mut last = ' ';
                for (_, inner) in chars.by_ref().skip(1) {
                    if last == '*' && inner == '/' {
                        break;
                    }
                    last = inner;
                }
            }
            ';' => {
                statements.push(text[start..at].to_owned());
                start = at + 1;
            }
            _ => {}
        }
    }
    // A text or comment that is still open belongs to what is to come.
    (statements, text[start..].to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_end_at_semicolons_outside_of_texts_and_comments() {
        let (statements, rest) =
            split("SELECT ';''' AS \"a;b\"; -- one; two\nSELECT /* ; **/ 2;\nSELECT 3");
        assert_eq!(statements.len(), 2);
        assert_eq!(statements[0], "SELECT ';''' AS \"a;b\"");
        assert!(statements[1].ends_with("SELECT /* ; **/ 2"));
        assert_eq!(rest, "\nSELECT 3");
        assert_eq!(split("SELECT 'a;").0.len(), 0, "an open text");
    }

    #[test]
    fn commands_stand_for_statements() {
        assert_eq!(shortcut("\\d").as_deref(), Some("SHOW TABLES"));
        assert_eq!(shortcut("\\d  \"My table\"").as_deref(), Some("DESCRIBE \"My table\""));
        assert_eq!(shortcut("\\x"), None);
    }

    #[test]
    fn comments_alone_are_blank() {
        assert!(is_blank("\n-- nothing\n"));
        assert!(!is_blank("-- something\nSELECT 1"));
    }
}
