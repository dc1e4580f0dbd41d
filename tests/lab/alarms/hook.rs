//! A small HTTPS server: what it answers is said by the test, what it was sent is kept.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;

use openssl::asn1::Asn1Time;
use openssl::bn::BigNum;
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::ssl::{SslAcceptor, SslMethod};
use openssl::x509::extension::{BasicConstraints, SubjectAlternativeName};
use openssl::x509::{X509, X509NameBuilder};

/// What the server does with a request.
#[derive(Debug, Clone)]
pub(crate) enum Answer {
    Status(u16),
    /// Leads there.
    Moved(String),
    /// Says nothing, and keeps the line.
    Nothing,
}

/// The server. It ends with the process.
pub(crate) struct Hook {
    port: u16,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Hook {
    /// Listens with a certificate for `name`, signed by a new authority whose own is written to `ca`. The answers are
    /// given one after the other, the last one for ever.
    pub(crate) fn new(name: &str, ca: &Path, answers: &[Answer]) -> Self {
        let (authority, authority_key) = certificate("authority", None);
        let (own, key) = certificate(name, Some((&authority, &authority_key)));
        std::fs::write(ca, authority.to_pem().unwrap()).unwrap();
        let mut acceptor = SslAcceptor::mozilla_intermediate(SslMethod::tls()).unwrap();
        acceptor.set_certificate(&own).unwrap();
        acceptor.set_private_key(&key).unwrap();
        let acceptor = acceptor.build();
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (kept, answers) = (Arc::clone(&requests), answers.to_vec());
        thread::spawn(move || {
            let mut silent = Vec::new();
            for stream in listener.incoming().flatten() {
                // A client that refuses the certificate is none.
                let Ok(mut stream) = acceptor.accept(stream) else { continue };
                let request = read(&mut stream);
                let mut kept = kept.lock().unwrap();
                let answer = answers.get(kept.len()).or(answers.last()).cloned().unwrap();
                kept.push(request);
                let text = match answer {
                    Answer::Status(status) => format!("HTTP/1.1 {status} X\r\n"),
                    Answer::Moved(to) => format!("HTTP/1.1 302 X\r\nLocation: {to}\r\n"),
                    Answer::Nothing => {
                        silent.push(stream);
                        continue;
                    }
                };
                let _ = stream
                    .write_all(format!("{text}Content-Length: 0\r\nConnection: close\r\n\r\n").as_bytes());
                let _ = stream.shutdown();
            }
        });
        Self { port, requests }
    }

    pub(crate) fn url(&self, host: &str) -> String {
        format!("https://{host}:{}/hook/s3cret-path", self.port)
    }

    /// Everything that was sent so far, whole.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

/// A request with its body.
fn read(stream: &mut openssl::ssl::SslStream<TcpStream>) -> String {
    let mut text = Vec::new();
    let mut piece = [0; 4096];
    loop {
        let whole = String::from_utf8_lossy(&text).into_owned();
        if let Some((head, body)) = whole.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .filter_map(|line| line.split_once(':'))
                .find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
            if length.is_none_or(|(_, length)| body.len() >= length.trim().parse::<usize>().unwrap()) {
                return whole;
            }
        }
        match stream.read(&mut piece) {
            Ok(0) | Err(_) => return whole,
            Ok(count) => text.extend_from_slice(&piece[..count]),
        }
    }
}

/// A certificate, of itself or signed by another.
fn certificate(name: &str, by: Option<(&X509, &PKey<Private>)>) -> (X509, PKey<Private>) {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
    let key = PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap();
    let mut subject = X509NameBuilder::new().unwrap();
    subject.append_entry_by_text("CN", name).unwrap();
    let subject = subject.build();
    let mut builder = X509::builder().unwrap();
    builder.set_version(2).unwrap();
    let serial = BigNum::from_u32(if by.is_some() { 2 } else { 1 }).unwrap().to_asn1_integer().unwrap();
    builder.set_serial_number(&serial).unwrap();
    builder.set_subject_name(&subject).unwrap();
    builder.set_issuer_name(by.map_or(&*subject, |(authority, _)| authority.subject_name())).unwrap();
    builder.set_pubkey(&key).unwrap();
    builder.set_not_before(&Asn1Time::from_unix(1_600_000_000).unwrap()).unwrap();
    builder.set_not_after(&Asn1Time::days_from_now(2).unwrap()).unwrap();
    if by.is_some() {
        let mut names = SubjectAlternativeName::new();
        match name.parse::<std::net::IpAddr>() {
            Ok(_) => names.ip(name),
            Err(_) => names.dns(name),
        };
        let names =
            names.build(&builder.x509v3_context(by.map(|(authority, _)| &**authority), None)).unwrap();
        builder.append_extension(names).unwrap();
    } else {
        builder.append_extension(BasicConstraints::new().critical().ca().build().unwrap()).unwrap();
    }
    builder.sign(by.map_or(&key, |(_, key)| key), MessageDigest::sha256()).unwrap();
    (builder.build(), key)
}
