//! Signing in by HTTP Basic, roles, shares, and what may be joined with what.

use reqwest::Method;
use serde_json::{Value as Json, json};

use crate::support::{send, world};

#[tokio::test]
async fn a_client_signs_in_by_the_authorization_header_too() {
    let world = world().await;
    let ready = world.emulator.ready();
    let form = format!("grant_type=client_credentials&scope={}/.default", ready.url);
    let ask = |client: &str, secret: &str| {
        let request = world.client.post(&ready.token_url).basic_auth(client, Some(secret));
        send(request.header("content-type", "application/x-www-form-urlencoded").body(form.clone()))
    };
    let token = ask(&ready.client_id, &ready.client_secret).await.expect(200).json();
    let who = world.client.get(format!("{}/WhoAmI", world.base)).bearer_auth(token["access_token"].as_str().unwrap());
    send(who).await.expect(200);
    assert_eq!(ask(&ready.client_id, "wrong").await.expect(401).json()["error"], "invalid_client");
    let broken = world.client.post(&ready.token_url).header("authorization", "Basic %%%").body(form.clone());
    assert_eq!(send(broken).await.expect(401).json()["error"], "invalid_client");
}

#[tokio::test]
async fn the_role_of_the_user_has_the_privileges_of_the_user() {
    let world = world().await;
    let user = world.get("WhoAmI").await.json()["UserId"].as_str().unwrap().to_owned();
    let roles =
        world.get(&format!("systemusers({user})/systemuserroles_association?$select=name")).await.expect(200).json();
    assert_eq!(roles["value"][0]["name"], "System Administrator");
    let role = roles["value"][0]["roleid"].as_str().unwrap();
    let names = |answer: Json| -> Vec<String> {
        let list = answer["RolePrivileges"].as_array().unwrap().clone();
        list.iter().map(|privilege| privilege["PrivilegeName"].as_str().unwrap().to_owned()).collect()
    };
    let of_user = format!("systemusers({user})/Microsoft.Dynamics.CRM.RetrieveUserPrivileges()");
    let of_role = format!("roles({role})/Microsoft.Dynamics.CRM.RetrieveRolePrivilegesRole()");
    let (of_user, of_role) =
        (world.get(&of_user).await.expect(200).json(), world.get(&of_role).await.expect(200).json());
    let of_role = names(of_role);
    assert_eq!(names(of_user), of_role);
    assert!(of_role.contains(&"prvCreateAccount".to_owned()));
}

#[tokio::test]
async fn what_may_be_joined_is_told_and_holds() {
    let world = world().await;
    world.order_table().await;
    for function in [
        "GetValidManyToMany()",
        "GetValidReferencedEntities(ReferencingEntityName='wr_order')",
        "GetValidReferencingEntities(ReferencedEntityName='account')",
    ] {
        let names = world.get(function).await.expect(200).json()["EntityNames"].as_array().unwrap().clone();
        assert!(names.contains(&json!("wr_order")) && !names.contains(&json!("teammembership")), "{function}");
    }
    world.get("GetValidReferencedEntities(ReferencingEntityName='nothing')").await.refused(400, "0x80041102");
    for (action, table, can) in [
        ("CanBeReferenced", "account", true),
        ("CanBeReferencing", "wr_order", true),
        ("CanManyToMany", "account", true),
        ("CanManyToMany", "phonecall", false),
        ("CanBeReferencing", "teammembership", false),
    ] {
        let answer = world.post(action, &json!({ "EntityName": table })).await.expect(200).json();
        assert_eq!(answer[action], can, "{action} {table}");
    }
    send(world.request(Method::GET, "CanBeReferenced")).await.expect(404);
}

#[tokio::test]
async fn what_is_shared_is_told_until_it_is_revoked() {
    let world = world().await;
    let unit = world.get("WhoAmI").await.json()["BusinessUnitId"].as_str().unwrap().to_owned();
    let team = json!({ "name": "Roads triage", "businessunitid@odata.bind": format!("/businessunits({unit})") });
    let team = world.post("teams", &team).await.expect(204).id();
    let account = world.post("accounts", &json!({ "name": "shared" })).await.expect(204).id();
    let target = json!({ "@odata.type": "Microsoft.Dynamics.CRM.account", "accountid": account });
    let who = json!({ "@odata.type": "Microsoft.Dynamics.CRM.team", "teamid": team });
    let access = |mask: &str| json!({ "Target": target, "PrincipalAccess": { "Principal": who, "AccessMask": mask } });
    let parameter = format!("@t={{'@odata.id':'accounts({account})'}}");
    let of_team = format!("teams({team})/Microsoft.Dynamics.CRM.RetrievePrincipalAccess(Target=@t)?{parameter}");
    let of_row = format!("RetrieveSharedPrincipalsAndAccess(Target=@t)?{parameter}");
    let rights = |world: &crate::support::World| {
        let request = world.request(Method::GET, &of_team);
        async move { send(request).await.expect(200).json()["AccessRights"].as_str().unwrap().to_owned() }
    };
    assert_eq!(rights(&world).await, "None");
    world.post("GrantAccess", &access("ReadAccess")).await.expect(204);
    world.post("GrantAccess", &access("WriteAccess,ShareAccess")).await.expect(204);
    assert_eq!(rights(&world).await, "ReadAccess, WriteAccess, ShareAccess");
    let shared = world.get(&of_row).await.expect(200).json()["PrincipalAccesses"].as_array().unwrap().clone();
    assert_eq!((shared.len(), &shared[0]["Principal"]["teamid"]), (1, &json!(team)));
    world.post("ModifyAccess", &access("ReadAccess")).await.expect(204);
    assert_eq!(rights(&world).await, "ReadAccess");
    world.post("RevokeAccess", &json!({ "Target": target, "Revokee": who })).await.expect(204);
    assert_eq!(rights(&world).await, "None");
    assert!(world.get(&of_row).await.json()["PrincipalAccesses"].as_array().unwrap().is_empty());
    world.post("GrantAccess", &access("EveryAccess")).await.expect(400);
    let nobody = json!({ "Target": target, "PrincipalAccess": { "Principal": target, "AccessMask": "ReadAccess" } });
    world.post("GrantAccess", &nobody).await.expect(400);
}
