//! A running emulator and a client for it.

use std::sync::Once;

use flowgate_emulator::{Emulator, Options};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value as Json, json};

pub(crate) struct World {
    pub emulator: Emulator,
    pub client: Client,
    pub base: String,
    pub root: String,
}

/// An answer taken apart.
#[derive(Debug)]
pub(crate) struct Reply {
    pub status: StatusCode,
    pub headers: reqwest::header::HeaderMap,
    pub text: String,
}

impl Reply {
    pub(crate) fn json(&self) -> Json {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().expect("test support"))
    }

    pub(crate) fn code(&self) -> String {
        self.json()["error"]["code"].as_str().unwrap_or_default().to_owned()
    }

    pub(crate) fn message(&self) -> String {
        self.json()["error"]["message"].as_str().unwrap_or_default().to_owned()
    }

    /// The id in `OData-EntityId`.
    pub(crate) fn id(&self) -> String {
        let link = self.header("odata-entityid");
        link.split_once('(').unwrap_or_else(|| panic!("no id in {self:?}")).1.trim_end_matches(')').to_owned()
    }

    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{}", self.text);
        self
    }

    #[track_caller]
    pub(crate) fn refused(self, status: u16, code: &str) -> Self {
        let reply = self.expect(status);
        assert_eq!(reply.code(), code, "{}", reply.text);
        reply
    }
}

fn builder() -> reqwest::ClientBuilder {
    static PROVIDER: Once = Once::new();
    PROVIDER.call_once(|| {
        rustls::crypto::ring::default_provider().install_default().expect("one provider");
    });
    #[expect(clippy::disallowed_methods, reason = "the emulator knows no other crate of ours")]
    Client::builder().no_proxy()
}

/// A client that trusts one authority.
pub(crate) fn client_trusting(certificate: reqwest::Certificate) -> Client {
    let builder = builder().tls_certs_only([certificate]);
    builder.build().expect("test support")
}

pub(crate) fn client() -> Client {
    builder().build().expect("test support")
}

pub(crate) async fn world() -> World {
    world_with(Options::default()).await
}

pub(crate) async fn world_with(options: Options) -> World {
    let emulator = Emulator::start(options).await.expect("test support");
    let root = emulator.ready().url.clone();
    World { base: format!("{root}/api/data/v9.2"), root, client: builder().build().expect("test support"), emulator }
}

impl World {
    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let url = if path.starts_with("http") { path.to_owned() } else { format!("{}/{path}", self.base) };
        self.client.request(method, url).bearer_auth(&self.emulator.ready().token).header("accept", "application/json")
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        send(self.request(Method::GET, path)).await
    }

    pub(crate) async fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Reply {
        send(with(self.request(Method::GET, path), headers)).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Json) -> Reply {
        send(self.request(Method::POST, path).json(body)).await
    }

    pub(crate) async fn post_with(&self, path: &str, headers: &[(&str, &str)], body: &Json) -> Reply {
        send(with(self.request(Method::POST, path), headers).json(body)).await
    }

    pub(crate) async fn patch(&self, path: &str, headers: &[(&str, &str)], body: &Json) -> Reply {
        send(with(self.request(Method::PATCH, path), headers).json(body)).await
    }

    pub(crate) async fn delete(&self, path: &str, headers: &[(&str, &str)]) -> Reply {
        send(with(self.request(Method::DELETE, path), headers)).await
    }

    /// A control request.
    pub(crate) async fn control(&self, path: &str, body: &Json) -> Reply {
        send(self.client.post(format!("{}/__emulator/{path}", self.root)).json(body)).await.expect(200)
    }

    pub(crate) async fn stats(&self) -> Json {
        send(self.client.get(format!("{}/__emulator/stats", self.root))).await.json()
    }

    pub(crate) async fn skip(&self, seconds: f64) {
        self.control("time", &json!({ "skip_s": seconds })).await;
    }

    /// A custom table with a name, a number, an amount and an active key on the number.
    pub(crate) async fn order_table(&self) {
        self.post("EntityDefinitions", &table("wr_Order", "Order")).await.expect(204);
        for column in [
            json!({ "@odata.type": "Microsoft.Dynamics.CRM.StringAttributeMetadata", "SchemaName": "wr_OrderNumber", "MaxLength": 20, "DisplayName": label("Order number") }),
            json!({ "@odata.type": "Microsoft.Dynamics.CRM.MoneyAttributeMetadata", "SchemaName": "wr_Amount", "MinValue": 0, "MaxValue": 1_000_000, "DisplayName": label("Amount") }),
            json!({ "@odata.type": "Microsoft.Dynamics.CRM.IntegerAttributeMetadata", "SchemaName": "wr_Qty", "MinValue": 0, "MaxValue": 1000, "DisplayName": label("Quantity") }),
        ] {
            self.post("EntityDefinitions(LogicalName='wr_order')/Attributes", &column).await.expect(204);
        }
        self.relate("wr_account_wr_order", "account", "wr_order", "wr_AccountId", "RemoveLink").await;
        self.key("wr_order", "wr_OrderNumberKey", &["wr_ordernumber"]).await;
    }

    pub(crate) async fn relate(&self, name: &str, parent: &str, child: &str, lookup: &str, on_delete: &str) {
        let body = json!({
            "@odata.type": "Microsoft.Dynamics.CRM.OneToManyRelationshipMetadata",
            "SchemaName": name, "ReferencedEntity": parent, "ReferencingEntity": child,
            "CascadeConfiguration": { "Delete": on_delete },
            "Lookup": { "@odata.type": "Microsoft.Dynamics.CRM.LookupAttributeMetadata", "SchemaName": lookup, "DisplayName": label(lookup) },
        });
        self.post("RelationshipDefinitions", &body).await.expect(204);
    }

    /// Creates an alternate key and waits, in simulated time, until it is active.
    pub(crate) async fn key(&self, table: &str, name: &str, columns: &[&str]) {
        let body = json!({ "SchemaName": name, "KeyAttributes": columns, "DisplayName": label(name) });
        self.post(&format!("EntityDefinitions(LogicalName='{table}')/Keys"), &body).await.expect(204);
        self.skip(5.0).await;
    }
}

pub(crate) fn label(text: &str) -> Json {
    json!({ "@odata.type": "Microsoft.Dynamics.CRM.Label", "LocalizedLabels": [{ "@odata.type": "Microsoft.Dynamics.CRM.LocalizedLabel", "Label": text, "LanguageCode": 1033 }] })
}

pub(crate) fn table(schema_name: &str, title: &str) -> Json {
    json!({
        "@odata.type": "Microsoft.Dynamics.CRM.EntityMetadata",
        "SchemaName": schema_name, "OwnershipType": "UserOwned", "HasNotes": true, "IsActivity": false, "ChangeTrackingEnabled": true,
        "DisplayName": label(title), "DisplayCollectionName": label(&format!("{title}s")),
        "Attributes": [{
            "@odata.type": "Microsoft.Dynamics.CRM.StringAttributeMetadata", "SchemaName": "wr_Name", "IsPrimaryName": true,
            "MaxLength": 100, "RequiredLevel": { "Value": "None" }, "DisplayName": label("Name"),
        }],
    })
}

/// Targets of a bulk message, each with its type.
pub(crate) fn targets(table: &str, rows: Vec<Json>) -> Json {
    let rows: Vec<Json> = rows
        .into_iter()
        .map(|mut row| {
            row["@odata.type"] = format!("Microsoft.Dynamics.CRM.{table}").into();
            row
        })
        .collect();
    json!({ "Targets": rows })
}

fn with(mut request: RequestBuilder, headers: &[(&str, &str)]) -> RequestBuilder {
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request
}

pub(crate) async fn send(request: RequestBuilder) -> Reply {
    let response: Response = request.send().await.expect("test support");
    let (status, headers) = (response.status(), response.headers().clone());
    Reply { status, headers, text: response.text().await.expect("test support") }
}
