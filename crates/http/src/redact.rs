//! URLs as messages may show them: no user, no password, no query.

use url::Url;

/// The longest URL a message shows, in characters.
const URL_TEXT_MAX: usize = 300;

/// `text` without credentials and query values, cut to a readable length.
///
/// Queries hold filters with business data, delta tokens and signatures, so none of it is shown.
pub fn redact_url(text: &str) -> String {
    let shown = match Url::parse(text) {
        Ok(mut url) => {
            // Both fail only for URLs without a host, which carry no credentials.
            let has_no_credentials = url.set_username("").is_err() | url.set_password(None).is_err();
            let query = if url.query().is_some() { "?****" } else { "" };
            url.set_query(None);
            url.set_fragment(None);
            if has_no_credentials { format!("{}:****", url.scheme()) } else { format!("{url}{query}") }
        }
        Err(_) => text.split(['?', '@']).next().unwrap_or_default().to_owned(),
    };
    shown.chars().filter(|character| !character.is_control()).take(URL_TEXT_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_and_queries_are_not_shown() {
        assert_eq!(
            redact_url("https://app:s3cret@crm.example/api/contacts?$filter=name eq 'Ann'#x"),
            "https://crm.example/api/contacts?****"
        );
        assert_eq!(redact_url("not a url?token=s3cret"), "not a url");
        assert_eq!(redact_url("data:text/plain,s3cret"), "data:****");
    }
}
