//! Functions that make large values of small ones, and how large a value may become.
//!
//! The memory pool of DataFusion counts what operators keep, not what a function returns: `repeat('x', 2000000000)`
//! is a few words of text and gigabytes of memory. Each function here is DataFusion's own behind a guard that says
//! from the arguments how many bytes the answer can take at most, and refuses before anything is allocated.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::{Int64Type, IntervalMonthDayNanoType};
use arrow_array::{Array, ArrayRef, Int64Array};
use arrow_schema::{DataType, FieldRef, IntervalUnit, TimeUnit};
use datafusion::arrow::compute::cast;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DataFusionError, Result};
use datafusion::config::ConfigOptions;
use datafusion::execution::FunctionRegistry;
use datafusion::logical_expr::expr::{BinaryExpr, ScalarFunction};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{
    ColumnarValue, Expr, LogicalPlan, Operator, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
    Signature, Volatility,
};
use datafusion::optimizer::AnalyzerRule;
use datafusion::physical_expr::expressions as physical;
use datafusion::physical_plan::PhysicalExpr;
use datafusion::prelude::SessionContext;
use flowgate_core::moment::DAY;

/// How the size of an answer follows from the arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Growth {
    /// The first argument, as often as the second says.
    Times,
    /// As many characters or elements as the second argument says, each the size of the others at most.
    Padded,
    /// Wherever the second argument stands, the third comes in its place.
    Substituted,
    /// Every character may be replaced by the third argument.
    Replaced,
    /// From the first argument to the second, by the third.
    Series,
    /// All arguments together.
    Joined,
    /// Two digits for each byte.
    Hex,
}

const GUARDED: [(&str, Growth); 22] = [
    ("repeat", Growth::Times),
    ("array_repeat", Growth::Times),
    ("lpad", Growth::Padded),
    ("rpad", Growth::Padded),
    ("array_resize", Growth::Padded),
    ("replace", Growth::Substituted),
    ("regexp_replace", Growth::Replaced),
    ("array_replace", Growth::Replaced),
    ("array_replace_all", Growth::Replaced),
    ("array_replace_n", Growth::Replaced),
    ("generate_series", Growth::Series),
    ("range", Growth::Series),
    ("concat", Growth::Joined),
    ("concat_ws", Growth::Joined),
    ("overlay", Growth::Joined),
    ("encode", Growth::Hex),
    ("array_concat", Growth::Joined),
    ("array_append", Growth::Joined),
    ("array_prepend", Growth::Joined),
    ("array_union", Growth::Joined),
    ("make_array", Growth::Joined),
    ("array_to_string", Growth::Replaced),
];

/// An answer that would take more than it may. It is found again in [`crate::SqlError`].
#[derive(Debug, thiserror::Error)]
#[error("`{name}` would make {bytes} bytes of one batch of rows, and {max} are allowed")]
pub(crate) struct Oversized {
    name: String,
    bytes: usize,
    max: usize,
}

/// Puts the guards around the functions of `context`. A function that is not there would be left unguarded in silence
/// after an update of DataFusion, so it is an error.
pub(crate) fn guard(context: &SessionContext, bytes_max: usize) -> Result<()> {
    for (name, growth) in GUARDED {
        let inner = context.udf(name)?;
        let name = inner.name().to_owned();
        context.register_udf(ScalarUDF::from(Guarded { name, inner: Arc::clone(inner.inner()), growth, bytes_max }));
    }
    Ok(())
}

/// Puts a function with a guard in the place of each `a || b`.
#[derive(Debug)]
pub(crate) struct GuardJoins {
    pub(crate) bytes_max: usize,
}

impl AnalyzerRule for GuardJoins {
    fn name(&self) -> &'static str {
        "guard_joins"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        let join = Arc::new(ScalarUDF::from(Join {
            signature: Signature::any(2, Volatility::Immutable),
            bytes_max: self.bytes_max,
        }));
        let guarded = |expression| match expression {
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::StringConcat, right }) => {
                let call = ScalarFunction { func: Arc::clone(&join), args: vec![*left, *right] };
                Ok(Transformed::yes(Expr::ScalarFunction(call)))
            }
            other => Ok(Transformed::no(other)),
        };
        let rewritten = plan.transform_up_with_subqueries(|plan| {
            let names = NamePreserver::new(&plan);
            plan.map_expressions(|expression| {
                let name = names.save(&expression);
                let rewritten = expression.transform_up(guarded)?;
                Ok(rewritten.update_data(|expression| name.restore(expression)))
            })?
            .map_data(LogicalPlan::recompute_schema)
        })?;
        Ok(rewritten.data)
    }
}

struct Guarded {
    name: String,
    inner: Arc<dyn ScalarUDFImpl>,
    growth: Growth,
    bytes_max: usize,
}

impl fmt::Debug for Guarded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Guarded({})", self.name)
    }
}

impl PartialEq for Guarded {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && self.bytes_max == other.bytes_max
    }
}

impl Eq for Guarded {}

impl Hash for Guarded {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

/// `simplify` is not passed on: it puts the bare function in the place of the guarded one.
impl ScalarUDFImpl for Guarded {
    fn name(&self) -> &str {
        &self.name
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        self.inner.schema_name(args)
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        self.inner.return_type(types)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<FieldRef> {
        self.inner.return_field_from_args(args)
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.coerce_types(types)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        require_fit(&self.name, self.growth, &args, self.bytes_max)?;
        self.inner.invoke_with_args(args)
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Join {
    signature: Signature,
    bytes_max: usize,
}

impl ScalarUDFImpl for Join {
    fn name(&self) -> &'static str {
        "||"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        let [left, right] = types else { return datafusion::common::plan_err!("`||` takes two values") };
        datafusion::logical_expr::binary::BinaryTypeCoercer::new(left, &Operator::StringConcat, right).get_result_type()
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        require_fit("||", Growth::Joined, &args, self.bytes_max)?;
        let mut columns = Vec::new();
        let mut operand = |value: &ColumnarValue| -> Arc<dyn PhysicalExpr> {
            match value {
                ColumnarValue::Scalar(scalar) => Arc::new(physical::Literal::new(scalar.clone())),
                ColumnarValue::Array(array) => {
                    columns.push(Arc::clone(array));
                    Arc::new(physical::Column::new(&format!("c{}", columns.len() - 1), columns.len() - 1))
                }
            }
        };
        let (left, right) = (operand(&args.args[0]), operand(&args.args[1]));
        let fields = columns
            .iter()
            .enumerate()
            .map(|(at, column)| arrow_schema::Field::new(format!("c{at}"), column.data_type().clone(), true));
        let schema = Arc::new(arrow_schema::Schema::new(fields.collect::<Vec<_>>()));
        let options = arrow_array::RecordBatchOptions::new().with_row_count(Some(args.number_rows));
        let batch = arrow_array::RecordBatch::try_new_with_options(schema, columns, &options)?;
        physical::BinaryExpr::new(left, Operator::StringConcat, right).evaluate(&batch)
    }
}

fn require_fit(name: &str, growth: Growth, args: &ScalarFunctionArgs, max: usize) -> Result<()> {
    // A constant answer is made once, not for each row.
    let is_constant = args.args.iter().all(|value| matches!(value, ColumnarValue::Scalar(_)));
    let rows = if is_constant { 1 } else { args.number_rows };
    let sizes: Vec<Argument> = args.args.iter().map(Argument::of).collect::<Result<_>>()?;
    let bytes = (0..rows).fold(0_usize, |sum, row| sum.saturating_add(row_bytes(growth, &sizes, row)));
    if bytes <= max {
        return Ok(());
    }
    Err(DataFusionError::External(Box::new(Oversized { name: name.to_owned(), bytes, max })))
}

/// The most that the answer of one row can take.
fn row_bytes(growth: Growth, arguments: &[Argument], row: usize) -> usize {
    let size = |at: usize| arguments.get(at).map_or(0, |argument| argument.bytes(row));
    let number = |at: usize| arguments.get(at).and_then(|argument| argument.number(row));
    let all = || (0..arguments.len()).fold(0_usize, |sum, at| sum.saturating_add(size(at)));
    match growth {
        Growth::Times => size(0).max(1).saturating_mul(number(1).map_or(0, at_least_0)),
        Growth::Padded => {
            let each = 4.max(size(2));
            size(0).saturating_add(number(1).map_or(0, at_least_0).saturating_mul(each))
        }
        Growth::Substituted => size(0).saturating_add((size(0) / size(1).max(1)).saturating_mul(size(2))),
        Growth::Replaced if size(1) > 0 && arguments.len() == 3 && arguments[1].is_text() => {
            let (whole, to) = (size(0), size(2));
            // A pattern may match nothing between two characters, and its groups hold the text once for each.
            whole.saturating_add(whole.saturating_add(1).saturating_mul(to))
        }
        Growth::Replaced => size(0).saturating_add(1).saturating_mul(all().saturating_sub(size(0)).saturating_add(1)),
        Growth::Series => match (number(0), number(1), number(2)) {
            (Some(first), Some(last), Some(by)) => steps(first, last, by),
            (Some(first), Some(last), None) if arguments.len() == 2 => steps(first, last, 1),
            (Some(last), None, _) if arguments.len() == 1 => steps(0, last, 1),
            _ => 0,
        },
        Growth::Joined => all(),
        Growth::Hex => size(0).saturating_mul(2),
    }
}

fn at_least_0(number: i64) -> usize {
    usize::try_from(number).unwrap_or(0)
}

fn steps(first: i64, last: i64, by: i64) -> usize {
    let steps = (i128::from(last) - i128::from(first)).unsigned_abs() / u128::from(by.unsigned_abs().max(1)) + 1;
    usize::try_from(steps).unwrap_or(usize::MAX).saturating_mul(8)
}

/// One argument of a function: a value for every row, or one for all.
struct Argument {
    values: ArrayRef,
    is_scalar: bool,
    numbers: Option<ArrayRef>,
}

impl Argument {
    fn of(value: &ColumnarValue) -> Result<Self> {
        let (values, is_scalar) = match value {
            ColumnarValue::Array(array) => (Arc::clone(array), false),
            ColumnarValue::Scalar(scalar) => (scalar.to_array()?, true),
        };
        let is_number = matches!(
            values.data_type(),
            DataType::Timestamp(..)
                | DataType::Date32
                | DataType::Date64
                | DataType::Interval(IntervalUnit::MonthDayNano)
        ) || values.data_type().is_integer();
        let numbers = if is_number { Some(numbers_of(&values)?) } else { None };
        Ok(Self { values, is_scalar, numbers })
    }

    fn at(&self, row: usize) -> usize {
        if self.is_scalar { 0 } else { row }
    }

    fn is_text(&self) -> bool {
        matches!(self.values.data_type(), DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
    }

    fn number(&self, row: usize) -> Option<i64> {
        let numbers = self.numbers.as_ref()?.as_primitive::<Int64Type>();
        let at = self.at(row);
        numbers.is_valid(at).then(|| numbers.value(at))
    }

    fn bytes(&self, row: usize) -> usize {
        bytes_at(&self.values, self.at(row))
    }
}

/// Whole numbers as they are; times and intervals in microseconds, a month as its shortest.
fn numbers_of(values: &ArrayRef) -> Result<ArrayRef> {
    const MICROSECOND: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);
    Ok(match values.data_type() {
        DataType::Timestamp(..) | DataType::Date32 | DataType::Date64 => {
            cast(&cast(values, &MICROSECOND)?, &DataType::Int64)?
        }
        DataType::Interval(IntervalUnit::MonthDayNano) => {
            let micros = values.as_primitive::<IntervalMonthDayNanoType>().iter().map(|by| {
                let by = by?;
                let days = i64::from(by.months) * 28 + i64::from(by.days);
                Some(days.saturating_mul(DAY).saturating_add(by.nanoseconds / 1_000))
            });
            Arc::new(micros.collect::<Int64Array>())
        }
        _ => cast(values, &DataType::Int64)?,
    })
}

/// The bytes that one value takes.
fn bytes_at(values: &ArrayRef, at: usize) -> usize {
    if values.is_null(at) {
        return 0;
    }
    let range = |values: &ArrayRef, first: usize, last: usize| {
        (first..last).fold(0_usize, |sum, at| sum.saturating_add(bytes_at(values, at).max(1)))
    };
    match values.data_type() {
        DataType::Utf8 => values.as_string::<i32>().value_length(at) as usize,
        DataType::LargeUtf8 => values.as_string::<i64>().value_length(at) as usize,
        DataType::Utf8View => values.as_string_view().value(at).len(),
        DataType::Binary => values.as_binary::<i32>().value_length(at) as usize,
        DataType::LargeBinary => values.as_binary::<i64>().value_length(at) as usize,
        DataType::BinaryView => values.as_binary_view().value(at).len(),
        DataType::List(_) => {
            let list = values.as_list::<i32>();
            let offsets = list.value_offsets();
            range(list.values(), offsets[at] as usize, offsets[at + 1] as usize)
        }
        DataType::LargeList(_) => {
            let list = values.as_list::<i64>();
            let offsets = list.value_offsets();
            range(list.values(), offsets[at] as usize, offsets[at + 1] as usize)
        }
        other => other.primitive_width().unwrap_or(16),
    }
}
