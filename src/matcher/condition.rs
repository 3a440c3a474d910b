//! Conditions (`when`, `filter`): CEL, compiled once.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, LazyLock};
use std::thread;

use cel::common::types::{CelBool, CelString};
use cel::{Context, Env, ExecutionError, Program, Value};

use super::time;
use super::walk::{Refusal, RowUse, Use, walk};
use crate::domain::limits;

/// The stack that reading a condition may use: a chain of operators costs the reader a level each.
const READER_STACK_BYTES: usize = 64 * 1024 * 1024;

pub(super) static LANGUAGE: LazyLock<Arc<Env>> = LazyLock::new(|| {
    let mut env = Env::stdlib();
    time::declare(&mut env).expect("the time functions have names and ids of their own");
    Arc::new(env)
});

/// A condition that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{message}", place(*.position))]
pub struct ConditionError {
    /// What is wrong with it.
    pub message: String,
    /// Line and column, from 1, where they are known.
    pub position: Option<(usize, usize)>,
}

fn place(position: Option<(usize, usize)>) -> String {
    position.map_or_else(String::new, |(line, column)| format!("line {line}, column {column}: "))
}

/// A compiled condition.
#[derive(Debug)]
pub struct Condition {
    source: Box<str>,
    program: Program,
    reads: Use,
}

impl Condition {
    /// Compiles a condition of at most [`limits::CONDITION_BYTES`]: names and functions are checked, macros that loop
    /// are refused.
    pub fn compile(source: &str) -> Result<Self, ConditionError> {
        let plain = |message: String| ConditionError { message, position: None };
        if source.len() > limits::CONDITION_BYTES {
            let (is, limit) = (source.len(), limits::CONDITION_BYTES);
            return Err(plain(format!("it is {is} bytes long; {limit} are allowed")));
        }
        // Whatever the reader does with a hostile text, its own thread bears it.
        let read = thread::scope(|scope| {
            let reader = thread::Builder::new().name("condition".to_owned()).stack_size(READER_STACK_BYTES);
            let reader = reader
                .spawn_scoped(scope, || read(source))
                .map_err(|error| plain(format!("no thread could be started to read it: {error}")))?;
            reader.join().unwrap_or_else(|_| Err(plain("it cannot be read".to_owned())))
        });
        let (program, reads) = read?;
        Ok(Self { source: source.into(), program, reads })
    }

    /// Its text.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// The columns it names, of `record` and of `old`, sorted.
    pub fn columns(&self) -> Vec<&str> {
        let both = self.reads.record.columns.union(&self.reads.old.columns);
        both.map(AsRef::as_ref).collect()
    }

    /// The columns it names of `old`, sorted.
    pub fn old_columns(&self) -> Vec<&str> {
        self.reads.old.columns.iter().map(AsRef::as_ref).collect()
    }

    /// Whether it reads the row before the change.
    pub fn needs_old(&self) -> bool {
        self.reads.old.named
    }

    /// Whether it reads the list of changed columns, which takes the full old row.
    pub fn needs_changed(&self) -> bool {
        self.reads.changed
    }

    pub(super) fn reads(&self) -> (&RowUse, &RowUse) {
        (&self.reads.record, &self.reads.old)
    }

    pub(super) fn reads_type(&self) -> bool {
        self.reads.event_type
    }

    /// Whether it holds. An error tells why it could not be answered, without any value of the row.
    pub(super) fn holds(&self, context: &Context<'_, '_>) -> Result<bool, String> {
        // A bug in the interpreter must cost one condition its answer, not the stream its reader.
        let answer = catch_unwind(AssertUnwindSafe(|| {
            let value = Value::resolve_val(self.program.expression(), context)?;
            Ok(value.downcast_ref::<CelBool>().map(|answer| *answer.inner()))
        }));
        match answer {
            Ok(Ok(Some(answer))) => Ok(answer),
            Ok(Ok(None)) => Err("its result is neither true nor false".to_owned()),
            Ok(Err(error)) => Err(self.explain(&error)),
            Err(_) => Err("the interpreter failed on it".to_owned()),
        }
    }

    fn explain(&self, error: &ExecutionError) -> String {
        match error {
            ExecutionError::NoSuchKey(key) if self.columns().contains(&key.as_str()) => {
                format!("the row has no column {key}, or it was not sent")
            }
            ExecutionError::NoSuchKey(_) => "a field it names is not there".to_owned(),
            ExecutionError::NoSuchOverload(call) => {
                format!("{} does not take ({})", call.function(), call.argument_types().join(", "))
            }
            ExecutionError::UnsupportedBinaryOperator(operator, ..) => {
                format!("{operator} does not take values of these types")
            }
            ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_) => {
                "division by zero".to_owned()
            }
            ExecutionError::Overflow(..) => "a result is too large".to_owned(),
            ExecutionError::IndexOutOfBounds(_) => "an index is beyond the end".to_owned(),
            ExecutionError::FunctionError { function, .. } => format!("{function} fails on the value"),
            _ => "it cannot be evaluated on this row".to_owned(),
        }
    }
}

fn read(source: &str) -> Result<(Program, Use), ConditionError> {
    let program = LANGUAGE.compile(source).map_err(|errors| {
        let Some(first) = errors.errors.first() else {
            return ConditionError { message: "it cannot be read".to_owned(), position: None };
        };
        let position = usize::try_from(first.pos.0).ok().zip(usize::try_from(first.pos.1).ok());
        ConditionError { message: first.msg.clone(), position: position.filter(|(line, _)| *line > 0) }
    })?;
    match walk(program.expression()).and_then(|reads| patterns_read(&reads).map(|()| reads)) {
        Ok(reads) => Ok((program, reads)),
        Err(refusal) => {
            let offset = program.source_info().offset_for(refusal.id).map(|(start, _)| start);
            Err(ConditionError {
                message: refusal.message,
                position: offset.map(|at| line_and_column(source, at)),
            })
        }
    }
}

/// Refuses a regular expression that cannot be read, at load instead of at each row.
fn patterns_read(reads: &Use) -> Result<(), Refusal> {
    for (id, pattern) in &reads.patterns {
        let mut context = Context::with_env(LANGUAGE.clone());
        context.add_variable_as_val("pattern", Box::new(CelString::from(pattern.as_str())));
        let tried = Program::compile("''.matches(pattern)").map(|program| program.execute(&context));
        if !matches!(tried, Ok(Ok(_))) {
            let message =
                "the regular expression cannot be read (there are no look-arounds or back-references)";
            return Err(Refusal { id: *id, message: message.to_owned() });
        }
    }
    Ok(())
}

/// Line and column, from 1, of the character at an offset counted in characters.
fn line_and_column(source: &str, offset: u32) -> (usize, usize) {
    let before: String = source.chars().take(usize::try_from(offset).unwrap_or(usize::MAX)).collect();
    let line = before.matches('\n').count() + 1;
    let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
    (line, column)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(source: &str, expect: &str) {
        let error = Condition::compile(source).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains(expect), "{source}: {error}");
    }

    #[test]
    fn it_tells_which_columns_it_reads() {
        let condition = Condition::compile("record.a == 1 && old['b'] != record.c && 'd' in record").unwrap();
        assert_eq!(condition.columns(), ["a", "b", "c", "d"]);
        assert_eq!(condition.old_columns(), ["b"]);
        assert!(condition.needs_old() && !condition.needs_changed());
        assert!(!condition.reads().0.whole);
        let condition = Condition::compile("old == null || 'status' in changed").unwrap();
        assert!(condition.needs_old() && condition.needs_changed());
        assert_eq!((condition.columns(), condition.reads().1.whole), (vec![], false));
        assert!(Condition::compile("record[schema] == 1").unwrap().reads().0.whole);
        assert!(Condition::compile("has(record.x) && has(record.y.z)").unwrap().columns() == ["x", "y"]);
    }

    #[test]
    fn an_unknown_name_is_refused_with_the_nearest_and_its_place() {
        refused(
            "true &&\n recrod.total > 1",
            "line 2, column 2: \"recrod\" is no name a condition knows; did you mean record?",
        );
        refused("total > 1", "there are record, old");
        refused("record.name.startWith('a')", "did you mean startsWith?");
        refused("record.name.matches('a(')", "line 1, column 21: the regular expression");
        refused(r"record.name.matches(r'(?=a)')", "no look-arounds");
    }

    #[test]
    fn loops_and_depth_and_length_are_refused() {
        refused("record.tags.exists(t, t == 'a')", "only has(…) is");
        refused(&format!("record.a{} > 0", "+record.a".repeat(100)), "more than 20 deep");
        refused(&format!("{}true", "(".repeat(500)), "");
        refused(&format!("{}true{}", "(".repeat(900), ")".repeat(900)), "");
        refused(&format!("record{} > 0", ".a".repeat(900)), "more than 20 deep");
        refused(&format!("{}true", "!".repeat(2000)).as_str().repeat(2), "bytes long");
        refused("record.a >", "line 1, column");
        refused("", "");
    }
}
