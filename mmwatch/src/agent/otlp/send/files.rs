//! What requests need from files: headers, and whose certificates are trusted.

use std::{path::Path, sync::Arc};

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject as _},
};

use crate::{
    agent::trusted::{self, Readers},
    error::{Error, Result},
};

/// Reads headers, one `name: value` a line. Empty lines and those with `#` first say nothing.
///
/// # Errors
///
/// [`Error::Usage`] where the file cannot be read or trusted ([`trusted::read`]), or has
/// something else in it.
pub(super) fn headers(path: &Path) -> Result<HeaderMap> {
    let wrong = |what: String| Error::Usage(format!("the headers file {}: {what}", path.display()));
    let text =
        trusted::read_text(path, Readers::Group).map_err(|error| wrong(error.to_string()))?;
    let mut headers = HeaderMap::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        // Its value is a secret, and stays out of the message.
        let (name, value) = header(line).ok_or_else(|| {
            wrong(format!(
                "line {} is no header; write `name: value`",
                number + 1
            ))
        })?;
        headers.append(name, value);
    }
    Ok(headers)
}

fn header(line: &str) -> Option<(HeaderName, HeaderValue)> {
    let (name, value) = line.split_once(':')?;
    let mut value: HeaderValue = value.trim().parse().ok()?;
    value.set_sensitive(true);
    Some((name.trim().parse().ok()?, value))
}

/// Those in a PEM file.
///
/// # Errors
///
/// [`Error::Usage`] where it cannot be read, or has none in it.
pub(super) fn authorities(path: &Path) -> Result<RootCertStore> {
    let wrong = |what: String| Error::Usage(format!("the CA file {}: {what}", path.display()));
    let mut store = RootCertStore::empty();
    let certificates =
        CertificateDer::pem_file_iter(path).map_err(|error| wrong(error.to_string()))?;
    for certificate in certificates {
        let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
        store
            .add(certificate)
            .map_err(|error| wrong(error.to_string()))?;
    }
    if store.is_empty() {
        return Err(wrong("there is no certificate in it".to_owned()));
    }
    Ok(store)
}

/// Those that this system trusts.
///
/// # Errors
///
/// [`Error::Usage`] where it trusts none.
pub(super) fn system_authorities() -> Result<RootCertStore> {
    let found = rustls_native_certs::load_native_certs();
    for error in &found.errors {
        log::debug!("certificates: {error}");
    }
    let mut store = RootCertStore::empty();
    // One that cannot be understood is of no use to anybody.
    store.add_parsable_certificates(found.certs);
    if store.is_empty() {
        return Err(Error::Usage(
            "this system has no certificates to trust; install the package ca-certificates, or \
             name an otlp.ca_file"
                .to_owned(),
        ));
    }
    Ok(store)
}

/// None, where nothing is encrypted.
pub(super) fn no_authorities() -> RootCertStore {
    RootCertStore::empty()
}

/// What TLS is done with.
///
/// # Errors
///
/// None with the versions and ciphers that are built in.
pub(super) fn tls(authorities: RootCertStore) -> Result<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::Usage(format!("TLS: {error}")))?;
    Ok(builder
        .with_root_certificates(authorities)
        .with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use std::{fs, fs::Permissions, os::unix::fs::PermissionsExt as _};

    use super::*;

    #[test]
    fn headers_are_read_and_kept_secret() {
        let path = std::env::temp_dir().join(format!("mmwatch-headers-{}", std::process::id()));
        let read = |text: &str, mode| {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
            headers(&path)
        };
        let found = read(
            "# who we are\nAuthorization: Bearer a:b\n\nx-scope:1\n",
            0o600,
        )
        .unwrap();
        assert_eq!(found["authorization"], "Bearer a:b");
        assert_eq!(found["x-scope"], "1");
        assert_eq!(found.len(), 2);
        assert!(!format!("{found:?}").contains("Bearer"));
        let reason = |result: Result<HeaderMap>| result.unwrap_err().to_string();
        assert!(reason(read("a: b", 0o604)).contains("chmod 600"));
        let nameless = reason(read("a: b\nsecret", 0o600));
        assert!(nameless.ends_with("line 2 is no header; write `name: value`"));
        assert!(!nameless.contains("secret"));
        assert!(reason(read("a b: c", 0o600)).contains("line 1"));
        fs::remove_file(&path).unwrap();
        assert!(reason(headers(&path)).contains("No such file"));
    }

    #[test]
    fn a_file_without_certificates_is_no_ca_file() {
        let path = std::env::temp_dir().join(format!("mmwatch-ca-{}", std::process::id()));
        let reason = |path: &Path| authorities(path).unwrap_err().to_string();
        fs::write(&path, "nothing").unwrap();
        assert!(reason(&path).ends_with("there is no certificate in it"));
        fs::remove_file(&path).unwrap();
        assert!(reason(&path).contains("No such file"));
    }
}
