//! Being let in, by public key: first what the agent holds, then key files.
//!
//! Of the agent, keys that the configuration names come first, since servers count every key that they refuse
//! (`MaxAuthTries`, 6 by default). A refused login is final: newer servers punish the next attempt.

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use libssh2_sys as raw;
use ssh2::{Agent, ErrorCode, Session};

use super::bounded::Stage;
use super::config::Target;
use super::keys::{KeyFile, PublicKey};
use super::session::{failed, is_loss, is_timeout, milliseconds};
use super::{Ask, Options};
use crate::remote::{KeyProblem, RemoteError};

/// Passphrases that were asked for, so that each is asked once, however many sessions are opened.
#[derive(Clone)]
pub(super) struct Passphrases {
    ask: Ask,
    given: Arc<Mutex<HashMap<PathBuf, Option<String>>>>,
}

impl Passphrases {
    pub(super) fn new(ask: Ask) -> Self {
        Self { ask, given: Arc::default() }
    }

    /// Others who need a passphrase wait here while a person is asked.
    fn of(&self, path: &Path) -> Option<String> {
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        given.entry(path.into()).or_insert_with(|| (self.ask)(path)).clone()
    }
}

/// Asks on the terminal, where there is one.
pub(super) fn ask_terminal(path: &Path) -> Option<String> {
    OpenOptions::new().read(true).write(true).open("/dev/tty").ok()?;
    rpassword::prompt_password(format!("Passphrase for {}: ", path.display())).ok()
}

/// Logs in.
///
/// # Errors
/// [`RemoteError::KeyFile`] where a key that was never tried might have been the right one, otherwise
/// [`RemoteError::AuthenticationFailed`] with everything that was.
pub(super) fn log_in(
    session: &Session,
    target: &Target,
    options: &Options,
    passphrases: &Passphrases,
    stage: &Stage,
) -> Result<(), RemoteError> {
    session.set_timeout(milliseconds(options.auth_timeout));
    let methods = match session.auth_methods(&target.user) {
        Ok(methods) => methods.to_owned(),
        Err(_) if session.authenticated() => return Ok(()),
        Err(error) => return Err(failed(target, "authentication", options.auth_timeout, &error)),
    };
    let mut login =
        Login { session, target, options, passphrases, stage, tried: vec![], keys: vec![], unusable: None };
    if methods.split(',').any(|method| method == "publickey") && login.by_key()? {
        return Ok(());
    }
    if let Some((path, problem)) = login.unusable {
        return Err(RemoteError::KeyFile { host: target.host.clone(), path, problem });
    }
    Err(RemoteError::AuthenticationFailed {
        host: target.host.clone(),
        user: target.user.clone(),
        methods: if methods.is_empty() { "nothing".into() } else { methods },
        tried: login.tried,
    })
}

/// One attempt to be let in.
struct Login<'a> {
    session: &'a Session,
    target: &'a Target,
    options: &'a Options,
    passphrases: &'a Passphrases,
    stage: &'a Stage,
    /// What was tried or passed over, for the error.
    tried: Vec<String>,
    /// Keys that the server has refused already.
    keys: Vec<PublicKey>,
    unusable: Option<(PathBuf, KeyProblem)>,
}

/// What a server said to one key.
enum Answer {
    In,
    No,
    HungUp,
}

impl Login<'_> {
    fn by_key(&mut self) -> Result<bool, RemoteError> {
        let files = self.files();
        match self.by_agent(&files)? {
            Answer::In => return Ok(true),
            Answer::HungUp => return Ok(false),
            Answer::No => {}
        }
        for (path, file) in &files {
            match self.by_file(path, file)? {
                Answer::In => return Ok(true),
                Answer::HungUp => return Ok(false),
                Answer::No => {}
            }
        }
        Ok(false)
    }

    /// The key files that are there.
    fn files(&mut self) -> Vec<(PathBuf, KeyFile)> {
        let mut files = Vec::new();
        for identity in &self.target.identities {
            match KeyFile::look_at(&identity.path) {
                Ok(file) => files.push((identity.path.clone(), file)),
                Err(error) if identity.explicit => {
                    self.tried.push(format!("{}: {error}", identity.path.display()));
                }
                // ssh's defaults: most of them are usually absent.
                Err(_) => {}
            }
        }
        files
    }

    fn by_agent(&mut self, files: &[(PathBuf, KeyFile)]) -> Result<Answer, RemoteError> {
        let Some((agent, mut identities)) = self.agent() else { return Ok(Answer::No) };
        let named = |key: &ssh2::PublicKey| {
            files.iter().position(|(_, file)| file.public.as_ref().is_some_and(|p| p.blob() == key.blob()))
        };
        if self.target.identities_only {
            identities.retain(|key| named(key).is_some());
        }
        identities.sort_by_key(|key| named(key).unwrap_or(usize::MAX));
        for identity in identities {
            let Some(key) = PublicKey::from_blob(identity.blob()) else { continue };
            let what = format!("{} {} of the agent", key.kind(), key.fingerprint());
            let result = agent.userauth(&self.target.user, &identity);
            self.keys.push(key);
            match self.answer(what, result)? {
                Answer::No => {}
                answer @ (Answer::In | Answer::HungUp) => return Ok(answer),
            }
        }
        Ok(Answer::No)
    }

    /// The agent and all it holds, if there is one that answers.
    fn agent(&mut self) -> Option<(Agent, Vec<ssh2::PublicKey>)> {
        let path = self.target.agent.as_deref()?;
        let open = || -> Result<_, ssh2::Error> {
            let mut agent = self.session.agent()?;
            agent.set_identity_path(path)?;
            agent.connect()?;
            agent.list_identities()?;
            let identities = agent.identities()?;
            Ok((agent, identities))
        };
        match open() {
            Ok(agent) => Some(agent),
            Err(error) => {
                self.tried.push(format!("the agent at {}: {}", path.display(), error.message()));
                None
            }
        }
    }

    fn by_file(&mut self, path: &Path, file: &KeyFile) -> Result<Answer, RemoteError> {
        if !file.private || file.public.as_ref().is_some_and(|key| self.keys.contains(key)) {
            return Ok(Answer::No);
        }
        let passphrase = match file.encrypted {
            // Never without one: libssh2 hands OpenSSL a null pointer then.
            false => Some(String::new()),
            true => {
                self.stage.asks_a_person();
                let passphrase = self.passphrases.of(path);
                self.stage.begins("authentication", self.options.auth_timeout);
                passphrase
            }
        };
        let Some(passphrase) = passphrase else {
            self.cannot_use(path, KeyProblem::PassphraseNeeded);
            return Ok(Answer::No);
        };
        let result = self.session.userauth_pubkey_file(&self.target.user, None, path, Some(&passphrase));
        if let Err(error) = &result
            && matches!(
                error.code(),
                ErrorCode::Session(raw::LIBSSH2_ERROR_FILE | raw::LIBSSH2_ERROR_KEYFILE_AUTH_FAILED)
            )
        {
            // libssh2 calls a wrong passphrase an unsupported format.
            let problem = if file.encrypted { KeyProblem::WrongPassphrase } else { KeyProblem::Unsupported };
            self.cannot_use(path, problem);
            return Ok(Answer::No);
        }
        self.keys.extend(file.public.clone());
        self.answer(format!("the key file {}", path.display()), result)
    }

    fn cannot_use(&mut self, path: &Path, problem: KeyProblem) {
        self.tried.push(format!("the key file {} {problem}", path.display()));
        self.unusable.get_or_insert_with(|| (path.into(), problem));
    }

    fn answer(&mut self, what: String, result: Result<(), ssh2::Error>) -> Result<Answer, RemoteError> {
        match result {
            Ok(()) if self.session.authenticated() => Ok(Answer::In),
            Ok(()) => {
                self.tried.push(format!("{what} (accepted, but not enough alone)"));
                Ok(Answer::No)
            }
            Err(error) if is_timeout(&error) => {
                Err(failed(self.target, "authentication", self.options.auth_timeout, &error))
            }
            Err(error) if hung_up(&error) => {
                self.tried
                    .push(format!("{what} (then the server hung up: MaxAuthTries? IdentitiesOnly helps)"));
                Ok(Answer::HungUp)
            }
            Err(error) => {
                let refused =
                    matches!(error.code(), ErrorCode::Session(raw::LIBSSH2_ERROR_AUTHENTICATION_FAILED))
                        || error.message().starts_with("Invalid signature");
                let why = if refused { String::new() } else { format!(" ({})", error.message()) };
                self.tried.push(what + &why);
                Ok(Answer::No)
            }
        }
    }
}

/// Did the server hang up? libssh2 calls that "unverified" while it waits for an answer to a key.
fn hung_up(error: &ssh2::Error) -> bool {
    let unverified = error.code() == ErrorCode::Session(raw::LIBSSH2_ERROR_PUBLICKEY_UNVERIFIED);
    is_loss(error) || (unverified && error.message().starts_with("Waiting for"))
}
