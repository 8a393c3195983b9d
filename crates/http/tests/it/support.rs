//! A server that reads one request a connection and answers with given bytes.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use url::Url;

use flowgate_http::{HttpClient, HttpOptions, Origin};

pub(crate) struct Server {
    pub(crate) url: Url,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Server {
    /// Answers every connection with `answer` and closes it.
    pub(crate) async fn answering(answer: &'static str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = Url::parse(&format!("http://{}/", listener.local_addr().unwrap())).unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&requests);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut buffer = vec![0; 16 * 1024];
                let read = stream.read(&mut buffer).await.unwrap_or(0);
                seen.lock().unwrap().push(String::from_utf8_lossy(&buffer[..read]).into_owned());
                stream.write_all(answer.as_bytes()).await.unwrap_or_default();
            }
        });
        Self { url, requests }
    }

    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }

    pub(crate) fn origin(&self) -> Origin {
        Origin::of(&self.url).unwrap()
    }

    pub(crate) fn client(&self, answer_bytes_max: usize) -> HttpClient {
        HttpClient::new(HttpOptions { answer_bytes_max, ..HttpOptions::to(vec![self.origin()]) }).unwrap()
    }
}
