//! Writing units: messages, bisection, and answers that never came.

use std::time::Duration;

use flowgate_core::destination::{ColumnSet, Operation, Outcome};
use flowgate_core::project::History;
use flowgate_core::{CancellationToken, Code, Destination, destination::Class};
use serde_json::json;

use crate::fake::{Fake, FaultKind, Reply, Row};
use crate::support::{connect, id, plain_unit, shown, unit, write, write_within};

const CREATE: &str = "CRM.CreateMultiple";
const UPDATE: &str = "CRM.UpdateMultiple";

fn rows(names: &[&'static str]) -> Vec<(String, &'static str)> {
    names.iter().enumerate().map(|(index, name)| (format!("N{index}"), *name)).collect()
}

async fn creates(dataverse: &flowgate_dataverse::Dataverse, names: &[&'static str]) -> flowgate_core::WriteUnit {
    let rows = rows(names);
    let rows: Vec<(&str, &str)> = rows.iter().map(|(number, name)| (number.as_str(), *name)).collect();
    unit(dataverse, Operation::Create, &rows).await
}

fn hold(fake: &Fake, number: u32, account_number: &str) {
    let row = json!({"accountid": id(number), "accountnumber": account_number});
    let row: Row = row.as_object().unwrap().clone();
    fake.state().rows.insert(id(number).to_string(), row);
}

/// Outcomes in letters: Applied, Exists, Missing, Refused, aMbiguous as `?`, unSent as `-`.
fn letters(outcomes: &[Outcome]) -> String {
    let letter = |outcome: &Outcome| match outcome {
        Outcome::Applied => 'A',
        Outcome::Exists { .. } => 'E',
        Outcome::Missing => 'M',
        Outcome::Refused(_) => 'R',
        Outcome::Ambiguous => '?',
        Outcome::Unsent => '-',
    };
    outcomes.iter().map(letter).collect()
}

#[tokio::test]
async fn creates_go_in_one_request_with_our_ids() {
    let fake = Fake::start().await;
    let dataverse = connect(&fake);
    let unit = creates(&dataverse, &["one", "two"]).await;
    assert_eq!(letters(&write(&dataverse, unit).await.unwrap()), "AA");
    assert_eq!(fake.state().requests, ["POST accounts/Microsoft.Dynamics.CRM.CreateMultiple"]);
    assert_eq!(
        fake.state().bodies[0],
        format!(
            r#"{{"Targets":[{{"@odata.type":"Microsoft.Dynamics.CRM.account","accountid":"{}","accountnumber":"N0","name":"one"}},{{"@odata.type":"Microsoft.Dynamics.CRM.account","accountid":"{}","accountnumber":"N1","name":"two"}}]}}"#,
            id(1),
            id(2)
        )
    );
}

#[tokio::test]
async fn updates_send_only_the_named_columns_and_nothing_for_none() {
    let fake = Fake::start().await;
    hold(&fake, 1, "N0");
    hold(&fake, 2, "N1");
    let dataverse = connect(&fake);
    let mut unit = creates(&dataverse, &["one", "two"]).await;
    unit.operation = Operation::Update;
    unit.columns = Some(vec![ColumnSet::from_iter([1]), ColumnSet::default()]);
    assert_eq!(letters(&write(&dataverse, unit).await.unwrap()), "AA");
    let body = format!(
        r#"{{"Targets":[{{"@odata.type":"Microsoft.Dynamics.CRM.account","accountid":"{}","name":"one"}}]}}"#,
        id(1)
    );
    assert_eq!(fake.state().bodies, [body]);
}

#[tokio::test]
async fn a_refused_batch_is_halved_down_to_the_row() {
    let fake = Fake::start().await;
    let dataverse = connect(&fake);
    let mut names = vec!["fine"; 64];
    names[10] = "bad";
    names[50] = "bad";
    let unit = creates(&dataverse, &names).await;
    let outcomes = write(&dataverse, unit).await.unwrap();
    assert_eq!(letters(&outcomes).matches('A').count(), 62);
    let Outcome::Refused(fault) = &outcomes[10] else { panic!("{:?}", outcomes[10]) };
    assert_eq!((fault.code, fault.column.as_deref()), (Code::ROW_TOO_LONG, Some("name")));
    assert_eq!(fault.service_code.as_deref(), Some("0x80044331 StringLengthTooLong"));
    assert_eq!(fault.request_id.as_deref(), Some("req-1"));
    assert!(matches!(outcomes[50], Outcome::Refused(_)));
    assert_eq!(fake.state().rows.len(), 62);
    assert!(fake.count(CREATE) <= 25, "{}", fake.count(CREATE));
}

#[tokio::test]
async fn a_taken_key_is_found_and_the_rest_goes_on() {
    let fake = Fake::start().await;
    hold(&fake, 900, "n1");
    let dataverse = connect(&fake);
    fake.state().rows.get_mut(&id(900).to_string()).unwrap().insert("accountnumber".to_owned(), json!("N1"));
    let unit = creates(&dataverse, &["a", "b", "c"]).await;
    let outcomes = write(&dataverse, unit).await.unwrap();
    assert_eq!(outcomes, [Outcome::Applied, Outcome::Exists { id: id(900) }, Outcome::Applied]);
    assert_eq!(fake.count(CREATE), 2);
}

#[tokio::test]
async fn our_own_earlier_create_is_applied_and_not_a_duplicate() {
    let fake = Fake::start().await;
    hold(&fake, 1, "N0");
    let dataverse = connect(&fake);
    let unit = creates(&dataverse, &["a", "b"]).await;
    assert_eq!(letters(&write(&dataverse, unit).await.unwrap()), "AA");
    assert_eq!(fake.state().rows.len(), 2);
}

#[tokio::test]
async fn a_resent_unit_asks_first_and_creates_only_what_is_missing() {
    let fake = Fake::start().await;
    hold(&fake, 1, "N0");
    let dataverse = connect(&fake);
    let mut unit = creates(&dataverse, &["a", "b"]).await;
    unit.resent = true;
    assert_eq!(letters(&write(&dataverse, unit).await.unwrap()), "AA");
    assert_eq!(fake.count(CREATE), 1);
    assert!(!fake.state().bodies.iter().any(|body| body.contains("N0")));
}

#[tokio::test]
async fn a_create_cut_before_or_after_it_ran_ends_the_same() {
    for kind in [FaultKind::CutBefore, FaultKind::CutAfter, FaultKind::Reply(Reply::html(504))] {
        let fake = Fake::start().await;
        let dataverse = connect(&fake);
        let unit = creates(&dataverse, &["a", "b"]).await;
        let is_run = matches!(kind, FaultKind::CutAfter);
        fake.fail(CREATE, kind);
        assert_eq!(letters(&write(&dataverse, unit).await.unwrap()), "AA");
        assert_eq!(fake.state().rows.len(), 2);
        assert_eq!(fake.count(CREATE), if is_run { 1 } else { 2 });
    }
}

#[tokio::test]
async fn a_create_that_never_gets_an_answer_is_ambiguous() {
    let fake = Fake::start().await;
    let dataverse = connect(&fake);
    let unit = creates(&dataverse, &["a", "b"]).await;
    for _ in 0..20 {
        fake.fail(CREATE, FaultKind::CutBefore);
    }
    assert_eq!(letters(&write(&dataverse, unit).await.unwrap()), "??");
}

#[tokio::test]
async fn an_update_cut_off_is_sent_again() {
    for kind in [FaultKind::CutBefore, FaultKind::CutAfter] {
        let fake = Fake::start().await;
        hold(&fake, 1, "N0");
        let dataverse = connect(&fake);
        let mut unit = creates(&dataverse, &["new name"]).await;
        unit.operation = Operation::Update;
        fake.fail(UPDATE, kind);
        assert_eq!(letters(&write(&dataverse, unit).await.unwrap()), "A");
        assert_eq!(fake.count(UPDATE), 2);
    }
}

#[tokio::test]
async fn an_update_of_a_deleted_row_says_which_one() {
    let fake = Fake::start().await;
    hold(&fake, 1, "N0");
    hold(&fake, 3, "N2");
    let dataverse = connect(&fake);
    let mut unit = creates(&dataverse, &["a", "b", "c"]).await;
    unit.operation = Operation::Update;
    assert_eq!(letters(&write(&dataverse, unit).await.unwrap()), "AMA");
}

#[tokio::test]
async fn a_reference_to_a_missing_row_is_an_orphan_and_not_a_missing_row() {
    let fake = Fake::start().await;
    hold(&fake, 1, "N0");
    hold(&fake, 2, "N1");
    let dataverse = connect(&fake);
    let mut unit = creates(&dataverse, &["orphan", "b"]).await;
    unit.operation = Operation::Update;
    let outcomes = write(&dataverse, unit).await.unwrap();
    assert_eq!(letters(&outcomes), "RA");
    let Outcome::Refused(fault) = &outcomes[0] else { panic!() };
    assert_eq!(fault.code, Code::ROW_ORPHAN);
}

#[tokio::test]
async fn a_load_in_which_no_row_gets_through_is_stopped() {
    let fake = Fake::start().await;
    let dataverse = connect(&fake);
    let unit = creates(&dataverse, &["odd"; 50]).await;
    let error = write(&dataverse, unit).await.unwrap_err();
    insta::assert_snapshot!(shown(&error), @r"
    FG0308: 20 rows in a row ended the same way: writing to `account` was refused with status 400 (0x80040203 InvalidArgument): Invalid argument.
      hint: when no row gets through, the load or the table is at fault rather than the rows
    ");
}

#[tokio::test]
async fn rows_that_are_refused_among_others_do_not_stop_a_load() {
    let fake = Fake::start().await;
    let dataverse = connect(&fake);
    let mut names = vec!["odd"; 50];
    names[0] = "fine";
    let unit = creates(&dataverse, &names).await;
    assert_eq!(letters(&write(&dataverse, unit).await.unwrap()).matches('R').count(), 49);
}

#[tokio::test]
async fn a_missing_privilege_stops_the_load_and_is_named() {
    let fake = Fake::start().await;
    let dataverse = connect(&fake);
    let unit = creates(&dataverse, &["a"]).await;
    let message = "Principal user is missing prvCreateAccount privilege.";
    fake.fail(CREATE, FaultKind::Reply(Reply::error(403, "0x80040220", message)));
    let error = write(&dataverse, unit).await.unwrap_err();
    insta::assert_snapshot!(shown(&error), @r"
    FG0102: writing to `account` was refused with status 403 (0x80040220 PrivilegeDenied): Principal user is missing prvCreateAccount privilege.
      hint: give the application user a security role with this privilege; it must exist as an application user in the environment
      hint: the service's request id is `req-1`
    ");
}

#[tokio::test]
async fn a_slow_batch_is_halved_and_an_unsteady_one_sent_again() {
    let fake = Fake::start().await;
    let dataverse = connect(&fake);
    let unit = creates(&dataverse, &["a", "b", "c", "d"]).await;
    fake.fail(CREATE, FaultKind::Reply(Reply::error(500, "0x80044151", "SQL timeout expired.")));
    fake.fail(CREATE, FaultKind::Reply(Reply::error(500, "0x80044150", "Generic SQL error. 1205")));
    assert_eq!(letters(&write(&dataverse, unit).await.unwrap()), "AAAA");
    assert_eq!(fake.count(CREATE), 4);
}

#[tokio::test]
async fn tables_without_bulk_messages_are_written_in_batches() {
    let fake = Fake::start().await;
    fake.state().has_bulk = false;
    hold(&fake, 900, "N3");
    let dataverse = connect(&fake);
    let unit = creates(&dataverse, &["a", "bad", "c", "d"]).await;
    let outcomes = write(&dataverse, unit).await.unwrap();
    assert_eq!(letters(&outcomes), "ARAE");
    assert_eq!(outcomes[3], Outcome::Exists { id: id(900) });
    assert_eq!(fake.count("$batch"), 1);

    let mut unit = creates(&dataverse, &["x", "y"]).await;
    (unit.operation, unit.ids) = (Operation::Update, vec![id(1), id(77)]);
    assert_eq!(letters(&write(&dataverse, unit).await.unwrap()), "AM");
}

#[tokio::test]
async fn one_at_a_time_means_one_request_a_row() {
    let fake = Fake::start().await;
    let dataverse = connect(&fake);
    let mut unit = creates(&dataverse, &["a", "bad", "c"]).await;
    unit.options.one_at_a_time = true;
    assert_eq!(letters(&write(&dataverse, unit).await.unwrap()), "ARA");
    assert_eq!(fake.state().requests, ["POST accounts"; 3]);
}

#[tokio::test]
async fn a_delete_of_what_is_gone_is_applied() {
    let fake = Fake::start().await;
    hold(&fake, 1, "N0");
    let dataverse = connect(&fake);
    let unit = plain_unit(&dataverse, Operation::Delete, &[1, 2], &[]).await;
    fake.fail("$batch", FaultKind::CutAfter);
    assert_eq!(letters(&write(&dataverse, unit).await.unwrap()), "AA");
    assert!(fake.state().rows.is_empty());
}

#[tokio::test]
async fn states_go_out_as_updates_of_state_and_status() {
    let fake = Fake::start().await;
    hold(&fake, 1, "N0");
    let dataverse = connect(&fake);
    let unit = plain_unit(&dataverse, Operation::SetState, &[1], &[2]).await;
    assert_eq!(letters(&write(&dataverse, unit).await.unwrap()), "A");
    let row = fake.state().rows[&id(1).to_string()].clone();
    assert_eq!((&row["statecode"], &row["statuscode"]), (&json!(1), &json!(2)));
    let unit = plain_unit(&dataverse, Operation::Deactivate, &[1], &[]).await;
    assert_eq!(letters(&write(&dataverse, unit).await.unwrap()), "A");
    let unit = plain_unit(&dataverse, Operation::SetState, &[1], &[99]).await;
    assert_eq!(write(&dataverse, unit).await.unwrap_err().code, Code::STATE_RULE);
}

#[tokio::test]
async fn a_migration_skips_logic_and_an_ordinary_load_does_not() {
    let fake = Fake::start().await;
    let dataverse = connect(&fake);
    let mut unit = creates(&dataverse, &["a"]).await;
    assert_eq!(letters(&write(&dataverse, unit.clone()).await.unwrap()), "A");
    assert!(!fake.state().headers.contains_key("mscrm.bypassbusinesslogicexecution"));
    unit.ids = vec![id(50)];
    unit.operation = Operation::Update;
    unit.options.history = Some(History { created_on: None, bypass_logic: true });
    write(&dataverse, unit).await.unwrap();
    let headers = fake.state().headers.clone();
    assert!(headers.get("mscrm.bypassbusinesslogicexecution").is_none_or(|value| value == "CustomSync,CustomAsync"));
}

#[tokio::test]
async fn what_was_stopped_before_it_was_sent_is_unsent() {
    let fake = Fake::start().await;
    let dataverse = connect(&fake);
    let unit = creates(&dataverse, &["a", "b"]).await;
    let cancel = CancellationToken::new();
    cancel.cancel();
    let outcomes = dataverse.write(unit.clone(), Class::Batch, Duration::from_hours(1), &cancel).await.unwrap();
    assert_eq!(letters(&outcomes), "--");
    assert_eq!(letters(&write_within(&dataverse, unit, Duration::ZERO).await.unwrap()), "--");
    assert_eq!(fake.count(CREATE), 0);
}

#[tokio::test]
async fn what_a_write_must_read_is_not_read_after_the_stop() {
    let fake = Fake::start().await;
    hold(&fake, 900, "N0");
    let dataverse = connect(&fake);
    let unit = creates(&dataverse, &["a"]).await;
    let cancel = CancellationToken::new();
    // The key is taken, and no row of ours is there: next is to find out whose it is.
    fake.fail("GET accounts?$select=accountid&", FaultKind::Stop(cancel.clone()));
    let outcomes = dataverse.write(unit, Class::Batch, Duration::from_hours(1), &cancel).await.unwrap();
    assert_eq!((letters(&outcomes).as_str(), fake.count("accountid,accountnumber")), ("-", 0));
}

#[tokio::test]
async fn what_may_have_been_run_before_the_stop_is_never_called_unsent() {
    let fake = Fake::start().await;
    let dataverse = connect(&fake);
    let unit = creates(&dataverse, &["a", "b"]).await;
    let cancel = CancellationToken::new();
    // It is not there yet when it is looked for.
    fake.fail(CREATE, FaultKind::CutBefore);
    fake.fail("GET accounts", FaultKind::Stop(cancel.clone()));
    let outcomes = dataverse.write(unit, Class::Batch, Duration::from_hours(1), &cancel).await.unwrap();
    assert_eq!(letters(&outcomes), "??");

    hold(&fake, 1, "N0");
    let mut unit = creates(&dataverse, &["new name"]).await;
    unit.operation = Operation::Update;
    let cancel = CancellationToken::new();
    fake.fail(UPDATE, FaultKind::CutAfterAndStop(cancel.clone()));
    let outcomes = dataverse.write(unit, Class::Batch, Duration::from_hours(1), &cancel).await.unwrap();
    assert_eq!(letters(&outcomes), "?");
}

#[tokio::test]
async fn answers_that_cannot_be_matched_to_their_rows_are_none() {
    let part = |status: &str| format!("--b\r\nContent-Type: application/http\r\n\r\nHTTP/1.1 {status}\r\n\r\n\r\n");
    let (done, refused) = (part("204 No Content"), part("400 Bad Request"));
    for answers in [[&done, &done, &refused].as_slice(), &[&done]] {
        let fake = Fake::start().await;
        hold(&fake, 1, "A");
        hold(&fake, 2, "B");
        let dataverse = connect(&fake);
        let body = answers.iter().map(|answer| answer.as_str()).collect::<String>() + "--b--\r\n";
        let headers = vec![("content-type".to_owned(), "multipart/mixed; boundary=b".to_owned())];
        fake.fail("$batch", FaultKind::Reply(Reply { status: 200, headers, body }));
        let unit = plain_unit(&dataverse, Operation::Delete, &[1, 2], &[]).await;
        // Nothing of the answer counts: what is still there is sent again.
        assert_eq!(letters(&write(&dataverse, unit).await.unwrap()), "AA", "{answers:?}");
        assert!(fake.state().rows.is_empty());
    }
}

/// Successes that are none: what a proxy says that has passed nothing on.
fn lies() -> Vec<Reply> {
    let bare = |status| Reply { status, headers: Vec::new(), body: String::new() };
    let page = Reply { body: "<html>signed out</html>".to_owned(), ..bare(200) };
    vec![
        bare(200),
        bare(202),
        bare(204),
        page,
        Reply::html(200),
        Reply::error(200, "0x80040216", "An unexpected error occurred."),
        Reply::json(200, &json!({ "Ids": [id(77)] })),
        Reply::json(200, &json!({ "value": [] })),
    ]
}

/// A service that marks its answers, as every real one does.
async fn marking() -> Fake {
    let fake = Fake::start().await;
    fake.state().marks_answers = true;
    fake
}

#[tokio::test]
async fn a_success_that_nobody_earned_creates_nothing() {
    for lie in lies() {
        let fake = marking().await;
        let dataverse = connect(&fake);
        let unit = creates(&dataverse, &["a", "b"]).await;
        fake.fail(CREATE, FaultKind::Reply(lie.clone()));
        assert_eq!(letters(&write(&dataverse, unit).await.unwrap()), "AA", "{lie:?}");
        let rows = fake.state().rows.len();
        assert_eq!((rows, fake.count(CREATE)), (2, 2), "{lie:?}");
    }
}

#[tokio::test]
async fn a_success_that_nobody_earned_updates_and_deletes_nothing() {
    for lie in lies() {
        let fake = marking().await;
        hold(&fake, 1, "N0");
        let dataverse = connect(&fake);
        let mut unit = creates(&dataverse, &["new name"]).await;
        unit.operation = Operation::Update;
        fake.fail(UPDATE, FaultKind::Reply(lie.clone()));
        assert_eq!(letters(&write(&dataverse, unit).await.unwrap()), "A", "{lie:?}");
        assert_eq!(fake.state().rows[&id(1).to_string()]["name"], "new name", "{lie:?}");

        let unit = plain_unit(&dataverse, Operation::Delete, &[1], &[]).await;
        fake.fail("DELETE accounts", FaultKind::Reply(lie.clone()));
        assert_eq!(letters(&write(&dataverse, unit).await.unwrap()), "A", "{lie:?}");
        assert!(fake.state().rows.is_empty(), "{lie:?}");
    }
}

#[tokio::test]
async fn earned_answers_cost_no_request_more() {
    let fake = marking().await;
    let dataverse = connect(&fake);
    let unit = creates(&dataverse, &["a", "b"]).await;
    assert_eq!(letters(&write(&dataverse, unit).await.unwrap()), "AA");
    let unit = plain_unit(&dataverse, Operation::Delete, &[1, 2], &[]).await;
    assert_eq!(letters(&write(&dataverse, unit).await.unwrap()), "AA");
    assert_eq!(fake.state().requests, ["POST accounts/Microsoft.Dynamics.CRM.CreateMultiple", "POST $batch"]);
}
