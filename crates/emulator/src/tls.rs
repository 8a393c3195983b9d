//! TLS with an authority of its own.
//!
//! Promise: the authority's certificate is written to a file that clients can trust; with a data
//! directory it stays the same over restarts, without one it goes when the emulator ends, and what was killed before
//! it could tidy up is tidied up by the next. Left out: client certificates.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

use crate::StartError;
use crate::storage::create_private_dir;

/// The file that tells clients which authority to trust. One that was made for this process goes with it.
#[derive(Debug)]
pub(crate) struct AuthorityFile {
    pub(crate) path: PathBuf,
    is_temporary: bool,
}

impl Drop for AuthorityFile {
    fn drop(&mut self) {
        if self.is_temporary {
            if let Err(error) = fs_err::remove_file(&self.path) {
                tracing::debug!(%error, "authority file not removed");
            }
        }
    }
}

/// An acceptor and the file that holds the authority's certificate.
///
/// Both certificates say whose key they hold and whose key signed them: verifiers that go by RFC 5280 (Python from
/// 3.13 on) ask for it.
pub(crate) fn acceptor(directory: Option<&Path>, host: &str) -> Result<(TlsAcceptor, AuthorityFile), StartError> {
    let (authority, (certificate, server_key)) = certificates(authority_key(directory)?, host)?;
    let file = authority_file(directory, &authority.pem())?;
    let chain = vec![CertificateDer::from(certificate.der().to_vec())];
    let private =
        PrivateKeyDer::try_from(server_key.serialize_der()).map_err(|error| StartError::Tls(error.to_string()))?;
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, private)?;
    Ok((TlsAcceptor::from(Arc::new(config)), file))
}

type Authority = CertifiedIssuer<'static, KeyPair>;

/// The authority, and a certificate of its own for the server, with the server's key.
fn certificates(key: KeyPair, host: &str) -> Result<(Authority, (Certificate, KeyPair)), StartError> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    params.distinguished_name = named("Flowgate emulator authority");
    params.use_authority_key_identifier_extension = true;
    let authority = CertifiedIssuer::self_signed(params, key)?;
    let server_key = KeyPair::generate()?;
    let mut params = CertificateParams::new(vec![
        "localhost".to_owned(),
        "127.0.0.1".to_owned(),
        "::1".to_owned(),
        host.to_owned(),
    ])?;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.distinguished_name = named("Flowgate emulator");
    params.use_authority_key_identifier_extension = true;
    let certificate = params.signed_by(&server_key, &authority)?;
    Ok((authority, (certificate, server_key)))
}

fn named(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

const TEMPORARY_PREFIX: &str = "flowgate-emulator-ca-";

fn authority_file(directory: Option<&Path>, pem: &str) -> std::io::Result<AuthorityFile> {
    /// Several emulators of one process have a file each.
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    if let Some(directory) = directory {
        let path = directory.join("ca.pem");
        fs_err::write(&path, pem)?;
        return Ok(AuthorityFile { path, is_temporary: false });
    }
    let folder = std::env::temp_dir();
    sweep(&folder);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let path = folder.join(format!("{TEMPORARY_PREFIX}{}-{number}.pem", std::process::id()));
    // What a process of the same number left is swept; what somebody put there instead is not written to.
    let mut file = fs_err::OpenOptions::new().write(true).create_new(true).open(&path)?;
    file.write_all(pem.as_bytes())?;
    Ok(AuthorityFile { path, is_temporary: true })
}

/// Removes what killed processes left. Where it cannot be told which processes run, nothing is removed.
fn sweep(folder: &Path) {
    let processes = Path::new("/proc");
    let Ok(entries) = fs_err::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let process = name.to_str().and_then(|name| name.strip_prefix(TEMPORARY_PREFIX)?.strip_suffix(".pem"));
        let process = process.and_then(|process| process.split('-').next()?.parse::<u32>().ok());
        let is_there = |name: &str| processes.join(name).try_exists();
        let knows = matches!(is_there("self"), Ok(true));
        let is_left = process.is_some_and(|process| knows && matches!(is_there(&process.to_string()), Ok(false)));
        if is_left {
            if let Err(error) = fs_err::remove_file(entry.path()) {
                tracing::debug!(%error, "left authority file not removed");
            }
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(der: &[u8], identifier: [u8; 5]) -> bool {
        der.windows(identifier.len()).any(|window| window == identifier)
    }

    #[test]
    fn both_certificates_say_whose_key_they_hold_and_whose_signed_them() {
        let (authority, server) = certificates(KeyPair::generate().unwrap(), "127.0.0.1").unwrap();
        // 2.5.29.14 and 2.5.29.35, as DER writes them.
        for der in [authority.der().as_ref(), server.0.der().as_ref()] {
            assert!(holds(der, [0x06, 0x03, 0x55, 0x1d, 0x0e]) && holds(der, [0x06, 0x03, 0x55, 0x1d, 0x23]));
        }
    }

    #[test]
    fn files_of_processes_that_are_gone_are_swept_and_those_that_run_are_left() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: String| {
            let path = folder.path().join(name);
            fs_err::write(&path, "x").unwrap();
            path
        };
        // No process has the greatest number.
        let left = file(format!("{TEMPORARY_PREFIX}{}-0.pem", u32::MAX));
        let older = file(format!("{TEMPORARY_PREFIX}{}.pem", u32::MAX));
        let ours = file(format!("{TEMPORARY_PREFIX}{}-9.pem", std::process::id()));
        let other = file("other.pem".to_owned());
        sweep(folder.path());
        let there = |path: &PathBuf| path.try_exists().unwrap();
        assert!(!there(&left) && !there(&older) && there(&ours) && there(&other));
    }
}
