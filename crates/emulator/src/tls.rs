//! TLS with an authority of its own.
//!
//! Promise: the authority's certificate is written to a file that clients can trust; with a data
//! directory it stays the same over restarts. Left out: client certificates.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use crate::StartError;
use crate::storage::create_private_dir;

/// An acceptor and the file that holds the authority's certificate.
pub(crate) fn acceptor(directory: Option<&Path>, host: &str) -> Result<(TlsAcceptor, PathBuf), StartError> {
    let key = authority_key(directory)?;
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    params.distinguished_name.push(DnType::CommonName, "Flowgate emulator authority");
    let authority = CertifiedIssuer::self_signed(params, key)?;
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), host.to_owned()];
    let server_key = KeyPair::generate()?;
    let certificate = CertificateParams::new(names)?.signed_by(&server_key, &authority)?;
    let file = match directory {
        Some(directory) => directory.join("ca.pem"),
        None => std::env::temp_dir().join(format!("flowgate-emulator-ca-{}.pem", std::process::id())),
    };
    fs_err::write(&file, authority.pem())?;
    let chain = vec![CertificateDer::from(certificate.der().to_vec())];
    let private =
        PrivateKeyDer::try_from(server_key.serialize_der()).map_err(|error| StartError::Tls(error.to_string()))?;
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, private)?;
    Ok((TlsAcceptor::from(Arc::new(config)), file))
}

/// The authority's key: kept in the data directory, made where there is none.
fn authority_key(directory: Option<&Path>) -> Result<KeyPair, StartError> {
    let Some(directory) = directory else {
        return Ok(KeyPair::generate()?);
    };
    let file = directory.join("ca.key");
    match fs_err::read_to_string(&file) {
        Ok(pem) => Ok(KeyPair::from_pem(&pem)?),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let key = KeyPair::generate()?;
            create_private_dir(directory)?;
            fs_err::write(&file, key.serialize_pem())?;
            Ok(key)
        }
        Err(error) => Err(error.into()),
    }
}
