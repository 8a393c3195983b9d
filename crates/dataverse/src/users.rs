//! The application users of a connection: who they are, what they are for, and their tokens.
//!
//! The limits of the service are each user's own, so several users are several times the throughput
//! (performance notes, section 1.2). Each signs in by itself and renews its own token. Which of them sends
//! a request is the budget's to say.

use std::sync::Arc;

use flowgate_core::{Clock, ConnectorError};
use flowgate_http::{HttpClient, HttpOptions, Origin};

use crate::auth::{Authority, SignIn, Token};
use crate::budget::{Role, UserSnapshot};
use crate::challenge;
use crate::options::{Addresses, Credential, DataverseOptions, UserOptions};

/// At least one.
#[derive(Debug)]
pub(crate) struct Users {
    users: Vec<User>,
}

#[derive(Debug)]
struct User {
    /// Its key in the configuration; `None` for the only one.
    key: Option<String>,
    role: Role,
    identity: String,
    authority: Authority,
}

impl Users {
    /// `http` reaches the environment; `token_options` are for the places where tokens are issued.
    pub(crate) fn new(
        options: &DataverseOptions,
        addresses: &Addresses,
        http: &HttpClient,
        token_options: impl Fn(Vec<Origin>) -> HttpOptions,
        clock: &Arc<dyn Clock>,
    ) -> Result<Self, ConnectorError> {
        let single = UserOptions { key: None, role: Role::All, credential: options.credential.clone() };
        let configured = if options.users.is_empty() { vec![single] } else { options.users.clone() };
        let mut users = Vec::with_capacity(configured.len());
        for UserOptions { key, role, credential } in configured {
            let token_address = credential.token_address()?;
            let trusted = match &token_address {
                Some((_, origin)) => vec![origin.clone()],
                None => challenge::trusted_origins(&addresses.service),
            };
            let token_http = HttpClient::new(token_options(trusted.clone()))?;
            let sign_in = SignIn { http: http.clone(), token_http, trusted };
            let identity = format!("{} {}", addresses.service, client_id(&credential));
            let token_url = token_address.map(|(url, _)| url);
            let authority = Authority::new(&credential, addresses, token_url, sign_in, Arc::clone(clock));
            users.push(User { key, role, identity, authority });
        }
        Ok(Self { users })
    }

    pub(crate) fn count(&self) -> usize {
        self.users.len()
    }

    /// Rows that are created belong to whoever creates them; with several that is left to chance.
    pub(crate) fn several_create(&self) -> bool {
        self.users.iter().filter(|user| user.role != Role::Urgent).count() > 1
    }

    pub(crate) fn roles(&self) -> Vec<Role> {
        self.users.iter().map(|user| user.role).collect()
    }

    /// Under which the lanes of each user are shared.
    pub(crate) fn identities(&self) -> Vec<String> {
        self.users.iter().map(|user| user.identity.clone()).collect()
    }

    pub(crate) fn snapshot(&self) -> Vec<UserSnapshot> {
        let shown = |user: &User| UserSnapshot { key: user.key.clone(), identity: user.identity.clone() };
        self.users.iter().map(shown).collect()
    }

    /// The first user's, for those who study the service.
    pub(crate) fn first_authority(&self) -> &Authority {
        &self.users[0].authority
    }

    /// Makes sure that every user has a token.
    pub(crate) async fn sign_in(&self) -> Result<(), ConnectorError> {
        for user in 0..self.users.len() {
            self.token(user, None).await?;
        }
        Ok(())
    }

    /// A token of one user. `refused` is the generation of one that the service refused.
    pub(crate) async fn token(&self, user: usize, refused: Option<u64>) -> Result<Token, ConnectorError> {
        let token = self.user(user).authority.token(refused).await;
        token.map_err(|error| self.blame(user, error))
    }

    /// The error, with the user it happened to if there are several.
    pub(crate) fn blame(&self, user: usize, mut error: ConnectorError) -> ConnectorError {
        if let Some(key) = self.key(user) {
            error.message = format!("user `{key}`: {}", error.message);
        }
        error
    }

    pub(crate) fn key(&self, user: usize) -> Option<&str> {
        self.user(user).key.as_deref()
    }

    fn user(&self, user: usize) -> &User {
        self.users.get(user).unwrap_or(&self.users[0])
    }
}

/// No secret: it is shown to people who ask how the limits are shared.
fn client_id(credential: &Credential) -> &str {
    match credential {
        Credential::ClientSecret { client_id, .. } => client_id,
        Credential::Token(_) => "token",
    }
}
