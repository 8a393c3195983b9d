//! Times in SQL, by one rule: a `TIMESTAMP` is a moment, shown by the project's clock.
//!
//! DataFusion drops what is written behind a time: `CAST`, `to_timestamp` and comparisons give times without a zone,
//! in nanoseconds that end in 2262. Here every SQL type of times is `Timestamp(µs, project's zone)`, and every place where
//! a text, a date or a local time becomes a time (or back) is one function, [`Task`], that asks
//! [`flowgate_core::moment`]. Casts are found after type coercion, so the implied ones are among them.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

use arrow_array::cast::AsArray;
use arrow_array::types::{
    Date32Type, Decimal128Type, Float64Type, Int64Type, TimestampMicrosecondType, TimestampMillisecondType,
    TimestampNanosecondType, TimestampSecondType,
};
use arrow_array::{Array, ArrayRef, Date32Array, Int64Array, PrimitiveArray, StringArray};
use arrow_schema::{DataType, Field, FieldRef, TimeUnit};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, Result, ScalarValue, exec_err, plan_err};
use datafusion::config::ConfigOptions;
use datafusion::logical_expr::expr::{Cast, ScalarFunction, TryCast};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::planner::TypePlanner;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, LogicalPlan, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};
use datafusion::optimizer::AnalyzerRule;
use datafusion::sql::sqlparser::ast::{
    CastKind, DataType as SqlType, Expr as SqlExpr, Ident, ObjectName, TimezoneInfo, Value, VisitMut, VisitorMut,
};
use flowgate_core::moment::{self, DAY, SECOND, WallClock, local_text};
use flowgate_core::{Note, Notes};

/// What `AT TIME ZONE` becomes before planning: a cast to a type of this name.
const MOMENT_IN: &str = "flowgate_moment_in";

/// What notes of a SELECT are filed under.
const PLACE: &str = "SQL";

/// The project's clock, and what it had to say of the values that a session read.
pub(crate) struct Reader {
    clock: WallClock,
    notes: Mutex<Notes>,
}

impl Reader {
    pub(crate) fn new(clock: WallClock) -> Arc<Self> {
        Arc::new(Self { clock, notes: Mutex::default() })
    }

    /// What was read otherwise than it was written since the last call.
    pub(crate) fn take_notes(&self) -> Notes {
        std::mem::take(&mut *self.notes.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn zone(&self) -> Arc<str> {
        self.clock.name().into()
    }

    fn moment_type(&self) -> DataType {
        DataType::Timestamp(TimeUnit::Microsecond, Some(self.zone()))
    }

    /// The clock of another zone, odd times read as the project says.
    fn clock_of(&self, zone: &str) -> Result<WallClock> {
        match WallClock::new(zone, self.clock.times()) {
            Ok(clock) => Ok(clock),
            Err(error) => exec_err!("{error}"),
        }
    }

    fn placed(&self, clock: &WallClock, local: i64) -> Result<i64, String> {
        let placed = clock.moment(local);
        let Some(oddity) = placed.oddity else { return placed.moment.ok_or_else(|| local_text(local)) };
        match placed.moment {
            Some(moment) => {
                let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
                notes.add(PLACE, Note::Time(oddity), || local_text(local));
                Ok(moment)
            }
            None => Err(format!(
                "`{}` {} {}; declared in the stream's `columns:`, only its row is set aside",
                local_text(local),
                oddity.words(),
                clock.name()
            )),
        }
    }
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reader({})", self.clock.name())
    }
}

/// What one of our functions makes of its first argument.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Task {
    Cast {
        to: DataType,
        is_tried: bool,
    },
    /// A moment; numbers count these microseconds, or parts of one.
    ToTimestamp {
        micros: i64,
        parts: i64,
    },
    ToDate,
    ToUnixtime,
}

/// A function of ours in place of DataFusion's.
#[derive(Debug)]
struct Function {
    name: &'static str,
    task: Task,
    reader: Arc<Reader>,
    signature: Signature,
}

impl PartialEq for Function {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && self.task == other.task
    }
}

impl Eq for Function {}

impl Hash for Function {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
        self.task.hash(state);
    }
}

/// The functions that take the place of DataFusion's of the same names.
pub(crate) fn functions(reader: &Arc<Reader>) -> Vec<ScalarUDF> {
    let timestamp = |micros, parts| Task::ToTimestamp { micros, parts };
    [
        ("to_timestamp", timestamp(SECOND, 1)),
        ("to_timestamp_seconds", timestamp(SECOND, 1)),
        ("to_timestamp_millis", timestamp(1_000, 1)),
        ("to_timestamp_micros", timestamp(1, 1)),
        ("to_timestamp_nanos", timestamp(1, 1_000)),
        ("from_unixtime", timestamp(SECOND, 1)),
        ("to_date", Task::ToDate),
        ("to_unixtime", Task::ToUnixtime),
    ]
    .map(|(name, task)| function(name, task, reader))
    .into()
}

fn function(name: &'static str, task: Task, reader: &Arc<Reader>) -> ScalarUDF {
    let signature = Signature::user_defined(Volatility::Immutable);
    ScalarUDF::from(Function { name, task, reader: Arc::clone(reader), signature })
}

impl ScalarUDFImpl for Function {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        if types.is_empty() {
            return plan_err!("`{}` needs a value", self.name);
        }
        if self.name == "from_unixtime" && types.len() > 1 {
            return plan_err!("`from_unixtime` takes one value here; `AT TIME ZONE` shows it in another zone");
        }
        let plain = |(at, kind): (usize, &DataType)| match plain_type(kind) {
            DataType::Utf8 => Ok(DataType::Utf8),
            kind if at == 0 && is_readable(&kind) => Ok(kind),
            kind => plan_err!("`{}` does not take {kind}", self.name),
        };
        types.iter().enumerate().map(plain).collect()
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(match &self.task {
            Task::Cast { to, .. } => to.clone(),
            Task::ToTimestamp { .. } => self.reader.moment_type(),
            Task::ToDate => DataType::Date32,
            Task::ToUnixtime => DataType::Int64,
        })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let is_scalar = args.args.iter().all(|value| matches!(value, ColumnarValue::Scalar(_)));
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let made = self.make(&arrays)?;
        if is_scalar {
            Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&made, 0)?))
        } else {
            Ok(ColumnarValue::Array(made))
        }
    }
}

/// The type in which values are read: one for all texts, whole numbers and so on.
fn plain_type(kind: &DataType) -> DataType {
    match kind {
        DataType::Utf8View | DataType::LargeUtf8 | DataType::Null => DataType::Utf8,
        DataType::Dictionary(_, value) => plain_type(value),
        DataType::Float16 | DataType::Float32 => DataType::Float64,
        DataType::Date64 => DataType::Timestamp(TimeUnit::Millisecond, None),
        DataType::UInt64 => DataType::Decimal128(20, 0),
        other if other.is_integer() => DataType::Int64,
        other => other.clone(),
    }
}

fn is_readable(kind: &DataType) -> bool {
    matches!(
        kind,
        DataType::Utf8
            | DataType::Int64
            | DataType::Float64
            | DataType::Decimal128(..)
            | DataType::Date32
            | DataType::Timestamp(..)
    )
}

/// A value as it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Came {
    Moment(i64),
    Local(i64),
}

impl Function {
    fn make(&self, arrays: &[ArrayRef]) -> Result<ArrayRef> {
        let Some((values, formats)) = arrays.split_first() else { return plan_err!("`{}` needs a value", self.name) };
        let kind = plain_type(values.data_type());
        let values = if *values.data_type() == kind { Arc::clone(values) } else { arrow_cast(values, &kind)? };
        let formats: Vec<&StringArray> = formats.iter().map(AsArray::as_string::<i32>).collect();
        let target = self.return_type(&[])?;
        // A date is asked for by the clock that the value is shown by.
        let clock = match (&target, &kind) {
            (DataType::Timestamp(_, Some(zone)), _) if **zone != *self.reader.clock.name() => {
                self.reader.clock_of(zone)?
            }
            (DataType::Date32, DataType::Timestamp(_, Some(zone))) => self.reader.clock_of(zone)?,
            _ => self.reader.clock.clone(),
        };
        let is_tried = matches!(self.task, Task::Cast { is_tried: true, .. });
        let mut made: Vec<Option<i64>> = Vec::with_capacity(values.len());
        for row in 0..values.len() {
            let one = match self.came(&values, row, &formats) {
                Ok(None) => Ok(None),
                Ok(Some(came)) => self.stored(came, &target, &clock).map(Some),
                Err(why) => Err(why),
            };
            match one {
                Ok(value) => made.push(value),
                Err(_) if is_tried => made.push(None),
                Err(why) => return exec_err!("cannot cast to a time: {why}"),
            }
        }
        array_of(made, &target)
    }

    fn came(&self, values: &ArrayRef, row: usize, formats: &[&StringArray]) -> Result<Option<Came>, String> {
        if values.is_null(row) {
            return Ok(None);
        }
        let beyond = || "a number of that size counts no time".to_owned();
        let (micros, parts) = match self.task {
            Task::ToTimestamp { micros, parts } => (micros, parts),
            _ => (SECOND, 1),
        };
        Ok(Some(match values.data_type() {
            DataType::Utf8 => of_text(values.as_string::<i32>().value(row), row, formats)?,
            DataType::Date32 => Came::Local(i64::from(values.as_primitive::<Date32Type>().value(row)) * DAY),
            DataType::Int64 if self.task == Task::ToDate => {
                Came::Local(values.as_primitive::<Int64Type>().value(row).checked_mul(DAY).ok_or_else(beyond)?)
            }
            DataType::Int64 => {
                let value = values.as_primitive::<Int64Type>().value(row).div_euclid(parts);
                Came::Moment(value.checked_mul(micros).ok_or_else(beyond)?)
            }
            DataType::Float64 => {
                let value = (values.as_primitive::<Float64Type>().value(row) * micros as f64 / parts as f64).floor();
                // Up to 2^53 each microsecond is a double of its own: until the year 2255; seconds are exact for ever.
                if !value.is_finite() || value.abs() > 9.2e18 {
                    return Err(beyond());
                }
                Came::Moment(value as i64)
            }
            DataType::Decimal128(_, scale) => {
                let value = values.as_primitive::<Decimal128Type>().value(row);
                let unit = 10_i128.checked_pow(u32::from(scale.unsigned_abs())).ok_or_else(beyond)?;
                let scaled = value.checked_mul(i128::from(micros)).ok_or_else(beyond)?;
                let whole =
                    if *scale >= 0 { scaled.div_euclid(unit) } else { scaled.checked_mul(unit).ok_or_else(beyond)? };
                Came::Moment(i64::try_from(whole.div_euclid(i128::from(parts))).map_err(|_| beyond())?)
            }
            DataType::Timestamp(unit, zone) => {
                let value = match unit {
                    TimeUnit::Second => values.as_primitive::<TimestampSecondType>().value(row).checked_mul(SECOND),
                    TimeUnit::Millisecond => {
                        values.as_primitive::<TimestampMillisecondType>().value(row).checked_mul(1_000)
                    }
                    TimeUnit::Microsecond => Some(values.as_primitive::<TimestampMicrosecondType>().value(row)),
                    TimeUnit::Nanosecond => {
                        Some(values.as_primitive::<TimestampNanosecondType>().value(row).div_euclid(1_000))
                    }
                };
                let value = value.ok_or_else(beyond)?;
                if zone.is_some() { Came::Moment(value) } else { Came::Local(value) }
            }
            other => return Err(format!("{other} is no time")),
        }))
    }

    /// What `target` holds for a value, in its own unit.
    fn stored(&self, came: Came, target: &DataType, clock: &WallClock) -> Result<i64, String> {
        match target {
            DataType::Date32 => Ok(match came {
                Came::Moment(moment) => clock.date(moment),
                Came::Local(local) => local.div_euclid(DAY),
            }),
            DataType::Int64 => self.moment(came, clock).map(|moment| moment.div_euclid(SECOND)),
            DataType::Timestamp(unit, Some(_)) => in_unit(self.moment(came, clock)?, *unit),
            DataType::Timestamp(unit, None) => in_unit(self.local(came)?, *unit),
            other => Err(format!("{other} is no time")),
        }
    }

    fn moment(&self, came: Came, clock: &WallClock) -> Result<i64, String> {
        match came {
            Came::Moment(moment) => Ok(moment),
            Came::Local(local) => self.reader.placed(clock, local),
        }
    }

    /// A moment as the project's clock shows it, as long as it can be told from what the clock shows.
    fn local(&self, came: Came) -> Result<i64, String> {
        let moment = match came {
            Came::Moment(moment) => moment,
            Came::Local(local) => return Ok(local),
        };
        let clock = &self.reader.clock;
        let shown = clock.shown(moment);
        if clock.moment(shown).moment == Some(moment) {
            return Ok(shown);
        }
        Err(format!(
            "`{}Z` cannot be told from another moment without its offset; cast to TIMESTAMP",
            local_text(moment)
        ))
    }
}

fn of_text(text: &str, row: usize, formats: &[&StringArray]) -> Result<Came, String> {
    if formats.is_empty() {
        let written = moment::read(text).map_err(|why| format!("`{text}` {why}"))?;
        return Ok(written.moment().map_or_else(|| Came::Local(written.local()), Came::Moment));
    }
    for format in formats.iter().filter(|format| format.is_valid(row)) {
        let Ok(parsed) = jiff::fmt::strtime::parse(format.value(row), text) else { continue };
        let Ok(date) = parsed.to_date() else { continue };
        let time = parsed.to_time().unwrap_or_default();
        let day = moment::days_from_civil(i64::from(date.year()), i64::from(date.month()), i64::from(date.day()));
        let second = i64::from(time.hour()) * 3_600 + i64::from(time.minute()) * 60 + i64::from(time.second());
        let local = day * DAY + second * SECOND + i64::from(time.subsec_nanosecond()) / 1_000;
        return Ok(match parsed.offset() {
            Some(offset) => Came::Moment(local - i64::from(offset.seconds()) * SECOND),
            None => Came::Local(local),
        });
    }
    let tried: Vec<_> = formats.iter().filter(|format| format.is_valid(row)).map(|format| format.value(row)).collect();
    Err(format!("`{text}` is not of the form `{}`", tried.join("` or `")))
}

fn in_unit(micros: i64, unit: TimeUnit) -> Result<i64, String> {
    match unit {
        TimeUnit::Second => Ok(micros.div_euclid(SECOND)),
        TimeUnit::Millisecond => Ok(micros.div_euclid(1_000)),
        TimeUnit::Microsecond => Ok(micros),
        TimeUnit::Nanosecond => micros
            .checked_mul(1_000)
            .ok_or_else(|| format!("`{}` has no place in nanoseconds, which end in 2262", local_text(micros))),
    }
}

fn array_of(values: Vec<Option<i64>>, target: &DataType) -> Result<ArrayRef> {
    Ok(match target {
        DataType::Date32 => {
            let days = values.into_iter().map(|day| day.map(|day| i32::try_from(day).unwrap_or(i32::MAX)));
            Arc::new(days.collect::<Date32Array>())
        }
        DataType::Int64 => Arc::new(Int64Array::from(values)),
        DataType::Timestamp(unit, zone) => {
            let zone = zone.clone();
            match unit {
                TimeUnit::Second => {
                    Arc::new(PrimitiveArray::<TimestampSecondType>::from(values).with_timezone_opt(zone))
                }
                TimeUnit::Millisecond => {
                    Arc::new(PrimitiveArray::<TimestampMillisecondType>::from(values).with_timezone_opt(zone))
                }
                TimeUnit::Microsecond => {
                    Arc::new(PrimitiveArray::<TimestampMicrosecondType>::from(values).with_timezone_opt(zone))
                }
                TimeUnit::Nanosecond => {
                    Arc::new(PrimitiveArray::<TimestampNanosecondType>::from(values).with_timezone_opt(zone))
                }
            }
        }
        other => return exec_err!("{other} is no time"),
    })
}

fn arrow_cast(values: &ArrayRef, kind: &DataType) -> Result<ArrayRef> {
    Ok(datafusion::arrow::compute::cast(values, kind)?)
}

/// SQL's types of times.
#[derive(Debug)]
pub(crate) struct Types(pub(crate) Arc<Reader>);

impl TypePlanner for Types {
    fn plan_type_field(&self, sql_type: &SqlType) -> Result<Option<FieldRef>> {
        let kind = match sql_type {
            SqlType::Timestamp(
                precision,
                TimezoneInfo::None | TimezoneInfo::WithTimeZone | TimezoneInfo::Tz | TimezoneInfo::WithoutTimeZone,
            )
            | SqlType::Datetime(precision) => {
                let unit = match precision {
                    Some(0) => TimeUnit::Second,
                    Some(1..=3) => TimeUnit::Millisecond,
                    _ => TimeUnit::Microsecond,
                };
                DataType::Timestamp(unit, Some(self.0.zone()))
            }
            SqlType::Custom(name, zone) if name.to_string() == MOMENT_IN => {
                let zone = zone.join("");
                if let Err(error) = WallClock::new(&zone, self.0.clock.times()) {
                    return plan_err!("{error}; use an IANA name such as `Europe/London`");
                }
                DataType::Timestamp(TimeUnit::Microsecond, Some(zone.into()))
            }
            _ => return Ok(None),
        };
        Ok(Some(Arc::new(Field::new("", kind, true))))
    }
}

/// `x AT TIME ZONE 'z'` as a cast that keeps every year; DataFusion's ends in 2262.
pub(crate) fn widen_zones(statement: &mut datafusion::sql::parser::Statement) {
    struct Widen;
    impl VisitorMut for Widen {
        type Break = ();

        fn post_visit_expr(&mut self, expression: &mut SqlExpr) -> std::ops::ControlFlow<()> {
            let zone = match expression {
                SqlExpr::AtTimeZone { time_zone, .. } => match time_zone.as_ref() {
                    SqlExpr::Value(value) => match &value.value {
                        Value::SingleQuotedString(zone) => zone.clone(),
                        _ => return std::ops::ControlFlow::Continue(()),
                    },
                    _ => return std::ops::ControlFlow::Continue(()),
                },
                _ => return std::ops::ControlFlow::Continue(()),
            };
            let nothing = SqlExpr::Identifier(Ident::new(""));
            if let SqlExpr::AtTimeZone { timestamp, .. } = std::mem::replace(expression, nothing) {
                let data_type = SqlType::Custom(ObjectName::from(vec![Ident::new(MOMENT_IN)]), vec![zone]);
                *expression =
                    SqlExpr::Cast { kind: CastKind::Cast, expr: timestamp, data_type, array: false, format: None };
            }
            std::ops::ControlFlow::Continue(())
        }
    }
    if let datafusion::sql::parser::Statement::Statement(inner) = statement {
        let _whole: std::ops::ControlFlow<()> = inner.visit(&mut Widen);
    }
}

/// Puts [`Function`]s where a plan casts texts, dates and local times to times, or times to dates and local times.
#[derive(Debug)]
pub(crate) struct ReadMoments(pub(crate) Arc<Reader>);

impl AnalyzerRule for ReadMoments {
    fn name(&self) -> &'static str {
        "read_moments"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        let rewritten = plan.transform_up_with_subqueries(|plan| {
            let mut schema = merge_schema(&plan.inputs());
            if let LogicalPlan::TableScan(scan) = &plan {
                let source = DFSchema::try_from_qualified_schema(scan.table_name.clone(), &scan.source.schema())?;
                schema.merge(&source);
            }
            let names = NamePreserver::new(&plan);
            plan.map_expressions(|expression| {
                let name = names.save(&expression);
                let rewritten = expression.transform_up(|expression| self.read(expression, &schema))?;
                Ok(rewritten.update_data(|expression| name.restore(expression)))
            })?
            .map_data(LogicalPlan::recompute_schema)
        })?;
        Ok(rewritten.data)
    }
}

impl ReadMoments {
    fn read(&self, expression: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
        let (inner, to, is_tried, is_arrow) = match &expression {
            Expr::Cast(Cast { expr, field }) => (expr.as_ref(), field.data_type().clone(), false, false),
            Expr::TryCast(TryCast { expr, field }) => (expr.as_ref(), field.data_type().clone(), true, false),
            Expr::ScalarFunction(ScalarFunction { func, args })
                if matches!(func.name(), "arrow_cast" | "arrow_try_cast") && args.len() == 2 =>
            {
                (&args[0], expression.get_type(schema)?, func.name() == "arrow_try_cast", true)
            }
            _ => return Ok(Transformed::no(expression)),
        };
        if !matches!(to, DataType::Timestamp(..) | DataType::Date32) {
            return Ok(Transformed::no(expression));
        }
        let from = plain_type(&inner.get_type(schema)?);
        let is_ours = match (&from, &to) {
            (DataType::Utf8, _) => true,
            (DataType::Timestamp(_, from), DataType::Timestamp(_, to)) => from.is_some() != to.is_some(),
            (DataType::Timestamp(_, from), DataType::Date32) => from.is_some(),
            (DataType::Date32, DataType::Timestamp(_, to)) => to.is_some(),
            (from, DataType::Timestamp(_, Some(_))) if from.is_numeric() && !is_arrow => {
                return plan_err!(
                    "a number is no time until its unit is said: `to_timestamp_seconds()`, `to_timestamp_millis()`, \
                     `to_timestamp_micros()` or `to_timestamp_nanos()`"
                );
            }
            _ => false,
        };
        if !is_ours {
            return Ok(Transformed::no(expression));
        }
        let function = function("flowgate_moment", Task::Cast { to, is_tried }, &self.0);
        let call = ScalarFunction { func: Arc::new(function), args: vec![inner.clone()] };
        Ok(Transformed::yes(Expr::ScalarFunction(call)))
    }
}
