//! TLS as libpq has it: `sslmode`, and the files that go with it.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use openssl::ssl::{SslConnector, SslFiletype, SslMethod, SslVerifyMode};
use openssl::x509::store::X509StoreBuilder;
use postgres_openssl::MakeTlsConnector;

/// libpq's `sslmode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TlsMode {
    Disable,
    /// TLS where the server has it, nothing verified. libpq's `allow` is treated as this.
    Prefer,
    Require,
    VerifyCa,
    VerifyFull,
}

/// What TLS is to be, and what it needs.
#[derive(Clone)]
pub(super) struct Tls {
    pub(super) verify: TlsMode,
    pub(super) root: Option<PathBuf>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
    /// Made once for all sessions: each would read the machine's certificates anew, half a MiB of them.
    made: Arc<Mutex<Option<MakeTlsConnector>>>,
}

impl Tls {
    pub(super) fn new(
        mode: Option<&str>,
        file: impl Fn(&str, &str) -> Option<PathBuf>,
    ) -> Result<Self, String> {
        let verify = match mode.unwrap_or("prefer") {
            "disable" => TlsMode::Disable,
            "allow" | "prefer" => TlsMode::Prefer,
            "require" => TlsMode::Require,
            "verify-ca" => TlsMode::VerifyCa,
            "verify-full" => TlsMode::VerifyFull,
            other => {
                return Err(format!(
                    "sslmode `{other}` is none of disable, allow, prefer, require, verify-ca, verify-full"
                ));
            }
        };
        let root = file("sslrootcert", "PGSSLROOTCERT");
        // As libpq: `require` with a root certificate means verify-ca.
        let verify = if verify == TlsMode::Require && root.is_some() { TlsMode::VerifyCa } else { verify };
        let (cert, key) = (file("sslcert", "PGSSLCERT"), file("sslkey", "PGSSLKEY"));
        Ok(Self { verify, root, cert, key, made: Arc::default() })
    }

    /// For a session: from the second on as the first one made it.
    pub(super) fn connector(&self) -> Result<MakeTlsConnector, String> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(connector) = &*made {
            return Ok(connector.clone());
        }
        Ok(made.insert(self.make()?).clone())
    }

    fn make(&self) -> Result<MakeTlsConnector, String> {
        let words = |error: openssl::error::ErrorStack| error.to_string();
        let mut builder = SslConnector::builder(SslMethod::tls()).map_err(words)?;
        if let Some(root) = self.root.as_ref().filter(|root| root.as_os_str() != "system") {
            builder.set_ca_file(root).map_err(|error| format!("{}: {error}", root.display()))?;
        }
        if let (Some(cert), Some(key)) = (&self.cert, &self.key) {
            builder
                .set_certificate_chain_file(cert)
                .map_err(|error| format!("{}: {error}", cert.display()))?;
            builder
                .set_private_key_file(key, SslFiletype::PEM)
                .map_err(|error| format!("{}: {error}", key.display()))?;
        }
        let verified = matches!(self.verify, TlsMode::VerifyCa | TlsMode::VerifyFull);
        if !verified && self.cert.is_none() {
            // Nothing is held against the certificates of this machine, all of which the library has read.
            builder.set_cert_store(X509StoreBuilder::new().map_err(words)?.build());
        }
        builder.set_verify(if verified { SslVerifyMode::PEER } else { SslVerifyMode::NONE });
        let mut connector = MakeTlsConnector::new(builder.build());
        let full = self.verify == TlsMode::VerifyFull;
        connector.set_callback(move |ssl, _| {
            ssl.set_verify_hostname(full);
            Ok(())
        });
        Ok(connector)
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { verify, root, cert, key, made: _ } = self;
        let mut all = f.debug_struct("Tls");
        all.field("verify", verify).field("root", root).field("cert", cert).field("key", key);
        all.finish_non_exhaustive()
    }
}
