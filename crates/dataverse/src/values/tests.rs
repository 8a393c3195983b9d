//! Every SQL type into every kind of column, and the faults in between.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow_array::types::Int32Type;
use arrow_array::{
    ArrayRef, BooleanArray, Date32Array, Decimal128Array, DictionaryArray, Float64Array, Int32Array, Int64Array,
    ListArray, NullArray, RecordBatch, StringArray, StringViewArray, TimestampMillisecondArray,
    TimestampNanosecondArray, UInt64Array,
};
use arrow_cast::display::array_value_to_string;
use flowgate_core::destination::Checked;
use flowgate_core::moment::{LocalTimes, NonexistentTimes, Oddity, RepeatedTimes};
use flowgate_core::shape::{
    ChoiceOption, ColumnKind, ColumnShape, LookupTarget, STATE_COLUMN, StatusShape, TableShape,
};
use flowgate_core::{Code, ConnectorError, Note, WallClock};

use super::canonical;

fn option(value: i32, label: &str) -> ChoiceOption {
    ChoiceOption { value, label: label.to_owned() }
}

fn lookup(tables: &[&str]) -> ColumnKind {
    let target = |table: &&str| LookupTarget {
        table: (*table).to_owned(),
        set: format!("{table}s"),
        navigation: format!("nav_{table}"),
    };
    ColumnKind::Lookup { targets: tables.iter().map(target).collect() }
}

fn shape() -> TableShape {
    let kinds = [
        ("text", ColumnKind::Text { length_max: 5 }),
        ("must", ColumnKind::Text { length_max: 5 }),
        ("integer", ColumnKind::Integer { min: -10, max: 100 }),
        ("big", ColumnKind::BigInteger),
        ("decimal", ColumnKind::Decimal { scale: 2, min: -1_000.0, max: 1_000.0 }),
        ("money", ColumnKind::Money { scale: 4, min: 0.0, max: 1e9 }),
        ("double", ColumnKind::Double { precision: 3, min: -1e6, max: 1e6 }),
        ("boolean", ColumnKind::Boolean { labels: ["Closed".to_owned(), "Open".to_owned()] }),
        ("moment", ColumnKind::DateTime { user_local: true }),
        ("shown", ColumnKind::DateTime { user_local: false }),
        ("date", ColumnKind::Date),
        ("choice", ColumnKind::Choice { options: vec![option(1, "High"), option(2, "Low, or none"), option(7, "3")] }),
        ("choices", ColumnKind::Choices { options: vec![option(3, "Red"), option(1, "Blue"), option(2, "A, B")] }),
        ("guid", ColumnKind::Guid),
        ("parent", lookup(&["account"])),
        ("customer", lookup(&["account", "contact"])),
        ("transactioncurrencyid", lookup(&["transactioncurrency"])),
        ("photo", ColumnKind::Unsupported { name: "Image".to_owned() }),
    ];
    let column = |(name, kind): (&str, ColumnKind)| {
        let column =
            ColumnShape { name: name.to_owned(), kind, required: name == "must", can_create: true, can_update: true };
        (name.to_owned(), column)
    };
    let status = |state, status, label: &str| StatusShape { state, status, label: label.to_owned(), is_default: true };
    TableShape {
        table: "wr_order".to_owned(),
        set: "wr_orders".to_owned(),
        primary_id: "wr_orderid".to_owned(),
        columns: kinds.into_iter().map(column).collect::<BTreeMap<_, _>>(),
        keys: Vec::new(),
        atomic: true,
        owner: None,
        created_on: None,
        statuses: vec![status(0, 1, "In Progress"), status(1, 5, "Problem Solved")],
    }
}

fn london() -> WallClock {
    WallClock::new("Europe/London", LocalTimes::default()).unwrap()
}

fn check(columns: &[(&str, ArrayRef)]) -> Result<Checked, ConnectorError> {
    let rows = RecordBatch::try_from_iter(columns.iter().map(|(name, array)| (*name, Arc::clone(array)))).unwrap();
    canonical(&shape(), &rows, &london())
}

/// The canonical values of one column, and the codes of the faults by row.
fn values(column: &str, array: ArrayRef) -> (Vec<String>, Vec<(usize, Code)>) {
    let checked = check(&[(column, array)]).unwrap();
    let shown = checked.rows.column(0);
    assert_eq!(*shown.data_type(), *shape().canonical_schema([column]).unwrap().field(0).data_type());
    let values = (0..shown.len()).map(|row| array_value_to_string(shown, row).unwrap()).collect();
    (values, checked.faults.iter().map(|(row, fault)| (*row, fault.code)).collect())
}

fn texts(texts: &[&str]) -> ArrayRef {
    Arc::new(StringArray::from(texts.to_vec()))
}

/// The canonical value of one text, or the code and words of its fault.
fn of_text(column: &str, text: &str) -> Result<String, String> {
    let checked = check(&[(column, texts(&[text]))]).unwrap();
    match checked.faults.first() {
        Some((_, fault)) => Err(format!("{} {}", fault.code, fault.reason)),
        None => Ok(array_value_to_string(checked.rows.column(0), 0).unwrap()),
    }
}

#[test]
fn texts_are_measured_as_the_service_measures() {
    assert_eq!(of_text("text", "").as_deref(), Ok(""));
    assert_eq!(of_text("text", "äöüß€").as_deref(), Ok("äöüß€"));
    assert_eq!(of_text("text", "👍👍👍").unwrap_err(), "FG0500 `👍👍👍` has 6 characters, and the column holds 5");
    assert_eq!(of_text("text", "a\u{1}b").unwrap_err(), "FG0515 `ab` holds U+0001, which the destination refuses");
    assert_eq!(of_text("text", "a\r\n\tb").as_deref(), Ok("a\r\n\tb"));
}

#[test]
fn an_empty_text_is_null_for_every_kind() {
    for column in [
        "text", "integer", "big", "decimal", "double", "boolean", "moment", "date", "choice", "choices", "guid",
        "parent",
    ] {
        let checked = check(&[(column, texts(&["", if column == "text" { "" } else { "  " }]))]).unwrap();
        assert_eq!((checked.rows.column(0).null_count(), checked.faults.len()), (2, 0), "{column}");
    }
}

#[test]
fn numbers_of_every_sql_type_become_the_columns_type() {
    let decimals = Decimal128Array::from(vec![12_340, -5]).with_precision_and_scale(10, 3).unwrap();
    assert_eq!(
        values("decimal", Arc::new(decimals)),
        (vec!["12.34".to_owned(), String::new()], vec![(1, Code::ROW_TOO_FINE)])
    );
    let floats = Float64Array::from(vec![2.675, 0.1, 0.1 + 0.2]);
    assert_eq!(
        values("decimal", Arc::new(floats)),
        (["", "0.10", "0.30"].map(str::to_owned).to_vec(), vec![(0, Code::ROW_TOO_FINE)])
    );
    assert_eq!(values("decimal", Arc::new(UInt64Array::from(vec![7]))).0, ["7.00"]);
    assert_eq!(values("integer", Arc::new(Float64Array::from(vec![5.0]))).0, ["5"]);
    assert_eq!(values("double", texts(&["1.23456", "-0.0001"])).0, ["1.235", "0.0"]);
    assert_eq!(values("big", texts(&["9223372036854775807"])).0, ["9223372036854775807"]);
    assert_eq!(values("text", Arc::new(Int64Array::from(vec![42]))).0, ["42"]);
}

#[test]
fn numbers_that_do_not_fit_are_faults_and_become_null() {
    let (shown, faults) = values("integer", Arc::new(Int32Array::from(vec![-11, 100, 101])));
    assert_eq!(shown, ["", "100", ""]);
    assert_eq!(faults, [(0, Code::ROW_OUT_OF_RANGE), (2, Code::ROW_OUT_OF_RANGE)]);
    assert_eq!(of_text("decimal", "1000.000").as_deref(), Ok("1000.00"));
    assert!(of_text("decimal", "1000.004").unwrap_err().starts_with("FG0525 `1000.004` has more decimals"));
    assert_eq!(of_text("decimal", "1000.01").unwrap_err(), "FG0501 `1000.01` is not from -1000 to 1000");
    assert!(of_text("double", "9007199254740993").unwrap_err().starts_with("FG0525"));
    assert!(of_text("double", "1e400").unwrap_err().starts_with("FG0501"));
    assert_eq!(of_text("integer", "5.5").unwrap_err(), "FG0504 `5.5` is not a whole number");
    assert_eq!(of_text("decimal", "1,5").unwrap_err(), "FG0504 `1,5` is not a number");
    assert_eq!(of_text("double", "NaN").unwrap_err(), "FG0504 `NaN` is not a number");
}

#[test]
fn booleans_are_read_by_label_number_or_word() {
    let (shown, faults) = values("boolean", texts(&["OPEN", "closed", "1", "0", "Yes", "false", "maybe"]));
    assert_eq!(shown, ["true", "false", "true", "false", "true", "false", ""]);
    assert_eq!(faults, [(6, Code::ROW_NOT_A_BOOLEAN)]);
    assert_eq!(values("boolean", Arc::new(BooleanArray::from(vec![true]))).0, ["true"]);
    assert_eq!(values("boolean", Arc::new(Int32Array::from(vec![1, 2]))).1, [(1, Code::ROW_NOT_A_BOOLEAN)]);
}

#[test]
fn choices_are_read_by_label_before_number() {
    assert_eq!(values("choice", texts(&[" high ", "2", "low, OR none", "3"])).0, ["1", "2", "2", "7"]);
    assert_eq!(values("choice", Arc::new(Int64Array::from(vec![2, 9]))).1, [(1, Code::ROW_UNKNOWN_CHOICE)]);
    assert_eq!(
        of_text("choice", "Medium").unwrap_err(),
        "FG0502 `Medium` is none of the column's choices: `High`, `Low, or none`, `3`"
    );
}

#[test]
fn what_two_options_may_be_meant_by_is_neither() {
    let options = vec![option(1, "North"), option(2, "South"), option(3, "north "), option(4, "2"), option(7, "5")];
    let shape = TableShape {
        columns: [
            ("wr_area".to_owned(), ColumnKind::Choice { options: options.clone() }),
            ("wr_areas".to_owned(), ColumnKind::Choices { options }),
            ("wr_done".to_owned(), ColumnKind::Boolean { labels: ["1".to_owned(), "Ja".to_owned()] }),
        ]
        .into_iter()
        .map(|(name, kind)| {
            (name.clone(), ColumnShape { name, kind, required: false, can_create: true, can_update: true })
        })
        .collect(),
        ..shape()
    };
    let read = |column: &str, values: ArrayRef| {
        let rows = RecordBatch::try_from_iter([(column, values)]).unwrap();
        let checked = canonical(&shape, &rows, &london()).unwrap();
        let shown = arrow_cast::display::array_value_to_string(checked.rows.column(0), 0).unwrap();
        checked.faults.first().map_or(shown, |(_, fault)| format!("{} {}", fault.code, fault.reason))
    };
    let cases = [
        ("wr_area", "North", "FG0528 `North` may mean the option 1 or 3; write the number that is meant"),
        ("wr_area", " NORTH", "FG0528 ` NORTH` may mean the option 1 or 3; write the number that is meant"),
        ("wr_area", "2", "FG0528 `2` may mean the option 2 or 4; write the number that is meant"),
        ("wr_area", "3", "3"),
        ("wr_area", "5", "7"),
        ("wr_area", "south", "2"),
        ("wr_areas", "South; north", "FG0528 `north` may mean the option 1 or 3; write the number that is meant"),
        ("wr_areas", "3,1", "1,3"),
        ("wr_done", "1", "FG0528 `1` may be yes (`Ja`) or no (`1`)"),
        ("wr_done", "ja", "true"),
        ("wr_done", "no", "false"),
    ];
    for (column, text, expected) in cases {
        assert_eq!(read(column, texts(&[text])), expected, "{column} {text}");
    }
    assert_eq!(read("wr_area", Arc::new(Int64Array::from(vec![2]))), "2", "an integer is a value");
    assert!(read("wr_area", Arc::new(Int64Array::from(vec![5]))).starts_with("FG0502"), "and never a label");
}

#[test]
fn several_choices_come_out_ascending_and_once() {
    assert_eq!(of_text("choices", "red;BLUE; 3").as_deref(), Ok("1,3"));
    assert_eq!(of_text("choices", "3,1").as_deref(), Ok("1,3"));
    assert_eq!(of_text("choices", "a, b").as_deref(), Ok("2"));
    assert!(of_text("choices", "red,green").unwrap_err().starts_with("FG0502 `green`"));
}

#[test]
fn moments_are_utc_and_whole_seconds() {
    assert_eq!(of_text("moment", "2026-07-01T10:00:00").as_deref(), Ok("2026-07-01T09:00:00"));
    assert_eq!(of_text("moment", "2026-07-01T10:00:00.999+02:00").as_deref(), Ok("2026-07-01T08:00:00"));
    assert_eq!(of_text("moment", "2026-07-01").as_deref(), Ok("2026-06-30T23:00:00"));
    assert_eq!(of_text("shown", "2026-07-01T10:00:00").as_deref(), Ok("2026-07-01T10:00:00"));
    assert_eq!(of_text("shown", "2026-07-01T10:00:00+05:00").as_deref(), Ok("2026-07-01T06:00:00"));
    assert_eq!(
        of_text("moment", "1752-12-31T12:00:00Z").unwrap_err(),
        "FG0503 `1752-12-31T12:00:00` is not from 1753 to 9999"
    );
    assert_eq!(of_text("moment", "9999-12-31").as_deref(), Ok("9999-12-31T00:00:00"));
    assert_eq!(of_text("moment", "9999-12-31T23:59:59Z").as_deref(), Ok("9999-12-31T23:59:59"));
    assert_eq!(
        of_text("moment", "10000-01-01T00:00:00Z").unwrap_err(),
        "FG0503 `10000-01-01T00:00:00` is not from 1753 to 9999"
    );
    assert_eq!(
        of_text("moment", "31/12/2026").unwrap_err(),
        "FG0503 `31/12/2026` is not a date and time in ISO 8601 form (2026-03-01T08:30:00+01:00)"
    );
}

#[test]
fn sql_timestamps_and_dates_are_placed_in_their_zone() {
    let local: ArrayRef = Arc::new(TimestampNanosecondArray::from(vec![1_782_900_000_999_999_999]));
    assert_eq!(values("moment", Arc::clone(&local)).0, ["2026-07-01T09:00:00"]);
    assert_eq!(values("shown", local).0, ["2026-07-01T10:00:00"]);
    let instant: ArrayRef = Arc::new(TimestampMillisecondArray::from(vec![1_782_946_800_000]).with_timezone("UTC"));
    assert_eq!(values("moment", Arc::clone(&instant)).0, ["2026-07-01T23:00:00"]);
    assert_eq!(values("shown", Arc::clone(&instant)).0, ["2026-07-02T00:00:00"]);
    assert_eq!(values("date", instant).0, ["2026-07-02"]);
    assert_eq!(values("date", Arc::new(Date32Array::from(vec![0, -100_000]))).1, [(1, Code::ROW_BAD_DATE)]);
    assert_eq!(of_text("date", "2026-07-01T10:00:00Z").as_deref(), Ok("2026-07-01"));
}

#[test]
fn odd_local_times_are_counted_or_set_aside() {
    let rows = || texts(&["2026-03-29T01:30:00", "2026-10-25T01:30:00", "2026-07-01T00:00:00"]);
    let checked = check(&[("moment", rows())]).unwrap();
    let notes: Vec<_> = checked.notes.iter().collect();
    assert_eq!(
        notes,
        [
            ("moment", Note::Time(Oddity::Nonexistent), 1, "2026-03-29T01:30:00"),
            ("moment", Note::Time(Oddity::Repeated), 1, "2026-10-25T01:30:00")
        ]
    );
    assert!(check(&[("shown", rows())]).unwrap().notes.is_empty(), "a clock that no zone governs shows them all");
    let times = LocalTimes { nonexistent: NonexistentTimes::SetAside, repeated: RepeatedTimes::SetAside };
    let strict = WallClock::new("Europe/London", times).unwrap();
    let batch = RecordBatch::try_from_iter([("moment", rows())]).unwrap();
    let faults = canonical(&shape(), &batch, &strict).unwrap().faults;
    let shown: Vec<_> = faults.iter().map(|(row, fault)| (*row, fault.code, fault.reason.as_str())).collect();
    assert_eq!(
        shown,
        [
            (0, Code::ROW_ODD_TIME, "`2026-03-29T01:30:00` does not exist in Europe/London"),
            (1, Code::ROW_ODD_TIME, "`2026-10-25T01:30:00` comes twice in Europe/London")
        ]
    );
}

#[test]
fn one_value_beyond_every_column_does_not_stop_the_others() {
    let seconds = arrow_array::TimestampSecondArray::from(vec![i64::MAX, 0]).with_timezone("UTC");
    assert_eq!(values("moment", Arc::new(seconds)).1, [(0, Code::ROW_OUT_OF_RANGE)]);
    let nanoseconds = TimestampNanosecondArray::from(vec![-1]).with_timezone("UTC");
    assert_eq!(values("moment", Arc::new(nanoseconds)).0, ["1969-12-31T23:59:59"]);
}

#[test]
fn guids_and_references_are_lower_case() {
    let id = "78914942-34CB-ED11-B596-0022481D68CD";
    assert_eq!(of_text("guid", &format!("{{{id}}}")), Ok(id.to_lowercase()));
    assert_eq!(of_text("guid", "78914942").unwrap_err(), "FG0506 `78914942` is not a GUID");
    assert_eq!(of_text("parent", id), Ok(format!("account/{}", id.to_lowercase())));
    assert_eq!(of_text("customer", &format!("contact/{id}")), Ok(format!("contact/{}", id.to_lowercase())));
    assert!(of_text("customer", id).unwrap_err().contains("does not begin with a table"));
    assert!(of_text("customer", &format!("lead/{id}")).unwrap_err().ends_with("refers to: `account`, `contact`"));
    assert!(of_text("parent", "account/x").unwrap_err().starts_with("FG0506"));
}

#[test]
fn the_state_column_takes_labels_or_numbers_of_statuses() {
    assert_eq!(values(STATE_COLUMN, texts(&["problem solved", "1"])).0, ["5", "1"]);
    assert_eq!(values(STATE_COLUMN, texts(&["Gone"])).1, [(0, Code::ROW_UNKNOWN_CHOICE)]);
}

#[test]
fn a_required_null_is_a_fault_and_only_the_first_fault_counts() {
    let must: ArrayRef = Arc::new(StringArray::from(vec![Some("x"), None, None]));
    let checked = check(&[("integer", texts(&["1", "x", "1"])), ("must", must)]).unwrap();
    let faults: Vec<(usize, Code)> = checked.faults.iter().map(|(row, fault)| (*row, fault.code)).collect();
    assert_eq!(faults, [(1, Code::ROW_NOT_A_NUMBER), (2, Code::ROW_REQUIRED)]);
}

#[test]
fn money_needs_a_currency_only_where_one_is_selected() {
    let currency = "transactioncurrency/78914942-34cb-ed11-b596-0022481d68cd";
    let currencies: ArrayRef = Arc::new(StringArray::from(vec![Some(currency), None, None]));
    let money: ArrayRef = Arc::new(StringArray::from(vec![Some("1"), Some("1"), None]));
    let checked = check(&[("money", Arc::clone(&money)), ("transactioncurrencyid", currencies)]).unwrap();
    let faults: Vec<(usize, Code)> = checked.faults.iter().map(|(row, fault)| (*row, fault.code)).collect();
    assert_eq!(faults, [(1, Code::ROW_NO_CURRENCY)]);
    assert!(check(&[("money", money)]).unwrap().faults.is_empty());
}

#[test]
fn views_dictionaries_and_untyped_nulls_are_taken() {
    assert_eq!(values("choice", Arc::new(StringViewArray::from(vec!["High"]))).0, ["1"]);
    let dictionary: DictionaryArray<Int32Type> = vec!["High", "High", "3"].into_iter().collect();
    assert_eq!(values("choice", Arc::new(dictionary)).0, ["1", "1", "7"]);
    for column in shape().columns.keys().filter(|name| !["must", "photo"].contains(&name.as_str())) {
        assert_eq!(
            values(column, Arc::new(NullArray::new(2))),
            (vec![String::new(), String::new()], vec![]),
            "{column}"
        );
    }
}

#[test]
fn types_that_can_never_fit_are_errors_of_the_load() {
    let message = |column: &str, array: ArrayRef| check(&[(column, array)]).unwrap_err();
    let error = message("moment", Arc::new(Int32Array::from(vec![1])));
    assert_eq!(
        (error.code, error.message.as_str()),
        (Code::TYPE_MISMATCH, "column `moment` is `Int32` in SQL, and cannot become a time")
    );
    assert_eq!(message("photo", texts(&["x"])).code, Code::TYPE_MISMATCH);
    assert_eq!(message("decimal", Arc::new(BooleanArray::from(vec![true]))).code, Code::TYPE_MISMATCH);
    let list = ListArray::from_iter_primitive::<Int32Type, _, _>(vec![Some(vec![Some(1)])]);
    assert_eq!(message("text", Arc::new(list)).code, Code::TYPE_MISMATCH);
}

#[test]
fn an_unknown_column_names_the_one_that_was_meant() {
    let error = check(&[("Order", texts(&["x"]))]).unwrap_err();
    assert_eq!(
        (error.code, error.message.as_str()),
        (Code::COLUMN_NOT_FOUND, "table `wr_order` has no column `Order`")
    );
    let error = check(&[("TEXT", texts(&["x"]))]).unwrap_err();
    assert_eq!(error.hints, ["did you mean `text`? names are logical names in lower case"]);
}
