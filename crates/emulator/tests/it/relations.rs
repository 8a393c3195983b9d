//! Links between rows: many-to-many pairs, `$ref`, activities and their parties, queues, merging.

use serde_json::{Value as Json, json};

use crate::support::{World, label, table, world};

async fn pairs(world: &World) -> (String, String) {
    world.order_table().await;
    let definition = json!({
        "@odata.type": "Microsoft.Dynamics.CRM.ManyToManyRelationshipMetadata", "SchemaName": "wr_order_contact",
        "Entity1LogicalName": "wr_order", "Entity2LogicalName": "contact", "IntersectEntityName": "wr_order_contact",
    });
    world.post("RelationshipDefinitions", &definition).await.expect(204);
    let order = world.post("wr_orders", &json!({ "wr_name": "O" })).await.expect(204).id();
    let contact = world.post("contacts", &json!({ "lastname": "C" })).await.expect(204).id();
    (order, contact)
}

fn values(reply: &Json) -> &Vec<Json> {
    reply["value"].as_array().expect("a list")
}

#[tokio::test]
async fn pairs_are_made_listed_counted_and_taken_apart() {
    let world = world().await;
    let (order, contact) = pairs(&world).await;
    let path = format!("wr_orders({order})/wr_order_contact");
    let link = json!({ "@odata.id": format!("{}/contacts({contact})", world.base) });
    world.post(&format!("{path}/$ref"), &link).await.expect(204);
    world.post(&format!("{path}/$ref"), &link).await.refused(412, "0x80040237");
    let wrong = json!({ "@odata.id": format!("{}/wr_orders({order})", world.base) });
    world.post(&format!("{path}/$ref"), &wrong).await.expect(400);
    assert_eq!(world.get(&format!("{path}/$count")).await.expect(200).text, "1");
    let links = world.get(&format!("{path}/$ref")).await.expect(200).json();
    assert_eq!(values(&links)[0]["@odata.id"], format!("{}/contacts({contact})", world.base));
    let listed = world.get(&format!("{path}?$select=lastname")).await.expect(200).json();
    assert_eq!(values(&listed)[0]["lastname"], "C");
    let expanded = world.get(&format!("wr_orders({order})?$expand=wr_order_contact($select=lastname)")).await.json();
    assert_eq!(expanded["wr_order_contact"][0]["lastname"], "C");
    world.delete(&format!("{path}/$ref?$id={}/contacts({contact})", world.base), &[]).await.expect(204);
    assert_eq!(world.get(&format!("{path}/$count")).await.text, "0");
}

#[tokio::test]
async fn a_row_is_created_with_its_pairs() {
    let world = world().await;
    let (_, contact) = pairs(&world).await;
    let body = json!({ "wr_name": "Deep", "wr_order_contact": [{ "lastname": "New" }], "wr_order_contact@odata.bind": [format!("/contacts({contact})")] });
    let order = world.post("wr_orders", &body).await.expect(204).id();
    let listed =
        world.get(&format!("wr_orders({order})/wr_order_contact?$select=lastname&$orderby=lastname")).await.json();
    let names: Vec<&Json> = values(&listed).iter().map(|row| &row["lastname"]).collect();
    assert_eq!(names, ["C", "New"]);
    let missing =
        json!({ "wr_name": "x", "wr_order_contact@odata.bind": ["/contacts(00000000-0000-4000-8000-000000000009)"] });
    world.post("wr_orders", &missing).await.refused(404, "0x80040217");
}

#[tokio::test]
async fn every_activity_is_listed_among_all_of_them_with_its_parties() {
    let world = world().await;
    let account = world.post("accounts", &json!({ "name": "A" })).await.expect(204).id();
    let contact = world.post("contacts", &json!({ "lastname": "C" })).await.expect(204).id();
    let email = json!({
        "subject": "Hello", "regardingobjectid_account_email@odata.bind": format!("/accounts({account})"),
        "email_activity_parties": [{ "partyid_contact@odata.bind": format!("/contacts({contact})"), "participationtypemask": 2 }],
    });
    let id = world.post("emails", &email).await.expect(204).id();
    world.post("tasks", &json!({ "subject": "Do" })).await.expect(204);
    let all = world.get("activitypointers?$select=subject,activitytypecode&$orderby=subject").await.expect(200).json();
    let kinds: Vec<(&Json, &Json)> =
        values(&all).iter().map(|row| (&row["subject"], &row["activitytypecode"])).collect();
    assert_eq!(kinds, [(&json!("Do"), &json!("task")), (&json!("Hello"), &json!("email"))]);
    let read = world
        .get(&format!(
            "emails({id})?$select=subject&$expand=email_activity_parties($select=participationtypemask,_partyid_value)"
        ))
        .await
        .expect(200)
        .json();
    let mut masks: Vec<i64> = read["email_activity_parties"]
        .as_array()
        .unwrap()
        .iter()
        .map(|party| party["participationtypemask"].as_i64().unwrap())
        .collect();
    masks.sort_unstable();
    assert_eq!(masks, [2, 8, 9]);
    world.patch(&format!("emails({id})"), &[("if-match", "*")], &json!({ "subject": "Changed" })).await.expect(204);
    assert_eq!(
        world.get(&format!("activitypointers({id})?$select=subject")).await.expect(200).json()["subject"],
        "Changed"
    );
    world.post("activitypointers", &json!({ "subject": "no" })).await.refused(400, "0x80040800");
    world.post("emails", &json!({ "subject": "x", "to": [] })).await.expect(400);
    world.delete(&format!("accounts({account})"), &[]).await.expect(204);
    world.get(&format!("activitypointers({id})")).await.refused(404, "0x80040217");
    assert_eq!(values(&world.get("activityparties?$filter=participationtypemask eq 2").await.json()).len(), 0);
}

#[tokio::test]
async fn a_custom_activity_has_what_every_activity_has() {
    let world = world().await;
    let mut definition = table("wr_Visit", "Visit");
    definition["IsActivity"] = true.into();
    definition["Attributes"][0]["SchemaName"] = "Subject".into();
    definition["Attributes"][0]["SchemaName"] = "wr_Subject".into();
    world.post("EntityDefinitions", &definition).await.expect(204);
    let account = world.post("accounts", &json!({ "name": "A" })).await.expect(204).id();
    let body =
        json!({ "subject": "Site", "regardingobjectid_account_wr_visit@odata.bind": format!("/accounts({account})") });
    let id = world.post("wr_visits", &body).await.expect(204).id();
    let pointer = world.get(&format!("activitypointers({id})")).await.expect(200).json();
    assert_eq!(
        (&pointer["activitytypecode"], &pointer["_regardingobjectid_value"]),
        (&json!("wr_visit"), &json!(account))
    );
    let expanded = world.get(&format!("wr_visits({id})?$expand=wr_visit_activity_parties")).await.expect(200).json();
    assert_eq!(expanded["wr_visit_activity_parties"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn queue_items_move_between_queues_and_workers() {
    let world = world().await;
    let me = world.get("WhoAmI").await.json()["UserId"].as_str().unwrap().to_owned();
    let mut queues = Vec::new();
    for name in ["First", "Second"] {
        let body = json!({ "name": name, "incomingemailfilteringmethod": 0, "allowemailcredentials": false });
        queues.push(world.post("queues", &body).await.expect(204).id());
    }
    let task = world.post("tasks", &json!({ "subject": "Do" })).await.expect(204).id();
    let target = json!({ "Target": { "@odata.type": "Microsoft.Dynamics.CRM.task", "activityid": task } });
    let added =
        world.post(&format!("queues({})/Microsoft.Dynamics.CRM.AddToQueue", queues[0]), &target).await.expect(200);
    let item = added.json()["QueueItemId"].as_str().unwrap().to_owned();
    let path = format!("queueitems({item})");
    let read = async || world.get(&format!("{path}?$select=_queueid_value,_workerid_value,_objectid_value")).await;
    assert_eq!(read().await.json()["_objectid_value"], task);
    let worker = json!({ "SystemUser": { "@odata.type": "Microsoft.Dynamics.CRM.systemuser", "systemuserid": me }, "RemoveQueueItem": false });
    world.post(&format!("{path}/Microsoft.Dynamics.CRM.PickFromQueue"), &worker).await.expect(204);
    assert_eq!(read().await.json()["_workerid_value"], me);
    let route = json!({
        "Target": { "@odata.type": "Microsoft.Dynamics.CRM.queue", "queueid": queues[1] },
        "QueueItem": { "@odata.type": "Microsoft.Dynamics.CRM.queueitem", "queueitemid": item },
    });
    world.post("RouteTo", &route).await.expect(204);
    let routed = read().await.json();
    assert_eq!((&routed["_queueid_value"], &routed["_workerid_value"]), (&json!(queues[1]), &json!(null)));
    world.post(&format!("{path}/Microsoft.Dynamics.CRM.RemoveFromQueue"), &json!({})).await.expect(204);
    read().await.refused(404, "0x80040217");
}

#[tokio::test]
async fn merging_moves_what_points_at_the_subordinate() {
    let world = world().await;
    let mut ids = Vec::new();
    for name in ["Keep", "Fold"] {
        ids.push(world.post("accounts", &json!({ "name": name })).await.expect(204).id());
    }
    let contact = json!({ "lastname": "C", "parentcustomerid_account@odata.bind": format!("/accounts({})", ids[1]) });
    let contact = world.post("contacts", &contact).await.expect(204).id();
    let row = |id: &str| json!({ "@odata.type": "Microsoft.Dynamics.CRM.account", "accountid": id });
    let body = json!({ "Target": row(&ids[0]), "Subordinate": row(&ids[1]), "UpdateContent": { "@odata.type": "Microsoft.Dynamics.CRM.account", "telephone1": "1" }, "PerformParentingChecks": false });
    world.post("Merge", &body).await.expect(204);
    let moved = world.get(&format!("contacts({contact})?$select=_parentcustomerid_value")).await.json();
    assert_eq!(moved["_parentcustomerid_value"], ids[0]);
    let folded = world.get(&format!("accounts({})?$select=statecode,merged,_masterid_value", ids[1])).await.json();
    assert_eq!(
        (&folded["statecode"], &folded["merged"], &folded["_masterid_value"]),
        (&json!(1), &json!(true), &json!(ids[0]))
    );
    world.post("Merge", &body).await.refused(400, "0x80045304");
    let same = json!({ "Target": row(&ids[0]), "Subordinate": row(&ids[0]) });
    world.post("Merge", &same).await.refused(400, "0x80045305");
}

#[tokio::test]
async fn a_bulk_deletion_takes_links_and_tells_of_what_stayed() {
    let world = world().await;
    world.order_table().await;
    world.relate("wr_contact_wr_order", "contact", "wr_order", "wr_ContactId", "Restrict").await;
    let mut contacts = Vec::new();
    for last in ["Free", "Held"] {
        contacts.push(world.post("contacts", &json!({ "lastname": last })).await.expect(204).id());
    }
    let order = json!({ "wr_name": "O", "wr_ContactId@odata.bind": format!("/contacts({})", contacts[1]) });
    world.post("wr_orders", &order).await.expect(204);
    let query = json!({ "@odata.type": "Microsoft.Dynamics.CRM.QueryExpression", "EntityName": "contact", "Criteria": { "FilterOperator": "And", "Conditions": [
        { "AttributeName": "createdon", "Operator": "LastXDays", "Values": [{ "Value": "1", "Type": "System.Int32" }] },
        { "AttributeName": "lastname", "Operator": "NotEqual", "Values": [{ "Value": "Nobody", "Type": "System.String" }] },
    ] } });
    let job = world
        .post("BulkDelete", &json!({ "JobName": "purge", "QuerySet": [query], "RecurrencePattern": "" }))
        .await
        .expect(200)
        .json();
    world.skip(30.0).await;
    let job = job["JobId"].as_str().unwrap();
    let done = world.get(&format!("asyncoperations({job})?$select=statuscode")).await.json();
    assert_eq!(done["statuscode"], 30);
    let operation = world.get(&format!("bulkdeleteoperations?$filter=_asyncoperationid_value eq {job}")).await.json();
    assert_eq!(
        (&operation["value"][0]["successcount"], &operation["value"][0]["failurecount"]),
        (&json!(1), &json!(1))
    );
    let failures = world.get("bulkdeletefailures").await.json();
    assert_eq!(failures["value"][0]["errornumber"], -2_147_220_953);
    world.get(&format!("contacts({})", contacts[0])).await.expect(404);
    world.get(&format!("contacts({})", contacts[1])).await.expect(200);
    let again = json!({ "JobName": "x", "RecurrencePattern": "FREQ=DAILY", "QuerySet": [{ "EntityName": "contact" }] });
    world.post("BulkDelete", &again).await.expect(501);
    let odd = json!({ "QuerySet": [{ "EntityName": "contact", "Criteria": { "Conditions": [{ "AttributeName": "lastname", "Operator": "SoundsLike", "Values": [] }] } }] });
    world.post("BulkDelete", &odd).await.refused(400, "0x80041120");
}

#[tokio::test]
async fn elastic_rows_have_partitions_lives_and_documents() {
    let world = world().await;
    let mut definition = table("wr_Reading", "Reading");
    definition["TableType"] = "Elastic".into();
    world.post("EntityDefinitions", &definition).await.expect(204);
    let column = json!({ "@odata.type": "Microsoft.Dynamics.CRM.StringAttributeMetadata", "SchemaName": "wr_Data", "MaxLength": 400, "FormatName": { "Value": "Json" }, "DisplayName": label("Data") });
    world.post("EntityDefinitions(LogicalName='wr_reading')/Attributes", &column).await.expect(204);
    let body = json!({ "wr_name": "a", "partitionid": "dev-1", "wr_data": "{\"power\":5}" });
    let created = world.post("wr_readings", &body).await.expect(204);
    assert!(!created.header("x-ms-session-token").is_empty());
    let id = created.id();
    let path = format!("wr_readings(wr_readingid={id},partitionid='dev-1')");
    world.get(&format!("wr_readings({id})")).await.expect(404);
    world.get(&format!("wr_readings({id})?partitionId=dev-1")).await.expect(200);
    // An update merges, an upsert replaces.
    world.patch(&path, &[("if-match", "*")], &json!({ "wr_name": "b" })).await.expect(204);
    assert_eq!(world.get(&path).await.json()["wr_data"], "{\"power\":5}");
    let query = "ExecuteCosmosSqlQuery(QueryText=@q,EntityLogicalName=@e,QueryParameters=@p)?@e='wr_reading'&@p={\"Keys\":[\"@v\"],\"Values\":[{\"Type\":\"System.Int32\",\"Value\":\"4\"}]}&@q='select c.props.wr_name as n from c where c.props.wr_data.power %3E @v'";
    let found = world.get(query).await.expect(200).json();
    assert_eq!((&found["Result"][0]["n"], &found["HasMore"]), (&json!("b"), &json!(false)));
    world.patch(&path, &[], &json!({ "wr_name": "c", "ttlinseconds": 60 })).await.expect(204);
    let replaced = world.get(&path).await.json();
    assert_eq!(
        (&replaced["wr_name"], &replaced["wr_data"], &replaced["partitionid"]),
        (&json!("c"), &json!(null), &json!("dev-1"))
    );
    world.post("wr_readings", &json!({ "wr_name": "x", "partitionid": "a/b" })).await.refused(400, "0x80040203");
    world.skip(61.0).await;
    world.get(&path).await.expect(404);
    let inner = "wr_readings?fetchXml=%3Cfetch%3E%3Centity%20name='wr_reading'%3E%3Clink-entity%20name='systemuser'%20from='systemuserid'%20to='createdby'/%3E%3C/entity%3E%3C/fetch%3E";
    world.get(inner).await.refused(400, "0x80048d0b");
}
