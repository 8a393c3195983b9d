//! File and image columns over HTTP: whole contents, chunks, and the messages for blocks.
//!
//! Promise: a chunked upload is accepted in order only and stored with its last chunk. Header
//! names of downloads, and an empty column answering 204, are UNVERIFIED.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::StatusCode;
use serde_json::{Map, Value as Json};
use uuid::Uuid;

use super::actions::{body_of, entity_reference, guid, member, object};
use super::rows::RowRequest;
use super::{Access, Answer, Call, Request};
use crate::error::{ApiError, Code};
use crate::query::decode_pairs;
use crate::schema::{Column, ColumnKind, Ordinal, Schema, Table};
use crate::storage::{Database, Place, Transfer, Upload, ValueRef};
use crate::write::{Content, Session, bytes_max, check_content, clear_content, file_of, store_content};

/// Size of a chunk the service proposes, and of the greatest block.
const CHUNK_BYTES: usize = 4 << 20;
/// Bytes of a block id before encoding.
const BLOCK_ID_BYTES_MAX: usize = 64;

pub(super) fn is_content(column: &Column) -> bool {
    matches!(column.kind, ColumnKind::File { .. } | ColumnKind::Image { .. })
}

fn header<'a>(request: &'a Request, name: &str) -> Option<&'a str> {
    request.headers.get(name).and_then(|value| value.to_str().ok())
}

fn option(request: &Request, name: &str) -> Option<String> {
    decode_pairs(&request.query).into_iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

/// Requests on the content itself; `None` where the property is read or written as JSON.
pub(super) fn property(
    call: &Call<'_>,
    access: &mut Access<'_>,
    request: &Request,
    row: &RowRequest<'_>,
    ordinal: Ordinal,
    is_value: bool,
) -> Option<Result<Answer, ApiError>> {
    let is_json = header(request, "content-type").is_some_and(|kind| kind.starts_with("application/json"));
    match request.method.as_str() {
        "GET" if is_value => Some(access.read(|database| download(call, request, database, row, ordinal))),
        // Without `$value` the content comes as JSON, when a part or the full size is asked for.
        "GET" if request.headers.contains_key("range") || option(request, "size").is_some() => Some(
            access.read(|database| download(call, request, database, row, ordinal)).map(|answer| in_json(call, answer)),
        ),
        "GET" => None,
        "DELETE" => Some(clear(call, access, request, row, ordinal)),
        "PATCH" | "PUT" if is_json && option(request, "sessiontoken").is_none() && !is_chunked(request) => None,
        "PATCH" | "PUT" => Some(upload(call, access, request, row, ordinal)),
        _ => Some(Err(super::route::method_not_allowed(request))),
    }
}

fn is_chunked(request: &Request) -> bool {
    header(request, "x-ms-transfer-mode").is_some_and(|mode| mode.eq_ignore_ascii_case("chunked"))
}

/// The header wins over the query option.
fn file_name(request: &Request) -> Result<String, ApiError> {
    let name = header(request, "x-ms-file-name").map(str::to_owned).or_else(|| option(request, "x-ms-file-name"));
    name.filter(|name| !name.is_empty())
        .ok_or_else(|| ApiError::bad_request("A file name is needed in the header or query option 'x-ms-file-name'."))
}

fn mime_of(request: &Request) -> String {
    header(request, "content-type").unwrap_or("application/octet-stream").to_owned()
}

fn upload(
    call: &Call<'_>,
    access: &mut Access<'_>,
    request: &Request,
    row: &RowRequest<'_>,
    ordinal: Ordinal,
) -> Result<Answer, ApiError> {
    if let Some(token) = option(request, "sessiontoken") {
        return chunk(call, access, request, row, ordinal, &token);
    }
    let is_image = matches!(row.table.column(ordinal).kind, ColumnKind::Image { .. });
    let name = if is_image { file_name(request).unwrap_or_default() } else { file_name(request)? };
    let content_ids = access.content_ids();
    let session = call.session(request, content_ids.as_ref())?;
    access.write(|database| {
        let id = row.address.find(database, row.table).ok_or_else(|| row.address.missing(row.table))?;
        if !is_chunked(request) {
            let content = Content { name, mime: mime_of(request), bytes: request.body.to_vec() };
            store_content(&session, database, row.table, id, ordinal, content)?;
            return Ok(Answer::no_content());
        }
        check_content(&session, database, row.table.column(ordinal), &name, 0)?;
        let place = Place { table: row.table.id, row: id, column: ordinal };
        let token = begin(database, place, name);
        let column = &row.table.column(ordinal).logical;
        let link = format!("{}/{column}?sessiontoken={token}", super::rows::entity_id(call, row.table, row.inner));
        let mut answer = Answer::new(StatusCode::OK);
        answer.set("location", &link);
        answer.set("x-ms-chunk-size", &CHUNK_BYTES.to_string());
        answer.set("accept-ranges", "bytes");
        Ok(answer)
    })
}

fn begin(database: &mut Database, place: Place, name: String) -> Uuid {
    let token = database.next_token();
    let upload = Upload { place, name, blocks: std::collections::BTreeMap::new(), chunks: Vec::new() };
    database.transfers.begin(token, Transfer::Upload(upload));
    token
}

fn unknown_token() -> ApiError {
    ApiError::new(Code::InvalidArgument, "The file continuation token is not valid or has expired.")
}

/// `bytes 0-4194303/25870370` as first, last and total.
fn content_range(text: &str) -> Option<(usize, usize, usize)> {
    let (range, total) = text.trim().strip_prefix("bytes")?.trim().split_once('/')?;
    let (first, last) = range.split_once('-')?;
    Some((first.trim().parse().ok()?, last.trim().parse().ok()?, total.trim().parse().ok()?))
}

fn chunk(
    call: &Call<'_>,
    access: &mut Access<'_>,
    request: &Request,
    row: &RowRequest<'_>,
    ordinal: Ordinal,
    token: &str,
) -> Result<Answer, ApiError> {
    let token = Uuid::parse_str(token).map_err(|_| unknown_token())?;
    let range = header(request, "content-range").and_then(content_range);
    let (first, last, total) =
        range.ok_or_else(|| ApiError::bad_request("A chunk needs a Content-Range of bytes first-last/total."))?;
    let content_ids = access.content_ids();
    let session = call.session(request, content_ids.as_ref())?;
    access.write(|database| {
        let has_room = database.transfers.has_room(request.body.len());
        let upload = database.transfers.upload(&token).ok_or_else(unknown_token)?;
        if upload.place.column != ordinal || upload.place.table != row.table.id {
            return Err(unknown_token());
        }
        let fits = first == upload.chunks.len() && last.checked_sub(first) == request.body.len().checked_sub(1);
        if !fits || last >= total || !has_room || total > bytes_max(row.table.column(ordinal)) {
            let message = format!("The chunk {first}-{last}/{total} does not follow the bytes received so far.");
            return Err(ApiError::bad_request(message).with_status(StatusCode::RANGE_NOT_SATISFIABLE));
        }
        upload.chunks.extend_from_slice(&request.body);
        if upload.chunks.len() < total {
            return Ok(Answer::new(StatusCode::PARTIAL_CONTENT));
        }
        let (place, name) = (upload.place, upload.name.clone());
        let bytes = std::mem::take(&mut upload.chunks);
        database.transfers.end(&token);
        let content = Content { name, mime: mime_of(request), bytes };
        store_content(&session, database, row.table, place.row, ordinal, content)?;
        Ok(Answer::no_content())
    })
}

fn clear(
    call: &Call<'_>,
    access: &mut Access<'_>,
    request: &Request,
    row: &RowRequest<'_>,
    ordinal: Ordinal,
) -> Result<Answer, ApiError> {
    let content_ids = access.content_ids();
    let session = call.session(request, content_ids.as_ref())?;
    access.write(|database| {
        let id = row.address.find(database, row.table).ok_or_else(|| row.address.missing(row.table))?;
        clear_content(&session, database, row.table, id, ordinal)?;
        Ok(Answer::no_content())
    })
}

/// The name a file was stored under.
fn stored_name(database: &Database, table: &Table, id: &Uuid, column: &Column) -> String {
    let ordinal = table.ordinal(&format!("{}_name", column.logical));
    let row = database.get(table.id, id);
    match ordinal.and_then(|ordinal| row?.get(ordinal)) {
        Some(ValueRef::Text(name)) => name.to_owned(),
        _ => String::new(),
    }
}

fn download(
    call: &Call<'_>,
    request: &Request,
    database: &Database,
    row: &RowRequest<'_>,
    ordinal: Ordinal,
) -> Result<Answer, ApiError> {
    let id = row.address.find(database, row.table).ok_or_else(|| row.address.missing(row.table))?;
    let column = row.table.column(ordinal);
    let content = file_of(database, row.table, &id, ordinal).and_then(|file| database.file(&file));
    let Some(content) = content else {
        return super::rows::nothing_there(column, call.settings.empty_file_status);
    };
    let mut answer = Answer::text("application/octet-stream", Vec::new());
    let name = stored_name(database, row.table, &id, column);
    if !name.is_empty() {
        answer.set("x-ms-file-name", &name);
        answer.set("content-disposition", &format!("attachment; filename=\"{}\"", name.replace('"', "'")));
    }
    answer.set("x-ms-file-size", &content.len().to_string());
    answer.set("accept-ranges", "bytes");
    let Some(range) = header(request, "range") else {
        answer.body = content.to_vec();
        return Ok(answer);
    };
    let Some((first, last)) = requested_range(range, content.len()) else {
        let message = format!("The range '{range}' lies outside the {} bytes of the file.", content.len());
        return Err(ApiError::bad_request(message).with_status(StatusCode::RANGE_NOT_SATISFIABLE));
    };
    answer.status = StatusCode::PARTIAL_CONTENT;
    answer.set("content-range", &format!("bytes {first}-{last}/{}", content.len()));
    answer.body = content[first..=last].to_vec();
    Ok(answer)
}

/// A downloaded content as the base64 text of a JSON member: what `dynamics-web-api` reads.
fn in_json(call: &Call<'_>, mut answer: Answer) -> Answer {
    if answer.status != StatusCode::NO_CONTENT {
        let context = format!("{}/$metadata#Edm.Binary", call.base);
        let body = serde_json::json!({ "@odata.context": context, "value": STANDARD.encode(&answer.body) });
        answer.body = body.to_string().into_bytes();
        answer.set("content-type", "application/json; odata.metadata=minimal");
    }
    answer
}

/// First and last byte of `bytes=0-9`, `bytes=5-` or `bytes=-3`.
fn requested_range(text: &str, size: usize) -> Option<(usize, usize)> {
    let (first, last) = text.trim().strip_prefix("bytes=")?.split_once('-')?;
    let end = size.checked_sub(1)?;
    let (first, last) = match (first.trim(), last.trim()) {
        ("", count) => (size.saturating_sub(count.parse().ok()?), end),
        (first, "") => (first.parse().ok()?, end),
        (first, last) => (first.parse().ok()?, last.parse::<usize>().ok()?.min(end)),
    };
    (first <= last && last < size).then_some((first, last))
}

/// The actions for blocks; `None` if the name is none of them.
pub(super) fn action(
    call: &Call<'_>,
    access: &mut Access<'_>,
    request: &Request,
    schema: &Schema,
    name: &str,
) -> Option<Result<Answer, ApiError>> {
    let run = match name {
        "InitializeFileBlocksUpload" => initialize_upload,
        "UploadBlock" => upload_block,
        "CommitFileBlocksUpload" => commit,
        "InitializeFileBlocksDownload" => initialize_download,
        "DownloadBlock" => download_block,
        "DeleteFile" => delete_file,
        _ => return None,
    };
    let done = body_of(request).and_then(|body| run(call, access, request, schema, &body));
    Some(done)
}

type Body = Map<String, Json>;

fn text<'a>(body: &'a Body, name: &str) -> Result<&'a str, ApiError> {
    member(body, name)?.as_str().ok_or_else(|| ApiError::bad_request(format!("The parameter '{name}' takes a string.")))
}

fn token_of(body: &Body) -> Result<Uuid, ApiError> {
    Uuid::parse_str(text(body, "FileContinuationToken")?).map_err(|_| unknown_token())
}

/// The column `Target` and `FileAttributeName` name together.
fn place_of(access: &Access<'_>, schema: &Schema, body: &Body) -> Result<Place, ApiError> {
    let (table, row) = entity_reference(schema, member(body, "Target")?)?;
    let name = text(body, "FileAttributeName")?;
    let column = table.find(name).filter(|column| is_content(column)).ok_or_else(|| {
        ApiError::new(Code::NoSuchColumn, format!("'{}' has no file or image column '{name}'.", table.logical))
    })?;
    let exists = access.read(|database| database.get(table.id, &row).is_some());
    if exists {
        return Ok(Place { table: table.id, row, column: column.ordinal });
    }
    Err(crate::address::does_not_exist(table, row))
}

fn initialize_upload(
    call: &Call<'_>,
    access: &mut Access<'_>,
    request: &Request,
    schema: &Schema,
    body: &Body,
) -> Result<Answer, ApiError> {
    let place = place_of(access, schema, body)?;
    let name = text(body, "FileName")?.to_owned();
    let session = call.session(request, None)?;
    let token = access.write(|database| {
        check_content(&session, database, schema.table(place.table).column(place.column), &name, 0)?;
        Ok(begin(database, place, name))
    })?;
    Ok(object(call, "InitializeFileBlocksUploadResponse", [("FileContinuationToken", token.to_string().into())]))
}

fn upload_block(
    _: &Call<'_>,
    access: &mut Access<'_>,
    _: &Request,
    _: &Schema,
    body: &Body,
) -> Result<Answer, ApiError> {
    let token = token_of(body)?;
    let id = text(body, "BlockId")?.to_owned();
    let invalid = |what: &str| ApiError::bad_request(format!("The block cannot be taken: {what}."));
    let raw_id = STANDARD.decode(&id).map_err(|_| invalid("its id is not base64"))?;
    let data = STANDARD.decode(text(body, "BlockData")?).map_err(|_| invalid("its data are not base64"))?;
    if raw_id.is_empty() || raw_id.len() > BLOCK_ID_BYTES_MAX {
        return Err(invalid("its id has more than 64 bytes, or none"));
    }
    if data.len() > CHUNK_BYTES {
        return Err(invalid("it holds more than 4 MB"));
    }
    access.write(|database| {
        let has_room = database.transfers.has_room(data.len());
        let upload = database.transfers.upload(&token).ok_or_else(unknown_token)?;
        if upload.blocks.keys().any(|known| known.len() != id.len()) {
            return Err(invalid("ids of one file must have one length"));
        }
        if !has_room {
            return Err(invalid("too much is waiting to be committed"));
        }
        upload.blocks.insert(id, data);
        Ok(Answer::no_content())
    })
}

fn commit(
    call: &Call<'_>,
    access: &mut Access<'_>,
    request: &Request,
    schema: &Schema,
    body: &Body,
) -> Result<Answer, ApiError> {
    let token = token_of(body)?;
    let (name, mime) = (text(body, "FileName")?.to_owned(), text(body, "MimeType")?.to_owned());
    let list = member(body, "BlockList")?.as_array().cloned().unwrap_or_default();
    let session = call.session(request, None)?;
    let (file, size) =
        access.write(|database| commit_blocks(&session, database, schema, token, &list, (name, mime)))?;
    let members = [("FileId", Json::from(file.to_string())), ("FileSizeInBytes", Json::from(size))];
    Ok(object(call, "CommitFileBlocksUploadResponse", members))
}

fn commit_blocks(
    session: &Session<'_>,
    database: &mut Database,
    schema: &Schema,
    token: Uuid,
    list: &[Json],
    (name, mime): (String, String),
) -> Result<(Uuid, usize), ApiError> {
    let upload = database.transfers.upload(&token).ok_or_else(unknown_token)?;
    let place = upload.place;
    let table = schema.table(place.table);
    let limit = bytes_max(table.column(place.column));
    let mut bytes = Vec::new();
    for id in list {
        let block = id.as_str().and_then(|id| upload.blocks.get(id));
        let block = block.ok_or_else(|| ApiError::bad_request(format!("The block {id} was not uploaded.")))?;
        bytes.extend_from_slice(block);
        if bytes.len() > limit {
            break;
        }
    }
    let size = bytes.len();
    let file = store_content(session, database, table, place.row, place.column, Content { name, mime, bytes })?;
    database.transfers.end(&token);
    Ok((file, size))
}

fn initialize_download(
    call: &Call<'_>,
    access: &mut Access<'_>,
    _: &Request,
    schema: &Schema,
    body: &Body,
) -> Result<Answer, ApiError> {
    let place = place_of(access, schema, body)?;
    let table = schema.table(place.table);
    let (token, name, size) = access.write(|database| {
        let file = file_of(database, table, &place.row, place.column).ok_or_else(|| {
            let column = &table.column(place.column).logical;
            ApiError::new(Code::ObjectDoesNotExist, format!("No file attachment found for attribute: {column}."))
        })?;
        let size = database.file(&file).map_or(0, <[u8]>::len);
        let name = stored_name(database, table, &place.row, table.column(place.column));
        let token = database.next_token();
        database.transfers.begin(token, Transfer::Download(file));
        Ok((token, name, size))
    })?;
    let members = [
        ("FileContinuationToken", Json::from(token.to_string())),
        ("FileName", name.into()),
        ("FileSizeInBytes", size.into()),
        ("IsChunkingSupported", true.into()),
    ];
    Ok(object(call, "InitializeFileBlocksDownloadResponse", members))
}

fn download_block(
    call: &Call<'_>,
    access: &mut Access<'_>,
    _: &Request,
    _: &Schema,
    body: &Body,
) -> Result<Answer, ApiError> {
    let token = token_of(body)?;
    let number = |name: &str| body.get(name).and_then(Json::as_u64).map_or(0, |number| number as usize);
    let (offset, length) = (number("Offset"), number("BlockLength").min(CHUNK_BYTES));
    let data = access.read(|database| {
        let file = database.transfers.download(&token).ok_or_else(unknown_token)?;
        let content = database.file(&file).ok_or_else(unknown_token)?;
        let end = offset.saturating_add(length).min(content.len());
        let part = content.get(offset..end).filter(|_| length > 0);
        part.map(|part| STANDARD.encode(part))
            .ok_or_else(|| ApiError::bad_request("The block lies outside the file.".to_owned()))
    })?;
    Ok(object(call, "DownloadBlockResponse", [("Data", data.into())]))
}

fn delete_file(
    call: &Call<'_>,
    access: &mut Access<'_>,
    request: &Request,
    schema: &Schema,
    body: &Body,
) -> Result<Answer, ApiError> {
    let file = guid(member(body, "FileId")?).ok_or_else(|| ApiError::bad_request("FileId takes a GUID."))?;
    let files = schema.by_logical("fileattachment").ok_or_else(|| ApiError::not_here("file attachments"))?;
    let session = call.session(request, None)?;
    access.write(|database| {
        let missing = || crate::address::does_not_exist(files, file);
        let row = database.get(files.id, &file).ok_or_else(missing)?;
        let (table, id) = row.lookup(files.ordinal("objectid")).ok_or_else(missing)?;
        let table = schema.table(table);
        let column = match files.ordinal("regardingfieldname").and_then(|ordinal| row.get(ordinal)) {
            Some(ValueRef::Text(name)) => table.ordinal(name),
            _ => None,
        };
        clear_content(&session, database, table, id, column.ok_or_else(missing)?)?;
        Ok(Answer::no_content())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_http_writes_them() {
        assert_eq!(content_range("bytes 0-9/100"), Some((0, 9, 100)));
        assert_eq!(requested_range("bytes=5-", 10), Some((5, 9)));
        assert_eq!(requested_range("bytes=-3", 10), Some((7, 9)));
        assert_eq!(requested_range("bytes=2-400", 10), Some((2, 9)));
        assert_eq!(requested_range("bytes=10-", 10), None);
        assert_eq!(requested_range("bytes=0-0", 0), None);
    }
}
