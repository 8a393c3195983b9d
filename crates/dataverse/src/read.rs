//! Reads of current rows, page by page.
//!
//! The next page is where the service says, verbatim, and never anywhere else than at the same
//! environment; a link that repeats ends the read with an error instead of a circle. A read that ends before the rows
//! that the service counts have come ends with an error too: what is missing would be taken for gone.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::types::Int64Type;
use arrow_array::{BooleanArray, RecordBatch};
use arrow_schema::SchemaRef;
use arrow_select::filter::filter_record_batch;
use flowgate_core::destination::{Class, ID_COLUMN, Newest, Selection};
use flowgate_core::{CancellationToken, Code, ConnectorError, Elapsed, ErrorKind, TableShape};
use futures::stream::{self, BoxStream, StreamExt, TryStreamExt};
use http::{HeaderName, HeaderValue};
use url::Url;
use uuid::Uuid;

use crate::call::{Bounds, Call, CallError};
use crate::client::Client;
use crate::earned::Expected;
use crate::json_in::{Page, PageReader};
use crate::query::{VERSION_COLUMN, filters_by_id, filters_by_key, key_text, newest_rows};

/// Beyond this many filtered reads, one read of the whole table is the lesser evil.
const FILTERED_READS_MAX: usize = 200;

/// Pages of one read. Twenty billion rows; a circle that never repeats a link ends here.
const PAGES_MAX: u64 = 4_000_000;

/// The service counts the rows of a query no further.
const COUNT_MAX: u64 = 5_000;

const PAGE_PREFERENCE: &str = "odata.maxpagesize=5000";
const LOOKUP_PREFERENCE: &str = "odata.include-annotations=\"Microsoft.Dynamics.CRM.lookuplogicalname\"";

/// The read of one query from its first page to its last.
pub(crate) struct Pages {
    client: Arc<Client>,
    reader: Arc<PageReader>,
    class: Class,
    cancel: CancellationToken,
    /// The deadline of all pages; without it each has its own.
    until: Option<Elapsed>,
    extra_preference: Option<&'static str>,
    next: Option<Call>,
    /// Hashes of the links that were followed.
    links: HashSet<u64>,
    pages: u64,
    rows: u64,
    /// What the service said at the first page.
    count: Option<u64>,
    /// The table, if its rows are to be counted at the end of the read.
    counted_table: Option<String>,
}

impl Pages {
    /// Pages of the set that `first` reads.
    pub(crate) fn new(
        client: Arc<Client>,
        reader: Arc<PageReader>,
        first: Call,
        class: Class,
        cancel: CancellationToken,
    ) -> Self {
        let mut pages = Self {
            client,
            reader,
            class,
            cancel,
            until: None,
            extra_preference: None,
            next: None,
            links: HashSet::new(),
            pages: 0,
            rows: 0,
            count: None,
            counted_table: None,
        };
        pages.next = Some(pages.preferred(first));
        pages
    }

    /// A read that also asks for a delta link.
    pub(crate) fn tracking(mut self) -> Self {
        self.extra_preference = Some("odata.track-changes");
        self.next = self.next.take().map(|call| self.preferred(call));
        self
    }

    /// A read of a whole table, whose rows the service is asked to count.
    fn counting(mut self, table: &str) -> Self {
        self.counted_table = Some(table.to_owned());
        self
    }

    /// A read that must be over by then.
    fn until(mut self, until: Elapsed) -> Self {
        self.until = Some(until);
        self
    }

    pub(crate) fn schema(&self) -> SchemaRef {
        self.reader.schema()
    }

    /// The next page; `None` after the last.
    pub(crate) async fn next(&mut self) -> Result<Option<Page>, CallError> {
        let Some(call) = self.next.take() else { return Ok(None) };
        let own = self.client.bounds_with(&self.cancel);
        let bounds = Bounds { until: self.until.unwrap_or(own.until), ..own };
        let expected = Expected::Json { set: Some(self.reader.set().to_owned()) };
        let answer = self.client.call(&call.expecting(expected), bounds).await?;
        let page = self.reader.read(&answer.body).map_err(CallError::Fatal)?;
        self.pages += 1;
        self.rows += page.rows.num_rows() as u64;
        if self.pages == 1 {
            self.count = page.count;
        }
        match &page.next_link {
            Some(link) => self.next = Some(self.follow(link).map_err(CallError::Fatal)?),
            None => self.require_all(bounds).await?,
        }
        Ok(Some(page))
    }

    /// Holds the rows that came against those that the service counts.
    async fn require_all(&self, bounds: Bounds<'_>) -> Result<(), CallError> {
        // Counted with the first page, and no further than that; from there on the table itself is asked once.
        let counted = match (&self.counted_table, self.count) {
            (Some(table), Some(count)) if count >= COUNT_MAX && self.rows >= COUNT_MAX => {
                count_rows(&self.client, self.reader.set(), table, self.class, bounds).await?
            }
            (_, count) => count,
        };
        match counted {
            Some(count) if self.rows < count => {
                Err(CallError::Unknown(ended_early(self.reader.set(), self.rows, count)))
            }
            _ => Ok(()),
        }
    }

    fn follow(&mut self, link: &str) -> Result<Call, ConnectorError> {
        let fault = |message: &str| ConnectorError::new(ErrorKind::Schema, Code::UNEXPECTED_ANSWER, message);
        let mut hasher = DefaultHasher::new();
        link.hash(&mut hasher);
        if !self.links.insert(hasher.finish()) || self.pages >= PAGES_MAX {
            return Err(fault("the service names the same next page again")
                .hint("a known fault of some queries; the rows read so far are not complete, so none are used"));
        }
        let url = Url::parse(link).map_err(|_| fault("the link to the next page is not an address"))?;
        Ok(self.preferred(Call::follow(url, self.class)))
    }

    /// Every page must be asked for with the same preferences (dossier section 13.6).
    fn preferred(&self, call: Call) -> Call {
        let annotations = self.reader.needs_annotations().then_some(LOOKUP_PREFERENCE);
        let preferences = [Some(PAGE_PREFERENCE), annotations, self.extra_preference];
        let text = preferences.into_iter().flatten().collect::<Vec<_>>().join(",");
        let mut call = call;
        // The text is made of constants, all of them plain.
        if let Ok(value) = HeaderValue::from_str(&text) {
            call.headers.insert(HeaderName::from_static("prefer"), value);
        }
        call
    }
}

/// The reads that together find the selected rows.
struct Reads {
    reader: Arc<PageReader>,
    addresses: Vec<String>,
    keep: Keep,
}

impl Reads {
    fn of(shape: &Arc<TableShape>, columns: &[String], selection: Selection) -> Result<Self, ConnectorError> {
        let reader = Arc::new(PageReader::new(shape, ID_COLUMN, columns)?);
        let filters = match &selection {
            Selection::All => None,
            Selection::Ids(ids) => Some(filters_by_id(shape, ids)),
            Selection::Keys(keys) => Some(filters_by_key(shape, keys).ok_or_else(|| {
                ConnectorError::new(ErrorKind::Internal, Code::INTERNAL, "keys to read by are not in canonical form")
            })?),
        };
        let all = filters.is_none();
        let filters = filters.filter(|filters| filters.len() <= FILTERED_READS_MAX);
        let keep = if filters.is_none() && !all { Keep::new(shape, &reader, selection)? } else { Keep::Everything };
        let base = format!("{}?$select={}&$count=true", shape.set, reader.select());
        let addresses = match filters {
            Some(filters) => filters.iter().map(|filter| format!("{base}&{filter}")).collect(),
            None => vec![base],
        };
        Ok(Self { reader, addresses, keep })
    }
}

/// Reads `columns` of the selected rows; see [`flowgate_core::Destination::read_current`].
pub(crate) fn read_current(
    client: &Arc<Client>,
    shape: &Arc<TableShape>,
    columns: &[String],
    selection: Selection,
    class: Class,
) -> Result<BoxStream<'static, Result<RecordBatch, ConnectorError>>, ConnectorError> {
    let Reads { reader, addresses, keep } = Reads::of(shape, columns, selection)?;
    let (client, shape) = (Arc::clone(client), Arc::clone(shape));
    let is_whole = addresses.len() == 1 && !addresses[0].contains("$filter");
    let batches = stream::iter(addresses).flat_map(move |address| {
        let first = Call::get(address, class);
        let pages = Pages::new(Arc::clone(&client), Arc::clone(&reader), first, class, CancellationToken::new());
        let pages = if is_whole { pages.counting(&shape.table) } else { pages };
        page_stream(pages, format!("reading `{}`", shape.table))
    });
    Ok(batches.and_then(move |batch| futures::future::ready(keep.filter(&batch))).boxed())
}

/// As [`read_current`] for a few rows that a write must know: all of it within the bounds of the write.
pub(crate) async fn read_within(
    client: &Arc<Client>,
    shape: &Arc<TableShape>,
    columns: &[String],
    selection: Selection,
    class: Class,
    bounds: Bounds<'_>,
) -> Result<Vec<RecordBatch>, CallError> {
    let Reads { reader, addresses, keep } = Reads::of(shape, columns, selection).map_err(CallError::Fatal)?;
    let mut batches = Vec::new();
    for address in addresses {
        let first = Call::get(address, class);
        let mut pages = Pages::new(Arc::clone(client), Arc::clone(&reader), first, class, bounds.cancel.clone())
            .until(bounds.until);
        while let Some(page) = pages.next().await? {
            batches.push(keep.filter(&page.rows).map_err(CallError::Fatal)?);
        }
    }
    Ok(batches)
}

/// The versions of these rows; `None` for one that is not there, 0 where the table keeps none.
pub(crate) async fn versions(
    client: &Arc<Client>,
    shape: &Arc<TableShape>,
    ids: &[Uuid],
) -> Result<Vec<Option<u64>>, ConnectorError> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let columns: Vec<String> = shape.column(VERSION_COLUMN).map(|_| VERSION_COLUMN.to_owned()).into_iter().collect();
    let batches = read_current(client, shape, &columns, Selection::Ids(ids.to_vec()), Class::Batch)?;
    let batches: Vec<RecordBatch> = batches.try_collect().await?;
    let mut versions = HashMap::new();
    for batch in &batches {
        let found = batch.column(0).as_string::<i32>();
        let numbers = batch.columns().get(1).and_then(|column| column.as_primitive_opt::<Int64Type>());
        for row in 0..batch.num_rows() {
            let version = numbers.map_or(0, |numbers| numbers.value(row).unsigned_abs());
            versions.insert(found.value(row).to_owned(), version);
        }
    }
    Ok(ids.iter().map(|id| versions.get(&id.to_string()).copied()).collect())
}

/// How many rows a table has. Beyond what the service counts exactly it tells what it counted within the last day: that
/// allows for a twentieth of the rows to have gone since. `None` if it tells neither.
async fn count_rows(
    client: &Client,
    set: &str,
    table: &str,
    class: Class,
    bounds: Bounds<'_>,
) -> Result<Option<u64>, CallError> {
    let exact = Call::get(format!("{set}?$apply=aggregate($count%20as%20rows)"), class);
    match client.call(&exact.expecting(Expected::Json { set: Some(set.to_owned()) }), bounds).await {
        Ok(answer) => return Ok(number_at(&answer.body, "/value/0/rows")),
        Err(CallError::Refused(_)) => {}
        Err(error) => return Err(error),
    }
    let about = Call::get(format!("RetrieveTotalRecordCount(EntityNames=@p)?@p=%5B%22{table}%22%5D"), class);
    match client.call(&about.expecting(Expected::Json { set: None }), bounds).await {
        Ok(answer) => {
            let count = number_at(&answer.body, "/EntityRecordCountCollection/Values/0");
            Ok(count.map(|count| count - count / 20))
        }
        Err(CallError::Refused(refusal)) => {
            tracing::warn!(%table, reason = %refusal.message, "the service does not count the rows: the end of the read is not checked");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn number_at(body: &[u8], place: &str) -> Option<u64> {
    serde_json::from_slice::<serde_json::Value>(body).ok()?.pointer(place)?.as_u64()
}

fn ended_early(set: &str, rows: u64, count: u64) -> ConnectorError {
    let message = format!("a read of `{set}` ended after {rows} rows, and the service counts {count}");
    ConnectorError::new(ErrorKind::Transient, Code::UNEARNED_ANSWER, message)
        .hint("run again; if it stays so, a proxy or a cache between here and the environment cuts answers short")
}

fn page_stream(pages: Pages, what: String) -> impl stream::Stream<Item = Result<RecordBatch, ConnectorError>> {
    stream::try_unfold((pages, what), |(mut pages, what)| async move {
        match pages.next().await {
            Ok(Some(page)) => Ok(Some((page.rows, (pages, what)))),
            Ok(None) => Ok(None),
            Err(error) => Err(error.into_error(&what)),
        }
    })
}

/// Which rows of a whole read were asked for.
enum Keep {
    Everything,
    Ids(HashSet<String>),
    Keys { shape: Arc<TableShape>, columns: Vec<usize>, keys: HashSet<Vec<u8>> },
}

impl Keep {
    fn new(shape: &Arc<TableShape>, reader: &PageReader, selection: Selection) -> Result<Self, ConnectorError> {
        match selection {
            Selection::All => Ok(Self::Everything),
            Selection::Ids(ids) => Ok(Self::Ids(ids.iter().map(Uuid::to_string).collect())),
            Selection::Keys(keys) => {
                let all: Vec<usize> = (0..keys.num_columns()).collect();
                let texts = (0..keys.num_rows()).filter_map(|row| key_text(shape, &keys, &all, row)).collect();
                let schema = reader.schema();
                let columns: Result<Vec<usize>, _> =
                    keys.schema().fields().iter().map(|field| schema.index_of(field.name())).collect();
                let columns = columns.map_err(|error| {
                    let message = "a read of many keys must also read the key columns";
                    ConnectorError::new(ErrorKind::Internal, Code::INTERNAL, message).caused_by(error)
                })?;
                Ok(Self::Keys { shape: Arc::clone(shape), columns, keys: texts })
            }
        }
    }

    fn filter(&self, batch: &RecordBatch) -> Result<RecordBatch, ConnectorError> {
        let is_wanted = |row: usize| match self {
            Self::Everything => true,
            Self::Ids(ids) => ids.contains(batch.column(0).as_string::<i32>().value(row)),
            Self::Keys { shape, columns, keys } => {
                key_text(shape, batch, columns, row).is_some_and(|key| keys.contains(&key))
            }
        };
        if matches!(self, Self::Everything) {
            return Ok(batch.clone());
        }
        let mask: BooleanArray = (0..batch.num_rows()).map(|row| Some(is_wanted(row))).collect();
        filter_record_batch(batch, &mask).map_err(|error| {
            ConnectorError::new(ErrorKind::Internal, Code::INTERNAL, "rows could not be selected").caused_by(error)
        })
    }
}

/// The rows that were written last; see [`flowgate_core::Destination::newest`].
pub(crate) async fn newest(
    client: &Client,
    shape: &TableShape,
    which: Newest,
    limit: usize,
) -> Result<Vec<Uuid>, CallError> {
    let users = client.user_ids(client.bounds()).await?;
    let Some(options) = newest_rows(shape, which, &users, limit) else { return Ok(Vec::new()) };
    let reader = PageReader::new(shape, ID_COLUMN, &[]).map_err(CallError::Fatal)?;
    let call = Call::get(format!("{}?$select={}&{options}", shape.set, reader.select()), Class::Batch);
    let answer = client.call(&call, client.bounds()).await?;
    let page = reader.read(&answer.body).map_err(CallError::Fatal)?;
    let ids = page.rows.column(0).as_string::<i32>();
    Ok(ids.iter().flatten().filter_map(|id| Uuid::parse_str(id).ok()).collect())
}

/// The ids among `ids` whose rows are there.
pub(crate) async fn probe(
    client: &Client,
    shape: &TableShape,
    ids: &[Uuid],
    class: Class,
    bounds: Bounds<'_>,
) -> Result<HashSet<Uuid>, CallError> {
    let reader = PageReader::new(shape, ID_COLUMN, &[]).map_err(CallError::Fatal)?;
    let mut found = HashSet::new();
    for filter in filters_by_id(shape, ids) {
        let expected = Expected::Json { set: Some(shape.set.clone()) };
        let call = Call::get(format!("{}?$select={}&$count=true&{filter}", shape.set, reader.select()), class);
        let call = call.expecting(expected);
        let answer = client.call(&call, bounds).await?;
        let page = reader.read(&answer.body).map_err(CallError::Fatal)?;
        let rows = page.rows.num_rows() as u64;
        if let Some(count) = page.count.filter(|count| *count > rows) {
            return Err(CallError::Unknown(ended_early(&shape.set, rows, count)));
        }
        found.extend(page.rows.column(0).as_string::<i32>().iter().flatten().filter_map(|id| Uuid::parse_str(id).ok()));
    }
    Ok(found)
}
